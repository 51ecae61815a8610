//! What `copper status --json` says.

use serde_json::Value;

#[derive(Clone, Debug)]
pub(crate) struct Status {
    pub(crate) json: Value,
}

impl Status {
    pub(crate) fn ranks(&self) -> &[Value] {
        self.json["ranks"].as_array().expect("`ranks` is a list")
    }

    /// The object of one rank.
    #[track_caller]
    pub(crate) fn rank(&self, rank: u32) -> &Value {
        let found = self.ranks().iter().find(|value| value["rank"].as_u64() == Some(rank.into()));
        found.unwrap_or_else(|| panic!("there is no rank {rank} in {}", self.json))
    }

    /// A counter, for example `fabric.pulls`.
    #[track_caller]
    pub(crate) fn counter(&self, rank: u32, name: &str) -> u64 {
        let pointer = format!("/{}", name.replace('.', "/"));
        let value = self.rank(rank).pointer(&pointer).and_then(Value::as_u64);
        value.unwrap_or_else(|| panic!("rank {rank} has no number {name}: {}", self.rank(rank)))
    }

    /// Requests that have reached the daemon of a rank. The ones for `isatty` are not counted: some
    /// programs ask it of every file, and the kernel keeps no answer.
    #[track_caller]
    pub(crate) fn requests(&self, rank: u32) -> u64 {
        let kinds = [
            "lookup",
            "getattr",
            "readlink",
            "open",
            "read",
            "release",
            "opendir",
            "readdir",
            "readdirplus",
            "releasedir",
            "statfs",
            "access",
            "mutation",
            "other",
        ];
        kinds.iter().map(|kind| self.counter(rank, &format!("fuse.{kind}"))).sum()
    }
}
