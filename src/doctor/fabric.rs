//! libfabric: which one is loaded, whether the network that is asked for opens, and what Slingshot wants.

use std::path::Path;

use copper_ofi::{Arena, Net, Network, Versions, versions};

use super::Finding;
use crate::daemon::network_settings;

/// Where the kernel shows Slingshot's NICs.
const SLINGSHOT: &str = "/sys/class/cxi";

/// What the launcher of a job tells its processes, who may then use the NIC (man 7 fi_cxi).
const VNI_VARIABLE: &str = "SLINGSHOT_VNIS";

/// Memory that is registered for trial.
const TRIAL_BYTES: usize = 1 << 20;

/// Children that a daemon is opened for on trial.
const TRIAL_CHILDREN: usize = 2;

pub(super) fn examine(net: &Net, hosts: usize) -> Vec<Finding> {
    let versions = versions();
    let mut findings = vec![library(&versions), providers(&versions), network(net)];
    if net.provider() == Some("shm") && hosts > 1 {
        let found = format!("shm joins processes of one host, and there are {hosts}");
        findings.push(Finding::fail("network", found, "leave -n out, or give tcp or cxi"));
    }
    if Path::new(SLINGSHOT).is_dir() || net.provider() == Some("cxi") {
        findings.push(slingshot(std::env::var(VNI_VARIABLE).ok().as_deref()));
    }
    findings
}

fn library(versions: &Versions) -> Finding {
    const CHECK: &str = "libfabric";
    let (runtime, compiled) = (versions.runtime, versions.compiled);
    let found = format!("{}.{}, built against {}.{}", runtime.0, runtime.1, compiled.0, compiled.1);
    if runtime.0 != compiled.0 {
        let advice = "load the libfabric that this was built with, or build it again";
        return Finding::fail(CHECK, found, advice);
    }
    if runtime < compiled {
        let advice =
            "an older one than at the build: if something fails, build it again with this one";
        return Finding::warning(CHECK, found, advice);
    }
    Finding::ok(CHECK, found)
}

fn providers(versions: &Versions) -> Finding {
    const CHECK: &str = "providers";
    if versions.providers.is_empty() {
        let advice = "unset FI_PROVIDER, or load a libfabric with tcp, cxi or verbs";
        return Finding::fail(CHECK, "none has reliable messages and remote reads", advice);
    }
    Finding::ok(CHECK, versions.providers.join(", "))
}

/// Opens it as a daemon does.
fn network(net: &Net) -> Finding {
    const CHECK: &str = "network";
    let opened = Arena::map(TRIAL_BYTES).and_then(|arena| {
        let settings = network_settings(net.clone(), None, TRIAL_CHILDREN, 1);
        let network = Network::open(&settings, &arena)?;
        Ok(format!("{} on {}", network.provider(), network.domain_name()))
    });
    match opened {
        Ok(found) => Finding::ok(CHECK, format!("{found} opens, for -n {net}")),
        Err(error) => {
            let error = crate::cli::one_line(&error.into());
            Finding::fail(CHECK, format!("-n {net}: {error}"), "give another with -n")
        }
    }
}

fn slingshot(vnis: Option<&str>) -> Finding {
    const CHECK: &str = "Slingshot";
    match vnis.filter(|vnis| !vnis.is_empty()) {
        Some(vnis) => Finding::ok(CHECK, format!("{VNI_VARIABLE}={vnis}")),
        None => Finding::warning(
            CHECK,
            format!("{VNI_VARIABLE} is not set here: this process has no VNI"),
            "inside a job, have all ranks started in one step by mpiexec or srun (--launcher pals or \
             slurm): what ssh or clush starts gets none, and cannot open the NIC",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    #[test]
    fn a_process_without_a_vni_is_told_how_to_get_one() {
        assert_eq!(slingshot(Some("1024,1025")).verdict, Verdict::Ok);
        for none in [None, Some("")] {
            let finding = slingshot(none);
            assert_eq!(finding.verdict, Verdict::Warning);
            assert!(finding.advice.is_some_and(|advice| advice.contains("--launcher")));
        }
    }

    #[test]
    fn an_older_libfabric_than_at_the_build_is_pointed_out() {
        let of = |runtime| {
            library(&Versions { compiled: (1, 22), runtime, providers: Vec::new() }).verdict
        };
        assert_eq!(of((1, 22)), Verdict::Ok);
        assert_eq!(of((1, 17)), Verdict::Warning);
        assert_eq!(of((2, 1)), Verdict::Fail);
    }

    #[test]
    fn shared_memory_joins_no_hosts() {
        let net = "shm".parse().expect("a network");
        let joins = |hosts| {
            let findings = examine(&net, hosts);
            !findings.iter().any(|it| it.found.starts_with("shm joins"))
        };
        assert!(joins(1) && !joins(2));
    }
}
