//! The folders whose files are recorded.

use crate::trace::Place;

/// What the kernel makes up: never recorded.
const WITHOUT: &[&[u8]] = &[b"/proc", b"/sys", b"/dev"];

/// Folders, each by all the names that it is known to have.
#[derive(Debug)]
pub(crate) struct Folders(Vec<Folder>);

#[derive(Debug)]
struct Folder {
    path: Vec<u8>,
    names: Vec<Vec<u8>>,
}

impl Folders {
    /// Each folder as it was given and with its links resolved, both absolute.
    pub(crate) fn new(folders: Vec<(Vec<u8>, Vec<u8>)>) -> Self {
        let folder = |(given, resolved): (Vec<u8>, Vec<u8>)| Folder {
            names: [&given, &resolved].map(|name| tidied(&[name, &b"/"[..]].concat())).to_vec(),
            path: given,
        };
        Self(folders.into_iter().map(folder).collect())
    }

    /// As they were given.
    pub(crate) fn paths(&self) -> Vec<Vec<u8>> {
        self.0.iter().map(|folder| folder.path.clone()).collect()
    }

    /// Where below the folders an absolute path is. What leads out of the folder by `..` is not below
    /// it; what leads into it by `..` is, unless a link is on the way.
    pub(crate) fn place(&self, path: &[u8]) -> Option<Place> {
        let path = tidied(path);
        let resolved = without_dots(&path);
        if WITHOUT.iter().any(|without| below(without, &resolved).is_some()) {
            return None;
        }
        let candidates = [&path, &resolved];
        candidates.into_iter().find_map(|path| {
            self.0.iter().enumerate().find_map(|(index, folder)| {
                let rest = folder.names.iter().find_map(|name| below(name, path))?;
                stays_below(rest).then(|| Place { below: index, rest: rest.to_vec() })
            })
        })
    }
}

/// The rest of a tidied path below a tidied folder.
fn below<'a>(folder: &[u8], path: &'a [u8]) -> Option<&'a [u8]> {
    let folder = folder.strip_suffix(b"/").unwrap_or(folder);
    let rest = path.strip_prefix(folder)?;
    if rest.is_empty() { Some(rest) } else { rest.strip_prefix(b"/") }
}

/// Without double slashes and single dots; a slash or dot at the end becomes a slash, which asks for a
/// folder.
fn tidied(path: &[u8]) -> Vec<u8> {
    let mut tidied = Vec::with_capacity(path.len());
    for part in path.split(|byte| *byte == b'/').filter(|part| !part.is_empty() && *part != b".") {
        tidied.push(b'/');
        tidied.extend_from_slice(part);
    }
    if tidied.is_empty() || path.ends_with(b"/") || path.ends_with(b"/.") {
        tidied.push(b'/');
    }
    tidied
}

/// With `..` taken to mean the part before it, as it does where no link is.
fn without_dots(tidied: &[u8]) -> Vec<u8> {
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in tidied.split(|byte| *byte == b'/').skip(1) {
        if part == b".." {
            parts.pop();
        } else {
            parts.push(part);
        }
    }
    parts.iter().flat_map(|part| [b"/", *part].concat()).collect()
}

fn stays_below(rest: &[u8]) -> bool {
    let mut depth = 0_usize;
    rest.split(|byte| *byte == b'/').filter(|part| !part.is_empty()).all(|part| {
        let next = if part == b".." { depth.checked_sub(1) } else { Some(depth + 1) };
        depth = next.unwrap_or(0);
        next.is_some()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rest(folder: &str, path: &str) -> Option<String> {
        let folders = Folders::new(vec![(folder.into(), format!("/real{folder}").into())]);
        let place = folders.place(path.as_bytes())?;
        assert_eq!(place.below, 0);
        Some(String::from_utf8(place.rest).expect("as it came in"))
    }

    #[test]
    fn a_path_is_below_by_its_parts() {
        assert_eq!(rest("/a/b", "/a/b").as_deref(), Some(""));
        assert_eq!(rest("/a/b", "/a/b/").as_deref(), Some(""));
        assert_eq!(rest("/a/b/", "/a/b/c/").as_deref(), Some("c/"));
        assert_eq!(rest("/a/b", "/a//b/./c").as_deref(), Some("c"));
        assert_eq!(rest("/a/b", "/a/b/c/.").as_deref(), Some("c/"));
        assert_eq!(rest("/a/b", "/real/a/b/c").as_deref(), Some("c"));
        assert_eq!(rest("/a/b", "/a/bc"), None);
        assert_eq!(rest("/a/b", "/a"), None);
    }

    #[test]
    fn two_dots_stay_if_they_stay_below() {
        assert_eq!(rest("/a", "/a/b/../c").as_deref(), Some("b/../c"));
        assert_eq!(rest("/a", "/a/../b"), None);
        assert_eq!(rest("/a", "/b/../a/c").as_deref(), Some("c"));
        assert_eq!(rest("/a", "/a/../a/c").as_deref(), Some("c"));
    }

    #[test]
    fn of_everything_the_kernels_own_is_left_out() {
        assert_eq!(rest("/", "/usr/bin").as_deref(), Some("usr/bin"));
        assert_eq!(rest("/", "/").as_deref(), Some(""));
        for path in ["/proc/self/maps", "/sys", "/dev/null", "/usr/../proc/1"] {
            assert_eq!(rest("/", path), None, "{path}");
        }
        assert_eq!(rest("/", "/devices").as_deref(), Some("devices"));
    }
}
