//! What several jobs are told alike: a server, a place for a bundle, limits, expectations.
//!
//! Plain data: where a value came from (command line, environment, file) is settled before.

use std::fmt;
use std::path::PathBuf;

use jiff::Timestamp;
use uuid::Uuid;

use crate::secret::Secret;
use crate::signature::TrustedKeys;

/// A PostgreSQL server, and the programs to speak to it.
#[derive(Clone, Debug)]
pub struct Postgres {
    /// URL or keywords as libpq takes them; may hold a password. What it lacks comes from the `PG*` variables.
    pub url: Secret,
    /// Whether it was typed where every user of the machine can see it: then it must hold no password.
    pub from_command_line: bool,
    /// Where pg_dump and psql lie; found where `None`.
    pub pg_bin: Option<PathBuf>,
}

/// A namespace in Kubernetes, and the way to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cluster {
    /// The namespace.
    pub namespace: String,
    /// The kubeconfig's context; its current one where `None`.
    pub context: Option<String>,
    /// The kubeconfig; found as kubectl finds it where `None`.
    pub kubeconfig: Option<PathBuf>,
}

/// What a run may take of the machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The process's peak resident size, in bytes; children apart.
    pub max_memory: u64,
    /// Where what must be sorted spills to, encrypted.
    pub temp_dir: PathBuf,
    /// How many things are done at a time; at least 1.
    pub jobs: usize,
}

/// Where a bundle lies, or will.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Location {
    /// `-`: standard input or output.
    Stdio,
    /// A file.
    File(PathBuf),
    /// `s3://bucket/key?…`, one object.
    S3(String),
}

impl From<&str> for Location {
    fn from(text: &str) -> Self {
        match text {
            "-" => Self::Stdio,
            url if url.starts_with("s3://") => Self::S3(url.to_owned()),
            path => Self::File(path.into()),
        }
    }
}

/// As it was named.
impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stdio => f.write_str("-"),
            Self::File(path) => write!(f, "{}", path.display()),
            Self::S3(url) => f.write_str(url),
        }
    }
}

/// The name of a bundle to write, with `{time}`, `{uuid}`, `{cluster}` and `{namespace}` to be filled in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Time,
    Uuid,
    Cluster,
    Namespace,
}

/// What the fields of a [`Template`] are filled in with.
#[derive(Clone, Debug)]
pub struct Names {
    /// When the bundle was begun.
    pub created: Timestamp,
    /// Its UUID.
    pub uuid: Uuid,
    /// What the kubeconfig calls the cluster; empty where the source is in none.
    pub cluster: String,
    /// The namespace; empty where the source is in none.
    pub namespace: String,
}

/// A template that cannot be filled in.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// No such field.
    #[error("unknown field {{{0}}}; there are {{time}}, {{uuid}}, {{cluster}} and {{namespace}}")]
    Unknown(String),
    /// A brace that is not closed, or closes nothing.
    #[error("a brace has no partner (a brace itself is written twice)")]
    Brace,
}

impl std::str::FromStr for Template {
    type Err = TemplateError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut parts = Vec::new();
        let mut literal = String::new();
        let mut chars = text.chars().peekable();
        while let Some(c) = chars.next() {
            match c {
                '{' | '}' if chars.peek() == Some(&c) => {
                    chars.next();
                    literal.push(c);
                }
                '{' => {
                    let mut field = String::new();
                    loop {
                        match chars.next() {
                            Some('}') => break,
                            Some(c) if c != '{' => field.push(c),
                            _ => return Err(TemplateError::Brace),
                        }
                    }
                    parts.push(Part::Text(std::mem::take(&mut literal)));
                    parts.push(match field.as_str() {
                        "time" => Part::Time,
                        "uuid" => Part::Uuid,
                        "cluster" => Part::Cluster,
                        "namespace" => Part::Namespace,
                        _ => return Err(TemplateError::Unknown(field)),
                    });
                }
                '}' => return Err(TemplateError::Brace),
                c => literal.push(c),
            }
        }
        parts.push(Part::Text(literal));
        Ok(Self { parts })
    }
}

/// What file names and keys may hold everywhere.
fn safe(c: char) -> char {
    if c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-') { c } else { '-' }
}

impl Template {
    /// The location for a bundle. The time is UTC and safe in file names: `20250131T093000Z`; so is what the names of
    /// clusters may hold (`arn:aws:eks:…:cluster/x`).
    #[must_use]
    pub fn fill(&self, names: &Names) -> Location {
        let name: String = self
            .parts
            .iter()
            .map(|part| match part {
                Part::Text(text) => text.clone(),
                Part::Time => names.created.strftime("%Y%m%dT%H%M%SZ").to_string(),
                Part::Uuid => names.uuid.to_string(),
                Part::Cluster => names.cluster.chars().map(safe).collect(),
                Part::Namespace => names.namespace.clone(),
            })
            .collect();
        Location::from(name.as_str())
    }

    /// The template as text, with the cluster's name filled in: for a run that would know it by another one.
    #[must_use]
    pub fn text_for(&self, cluster: &str) -> String {
        let fields = self.parts.iter().map(|part| match part {
            Part::Text(text) => text.replace('{', "{{").replace('}', "}}"),
            Part::Time => "{time}".to_owned(),
            Part::Uuid => "{uuid}".to_owned(),
            Part::Cluster => cluster.chars().map(safe).collect(),
            Part::Namespace => "{namespace}".to_owned(),
        });
        fields.collect()
    }

    /// A field that only a source in Kubernetes has a value for, if there is one.
    #[must_use]
    pub fn kubernetes_field(&self) -> Option<&'static str> {
        self.parts.iter().find_map(|part| match part {
            Part::Cluster => Some("{cluster}"),
            Part::Namespace => Some("{namespace}"),
            _ => None,
        })
    }

    /// Whether the bundle goes to standard output.
    #[must_use]
    pub fn is_stdout(&self) -> bool {
        matches!(self.parts.as_slice(), [Part::Text(text)] if text == "-")
    }
}

/// Which bundle it must be, so that an older or another one is not taken for it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Expectations {
    /// Its id: BLAKE3 of `BLAKE3SUMS`, 64 hex digits in lower case.
    pub id: Option<String>,
    /// It was begun at this time or later.
    pub created_after: Option<Timestamp>,
    /// One of these keys signed it, if there are any.
    pub trusted: TrustedKeys,
}

impl Expectations {
    /// Whether any bundle will do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.id.is_none() && self.created_after.is_none() && self.trusted.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_is_filled_in() {
        let created = Timestamp::from_second(1_700_000_000).unwrap();
        let cluster = "arn:aws:eks:eu-west-1:1:cluster/lake".to_owned();
        let names = Names { created, uuid: Uuid::nil(), cluster, namespace: "pachyderm".to_owned() };
        let fill = |text: &str| text.parse::<Template>().unwrap().fill(&names).to_string();
        assert_eq!(fill("a-{time}.pacharc"), "a-20231114T221320Z.pacharc");
        assert_eq!(fill("s3://b/{uuid}"), "s3://b/00000000-0000-0000-0000-000000000000");
        assert_eq!(fill("{{x}}"), "{x}");
        assert_eq!(fill("{cluster}/{namespace}"), "arn-aws-eks-eu-west-1-1-cluster-lake/pachyderm");
        let text_for = |text: &str| text.parse::<Template>().unwrap().text_for("gke:lake");
        assert_eq!(text_for("{{a}}/{cluster}-{namespace}-{time}"), "{{a}}/gke-lake-{namespace}-{time}");
        assert_eq!("{namespace}".parse::<Template>().unwrap().kubernetes_field(), Some("{namespace}"));
        assert!("-".parse::<Template>().unwrap().is_stdout());
        assert!(!"-{time}".parse::<Template>().unwrap().is_stdout());
    }

    #[test]
    fn what_cannot_be_filled_in_is_an_error() {
        let error = |text: &str| text.parse::<Template>().unwrap_err();
        assert_eq!(error("{date}"), TemplateError::Unknown("date".into()));
        for text in ["{time", "time}", "{ti{me}", "{"] {
            assert_eq!(error(text), TemplateError::Brace, "{text}");
        }
    }

    #[test]
    fn a_location_is_told_by_its_form() {
        assert_eq!(Location::from("-"), Location::Stdio);
        assert_eq!(Location::from("s3://b/k"), Location::S3("s3://b/k".into()));
        assert_eq!(Location::from("./-"), Location::File("./-".into()));
    }
}
