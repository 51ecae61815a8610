//! `copper --version`: this, and the libfabric that it runs on.

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
        "{} ({})\nlibfabric {}.{} (compiled against {}.{})\nproviders: {providers}",
        env!("CARGO_PKG_VERSION"),
        env!("COPPER_REVISION"),
        runtime.0,
        runtime.1,
        compiled.0,
        compiled.1,
    )
}
