//! The page of a run: HTML with its drawings in it, without scripts, so that it can be read as text too.
//! A section whose data a run has not left says which option brings them.

mod paths;
mod ranks;
mod time;

use std::fmt::{Display, Write};

use super::figure::{bytes, count};
use super::findings::{self, Finding};
use super::run::Run;

const STYLE: &str = "\
body{font:15px/1.5 system-ui,sans-serif;color:#1c1c1c;background:#fff;margin:0 auto;max-width:960px;padding:0 16px 48px}\
h1{font-size:24px;margin:24px 0 4px}h2{font-size:18px;margin:36px 0 8px;border-bottom:1px solid #ddd;padding-bottom:4px}\
h3{font-size:15px;margin:20px 0 6px}\
p.note,figcaption{color:#555}figcaption{font-size:13px}figure{margin:8px 0}\
svg{max-width:100%;height:auto;display:block}figure{overflow-x:auto}figure>svg[width=\"860\"]{min-width:620px}\
div.wide{overflow-x:auto}div.grid{display:flex;flex-wrap:wrap;gap:8px}div.grid figure{flex:1 1 340px;max-width:440px}\
table{border-collapse:collapse;font-size:13px;margin:8px 0}\
th,td{padding:3px 10px 3px 0;text-align:right;vertical-align:top;border-bottom:1px solid #eee;white-space:nowrap}\
th:first-child,td:first-child,td.text,th.text{text-align:left}td.path{text-align:left;white-space:normal;overflow-wrap:anywhere;min-width:220px}\
ul.faults li{border-left:4px solid #b2182b;background:#fdf0ef;padding:6px 10px;margin:6px 0;list-style:none}\
ul.short li{border-left:4px solid #e08214;background:#fef6ea;padding:6px 10px;margin:6px 0;list-style:none}\
ul.faults,ul.short{padding:0}code,pre{font:12px/1.45 ui-monospace,monospace}pre{white-space:pre-wrap;overflow-wrap:anywhere;background:#f6f6f6;padding:8px}";

/// A page that grows.
pub(super) struct Page(String);

impl Page {
    /// Text as it is: markup.
    pub(super) fn raw(&mut self, markup: impl Display) {
        write!(self.0, "{markup}").expect("a string takes everything");
        self.0.push('\n');
    }

    pub(super) fn section(&mut self, title: &str) {
        self.raw(format_args!("<h2>{}</h2>", escaped(title)));
    }

    /// A sentence beside the facts.
    pub(super) fn note(&mut self, text: &str) {
        self.raw(format_args!("<p class=\"note\">{}</p>", escaped(text)));
    }

    /// A drawing and what it shows, for who does not see it.
    pub(super) fn drawing(&mut self, svg: &str, caption: &str) {
        let caption = escaped(caption);
        // The caption is the name of the drawing too.
        let svg = svg.replacen("<svg", &format!("<svg role=\"img\" aria-label=\"{caption}\""), 1);
        self.raw(format_args!("<figure>{svg}<figcaption>{caption}</figcaption></figure>"));
    }

    /// A table; columns whose names end in `|` hold text, those in `/` paths.
    pub(super) fn table(&mut self, columns: &[&str], rows: &[Vec<String>]) {
        let class = |column: &str| match column.chars().last() {
            Some('|') => " class=\"text\"",
            Some('/') => " class=\"path\"",
            _ => "",
        };
        let mut table = String::from("<div class=\"wide\"><table><thead><tr>");
        for column in columns {
            let name = escaped(column.trim_end_matches(['|', '/']));
            let class = if class(column).is_empty() { "" } else { " class=\"text\"" };
            table += &format!("<th scope=\"col\"{class}>{name}</th>");
        }
        table += "</tr></thead><tbody>\n";
        for row in rows {
            table += "<tr>";
            for (cell, column) in row.iter().zip(columns) {
                table += &format!("<td{}>{}</td>", class(column), escaped(cell));
            }
            table += "</tr>\n";
        }
        table += "</tbody></table></div>";
        self.raw(table);
    }

    fn findings(&mut self, class: &str, findings: &[Finding]) {
        self.raw(format_args!("<ul class=\"{class}\">"));
        for Finding { what, action } in findings {
            let (what, action) = (escaped(what), escaped(action));
            self.raw(format_args!("<li><strong>{what}.</strong> {action}</li>"));
        }
        self.raw("</ul>");
    }
}

/// Text as markup shows it.
pub(super) fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            // Control characters do not belong into HTML; file names may have them.
            control if control.is_control() && control != '\n' => escaped.push('\u{fffd}'),
            character => escaped.push(character),
        }
    }
    escaped
}

/// The whole page.
///
/// # Errors
/// If a plot cannot be drawn.
pub(super) fn html(run: &Run) -> anyhow::Result<String> {
    let job = run.ranks.iter().find_map(|rank| rank.status["job"].as_str()).unwrap_or("?");
    let title = format!("Copper: job {job}");
    let mut page = Page(String::new());
    page.raw("<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">");
    page.raw("<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">");
    // No request goes out, not even for an icon.
    page.raw("<link rel=\"icon\" href=\"data:,\">");
    page.raw(format_args!("<title>{}</title><style>{STYLE}</style></head><body>", escaped(&title)));
    page.raw(format_args!("<h1>{}</h1>", escaped(&title)));
    page.note(&overview(run));
    page.section("What went wrong");
    let faults = findings::faults(run);
    if faults.is_empty() {
        page.raw("<p>Nothing that these files know of.</p>");
    }
    page.findings("faults", &faults);
    page.section("What fell short, and what to try");
    let shortages = findings::shortages(run);
    if shortages.is_empty() {
        page.raw("<p>Nothing.</p>");
    }
    page.findings("short", &shortages);
    time::time_line(&mut page, run)?;
    ranks::levels(&mut page, run);
    ranks::tree(&mut page, run)?;
    time::latencies(&mut page, run)?;
    time::readiness(&mut page, run)?;
    paths::sections(&mut page, run);
    ranks::table(&mut page, run);
    logs(&mut page, run);
    page.raw("</body></html>");
    Ok(page.0)
}

fn overview(run: &Run) -> String {
    let (start, end) = run.span_ms();
    let hosts: std::collections::BTreeSet<&str> = run.ranks.iter().map(|it| &*it.host).collect();
    let first = run.ranks.first();
    let trees = first.and_then(|it| it.status["trees"].as_array()).map_or(1, Vec::len);
    let fanout = first.map_or(0, |it| it.number("/fanout"));
    let version = first.and_then(|it| it.status["version"].as_str()).unwrap_or("?").to_owned();
    format!(
        "{} ranks on {} host{}, {trees} tree{} of fan-out {fanout}, {:.1} s; {} calls, {} read from the source, {} pulled \
         between ranks. Copper {version}, files in {}",
        count(run.size()),
        count(hosts.len() as u64),
        if hosts.len() == 1 { "" } else { "s" },
        if trees == 1 { "" } else { "s" },
        end.saturating_sub(start) as f64 / 1000.0,
        count(run.sum("/totals/calls")),
        bytes(run.sum("/source/bytes")),
        bytes(run.sum("/fabric/pulled_bytes")),
        run.folder.display(),
    )
}

fn logs(page: &mut Page, run: &Run) {
    page.section("Logs");
    if run.log_lines.is_empty() {
        let note = if run.has_logs {
            "No line of level WARN or ERROR."
        } else {
            "Nothing was logged: -l warn (4) brings what failed, -l info (3) the life of each rank too."
        };
        page.note(note);
        return;
    }
    page.note("Lines of level WARN and ERROR of all ranks, without their time.");
    let lines = run.log_lines.iter().map(|(line, times)| match times {
        1 => format!("{line}\n"),
        times => format!("{line}   ({times} times)\n"),
    });
    page.raw(format_args!("<pre>{}</pre>", escaped(&lines.collect::<String>())));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_users_name_cannot_become_markup() {
        assert_eq!(escaped("<a href=\"x\">&\u{7}"), "&lt;a href=&quot;x&quot;&gt;&amp;\u{fffd}");
        let mut page = Page(String::new());
        page.table(&["path/"], &[vec!["<script>".to_owned()]]);
        assert!(page.0.contains("&lt;script&gt;") && !page.0.contains("<script"), "{}", page.0);
    }

    #[test]
    fn a_run_that_left_little_says_what_brings_more() {
        let html = html(&Run::default()).expect("nothing is a page too");
        for option in ["-I S", "-N K", "-l warn"] {
            assert!(html.contains(option), "{option} in {html}");
        }
    }
}
