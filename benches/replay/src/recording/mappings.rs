//! Which addresses of a process hold which mapping.

use crate::trace::{Area, MapId};

/// Addresses that hold a part of a mapping.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    pub(crate) map: MapId,
    pub(crate) start: u64,
    pub(crate) end: u64,
    /// Where the whole mapping begins, and what of the file lies there.
    base: u64,
    offset: u64,
}

impl Piece {
    /// Where in the file an address of this piece is.
    pub(crate) fn offset_of(&self, address: u64) -> u64 {
        self.offset + (address - self.base)
    }
}

/// The mappings of one process that are followed.
#[derive(Clone, Debug, Default)]
pub(crate) struct Mappings(Vec<Piece>);

impl Mappings {
    pub(crate) fn pieces(&self) -> &[Piece] {
        &self.0
    }

    pub(crate) fn holds(&self, map: MapId) -> bool {
        self.0.iter().any(|piece| piece.map == map)
    }

    /// Adds a mapping at addresses that hold none.
    pub(crate) fn add(&mut self, map: MapId, base: u64, area: &Area) {
        let end = base + area.length;
        self.0.push(Piece { map, start: base, end, base, offset: area.offset });
    }

    /// Takes addresses away. Gives the mappings of which nothing is left.
    pub(crate) fn cut(&mut self, start: u64, length: u64) -> Vec<MapId> {
        let page = rustix::param::page_size() as u64;
        let end = start.saturating_add(length.next_multiple_of(page));
        let mut gone = Vec::new();
        let mut kept = Vec::with_capacity(self.0.len() + 1);
        for piece in self.0.drain(..) {
            if piece.end <= start || end <= piece.start {
                kept.push(piece);
                continue;
            }
            gone.push(piece.map);
            if piece.start < start {
                kept.push(Piece { end: start, ..piece.clone() });
            }
            if end < piece.end {
                kept.push(Piece { start: end, ..piece });
            }
        }
        self.0 = kept;
        gone.dedup();
        gone.retain(|map| !self.holds(*map));
        gone
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::{Letters, Sharing};

    const PAGE: u64 = 64 << 10;

    fn mapped() -> Mappings {
        let mut mappings = Mappings::default();
        let area = Area {
            offset: PAGE,
            length: 4 * PAGE,
            phase: 0,
            protection: Letters::default(),
            sharing: Sharing::Private,
        };
        mappings.add(MapId(1), 100 * PAGE, &area);
        mappings
    }

    #[test]
    fn a_hole_leaves_two_pieces_at_their_offsets() {
        let mut mappings = mapped();
        assert_eq!(mappings.cut(101 * PAGE, PAGE), []);
        let ranges: Vec<_> = mappings
            .pieces()
            .iter()
            .map(|piece| {
                (piece.start / PAGE, piece.end / PAGE, piece.offset_of(piece.start) / PAGE)
            })
            .collect();
        assert_eq!(ranges, [(100, 101, 1), (102, 104, 3)]);
    }

    #[test]
    fn a_mapping_is_gone_with_its_last_piece() {
        let mut mappings = mapped();
        assert_eq!(mappings.cut(90 * PAGE, 10 * PAGE), []);
        assert_eq!(mappings.cut(104 * PAGE, PAGE), []);
        assert_eq!(mappings.cut(102 * PAGE, PAGE), []);
        assert_eq!(mappings.cut(99 * PAGE, 3 * PAGE), []);
        assert_eq!(mappings.cut(103 * PAGE, PAGE - 1), [MapId(1)]);
        assert!(mappings.pieces().is_empty());
    }
}
