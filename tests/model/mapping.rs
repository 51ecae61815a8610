//! Mapped memory, compared by a program: reading it takes unsafe code here.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use rustix::io::Errno;

/// Maps what it is told on its standard input, a line each: the path in hexadecimal, offset,
/// length. It answers with what the bytes come to, or with the errno.
const PROGRAM: &str = r#"
import hashlib, mmap, os, sys
for line in sys.stdin:
    path, offset, length = line.split()
    offset, length = int(offset), int(length)
    try:
        fd = os.open(bytes.fromhex(path), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            size = os.fstat(fd).st_size
            length = min(length, size - offset)
            if length <= 0:
                print("beyond", size, flush=True)
                continue
            with mmap.mmap(fd, length, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ, offset=offset) as m:
                # The last page first: a fault in the middle of nowhere.
                end = m[-1]
                print("bytes", length, end, hashlib.sha256(m).hexdigest(), flush=True)
        finally:
            os.close(fd)
    except OSError as error:
        print("errno", error.errno, flush=True)
"#;

/// Started when it is first asked, as the user of that thread.
#[derive(Debug, Default)]
pub(crate) struct Mapper {
    helper: Option<Helper>,
}

#[derive(Debug)]
struct Helper {
    child: Child,
    ask: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Mapper {
    /// What the bytes of a range come to; the range ends where the file does.
    pub(crate) fn digest(&mut self, path: &Path, offset: u64, len: u64) -> Result<String, Errno> {
        let helper = self.helper.get_or_insert_with(Helper::start);
        let hex: String =
            path.as_os_str().as_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
        // An empty path would be no word.
        if hex.is_empty() {
            return Err(Errno::NOENT);
        }
        writeln!(helper.ask, "{hex} {offset} {len}").expect("the program that maps is there");
        let mut line = String::new();
        helper.answers.read_line(&mut line).expect("the program that maps answers");
        assert!(!line.is_empty(), "the program that maps has died: a page could not be had");
        match line.trim_end().split_once("errno ") {
            Some((_, errno)) => Err(Errno::from_raw_os_error(errno.parse().expect("a number"))),
            None => Ok(line.trim_end().to_owned()),
        }
    }
}

impl Helper {
    fn start() -> Helper {
        let mut command = Command::new("python3");
        command.args(["-I", "-S", "-c", PROGRAM]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("python3 is there");
        let ask = child.stdin.take().expect("piped");
        let answers = BufReader::new(child.stdout.take().expect("piped"));
        Helper { child, ask, answers }
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
