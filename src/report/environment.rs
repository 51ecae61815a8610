//! The files of an environment, and which of them a run has touched.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;

/// Files and what they take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Amount {
    pub(super) files: u64,
    pub(super) bytes: u64,
}

impl Amount {
    fn add(&mut self, other: Amount) {
        self.files += other.files;
        self.bytes += other.bytes;
    }
}

/// What a walk has found.
#[derive(Debug, Default)]
pub(super) struct Environment {
    pub(super) folder: PathBuf,
    pub(super) all: Amount,
    pub(super) touched: Amount,
    /// Files that were not touched, and folders in which nothing was; largest first.
    pub(super) never: Vec<(PathBuf, Amount)>,
}

impl Environment {
    /// Walks a folder and compares with the paths that were found in a run. Links are not followed.
    ///
    /// # Errors
    /// If the folder is not there. What cannot be read below it is passed over.
    pub(super) fn walk(folder: &Path, found: &BTreeSet<String>) -> anyhow::Result<Environment> {
        let folder = fs::canonicalize(folder)
            .with_context(|| format!("--environment {} cannot be read", folder.display()))?;
        let mut environment = Environment { folder: folder.clone(), ..Environment::default() };
        let (all, touched) = environment.visit(&folder, found);
        (environment.all, environment.touched) = (all, touched);
        if touched.files == 0 {
            environment.never = vec![(folder, all)];
        }
        environment
            .never
            .sort_by(|(a_path, a), (b_path, b)| (b.bytes, a_path).cmp(&(a.bytes, b_path)));
        Ok(environment)
    }

    /// Of one folder: all files, and those that were touched.
    fn visit(&mut self, folder: &Path, found: &BTreeSet<String>) -> (Amount, Amount) {
        let (mut all, mut touched) = (Amount::default(), Amount::default());
        let (mut never, mut empty) = (Vec::new(), Vec::new());
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            let Ok(metadata) = entry.metadata() else { continue };
            if metadata.is_dir() {
                let (of_all, of_touched) = self.visit(&path, found);
                all.add(of_all);
                touched.add(of_touched);
                if of_touched.files == 0 && of_all.files > 0 {
                    never.push((path, of_all));
                }
                continue;
            }
            let amount = Amount { files: 1, bytes: metadata.len() };
            all.add(amount);
            if found.contains(&*path.to_string_lossy()) {
                touched.add(amount);
            } else if metadata.len() == 0 {
                empty.push((path, amount));
            } else {
                never.push((path, amount));
            }
        }
        // Nobody reads an empty file: where something was touched it may have been opened.
        if touched.files > 0 {
            touched.files += empty.len() as u64;
            self.never.append(&mut never);
        }
        (all, touched)
    }

    /// The files that were touched.
    pub(super) fn kept(&self) -> Vec<String> {
        let never: BTreeSet<&Path> = self.never.iter().map(|(path, _)| &**path).collect();
        let mut kept = Vec::new();
        let mut folders = vec![self.folder.clone()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
                let path = entry.path();
                if never.contains(&*path) || never.contains(&*self.folder) {
                    continue;
                }
                match entry.file_type() {
                    Ok(kind) if kind.is_dir() => folders.push(path),
                    Ok(_) => kept.push(path.to_string_lossy().into_owned()),
                    Err(_) => {}
                }
            }
        }
        kept.sort();
        kept
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_touched_is_kept_and_the_rest_is_told_by_its_largest_folder() {
        let folder =
            std::env::temp_dir().join(format!("copper-environment-{}", std::process::id()));
        let files = [
            ("a/used.py", 10),
            ("a/__init__.py", 0),
            ("a/unused.py", 20),
            ("b/c/x", 300),
            ("b/y", 1),
        ];
        for (name, size) in files {
            let path = folder.join(name);
            fs::create_dir_all(path.parent().expect("below")).expect("ours");
            fs::write(path, vec![b'x'; size]).expect("ours");
        }
        let root = fs::canonicalize(&folder).expect("it is there");
        let of = |name: &str| root.join(name).to_string_lossy().into_owned();
        let used = of("a/used.py");
        let found = BTreeSet::from([used.clone()]);
        let environment = Environment::walk(&folder, &found).expect("it is there");
        let kept = environment.kept();
        let nothing = Environment::walk(&folder, &BTreeSet::new()).expect("it is there");
        let nothing_kept = nothing.kept();
        fs::remove_dir_all(&folder).expect("ours");
        assert_eq!(environment.all, Amount { files: 5, bytes: 331 });
        assert_eq!(environment.touched, Amount { files: 2, bytes: 10 });
        let never: Vec<_> =
            environment.never.iter().map(|(path, it)| (path.clone(), it.files)).collect();
        assert_eq!(never, [(root.join("b"), 2), (root.join("a/unused.py"), 1)]);
        assert_eq!(kept, [of("a/__init__.py"), used.clone()]);
        assert_eq!((nothing.never.len(), nothing_kept.len()), (1, 0));
    }
}
