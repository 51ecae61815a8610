//! The extended attributes of one file, directory or link, as one object.
//!
//! ```text
//! supported u8 | count u32 | name (len u16, bytes), value (len u32, bytes) …     little-endian
//! ```

use crate::encoding::{Fields, Malformed, put_bytes, put_u8, put_u32};
use crate::limits::{NAME_BYTES_MAX, XATTR_BYTES_MAX};

/// A name and its value.
pub type ExtendedAttribute = (Box<[u8]>, Box<[u8]>);

/// All extended attributes of a path, in the source's order; or that its file system has none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExtendedAttributes {
    supported: bool,
    list: Vec<ExtendedAttribute>,
}

impl ExtendedAttributes {
    /// Those of a file on a file system that has some.
    pub fn new(list: Vec<ExtendedAttribute>) -> ExtendedAttributes {
        ExtendedAttributes { supported: true, list }
    }

    /// Those of a file on a file system that knows none.
    pub fn unsupported() -> ExtendedAttributes {
        ExtendedAttributes { supported: false, list: Vec::new() }
    }

    /// Whether the source's file system knows extended attributes.
    pub fn is_supported(&self) -> bool {
        self.supported
    }

    /// The value under a name.
    pub fn get(&self, name: &[u8]) -> Option<&[u8]> {
        self.list.iter().find(|(own, _)| &**own == name).map(|(_, value)| &**value)
    }

    /// Names in the source's order.
    pub fn names(&self) -> impl Iterator<Item = &[u8]> {
        self.list.iter().map(|(name, _)| &**name)
    }

    /// The encoded object; never empty. Names are at most [`NAME_BYTES_MAX`] bytes and values at
    /// most [`XATTR_BYTES_MAX`], as Linux guarantees.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        put_u8(&mut out, self.supported.into());
        put_u32(&mut out, u32::try_from(self.list.len()).expect("a list of names is bounded"));
        for (name, value) in &self.list {
            put_bytes(&mut out, name);
            put_u32(&mut out, u32::try_from(value.len()).expect("values are bounded"));
            out.extend_from_slice(value);
        }
        out
    }

    /// Takes an encoded object that came from outside.
    ///
    /// # Errors
    /// If it is not one.
    pub fn decode(bytes: &[u8]) -> Result<ExtendedAttributes, Malformed> {
        let mut fields = Fields::new(bytes, "extended attributes");
        let supported = match fields.u8()? {
            0 => false,
            1 => true,
            _ => return Err(fields.malformed()),
        };
        let count = fields.u32()?;
        let mut list = Vec::new();
        for _ in 0..count {
            let name = fields.bytes(NAME_BYTES_MAX)?;
            if name.is_empty() || name.contains(&0) {
                return Err(fields.malformed());
            }
            let len = fields.u32()? as usize;
            if len > XATTR_BYTES_MAX {
                return Err(fields.malformed());
            }
            list.push((name.into(), fields.take(len)?.into()));
        }
        fields.end()?;
        if !supported && !list.is_empty() {
            return Err(fields.malformed());
        }
        Ok(ExtendedAttributes { supported, list })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_encoded_is_decoded_and_damage_is_refused() {
        let pair = |name: &[u8], value: &[u8]| (name.into(), value.into());
        let some = vec![pair(b"user.a", b"1\0"), pair(b"user.b", b"")];
        for attributes in [
            ExtendedAttributes::new(some),
            ExtendedAttributes::new(Vec::new()),
            ExtendedAttributes::unsupported(),
        ] {
            let bytes = attributes.encode();
            assert_eq!(ExtendedAttributes::decode(&bytes), Ok(attributes));
            for len in 0..bytes.len() {
                assert!(ExtendedAttributes::decode(&bytes[..len]).is_err());
            }
            let mut longer = bytes.clone();
            longer.push(0);
            assert!(ExtendedAttributes::decode(&longer).is_err());
        }
    }

    #[test]
    fn values_are_found_by_their_whole_name() {
        let list = vec![(b"user.a".as_slice().into(), b"x".as_slice().into())];
        let attributes = ExtendedAttributes::new(list);
        assert_eq!(attributes.get(b"user.a"), Some(&b"x"[..]));
        assert_eq!(attributes.get(b"user."), None);
        assert_eq!(attributes.names().collect::<Vec<_>>(), [b"user.a"]);
    }
}
