//! Long texts that are to be the same.

/// # Panics
/// With the first line that is another, not with all of them.
#[track_caller]
pub(crate) fn assert_same_lines(found: &str, expected: &str, what: &str) {
    let (mut left, mut right) = (found.lines(), expected.lines());
    for number in 1.. {
        let (left, right) = (left.next(), right.next());
        assert_eq!(left, right, "line {number}, in a view and at the source: {what}");
        if left.is_none() {
            break;
        }
    }
}
