//! What the files of a run tell, afterwards: one page for people, and what an environment could do
//! without. Reads only files: no daemon has to run.
//!
//! ```text
//!   DIR/JOB/{ranks,profiling,logs} ── run ──▶ Run ─┬─ findings, plots, page ──▶ HTML
//!                                                  └─ advice, environment ──▶ text, allow-list
//! ```

mod advice;
mod environment;
mod figure;
mod findings;
mod page;
mod plots;
mod run;
mod table;

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::bail;

use environment::Environment;
use run::Run;

/// Variables that name folders to look into.
const SEARCH_PATHS: [&str; 3] = ["PATH", "LD_LIBRARY_PATH", "PYTHONPATH"];

/// The page of a run: HTML that needs nothing else.
///
/// # Errors
/// If the folder is not that of a run with profiles, or a plot cannot be drawn.
pub(crate) fn page(folder: &Path) -> anyhow::Result<String> {
    page::html(&Run::read(folder)?)
}

/// What an environment could do without.
#[derive(Debug)]
pub(crate) struct Advice {
    /// For people.
    pub(crate) text: String,
    /// A line for each path that is used.
    pub(crate) allow_list: String,
}

/// Advice from the paths of a run, for the search paths that are set here, and for the files below
/// `environment`.
///
/// # Errors
/// If the folder is not that of a run whose paths were counted, or there is no such environment.
pub(crate) fn advice(folder: &Path, environment: Option<&Path>) -> anyhow::Result<Advice> {
    let run = Run::read(folder)?;
    if run.paths.is_empty() {
        bail!("{} has no paths: launch the job with -A", folder.display());
    }
    let mounts: Vec<String> = run
        .ranks
        .iter()
        .filter_map(|rank| rank.status["mount"].as_str().map(str::to_owned))
        .collect::<BTreeSet<_>>()
        .into_iter()
        .collect();
    let set = |name: &str| Some((name.to_owned(), std::env::var(name).ok()?));
    let variables: Vec<(String, String)> =
        SEARCH_PATHS.iter().filter_map(|name| set(name)).collect();
    let entries = advice::entries(&variables, &mounts, &run.paths);
    let used = advice::used(&run.paths);
    let environment = environment
        .map(|folder| {
            let within = advice::within_view(&folder.to_string_lossy(), &mounts);
            Environment::walk(Path::new(&within), &used)
        })
        .transpose()?;
    Ok(Advice {
        text: advice::text(&run.paths, &entries, environment.as_ref(), run.floor()),
        allow_list: advice::allow_list(&used, environment.as_ref()),
    })
}
