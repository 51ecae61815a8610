use std::fs::{self, File};
use std::io;
use std::time::Duration;

use copper_engine::Question;
use copper_fuse::{Feature, KernelFeatures};

use crate::stage::{Stage, until};
use crate::tree::{ROOT, Tree};

fn tree() -> Tree {
    let mut tree = Tree::new();
    let directory = tree.directory(ROOT, "directory");
    for name in ["a", "b", "c"] {
        tree.file(directory, name, name.as_bytes());
    }
    tree.link(ROOT, "link", b"directory/a");
    tree
}

fn is_absent(stage: &Stage, name: &str) {
    let error = fs::metadata(stage.path(name)).expect_err("absent");
    assert_eq!(error.kind(), io::ErrorKind::NotFound);
}

#[test]
fn an_absent_name_is_asked_for_once() {
    let stage = Stage::new(tree());
    is_absent(&stage, "absent");
    assert_eq!(stage.view.looked_up(), ["absent"]);
    for _ in 0..3 {
        is_absent(&stage, "absent");
    }
    assert_eq!(stage.view.looked_up(), [""; 0]);
    assert_eq!(stage.mounted.counters().negative, 1);
}

#[test]
fn an_absent_name_that_may_not_be_kept_is_asked_for_every_time() {
    let stage = Stage::new(tree());
    *stage.view.absent.lock().expect("lock") = Duration::ZERO;
    for _ in 0..3 {
        is_absent(&stage, "absent");
        assert_eq!(stage.view.looked_up(), ["absent"]);
    }
    assert_eq!(stage.mounted.counters().negative, 3);
}

#[test]
fn an_absent_name_is_kept_no_longer_than_it_may_be() {
    let stage = Stage::new(tree());
    *stage.view.absent.lock().expect("lock") = Duration::from_millis(50);
    is_absent(&stage, "absent");
    stage.view.arrived();
    until("the name is asked for again", || {
        is_absent(&stage, "absent");
        !stage.view.looked_up().is_empty()
    });
}

#[test]
fn without_negatives_every_absent_name_is_asked_for() {
    let stage = Stage::without(tree(), &[Feature::Negatives]);
    for _ in 0..2 {
        is_absent(&stage, "absent");
        assert_eq!(stage.view.looked_up(), ["absent"]);
    }
}

#[test]
fn what_the_kernel_knows_it_does_not_ask_again() {
    let stage = Stage::new(tree());
    let visit = || {
        assert_eq!(fs::read_dir(stage.path("directory")).expect("listed").count(), 3);
        for name in ["a", "b", "c"] {
            let path = stage.path("directory").join(name);
            assert_eq!(fs::metadata(&path).expect("stat").len(), 1);
            assert_eq!(fs::read(&path).expect("read"), name.as_bytes());
        }
        assert_eq!(fs::read(stage.path("link")).expect("read"), b"a");
    };
    visit();
    let names = stage.view.looked_up();
    assert_eq!(names, ["directory", "link"], "the listing brought the rest");
    let first = stage.mounted.counters();
    assert_eq!((first.open, first.opendir, first.release, first.releasedir), (1, 1, 0, 0));
    visit();
    assert_eq!(stage.view.arrived(), []);
    assert_eq!(stage.mounted.counters(), first);
}

#[test]
fn without_no_open_files_are_opened_each_time_and_still_read_once() {
    let stage = Stage::without(tree(), &[Feature::NoOpen, Feature::NoOpendir, Feature::NoFlush]);
    for round in 1..=3 {
        assert_eq!(fs::read(stage.path("directory/a")).expect("read"), b"a");
        assert_eq!(fs::read_dir(stage.path("directory")).expect("listed").count(), 3);
        let reads =
            stage.view.arrived().into_iter().filter(|question| {
                matches!(question, Question::Read { .. } | Question::Directory(_))
            });
        assert_eq!(reads.count() > 0, round == 1, "round {round}");
        let counters = stage.mounted.counters();
        assert_eq!((counters.open, counters.opendir), (round, round));
        until("the releases", || {
            let counters = stage.mounted.counters();
            (counters.release, counters.releasedir) == (round, round)
        });
    }
}

#[test]
fn without_any_feature_everything_is_asked_again() {
    let stage = Stage::with(tree(), Duration::from_secs(30), |settings| {
        settings.features = KernelFeatures::none();
    });
    assert_eq!(stage.mounted.negotiated().granted, KernelFeatures::none());
    for _ in 0..2 {
        assert_eq!(fs::read(stage.path("directory/a")).expect("read"), b"a");
        assert_eq!(fs::read_link(stage.path("link")).expect("link").as_os_str(), "directory/a");
        assert_eq!(fs::read_dir(stage.path("directory")).expect("listed").count(), 3);
        let arrived = stage.view.arrived();
        let has = |wanted: fn(&Question) -> bool| arrived.iter().any(wanted);
        assert!(has(|question| matches!(question, Question::Lookup { .. })));
        assert!(has(|question| matches!(question, Question::Read { .. })));
        assert!(has(|question| matches!(question, Question::Target(_))));
        assert!(has(|question| matches!(question, Question::Directory(_))));
    }
}

#[test]
fn every_feature_that_this_kernel_has_is_granted_and_named() {
    let stage = Stage::new(tree());
    let negotiated = stage.mounted.negotiated();
    assert_eq!(negotiated.asked, KernelFeatures::all());
    assert!(negotiated.protocol >= (7, 31), "{negotiated:?}");
    for feature in [Feature::NoOpen, Feature::NoOpendir, Feature::Readdirplus] {
        assert!(negotiated.granted.has(feature), "{negotiated:?}");
    }
    assert!(negotiated.flags.contains(&"FUSE_CACHE_SYMLINKS"), "{negotiated:?}");
    assert!(!negotiated.flags.contains(&"FUSE_WRITEBACK_CACHE"), "{negotiated:?}");
    assert_eq!((negotiated.max_background, negotiated.max_readahead), (128, 128 << 10));
}

#[test]
fn readahead_is_what_was_set() {
    let content = vec![7; 1 << 20];
    let mut tree = Tree::new();
    tree.file(ROOT, "file", &content);
    let stage = Stage::with(tree, Duration::from_secs(30), |settings| {
        settings.readahead_bytes = Some(16 << 10);
    });
    assert_eq!(stage.mounted.negotiated().max_readahead, 16 << 10);
    let mut file = File::open(stage.path("file")).expect("open");
    io::copy(&mut file, &mut io::sink()).expect("read");
    let largest = stage.view.arrived().into_iter().filter_map(|question| match question {
        Question::Read { len, .. } => Some(len),
        _ => None,
    });
    assert_eq!(largest.max(), Some(16 << 10));
}
