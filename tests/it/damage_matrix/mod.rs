//! Every damage to every kind of entry, under every command: nothing is restored wrong, and nothing broken called sound.
//!
//! The table in `docs/reliability.md` is written here, with `UPDATE_DOCS=1`.

mod commands;
mod damages;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::support::crafted::craft;
use crate::support::outer::{Place, kinds, places};
use crate::support::page::keep;
use crate::support::program::Desk;
use commands::{COMMANDS, Given, run, word};
use damages::{Damaged, all};

/// How often each result came, by row, column, and exit code with word.
type Table = BTreeMap<String, BTreeMap<&'static str, BTreeMap<String, usize>>>;

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_restored_wrong_and_nothing_broken_called_sound() {
    let desk = Desk::new();
    // Sealed files differ by some bytes each time; one that fills its last block would be spared the damage to it.
    let good = loop {
        let bundle = craft(&desk.recipient, 1).await.bundle;
        let is_full = |place: &Place| place.name.ends_with(".age") && place.content.len().is_multiple_of(512);
        if !places(&bundle).iter().any(is_full) {
            break bundle;
        }
    };
    // And one that takes other blocks in the place of one of these would move what follows.
    let blocks = |bundle: &[u8]| kinds(bundle).into_iter().map(|place| (place.end() - place.header, place.name));
    let other = loop {
        let bundle = craft(&desk.recipient, 2).await.bundle;
        if blocks(&bundle).eq(blocks(&good)) {
            break bundle;
        }
    };
    let key = fs::read_to_string(desk.path("key.txt")).unwrap();
    let identity = key.lines().find(|line| !line.starts_with('#')).unwrap().parse().unwrap();
    fs::write(desk.path("x.pacharc"), &good).unwrap();
    let id = blake3::hash(sums(&good)).to_hex().to_string();
    let whole: BTreeMap<&str, Given> = COMMANDS.iter().map(|&command| (command, run(&desk, command, &id))).collect();
    for (command, given) in &whole {
        assert_eq!(given.code, 0, "{command}: {}", given.stderr);
        let writes = command.starts_with("extract") || *command == "restore";
        assert_eq!(!given.files.is_empty(), writes, "{command}");
    }

    fs::write(desk.path("x.pacharc"), &other).unwrap();
    let others = run(&desk, "extract", &id).files;

    let damaged = all(&good, &other, &identity);
    let (next, problems) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let (by_damage, by_entry) = (Mutex::new(Table::new()), Mutex::new(Table::new()));
    // A desk for each processor: the names of files are in what commands print.
    std::thread::scope(|scope| {
        for number in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            let folder = desk.path(&format!("desk-{number}"));
            let (damaged, whole, others, next, id) = (&damaged, &whole, &others, &next, id.as_str());
            let (problems, by_damage, by_entry, key) = (&problems, &by_damage, &by_entry, &key);
            scope.spawn(move || {
                fs::create_dir_all(&folder).unwrap();
                fs::write(folder.join("key.txt"), key).unwrap();
                let desk = Desk::at(&folder);
                while let Some(damaged) = damaged.get(next.fetch_add(1, Ordering::Relaxed)) {
                    fs::write(desk.path("x.pacharc"), &damaged.bytes).unwrap();
                    for command in COMMANDS {
                        let given = run(&desk, command, id);
                        let word = word(command, damaged, &whole[command], others, &given);
                        if word.chars().any(char::is_uppercase) {
                            let Damaged { damage, entry, .. } = damaged;
                            let Given { code, stdout, stderr, .. } = given;
                            problems
                                .lock()
                                .unwrap()
                                .push(format!("{damage}, {entry}, {command}: {word}: {code} {stderr} {stdout}"));
                            continue;
                        }
                        let cell = format!("{} {word}", given.code);
                        let count = |table: &Mutex<Table>, row: &str| {
                            let mut table = table.lock().unwrap();
                            *table
                                .entry(row.into())
                                .or_default()
                                .entry(command)
                                .or_default()
                                .entry(cell.clone())
                                .or_default() += 1;
                        };
                        count(by_damage, damaged.damage);
                        count(by_entry, &damaged.entry);
                    }
                }
            });
        }
    });
    let problems = problems.into_inner().unwrap();
    assert!(problems.is_empty(), "{} cells:\n{}", problems.len(), problems.join("\n"));

    let mut damages: Vec<&str> = Vec::new();
    let mut entries: Vec<&str> = Vec::new();
    for one in &damaged {
        if !damages.contains(&one.damage) {
            damages.push(one.damage);
        }
        if !entries.contains(&one.entry.as_str()) {
            entries.push(&one.entry);
        }
    }
    let (by_damage, by_entry) = (by_damage.into_inner().unwrap(), by_entry.into_inner().unwrap());
    let text = format!(
        "{} bundles, {} runs.\n\n{}\n{}",
        damaged.len(),
        damaged.len() * COMMANDS.len(),
        table("what was done", &damages, &by_damage, &damages::counts(&damaged)),
        table("to which entry", &entries, &by_entry, &BTreeMap::new()),
    );
    keep("damage matrix", &text);
}

/// The content of `BLAKE3SUMS`.
fn sums(bundle: &[u8]) -> &[u8] {
    let place = places(bundle).into_iter().find(|place| place.name == "BLAKE3SUMS").unwrap();
    &bundle[place.content]
}

fn table(head: &str, rows: &[&str], table: &Table, counts: &BTreeMap<&str, usize>) -> String {
    let mut text = format!("| {head} | {} |\n|---|{}\n", COMMANDS.join(" | "), "---|".repeat(COMMANDS.len()));
    for row in rows {
        let count = counts.get(row).map(|count| format!(" ×{count}")).unwrap_or_default();
        write!(text, "| {row}{count} |").unwrap();
        for command in COMMANDS {
            let cell = &table[*row][command];
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
