//! Link arguments of a dependency do not reach a binary: the run path to the libfabric that was
//! found is set here, and the revision is stamped into `copper --version`.

use std::env;
use std::path::Path;
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    // A file that is not there would have this run every time: an unpacked archive has no git.
    for file in [".git/HEAD", ".git/logs/HEAD"] {
        if Path::new(file).exists() {
            println!("cargo::rerun-if-changed={file}");
        }
    }
    println!("cargo::rerun-if-env-changed=COPPER_REVISION");
    if let Ok(path) = env::var("DEP_COPPER_OFI_RPATH") {
        println!("cargo::rustc-link-arg=-Wl,-rpath,{path}");
    }
    let revision = env::var("COPPER_REVISION").ok().or_else(git_revision);
    println!("cargo::rustc-env=COPPER_REVISION={}", revision.as_deref().unwrap_or("no revision"));
}

fn git_revision() -> Option<String> {
    let output = Command::new("git").args(["rev-parse", "--short=12", "HEAD"]).output().ok()?;
    let revision = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| revision.trim().to_owned())
}
