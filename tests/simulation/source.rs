//! The simulated parallel file system: a random tree whose every byte follows from its path.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use copper_proto::{
    Attributes, BlockIndex, DirectoryBuilder, Entry, FileKind, Key, Timestamp, ViewPath, What,
};

use crate::random::Random;

/// Counts the changes of the source.
pub(crate) type Version = u64;

/// What something has been, from which version on; the last is what it is.
type History<T> = Vec<(Version, T)>;

#[derive(Debug)]
struct Folder {
    names: Vec<String>,
    with_attributes: bool,
}

#[derive(Debug)]
pub(crate) struct Source {
    version: Version,
    entries: HashMap<ViewPath, History<Option<Entry>>>,
    folders: HashMap<ViewPath, Folder>,
    listings: HashMap<ViewPath, History<Arc<Vec<u8>>>>,
    /// Everything that can be wanted, and names that do not exist.
    pub(crate) keys: Vec<Key>,
}

impl Source {
    pub(crate) fn random(random: &mut Random) -> Source {
        let mut source = Source {
            version: 0,
            entries: HashMap::new(),
            folders: HashMap::new(),
            listings: HashMap::new(),
            keys: Vec::new(),
        };
        source.fill(&ViewPath::root(), 2, random);
        source
    }

    /// A file that nothing lists or changes, of the default generation but for its size.
    pub(crate) fn put(&mut self, path: ViewPath, size: u64, random: &mut Random) {
        let time = Timestamp::default();
        let some = attributes(FileKind::Regular, random);
        let attributes = Attributes { size, modified: time, changed: time, inode: 0, ..some };
        self.entries.insert(path, vec![(0, Some(Entry { attributes, target: None }))]);
    }

    fn fill(&mut self, path: &ViewPath, depth: u32, random: &mut Random) {
        let with_attributes = !random.once_in(4);
        let mut names = Vec::new();
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
            self.want(&child, What::Entry);
            match kind {
                FileKind::Directory => self.fill(&child, depth - 1, random),
                FileKind::Regular => self.want_blocks(&child, &entry.attributes),
                _ => {}
            }
            self.entries.insert(child, vec![(0, Some(entry))]);
            names.push(name);
        }
        for name in ["absent", "n99"] {
            self.want(&path.join(name.as_bytes()).expect("short"), What::Entry);
            names.push(name.to_owned());
        }
        self.want(path, What::Directory);
        self.folders.insert(path.clone(), Folder { names, with_attributes });
        self.list(path);
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

    /// Encodes a folder as it is now.
    fn list(&mut self, path: &ViewPath) {
        let folder = &self.folders[path];
        let mut builder = DirectoryBuilder::default();
        for (index, name) in folder.names.iter().enumerate() {
            let child = path.join(name.as_bytes()).expect("short");
            let Some(entry) = self.entry(&child) else { continue };
            let shown = folder.with_attributes.then_some(entry);
            builder.push(name.as_bytes(), entry.attributes.kind, index as u64, shown);
        }
        let listing = Arc::new(builder.finish());
        self.listings.entry(path.clone()).or_default().push((self.version, listing));
    }

    /// A file is written, removed or made.
    pub(crate) fn change(&mut self, random: &mut Random) {
        let path = random.pick(&self.keys).path.clone();
        let Some((folder, _)) = path.split() else { return };
        let is_file = |entry: &Entry| entry.attributes.kind == FileKind::Regular;
        if !self.entry(&path).is_none_or(is_file) {
            return;
        }
        self.version += 1;
        let made = Entry { attributes: attributes(FileKind::Regular, random), target: None };
        let entry = (self.entry(&path).is_none() || !random.once_in(4)).then_some(made);
        if let Some(entry) = &entry {
            self.want_blocks(&path, &entry.attributes);
        }
        self.entries.entry(path).or_default().push((self.version, entry));
        self.list(&folder);
    }

    pub(crate) fn version(&self) -> Version {
        self.version
    }

    pub(crate) fn entry(&self, path: &ViewPath) -> Option<&Entry> {
        self.entries.get(path)?.last()?.1.as_ref()
    }

    pub(crate) fn listing(&self, path: &ViewPath) -> Arc<Vec<u8>> {
        let (_, listing) = self.listings[path].last().expect("listed when it was made");
        Arc::clone(listing)
    }

    /// The key with the file's generation of now, if it has that block now.
    pub(crate) fn current(&self, key: Key) -> Key {
        let What::Block { index, .. } = key.what else { return key };
        let generation = self.entry(&key.path).map(|entry| entry.attributes.generation());
        match generation.filter(|generation| index.len(generation.size) > 0) {
            Some(generation) => Key { path: key.path, what: What::Block { index, generation } },
            None => Key { path: key.path, what: What::Entry },
        }
    }

    /// Whether a path was this at a version from `floor` on.
    pub(crate) fn was(&self, path: &ViewPath, entry: Option<&Entry>, floor: Version) -> bool {
        let Some(history) = self.entries.get(path) else { return entry.is_none() };
        let never = (entry.is_none() && history[0].0 > floor).then_some(());
        never.is_some() || since(history, floor).any(|was| was.as_ref() == entry)
    }

    /// Whether the file was of the key's generation then.
    pub(crate) fn had(&self, key: &Key, floor: Version) -> bool {
        let What::Block { generation, .. } = key.what else { return false };
        let history = self.entries.get(&key.path).map_or(&[][..], Vec::as_slice);
        let mut states = since(history, floor).flatten();
        states.any(|entry| entry.attributes.generation() == generation)
    }

    /// Whether a folder was listed so then.
    pub(crate) fn listed(&self, path: &ViewPath, bytes: &[u8], floor: Version) -> bool {
        let history = self.listings.get(path).map_or(&[][..], Vec::as_slice);
        since(history, floor).any(|listing| **listing == bytes)
    }
}

/// The states of a history that were the source's at a version from `floor` on.
fn since<T>(history: &[(Version, T)], floor: Version) -> impl Iterator<Item = &T> {
    let ends = history.iter().skip(1).map(|&(version, _)| version).chain([Version::MAX]);
    history.iter().zip(ends).filter(move |&(_, end)| end > floor).map(|((_, state), _)| state)
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
