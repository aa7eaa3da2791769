//! One long run: a folder that outlives it, in which each step that is done leaves its figures.

use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use pacharc_sample::postgres::{Options, TempServer};

use crate::support::program::{Desk, Running, words};

const MIB: u64 = 1 << 20;

/// The steps of one long run.
pub struct Course {
    /// Where the program runs.
    pub desk: Desk,
    max_memory: u64,
    scale: u64,
    /// What the steps took, in their order.
    figures: String,
    /// Which steps took more memory than they may.
    over: Vec<String>,
}

impl Course {
    /// Opens the run of this name, or begins it. Every command gets `--max-memory`, and must keep to it.
    pub fn open(name: &str, max_memory: u64) -> Self {
        let root = std::env::var_os("PACHARC_LONG_DIR").map(PathBuf::from);
        let root = root.unwrap_or_else(|| PathBuf::from(env!("CARGO_TARGET_TMPDIR")).with_file_name("long"));
        let scale = std::env::var("PACHARC_LONG_SCALE").map_or(1, |scale| scale.parse().unwrap());
        let folder = root.join(if scale == 1 { name.to_owned() } else { format!("{name}-{scale}") });
        // What did not get its source made is of no use.
        if !folder.join("source.done").exists() && folder.exists() {
            fs::remove_dir_all(&folder).unwrap();
        }
        Self { desk: Desk::at(&folder), max_memory, scale, figures: String::new(), over: Vec::new() }
    }

    /// `full`, or a part of it in a quick run.
    pub fn scaled(&self, full: u64) -> u64 {
        full.div_ceil(self.scale)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.desk.path(name)
    }

    /// A server whose data stay; `None`, having said so, where PostgreSQL is not installed.
    pub fn server(&self, name: &str) -> Option<TempServer> {
        // Much is written at once here.
        let settings = [("max_wal_size", "4GB"), ("shared_buffers", "256MB"), ("autovacuum", "off")];
        let settings = settings.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        TempServer::start_in(&self.path(name), &Options { settings, ..Options::default() }).unwrap()
    }

    pub fn is_done(&mut self, step: &str) -> bool {
        let Ok(figures) = fs::read_to_string(self.path(&format!("{step}.done"))) else { return false };
        self.note(step, &figures);
        true
    }

    pub fn done(&mut self, step: &str, figures: &str) {
        fs::write(self.path(&format!("{step}.done")), figures).unwrap();
        self.note(step, figures);
    }

    /// The step's outcome is gone: it must be done again.
    pub fn undo(&self, step: &str) {
        fs::remove_file(self.path(&format!("{step}.done"))).ok();
    }

    fn note(&mut self, step: &str, figures: &str) {
        if !figures.is_empty() && !self.figures.contains(&format!("{step:<18}")) {
            writeln!(self.figures, "{step:<18}{figures}").unwrap();
        }
    }

    /// Runs the program, which must succeed; what memory it took is judged at the end.
    pub fn run(&mut self, step: &str, args: &[String]) {
        if self.is_done(step) {
            return;
        }
        let mut args = args.to_vec();
        if args[0] != "inspect" {
            args.extend(words(&["--max-memory", &format!("{}MiB", self.max_memory / MIB)]));
        }
        let begun = Instant::now();
        let mut running = Running::start(&mut self.desk.command(&args));
        let mut peak = 0;
        while !running.has_ended() {
            // The last milliseconds of a process are not seen, but nothing large is taken then.
            peak = running.peak_memory().unwrap_or(peak);
            std::thread::sleep(Duration::from_millis(2));
        }
        let seconds = begun.elapsed().as_secs_f64();
        running.finish().code(0);
        let figures = format!("{seconds:8.1} s {:6} MiB", peak.div_ceil(MIB));
        eprintln!("{step:<18}{figures}");
        // It is done all the same: what comes after it can be tried, and a broken run goes on behind it.
        if peak > self.max_memory {
            self.over.push(format!("{step} took {peak} bytes of memory, of {}", self.max_memory));
        }
        self.done(step, &figures);
    }

    pub fn backup(&mut self, step: &str, source: &[String], bundle: &str) {
        if !self.is_done(step) {
            fs::remove_file(self.path(bundle)).ok();
            self.run(step, &self.desk.backup_args(source, bundle, &[]));
        }
    }

    pub fn verify(&mut self, bundle: &str) {
        self.run("verify sums", &words(&["verify", bundle]));
        self.run("verify contents", &words(&["verify", bundle, "--identity", "key.txt"]));
    }

    /// Lists everything, and takes the entry `path` out, into the folder `out`.
    pub fn look_into(&mut self, bundle: &str, path: &str) {
        self.run("list", &words(&["list", bundle, "--identity", "key.txt"]));
        if !self.path("out").exists() {
            self.undo("extract");
        }
        self.run("extract", &words(&["extract", bundle, path, "--identity", "key.txt", "-o", "out"]));
    }

    /// Broken off, a restore goes on where it stopped.
    pub fn restore(&mut self, step: &str, bundle: &str, target: &[String]) {
        self.run(step, &Desk::restore_args(bundle, target, &[]));
    }

    /// Tells the figures, and takes everything away; `servers` first, since they live in the folder. Fails where a step
    /// took too much memory.
    pub fn finish<T>(self, servers: T) {
        drop(servers);
        eprintln!("{}\n{}", self.desk.folder().display(), self.figures);
        fs::remove_dir_all(self.desk.folder()).unwrap();
        assert!(self.over.is_empty(), "{}", self.over.join("; "));
    }
}
