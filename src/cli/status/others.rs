//! The ranks of a job that run on other machines: one of this machine asks them, through the tree.

use std::collections::BTreeSet;
use std::path::Path;

use copper_launcher::status::query_job;
use copper_launcher::{Instance, Listed};
use serde_json::{Value, json};

/// Adds the ranks of other machines to what those of this one say, each with `via`: the rank that
/// has asked it. Ranks that nobody hears of have the state `no answer`. Returns what a user should
/// know: why there are none.
pub(in crate::cli) fn add(listed: &[Listed], report: &mut Value) -> Vec<String> {
    let mut notes = Vec::new();
    let mut seen = BTreeSet::new();
    for one in listed {
        let of = |it: &Listed| {
            let it = &it.instance;
            (it.job.to_string(), it.launch.clone(), it.size)
        };
        if !seen.insert(of(one)) {
            continue;
        }
        let own: Vec<&Listed> = listed.iter().filter(|it| of(it) == of(one)).collect();
        let here: BTreeSet<u32> = own.iter().map(|it| it.instance.rank.0).collect();
        if here.len() < one.instance.size as usize && !is_local(&one.instance) {
            match ask(&own) {
                Ok(Some((via, ranks))) => merge(report, &here, one.instance.size, via, ranks),
                // None of them runs.
                Ok(None) => {}
                Err(note) => notes.push(note),
            }
        }
    }
    if let Some(ranks) = report["ranks"].as_array_mut() {
        ranks.sort_by_key(|rank| rank["rank"].as_u64());
    }
    notes
}

/// Whether all ranks were launched on this machine (`--local`): then their views lie beside each other
/// in the folder of the launch, and who is not in the register has ended.
pub(in crate::cli) fn is_local(instance: &Instance) -> bool {
    let numbered = instance.mount.file_name() == Some(instance.rank.to_string().as_ref());
    let folder = instance.mount.parent().and_then(Path::file_name);
    numbered && folder == instance.launch.file_name()
}

/// The first that can ask for all.
fn ask(own: &[&Listed]) -> Result<Option<(u32, Vec<Value>)>, String> {
    let mut failed = None;
    for listed in own.iter().filter(|it| it.alive) {
        let rank = listed.instance.rank.0;
        match query_job(&listed.instance.socket) {
            Ok(mut answer) => match answer["ranks"].take() {
                Value::Array(ranks) => return Ok(Some((rank, ranks))),
                _ => failed = Some(answer["error"].as_str().unwrap_or("no reason").to_owned()),
            },
            Err(error) => failed = Some(error.to_string()),
        }
    }
    let note = |reason| format!("only the ranks of this machine are shown: {reason}");
    failed.map_or(Ok(None), |reason| Err(note(reason)))
}

fn merge(report: &mut Value, here: &BTreeSet<u32>, size: u32, via: u32, answers: Vec<Value>) {
    let Some(ranks) = report["ranks"].as_array_mut() else { return };
    let mut heard = here.clone();
    for mut answer in answers {
        let rank = answer["rank"].as_u64().and_then(|rank| u32::try_from(rank).ok());
        if let Some(rank) = rank.filter(|&rank| rank < size)
            && heard.insert(rank)
        {
            answer["via"] = via.into();
            ranks.push(answer);
        }
    }
    let silent = (0..size).filter(|rank| !heard.contains(rank));
    ranks.extend(silent.map(|rank| json!({ "rank": rank, "state": "no answer", "via": via })));
}
