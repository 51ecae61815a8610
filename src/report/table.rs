//! Tables as RFC 4180 has them: fields in quotes may contain commas, quotes and ends of lines.

/// All rows, each as its fields; empty lines are none.
pub(super) fn rows(text: &str) -> Vec<Vec<String>> {
    let (mut rows, mut row, mut field) = (Vec::new(), Vec::new(), String::new());
    let mut quoted = false;
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        match (quoted, character) {
            (true, '"') if characters.peek() == Some(&'"') => {
                characters.next();
                field.push('"');
            }
            (_, '"') => quoted = !quoted,
            (false, ',') => row.push(std::mem::take(&mut field)),
            (false, '\n') => {
                if !(row.is_empty() && field.is_empty()) {
                    row.push(std::mem::take(&mut field));
                    rows.push(std::mem::take(&mut row));
                }
            }
            (_, character) => field.push(character),
        }
    }
    if !(row.is_empty() && field.is_empty()) {
        row.push(field);
        rows.push(row);
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::quoted;

    #[test]
    fn what_is_quoted_comes_back() {
        for path in ["/a b", "/a,b", "/\"a\"", "/a\nb", "/", ""] {
            assert_eq!(rows(&format!("x,{},1\n", quoted(path))), [["x", path, "1"]]);
        }
        assert_eq!(rows("a,b\n\nc\n"), [vec!["a", "b"], vec!["c"]]);
        assert!(rows("").is_empty());
    }
}
