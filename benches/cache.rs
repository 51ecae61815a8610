//! What the cache costs the engine: finding what is held, beside a bare hash table, and making room
//! for one object after the other in a full arena.

use std::collections::HashMap;
use std::hint::black_box;

use copper_cache::{Cache, LocalUse};
use copper_proto::{BlockIndex, Extent, Generation, Held, Key, ViewPath, What};
use criterion::{Criterion, criterion_group, criterion_main};

/// Objects that fit.
const HELD: u32 = 4096;

const OBJECT_BYTES: u32 = 64 << 10;

fn key(number: u32) -> Key {
    let path = format!("lib/python3.11/site-packages/package/module-{number}.py");
    let generation = Generation { size: u64::MAX, ..Generation::default() };
    let what = What::Block { index: BlockIndex(0), generation };
    Key { path: ViewPath::parse(path.as_bytes()).expect("well-formed"), what }
}

fn put(cache: &mut Cache, key: &Key) -> Extent {
    let extent = cache.allocate(OBJECT_BYTES, |_| LocalUse::Idle).expect("something may go");
    cache.publish(key, Held { extent, checksum: 0 });
    extent
}

fn hits(criterion: &mut Criterion) {
    let keys: Vec<Key> = (0..HELD).map(key).collect();
    let mut cache = Cache::new(u64::from(HELD) * u64::from(OBJECT_BYTES));
    let mut table = HashMap::new();
    for key in &keys {
        table.insert(key.clone(), put(&mut cache, key));
    }
    // Odd: comes to every key, in no order of memory.
    let next = |at: &mut usize| {
        *at = (*at + 1_597) % keys.len();
        &keys[*at]
    };
    let mut group = criterion.benchmark_group("cache, a hit of 4096");
    let mut at = 0;
    group.bench_function("copper", |bencher| {
        bencher.iter(|| {
            let key = next(&mut at);
            let held = cache.object(black_box(key)).expect("all fit");
            assert_eq!(held.extent.len, OBJECT_BYTES);
        });
    });
    group.bench_function("hash table", |bencher| {
        bencher.iter(|| {
            let key = next(&mut at);
            let extent = table.get(black_box(key)).expect("all were put");
            assert_eq!(extent.len, OBJECT_BYTES);
        });
    });
    group.finish();
}

/// Each put evicts one: the counters say so.
fn evictions(criterion: &mut Criterion) {
    let mut cache = Cache::new(u64::from(HELD) * u64::from(OBJECT_BYTES));
    let keys: Vec<Key> = (0..3 * HELD).map(key).collect();
    for key in &keys[..HELD as usize] {
        put(&mut cache, key);
    }
    let (mut number, mut puts) = (HELD as usize, 0);
    criterion.bench_function("cache, an object that evicts another", |bencher| {
        bencher.iter(|| {
            put(&mut cache, &keys[number]);
            // Long gone when it comes again: three times as many as fit.
            number = (number + 1) % keys.len();
            puts += 1;
        });
    });
    assert_eq!(cache.counters().evicted_blocks, puts);
    assert_eq!(cache.counters().blocks, u64::from(HELD));
}

criterion_group!(benches, hits, evictions);
criterion_main!(benches);
