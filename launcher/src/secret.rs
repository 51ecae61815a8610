//! The job's secret: 32 random bytes that every rank of a job holds and nobody else.
//!
//! It reaches a rank through a file of mode 0600 or an environment variable, never through a
//! command line, which every user of the machine can read. It is never printed.

use std::ffi::OsStr;
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::OFlags;
use rustix::pipe::PipeFlags;
use rustix::rand::{GetRandomFlags, getrandom};

/// The environment variable that [`Secret::from_environment`] reads. Whoever starts another program
/// takes it out of that program's environment, and whoever logs an environment leaves it out.
pub const SECRET_VARIABLE: &str = "COPPER_SECRET";

/// The number of the pipe that [`HandedOn::leave`] leaves: nothing worth to be known.
const PIPE_VARIABLE: &str = "COPPER_SECRET_PIPE";

/// 256 bits: the key size of BLAKE3.
const SECRET_BYTES: usize = 32;

/// The job's secret.
#[derive(Clone)]
pub struct Secret([u8; SECRET_BYTES]);

impl Secret {
    /// A new secret from the kernel's random numbers.
    ///
    /// # Errors
    /// If the kernel has none to give.
    pub fn generate() -> Result<Secret, SecretError> {
        random_bytes().map(Secret).map_err(SecretError::Random)
    }

    /// Reads the secret of [`Secret::write_new`] back: a regular file of ours that only we can
    /// read.
    ///
    /// # Errors
    /// What is wrong with the file, and how to make a right one.
    pub fn from_file(path: &Path) -> Result<Secret, SecretError> {
        let failed = |source| SecretError::Read { path: path.to_owned(), source };
        // Without NONBLOCK the open of a FIFO would wait for a writer.
        let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed();
        let file = OpenOptions::new().read(true).custom_flags(flags).open(path).map_err(failed)?;
        let metadata = file.metadata().map_err(failed)?;
        if !metadata.is_file() {
            return Err(SecretError::NotAFile { path: path.to_owned() });
        }
        let (owner, user) = (metadata.uid(), rustix::process::geteuid().as_raw());
        if owner != user {
            return Err(SecretError::Owner { path: path.to_owned(), owner, user });
        }
        let mode = metadata.mode() & 0o7777;
        if mode & !0o600 != 0 {
            return Err(SecretError::Mode { path: path.to_owned(), mode });
        }
        let mut text = Vec::with_capacity(2 * SECRET_BYTES + 1);
        file.take(2 * SECRET_BYTES as u64 + 2).read_to_end(&mut text).map_err(failed)?;
        parse(&text).ok_or_else(|| SecretError::Malformed { place: path.display().to_string() })
    }

    /// The secret that [`HandedOn::leave`] has left to this program, else the one in
    /// [`SECRET_VARIABLE`]; `None` if there is neither. To be called once.
    ///
    /// # Errors
    /// If there is something that is not a secret.
    pub fn from_environment() -> Result<Option<Secret>, SecretError> {
        if let Some(number) = std::env::var_os(PIPE_VARIABLE) {
            return take_from_pipe(&number).map(Some);
        }
        let Some(text) = std::env::var_os(SECRET_VARIABLE) else { return Ok(None) };
        let malformed = || SecretError::Malformed { place: SECRET_VARIABLE.to_owned() };
        parse(text.as_encoded_bytes()).map(Some).ok_or_else(malformed)
    }

    /// Writes the secret to a new file of mode 0600.
    ///
    /// # Errors
    /// If the file exists already or cannot be written.
    pub fn write_new(&self, path: &Path) -> Result<(), SecretError> {
        let failed = |source| SecretError::Write { path: path.to_owned(), source };
        let mut file: File = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)
            .map_err(failed)?;
        file.write_all(format!("{}\n", self.hex()).as_bytes()).map_err(failed)
    }

    /// The form in which it stands in the file and in the variable.
    pub fn hex(&self) -> String {
        blake3::Hash::from_bytes(self.0).to_hex().to_string()
    }

    /// From the form of [`Secret::hex`].
    pub fn from_hex(text: &str) -> Option<Secret> {
        parse(text.as_bytes())
    }

    /// Random bytes for [`Secret::proof`], used once.
    ///
    /// # Errors
    /// If the kernel gives none.
    pub fn nonce() -> Result<[u8; 32], SecretError> {
        random_bytes().map_err(SecretError::Random)
    }

    /// Proves that this side knows the secret, bound to `said`, which holds the other side's nonce.
    /// `purpose` is unlike any other use's.
    pub fn proof(&self, purpose: &'static str, said: &[&[u8]]) -> [u8; 32] {
        *self.hash(purpose, said).as_bytes()
    }

    /// Whether the other side's proof is one; takes the same time whatever differs.
    pub fn proves(&self, purpose: &'static str, said: &[&[u8]], proof: &[u8; 32]) -> bool {
        self.hash(purpose, said) == *proof
    }

    fn hash(&self, purpose: &'static str, said: &[&[u8]]) -> blake3::Hash {
        let mut hasher = blake3::Hasher::new_keyed(&self.key(purpose));
        for part in said {
            // Lengths too: no two lists of parts are one text.
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part);
        }
        hasher.finalize()
    }

    /// A key for one purpose, from which the secret cannot be found again.
    pub(crate) fn key(&self, purpose: &'static str) -> [u8; 32] {
        blake3::derive_key(purpose, &self.0)
    }
}

/// A secret on its way to the program that this one is about to become: in a pipe, which is empty
/// once it is read. The environment of a process can be read as long as it runs.
#[derive(Debug)]
pub struct HandedOn {
    reader: OwnedFd,
}

impl HandedOn {
    /// Takes the secret of this program's environment; `None` if there is none.
    ///
    /// # Errors
    /// If there is no pipe to be had.
    pub fn take() -> io::Result<Option<HandedOn>> {
        let Some(text) = std::env::var_os(SECRET_VARIABLE) else { return Ok(None) };
        let (reader, writer) = rustix::pipe::pipe_with(PipeFlags::NONBLOCK)?;
        // The pipe has room for more than any environment variable that is a secret.
        rustix::io::write(&writer, text.as_encoded_bytes())?;
        Ok(Some(HandedOn { reader }))
    }

    /// Prepares the command that this program becomes by `exec`.
    pub fn leave(&self, command: &mut Command) {
        command.env_remove(SECRET_VARIABLE);
        command.env(PIPE_VARIABLE, self.reader.as_raw_fd().to_string());
    }
}

fn take_from_pipe(number: &OsStr) -> Result<Secret, SecretError> {
    let malformed = || SecretError::Malformed { place: PIPE_VARIABLE.to_owned() };
    let number: u32 = number.to_str().and_then(|it| it.parse().ok()).ok_or_else(malformed)?;
    // Opened anew by its name: a number alone proves nothing. The old one leads to an empty pipe.
    let path = PathBuf::from(format!("/proc/self/fd/{number}"));
    let failed = |source| SecretError::Read { path: path.clone(), source };
    let flags = OFlags::NONBLOCK.bits().cast_signed();
    let pipe = OpenOptions::new().read(true).custom_flags(flags).open(&path).map_err(failed)?;
    if !pipe.metadata().map_err(failed)?.file_type().is_fifo() {
        return Err(malformed());
    }
    let mut text = Vec::with_capacity(2 * SECRET_BYTES + 1);
    pipe.take(2 * SECRET_BYTES as u64 + 2).read_to_end(&mut text).map_err(failed)?;
    parse(&text).ok_or_else(malformed)
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Secret(not shown)")
    }
}

/// Bytes that nobody can guess.
pub(crate) fn random_bytes<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    let mut filled = 0;
    while filled < N {
        filled += getrandom(&mut bytes[filled..], GetRandomFlags::empty())?;
    }
    Ok(bytes)
}

fn parse(text: &[u8]) -> Option<Secret> {
    let text = text.strip_suffix(b"\n").unwrap_or(text);
    blake3::Hash::from_hex(text).ok().map(|hash| Secret(*hash.as_bytes()))
}

/// Why there is no secret.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The kernel gave no random bytes.
    #[error("cannot generate the job's secret: the kernel gives no random bytes")]
    Random(#[source] io::Error),
    /// The file cannot be read.
    #[error("cannot read the job's secret from {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file cannot be written.
    #[error("cannot write the job's secret to {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is a directory, a device, or the like.
    #[error("the job's secret {} is not a regular file", path.display())]
    NotAFile {
        /// The file.
        path: PathBuf,
    },
    /// The file is somebody else's.
    #[error(
        "the job's secret {} belongs to user {owner}, not to user {user} who runs this: \
         copy it to a file of your own with mode 0600",
        path.display()
    )]
    Owner {
        /// The file.
        path: PathBuf,
        /// Its owner.
        owner: u32,
        /// Who runs this.
        user: u32,
    },
    /// Others can read the file.
    #[error(
        "the job's secret {} has mode {mode:04o}, others may have read it: make a new one with \
         mode 0600 (`umask 077` before writing it)",
        path.display()
    )]
    Mode {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// It is not a secret.
    #[error("{place} does not hold a job's secret, which is 64 hexadecimal digits")]
    Malformed {
        /// File or variable.
        place: String,
    },
}
