//! A dry run of a backup: what was found, how large it is, what is missing. Nothing is written but temporary files.

use std::sync::Arc;

use futures::StreamExt;
use indicatif::HumanBytes;
use pacharc_format::Spool;
use pacharc_format::manifest::{Count, DatabaseKind, Postgres};
use serde::Serialize;

use super::{Error, Options, Quiesce, Source};
use crate::budget::Budget;
use crate::cluster::discover::Discovery;
use crate::cluster::{history, suspend};
use crate::database::Attempt;
use crate::failure::{Class, chain};
use crate::interrupt::Interrupt;
use crate::monitor::{Counter, Event, Monitor, Phase};
use crate::outcome::Facts;

/// Through the API server go that many bytes before a plan advises another way: 10 GiB.
const MUCH: u64 = 10 << 30;

/// What a backup would do.
#[derive(Clone, Debug, Serialize)]
pub struct Plan {
    /// What the namespace says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub discovery: Option<Discovery>,
    /// The server.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub postgres: Option<Postgres>,
    /// The pg_dump that would be used, and its version.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pg_dump: Option<String>,
    /// Pachyderm's release family.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pachyderm: Option<String>,
    /// The databases.
    pub databases: Vec<PlannedDatabase>,
    /// The bucket.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bucket: Option<PlannedBucket>,
    /// Bytes that the bundle will have, roughly.
    pub estimated_bytes: u64,
    /// How the source would be treated: `online`, `suspend` or `hold`.
    pub quiesce: String,
    /// Who holds the cluster suspended already: `user@host`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub held_by: Option<String>,
    /// How long it would take, in seconds, going by the last runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expected_seconds: Option<f64>,
    /// How long the pause would be, in seconds, going by the last runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expected_pause_seconds: Option<f64>,
    /// The pause after which the cluster would come back in any case, in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub longest_pause_seconds: Option<f64>,
}

/// One database of a plan.
#[derive(Clone, Debug, Serialize)]
pub struct PlannedDatabase {
    /// Its name.
    pub name: String,
    /// What kind it is.
    pub kind: DatabaseKind,
    /// Tables with rows to dump or without.
    pub tables: usize,
    /// Rows, as the server estimates.
    pub rows: u64,
    /// Bytes of tables, as the server estimates.
    pub bytes: u64,
    /// What a dump leaves out.
    pub left_out: Vec<String>,
}

/// The bucket of a plan, as it is now.
#[derive(Clone, Debug, Default, Serialize)]
pub struct PlannedBucket {
    /// Its URL.
    pub url: String,
    /// Objects that live rows name; all chunks where there is no live set.
    pub live: Count,
    /// Chunks that no live row names.
    pub orphan: Count,
    /// Objects that are not Pachyderm's chunks.
    pub foreign: Count,
    /// Live rows without an object.
    pub missing: Count,
}

/// Looks at a source as a backup would, and counts.
///
/// # Errors
/// Whatever would make the backup fail before its first byte.
pub async fn plan(options: &Options, interrupt: &Interrupt, monitor: Arc<dyn Monitor>) -> Result<Plan, Error> {
    monitor.phase(Phase::Check);
    interrupt.guard(make(options, monitor.as_ref())).await
}

async fn make(options: &Options, monitor: &dyn Monitor) -> Result<Plan, Error> {
    let source = Source::open(options, monitor).await?;
    if let Some(output) = &options.output {
        source.check_room(&output.fill(&options.names(jiff::Timestamp::now(), uuid::Uuid::nil())?))?;
    }
    let bucket = match &source.bucket {
        Some(_) => Some(count(options, &source, monitor).await?),
        None => None,
    };
    let databases = source.databases.iter().map(|database| PlannedDatabase {
        name: database.name.clone(),
        kind: database.kind,
        tables: database.tables.len(),
        rows: database.dumped_rows(),
        bytes: database.dumped_bytes(),
        left_out: database.left_out.clone(),
    });
    let stored = bucket.as_ref().map_or(0, |bucket| {
        let PlannedBucket { live, orphan, foreign, .. } = bucket;
        if options.live_only { live.bytes } else { live.bytes + orphan.bytes + foreign.bytes }
    });
    let estimated_bytes = stored + source.dump_bytes() / 8;
    if source.is_forwarded() && estimated_bytes > MUCH {
        let bytes = HumanBytes(estimated_bytes);
        let message =
            format!("{bytes} would go through the API server by port-forward: run the backup there, with --in-cluster");
        monitor.event(Event::Hint { message });
    }
    let pause = Expected::of(options, &source, estimated_bytes, monitor).await?;
    Ok(Plan {
        quiesce: pause.quiesce.to_string(),
        held_by: pause.held_by,
        expected_seconds: pause.seconds,
        expected_pause_seconds: pause.pause,
        longest_pause_seconds: pause.longest,
        discovery: source.discovery().cloned(),
        postgres: source.postgres().cloned(),
        pg_dump: source.server.as_ref().map(|(_, tools)| {
            let (path, (major, minor)) = (tools.pg_dump.path.display(), tools.pg_dump.number);
            format!("{path} ({major}.{minor})")
        }),
        pachyderm: source.release(),
        databases: databases.collect(),
        bucket,
        estimated_bytes,
    })
}

/// How long it will take, and for how long of that the cluster will be down.
struct Expected {
    quiesce: Quiesce,
    held_by: Option<String>,
    seconds: Option<f64>,
    pause: Option<f64>,
    longest: Option<f64>,
}

impl Expected {
    /// Whatever would refuse the pause refuses the plan.
    async fn of(options: &Options, source: &Source, bytes: u64, monitor: &dyn Monitor) -> Result<Self, Error> {
        let quiesce = options.quiesce;
        let mut expected = Self { quiesce, held_by: None, seconds: None, pause: None, longest: None };
        let Some((cluster, _)) = &source.cluster else { return Ok(expected) };
        if let (Some(suspending), true) = (&options.suspension, quiesce != Quiesce::Online) {
            let held = suspend::look(cluster, &suspending.options, monitor).await?;
            expected.held_by = held.map(|record| record.owner);
            let is_limited = quiesce == Quiesce::Suspend && !suspending.stay && expected.held_by.is_none();
            expected.longest = is_limited.then_some(suspending.max_pause.as_secs_f64());
        }
        let runs = match history::runs(cluster).await {
            Ok(runs) => runs,
            Err(error) => {
                tracing::info!("the last runs are not known: {}", chain(&error));
                Vec::new()
            }
        };
        // The slowest of the last runs, since people plan by it. One that was much smaller tells of its set-up alone.
        #[expect(clippy::cast_precision_loss, reason = "an estimate")]
        let needed = |run: &history::Run| {
            (run.bytes > bytes / 10).then(|| run.seconds * (bytes as f64 / run.bytes as f64).max(1.0))
        };
        expected.seconds = runs.iter().filter_map(needed).reduce(f64::max);
        if expected.held_by.is_none() {
            let alike = runs.iter().filter(|run| run.quiesce == quiesce.to_string());
            expected.pause = alike.filter_map(|run| run.pause_seconds).reduce(f64::max);
        }
        Ok(expected)
    }
}

/// Lists the bucket and compares it with the live set.
async fn count(options: &Options, source: &Source, monitor: &dyn Monitor) -> Result<PlannedBucket, Error> {
    monitor.phase(Phase::List);
    let Some(bucket) = &source.bucket else { return Ok(PlannedBucket::default()) };
    let mut planned = PlannedBucket { url: bucket.url().to_owned(), ..PlannedBucket::default() };
    let mut chunks = Spool::new(&options.limits.temp_dir, Budget::new(options.limits.max_memory).spool);
    let mut listing = bucket.list(b"");
    while let Some(listed) = listing.next().await {
        let listed = listed?;
        monitor.add(Counter::Objects, 1);
        if options.exclude.iter().any(|prefix| listed.key.as_bytes().starts_with(prefix)) {
            continue;
        }
        match listed.key.chunk() {
            Some(_) => chunks.push(listed.key.to_path().as_bytes(), &listed.size.to_le_bytes())?,
            None => planned.foreign.add(listed.size),
        }
    }
    let size = |value: &[u8]| value.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
    let mut chunks = chunks.sorted()?.peekable();
    if let (Some((server, tools)), Some(_)) = (&source.server, source.pachyderm()) {
        let attempt = Attempt::open(server, tools, &source.databases, 1).await?;
        let mut live_set = std::pin::pin!(attempt.live_set().await?);
        while let Some(chunk) = live_set.next().await {
            let chunk = chunk?;
            let path = chunk.key.key().to_path().into_bytes();
            while let Some(orphan) = chunks.next_if(|next| next.as_ref().map_or(true, |(other, _)| *other < path)) {
                planned.orphan.add(size(&orphan?.1));
            }
            match chunks.next_if(|next| next.as_ref().is_ok_and(|(other, _)| *other == path)) {
                Some(found) => planned.live.add(size(&found?.1)),
                None => planned.missing.add(chunk.size),
            }
        }
    }
    for chunk in chunks {
        let (_, value) = chunk?;
        match source.pachyderm() {
            Some(_) => planned.orphan.add(size(&value)),
            None => planned.live.add(size(&value)),
        }
    }
    Ok(planned)
}

impl Plan {
    /// The pause, in words.
    fn pause(&self) -> String {
        if let Some(owner) = &self.held_by {
            return format!("the cluster is held by {owner}, and is left so");
        }
        let expected = match self.expected_pause_seconds {
            Some(seconds) => format!("about {}, going by the last runs", duration(seconds)),
            None => "how long is not known yet: no earlier run is on record".to_owned(),
        };
        match (self.quiesce.as_str(), self.longest_pause_seconds) {
            ("online", _) => "none".to_owned(),
            (_, Some(longest)) => format!("{expected}; after {} the cluster comes back in any case", duration(longest)),
            (_, None) => format!("{expected}; the cluster stays down until the bundle is complete"),
        }
    }
}

/// Seconds as people say them.
fn duration(seconds: f64) -> String {
    match std::time::Duration::try_from_secs_f64(seconds) {
        Ok(duration) if seconds >= 60.0 => indicatif::HumanDuration(duration).to_string(),
        _ => format!("{seconds:.0} s"),
    }
}

impl crate::outcome::Outcome for Plan {
    fn class(&self) -> Option<Class> {
        None
    }

    fn summary(&self) -> String {
        String::new()
    }

    fn product(&self) -> Option<String> {
        let mut facts = Facts::default();
        if let Some(discovery) = &self.discovery {
            discovery.describe(&mut facts);
        }
        if let Some(Postgres { version, host, standby, .. }) = &self.postgres {
            facts.add("server", format!("PostgreSQL {version} at {host}{}", if *standby { ", a standby" } else { "" }));
        }
        if let Some(pg_dump) = &self.pg_dump {
            facts.add("pg_dump", pg_dump);
        }
        if let Some(release) = &self.pachyderm {
            facts.add("Pachyderm", release);
        }
        for PlannedDatabase { name, tables, rows, bytes, left_out, .. } in &self.databases {
            facts.add("database", format!("{name}: about {rows} rows in {tables} tables, {}", HumanBytes(*bytes)));
            for what in left_out {
                facts.add("", format!("left out: {what}"));
            }
        }
        if let Some(PlannedBucket { url, live, orphan, foreign, missing }) = &self.bucket {
            facts.add("bucket", url);
            for (what, Count { count, bytes }) in
                [("live", live), ("orphans", orphan), ("foreign", foreign), ("MISSING", missing)]
            {
                if *count > 0 || what == "live" {
                    facts.add("", format!("{count} {what}, {}", HumanBytes(*bytes)));
                }
            }
        }
        facts.add("bundle", format!("about {}", HumanBytes(self.estimated_bytes)));
        if let Some(seconds) = self.expected_seconds {
            facts.add("time", format!("about {}, going by the last runs", duration(seconds)));
        }
        if self.postgres.is_some() {
            facts.add("pause", self.pause());
            facts.add("note", "schema changes of the source wait while the dump runs");
        }
        Some(facts.into_text())
    }
}
