//! `pacharc backup --in-cluster`: what was typed here, as the arguments of a Job in the cluster.

use std::path::Component;
use std::process::ExitCode;
use std::time::Duration;

use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Args};

use super::exit::Failure;
use super::report::{Report, ReportArgs};
use super::{usage, values};
use crate::cluster::{Cluster, errand};
use crate::keys::LockNames;
use crate::options::{self, Template};
use crate::{backup, database};

#[derive(Args, Debug)]
#[command(next_help_heading = "In the cluster")]
pub(super) struct InClusterArgs {
    /// Run the backup as a Job in the cluster, and follow it to its end
    ///
    /// Nothing of the data comes through this machine or the API server. The flags of the backup go on to the Job; what
    /// names files of this machine does not.
    #[arg(long)]
    in_cluster: bool,
    /// The image of the Job, with pacharc and PostgreSQL's programs in its path
    #[arg(long, value_name = "IMAGE")]
    image: Option<String>,
    /// The volume claim that the bundle goes to; --output is a path in it
    #[arg(long, value_name = "NAME", value_parser = values::name)]
    claim: Option<String>,
    /// The account of the Job (deploy/rbac/backup.yaml)
    #[arg(long, value_name = "NAME", default_value = errand::ACCOUNT, value_parser = values::name)]
    service_account: String,
    /// A Secret in the namespace whose keys are the Job's environment, e.g. AWS_ACCESS_KEY_ID (repeatable)
    #[arg(long, value_name = "SECRET", value_parser = values::name)]
    env_from: Vec<String>,
    /// A Secret in the namespace to pull the image with (repeatable)
    #[arg(long, value_name = "SECRET", value_parser = values::name)]
    pull_secret: Vec<String>,
    /// An annotation of the Job's pod, such as sidecar.istio.io/inject=false (repeatable)
    #[arg(long, value_name = "KEY=VALUE", value_parser = values::pair)]
    pod_annotation: Vec<(String, String)>,
    /// How long the Job's pod may take to run
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = values::duration)]
    start_timeout: Duration,
    /// Where the claim is mounted
    #[arg(long, value_name = "DIR", default_value = errand::CLAIM_PATH, hide = true)]
    claim_path: String,
}

/// What is settled here, by its flag's name: it goes on in another form, or not at all.
const SETTLED: [&str; 13] = [
    "namespace",
    "context",
    "kubeconfig",
    "output",
    "recipient",
    "recipients-file",
    "passphrase-file",
    "postgres",
    "json",
    "json-file",
    "quiet",
    "verbose",
    "config",
];

/// What names files and folders of this machine, which the Job has others of.
const OF_THIS_MACHINE: [&str; 3] = ["ca-file", "pg-bin", "temp-dir"];

impl InClusterArgs {
    pub(super) fn is_wanted(&self) -> bool {
        self.in_cluster
    }

    fn is_own(flag: &str) -> bool {
        Self::augment_args(clap::Command::new("own")).get_arguments().any(|arg| arg.get_long() == Some(flag))
    }

    /// The Job, with the arguments that are settled here.
    fn job(
        &self,
        backup: &backup::Options,
        target: &options::Cluster,
        lock: &LockNames,
        matches: &ArgMatches,
    ) -> Result<errand::Options, Failure> {
        let (Some(image), Some(output)) = (self.image.clone(), &backup.output) else {
            return Err(usage::Error::Needs { what: "--in-cluster", needed: "--image" }.into());
        };
        if lock.passphrase_file.is_some() {
            return Err(usage::Error::Conflict { one: "--passphrase-file", other: "--in-cluster" }.into());
        }
        // To leave these out with a warning would be to leave out what was relied on.
        for (id, one) in [("sign_key", "--sign-key"), ("report", "--report")] {
            if matches.contains_id(id) {
                return Err(usage::Error::Conflict { one, other: "--in-cluster" }.into());
            }
        }
        let mut arguments = vec![
            "backup".to_owned(),
            format!("--namespace={}", target.namespace),
            format!("--output={}", self.output(output, &Cluster::name(target)?)?),
            "--temp-dir=/tmp".to_owned(),
        ];
        arguments.extend(lock.texts()?.iter().map(|recipient| format!("--recipient={recipient}")));
        let mut secrets = Vec::new();
        match (&backup.postgres, matches.value_source("postgres")) {
            (Some(postgres), Some(ValueSource::CommandLine)) => {
                // Refuses a password: everybody who may see the Job would see it, too.
                database::complete(&postgres.url, true, &[])?;
                arguments.push(format!("--postgres={}", postgres.url.expose()));
            }
            (Some(postgres), Some(_)) => secrets.push(("PACHARC_POSTGRES".to_owned(), postgres.url.clone())),
            _ => {}
        }
        let paused = backup.suspension.as_ref().filter(|_| backup.quiesce != backup::Quiesce::Online);
        Ok(errand::Options {
            image,
            arguments,
            secrets,
            env_from: self.env_from.clone(),
            pull_secrets: self.pull_secret.clone(),
            account: self.service_account.clone(),
            claim: self.claim.clone().map(|claim| (claim, self.claim_path.clone())),
            annotations: self.pod_annotation.clone(),
            start_timeout: self.start_timeout,
            resume: paused.map(|suspending| suspending.options.command.clone()),
        })
    }

    /// Where the bundle goes, as the Job is told.
    fn output(&self, output: &Template, cluster: &str) -> Result<String, usage::Error> {
        let text = output.text_for(cluster);
        match (&self.claim, text.starts_with("s3://")) {
            (_, _) if output.is_stdout() => Err(usage::Error::Conflict { one: "--output -", other: "--in-cluster" }),
            (None, true) => Ok(text),
            (Some(_), true) => Err(usage::Error::Conflict { one: "--claim", other: "--output s3://…" }),
            (None, false) => Err(usage::Error::Needs { what: "a file of a Job in the cluster", needed: "--claim" }),
            (Some(_), false) => {
                let is_inside = |part: Component<'_>| matches!(part, Component::Normal(_) | Component::CurDir);
                if !std::path::Path::new(&text).components().all(is_inside) {
                    let problem = "with --in-cluster it is a path in the claim, without / in front".to_owned();
                    return Err(usage::Error::Value { flag: "--output", value: text, problem });
                }
                Ok(format!("{}/{text}", self.claim_path))
            }
        }
    }
}

/// Makes the Job, follows it, and gives its exit code.
pub(super) fn run(
    args: &InClusterArgs,
    backup: &backup::Options,
    lock: &LockNames,
    reports: &ReportArgs,
    matches: &ArgMatches,
    report: &Report,
) -> Result<ExitCode, Failure> {
    let Some(target) = &backup.cluster else {
        return Err(usage::Error::Needs { what: "--in-cluster", needed: "--namespace" }.into());
    };
    let command = super::command();
    let flags: Vec<&Arg> =
        command.find_subcommand("backup").into_iter().flat_map(clap::Command::get_arguments).collect();
    let mut options = args.job(backup, target, lock, matches)?;
    options.arguments.extend(reports.elsewhere());
    options.arguments.extend(passed_on(&flags, matches));
    guard(&mut options);
    let stays = of_this_machine(&flags, matches);
    report.follow(async |interrupt, monitor| {
        if !stays.is_empty() {
            monitor.warn(format!("not for the Job, whose files are others: {}", stays.join(", ")));
        }
        let connected = async { Ok::<_, errand::Error>(Cluster::connect(target, backup.ca_file.as_deref()).await?) };
        let cluster = interrupt.guard(connected).await?;
        Ok(errand::run(&cluster, &options, interrupt, &*monitor).await?)
    })
}

/// The flags that go on as they are: those whose values are not the defaults, wherever they came from.
fn passed_on(flags: &[&Arg], matches: &ArgMatches) -> Vec<String> {
    let mut arguments = Vec::new();
    for arg in flags {
        let Some(flag) = arg.get_long() else { continue };
        if SETTLED.contains(&flag) || OF_THIS_MACHINE.contains(&flag) || InClusterArgs::is_own(flag) {
            continue;
        }
        let id = arg.get_id().as_str();
        match arg.get_action() {
            ArgAction::SetTrue if matches.get_flag(id) => arguments.push(format!("--{flag}")),
            ArgAction::Set | ArgAction::Append => {
                let given: Vec<_> = matches.get_raw(id).into_iter().flatten().collect();
                if !given.iter().copied().eq(arg.get_default_values().iter().map(|value| value.as_os_str())) {
                    arguments.extend(given.iter().map(|value| format!("--{flag}={}", value.to_string_lossy())));
                }
            }
            _ => {}
        }
    }
    arguments
}

/// A run that suspends the cluster has a guardian that outlives its pod: of the same image, and annotated alike.
fn guard(options: &mut errand::Options) {
    let has = |beginning: &str| options.arguments.iter().any(|argument| argument.starts_with(beginning));
    if has("--quiesce=") && !has("--guardian") {
        options.arguments.push(format!("--guardian-image={}", options.image));
        let annotations = options.annotations.iter();
        options.arguments.extend(annotations.map(|(key, value)| format!("--guardian-annotation={key}={value}")));
    }
}

/// Flags that were given, and stay here.
fn of_this_machine(flags: &[&Arg], matches: &ArgMatches) -> Vec<String> {
    let given = |arg: &&&Arg| {
        let id = arg.get_id().as_str();
        arg.get_long().is_some_and(|flag| OF_THIS_MACHINE.contains(&flag)) && matches.contains_id(id)
    };
    flags.iter().filter(given).filter_map(|arg| arg.get_long()).map(|flag| format!("--{flag}")).collect()
}
