//! Every fault at every stage of a whole backup and a whole restore: what is called done is equal to the source, what is not
//! done is told and can be done again, and nothing is left over.
//!
//! A job stands still at a stage until its fault is there (`faulty.c`), so that the same comes of it on every machine. The
//! tables in `docs/reliability.md` are written by the long run, with `UPDATE_DOCS=1`; each test run takes some cells of them.

mod faults;
mod stand;

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write as _;
use std::sync::{Arc, Mutex};

use crate::support::page::{keep, kept};
use faults::{Fault, Job, Stage};
use stand::Stand;

/// What came of each cell, by job, fault and stage.
type Cells = BTreeMap<(&'static str, &'static str, &'static str), String>;

struct Cell {
    job: Job,
    name: &'static str,
    fault: Fault,
    stage: Stage,
}

impl Cell {
    fn place(&self) -> (&'static str, &'static str, &'static str) {
        (part(self.job), self.name, self.stage.0)
    }
}

fn part(job: Job) -> &'static str {
    match job {
        Job::Backup => "faults of a backup",
        Job::Restore => "faults of a restore",
    }
}

/// Every fault once, each stage in turn.
#[tokio::test(flavor = "multi_thread")]
async fn some_cells_of_the_fault_matrix() {
    let seed = std::env::var("PACHARC_FAULT_SEED").map_or(1, |seed| seed.parse().unwrap());
    let cells = all(|row, stage, stages| (row + stage + seed).is_multiple_of(stages));
    let Some(found) = strike(cells).await else { return };
    let kept: Cells = [Job::Backup, Job::Restore].into_iter().flat_map(read).collect();
    let differ: Vec<_> = found.iter().filter(|(place, word)| kept.get(place) != Some(word)).collect();
    assert!(differ.is_empty(), "docs/reliability.md says otherwise of these: {differ:#?}");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long"]
async fn every_fault_at_every_stage() {
    let mut cells = all(|_, _, _| true);
    if let Ok(rows) = std::env::var("PACHARC_FAULT_ROWS") {
        cells.retain(|cell| cell.name.contains(&rows));
    }
    let Some(found) = strike(cells).await else { return };
    for job in [Job::Backup, Job::Restore] {
        let mut cells = read(job);
        cells.extend(found.clone());
        keep(part(job), &table(job, &cells));
    }
}

fn table(job: Job, cells: &Cells) -> String {
    let stages: Vec<&'static str> = job.stages().iter().map(|stage| stage.0).collect();
    let mut text = format!("| what went wrong | {} |\n|---|{}\n", stages.join(" | "), "---|".repeat(stages.len()));
    for (name, _) in job.faults() {
        let word = |stage: &&'static str| cells.get(&(part(job), name, *stage)).map_or("?", String::as_str);
        let words: Vec<&str> = stages.iter().map(word).collect();
        writeln!(text, "| {name} | {} |", words.join(" | ")).unwrap();
    }
    text
}

fn all(is_wanted: impl Fn(usize, usize, usize) -> bool) -> VecDeque<Cell> {
    let mut cells = VecDeque::new();
    for job in [Job::Backup, Job::Restore] {
        for (row, (name, fault)) in job.faults().into_iter().enumerate() {
            for (column, &stage) in job.stages().iter().enumerate() {
                if is_wanted(row, column, job.stages().len()) {
                    cells.push_back(Cell { job, name, fault, stage });
                }
            }
        }
    }
    cells
}

/// What the page says.
fn read(job: Job) -> Cells {
    let mut cells = Cells::new();
    let text = kept(part(job));
    for line in text.lines() {
        let words: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let Some((name, _)) = job.faults().into_iter().find(|(name, _)| words.first() == Some(name)) else { continue };
        for (stage, word) in job.stages().iter().zip(&words[1..]) {
            cells.insert((part(job), name, stage.0), (*word).to_owned());
        }
    }
    cells
}

/// Strikes each cell, on stands side by side; fails where anything is wrong. `None`, having said so, where a stand cannot be
/// made.
async fn strike(cells: VecDeque<Cell>) -> Option<Cells> {
    // They wait more than they work; a stand for fewer cells is not worth its making.
    let workers = std::thread::available_parallelism().map_or(2, |cores| 2 * cores.get()).min(cells.len() / 25 + 1);
    let cells = Arc::new(Mutex::new(cells));
    let tasks: Vec<_> = (0..workers)
        .map(|_| {
            let (cells, handle) = (Arc::clone(&cells), tokio::runtime::Handle::current());
            // They wait for processes, and the servers of buckets must not wait with them.
            let work = async move {
                let mut stand = Stand::make().await?;
                let (mut found, mut problems) = (Cells::new(), Vec::new());
                loop {
                    let Some(cell) = cells.lock().unwrap().pop_front() else { return Some((found, problems)) };
                    let struck = stand.strike(cell.job, cell.stage, cell.fault).await;
                    println!("{:?}: {struck:?}", cell.place());
                    match struck {
                        Ok(word) => drop(found.insert(cell.place(), word)),
                        Err(problem) => problems.push(format!("{:?}: {problem}", cell.place())),
                    }
                }
            };
            tokio::task::spawn_blocking(move || handle.block_on(work))
        })
        .collect();
    let (mut found, mut problems) = (Cells::new(), Vec::new());
    for task in tasks {
        let (cells, wrong) = task.await.unwrap()?;
        found.extend(cells);
        problems.extend(wrong);
    }
    assert!(problems.is_empty(), "{} cells:\n{}", problems.len(), problems.join("\n"));
    Some(found)
}
