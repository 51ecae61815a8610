//! `--cpu-bind LIST`: the cores that a daemon's threads run on.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use anyhow::{Context, bail};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// Where daemons run if nothing is said and these cores are there: beside those that jobs use first.
const DEFAULT: std::ops::RangeInclusive<usize> = 48..=51;

/// Which cores this machine has, in the form that is parsed here (proc(5), sysfs).
const ONLINE: &str = "/sys/devices/system/cpu/online";

/// The cores asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum CpuBind {
    /// Wherever the launcher's processes may.
    None,
    Cores(CoreList),
}

/// Cores by their numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct CoreList {
    cores: BTreeSet<usize>,
    text: String,
}

/// A text that names no cores.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no list of cores: give for example 48-51, 1,2,65,66 or none")]
pub(super) struct NotCores(String);

impl CpuBind {
    /// Which of the cores this machine lacks, if it says which it has.
    pub(super) fn missing(&self) -> Vec<usize> {
        let online = std::fs::read_to_string(ONLINE).ok();
        let online = online.and_then(|text| text.trim().parse::<CoreList>().ok());
        match (self, online) {
            (CpuBind::Cores(list), Some(online)) => {
                list.cores.difference(&online.cores).copied().collect()
            }
            (CpuBind::None, _) | (CpuBind::Cores(_), None) => Vec::new(),
        }
    }
}

/// Binds this thread, and with it those that it starts from now on, to the cores asked for; to the
/// default where nothing was asked and all of them are there.
pub(super) fn bind(asked: Option<&CpuBind>) -> anyhow::Result<()> {
    match asked {
        Some(CpuBind::None) => Ok(()),
        Some(CpuBind::Cores(list)) => bind_to(list),
        None => {
            let text = format!("{}-{}", DEFAULT.start(), DEFAULT.end());
            let default = CpuBind::Cores(CoreList { cores: DEFAULT.collect(), text });
            if let (true, CpuBind::Cores(list)) = (default.missing().is_empty(), &default)
                && let Err(error) = bind_to(list)
            {
                tracing::info!(%error, "not bound to the default cores");
            }
            Ok(())
        }
    }
}

fn bind_to(list: &CoreList) -> anyhow::Result<()> {
    let before = sched_getaffinity(None).context("cannot ask for this process's cores")?;
    let mut wanted = CpuSet::new();
    list.cores.iter().for_each(|&core| wanted.set(core));
    // The kernel takes those that the job's cpuset has and leaves the others out without a word.
    let bound = sched_setaffinity(None, &wanted).and_then(|()| sched_getaffinity(None));
    let has = |core: &&usize| bound.as_ref().is_ok_and(|bound| bound.is_set(**core));
    let lacking: Vec<_> = list.cores.iter().filter(|core| !has(core)).collect();
    if !lacking.is_empty() {
        let lacking: Vec<_> = lacking.iter().map(ToString::to_string).collect();
        // As it was: nothing has been decided.
        let _ = sched_setaffinity(None, &before);
        bail!("--cpu-bind {}: core {} is not there for this process", list.text, lacking.join(" "));
    }
    tracing::info!(cores = list.text, "bound");
    Ok(())
}

impl FromStr for CpuBind {
    type Err = NotCores;

    fn from_str(text: &str) -> Result<CpuBind, NotCores> {
        if text == "none" { Ok(CpuBind::None) } else { text.parse().map(CpuBind::Cores) }
    }
}

impl FromStr for CoreList {
    type Err = NotCores;

    fn from_str(text: &str) -> Result<CoreList, NotCores> {
        let number = |text: &str| {
            let plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            text.parse().ok().filter(|&core: &usize| plain && core < CpuSet::MAX_CPU)
        };
        let range = |part: &str| {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            Some((number(first)?, number(last)?)).filter(|(first, last)| first <= last)
        };
        let mut cores = BTreeSet::new();
        for part in text.split(',') {
            let (first, last) = range(part).ok_or_else(|| NotCores(text.to_owned()))?;
            cores.extend(first..=last);
        }
        Ok(CoreList { cores, text: text.to_owned() })
    }
}

impl fmt::Display for CpuBind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CpuBind::None => formatter.write_str("none"),
            CpuBind::Cores(list) => formatter.write_str(&list.text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_cores_are_read_in_every_published_form() {
        for (text, cores) in [
            ("48-51", &[48, 49, 50, 51][..]),
            ("1,2,65,66", &[1, 2, 65, 66]),
            ("0-1,4,6-7,4", &[0, 1, 4, 6, 7]),
            ("3", &[3]),
        ] {
            let Ok(CpuBind::Cores(list)) = text.parse() else { panic!("{text}") };
            assert!(list.cores.iter().eq(cores), "{text}");
            assert_eq!(CpuBind::Cores(list).to_string(), text);
        }
        assert_eq!("none".parse(), Ok(CpuBind::None));
        for text in ["", ",", "1,", "4-1", "1-2-3", "a", "-1", "+1", "1 2", "1024", "0-99999999"] {
            assert!(text.parse::<CpuBind>().is_err(), "{text}");
        }
    }
}
