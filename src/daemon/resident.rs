//! The memory that this process has, as the kernel counts it.

use std::fs;

use serde_json::{Value, json};

/// What of `/proc/self/status` and `/proc/self/smaps_rollup` is shown, each under its name there.
const SHOWN: [(&str, &str); 5] = [
    ("resident_bytes", "VmRSS:"),
    ("resident_peak_bytes", "VmHWM:"),
    ("anonymous_bytes", "RssAnon:"),
    ("file_bytes", "RssFile:"),
    ("huge_page_bytes", "AnonHugePages:"),
];

/// Resident bytes beside `--memory`; what the kernel does not say is null.
pub(super) fn report(limit_bytes: u64) -> Value {
    let text = ["/proc/self/status", "/proc/self/smaps_rollup"]
        .map(|path| fs::read_to_string(path).unwrap_or_default())
        .concat();
    let mut report = json!({ "limit_bytes": limit_bytes });
    for (name, field) in SHOWN {
        report[name] = bytes(&text, field).map_or(Value::Null, Value::from);
    }
    report
}

/// The bytes of a line like `VmRSS:     1234 kB`.
fn bytes(text: &str, field: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(field))?;
    line.trim().strip_suffix(" kB")?.parse::<u64>().ok()?.checked_mul(1024)
}
