//! Groups of flags that several commands share, and what they mean.

use std::path::PathBuf;
use std::time::Duration;

use clap::parser::ValueSource;
use clap::{ArgMatches, Args, ValueEnum};

use super::{usage, values};
use crate::cluster::forward::is_in_pod;
use crate::cluster::suspend::{
    self,
    guardian::{self, Guard},
};
use crate::evidence::{self, Keeper};
use crate::keys::{LockNames, UnlockNames};
use crate::options::{Cluster, Expectations, Limits, Postgres};
use crate::secret::Secret;
use crate::signature::{self, SigningKey, SigningKeyNames, TrustedKeys};

/// Whether a flag was typed. What the environment and the configuration file say is for other commands, too.
pub(super) fn is_typed(matches: &ArgMatches, id: &str) -> bool {
    matches.value_source(id) == Some(ValueSource::CommandLine)
}

/// Default of `--max-memory`.
const MAX_MEMORY: &str = "256MiB";

#[derive(Args, Debug)]
#[command(next_help_heading = "Databases and bucket")]
pub(super) struct ServerArgs {
    /// The PostgreSQL server, as a libpq URL or `host=… user=…`
    ///
    /// What it lacks comes from the PG* variables, ~/.pgpass and service files. A password here would be seen by every
    /// user of the machine, and is refused: put the URL into PACHARC_POSTGRES, or the password into PGPASSWORD or
    /// ~/.pgpass. `postgres://` alone takes everything from the PG* variables.
    #[arg(long, value_name = "URL")]
    postgres: Option<String>,
    /// The folder of pg_dump and psql; found where not given
    #[arg(long, value_name = "DIR")]
    pg_bin: Option<PathBuf>,
    /// The bucket: `s3://bucket[/prefix]?endpoint=…&region=…&path_style=true`, or `file:///dir`
    ///
    /// Credentials come from the provider's usual chain (environment, profile, instance), never from the URL.
    #[arg(long, value_name = "URL")]
    pub(super) bucket: Option<String>,
}

impl ServerArgs {
    /// Whether neither a server nor a bucket is named.
    pub(super) fn is_empty(&self) -> bool {
        self.postgres.is_none() && self.bucket.is_none()
    }

    /// The folder of PostgreSQL's programs, where it is named.
    pub(super) fn pg_bin(&self) -> Option<PathBuf> {
        self.pg_bin.clone()
    }

    /// The server, if one is named, or is to be found in a cluster; `matches` tells whether it was typed.
    pub(super) fn postgres(&self, matches: &ArgMatches, cluster: Option<&Cluster>) -> Option<Postgres> {
        // One that says nothing is completed by the cluster.
        let found = || cluster.map(|_| String::new());
        self.postgres.clone().or_else(found).map(|url| Postgres {
            url: Secret::from(url),
            from_command_line: is_typed(matches, "postgres"),
            pg_bin: self.pg_bin.clone(),
        })
    }
}

#[derive(Args, Debug)]
#[command(next_help_heading = "Kubernetes")]
pub(super) struct ClusterArgs {
    /// Pachyderm's namespace; for a restore, the one that the release will be installed into
    #[arg(long, short, value_name = "NAMESPACE", value_parser = values::name)]
    namespace: Option<String>,
    /// The kubeconfig's context; the current one where not given
    #[arg(long, value_name = "NAME")]
    context: Option<String>,
    /// Where the cluster is described; $KUBECONFIG, ~/.kube/config or the pod's own account where not given
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
}

impl ClusterArgs {
    /// The cluster, if one is named.
    ///
    /// # Errors
    /// Where it is described by what was typed, and not named.
    pub(super) fn cluster(&self, matches: &ArgMatches) -> Result<Option<Cluster>, usage::Error> {
        let cluster = self.named();
        for (id, what) in [("context", "--context"), ("kubeconfig", "--kubeconfig")] {
            if cluster.is_none() && is_typed(matches, id) {
                return Err(usage::Error::Needs { what, needed: "--namespace" });
            }
        }
        Ok(cluster)
    }

    fn named(&self) -> Option<Cluster> {
        let namespace = self.namespace.clone()?;
        Some(Cluster { namespace, context: self.context.clone(), kubeconfig: self.kubeconfig.clone() })
    }

    /// The cluster, which must be named.
    pub(super) fn required(&self) -> Result<Cluster, usage::Error> {
        self.named().ok_or(usage::Error::Missing {
            what: "--namespace",
            advice: "Name the namespace that Pachyderm runs in: --namespace NAME.",
        })
    }
}

#[derive(Args, Debug)]
#[command(next_help_heading = "Suspending")]
pub(super) struct SuspendArgs {
    /// How long pods may take to end; then the cluster is resumed
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = values::duration)]
    drain_timeout: Duration,
    /// Suspend although Argo CD, Flux or KEDA may scale up again
    #[arg(long)]
    ignore_gitops: bool,
    /// Who resumes the cluster if this run no longer can; job where an image is given, else process
    #[arg(long, value_name = "GUARDIAN")]
    guardian: Option<GuardianArg>,
    /// The image of the guardian's Job, with pacharc in its path
    #[arg(long, value_name = "IMAGE")]
    guardian_image: Option<String>,
    /// An annotation of the guardian's pod, such as sidecar.istio.io/inject=false (repeatable)
    #[arg(long, value_name = "KEY=VALUE", value_parser = values::pair)]
    guardian_annotation: Vec<(String, String)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum GuardianArg {
    /// A Job in the cluster: it survives the loss of this machine
    Job,
    /// A process on this machine
    Process,
    /// Nobody
    None,
}

#[derive(Args, Debug)]
#[command(next_help_heading = "Suspending")]
pub(super) struct ResumeArgs {
    /// How long pachd may take to become ready
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = values::duration)]
    ready_timeout: Duration,
    /// How many replicas of pachd to bring back where it is at 0 and nobody recorded how many it had
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(1..=1000))]
    pub(super) resume_replicas: Option<i32>,
    /// How long a Lease that is not renewed lives
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = values::lease_duration, hide = true)]
    lease_duration: Duration,
}

fn annotation_without_job() -> usage::Error {
    usage::Error::Needs { what: "--guardian-annotation", needed: "--guardian-image" }
}

impl SuspendArgs {
    /// Whether a guardian is spoken of.
    pub(super) fn names_guardian(&self) -> bool {
        self.guardian.is_some() || self.guardian_image.is_some()
    }

    /// Refuses annotations that were typed for no Job.
    pub(super) fn check(&self, matches: &ArgMatches) -> Result<(), usage::Error> {
        if is_typed(matches, "guardian_annotation") && self.guardian_image.is_none() {
            return Err(annotation_without_job());
        }
        Ok(())
    }

    /// Who guards.
    pub(super) fn guard(&self) -> Result<Guard, usage::Error> {
        let job = |image: &String| {
            let annotations = self.guardian_annotation.iter().cloned().collect();
            Guard::Job(guardian::Job { image: image.clone(), annotations })
        };
        match (self.guardian, &self.guardian_image) {
            (Some(GuardianArg::Job), None) => {
                Err(usage::Error::Needs { what: "--guardian job", needed: "--guardian-image" })
            }
            (None | Some(GuardianArg::Job), Some(image)) => Ok(job(image)),
            // Wherever they come from: a process has none.
            (None, None) if !self.guardian_annotation.is_empty() => Err(annotation_without_job()),
            // A pod's processes end with its first one: such a guardian would not outlive the run that it guards.
            (None, None) if is_in_pod() => Err(usage::Error::Missing {
                what: "--guardian-image",
                advice: "In a pod a process would end with this run: name an image for a Job as guardian \
                         (--guardian-image), or say --guardian process or none.",
            }),
            (None | Some(GuardianArg::Process), None) => Ok(Guard::Process),
            (Some(GuardianArg::Process | GuardianArg::None), Some(_)) => {
                Err(usage::Error::Needs { what: "--guardian-image", needed: "--guardian job" })
            }
            (Some(GuardianArg::None), None) => Ok(Guard::None),
        }
    }

    /// All that a suspend needs to know.
    pub(super) fn options(&self, resume: &ResumeArgs, cluster: &Cluster, network: &NetworkArgs) -> suspend::Options {
        suspend::Options {
            drain_timeout: self.drain_timeout,
            ignore_gitops: self.ignore_gitops,
            ..resume.options(cluster, network)
        }
    }
}

impl ResumeArgs {
    /// All that a resume needs to know.
    pub(super) fn options(&self, cluster: &Cluster, network: &NetworkArgs) -> suspend::Options {
        suspend::Options {
            owner: suspend::owner(),
            kind: suspend::Kind::Hold,
            hold: None,
            drain_timeout: suspend::DRAIN_TIMEOUT,
            ready_timeout: self.ready_timeout,
            resume_replicas: self.resume_replicas,
            ignore_gitops: false,
            guardian: Guard::None,
            way: guardian::Way {
                context: cluster.context.clone(),
                kubeconfig: cluster.kubeconfig.clone(),
                ca_file: network.ca_file.clone(),
            },
            lease_duration: self.lease_duration,
            command: resume_command(cluster, network),
        }
    }
}

/// What the user types to resume a cluster, from this machine.
pub(super) fn resume_command(cluster: &Cluster, network: &NetworkArgs) -> String {
    let mut words =
        vec!["pacharc".to_owned(), "resume".to_owned(), "--namespace".to_owned(), cluster.namespace.clone()];
    words.extend(cluster.context.iter().flat_map(|context| ["--context".to_owned(), context.clone()]));
    for (flag, file) in [("--kubeconfig", &cluster.kubeconfig), ("--ca-file", &network.ca_file)] {
        words.extend(file.iter().flat_map(|file| [flag.to_owned(), file.display().to_string()]));
    }
    words.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" ")
}

/// As a shell takes it for one word.
fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./:@=%+,".contains(c);
    if !word.is_empty() && word.chars().all(is_plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', "'\\''"))
}

#[derive(Args, Debug)]
#[command(next_help_heading = "Keys")]
pub(super) struct LockArgs {
    /// Who can open the bundle: age1…, ssh-ed25519 …, ssh-rsa …, or of an age plugin (repeatable)
    #[arg(long, value_name = "RECIPIENT")]
    recipient: Vec<String>,
    /// Recipients, one a line (repeatable)
    #[arg(long, value_name = "FILE")]
    recipients_file: Vec<PathBuf>,
    /// Lock with a passphrase instead: the first line of FILE
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
}

impl LockArgs {
    pub(super) fn names(&self) -> LockNames {
        LockNames {
            recipients: self.recipient.clone(),
            recipients_files: self.recipients_file.clone(),
            passphrase_file: self.passphrase_file.clone(),
        }
    }
}

#[derive(Args, Debug)]
#[command(next_help_heading = "Keys")]
pub(super) struct UnlockArgs {
    /// A file with a secret key: of age, of a plugin, or of ssh (repeatable)
    #[arg(long, short, value_name = "FILE")]
    identity: Vec<PathBuf>,
    /// The first line of FILE is the passphrase of the bundle
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
}

impl UnlockArgs {
    pub(super) fn names(&self) -> UnlockNames {
        UnlockNames { identities: self.identity.clone(), passphrase_file: self.passphrase_file.clone() }
    }
}

#[derive(Args, Debug)]
#[command(next_help_heading = "Which bundle it must be")]
pub(super) struct ExpectArgs {
    /// Refuse any bundle but the one with this id
    #[arg(long, value_name = "ID", value_parser = values::bundle_id)]
    expect_id: Option<String>,
    /// Refuse a bundle that was begun earlier: an age (7d, 36h), a day (UTC) or a time (RFC 3339)
    #[arg(long, value_name = "AGE|TIME", value_parser = values::not_older_than)]
    not_older_than: Option<jiff::Timestamp>,
    #[command(flatten)]
    trust: TrustArgs,
}

impl ExpectArgs {
    /// # Errors
    /// Where a trusted key is none.
    pub(super) fn expectations(&self) -> Result<Expectations, signature::Error> {
        let trusted = self.trust.keys()?;
        Ok(Expectations { id: self.expect_id.clone(), created_after: self.not_older_than, trusted })
    }
}

#[derive(Args, Debug)]
#[command(next_help_heading = "Which bundle it must be")]
pub(super) struct TrustArgs {
    /// Refuse a bundle that this key did not sign: minisign's public key (RW…), or a file of such keys (repeatable)
    #[arg(long, value_name = "KEY|FILE")]
    trusted_key: Vec<String>,
}

impl TrustArgs {
    /// # Errors
    /// Where one of them is no key.
    pub(super) fn keys(&self) -> Result<TrustedKeys, signature::Error> {
        TrustedKeys::read(&self.trusted_key)
    }
}

#[derive(Args, Debug)]
#[command(next_help_heading = "Keys")]
pub(super) struct SignArgs {
    /// Sign what is written, bundle and report, with this secret key of `pacharc keygen --sign` or `minisign -G`
    #[arg(long, value_name = "FILE")]
    sign_key: Option<PathBuf>,
    /// The first line of FILE is the password of that key; asked for where it has one and this is not given
    #[arg(long, value_name = "FILE")]
    sign_password_file: Option<PathBuf>,
}

impl SignArgs {
    /// Refuses a password for no key: what is not signed would be taken for signed.
    pub(super) fn check(&self) -> Result<(), usage::Error> {
        if self.sign_password_file.is_some() && self.sign_key.is_none() {
            return Err(usage::Error::Needs { what: "--sign-password-file", needed: "--sign-key" });
        }
        Ok(())
    }

    pub(super) fn names(&self) -> SigningKeyNames {
        SigningKeyNames { key: self.sign_key.clone(), password_file: self.sign_password_file.clone() }
    }
}

#[derive(Args, Debug)]
#[command(next_help_heading = "Reports")]
pub(super) struct EvidenceArgs {
    /// Keep evidence in FILE (JSON) and in a page for people beside it (.html); signed with --sign-key
    ///
    /// What was done, when, by which version, with which ids, for how long, sizes and verdict; also of a run that fails.
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
}

impl EvidenceArgs {
    pub(super) fn is_wanted(&self) -> bool {
        self.report.is_some()
    }

    /// Who keeps it, if it is wanted.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub(super) fn keeper(&self, signer: Option<SigningKey>) -> Result<Option<Keeper>, evidence::Error> {
        self.report.as_ref().map(|path| Keeper::new(path, signer)).transpose()
    }
}

#[derive(Args, Debug)]
#[command(next_help_heading = "Machine and network")]
pub(super) struct MachineArgs {
    /// The most memory to take: 128M, 1GiB
    #[arg(long, value_name = "SIZE", default_value = MAX_MEMORY, value_parser = values::memory)]
    max_memory: u64,
    /// Where what must be sorted spills to, encrypted; the system's folder for temporary files where not given
    #[arg(long, value_name = "DIR")]
    temp_dir: Option<PathBuf>,
    /// How many things to do at a time; as many as there are processors where not given
    #[arg(long, value_name = "N", value_parser = values::jobs)]
    jobs: Option<usize>,
}

impl MachineArgs {
    /// The limits of a run that begins now, with pages of a size that suits them.
    ///
    /// # Errors
    /// Where the folder for temporary files is none.
    pub(super) fn limits(&self) -> Result<Limits, usage::Error> {
        crate::budget::settle_pages(self.max_memory);
        let temp_dir = self.temp_dir.clone().unwrap_or_else(std::env::temp_dir);
        if !temp_dir.is_dir() {
            return Err(usage::Error::Value {
                flag: "--temp-dir",
                value: temp_dir.display().to_string(),
                problem: "there is no such folder".to_owned(),
            });
        }
        let processors = || std::thread::available_parallelism().map_or(1, usize::from);
        Ok(Limits { max_memory: self.max_memory, temp_dir, jobs: self.jobs.unwrap_or_else(processors) })
    }
}

#[derive(Args, Debug)]
#[command(next_help_heading = "Machine and network")]
pub(super) struct NetworkArgs {
    /// Authorities to trust besides the system's, in PEM: for PostgreSQL, bucket and Kubernetes alike
    #[arg(long, value_name = "FILE")]
    pub(super) ca_file: Option<PathBuf>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_that_resumes_is_one_for_the_shell() {
        let cluster = Cluster {
            namespace: "pachyderm".into(),
            context: Some("it's mine".into()),
            kubeconfig: Some("/home/a/.kube/config".into()),
        };
        let command = resume_command(&cluster, &NetworkArgs { ca_file: None });
        let expected =
            r"pacharc resume --namespace pachyderm --context 'it'\''s mine' --kubeconfig /home/a/.kube/config";
        assert_eq!(command, expected);
    }
}
