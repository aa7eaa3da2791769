//! `pacharc restore`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{ArgMatches, Args};

use super::Job;
use super::arguments::{
    ClusterArgs, EvidenceArgs, ExpectArgs, MachineArgs, NetworkArgs, ServerArgs, SignArgs, UnlockArgs,
};
use super::exit::{Failure, job_epilogue};
use super::report::{Report, ReportArgs};
use super::{usage, values};
use crate::failure::Class;
use crate::keys::UnlockNames;
use crate::options::{Cluster, Location};
use crate::restore::options::Release;
use crate::restore::{Options, Rename};

const EXAMPLES: &str = "
  Into a fresh server and an empty bucket:
    pacharc restore cluster.pacharc --identity key.txt --owner pachyderm \\
      --postgres postgres://postgres@new.example/postgres --bucket 's3://fresh?region=eu-central-1'
  The databases alone, under other names:
    pacharc restore cluster.pacharc --identity key.txt --postgres postgres://localhost \\
      --database pachyderm=rehearsal --database dex=rehearsal_dex
  Into a new cluster, with what Helm needs to start it:
    pacharc restore cluster.pacharc --config target.toml \\
      --namespace pachyderm --apply-secrets --write-to release
  From a pipe:
    ssh vault cat cluster.pacharc | pacharc restore - --config target.toml";

const CLASSES: &[Class] = &[
    Class::Other,
    Class::Usage,
    Class::Damaged,
    Class::Incomplete,
    Class::Refused,
    Class::Credentials,
    Class::Unreachable,
    Class::Interrupted,
    Class::Terminated,
];

/// Unpack into a fresh database and bucket, then prove the result
///
/// Refuses a target that is not empty, and one that is the source itself. Interrupted, the same command goes on where it
/// stopped. It never starts pachd.
#[derive(Args, Debug)]
#[command(after_long_help = job_epilogue(EXAMPLES, CLASSES))]
pub(super) struct Restore {
    /// A file, `-` for standard input, or s3://bucket/key
    #[arg(value_name = "BUNDLE")]
    bundle: String,
    #[command(flatten)]
    server: ServerArgs,
    /// A database, and its new name if it shall have one (repeatable); all when not given
    #[arg(long, value_name = "BUNDLED[=TARGET]", value_parser = values::rename, help_heading = "Databases and bucket")]
    database: Vec<Rename>,
    /// Who owns what is restored; the connecting role when not given
    #[arg(long, value_name = "ROLE", value_parser = values::name, help_heading = "Databases and bucket")]
    owner: Option<String>,
    /// Allow a bucket URL with a prefix, which Pachyderm itself ignores
    #[arg(long, help_heading = "Databases and bucket")]
    allow_prefix: bool,
    /// Restore a bundle that lacks live objects; the exit code is 4, and each of them is named
    #[arg(long, help_heading = "Databases and bucket")]
    allow_incomplete: bool,
    #[command(flatten)]
    cluster: ClusterArgs,
    #[command(flatten)]
    release: ReleaseArgs,
    #[command(flatten)]
    unlock: UnlockArgs,
    #[command(flatten)]
    expect: ExpectArgs,
    #[command(flatten)]
    machine: MachineArgs,
    #[command(flatten)]
    network: NetworkArgs,
    #[command(flatten)]
    sign: SignArgs,
    #[command(flatten)]
    evidence: EvidenceArgs,
    #[command(flatten)]
    report: ReportArgs,
}

#[derive(Args, Debug)]
#[command(next_help_heading = "Kubernetes")]
struct ReleaseArgs {
    /// Write what the new release needs into DIR: values.yaml, Secrets, next steps. It must be new or empty
    ///
    /// Values hold no credentials: where one was, REPLACE-ME stands, or the name of a Secret. Everything is readable by its
    /// owner alone.
    #[arg(long, value_name = "DIR")]
    write_to: Option<PathBuf>,
    /// Make the captured Secrets and ConfigMaps in --namespace; a Secret that exists with other content is refused
    #[arg(long)]
    apply_secrets: bool,
    /// Write credentials that only values can hold into values.secret.yaml, in clear
    #[arg(long)]
    secret_values: bool,
    /// Where users will reach the new cluster; the values keep the old name when not given
    #[arg(long, value_name = "NAME", value_parser = values::name)]
    host: Option<String>,
    /// The Pachyderm that is wanted in the end; the files start the one that was backed up. An older one is refused
    #[arg(long, value_name = "VERSION", value_parser = values::name)]
    pachyderm_version: Option<String>,
    /// Go on with a database whose release is not known
    #[arg(long)]
    allow_unknown_schema: bool,
    /// For a rehearsal: no door to the outside, and a NetworkPolicy that lets pods reach database and bucket alone
    #[arg(long)]
    drill: bool,
}

impl ReleaseArgs {
    /// What is wanted of the release in `cluster`.
    ///
    /// # Errors
    /// Where something is wanted, and no place for it is named: it would be left out in silence.
    fn release(&self, cluster: Option<&Cluster>) -> Result<Release, usage::Error> {
        let has_folder = self.write_to.is_some();
        for (what, is_wanted, needed, is_given) in [
            ("--apply-secrets", self.apply_secrets, "--namespace", cluster.is_some()),
            ("--secret-values", self.secret_values, "--write-to", has_folder),
            ("--host", self.host.is_some(), "--write-to", has_folder),
            ("--pachyderm-version", self.pachyderm_version.is_some(), "--write-to", has_folder),
            ("--drill", self.drill, "--write-to", has_folder),
        ] {
            if is_wanted && !is_given {
                return Err(usage::Error::Needs { what, needed });
            }
        }
        Ok(Release {
            write_to: self.write_to.clone(),
            apply_secrets: self.apply_secrets,
            secret_values: self.secret_values,
            host: self.host.clone(),
            pachyderm_version: self.pachyderm_version.clone(),
            allow_unknown_schema: self.allow_unknown_schema,
            drill: self.drill,
        })
    }
}

impl Restore {
    /// What the arguments mean.
    pub(super) fn options(&self, matches: &ArgMatches) -> Result<Options, Failure> {
        if self.server.is_empty() {
            return Err(usage::Error::Missing {
                what: "a target",
                advice: "Name the server with --postgres URL and the bucket with --bucket URL.",
            }
            .into());
        }
        let postgres = self.server.postgres(matches, None);
        if postgres.is_none() {
            for (what, given) in [("--database", !self.database.is_empty()), ("--owner", self.owner.is_some())] {
                if given {
                    return Err(usage::Error::Needs { what, needed: "--postgres" }.into());
                }
            }
        }
        one_target_each(&self.database)?;
        let cluster = self.cluster.cluster(matches)?;
        self.sign.check()?;
        Ok(Options {
            bundle: Location::from(self.bundle.as_str()),
            postgres,
            databases: self.database.clone(),
            owner: self.owner.clone(),
            bucket: self.server.bucket.clone(),
            allow_prefix: self.allow_prefix,
            allow_incomplete: self.allow_incomplete,
            release: self.release.release(cluster.as_ref())?,
            cluster,
            expect: self.expect.expectations()?,
            ca_file: self.network.ca_file.clone(),
            limits: self.machine.limits()?,
        })
    }

    pub(super) fn unlock_names(&self) -> UnlockNames {
        self.unlock.names()
    }

    pub(super) fn report_args(&self) -> &ReportArgs {
        &self.report
    }
}

impl Job for Restore {
    const NAME: &'static str = "restore";

    fn report(&self) -> &ReportArgs {
        &self.report
    }

    fn run(self, matches: &ArgMatches, report: &Report) -> Result<ExitCode, Failure> {
        let options = self.options(matches)?;
        let unlock = self.unlock.names().read()?;
        let keeper = self.evidence.keeper(self.sign.names().read()?)?;
        report.run_kept(keeper.as_ref(), async |interrupt, monitor| {
            Ok(crate::restore::run(&options, &unlock, interrupt, monitor).await?)
        })
    }
}

/// No database twice, and no two into one.
fn one_target_each(databases: &[Rename]) -> Result<(), usage::Error> {
    for (at, later) in databases.iter().enumerate() {
        let earlier = databases.iter().take(at);
        if let Some(same) = earlier.into_iter().find(|d| d.target == later.target || d.bundled == later.bundled) {
            let problem = if same.target == later.target { "a target is named twice" } else { "it is named twice" };
            return Err(usage::Error::Value {
                flag: "--database",
                value: format!("{}={}", later.bundled, later.target),
                problem: problem.to_owned(),
            });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_database_is_restored_twice() {
        let check = |texts: &[&str]| {
            let renames: Vec<Rename> = texts.iter().map(|text| values::rename(text).unwrap()).collect();
            one_target_each(&renames)
        };
        assert!(check(&["a", "b", "c=d"]).is_ok());
        for texts in [["a", "a"], ["a=x", "b=x"], ["a=x", "a=y"], ["a=b", "b"]] {
            assert!(check(&texts).is_err(), "{texts:?}");
        }
    }
}
