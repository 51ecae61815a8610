//! The arithmetic of the tree over 10,624 ranks, beside a table that somebody has computed before.

use std::num::NonZeroU32;

use copper_proto::topology::default_fanout;
use copper_proto::{Rank, Tree};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

const RANKS: u32 = 10_624;

fn tree() -> Tree {
    let size = NonZeroU32::new(RANKS).expect("not zero");
    Tree::new(size, default_fanout(RANKS), 1, 4).expect("a tree of four")
}

fn parents(criterion: &mut Criterion) {
    let tree = tree();
    let table: Vec<Option<Rank>> = (0..RANKS).map(|rank| tree.parent(Rank(rank))).collect();
    let mut group = criterion.benchmark_group("tree, all parents");
    group.throughput(Throughput::Elements(RANKS.into()));
    let count = |parent: &dyn Fn(u32) -> Option<Rank>| (0..RANKS).filter_map(parent).count();
    group.bench_function("copper", |bencher| {
        bencher.iter(|| assert_eq!(count(&|rank| tree.parent(Rank(rank))), RANKS as usize - 1));
    });
    group.bench_function("table", |bencher| {
        bencher.iter(|| assert_eq!(count(&|rank| table[rank as usize]), RANKS as usize - 1));
    });
    group.finish();
}

fn children(criterion: &mut Criterion) {
    let tree = tree();
    let mut group = criterion.benchmark_group("tree");
    group.throughput(Throughput::Elements(RANKS.into()));
    group.bench_function("all children", |bencher| {
        bencher.iter(|| {
            let children: usize = (0..RANKS).map(|rank| tree.children(Rank(rank)).count()).sum();
            assert_eq!(children, RANKS as usize - 1);
        });
    });
    group.bench_function("all ways to the root", |bencher| {
        bencher.iter(|| {
            let deepest = (0..RANKS).map(|rank| tree.ancestors(Rank(rank)).count()).max();
            assert_eq!(deepest, Some(4));
        });
    });
    group.finish();
}

criterion_group!(benches, parents, children);
criterion_main!(benches);
