//! Asks the ranks of a job. One rank is asked for all of them, so that a frame costs each a short report;
//! who is not heard that way and runs on this machine is asked by itself.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Instant;

use copper_launcher::status::{collect, query_job};
use copper_launcher::{Instances, Listed};
use serde_json::{Value, json};

use crate::cli::status::is_local;
use crate::top::Snapshot;

/// Ranks that are asked for all, one after the other: each may take seconds not to answer.
const TRIES_MAX: usize = 2;

/// The ranks under one folder.
#[derive(Debug)]
pub(super) struct Asker {
    directory: PathBuf,
    began: Instant,
    /// Who has answered for all the last time.
    answered: Option<PathBuf>,
}

impl Asker {
    pub(super) fn new(directory: &Path) -> Asker {
        Asker { directory: directory.to_owned(), began: Instant::now(), answered: None }
    }

    /// What the ranks say now; `None` if there is none on this machine.
    pub(super) fn ask(&mut self) -> anyhow::Result<Option<Snapshot>> {
        let listed = Instances::open()?.under(&self.directory)?;
        if listed.is_empty() {
            return Ok(None);
        }
        let mut notes = Vec::new();
        let mut reports = Vec::new();
        let mut seen = BTreeSet::new();
        for one in &listed {
            let of = |it: &Listed| (it.instance.job.to_string(), it.instance.launch.clone());
            if seen.insert(of(one)) {
                let own: Vec<&Listed> = listed.iter().filter(|it| of(it) == of(one)).collect();
                self.ask_job(&own, &mut reports, &mut notes);
            }
        }
        // The moment at which most have counted: they answer at once, and those that do not have no rates.
        Ok(Some(Snapshot::of(self.began.elapsed(), &reports, notes)))
    }

    /// These are the ranks of a job that run here.
    fn ask_job(&mut self, own: &[&Listed], reports: &mut Vec<Value>, notes: &mut Vec<String>) {
        let size = own[0].instance.size;
        let mut heard = BTreeSet::new();
        let answers = self.ask_one_for_all(own, notes);
        let asked = answers.is_some();
        for answer in answers.into_iter().flatten() {
            let rank = answer["rank"].as_u64().and_then(|rank| u32::try_from(rank).ok());
            if rank.is_some_and(|rank| rank < size && heard.insert(rank)) {
                reports.push(answer);
            }
        }
        let unheard = own.iter().filter(|it| !heard.contains(&it.instance.rank.0));
        let unheard: Vec<Listed> = unheard.map(|it| (*it).clone()).collect();
        if let Value::Array(answers) = collect(&unheard)["ranks"].take() {
            reports.extend(answers);
        }
        // On this machine, who is not in the register has ended.
        if asked && !is_local(&own[0].instance) {
            heard.extend(unheard.iter().map(|it| it.instance.rank.0));
            let silent = (0..size).filter(|rank| !heard.contains(rank));
            reports.extend(silent.map(|rank| json!({ "rank": rank, "state": "no answer" })));
        }
    }

    fn ask_one_for_all(&mut self, own: &[&Listed], notes: &mut Vec<String>) -> Option<Vec<Value>> {
        let mut candidates: Vec<&Path> =
            own.iter().filter(|it| it.alive).map(|it| it.instance.socket.as_path()).collect();
        // Stable: who has answered before comes first, then the rest by rank.
        candidates.sort_by_key(|socket| self.answered.as_deref() != Some(*socket));
        let mut failed = None;
        for socket in candidates.into_iter().take(TRIES_MAX) {
            match query_job(socket) {
                Ok(mut answer) => match answer["ranks"].take() {
                    Value::Array(ranks) => {
                        self.answered = Some(socket.to_owned());
                        return Some(ranks);
                    }
                    _ => failed = Some(answer["error"].as_str().unwrap_or("no reason").to_owned()),
                },
                Err(error) => failed = Some(error.to_string()),
            }
        }
        notes.extend(failed.map(|why| format!("only ranks of this machine: {why}")));
        None
    }
}
