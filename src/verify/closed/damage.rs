//! Something that was wrong at the source, before the backup.

use std::fmt;

use serde::Serialize;

use crate::monitor::Event;

/// How many are named one by one; the walk from chunks to commits carries one bit for each.
pub(super) const NAMED: usize = 100;

/// One thing that was wrong at the source.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct SourceDamage {
    /// What: an object's path in the bundle, a chunk, a file set, a migration.
    pub subject: String,
    /// What is wrong with it.
    pub problem: String,
    /// The commits that it hurts, `project/repo@id`; the first twenty.
    pub hurts: Vec<String>,
    /// How many it hurts, as far as they were counted.
    pub hurts_count: u64,
    /// Where the same bytes are, if the bundle has them: another object of the same chunk.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub healed_by: Option<String>,
}

/// In words, over several lines.
impl fmt::Display for SourceDamage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.subject, self.problem)?;
        if !self.hurts.is_empty() {
            write!(f, "\n    it hurts {}", self.hurts.join(", "))?;
            let more = self.hurts_count - self.hurts.len() as u64;
            if more > 0 {
                write!(f, " and {more} more")?;
            }
        }
        match &self.healed_by {
            Some(path) => write!(f, "\n    the same bytes are in {path}"),
            None => Ok(()),
        }
    }
}

impl From<SourceDamage> for Event {
    fn from(damage: SourceDamage) -> Self {
        let SourceDamage { subject, problem, hurts, hurts_count, healed_by } = damage;
        Self::SourceDamage { subject, problem, hurts, hurts_count, healed_by }
    }
}

/// All of them: the first by name, the others by number.
#[derive(Clone, Debug, Default)]
pub(in crate::verify) struct SourceDamages {
    pub(in crate::verify) named: Vec<SourceDamage>,
    pub(in crate::verify) count: u64,
}

impl SourceDamages {
    /// Adds those that were found elsewhere.
    pub(in crate::verify) fn append(&mut self, others: Self) {
        self.count += others.count;
        let room = NAMED.saturating_sub(self.named.len());
        self.named.extend(others.named.into_iter().take(room));
    }

    pub(in crate::verify) fn push(&mut self, damage: SourceDamage) {
        self.count += 1;
        if self.named.len() < NAMED {
            self.named.push(damage);
        }
    }
}
