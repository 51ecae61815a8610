//! A file tree in memory.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use copper_proto::{Attributes, Directory, DirectoryBuilder, Entry, FileKind, Timestamp};

/// An index into the tree; the inode number shown is one more.
pub(crate) type NodeIndex = usize;

pub(crate) const ROOT: NodeIndex = 0;

pub(crate) struct Node {
    pub(crate) parent: NodeIndex,
    pub(crate) attributes: Attributes,
    pub(crate) content: Content,
}

pub(crate) enum Content {
    Directory(Folder),
    File(Vec<u8>),
    Link(Arc<[u8]>),
    Special,
}

#[derive(Default)]
pub(crate) struct Folder {
    names: Vec<(Vec<u8>, NodeIndex)>,
    by_name: HashMap<Vec<u8>, NodeIndex>,
    /// Entries whose attributes the snapshot does not carry.
    bare: Bare,
    snapshot: OnceLock<Arc<Directory>>,
}

/// Which entries of a snapshot come without attributes.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Bare {
    #[default]
    None,
    EverySecond,
    All,
}

impl Folder {
    pub(crate) fn find(&self, name: &[u8]) -> Option<NodeIndex> {
        self.by_name.get(name).copied()
    }
}

pub(crate) struct Tree {
    pub(crate) nodes: Vec<Node>,
}

impl Tree {
    pub(crate) fn new() -> Tree {
        let mut tree = Tree { nodes: Vec::new() };
        tree.nodes.push(Node {
            parent: ROOT,
            attributes: attributes(FileKind::Directory, 0, 1),
            content: Content::Directory(Folder::default()),
        });
        tree
    }

    pub(crate) fn directory(&mut self, parent: NodeIndex, name: &str) -> NodeIndex {
        let content = Content::Directory(Folder::default());
        self.add(parent, name.as_bytes(), FileKind::Directory, 0, content)
    }

    pub(crate) fn file(&mut self, parent: NodeIndex, name: &str, bytes: &[u8]) -> NodeIndex {
        self.file_named(parent, name.as_bytes(), bytes)
    }

    pub(crate) fn file_named(&mut self, parent: NodeIndex, name: &[u8], bytes: &[u8]) -> NodeIndex {
        let content = Content::File(bytes.to_vec());
        self.add(parent, name, FileKind::Regular, bytes.len() as u64, content)
    }

    pub(crate) fn link(&mut self, parent: NodeIndex, name: &str, target: &[u8]) -> NodeIndex {
        let content = Content::Link(Arc::from(target));
        self.add(parent, name.as_bytes(), FileKind::Link, target.len() as u64, content)
    }

    pub(crate) fn special(&mut self, parent: NodeIndex, name: &str, kind: FileKind) -> NodeIndex {
        self.add(parent, name.as_bytes(), kind, 0, Content::Special)
    }

    pub(crate) fn set_bare(&mut self, directory: NodeIndex, bare: Bare) {
        self.folder_mut(directory).bare = bare;
    }

    pub(crate) fn folder(&self, directory: NodeIndex) -> Option<&Folder> {
        match &self.nodes.get(directory)?.content {
            Content::Directory(folder) => Some(folder),
            Content::File(_) | Content::Link(_) | Content::Special => None,
        }
    }

    /// What `snapshot`'s entry at a position is.
    pub(crate) fn child(&self, directory: NodeIndex, position: usize) -> NodeIndex {
        self.folder(directory).expect("a directory").names[position].1
    }

    pub(crate) fn snapshot(&self, directory: NodeIndex) -> Option<Arc<Directory>> {
        let folder = self.folder(directory)?;
        let build = || {
            let mut builder = DirectoryBuilder::default();
            for (position, (name, index)) in folder.names.iter().enumerate() {
                let node = &self.nodes[*index];
                let target = match &node.content {
                    Content::Link(target) => Some(Arc::clone(target)),
                    Content::Directory(_) | Content::File(_) | Content::Special => None,
                };
                let entry = Entry { attributes: node.attributes, target };
                let bare = match folder.bare {
                    Bare::None => false,
                    Bare::EverySecond => position % 2 == 1,
                    Bare::All => true,
                };
                let entry = (!bare).then_some(&entry);
                builder.push(name, node.attributes.kind, node.attributes.inode, entry);
            }
            Arc::new(Directory::decode(&builder.finish()).expect("well-formed"))
        };
        Some(Arc::clone(folder.snapshot.get_or_init(build)))
    }

    fn folder_mut(&mut self, directory: NodeIndex) -> &mut Folder {
        match &mut self.nodes[directory].content {
            Content::Directory(folder) => folder,
            Content::File(_) | Content::Link(_) | Content::Special => panic!("not a directory"),
        }
    }

    fn add(
        &mut self,
        parent: NodeIndex,
        name: &[u8],
        kind: FileKind,
        size: u64,
        content: Content,
    ) -> NodeIndex {
        let index = self.nodes.len();
        let attributes = attributes(kind, size, index as u64 + 1);
        self.nodes.push(Node { parent, attributes, content });
        let folder = self.folder_mut(parent);
        folder.names.push((name.to_vec(), index));
        assert!(folder.by_name.insert(name.to_vec(), index).is_none(), "a name twice");
        index
    }
}

fn attributes(kind: FileKind, size: u64, inode: u64) -> Attributes {
    let time = |nanos| Timestamp { seconds: 1_600_000_000, nanos };
    Attributes {
        kind,
        permissions: if kind == FileKind::Directory { 0o755 } else { 0o644 },
        links: 1,
        uid: rustix::process::getuid().as_raw(),
        gid: rustix::process::getgid().as_raw(),
        device_number: 0,
        size,
        sectors: size.div_ceil(512),
        io_bytes: 65_536,
        accessed: time(1),
        modified: time(2),
        changed: time(3),
        device: 7,
        inode: inode + 1_000_000,
    }
}
