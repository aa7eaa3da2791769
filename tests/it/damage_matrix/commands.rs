//! What every command makes of a bundle, in one word.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use crate::support::program::{Desk, words};

use super::damages::Damaged;
use super::target::Target;

/// Where the bundle `x.pacharc` lies, and what commands are told.
pub struct Site {
    pub desk: Desk,
    /// The id that is expected.
    pub id: String,
    /// Where databases are restored.
    pub target: Option<Target>,
}

/// What a run gave: its exit code, standard output, and the files that it wrote, by path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Given {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
    pub files: BTreeMap<String, Vec<u8>>,
}

fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    let Ok(entries) = fs::read_dir(folder) else { return found };
    for entry in entries.map(|entry| entry.unwrap()) {
        let name = entry.file_name().into_string().unwrap();
        match entry.file_type().unwrap().is_dir() {
            true => {
                found.extend(files(&entry.path()).into_iter().map(|(path, bytes)| (format!("{name}/{path}"), bytes)))
            }
            false => drop(found.insert(name, fs::read(entry.path()).unwrap())),
        }
    }
    found
}

impl Site {
    /// Runs a command on the bundle.
    pub fn run(&self, command: &str) -> Given {
        let desk = &self.desk;
        let (key, bucket) = (["--identity", "key.txt"], desk.bucket("target"));
        let keyed = |args: &[&str]| words(&[args, &key].concat());
        let mut args = match command {
            "verify, no key" => words(&["verify", "x.pacharc"]),
            "verify --expect-id" => words(&["verify", "x.pacharc", "--expect-id", &self.id]),
            "verify, key" => keyed(&["verify", "x.pacharc"]),
            "verify --level closed" => keyed(&["verify", "x.pacharc", "--level", "closed"]),
            "verify --level restore" => keyed(&["verify", "x.pacharc", "--level", "restore"]),
            "list" => keyed(&["list", "x.pacharc"]),
            "inspect" => keyed(&["inspect", "x.pacharc", "--json"]),
            "extract" => keyed(&["extract", "x.pacharc", "-o", "out", "cluster", "database", "objects"]),
            "extract --keep-going" => {
                keyed(&["extract", "--keep-going", "x.pacharc", "-o", "out", "cluster", "database", "objects"])
            }
            "plan restore" => keyed(&["plan", "restore", "x.pacharc", "--bucket", &bucket]),
            "restore" | "restore to PostgreSQL" => keyed(&["restore", "x.pacharc", "--bucket", &bucket]),
            _ => unreachable!(),
        };
        match (&self.target, command) {
            (Some(target), "restore to PostgreSQL") => args.extend(["--postgres".to_owned(), target.url()]),
            (Some(target), "verify --level restore") => args.extend(["--scratch-postgres".to_owned(), target.url()]),
            _ => {}
        }
        let run = desk.run(args);
        let mut files = files(&desk.path(if command.starts_with("restore") { "target" } else { "out" }));
        files.extend(self.target.iter().flat_map(|target| target.take(command)));
        for folder in ["out", "target"] {
            fs::remove_dir_all(desk.path(folder)).ok();
        }
        assert!(desk.leftovers().is_empty(), "{command} left {:?}", desk.leftovers());
        let stdout = match command {
            // Of its events the last one; how long it took, and the file's size, are no matter.
            "inspect" => {
                let last = run.text().lines().last().unwrap_or_default().to_owned();
                let mut event: serde_json::Value = serde_json::from_str(&last).unwrap_or_default();
                event["outcome"]["bytes"].take();
                event["outcome"].to_string()
            }
            _ => run.text().replace(&*desk.folder().to_string_lossy(), ""),
        };
        Given { code: run.status.code().unwrap_or(-1), stdout, stderr: run.stderr, files }
    }
}

/// One word on what a command made of a damaged bundle, where the whole one gave `good`. What must not be is in capitals.
/// `other` are the files of the bundle that some were spliced from: they may come whole where it lies in the file whole.
pub fn word(
    command: &str,
    damaged: &Damaged,
    good: &Given,
    other: &BTreeMap<String, Vec<u8>>,
    given: &Given,
) -> &'static str {
    let are_right = |files: &BTreeMap<String, Vec<u8>>| {
        let is_of =
            |whole: &BTreeMap<String, Vec<u8>>| files.iter().all(|(path, bytes)| whole.get(path) == Some(bytes));
        is_of(&good.files) || (damaged.damage == "another bundle in front" && is_of(other))
    };
    let is_verify = command.starts_with("verify");
    if given.stderr.contains("panicked") {
        return "PANIC";
    }
    match given.code {
        0 if is_verify && damaged.has_new_sums && command == "verify, no key" => "another id",
        0 if is_verify => "SOUND",
        0 if given.files == good.files && given.stdout == good.stdout => "whole",
        0 => "WRONG",
        3 | 5 | 6 if !are_right(&given.files) => "WRONG",
        3 if command == "extract --keep-going" && !given.files.is_empty() => "rescued",
        3 => "told",
        5 | 6 => "refused",
        _ => "FAILED",
    }
}
