//! The simulated parallel file system: a random tree whose every byte follows from its path.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use copper_proto::{
    Attributes, BlockIndex, DirectoryBuilder, Entry, FileKind, Key, Timestamp, ViewPath, What,
};

use crate::random::Random;

#[derive(Debug)]
pub(crate) struct Source {
    entries: HashMap<ViewPath, Entry>,
    listings: HashMap<ViewPath, Arc<Vec<u8>>>,
    /// Everything that can be wanted, and names that do not exist.
    pub(crate) keys: Vec<Key>,
}

impl Source {
    pub(crate) fn random(random: &mut Random) -> Source {
        let mut source =
            Source { entries: HashMap::new(), listings: HashMap::new(), keys: Vec::new() };
        source.fill(&ViewPath::root(), 2, random);
        source
    }

    fn fill(&mut self, path: &ViewPath, depth: u32, random: &mut Random) {
        let mut builder = DirectoryBuilder::default();
        let with_attributes = !random.once_in(4);
        for index in 0..1 + random.below(8) {
            let name = format!("n{index}");
            let child = path.join(name.as_bytes()).expect("short");
            let kind = match random.below(5) {
                0 | 1 if depth > 0 => FileKind::Directory,
                2 => FileKind::Link,
                _ => FileKind::Regular,
            };
            let entry = Entry {
                attributes: attributes(kind, random),
                target: (kind == FileKind::Link).then(|| Arc::from(&b"../n0"[..])),
            };
            builder.push(name.as_bytes(), kind, index, with_attributes.then_some(&entry));
            self.want(&child, What::Entry);
            match kind {
                FileKind::Directory => self.fill(&child, depth - 1, random),
                FileKind::Regular => self.want_blocks(&child, &entry.attributes),
                _ => {}
            }
            self.entries.insert(child, entry);
        }
        for name in ["absent", "n99"] {
            self.want(&path.join(name.as_bytes()).expect("short"), What::Entry);
        }
        self.want(path, What::Directory);
        self.listings.insert(path.clone(), Arc::new(builder.finish()));
    }

    fn want(&mut self, path: &ViewPath, what: What) {
        self.keys.push(Key { path: path.clone(), what });
    }

    fn want_blocks(&mut self, path: &ViewPath, attributes: &Attributes) {
        let generation = attributes.generation();
        for index in (0..).map(BlockIndex).take_while(|index| index.len(generation.size) > 0) {
            self.want(path, What::Block { index, generation });
        }
    }

    pub(crate) fn entry(&self, path: &ViewPath) -> Option<&Entry> {
        self.entries.get(path)
    }

    pub(crate) fn listing(&self, path: &ViewPath) -> Option<&Arc<Vec<u8>>> {
        self.listings.get(path)
    }
}

/// Stands for the bytes of an object: equal exactly where they are.
pub(crate) fn checksum(key: &Key) -> u64 {
    let mut hasher = DefaultHasher::new();
    key.hash(&mut hasher);
    hasher.finish()
}

fn attributes(kind: FileKind, random: &mut Random) -> Attributes {
    let size = match (kind, random.below(6)) {
        (FileKind::Regular, 0) => 0,
        (FileKind::Regular, 1..4) => 1 + random.below(20_000),
        (FileKind::Regular, 4) => 1 + random.below(4 << 20),
        (FileKind::Regular, _) => (10 << 20) + random.below(6 << 20),
        _ => 5,
    };
    let time = Timestamp { seconds: random.below(1 << 31) as i64, nanos: 7 };
    Attributes {
        kind,
        permissions: 0o755,
        links: 1,
        uid: 0,
        gid: 0,
        device_number: 0,
        size,
        sectors: size.div_ceil(512),
        io_bytes: 4096,
        accessed: time,
        modified: time,
        changed: time,
        device: 1,
        inode: random.next(),
    }
}
