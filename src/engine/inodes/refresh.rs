//! What a refresh does to the inodes.
//!
//! A file (or link) loses its names: whoever looks one up finds what is there now, under another
//! number. Whoever has it open keeps the number, the attributes and the pages of before, and so
//! reads one generation, or `ESTALE`. A directory keeps its number, since processes sit in it; what
//! is known of it goes. If something else turns out to be at its path, it answers `ESTALE`, after
//! which the kernel looks the whole path up again (`LOOKUP_REVAL`, fs/namei.c).

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use copper_proto::{Directory, FileKind, Scope};

use super::{Inode, Inodes, Listing, Tables, read, write};
use crate::view::{InodeNumber, Stale};

/// No name: the kernel's notice of it waits for those who are looking up others in the directory.
const NO_NAME: &[u8] = b"/";

impl<B: Clone> Inodes<B> {
    /// Forgets what a refresh covers; what the kernel has to be told.
    pub(crate) fn refresh(&self, scope: &Scope) -> Vec<Stale> {
        let mut tables = write(&self.tables);
        let mut names = BTreeSet::new();
        let mut directories = Vec::new();
        let inodes: Vec<_> = tables.by_number.values().cloned().collect();
        for inode in inodes {
            let held = scope.holds(&inode.path);
            if inode.is_directory() && (held || scope.is_above(&inode.path)) {
                let absent = std::mem::take(&mut *write(&inode.absent));
                names.extend(absent.into_iter().map(|name| (inode.number, name)));
                names.insert((inode.parent, NO_NAME.into()));
                tables.forget_directory(&inode);
                directories.push(inode.number);
            } else if held {
                write(&inode.blocks).clear();
            }
        }
        for (parent, name, number) in tables.names_within(scope) {
            if tables.by_number.get(&number).is_some_and(|inode| !inode.is_directory()) {
                tables.unname_one(number, parent, &name);
                names.insert((parent, name));
            }
        }
        let names = names.into_iter().map(|(parent, name)| Stale::Name { parent, name });
        names.chain(directories.into_iter().map(Stale::Directory)).collect()
    }
}

impl<B: Clone> Tables<B> {
    fn forget_directory(&mut self, inode: &Inode<B>) {
        let listing = write(&inode.listing).take();
        for (identity, number) in listing.iter().flat_map(Listing::identities) {
            if self.reserved.get(&identity) == Some(&number) {
                self.reserved.remove(&identity);
            }
        }
        *write(&inode.attributes) = None;
        *write(&inode.extended_attributes) = None;
        inode.unlistable.store(false, Ordering::Relaxed);
    }

    /// The names that a refresh covers, with their directory and what they name.
    fn names_within(&self, scope: &Scope) -> Vec<(InodeNumber, Box<[u8]>, InodeNumber)> {
        let above = scope.path().split();
        let mut found = Vec::new();
        for (&parent, names) in &self.children {
            let Some(directory) = self.by_number.get(&parent) else { continue };
            let all = scope.holds(&directory.path);
            let one = above.as_ref().filter(|(path, _)| *path == directory.path);
            for (name, &number) in names {
                if all || one.is_some_and(|(_, only)| *only == &**name) {
                    found.push((parent, name.clone(), number));
                }
            }
        }
        found
    }
}

impl<B> Tables<B> {
    /// Takes a name from a file.
    fn unname_one(&mut self, number: InodeNumber, parent: InodeNumber, name: &[u8]) {
        if let Some(names) = self.children.get_mut(&parent) {
            names.remove(name);
        }
        if let Some(places) = self.names.get_mut(&number) {
            places.retain(|(of, called)| *of != parent || **called != *name);
        }
        // Its other names, if it has some, stay; no more are found to be its own.
        let inode = self.by_number.get(&number);
        let Some(origin) = inode.and_then(|inode| inode.origin.get()) else { return };
        let identity = (origin.device, origin.inode);
        for table in [&mut self.by_identity, &mut self.reserved] {
            if table.get(&identity) == Some(&number) {
                table.remove(&identity);
            }
        }
    }

    /// Takes all names from an inode.
    pub(super) fn unname(&mut self, number: InodeNumber) {
        for (parent, name) in self.names.get(&number).cloned().unwrap_or_default() {
            self.unname_one(number, parent, &name);
        }
    }
}

impl<B: Clone> Inode<B> {
    fn is_directory(&self) -> bool {
        let origin = self.origin.get().map(|origin| origin.kind);
        self.number == InodeNumber::ROOT || origin == Some(FileKind::Directory)
    }

    /// Whether this is the snapshot that is shown of the directory.
    pub(super) fn shows(&self, snapshot: &Directory) -> bool {
        let listing = read(&self.listing);
        listing
            .as_ref()
            .is_some_and(|listing| std::ptr::eq(Arc::as_ptr(&listing.directory), snapshot))
    }
}
