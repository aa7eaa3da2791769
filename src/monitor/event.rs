//! The events of a run. Their names and fields are a promise: `docs/json.md`.

use pacharc_format::Key;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Progress, Spent, Step};

/// What a job is busy with. Not every job has every phase; a phase may come again (a newer snapshot).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Checks before the first byte: servers, tools, permissions, room.
    Check,
    /// Counts what is in the bucket and in the databases.
    List,
    /// Copies objects from the bucket into the bundle.
    Copy,
    /// Opens a snapshot of the databases.
    Snapshot,
    /// Copies live objects that the first copy has not seen.
    Delta,
    /// Dumps the databases. Schema changes of the source wait meanwhile.
    Dump,
    /// Reads what Kubernetes alone knows of the cluster, or writes the files for its successor.
    Cluster,
    /// Writes liveness, catalog, manifest and sums, and makes the bundle durable.
    Finish,
    /// Checks the bundle's bytes against its sums.
    Sums,
    /// Decrypts, unpacks and checks every entry.
    Contents,
    /// Unpacks the bundle into databases and bucket.
    Unpack,
    /// Builds indexes and constraints, sets sequences and settings, analyzes.
    Indexes,
    /// Reads the target again and compares it with the bundle.
    Prove,
    /// Reads entries out of the bundle.
    Read,
    /// Scales a cluster to zero, and waits until its pods are gone.
    Suspend,
    /// Scales a cluster up again, and waits until it is ready.
    Resume,
    /// Guards a suspended cluster.
    Guard,
}

impl Phase {
    /// What people read, e.g. `copying objects`.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Check => "checking",
            Self::List => "listing",
            Self::Copy => "copying objects",
            Self::Snapshot => "opening a snapshot",
            Self::Delta => "copying new objects",
            Self::Dump => "dumping databases",
            Self::Cluster => "reading the cluster's state",
            Self::Finish => "finishing",
            Self::Sums => "checking sums",
            Self::Contents => "checking contents",
            Self::Unpack => "restoring",
            Self::Indexes => "building indexes",
            Self::Prove => "proving",
            Self::Read => "reading",
            Self::Suspend => "suspending",
            Self::Resume => "resuming",
            Self::Guard => "guarding",
        }
    }
}

/// Something that happened, once.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// The command begins its work.
    Started {
        /// Its name, e.g. `backup`.
        command: String,
        /// The version of pacharc.
        version: String,
    },
    /// A new phase. Jobs call [`super::Monitor::phase`].
    Phase {
        /// Which.
        phase: Phase,
    },
    /// How far it is, about once a second. Jobs call [`super::Monitor::add`].
    Progress(Progress),
    /// Worth knowing; the job goes on.
    Warning {
        /// What, in words.
        message: String,
    },
    /// Advice that needs no action now.
    Hint {
        /// What, in words.
        message: String,
    },
    /// A live object that the bucket does not have.
    MissingObject {
        /// Its key.
        key: Key,
        /// Its size, as the database says, in bytes.
        #[serde(skip_serializing_if = "Option::is_none")]
        size: Option<u64>,
    },
    /// A live object whose bytes are not what its key promises.
    RottenObject {
        /// Its key.
        key: Key,
        /// Bytes that were read.
        size: u64,
    },
    /// An object in a storage class that must be thawed before it can be read.
    ArchivedObject {
        /// Its key.
        key: Key,
    },
    /// A place in the bundle that is not what it should be.
    Damage {
        /// The entry or the part of the bundle.
        path: String,
        /// What is wrong with it.
        problem: String,
    },
    /// Something that was wrong at the source, before the backup.
    SourceDamage {
        /// What: an object's path in the bundle, a chunk, a file set, a migration.
        subject: String,
        /// What is wrong with it.
        problem: String,
        /// The commits that it hurts; the first twenty.
        hurts: Vec<String>,
        /// How many it hurts.
        hurts_count: u64,
        /// Where the bundle has the same bytes.
        #[serde(skip_serializing_if = "Option::is_none")]
        healed_by: Option<String>,
    },
    /// A snapshot or a transfer failed, and is tried again.
    AttemptFailed {
        /// Which one, from 1.
        attempt: u32,
        /// Of how many.
        attempts: u32,
        /// Why it failed.
        reason: String,
    },
    /// A step on a cluster's way down or up is about to be taken.
    Step {
        /// Which.
        step: Step,
    },
    /// Something in the cluster was scaled.
    Scaled {
        /// `Deployment` or `ReplicationController`.
        kind: String,
        /// Its name.
        name: String,
        /// How many replicas were wanted before.
        from: i32,
        /// And now.
        to: i32,
    },
    /// Pods that are still waited for, each time they change.
    Waiting {
        /// How many.
        count: usize,
        /// Names of the first ten.
        pods: Vec<String>,
    },
    /// An entry of the bundle, as `pacharc list` finds it.
    Entry {
        /// Its path in the tree.
        path: String,
        /// Its bytes.
        size: u64,
        /// What the live set says of it: `file`, `live`, `orphan`, `foreign`, `rotten`, `missing`, `object`.
        state: pacharc_format::State,
        /// The object's key as text, where it is one and is UTF-8.
        #[serde(skip_serializing_if = "Option::is_none")]
        key: Option<String>,
        /// Its hash: `b2:` (BLAKE2b-256) or `b3:` (BLAKE3), then hex; a missing object has none.
        #[serde(skip_serializing_if = "Option::is_none")]
        hash: Option<pacharc_format::Hash>,
        /// What the provider keeps beside the bytes.
        #[serde(skip_serializing_if = "pacharc_format::Metadata::is_empty")]
        metadata: pacharc_format::Metadata,
    },
    /// The command is done; the exit code says how well.
    Finished {
        /// Its name.
        command: String,
        /// The process's exit code.
        exit_code: u8,
        /// How long it took.
        seconds: f64,
        /// What came out of it, one object for each command (`docs/json.md`).
        outcome: Value,
    },
    /// Where the time went, for `--stats`: just before the last event.
    Stats(Spent),
    /// The command failed; nothing more comes.
    Error {
        /// The process's exit code.
        exit_code: u8,
        /// The class of the failure, e.g. `refused`.
        class: &'static str,
        /// What happened.
        message: String,
        /// What to do next.
        #[serde(skip_serializing_if = "Option::is_none")]
        advice: Option<String>,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One of each kind. The match makes a new variant fail to compile until it is here, and so in the document.
    fn samples() -> Vec<Event> {
        let key = || Key::from("k");
        let text = String::new;
        let samples = vec![
            Event::Started { command: text(), version: text() },
            Event::Phase { phase: Phase::Check },
            Event::Progress(Progress::default()),
            Event::Warning { message: text() },
            Event::Hint { message: text() },
            Event::MissingObject { key: key(), size: Some(1) },
            Event::RottenObject { key: key(), size: 1 },
            Event::ArchivedObject { key: key() },
            Event::Damage { path: text(), problem: text() },
            Event::SourceDamage {
                subject: text(),
                problem: text(),
                hurts: Vec::new(),
                hurts_count: 0,
                healed_by: Some(text()),
            },
            Event::AttemptFailed { attempt: 1, attempts: 5, reason: text() },
            Event::Step { step: Step::Record },
            Event::Scaled { kind: text(), name: text(), from: 1, to: 0 },
            Event::Waiting { count: 1, pods: vec![text()] },
            Event::Entry {
                path: text(),
                size: 1,
                state: pacharc_format::State::Live,
                key: Some(text()),
                hash: Some(pacharc_format::Hash::blake3(b"")),
                metadata: pacharc_format::Metadata { content_type: Some(text()), ..Default::default() },
            },
            Event::Finished { command: text(), exit_code: 0, seconds: 0.0, outcome: Value::Null },
            Event::Error { exit_code: 1, class: "other", message: text(), advice: Some(text()) },
            Event::Stats(Spent { process: super::super::Resources::now(), ..Spent::default() }),
        ];
        for (at, sample) in samples.iter().enumerate() {
            let place = match sample {
                Event::Started { .. } => 0,
                Event::Phase { .. } => 1,
                Event::Progress(_) => 2,
                Event::Warning { .. } => 3,
                Event::Hint { .. } => 4,
                Event::MissingObject { .. } => 5,
                Event::RottenObject { .. } => 6,
                Event::ArchivedObject { .. } => 7,
                Event::Damage { .. } => 8,
                Event::SourceDamage { .. } => 9,
                Event::AttemptFailed { .. } => 10,
                Event::Step { .. } => 11,
                Event::Scaled { .. } => 12,
                Event::Waiting { .. } => 13,
                Event::Entry { .. } => 14,
                Event::Finished { .. } => 15,
                Event::Error { .. } => 16,
                Event::Stats(_) => 17,
            };
            assert_eq!(at, place);
        }
        samples
    }

    #[test]
    fn every_event_and_field_is_documented() {
        let page = include_str!("../../docs/json.md");
        for event in samples() {
            let Value::Object(fields) = serde_json::to_value(&event).unwrap() else { panic!("{event:?}") };
            let name = fields["event"].as_str().unwrap();
            let row = page.lines().find(|line| line.starts_with(&format!("| `{name}` |")));
            let row = row.unwrap_or_else(|| panic!("docs/json.md lacks the event {name}"));
            for field in fields.keys().filter(|field| *field != "event" && name != "progress") {
                assert!(row.contains(&format!("`{field}`")), "docs/json.md: {name} lacks {field}");
            }
        }
    }

    #[test]
    fn every_phase_step_and_counter_is_documented() {
        let page = include_str!("../../docs/json.md");
        let last = Phase::Guard as usize;
        let phases = [
            Phase::Check,
            Phase::List,
            Phase::Copy,
            Phase::Snapshot,
            Phase::Delta,
            Phase::Dump,
            Phase::Cluster,
            Phase::Finish,
            Phase::Sums,
            Phase::Contents,
            Phase::Unpack,
            Phase::Indexes,
            Phase::Prove,
            Phase::Read,
            Phase::Suspend,
            Phase::Resume,
            Phase::Guard,
        ];
        assert_eq!(phases.len(), last + 1);
        let touched = super::super::Amount { done: 1, total: Some(1) };
        let progress = Progress {
            phase: Some(Phase::Copy),
            objects: touched,
            object_bytes: touched,
            rows: touched,
            database_bytes: touched,
            entries: touched,
            bundle_bytes: touched,
            proved_objects: touched,
            proved_bytes: touched,
            bytes_per_second: 1,
            eta_seconds: Some(1),
        };
        let Value::Object(fields) = serde_json::to_value(progress).unwrap() else { panic!("no object") };
        let phases = phases.map(|phase| serde_json::to_value(phase).unwrap().as_str().unwrap().to_owned());
        let steps = Step::ALL.map(|step| serde_json::to_value(step).unwrap().as_str().unwrap().to_owned());
        for name in phases.into_iter().chain(steps).chain(fields.keys().cloned()) {
            assert!(page.contains(&format!("`{name}`")), "docs/json.md lacks {name}");
        }
    }
}
