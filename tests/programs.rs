//! Real programs do in a view what they do at the source: they print the same and make the same.

#[path = "support/harness.rs"]
mod support;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use support::tree::BLOCK;
use support::{Job, Scratch, Tree, assert_same_lines, is_root, run, shell};

/// For one run of a program, with a compiler's start on a small machine in it.
const BOUND: Duration = Duration::from_secs(60);

/// # Panics
/// With the name of a program that is not there: no test is left out silently.
#[track_caller]
fn require(programs: &[&str]) {
    let path = std::env::var_os("PATH").unwrap_or_default();
    for program in programs {
        let found = std::env::split_paths(&path).any(|folder| folder.join(program).is_file());
        assert!(found, "{program} is not on PATH: ci/setup.sh installs what the tests run");
    }
}

/// A script, in the folder `at`; what it makes goes to the folder `$out`.
fn script_in(at: &Path, out: &Path, script: &str) -> Command {
    let mut command = shell(&format!(r#"cd "$1" && out=$2 && {script}"#), [at, out]);
    command.env("LC_ALL", "C").env("TZ", "UTC0");
    // Whoever runs the tests may have settings of his own.
    command.env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_NOSYSTEM", "1");
    command
}

/// What a script printed, and the files that it made.
#[derive(Debug)]
struct Outcome {
    stdout: String,
    stderr: String,
    made: BTreeMap<PathBuf, Vec<u8>>,
}

#[track_caller]
fn outcome_in(at: &Path, out: &Path, script: &str) -> Outcome {
    fs::create_dir(out).expect("a new folder");
    let ended = run(&mut script_in(at, out, script), BOUND);
    let stderr = ended.stderr();
    let stdout = ended.success();
    let paths = fs::read_dir(out).expect("it is ours").map(|entry| entry.expect("ours").path());
    let files = paths.filter(|path| path.is_file());
    let made = files.map(|path| {
        let name = path.file_name().map(PathBuf::from).expect("it was listed");
        (name, fs::read(&path).expect("it is ours"))
    });
    Outcome { stdout, stderr, made: made.collect() }
}

/// Runs a script in the source and in each view, and compares the outcomes. Gives what it printed.
#[track_caller]
fn same_everywhere(scratch: &Scratch, tree: &Tree, job: &Job, script: &str) -> String {
    let expected = outcome_in(tree.root(), &scratch.join("made"), script);
    for rank in 0..job.ranks() {
        let out = scratch.join(&format!("made-{rank}"));
        let found = outcome_in(&job.view(rank, tree.root()), &out, script);
        assert_same_lines(&found.stdout, &expected.stdout, script);
        assert_same_lines(&found.stderr, &expected.stderr, script);
        assert!(found.made.keys().eq(expected.made.keys()), "rank {rank}: {:?}", found.made.keys());
        for (name, bytes) in &found.made {
            // Not `assert_eq`, which would print megabytes.
            assert!(*bytes == expected.made[name], "rank {rank} made another {}", name.display());
        }
        fs::remove_dir_all(&out).expect("it is ours");
    }
    fs::remove_dir_all(scratch.join("made")).expect("it is ours");
    expected.stdout
}

/// Makes something in the source before anything is launched.
#[track_caller]
fn prepare(tree: &Tree, script: &str) {
    run(&mut script_in(tree.root(), tree.root(), script), BOUND).success();
}

/// Everything that a program that walks a tree meets.
fn varied(scratch: &Scratch) -> Tree {
    let tree = Tree::new(scratch);
    for size in [0, 1, 4095, 4096, 4097, 65_536, (2 << 20) + 5] {
        tree.file(format!("size-{size}"), size);
    }
    tree.directory("deep/er/still");
    tree.file("deep/er/still/file", 100);
    tree.directory("many");
    for index in 0..300 {
        let text = format!("line one of {index}\na needle in {}\n", index % 7);
        tree.file_with(format!("many/file-{index}"), text.as_bytes());
    }
    tree.directory("empty");
    tree.file("with space\nand newline", 10);
    tree.link("relative", "deep/er/still/file");
    tree.link("dangling", "not/there");
    fs::hard_link(tree.path("size-4097"), tree.path("another-name")).expect("it is ours");
    tree.sparse("sparse", 3 * BLOCK + 100, &[(70_000, b"here"), (2 * BLOCK, b"and here")]);
    tree.fifo("fifo");
    for (name, mode) in [("size-1", 0o4755), ("size-4095", 0o600), ("empty", 0o1777)] {
        fs::set_permissions(tree.path(name), fs::Permissions::from_mode(mode)).expect("ours");
    }
    if is_root() {
        std::os::unix::fs::chown(tree.path("size-4096"), Some(12), Some(34)).expect("root may");
        tree.null_device("null");
    }
    tree.settle_access_times();
    tree
}

/// C sources of a program in two files, with headers in a folder.
fn c_sources(scratch: &Scratch) -> Tree {
    let tree = Tree::new(scratch);
    tree.directory("include/words");
    tree.directory("src");
    tree.file_with("include/words/words.h", b"int words(const char *text);\n");
    tree.file_with("include/all.h", b"#include <stdio.h>\n#include \"words/words.h\"\n");
    tree.file_with(
        "src/main.c",
        b"#include <all.h>\n\
        int main(void) { printf(\"%s: %d\\n\", __FILE__, words(\"three little words\")); }\n",
    );
    tree.file_with(
        "src/words.c",
        b"#include \"words/words.h\"\n\
        int words(const char *text) {\n    int count = 1;\n\
        \x20   for (; *text; text++) count += *text == ' ';\n    return count;\n}\n",
    );
    tree
}

#[test]
fn a_compiler_makes_the_same_objects_and_programs() {
    require(&["gcc", "ar"]);
    let scratch = Scratch::new();
    let tree = c_sources(&scratch);
    prepare(
        &tree,
        "mkdir lib && gcc -O1 -Iinclude -c src/words.c -o lib/words.o && ar rcD lib/libwords.a lib/words.o",
    );
    let job = Job::launch(&scratch, 2);
    let compile = r#"for name in main words; do
            gcc -O1 -g -ffile-prefix-map="$PWD=." -Wall -Iinclude -c "src/$name.c" -o "$out/$name.o" || exit
        done
        gcc -Wall -Iinclude -MD -MF "$out/dependencies" -E src/main.c -o "$out/main.i""#;
    same_everywhere(&scratch, &tree, &job, compile);
    let link = r#"gcc -Iinclude src/main.c src/words.c -o "$out/of-sources" && "$out/of-sources" &&
        gcc -Iinclude src/main.c -Llib -lwords -o "$out/of-library" && "$out/of-library""#;
    let printed = same_everywhere(&scratch, &tree, &job, link);
    assert_eq!(printed, "src/main.c: 3\nsrc/main.c: 3\n");
    let wrong = r#"gcc -Isrc -c src/main.c -o "$out/main.o" 2>&1; test $? = 1"#;
    let printed = same_everywhere(&scratch, &tree, &job, wrong);
    assert!(printed.contains("all.h: No such file or directory"), "{printed}");
}

/// The index of a checkout holds inode numbers, which are others in a view: git looks at the bytes
/// then.
#[test]
fn git_finds_a_checkout_as_it_is() {
    require(&["git"]);
    let scratch = Scratch::new();
    let tree = Tree::new(&scratch);
    prepare(
        &tree,
        r#"export GIT_AUTHOR_DATE='2024-05-06T07:08:09Z' GIT_COMMITTER_DATE='2024-05-06T07:08:09Z'
        export GIT_AUTHOR_NAME=A GIT_AUTHOR_EMAIL=a@example GIT_COMMITTER_NAME=C GIT_COMMITTER_EMAIL=c@example
        git init -q -b main clean && cd clean && mkdir -p a/b && seq 20000 >numbers && echo needle >a/b/file &&
        printf '#!/bin/sh\n' >a/program && chmod +x a/program && ln -s a/b/file link && : >empty &&
        git add . && git commit -q -m 'the first' && git gc -q &&
        echo more >>numbers && git commit -q -a -m 'the second' && git tag -a -m 'a tag' one &&
        cd .. && cp -a clean dirty && cd dirty && echo changed >a/b/file && rm empty && echo new >untracked &&
        chmod -x a/program && git add a/program"#,
    );
    let job = Job::launch(&scratch, 2);
    let same = |script: &str| same_everywhere(&scratch, &tree, &job, script);
    let status = "git --no-optional-locks -C clean status --porcelain";
    assert_eq!(same(status), "");
    let status = "git --no-optional-locks -C dirty status --porcelain";
    assert_eq!(same(status), " M a/b/file\nM  a/program\n D empty\n?? untracked\n");
    // As it is typed: git would like to write the index, and goes without.
    for rank in 0..job.ranks() {
        let mut typed = Command::new("git");
        typed.args(["-c", "safe.directory=*", "-C"]).arg(job.view(rank, &tree.path("clean")));
        let ended = run(typed.arg("status"), BOUND);
        assert_eq!(ended.stderr(), "");
        assert_eq!(ended.success(), "On branch main\nnothing to commit, working tree clean\n");
    }
    let log = same("git -C clean log --stat --format=fuller --all --decorate");
    assert!(log.contains("the first") && log.contains("the second") && log.contains("tag: one"));
    same("git -C clean fsck --full --strict --no-progress");
    assert!(same("git verify-pack -v clean/.git/objects/pack/*.idx").contains(".pack: ok"));
    same("git -C clean cat-file --batch-all-objects --batch-check");
    assert!(same("git -C dirty --no-optional-locks diff").contains("+changed"));
    assert_eq!(same("cd clean && git grep -n needle"), "a/b/file:1:needle\n");
    same(r#"git -C clean archive -o "$out/archive.tar" HEAD"#);
    let clone = r#"git clone -q --no-hardlinks "$PWD/clean" "$out/clone" && git -C "$out/clone" status --porcelain --branch"#;
    assert_eq!(same(clone), "## main...origin/main\n");
}

#[test]
fn rsync_finds_nothing_to_do_in_a_copy_that_it_made_from_a_view() {
    require(&["rsync"]);
    let scratch = Scratch::new();
    let tree = varied(&scratch);
    let job = Job::launch(&scratch, 2);
    for rank in 0..job.ranks() {
        let (view, copy) = (job.view(rank, tree.root()), scratch.join(&format!("copy-{rank}")));
        let rsync = |arguments: &[&str], from: &Path| {
            let mut command = Command::new("rsync");
            command.args(arguments).arg(from.join("")).arg(copy.join(""));
            run(&mut command, BOUND).success()
        };
        let to_do = rsync(&["-rlptgoDHc", "-n", "-i"], &view);
        assert!(to_do.contains("many/file-299"), "there is much to do at first: {to_do}");
        rsync(&["-rlptgoDH"], &view);
        assert_eq!(rsync(&["-rlptgoDHc", "-n", "-i", "--delete"], tree.root()), "");
        assert_eq!(rsync(&["-rlptgoDHc", "-n", "-i", "--delete"], &view), "");
    }
}

#[test]
fn archives_of_a_view_are_those_of_the_source() {
    require(&["tar"]);
    let scratch = Scratch::new();
    let tree = varied(&scratch);
    let job = Job::launch(&scratch, 2);
    // By default the names of extended headers hold tar's process number.
    let script = r#"tar --sort=name --numeric-owner --format=gnu -cf "$out/gnu.tar" -C "$PWD" . &&
        tar --sort=name --numeric-owner --format=posix \
            --pax-option=exthdr.name=%d/PaxHeaders/%f,delete=atime -cf "$out/posix.tar" -C "$PWD" . &&
        tar --sort=name --numeric-owner -S --hole-detection=raw -cf "$out/sparse.tar" sparse many &&
        tar -tvf "$out/posix.tar""#;
    let listed = same_everywhere(&scratch, &tree, &job, script);
    assert!(listed.contains(" ./size-4097 link to ./another-name\n"), "{listed}");
    for rank in 0..job.ranks() {
        let compare = r#"tar -cf "$out/of-view.tar" . && tar -df "$out/of-view.tar" -C "$3""#;
        let out = scratch.join("made");
        fs::create_dir(&out).expect("a new folder");
        let mut command = script_in(&job.view(rank, tree.root()), &out, compare);
        assert_eq!(run(command.arg(tree.root()), BOUND).success(), "", "rank {rank}");
        fs::remove_dir_all(&out).expect("it is ours");
    }
}

#[test]
fn copies_of_a_sparse_file_have_its_bytes() {
    require(&["cp", "cmp", "tar"]);
    let scratch = Scratch::new();
    let tree = varied(&scratch);
    let job = Job::launch(&scratch, 2);
    let script = r#"for how in auto always never; do
            cp --sparse=$how sparse "$out/$how" && cmp sparse "$out/$how" || exit
        done
        dd if=sparse of="$out/dd" bs=64K conv=sparse status=none && cmp sparse "$out/dd" &&
        mkdir "$out/unpacked" && tar -cSf - sparse | tar -xf - -C "$out/unpacked" &&
        cmp sparse "$out/unpacked/sparse" &&
        sync "$out/always" "$out/never" && stat -c '%s %b' "$out/always" "$out/never""#;
    same_everywhere(&scratch, &tree, &job, script);
}

/// `cp` and `tar` ask where data begins and ends (`SEEK_DATA`, `SEEK_HOLE`).
#[test]
fn a_sparse_copy_keeps_its_holes() {
    require(&["cp", "tar"]);
    let scratch = Scratch::new();
    let tree = varied(&scratch);
    tree.sparse("hole", 2 * BLOCK, &[]);
    tree.sparse("begins with data", 2 * BLOCK, &[(0, b"here")]);
    let job = Job::launch(&scratch, 2);
    let script = r#"for name in sparse hole 'begins with data' size-65536; do
            cp --sparse=auto "$name" "$out/$name" && sync "$out/$name" &&
            stat -c '%n %s %b' "$name" && (cd "$out" && stat -c '%n %s %b' "$name") || exit
        done
        tar --sort=name -cSf "$out/tar" sparse hole 'begins with data' size-65536"#;
    let printed = same_everywhere(&scratch, &tree, &job, script);
    let blocks = |line: &str| line.rsplit(' ').next().and_then(|text| text.parse::<u64>().ok());
    let most = printed.lines().filter(|line| line.starts_with("sparse")).filter_map(blocks).max();
    assert!(most < Some(BLOCK / 512), "the source's file system has no holes: {printed}");
}

#[test]
fn walks_and_searches_print_the_same() {
    require(&["find", "du", "ls", "grep"]);
    let scratch = Scratch::new();
    let tree = varied(&scratch);
    let job = Job::launch(&scratch, 2);
    let same = |script: &str| same_everywhere(&scratch, &tree, &job, script);
    let found = same(r"find . -printf '%p|%y|%Y|%m|%n|%U|%G|%s|%b|%S|%d|%T@|%C@|%A@|%l\n'");
    assert!(found.contains("./many/file-299|f|f|") && found.contains("|not/there\n"), "{found}");
    assert_eq!(same("find . -name 'file-29?' -newer size-0 | wc -l").trim(), "10");
    assert_eq!(same("find . -samefile size-4097 | sort"), "./another-name\n./size-4097\n");
    same("find -L . -size +4k -type f");
    same("find . -xdev -perm /6000 -o -empty");
    same("du -a -B1 . && du -a --apparent-size -B1 . && du -s -l .");
    same("ls -lRA --time-style=full-iso . && ls -lRAsuU --full-time . && ls -URA . && ls -lL many");
    assert_eq!(same("grep -r 'needle in 3' . | wc -l").trim(), "43");
    same("grep -rnl needle . && grep -rc needle many && grep -rU here . 2>&1");
}

/// A library that counts, and says where it was loaded from.
const LIBRARY: &[u8] = b"#define _GNU_SOURCE\n#include <dlfcn.h>\n\
    static int count;\n\
    int next(void) { return ++count; }\n\
    const char *here(void) { Dl_info info; return dladdr(&count, &info) ? info.dli_fname : \"\"; }\n";

/// The loader knows a library by its device and inode number.
#[test]
fn a_library_with_several_names_is_loaded_once() {
    const LOAD: &str = "import ctypes, sys\n\
        loaded = [ctypes.CDLL(path) for path in sys.argv[1:]]\n\
        print(len({library._handle for library in loaded}), [it.next() for it in loaded])";
    require(&["gcc", "python3"]);
    let scratch = Scratch::new();
    let tree = Tree::new(&scratch);
    tree.file_with("count.c", LIBRARY);
    prepare(
        &tree,
        "mkdir lib other && gcc -shared -fPIC count.c -o lib/libcount.so -ldl &&
        ln -s libcount.so lib/libcount.so.1 && ln -s lib lib64 && ln lib/libcount.so other/hard.so &&
        cp lib/libcount.so other/copy.so",
    );
    let job = Job::launch(&scratch, 2);
    let script = format!(
        r#"python3 -c '{LOAD}' "$PWD/lib/libcount.so" "$PWD/lib/libcount.so.1" \
            "$PWD/lib64/libcount.so" "$PWD/other/hard.so" "$PWD/other/copy.so""#
    );
    let printed = same_everywhere(&scratch, &tree, &job, &script);
    assert_eq!(printed, "2 [1, 2, 3, 4, 1]\n", "the copy is another library");
}

#[test]
fn programs_start_from_a_view() {
    require(&["gcc", "sh"]);
    let scratch = Scratch::new();
    let tree = Tree::new(&scratch);
    tree.file_with("count.c", LIBRARY);
    tree.file_with(
        "main.c",
        b"#include <stdio.h>\n#include <string.h>\n\
        int next(void);\nconst char *here(void);\n\
        int main(int count, char **words) {\n\
        \x20   const char *end = strstr(here(), \"/source/\");\n\
        \x20   for (int at = 1; at < count; at++) printf(\"%s \", words[at]);\n\
        \x20   printf(\"%d %s\\n\", next(), end ? end : here());\n}\n",
    );
    prepare(
        &tree,
        "mkdir bin lib && gcc -shared -fPIC count.c -o lib/libcount.so -ldl &&
        gcc main.c -o bin/by-origin -Llib -lcount -Wl,-rpath,'$ORIGIN/../lib' &&
        gcc main.c count.c -o bin/alone -ldl && ln -s ../bin/by-origin lib/link",
    );
    // A copy of the shell as the interpreter of scripts in each view, which say who runs them.
    let interpreter = tree.path("bin/interpreter");
    fs::copy(fs::canonicalize("/bin/sh").expect("there is a shell"), &interpreter).expect("ours");
    let view = |rank: u32| scratch.join("views").join(rank.to_string());
    let in_view = |rank: u32, path: &Path| view(rank).join(path.strip_prefix("/").expect("whole"));
    let script = |rank: u32| tree.path(format!("bin/script-{rank}"));
    for rank in 0..2 {
        let interpreter = in_view(rank, &interpreter);
        let text = format!("#!{}\nreadlink /proc/$$/exe; echo $#\n", interpreter.display());
        fs::write(script(rank), text).expect("it is ours");
        fs::set_permissions(script(rank), fs::Permissions::from_mode(0o755)).expect("ours");
    }
    let job = Job::launch(&scratch, 2);
    let same = |script: &str| same_everywhere(&scratch, &tree, &job, script);
    assert!(same("bin/alone two words").starts_with("two words 1 "));
    assert_eq!(same("$PWD/bin/by-origin a"), "a 1 /source/bin/../lib/libcount.so\n");
    // Through the link too: the kernel says where the program is.
    assert_eq!(same("PATH=$PWD/lib:$PATH && link"), "1 /source/bin/../lib/libcount.so\n");
    // The library is the view's own, not the source's, which has the same end.
    for rank in 0..job.ranks() {
        let library = job.view(rank, &tree.path("lib/libcount.so"));
        let mut trace = Command::new(job.view(rank, &tree.path("bin/by-origin")));
        let printed = run(trace.env("LD_TRACE_LOADED_OBJECTS", "1"), BOUND).success();
        let loaded = printed.lines().find(|line| line.contains("libcount.so =>")).expect("linked");
        let loaded =
            loaded.split(" => ").nth(1).and_then(|rest| rest.rsplit_once(" (")).expect("as ldd");
        assert_eq!(fs::canonicalize(loaded.0).expect("it is there"), library);
        let mut script = Command::new(job.view(rank, &script(rank)));
        let printed = run(script.args(["a", "b"]), BOUND).success();
        assert_eq!(printed, format!("{}\n2\n", in_view(rank, &interpreter).display()));
    }
}
