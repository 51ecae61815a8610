//! Messages between a child and its parent, and their encoding.
//!
//! ```text
//! token u64 | kind u8 | fields …            little-endian
//! Ask      request u32, epoch u64, bound_ms u32, leases (count u8, u32 each), key
//! Done     leases
//! Holds, Probe, Alive
//! Answer   request u32, kind u8, fields … ; after `Inline` the payload, to the end
//! ```
//! The token is the one that the receiver handed out for this link in the handshake: a message
//! with any other is dropped and counted, whoever sent it.

use crate::attributes::{Entry, Statistics};
use crate::encoding::{Fields, Malformed, put_bytes, put_i64, put_u8, put_u32, put_u64};
use crate::errno::Errno;
use crate::ids::{Epoch, LeaseId, RequestId};
use crate::key::{BlockIndex, Generation, Key, ViewPath, What};
use crate::limits::{CREDITS, INLINE_BYTES_MAX, PATH_BYTES_MAX};

/// Changes whenever a rank of the old version could misread one of the new.
pub const PROTOCOL_VERSION: u32 = 4;

/// What one rank tells another over the fabric.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// A child wants an object. From a parent: it wants it if it is held here, for the root is lost.
    Ask {
        /// The child's name for the question.
        request: RequestId,
        /// The refreshes that the child has taken in: what was read before these is no answer.
        epoch: Epoch,
        /// What it wants.
        key: Key,
        /// The answer is of no use after this many milliseconds.
        bound_ms: u32,
        /// Leases that the child is done with.
        done: Vec<LeaseId>,
    },
    /// A child is done with leases, and has no question to send that along with.
    Done {
        /// Which.
        leases: Vec<LeaseId>,
    },
    /// A child that has lost another parent holds what this one may not.
    Holds,
    /// Is anybody there?
    Probe,
    /// To [`Message::Probe`], at once.
    Alive,
    /// The answer to one question.
    Answer {
        /// Which.
        request: RequestId,
        /// What it is.
        reply: Reply,
    },
}

/// What a parent answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// To [`What::Entry`]: it exists.
    Present(Entry),
    /// To [`What::Entry`]: the source said that it does not exist.
    Absent {
        /// How long that may be repeated; [`u32::MAX`] where a complete listing proves it.
        keep_ms: u32,
    },
    /// To [`What::Statistics`].
    Statistics(Statistics),
    /// The object's bytes follow in this message.
    Inline {
        /// Their number, at most [`INLINE_BYTES_MAX`].
        len: u32,
        /// XXH3-64 of them.
        checksum: u64,
    },
    /// The object's bytes can be read from the parent's arena until the lease is given back.
    Grant {
        /// The promise not to recycle them.
        lease: LeaseId,
        /// Their offset in the parent's arena.
        offset: u64,
        /// Their number.
        len: u32,
        /// XXH3-64 of them.
        checksum: u64,
    },
    /// It could not be had; nothing is to be remembered of this.
    Failed(Errno),
}

impl Message {
    /// Appends the encoded message. An [`Reply::Inline`]'s payload is for the caller to append.
    pub fn encode(&self, token: u64, out: &mut Vec<u8>) {
        put_u64(out, token);
        match self {
            Message::Ask { request, epoch, key, bound_ms, done } => {
                put_u8(out, 1);
                put_u32(out, request.0);
                put_u64(out, epoch.0);
                put_u32(out, *bound_ms);
                encode_leases(done, out);
                encode_key(key, out);
            }
            Message::Done { leases } => {
                put_u8(out, 2);
                encode_leases(leases, out);
            }
            Message::Answer { request, reply } => {
                put_u8(out, 3);
                put_u32(out, request.0);
                encode_reply(reply, out);
            }
            Message::Holds => put_u8(out, 4),
            Message::Probe => put_u8(out, 5),
            Message::Alive => put_u8(out, 6),
        }
    }

    /// Splits received bytes into the token, the message and the payload (empty but after
    /// [`Reply::Inline`]).
    ///
    /// # Errors
    /// If the bytes are not a message.
    pub fn decode(bytes: &[u8]) -> Result<(u64, Message, &[u8]), Malformed> {
        let mut fields = Fields::new(bytes, "message");
        let token = fields.u64()?;
        let message = match fields.u8()? {
            1 => Message::Ask {
                request: RequestId(fields.u32()?),
                epoch: Epoch(fields.u64()?),
                bound_ms: fields.u32()?,
                done: decode_leases(&mut fields)?,
                key: decode_key(&mut fields)?,
            },
            2 => Message::Done { leases: decode_leases(&mut fields)? },
            3 => Message::Answer {
                request: RequestId(fields.u32()?),
                reply: decode_reply(&mut fields)?,
            },
            4 => Message::Holds,
            5 => Message::Probe,
            6 => Message::Alive,
            _ => return Err(fields.malformed()),
        };
        let payload = fields.rest();
        let payload_len = match &message {
            Message::Answer { reply: Reply::Inline { len, .. }, .. } => *len as usize,
            Message::Answer { .. }
            | Message::Ask { .. }
            | Message::Done { .. }
            | Message::Holds
            | Message::Probe
            | Message::Alive => 0,
        };
        if payload.len() == payload_len {
            Ok((token, message, payload))
        } else {
            Err(fields.malformed())
        }
    }
}

fn encode_leases(leases: &[LeaseId], out: &mut Vec<u8>) {
    let count = u8::try_from(leases.len()).expect("leases are bounded by the credits");
    put_u8(out, count);
    for lease in leases {
        put_u32(out, lease.0);
    }
}

fn decode_leases(fields: &mut Fields<'_>) -> Result<Vec<LeaseId>, Malformed> {
    let count = fields.u8()?;
    if u32::from(count) > CREDITS {
        return Err(fields.malformed());
    }
    (0..count).map(|_| fields.u32().map(LeaseId)).collect()
}

fn encode_key(key: &Key, out: &mut Vec<u8>) {
    match key.what {
        What::Entry => put_u8(out, 1),
        What::Directory => put_u8(out, 2),
        What::Block { index, generation } => {
            put_u8(out, 3);
            put_u32(out, index.0);
            encode_generation(generation, out);
        }
        What::Statistics => put_u8(out, 4),
        What::ExtendedAttributes => put_u8(out, 5),
        What::DataRanges { generation } => {
            put_u8(out, 6);
            encode_generation(generation, out);
        }
    }
    put_bytes(out, key.path.as_bytes());
}

fn decode_key(fields: &mut Fields<'_>) -> Result<Key, Malformed> {
    let what = match fields.u8()? {
        1 => What::Entry,
        2 => What::Directory,
        3 => {
            let index = BlockIndex(fields.u32()?);
            let generation = decode_generation(fields)?;
            if index.len(generation.size) == 0 {
                return Err(fields.malformed());
            }
            What::Block { index, generation }
        }
        4 => What::Statistics,
        5 => What::ExtendedAttributes,
        6 => What::DataRanges { generation: decode_generation(fields)? },
        _ => return Err(fields.malformed()),
    };
    let path = ViewPath::parse(fields.bytes(PATH_BYTES_MAX)?).ok_or_else(|| fields.malformed())?;
    Ok(Key { path, what })
}

fn encode_generation(generation: Generation, out: &mut Vec<u8>) {
    put_i64(out, generation.mtime_ns);
    put_i64(out, generation.ctime_ns);
    put_u64(out, generation.size);
    put_u64(out, generation.inode);
}

fn decode_generation(fields: &mut Fields<'_>) -> Result<Generation, Malformed> {
    Ok(Generation {
        mtime_ns: fields.i64()?,
        ctime_ns: fields.i64()?,
        size: fields.u64()?,
        inode: fields.u64()?,
    })
}

fn encode_reply(reply: &Reply, out: &mut Vec<u8>) {
    match reply {
        Reply::Present(entry) => {
            put_u8(out, 1);
            entry.encode(out);
        }
        Reply::Absent { keep_ms } => {
            put_u8(out, 2);
            put_u32(out, *keep_ms);
        }
        Reply::Statistics(statistics) => {
            put_u8(out, 3);
            statistics.encode(out);
        }
        Reply::Inline { len, checksum } => {
            put_u8(out, 4);
            put_u32(out, *len);
            put_u64(out, *checksum);
        }
        Reply::Grant { lease, offset, len, checksum } => {
            put_u8(out, 5);
            put_u32(out, lease.0);
            put_u64(out, *offset);
            put_u32(out, *len);
            put_u64(out, *checksum);
        }
        Reply::Failed(errno) => {
            put_u8(out, 6);
            put_u32(out, errno.0.unsigned_abs());
        }
    }
}

fn decode_reply(fields: &mut Fields<'_>) -> Result<Reply, Malformed> {
    let reply = match fields.u8()? {
        1 => Reply::Present(Entry::decode(fields)?),
        2 => Reply::Absent { keep_ms: fields.u32()? },
        3 => Reply::Statistics(Statistics::decode(fields)?),
        4 => {
            let (len, checksum) = (fields.u32()?, fields.u64()?);
            if len == 0 || len > INLINE_BYTES_MAX {
                return Err(fields.malformed());
            }
            Reply::Inline { len, checksum }
        }
        5 => Reply::Grant {
            lease: LeaseId(fields.u32()?),
            offset: fields.u64()?,
            len: fields.u32()?,
            checksum: fields.u64()?,
        },
        6 => match fields.u32()? {
            errno @ 1..4096 => Reply::Failed(Errno(errno.cast_signed())),
            _ => return Err(fields.malformed()),
        },
        _ => return Err(fields.malformed()),
    };
    Ok(reply)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attributes::{Attributes, FileKind, Timestamp};
    use crate::limits::MESSAGE_BYTES_MAX;
    use std::sync::Arc;

    fn samples() -> Vec<Message> {
        let time = Timestamp { seconds: 1, nanos: 2 };
        let attributes = Attributes {
            kind: FileKind::Link,
            permissions: 0o777,
            links: 1,
            uid: 0,
            gid: 0,
            device_number: 0,
            size: 3,
            sectors: 0,
            io_bytes: 4096,
            accessed: time,
            modified: time,
            changed: time,
            device: 1,
            inode: 2,
        };
        let long =
            ViewPath::parse(&[b"a".as_slice(); PATH_BYTES_MAX / 2].join(&b'/')).expect("short");
        let generation = Generation { mtime_ns: -1, ctime_ns: 2, size: 3 << 20, inode: 4 };
        let block = What::Block { index: BlockIndex(2), generation };
        let ask = |path: &ViewPath, what| Message::Ask {
            request: RequestId(7),
            epoch: Epoch(1 << 40),
            key: Key { path: path.clone(), what },
            bound_ms: 30_000,
            done: (0..CREDITS).map(LeaseId).collect(),
        };
        let answer = |reply| Message::Answer { request: RequestId(u32::MAX), reply };
        vec![
            ask(&long, block),
            ask(&ViewPath::root(), What::Entry),
            ask(&ViewPath::root(), What::Directory),
            ask(&ViewPath::root(), What::Statistics),
            ask(&ViewPath::root(), What::ExtendedAttributes),
            ask(&long, What::DataRanges { generation }),
            Message::Done { leases: vec![LeaseId(1)] },
            Message::Holds,
            Message::Probe,
            Message::Alive,
            answer(Reply::Present(Entry { attributes, target: Some(Arc::from(&b"t/x"[..])) })),
            answer(Reply::Absent { keep_ms: 5 }),
            answer(Reply::Statistics(Statistics { blocks: 1, ..Statistics::default() })),
            answer(Reply::Grant { lease: LeaseId(3), offset: 4096, len: 9, checksum: 10 }),
            answer(Reply::Failed(Errno::EACCES)),
        ]
    }

    #[test]
    fn what_is_encoded_is_decoded() {
        for message in samples() {
            let mut bytes = Vec::new();
            message.encode(99, &mut bytes);
            assert!(bytes.len() <= MESSAGE_BYTES_MAX);
            assert_eq!(Message::decode(&bytes), Ok((99, message, &b""[..])));
        }
        let inline =
            Message::Answer { request: RequestId(1), reply: Reply::Inline { len: 4, checksum: 5 } };
        let mut bytes = Vec::new();
        inline.encode(1, &mut bytes);
        assert!(Message::decode(&bytes).is_err(), "the payload is missing");
        bytes.extend_from_slice(b"four");
        assert_eq!(Message::decode(&bytes), Ok((1, inline, &b"four"[..])));
    }

    #[test]
    fn damaged_messages_are_refused_or_well_formed_but_never_a_panic() {
        for message in samples() {
            let mut good = Vec::new();
            message.encode(99, &mut good);
            for len in 0..good.len() {
                assert!(Message::decode(&good[..len]).is_err(), "{message:?} cut at {len}");
            }
            good.push(0);
            assert!(Message::decode(&good).is_err(), "{message:?} with a byte too many");
            good.pop();
            for at in 0..good.len().min(256) {
                for flip in [1, 0x10, 0xff] {
                    let mut bad = good.clone();
                    bad[at] ^= flip;
                    let _ = Message::decode(&bad);
                }
            }
        }
    }
}
