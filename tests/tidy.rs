//! The house: which crate may know which, where unsafe code lives, what the pure crates never
//! touch, and what lies at the top level. A rule that is broken names the file and the line.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

/// ARCHITECTURE.md's table of crates: who depends on whom. A new edge belongs there first.
const EDGES: &[(&str, &[&str])] = &[
    ("libfabric-sys", &[]),
    ("copper-ofi", &["libfabric-sys"]),
    ("copper-proto", &[]),
    ("copper-cache", &["copper-proto"]),
    ("copper-engine", &["copper-cache", "copper-proto"]),
    ("copper-fuse", &["copper-engine", "copper-proto"]),
    ("copper-launcher", &["copper-proto"]),
    ("copper-replay", &[]),
    (
        "copper",
        &[
            "copper-cache",
            "copper-engine",
            "copper-fuse",
            "copper-launcher",
            "copper-ofi",
            "copper-proto",
        ],
    ),
];

/// External crates that only one place may know.
const OWNERS: &[(&str, &str)] = &[
    ("fuser", "copper-fuse"),
    ("bindgen", "libfabric-sys"),
    ("memmap2", "copper-ofi"),
    ("clap", "copper"),
    ("anyhow", "copper"),
    ("ratatui", "copper"),
    ("blake3", "copper-launcher"),
];

/// What `proto` and `cache` never name: I/O, clocks, threads, locks.
const IMPURE: &[&str] = &[
    "std::fs",
    "std::io",
    "std::net",
    "std::os",
    "std::process",
    "std::thread",
    "std::env",
    "Instant",
    "SystemTime",
    "Mutex",
    "RwLock",
    "Atomic",
    "rustix::",
    "tracing::",
];

/// What a newcomer reads the architecture off.
const TOP_LEVEL: &[&str] = &[
    ".ci",
    ".gitignore",
    "ARCHITECTURE.md",
    "CHANGELOG.md",
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE",
    "README.md",
    "benches",
    "build.rs",
    "ci",
    "deny.toml",
    "docs",
    "fuse",
    "launcher",
    "ofi",
    "rustfmt.toml",
    "src",
    "tests",
];

/// Names that say nothing.
const EMPTY_NAMES: &[&str] =
    &["utils.rs", "util.rs", "common.rs", "helpers.rs", "manager.rs", "mod.rs", "misc.rs"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn metadata() -> serde_json::Value {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--format-version", "1", "--offline"])
        .current_dir(root())
        .output()
        .expect("cargo is what runs this");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("cargo metadata is JSON")
}

/// Each package's dependencies by kind: normal and build ones, then those for tests.
fn dependencies() -> BTreeMap<String, (BTreeSet<String>, BTreeSet<String>)> {
    let metadata = metadata();
    let packages = metadata["packages"].as_array().expect("a list of packages");
    let text = |value: &serde_json::Value| value.as_str().expect("a name").to_owned();
    packages
        .iter()
        .map(|package| {
            let all = package["dependencies"].as_array().expect("a list");
            let (dev, normal): (Vec<_>, Vec<_>) = all.iter().partition(|it| it["kind"] == "dev");
            let names = |list: Vec<&serde_json::Value>| {
                list.into_iter().map(|it| text(&it["name"])).collect()
            };
            (text(&package["name"]), (names(normal), names(dev)))
        })
        .collect()
}

fn sources(below: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(below)];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("a folder of ours") {
            let path = entry.expect("readable").path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or("");
            if path.is_dir() && name != "target" && !name.starts_with('.') {
                folders.push(path);
            } else if name.ends_with(".rs") {
                found.push(path);
            }
        }
    }
    assert!(!found.is_empty(), "{below} has no sources: is the path right?");
    found
}

/// Lines of code, without comments: file, number, text.
fn code(below: &str) -> Vec<(PathBuf, usize, String)> {
    let mut lines = Vec::new();
    for path in sources(below) {
        let text = std::fs::read_to_string(&path).expect("sources are UTF-8");
        for (index, line) in text.lines().enumerate() {
            let line = line.split("//").next().unwrap_or("").to_owned();
            lines.push((path.clone(), index + 1, line));
        }
    }
    lines
}

#[test]
fn crates_know_only_what_the_design_lets_them() {
    let dependencies = dependencies();
    let names: BTreeSet<&str> = EDGES.iter().map(|(name, _)| *name).collect();
    let packages: BTreeSet<&str> = dependencies.keys().map(String::as_str).collect();
    assert_eq!(packages, names, "every package has its row");
    for (package, allowed) in EDGES {
        let (normal, dev) = &dependencies[*package];
        let ours = |set: &BTreeSet<String>| -> BTreeSet<String> {
            set.iter().filter(|name| names.contains(name.as_str())).cloned().collect()
        };
        let allowed: BTreeSet<String> = allowed.iter().map(|name| (*name).to_owned()).collect();
        assert_eq!(ours(normal), allowed, "the edges of {package}");
        assert!(ours(dev).is_subset(&allowed), "the tests of {package} know more than it does");
    }
}

#[test]
fn some_crates_are_known_in_one_place_only() {
    for (package, (normal, _)) in dependencies() {
        for (external, owner) in OWNERS {
            assert!(
                package == *owner || !normal.contains(*external),
                "{package} depends on {external}, which is {owner}'s"
            );
        }
    }
}

/// The workspace's packages with their features, as cargo resolves them along edges of these kinds.
fn resolved(edges: &str) -> BTreeSet<String> {
    let output = Command::new(env!("CARGO"))
        .args(["tree", "--workspace", "--offline", "--prefix", "none", "--format", "{p}: {f}"])
        .args(["--edges", edges])
        .current_dir(root())
        .output()
        .expect("cargo is what runs this");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("names are UTF-8");
    text.lines().map(str::to_owned).filter(|line| line.starts_with("copper")).collect()
}

#[test]
fn nothing_that_is_shipped_can_have_a_planted_bug() {
    let has_bugs = |packages: BTreeSet<String>| packages.iter().any(|it| it.contains("planted"));
    assert!(!has_bugs(resolved("normal,build")), "a shipped crate enables the feature `planted`");
    assert!(has_bugs(resolved("all")), "the tests plant bugs: this looks at the wrong thing");
    // What the sanitizer and the models need comes from their scripts' flags alone.
    for script in ["build.rs", "ofi/build.rs", "ofi/sys/build.rs"] {
        let text = std::fs::read_to_string(root().join(script)).expect(script);
        assert!(!text.contains("rustc-cfg"), "{script} sets a cfg");
    }
    // Nor by a default, or by another feature's name.
    for package in metadata()["packages"].as_array().expect("a list of packages") {
        for (feature, enables) in package["features"].as_object().expect("by name") {
            assert!(!enables.to_string().contains("planted"), "{}: {feature}", package["name"]);
        }
    }
}

#[test]
fn unsafe_code_lives_in_ofi_alone() {
    for lib in ["src/proto/lib.rs", "src/cache/lib.rs", "src/engine/lib.rs", "fuse/src/lib.rs"] {
        let text = std::fs::read_to_string(root().join(lib)).expect(lib);
        assert!(text.contains("#![forbid(unsafe_code)]"), "{lib} does not forbid unsafe code");
    }
    for folder in ["src", "fuse", "launcher", "tests"] {
        for (path, number, line) in code(folder) {
            let names_it = line.contains("unsafe ") && !line.contains('"');
            assert!(!names_it, "{}:{number}: {line}", path.display());
        }
    }
}

#[test]
fn the_pure_crates_stay_pure() {
    for folder in ["src/proto", "src/cache"] {
        for (path, number, line) in code(folder) {
            for word in IMPURE {
                assert!(!line.contains(word), "{}:{number} names {word}: {line}", path.display());
            }
        }
    }
    for (path, number, line) in code("src/engine") {
        for word in ["fuser", "libfabric", "rustix", "std::fs", "Instant"] {
            assert!(!line.contains(word), "{}:{number} names {word}: {line}", path.display());
        }
    }
}

#[test]
fn the_top_level_shows_the_architecture() {
    let output = Command::new("git").args(["ls-files"]).current_dir(root()).output();
    let Some(output) = output.ok().filter(|output| output.status.success()) else {
        // An unpacked archive has no list of what belongs to it.
        return;
    };
    let files = String::from_utf8(output.stdout).expect("names are UTF-8");
    for file in files.lines() {
        let top = file.split('/').next().unwrap_or(file);
        assert!(TOP_LEVEL.contains(&top), "{top} does not belong at the top level");
    }
}

#[test]
fn files_are_named_after_what_they_define() {
    for folder in ["src", "fuse", "launcher", "ofi", "tests"] {
        for path in sources(folder) {
            let name = path.file_name().and_then(|name| name.to_str()).expect("UTF-8");
            assert!(!EMPTY_NAMES.contains(&name), "{} says nothing by its name", path.display());
        }
    }
}

/// The promises of docs/SEMANTICS.md by number, each with the tests that it names as `file::test`;
/// under 0 what stands before the first.
fn promises() -> BTreeMap<usize, BTreeSet<String>> {
    let text = std::fs::read_to_string(root().join("docs/SEMANTICS.md")).expect("it is there");
    let mut promises: BTreeMap<usize, BTreeSet<String>> = BTreeMap::from([(0, BTreeSet::new())]);
    let mut current = 0;
    for line in text.lines() {
        let number = line.split_once(". ").and_then(|(number, _)| number.parse().ok());
        if let Some(number) = number {
            assert_eq!(number, current + 1, "promises are numbered one after the other: {line}");
            current = number;
        }
        let quoted = line.split('`').skip(1).step_by(2);
        let tests = quoted.filter(|it| it.contains("::") && *it != "file::test");
        promises.entry(current).or_default().extend(tests.map(str::to_owned));
    }
    promises
}

/// The tests of this folder as `file::test`, and whether they mount views.
fn tests() -> BTreeMap<String, bool> {
    let mut tests = BTreeMap::new();
    for entry in std::fs::read_dir(root().join("tests")).expect("the folder of this file") {
        let path = entry.expect("readable").path();
        if path.extension().is_none_or(|extension| extension != "rs") {
            continue;
        }
        let file = path.file_stem().and_then(|stem| stem.to_str()).expect("UTF-8");
        let source = std::fs::read_to_string(&path).expect("sources are UTF-8");
        let mounts = source.contains("\n#[path = \"support/harness.rs\"]\n");
        for after in source.split("\n#[test]\n").skip(1) {
            // Other attributes may come before the function.
            let test = after.lines().find_map(|line| line.strip_prefix("fn "));
            let (name, _) = test.and_then(|test| test.split_once('(')).expect("a function follows");
            tests.insert(format!("{file}::{name}"), mounts);
        }
    }
    tests
}

#[test]
fn every_promise_has_its_test_and_every_test_of_a_view_its_promise() {
    let (promises, tests) = (promises(), tests());
    let named: BTreeSet<&String> = promises.values().flatten().collect();
    for (number, names) in promises.iter().skip(1) {
        assert!(!names.is_empty(), "promise {number} of docs/SEMANTICS.md names no test");
    }
    for name in &named {
        assert!(tests.contains_key(*name), "docs/SEMANTICS.md names {name}, which is not there");
    }
    let of_views = tests.iter().filter(|(_, mounts)| **mounts);
    let forgotten: Vec<&String> =
        of_views.map(|(name, _)| name).filter(|name| !named.contains(name)).collect();
    assert!(forgotten.is_empty(), "no promise of docs/SEMANTICS.md names {forgotten:#?}");
    assert!(promises.len() > 1 && tests.values().any(|mounts| *mounts), "nothing was looked at");
}
