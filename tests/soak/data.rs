//! A tree of all sizes, deep paths among them.

use std::path::PathBuf;

use crate::support::Tree;

/// What of the whole is large files, middling ones, and small ones, in sixteenths.
const LARGE: u64 = 8;
const MIDDLING: u64 = 4;

const LARGE_BYTES: u64 = 24 << 20;
const MIDDLING_BYTES: u64 = 3 << 20;

/// Small files of a folder.
const FOLDER: u64 = 100;

#[derive(Debug)]
pub(crate) struct Data {
    pub(crate) files: Vec<(PathBuf, u64)>,
    pub(crate) folders: Vec<PathBuf>,
}

impl Data {
    /// Makes files of about `bytes` together.
    pub(crate) fn of(tree: &Tree, bytes: u64) -> Data {
        let mut data = Data { files: Vec::new(), folders: Vec::new() };
        data.folder(tree, "large".to_owned());
        for index in 0..(bytes * LARGE / 16).div_ceil(LARGE_BYTES) {
            data.file(tree, format!("large/{index}"), LARGE_BYTES + index);
        }
        data.folder(tree, "middling".to_owned());
        for index in 0..bytes * MIDDLING / 16 / MIDDLING_BYTES {
            data.file(tree, format!("middling/{index}"), MIDDLING_BYTES + 4097 * index);
        }
        // A path of some thousand bytes, of which each folder holds some.
        let mut folder = "small".to_owned();
        let (mut index, mut left) = (0, (bytes * (16 - LARGE - MIDDLING) / 16) as i64);
        while left > 0 {
            if index % FOLDER == 0 {
                let deeper = format!("{folder}/{index:0>120}");
                folder = if deeper.len() > 2000 { format!("small-{index}") } else { deeper };
                data.folder(tree, folder.clone());
            }
            let size = 1 + index.wrapping_mul(0x9e37_79b9) % 60_000;
            data.file(tree, format!("{folder}/{index}"), size);
            index += 1;
            left -= size as i64;
        }
        data
    }

    fn folder(&mut self, tree: &Tree, name: String) {
        self.folders.push(tree.directory(name));
    }

    fn file(&mut self, tree: &Tree, name: String, size: u64) {
        let path = tree.file(name, usize::try_from(size).expect("it is made in memory"));
        self.files.push((path, size));
    }

    /// Bytes of all files.
    pub(crate) fn bytes(&self) -> u64 {
        self.files.iter().map(|(_, size)| size).sum()
    }
}
