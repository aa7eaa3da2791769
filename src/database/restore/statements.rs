//! Splits SQL as pg_dump writes it into statements, by the rules of psql's own scanner (`psqlscan.l`).
//!
//! Statements are sent to the server one by one, and not as files to psql, so that a few of them can be run under
//! another role, indexes can be built in parallel, and an error names its statement and its SQLSTATE.

use super::RestoreError;

/// The longest statement, in bytes: a function's body or a large object's comment.
const STATEMENT_LIMIT: usize = 64 << 20;

/// SQL that arrives in parts, of which the complete statements are taken out.
#[derive(Debug)]
pub(super) struct Script {
    file: &'static str,
    text: Vec<u8>,
    /// Where the next statement begins.
    start: usize,
}

impl Script {
    /// An empty one; `file` is what errors call it.
    pub(super) fn new(file: &'static str) -> Self {
        Self { file, text: Vec::new(), start: 0 }
    }

    /// Appends a part.
    pub(super) fn push(&mut self, part: &[u8]) -> Result<(), RestoreError> {
        self.text.drain(..std::mem::take(&mut self.start));
        if self.text.len() > STATEMENT_LIMIT {
            return Err(self.damaged("a statement is longer than 64 MiB"));
        }
        self.text.extend_from_slice(part);
        Ok(())
    }

    /// The next complete statement, with its semicolon; `None` until more is pushed.
    pub(super) fn next(&mut self) -> Result<Option<String>, RestoreError> {
        let mut rest = &self.text[self.start..];
        loop {
            let skipped = blank(rest);
            rest = &rest[skipped..];
            self.start += skipped;
            if !rest.starts_with(b"\\") {
                break;
            }
            // psql's own commands: these two guard psql against a hostile server, and stand between statements.
            let Some(end) = rest.iter().position(|b| *b == b'\n') else { return Ok(None) };
            let line = &rest[..end];
            if !line.starts_with(b"\\restrict ") && !line.starts_with(b"\\unrestrict ") {
                return Err(self.damaged("it holds a command of psql that is not known"));
            }
            rest = &rest[end..];
            self.start += end;
        }
        let Some(length) = statement_length(rest) else { return Ok(None) };
        let statement = rest[..length].to_vec();
        self.start += length;
        String::from_utf8(statement).map(Some).map_err(|_| self.damaged("a statement is not UTF-8"))
    }

    /// What follows the last statement that was taken.
    pub(super) fn into_rest(mut self) -> Vec<u8> {
        self.text.split_off(self.start)
    }

    /// Makes sure that nothing but white space and comments is left.
    pub(super) fn finish(mut self) -> Result<(), RestoreError> {
        // The last line may lack its end.
        self.push(b"\n")?;
        match self.next()? {
            None if self.start == self.text.len() => Ok(()),
            _ => Err(self.damaged("its last statement is not complete")),
        }
    }

    fn damaged(&self, problem: &str) -> RestoreError {
        RestoreError::Script { file: self.file.to_owned(), problem: problem.to_owned() }
    }
}

/// The length of the white space and the complete comments at the beginning.
fn blank(text: &[u8]) -> usize {
    let mut at = 0;
    loop {
        let rest = &text[at..];
        let length = match rest {
            [b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c, ..] => Some(1),
            [b'-', b'-', ..] => line_end(rest),
            [b'/', b'*', ..] => comment_end(rest),
            _ => None,
        };
        match length {
            Some(length) => at += length,
            None => return at,
        }
    }
}

fn line_end(text: &[u8]) -> Option<usize> {
    text.iter().position(|b| *b == b'\n').map(|end| end + 1)
}

/// Comments nest.
fn comment_end(text: &[u8]) -> Option<usize> {
    let (mut depth, mut at) = (0_u32, 0);
    while at < text.len() {
        match &text[at..] {
            [b'/', b'*', ..] => (depth, at) = (depth + 1, at + 2),
            [b'*', b'/', ..] => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            return Some(at);
        }
    }
    None
}

/// The length of what is quoted, from its opening to behind its closing `quote`; a doubled one stays inside.
fn quoted_end(text: &[u8], quote: u8, escapes: bool) -> Option<usize> {
    let mut at = 1;
    while at < text.len() {
        match text[at] {
            b'\\' if escapes => at += 2,
            byte if byte == quote => {
                if text.get(at + 1) != Some(&quote) {
                    return Some(at + 1);
                }
                at += 2;
            }
            _ => at += 1,
        }
    }
    None
}

/// The length of a `$tag$…$tag$`; `Err` where the dollar does not begin one, `Ok(None)` where it does not end.
fn dollar_end(text: &[u8]) -> Result<Option<usize>, ()> {
    let tag = 1 + text[1..].iter().take_while(|b| is_identifier(**b) && **b != b'$').count();
    if text.get(tag) != Some(&b'$') || text[1].is_ascii_digit() {
        return Err(());
    }
    let tag = &text[..=tag];
    let body = &text[tag.len()..];
    Ok(memchr::memmem::find(body, tag).map(|end| tag.len() + end + tag.len()))
}

fn is_identifier(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'$') || byte >= 0x80
}

/// The length of the statement at the beginning of `text`, its semicolon included; `None` where it is not complete.
fn statement_length(text: &[u8]) -> Option<usize> {
    let (mut at, mut parentheses, mut blocks) = (0, 0_i32, 0_u32);
    let mut words = Words::default();
    while at < text.len() {
        let rest = &text[at..];
        at += match rest[0] {
            b';' if parentheses == 0 && blocks == 0 => return Some(at + 1),
            b'-' if rest.starts_with(b"--") => line_end(rest)?,
            b'/' if rest.starts_with(b"/*") => comment_end(rest)?,
            b'\'' => quoted_end(rest, b'\'', false)?,
            b'"' => quoted_end(rest, b'"', false)?,
            b'$' => match dollar_end(rest) {
                Ok(end) => end?,
                Err(()) => 1,
            },
            b'e' | b'E' if rest.get(1) == Some(&b'\'') => 1 + quoted_end(&rest[1..], b'\'', true)?,
            byte if is_identifier(byte) => {
                let length = rest.iter().take_while(|b| is_identifier(**b)).count();
                let word = &rest[..length];
                if words.in_routine(word) && parentheses == 0 {
                    // The body of a routine may be SQL between BEGIN ATOMIC and END; a CASE has an END too.
                    if word.eq_ignore_ascii_case(b"begin") || blocks > 0 && word.eq_ignore_ascii_case(b"case") {
                        blocks += 1;
                    } else if blocks > 0 && word.eq_ignore_ascii_case(b"end") {
                        blocks -= 1;
                    }
                }
                length
            }
            byte => {
                parentheses += i32::from(byte == b'(') - i32::from(byte == b')');
                1
            }
        };
    }
    None
}

/// The first words of a statement: whether it is `CREATE [OR REPLACE] {FUNCTION | PROCEDURE}`.
#[derive(Default)]
struct Words {
    seen: usize,
    routine: Option<bool>,
}

impl Words {
    fn in_routine(&mut self, word: &[u8]) -> bool {
        let is = |name: &str| word.eq_ignore_ascii_case(name.as_bytes());
        if self.routine.is_none() {
            self.routine = match self.seen {
                0 if is("create") => None,
                1 if is("or") => None,
                2 if is("replace") => None,
                1 | 3 => Some(is("function") || is("procedure")),
                _ => Some(false),
            };
            self.seen += 1;
        }
        self.routine == Some(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The statements, with the text handed over in parts of `step` bytes.
    fn split(text: &str, step: usize) -> Result<Vec<String>, RestoreError> {
        let mut script = Script::new("x");
        let mut statements = Vec::new();
        for part in text.as_bytes().chunks(step) {
            script.push(part)?;
            while let Some(statement) = script.next()? {
                statements.push(statement);
            }
        }
        script.finish()?;
        Ok(statements)
    }

    #[test]
    fn a_semicolon_ends_a_statement_only_outside_of_everything() {
        let statements = [
            "SET a = 'b;';",
            "SELECT 'it''s;', E'\\';', e'\\\\', U&'\\0061;', \"a;\"\"b;\";",
            "SELECT $$;$$, $a$ $b$;$b$ $$ ; $a$, a$b$c, $1;",
            "SELECT /* ; /* ; */ ; */ 1 -- ;\n + 2;",
            "CREATE RULE r AS ON INSERT TO t DO (DELETE FROM a; DELETE FROM b);",
            "CREATE FUNCTION f() RETURNS int LANGUAGE sql BEGIN ATOMIC SELECT CASE WHEN true THEN 1 END; SELECT 2; END;",
            "CREATE OR REPLACE PROCEDURE \"begin\".p() LANGUAGE sql\n BEGIN ATOMIC\n SELECT 1;\nEND;",
            "CREATE FUNCTION é() RETURNS text LANGUAGE plpgsql AS $_$ begin; end; $_$;",
            "CREATE TABLE begin (function int, case_ int);",
            "CREATE VIEW v AS SELECT CASE WHEN a THEN b END FROM begin;",
        ];
        let text = statements.join("\n\n--\n-- Name: x; Type: y\n--\n\n");
        for step in (1..64).chain([10_000]) {
            assert_eq!(split(&text, step).unwrap(), statements, "step {step}");
        }
    }

    #[test]
    fn restrict_is_dropped_between_statements_alone() {
        let text = "--\n\\restrict abc\n\nSELECT 1;\nSELECT '\n\\restrict x\n';\n\\unrestrict abc";
        for step in [1, 3, 100] {
            assert_eq!(split(text, step).unwrap(), ["SELECT 1;", "SELECT '\n\\restrict x\n';"]);
        }
        assert!(split("\\! ls\n", 9).is_err());
    }

    #[test]
    fn what_is_cut_off_is_noticed() {
        for text in ["SELECT 1", "SELECT ';", "SELECT $$;", "/* ;", "SELECT (1;", "SELECT \";", "/* /* */ ;"] {
            assert!(split(text, 1000).is_err(), "{text}");
        }
        assert!(split("SELECT 1;\n-- no end of line", 1000).unwrap().len() == 1);
    }
}
