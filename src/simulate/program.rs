//! What every process does: a program's files, and its steps among them. `recorded` makes one of a
//! trace of calls.
//!
//! [`Program::torch`] has the shape of `import torch`: 1,153 small files of 38 MiB in all, 13 medium
//! ones, 15 large ones up to 496 MiB of which a third is touched, 2,100 names that are found, 1,573
//! that are not, 390 listings. Which names and sizes they are is drawn from one fixed number, so that
//! every run, whatever its seed, reads the same.

mod recorded;

use std::sync::Arc;
use std::time::Duration;

use copper_cache::policy::{carries_attributes, siblings};
use copper_proto::limits::{BLOCK_BYTES, READS_BEFORE_SIBLINGS};
use copper_proto::{
    Attributes, BlockIndex, Directory, DirectoryBuilder, Entry, FileKind, Key, Timestamp, ViewPath,
    What,
};
use hashbrown::HashMap;

use super::constants::Constants;
use super::random::Random;
use super::source_model::SourceCost;

/// How much of what a program does.
#[derive(Debug)]
struct Shape {
    small_files: usize,
    small_bytes: u64,
    medium_files: u64,
    large_mib: &'static [u64],
    found: usize,
    absent: usize,
    listings: usize,
    computing_divisor: u32,
}

const TORCH: Shape = Shape {
    small_files: 1_153,
    small_bytes: 38 << 20,
    medium_files: 13,
    large_mib: &[496, 310, 250, 180, 130, 100, 80, 60, 50, 40, 32, 26, 20, 16, 12],
    found: 2_100,
    absent: 1_573,
    listings: 390,
    computing_divisor: 1,
};

/// Some of everything, for thousands of runs: hardly any time between two steps, and more than the
/// smallest arenas hold.
const SMALL: Shape = Shape {
    small_files: 40,
    small_bytes: 1 << 20,
    medium_files: 2,
    large_mib: &[40, 14],
    found: 60,
    absent: 20,
    listings: 8,
    computing_divisor: 150,
};

/// Of each section of a large file, of so many blocks, the first third is touched, in order. Assumed: a
/// loader walks through sections of tens of MiB, and the rest is never run.
const SECTION_BLOCKS: u32 = 192;

/// One in so many small files lies beside those that are read and is not read itself (ADR 10).
const UNREAD_SHARE: usize = 6;

/// The directories on the way, which are passed through.
const PREFIX: [&str; 3] = ["software", "python3.12", "site-packages"];

/// One thing that a process does.
#[derive(Clone, Debug)]
pub(super) enum Step {
    /// Looks a name up in a folder.
    Find { folder: usize, path: ViewPath },
    /// Lists a folder.
    List { folder: usize },
    /// Asks what the daemon answers by itself: whether a file is a terminal.
    Ioctl { folder: usize },
    /// Touches a block for the first time.
    Read { folder: usize, object: u32 },
}

/// What can be pulled.
#[derive(Debug)]
pub(super) struct Object {
    pub(super) key: Key,
    pub(super) len: u32,
    pub(super) cost: SourceCost,
    /// Its decoded form, if it is a listing.
    pub(super) directory: Option<Arc<Directory>>,
}

#[derive(Debug)]
pub(super) struct Folder {
    pub(super) path: ViewPath,
    /// The folder that it lies in, but for the view's root.
    pub(super) above: Option<usize>,
    /// As `stat` has it.
    pub(super) size: u64,
    /// Its listing.
    pub(super) object: u32,
    /// The first blocks that are fetched when a file in it is read after [`READS_BEFORE_SIBLINGS`]
    /// others: every rank's keys are these.
    siblings: Vec<Key>,
    entries: Vec<(Box<[u8]>, Entry)>,
}

impl Folder {
    /// What is fetched when a file in it is read after so many others.
    pub(super) fn siblings(&self, reads_before: u32) -> &[Key] {
        if reads_before == READS_BEFORE_SIBLINGS { &self.siblings } else { &[] }
    }
}

#[derive(Debug)]
pub(crate) struct Program {
    pub(super) objects: Vec<Object>,
    pub(super) folders: Vec<Folder>,
    pub(super) steps: Vec<Step>,
    /// It computes so many times less than [`Constants::computing`].
    computing_divisor: u32,
    numbers: HashMap<Key, u32>,
    entries: HashMap<ViewPath, Entry>,
}

impl Program {
    /// The shape of `import torch`.
    pub(crate) fn torch() -> Program {
        Program::shaped(&TORCH)
    }

    /// A hundredth of that, for runs by the thousand.
    pub(crate) fn small() -> Program {
        Program::shaped(&SMALL)
    }

    fn empty(computing_divisor: u32) -> Program {
        Program {
            objects: Vec::new(),
            folders: Vec::new(),
            steps: Vec::new(),
            computing_divisor,
            numbers: HashMap::new(),
            entries: HashMap::new(),
        }
    }

    fn shaped(shape: &Shape) -> Program {
        let mut draw = Random::new(0x7063_6f70);
        let mut program = Program::empty(shape.computing_divisor);
        let base = program.make_prefix();
        let first = program.make_folders(base, shape, &mut draw);
        let mut tasks = program.make_files(first, shape, &mut draw);
        program.close_folders();
        for (folder, tasks) in (first..).zip(&mut tasks) {
            let path = program.folders[folder].path.clone();
            let above = program.folders[folder].above.expect("it lies in the base");
            program.steps.push(Step::Find { folder: above, path });
            program.steps.push(Step::List { folder });
            shuffle(tasks, &mut draw);
            for task in tasks {
                program.add_steps(folder, task);
            }
        }
        program
    }

    /// The object of a key that the program's folders have.
    pub(super) fn number(&self, key: &Key) -> u32 {
        *self.numbers.get(key).expect("nobody asks for what is in no folder")
    }

    /// What a process computes, over all its steps.
    pub(super) fn computing(&self, constants: &Constants) -> Duration {
        constants.computing / self.computing_divisor
    }

    /// What a process computes between two steps.
    pub(super) fn computing_between_steps(&self, constants: &Constants) -> Duration {
        self.computing(constants) / self.steps.len() as u32
    }

    /// For how long everybody is at it, at least: when what goes wrong begins.
    pub(super) fn window(&self, constants: &Constants) -> Duration {
        self.computing(constants).max(Duration::from_millis(200))
    }

    /// What is at a path.
    pub(super) fn entry(&self, path: &ViewPath) -> Option<&Entry> {
        self.entries.get(path)
    }

    /// What the source is asked by a process that reads it directly: metadata operations and bytes.
    pub(super) fn direct(&self) -> SourceCost {
        let mut all = SourceCost::default();
        for step in &self.steps {
            match step {
                Step::Find { .. } | Step::List { .. } => all.operations += 1,
                Step::Ioctl { .. } => {}
                Step::Read { object, .. } => {
                    let cost = self.objects[*object as usize].cost;
                    all.operations += cost.operations;
                    all.bytes += cost.bytes;
                }
            }
        }
        all
    }

    fn make_prefix(&mut self) -> usize {
        self.folders.push(Folder {
            path: ViewPath::root(),
            above: None,
            size: 4096,
            object: 0,
            siblings: Vec::new(),
            entries: Vec::new(),
        });
        let mut folder = 0;
        for name in PREFIX {
            let path = self.path(folder, name);
            self.steps.push(Step::Find { folder, path });
            folder = self.make_folder(folder, name);
        }
        folder
    }

    fn make_folders(&mut self, base: usize, shape: &Shape, draw: &mut Random) -> usize {
        let first = self.folders.len();
        for index in 0..shape.listings {
            // One in five is a package of its own, the others are parts of one before.
            let above = match index % 5 {
                0 => base,
                _ => first + draw.below(index as u64) as usize,
            };
            self.make_folder(above, &format!("package_{index}"));
        }
        first
    }

    fn make_folder(&mut self, above: usize, name: &str) -> usize {
        let number = self.folders.len();
        self.put(above, name, FileKind::Directory, 4096);
        let path = self.path(above, name);
        let (siblings, entries) = (Vec::new(), Vec::new());
        let above = Some(above);
        self.folders.push(Folder { path, above, size: 4096, object: 0, siblings, entries });
        number
    }

    /// Files, and what is done in each folder from `first` on.
    fn make_files(&mut self, first: usize, shape: &Shape, draw: &mut Random) -> Vec<Vec<Task>> {
        let mut tasks: Vec<Vec<Task>> = (0..shape.listings).map(|_| Vec::new()).collect();
        let listings = shape.listings as u64;
        // Packages differ in size: the smaller of two draws.
        let somewhere = |draw: &mut Random| draw.below(listings).min(draw.below(listings)) as usize;
        let sizes = small_sizes(shape, draw);
        for (index, size) in sizes.into_iter().enumerate() {
            let folder = somewhere(draw);
            let name = format!("module_{index}.pyc");
            self.put(first + folder, &name, FileKind::Regular, size);
            tasks[folder].push(Task::Read(name));
            if index % UNREAD_SHARE == 0 {
                let name = format!("unread_{index}.pyc");
                self.put(first + folder, &name, FileKind::Regular, size);
            }
        }
        let medium = (0..shape.medium_files).map(|index| ((1 + index % 9) << 20) - 4097 * index);
        let large = shape.large_mib.iter().map(|mib| (mib << 20) - 12_345);
        for (index, size) in medium.chain(large).enumerate() {
            let (folder, name) = (somewhere(draw), format!("library_{index}.so"));
            self.put(first + folder, &name, FileKind::Regular, size);
            tasks[folder].push(Task::Read(name));
        }
        let others = PREFIX.len() + shape.listings + shape.small_files;
        let libraries = shape.medium_files as usize + shape.large_mib.len();
        for index in 0..shape.found - others - libraries {
            let (folder, name) = (somewhere(draw), format!("empty_{index}"));
            self.put(first + folder, &name, FileKind::Regular, 0);
            tasks[folder].push(Task::Find(name));
        }
        for index in 0..shape.absent {
            tasks[somewhere(draw)].push(Task::Find(format!("absent_{index}")));
        }
        tasks
    }

    fn add_steps(&mut self, folder: usize, task: &Task) {
        let (Task::Find(name) | Task::Read(name)) = task;
        let path = self.path(folder, name);
        self.steps.push(Step::Find { folder, path: path.clone() });
        if let Task::Read(_) = task {
            let size = self.entries[&path].attributes.size;
            let blocks = blocks(size);
            let is_large = size > 10 << 20;
            let touched = |block: &u32| !is_large || is_touched(*block, blocks);
            for block in (0..blocks).filter(touched) {
                let object = self.number(&self.block(&path, block));
                self.steps.push(Step::Read { folder, object });
            }
        }
    }

    fn path(&self, folder: usize, name: &str) -> ViewPath {
        self.folders[folder].path.join(name.as_bytes()).expect("a short name")
    }

    fn put(&mut self, folder: usize, name: &str, kind: FileKind, size: u64) {
        let path = self.path(folder, name);
        let attributes = attributes(kind, size, self.entries.len() as u64 + 2);
        let entry = Entry { attributes, target: None };
        self.put_entry(folder, name.as_bytes(), &path, entry);
        if kind == FileKind::Regular {
            self.put_blocks(&path, size);
        }
    }

    fn put_entry(&mut self, folder: usize, name: &[u8], path: &ViewPath, entry: Entry) {
        self.folders[folder].entries.push((name.into(), entry.clone()));
        self.entries.insert(path.clone(), entry);
    }

    /// All blocks of a file, each of which can be read then.
    fn put_blocks(&mut self, path: &ViewPath, size: u64) {
        for block in 0..blocks(size) {
            let key = self.block(path, block);
            let len = BlockIndex(block).len(size);
            let operations = u64::from(block == 0);
            let cost = SourceCost { operations, bytes: len.into(), ..SourceCost::default() };
            self.add(Object { key, len, cost, directory: None });
        }
    }

    fn block(&self, path: &ViewPath, block: u32) -> Key {
        let generation = self.entries[path].attributes.generation();
        let what = What::Block { index: BlockIndex(block), generation };
        Key { path: path.clone(), what }
    }

    fn add(&mut self, object: Object) -> u32 {
        let number = self.objects.len() as u32;
        self.numbers.insert(object.key.clone(), number);
        self.objects.push(object);
        number
    }

    fn close_folders(&mut self) {
        for folder in 0..self.folders.len() {
            let mut builder = DirectoryBuilder::default();
            let Folder { path, entries, .. } = &self.folders[folder];
            let with_attributes = carries_attributes(entries.len());
            for (name, entry) in entries {
                let Attributes { kind, inode, .. } = entry.attributes;
                builder.push(name, kind, inode, with_attributes.then_some(entry));
            }
            let count = if with_attributes { entries.len() as u32 } else { 0 };
            let bytes = builder.finish();
            let directory = Directory::decode(&bytes).expect("it has just been encoded");
            let key = Key { path: path.clone(), what: What::Directory };
            let operations = 1 + u64::from(count);
            let cost = SourceCost { operations, bytes: 0, entries: count };
            let len = bytes.len() as u32;
            let first = |(name, _): (&[u8], Attributes)| {
                let path = path.join(name).expect("it is in the folder");
                let number = self.number(&self.block(&path, 0));
                self.objects[number as usize].key.clone()
            };
            let siblings = siblings(&directory, READS_BEFORE_SIBLINGS).into_iter().map(first);
            let siblings = siblings.collect();
            let directory = Some(Arc::new(directory));
            self.folders[folder].siblings = siblings;
            self.folders[folder].object = self.add(Object { key, len, cost, directory });
        }
    }
}

/// What is done with one name of a folder.
#[derive(Debug)]
enum Task {
    Find(String),
    Read(String),
}

/// Sizes over eight octaves that add up to what they should.
fn small_sizes(shape: &Shape, draw: &mut Random) -> Vec<u64> {
    let mut weight = || 2f64.powf(draw.below(8_000) as f64 / 1000.0);
    let weights: Vec<f64> = (0..shape.small_files).map(|_| weight()).collect();
    let sum: f64 = weights.iter().sum();
    let size = |weight: &f64| (weight / sum * shape.small_bytes as f64) as u64;
    let mut sizes: Vec<u64> = weights.iter().map(size).collect();
    sizes[0] += shape.small_bytes - sizes.iter().sum::<u64>();
    sizes
}

fn blocks(size: u64) -> u32 {
    size.div_ceil(BLOCK_BYTES.into()) as u32
}

fn is_touched(block: u32, blocks: u32) -> bool {
    let section = block - block % SECTION_BLOCKS;
    block - section < (blocks - section).min(SECTION_BLOCKS).div_ceil(3)
}

fn attributes(kind: FileKind, size: u64, inode: u64) -> Attributes {
    let time = Timestamp { seconds: 1_750_000_000, nanos: 1 };
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
        inode,
    }
}

fn shuffle<T>(items: &mut [T], draw: &mut Random) {
    for index in (1..items.len()).rev() {
        items.swap(index, draw.below(index as u64 + 1) as usize);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_has_the_shape_of_the_import() {
        let program = Program::torch();
        let found = |path| program.entry(path).is_some();
        let (mut present, mut absent, mut listings) = (0, 0, 0);
        let mut bytes_of = HashMap::<&[u8], u64>::new();
        for step in &program.steps {
            match step {
                Step::Find { path, .. } if found(path) => present += 1,
                Step::Find { .. } => absent += 1,
                Step::List { .. } => listings += 1,
                Step::Ioctl { .. } => unreachable!("it has none"),
                Step::Read { object, .. } => {
                    let object = &program.objects[*object as usize];
                    *bytes_of.entry(object.key.path.as_bytes()).or_default() +=
                        u64::from(object.len);
                }
            }
        }
        assert_eq!((present, absent, listings), (TORCH.found, TORCH.absent, TORCH.listings));
        let of = |part: &[u8]| -> Vec<u64> {
            let has = |path: &[u8]| path.windows(part.len()).any(|window| window == part);
            bytes_of.iter().filter(|(path, _)| has(path)).map(|(_, bytes)| *bytes).collect()
        };
        let (small, libraries) = (of(b"/module_"), of(b"/library_"));
        let smalls = (small.len(), small.iter().sum::<u64>());
        assert_eq!(smalls, (TORCH.small_files, TORCH.small_bytes));
        assert_eq!(libraries.len(), TORCH.medium_files as usize + TORCH.large_mib.len());
        let touched: u64 = libraries.iter().sum::<u64>() >> 20;
        let large: u64 = TORCH.large_mib.iter().sum();
        assert!((large / 3..large / 3 + 100).contains(&touched), "{touched} MiB of {large}");
        assert_eq!(program.direct().operations, 2_100 + 1_573 + 390 + 1_153 + 28);
    }
}
