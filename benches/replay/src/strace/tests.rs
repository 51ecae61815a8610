use super::*;

fn done(line: &str) -> Call {
    match Reader::default().feed(line) {
        Ok(Event::Done(call)) => call,
        other => panic!("{line}: {other:?}"),
    }
}

#[test]
fn a_call_is_split_into_its_parts() {
    let call = done(
        r#"6421  openat(AT_FDCWD</tmp>, "/etc/ld.so.cache", O_RDONLY|O_DIRECTORY) = 3</etc/ld.so.cache>"#,
    );
    assert_eq!((call.pid, call.name.as_str()), (6421, "openat"));
    assert_eq!(call.arguments, ["AT_FDCWD</tmp>", "\"/etc/ld.so.cache\"", "O_RDONLY|O_DIRECTORY"]);
    assert_eq!(call.answer, Answer::Value(3));
    assert_eq!(descriptor(&call.arguments[0]), Some((AT_FDCWD, Some(b"/tmp".to_vec()))));
    assert_eq!(string(&call.arguments[1]), Some(b"/etc/ld.so.cache".to_vec()));
}

#[test]
fn an_error_is_its_name() {
    let call = done(r#"1 access("/a", R_OK)     = -1 ENOENT (No such file or directory)"#);
    assert_eq!(call.answer, Answer::Failed("ENOENT".to_owned()));
    let call = done("1 exit_group(0)                     = ? (DELAYED)");
    assert_eq!(call.answer, Answer::Unknown);
    let call =
        done("1 read(0</a>, \"\", 1) = ? ERESTARTSYS (To be restarted if SA_RESTART is set)");
    assert_eq!(call.answer, Answer::Unknown);
}

#[test]
fn quotes_brackets_and_paths_hide_commas() {
    let call = done(
        r#"1 newfstatat(3</t/a(b, x\76y\74z\"q>, "a,\"(\\", {st_mode=S_IFREG|0644, st_size=0, ...}, 0) = 0"#,
    );
    assert_eq!(call.arguments.len(), 4);
    let path = b"/t/a(b, x>y<z\"q".to_vec();
    assert_eq!(descriptor(&call.arguments[0]), Some((3, Some(path))));
    assert_eq!(string(&call.arguments[1]), Some(b"a,\"(\\".to_vec()));
}

#[test]
fn numbers_are_decimal_or_hexadecimal() {
    let call = done(
        "1 mmap(0x7f6618416000, 475136, PROT_READ, MAP_PRIVATE, 3</a>, 0x10000) = 0x7f6618416000",
    );
    assert_eq!(number(&call.arguments[1]), Some(475_136));
    assert_eq!(number(&call.arguments[5]), Some(0x10000));
    assert_eq!(call.answer, Answer::Value(0x7f66_1841_6000));
    assert_eq!(number("0x55bd00951e60 /* 3 entries */"), Some(0x55bd_0095_1e60));
    assert_eq!(signed("-5"), Some(-5));
}

#[test]
fn an_interrupted_call_is_joined() {
    let mut reader = Reader::default();
    let begun = reader.feed(r#"7 read(3</a b>,  <unfinished ...>"#);
    let Ok(Event::Begun(begun)) = begun else { panic!("{begun:?}") };
    assert_eq!(begun.arguments, ["3</a b>", ""]);
    assert_eq!(reader.feed("8 +++ exited with 0 +++"), Ok(Event::Exited(8)));
    assert_eq!(reader.feed("9 --- SIGCHLD {si_signo=SIGCHLD} ---"), Ok(Event::Nothing));
    let done = reader.feed(r#"7 <... read resumed>"\177ELF"..., 832) = 832"#);
    let Ok(Event::Done(done)) = done else { panic!("{done:?}") };
    assert_eq!(done.arguments, ["3</a b>", "\"\\177ELF\"...", "832"]);
    assert_eq!(done.answer, Answer::Value(832));
}

#[test]
fn a_call_without_arguments_may_be_interrupted() {
    let mut reader = Reader::default();
    assert!(matches!(reader.feed("7 vfork( <unfinished ...>"), Ok(Event::Begun(_))));
    let Ok(Event::Done(call)) = reader.feed("7 <... vfork resumed>)              = 19918") else {
        panic!("it has ended")
    };
    assert!(call.arguments.is_empty(), "{call:?}");
    assert_eq!(call.answer, Answer::Value(19_918));
}

#[test]
fn the_other_half_of_what_began_before_is_no_event() {
    assert_eq!(Reader::default().feed("5 <... execve resumed>) = 0"), Ok(Event::Nothing));
}

#[test]
fn a_string_that_was_cut_is_none() {
    assert_eq!(string("\"abc\"..."), None);
    assert_eq!(string("NULL"), None);
    assert_eq!(string("0x7fff"), None);
}

#[test]
fn other_lines_are_refused() {
    for line in ["", "x", "12", "12 read(3", "12 read(3) 5", "12 (3) = 5", "a read(3) = 5"] {
        assert!(Reader::default().feed(line).is_err(), "{line}");
    }
}
