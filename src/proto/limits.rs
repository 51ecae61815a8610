//! Every bound of the protocol, each with the reason for its number.

use std::time::Duration;

/// A data block: what one pull moves. Measured over tcp, 1 MiB reads reach 6.2 GB/s and 64 KiB
/// reads 2.1 GB/s (request and read, one in flight).
pub const BLOCK_BYTES: u32 = 1 << 20;

/// The smallest extent: a page, which is also what a region's registration counts in.
pub const EXTENT_BYTES_MIN: u32 = 4096;

/// The largest extent: a directory is one object and may be larger than a block. At about 40 bytes
/// a name, 400,000 names.
pub const EXTENT_BYTES_MAX: u32 = 16 << 20;

/// The largest message. Below the 16 KiB at which the CXI provider leaves the eager protocol.
pub const MESSAGE_BYTES_MAX: usize = 12 << 10;

/// Answers up to this size ride inside the reply message instead of being pulled; see
/// docs/adr/0004 for the measurement.
pub const INLINE_BYTES_MAX: u32 = 8 << 10;

/// The longest path below the view, as Linux's PATH_MAX.
pub const PATH_BYTES_MAX: usize = 4096;

/// The longest link target, as Linux's PATH_MAX.
pub const LINK_BYTES_MAX: usize = 4096;

/// The longest name of one component, as Linux's NAME_MAX.
pub const NAME_BYTES_MAX: usize = 255;

/// What a child may have outstanding at its parent: questions without an answer plus leases that
/// are not given back. 32 blocks of 1 MiB keep a 25 GB/s link busy for 1.3 ms, far more than the
/// round trip.
pub const CREDITS: u32 = 32;

/// What a successor in the root's place may have outstanding at each child that it asks for what that
/// holds.
pub const RECALL_CREDITS: u32 = 4;

/// Children of one rank in one tree.
pub const CHILDREN_MAX: u32 = 64;

/// Ranks of one tree that may take its root's place, at least: that so many hosts and the root are lost
/// at once is no case to be quick in.
pub const SUCCESSORS_MIN: u32 = 8;

/// Trees of one job. Each costs a rank a link up and, on average, one down; 16 readers of the source
/// are as many as there are object servers behind most files.
pub const TREES_MAX: u32 = 16;

/// Consecutive blocks of a file that belong to one tree: few beside those that are fetched ahead, so
/// that one reader keeps all roots busy.
pub const STRIPE_BLOCKS: u32 = 2;

/// Messages that may arrive before the parent looks: every child's credits, and as many notes that
/// leases are done (each note gives back at least one lease, which a credit covers); the child's
/// answers where it is asked itself, or such questions and notes.
pub const RECEIVES_PER_CHILD: u32 = 2 * CREDITS + 2 * RECALL_CREDITS;

/// Directories up to this many entries carry their entries' attributes; larger ones only names and
/// types, and attributes are asked for one by one.
pub const DIRECTORY_ATTRIBUTES_MAX: usize = 4096;

/// The largest value of an extended attribute, as Linux's XATTR_SIZE_MAX.
pub const XATTR_BYTES_MAX: usize = 64 << 10;

/// Runs of data that are told apart in one file: 1 MiB of object. More are shown as one.
pub const DATA_RANGES_MAX: usize = 64 << 10;

/// Look-ups in a directory that the kernel cannot answer before it is fetched whole: one, so that the
/// prefix components of a path (`/`, `/home`) are not listed for a single name.
pub const LOOKUPS_BEFORE_LISTING: u32 = 1;

/// A directory up to this size, as `stat` has it, is cheap to list: some hundred entries, at 24 bytes
/// and a name each on Lustre and ext4.
pub const SMALL_DIRECTORY_BYTES: u64 = 16 << 10;

/// A file up to this size is fetched whole on first touch, in bytes, unless `-M` says otherwise.
pub const WHOLE_FILE_BYTES: u64 = 10_000_000;

/// First reads of files in one directory before its other small files are fetched too: one, so that a
/// directory of which a single file is wanted costs no more.
pub const READS_BEFORE_SIBLINGS: u32 = 1;

/// The largest file that is fetched because its siblings are read, in bytes.
pub const SIBLING_BYTES_MAX: u64 = 64 << 10;

/// The most that the small files of one directory may have together to be fetched so, in bytes: a
/// package's modules, not a data set.
pub const SIBLINGS_BYTES_MAX: u64 = 2 << 20;

/// Blocks fetched ahead of a sequential reader of a larger file at first; doubled with each block that
/// it reads.
pub const AHEAD_BLOCKS_FIRST: u32 = 2;

/// Blocks fetched ahead of one reader at most. Each level of a tree has one on its way and one that is
/// asked for: enough for trees of eight levels.
pub const AHEAD_BLOCKS_MAX: u32 = 16;

/// All readers of a rank together have no more fetched ahead than the arena's size through this: less
/// than the tenth that a full cache keeps of what was read once (`copper-cache`), or it would evict
/// what is to be read next.
pub const AHEAD_SHARE: u64 = 16;

/// Credits, of [`CREDITS`], that may be in use when a question is asked that nobody waits for: the
/// others are kept for those that somebody waits for.
pub const AHEAD_CREDITS: u32 = 24;

/// Large files whose readers are watched, the one read longest ago is forgotten first.
pub const WATCHED_FILES_MAX: usize = 32;

/// Streams that are told apart in one file.
pub const WATCHED_STREAMS_MAX: usize = 8;

/// Touches of a file that are remembered while they belong to no stream: some for each of its
/// readers, and few enough that random ones rarely look like a pattern.
pub const WATCHED_TOUCHES_MAX: usize = 8;

/// How long a request may take in all, retries included; far below the 120 s of job launchers.
pub const REQUEST_BOUND: Duration = Duration::from_secs(30);

/// How long one pull may take before its extent is put in quarantine and the question asked again.
pub const PULL_BOUND: Duration = Duration::from_secs(5);

/// How long a rank waits for a word over the fabric from one that owes it an answer, before it asks
/// whether anybody is there. Whoever is there answers at once, however long the source takes.
pub const PROBE_AFTER: Duration = Duration::from_secs(2);

/// The same before it gives the link up: as long as the control channel may be silent.
pub const SILENCE_BOUND: Duration = Duration::from_secs(5);

/// How long a child may hold a lease: more than a pull may take. What says that it is done was lost then.
pub const LEASE_BOUND: Duration = Duration::from_secs(10);

/// How often leases are looked at.
pub const LEASE_LOOK: Duration = Duration::from_millis(2500);

/// Pulls over one link that fail in a row before it is given up: the bytes may be had from another rank.
pub const PULL_FAILURES_MAX: u32 = 3;

/// How long a grant waits for an extent to be pulled into before it is given back, and asked for again.
pub const GRANT_BOUND: Duration = Duration::from_millis(250);

/// How long a rank without a parent keeps its readers waiting for a new one.
pub const ORPHAN_BOUND: Duration = Duration::from_secs(6);

/// Attempts of one fetch, over all parents.
pub const ATTEMPTS_MAX: u32 = 8;

/// How long a rank may keep the note that a lease is done before it sends it alone.
pub const DONE_DELAY: Duration = Duration::from_millis(2);

/// How long a name may be answered as absent where no complete listing proves it, unless
/// [`FilePolicy`](crate::FilePolicy) says otherwise (`-E`).
pub const ABSENT_BOUND: Duration = Duration::from_millis(2000);

/// Fetches under way at one rank above which nothing more is fetched ahead of readers.
pub const FETCHES_AHEAD_MAX: usize = 1024;

/// How long a fetch pauses before it is tried again where trying at once would not help: no extent
/// was free for bytes that came inside a message, or a checksum did not match. Doubled with each
/// attempt, half of it by chance.
pub const PAUSE: Duration = Duration::from_millis(10);

/// Questions of local readers that may wait at one rank.
pub const LOCAL_WAITERS_MAX: usize = 4096;

/// Source reads at once: Lustre answers in milliseconds, so a root needs tens in flight.
pub const SOURCE_JOBS_MAX: usize = 64;

/// Source reads at once up to which one is begun that nobody waits for.
pub const AHEAD_SOURCE_JOBS: usize = 48;

/// Source reads at once of a rank that reaches neither an ancestor nor a root's successor. Others are as
/// alone then, and nobody reads for all.
pub const DEGRADED_SOURCE_JOBS: usize = 4;

/// Between two of these that begin: 500 a second for each rank.
pub const DEGRADED_PAUSE: Duration = Duration::from_millis(2);

/// Copies of evicted objects that are read back from the spill at once, in each tree: a disk sorts that
/// many, and a reader who comes then waits for some milliseconds of them.
pub const RESTORES_MAX: usize = 32;

const _: () = assert!(INLINE_BYTES_MAX as usize + 64 <= MESSAGE_BYTES_MAX);
const _: () = assert!(PATH_BYTES_MAX + LINK_BYTES_MAX + 256 <= MESSAGE_BYTES_MAX);
const _: () = assert!(MESSAGE_BYTES_MAX <= BLOCK_BYTES as usize);
const _: () = assert!(BLOCK_BYTES <= EXTENT_BYTES_MAX);
const _: () = assert!(BLOCK_BYTES.is_power_of_two() && EXTENT_BYTES_MAX.is_power_of_two());
const _: () = assert!(AHEAD_SOURCE_JOBS < SOURCE_JOBS_MAX);
const _: () = assert!(AHEAD_CREDITS < CREDITS && AHEAD_BLOCKS_MAX <= AHEAD_CREDITS);
const _: () = assert!(PULL_BOUND.as_millis() < LEASE_BOUND.as_millis());
const _: () = assert!(PROBE_AFTER.as_millis() < SILENCE_BOUND.as_millis());
const _: () = assert!(PULL_BOUND.as_millis() < REQUEST_BOUND.as_millis());
const _: () = assert!(ORPHAN_BOUND.as_millis() < REQUEST_BOUND.as_millis());
