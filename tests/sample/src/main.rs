//! `pacharc-sample`: the sample cluster for shell scripts, such as the demo.

use anyhow::{Context, Result, bail};
use clap::{Args, Parser, Subcommand, ValueEnum};
use pacharc_sample::bucket::{Bucket, Directory};
use pacharc_sample::connection::{connect, with_database};
use pacharc_sample::invented::{self, Objects};
use pacharc_sample::postgres::{self, Server, StopMode};
use pacharc_sample::workload::{self, Kind};
use pacharc_sample::writer::LiveWriter;
use pacharc_sample::{cluster, compare, writer};
use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

/// Sample Pachyderm clusters: make one, keep it busy, damage it, compare two.
#[derive(Parser)]
#[command(version)]
enum Command {
    /// A private PostgreSQL server.
    #[command(subcommand)]
    Server(ServerCommand),
    /// Make databases and bucket of a cluster.
    Make(Make),
    /// Make a workload of the benches, and print its size as JSON.
    Workload(Workload),
    /// Invent objects: serve them as S3 until killed, print the port, and make the rows that go with them.
    Invent(Invent),
    /// Keep writing to a cluster as pachd would.
    Write(Write),
    /// Damage one live object of a bucket, and print its key.
    Damage(Damage),
    /// Compare databases and buckets; exit code 1 if they differ.
    Compare(Compare),
}

#[derive(Subcommand)]
enum ServerCommand {
    /// Make a server in an empty directory, or take the one that lies there; start it, and print its URL.
    Start {
        /// Where it lives; root's server runs as another user, who must be able to reach it.
        #[arg(long)]
        dir: PathBuf,
        /// Major version; any that is installed by default.
        #[arg(long)]
        major: Option<u32>,
        /// A line for `postgresql.conf` of a new one (repeatable).
        #[arg(long = "set", value_name = "NAME=VALUE", value_parser = setting)]
        settings: Vec<(String, String)>,
    },
    /// Stop the server and remove its directory.
    Stop {
        /// The directory given to start.
        #[arg(long)]
        dir: PathBuf,
        /// Leave the directory, to be started again.
        #[arg(long)]
        keep: bool,
    },
}

/// A cluster: its server, and its bucket as a directory.
#[derive(Args)]
struct Cluster {
    /// The server's URL, as a superuser.
    #[arg(long)]
    postgres: String,
    /// The main database's name.
    #[arg(long, default_value = "pachyderm")]
    database: String,
    /// The bucket's directory.
    #[arg(long)]
    bucket: PathBuf,
}

#[derive(Args)]
struct Make {
    #[command(flatten)]
    cluster: Cluster,
    /// How many live chunks.
    #[arg(long, default_value_t = 200)]
    objects: u64,
    /// Size of the smallest chunk in bytes.
    #[arg(long, default_value_t = 1)]
    min_bytes: u64,
    /// Size of the largest chunk in bytes.
    #[arg(long, default_value_t = 20_000)]
    max_bytes: u64,
    /// Rows of `collections.jobs`.
    #[arg(long, default_value_t = 20)]
    jobs: u64,
    /// Bytes of each of these rows.
    #[arg(long, default_value_t = 500)]
    job_bytes: usize,
    /// Seed of everything random.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Only what is whole: no tombstones, orphans, foreign objects.
    #[arg(long)]
    plain: bool,
    /// Make no identity database, as in a member of an enterprise server.
    #[arg(long)]
    no_dex: bool,
    /// Write `.attrs` files beside the objects, as pachd does.
    #[arg(long)]
    attrs: bool,
}

#[derive(Args)]
struct Workload {
    #[arg(value_enum)]
    which: Which,
    #[command(flatten)]
    cluster: Cluster,
    /// How many of the objects and rows: 1 is all.
    #[arg(long, default_value_t = 1.0)]
    scale: f64,
}

#[derive(Clone, Copy, ValueEnum)]
enum Which {
    /// 600 objects of 1 to 20 MB, and a database of 0.6 GB.
    W1,
    /// 100,000 objects of 2 to 40 KB.
    W2,
    /// A database of 5 GB.
    W3,
}

#[derive(Args)]
struct Invent {
    /// The server's URL, as a superuser: the database `pachyderm` is made there.
    #[arg(long)]
    postgres: String,
    /// How many objects.
    #[arg(long)]
    objects: u32,
    /// Bytes of each, at most 64.
    #[arg(long, default_value_t = 64)]
    bytes: usize,
    /// Seed of everything random.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

#[derive(Args)]
struct Write {
    #[command(flatten)]
    cluster: Cluster,
    /// How long, in seconds or as `500ms`, `30s`, `2m`.
    #[arg(long = "for", value_parser = duration)]
    period: Duration,
    /// How long each of the writers waits between two commits.
    #[arg(long, value_parser = duration, default_value = "5ms")]
    pause: Duration,
    /// How many write at the same time.
    #[arg(long, default_value_t = 3)]
    writers: u32,
    /// Seed of everything random.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

#[derive(Args)]
struct Damage {
    #[command(flatten)]
    cluster: Cluster,
    /// Delete the object.
    #[arg(long, required_unless_present = "flip", conflicts_with = "flip")]
    delete: bool,
    /// Flip one bit in the middle of the object.
    #[arg(long)]
    flip: bool,
    /// Which of the live objects, sorted by key, counting from 0 and around.
    #[arg(long, default_value_t = 0)]
    pick: usize,
}

#[derive(Args)]
struct Compare {
    /// The first server.
    #[arg(long, requires = "to")]
    from: Option<String>,
    /// The second server.
    #[arg(long, requires = "from")]
    to: Option<String>,
    /// Databases to compare, as `name` or, where the second server's has another name, `name=other`.
    #[arg(long, value_delimiter = ',', default_value = "pachyderm,dex")]
    databases: Vec<String>,
    /// The buckets' directories: twice, or not at all. Compared are the live objects of the first server's first database.
    #[arg(long)]
    bucket: Vec<PathBuf>,
    /// Compare all objects, live or not.
    #[arg(long)]
    all: bool,
}

#[tokio::main]
async fn main() -> Result<ExitCode> {
    match Command::parse() {
        Command::Server(command) => server(command)?,
        Command::Make(arguments) => make(arguments).await?,
        Command::Workload(arguments) => make_workload(arguments).await?,
        Command::Invent(arguments) => invent(arguments).await?,
        Command::Write(arguments) => write(arguments).await?,
        Command::Damage(arguments) => damage(arguments).await?,
        Command::Compare(arguments) => return run_compare(arguments).await,
    }
    Ok(ExitCode::SUCCESS)
}

fn server(command: ServerCommand) -> Result<()> {
    match command {
        ServerCommand::Start { dir, major, settings } => {
            let options = postgres::Options { major, settings, ..postgres::Options::default() };
            let server = if dir.join("data/PG_VERSION").exists() {
                Server::reopen(&dir)?
            } else {
                Server::create(&dir, &options)?
            };
            println!("{}", server.url("postgres"));
        }
        ServerCommand::Stop { dir, keep } => {
            Server::open(&dir)?.stop(StopMode::Fast)?;
            if !keep {
                fs::remove_dir_all(&dir).with_context(|| format!("remove {}", dir.display()))?;
            }
        }
    }
    Ok(())
}

async fn make(arguments: Make) -> Result<()> {
    let mut bucket = Directory::new(arguments.cluster.bucket);
    if arguments.attrs {
        bucket = bucket.with_attributes();
    }
    let defaults = cluster::Options::default();
    let options = cluster::Options {
        seed: arguments.seed,
        objects: arguments.objects,
        sizes: arguments.min_bytes..=arguments.max_bytes,
        jobs: arguments.jobs,
        job_bytes: arguments.job_bytes,
        oddities: !arguments.plain,
        database: arguments.cluster.database,
        dex: defaults.dex.clone().filter(|_| !arguments.no_dex),
        ..defaults
    };
    let made = cluster::make(&arguments.cluster.postgres, Arc::new(bucket), &options).await?;
    println!("{} live objects, {} bytes; {} objects in the bucket", made.live, made.live_bytes, made.objects());
    Ok(())
}

async fn make_workload(arguments: Workload) -> Result<()> {
    let Cluster { postgres, bucket, .. } = arguments.cluster;
    let kind = match arguments.which {
        Which::W1 => Kind::W1,
        Which::W2 => Kind::W2,
        Which::W3 => Kind::W3,
    };
    let made = workload::make(&postgres, Arc::new(Directory::new(bucket)), kind, arguments.scale).await?;
    let database =
        postgres::psql(&with_database(&postgres, "pachyderm"), "SELECT pg_database_size(current_database())")?;
    println!("{{\"objects\":{},\"object_bytes\":{},\"database_bytes\":{database}}}", made.objects(), made.live_bytes);
    Ok(())
}

async fn invent(arguments: Invent) -> Result<()> {
    let Invent { postgres, objects, bytes, seed } = arguments;
    let objects = Objects::new(seed, objects, bytes)?;
    // The database of a cluster without chunks, which needs no bucket.
    let none = tempfile::tempdir()?;
    let options = cluster::Options { seed, objects: 0, oddities: false, dex: None, ..cluster::Options::default() };
    cluster::make(&postgres, Arc::new(Directory::new(none.path())), &options).await?;
    objects.fill(&connect(&with_database(&postgres, &options.database)).await?).await?;
    let server = invented::Server::bind(objects).await?;
    println!("{}", server.port()?);
    server.run().await
}

async fn write(arguments: Write) -> Result<()> {
    let url = with_database(&arguments.cluster.postgres, &arguments.cluster.database);
    let options = writer::Options {
        seed: arguments.seed,
        pause: arguments.pause,
        writers: arguments.writers,
        ..writer::Options::default()
    };
    let writer = LiveWriter::start(&url, Arc::new(Directory::new(arguments.cluster.bucket)), options)?;
    tokio::select! {
        () = tokio::time::sleep(arguments.period) => {}
        _ = tokio::signal::ctrl_c() => {}
    }
    let writer::Report { commits, uploaded, tombstoned, deleted } = writer.stop().await?;
    println!("{commits} commits, {uploaded} objects uploaded, {tombstoned} tombstoned, {deleted} deleted");
    Ok(())
}

async fn damage(arguments: Damage) -> Result<()> {
    let Cluster { postgres, database, bucket } = arguments.cluster;
    let bucket = Directory::new(bucket);
    let live = compare::live_keys(&with_database(&postgres, &database)).await?;
    let mut rotated = live.iter().cycle().skip(arguments.pick).take(live.len());
    // Nothing can be flipped in an object of zero bytes, and one that is gone already would be no damage.
    let (key, bytes) = loop {
        let key = rotated.next().context("there is no live object to damage")?;
        match bucket.get(key).await? {
            Some(bytes) if arguments.delete || !bytes.is_empty() => break (key, bytes),
            _ => {}
        }
    };
    if arguments.delete {
        bucket.delete(key).await?;
    } else {
        let mut bytes = bytes.to_vec();
        let middle = bytes.len() / 2;
        bytes.iter_mut().skip(middle).take(1).for_each(|byte| *byte ^= 1);
        bucket.put(key, bytes.into()).await?;
    }
    println!("{key}");
    Ok(())
}

async fn run_compare(arguments: Compare) -> Result<ExitCode> {
    let names: Vec<_> = arguments.databases.iter().map(|n| n.split_once('=').unwrap_or((n, n))).collect();
    let mut comparisons = Vec::new();
    if let (Some(from), Some(to)) = (&arguments.from, &arguments.to) {
        for (name, other) in &names {
            comparisons.push(compare::databases(from, to, name, other)?);
        }
    }
    match (arguments.bucket.as_slice(), &arguments.from) {
        ([], _) => {}
        ([first, second], from) => {
            let directory = |path: &PathBuf| -> Arc<dyn Bucket> { Arc::new(Directory::new(path)) };
            let live = match (from, names.first()) {
                (Some(from), Some((name, _))) if !arguments.all => {
                    Some(compare::live_keys(&with_database(from, name)).await?)
                }
                _ => None,
            };
            comparisons.push(compare::buckets(&directory(first), &directory(second), live).await?);
        }
        _ => bail!("--bucket is given twice, or not at all"),
    }
    if comparisons.is_empty() {
        bail!("nothing to compare: give --from and --to, or --bucket twice");
    }
    for comparison in &comparisons {
        println!("{comparison}");
    }
    Ok(if comparisons.iter().all(compare::Comparison::is_equal) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// `name=value`
fn setting(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or_else(|| format!("`{text}` is not NAME=VALUE"))?;
    Ok((name.to_owned(), value.to_owned()))
}

/// `500ms`, `30s`, `2m`, or a bare number of seconds.
fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(char::is_alphabetic);
    let number: u64 = digits.parse().map_err(|_| format!("`{text}` is not a time, such as 30s"))?;
    match &text[digits.len()..] {
        "ms" => Ok(Duration::from_millis(number)),
        "" | "s" => Ok(Duration::from_secs(number)),
        "m" => Ok(Duration::from_secs(number * 60)),
        unit => Err(format!("`{unit}` is not a unit of time: ms, s, m")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_sound() {
        Command::command().debug_assert();
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("30"), duration("30s"));
        assert!(duration("x").is_err() && duration("3h").is_err());
    }
}
