//! Pages that the kernel is given before it asks.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::time::Duration;

use copper_engine::Question;
use copper_fuse::Feature;

use crate::stage::Stage;
use crate::tree::{ROOT, Tree};
use crate::view::How;

/// Bytes that begin as a library does, or do not.
fn bytes(magic: &[u8], len: usize) -> Vec<u8> {
    let mut bytes: Vec<u8> = (0..len).map(|at| (at / 7 + at / 4096) as u8).collect();
    bytes[..magic.len()].copy_from_slice(magic);
    bytes
}

/// Reads the first bytes, waits for what may be stored, and reads the rest: how many READs.
fn reads(stage: &Stage, name: &str, expected: &[u8], stores: u64) -> u64 {
    let before = stage.mounted.counters().read;
    let file = File::open(stage.path(name)).expect("open");
    let mut head = [0; 832];
    file.read_exact_at(&mut head, 0).expect("read");
    for _ in 0..1000 {
        if stage.mounted.counters().stores >= stores {
            break;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(stage.mounted.counters().stores, stores);
    let mut all = vec![0; expected.len()];
    // Page by page from the end, as a program touches a library: the kernel guesses nothing.
    for start in (0..expected.len()).step_by(4096).rev() {
        let end = (start + 4096).min(expected.len());
        file.read_exact_at(&mut all[start..end], start as u64).expect("read");
    }
    assert!(all == expected, "{name} has other bytes");
    stage.mounted.counters().read - before
}

#[test]
fn what_follows_a_librarys_header_is_there_before_it_is_asked_for() {
    let library = bytes(b"\x7fELF", 200_000);
    let large = bytes(b"\x7fELF", 400_000);
    let data = bytes(b"data", 200_000);
    let mut tree = Tree::new();
    tree.file(ROOT, "library", &library);
    tree.file(ROOT, "large", &large);
    tree.file(ROOT, "data", &data);
    let stage = Stage::new(tree);
    assert_eq!(reads(&stage, "library", &library, 1), 1, "only the header was asked for");
    assert_eq!(stage.mounted.counters().store_bytes, 200_000 - 16_384);
    assert!(reads(&stage, "large", &large, 2) > 1, "only a part is stored");
    assert_eq!(stage.mounted.counters().store_bytes, 200_000 + (256 << 10) - 2 * 16_384);
    assert!(reads(&stage, "data", &data, 2) > 1, "only libraries are stored");
}

#[test]
fn what_is_not_held_is_not_stored_and_read_as_ever() {
    let library = bytes(b"\x7fELF", 200_000);
    let mut tree = Tree::new();
    tree.file(ROOT, "library", &library);
    let stage = Stage::new(tree);
    let is_tail = |question: &Question| matches!(question, Question::Read { offset: 1.., .. });
    stage.view.choose(move |question| if is_tail(question) { How::Later } else { How::Now });
    assert!(reads(&stage, "library", &library, 0) > 1);
}

#[test]
fn nothing_is_stored_where_it_is_switched_off_or_not_kept() {
    for without in [Feature::StoreLibraries, Feature::KeepCache] {
        let library = bytes(b"\x7fELF", 200_000);
        let mut tree = Tree::new();
        tree.file(ROOT, "library", &library);
        let stage = Stage::without(tree, &[without]);
        assert!(reads(&stage, "library", &library, 0) > 1);
    }
}
