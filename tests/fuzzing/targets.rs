//! What takes bytes from outside. Each target checks that what it understands it says again in the same
//! way, and returns where an input has got to; with `planted` it has a bug that is to be found.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::num::NonZeroU32;
use std::sync::Arc;

use copper_launcher::control::ControlMessage;
use copper_launcher::frame::{Arrival, Frame, FrameReader};
use copper_launcher::handshake::{Acceptor, Dialer, Nonce, Step};
use copper_launcher::{
    GatherError, HandshakeError, Identity, Job, Offer, PROTOCOL_VERSION, Secret,
};
use copper_proto::limits::CREDITS;
use copper_proto::{
    BlockIndex, DataRanges, DataRangesBuilder, Directory, DirectoryBuilder, Epoch,
    ExtendedAttributes, FileKind, Forest, Generation, Key, LeaseId, Message, Rank, Reply,
    RequestId, TreeIndex, ViewPath, What,
};

/// Takes an input, with the planted bug or without, and returns where that got to.
type Run = dyn Fn(&[u8], bool) -> u64;

/// One decoder, or the handshake.
pub(crate) struct Target {
    pub(crate) name: &'static str,
    pub(crate) corpus: Vec<Vec<u8>>,
    pub(crate) run: Box<Run>,
}

fn target(
    name: &'static str,
    corpus: Vec<Vec<u8>>,
    run: impl Fn(&[u8], bool) -> u64 + 'static,
) -> Target {
    Target { name, corpus, run: Box::new(run) }
}

pub(crate) fn all() -> Vec<Target> {
    vec![
        target("wire", messages(), wire),
        target("control", control_messages(), control),
        target("frames", control_messages(), frames),
        handshake(),
        target("directory", directories(), directory),
        target("extended attributes", extended(), extended_attributes),
        target("data ranges", ranges(), data_ranges),
    ]
}

/// The shape of what was understood: the names of its types and variants, as their capitals show them.
fn place(what: &impl std::fmt::Debug) -> u64 {
    let mut hasher = DefaultHasher::new();
    let text = format!("{what:?}");
    let shape = text.bytes().filter(u8::is_ascii_uppercase).take(32);
    shape.collect::<Vec<u8>>().hash(&mut hasher);
    hasher.finish()
}

fn bug(planted: bool, is_there: bool) {
    assert!(!(planted && is_there), "planted");
}

fn messages() -> Vec<Vec<u8>> {
    let path = ViewPath::parse(b"opt/env/lib/x.py").expect("valid");
    let generation = Generation { mtime_ns: -1, ctime_ns: 2, size: 3 << 20, inode: 4 };
    let ask = |what| Message::Ask {
        request: RequestId(7),
        epoch: Epoch(1 << 40),
        key: Key { path: path.clone(), what },
        bound_ms: 30_000,
        done: (0..CREDITS).map(LeaseId).collect(),
    };
    let answer = |reply| Message::Answer { request: RequestId(7), reply };
    let messages = [
        ask(What::Entry),
        ask(What::Directory),
        ask(What::Block { index: BlockIndex(2), generation }),
        ask(What::DataRanges { generation }),
        Message::Done { leases: vec![LeaseId(1)] },
        answer(Reply::Absent { keep_ms: 5 }),
        answer(Reply::Inline { len: 4, checksum: 9 }),
        answer(Reply::Grant { lease: LeaseId(1), offset: 1 << 30, len: 4096, checksum: 3 }),
    ];
    let encoded = messages.iter().map(|message| {
        let mut bytes = Vec::new();
        message.encode(77, &mut bytes);
        if matches!(message, Message::Answer { reply: Reply::Inline { .. }, .. }) {
            bytes.extend_from_slice(b"four");
        }
        bytes
    });
    encoded.collect()
}

fn wire(bytes: &[u8], planted: bool) -> u64 {
    let decoded = Message::decode(bytes);
    if let Ok((token, message, payload)) = &decoded {
        let mut again = Vec::new();
        message.encode(*token, &mut again);
        again.extend_from_slice(payload);
        assert_eq!(Message::decode(&again).as_ref(), Ok(&(*token, message.clone(), *payload)));
        bug(planted, matches!(message, Message::Ask { done, .. } if done.len() == 3));
    }
    place(&decoded.map(|(_, message, _)| message))
}

fn control_messages() -> Vec<Vec<u8>> {
    let path = ViewPath::parse(b"opt/env").expect("valid");
    let mut messages = vec![
        ControlMessage::Heartbeat,
        ControlMessage::Shutdown,
        ControlMessage::Leaving,
        ControlMessage::Joined { epoch: Epoch(3) },
        ControlMessage::WantRefresh { request: 1, path: path.clone() },
        ControlMessage::Refresh { epoch: Epoch(1), bound_ms: 10_000, path },
        ControlMessage::WantStatus { request: 1 },
        ControlMessage::Gather { run: 1, bound_ms: 2000 },
        ControlMessage::StatusPart { number: 1, rank: Rank(2), report: b"{\"rank\":2}".to_vec() },
    ];
    let error = Some(GatherError::Busy { rank: Rank(9) });
    messages.push(ControlMessage::StatusEnd { number: 1, error });
    messages.iter().map(|message| message.encode().as_bytes().to_vec()).collect()
}

fn control(bytes: &[u8], planted: bool) -> u64 {
    // The length is another target's: so that most inputs get further.
    let mut bytes = bytes.to_vec();
    if let Some(length) = bytes.len().checked_sub(2).and_then(|it| u16::try_from(it).ok()) {
        bytes[..2].copy_from_slice(&length.to_le_bytes());
    }
    let Ok(frame) = Frame::parse(&bytes) else { return 0 };
    let decoded = ControlMessage::decode(&frame);
    if let Ok(message) = &decoded {
        assert_eq!(ControlMessage::decode(&message.encode()).as_ref(), Ok(message));
        let wrong = |error: &Option<GatherError>| matches!(error, Some(GatherError::Unheard { rank }) if rank.0 > 255);
        bug(planted, matches!(message, ControlMessage::StatusEnd { error, .. } if wrong(error)));
    }
    place(&decoded)
}

fn frames(bytes: &[u8], planted: bool) -> u64 {
    let (mut reader, mut source) = (FrameReader::new(), bytes);
    let mut taken = 0;
    loop {
        let arrival = reader.read_from(&mut source).expect("a slice does not fail");
        match arrival {
            Arrival::Frame(frame) => {
                assert_eq!(frame.as_bytes(), &bytes[taken..taken + frame.as_bytes().len()]);
                taken += frame.as_bytes().len();
                bug(planted, frame.kind() == 0xFF && frame.body().len() > 2);
            }
            Arrival::End | Arrival::Malformed(_) => {
                return place(&(arrival, taken.ilog2_or_zero()));
            }
            Arrival::Nothing => unreachable!("a slice has everything at once"),
        }
    }
}

trait OrZero {
    fn ilog2_or_zero(self) -> u32;
}

impl OrZero for usize {
    fn ilog2_or_zero(self) -> u32 {
        self.checked_ilog2().unwrap_or(0)
    }
}

fn identity(rank: u32, secret: &Secret) -> Arc<Identity> {
    let nonzero = |value| NonZeroU32::new(value).expect("not zero");
    Arc::new(Identity {
        version: PROTOCOL_VERSION,
        job: Job::parse("job-1").expect("valid"),
        rank: Rank(rank),
        forest: Forest::new(nonzero(8), nonzero(2), nonzero(1)).expect("valid"),
        secret: secret.clone(),
        offer: Offer {
            fabric_address: vec![7; 16],
            provider: "tcp".to_owned(),
            ..Offer::default()
        },
    })
}

/// Both sides, each told what the other has once said, changed. The random numbers are the same each
/// time: only what has not been changed at all is a proof.
fn handshake() -> Target {
    // A given one makes what was found repeatable.
    let given = Secret::from_environment().expect("a secret, or none");
    let secret = given.unwrap_or_else(|| Secret::generate().expect("random bytes"));
    let (child, parent) = (identity(3, &secret), identity(1, &secret));
    let nonce = |byte| Nonce::from([byte; 32]);
    let dial = {
        let child = Arc::clone(&child);
        move || Dialer::start(Arc::clone(&child), Rank(1), TreeIndex(0), nonce(1))
    };
    let accept = move || Acceptor::new(Arc::clone(&parent), nonce(2));
    let (mut dialer, hello) = dial();
    let mut acceptor = accept();
    let Ok(Step::Send(challenge)) = acceptor.on_frame(&hello) else { panic!("a greeting") };
    let Ok(Step::Send(proof)) = dialer.on_frame(&challenge) else { panic!("a challenge") };
    let Ok(Step::Done { send: Some(welcome), .. }) = acceptor.on_frame(&proof) else {
        panic!("a proof")
    };
    let up = [hello.as_bytes(), proof.as_bytes()].concat();
    let down = [challenge.as_bytes(), welcome.as_bytes()].concat();
    let (real_up, real_down) = (up.clone(), down.clone());
    target("handshake", vec![up, down], move |bytes, planted| {
        let (mut acceptor, (mut dialer, _)) = (accept(), dial());
        let (mut reader, mut source) = (FrameReader::new(), bytes);
        let mut said = Vec::new();
        while let Ok(Arrival::Frame(frame)) = reader.read_from(&mut source) {
            for (step, real) in
                [(acceptor.on_frame(&frame), &real_up), (dialer.on_frame(&frame), &real_down)]
            {
                let step = step.map_err(|failed| failed.error);
                assert!(
                    !matches!(step, Ok(Step::Done { .. })) || bytes.starts_with(real),
                    "somebody without the secret has become a rank"
                );
                bug(planted, matches!(step, Err(HandshakeError::Version { theirs: 0, .. })));
                said.push(step.is_ok());
                if let Err(error) = step {
                    return place(&(said, error));
                }
                if said.len() > 8 {
                    return place(&said);
                }
            }
        }
        place(&said)
    })
}

fn directories() -> Vec<Vec<u8>> {
    let mut builder = DirectoryBuilder::default();
    for (name, kind) in
        [(&b"a"[..], FileKind::Regular), (b"bb", FileKind::Directory), (b"c", FileKind::Link)]
    {
        builder.push(name, kind, 9, None);
    }
    vec![builder.finish(), DirectoryBuilder::default().finish()]
}

fn directory(bytes: &[u8], planted: bool) -> u64 {
    let decoded = Directory::decode(bytes);
    if let Ok(directory) = &decoded {
        for index in 0..directory.len() {
            let entry = directory.get(index).expect("it is that long");
            assert_eq!(directory.find(entry.name), Some(index));
            bug(planted, entry.name.len() == 2 && entry.name[0] == b'a');
        }
        assert!(directory.get(directory.len()).is_none());
    }
    place(&decoded.map(|directory| directory.len()))
}

fn extended() -> Vec<Vec<u8>> {
    let list = [("user.a", "1"), ("user.bb", "")];
    let list = list.map(|(name, value)| (name.as_bytes().into(), value.as_bytes().into())).to_vec();
    vec![ExtendedAttributes::new(list).encode(), ExtendedAttributes::unsupported().encode()]
}

fn extended_attributes(bytes: &[u8], planted: bool) -> u64 {
    let decoded = ExtendedAttributes::decode(bytes);
    if let Ok(attributes) = &decoded {
        assert_eq!(ExtendedAttributes::decode(&attributes.encode()).as_ref(), Ok(attributes));
        bug(planted, attributes.names().any(|name| name.contains(&b'B')));
    }
    place(&decoded)
}

const RANGES_SIZE: u64 = 1 << 20;

fn ranges() -> Vec<Vec<u8>> {
    let mut builder = DataRangesBuilder::new(RANGES_SIZE);
    builder.push(0, 4096);
    builder.push(8192, 12_288);
    vec![builder.finish().encode(), DataRanges::whole(RANGES_SIZE).encode()]
}

fn data_ranges(bytes: &[u8], planted: bool) -> u64 {
    let decoded = DataRanges::decode(bytes, RANGES_SIZE);
    if let Ok(ranges) = &decoded {
        assert_eq!(DataRanges::decode(&ranges.encode(), RANGES_SIZE).as_ref(), Ok(ranges));
        assert!(ranges.data_from(RANGES_SIZE).is_none() && ranges.hole_from(0).is_some());
        bug(planted, ranges.data_from(0).is_some_and(|at| at == 1));
    }
    place(&decoded)
}
