//! The options that all ranks of a job must agree on: its trees, and what is fetched by them.

use std::ffi::OsString;
use std::num::NonZeroU32;

use anyhow::{Context, bail};
use clap::Args;
use copper_proto::limits::{CHILDREN_MAX, TREES_MAX, WHOLE_FILE_BYTES};
use copper_proto::topology::default_fanout;
use copper_proto::{FilePolicy, Forest};

use super::size::Size;
use crate::daemon::SourceAccess;

#[derive(Debug, Args)]
pub(super) struct TreesArguments {
    /// Children of each rank in the tree
    #[arg(long, value_name = "K")]
    fanout: Option<NonZeroU32>,

    /// Trees that fetch side by side, each with a root of its own that reads its part of the files
    #[arg(long, short = 'T', value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=i64::from(TREES_MAX)))]
    trees: u32,

    /// Files up to this size are fetched whole on first touch, larger ones block by block
    #[arg(long, short = 'M', value_name = "SIZE", default_value_t = Size(WHOLE_FILE_BYTES))]
    max_cacheable: Size,

    /// Each rank reads files above this size from the source itself [default: none]
    #[arg(long, value_name = "SIZE")]
    direct_above: Option<Size>,
}

impl TreesArguments {
    /// All trees of a job of so many ranks.
    pub(super) fn forest(&self, size: NonZeroU32) -> anyhow::Result<Forest> {
        let (trees, fanout) =
            (self.trees, self.fanout.unwrap_or_else(|| default_fanout(size.get())));
        if fanout.get() > CHILDREN_MAX {
            bail!("--fanout {fanout} is more than {CHILDREN_MAX}");
        }
        let forest = NonZeroU32::new(trees).and_then(|trees| Forest::new(size, fanout, trees));
        forest.with_context(|| {
            format!("--trees {trees}: there are {size} ranks, and each tree has a root of its own")
        })
    }

    /// How files are treated by their size, where ranks may read the source so.
    pub(super) fn files(&self, source: SourceAccess) -> anyhow::Result<FilePolicy> {
        if source == SourceAccess::None && self.direct_above.is_some() {
            bail!("--source none and --direct-above exclude each other: leave one of them out");
        }
        let direct_above = self.direct_above.map(|Size(bytes)| bytes);
        Ok(FilePolicy { whole_up_to: self.max_cacheable.0, direct_above, ..FilePolicy::default() })
    }

    /// The same, for the command line of a rank.
    pub(super) fn words(&self) -> Vec<OsString> {
        let numbers = [
            ("--trees", Some(u64::from(self.trees))),
            ("--max-cacheable", Some(self.max_cacheable.0)),
            ("--direct-above", self.direct_above.map(|Size(bytes)| bytes)),
            ("--fanout", self.fanout.map(|fanout| fanout.get().into())),
        ];
        let given = numbers.into_iter().filter_map(|(name, number)| Some((name, number?)));
        given.flat_map(|(name, number)| [name.into(), number.to_string().into()]).collect()
    }
}
