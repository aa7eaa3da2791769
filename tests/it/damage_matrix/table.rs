//! The tables of what came out, by damage and by entry.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::damages::{self, Damaged};

/// How often each result came, by row, column, and exit code with word.
type Table = BTreeMap<String, BTreeMap<String, BTreeMap<String, usize>>>;

/// What came of each bundle under each command.
#[derive(Default)]
pub struct Tables {
    by_damage: Table,
    by_entry: Table,
}

impl Tables {
    pub fn count(&mut self, damaged: &Damaged, command: &str, cell: &str) {
        for (table, row) in [(&mut self.by_damage, damaged.damage), (&mut self.by_entry, damaged.entry.as_str())] {
            let cells = table.entry(row.to_owned()).or_default().entry(command.to_owned()).or_default();
            *cells.entry(cell.to_owned()).or_default() += 1;
        }
    }

    /// As the page has them.
    pub fn text(&self, damaged: &[Damaged], commands: &[&str]) -> String {
        let (mut damages, mut entries) = (Vec::new(), Vec::new());
        for one in damaged {
            if !damages.contains(&one.damage) {
                damages.push(one.damage);
            }
            if !entries.contains(&one.entry.as_str()) {
                entries.push(&one.entry);
            }
        }
        format!(
            "{} bundles, {} runs.\n\n{}\n{}",
            damaged.len(),
            damaged.len() * commands.len(),
            rows("what was done", &damages, &self.by_damage, commands, &damages::counts(damaged)),
            rows("to which entry", &entries, &self.by_entry, commands, &BTreeMap::new()),
        )
    }
}

fn rows(head: &str, rows: &[&str], table: &Table, commands: &[&str], counts: &BTreeMap<&str, usize>) -> String {
    let mut text = format!("| {head} | {} |\n|---|{}\n", commands.join(" | "), "---|".repeat(commands.len()));
    for row in rows {
        let count = counts.get(row).map(|count| format!(" ×{count}")).unwrap_or_default();
        write!(text, "| {row}{count} |").unwrap();
        for command in commands {
            let cell = &table[*row][*command];
            let words: Vec<String> = match cell.len() {
                1 => cell.keys().cloned().collect(),
                _ => cell.iter().map(|(word, count)| format!("{word} ×{count}")).collect(),
            };
            write!(text, " {} |", words.join(", ")).unwrap();
        }
        text.push('\n');
    }
    text
}
