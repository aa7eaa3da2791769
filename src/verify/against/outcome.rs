//! What a comparison has shown, for people and programs.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::evidence::Contents;
use crate::failure::Class;
use crate::signature::SignedBy;
use crate::verify::{Finding, Verdict};
use crate::visible::one_line;

/// What a bundle is compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Side {
    /// What was backed up, and may have gone on since.
    Source,
    /// What was restored, and must be as the bundle has it.
    Target,
}

/// Objects that were compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Objects {
    /// How many.
    pub compared: u64,
    /// Bytes that were read of them.
    pub bytes: u64,
    /// Of them, as the bundle has them.
    pub equal: u64,
    /// Not there, and not missed: no live row names them (any more).
    pub gone: u64,
    /// Not there, and missed: a live row names them, or was there at the backup and no database is asked now.
    pub lost: u64,
    /// There, with other bytes than the bundle has.
    pub changed: u64,
    /// Of a source: chunks that are rotten in the bundle, and there have the bytes that their keys promise.
    #[serde(default)]
    pub healed: u64,
    /// There, and to be thawed before they can be read: these were not compared.
    pub archived: u64,
}

/// One database of a comparison.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ComparedDatabase {
    /// Its name in the bundle.
    pub name: String,
    /// Its name there.
    pub there: String,
    /// Tables that were compared.
    pub tables: u64,
    /// Rows in them, there.
    pub rows: u64,
    /// What differs: tables, sequences, large objects; the first hundred.
    pub differences: Vec<String>,
    /// How much differs.
    pub different: u64,
}

/// A comparison of a bundle with what lies somewhere now.
#[derive(Clone, Debug, Serialize)]
pub struct Comparison {
    /// The bundle's place.
    pub input: String,
    /// What it was compared with.
    pub against: Side,
    /// The verdict.
    pub verdict: Verdict,
    /// The bundle's UUID.
    pub bundle: Uuid,
    /// Its id.
    pub id: String,
    /// When it was begun.
    pub created: String,
    /// The trusted key that signed it; absent where none was named.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signed_by: Option<SignedBy>,
    /// How much was compared, as it was typed; absent where it is all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sample: Option<String>,
    /// What the sample was chosen by.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
    /// Whether an interrupted comparison went on.
    pub continued: bool,
    /// If it did, when it was begun: what was compared before is not compared again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
    /// The bucket; absent where none was named.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bucket: Option<String>,
    /// The objects in it; absent where no bucket was named.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub objects: Option<Objects>,
    /// The databases.
    pub databases: Vec<ComparedDatabase>,
    /// What is wrong; the first hundred.
    pub findings: Vec<Finding>,
    /// What the bundle holds, for the report.
    #[serde(skip)]
    pub contents: Option<Contents>,
}

impl crate::outcome::Outcome for Comparison {
    fn class(&self) -> Option<Class> {
        self.verdict.class()
    }

    fn contents(&self) -> Option<&Contents> {
        self.contents.as_ref()
    }

    fn summary(&self) -> String {
        let mut text = String::new();
        let (there, since) = match self.against {
            Side::Source => ("the source", " since the backup"),
            Side::Target => ("the target", ""),
        };
        // Writing to a string has no way to fail.
        for ComparedDatabase { name, there, tables, rows, different, .. } in &self.databases {
            let (name, there) = (one_line(name), one_line(there));
            let now = if name == there { String::new() } else { format!(" (there {there})") };
            let _ = match different {
                0 => writeln!(text, "database {name}{now}: {rows} rows in {tables} tables are as in the bundle"),
                count => writeln!(
                    text,
                    "database {name}{now}: of {tables} tables and what belongs to them, {count} differ{since}"
                ),
            };
        }
        if let (Some(bucket), Some(objects)) = (&self.bucket, &self.objects) {
            let Objects { compared, bytes, equal, gone, lost, changed, healed, archived } = objects;
            let bytes = indicatif::HumanBytes(*bytes);
            let _ = write!(text, "{bucket}: {compared} objects compared, {bytes} read: {equal} as in the bundle");
            for (count, what) in [
                (gone, "gone"),
                (lost, "LOST"),
                (changed, "with other bytes"),
                (healed, "healed, which are rotten in the bundle"),
                (archived, "to be thawed"),
            ] {
                if *count > 0 {
                    let _ = write!(text, ", {count} {what}");
                }
            }
            text.push('\n');
        }
        if let Some(since) = &self.since {
            let _ = writeln!(text, "begun at {since}, and gone on with: what was compared then was not compared again");
        }
        if let (Some(sample), Some(seed)) = (&self.sample, self.seed) {
            let _ = writeln!(text, "a sample: {sample}, --seed {seed}");
        }
        let signed =
            self.signed_by.as_ref().map(|by| format!(", signed by the trusted key {}", by.key)).unwrap_or_default();
        let _ = match self.verdict {
            Verdict::Sound => write!(
                text,
                "sound: {there} has what {} has, as far as it was compared{signed}; id {}",
                self.input, self.id
            ),
            Verdict::Incomplete if self.findings.is_empty() => write!(
                text,
                "incomplete: of what {} holds, something must be thawed in {there} before it can be compared{signed}; id {}",
                self.input, self.id
            ),
            Verdict::Incomplete => write!(
                text,
                "incomplete: {there} has lost or broken what {} still has{signed}; id {}:",
                self.input, self.id
            ),
            Verdict::Damaged => {
                write!(text, "damaged: {there} is not what {} holds{signed}; id {}:", self.input, self.id)
            }
        };
        for Finding { path, problem, .. } in &self.findings {
            let _ = write!(text, "\n  {}", one_line(&format!("{path}: {problem}")));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::Outcome as _;

    fn comparison(against: Side, verdict: Verdict) -> Comparison {
        Comparison {
            input: "b.pacharc".to_owned(),
            against,
            verdict,
            bundle: Uuid::nil(),
            id: "ab".to_owned(),
            created: String::new(),
            signed_by: None,
            sample: None,
            seed: None,
            continued: false,
            since: None,
            bucket: None,
            objects: None,
            databases: Vec::new(),
            findings: Vec::new(),
            contents: None,
        }
    }

    #[test]
    fn what_was_compared_is_said_and_with_what_result() {
        let database = |there: &str, different| ComparedDatabase {
            name: "pachyderm".to_owned(),
            there: there.to_owned(),
            tables: 2,
            rows: 3,
            differences: Vec::new(),
            different,
        };
        let objects = Objects { compared: 9, bytes: 1, equal: 4, gone: 0, lost: 1, changed: 1, healed: 1, archived: 2 };
        let finding = Finding { path: "a".to_owned(), offset: None, problem: "gone".to_owned() };
        let told = Comparison {
            bucket: Some("s3://b".to_owned()),
            objects: Some(objects),
            databases: vec![database("pachyderm", 0), database("other", 4)],
            sample: Some("10%".to_owned()),
            seed: Some(7),
            findings: vec![finding],
            ..comparison(Side::Source, Verdict::Incomplete)
        };
        assert_eq!(
            told.summary(),
            "database pachyderm: 3 rows in 2 tables are as in the bundle\n\
             database pachyderm (there other): of 2 tables and what belongs to them, 4 differ since the backup\n\
             s3://b: 9 objects compared, 1 B read: 4 as in the bundle, 1 LOST, 1 with other bytes, 1 healed, which are \
             rotten in the bundle, 2 to be thawed\n\
             a sample: 10%, --seed 7\n\
             incomplete: the source has lost or broken what b.pacharc still has; id ab:\n  a: gone"
        );
        let signed_by = Some(SignedBy { key: "0F07".to_owned(), comment: String::new() });
        let sound = Comparison { signed_by, ..comparison(Side::Target, Verdict::Sound) };
        assert_eq!(
            sound.summary(),
            "sound: the target has what b.pacharc has, as far as it was compared, signed by the trusted key 0F07; id ab"
        );
        let thawed = Objects { archived: 2, ..Objects::default() };
        let since = Some("2026-01-01T00:00:00Z".to_owned());
        let unread = Comparison {
            bucket: Some("s3://b".to_owned()),
            objects: Some(thawed),
            since,
            ..comparison(Side::Target, Verdict::Incomplete)
        };
        assert_eq!(
            unread.summary(),
            "s3://b: 0 objects compared, 0 B read: 0 as in the bundle, 2 to be thawed\n\
             begun at 2026-01-01T00:00:00Z, and gone on with: what was compared then was not compared again\n\
             incomplete: of what b.pacharc holds, something must be thawed in the target before it can be compared; id ab"
        );
        let damaged = comparison(Side::Target, Verdict::Damaged);
        assert_eq!(damaged.summary(), "damaged: the target is not what b.pacharc holds; id ab:");
        let classes = [sound.class(), told.class(), damaged.class()];
        assert_eq!(classes, [None, Some(Class::Incomplete), Some(Class::Damaged)]);
    }
}
