//! A memory cgroup (version 1 or 2): whoever takes more in it is killed by the kernel.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::program::under;

/// A group of its own; gone when dropped.
pub struct Cgroup {
    folder: PathBuf,
}

impl Cgroup {
    /// One in which at most `limit` bytes are resident, with nothing swapped out; `None`, having said so, where none can be
    /// made.
    pub fn make(name: &str, limit: u64) -> Option<Self> {
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let hierarchies = mounts.lines().filter_map(|line| {
            let words: Vec<&str> = line.split(' ').collect();
            let is_first = words[2] == "cgroup" && words[3].split(',').any(|option| option == "memory");
            (is_first || words[2] == "cgroup2").then(|| Path::new(words[1]).to_owned())
        });
        for hierarchy in hierarchies {
            let group = Self { folder: hierarchy.join(format!("pacharc-test-{}-{name}", std::process::id())) };
            if std::fs::create_dir(&group.folder).is_err() {
                continue;
            }
            let is_set = |file: &str, value: &str| std::fs::write(group.folder.join(file), value).is_ok();
            let limit = limit.to_string();
            let first = is_set("memory.limit_in_bytes", &limit) && is_set("memory.swappiness", "0");
            if first || (is_set("memory.max", &limit) && is_set("memory.swap.max", "0")) {
                return Some(group);
            }
        }
        println!("skipped: no memory cgroup can be made here");
        None
    }

    /// The command, to be run in the group, its children too.
    pub fn confine(&self, command: &Command) -> Command {
        let enter = "echo $$ > \"$0\" && exec \"$@\"";
        under(&["sh", "-c", enter, self.folder.join("cgroup.procs").to_str().unwrap()], command)
    }

    /// How many processes of it were killed for want of memory.
    pub fn killed(&self) -> u64 {
        let read = |file| std::fs::read_to_string(self.folder.join(file)).ok();
        let text = read("memory.events").or_else(|| read("memory.oom_control")).unwrap();
        let count = text.lines().find_map(|line| line.strip_prefix("oom_kill ")).unwrap();
        count.trim().parse().unwrap()
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        std::fs::remove_dir(&self.folder).ok();
    }
}
