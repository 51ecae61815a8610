//! What a bench has found: a table for people, JSON for scripts.

use std::fmt::Write;

use serde::Serialize;

/// What a ratio has to keep to.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Bar {
    AtLeast(f64),
    AtMost(f64),
}

impl Bar {
    fn is_kept(self, ratio: f64) -> bool {
        match self {
            Bar::AtLeast(bar) => ratio >= bar,
            Bar::AtMost(bar) => ratio <= bar,
        }
    }
}

/// One measurement, and its rival's in the same run.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Figure {
    pub(super) name: String,
    pub(super) value: f64,
    pub(super) rival: f64,
    pub(super) unit: &'static str,
    /// The median of `value ÷ rival` over the rounds, or of `value` where there is no rival.
    pub(super) ratio: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) bar: Option<Bar>,
}

/// All of it.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Report {
    pub(super) provider: String,
    pub(super) libfabric: String,
    pub(super) ranks: u32,
    pub(super) rounds: u32,
    pub(super) figures: Vec<Figure>,
}

impl Report {
    /// As a table.
    pub(crate) fn table(&self) -> String {
        let mut table = format!(
            "{} ranks, provider {}, libfabric {}, medians of {} rounds\n",
            self.ranks, self.provider, self.libfabric, self.rounds
        );
        let head = ["", "copper", "rival", "", "ratio", "bar"];
        let [name, copper, rival, unit, ratio, bar] = head;
        row(&mut table, [name, copper, rival, unit, ratio, bar, ""]);
        for figure in &self.figures {
            let bar = match figure.bar {
                Some(Bar::AtLeast(bar)) => format!(">= {bar}"),
                Some(Bar::AtMost(bar)) => format!("<= {bar}"),
                None => String::new(),
            };
            let verdict = match figure.bar.map(|bar| bar.is_kept(figure.ratio)) {
                Some(true) => "ok",
                Some(false) => "short",
                None => "",
            };
            let rival = if figure.rival > 0.0 { number(figure.rival) } else { String::new() };
            let (value, ratio) = (number(figure.value), number(figure.ratio));
            row(&mut table, [&figure.name, &value, &rival, figure.unit, &ratio, &bar, verdict]);
        }
        table
    }

    /// For scripts.
    ///
    /// # Errors
    /// None that a report can have.
    pub(crate) fn json(&self) -> serde_json::Result<String> {
        serde_json::to_string_pretty(self)
    }
}

fn row(table: &mut String, columns: [&str; 7]) {
    let [name, copper, rival, unit, ratio, bar, verdict] = columns;
    let mut line = format!("{name:<34}{copper:>10}{rival:>10} {unit:<5}{ratio:>8}  {bar:<8}");
    line.push_str(verdict);
    let _ = writeln!(table, "{}", line.trim_end());
}

/// Three digits that count.
fn number(value: f64) -> String {
    match value {
        _ if value >= 100.0 => format!("{value:.0}"),
        _ if value >= 10.0 => format!("{value:.1}"),
        _ if value >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

/// The middle one of values that were measured.
pub(super) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let count = values.len();
    assert!(count > 0, "something was measured");
    if count % 2 == 1 {
        values[count / 2]
    } else {
        f64::midpoint(values[count / 2 - 1], values[count / 2])
    }
}
