//! A directory snapshot: the names, types and inode numbers of a directory's entries in the
//! source's order and, up to a size, their attributes and link targets, as one object that moves
//! like a block.
//!
//! A snapshot is immutable and complete: a name that it does not have does not exist, and an
//! offset of `readdir` is an index into it.

use std::fmt;
use std::sync::Arc;

use crate::attributes::{Entry, FileKind};
use crate::encoding::{Fields, Malformed, put_bytes, put_u8, put_u64};
use crate::limits::NAME_BYTES_MAX;

const HEADER_BYTES: usize = 4;
const HAS_ENTRY: u8 = 0x80;

/// Collects entries at the source and encodes them.
#[derive(Debug)]
pub struct DirectoryBuilder {
    bytes: Vec<u8>,
    count: u32,
}

impl Default for DirectoryBuilder {
    fn default() -> DirectoryBuilder {
        DirectoryBuilder { bytes: vec![0; HEADER_BYTES], count: 0 }
    }
}

impl DirectoryBuilder {
    /// Appends an entry; `name` is at most [`NAME_BYTES_MAX`] bytes, as Linux guarantees. `entry`
    /// has the attributes, if the directory is small enough to carry them.
    pub fn push(&mut self, name: &[u8], kind: FileKind, inode: u64, entry: Option<&Entry>) {
        let flags = if entry.is_some() { HAS_ENTRY } else { 0 };
        put_u8(&mut self.bytes, kind.bits() | flags);
        put_u64(&mut self.bytes, inode);
        put_bytes(&mut self.bytes, name);
        if let Some(entry) = entry {
            entry.encode(&mut self.bytes);
        }
        self.count += 1;
    }

    /// The encoded snapshot.
    pub fn finish(mut self) -> Vec<u8> {
        self.bytes[..HEADER_BYTES].copy_from_slice(&self.count.to_le_bytes());
        self.bytes
    }
}

/// One entry of a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirectoryEntry<'a> {
    /// Its name; no slash, never `.` or `..`.
    pub name: &'a [u8],
    /// Its type.
    pub kind: FileKind,
    /// The source's inode number, as `readdir` gave it.
    pub inode: u64,
    /// Its attributes, if the snapshot carries them and the source gave them.
    pub entry: Option<Entry>,
}

/// A decoded snapshot.
#[derive(Clone, PartialEq, Eq)]
pub struct Directory {
    bytes: Arc<[u8]>,
    /// Where each entry begins, in the source's order.
    starts: Vec<u32>,
    /// Indices into `starts`, sorted by name.
    by_name: Vec<u32>,
}

impl Directory {
    /// Takes an encoded snapshot that came from outside.
    ///
    /// # Errors
    /// If it is not one: every entry is checked, so that no later access can fail.
    pub fn decode(bytes: &[u8]) -> Result<Directory, Malformed> {
        let mut fields = Fields::new(bytes, "directory");
        let count = fields.u32()?;
        let mut starts = Vec::with_capacity((count as usize).min(bytes.len() / 11));
        for _ in 0..count {
            let start = bytes.len() - fields.rest().len();
            starts.push(u32::try_from(start).map_err(|_| fields.malformed())?);
            let entry = decode_entry(&mut fields)?;
            if entry.name.is_empty() || entry.name.contains(&b'/') || entry.name.contains(&0) {
                return Err(fields.malformed());
            }
        }
        fields.end()?;
        let mut by_name: Vec<u32> = (0..count).collect();
        by_name.sort_unstable_by_key(|&index| name_at(bytes, starts[index as usize]));
        let unique = by_name.windows(2).all(|pair| {
            name_at(bytes, starts[pair[0] as usize]) != name_at(bytes, starts[pair[1] as usize])
        });
        if !unique {
            return Err(Malformed("directory with a name twice"));
        }
        Ok(Directory { bytes: Arc::from(bytes), starts, by_name })
    }

    /// Number of entries, without `.` and `..`.
    pub fn len(&self) -> usize {
        self.starts.len()
    }

    /// Whether there is no entry.
    pub fn is_empty(&self) -> bool {
        self.starts.is_empty()
    }

    /// Bytes that this snapshot takes in memory.
    pub fn memory_bytes(&self) -> usize {
        self.bytes.len() + 8 * self.starts.len()
    }

    /// The entry at a position in the source's order.
    pub fn get(&self, index: usize) -> Option<DirectoryEntry<'_>> {
        let start = *self.starts.get(index)? as usize;
        let mut fields = Fields::new(&self.bytes[start..], "directory");
        Some(decode_entry(&mut fields).expect("decode checked every entry"))
    }

    /// The position of a name; `None` proves that it does not exist.
    pub fn find(&self, name: &[u8]) -> Option<usize> {
        let found = self.by_name.binary_search_by_key(&name, |&index| {
            name_at(&self.bytes, self.starts[index as usize])
        });
        found.ok().map(|position| self.by_name[position] as usize)
    }
}

impl fmt::Debug for Directory {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Directory({} entries)", self.len())
    }
}

fn decode_entry<'a>(fields: &mut Fields<'a>) -> Result<DirectoryEntry<'a>, Malformed> {
    let tag = fields.u8()?;
    let kind = FileKind::from_bits(tag & !HAS_ENTRY).ok_or_else(|| fields.malformed())?;
    let inode = fields.u64()?;
    let name = fields.bytes(NAME_BYTES_MAX)?;
    let entry = if tag & HAS_ENTRY != 0 { Some(Entry::decode(fields)?) } else { None };
    Ok(DirectoryEntry { name, kind, inode, entry })
}

/// The name of the entry that begins at `start`, which [`Directory::decode`] has checked.
fn name_at(bytes: &[u8], start: u32) -> &[u8] {
    let len_at = start as usize + 1 + 8;
    let len = usize::from(u16::from_le_bytes([bytes[len_at], bytes[len_at + 1]]));
    &bytes[len_at + 2..len_at + 2 + len]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attributes::{Attributes, Timestamp};

    fn attributes(kind: FileKind) -> Attributes {
        let time = Timestamp { seconds: -5, nanos: 999_999_999 };
        Attributes {
            kind,
            permissions: 0o755,
            links: 2,
            uid: 1000,
            gid: 100,
            device_number: 0,
            size: 1 << 40,
            sectors: 8,
            io_bytes: 4096,
            accessed: time,
            modified: time,
            changed: time,
            device: 7,
            inode: 42,
        }
    }

    #[test]
    fn what_goes_in_comes_out_in_order_and_by_name() {
        let link =
            Entry { attributes: attributes(FileKind::Link), target: Some(Arc::from(&b"../x"[..])) };
        let file = Entry { attributes: attributes(FileKind::Regular), target: None };
        let mut builder = DirectoryBuilder::default();
        builder.push(b"z", FileKind::Link, 1, Some(&link));
        builder.push(b"a\xff\n", FileKind::Regular, 2, Some(&file));
        builder.push(b"m", FileKind::Directory, 3, None);
        let directory = Directory::decode(&builder.finish()).expect("well-formed");

        assert_eq!(directory.len(), 3);
        let first = directory.get(0).expect("three entries");
        assert_eq!((first.name, first.inode, first.entry), (&b"z"[..], 1, Some(link)));
        assert_eq!(directory.find(b"a\xff\n"), Some(1));
        assert_eq!(directory.find(b"m"), Some(2));
        assert_eq!(directory.find(b"absent"), None);
        assert_eq!(directory.get(2).expect("three entries").entry, None);
        assert_eq!(directory.get(3), None);
    }

    #[test]
    fn a_damaged_snapshot_is_refused_or_well_formed_but_never_a_panic() {
        let mut builder = DirectoryBuilder::default();
        let file = Entry { attributes: attributes(FileKind::Regular), target: None };
        builder.push(b"one", FileKind::Regular, 2, Some(&file));
        builder.push(b"two", FileKind::Directory, 3, None);
        let good = builder.finish();
        for len in 0..good.len() {
            assert!(Directory::decode(&good[..len]).is_err(), "cut at {len}");
        }
        for at in 0..good.len() {
            for flip in [1, 0x80, 0xff] {
                let mut bad = good.clone();
                bad[at] ^= flip;
                if let Ok(directory) = Directory::decode(&bad) {
                    for index in 0..directory.len() {
                        assert!(directory.get(index).is_some());
                    }
                }
            }
        }
        let mut twice = DirectoryBuilder::default();
        twice.push(b"same", FileKind::Regular, 1, None);
        twice.push(b"same", FileKind::Regular, 2, None);
        assert!(Directory::decode(&twice.finish()).is_err());
    }
}
