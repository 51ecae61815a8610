//! A source that makes its files up: whatever is below `s<set>/<index>-<bytes>` exists, has that many
//! bytes, and each byte follows from its path and its place.

use std::collections::VecDeque;

use copper_engine::ports::{Source, SourceDone, SourceReply, SourceWork};
use copper_proto::limits::BLOCK_BYTES;
use copper_proto::{Attributes, Entry, Errno, FileKind, JobId, Key, Timestamp, ViewPath, What};
use twox_hash::XxHash3_64;

use super::orders::Files;

/// Odd, so that no two words of a block are alike (2^64 over the golden ratio).
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// The directory of a set.
pub(super) fn directory(files: Files) -> Box<[u8]> {
    format!("s{}", files.set).into_bytes().into()
}

/// The name of a file of a set.
pub(super) fn name(files: Files, index: u32) -> Box<[u8]> {
    format!("{index}-{}", files.bytes).into_bytes().into()
}

/// The bytes of a file from `offset`, a multiple of 8.
pub(super) fn fill(inode: u64, offset: u64, into: &mut [u8]) {
    let mut word = inode.wrapping_add((offset / 8).wrapping_mul(STEP));
    let mut words = into.chunks_exact_mut(8);
    for bytes in &mut words {
        bytes.copy_from_slice(&word.to_le_bytes());
        word = word.wrapping_add(STEP);
    }
    let rest = words.into_remainder();
    let len = rest.len();
    rest.copy_from_slice(&word.to_le_bytes()[..len]);
}

/// Answers at once, on the engine's thread.
pub(super) struct Synthetic<F> {
    done: VecDeque<SourceDone<F>>,
}

impl<F> Default for Synthetic<F> {
    fn default() -> Synthetic<F> {
        Synthetic { done: VecDeque::new() }
    }
}

impl<F: AsRef<[u8]> + AsMut<[u8]>> Source<F> for Synthetic<F> {
    fn submit(&mut self, job: JobId, key: &Key, work: SourceWork<F>) {
        let result = match (work, key.what) {
            (SourceWork::Entry, _) => match attributes(&key.path) {
                Some(attributes) => Ok(SourceReply::Present(Entry { attributes, target: None })),
                None => Ok(SourceReply::Absent),
            },
            (SourceWork::Block(mut extent), What::Block { index, .. }) => {
                let inode = inode(&key.path);
                fill(inode, index.offset(), extent.as_mut());
                let checksum = XxHash3_64::oneshot(extent.as_ref());
                Ok(SourceReply::Block(extent, checksum))
            }
            // Its directories cannot be listed: every name is asked for by itself.
            (SourceWork::Encoded | SourceWork::Statistics | SourceWork::Block(_), _) => {
                Err(Errno::EACCES)
            }
        };
        self.done.push_back(SourceDone { job, result });
    }

    fn poll(&mut self) -> Option<SourceDone<F>> {
        self.done.pop_front()
    }
}

fn inode(path: &ViewPath) -> u64 {
    XxHash3_64::oneshot(path.as_bytes())
}

fn attributes(path: &ViewPath) -> Option<Attributes> {
    let (kind, size) = match path.split() {
        None => (FileKind::Directory, 0),
        Some((parent, name)) if parent == ViewPath::root() => {
            (name.first() == Some(&b's')).then_some((FileKind::Directory, 0))?
        }
        Some((_, name)) => {
            let (_, bytes) = std::str::from_utf8(name).ok()?.split_once('-')?;
            (FileKind::Regular, bytes.parse().ok()?)
        }
    };
    let moment = Timestamp { seconds: 1_700_000_000, nanos: 0 };
    Some(Attributes {
        kind,
        permissions: 0o555,
        links: 1,
        uid: 0,
        gid: 0,
        device_number: 0,
        size,
        sectors: size.div_ceil(512),
        io_bytes: BLOCK_BYTES,
        accessed: moment,
        modified: moment,
        changed: moment,
        device: 1,
        inode: inode(path),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_files_bytes_do_not_depend_on_how_it_is_cut() {
        let mut whole = vec![0; 100];
        fill(7, 0, &mut whole);
        let mut part = vec![0; 44];
        fill(7, 56, &mut part);
        assert_eq!(whole[56..], part);
        fill(8, 56, &mut part);
        assert_ne!(whole[56..], part);
    }
}
