//! Sizes as people write them: `64MiB`, `10MB`, `1.5G`, `4096`.

use std::fmt;
use std::str::FromStr;

/// A number of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Size(pub(super) u64);

/// A text that is no size.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no size: give bytes, or a number with K, M, G, KiB, MiB, GiB, KB, MB or GB")]
pub(super) struct NotASize(String);

impl FromStr for Size {
    type Err = NotASize;

    fn from_str(text: &str) -> Result<Size, NotASize> {
        let refused = || NotASize(text.to_owned());
        let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let (number, unit) = text.split_at(end);
        let unit: u64 = match unit.trim().to_ascii_lowercase().as_str() {
            "" | "b" => 1,
            "kb" => 1000,
            "mb" => 1_000_000,
            "gb" => 1_000_000_000,
            "k" | "kib" => 1 << 10,
            "m" | "mib" => 1 << 20,
            "g" | "gib" => 1 << 30,
            "t" | "tib" => 1 << 40,
            _ => return Err(refused()),
        };
        if let Ok(whole) = number.parse::<u64>() {
            return whole.checked_mul(unit).map(Size).ok_or_else(refused);
        }
        let number: f64 = number.parse().map_err(|_| refused())?;
        let bytes = number * unit as f64;
        if bytes.is_finite() && bytes < u64::MAX as f64 {
            Ok(Size(bytes as u64))
        } else {
            Err(refused())
        }
    }
}

impl fmt::Display for Size {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        // What somebody gave in decimal units reads best so.
        if self.0 != 0 && self.0.is_multiple_of(1_000_000) && !self.0.is_multiple_of(1 << 20) {
            return write!(formatter, "{}MB", self.0 / 1_000_000);
        }
        let units = [(1_u64 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
        match units.into_iter().find(|(unit, _)| self.0 >= *unit) {
            Some((unit, name)) if self.0.is_multiple_of(unit) => {
                write!(formatter, "{}{name}", self.0 / unit)
            }
            Some((unit, name)) => write!(formatter, "{:.1}{name}", self.0 as f64 / unit as f64),
            None => write!(formatter, "{}B", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_people_write_them() {
        for (text, bytes) in [
            ("4096", 4096),
            ("64MiB", 64 << 20),
            ("10MB", 10_000_000),
            ("2g", 2 << 30),
            ("1.5K", 1536),
            ("0", 0),
        ] {
            assert_eq!(text.parse(), Ok(Size(bytes)), "{text}");
        }
        for text in ["", "MiB", "-1", "1e9", "5 apples", "99999999999999999999", "1.2.3"] {
            assert!(text.parse::<Size>().is_err(), "{text}");
        }
        assert_eq!(Size(64 << 20).to_string(), "64MiB");
        assert_eq!(Size(10_000_000).to_string(), "10MB");
        assert_eq!(Size(1536).to_string(), "1.5KiB");
    }
}
