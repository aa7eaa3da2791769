//! What an inspection found, for people and programs.

use pacharc_format::About;
use pacharc_format::manifest::{Database, Manifest, Objects, Pause};
use serde::Serialize;

use crate::failure::Class;
use crate::outcome::Facts;

/// What a bundle says of itself.
#[derive(Clone, Debug, Serialize)]
pub struct Outcome {
    /// `bundle.json`.
    pub about: About,
    /// The id in TRAILER; absent for a torn bundle.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Bytes of the file.
    pub bytes: u64,
    /// The kinds of recipients.
    pub recipients: Vec<String>,
    /// Whether there is a signature.
    pub signed: bool,
    /// The manifest, with a key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub manifest: Option<Manifest>,
}

impl crate::outcome::Outcome for Outcome {
    fn class(&self) -> Option<Class> {
        None
    }

    fn summary(&self) -> String {
        String::new()
    }

    fn product(&self) -> Option<String> {
        let mut facts = Facts::default();
        let About { format, bundle, created, pacharc, .. } = &self.about;
        facts.add("format", format);
        facts.add("bundle", bundle);
        facts.add("id", self.id.as_deref().unwrap_or("none: the bundle is torn (its end is missing)"));
        facts.add("created", created);
        facts.add("written by", format_args!("pacharc {pacharc}"));
        facts.add("size", format_args!("{} ({} bytes)", indicatif::HumanBytes(self.bytes), self.bytes));
        facts.add("recipients", format_args!("{} ({})", self.recipients.len(), self.recipients.join(", ")));
        facts.add("signature", if self.signed { "present (not checked)" } else { "none" });
        if let Some(manifest) = &self.manifest {
            describe(manifest, &mut facts);
        }
        Some(facts.into_text())
    }
}

fn describe(manifest: &Manifest, facts: &mut Facts) {
    facts.add("finished", &manifest.finished);
    let source = &manifest.source;
    if let Some(postgres) = &source.postgres {
        facts.add("source", format_args!("PostgreSQL {} at {}", postgres.version, postgres.host));
    }
    if let Some(bucket) = &source.bucket {
        facts.add("", format_args!("bucket {bucket}"));
    }
    if let Some(release) = &source.pachyderm {
        facts.add("Pachyderm", release);
    }
    if let Some(opened) = &source.snapshot_opened {
        facts.add("snapshot", format_args!("{opened} ({}, number {})", source.quiesce, source.snapshots));
        if let Some(pause) = &source.pause {
            facts.add("quiesced", quiesced(pause));
        }
    }
    for Database { name, tables, properties, .. } in &manifest.databases {
        let rows: u64 = tables.iter().map(|table| table.rows).sum();
        let bytes: u64 = tables.iter().map(|table| table.bytes).sum();
        let (encoding, collate) = (&properties.encoding, &properties.collate);
        let size = indicatif::HumanBytes(bytes);
        facts.add(
            "database",
            format_args!("{name}: {rows} rows in {} tables, {size} ({encoding}, {collate})", tables.len()),
        );
    }
    if let Some(Objects { closed, live, orphan, foreign, rotten, missing, .. }) = &manifest.objects {
        let states =
            [("live", live), ("orphan", orphan), ("foreign", foreign), ("rotten", rotten), ("missing", missing)];
        for (state, count) in states.into_iter().filter(|(_, count)| count.count > 0) {
            facts.add("objects", format_args!("{} {state}, {}", count.count, indicatif::HumanBytes(count.bytes)));
        }
        let closed = match closed {
            Some(true) => "yes: every live object is in the bundle",
            Some(false) => "NO: live objects were missing or rotten at the source",
            None => "does not apply: no Pachyderm database",
        };
        facts.add("closed", closed);
    }
}

/// A pause in one line.
fn quiesced(pause: &Pause) -> String {
    let how_long = match (&pause.held_by, pause.seconds) {
        (Some(owner), _) => format!("held by {owner}"),
        (None, Some(seconds)) => format!("for {seconds:.1} s"),
        (None, None) if pause.begun.is_some() => "to the end of the backup".to_owned(),
        (None, None) => "never suspended".to_owned(),
    };
    match &pause.lost {
        None => format!("yes, {how_long}"),
        Some(lost) => format!("lost at {} because {}; {how_long}", lost.at, lost.because),
    }
}
