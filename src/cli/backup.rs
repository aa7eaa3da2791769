//! `pacharc backup`.

use std::io::IsTerminal as _;
use std::process::ExitCode;
use std::time::Duration;

use clap::{ArgMatches, Args, ValueEnum};

use super::Job;
use super::arguments::{
    ClusterArgs, EvidenceArgs, LockArgs, MachineArgs, NetworkArgs, ResumeArgs, ServerArgs, SignArgs, SuspendArgs,
};
use super::exit::{Failure, job_epilogue};
use super::in_cluster::{self, InClusterArgs};
use super::report::{Report, ReportArgs};
use super::{usage, values};
use crate::backup::{Options, Quiesce, Suspending};
use crate::cluster::suspend::guardian::Guard;
use crate::failure::Class;
use crate::keys::Lock;
use crate::monitor::{Event, Monitor};
use crate::options::{self, Template};

const EXAMPLES: &str = "
  A cluster, by what its namespace says of databases and bucket:
    pacharc backup --namespace pachyderm --recipients-file team.txt -o '{cluster}-{time}.pacharc'
  The same, with a pause of at most 20 s, in which the snapshot is opened:
    pacharc backup --namespace pachyderm --quiesce suspend --max-pause 20s \\
      --recipients-file team.txt -o '{cluster}-{time}.pacharc'
  Into a file, from a server and a bucket; the password is in PGPASSWORD or ~/.pgpass:
    pacharc backup --postgres postgres://pachyderm@db.example/pachyderm?sslmode=verify-full \\
      --bucket 's3://pachyderm?region=eu-central-1' \\
      --recipients-file team.txt -o 'cluster-{time}.pacharc'
  Through a pipe, checked on the way:
    pacharc backup --config cluster.toml -o - | tee cluster.pacharc | pacharc verify -
  In the cluster itself, onto a volume claim there:
    pacharc backup --namespace pachyderm --recipients-file team.txt -o '{time}.pacharc' \\
      --in-cluster --image registry.example/pacharc:0.1.0 --claim bundles
  What it would do:
    pacharc plan --config cluster.toml";

const CLASSES: &[Class] = &[
    Class::Other,
    Class::Usage,
    Class::Incomplete,
    Class::Refused,
    Class::Credentials,
    Class::Unreachable,
    Class::Suspended,
    Class::Interrupted,
    Class::Terminated,
];

/// The longest pause, where none is given.
const MAX_PAUSE: Duration = Duration::from_secs(60);

/// Read a source, write a bundle
///
/// Copies databases and bucket into one encrypted file while the cluster runs. Every live object of the dumped snapshot
/// is in the bundle, or the exit code is 4 and each one that is missing or rotten is named.
#[derive(Args, Debug)]
#[command(after_long_help = job_epilogue(EXAMPLES, CLASSES))]
pub(super) struct Backup {
    /// The bundle: a file, `-`, or s3://bucket/key. An existing one is refused
    ///
    /// `{time}` and `{uuid}` are filled in; with --namespace, `{cluster}` (as the kubeconfig calls it) and `{namespace}`, too.
    #[arg(long, short, value_name = "FILE|-|URL")]
    output: Option<Template>,
    #[command(flatten)]
    cluster: ClusterArgs,
    #[command(flatten)]
    server: ServerArgs,
    /// A database (repeatable); Pachyderm's, and Dex's where it exists, when not given
    #[arg(long, value_name = "NAME", value_parser = values::name, help_heading = "Databases and bucket")]
    database: Vec<String>,
    #[command(flatten)]
    lock: LockArgs,
    #[command(flatten)]
    sign: SignArgs,
    /// How the source is treated meanwhile
    #[arg(long, value_name = "HOW", default_value = "online", help_heading = "Pause")]
    quiesce: QuiesceArg,
    /// The longest pause of --quiesce suspend (60s); then the cluster comes back, and the backup goes on as online
    #[arg(long, value_name = "TIME", value_parser = values::duration, help_heading = "Pause")]
    max_pause: Option<Duration>,
    /// What becomes of the suspended cluster in the end
    #[arg(long, value_name = "WHAT", default_value = "resume", help_heading = "Pause")]
    after: AfterArg,
    #[command(flatten)]
    suspend: SuspendArgs,
    #[command(flatten)]
    resume: ResumeArgs,
    /// Leave out objects that no row of the database needs
    #[arg(long, help_heading = "What goes in")]
    live_only: bool,
    /// Leave out objects whose key begins with PREFIX (repeatable)
    #[arg(long, value_name = "PREFIX", value_parser = values::name, help_heading = "What goes in")]
    exclude: Vec<String>,
    /// Stop at the first live object that is missing or rotten
    #[arg(long, help_heading = "What goes in")]
    strict: bool,
    /// Of zstd: 1 is fast, 19 is small
    #[arg(long, value_name = "1-19", default_value = "1", value_parser = clap::value_parser!(i32).range(1..=19))]
    #[arg(help_heading = "What goes in")]
    compression_level: i32,
    #[command(flatten)]
    machine: MachineArgs,
    #[command(flatten)]
    in_cluster: InClusterArgs,
    #[command(flatten)]
    network: NetworkArgs,
    #[command(flatten)]
    evidence: EvidenceArgs,
    #[command(flatten)]
    report: ReportArgs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum QuiesceArg {
    /// No pause: copy, snapshot, copy what is new
    Online,
    /// Suspended for the snapshot and what is new since the copy; back while the databases are dumped
    Suspend,
    /// Suspended from after the copy until the bundle is complete
    Hold,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum AfterArg {
    /// It comes back
    Resume,
    /// It stays down, for a cut-over, until `pacharc resume`
    StaySuspended,
}

impl Backup {
    /// What the arguments mean.
    pub(super) fn options(&self, matches: &ArgMatches) -> Result<Options, usage::Error> {
        let cluster = self.cluster.cluster(matches)?;
        self.sign.check()?;
        if self.server.is_empty() && cluster.is_none() {
            return Err(usage::Error::Missing {
                what: "a source",
                advice: "Name the namespace of Pachyderm with --namespace NAME; or a server with --postgres URL and a \
                         bucket with --bucket URL.",
            });
        }
        let postgres = self.server.postgres(matches, cluster.as_ref());
        if postgres.is_none() && !self.database.is_empty() {
            return Err(usage::Error::Needs { what: "--database", needed: "--postgres" });
        }
        let has_bucket = self.server.bucket.is_some() || cluster.is_some();
        if self.live_only && (postgres.is_none() || !has_bucket) {
            return Err(usage::Error::Needs { what: "--live-only", needed: "--postgres and --bucket" });
        }
        if let (Some(field), None) = (self.output.as_ref().and_then(Template::kubernetes_field), &cluster) {
            return Err(usage::Error::Needs { what: field, needed: "--namespace" });
        }
        let suspension = self.suspension(cluster.as_ref(), matches)?;
        Ok(Options {
            cluster,
            postgres,
            databases: self.database.clone(),
            bucket: self.server.bucket.clone(),
            ca_file: self.network.ca_file.clone(),
            output: self.output.clone(),
            quiesce: match self.quiesce {
                QuiesceArg::Online => Quiesce::Online,
                QuiesceArg::Suspend => Quiesce::Suspend,
                QuiesceArg::Hold => Quiesce::Hold,
            },
            suspension,
            live_only: self.live_only,
            exclude: self.exclude.iter().map(|prefix| prefix.clone().into_bytes()).collect(),
            strict: self.strict,
            compression_level: self.compression_level,
            limits: self.machine.limits()?,
        })
    }

    /// How the cluster is suspended, if one is named. A backup that is online needs to know, too: it may be held already.
    fn suspension(
        &self,
        cluster: Option<&options::Cluster>,
        matches: &ArgMatches,
    ) -> Result<Option<Suspending>, usage::Error> {
        self.suspend.check(matches)?;
        let (is_paused, stay) = (self.quiesce != QuiesceArg::Online, self.after == AfterArg::StaySuspended);
        if is_paused && cluster.is_none() {
            return Err(usage::Error::Needs { what: "--quiesce suspend or hold", needed: "--namespace" });
        }
        if self.max_pause.is_some() && self.quiesce != QuiesceArg::Suspend {
            return Err(usage::Error::Needs { what: "--max-pause", needed: "--quiesce suspend" });
        }
        if stay && !is_paused {
            return Err(usage::Error::Needs { what: "--after stay-suspended", needed: "--quiesce suspend or hold" });
        }
        if self.max_pause.is_some() && stay {
            return Err(usage::Error::Conflict { one: "--max-pause", other: "--after stay-suspended" });
        }
        let Some(cluster) = cluster else { return Ok(None) };
        let options = crate::cluster::suspend::Options {
            kind: crate::cluster::suspend::Kind::Run,
            guardian: if is_paused || self.suspend.names_guardian() { self.suspend.guard()? } else { Guard::None },
            ..self.suspend.options(&self.resume, cluster, &self.network)
        };
        Ok(Some(Suspending { options, max_pause: self.max_pause.unwrap_or(MAX_PAUSE), stay }))
    }

    pub(super) fn report_args(&self) -> &ReportArgs {
        &self.report
    }

    /// Whether a Job in the cluster is to do it.
    pub(super) fn is_in_cluster(&self) -> bool {
        self.in_cluster.is_wanted()
    }

    /// The output, which a backup must have and a plan need not.
    fn check_output(&self) -> Result<(), usage::Error> {
        match &self.output {
            None => Err(usage::Error::Missing {
                what: "--output",
                advice: "Name the bundle: -o FILE, -o - for standard output, or -o s3://bucket/key.",
            }),
            Some(output) if output.is_stdout() && std::io::stdout().is_terminal() => Err(usage::Error::TerminalOutput),
            Some(_) => Ok(()),
        }
    }
}

impl Job for Backup {
    const NAME: &'static str = "backup";

    fn report(&self) -> &ReportArgs {
        &self.report
    }

    fn takes_stdout(&self) -> bool {
        self.output.as_ref().is_some_and(Template::is_stdout)
    }

    fn run(self, matches: &ArgMatches, report: &Report) -> Result<ExitCode, Failure> {
        self.check_output()?;
        let options = self.options(matches)?;
        let lock = self.lock.names().read()?;
        if self.in_cluster.is_wanted() {
            // A Job has neither the key nor the file: what was asked for must not be left out in silence.
            for (one, is_given) in
                [("--sign-key", self.sign.names().key.is_some()), ("--report", self.evidence.is_wanted())]
            {
                if is_given {
                    return Err(usage::Error::Conflict { one, other: "--in-cluster" }.into());
                }
            }
            return in_cluster::run(&self.in_cluster, &options, &self.lock.names(), &self.report, matches, report);
        }
        let signer = self.sign.names().read()?;
        let keeper = self.evidence.keeper(signer.clone())?;
        report.run_kept(keeper.as_ref(), async |interrupt, monitor| {
            advise(&options, &lock, monitor.as_ref());
            Ok(crate::backup::run(&options, lock, signer.as_ref(), interrupt, monitor).await?)
        })
    }
}

/// What is worth a thought, and no reason to stop.
fn advise(options: &Options, lock: &Lock, monitor: &dyn Monitor) {
    if let Some(hint) = crate::keys::hint(lock) {
        monitor.event(Event::Hint { message: hint.to_owned() });
    }
    if options.postgres.is_none() {
        monitor.warn("no --postgres: the bundle will hold the bucket alone".to_owned());
    }
    if options.bucket.is_none() && options.cluster.is_none() {
        monitor.warn("no --bucket: the bundle will hold the databases alone".to_owned());
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Cli, Command, innermost, parse};
    use super::*;

    fn options(args: &[&str]) -> Result<Options, usage::Error> {
        let args: Vec<_> = ["pacharc", "backup"].iter().chain(args).map(Into::into).collect();
        let Ok((Cli { command: Command::Backup(backup) }, matches)) = parse(&args) else { panic!("{args:?}") };
        backup.options(innermost(&matches))
    }

    #[test]
    fn a_url_knows_whether_it_was_typed() {
        let typed = options(&["--postgres", "postgres://u:p@h"]).unwrap();
        assert!(typed.postgres.as_ref().unwrap().from_command_line);
        assert!(!format!("{typed:?}").contains("u:p"));

        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "postgres = 'postgres://u:p@h'\npg-bin = '/opt/pg'").unwrap();
        let named = options(&["--config", file.path().to_str().unwrap()]).unwrap().postgres.unwrap();
        assert!(!named.from_command_line);
        assert_eq!(named.url.expose(), "postgres://u:p@h");
        assert_eq!(named.pg_bin.unwrap().to_str(), Some("/opt/pg"));
    }

    #[test]
    fn what_was_typed_becomes_what_it_means() {
        let options = options(&[
            "--bucket=file:///b",
            "--postgres=postgres://",
            "--database=a",
            "--database=b",
            "--live-only",
            "--strict",
            "--exclude=tmp/",
            "--max-memory=1GiB",
            "--jobs=7",
            "--compression-level=9",
            "-o",
            "{uuid}",
        ]);
        let options = options.unwrap();
        assert_eq!(options.databases, ["a", "b"]);
        assert_eq!(options.bucket.as_deref(), Some("file:///b"));
        assert_eq!(options.exclude, [b"tmp/"]);
        assert_eq!((options.limits.max_memory, options.limits.jobs, options.compression_level), (1 << 30, 7, 9));
        assert!(options.live_only && options.strict && options.output.is_some());
    }

    #[test]
    fn flags_that_need_each_other() {
        assert!(matches!(options(&[]), Err(usage::Error::Missing { .. })));
        assert!(matches!(options(&["--bucket=b", "--database=a"]), Err(usage::Error::Needs { .. })));
        assert!(matches!(options(&["--bucket=b", "--live-only"]), Err(usage::Error::Needs { .. })));
        assert!(matches!(options(&["--bucket=b", "--temp-dir=/nowhere"]), Err(usage::Error::Value { .. })));
    }
}
