//! The verdict on a bundle, for people and programs.

use serde::Serialize;
use uuid::Uuid;

use super::Level;
use crate::failure::Class;
use crate::visible::one_line;

/// One word on a bundle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Everything that was looked at is as it was written.
    Sound,
    /// Bytes are wrong or missing.
    Damaged,
    /// The bytes are right, but the source lacked live objects: the bundle is not closed.
    Incomplete,
}

/// Something that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
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
    /// Bytes that were read.
    pub bytes: u64,
    /// Whether the manifest calls it closed; absent where no manifest was read or there is no live set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub closed: Option<bool>,
    /// What is wrong; the first hundred.
    pub findings: Vec<Finding>,
    /// How many things are wrong.
    pub damages: u64,
}

impl Level {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Sums => "sums",
            Self::Contents => "contents",
        }
    }
}

impl crate::outcome::Outcome for Outcome {
    fn class(&self) -> Option<Class> {
        match self.verdict {
            Verdict::Sound => None,
            Verdict::Damaged => Some(Class::Damaged),
            Verdict::Incomplete => Some(Class::Incomplete),
        }
    }

    fn summary(&self) -> String {
        let bytes = indicatif::HumanBytes(self.bytes);
        let id = self.id.as_deref().unwrap_or("unknown");
        let (input, level) = (&self.input, self.level);
        match self.verdict {
            Verdict::Sound => {
                let closed = match (self.closed, level) {
                    (Some(true), _) => ", closed",
                    (None, "sums") => " (whether it is closed, the manifest says: it needs the key)",
                    _ => "",
                };
                format!("sound: {input}, {bytes} checked at level {level}{closed}; id {id}")
            }
            Verdict::Incomplete => format!(
                "incomplete: {input} is not closed: every byte is as it was written ({bytes}, level {level}), but the \
                 source lacked live objects; id {id}"
            ),
            Verdict::Damaged => {
                let mut text = format!("damaged: {input}, {} found at level {level}:", things(self.damages));
                for Finding { path, offset, problem } in &self.findings {
                    let place = offset.map(|offset| format!(" (at byte {offset})")).unwrap_or_default();
                    text.push_str(&format!("\n  {}", one_line(&format!("{path}{place}: {problem}"))));
                }
                if self.damages > self.findings.len() as u64 {
                    text.push_str("\n  …");
                }
                text
            }
        }
    }
}

fn things(count: u64) -> String {
    if count == 1 { "1 damage".to_owned() } else { format!("{count} damages") }
}
