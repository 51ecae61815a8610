//! What keeps a link's control messages from being forged, altered, repeated or left out once the
//! handshake is done: a keyed BLAKE3 over the message and its number.
//!
//! Each direction has a key of its own, made of the whole handshake under the job's secret, so that a
//! message of another link, of another direction or of before does not hold. Messages are not
//! encrypted.

use std::fmt;

use blake3::Hash;

use crate::frame::{Frame, FrameWriter};

/// Bytes that a seal adds to a frame.
pub const SEAL_BYTES: usize = 32;

/// One direction of one link.
#[derive(Clone)]
pub struct Seal {
    key: [u8; 32],
    /// Messages so far. 64 bits do not run out.
    count: u64,
}

/// Both directions.
#[derive(Clone, Debug)]
pub struct Seals {
    /// For what this side sends.
    pub send: Seal,
    /// For what it receives.
    pub receive: Seal,
}

impl Seal {
    pub(crate) fn new(key: Hash) -> Seal {
        Seal { key: *key.as_bytes(), count: 0 }
    }

    /// The frame with its seal behind.
    pub fn close(&mut self, frame: &Frame) -> Frame {
        let seal = self.next(frame.kind(), frame.body());
        FrameWriter::new(frame.kind()).array(frame.body()).array(seal.as_bytes()).finish()
    }

    /// The frame without its seal, if that holds and it is the next.
    pub fn open(&mut self, frame: &Frame) -> Option<Frame> {
        let (body, seal) = frame.body().split_last_chunk::<SEAL_BYTES>()?;
        // In constant time: comparisons with a `Hash` are.
        let holds = self.next(frame.kind(), body) == *seal;
        holds.then(|| FrameWriter::new(frame.kind()).array(body).finish())
    }

    fn next(&mut self, kind: u8, body: &[u8]) -> Hash {
        let mut hasher = blake3::Hasher::new_keyed(&self.key);
        hasher.update(&self.count.to_le_bytes()).update(&[kind]).update(body);
        self.count += 1;
        hasher.finalize()
    }
}

impl fmt::Debug for Seal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Seal").field("count", &self.count).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(body: &[u8]) -> Frame {
        FrameWriter::new(16).array(body).finish()
    }

    #[test]
    fn only_the_next_message_of_the_same_direction_holds() {
        let seal = |byte| Seal::new(Hash::from_bytes([byte; 32]));
        let (mut sender, mut receiver) = (seal(1), seal(1));
        let closed: Vec<Frame> =
            [&b""[..], b"one", &[7; 4136]].map(|body| sender.close(&frame(body))).into();
        assert_eq!(receiver.open(&closed[0]), Some(frame(b"")));
        assert_eq!(receiver.clone().open(&closed[0]), None, "once more");
        assert_eq!(receiver.clone().open(&closed[2]), None, "out of its turn");
        assert_eq!(seal(2).open(&closed[0]), None, "another direction");
        assert_eq!(receiver.clone().open(&frame(b"short")), None);
        for at in 2..closed[1].as_bytes().len() {
            let mut bytes = closed[1].as_bytes().to_vec();
            bytes[at] ^= 1;
            let altered = Frame::parse(&bytes).expect("a frame");
            assert_eq!(receiver.clone().open(&altered), None, "altered at {at}");
        }
        assert_eq!(receiver.open(&closed[1]), Some(frame(b"one")));
        assert_eq!(receiver.open(&closed[2]), Some(frame(&[7; 4136])));
    }
}
