//! Bytes as text: what strace writes between quotes, and how a trace writes paths.
//!
//! Both are C's escapes, so one reader does for both. A trace's writer is stricter than strace's: its
//! words hold no space, so that a line splits at spaces.

/// Writes bytes so that [`unescape`] gives them back: printable ASCII as it is, but for the space and
/// the backslash; all else as three octal digits.
pub(crate) fn escape(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for &byte in bytes {
        if byte.is_ascii_graphic() && byte != b'\\' {
            text.push(char::from(byte));
        } else {
            text.push_str(&format!("\\{byte:03o}"));
        }
    }
    text
}

/// Reads C's escapes as strace writes them: `\n` and its like, `\"`, `\\`, and octal with one to three
/// digits. `None`: a backslash is followed by something else.
pub(crate) fn unescape(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        rest = after;
        if *first != b'\\' {
            bytes.push(*first);
            continue;
        }
        let (escaped, after) = rest.split_first()?;
        let byte = match escaped {
            b'n' => b'\n',
            b't' => b'\t',
            b'r' => b'\r',
            b'v' => 0x0b,
            b'f' => 0x0c,
            b'"' | b'\\' | b'\'' | b'<' | b'>' => *escaped,
            b'0'..=b'7' => {
                let digits = rest.iter().take(3).take_while(|byte| matches!(byte, b'0'..=b'7'));
                let (count, value) = digits.fold((0, 0_u32), |(n, value), digit| {
                    (n + 1, value * 8 + u32::from(digit - b'0'))
                });
                bytes.push(u8::try_from(value).ok()?);
                rest = &rest[count..];
                continue;
            }
            _ => return None,
        };
        bytes.push(byte);
        rest = after;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_comes_back() {
        let bytes: Vec<u8> = (0..=u8::MAX).collect();
        let text = escape(&bytes);
        assert!(text.bytes().all(|byte| byte.is_ascii_graphic()), "{text}");
        assert_eq!(unescape(&text), Some(bytes));
    }

    #[test]
    fn what_strace_writes_is_read() {
        assert_eq!(unescape(r#"a(b/n\nl \303\251\\"#), Some(b"a(b/n\nl \xc3\xa9\\".to_vec()));
        assert_eq!(unescape(r#"x\76y\74z\"q"#), Some(b"x>y<z\"q".to_vec()));
        assert_eq!(unescape(r"\0\1238\t"), Some(b"\0\x538\t".to_vec()));
    }

    #[test]
    fn half_an_escape_is_refused() {
        for text in ["\\", "a\\", "\\q", "\\777"] {
            assert_eq!(unescape(text), None, "{text}");
        }
    }
}
