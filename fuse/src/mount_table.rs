//! `/proc/self/mountinfo` (`proc_pid_mountinfo(5)`): which mounts there are, and which of them are
//! copper views.
//!
//! Reading it never touches a mounted file system, so it cannot hang on a dead or a stuck one: what
//! can be answered from here is answered from here, not by `stat`.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// The type of every copper view in the mount table: `fuse` with `subtype=copper`.
pub const COPPER_TYPE: &str = "fuse.copper";

/// A device number as `stat` and the mount table give it. Of a FUSE mount it is anonymous: it tells
/// this mount from all others that there are now. After an unmount the kernel gives the same number
/// to the next mount.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct DeviceId {
    /// Major number; 0 of a FUSE mount.
    pub major: u32,
    /// Minor number; of a FUSE mount also the number of its connection in `/sys/fs/fuse`.
    pub minor: u32,
}

impl DeviceId {
    /// From a `st_dev` (`makedev(3)`).
    pub fn from_stat(device: u64) -> DeviceId {
        DeviceId { major: rustix::fs::major(device), minor: rustix::fs::minor(device) }
    }
}

impl fmt::Display for DeviceId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:{}", self.major, self.minor)
    }
}

impl FromStr for DeviceId {
    type Err = MalformedDevice;

    fn from_str(text: &str) -> Result<DeviceId, MalformedDevice> {
        let numbers = text.split_once(':').and_then(|(major, minor)| {
            Some(DeviceId { major: major.parse().ok()?, minor: minor.parse().ok()? })
        });
        numbers.ok_or(MalformedDevice)
    }
}

/// A text that is not `MAJOR:MINOR`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a device is written MAJOR:MINOR")]
pub struct MalformedDevice;

/// Which mount: also after it is gone, and the next one at its place has its device number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountId {
    /// The device.
    pub device: DeviceId,
    /// What is mounted; every copper daemon writes something unique into it.
    pub source: OsString,
}

impl fmt::Display for MountId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} (device {})", self.source.display(), self.device)
    }
}

/// One line of the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// The kernel's number of the mount; reused after an unmount.
    pub number: u32,
    /// The mount that this one is attached to.
    pub parent: u32,
    /// The device of the files in it.
    pub device: DeviceId,
    /// Where it is, resolved.
    pub point: PathBuf,
    /// `ro`, `nosuid` and so on, as a comma-separated list.
    pub options: String,
    /// The type, with its subtype.
    pub kind: String,
    /// What is mounted: of a copper view, what its daemon chose to say.
    pub source: OsString,
}

impl Mount {
    /// Which mount this is.
    pub fn id(&self) -> MountId {
        MountId { device: self.device, source: self.source.clone() }
    }

    /// Whether this is a copper view, of this or of another daemon.
    pub fn is_copper(&self) -> bool {
        self.kind == COPPER_TYPE
    }

    /// Whether a FUSE daemon is behind it.
    pub fn is_fuse(&self) -> bool {
        self.kind == "fuse" || self.kind == "fuseblk" || self.kind.starts_with("fuse.")
    }
}

/// The mounts of this process's mount namespace, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MountTable {
    mounts: Vec<Mount>,
}

impl MountTable {
    /// The table as it is now.
    ///
    /// # Errors
    /// If `/proc` is not mounted.
    pub fn read() -> io::Result<MountTable> {
        Ok(MountTable::parse(&std::fs::read("/proc/self/mountinfo")?))
    }

    /// Takes the content of a mountinfo file. A line that is not as `proc_pid_mountinfo(5)` says is
    /// left out: later kernels may add kinds of lines.
    pub fn parse(table: &[u8]) -> MountTable {
        MountTable { mounts: table.split(|&byte| byte == b'\n').filter_map(parse_line).collect() }
    }

    /// Every mount, oldest first.
    pub fn all(&self) -> &[Mount] {
        &self.mounts
    }

    /// The copper views, which no copper view shows.
    pub fn copper(&self) -> impl Iterator<Item = &Mount> {
        self.mounts.iter().filter(|mount| mount.is_copper())
    }

    /// The mount that is seen at a resolved path, if the path is a mount point: of several at one
    /// place, the one on top.
    pub fn at(&self, point: &Path) -> Option<&Mount> {
        let here: Vec<&Mount> = self.mounts.iter().filter(|mount| mount.point == point).collect();
        let covered = |mount: &Mount| here.iter().any(|other| other.parent == mount.number);
        here.iter().rev().find(|mount| !covered(mount)).or(here.last()).copied()
    }
}

/// Writes a field as mountinfo does: white space and backslashes as octal escapes.
pub(crate) fn escape(field: &OsStr) -> Vec<u8> {
    let mut escaped = Vec::new();
    for &byte in field.as_bytes() {
        match byte {
            b' ' | b'\t' | b'\n' | b'\\' => {
                escaped.extend_from_slice(format!("\\{byte:03o}").as_bytes());
            }
            _ => escaped.push(byte),
        }
    }
    escaped
}

/// Undoes [`escape`]; a backslash that begins no escape stays.
pub(crate) fn unescape(mut field: &[u8]) -> OsString {
    let mut plain = Vec::with_capacity(field.len());
    while let Some((&byte, rest)) = field.split_first() {
        match (byte, rest) {
            (b'\\', [high @ b'0'..=b'3', middle @ b'0'..=b'7', low @ b'0'..=b'7', after @ ..]) => {
                plain.push((high - b'0') << 6 | (middle - b'0') << 3 | (low - b'0'));
                field = after;
            }
            _ => {
                plain.push(byte);
                field = rest;
            }
        }
    }
    OsString::from_vec(plain)
}

/// `36 35 98:0 /root /point rw,noatime optional:1 … - type source superoptions`
fn parse_line(line: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|&byte| byte == b' ');
    let number = text(fields.next()?)?.parse().ok()?;
    let parent = text(fields.next()?)?.parse().ok()?;
    let device = text(fields.next()?)?.parse().ok()?;
    let _root = fields.next()?;
    let point = PathBuf::from(unescape(fields.next()?));
    let options = text(fields.next()?)?.to_owned();
    fields.find(|field| *field == b"-")?;
    let kind = unescape(fields.next()?).into_string().ok()?;
    let source = unescape(fields.next()?);
    Some(Mount { number, parent, device, point, options, kind, source })
}

fn text(field: &[u8]) -> Option<&str> {
    std::str::from_utf8(field).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &[u8] = b"22 1 254:1 / / rw,relatime shared:1 master:2 - ext4 /dev/root rw\n\
        30 22 0:40 / /mnt/a\\040b\\011\\134\\012c ro - fuse.copper copper:/ ro,user_id=0\n\
        31 22 0:41 / /stack rw - tmpfs tmpfs rw\n\
        32 31 0:42 / /stack rw - fuse.copper one ro\n\
        25 32 0:43 / /stack rw - fuse.sshfs host: rw\n\
        nonsense\n\
        33 22 0:44 / /\xff\xfe rw - fuse.copper \xff ro\n";

    #[test]
    fn escapes_optional_fields_and_bytes_that_are_no_text_are_understood() {
        let table = MountTable::parse(TABLE);
        assert_eq!(table.all().len(), 6);
        let view = table.at(Path::new("/mnt/a b\t\\\nc")).expect("unescaped");
        assert!(view.is_copper() && view.is_fuse());
        assert_eq!(view.device, DeviceId { major: 0, minor: 40 });
        assert_eq!(view.source, "copper:/");
        let bytes = PathBuf::from(OsString::from_vec(b"/\xff\xfe".to_vec()));
        assert_eq!(table.at(&bytes).expect("bytes").device.minor, 44);
        assert_eq!(table.at(Path::new("/mnt")), None);
        assert_eq!(table.copper().count(), 3);
    }

    #[test]
    fn of_several_mounts_at_one_place_the_one_on_top_counts_whatever_its_number() {
        let table = MountTable::parse(TABLE);
        assert_eq!(table.at(Path::new("/stack")).expect("stacked").device.minor, 43);
        // The same three lines in another order, as kernels do not promise one.
        let mut reversed: Vec<&[u8]> = TABLE.split(|&byte| byte == b'\n').collect();
        reversed.reverse();
        let table = MountTable::parse(&reversed.join(&b'\n'));
        assert_eq!(table.at(Path::new("/stack")).expect("stacked").device.minor, 43);
    }

    #[test]
    fn what_is_escaped_comes_back() {
        for path in ["/plain", "/a b", "/tab\tnew\nline", "/back\\slash\\040", "/ü"] {
            assert_eq!(unescape(&escape(OsStr::new(path))), path);
        }
        let bytes: Vec<u8> = (1..=255).collect();
        let field = OsString::from_vec(bytes);
        assert_eq!(unescape(&escape(&field)), field);
        assert!(!escape(&field).contains(&b'\n'));
        assert_eq!(unescape(b"\\9\\04\\"), "\\9\\04\\");
    }

    #[test]
    fn a_device_is_read_as_it_is_written() {
        let device = DeviceId { major: 0, minor: 1234 };
        assert_eq!(device.to_string().parse(), Ok(device));
        assert_eq!("0".parse::<DeviceId>(), Err(MalformedDevice));
        assert_eq!("0:x".parse::<DeviceId>(), Err(MalformedDevice));
    }

    #[test]
    fn the_real_table_has_a_root() {
        let table = MountTable::read().expect("/proc is mounted");
        assert!(table.at(Path::new("/")).is_some());
    }
}
