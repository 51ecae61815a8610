//! `copper refresh`: has every rank of a job look at the source anew.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, anyhow};
use clap::Args;
use copper_launcher::{Instances, Listed, ask_refresh, instance, status};
use copper_proto::ViewPath;
use serde_json::{Value, json};

use super::progress::Stage;
use super::size::Size;
use super::{print, say};

#[derive(Debug, Args)]
pub(super) struct RefreshArguments {
    /// Files or folders, at the source or below a view; everything if none is given
    #[arg(value_name = "PATH")]
    paths: Vec<PathBuf>,

    /// Where the views are mounted [default: /tmp/$USER/copper]
    #[arg(long, short = 'v', value_name = "DIR")]
    mount: Option<PathBuf>,

    /// Show what each rank of this machine has dropped, too
    #[arg(long)]
    ranks: bool,

    /// Print everything as JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &RefreshArguments) -> anyhow::Result<ExitCode> {
    let directory = super::mount_directory(arguments.mount.as_deref())?;
    let listed = Instances::open()?.under(&directory)?;
    let paths = if arguments.paths.is_empty() {
        vec![ViewPath::root()]
    } else {
        let paths = arguments.paths.iter().map(|path| in_view(path, &listed));
        paths.collect::<Result<_, _>>()?
    };
    if !listed.iter().any(|it| it.alive) {
        say(&format!("copper: nothing is running under {}", directory.display()));
        return Ok(ExitCode::FAILURE);
    }
    let mut reports = Vec::with_capacity(paths.len());
    for path in &paths {
        let mut report = {
            let _stage = Stage::begin(format!("all ranks look at {path} anew"));
            refresh(&listed, path)?
        };
        report["path"] = json!(format!("{path}"));
        if arguments.ranks {
            report["per_rank"] = per_rank(&listed);
        }
        reports.push(report);
    }
    let whole = reports.iter().all(is_whole);
    if arguments.json {
        print(&serde_json::to_string_pretty(&json!({ "refreshes": reports }))?)?;
    } else {
        reports.iter().try_for_each(print_report)?;
    }
    Ok(if whole { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Asks a rank of this machine, another one if that does not answer.
fn refresh(listed: &[Listed], path: &ViewPath) -> anyhow::Result<Value> {
    let mut last = None;
    for it in listed.iter().filter(|it| it.alive) {
        match ask_refresh(&it.instance.refresh_socket(), path) {
            Ok(report) => match report["error"].as_str() {
                Some(error) => return Err(anyhow!("{error}")),
                None => return Ok(report),
            },
            Err(error) => last = Some(error),
        }
    }
    Err(last.map_or_else(|| anyhow!("no rank of this machine runs"), anyhow::Error::from))
}

/// The path in the views of what is given as the source's or as below one of the views. Links on the
/// way are followed, as the kernel does for whoever reads through a view; the last one is not.
fn in_view(path: &Path, listed: &[Listed]) -> anyhow::Result<ViewPath> {
    let absolute = super::absolute(path)?;
    let views = listed.iter().map(|it| &it.instance.mount);
    let in_a_view = |path: &Path| {
        views.clone().find_map(|view| path.strip_prefix(view).ok().map(Path::to_owned))
    };
    let source = match in_a_view(&absolute) {
        Some(rest) => Path::new("/").join(rest),
        None => absolute,
    };
    let resolved = match (source.parent(), source.components().next_back()) {
        (Some(parent), Some(Component::Normal(name))) => instance::canonical(parent)?.join(name),
        _ => instance::canonical(&source)?,
    };
    let resolved = in_a_view(&resolved).unwrap_or(resolved);
    let bytes = resolved.as_os_str().as_bytes();
    let parsed = ViewPath::parse(bytes.strip_prefix(b"/").unwrap_or(bytes));
    parsed
        .with_context(|| format!("{} is too long, or no path", OsStr::from_bytes(bytes).display()))
}

fn is_whole(report: &Value) -> bool {
    report["missing"].as_array().is_some_and(Vec::is_empty) && report["missing_more"] == json!(0)
}

/// What the ranks of this machine say of the last refresh.
fn per_rank(listed: &[Listed]) -> Value {
    let report = status::collect(listed);
    let ranks = report["ranks"].as_array().into_iter().flatten();
    ranks
        .map(|rank| json!({ "rank": rank["rank"], "state": rank["state"], "refresh": rank["refresh"] }))
        .collect()
}

fn print_report(report: &Value) -> anyhow::Result<()> {
    let path = report["path"].as_str().unwrap_or("/");
    let ranks = &report["ranks"];
    print(&format!("{path}: {ranks} ranks dropped {}", what(&report["dropped"])))?;
    for rank in report["per_rank"].as_array().into_iter().flatten() {
        let refresh = &rank["refresh"];
        let said = if refresh.is_null() { text(&rank["state"]) } else { what(refresh) };
        print(&format!("  rank {}: {said}", rank["rank"]))?;
    }
    if !is_whole(report) {
        let missing = report["missing"].as_array().into_iter().flatten();
        let mut names: Vec<String> = missing.map(Value::to_string).collect();
        if report["missing_more"] != json!(0) {
            names.push(format!("and {} more", report["missing_more"]));
        }
        say(&format!(
            "copper: no answer from ranks {}: they may still show the old state of {path}; look at \
             their logs, and refresh again",
            names.join(" ")
        ));
    }
    Ok(())
}

fn what(dropped: &Value) -> String {
    let bytes = dropped["bytes"].as_u64().unwrap_or(0);
    format!(
        "{} entries, {} directories, {} blocks, {}",
        dropped["entries"],
        dropped["directories"],
        dropped["blocks"],
        Size(bytes)
    )
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}
