//! `copper status`: what every rank of a job is doing, of those that run on this machine and, through
//! them, of the others.

pub(super) mod others;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use copper_launcher::{Instances, status};
use serde_json::{Value, json};

pub(super) use others::is_local;

use super::size::Size;
use super::{print, say};

/// What a rank says of passthrough that nobody asked it for.
const NOT_ASKED: &str = "off";

#[derive(Debug, Args)]
pub(super) struct StatusArguments {
    /// Where the views are mounted [default: /tmp/$USER/copper]
    #[arg(long, short = 'v', value_name = "DIR")]
    mount: Option<PathBuf>,

    /// Print everything as JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &StatusArguments) -> anyhow::Result<ExitCode> {
    let directory = super::mount_directory(arguments.mount.as_deref())?;
    let listed = Instances::open()?.under(&directory)?;
    let mut report = status::collect(&listed);
    let notes = others::add(&listed, &mut report);
    report["levels"] = levels(&report);
    if arguments.json {
        print(&serde_json::to_string_pretty(&report)?)?;
    } else if listed.is_empty() {
        say(&format!("copper: nothing is running under {}", directory.display()));
    } else {
        print_table(&report)?;
    }
    for note in notes {
        say(&format!("copper: {note}"));
    }
    Ok(if listed.is_empty() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// What a level of the tree adds up to.
const OF_LEVELS: [&str; 8] = [
    "/totals/calls",
    "/totals/hits",
    "/totals/misses",
    "/totals/negatives",
    "/totals/errors",
    "/fabric/pulled_bytes",
    "/fabric/served_bytes",
    "/source/bytes",
];

/// The ranks that lie equally far from the root of the first tree, added up, from the root on.
fn levels(report: &Value) -> Value {
    let mut levels: BTreeMap<u64, (u64, [u64; OF_LEVELS.len()])> = BTreeMap::new();
    for rank in report["ranks"].as_array().into_iter().flatten() {
        let Some(level) = rank["level"].as_u64() else { continue };
        let (ranks, sums) = levels.entry(level).or_default();
        *ranks += 1;
        for (sum, pointer) in sums.iter_mut().zip(OF_LEVELS) {
            *sum += rank.pointer(pointer).and_then(Value::as_u64).unwrap_or_default();
        }
    }
    let row = |(level, (ranks, sums))| {
        let mut row = json!({ "level": level, "ranks": ranks });
        for (pointer, sum) in OF_LEVELS.iter().zip::<[u64; OF_LEVELS.len()]>(sums) {
            row[pointer.trim_start_matches('/').replace("totals/", "").replace('/', "_")] =
                Value::from(sum);
        }
        row
    };
    levels.into_iter().map(row).collect()
}

fn print_table(report: &Value) -> anyhow::Result<()> {
    print(&format!(
        "{:>5} {:<9} {:>8} {:>6} {:>9} {:>10} {:>8} {:>10} {:>9}  {}",
        "rank", "state", "pid", "parent", "opens", "read", "pulls", "pulled", "cache", "mount"
    ))?;
    for rank in report["ranks"].as_array().into_iter().flatten() {
        let text = |value: &Value| match value {
            Value::String(text) => text.clone(),
            Value::Null => "-".to_owned(),
            other => other.to_string(),
        };
        let bytes = |value: &Value| match value.as_u64() {
            Some(bytes) => Size(bytes).to_string(),
            None => "-".to_owned(),
        };
        print(&format!(
            "{:>5} {:<9} {:>8} {:>6} {:>9} {:>10} {:>8} {:>10} {:>9}  {}",
            text(&rank["rank"]),
            text(&rank["state"]),
            text(&rank["pid"]),
            text(&rank["parent"]),
            text(&rank["source"]["opens"]),
            bytes(&rank["source"]["bytes"]),
            text(&rank["fabric"]["pulls"]),
            bytes(&rank["fabric"]["pulled_bytes"]),
            bytes(&rank["cache"]["bytes"]),
            place(rank),
        ))?;
    }
    print_moved(report)?;
    print_kernel(report)
}

/// Who hangs on another rank than at the start, and why.
fn print_moved(report: &Value) -> anyhow::Result<()> {
    for rank in report["ranks"].as_array().into_iter().flatten() {
        for way in rank["moved"].as_array().into_iter().flatten() {
            let (own, tree) = (&rank["rank"], &way["tree"]);
            let now = match (&way["parent"], way["role"].as_str()) {
                (Value::Number(parent), _) => format!("hangs on rank {parent}"),
                (_, Some("stands-in")) => "reads the source in the root's place".to_owned(),
                (_, Some("degraded")) => "reaches nobody above, reads the source itself".to_owned(),
                (_, Some("joining")) => "looks for a rank above".to_owned(),
                _ => "reaches nobody above".to_owned(),
            };
            let lost = way["lost"].as_str().unwrap_or("-");
            print(&format!("rank {own} {now} in tree {tree}; it has lost {lost}"))?;
        }
    }
    Ok(())
}

/// Where the view is, with the host if that is another.
fn place(rank: &Value) -> String {
    let mount = rank["mount"].as_str().unwrap_or("-");
    match rank["host"].as_str().filter(|_| !rank["via"].is_null()) {
        Some(host) => format!("{host}:{mount}"),
        None => mount.to_owned(),
    }
}

/// What the kernel does for each mount: a line for those that agree, so mostly one.
fn print_kernel(report: &Value) -> anyhow::Result<()> {
    let mut agreed: Vec<(String, Vec<String>)> = Vec::new();
    for rank in report["ranks"].as_array().into_iter().flatten() {
        let kernel = &rank["kernel"];
        let Some(protocol) = kernel["protocol"].as_str() else { continue };
        let list = |names: &Value| {
            let names = names.as_array().into_iter().flatten().filter_map(Value::as_str);
            names.map(str::to_owned).collect::<Vec<_>>()
        };
        let granted = list(&kernel["granted"]);
        let refused = list(&kernel["asked"]).into_iter().filter(|name| !granted.contains(name));
        let refused: Vec<_> = refused.collect();
        let bytes = |value: &Value| value.as_u64().map_or("-".to_owned(), |v| Size(v).to_string());
        let mut line = format!(
            "FUSE {protocol}, reads of up to {} ({} on average of those of up to {}); caches: {}",
            bytes(&kernel["max_readahead"]),
            bytes(&kernel["read_request_bytes_mean"]),
            bytes(&kernel["read_request_bytes_max"]),
            if granted.is_empty() { "none".to_owned() } else { granted.join(" ") },
        );
        if !refused.is_empty() {
            line.push_str(&format!("; not granted: {}", refused.join(" ")));
        }
        if let Some(passthrough) = kernel["passthrough"].as_str().filter(|it| *it != NOT_ASKED) {
            line.push_str(&format!("; passthrough: {passthrough}"));
        }
        let rank = rank["rank"].to_string();
        match agreed.iter_mut().find(|(own, _)| *own == line) {
            Some((_, ranks)) => ranks.push(rank),
            None => agreed.push((line, vec![rank])),
        }
    }
    for (line, ranks) in agreed {
        print(&format!("kernel of rank {}: {line}", ranks.join(" ")))?;
    }
    Ok(())
}
