//! The statements that the data section of a dump may hold, and what they say.

use super::script::ScriptError;

/// A statement of a dump's data section.
#[derive(Debug, PartialEq, Eq)]
pub enum Statement {
    /// A session setting of the preamble.
    Setting(String),
    /// The head of a table's rows.
    Copy(Copy),
    /// The state of a sequence.
    Sequence(SequenceSet),
    /// Anything about large objects.
    LargeObject(LargeObject),
}

/// `COPY … FROM stdin;`
#[derive(Debug, PartialEq, Eq)]
pub struct Copy {
    /// The statement.
    pub text: Vec<u8>,
    /// The schema of the table that is loaded.
    pub schema: String,
    /// The table that is loaded: the root, where a partition is loaded through it.
    pub table: String,
    /// The columns; none where the table has none that are stored.
    pub columns: Vec<String>,
    /// The comment above it, which names the table that was read; see [`super::script::label`].
    pub label: Option<String>,
}

/// `SELECT pg_catalog.setval(…);`
#[derive(Debug, PartialEq, Eq)]
pub struct SequenceSet {
    /// The statement.
    pub text: Vec<u8>,
    /// The sequence's schema.
    pub schema: String,
    /// The sequence's name.
    pub name: String,
    /// `last_value`.
    pub last_value: i64,
    /// `is_called`.
    pub is_called: bool,
}

/// A statement about large objects.
#[derive(Debug, PartialEq, Eq)]
pub struct LargeObject {
    /// The statement.
    pub text: Vec<u8>,
    /// What it does.
    pub step: Step,
}

/// What a statement does to large objects.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// Opens this one; what follows is its content.
    Open(u32),
    /// Appends these bytes to the open one.
    Write(Vec<u8>),
    /// Closes the open one.
    Close,
    /// Creates one, comments on one, begins or ends a transaction.
    Other,
}

/// Whether a text that is read line by line stands within quotes. Inside of `"…"` and `'…'` the other quote means
/// nothing, and a doubled quote closes and opens again. (Every session of ours has standard_conforming_strings on, that of
/// pg_dump too, so that a backslash has no meaning within `'…'`.)
#[derive(Debug, Default)]
pub struct Quotes(Option<u8>);

impl Quotes {
    /// Goes on through `text`.
    pub fn feed(&mut self, text: &[u8]) {
        for &byte in text {
            match self.0 {
                None if matches!(byte, b'"' | b'\'') => self.0 = Some(byte),
                Some(open) if open == byte => self.0 = None,
                _ => {}
            }
        }
    }

    /// Whether no quote is open.
    #[must_use]
    pub fn closed(&self) -> bool {
        self.0.is_none()
    }
}

/// What the statement `text`, without its line end, says.
pub(super) fn parse(text: Vec<u8>, label: Option<String>) -> Result<Statement, ScriptError> {
    let unknown = |text: &[u8]| ScriptError::Unknown(String::from_utf8_lossy(text).chars().take(200).collect());
    let Ok(line) = std::str::from_utf8(&text) else { return Err(unknown(&text)) };
    let statement = if line.starts_with("COPY ") {
        copy(line)
            .map(|(schema, table, columns)| Statement::Copy(Copy { text: line.into(), schema, table, columns, label }))
    } else if let Some(arguments) = line.strip_prefix("SELECT pg_catalog.setval(") {
        setval(arguments).map(|(schema, name, last_value, is_called)| {
            Statement::Sequence(SequenceSet { text: line.into(), schema, name, last_value, is_called })
        })
    } else if line.starts_with("SET ") || line.starts_with("SELECT pg_catalog.set_config('search_path',") {
        Some(Statement::Setting(line.to_owned()))
    } else {
        step(line).map(|step| Statement::LargeObject(LargeObject { text: line.into(), step }))
    };
    statement.ok_or_else(|| unknown(&text))
}

/// Schema, table and columns of `COPY "schema"."table" ("column", …) FROM stdin;`, as pg_dump writes it with
/// `--quote-all-identifiers`.
pub(crate) fn copy(line: &str) -> Option<(String, String, Vec<String>)> {
    let (schema, rest) = identifier(line.strip_prefix("COPY ")?)?;
    let (table, rest) = identifier(rest.strip_prefix('.')?)?;
    let mut columns = Vec::new();
    let mut rest = rest.strip_prefix(' ')?;
    if let Some(mut list) = rest.strip_prefix('(') {
        loop {
            let (column, after) = identifier(list)?;
            columns.push(column);
            match after.strip_prefix(", ") {
                Some(more) => list = more,
                None => {
                    rest = after.strip_prefix(')')?;
                    break;
                }
            }
        }
    }
    (rest == " FROM stdin;").then_some((schema, table, columns))
}

fn setval(arguments: &str) -> Option<(String, String, i64, bool)> {
    let (name, rest) = quoted(arguments, '\'')?;
    let (schema, after) = identifier(&name)?;
    let (sequence, after) = identifier(after.strip_prefix('.')?)?;
    let (last_value, is_called) = rest.strip_prefix(", ")?.strip_suffix(");")?.split_once(", ")?;
    let last_value = last_value.parse().ok()?;
    after.is_empty().then_some((schema, sequence, last_value, is_called.parse().ok()?))
}

fn step(line: &str) -> Option<Step> {
    let call = |name: &str| line.strip_prefix("SELECT pg_catalog.")?.strip_prefix(name)?.strip_suffix(");");
    if let Some(arguments) = call("lowrite(0, ") {
        let digits = arguments.strip_prefix("'\\x")?.strip_suffix('\'')?;
        return hex::decode(digits).ok().map(Step::Write);
    }
    if let Some(arguments) = call("lo_open(") {
        return arguments.split_once("', ")?.0.strip_prefix('\'')?.parse().ok().map(Step::Open);
    }
    if call("lo_close(").is_some() {
        return Some(Step::Close);
    }
    let other = matches!(line, "BEGIN;" | "COMMIT;")
        || call("lo_create(").is_some()
        || line.starts_with("COMMENT ON LARGE OBJECT ");
    other.then_some(Step::Other)
}

/// A quoted identifier at the beginning of `text`, and what follows it.
fn identifier(text: &str) -> Option<(String, &str)> {
    quoted(text, '"')
}

fn quoted(text: &str, quote: char) -> Option<(String, &str)> {
    let mut rest = text.strip_prefix(quote)?;
    let mut value = String::new();
    loop {
        let (part, after) = rest.split_once(quote)?;
        value.push_str(part);
        match after.strip_prefix(quote) {
            Some(more) => {
                value.push(quote);
                rest = more;
            }
            None => return Some((value, after)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Option<Statement> {
        parse(text.into(), None).ok()
    }

    #[test]
    fn tables_without_columns() {
        let Some(Statement::Copy(copy)) = parsed("COPY \"public\".\"zero\"  FROM stdin;") else { panic!("no COPY") };
        assert_eq!((copy.table.as_str(), copy.columns.len()), ("zero", 0));
    }

    #[test]
    fn large_objects() {
        let step = |text| match parsed(text) {
            Some(Statement::LargeObject(statement)) => Some(statement.step),
            _ => None,
        };
        assert_eq!(step("SELECT pg_catalog.lo_open('4294967295', 131072);"), Some(Step::Open(u32::MAX)));
        assert_eq!(step("SELECT pg_catalog.lowrite(0, '\\x00ff');"), Some(Step::Write(vec![0, 255])));
        assert_eq!(step("SELECT pg_catalog.lo_close(0);"), Some(Step::Close));
        assert_eq!(step("SELECT pg_catalog.lo_create('7');"), Some(Step::Other));
        assert_eq!(step("BEGIN;"), Some(Step::Other));
        assert_eq!(step("COMMENT ON LARGE OBJECT 7 IS 'a\nb';"), Some(Step::Other));
        assert_eq!(step("SELECT pg_catalog.lowrite(0, '\\xzz');"), None);
    }

    #[test]
    fn near_misses() {
        for text in [
            "COPY public.t (a) FROM stdin;",
            "COPY \"s\".\"t\" (\"a\") FROM stdin WITH CSV;",
            "COPY \"s\".\"t\" (\"a\" FROM stdin;",
            "SELECT pg_catalog.setval('\"s\".\"q\"', x, true);",
            "SELECT pg_catalog.setval('\"s\".\"q\".\"r\"', 1, true);",
            "SELECT pg_catalog.setval('\"s\".\"q\"', 1, true); DROP TABLE x;",
            "SELECT 1;",
            "",
        ] {
            assert!(parsed(text).is_none(), "{text}");
        }
    }
}
