use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use copper_fuse::Feature;
use rustix::fs::{FileType, RawDir, SeekFrom, seek};

use crate::stage::{Stage, until};
use crate::tree::{Bare, ROOT, Tree};
use crate::view::How;

/// An entry as `getdents64` gives it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Listed {
    name: Vec<u8>,
    inode: u64,
    kind: FileType,
    next: u64,
}

/// Entries from where the directory stands, at most about `most`.
fn list_some(directory: &File, most: usize) -> Vec<Listed> {
    let mut buffer = [MaybeUninit::uninit(); 4096];
    let mut raw = RawDir::new(directory, &mut buffer);
    let mut listed = Vec::new();
    while let Some(entry) = raw.next() {
        let entry = entry.expect("listed");
        listed.push(Listed {
            name: entry.file_name().to_bytes().to_vec(),
            inode: entry.ino(),
            kind: entry.file_type(),
            next: entry.next_entry_cookie(),
        });
        if listed.len() >= most && raw.is_buffer_empty() {
            break;
        }
    }
    listed
}

fn list(path: &Path) -> Vec<Listed> {
    list_some(&File::open(path).expect("open"), usize::MAX)
}

fn large(bare: Bare) -> Tree {
    let mut tree = Tree::new();
    let directory = tree.directory(ROOT, "large");
    for at in 0..10_000 {
        tree.file(directory, &format!("entry-{:05}-{at}", (at * 7919) % 10_000), b"");
    }
    tree.set_bare(directory, bare);
    tree
}

fn check_large(stage: &Stage, how: How) {
    stage.view.choose(move |_| how);
    let path = stage.path("large");
    let all = list(&path);
    assert_eq!(all.len(), 10_002);
    assert_eq!((&all[0].name[..], &all[1].name[..]), (&b"."[..], &b".."[..]));
    for (at, entry) in all[2..].iter().enumerate() {
        let name = format!("entry-{:05}-{at}", (at * 7919) % 10_000);
        assert_eq!(entry.name, name.as_bytes(), "the source's order");
        assert_eq!(entry.kind, FileType::RegularFile);
        assert_eq!(entry.inode, at as u64 + 3, "the number that stat will show");
    }
    // telldir and seekdir: two partial reads, the second from a remembered place.
    let directory = File::open(&path).expect("open");
    let first = list_some(&directory, 1000);
    assert!(first.len() >= 1000 && first.len() < 10_002);
    let place = first[499].next;
    let _further = list_some(&directory, 3000);
    seek(&directory, SeekFrom::Start(place)).expect("seek");
    assert_eq!(list_some(&directory, usize::MAX), all[500..]);
    seek(&directory, SeekFrom::Start(0)).expect("rewind");
    assert_eq!(list_some(&directory, usize::MAX), all);
    let entry = OsStr::from_bytes(&all[5000].name);
    assert_eq!(fs::metadata(path.join(entry)).expect("stat").ino(), all[5000].inode);
}

#[test]
fn a_large_directory_is_listed_in_order_from_any_place() {
    for how in [How::Now, How::Later] {
        for features in [&[][..], &[Feature::Readdirplus], &[Feature::NoOpendir]] {
            let stage = Stage::without(large(Bare::None), features);
            check_large(&stage, how);
            let counters = stage.mounted.counters();
            let plus = !features.contains(&Feature::Readdirplus);
            assert_eq!((counters.readdirplus > 0, counters.readdir > 0), (plus, !plus));
        }
    }
}

#[test]
fn entries_without_attributes_are_listed_with_their_numbers_and_looked_up_later() {
    for bare in [Bare::EverySecond, Bare::All] {
        let stage = Stage::new(large(bare));
        check_large(&stage, How::Now);
        let known = if bare == Bare::All { 0 } else { 5000 };
        // The directory itself, and the one file that was looked up.
        until("the references of what is known", || {
            let references = stage.view.references();
            (known + 1..=known + 2).contains(&references)
        });
        stage.view.arrived();
        for name in ["entry-00000-0", "entry-07919-1", "entry-05838-2"] {
            fs::metadata(stage.path("large").join(name)).expect("stat");
        }
        let looked_up = stage.view.looked_up();
        match bare {
            Bare::All => assert_eq!(looked_up.len(), 3, "{looked_up:?}"),
            _ => assert_eq!(looked_up, ["entry-07919-1"]),
        }
    }
}

#[test]
fn the_two_dots_are_the_directory_and_its_parent() {
    let mut tree = Tree::new();
    let outer = tree.directory(ROOT, "outer");
    let inner = tree.directory(outer, "inner");
    let stage = Stage::new(tree);
    let listed = list(&stage.path("outer/inner"));
    let numbers: Vec<u64> = listed.iter().map(|entry| entry.inode).collect();
    assert_eq!(numbers, [inner as u64 + 1, outer as u64 + 1]);
    let listed = list(stage.mounted.point());
    assert_eq!((listed[0].inode, listed[1].inode), (1, 1), "the root is its own parent");
    assert!(listed.iter().all(|entry| entry.kind == FileType::Directory));
    let parent = fs::metadata(stage.path("outer/inner/..")).expect("stat");
    assert_eq!(parent.ino(), outer as u64 + 1);
}

#[test]
fn names_are_bytes() {
    let names: [&[u8]; 6] = [b"a\nb", b"\xff\xfe", b"sp ace", b"\xc3\xbc", b"...", &[b'x'; 255]];
    let mut tree = Tree::new();
    for name in names {
        tree.file_named(ROOT, name, name);
    }
    let stage = Stage::new(tree);
    let listed: HashSet<Vec<u8>> =
        list(stage.mounted.point()).into_iter().map(|entry| entry.name).collect();
    for name in names {
        assert!(listed.contains(name), "{name:?}");
        let path = stage.mounted.point().join(OsStr::from_bytes(name));
        assert_eq!(fs::read(path).expect("read"), name);
    }
    assert_eq!(listed.len(), names.len() + 2);
    let long = stage.mounted.point().join(OsStr::from_bytes(&[b'y'; 256]));
    let error = fs::metadata(long).expect_err("too long");
    assert_eq!(error.raw_os_error(), Some(copper_proto::Errno::ENAMETOOLONG.0));
}

#[test]
fn links_point_where_the_source_says() {
    let mut tree = Tree::new();
    let target = tree.directory(ROOT, "target");
    tree.file(target, "file", b"content");
    tree.link(ROOT, "relative", b"target/file");
    tree.link(ROOT, "absolute", b"/nowhere/at/all");
    tree.link(ROOT, "bytes", b"\xff\n");
    tree.link(ROOT, "long", &[b'x'; 4095]);
    tree.link(ROOT, "circle", b"circle");
    let stage = Stage::new(tree);
    assert_eq!(fs::read(stage.path("relative")).expect("read"), b"content");
    let link = |name| fs::read_link(stage.path(name)).expect("link").into_os_string();
    assert_eq!(link("absolute"), "/nowhere/at/all");
    assert_eq!(link("bytes").as_bytes(), b"\xff\n");
    assert_eq!(link("long").len(), 4095);
    let error = fs::metadata(stage.path("circle")).expect_err("a circle");
    assert_eq!(error.raw_os_error(), Some(copper_proto::Errno::ELOOP.0));
}

#[test]
fn every_reference_comes_back() {
    let mut tree = large(Bare::EverySecond);
    let small = tree.directory(ROOT, "small");
    for at in 0..300 {
        tree.file(small, &format!("file-{at}"), b"x");
    }
    let stage = Stage::new(tree);
    for how in [How::Now, How::Later] {
        stage.view.choose(move |_| how);
        assert_eq!(list(&stage.path("large")).len(), 10_002);
        let small = File::open(stage.path("small")).expect("open");
        assert!(list_some(&small, 10).len() < 302, "left in the middle");
        assert_eq!(list(&stage.path("small")).len(), 302);
        fs::read(stage.path("small/file-7")).expect("read");
        assert!(fs::metadata(stage.path("small/absent")).is_err());
        drop(small);
        assert!(stage.view.references() > 5000);
        if !stage.remount("ro") {
            return;
        }
        until("all references", || stage.view.references() == 0);
    }
    assert!(stage.mounted.counters().forget > 0);
}

#[test]
fn a_listing_is_the_same_whatever_the_room_for_each_part_of_it() {
    let mut tree = Tree::new();
    let names: Vec<String> =
        (0..700).map(|at| format!("{at}{}", "-".repeat(at * 37 % 240))).collect();
    for (at, name) in names.iter().enumerate() {
        match at % 3 {
            0 => tree.directory(ROOT, name),
            1 => tree.link(ROOT, name, b"target"),
            _ => tree.file(ROOT, name, b"x"),
        };
    }
    tree.set_bare(ROOT, Bare::EverySecond);
    // Not kept by the kernel, so that every part is asked for with its own room.
    let stage = Stage::without(tree, &[Feature::NoOpendir, Feature::CacheDirectories]);
    for seed in 1..=20u64 {
        let directory = File::open(stage.mounted.point()).expect("open");
        let (mut state, mut listed) = (seed, Vec::new());
        loop {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let mut buffer = vec![MaybeUninit::uninit(); 300 + (state >> 50) as usize];
            let mut raw = RawDir::new(&directory, &mut buffer);
            let before = listed.len();
            while let Some(entry) = raw.next() {
                listed.push(entry.expect("listed").file_name().to_bytes().to_vec());
                if raw.is_buffer_empty() {
                    break;
                }
            }
            if listed.len() == before {
                break;
            }
        }
        let wanted = [".", ".."].into_iter().chain(names.iter().map(String::as_str));
        assert!(listed.iter().map(Vec::as_slice).eq(wanted.map(str::as_bytes)), "seed {seed}");
    }
}

#[test]
fn an_offset_beyond_the_end_is_the_end() {
    let mut tree = Tree::new();
    tree.file(ROOT, "file", b"x");
    let stage = Stage::new(tree);
    let directory = File::open(stage.mounted.point()).expect("open");
    for place in [3, 1000, i64::MAX as u64] {
        seek(&directory, SeekFrom::Start(place)).expect("seek");
        assert_eq!(list_some(&directory, usize::MAX), []);
    }
}

#[test]
fn many_who_list_a_directory_at_once_see_all_of_it_with_fewer_requests() {
    const DIRECTORIES: usize = 20;
    const LISTERS: usize = 12;
    let mut tree = Tree::new();
    let expected: Vec<String> = (0..50).map(|index| format!("file-{index:02}")).collect();
    for index in 0..DIRECTORIES {
        let directory = tree.directory(ROOT, &format!("d{index}"));
        for name in &expected {
            tree.file(directory, name, b"x");
        }
    }
    let stage = Stage::new(tree);
    let start = std::sync::Barrier::new(LISTERS);
    std::thread::scope(|scope| {
        for _ in 0..LISTERS {
            scope.spawn(|| {
                for index in 0..DIRECTORIES {
                    start.wait();
                    let entries = fs::read_dir(stage.path(&format!("d{index}"))).expect("a folder");
                    let name = |entry: std::io::Result<fs::DirEntry>| {
                        entry.expect("it goes on").file_name().into_string().expect("UTF-8")
                    };
                    let mut names: Vec<String> = entries.map(name).collect();
                    names.sort();
                    assert_eq!(names, expected);
                }
            });
        }
    });
    let requests = stage.mounted.counters().readdirplus;
    let most = (2 * LISTERS * DIRECTORIES) as u64;
    assert!(requests < most, "{requests} of at most {most}: nobody was joined");
    assert_eq!((stage.view.waiting(), stage.mounted.counters().expired), (0, 0));
}
