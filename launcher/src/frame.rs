//! The envelope of everything that goes over the TCP connection between two ranks: a length of two
//! bytes (little-endian) of what follows, a type byte, a body.
//!
//! Nothing is allocated by a length that came from outside: a frame has at most [`FRAME_BYTES_MAX`]
//! bytes and is collected in a buffer of that size.

use std::io::{self, Read};

pub(crate) use copper_proto::encoding::Fields;
pub use copper_proto::encoding::Malformed;

/// The largest type and body together. The largest real frame is a refresh with a path of 4,096
/// bytes; a proof with a fabric address of 256 bytes and a provider's name of 64 takes 396.
pub const FRAME_BYTES_MAX: usize = 4352;

const LENGTH_BYTES: usize = 2;

/// One whole frame, length included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame(Vec<u8>);

impl Frame {
    /// Takes exactly one frame.
    ///
    /// # Errors
    /// If the length does not fit the bytes, or the bounds.
    pub fn parse(bytes: &[u8]) -> Result<Frame, Malformed> {
        let (length, rest) = bytes.split_first_chunk().ok_or(Malformed("frame"))?;
        let length = checked_length(*length)?;
        if rest.len() == length { Ok(Frame(bytes.to_vec())) } else { Err(Malformed("frame")) }
    }

    /// The type.
    pub fn kind(&self) -> u8 {
        self.0[LENGTH_BYTES]
    }

    /// What the type says it is.
    pub fn body(&self) -> &[u8] {
        &self.0[LENGTH_BYTES + 1..]
    }

    /// As it goes over the wire.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

fn checked_length(length: [u8; LENGTH_BYTES]) -> Result<usize, Malformed> {
    let length = usize::from(u16::from_le_bytes(length));
    if (1..=FRAME_BYTES_MAX).contains(&length) {
        Ok(length)
    } else {
        Err(Malformed("frame length"))
    }
}

/// What one attempt to read brought.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// A frame.
    Frame(Frame),
    /// Not yet.
    Nothing,
    /// The other side closed the connection.
    End,
    /// Something that is not a frame; no more can be read after it.
    Malformed(Malformed),
}

/// Collects one frame at a time. It never reads past the end of a frame.
pub struct FrameReader {
    buffer: [u8; LENGTH_BYTES + FRAME_BYTES_MAX],
    filled: usize,
}

impl FrameReader {
    /// With nothing read yet.
    pub fn new() -> FrameReader {
        FrameReader { buffer: [0; LENGTH_BYTES + FRAME_BYTES_MAX], filled: 0 }
    }

    /// Reads until a frame is whole or `source` has no more for now.
    ///
    /// # Errors
    /// Those of `source`, without `WouldBlock` and `Interrupted`.
    pub fn read_from(&mut self, source: &mut impl Read) -> io::Result<Arrival> {
        loop {
            let needed = match self.needed() {
                Ok(needed) => needed,
                Err(malformed) => return Ok(Arrival::Malformed(malformed)),
            };
            if self.filled == needed {
                let frame = Frame(self.buffer[..needed].to_vec());
                self.filled = 0;
                return Ok(Arrival::Frame(frame));
            }
            match source.read(&mut self.buffer[self.filled..needed]) {
                Ok(0) => return Ok(Arrival::End),
                Ok(count) => self.filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Ok(Arrival::Nothing);
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Bytes of the buffer to fill before there is something to decide.
    fn needed(&self) -> Result<usize, Malformed> {
        if self.filled < LENGTH_BYTES {
            return Ok(LENGTH_BYTES);
        }
        Ok(LENGTH_BYTES + checked_length([self.buffer[0], self.buffer[1]])?)
    }
}

impl Default for FrameReader {
    fn default() -> FrameReader {
        FrameReader::new()
    }
}

/// Puts a frame together. All lengths that it is given are bounded by their types.
pub(crate) struct FrameWriter(Vec<u8>);

impl FrameWriter {
    pub(crate) fn new(kind: u8) -> FrameWriter {
        FrameWriter(vec![0, 0, kind])
    }

    pub(crate) fn u8(mut self, value: u8) -> FrameWriter {
        self.0.push(value);
        self
    }

    pub(crate) fn u16(self, value: u16) -> FrameWriter {
        self.array(&value.to_le_bytes())
    }

    pub(crate) fn u32(self, value: u32) -> FrameWriter {
        self.array(&value.to_le_bytes())
    }

    pub(crate) fn u64(self, value: u64) -> FrameWriter {
        self.array(&value.to_le_bytes())
    }

    pub(crate) fn array(mut self, bytes: &[u8]) -> FrameWriter {
        self.0.extend_from_slice(bytes);
        self
    }

    /// A length of two bytes, then the bytes.
    pub(crate) fn bytes(self, bytes: &[u8]) -> FrameWriter {
        let length = u16::try_from(bytes.len()).expect("fields are bounded by their types");
        self.u16(length).array(bytes)
    }

    pub(crate) fn finish(mut self) -> Frame {
        let length = self.0.len() - LENGTH_BYTES;
        assert!(length <= FRAME_BYTES_MAX, "a frame of {length} bytes");
        let length = u16::try_from(length).expect("checked above");
        self.0[..LENGTH_BYTES].copy_from_slice(&length.to_le_bytes());
        Frame(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives one byte at a time, with a pause after each.
    struct Trickle<'a>(&'a [u8], bool);

    impl Read for Trickle<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.1 = !self.1;
            if self.1 {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            self.0.read(&mut buffer[..1])
        }
    }

    #[test]
    fn a_frame_arrives_whole_however_it_is_cut() {
        let first = FrameWriter::new(7).u32(1).bytes(b"abc").finish();
        let second = FrameWriter::new(8).finish();
        let stream = [first.as_bytes(), second.as_bytes()].concat();
        let (mut reader, mut source) = (FrameReader::new(), Trickle(&stream, false));
        let mut arrived = Vec::new();
        loop {
            match reader.read_from(&mut source).expect("a slice does not fail") {
                Arrival::Frame(frame) => arrived.push(frame),
                Arrival::Nothing => {}
                Arrival::End => break,
                Arrival::Malformed(malformed) => panic!("{malformed}"),
            }
        }
        assert_eq!(arrived, [first, second]);
    }

    #[test]
    fn lengths_out_of_bounds_are_refused_before_anything_is_collected() {
        for length in [0_u16, 4353, u16::MAX] {
            let mut source = &[&length.to_le_bytes()[..], &[0; 4000]].concat()[..];
            let arrival = FrameReader::new().read_from(&mut source).expect("a slice");
            assert_eq!(arrival, Arrival::Malformed(Malformed("frame length")));
            assert_eq!(source.len(), 4000);
        }
    }
}
