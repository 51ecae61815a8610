//! `copper --version`: this, and the libfabric that it runs on.

/// What all ranks of a job have to have in common.
pub(super) fn short() -> String {
    format!("{} ({})", env!("CARGO_PKG_VERSION"), env!("COPPER_REVISION"))
}

/// The version with what matters to whoever reports a problem.
pub(super) fn long() -> String {
    let versions = copper_ofi::versions();
    let (compiled, runtime) = (versions.compiled, versions.runtime);
    let providers = if versions.providers.is_empty() {
        "none".to_owned()
    } else {
        versions.providers.join(", ")
    };
    format!(
        "{}\nlibfabric {}.{} (compiled against {}.{})\nproviders: {providers}",
        short(),
        runtime.0,
        runtime.1,
        compiled.0,
        compiled.1,
    )
}
