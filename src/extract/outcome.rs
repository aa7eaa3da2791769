//! What an extraction came to.

use serde::Serialize;

use crate::failure::Class;
use crate::visible::one_line;

/// What an extraction was.
#[derive(Clone, Debug, Serialize)]
pub struct Outcome {
    /// Entries that were extracted.
    pub entries: u64,
    /// Their bytes.
    pub bytes: u64,
    /// With `--keep-going`: what could not be extracted; the first hundred.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub lost: Vec<Lost>,
    /// How many things could not be extracted.
    pub lost_count: u64,
    /// What is damaged in the bundle, as far as it was looked at; the first hundred.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub damage: Vec<Damage>,
    /// How many things are damaged.
    pub damages: u64,
    /// Why it is not whole, if it is not.
    #[serde(skip)]
    pub(super) class: Option<Class>,
}

/// Something that could not be extracted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Lost {
    /// The entry's path.
    pub path: String,
    /// The object, table or file that it is, where the path does not say so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub what: Option<String>,
    /// Why.
    pub problem: String,
}

/// A place in the bundle that is damaged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Damage {
    /// The outer entry, or the part of the bundle.
    pub entry: String,
    /// Where it begins in the file, in bytes, where that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub offset: Option<u64>,
    /// What is wrong.
    pub problem: String,
}

impl crate::outcome::Outcome for Outcome {
    fn class(&self) -> Option<Class> {
        self.class
    }

    fn summary(&self) -> String {
        let mut text = format!("extracted {} entries, {}", self.entries, indicatif::HumanBytes(self.bytes));
        let mut add = |line: String| text.push_str(&format!("\n  {}", one_line(&line)));
        for Damage { entry, offset, problem } in &self.damage {
            let place = offset.map(|offset| format!(" (at byte {offset})")).unwrap_or_default();
            add(format!("damaged: {entry}{place}: {problem}"));
        }
        more(&mut add, self.damages, self.damage.len(), "damages");
        for Lost { path, what, problem } in &self.lost {
            let what = what.as_ref().map(|what| format!(" ({what})")).unwrap_or_default();
            add(format!("not extracted: {path}{what}: {problem}"));
        }
        more(&mut add, self.lost_count, self.lost.len(), "entries");
        if self.class.is_some() && self.lost_count == 0 {
            add("nothing is lost of what was asked for, as far as the rest of the bundle tells".into());
        }
        text
    }
}

fn more(add: &mut impl FnMut(String), count: u64, told: usize, of: &str) {
    if count > told as u64 {
        add(format!("… and {} more {of}; --json-file names all of them", count - told as u64));
    }
}
