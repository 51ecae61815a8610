use std::time::{Duration, Instant};

use libfabric_sys as sys;

use super::*;
use crate::{Event, PAGE_BYTES, PostError, Remote};

const DEADLINE: Duration = Duration::from_secs(60);

/// No provider of a common machine demands descriptors and pages. tcp allows them, so that the
/// way of those that do is gone here.
#[test]
fn registered_messages_and_physical_pages_work_where_they_are_demanded() {
    let settings = Settings {
        net: "tcp".parse().expect("a network"),
        receives: 4,
        sends: 4,
        reads: 4,
        message_bytes_max: 512,
        bind: Some(IpAddr::from([127, 0, 0, 1])),
    };
    let open = || {
        let arena = Arena::map(16 * PAGE_BYTES).expect("a small arena");
        let demanded = sys::FI_MR_LOCAL | sys::FI_MR_ALLOCATED;
        let network = Network::open_demanding(&settings, &arena, demanded);
        (network.expect("tcp takes descriptors"), arena)
    };
    let ((mut a, here), (mut b, there)) = (open(), open());
    assert!(a.mode.local_descriptors && a.mode.physical_pages);
    assert!(a.message_region.is_some());
    let a_to_b = a.insert_peer(b.address()).expect("b's address");

    let mut block = there.take(PAGE_BYTES, 100);
    block.as_mut().fill(7);
    let block = block.freeze();
    let remote = Remote { key: b.region_key(), address: b.region_base() + block.offset() as u64 };
    let mut into = Some(here.take(0, block.len()));
    let (mut unsent, mut came, mut read) = (true, false, false);
    let start = Instant::now();
    while !(came && read) {
        assert!(start.elapsed() < DEADLINE, "message {came}, read {read}");
        unsent = unsent && matches!(a.send(a_to_b, 1, &[b"message"]), Err(PostError::Busy));
        if let Some(piece) = into.take() {
            into = a.read(a_to_b, 2, remote, piece).err().map(|(_, piece)| piece);
        }
        let polled = a.poll(4, |event| match event {
            Event::Received { .. } => panic!("nobody sends to a"),
            Event::Sent { result, .. } => result.expect("sent"),
            Event::Read { into, result, .. } => {
                result.expect("read");
                read = into.as_ref() == block.as_ref();
            }
        });
        polled.expect("a queue that works");
        let polled = b.poll(4, |event| match event {
            Event::Received { bytes } => came = bytes == b"message",
            Event::Sent { .. } | Event::Read { .. } => panic!("b posts nothing"),
        });
        polled.expect("a queue that works");
    }
}

/// Closing with operations under way, in the order for bound regions and in the other.
#[test]
fn both_orders_of_closing_give_the_pieces_back() {
    for bound_to_endpoint in [false, true] {
        let settings = Settings {
            net: "tcp".parse().expect("a network"),
            receives: 4,
            sends: 4,
            reads: 4,
            message_bytes_max: 512,
            bind: Some(IpAddr::from([127, 0, 0, 1])),
        };
        let arena = Arena::map(16 * PAGE_BYTES).expect("a small arena");
        let open = || Network::open(&settings, &arena).expect("tcp");
        let (mut a, mut b) = (open(), open());
        a.mode.bound_to_endpoint = bound_to_endpoint;
        let a_to_b = a.insert_peer(b.address()).expect("b's address");
        let behind = (8 * PAGE_BYTES) as u64;
        let remote = Remote { key: b.region_key(), address: b.region_base() + behind };
        let start = Instant::now();
        let mut into = Some(arena.take(0, 8 * PAGE_BYTES));
        while let Some(piece) = into.take() {
            assert!(start.elapsed() < DEADLINE, "no room for a read");
            into = a.read(a_to_b, 1, remote, piece).err().map(|(_, piece)| piece);
            if into.is_some() {
                a.poll(4, |_| ()).expect("a queue that works");
                b.poll(4, |_| ()).expect("a queue that works");
            }
        }
        assert_eq!(a.outstanding_reads(), 1);
        drop(a);
        drop(arena.take(0, arena.len()));
    }
}
