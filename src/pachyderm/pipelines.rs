//! What a pipeline will do when its cluster is started again elsewhere: tick at once for all the time that passed, write to
//! places outside, mount Secrets.
//!
//! Pipelines lie in `collections.pipelines`, one row a version, as protocol buffers (Pachyderm, `src/pps/pps.proto`; the
//! fields read here have had the same numbers since 2.0). Only those fields are read: no schema is compiled in.

use std::collections::BTreeSet;

use futures::TryStreamExt as _;

use crate::database::{Error, Session};

/// How deep inputs may be nested: crosses of unions of joins. Pachyderm has no limit; nobody has ten.
const DEPTH: u32 = 32;

/// One version of a pipeline.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pipeline {
    /// Its project; empty before 2.5.
    pub project: String,
    /// Its name.
    pub name: String,
    /// Which version.
    pub version: u64,
    /// Whether a user stopped it.
    pub stopped: bool,
    /// The schedules of its cron inputs, e.g. `@hourly`.
    pub crons: Vec<String>,
    /// Whether it writes results to somewhere outside.
    pub has_egress: bool,
    /// Whether it brings data in from somewhere outside.
    pub is_spout: bool,
    /// The Secrets that its pods need.
    pub secrets: BTreeSet<String>,
}

/// Gives every version of every pipeline of a database to `take`, one at a time; what cannot be read is passed over.
///
/// # Errors
/// The server's.
pub async fn read(session: &Session, mut take: impl FnMut(Pipeline)) -> Result<(), Error> {
    let failed = || Error::query("cannot read collections.pipelines");
    let none: [&str; 0] = [];
    let rows = session.query_raw("SELECT proto FROM collections.pipelines", none).await.map_err(failed())?;
    let mut rows = std::pin::pin!(rows);
    while let Some(row) = rows.try_next().await.map_err(failed())? {
        let proto: Option<&[u8]> = row.try_get(0).map_err(failed())?;
        if let Some(pipeline) = proto.and_then(Pipeline::from_proto) {
            take(pipeline);
        }
    }
    Ok(())
}

impl Pipeline {
    /// Reads a `PipelineInfo`; `None` where it is none.
    #[must_use]
    pub fn from_proto(proto: &[u8]) -> Option<Self> {
        let mut pipeline = Self::default();
        for field in fields(proto) {
            match field? {
                (1, Value::Bytes(named)) => {
                    for field in fields(named) {
                        match field? {
                            (1, Value::Bytes(name)) => pipeline.name = text(name)?,
                            (2, Value::Bytes(project)) => pipeline.project = text(bytes_of(project, 1)?)?,
                            _ => {}
                        }
                    }
                }
                (2, Value::Number(version)) => pipeline.version = version,
                (4, Value::Number(stopped)) => pipeline.stopped = stopped != 0,
                (12, Value::Bytes(details)) => pipeline.details(details)?,
                _ => {}
            }
        }
        (!pipeline.name.is_empty()).then_some(pipeline)
    }

    /// As pachctl names it: `project/name`.
    #[must_use]
    pub fn title(&self) -> String {
        match self.project.as_str() {
            "" | "default" => self.name.clone(),
            project => format!("{project}/{}", self.name),
        }
    }

    /// `PipelineInfo.Details`.
    fn details(&mut self, details: &[u8]) -> Option<()> {
        for field in fields(details) {
            match field? {
                (1, Value::Bytes(transform)) => self.transform(transform)?,
                (4, Value::Bytes(egress)) => self.egress(egress)?,
                (13, Value::Bytes(input)) => self.input(input, DEPTH)?,
                (20, Value::Bytes(_)) => self.is_spout = true,
                _ => {}
            }
        }
        self.secrets.remove("");
        Some(())
    }

    /// `Transform`: mounted Secrets (5) and those that pull the image (6).
    fn transform(&mut self, transform: &[u8]) -> Option<()> {
        for field in fields(transform) {
            match field? {
                (5, Value::Bytes(mount)) => self.secrets.insert(text(bytes_of(mount, 1)?)?),
                (6, Value::Bytes(name)) => self.secrets.insert(text(name)?),
                _ => false,
            };
        }
        Some(())
    }

    /// `Egress`: a URL (1), an object store (2), an SQL database (3) with the Secret of its password (`pfs.proto`).
    fn egress(&mut self, egress: &[u8]) -> Option<()> {
        for field in fields(egress) {
            match field? {
                (1 | 2, Value::Bytes(target)) if !target.is_empty() => self.has_egress = true,
                (3, Value::Bytes(database)) => {
                    self.has_egress = true;
                    for field in fields(database) {
                        if let (3, Value::Bytes(secret)) = field? {
                            self.secrets.insert(text(bytes_of(secret, 1)?)?);
                        }
                    }
                }
                _ => {}
            }
        }
        Some(())
    }

    /// `Input`: joins, groups, crosses and unions (2 to 5) of inputs, or a cron (6) with its schedule (4 before 2.5 and now).
    fn input(&mut self, input: &[u8], depth: u32) -> Option<()> {
        for field in fields(input) {
            match field? {
                (2..=5, Value::Bytes(nested)) => self.input(nested, depth.checked_sub(1)?)?,
                (6, Value::Bytes(cron)) => self.crons.push(text(bytes_of(cron, 4)?)?),
                _ => {}
            }
        }
        Some(())
    }
}

/// A field's value, as far as its wire type tells (protobuf.dev, Encoding).
enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

/// The fields of a message, in order; a `None` is the last, where the rest is no message.
fn fields(mut rest: &[u8]) -> impl Iterator<Item = Option<(u64, Value<'_>)>> {
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let field = field(&mut rest);
        if field.is_none() {
            rest = &[];
        }
        Some(field)
    })
}

fn field<'a>(rest: &mut &'a [u8]) -> Option<(u64, Value<'a>)> {
    let tag = varint(rest)?;
    let value = match tag & 7 {
        0 => Value::Number(varint(rest)?),
        1 => Value::Bytes(take(rest, 8)?),
        2 => {
            let length = usize::try_from(varint(rest)?).ok()?;
            Value::Bytes(take(rest, length)?)
        }
        5 => Value::Bytes(take(rest, 4)?),
        _ => return None,
    };
    Some((tag >> 3, value))
}

fn take<'a>(rest: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (taken, left) = rest.split_at_checked(length)?;
    *rest = left;
    Some(taken)
}

fn varint(rest: &mut &[u8]) -> Option<u64> {
    let mut number = 0_u64;
    for shift in (0..70).step_by(7) {
        let (first, left) = rest.split_first()?;
        *rest = left;
        number |= u64::from(first & 0x7f).checked_shl(shift).unwrap_or_default();
        if first & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

/// The last value of a field of bytes; empty where it is absent, as protocol buffers have it.
fn bytes_of(message: &[u8], wanted: u64) -> Option<&[u8]> {
    let mut found: &[u8] = &[];
    for field in fields(message) {
        if let (number, Value::Bytes(bytes)) = field?
            && number == wanted
        {
            found = bytes;
        }
    }
    Some(found)
}

fn text(bytes: &[u8]) -> Option<String> {
    String::from_utf8(bytes.to_vec()).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bytes(number: u8, content: &[u8]) -> Vec<u8> {
        let length = u8::try_from(content.len()).unwrap();
        assert!(length < 128);
        [&[number << 3 | 2, length], content].concat()
    }

    /// Field numbers above 15 take two bytes.
    fn high(number: u8, content: &[u8]) -> Vec<u8> {
        let tag = u16::from(number) << 3 | 2;
        let [low, high] = [tag & 0x7f | 0x80, tag >> 7].map(|part| u8::try_from(part).unwrap());
        let length = u8::try_from(content.len()).unwrap();
        [&[low, high, length], content].concat()
    }

    #[test]
    fn a_pipeline_with_everything() {
        let cron = |spec: &str| bytes(6, &[bytes(1, b"tick"), bytes(4, spec.as_bytes())].concat());
        let input = bytes(4, &[bytes(5, &cron("@hourly")), cron("0 * * * *")].concat());
        let transform = [bytes(1, b"image"), bytes(5, &bytes(1, b"mounted")), bytes(6, b"pull")].concat();
        let egress = bytes(3, &bytes(3, &bytes(1, b"sql")));
        let details = [bytes(1, &transform), bytes(4, &egress), bytes(13, &input), high(20, b"")].concat();
        let named = [bytes(1, b"name"), bytes(2, &bytes(1, b"lab"))].concat();
        let proto = [bytes(1, &named), vec![2 << 3, 0x81, 1], vec![4 << 3, 1], bytes(12, &details)].concat();
        let pipeline = Pipeline::from_proto(&proto).unwrap();
        let wanted = Pipeline {
            project: "lab".into(),
            name: "name".into(),
            version: 129,
            stopped: true,
            crons: vec!["@hourly".into(), "0 * * * *".into()],
            has_egress: true,
            is_spout: true,
            secrets: ["mounted", "pull", "sql"].map(str::to_owned).into(),
        };
        assert_eq!(pipeline, wanted);
        assert_eq!(pipeline.title(), "lab/name");
        for cut in 1..proto.len() {
            // Never a panic; a part may be a message, too.
            let _ = Pipeline::from_proto(&proto[..cut]);
        }
    }

    #[test]
    fn what_is_no_pipeline() {
        assert_eq!(Pipeline::from_proto(b""), None);
        assert_eq!(Pipeline::from_proto(&[0xff; 30]), None);
        let mut input = bytes(6, b"");
        for _ in 0..50 {
            input = [vec![2 << 3 | 2, u8::try_from(input.len()).unwrap()], input].concat();
        }
        let proto = [bytes(1, &bytes(1, b"deep")), bytes(12, &bytes(13, &input))].concat();
        assert_eq!(Pipeline::from_proto(&proto), None);
    }

    proptest! {
        #[test]
        fn nothing_panics(proto in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Pipeline::from_proto(&proto);
        }
    }
}
