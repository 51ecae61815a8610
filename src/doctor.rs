//! Looks for what would keep Copper from working here, before a launch does: tries what a daemon does
//! first (mount, open the fabric, write a log) rather than guess from versions, and says of everything
//! that is wrong what to do. It leaves nothing behind, and knows nothing of a running job.

mod fabric;
mod fuse;
mod hosts;
mod machine;
mod mount_point;

use std::fmt;
use std::path::PathBuf;

use copper_ofi::Net;
use serde::Serialize;

/// What is looked at, and for which launch.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) mount: PathBuf,
    pub(crate) log_base: PathBuf,
    pub(crate) net: Net,
    pub(crate) allow_other: bool,
    pub(crate) memory_bytes: u64,
    /// The list of hosts, and the port at which they are knocked at.
    pub(crate) hosts: Option<(PathBuf, u16)>,
}

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(crate) enum Verdict {
    /// As it has to be.
    #[serde(rename = "OK")]
    Ok,
    /// It may do, or not for everything.
    #[serde(rename = "warning")]
    Warning,
    /// A launch would not succeed.
    #[serde(rename = "FAIL")]
    Fail,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Finding {
    /// What was looked at, in two or three words.
    pub(crate) check: &'static str,
    pub(crate) verdict: Verdict,
    pub(crate) found: String,
    /// What to do about it; nothing if it is as it has to be.
    #[serde(rename = "do")]
    pub(crate) advice: Option<String>,
}

impl Finding {
    fn ok(check: &'static str, found: impl Into<String>) -> Finding {
        Finding { check, verdict: Verdict::Ok, found: found.into(), advice: None }
    }

    fn warning(
        check: &'static str,
        found: impl Into<String>,
        advice: impl Into<String>,
    ) -> Finding {
        let (found, advice) = (found.into(), Some(advice.into()));
        Finding { check, verdict: Verdict::Warning, found, advice }
    }

    fn fail(check: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Finding {
        let (found, advice) = (found.into(), Some(advice.into()));
        Finding { check, verdict: Verdict::Fail, found, advice }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            Verdict::Ok => "OK",
            Verdict::Warning => "warning",
            Verdict::Fail => "FAIL",
        })
    }
}

impl fmt::Display for Finding {
    /// As one line.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let found = self.found.replace('\n', " ");
        write!(formatter, "{:<7} {}: {found}", self.verdict, self.check)?;
        match &self.advice {
            Some(advice) => write!(formatter, "; {}", advice.replace('\n', " ")),
            None => Ok(()),
        }
    }
}

/// Looks at everything, in the order in which a launch would come to it.
pub(crate) fn examine(plan: &Plan) -> Vec<Finding> {
    let mut findings = fuse::examine(plan.allow_other);
    findings.extend(mount_point::examine(&plan.mount));
    let hosts = plan.hosts.as_ref().map(|(file, port)| hosts::examine(file, *port));
    let (count, of_hosts) = hosts.unwrap_or((1, Vec::new()));
    findings.extend(fabric::examine(&plan.net, count));
    findings.extend(machine::examine(plan, count));
    findings.extend(of_hosts);
    findings
}
