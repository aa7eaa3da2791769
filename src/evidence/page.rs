//! The page of a report: one file of HTML that needs nothing from elsewhere, runs nothing, and prints well.

use std::fmt::Write as _;

use indicatif::{HumanBytes, HumanCount};
use pacharc_format::manifest::Objects;
use serde_json::Value;

use super::{Contents, Evidence};
use crate::visible::visible;

/// Tables that are drawn; the rest is one bar.
const BARS: usize = 15;

const STYLE: &str = "
:root { color-scheme: light dark; --ink: #1c2128; --soft: #57606a; --line: #d0d7de; --paper: #fff; --bar: #4f7cac;
  --good: #1a7f37; --bad: #b42318; --half: #9a6700; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6edf3; --soft: #9198a1; --line: #3d444d; --paper: #0d1117;
  --bar: #7aa7d9; --good: #4ac26b; --bad: #ff7b72; --half: #d4a72c; } }
body { font: 16px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); max-width: 56rem;
  margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.3rem; font-weight: 600; margin: 0; }
h2 { font-size: 1.05rem; margin: 2rem 0 .5rem; }
.verdict { border-left: .5rem solid var(--tone); padding: .5rem 1rem; margin: 1rem 0; }
.verdict strong { font-size: 2rem; line-height: 1.2; color: var(--tone); display: block; }
.good { --tone: var(--good); } .bad { --tone: var(--bad); } .half { --tone: var(--half); }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; vertical-align: top; padding: .3rem .6rem .3rem 0; border-bottom: 1px solid var(--line);
  overflow-wrap: anywhere; }
th { font-weight: 500; color: var(--soft); width: 12rem; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; background: color-mix(in srgb, var(--line) 30%, transparent);
  padding: .8rem; font-size: .85rem; }
svg { width: 100%; height: auto; display: block; } svg text { font: 12px system-ui, sans-serif; fill: var(--ink); }
svg .size { fill: var(--soft); } svg rect { fill: var(--bar); }
footer { color: var(--soft); font-size: .85rem; margin-top: 2rem; overflow-wrap: anywhere; }
@media print { body { margin: 0; max-width: none; } }
";

/// The page; `json` is the name of the report itself, and `hash` its BLAKE3.
pub(super) fn render(evidence: &Evidence, json: &str, hash: &str) -> String {
    let mut page = Page::default();
    let title = format!("{} report: {}", evidence.command, evidence.verdict);
    page.raw("<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n");
    // Nothing is fetched, nothing is run.
    page.raw(
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n",
    );
    page.raw("<meta name=\"viewport\" content=\"width=device-width\">\n");
    page.element("title", &title);
    page.raw(&format!("<style>{STYLE}</style>\n"));
    page.element("h1", &format!("pacharc {}", evidence.command));
    verdict(&mut page, evidence);
    run(&mut page, evidence);
    if let Some(contents) = &evidence.contents {
        held(&mut page, contents, evidence.verdict == "damaged");
    }
    page.element("h2", "In full");
    page.element("pre", &evidence.summary);
    if !evidence.warnings.is_empty() {
        page.element("h2", "Warnings");
        page.raw("<ul>\n");
        evidence.warnings.iter().for_each(|warning| page.element("li", warning));
        page.raw("</ul>\n");
    }
    let footer =
        format!("The same for programs: {json}, whose BLAKE3 is {hash}. Written by pacharc {}.", evidence.pacharc);
    page.element("footer", &footer);
    page.0
}

/// HTML under way: what is put in is escaped.
#[derive(Default)]
struct Page(String);

impl Page {
    fn raw(&mut self, html: &str) {
        self.0.push_str(html);
    }

    /// Whatever it holds, it is shown and does nothing.
    fn text(&mut self, text: &str) {
        for character in visible(text).chars() {
            match character {
                '&' => self.0.push_str("&amp;"),
                '<' => self.0.push_str("&lt;"),
                '>' => self.0.push_str("&gt;"),
                '"' => self.0.push_str("&quot;"),
                '\'' => self.0.push_str("&#39;"),
                other => self.0.push(other),
            }
        }
    }

    fn element(&mut self, name: &str, text: &str) {
        let _ = write!(self.0, "<{name}>");
        self.text(text);
        let _ = writeln!(self.0, "</{name}>");
    }

    /// A table of names and values; those without a value are left out.
    fn facts(&mut self, facts: &[(&str, Option<String>)]) {
        self.raw("<table>\n");
        for (name, value) in facts {
            let Some(value) = value else { continue };
            self.raw("<tr>");
            self.element("th", name);
            self.element("td", value);
            self.raw("</tr>\n");
        }
        self.raw("</table>\n");
    }

    /// Bars of sizes, each with its name and what is said of it; `title` is for those who cannot see them.
    fn bars(&mut self, title: &str, bars: &[(String, u64, String)]) {
        const ROW: usize = 24;
        const NAMES: usize = 300;
        const WIDTH: u64 = 330;
        let most = bars.iter().map(|(_, bytes, _)| *bytes).max().unwrap_or(0).max(1);
        let _ = write!(self.0, "<svg viewBox=\"0 0 840 {}\" role=\"img\"><title>", bars.len() * ROW + 4);
        self.text(title);
        self.raw("</title>\n");
        for (number, (name, bytes, said)) in bars.iter().enumerate() {
            let top = number * ROW;
            // Bytes times pixels may exceed 64 bits.
            let width = u64::try_from(u128::from(*bytes) * u128::from(WIDTH) / u128::from(most)).unwrap_or(WIDTH);
            let width = if *bytes > 0 { width.max(1) } else { 0 };
            let name: String = shortened(name);
            let _ = write!(self.0, "<text x=\"0\" y=\"{}\">", top + 16);
            self.text(&name);
            let _ = write!(self.0, "</text><rect x=\"{NAMES}\" y=\"{}\" width=\"{width}\" height=\"16\"/>", top + 4);
            let _ = write!(self.0, "<text class=\"size\" x=\"{}\" y=\"{}\">", NAMES as u64 + width + 8, top + 16);
            self.text(said);
            self.raw("</text>\n");
        }
        self.raw("</svg>\n");
    }
}

/// A time without its fractions, which the report has; any other text as it is.
fn in_seconds(time: &str) -> String {
    let parsed = time.parse::<jiff::Timestamp>();
    parsed.map_or_else(|_| time.to_owned(), |time| time.strftime("%Y-%m-%d %H:%M:%S UTC").to_string())
}

/// What fits before the bars.
fn shortened(name: &str) -> String {
    const MOST: usize = 44;
    if name.chars().count() <= MOST {
        return name.to_owned();
    }
    let kept: String = name.chars().take(MOST - 1).collect();
    format!("{kept}…")
}

/// The word, and what it means.
fn verdict(page: &mut Page, evidence: &Evidence) {
    let against = evidence.outcome.as_ref().and_then(|outcome| outcome.get("against")).and_then(Value::as_str);
    let (tone, meaning) = match (evidence.command.as_str(), evidence.verdict.as_str()) {
        ("backup", "done") => ("good", "The bundle is complete, and was made durable."),
        ("backup", "incomplete") => ("half", "The bundle is complete, but the source lacked or broke live objects."),
        ("restore", "done") => ("good", "What was restored was read again, and is what the bundle holds."),
        ("restore", "incomplete") => {
            ("half", "All that the bundle holds was restored, but its source lacked or broke live objects.")
        }
        ("verify", "sound") if against.is_some() => {
            ("good", "Everything that was compared is as the bundle has it, or has rightly gone on.")
        }
        ("verify", "sound") => ("good", "Everything that was looked at is as it was written."),
        ("verify", "incomplete") => ("half", "The bundle's bytes are right, but the source lacked or broke something."),
        ("verify", "damaged") if against.is_some() => ("bad", "The target is not what the bundle holds."),
        ("verify", "damaged") => ("bad", "Bytes are wrong or missing. Do not rely on this bundle."),
        _ => ("bad", "It failed: nothing is proved by it."),
    };
    let _ = write!(page.0, "<div class=\"verdict {tone}\">");
    page.element("strong", &evidence.verdict);
    page.text(meaning);
    page.raw("</div>\n");
    if let Some(failed) = &evidence.failure {
        page.facts(&[("What happened", Some(failed.message.clone())), ("What to do", failed.advice.clone())]);
    }
}

/// What was checked, when, by what, for how long.
fn run(page: &mut Page, evidence: &Evidence) {
    let outcome = |name: &str| match evidence.outcome.as_ref()?.get(name)? {
        Value::String(text) => Some(text.clone()),
        Value::Object(signed) => signed.get("key").and_then(Value::as_str).map(str::to_owned),
        Value::Null => None,
        other => Some(other.to_string()),
    };
    let bytes = evidence.outcome.as_ref().and_then(|outcome| outcome.get("bytes")).and_then(Value::as_u64);
    let trial = evidence.outcome.as_ref().and_then(|outcome| outcome.get("trial")).filter(|trial| !trial.is_null());
    let level = outcome("level").map(|level| {
        let joined = match outcome("closed") {
            Some(_) => ", the dump against the objects",
            None => " (there is no live set to compare objects with)",
        };
        let tried = if trial.is_some() { ", and a trial restore" } else { "; no trial restore came to its end" };
        let told = match level.as_str() {
            "sums" => "every byte of the file".to_owned(),
            "contents" => "every byte, entry, chunk and row".to_owned(),
            "closed" => format!("every byte and entry{joined}"),
            "restore" => format!("every byte and entry{joined}{tried}"),
            _ => String::new(),
        };
        let so_far = if evidence.verdict == "damaged" { ", as far as the damage lets" } else { "" };
        format!("{level}: {told}{so_far}")
    });
    page.element("h2", "What was done");
    page.facts(&[
        ("Bundle", outcome("input").or_else(|| outcome("output"))),
        ("Its id", outcome("id")),
        ("Its UUID", outcome("bundle")),
        ("Begun (bundle)", outcome("created").map(|time| in_seconds(&time))),
        ("Signed by key", outcome("signed_by")),
        ("Level", level),
        ("Compared with", outcome("against")),
        ("Sample", outcome("sample")),
        ("Compared since", outcome("since").map(|time| in_seconds(&time))),
        ("Bytes", bytes.map(|bytes| format!("{} ({bytes})", HumanBytes(bytes)))),
        ("From", Some(in_seconds(&evidence.began.to_string()))),
        ("To", Some(in_seconds(&evidence.ended.to_string()))),
        ("Duration", Some(format!("{:.1} s", evidence.seconds))),
        ("Program", Some(format!("pacharc {}", evidence.pacharc))),
        ("Exit code", Some(evidence.exit_code.to_string())),
    ]);
    if let Some(trial) = trial {
        tried(page, trial);
    }
}

/// A trial restore, database by database.
fn tried(page: &mut Page, trial: &Value) {
    let server = trial.get("server").and_then(Value::as_str).unwrap_or_default();
    page.element("h2", &format!("Trial restore into PostgreSQL {server}"));
    page.raw("<table>\n<tr><th>Database</th><th>Tables</th><th>Rows</th><th>Foreign keys</th><th>Indexes</th></tr>\n");
    for database in trial.get("databases").and_then(Value::as_array).into_iter().flatten() {
        page.raw("<tr>");
        page.element("td", database.get("name").and_then(Value::as_str).unwrap_or_default());
        for number in ["tables", "rows", "foreign_keys", "indexes"] {
            let number = database.get(number).and_then(Value::as_u64);
            page.element("td", &number.map_or("not checked".to_owned(), |number| HumanCount(number).to_string()));
        }
        page.raw("</tr>\n");
    }
    page.raw("</table>\n");
}

/// How many of them, in words.
fn counted(count: u64, noun: &str) -> String {
    format!("{} {noun}{}", HumanCount(count), if count == 1 { "" } else { "s" })
}

/// What the bundle holds.
fn held(page: &mut Page, contents: &Contents, is_damaged: bool) {
    page.element("h2", "What the bundle holds");
    let closed = contents.objects.as_ref().and_then(|objects| objects.closed).map(|closed| match closed {
        true if is_damaged => "it was, says its manifest".to_owned(),
        true => "yes: every live object is in it".to_owned(),
        false => "no: live objects were missing or rotten at the source".to_owned(),
    });
    page.facts(&[
        ("PostgreSQL", contents.postgres.clone()),
        ("Bucket", contents.bucket.clone()),
        ("Namespace", contents.namespace.clone()),
        ("Pachyderm", contents.pachyderm.clone()),
        ("Snapshot", contents.snapshot.as_deref().map(in_seconds)),
        ("Complete since", Some(in_seconds(&contents.finished))),
        ("Closed", closed),
    ]);
    if let Some(Objects { live, orphan, foreign, rotten, missing, .. }) = &contents.objects {
        let kinds =
            [("live", live), ("orphans", orphan), ("foreign", foreign), ("rotten", rotten), ("missing", missing)];
        let met = kinds.into_iter().filter(|(_, count)| count.count > 0);
        let bars: Vec<_> = met
            .map(|(kind, count)| {
                let said = format!("{} in {}", HumanBytes(count.bytes), counted(count.count, "object"));
                (kind.to_owned(), count.bytes, said)
            })
            .collect();
        page.element("h2", "Objects");
        page.bars("Bytes of objects by kind", &bars);
    }
    for database in &contents.databases {
        let bar = |name: String, bytes: u64, rows: u64| {
            (name, bytes, format!("{} in {}", HumanBytes(bytes), counted(rows, "row")))
        };
        let (drawn, rest) = database.tables.split_at(database.tables.len().min(BARS));
        let mut bars: Vec<_> = drawn.iter().map(|table| bar(table.name.clone(), table.bytes, table.rows)).collect();
        if !rest.is_empty() {
            let sum = |of: fn(&super::ContentsTable) -> u64| rest.iter().map(of).sum();
            bars.push(bar(
                counted(rest.len() as u64, "other table"),
                sum(|table| table.bytes),
                sum(|table| table.rows),
            ));
        }
        if database.large_objects > 0 {
            let said = format!("{} in {}", HumanBytes(database.large_object_bytes), HumanCount(database.large_objects));
            bars.push(("large objects".to_owned(), database.large_object_bytes, said));
        }
        page.element("h2", &format!("Database {}", database.name));
        page.bars("Bytes of tables, as text", &bars);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evidence::{ContentsDatabase, ContentsTable};

    #[test]
    fn one_is_not_many() {
        assert_eq!(["0 rows", "1 row", "1,000 rows"], [0, 1, 1000].map(|count| counted(count, "row")));
    }

    #[test]
    fn a_trial_restore_is_told_as_it_went() {
        let page = |trial: Value| {
            let mut evidence = Evidence::new("verify", jiff::Timestamp::UNIX_EPOCH, "sound", 0);
            evidence.outcome = Some(serde_json::json!({ "level": "restore", "closed": true, "trial": trial }));
            render(&evidence, "r.json", "0")
        };
        let done = page(serde_json::json!({ "server": "15", "databases": [] }));
        assert!(done.contains("the dump against the objects, and a trial restore<"), "{done}");
        assert!(done.contains("Trial restore into PostgreSQL 15"));
        let not_done = page(Value::Null);
        assert!(not_done.contains("no trial restore came to its end<"), "{not_done}");
        assert!(!not_done.contains("Trial restore into"));
    }

    #[test]
    fn names_from_outside_are_text_and_nothing_else() {
        let mut evidence = Evidence::new("verify", jiff::Timestamp::UNIX_EPOCH, "sound", 0);
        let evil = "<script>alert(\"&'\")</script>\u{1b}[31m".to_owned();
        evidence.summary.clone_from(&evil);
        evidence.warnings = vec![evil.clone()];
        evidence.outcome = Some(serde_json::json!({ "input": evil.clone(), "trial": { "server": evil.clone(),
            "databases": [{ "name": evil.clone(), "rows": 1 }] } }));
        let tables =
            (0..40).map(|n| ContentsTable { name: format!("{evil}{n}"), rows: u64::MAX / 64, bytes: u64::MAX / 64 });
        let database =
            ContentsDatabase { name: evil.clone(), tables: tables.collect(), large_objects: 1, large_object_bytes: 0 };
        evidence.contents = Some(Contents {
            finished: evil.clone(),
            postgres: Some(evil.clone()),
            bucket: None,
            namespace: None,
            pachyderm: None,
            snapshot: None,
            databases: vec![database],
            objects: None,
        });
        let page = render(&evidence, &evil, "0");
        assert!(!page.contains("<script") && !page.contains('\u{1b}'), "{page}");
        assert!(page.contains("&lt;script&gt;alert(&quot;&amp;&#39;&quot;)"));
        assert_eq!(page.matches("<rect").count(), BARS + 2, "the largest, the others, large objects");
        for elsewhere in ["http://", "https://", "src=", "href=", "url(", "@import"] {
            assert!(!page.contains(elsewhere), "{elsewhere}");
        }
    }
}
