//! Who may read what through a view: what he may read at the source, and no more.

#[path = "support/harness.rs"]
mod support;

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use std::time::Duration;

use support::job::launch_command;
use support::user::{Ids, NOBODY};
use support::{Job, Options, Scratch, Tree, User, assert_same_lines, is_root, run, say};

const BOUND: Duration = Duration::from_secs(60);

/// Two ordinary users without accounts, and a group that has both, as a supplementary one.
const ONE: u32 = 64_001;
const OTHER: u32 = 64_002;
const SHARED: u32 = 64_003;

/// What `sh` and its tools get to know of each name below the folder `$1`: attributes, the bytes, a
/// listing, and whether one can enter. With errors, in one text.
const ASK: &str = r#"cd / && root=$1 && shift && exec 2>&1
    for name; do
        path=$root/$name
        echo "== $name"
        stat -c '%A %h %u %g %s' "$path"; echo "stat: $?"
        test -r "$path"; echo "may read: $?"
        test -x "$path"; echo "may execute: $?"
        cat "$path"; echo "cat: $?"
        ls -lA --time-style=full-iso "$path"; echo "ls: $?"
        (cd "$path" && ls -d .); echo "cd: $?"
        "$path"; echo "run: $?"
    done"#;

fn ids(user: u32, groups: &[u32]) -> Ids {
    Ids { user, group: user, groups: groups.to_vec() }
}

/// Whether these tests can be made at all.
fn users_are_there() -> bool {
    let can = is_root();
    if !can {
        say("skipped: it takes root to become another user");
    }
    can
}

/// A file whose text is its name.
#[track_caller]
fn file(tree: &Tree, name: &str, (user, group): (u32, u32), mode: u32) {
    let path = tree.file_with(name, format!("text of {name}\n").as_bytes());
    own(&path, (user, group), mode);
}

#[track_caller]
fn directory(tree: &Tree, name: &str, (user, group): (u32, u32), mode: u32) {
    own(&tree.directory(name), (user, group), mode);
}

#[track_caller]
fn own(path: &Path, (user, group): (u32, u32), mode: u32) {
    chown(path, Some(user), Some(group)).expect("root may");
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("root may");
}

/// What a user gets to know of `names` below `root`, with `prefix` taken out.
#[track_caller]
fn answer(user: &User, prefix: &Path, root: &Path, names: &[&str]) -> String {
    let mut command = user.command("sh");
    command.env("LC_ALL", "C").env("TZ", "UTC0").args(["-c", ASK, "sh"]).arg(root).args(names);
    let ended = run(&mut command, BOUND);
    assert_eq!(ended.stderr(), "", "it goes to standard output");
    ended.stdout().replace(prefix.to_str().expect("text"), "")
}

/// The numbers of a user, for messages.
fn who(user: &User) -> String {
    match user {
        User::Own => "the user who runs the tests".to_owned(),
        User::Other(ids, _) => format!("{ids:?}"),
    }
}

/// Asks in a view and at the source, and compares the answers. Gives the part of each name.
#[track_caller]
fn same_answer(user: &User, job: &Job, rank: u32, tree: &Tree, names: &[&str]) -> Vec<String> {
    let view = &job.views[rank as usize];
    let found = answer(user, view, &job.view(rank, tree.root()), names);
    let expected = answer(user, view, tree.root(), names);
    assert_same_lines(&found, &expected, &format!("as {} through rank {rank}", who(user)));
    let parts: Vec<String> = found.split("== ").skip(1).map(str::to_owned).collect();
    assert_eq!(parts.len(), names.len(), "{found}");
    parts
}

/// The whole text of a file, or the refusal of the same.
#[track_caller]
fn assert_read(part: &str, can: bool) {
    let name = part.lines().next().expect("it begins with the name");
    let text = part.contains(&format!("\ntext of {name}\ncat: 0\n"));
    let refusal = part.contains("Permission denied\ncat: 1\n");
    assert_eq!((text, refusal), (can, !can), "{part}");
}

#[test]
fn without_allow_other_a_view_is_for_its_owner_alone() {
    if !users_are_there() {
        return;
    }
    for of_root in [false, true] {
        let scratch = Scratch::new();
        let tree = Tree::new(&scratch);
        file(&tree, "file", (0, 0), 0o644);
        let owner = if of_root { User::Own } else { User::nobody(&scratch) };
        let options = Options { user: owner.clone(), ..Options::default() };
        let job = Job::launch_with(&scratch, 2, &options);
        let mut others = vec![owner.beside(ids(OTHER, &[]))];
        others.extend((!of_root).then(|| owner.beside(ids(0, &[]))));
        for rank in 0..job.ranks() {
            let shown = job.view(rank, &tree.path("file"));
            let sh = |user: &User, script: &str| {
                let mut command = user.command("sh");
                command.env("LC_ALL", "C").args(["-c", script, "sh"]);
                run(command.arg(&job.views[rank as usize]).arg(&shown), BOUND)
            };
            let scripts = [r#"ls -d "$1/.""#, r#"ls "$1""#, r#"stat "$1""#, r#"cat "$2""#];
            // They ask before and after the owner.
            for _ in 0..2 {
                for (user, script) in
                    others.iter().flat_map(|it| scripts.map(|script| (it, script)))
                {
                    let ended = sh(user, script);
                    let said = ended.stderr();
                    let denied = !ended.status.success() && said.contains("Permission denied");
                    assert!(denied, "{script} as {}: {}{said}", who(user), ended.stdout());
                }
                for script in scripts {
                    sh(&owner, script).success();
                }
                assert_eq!(sh(&owner, r#"cat "$2""#).stdout(), "text of file\n");
            }
        }
    }
}

#[test]
fn where_allow_other_is_not_allowed_the_launch_says_which_line_is_missing() {
    if !users_are_there() {
        return;
    }
    let scratch = Scratch::new();
    let options = Options {
        user: User::nobody_with_fuse_conf(&scratch, "# nothing is allowed\n"),
        ..Options::with(&["--allow-other"])
    };
    let views = scratch.join("views");
    let mut launch = launch_command(&scratch, &views, 2, &options);
    let line = run(&mut launch, BOUND).failure_line();
    for word in ["allow-other", "user_allow_other", "/etc/fuse.conf", "is not mounted"] {
        assert!(line.contains(word), "{word}: {line}");
    }
    assert!(options.user.mounts_below(&views).is_empty(), "no mount is left");
    assert!((0..2).all(|rank| !views.join(rank.to_string()).exists()), "no mount point is left");
}

/// Where the machine allows it. The daemon can read no more than its user.
#[test]
fn whom_a_user_lets_in_reads_what_both_may_read() {
    if !users_are_there() {
        return;
    }
    let scratch = Scratch::new();
    let tree = Tree::new(&scratch);
    file(&tree, "open", (NOBODY, NOBODY), 0o644);
    file(&tree, "of root", (0, 0), 0o600);
    file(&tree, "of the owner", (NOBODY, NOBODY), 0o600);
    file(&tree, "of the guest", (OTHER, OTHER), 0o600);
    file(&tree, "shared", (NOBODY, SHARED), 0o640);
    let owner = User::nobody_with_fuse_conf(&scratch, "user_allow_other\n");
    let guest = owner.beside(ids(OTHER, &[SHARED]));
    let options = Options { user: owner.clone(), ..Options::with(&["--allow-other"]) };
    let job = Job::launch_with(&scratch, 2, &options);
    for rank in 0..job.ranks() {
        let names = ["open", "of root", "of the owner", "of the guest", "shared"];
        let parts = same_answer(&owner, &job, rank, &tree, &names);
        for (part, can) in parts.iter().zip([true, false, true, false, true]) {
            assert_read(part, can);
        }
        let parts =
            same_answer(&guest, &job, rank, &tree, &["open", "of root", "of the owner", "shared"]);
        for (part, can) in parts.iter().zip([true, false, false, true]) {
            assert_read(part, can);
        }
        // What the guest alone may read the daemon cannot fetch.
        let view = &job.views[rank as usize];
        let own = answer(&guest, view, &job.view(rank, tree.root()), &["of the guest"]);
        assert!(own.contains("Permission denied\ncat: 1\n"), "{own}");
    }
}

/// A tree of two users and root, each file with its name as its text.
fn of_two_users(scratch: &Scratch) -> Tree {
    let tree = Tree::new(scratch);
    file(&tree, "open", (0, 0), 0o644);
    file(&tree, "of root", (0, 0), 0o600);
    file(&tree, "of nobody at all", (0, 0), 0o000);
    file(&tree, "not for the owner", (ONE, OTHER), 0o044);
    file(&tree, "not for the group", (0, SHARED), 0o604);
    for (name, user) in [("one", ONE), ("other", OTHER)] {
        file(&tree, &format!("of {name}"), (user, user), 0o600);
        file(&tree, &format!("closed to {name} too"), (user, user), 0o000);
        file(&tree, &format!("group of {name}"), (0, user), 0o640);
        directory(&tree, &format!("home of {name}"), (0, 0), 0o755);
        file(&tree, &format!("home of {name}/file"), (0, 0), 0o644);
        file(&tree, &format!("home of {name}/program"), (0, 0), 0o755);
        directory(&tree, &format!("home of {name}"), (user, user), 0o700);
    }
    file(&tree, "shared", (0, SHARED), 0o640);
    for (name, mode) in [("search only", 0o711), ("list only", 0o744), ("of a group", 0o750)] {
        directory(&tree, name, (0, 0), 0o755);
        file(&tree, &format!("{name}/file"), (0, 0), 0o644);
        directory(&tree, name, (0, SHARED), mode);
    }
    let program = |name: &str, owner, mode| {
        own(&tree.file_with(name, b"#!/bin/sh\necho it runs\n"), owner, mode);
    };
    program("program", (0, 0), 0o755);
    program("program of one", (ONE, ONE), 0o700);
    program("program of a group", (0, SHARED), 0o750);
    tree.link("link to one's", "home of one/file");
    tree.link("link to root's", "of root");
    tree
}

const NAMES: [&str; 33] = [
    "",
    "open",
    "of root",
    "of nobody at all",
    "not for the owner",
    "not for the group",
    "of one",
    "of other",
    "closed to one too",
    "closed to other too",
    "group of one",
    "group of other",
    "home of one",
    "home of one/file",
    "home of one/program",
    "home of one/missing",
    "home of one/file/below a file",
    "home of other",
    "home of other/file",
    "home of other/missing",
    "shared",
    "search only",
    "search only/file",
    "search only/missing",
    "list only",
    "list only/file",
    "list only/missing",
    "of a group/file",
    "program",
    "program of one",
    "program of a group",
    "link to one's",
    "link to root's",
];

#[test]
fn with_allow_other_every_user_gets_the_answers_of_the_source() {
    if !users_are_there() {
        return;
    }
    let scratch = Scratch::new();
    let tree = of_two_users(&scratch);
    let job = Job::launch_with(&scratch, 2, &Options::with(&["--allow-other"]));
    let users = [
        User::Own.beside(ids(ONE, &[])),
        User::Own.beside(ids(OTHER, &[])),
        User::Own.beside(ids(ONE, &[SHARED])),
        User::Own.beside(Ids { user: OTHER, group: SHARED, groups: vec![OTHER] }),
        User::Own,
    ];
    // Each user comes first in some view.
    for rank in 0..job.ranks() {
        for turn in 0..users.len() {
            let user = &users[(turn + 2 * rank as usize) % users.len()];
            same_answer(user, &job, rank, &tree, &NAMES);
        }
        let read = |user: &User, name: &str, can: bool| {
            assert_read(&same_answer(user, &job, rank, &tree, &[name])[0], can);
        };
        for (user, own, foreign) in [(&users[0], "one", "other"), (&users[1], "other", "one")] {
            read(user, "open", true);
            read(user, "of root", false);
            read(user, &format!("of {own}"), true);
            read(user, &format!("of {foreign}"), false);
            read(user, &format!("group of {own}"), true);
            read(user, &format!("group of {foreign}"), false);
            read(user, &format!("home of {own}/file"), true);
            read(user, &format!("home of {foreign}/file"), false);
            read(user, "shared", false);
        }
        // By a supplementary group, and by the primary one.
        read(&users[2], "shared", true);
        read(&users[3], "shared", true);
        read(&users[4], "of nobody at all", true);
    }
}

/// Whom an entry of a POSIX ACL is about, as include/uapi/linux/posix_acl.h numbers them.
const OF_USER: u16 = 0x02;
const OF_GROUP: u16 = 0x08;

/// Gives a file an ACL: its owner may do all, its owning group and others have `rest`, whoever is
/// named has what the name says, and the mask takes nothing away.
#[track_caller]
fn access_list(path: &Path, rest: u16, (tag, id, permissions): (u16, u32, u16)) {
    const NOBODY_NAMED: u32 = u32::MAX;
    let mut entries = [
        (0x01, 7, NOBODY_NAMED),
        (0x04, rest, NOBODY_NAMED),
        (tag, permissions, id),
        (0x10, rest | permissions, NOBODY_NAMED),
        (0x20, rest, NOBODY_NAMED),
    ];
    // By tag, as the kernel wants them.
    entries.sort_by_key(|(tag, ..)| *tag);
    // The version, then a `struct posix_acl_xattr_entry` each, little-endian.
    let mut value = 2_u32.to_le_bytes().to_vec();
    for (tag, permissions, id) in entries {
        value.extend(tag.to_le_bytes().iter().chain(&permissions.to_le_bytes()));
        value.extend(id.to_le_bytes());
    }
    let name = "system.posix_acl_access";
    let set = rustix::fs::setxattr(path, name, &value, rustix::fs::XattrFlags::empty());
    set.unwrap_or_else(|error| panic!("{}: no ACL can be set: {error}", path.display()));
}

/// The group's bits of a mode are the mask then, so that a mode alone would let too many in.
#[test]
fn with_allow_other_access_lists_grant_and_deny_as_at_the_source() {
    const NOTHING: u16 = 0;
    const READ: u16 = 4;
    const READ_AND_ENTER: u16 = 5;
    if !users_are_there() {
        return;
    }
    let scratch = Scratch::new();
    let tree = Tree::new(&scratch);
    file(&tree, "for other", (ONE, SHARED), 0o600);
    access_list(&tree.path("for other"), NOTHING, (OF_USER, OTHER, READ));
    file(&tree, "not for other", (ONE, ONE), 0o644);
    access_list(&tree.path("not for other"), READ, (OF_USER, OTHER, NOTHING));
    file(&tree, "for the group", (0, 0), 0o600);
    access_list(&tree.path("for the group"), NOTHING, (OF_GROUP, SHARED, READ));
    directory(&tree, "folder", (0, 0), 0o700);
    file(&tree, "folder/file", (0, 0), 0o644);
    access_list(&tree.path("folder"), NOTHING, (OF_USER, OTHER, READ_AND_ENTER));
    let names = ["for other", "not for other", "for the group", "folder/file", "folder"];
    let job = Job::launch_with(&scratch, 2, &Options::with(&["--allow-other"]));
    let cases: [(&[u32], u32, [bool; 4]); 4] = [
        (&[], OTHER, [true, false, false, true]),
        (&[], ONE, [true, true, false, false]),
        (&[SHARED], OTHER, [true, false, true, true]),
        // Of the owning group of the first, which has nothing by itself.
        (&[SHARED], OTHER + 100, [false, true, true, false]),
    ];
    for rank in 0..job.ranks() {
        for (groups, user, can) in cases {
            let user = User::Own.beside(ids(user, groups));
            let parts = same_answer(&user, &job, rank, &tree, &names);
            for (part, can) in parts.iter().zip(can) {
                assert_read(part, can);
            }
        }
    }
}

#[test]
fn what_one_user_has_read_stays_closed_to_the_others() {
    if !users_are_there() {
        return;
    }
    let scratch = Scratch::new();
    let tree = Tree::new(&scratch);
    let names = ["first", "second"];
    for name in names {
        directory(&tree, name, (ONE, ONE), 0o755);
        file(&tree, &format!("{name}/file"), (0, 0), 0o644);
        tree.link(&format!("{name}/link"), "file");
        own(&tree.path(name), (ONE, ONE), 0o700);
        file(&tree, &format!("{name}.txt"), (ONE, ONE), 0o600);
    }
    let job = Job::launch_with(&scratch, 2, &Options::with(&["--allow-other"]));
    let (one, other) = (User::Own.beside(ids(ONE, &[])), User::Own.beside(ids(OTHER, &[])));
    for rank in 0..job.ranks() {
        let ask = |user: &User, name: &str, can: bool| {
            let file = format!("{name}/file");
            let link = format!("{name}/link");
            let missing = format!("{name}/missing");
            let text = format!("{name}.txt");
            let asked = [name, &file, &link, &missing, &text];
            let parts = same_answer(user, &job, rank, &tree, &asked);
            assert_read(&parts[1], can);
            assert_read(&parts[4], can);
            assert_eq!(parts[0].contains("cd: 0"), can, "{}", parts[0]);
            assert_eq!(parts[3].contains("No such file"), can, "{}", parts[3]);
        };
        // The owner first, so that the kernel holds everything; then the stranger first.
        for user_can in [true, false, true, false] {
            ask(if user_can { &one } else { &other }, names[0], user_can);
        }
        for user_can in [false, true, false] {
            ask(if user_can { &one } else { &other }, names[1], user_can);
        }
    }
}

#[test]
fn set_user_id_bits_and_devices_do_nothing() {
    if !users_are_there() {
        return;
    }
    let scratch = Scratch::new();
    let tree = Tree::new(&scratch);
    for (name, mode) in [("id of one", 0o4755), ("id of group", 0o2755)] {
        fs::copy(fs::canonicalize("/usr/bin/id").expect("there is id"), tree.path(name))
            .expect("ours");
        own(&tree.path(name), (ONE, SHARED), mode);
    }
    own(&tree.null_device("null"), (0, 0), 0o666);
    let job = Job::launch_with(&scratch, 2, &Options::with(&["--allow-other"]));
    let other = User::Own.beside(ids(OTHER, &[]));
    let printed = |root: &Path| {
        let mut command = other.command("sh");
        let script = r#"stat -c %a "$1/id of one" "$1/id of group" && "$1/id of one" -u && "$1/id of group" -g"#;
        run(command.args(["-c", script, "sh"]).arg(root), BOUND).success()
    };
    let at_the_source = format!("4755\n2755\n{ONE}\n{SHARED}\n");
    assert_eq!(printed(tree.root()), at_the_source, "is {} nosuid?", scratch.path().display());
    for rank in 0..job.ranks() {
        let shown = job.view(rank, tree.root());
        assert_eq!(printed(&shown), format!("4755\n2755\n{OTHER}\n{OTHER}\n"));
        for user in [&User::Own, &other] {
            let mut command = user.command("cat");
            let line =
                run(command.env("LC_ALL", "C").arg(shown.join("null")), BOUND).failure_line();
            assert!(line.contains("Permission denied"), "{line}");
        }
    }
}

#[test]
fn an_ordinary_user_s_view_refuses_what_the_source_refuses_him() {
    if !users_are_there() {
        return;
    }
    let scratch = Scratch::new();
    let tree = of_two_users(&scratch);
    for (name, mode) in [("of nobody", 0o600), ("closed to nobody", 0o000)] {
        file(&tree, name, (NOBODY, NOBODY), mode);
    }
    directory(&tree, "unreadable", (NOBODY, NOBODY), 0o755);
    file(&tree, "unreadable/file", (0, 0), 0o644);
    directory(&tree, "unreadable", (NOBODY, NOBODY), 0o300);
    let user = User::nobody(&scratch);
    let options = Options { user: user.clone(), ..Options::default() };
    let job = Job::launch_with(&scratch, 2, &options);
    let own_names =
        ["of nobody", "closed to nobody", "unreadable", "unreadable/file", "unreadable/no"];
    for rank in 0..job.ranks() {
        same_answer(&user, &job, rank, &tree, &NAMES);
        let parts = same_answer(&user, &job, rank, &tree, &own_names);
        assert_read(&parts[0], true);
        assert_read(&parts[1], false);
        assert!(parts[2].contains("Permission denied\nls: 2\n"), "{}", parts[2]);
        assert_read(&parts[3], true);
        let parts = same_answer(&user, &job, rank, &tree, &["of root", "open"]);
        assert_read(&parts[0], false);
        assert_read(&parts[1], true);
    }
}
