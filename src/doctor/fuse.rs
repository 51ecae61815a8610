//! Whether views can be mounted: the device, the helper, the kernel, and a mount for trial.

use std::ffi::OsString;
use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use copper_fuse::mount::{mount, unmount};
use copper_fuse::{MountOptions, mount_point};

use super::Finding;

const DEVICE: &str = "/dev/fuse";
const HELPER: &str = "fusermount3";
const CONFIGURATION: &str = "/etc/fuse.conf";

/// From where on the kernel has everything that Copper asks for but passthrough: EXPLICIT_INVAL_DATA
/// and the ENOSYS to opendir are the youngest (fuse.h of Linux 5.2).
const KERNEL_WANTED: (u32, u32) = (5, 2);

/// From where on an unprivileged mount in a container's user namespace works (fuse(4)).
const KERNEL_NEEDED: (u32, u32) = (4, 18);

pub(super) fn examine(allow_other: bool) -> Vec<Finding> {
    let mut findings = vec![kernel(), device(), helper()];
    if allow_other {
        findings.push(others(Path::new(CONFIGURATION)));
    }
    let usable = findings.iter().all(|finding| finding.verdict != super::Verdict::Fail);
    // Without device and helper it is known how a trial ends.
    if usable {
        findings.push(trial(allow_other));
    }
    findings
}

fn kernel() -> Finding {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    of_kernel(&release)
}

fn of_kernel(release: &str) -> Finding {
    const CHECK: &str = "kernel";
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse::<u32>);
    let (Some(Ok(major)), Some(Ok(minor))) = (numbers.next(), numbers.next()) else {
        return Finding::warning(CHECK, format!("Linux {release}"), "its version cannot be read");
    };
    let version = (major, minor);
    if version < KERNEL_NEEDED {
        let (major, minor) = KERNEL_NEEDED;
        let advice = format!("views need Linux {major}.{minor} or newer");
        return Finding::fail(CHECK, format!("Linux {release}"), advice);
    }
    if version < KERNEL_WANTED {
        let found = format!("Linux {release} lacks some of FUSE's caches");
        let advice = "it works, more slowly; `copper status` shows which are granted";
        return Finding::warning(CHECK, found, advice);
    }
    let passthrough =
        if version < (6, 9) { "all caches, no --passthrough" } else { "all features" };
    Finding::ok(CHECK, format!("Linux {release}, FUSE with {passthrough}"))
}

fn device() -> Finding {
    const CHECK: &str = "FUSE device";
    let missing = "load the module (`modprobe fuse`), or let the container have the device";
    match fs::metadata(DEVICE) {
        Err(error) => return Finding::fail(CHECK, format!("{DEVICE}: {error}"), missing),
        Ok(metadata) if !metadata.file_type().is_char_device() => {
            return Finding::fail(CHECK, format!("{DEVICE} is no device"), missing);
        }
        Ok(_) => {}
    }
    match OpenOptions::new().read(true).write(true).open(DEVICE) {
        Ok(_) => Finding::ok(CHECK, format!("{DEVICE} can be opened")),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            let advice =
                format!("its rights (`ls -l {DEVICE}`) keep you out: ask the administrator");
            Finding::fail(CHECK, format!("{DEVICE}: {error}"), advice)
        }
        Err(error) => Finding::fail(CHECK, format!("{DEVICE}: {error}"), missing),
    }
}

fn helper() -> Finding {
    const CHECK: &str = "fusermount3";
    let path = std::env::var_os("PATH").unwrap_or_default();
    let Some((program, metadata)) = find(&path) else {
        let advice = "install fuse3, or add its folder to PATH";
        return Finding::fail(CHECK, format!("no program {HELPER} in PATH"), advice);
    };
    let program = program.display();
    let setuid = metadata.uid() == 0 && metadata.mode() & 0o4000 != 0;
    if setuid || rustix::process::geteuid().is_root() {
        return Finding::ok(CHECK, program.to_string());
    }
    // Capabilities of the file would do as well; the trial tells.
    let advice = format!("if mounting fails, the administrator has to `chmod u+s {program}`");
    Finding::warning(CHECK, format!("{program} does not run as root"), advice)
}

fn find(path: &OsString) -> Option<(PathBuf, fs::Metadata)> {
    std::env::split_paths(path).find_map(|folder| {
        let program = folder.join(HELPER);
        let metadata = fs::metadata(&program).ok()?;
        (metadata.is_file() && metadata.mode() & 0o111 != 0).then_some((program, metadata))
    })
}

fn others(configuration: &Path) -> Finding {
    const CHECK: &str = "--allow-other";
    if rustix::process::geteuid().is_root() {
        return Finding::ok(CHECK, "root may let others in");
    }
    let text = fs::read_to_string(configuration).unwrap_or_default();
    let file = configuration.display();
    if text.lines().any(|line| line.trim() == "user_allow_other") {
        return Finding::ok(CHECK, format!("{file} has user_allow_other"));
    }
    let advice = format!("leave --allow-other out, or have user_allow_other written into {file}");
    Finding::fail(CHECK, format!("{file} has no line user_allow_other"), advice)
}

/// Mounts and unmounts, in a folder of its own.
fn trial(allow_other: bool) -> Finding {
    const CHECK: &str = "FUSE mount";
    let folder = std::env::temp_dir().join(format!("copper-doctor-{}", std::process::id()));
    if let Err(error) = fs::create_dir(&folder) {
        let advice = "make room there, or set TMPDIR";
        return Finding::fail(
            CHECK,
            format!("cannot create {}: {error}", folder.display()),
            advice,
        );
    }
    let done = mount_point::resolve(&folder).map_err(|error| error.to_string()).and_then(|point| {
        let options = MountOptions { allow_other, ..MountOptions::default() };
        let (device, id) = mount(&point, &options).map_err(|error| error.to_string())?;
        // Nobody answers on it: whoever looks in gets an error rather than waits.
        drop(device);
        unmount(&point, &id).map_err(|error| error.to_string())
    });
    // Empty, and ours.
    let _ = fs::remove_dir(&folder);
    match done {
        Ok(_) => Finding::ok(CHECK, "a mount for trial came and went"),
        Err(error) => Finding::fail(CHECK, error, "what the helper says has to be put right"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    #[test]
    fn kernels_are_judged_by_what_they_lack() {
        for (release, verdict) in [
            ("6.18.0", Verdict::Ok),
            ("5.14.21-150500.55.83_13.0.63-cray_shasta_c", Verdict::Ok),
            ("4.18.0-553.el8", Verdict::Warning),
            ("3.10.0-1160.el7", Verdict::Fail),
            ("strange", Verdict::Warning),
        ] {
            assert_eq!(of_kernel(release).verdict, verdict, "{release}");
        }
        assert!(of_kernel("5.14.21").found.contains("no --passthrough"));
        assert!(!of_kernel("6.9.0").found.contains("no --passthrough"));
    }
}
