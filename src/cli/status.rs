//! `pacharc status`.

use std::process::ExitCode;

use clap::{ArgMatches, Args};

use super::Job;
use super::arguments::{ClusterArgs, NetworkArgs, resume_command};
use super::exit::{Failure, job_epilogue};
use super::report::{Report, ReportArgs};
use crate::cluster::suspend::{Condition, Holder, Record, Status as Found};
use crate::cluster::{Cluster, suspend};
use crate::failure::Class;
use crate::outcome::{Facts, Outcome};

const EXAMPLES: &str = "
  What is going on:
    pacharc status --namespace pachyderm
  Is it running?
    pacharc status --namespace pachyderm --quiet >/dev/null || echo no";

/// Running, or suspended: since when, by whom, with which counts, and who brings it back
///
/// Exit code 0 when it runs, 8 when it does not; then the last line is the command that brings it back. Whether a run and
/// its guardian live is seen by watching them, which takes up to a minute.
#[derive(Args, Debug)]
#[command(after_long_help = job_epilogue(EXAMPLES, super::suspend::CLASSES))]
pub(super) struct Status {
    #[command(flatten)]
    cluster: ClusterArgs,
    #[command(flatten)]
    network: NetworkArgs,
    #[command(flatten)]
    report: ReportArgs,
}

impl Job for Status {
    const NAME: &'static str = "status";

    fn report(&self) -> &ReportArgs {
        &self.report
    }

    fn run(self, _: &ArgMatches, report: &Report) -> Result<ExitCode, Failure> {
        let target = self.cluster.required()?;
        let command = resume_command(&target, &self.network);
        report.run(async |interrupt, _monitor| {
            let work = async {
                let cluster = Cluster::connect(&target, self.network.ca_file.as_deref()).await?;
                Ok::<_, Failure>(suspend::status(&cluster, &command).await?)
            };
            interrupt.guard(work).await
        })
    }
}

impl Outcome for Found {
    fn class(&self) -> Option<Class> {
        (self.state != Condition::Running).then_some(Class::Suspended)
    }

    fn summary(&self) -> String {
        let mut text: String = self.problems.iter().map(|problem| format!("problem: {problem}\n")).collect();
        if let Some(command) = &self.resume {
            text.push_str("bring it back with:\n");
            text.push_str(command);
        }
        text
    }

    fn product(&self) -> Option<String> {
        let mut facts = Facts::default();
        facts.add("namespace", &self.namespace);
        facts.add("state", word(self.state));
        for scale in &self.workloads {
            let recorded = self.record.as_ref().and_then(|record| recorded(record, &scale.name));
            let recorded = recorded.map(|count| format!(", {count} recorded")).unwrap_or_default();
            facts.add(&scale.name, format_args!("{} of {} ready{recorded}", scale.ready, scale.replicas));
        }
        if let Some(record) = &self.record {
            facts.add("since", format_args!("{:.0}", record.since));
            facts.add("by", format_args!("{}, pacharc {}", record.owner, record.pacharc));
            let how = match (record.kind, record.deadline) {
                (suspend::Kind::Run, _) => "for a run".to_owned(),
                (suspend::Kind::Hold, None) => "until it is resumed".to_owned(),
                (suspend::Kind::Hold, Some(deadline)) => format!("until {deadline:.0} at the latest"),
            };
            facts.add("how long", how);
        }
        let mut tell = |name: &str, holder: &Option<Holder>| {
            if let Some(holder) = holder {
                let life = if holder.alive { "alive" } else { "gone" };
                let left = holder.left_seconds.map(|left| format!(", {left} s left")).unwrap_or_default();
                facts.add(name, format_args!("{}, {life}{left}", holder.holder));
            }
        };
        tell("lease", &self.lease);
        tell("guardian", &self.guardian);
        Some(facts.into_text())
    }
}

fn recorded(record: &Record, name: &str) -> Option<i32> {
    match name {
        "workers" => Some(record.workers.values().sum()),
        name => record.deployments.get(name).copied(),
    }
}

fn word(state: Condition) -> &'static str {
    match state {
        Condition::Running => "running",
        Condition::NotReady => "not ready",
        Condition::Down => "down",
        Condition::Suspending => "suspending",
        Condition::Suspended => "suspended",
        Condition::Resuming => "resuming",
    }
}
