use rustix::io::Errno;

use super::*;

fn place(rest: &[u8]) -> Place {
    Place { below: 0, rest: rest.to_vec() }
}

/// Every kind, with every word that its fields can be.
fn varied() -> Trace {
    let (slot, map) = (Slot(0), MapId(7));
    let all = Letters { read: true, write: true, execute: true };
    let area = Area {
        offset: 4096,
        length: 1 << 20,
        phase: 0x3000,
        protection: Letters { read: true, execute: true, ..Letters::default() },
        sharing: Sharing::Private,
    };
    let flags = OpenFlags { directory: true, nofollow: true, path: true };
    let mut ops = vec![
        Op::Open { flags, place: place(b""), slot: Err(Errno::NOTDIR) },
        Op::Open { flags: OpenFlags::default(), place: place(b"a b\n\xff\\\"#"), slot: Ok(slot) },
        Op::Stat { follow: Follow::Yes, place: place(b"x/../y/"), outcome: Ok(()) },
        Op::Stat { follow: Follow::No, place: place(b"x"), outcome: Err(Errno::NOENT) },
        Op::Fstat { slot, outcome: Ok(()) },
        Op::Access { mode: Letters::default(), place: place(b"x"), outcome: Ok(()) },
        Op::Access { mode: all, place: place(b"x"), outcome: Err(Errno::ACCESS) },
        Op::Readlink { place: place(b"x"), outcome: Err(Errno::INVAL) },
        Op::Getdents { slot, bytes: 32768, listed: Listed::More },
        Op::Getdents { slot, bytes: 32768, listed: Listed::End },
        Op::Getdents { slot, bytes: 1, listed: Listed::Failed(Errno::NOTDIR) },
        Op::Read { slot, bytes: 832, count: Ok(12) },
        Op::Read { slot, bytes: 832, count: Err(Errno::ISDIR) },
        Op::Pread { slot, offset: u64::MAX, bytes: 832, count: Ok(0) },
        Op::Isatty { slot, outcome: Err(Errno::NOTTY) },
        Op::Mmap { map, slot, area, outcome: Ok(()) },
        Op::Mmap {
            map: MapId(8),
            slot,
            area: Area { sharing: Sharing::Shared, protection: Letters::default(), ..area },
            outcome: Err(Errno::NODEV),
        },
        Op::Touch { map, offset: 4096 },
        Op::Munmap { map },
    ];
    for whence in [Whence::Set, Whence::Current, Whence::End, Whence::Data, Whence::Hole] {
        ops.push(Op::Lseek { slot, offset: -3, whence, position: Ok(9) });
    }
    ops.push(Op::Close { slot });
    Trace { below: vec![b"/a b".to_vec(), b"/".to_vec()], ops, lines: Vec::new() }
}

fn written(trace: &Trace) -> String {
    let mut bytes = Vec::new();
    trace.write("of a test\nin two lines", &mut bytes).expect("memory takes it");
    String::from_utf8(bytes).expect("a trace is text")
}

#[test]
fn a_trace_comes_back_as_it_was_written() {
    let trace = varied();
    let text = written(&trace);
    let read = Trace::parse(&text).expect("it is sound");
    assert_eq!((&read.below, &read.ops), (&trace.below, &trace.ops), "{text}");
    assert!(text.is_ascii());
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[read.lines[0] as usize - 1], "open - directory,nofollow,path 0/ ENOTDIR");
}

#[test]
fn every_kind_is_documented_at_the_head() {
    for op in varied().ops {
        let documented = FORMAT.lines().any(|line| line.split(' ').next() == Some(op.kind()));
        assert!(documented, "{}", op.kind());
    }
}

#[test]
fn damage_is_told_with_its_line() {
    let cases = [
        ("frobnicate 1", "there is no call 'frobnicate'"),
        ("", "a call is missing"),
        ("close 0", "slot 0 is not open"),
        ("read 0 1 1", "slot 0 is not open"),
        ("close x", "'x' is not a slot"),
        ("close", "a slot is missing"),
        ("stat maybe 0/a ok", "'maybe' is none of follow, nofollow"),
        ("stat follow 0/a", "ok or an errno is missing"),
        ("stat follow 0/a EWHAT", "'EWHAT' is neither ok nor a known errno"),
        ("stat follow 1/a ok", "there is no line 'below' with the number 1"),
        ("stat follow 0/a ok ok", "'ok' is one word too many"),
        ("stat follow a ok", "'a' is no path"),
        ("stat follow 0/\\q ok", "'0/\\q' is no path"),
        ("stat follow 0/\\000 ok", "'0/\\000' is no path"),
        ("open 0 - 0/a ENOENT", "an open that failed has no slot"),
        ("open - - 0/a ok", "an open that succeeded has a slot"),
        ("open 0 strange 0/a ok", "there is no flag 'strange'"),
        ("access q 0/a ok", "'q' is neither f nor letters of rwx"),
        ("touch 0 0", "there is no map 0"),
        ("munmap 0", "there is no map 0"),
        ("open 0 - 0/a ok", "the trace is cut short: slot 0 is never closed"),
    ];
    for (line, what) in cases {
        let text = format!("{FIRST_LINE}\nbelow /a\n{line}\n");
        let damage = Trace::parse(&text).expect_err(line);
        assert_eq!(damage.line, 3, "{line}");
        assert!(damage.what.starts_with(what), "{line}: {damage}");
    }
}

#[test]
fn a_map_holds_what_is_touched() {
    let text = |touch: &str| {
        format!(
            "{FIRST_LINE}\nbelow /a\nopen 0 - 0/a ok\nmmap 0 0 4096 8192 0 r private ok\n{touch}\nclose 0\n"
        )
    };
    assert!(Trace::parse(&text("touch 0 4096")).is_ok());
    for touch in
        ["touch 0 0", "touch 0 12288", "mmap 0 0 0 1 0 r private ok", "mmap 1 0 0 0 0 r private ok"]
    {
        assert_eq!(Trace::parse(&text(touch)).expect_err(touch).line, 5);
    }
}

#[test]
fn what_is_no_trace_is_refused() {
    assert!(Trace::parse("").is_err());
    assert_eq!(Trace::parse("#!/bin/sh\n").expect_err("a script").line, 1);
}
