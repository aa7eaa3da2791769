//! Where jobs meet faults: a source, a target, and a bundle that is good.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use pacharc_sample::bucket::{Bucket, Directory};
use pacharc_sample::cluster::{self, Options};
use pacharc_sample::compare::{self, Contents};
use pacharc_sample::postgres::{self, StopMode, TempServer};
use pacharc_sample::programs;
use tempfile::TempDir;

use super::faults::{Fault, Job, Stage};
use crate::support::fault_server::FaultServer;
use crate::support::moments::{is_stopped, make_faulty};
use crate::support::program::{Desk, Run, Running, wait_until, words};

/// Not met by a fault: there is nothing at that stage that it could meet.
pub const NOT_MET: &str = "-";

/// How many objects no listing shows, so that they are copied when the database has told of them.
const UNLISTED: usize = 3;

/// Kills itself in the place of the next PostgreSQL program, where the file `die` says so.
const CHILD: &str = r#"#!/bin/sh
if [ "$1" != --version ] && /bin/mv die died 2>/dev/null; then
    read -r how <died
    [ "$how" = work ] && PROGRAM "$@" | /usr/bin/head -c 64
    kill -KILL $$
fi
exec PROGRAM "$@"
"#;

pub struct Stand {
    desk: Desk,
    /// The decorator, and the files that tell it what to do; where PostgreSQL's account can read them.
    faulty: TempDir,
    servers: [TempServer; 2],
    source: Arc<FaultServer>,
    target: Arc<FaultServer>,
    contents: Vec<Contents>,
    objects: u64,
    /// One that listings show, and one that they do not.
    keys: [String; 2],
    good: BTreeMap<String, Vec<u8>>,
}

const DATABASES: [&str; 2] = ["pachyderm", "dex"];

impl Stand {
    pub async fn make() -> Option<Self> {
        let faulty = tempfile::tempdir().unwrap();
        std::fs::set_permissions(faulty.path(), Permissions::from_mode(0o755)).unwrap();
        let library = faulty.path().join("faulty.so");
        if !make_faulty(&library) {
            pacharc_sample::skipped("the fault matrix: no C compiler for the faults");
            return None;
        }
        for name in ["own", "server"] {
            std::fs::write(faulty.path().join(name), " ").unwrap();
        }
        let environment = decorate(&library, &faulty.path().join("server"), "/base/");
        let decorated = postgres::Options { environment, ..postgres::Options::default() };
        let mut servers = [
            TempServer::start_or_skip(&postgres::Options::default()).unwrap()?,
            TempServer::start_or_skip(&decorated).unwrap()?,
        ];
        servers[1].psql("postgres", "CREATE ROLE pachyderm LOGIN").unwrap();
        let (source, target) = (Arc::new(FaultServer::start().await), Arc::new(FaultServer::start().await));
        // Some megabytes of jobs: a table that a psql of its own reads.
        let options = Options { objects: 20, sizes: 1..=20_000, jobs: 100, job_bytes: 15_000, ..Options::default() };
        let bucket: Arc<dyn Bucket> = Arc::clone(&source) as Arc<dyn Bucket>;
        let url = servers[0].url("postgres");
        let objects = cluster::make(&url, bucket, &options).await.unwrap().objects();
        // After a crash PostgreSQL passes over some values of its sequences, once.
        servers[0].psql("postgres", "CHECKPOINT").unwrap();
        servers[0].stop(StopMode::Immediate).unwrap();
        servers[0].restart().unwrap();
        // Of some length, so that cutting them short takes something away.
        let mut live = compare::live_keys(&servers[0].url("pachyderm")).await.unwrap();
        live.retain(|key| source.object(key).is_some_and(|bytes| bytes.len() > 100));
        live.iter().take(UNLISTED).for_each(|key| source.unlist(key));
        let keys = [live[UNLISTED].clone(), live[0].clone()];
        let contents = DATABASES.map(|name| Contents::read(&url, name).unwrap()).into();
        let desk = Desk::new();
        std::fs::create_dir(desk.path("bin")).unwrap();
        for name in ["pg_dump", "psql"] {
            let (program, path) = (programs::client(name, servers[0].major()).unwrap(), desk.path("bin").join(name));
            std::fs::write(&path, CHILD.replace("PROGRAM", &program.to_string_lossy())).unwrap();
            std::fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
        }
        let program = programs::client("pg_dumpall", servers[0].major()).unwrap();
        std::os::unix::fs::symlink(program, desk.path("bin/pg_dumpall")).unwrap();
        let good = BTreeMap::new();
        let mut stand = Self { desk, faulty, servers, source, target, contents, objects, keys, good };
        stand.run(Job::Backup, true).code(0);
        stand.good = stand.extracted();
        assert!(stand.good.len() > 40, "{:?}", stand.good.keys());
        std::fs::rename(stand.desk.path("c.pacharc"), stand.desk.path("good.pacharc")).unwrap();
        // What is equal to what lies in this bundle is equal to the source.
        stand.run(Job::Restore, true).code(0);
        assert_eq!(stand.difference(true).await, None);
        stand.clear();
        Some(stand)
    }

    /// One cell: the exit code, and a word on what came of it. What must not be is an error.
    pub async fn strike(&mut self, job: Job, stage: Stage, fault: Fault) -> Result<String, String> {
        let is_remote = job == Job::Backup || matches!(fault, Fault::Listing(_) | Fault::Object(_));
        let mut command = self.command(job, is_remote);
        let decoration = decorate(
            &self.faulty.path().join("faulty.so"),
            &self.faulty.path().join("own"),
            &self.desk.folder().to_string_lossy(),
        );
        command.envs(decoration).env("FAULTY_STAGE", stage.1);
        let mut running = Running::start(&mut command);
        let id = running.id();
        wait_until(&format!("{job:?} comes to {}", stage.0), || {
            assert!(!running.has_ended(), "{job:?} has ended before {}", stage.0);
            is_stopped(id)
        });
        self.begin(job, fault, id);
        Command::new("kill").args(["-CONT", &id.to_string()]).status().unwrap();
        let run = running.finish();
        let is_met = self.end(job, fault);
        let found = match job {
            Job::Backup => self.judge_backup(&run),
            Job::Restore => self.judge_restore(&run, is_remote).await,
        };
        self.clear();
        let word = found.map_err(|problem| format!("{problem}: {}", run.stderr))?;
        Ok(match is_met {
            Some(false) => NOT_MET.to_owned(),
            Some(true) if word == "0 equal" && fault.is_refusal() => "0 retried, equal".to_owned(),
            _ => word,
        })
    }

    /// Makes happen what is to happen, while the job stands still.
    fn begin(&mut self, job: Job, fault: Fault, id: u32) {
        let (bucket, method, at) = match job {
            Job::Backup => (&self.source, "GET", 0),
            Job::Restore => (&self.target, "PUT", 1),
        };
        match fault {
            Fault::Signal(signal) => {
                Command::new("kill").args([format!("-{signal}"), id.to_string()]).status().unwrap();
            }
            Fault::Own(what) => self.plan("own", what),
            Fault::Server(what) => self.plan("server", what),
            Fault::NoFiles => {
                let open = std::fs::read_dir(format!("/proc/{id}/fd")).unwrap();
                let open: BTreeSet<u32> =
                    open.filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok()).collect();
                let free = (0..).find(|number| !open.contains(number)).unwrap();
                let limit = format!("--nofile={free}:");
                assert!(Command::new("prlimit").args(["--pid", &id.to_string(), &limit]).status().unwrap().success());
            }
            Fault::Listing(answer) => bucket.plan_for("GET", "", [answer]),
            Fault::Object(answer) if job == Job::Backup => {
                // The stages read others.
                self.keys.iter().for_each(|key| bucket.plan_for(method, key, [answer]));
            }
            Fault::Object(answer) => bucket.plan_for(method, &self.keys[0], [answer]),
            Fault::Killed { is_back } => {
                self.servers[at].stop(StopMode::Immediate).unwrap();
                if is_back {
                    self.servers[at].restart().unwrap();
                }
            }
            Fault::Sessions => {
                let sql = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
                           WHERE application_name LIKE 'pacharc%'";
                self.servers.iter().for_each(|server| drop(server.psql("postgres", sql).unwrap()));
            }
            Fault::Child { at_work } => {
                std::fs::write(self.desk.path("die"), if at_work { "work\n" } else { "start\n" }).unwrap();
            }
        }
    }

    /// Makes everything as it was; whether the fault has met anything, where that is known.
    fn end(&mut self, job: Job, fault: Fault) -> Option<bool> {
        self.plan("own", ' ');
        self.plan("server", ' ');
        let (source, target) = (self.source.planned(), self.target.planned());
        self.source.calm();
        self.target.calm();
        match fault {
            Fault::Listing(_) => Some(source + target == 0),
            Fault::Object(_) if job == Job::Backup => Some(source < self.keys.len()),
            Fault::Object(_) => Some(target == 0),
            Fault::Killed { is_back: false } => {
                self.servers[if job == Job::Backup { 0 } else { 1 }].restart().unwrap();
                None
            }
            Fault::Server(_) => {
                let server = &self.servers[1];
                wait_until("the server is well again", || server.psql("postgres", "SELECT 1").is_ok());
                None
            }
            Fault::Child { .. } => {
                std::fs::remove_file(self.desk.path("died")).ok();
                Some(std::fs::remove_file(self.desk.path("die")).is_err())
            }
            _ => None,
        }
    }

    fn plan(&self, who: &str, what: char) {
        // In place: it is looked at through memory.
        let file = std::fs::OpenOptions::new().write(true).open(self.faulty.path().join(who)).unwrap();
        std::os::unix::fs::FileExt::write_at(&file, &[u8::try_from(what).unwrap()], 0).unwrap();
    }

    fn judge_backup(&self, run: &Run) -> Result<String, String> {
        self.nothing_left(run)?;
        let is_there = self.desk.path("c.pacharc").exists();
        match run.status.code() {
            Some(0) => {
                self.bundle_equal()?;
                let again = run.text().contains(r#""event":"attempt_failed""#);
                Ok(if again { "0 again, equal" } else { "0 equal" }.to_owned())
            }
            None if is_there => {
                self.bundle_equal()?;
                Ok("killed, equal".to_owned())
            }
            code => {
                if is_there {
                    return Err(format!("{code:?}, and a bundle under its name"));
                }
                let word = told(run)?;
                let again = self.run(Job::Backup, true);
                if again.status.code() != Some(0) {
                    return Err(format!("and the next run ended with {:?}: {}", again.status, again.stderr));
                }
                self.bundle_equal()?;
                Ok(word)
            }
        }
    }

    async fn judge_restore(&self, run: &Run, is_remote: bool) -> Result<String, String> {
        self.nothing_left(run)?;
        if run.status.code() == Some(0) {
            return self.difference(is_remote).await.map_or(Ok("0 equal".to_owned()), Err);
        }
        let word = told(run)?;
        let again = self.run(Job::Restore, is_remote);
        let word = match again.status.code() {
            Some(0) => word,
            // Killed behind its last step it is done, and the target not empty any more.
            Some(5) if run.status.code().is_none() => "killed, equal".to_owned(),
            code => return Err(format!("and the next run ended with {code:?}: {}", again.stderr)),
        };
        self.difference(is_remote).await.map_or(Ok(word), Err)
    }

    /// That neither a process nor a session nor a file of the run is left; who is killed leaves files that have no name.
    fn nothing_left(&self, run: &Run) -> Result<(), String> {
        let folder = self.desk.folder();
        let is_ours = |process: &Path| std::fs::read_link(process.join("cwd")).is_ok_and(|cwd| cwd == folder);
        wait_until("no process is left", || {
            !std::fs::read_dir("/proc").unwrap().flatten().any(|entry| is_ours(&entry.path()))
        });
        let sql = "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'pacharc%'";
        for server in &self.servers {
            wait_until("no session is left", || server.psql("postgres", sql).unwrap() == "0");
        }
        let mut left = self.desk.leftovers();
        left.extend(half_made(&self.desk.path("target")));
        if self.target.uploading() {
            left.push("an upload".to_owned());
        }
        match run.status.code() {
            Some(_) if !left.is_empty() => Err(format!("{left:?} is left")),
            _ => Ok(()),
        }
    }

    fn command(&self, job: Job, is_remote: bool) -> Command {
        let bucket = match job {
            Job::Backup => self.source.url(),
            Job::Restore if is_remote => self.target.url(),
            Job::Restore => self.desk.bucket("target"),
        };
        let bin = self.desk.path("bin").to_string_lossy().into_owned();
        let server = self.servers[if job == Job::Backup { 0 } else { 1 }].url("postgres");
        let place = words(&["--json", "--pg-bin", &bin, "--postgres", &server, "--bucket", &bucket]);
        self.desk.command(match job {
            Job::Backup => {
                let databases = ["--database", DATABASES[0], "--database", DATABASES[1]];
                self.desk.backup_args(&place, "c.pacharc", &databases)
            }
            Job::Restore => Desk::restore_args("good.pacharc", &place, &[]),
        })
    }

    fn run(&self, job: Job, is_remote: bool) -> Run {
        Running::start(&mut self.command(job, is_remote)).finish()
    }

    /// That the backup's bundle is sound, and holds what the good one does.
    fn bundle_equal(&self) -> Result<(), String> {
        let verified = self.desk.run(["verify", "c.pacharc", "--identity", "key.txt", "--level", "closed"]);
        if verified.status.code() != Some(0) {
            return Err(format!("the bundle is not sound: {}", verified.stderr));
        }
        let found = self.extracted();
        let differs = |path: &&String| found.get(*path) != self.good.get(*path);
        match found.keys().chain(self.good.keys()).find(differs) {
            Some(path) => Err(format!("{path} is another one")),
            None => Ok(()),
        }
    }

    /// What is in the backup's bundle; of the databases the attempt that counts.
    fn extracted(&self) -> BTreeMap<String, Vec<u8>> {
        let out = self.desk.path("out");
        self.desk
            .run(words(&["extract", "c.pacharc", "--identity", "key.txt", "-o", "out", "database", "objects"]))
            .code(0);
        let mut found = BTreeMap::new();
        let mut folders = vec![out.clone()];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
                match entry.is_dir() {
                    true => folders.push(entry),
                    false => {
                        let name = entry.strip_prefix(&out).unwrap().to_string_lossy().into_owned();
                        found.insert(name, std::fs::read(&entry).unwrap());
                    }
                }
            }
        }
        std::fs::remove_dir_all(out).unwrap();
        let valid = |path: &str| -> Option<String> {
            let folder = path.split("/attempt-").next()?;
            let attempt = String::from_utf8(found.get(&format!("{folder}/VALID"))?.clone()).ok()?;
            Some(format!("{folder}/{}/", attempt.trim()))
        };
        let kept = found.iter().filter_map(|(path, bytes)| match path.split_once("/attempt-") {
            None if path.ends_with("/VALID") => None,
            None => Some((path.clone(), bytes.clone())),
            Some((folder, _)) => {
                let rest = path.strip_prefix(&valid(path)?)?;
                Some((format!("{folder}/{rest}"), without_restrict(bytes)))
            }
        });
        kept.collect()
    }

    /// How what was restored differs from the source, by other code than pacharc's.
    async fn difference(&self, is_remote: bool) -> Option<String> {
        let server = self.servers[1].url("postgres");
        for (contents, name) in self.contents.iter().zip(DATABASES) {
            let compared = contents.compare(&server, name).unwrap();
            if !compared.is_equal() || compared.compared < 30 {
                return Some(format!("RESTORED WRONG: {compared}"));
            }
        }
        let restored: Arc<dyn Bucket> = match is_remote {
            true => Arc::clone(&self.target) as Arc<dyn Bucket>,
            false => Arc::new(Directory::new(self.desk.path("target"))),
        };
        let source: Arc<dyn Bucket> = Arc::clone(&self.source) as Arc<dyn Bucket>;
        let compared = compare::buckets(&source, &restored, None).await.unwrap();
        (!compared.is_equal() || compared.compared as u64 != self.objects)
            .then(|| format!("RESTORED WRONG: {compared}"))
    }

    /// Takes away what a run made.
    fn clear(&self) {
        let names = self.servers[1].psql(
            "postgres",
            "SELECT datname FROM pg_database WHERE datname NOT IN ('postgres', 'template0', 'template1')",
        );
        for name in names.unwrap().lines() {
            self.servers[1].psql("postgres", &format!("DROP DATABASE \"{name}\" WITH (FORCE)")).unwrap();
        }
        self.target.keys().iter().for_each(|key| self.target.remove(key));
        std::fs::remove_dir_all(self.desk.path("target")).ok();
        std::fs::remove_file(self.desk.path("c.pacharc")).ok();
        self.desk.leftovers().iter().for_each(|name| drop(std::fs::remove_file(self.desk.path(name))));
    }
}

/// The variables that put the decorator into a process.
fn decorate(library: &Path, file: &Path, path: &str) -> Vec<(String, OsString)> {
    vec![
        ("LD_PRELOAD".to_owned(), library.into()),
        ("FAULTY_FILE".to_owned(), file.into()),
        ("FAULTY_PATH".to_owned(), path.into()),
    ]
}

/// That it failed as failures must: with a known code, and with advice.
fn told(run: &Run) -> Result<String, String> {
    match run.status.code() {
        None => Ok("killed".to_owned()),
        Some(code @ (130 | 143)) => Ok(format!("{code} told")),
        Some(code @ (1 | 7)) if run.has_advice() && !run.stderr.contains("panicked") => Ok(format!("{code} told")),
        code => Err(format!("ended with {code:?}")),
    }
}

/// The temporary files in a directory bucket.
fn half_made(folder: &Path) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    let mut folders: Vec<PathBuf> = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten().map(|entry| entry.unwrap().path()) {
            match entry.is_dir() {
                true => folders.push(entry),
                false if entry.extension().is_some_and(|end| end == "tmp") => found.push(entry.display().to_string()),
                false => {}
            }
        }
    }
    found
}

/// A dump without the lines that newer pg_dumps draw by chance.
fn without_restrict(bytes: &[u8]) -> Vec<u8> {
    let lines = bytes.split_inclusive(|&byte| byte == b'\n');
    lines
        .filter(|line| !line.starts_with(b"\\restrict") && !line.starts_with(b"\\unrestrict"))
        .flatten()
        .copied()
        .collect()
}
