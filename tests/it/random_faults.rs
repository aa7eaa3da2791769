//! Single faults at random moments of whole backups and restores: nothing is restored wrong, nothing is called sound that is
//! not, and nothing is left over. What comes next is drawn from a seed (`PACHARC_FAULT_SEED`); the moment it meets depends on
//! the machine.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use pacharc_sample::bucket::Bucket;
use pacharc_sample::chunk::Chunk;
use pacharc_sample::cluster::Options;
use pacharc_sample::compare::{self, Contents};

use crate::support::cluster::{Cluster, target_server};
use crate::support::fault_server::{Fault, FaultServer};
use crate::support::program::{Desk, Run, Running, under, wait_until, words};

/// As many as everybody has the time for.
const SOME: u64 = 150;

/// So little that an object of nine million bytes is copied in pieces, and restored by an upload in parts.
const MEMORY: &[&str] = &["--max-memory", "64M"];
const LARGE: u64 = 9_000_000;

#[tokio::test(flavor = "multi_thread")]
async fn some_single_faults() {
    strike("some_faults", SOME, None, processors()).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long"]
async fn ten_thousand_single_faults() {
    let scale: u64 = std::env::var("PACHARC_LONG_SCALE").map_or(1, |scale| scale.parse().unwrap());
    let seed = std::env::var("PACHARC_FAULT_SEED").unwrap_or_default();
    // Of one program alone: another has it all before it.
    let program = blake3::hash(&std::fs::read(env!("CARGO_BIN_EXE_pacharc")).unwrap()).to_hex();
    let state = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("faults-{seed}-{}", &program[..16]));
    // They wait about as long as they work.
    strike("many_faults", u64::div_ceil(10_000, scale), Some(state), 2 * processors()).await;
}

fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from).min(4)
}

/// Strikes so many times, in so many worlds side by side. What was done is kept in `state`, where there is one, and not done
/// again.
async fn strike(name: &str, count: u64, state: Option<PathBuf>, workers: usize) {
    let seed = std::env::var("PACHARC_FAULT_SEED").map_or(1, |seed| seed.parse().unwrap());
    let results = Arc::new(Results::open(state));
    let (before, next) = (results.count(), Arc::new(AtomicU64::new(0)));
    let work = |worker| {
        let (results, next, name) = (Arc::clone(&results), Arc::clone(&next), format!("{name}_{worker}"));
        async move {
            let Some(world) = World::make(&name).await else { return };
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= count {
                    return;
                }
                if !results.has(number) {
                    results.add(number, &world.strike(seed, number).await);
                }
            }
        }
    };
    let handle = tokio::runtime::Handle::current();
    // They wait for processes, and the servers of buckets must not wait with them.
    let tasks: Vec<_> = (0..workers)
        .map(|worker| (handle.clone(), work(worker)))
        .map(|(handle, work)| tokio::task::spawn_blocking(move || handle.block_on(work)))
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    println!("{} faults of seed {seed}, {before} of them in earlier runs:", results.count());
    results.print();
}

/// What came of each fault, by its number; in a file, too, if the run is a long one.
struct Results(Mutex<(BTreeMap<u64, String>, Option<File>)>);

impl Results {
    fn open(state: Option<PathBuf>) -> Self {
        let Some(path) = state else { return Self(Mutex::default()) };
        let kept = std::fs::read_to_string(&path).unwrap_or_default();
        let kept = kept.lines().filter_map(|line| line.split_once(' '));
        let kept = kept.map(|(number, result)| (number.parse().unwrap(), result.to_owned())).collect();
        let file = OpenOptions::new().create(true).append(true).open(path).unwrap();
        Self(Mutex::new((kept, Some(file))))
    }

    fn has(&self, number: u64) -> bool {
        self.0.lock().unwrap().0.contains_key(&number)
    }

    fn count(&self) -> usize {
        self.0.lock().unwrap().0.len()
    }

    fn add(&self, number: u64, result: &str) {
        let (results, file) = &mut *self.0.lock().unwrap();
        if let Some(file) = file {
            file.write_all(format!("{number} {result}\n").as_bytes()).unwrap();
        }
        results.insert(number, result.to_owned());
    }

    fn print(&self) {
        let mut times: BTreeMap<String, u64> = BTreeMap::new();
        let (results, _) = &*self.0.lock().unwrap();
        results.values().for_each(|result| *times.entry(result.clone()).or_default() += 1);
        for (result, times) in times {
            println!("{times:>6} {result}");
        }
    }
}

/// Numbers that depend on a seed alone.
struct Draw(blake3::OutputReader);

impl Draw {
    fn new(seed: u64, number: u64) -> Self {
        let seed = [seed.to_le_bytes(), number.to_le_bytes()].concat();
        Self(blake3::Hasher::new().update(&seed).finalize_xof())
    }

    fn below(&mut self, limit: u64) -> u64 {
        let mut bytes = [0; 8];
        self.0.fill(&mut bytes);
        u64::from_le_bytes(bytes) % limit
    }
}

/// What goes wrong, once.
#[derive(Clone, Debug)]
enum Single {
    /// A signal, after so long.
    Signal(&'static str, Duration),
    /// All sessions of the run are ended on both servers, after so long.
    Sessions(Duration),
    /// One of its children is killed, after so long.
    Child(Duration),
    /// This request of its kind, counted from 0, meets a fault.
    Request(&'static str, u64, Fault),
    /// An object's bytes come wrong, once.
    Wrong(String),
    /// It may open so many files.
    Files(u64),
    /// Files of more kilobytes cannot be written.
    FileSize(u64),
}

impl Single {
    fn name(&self) -> String {
        match self {
            Self::Signal(name, _) => format!("SIG{name}"),
            Self::Sessions(_) => "sessions ended".into(),
            Self::Child(_) => "a child killed".into(),
            Self::Request(method, _, fault) => format!("{method}: {}", format!("{fault:?}").split('(').next().unwrap()),
            Self::Wrong(_) => "GET: wrong bytes".into(),
            Self::Files(_) => "too few files".into(),
            Self::FileSize(_) => "disk full".into(),
        }
    }
}

/// A source, a target, and a bundle that is good.
struct World {
    desk: Desk,
    cluster: Cluster,
    source: Arc<FaultServer>,
    target: Arc<FaultServer>,
    /// The source's databases as they are read for comparisons, and what they are called at the target.
    contents: Vec<(Contents, String)>,
    /// How long a backup and a restore take here without faults.
    times: [Duration; 2],
    database: String,
}

impl World {
    async fn make(name: &str) -> Option<Self> {
        let (desk, source, target) =
            (Desk::new(), Arc::new(FaultServer::start().await), Arc::new(FaultServer::start().await));
        let bucket: Arc<dyn Bucket> = Arc::clone(&source) as Arc<dyn Bucket>;
        // Jobs enough that their table is read by a psql of its own.
        let options = Options { objects: 60, sizes: 1..=60_000, jobs: 150, job_bytes: 10_000, ..Options::default() };
        let mut cluster = Cluster::make_in(bucket, &source.url(), name, options).await?;
        let large = Chunk::generate(1, 0, &(LARGE..=LARGE));
        source.hold(&large.key(1), large.stored.as_slice());
        cluster.made.orphans.push(large.key(1));
        target_server()?;
        let begun = Instant::now();
        desk.backup(&cluster.source(), "good.pacharc", MEMORY).code(0);
        let backup = begun.elapsed();
        let database = format!("restored_{name}");
        let read = |name: &str| Contents::read(&cluster.server.url("postgres"), name).unwrap();
        let contents =
            vec![(read(&cluster.database), database.clone()), (read(&cluster.dex), format!("{database}_dex"))];
        let mut world = Self { desk, cluster, source, target, contents, times: [backup, backup], database };
        let begun = Instant::now();
        world.restore_of("good.pacharc").finish().code(0);
        world.times[1] = begun.elapsed();
        assert!(
            world.target.seen().iter().any(|request| request.query.contains("partNumber")),
            "there is an upload in parts"
        );
        world.assert_restored("good.pacharc").await;
        Some(world)
    }

    /// One fault, and what came of it.
    async fn strike(&self, seed: u64, number: u64) -> String {
        let mut draw = Draw::new(seed, number);
        let is_backup = draw.below(2) == 0;
        let fault = self.draw(&mut draw, is_backup);
        let job = if is_backup { "backup" } else { "restore" };
        let what = format!("fault {number} of seed {seed}: {fault:?}, {job}");
        let word = if is_backup { self.backup(&fault, &what).await } else { self.restore(&fault, &what).await };
        // There are many of them.
        [&self.source, &self.target].iter().for_each(|server| drop(server.seen()));
        format!("{job:<7} {}: {word}", fault.name())
    }

    fn draw(&self, draw: &mut Draw, is_backup: bool) -> Single {
        let time = self.times[usize::from(!is_backup)];
        let mut moment = || Duration::from_micros(draw.below(u64::try_from(time.as_micros()).unwrap() * 11 / 10));
        let when = moment();
        match draw.below(10) {
            0 => Single::Signal("KILL", when),
            1 => Single::Signal("INT", when),
            2 => Single::Signal("TERM", when),
            3 => Single::Sessions(when),
            4 => Single::Child(when),
            5 if is_backup => Single::Wrong(self.cluster_key(draw)),
            6 => Single::Files(draw.below(60) + 8),
            7 if is_backup => Single::FileSize(draw.below(12_000)),
            _ => {
                let method = match draw.below(4) {
                    _ if is_backup => "GET",
                    0 => "GET",
                    // What begins and ends the upload in parts.
                    1 => "POST",
                    _ => "PUT",
                };
                let cut = usize::try_from(draw.below(3000)).unwrap();
                let faults = [
                    Fault::Refuse(500, "InternalError"),
                    Fault::Refuse(503, "SlowDown"),
                    Fault::Refuse(429, "TooManyRequests"),
                    Fault::Lost,
                    Fault::Cut(cut),
                    Fault::Short(cut),
                ];
                // A short answer to a PUT is one without a body.
                let kinds = if method == "GET" { 6 } else { 4 };
                let fault = faults[usize::try_from(draw.below(kinds)).unwrap()];
                Single::Request(method, draw.below(if method == "POST" { 2 } else { 70 }), fault)
            }
        }
    }

    fn cluster_key(&self, draw: &mut Draw) -> String {
        let keys: Vec<String> = self.source.keys().into_iter().filter(|key| key.starts_with("chunk/")).collect();
        keys[usize::try_from(draw.below(keys.len() as u64)).unwrap()].clone()
    }

    /// Runs the command with the fault.
    fn run(&self, args: &[String], bucket: &FaultServer, fault: &Single) -> Run {
        let plain = self.desk.command(args);
        let mut command = match fault {
            Single::Files(number) => under(&["prlimit", &format!("--nofile={number}")], &plain),
            Single::FileSize(kilobytes) => under(&["prlimit", &format!("--fsize={}", kilobytes << 10)], &plain),
            _ => plain,
        };
        match fault {
            Single::Request(method, nth, fault) => {
                bucket.plan(method, (0..*nth).map(|_| Fault::Pass).chain([*fault]));
            }
            Single::Wrong(key) => bucket.plan_for("GET", key, [Fault::Flip]),
            _ => {}
        }
        let mut running = Running::start(&mut command);
        let wait = |running: &mut Running, moment: Duration| {
            let begun = Instant::now();
            while begun.elapsed() < moment && !running.has_ended() {
                std::thread::sleep(Duration::from_micros(500));
            }
            !running.has_ended()
        };
        match fault {
            // It may have ended a moment before.
            Single::Signal(signal, moment) if wait(&mut running, *moment) => {
                Command::new("kill").args([format!("-{signal}"), running.id().to_string()]).status().unwrap();
            }
            Single::Sessions(moment) if wait(&mut running, *moment) => self.end_sessions(),
            Single::Child(moment) if wait(&mut running, *moment) => {
                Command::new("pkill").args(["-KILL", "-P", &running.id().to_string(), "--newest"]).status().unwrap();
            }
            _ => {}
        }
        let run = running.finish();
        bucket.calm();
        run
    }

    fn names(&self) -> String {
        let Cluster { database, dex, .. } = &self.cluster;
        // The target's have a temporary name before their own.
        format!("(datname IN ('{database}', '{dex}') OR datname LIKE '%{}%')", self.database)
    }

    fn end_sessions(&self) {
        let sql = format!(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
             WHERE {} AND application_name LIKE 'pacharc%'",
            self.names()
        );
        for server in [self.cluster.server, target_server().unwrap()] {
            server.psql("postgres", &sql).unwrap();
        }
    }

    /// That neither a process nor a session nor a file of the run is left.
    fn assert_nothing_left(&self, run: &Run, what: &str) {
        let folder = self.desk.folder();
        let is_ours = |process: &Path| std::fs::read_link(process.join("cwd")).is_ok_and(|cwd| cwd == folder);
        wait_until(&format!("{what}: no process is left"), || {
            !std::fs::read_dir("/proc").unwrap().flatten().any(|entry| is_ours(&entry.path()))
        });
        let sql = format!(
            "SELECT count(*) FROM pg_stat_activity WHERE {} AND application_name LIKE 'pacharc%'",
            self.names()
        );
        for server in [self.cluster.server, target_server().unwrap()] {
            wait_until(&format!("{what}: no session is left"), || server.psql("postgres", &sql).unwrap() == "0");
        }
        let left = self.desk.leftovers();
        // Who is killed cannot clear away; what is left has no name.
        if run.status.code().is_some() {
            assert_eq!(left, [""; 0], "{what}");
        }
        for name in left {
            std::fs::remove_file(self.desk.path(&name)).unwrap();
        }
    }

    /// A backup that meets the fault. What came of it.
    async fn backup(&self, fault: &Single, what: &str) -> String {
        let args = self.desk.backup_args(&self.cluster.source(), "c.pacharc", MEMORY);
        let run = self.run(&args, &self.source, fault);
        self.assert_nothing_left(&run, what);
        let is_there = self.desk.path("c.pacharc").exists();
        match run.status.code() {
            Some(0) => {
                let verified = self.desk.run(["verify", "c.pacharc", "--identity", "key.txt", "--level", "closed"]);
                assert_eq!(verified.status.code(), Some(0), "{what}: {}", verified.stderr);
                std::fs::rename(self.desk.path("c.pacharc"), self.desk.path("last.pacharc")).unwrap();
                self.restore_of("last.pacharc").finish().code(0);
                self.assert_restored(what).await;
                std::fs::remove_file(self.desk.path("last.pacharc")).unwrap();
                "whole".into()
            }
            // Killed when it had its name already.
            None if is_there => {
                self.desk.run(["verify", "c.pacharc"]).code(0);
                std::fs::remove_file(self.desk.path("c.pacharc")).unwrap();
                "killed, whole".into()
            }
            code => {
                assert!(!is_there, "{what}: {code:?} and a bundle: {}", run.stderr);
                assert!(matches!(code, None | Some(1 | 7 | 130 | 143)), "{what}: {code:?}: {}", run.stderr);
                code.map_or("killed, no bundle".into(), |code| format!("no bundle ({code})"))
            }
        }
    }

    fn restore_args(&self, bundle: &str) -> Vec<String> {
        let Cluster { database, dex, .. } = &self.cluster;
        let server = target_server().unwrap().url("postgres");
        let renamed = [format!("{database}={}", self.database), format!("{dex}={}_dex", self.database)];
        let more = words(&["--postgres", &server, "--bucket", &self.target.url()]);
        let names = ["--database", renamed[0].as_str(), "--database", renamed[1].as_str()];
        Desk::restore_args(bundle, &more, &[MEMORY, &names].concat())
    }

    fn restore_of(&self, bundle: &str) -> Running {
        Running::start(&mut self.desk.command(self.restore_args(bundle)))
    }

    /// A restore that meets the fault, and, where it did not come to its end, once more without. What came of it.
    async fn restore(&self, fault: &Single, what: &str) -> String {
        let run = self.run(&self.restore_args("good.pacharc"), &self.target, fault);
        self.assert_nothing_left(&run, what);
        let word = match run.status.code() {
            Some(0) => "whole".to_owned(),
            code => {
                assert!(matches!(code, None | Some(1 | 7 | 130 | 143)), "{what}: {code:?}: {}", run.stderr);
                let again = self.restore_of("good.pacharc").finish();
                // Killed behind its last step it is done, and the target not empty any more.
                if !(code.is_none() && again.status.code() == Some(5)) {
                    assert_eq!(again.status.code(), Some(0), "{what}: {}, then {}", run.stderr, again.stderr);
                }
                code.map_or("killed, then whole".into(), |code| format!("ended ({code}), then whole"))
            }
        };
        self.assert_restored(what).await;
        word
    }

    /// Compares what was restored with the source, by other code than pacharc's, and takes it away.
    async fn assert_restored(&self, what: &str) {
        let to = target_server().unwrap();
        for (contents, restored) in &self.contents {
            let compared = contents.compare(&to.url("postgres"), restored).unwrap();
            assert!(compared.is_equal() && compared.compared > 30, "{what}: {compared}");
        }
        let restored: Arc<dyn Bucket> = Arc::clone(&self.target) as Arc<dyn Bucket>;
        let compared = compare::buckets(&self.cluster.bucket, &restored, None).await.unwrap();
        assert!(compared.is_equal() && compared.compared as u64 == self.cluster.made.objects(), "{what}: {compared}");
        assert!(!self.target.uploading(), "{what}");
        let sql = format!(
            "SELECT format('DROP DATABASE %I WITH (FORCE)', datname) FROM pg_database WHERE datname LIKE '%{}%' \\gexec",
            self.database
        );
        to.psql("postgres", &sql).unwrap();
        self.target.keys().iter().for_each(|key| self.target.remove(key));
    }
}
