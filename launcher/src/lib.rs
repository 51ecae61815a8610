//! Host lists, plans, spawning, rendezvous, and the register of what runs on this machine.
//!
//! Two halves. Between ranks: [`peers`] (who is where), [`secret`] and [`handshake`] (who may),
//! [`control`] and [`rendezvous`] (the tree over TCP), [`refresh`] (the source is looked at anew).
//! Between a user and the daemons of one machine: [`local`] (spawning), [`ready`] (telling the
//! launcher), [`instance`] (who holds which mount point), [`status`] (asking a daemon for its
//! counters), [`process`] (ending it).
//!
//! The crate does not know what a mount is, what libfabric is, or any byte of a file: a fabric
//! address is a byte string to it, a mount point is a path, a status is JSON.

#![forbid(unsafe_code)]

pub mod control;
pub mod counters;
pub mod frame;
pub mod gather;
pub mod handshake;
pub mod hosts;
pub mod instance;
pub mod job;
pub mod launch_record;
pub mod listener;
pub mod local;
pub mod moment;
pub mod orders;
pub mod peers;
pub mod process;
pub mod rank_set;
pub mod readiness;
pub mod ready;
pub mod refresh;
mod refresh_server;
pub mod refusal;
mod release;
pub mod remote;
pub mod rendezvous;
pub mod said;
pub mod seal;
pub mod secret;
pub mod starter;
pub mod status;

pub mod agent;
mod ascent;
mod channel;
mod connection;
mod daemons;
mod gang;
mod handed;
mod inherited;
mod link;
mod service;

pub use agent::AgentPlan;
pub use control::Pace;
pub use counters::RendezvousCounters;
pub use daemons::{RankFailure, SpawnError};
pub use gather::{GatherError, GatherResult, JobReports};
pub use handed::{HandedError, HandedFile};
pub use handshake::{Identity, LinkToken, Offer, PROTOCOL_VERSION, PeerHello};
pub use hosts::{Hosts, HostsError};
pub use instance::{Claim, Instance, InstanceError, Instances, Listed};
pub use job::{Job, RunFolder};
pub use launch_record::LaunchRecord;
pub use listener::{ListenError, inherited_listener, listen};
pub use local::{Launched, LaunchedRank, LocalError, LocalPlan, RankPlace};
pub use moment::Moment;
pub use orders::{Orders, OrdersError};
pub use peers::{Peers, PeersError};
pub use process::{Ended, Process, ProcessError};
pub use readiness::Progress;
pub use ready::{ProgressReport, ReadyError, ReadyPipe};
pub use refresh::{RefreshError, RefreshResult, Tally};
pub use refresh_server::{RefreshServer, RefreshServerError, ask_refresh};
pub use refusal::{HandshakeError, RefusalCode};
pub use remote::{
    Answers, Fleet, LaunchProgress, Missing, RemoteError, RemoteLaunched, RemotePlan,
};
pub use rendezvous::{
    Events, Hanging, LinkUp, RefreshReply, Rendezvous, RendezvousError, Settings,
};
pub use said::{Line, Said};
pub use secret::{Secret, SecretError};
pub use starter::{Launcher, Life};
pub use status::{StatusError, StatusServer};
