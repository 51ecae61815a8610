//! Listings that bring attributes, so that the kernel needs no look-up for what it lists.
//!
//! An entry whose attributes are not known here is listed without them: its `nodeid` is 0, its
//! `ino` is not (a listing with `d_ino` 0 loses the name: glibc up to 2.36 and Go skip it). fuser
//! writes one number into both fields, so a reply with such an entry is encoded here and written
//! to the device directly; fuser's own reply to the same request, which has to be used up, then
//! finds no request and has no effect. Request numbers are never reused.
//!
//! References: [`View::entry`] counts one for the kernel. It is given back when the entry did not
//! fit. `.` and `..` count none (fuse_direntplus_link in fs/fuse/readdir.c).

use std::ops::Range;
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

use copper_engine::{Found, InodeNumber, View};
use copper_proto::{Attributes, Directory};
use fuser::{FileAttr, INodeNo, ReplyDirectoryPlus};
use tracing::debug;

use super::Context;
use super::call::Call;
use super::listing::{At, at};
use super::outcome::GENERATION;
use crate::attributes::{absence, file_attributes, file_type, kernel_device};

/// An entry that fits.
struct Row<'a> {
    at: At<'a>,
    number: InodeNumber,
    found: Option<Found>,
    next: u64,
}

impl Row<'_> {
    /// Whether the kernel would link it under a number that counts no reference.
    fn is_unknown(&self) -> bool {
        matches!(self.at, At::Entry { .. }) && self.found.is_none()
    }

    fn attributes(&self) -> FileAttr {
        match &self.found {
            Some(found) => file_attributes(found.inode, &found.attributes),
            None => FileAttr {
                ino: INodeNo(self.number.0),
                kind: file_type(self.at.kind()),
                ..absence()
            },
        }
    }
}

/// Replies with the entries at these positions, as many as fit.
pub(super) fn reply<V: View>(
    context: &Context<V>,
    call: &Call,
    inode: InodeNumber,
    directory: &Directory,
    positions: Range<u64>,
    mut reply: ReplyDirectoryPlus,
) {
    let (view, keep) = (&*context.view, context.policy().keep);
    let mut rows = Vec::new();
    let mut position = positions.start;
    while position < positions.end
        && let Some(at) = at(view, inode, directory, position)
    {
        position += 1;
        let found = match &at {
            At::Dots { .. } => None,
            At::Entry { index, .. } => view.entry(inode, directory, *index),
        };
        let number = match (&at, &found) {
            (At::Dots { inode, .. }, _) => *inode,
            (_, Some(found)) => found.inode,
            (At::Entry { index, .. }, None) => view.number(inode, directory, *index),
        };
        let row = Row { at, number, found, next: position };
        let ino = INodeNo(number.0);
        if reply.add(ino, row.next, row.at.name(), &keep, &row.attributes(), GENERATION) {
            give_back(view, &[row]);
            break;
        }
        rows.push(row);
    }
    if !rows.iter().any(Row::is_unknown) {
        return reply.ok();
    }
    if let Err(error) = rustix::io::write(&context.device, &encode(call.request, keep, &rows)) {
        // The request is gone: the connection was aborted.
        debug!(request = call.request, %error, "listing not delivered");
        give_back(view, &rows);
    }
    reply.error(fuser::Errno::EIO);
}

fn give_back<V: View>(view: &V, rows: &[Row<'_>]) {
    for found in rows.iter().filter_map(|row| row.found.as_ref()) {
        view.forget(found.inode, 1);
    }
}

/// Bytes of `struct fuse_out_header`.
const HEADER_BYTES: usize = 16;

/// A whole reply: `struct fuse_out_header`, then a `struct fuse_direntplus`, a name and padding
/// for each row (include/uapi/linux/fuse.h).
fn encode(request: u64, keep: Duration, rows: &[Row<'_>]) -> Vec<u8> {
    let mut out = Fields(vec![0; HEADER_BYTES]);
    for row in rows {
        let keep = if row.found.is_some() { keep } else { Duration::ZERO };
        out.u64(row.found.map_or(0, |found| found.inode.0));
        out.u64(GENERATION.0);
        (0..2).for_each(|_| out.u64(keep.as_secs()));
        (0..2).for_each(|_| out.u32(keep.subsec_nanos()));
        let kind = u32::from(row.at.kind().bits());
        match &row.found {
            Some(found) => out.attributes(found.inode, &found.attributes),
            None => out.0.resize(out.0.len() + ATTRIBUTES_BYTES, 0),
        }
        let name = row.at.name().as_bytes();
        out.u64(row.number.0);
        out.u64(row.next);
        out.u32(u32::try_from(name.len()).expect("a name is at most 255 bytes"));
        out.u32(kind);
        out.0.extend_from_slice(name);
        out.0.resize(out.0.len().next_multiple_of(8), 0);
    }
    let len = u32::try_from(out.0.len()).expect("a listing is at most 1 MiB");
    out.0[..4].copy_from_slice(&len.to_ne_bytes());
    out.0[8..HEADER_BYTES].copy_from_slice(&request.to_ne_bytes());
    out.0
}

/// Bytes of `struct fuse_attr`.
const ATTRIBUTES_BYTES: usize = 88;

/// Native-endian fields of the kernel's structures.
struct Fields(Vec<u8>);

impl Fields {
    fn u32(&mut self, value: u32) {
        self.0.extend_from_slice(&value.to_ne_bytes());
    }

    fn u64(&mut self, value: u64) {
        self.0.extend_from_slice(&value.to_ne_bytes());
    }
    fn attributes(&mut self, inode: InodeNumber, attributes: &Attributes) {
        let before = self.0.len();
        let times = [attributes.accessed, attributes.modified, attributes.changed];
        for value in [inode.0, attributes.size, attributes.sectors] {
            self.u64(value);
        }
        times.iter().for_each(|time| self.u64(time.seconds.cast_unsigned()));
        times.iter().for_each(|time| self.u32(time.nanos));
        let mode = u32::from(attributes.kind.bits()) << 12 | u32::from(attributes.permissions);
        let device = kernel_device(attributes.device_number);
        let Attributes { links, uid, gid, io_bytes, .. } = *attributes;
        for value in [mode, links, uid, gid, device, io_bytes, 0] {
            self.u32(value);
        }
        assert_eq!(self.0.len() - before, ATTRIBUTES_BYTES);
    }
}
