//! What an extraction that goes on past damage could not extract, and why.

use std::collections::HashSet;

use pacharc_format::{self as format, manifest::Manifest};

use super::outcome::{Damage, Lost, Outcome};
use crate::bundle::what_lies_at;
use crate::failure::Class;
use crate::monitor::{Event, Monitor};

/// Things that the outcome names; events name all.
const NAMED: usize = 100;
/// Paths that are remembered, so that none is named twice: some megabytes.
const REMEMBERED: usize = 100_000;

/// Whose fault it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    /// The bundle is damaged.
    Damage,
    /// The source did not have it.
    Source,
}

pub(super) struct Losses<'a> {
    monitor: &'a dyn Monitor,
    /// Names tables, once it is known.
    pub(super) manifest: Option<Manifest>,
    known: HashSet<String>,
    lost: Vec<Lost>,
    lost_count: u64,
    damage: Vec<Damage>,
    damages: u64,
    class: Option<Class>,
}

impl<'a> Losses<'a> {
    pub(super) fn new(monitor: &'a dyn Monitor) -> Self {
        Self {
            monitor,
            manifest: None,
            known: HashSet::new(),
            lost: Vec::new(),
            lost_count: 0,
            damage: Vec::new(),
            damages: 0,
            class: None,
        }
    }

    /// Whether anything of the bundle was found to be damaged.
    pub(super) fn is_damaged(&self) -> bool {
        self.class == Some(Class::Damaged)
    }

    /// Names an entry that could not be extracted; the second time it is nothing new.
    pub(super) fn lose(&mut self, path: &str, cause: Cause, problem: &str) {
        if self.known.contains(path) {
            return;
        }
        if self.known.len() < REMEMBERED {
            self.known.insert(path.to_owned());
        }
        self.count(match cause {
            Cause::Damage => Class::Damaged,
            Cause::Source => Class::Incomplete,
        });
        self.monitor.event(Event::Damage { path: path.to_owned(), problem: problem.to_owned() });
        self.lost_count += 1;
        if self.lost.len() < NAMED {
            self.lost.push(Lost { path: path.to_owned(), what: None, problem: problem.to_owned() });
        }
    }

    /// Names a place of the bundle that is damaged.
    pub(super) fn damage(&mut self, error: &format::Error) {
        let (entry, offset, problem) = match error {
            format::Error::Damaged { entry, offset, what } => (entry.clone(), Some(*offset), what.clone()),
            format::Error::Torn { offset, what } => {
                ("the end".into(), Some(*offset), format!("it is torn: it ends {what}"))
            }
            error => ("the bundle".into(), None, error.to_string()),
        };
        // What leads to the walk is met on it.
        if self.damage.iter().any(|known| known.entry == entry && known.offset == offset) {
            return;
        }
        self.count(Class::Damaged);
        self.monitor.event(Event::Damage { path: entry.clone(), problem: problem.clone() });
        self.damages += 1;
        if self.damage.len() < NAMED {
            self.damage.push(Damage { entry, offset, problem });
        }
    }

    fn count(&mut self, class: Class) {
        self.class = Some(self.class.map_or(class, |worse| worse.graver(class)));
    }

    pub(super) fn outcome(self, entries: u64, bytes: u64) -> Outcome {
        let manifest = self.manifest;
        let named = |lost: Lost| Lost { what: what_lies_at(&lost.path, manifest.as_ref()), ..lost };
        Outcome {
            entries,
            bytes,
            lost: self.lost.into_iter().map(named).collect(),
            lost_count: self.lost_count,
            damage: self.damage,
            damages: self.damages,
            class: self.class,
        }
    }
}
