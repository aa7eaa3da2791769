//! Groups of flags that several commands share, and what they mean.

use std::path::PathBuf;

use clap::parser::ValueSource;
use clap::{ArgMatches, Args};

use super::{usage, values};
use crate::keys::{LockNames, UnlockNames};
use crate::options::{Cluster, Expectations, Limits, Postgres};
use crate::secret::Secret;

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
    /// The server, if one is named, or is to be found in a cluster; `matches` tells whether it was typed.
    ///
    /// # Errors
    /// Where neither a server nor a bucket is named, nor a cluster that names them.
    pub(super) fn postgres(
        &self,
        matches: &ArgMatches,
        cluster: Option<&Cluster>,
    ) -> Result<Option<Postgres>, usage::Error> {
        // One that says nothing is completed by the cluster.
        let found = || cluster.map(|_| String::new());
        if self.postgres.is_none() && self.bucket.is_none() && cluster.is_none() {
            return Err(usage::Error::Missing {
                what: "neither --postgres nor --bucket",
                advice: "Name the server with --postgres URL and the bucket with --bucket URL.",
            });
        }
        Ok(self.postgres.clone().or_else(found).map(|url| Postgres {
            url: Secret::from(url),
            from_command_line: matches.value_source("postgres") == Some(ValueSource::CommandLine),
            pg_bin: self.pg_bin.clone(),
        }))
    }
}

#[derive(Args, Debug)]
#[command(next_help_heading = "Kubernetes")]
pub(super) struct ClusterArgs {
    /// The namespace that Pachyderm runs in
    #[arg(long, short, value_name = "NAMESPACE", value_parser = values::name)]
    namespace: Option<String>,
    /// The kubeconfig's context; the current one where not given
    #[arg(long, value_name = "NAME", requires = "namespace")]
    context: Option<String>,
    /// Where the cluster is described; $KUBECONFIG, ~/.kube/config or the pod's own account where not given
    #[arg(long, value_name = "FILE", requires = "namespace")]
    kubeconfig: Option<PathBuf>,
}

impl ClusterArgs {
    /// The cluster, if one is named.
    pub(super) fn cluster(&self) -> Option<Cluster> {
        let namespace = self.namespace.clone()?;
        Some(Cluster { namespace, context: self.context.clone(), kubeconfig: self.kubeconfig.clone() })
    }
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
    /// Refuse a bundle that was begun earlier: an age (7d, 36h) or a time (RFC 3339)
    #[arg(long, value_name = "AGE|TIME", value_parser = values::not_older_than)]
    not_older_than: Option<jiff::Timestamp>,
}

impl ExpectArgs {
    pub(super) fn expectations(&self) -> Expectations {
        Expectations { id: self.expect_id.clone(), created_after: self.not_older_than }
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
    /// # Errors
    /// Where the folder for temporary files is none.
    pub(super) fn limits(&self) -> Result<Limits, usage::Error> {
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
    /// Authorities to trust besides the system's, in PEM: for PostgreSQL and bucket alike
    #[arg(long, value_name = "FILE")]
    pub(super) ca_file: Option<PathBuf>,
}
