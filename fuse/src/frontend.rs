//! The calls: fuser's trait, one call in, one reply out.
//!
//! What the view answers now is answered here. Else the reply goes into [`Pending`] and the
//! question to the engine. No call blocks, none touches the source, and every call of the protocol
//! is spelled out: fuser's own answers would log a warning each.
//!
//! Everything that would change the view is answered EROFS. A mount with `ro` never asks for it;
//! this is for mounts that somebody remounted.

mod call;
mod content;
mod listing;
mod listing_plus;
mod outcome;

use std::ffi::OsStr;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::{Instant, SystemTime};

use copper_engine::{InodeNumber, Now, Provenance, Question, View};
use copper_proto::limits::NAME_BYTES_MAX;
use copper_proto::{Errno, Ticket};
use fuser::{
    AccessFlags, BsdFileFlags, CopyFileRangeFlags, Errno as KernelErrno, FileHandle, Filesystem,
    INodeNo, IoctlFlags, KernelConfig, LockOwner, OpenAccMode, OpenFlags, PollEvents, PollFlags,
    PollNotifier, RenameFlags, ReplyAttr, ReplyBmap, ReplyCreate, ReplyData, ReplyDirectory,
    ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyIoctl, ReplyLock, ReplyLseek, ReplyOpen,
    ReplyPoll, ReplyStatfs, ReplyWrite, ReplyXattr, Request, TimeOrNow, WriteFlags,
};

use crate::backings::{Backings, COUNTED};
use crate::controls::Controls;
use crate::counters::Counters;
use crate::hot_paths::HotPaths;
use crate::kernel::{Flushing, KernelFeatures, Negotiated, Opening, Policy, negotiate, policy};
use crate::listers::Listers;
use crate::operations::{Ended, Operation, Operations};
use crate::passthrough::PassthroughBounds;
use crate::pending::Pending;
use crate::stores::Stores;
use call::{Call, CallPath};
use outcome::{
    Attributed, Controlled, Extended, Listed, ListedPlus, Looked, Measured, Outcome, Pointed, Read,
    Seeking, Sought, complete, finish, is_access_list,
};

/// `lseek`'s numbers, as Linux has them.
const SEEK_DATA: i32 = 3;
const SEEK_HOLE: i32 = 4;

/// The handle of what is open and not counted.
const UNCOUNTED: FileHandle = FileHandle(0);

/// What the calls of one mount share.
pub(crate) struct Context<V: View> {
    pub(crate) view: Arc<V>,
    pub(crate) pending: Arc<Pending<V::Bytes>>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) operations: Arc<Operations>,
    /// What paths are asked for, if that is counted.
    pub(crate) paths: Option<Arc<HotPaths>>,
    pub(crate) stores: Stores<V::Bytes>,
    pub(crate) listers: Listers,
    pub(crate) backings: Arc<Backings<V::Bytes>>,
    pub(crate) controls: Option<Arc<dyn Controls>>,
    /// The open `/dev/fuse`, for the one reply that fuser cannot write: see `listing_plus`.
    pub(crate) device: OwnedFd,
    pub(crate) asked: KernelFeatures,
    /// Whether permissions are also those of POSIX ACLs.
    pub(crate) access_lists: bool,
    pub(crate) readahead_bytes: Option<u32>,
    pub(crate) passthrough: Option<PassthroughBounds>,
    pub(crate) negotiated: Arc<OnceLock<Negotiated>>,
    pub(crate) policy: OnceLock<Policy>,
}

impl<V: View> Context<V> {
    pub(crate) fn policy(&self) -> &Policy {
        self.policy.get().expect("fuser calls init before any other call")
    }
}

/// One mount's answers to the kernel.
pub(crate) struct Frontend<V: View> {
    context: Arc<Context<V>>,
}

impl<V: View> Frontend<V> {
    pub(crate) fn new(context: Context<V>) -> Frontend<V> {
        Frontend { context: Arc::new(context) }
    }

    fn counters(&self) -> &Counters {
        &self.context.counters
    }

    fn view(&self) -> &V {
        &self.context.view
    }

    /// Answers now, or puts the reply away and asks the engine.
    fn answer<O: Outcome<V>>(&self, call: Call, now: Now<O::Value>, outcome: O, ask: Question) {
        if let Now::Answered(answer) = now {
            self.counters().inline.count();
            finish(&self.context, call, outcome, answer);
        } else {
            self.ask(call, outcome, ask);
        }
    }

    fn ask<O: Outcome<V>>(&self, call: Call, outcome: O, question: Question) {
        self.counters().asked.count();
        self.put_away(call, outcome, |ticket| self.view().ask(ticket, question));
    }

    /// Puts the reply away under a ticket, for whoever is asked now to answer it.
    fn put_away<O: Outcome<V>>(
        &self,
        call: Call,
        outcome: O,
        ask: impl FnOnce(Ticket) -> Result<(), Errno>,
    ) {
        let complete = complete(&self.context, call, outcome);
        match self.context.pending.put(complete, Instant::now()) {
            Ok(ticket) => {
                if let Err(errno) = ask(ticket)
                    && let Some(complete) = self.context.pending.take(ticket)
                {
                    complete(Err(errno), Provenance::Held);
                }
            }
            Err((complete, errno)) => complete(Err(errno), Provenance::Held),
        }
    }

    /// A call that begins now, about an inode.
    fn call(&self, operation: Operation, request: &Request, inode: INodeNo) -> Call {
        let mut call = Call::new(operation, request, inode);
        if self.context.paths.is_some() {
            call.path = self.view().path(number(inode)).map(CallPath::Inode);
        }
        call
    }

    /// Answers a call that no object is behind.
    fn local(&self, operation: Operation, ended: Ended, reply: impl FnOnce()) {
        let started = Instant::now();
        reply();
        self.context.operations.local(operation, ended, started);
    }

    fn read_only(&self) -> KernelErrno {
        self.counters().mutation.count();
        self.local(Operation::Mutation, Ended::Failed, || ());
        KernelErrno::EROFS
    }

    /// The errno that makes the kernel answer alone from now on.
    fn kernel_alone(&self) -> KernelErrno {
        self.counters().other.count();
        self.local(Operation::Other, Ended::Well, || ());
        KernelErrno::ENOSYS
    }

    fn opened(&self, operation: Operation, opening: Opening, flags: OpenFlags, reply: ReplyOpen) {
        match (flags.acc_mode(), opening) {
            (OpenAccMode::O_WRONLY | OpenAccMode::O_RDWR, _) => reply.error(self.read_only()),
            (OpenAccMode::O_RDONLY, Opening::Alone) => {
                self.local(operation, Ended::Well, || reply.error(KernelErrno::ENOSYS));
            }
            (OpenAccMode::O_RDONLY, Opening::Told(flags) | Opening::Passed(flags)) => {
                self.local(operation, Ended::Well, || reply.opened(UNCOUNTED, flags));
            }
        }
    }
}

fn number(inode: INodeNo) -> InodeNumber {
    InodeNumber(inode.0)
}

impl<V: View> Filesystem for Frontend<V> {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> io::Result<()> {
        let Context { asked, access_lists, readahead_bytes, passthrough, .. } = *self.context;
        let negotiated = negotiate(asked, access_lists, readahead_bytes, passthrough, config);
        let policy = policy(negotiated.granted, negotiated.passthrough);
        self.context.policy.set(policy).expect("init is called once");
        self.context.negotiated.set(negotiated).expect("init is called once");
        self.local(Operation::Init, Ended::Well, || ());
        Ok(())
    }

    fn destroy(&mut self) {
        self.local(Operation::Destroy, Ended::Well, || ());
    }

    fn lookup(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        self.counters().lookup.count();
        let (mut call, parent) = (self.call(Operation::Lookup, request, parent), number(parent));
        call.name(name.as_bytes());
        // The kernel lets names pass that are longer than any file system of Linux has.
        let now = if name.len() > NAME_BYTES_MAX {
            Now::Answered(Err(Errno::ENAMETOOLONG))
        } else {
            self.view().lookup(parent, name.as_bytes())
        };
        let question = Question::Lookup { parent, name: name.as_bytes().into() };
        self.answer(call, now, Looked { reply }, question);
    }

    // Also BATCH_FORGET, by fuser's default; its argument's type cannot be named.
    fn forget(&self, _: &Request, inode: INodeNo, count: u64) {
        self.counters().forget.count();
        let inode = number(inode);
        self.view().forget(inode, count);
        // Some references may be left: of two look-ups at once the kernel gives one back.
        if matches!(self.context.policy().open, Opening::Passed(_))
            && let Now::Answered(Err(_)) = self.view().attributes(inode)
        {
            self.context.backings.forget(inode);
        }
    }

    fn getattr(&self, request: &Request, inode: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        self.counters().getattr.count();
        let (call, inode) = (self.call(Operation::Getattr, request, inode), number(inode));
        let now = self.view().attributes(inode);
        self.answer(call, now, Attributed { inode, reply }, Question::Attributes(inode));
    }

    fn readlink(&self, request: &Request, inode: INodeNo, reply: ReplyData) {
        self.counters().readlink.count();
        let (call, inode) = (self.call(Operation::Readlink, request, inode), number(inode));
        self.answer(call, self.view().target(inode), Pointed { reply }, Question::Target(inode));
    }

    fn open(&self, request: &Request, inode: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        self.counters().open.count();
        match (self.context.policy().open, flags.acc_mode()) {
            (Opening::Passed(plain), OpenAccMode::O_RDONLY) => {
                self.pass(self.call(Operation::Open, request, inode), number(inode), plain, reply);
            }
            (opening, _) => self.opened(Operation::Open, opening, flags, reply),
        }
    }

    fn read(
        &self,
        request: &Request,
        inode: INodeNo,
        _: FileHandle,
        offset: u64,
        len: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        self.counters().read.count();
        self.counters().read_request_bytes_max.raise(len.into());
        let (call, inode) = (self.call(Operation::Read, request, inode), number(inode));
        let now = self.view().read(inode, offset, len);
        self.answer(
            call,
            now,
            Read { inode, offset, len, reply },
            Question::Read { inode, offset, len },
        );
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        match self.context.policy().flush {
            Flushing::Alone => reply.error(self.kernel_alone()),
            Flushing::Told => {
                self.counters().other.count();
                self.local(Operation::Other, Ended::Well, || reply.ok());
            }
        }
    }

    fn release(
        &self,
        _: &Request,
        inode: INodeNo,
        handle: FileHandle,
        _: OpenFlags,
        _: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        self.counters().release.count();
        // Before the reply: somebody may wait for it, and open the file again.
        if handle == COUNTED {
            self.context.backings.release(number(inode));
        }
        self.local(Operation::Release, Ended::Well, || reply.ok());
    }

    fn opendir(&self, _: &Request, _: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        self.counters().opendir.count();
        self.opened(Operation::Opendir, self.context.policy().opendir, flags, reply);
    }

    fn readdir(
        &self,
        request: &Request,
        inode: INodeNo,
        _: FileHandle,
        offset: u64,
        reply: ReplyDirectory,
    ) {
        self.counters().readdir.count();
        let (call, inode) = (self.call(Operation::Readdir, request, inode), number(inode));
        let now = self.view().directory(inode);
        self.answer(call, now, Listed { inode, offset, reply }, Question::Directory(inode));
    }

    fn readdirplus(
        &self,
        request: &Request,
        inode: INodeNo,
        _: FileHandle,
        offset: u64,
        reply: ReplyDirectoryPlus,
    ) {
        self.counters().readdirplus.count();
        let (call, inode) = (self.call(Operation::Readdirplus, request, inode), number(inode));
        let now = self.view().directory(inode);
        self.answer(
            call,
            now,
            ListedPlus { waited: None, inode, offset, reply },
            Question::Directory(inode),
        );
    }

    fn releasedir(&self, _: &Request, _: INodeNo, _: FileHandle, _: OpenFlags, reply: ReplyEmpty) {
        self.counters().releasedir.count();
        self.local(Operation::Releasedir, Ended::Well, || reply.ok());
    }

    fn statfs(&self, request: &Request, inode: INodeNo, reply: ReplyStatfs) {
        self.counters().statfs.count();
        let (call, inode) = (self.call(Operation::Statfs, request, inode), number(inode));
        self.ask(call, Measured { reply }, Question::Statistics(inode));
    }

    fn access(&self, _: &Request, _: INodeNo, _: AccessFlags, reply: ReplyEmpty) {
        // Only a mount without default_permissions asks; ENOSYS lets the kernel go by the modes.
        self.counters().access.count();
        self.local(Operation::Access, Ended::Well, || reply.error(KernelErrno::ENOSYS));
    }

    fn ioctl(
        &self,
        request: &Request,
        inode: INodeNo,
        _: FileHandle,
        _: IoctlFlags,
        command: u32,
        _input: &[u8],
        _output_len: u32,
        reply: ReplyIoctl,
    ) {
        self.counters().ioctl.count();
        let controls = self.context.controls.as_ref().filter(|controls| controls.knows(command));
        match controls {
            // Not a terminal: isatty() asks this of every file that Python opens.
            None => {
                self.local(Operation::Ioctl, Ended::Failed, || reply.error(KernelErrno::ENOTTY))
            }
            // They are for who has mounted it: others may be let in to read.
            Some(_) if ![0, rustix::process::geteuid().as_raw()].contains(&request.uid()) => {
                self.local(Operation::Ioctl, Ended::Failed, || reply.error(KernelErrno::EPERM));
            }
            Some(controls) => {
                let call = self.call(Operation::Ioctl, request, inode);
                self.put_away(call, Controlled { reply }, |ticket| controls.ask(command, ticket));
            }
        }
    }

    fn lseek(
        &self,
        request: &Request,
        inode: INodeNo,
        _: FileHandle,
        offset: i64,
        whence: i32,
        reply: ReplyLseek,
    ) {
        self.counters().lseek.count();
        let (call, inode) = (self.call(Operation::Lseek, request, inode), number(inode));
        let seeking = match (u64::try_from(offset), whence) {
            (Ok(offset), SEEK_DATA) => Seeking::Data(offset),
            (Ok(offset), SEEK_HOLE) => Seeking::Hole(offset),
            (Err(_), SEEK_DATA | SEEK_HOLE) => {
                let refuse = || reply.error(KernelErrno::ENXIO);
                return self.local(Operation::Lseek, Ended::Failed, refuse);
            }
            // The kernel moves the other ways by itself.
            _ => {
                let refuse = || reply.error(KernelErrno::EINVAL);
                return self.local(Operation::Lseek, Ended::Failed, refuse);
            }
        };
        let now = self.view().data_ranges(inode);
        self.answer(call, now, Sought { seeking, reply }, Question::DataRanges(inode));
    }

    fn getxattr(
        &self,
        request: &Request,
        inode: INodeNo,
        name: &OsStr,
        room: u32,
        reply: ReplyXattr,
    ) {
        self.counters().getxattr.count();
        let (call, inode) = (self.call(Operation::Getxattr, request, inode), number(inode));
        let now = if !self.context.access_lists && is_access_list(name.as_bytes()) {
            Now::Answered(Err(Errno::EOPNOTSUPP))
        } else {
            self.view().extended_attributes(inode)
        };
        let name = Some(name.as_bytes().into());
        let outcome = Extended { name, room, reply };
        self.answer(call, now, outcome, Question::ExtendedAttributes(inode));
    }

    fn listxattr(&self, request: &Request, inode: INodeNo, room: u32, reply: ReplyXattr) {
        self.counters().listxattr.count();
        let (call, inode) = (self.call(Operation::Listxattr, request, inode), number(inode));
        let now = self.view().extended_attributes(inode);
        let outcome = Extended { name: None, room, reply };
        self.answer(call, now, outcome, Question::ExtendedAttributes(inode));
    }

    // What the kernel does alone once it is told ENOSYS.

    fn fsync(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        reply.error(self.kernel_alone());
    }

    fn fsyncdir(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        reply.error(self.kernel_alone());
    }

    fn bmap(&self, _: &Request, _: INodeNo, _: u32, _: u64, reply: ReplyBmap) {
        reply.error(self.kernel_alone());
    }

    fn poll(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        _: PollNotifier,
        _: PollEvents,
        _: PollFlags,
        reply: ReplyPoll,
    ) {
        reply.error(self.kernel_alone());
    }

    fn getlk(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        _: LockOwner,
        _start: u64,
        _end: u64,
        _kind: i32,
        _pid: u32,
        reply: ReplyLock,
    ) {
        // Not asked for: the kernel keeps locks to itself.
        reply.error(self.kernel_alone());
    }

    fn setlk(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        _: LockOwner,
        _start: u64,
        _end: u64,
        _kind: i32,
        _pid: u32,
        _sleep: bool,
        reply: ReplyEmpty,
    ) {
        reply.error(self.kernel_alone());
    }

    // What would change the view.

    fn setattr(
        &self,
        _: &Request,
        _: INodeNo,
        _mode: Option<u32>,
        _uid: Option<u32>,
        _gid: Option<u32>,
        _size: Option<u64>,
        _accessed: Option<TimeOrNow>,
        _modified: Option<TimeOrNow>,
        _changed: Option<SystemTime>,
        _: Option<FileHandle>,
        _created: Option<SystemTime>,
        _checked: Option<SystemTime>,
        _backed_up: Option<SystemTime>,
        _: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        reply.error(self.read_only());
    }

    fn mknod(
        &self,
        _: &Request,
        _: INodeNo,
        _: &OsStr,
        _mode: u32,
        _umask: u32,
        _device: u32,
        reply: ReplyEntry,
    ) {
        reply.error(self.read_only());
    }

    fn mkdir(&self, _: &Request, _: INodeNo, _: &OsStr, _: u32, _: u32, reply: ReplyEntry) {
        reply.error(self.read_only());
    }

    fn unlink(&self, _: &Request, _: INodeNo, _: &OsStr, reply: ReplyEmpty) {
        reply.error(self.read_only());
    }

    fn rmdir(&self, _: &Request, _: INodeNo, _: &OsStr, reply: ReplyEmpty) {
        reply.error(self.read_only());
    }

    fn symlink(&self, _: &Request, _: INodeNo, _: &OsStr, _: &Path, reply: ReplyEntry) {
        reply.error(self.read_only());
    }

    fn rename(
        &self,
        _: &Request,
        _: INodeNo,
        _: &OsStr,
        _: INodeNo,
        _: &OsStr,
        _: RenameFlags,
        reply: ReplyEmpty,
    ) {
        reply.error(self.read_only());
    }

    fn link(&self, _: &Request, _: INodeNo, _: INodeNo, _: &OsStr, reply: ReplyEntry) {
        reply.error(self.read_only());
    }

    fn create(
        &self,
        _: &Request,
        _: INodeNo,
        _: &OsStr,
        _mode: u32,
        _umask: u32,
        _flags: i32,
        reply: ReplyCreate,
    ) {
        reply.error(self.read_only());
    }

    fn write(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        _offset: u64,
        _data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        reply.error(self.read_only());
    }

    fn fallocate(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        _offset: u64,
        _len: u64,
        _mode: i32,
        reply: ReplyEmpty,
    ) {
        reply.error(self.read_only());
    }

    fn setxattr(
        &self,
        _: &Request,
        _: INodeNo,
        _: &OsStr,
        _value: &[u8],
        _flags: i32,
        _position: u32,
        reply: ReplyEmpty,
    ) {
        reply.error(self.read_only());
    }

    fn removexattr(&self, _: &Request, _: INodeNo, _: &OsStr, reply: ReplyEmpty) {
        reply.error(self.read_only());
    }

    fn copy_file_range(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        _offset_in: u64,
        _: INodeNo,
        _: FileHandle,
        _offset_out: u64,
        _len: u64,
        _: CopyFileRangeFlags,
        reply: ReplyWrite,
    ) {
        reply.error(self.read_only());
    }
}
