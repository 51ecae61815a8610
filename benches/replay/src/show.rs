//! Says what is in a trace.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crate::escape::escape;
use crate::failure::Failure;
use crate::trace::{Op, Place, Trace};
use crate::{load, print};

pub(crate) fn show(path: &Path) -> Result<(), Failure> {
    let trace = load(path)?;
    for below in &trace.below {
        print(&format!("below           {}", escape(below)))?;
    }
    for (kind, count) in kinds(&trace) {
        print(&format!("{kind:<15} {count}"))?;
    }
    print(&format!("distinct paths  {}", paths(&trace)))?;
    print(&format!("bytes read      {}", bytes_read(&trace)))?;
    print(&format!("windows touched {}", kinds(&trace).get("touch").unwrap_or(&0)))
}

/// How many calls there are of each kind.
pub(crate) fn kinds(trace: &Trace) -> BTreeMap<&'static str, u64> {
    let mut kinds = BTreeMap::new();
    for op in &trace.ops {
        *kinds.entry(op.kind()).or_default() += 1;
    }
    kinds
}

fn paths(trace: &Trace) -> usize {
    trace.ops.iter().filter_map(place).collect::<BTreeSet<_>>().len()
}

fn place(op: &Op) -> Option<&Place> {
    match op {
        Op::Open { place, .. }
        | Op::Stat { place, .. }
        | Op::Access { place, .. }
        | Op::Readlink { place, .. } => Some(place),
        _ => None,
    }
}

/// By read and pread.
fn bytes_read(trace: &Trace) -> u64 {
    let count = |op: &Op| match op {
        Op::Read { count, .. } | Op::Pread { count, .. } => count.unwrap_or(0),
        _ => 0,
    };
    trace.ops.iter().map(count).sum()
}
