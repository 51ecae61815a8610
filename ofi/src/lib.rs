//! Safe libfabric for one purpose: small messages both ways and remote reads out of one arena per
//! daemon, over any provider with reliable datagrams (tcp, shm, cxi).
//!
//! [`Arena`] is the memory, shared by threads; its pieces are [`Filling`] while they are written
//! and [`Filled`] after that. [`Network`] is everything of libfabric, owned by one thread; it
//! posts operations and [polls](Network::poll) for [`Event`]s, and never waits. Peers exchange
//! [address](Network::address), [key](Network::region_key) and [base](Network::region_base) by
//! other means.
//!
//! Invariants:
//! - memory that the provider may touch is owned by the operation or by the network until the
//!   operation has ended or the endpoint is closed;
//! - everything has a bound, given by [`Settings`]; what is beyond it is [`PostError::Busy`];
//! - what a provider demands is decided in one place from its answer, and obeyed.
//!
//! It deliberately knows nothing of paths, files, blocks or trees, nor whether what it reads is
//! what the peer meant: lease, generation and checksum are above. In particular a read with a
//! wrong key, or beyond a peer's arena, is an error on some providers and not on others, and on tcp
//! it ends the connection with all of that peer's operations.
//!
//! # What does not compile
//!
//! A piece that was handed to a read cannot be touched until the read has ended:
//! ```compile_fail,E0382
//! # use copper_ofi::{Filling, Network, Peer, Remote};
//! fn read(network: &mut Network, peer: Peer, remote: Remote, mut into: Filling) {
//!     let _ = network.read(peer, 1, remote, into);
//!     into.as_mut()[0] = 1;
//! }
//! ```
//! A message cannot be kept beyond its event, for its buffer is posted again:
//! ```compile_fail,E0521
//! # use copper_ofi::{Event, Network};
//! fn keep<'a>(network: &mut Network, kept: &mut Vec<&'a [u8]>) {
//!     let _ = network.poll(1, |event| {
//!         if let Event::Received { bytes } = event {
//!             kept.push(bytes);
//!         }
//!     });
//! }
//! ```
//! A frozen piece is not written:
//! ```compile_fail,E0599
//! # use copper_ofi::Arena;
//! # fn write(arena: &Arena) {
//! let mut filled = arena.take(0, 4096).freeze();
//! filled.as_mut()[0] = 1;
//! # }
//! ```
//! A network moves to the engine's thread but is not shared with another:
//! ```
//! # use copper_ofi::Network;
//! fn moves<T: Send>() {}
//! moves::<Network>();
//! ```
//! ```compile_fail,E0277
//! # use copper_ofi::Network;
//! fn is_shared<T: Sync>() {}
//! is_shared::<Network>();
//! ```

mod address_vector;
mod arena;
mod completion;
mod context;
mod domain;
mod endpoint;
mod error;
mod fabric;
mod handle;
mod hints;
mod info;
mod message;
mod mode;
mod net;
mod network;
mod peers;
mod plain_ioctl;
#[cfg(copper_asan)]
pub mod planted;
mod region;
mod sync;
mod transfer;
mod versions;

pub use arena::{Arena, Filled, Filling, PAGE_BYTES};
pub use endpoint::Remote;
pub use error::{Errno, Error, PostError};
pub use net::{Net, NetError, environment};
pub use network::{Network, Settings};
pub use peers::Peer;
pub use plain_ioctl::plain_ioctl;
pub use transfer::Event;
pub use versions::{Versions, versions};
