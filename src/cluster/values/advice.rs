//! What is left to a person: the commands that bring the restored cluster up, in order, and what to mind before it runs.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;

use serde_json::Value;

use super::{Captured, DATABASE_KEY, DATABASE_SECRET, Database, HOSTS, PLACEHOLDER, Successor, Target};
use crate::cluster::helm::{Release, lookup};
use crate::pachyderm::pipelines::Pipeline;
use crate::visible::one_line;

/// Names that are told in one sentence.
const TOLD: usize = 20;

const NEVER_TWO: &str =
    "never let two clusters use one bucket: each one's garbage collection deletes what the other one needs";

/// Where values go that a chart around Pachyderm's hands on. Globals of the outer chart win over those of the inner one.
const MOVE: &str =
    "leave `global` at the top, and move all else below the key of Pachyderm's chart (`pachyderm`, or its alias)";

/// What the restored pipelines will do once `pachd` runs: the newest version of each.
#[derive(Clone, Debug, Default)]
pub struct Pipelines(BTreeMap<String, Pipeline>);

impl Pipelines {
    /// Adds one version of a pipeline.
    pub fn push(&mut self, pipeline: Pipeline) {
        let newest = self.0.entry(format!("{}/{}", pipeline.project, pipeline.name)).or_default();
        if pipeline.version >= newest.version {
            *newest = pipeline;
        }
    }

    fn titles(&self, is_so: impl Fn(&Pipeline) -> bool) -> Vec<String> {
        self.0.values().filter(|pipeline| !pipeline.stopped && is_so(pipeline)).map(Pipeline::title).collect()
    }
}

/// What to mind, one sentence each; what does not apply to this bundle is not among it.
#[must_use]
pub fn warnings(successor: &Successor, captured: &Captured, target: &Target, pipelines: &Pipelines) -> Vec<String> {
    let mut warnings = Vec::new();
    let crons = pipelines.titles(|pipeline| !pipeline.crons.is_empty());
    if !crons.is_empty() {
        warnings.push(format!(
            "cron pipelines make up for every tick since the backup, all at once, as soon as pachd runs: {} \
             (`pachctl stop pipeline` at once, where that is not wanted)",
            told(&crons)
        ));
    }
    let outside = pipelines.titles(|pipeline| pipeline.has_egress || pipeline.is_spout);
    if !outside.is_empty() && !target.drill {
        warnings.push(format!("these pipelines write to, or read from, real places outside: {}", told(&outside)));
    }
    let made: BTreeSet<&str> = successor.secrets.iter().filter_map(|secret| secret.metadata.name.as_deref()).collect();
    let needed: BTreeSet<&String> = pipelines.0.values().flat_map(|pipeline| &pipeline.secrets).collect();
    let lacking: Vec<String> =
        needed.into_iter().filter(|name| !made.contains(name.as_str())).map(|name| (*name).clone()).collect();
    if !lacking.is_empty() {
        warnings.push(format!("pipelines need Secrets that the bundle lacks: {}", told(&lacking)));
    }
    warnings.extend(of_identity(successor, captured));
    warnings.extend(of_place(successor, captured, target));
    warnings
}

/// Who may log in and do what (Pachyderm, `EnvBootstrap` in `src/server/auth/server/api_server.go`).
fn of_identity(successor: &Successor, captured: &Captured) -> Vec<String> {
    let mut warnings = Vec::new();
    let value = |path: &str| {
        let computed = captured.own_release().and_then(|release| lookup(&release.computed, path));
        lookup(&successor.values, path).or(computed)
    };
    let is_on = |path: &str| value(path) == Some(&Value::Bool(true));
    let is_set = |path: &str| match value(path) {
        Some(Value::String(text)) => !text.is_empty() && text != PLACEHOLDER,
        Some(Value::Array(items)) => !items.is_empty(),
        Some(Value::Object(map)) => !map.is_empty(),
        _ => false,
    };
    // The chart's default; where no value is known it is on.
    let mock = value("oidc.mockIDP") != Some(&Value::Bool(false));
    if mock && !is_set("oidc.upstreamIDPs") && !is_set("oidc.upstreamIDPsSecretName") {
        warnings.push(
            "oidc.mockIDP is on, and no identity provider is given: the first start replaces the restored cluster's \
             administrators by the mock user; set oidc.mockIDP: false or oidc.upstreamIDPs before"
                .to_owned(),
        );
    }
    if is_set("pachd.pachAuthClusterRoleBindings") {
        warnings.push(
            "pachd.pachAuthClusterRoleBindings is set: the first start takes away every cluster role that is not in it"
                .to_owned(),
        );
    }
    if is_on("pachd.activateEnterpriseMember") || captured.config_maps.contains_key("pachyderm-enterprise-config") {
        warnings.push(
            "the cluster is a member of an enterprise server: the restored one reports there under the same id, so that \
             both look like one; unless it replaces the old one, register it anew"
                .to_owned(),
        );
    }
    warnings
}

/// Where it runs.
fn of_place(successor: &Successor, captured: &Captured, target: &Target) -> Vec<String> {
    let mut warnings = vec![NEVER_TWO.to_owned()];
    warnings.extend(not_restored(captured, target));
    let is_old = |path: &&str| {
        let text = lookup(&successor.values, path).and_then(Value::as_str).unwrap_or_default();
        !text.is_empty() && target.host.as_ref().is_none_or(|host| !text.contains(host.as_str()))
    };
    let hosts: Vec<&str> = HOSTS.into_iter().filter(is_old).collect();
    if !hosts.is_empty() {
        let hosts = hosts.join(", ");
        warnings.push(match &target.host {
            None => format!(
                "these values name the host of the source (--host replaces it; users then log in again): {hosts}"
            ),
            Some(host) => format!(
                "these values do not name {host}, and logins may go to the old cluster (neither proxy.host nor \
                 ingress.host of the source is a part of them); change them by hand: {hosts}"
            ),
        });
    }
    let accounts = captured.workloads.service_accounts.iter().filter(|account| !account.annotations.is_empty());
    let accounts: Vec<String> = accounts.map(|account| account.name.clone()).collect();
    if !accounts.is_empty() {
        warnings.push(format!(
            "service accounts have annotations, which may stand for rights in the source's cloud: {}",
            told(&accounts)
        ));
    }
    let omitted: Vec<String> = captured
        .omitted
        .iter()
        .filter(|omitted| omitted.kind == "Secret" && omitted.reason.contains("new environment"))
        .map(|omitted| omitted.name.clone())
        .collect();
    if !omitted.is_empty() {
        warnings.push(format!("Secrets that the new environment must bring itself: {}", told(&omitted)));
    }
    match &captured.release {
        None => warnings.push(
            "Helm had no release at the source that the backup could read (Argo CD, Flux?): values.yaml has what must be \
             said of the new place alone; put it over the values in your repository"
                .to_owned(),
        ),
        Some(release) if !release.is_pachyderm() => warnings.push(format!(
            "Helm's release {} is of chart {}, around Pachyderm's: values.yaml has what must be said of the new place alone; \
             {MOVE}, over what your own values say of the source's database and bucket",
            release.name, release.chart.name
        )),
        Some(_) => {}
    }
    warnings
}

/// The half that is lacking, where one is: pods on the source's would join it.
fn not_restored(captured: &Captured, target: &Target) -> Vec<String> {
    let sentence = |what: &str, flag: &str| {
        format!(
            "the {what} not restored, and values.yaml has {PLACEHOLDER} there: restore the rest ({flag}) before pachd \
             starts, and never name the source's, nor an empty one"
        )
    };
    let mut sentences = Vec::new();
    match &target.database {
        None => sentences.push(sentence("databases were", "--postgres")),
        Some(Database { main, identity, .. }) => {
            let lacking = [("database of Pachyderm was", main), ("identity database was", identity)];
            let lacking = lacking.into_iter().filter(|(_, restored)| restored.is_none());
            sentences.extend(lacking.map(|(what, _)| sentence(what, "--database")));
        }
    }
    if target.lacks_bucket(captured) {
        sentences.push(sentence("bucket was", "--bucket"));
    }
    sentences
}

fn told(names: &[String]) -> String {
    let (first, more) = names.split_at(names.len().min(TOLD));
    let rest = if more.is_empty() { String::new() } else { format!(" and {} more", more.len()) };
    format!("{}{rest}", first.join(", "))
}

/// The commands that are left, in order.
#[must_use]
pub fn steps(
    successor: &Successor,
    captured: &Captured,
    target: &Target,
    folder: &Path,
    with_clear: bool,
    are_made: bool,
) -> String {
    let folder = quoted(&folder.display().to_string());
    let namespace = quoted(target.namespace.as_deref().unwrap_or("NAMESPACE"));
    let release = captured.release.as_ref();
    let name = quoted(release.map_or("pachyderm", |release| release.name.as_str()));
    let mut steps: Vec<String> = Vec::new();
    if target.namespace.is_none() {
        steps.push(format!("Make the namespace:\n    kubectl create namespace {namespace}"));
    }
    if successor.policy.is_some() {
        let policy = format!("kubectl --namespace {namespace} apply -f {folder}/networkpolicy.yaml");
        steps.push(format!(
            "Cut the namespace off from the world (your network plugin must support NetworkPolicy):\n    {policy}"
        ));
    }
    if !successor.secrets.is_empty() && !are_made {
        let apply = format!("kubectl --namespace {namespace} create -f {folder}/secrets");
        steps.push(format!("Make the Secrets:\n    {apply}"));
    }
    if !successor.config_maps.is_empty() && !are_made {
        let apply = format!("kubectl --namespace {namespace} create -f {folder}/configmaps");
        steps.push(format!("Make the ConfigMaps:\n    {apply}"));
    }
    if lookup(&successor.values, "global.postgresql.postgresqlExistingSecretName") == Some(&DATABASE_SECRET.into()) {
        let create = format!("kubectl --namespace {namespace} create secret generic {DATABASE_SECRET}");
        steps.push(format!(
            "Make the Secret with the database's password, from a file that holds nothing else:\n    \
             {create} --from-file={DATABASE_KEY}=FILE"
        ));
    }
    let lacking = not_restored(captured, target);
    if !lacking.is_empty() {
        steps.push(format!("Restore what is lacking:\n    {}\n    {NEVER_TWO}", lacking.join("\n    ")));
    }
    if !successor.placeholders.is_empty() {
        let list: Vec<_> = successor.placeholders.iter().map(|path| one_line(path)).collect();
        let list = list.join("\n    ");
        let where_else = if with_clear { " (values.secret.yaml has some of them)" } else { "" };
        steps.push(format!("Replace {PLACEHOLDER} in {folder}/values.yaml{where_else}:\n    {list}"));
    }
    let clear = if with_clear { format!(" -f {folder}/values.secret.yaml") } else { String::new() };
    let values = format!("--namespace {namespace} -f {folder}/values.yaml{clear}");
    steps.extend(install(&name, release, &values, target.upgrade_to.as_deref()));
    let host = target.host.as_deref().unwrap_or("ADDRESS");
    steps.push(format!(
        "Connect:\n    \
         echo '{{\"pachd_address\": \"grpc://{host}:30650\"}}' | pachctl config set context {name} --overwrite\n    \
         pachctl config set active-context {name}\n    \
         (through the chart's proxy: grpc://{host}:80, or grpcs://{host}:443 with TLS)"
    ));
    let mut text = String::new();
    for (at, step) in steps.iter().enumerate() {
        // Writing to a string has no way to fail.
        let _ = writeln!(text, "{}. {step}", at + 1);
    }
    text
}

/// How Helm installs it with the arguments `values`, and upgrades it afterwards.
fn install(name: &str, release: Option<&Release>, values: &str, upgrade_to: Option<&str>) -> Vec<String> {
    let version = release.map(|release| format!(" --version {}", quoted(&release.chart.version))).unwrap_or_default();
    if let Some(release) = release.filter(|release| !release.is_pachyderm()) {
        let chart = one_line(&release.chart.name);
        let mut steps = vec![format!(
            "Install your chart {chart} with Pachyderm's inside. In values.yaml {MOVE}; put it over your own values, in which \
             nothing may name the source's database and bucket:\n    \
             helm install {name} CHART{version} -f YOUR-VALUES.yaml {values}"
        )];
        steps.extend(upgrade_to.map(|newer| {
            format!("When it runs, and not before, upgrade Pachyderm inside of it to {}", one_line(newer))
        }));
        return steps;
    }
    let mut steps = vec![format!(
        "Install the version that was backed up:\n    helm repo add pachyderm https://helm.pachyderm.com\n    \
         helm install {name} pachyderm/pachyderm{version} {values}"
    )];
    steps.extend(upgrade_to.map(|newer| {
        let newer = quoted(newer);
        format!(
            "When it runs, and not before, upgrade it:\n    \
             helm upgrade {name} pachyderm/pachyderm --version {newer} {values} --set pachd.image.tag={newer}"
        )
    }));
    steps
}

/// As a shell takes it, and a terminal shows it: it may come from a bundle.
fn quoted(text: &str) -> String {
    let text = &*one_line(text);
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:@%+=".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', "'\\''"))
}
