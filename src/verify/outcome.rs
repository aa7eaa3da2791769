//! The verdict on a bundle, for people and programs.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Level, Lost, SourceDamage, Trial, TriedDatabase};
use crate::evidence::Contents;
use crate::failure::Class;
use crate::signature::SignedBy;
use crate::visible::one_line;

/// One word on a bundle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Everything that was looked at is as it was written.
    Sound,
    /// Bytes are wrong or missing.
    Damaged,
    /// The bytes are right, but the source lacked or broke something.
    Incomplete,
}

/// Something that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// The entry or the part of the bundle.
    pub path: String,
    /// Where it begins in the file, in bytes, where that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub offset: Option<u64>,
    /// What is wrong.
    pub problem: String,
}

/// What a verification found.
#[derive(Clone, Debug, Serialize)]
pub struct Outcome {
    /// The bundle's place.
    pub input: String,
    /// How deep it went.
    pub level: &'static str,
    /// The verdict.
    pub verdict: Verdict,
    /// The bundle's UUID.
    pub bundle: Uuid,
    /// Its id, where the end was reached.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// When it was begun, as it says.
    pub created: String,
    /// Whether there is a signature.
    pub signed: bool,
    /// The trusted key that signed it; absent where no key was named, and so none was looked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signed_by: Option<SignedBy>,
    /// Bytes that were read.
    pub bytes: u64,
    /// Transient faults of the bucket that the bundle lies in, each of which was met by trying again.
    pub retried: u64,
    /// How often the bundle was read again because what was read did not fit.
    pub reread: u32,
    /// Whether the manifest calls it closed; absent where no manifest was read or there is no live set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub closed: Option<bool>,
    /// What is wrong; the first hundred.
    pub findings: Vec<Finding>,
    /// How many things are wrong.
    pub damages: u64,
    /// With a key: the entries that lie in what is damaged; the first hundred.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub lost: Vec<Lost>,
    /// How many entries are lost.
    #[serde(skip_serializing_if = "is_zero")]
    pub lost_count: u64,
    /// What was wrong at the source, as level *closed* finds it; the first hundred.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub source: Vec<SourceDamage>,
    /// How many things were wrong at the source.
    #[serde(skip_serializing_if = "is_zero")]
    pub source_damages: u64,
    /// What the trial restore has shown, at level *restore*; absent where it did not come to its end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trial: Option<Trial>,
    /// What the bundle holds, for the report.
    #[serde(skip)]
    pub contents: Option<Contents>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl Level {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Sums => "sums",
            Self::Contents => "contents",
            Self::Closed => "closed",
            Self::Restore => "restore",
        }
    }
}

impl Verdict {
    pub(super) fn class(self) -> Option<Class> {
        match self {
            Self::Sound => None,
            Self::Damaged => Some(Class::Damaged),
            Self::Incomplete => Some(Class::Incomplete),
        }
    }
}

impl crate::outcome::Outcome for Outcome {
    fn class(&self) -> Option<Class> {
        self.verdict.class()
    }

    fn contents(&self) -> Option<&Contents> {
        self.contents.as_ref()
    }

    fn summary(&self) -> String {
        let bytes = indicatif::HumanBytes(self.bytes);
        let id = self.id.as_deref().unwrap_or("unknown");
        let (input, level) = (&self.input, self.level);
        match self.verdict {
            Verdict::Sound => {
                let closed = match (self.closed, level) {
                    (Some(true), "closed" | "restore") => {
                        ": every live object of the dump is in it, with the bytes its key promises"
                    }
                    (Some(true), _) => ", closed",
                    (None, "closed" | "restore") => {
                        " (there is no live set: it holds no bucket, or no database of Pachyderm's)"
                    }
                    (None, "sums") => " (whether it is closed, the manifest says: it needs the key)",
                    _ => "",
                };
                let trial = self.trial.as_ref().map(told).unwrap_or_default();
                format!("{trial}sound: {input}, {bytes} checked at level {level}{closed}{}; id {id}", self.signature())
            }
            Verdict::Incomplete => {
                let why = match self.closed {
                    Some(false) => "is not closed: every byte is as it was written",
                    // Without a bucket, or without a database of Pachyderm's, there is nothing that could be closed.
                    None => "is whole: every byte is as it was written",
                    Some(true) => "is closed, and every byte is as it was written",
                };
                let but = match (self.closed, self.source_damages) {
                    (_, 0) => "but the source lacked live objects".to_owned(),
                    (_, count) => format!("but of the source {count} things were lacking or broken"),
                };
                let signed = self.signature();
                let mut text = format!("incomplete: {input} {why} ({bytes}, level {level}), {but}{signed}; id {id}");
                for damage in &self.source {
                    text.push_str(&format!("\n  {damage}"));
                }
                if self.source_damages > self.source.len() as u64 {
                    text.push_str("\n  …");
                }
                text
            }
            Verdict::Damaged => {
                let mut text = format!("damaged: {input}, {} found at level {level}:", things(self.damages));
                for Finding { path, offset, problem } in &self.findings {
                    let place = offset.map(|offset| format!(" (at byte {offset})")).unwrap_or_default();
                    text.push_str(&format!("\n  {}", one_line(&format!("{path}{place}: {problem}"))));
                }
                if self.damages > self.findings.len() as u64 {
                    text.push_str("\n  …");
                }
                if self.lost_count > 0 {
                    text.push_str(&format!(
                        "\nentries that lie in it: {}; `extract --keep-going` gives all others:",
                        self.lost_count
                    ));
                }
                for lost in &self.lost {
                    text.push_str(&format!("\n  {}", one_line(&lost.to_string())));
                }
                if self.lost_count > self.lost.len() as u64 {
                    text.push_str("\n  …");
                }
                text
            }
        }
    }
}

impl Outcome {
    /// Who signed it, where that was asked.
    fn signature(&self) -> String {
        match (&self.signed_by, self.signed) {
            (Some(by), _) => format!(", signed by the trusted key {}", by.key),
            (None, true) => ", signed (by whom was not asked: --trusted-key)".to_owned(),
            (None, false) => String::new(),
        }
    }
}

/// A line for each database of a trial restore.
fn told(trial: &Trial) -> String {
    let Trial { server, throwaway, databases } = trial;
    let made = if *throwaway { "a throwaway " } else { "" };
    let line = |database: &TriedDatabase| {
        let TriedDatabase { name, tables, rows, foreign_keys, indexes } = database;
        let indexes = indexes.map(|count| format!(", {count} indexes in order")).unwrap_or_default();
        format!(
            "database {}: restored into {made}PostgreSQL {server}; {rows} rows in {tables} tables with counts and \
             fingerprints as in the bundle, {foreign_keys} foreign keys hold{indexes}\n",
            one_line(name)
        )
    };
    databases.iter().map(line).collect()
}

fn things(count: u64) -> String {
    if count == 1 { "1 damage".to_owned() } else { format!("{count} damages") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::Outcome as _;

    fn outcome(verdict: Verdict, level: Level) -> Outcome {
        Outcome {
            input: "b.pacharc".to_owned(),
            level: level.name(),
            verdict,
            bundle: Uuid::nil(),
            id: Some("ab".to_owned()),
            created: String::new(),
            signed: false,
            signed_by: None,
            bytes: 1,
            retried: 0,
            reread: 0,
            closed: None,
            findings: Vec::new(),
            damages: 0,
            lost: Vec::new(),
            lost_count: 0,
            source: Vec::new(),
            source_damages: 0,
            trial: None,
            contents: None,
        }
    }

    #[test]
    fn what_is_sound_says_how_far_it_was_looked_at() {
        let said = |level, closed| Outcome { closed, ..outcome(Verdict::Sound, level) }.summary();
        let begins = "sound: b.pacharc, 1 B checked at level";
        assert_eq!(
            said(Level::Sums, None),
            format!("{begins} sums (whether it is closed, the manifest says: it needs the key); id ab")
        );
        assert_eq!(said(Level::Contents, Some(true)), format!("{begins} contents, closed; id ab"));
        assert_eq!(said(Level::Contents, None), format!("{begins} contents; id ab"));
        let every = "every live object of the dump is in it, with the bytes its key promises";
        assert_eq!(said(Level::Closed, Some(true)), format!("{begins} closed: {every}; id ab"));
        let none = "(there is no live set: it holds no bucket, or no database of Pachyderm's)";
        assert_eq!(said(Level::Restore, None), format!("{begins} restore {none}; id ab"));
        let database = TriedDatabase { name: "p\nq".to_owned(), tables: 2, rows: 3, foreign_keys: 4, indexes: Some(5) };
        let trial = Trial { server: "15".to_owned(), throwaway: true, databases: vec![database] };
        let tried = Outcome { trial: Some(trial), closed: Some(true), ..outcome(Verdict::Sound, Level::Restore) };
        assert_eq!(
            tried.summary().lines().next().unwrap(),
            "database p q: restored into a throwaway PostgreSQL 15; 3 rows in 2 tables with counts and fingerprints as in \
             the bundle, 4 foreign keys hold, 5 indexes in order"
        );
        assert_eq!((tried.class(), outcome(Verdict::Sound, Level::Sums).class()), (None, None));
    }

    #[test]
    fn who_signed_is_said_where_that_was_asked() {
        let by = SignedBy { key: "0F07".to_owned(), comment: String::new() };
        let said =
            |signed, signed_by| Outcome { signed, signed_by, ..outcome(Verdict::Sound, Level::Contents) }.summary();
        assert!(said(true, Some(by)).contains("level contents, signed by the trusted key 0F07; id"));
        assert!(said(true, None).contains("level contents, signed (by whom was not asked: --trusted-key); id"));
        assert!(!said(false, None).contains("signed"));
    }

    #[test]
    fn what_is_damaged_is_named_and_what_is_not_named_is_counted() {
        let finding = |path: &str, offset| Finding { path: path.to_owned(), offset, problem: "torn".to_owned() };
        let lost =
            || Lost { path: "a".to_owned(), what: Some("table b.c".to_owned()), segment: Some(1), offset: Some(2) };
        let one =
            Outcome { findings: vec![finding("x", Some(7))], damages: 1, ..outcome(Verdict::Damaged, Level::Sums) };
        assert_eq!(one.summary(), "damaged: b.pacharc, 1 damage found at level sums:\n  x (at byte 7): torn");
        assert_eq!(one.class(), Some(Class::Damaged));
        let two = Outcome { findings: vec![finding("x", None), finding("y", None)], damages: 2, ..one.clone() };
        assert_eq!(two.summary(), "damaged: b.pacharc, 2 damages found at level sums:\n  x: torn\n  y: torn");
        let more = Outcome { damages: 3, lost: vec![lost()], lost_count: 1, ..two.clone() };
        let text = more.summary();
        assert!(text.contains("y: torn\n  …\nentries that lie in it: 1; "), "{text}");
        assert!(text.ends_with("\n  a (table b.c), in segment 1 at byte 2"), "{text}");
        let more = Outcome { lost: vec![lost()], lost_count: 2, ..two };
        assert!(more.summary().ends_with("\n  …"));
    }

    #[test]
    fn what_the_source_lacked_is_named() {
        let damage = SourceDamage { subject: "a".to_owned(), problem: "gone".to_owned(), ..SourceDamage::default() };
        let with = |source: Vec<SourceDamage>, source_damages| {
            let closed = Some(false);
            Outcome { source, source_damages, closed, ..outcome(Verdict::Incomplete, Level::Closed) }.summary()
        };
        let begins = "incomplete: b.pacharc is not closed: every byte is as it was written (1 B, level closed), but";
        assert_eq!(with(Vec::new(), 0), format!("{begins} the source lacked live objects; id ab"));
        let broken = |count| format!("{begins} of the source {count} things were lacking or broken; id ab\n  {damage}");
        assert_eq!(with(vec![damage.clone()], 1), broken(1));
        assert_eq!(with(vec![damage.clone()], 2), broken(2) + "\n  …");
        assert_eq!(outcome(Verdict::Incomplete, Level::Closed).class(), Some(Class::Incomplete));
    }

    #[test]
    fn what_has_no_bucket_is_not_called_closed() {
        let incomplete = |closed| Outcome { closed, source_damages: 1, ..outcome(Verdict::Incomplete, Level::Restore) };
        let said = |closed| incomplete(closed).summary();
        assert!(said(Some(true)).contains("is closed, and every byte"));
        assert!(said(Some(false)).contains("is not closed: every byte"));
        let without = said(None);
        assert!(
            without.contains("is whole: every byte is as it was written") && !without.contains("closed"),
            "{without}"
        );
    }
}
