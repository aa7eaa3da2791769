//! Doors for fuzzing (`fuzz/`): each parser of what comes from outside, by itself. Not a part of the interface.

use crate::bucket::{BucketUrl, parse_attributes};
use crate::cluster::helm::Release;
use crate::database::{ScriptReader, Statement, parse_conninfo};

/// What the parsers of this crate read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// A script of pg_dump: statements, and rows of COPY.
    Script,
    /// A libpq URL or connection string.
    Conninfo,
    /// A Helm release, as its Secret holds it.
    Release,
    /// The `.attrs` beside an object of a directory.
    Attributes,
    /// A bucket's URL.
    BucketUrl,
}

/// Reads `bytes` as a `part`, and drops what comes of it.
pub async fn parse(part: Part, bytes: &[u8]) {
    let text = || std::str::from_utf8(bytes).ok();
    match part {
        Part::Script => drop(script(bytes).await),
        Part::Conninfo => {
            text().map(parse_conninfo);
        }
        Part::Release => {
            if let Ok(release) = Release::decode("secret", bytes) {
                drop(release.computed_value("a.b.c").cloned());
            }
        }
        Part::Attributes => {
            parse_attributes(bytes).ok();
        }
        Part::BucketUrl => {
            if let Some(text) = text() {
                text.parse::<BucketUrl>().ok();
                BucketUrl::parse_object(text).ok();
            }
        }
    }
}

/// Reads a script of pg_dump up to what is wrong in it, and says how many rows it had.
pub async fn script(bytes: &[u8]) -> usize {
    let (mut reader, mut rows) = (ScriptReader::new(bytes), 0);
    while let Ok(Some(statement)) = reader.statement().await {
        if matches!(statement, Statement::Copy(_)) {
            while let Ok(Some(more)) = reader.rows().await {
                assert!(more.len() <= bytes.len(), "rows are longer than their script");
                rows += memchr::memchr_iter(b'\n', more).count();
            }
        }
    }
    rows
}
