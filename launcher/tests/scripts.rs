//! The scripts: which program they find, and that they pass everything on.

#[path = "support/scratch.rs"]
mod scratch;

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use scratch::Scratch;

/// A program that says where it stands and what it was given.
fn stand_in(path: &Path) {
    fs::create_dir_all(path.parent().expect("a folder")).expect("ours");
    fs::write(path, "#!/bin/sh\necho \"$0\"; for word; do echo \"<$word>\"; done; exit 7\n")
        .expect("ours");
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("ours");
}

/// Every name of the script, and what it is to run.
const NAMES: [(&str, &str); 6] = [
    ("launch_copper.sh", "launch"),
    ("launch_copper_aurora.sh", "launch"),
    ("launch_copper_frontier.sh", "launch"),
    ("stop_copper.sh", "stop"),
    ("stop_copper_aurora.sh", "stop"),
    ("stop_copper_frontier.sh", "stop"),
];

/// The scripts, copied to where an installation or a checkout would have them.
fn copies(folder: &Path) -> [(PathBuf, &'static str); 6] {
    fs::create_dir_all(folder).expect("ours");
    NAMES.map(|(name, command)| {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
        let copy = folder.join(name);
        fs::copy(source, &copy).expect("ours");
        (copy, command)
    })
}

fn run(script: &Path, root: Option<&Path>, path: &Path) -> Output {
    let mut command = Command::new(script);
    command.args(["-l", "2", "a b", "", "*"]).env_remove("COPPER_ROOT");
    // What a Cray would change is another test.
    command.env("PATH", format!("{}:/usr/bin:/bin", path.display())).env("FI_PROVIDER", "tcp");
    if let Some(root) = root {
        command.env("COPPER_ROOT", root);
    }
    command.output().expect("a shell")
}

fn ran(output: &Output, program: &Path, command: &str) {
    let stdout = String::from_utf8_lossy(&output.stdout);
    let (first, rest) = stdout.split_once('\n').expect("two lines");
    let (found, meant) = (fs::canonicalize(first), fs::canonicalize(program));
    assert_eq!(found.expect("a program"), meant.expect("a program"));
    assert_eq!(rest, format!("<{command}>\n<-l>\n<2>\n<a b>\n<>\n<*>\n"));
    assert_eq!(output.status.code(), Some(7));
}

#[test]
fn the_program_is_found_in_the_order_that_is_documented() {
    let scratch = Scratch::new();
    let base = scratch.path();
    let anywhere = base.join("anywhere");
    fs::create_dir(&anywhere).expect("ours");
    for (script, command) in copies(&base.join("install dir/launcher")) {
        let expect = |root: Option<&Path>, program: &Path| {
            stand_in(program);
            ran(&run(&script, root, &anywhere), program, command);
        };
        let output = run(&script, None, &anywhere);
        assert_eq!(output.status.code(), Some(2));
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        let name = script.file_name().expect("a name").to_string_lossy().into_owned();
        let starts = format!("{name}: cannot find the program copper; load its module");
        assert!(error.starts_with(&starts) && error.lines().count() == 1, "{error}");
        expect(None, &anywhere.join("copper"));
        expect(None, &base.join("install dir/target/release/copper"));
        expect(None, &base.join("install dir/bin/copper"));
        let root = base.join("root");
        expect(Some(&root), &root.join("bin/copper"));
        let link = base.join(format!("link-{name}"));
        symlink(Path::new("install dir/launcher").join(&name), &link).expect("new");
        ran(&run(&link, None, &anywhere), &base.join("install dir/bin/copper"), command);
        for program in
            ["anywhere/copper", "install dir/target/release/copper", "install dir/bin/copper"]
        {
            fs::remove_file(base.join(program)).expect("ours");
        }
    }
}

#[test]
fn a_wrong_copper_root_is_an_error_and_not_a_search() {
    let scratch = Scratch::new();
    stand_in(&scratch.path().join("bin/copper"));
    for (script, _) in copies(&scratch.path().join("launcher")) {
        let root = scratch.path().join("nowhere");
        let output = run(&script, Some(&root), scratch.path());
        assert_eq!(output.status.code(), Some(2));
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(error.contains("correct COPPER_ROOT or unset it"), "{error}");
    }
}

/// Runs the launch script of a site where `/sys/class/cxi` is there: in a mount namespace of its own.
fn with_slingshot(script: &Path, environment: &str, arguments: &str) -> String {
    let setup = "mount -t tmpfs none /sys/class && mkdir /sys/class/cxi && exec env";
    let line = format!("{setup} {environment} {} {arguments}", script.display());
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "--mount", "sh", "-c", &line]);
    let output = command.env_remove("COPPER_ROOT").env_remove("FI_PROVIDER").output();
    let output = output.expect("util-linux is there");
    assert_eq!(output.status.code(), Some(7), "{}", String::from_utf8_lossy(&output.stderr));
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    stdout.lines().skip(1).collect::<Vec<_>>().join(" ")
}

#[test]
fn the_names_of_the_sites_launch_over_slingshot_unless_something_else_is_said() {
    let scratch = Scratch::new();
    let folder = scratch.path().join("launcher");
    stand_in(&scratch.path().join("bin/copper"));
    for (script, command) in copies(&folder) {
        let name = script.to_string_lossy();
        let site = name.ends_with("h_copper_aurora.sh") || name.ends_with("h_copper_frontier.sh");
        let expected = if site { "<launch> <-n> <cxi> <-T> <2>" } else { "<launch> <-T> <2>" };
        let expected = expected.replace("launch", command);
        let said = |environment, arguments| with_slingshot(&script, environment, arguments);
        assert_eq!(said("", "-T 2"), expected, "{}", script.display());
        assert_eq!(said("FI_PROVIDER=tcp", "-T 2"), format!("<{command}> <-T> <2>"));
        for net in ["-n tcp", "-ntcp", "--net tcp", "--net=tcp"] {
            let words: Vec<String> = net.split(' ').map(|word| format!("<{word}>")).collect();
            assert_eq!(said("", net), format!("<{command}> {}", words.join(" ")));
        }
    }
}
