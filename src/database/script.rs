//! Reads the data section of a plain dump as pg_dump writes it: COPY blocks, `setval` calls, large objects.
//!
//! Names are taken from the statements, never from the comments, in which pg_dump replaces line ends by spaces: the dump
//! must be made with `--quote-all-identifiers`. What is not known is an error, since data that nobody understood is data
//! that nobody can prove. Rows are handed out as slices of the input's buffer, so a row of any length takes no memory.

use std::mem::take;

use tokio::io::{AsyncBufReadExt as _, AsyncRead, BufReader};

use super::statement::{self, Statement};
use super::utf8::Utf8Check;

/// What is read from a child at once, in bytes.
const INPUT_BUFFER: usize = 256 << 10;
/// The longest statement, in bytes. Writes of large objects take 32 KiB, a COPY with 1,600 columns less than 256 KiB; a
/// comment on a large object may be longer.
const STATEMENT_LIMIT: usize = 16 << 20;
/// The line that ends a COPY block. No row looks like it: a backslash in data is doubled.
const END_OF_ROWS: &[u8] = b"\\.\n";
/// The same, below a row.
const END_AFTER_A_ROW: &[u8] = b"\n\\.\n";

/// What pg_dump says last.
const COMPLETE: &str = "-- PostgreSQL database dump complete";
/// As many bytes as that and what follows it have at most.
const TAIL: usize = 256;

/// Why a dump could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ScriptError {
    /// The child's output could not be read.
    #[error("could not read the dump")]
    Read(#[from] std::io::Error),
    /// The dump ends within a statement or a table, or without pg_dump's closing comment.
    #[error("the dump ends too early")]
    Truncated,
    /// A statement is longer than any that pg_dump writes.
    #[error("a statement of the dump is longer than {STATEMENT_LIMIT} bytes")]
    TooLong,
    /// A statement that this version does not know.
    #[error("the dump holds a statement that is not known: {0}")]
    Unknown(String),
}

/// Reads statements, and the rows below a COPY.
#[derive(Debug)]
pub struct ScriptReader<R> {
    input: BufReader<R>,
    /// Bytes of the input's buffer that were lent by [`ScriptReader::rows`], to be consumed by the next call.
    lent: usize,
    /// Whether the input stands at the beginning of a row.
    row_begins: bool,
    /// How many bytes of [`END_OF_ROWS`] were read at the beginning of a row.
    matched: usize,
    /// The last comment that names a table.
    label: Option<String>,
    complete: bool,
}

impl<R: AsyncRead + Unpin> ScriptReader<R> {
    /// Reads from `input`.
    pub fn new(input: R) -> Self {
        Self {
            input: BufReader::with_capacity(INPUT_BUFFER, input),
            lent: 0,
            row_begins: true,
            matched: 0,
            label: None,
            complete: false,
        }
    }

    /// Waits until the first byte is there; it stays unread.
    ///
    /// # Errors
    /// [`ScriptError::Read`], or [`ScriptError::Truncated`] if there is none.
    pub async fn ready(&mut self) -> Result<(), ScriptError> {
        if self.input.fill_buf().await?.is_empty() { Err(ScriptError::Truncated) } else { Ok(()) }
    }

    /// The next statement; `None` where the dump ends as it should.
    ///
    /// After a [`Statement::Copy`] every row must be read before this is called again.
    ///
    /// # Errors
    /// Any [`ScriptError`].
    pub async fn statement(&mut self) -> Result<Option<Statement>, ScriptError> {
        let mut text = Vec::new();
        let mut quotes = statement::Quotes::default();
        loop {
            let start = text.len();
            if !self.line(&mut text).await? {
                return if text.is_empty() && self.complete { Ok(None) } else { Err(ScriptError::Truncated) };
            }
            let line = &text[start..];
            if start == 0 && (line == b"\n" || line.starts_with(b"\\restrict ") || line.starts_with(b"\\unrestrict ")) {
                text.clear();
            } else if start == 0 && line.starts_with(b"--") {
                self.comment(&String::from_utf8_lossy(line.trim_ascii_end()));
                text.clear();
            } else {
                quotes.feed(line);
                if quotes.closed() && line.ends_with(b";\n") {
                    text.truncate(text.len() - 1);
                    break;
                }
            }
        }
        let statement = statement::parse(text, self.label.take())?;
        self.row_begins = true;
        self.matched = 0;
        Ok(Some(statement))
    }

    /// More of the rows below a [`Statement::Copy`], as many as are there, each with its line end; the last one may go on
    /// with what comes next. `None` at the end of the table.
    ///
    /// # Errors
    /// [`ScriptError::Read`] or [`ScriptError::Truncated`].
    pub async fn rows(&mut self) -> Result<Option<&[u8]>, ScriptError> {
        self.input.consume(take(&mut self.lent));
        loop {
            let available = self.input.fill_buf().await?;
            if available.is_empty() {
                return Err(ScriptError::Truncated);
            }
            if self.row_begins {
                let expected = &END_OF_ROWS[self.matched..];
                let length = expected.len().min(available.len());
                if available[..length] == expected[..length] {
                    self.input.consume(length);
                    self.matched += length;
                    if self.matched == END_OF_ROWS.len() {
                        return Ok(None);
                    }
                    continue;
                }
                self.row_begins = false;
                if self.matched > 0 {
                    // Seen at the end of the last buffer, and no end of the table after all.
                    return Ok(Some(&END_OF_ROWS[..take(&mut self.matched)]));
                }
            }
            let length = match memchr::memmem::find(available, END_AFTER_A_ROW) {
                Some(end) => end + 1,
                // What may become the end of the table stays for the next call.
                None => match memchr::memrchr(b'\n', available).map(|end| available.split_at(end + 1)) {
                    Some((rows, tail)) if END_OF_ROWS.starts_with(tail) => rows.len(),
                    _ => available.len(),
                },
            };
            self.row_begins = available[..length].ends_with(b"\n");
            self.lent = length;
            return Ok(Some(&self.input.buffer()[..length]));
        }
    }

    /// Appends the next line with its line end to `text`; false at the end of the input.
    async fn line(&mut self, text: &mut Vec<u8>) -> Result<bool, ScriptError> {
        self.input.consume(take(&mut self.lent));
        loop {
            let available = self.input.fill_buf().await?;
            if available.is_empty() {
                return Ok(false);
            }
            let end = memchr::memchr(b'\n', available);
            let length = end.map_or(available.len(), |end| end + 1);
            if text.len() + length > STATEMENT_LIMIT {
                return Err(ScriptError::TooLong);
            }
            text.extend_from_slice(&available[..length]);
            self.input.consume(length);
            if end.is_some() {
                return Ok(true);
            }
        }
    }

    fn comment(&mut self, comment: &str) {
        if comment.starts_with("-- Data for Name: ") {
            self.label = Some(comment.to_owned());
        }
        self.complete |= comment == COMPLETE;
    }
}

/// Looks on while a schema's script goes by: whether it is text, and ends as pg_dump ends.
#[derive(Debug, Default)]
pub(super) struct Onlooker {
    /// The last bytes.
    tail: Vec<u8>,
    text: Utf8Check,
}

impl Onlooker {
    /// Sees `text` go by. In error, the line in which something is not UTF-8.
    pub(super) fn see(&mut self, text: &[u8]) -> Result<(), u64> {
        self.tail.extend_from_slice(&text[text.len().saturating_sub(TAIL)..]);
        self.tail.drain(..self.tail.len().saturating_sub(TAIL));
        self.text.see(text)
    }

    /// Whether pg_dump has said that it is done: nothing follows that but the end of its comment and of psql's restriction.
    pub(super) fn is_complete(&self) -> bool {
        let mut lines = self.tail.split(|&byte| byte == b'\n').rev();
        let end = lines.find(|line| !line.is_empty() && *line != b"--" && !line.starts_with(b"\\unrestrict "));
        end == Some(COMPLETE.as_bytes()) && self.text.is_whole()
    }
}

/// The comment that pg_dump writes above the data of a table.
#[must_use]
pub fn label(schema: &str, table: &str) -> String {
    // As `sanitize_line` of pg_dump does.
    let sanitize = |name: &str| name.replace(['\n', '\r'], " ");
    format!("-- Data for Name: {}; Type: TABLE DATA; Schema: {}; Owner: -", sanitize(table), sanitize(schema))
}

#[cfg(test)]
mod tests {
    use super::*;

    const END: &str = "--\n-- PostgreSQL database dump complete\n--\n\n\\unrestrict X\n\n";

    /// Gives a few bytes at a time, so that every border is met.
    fn reader(text: &str, step: usize) -> ScriptReader<Chunks> {
        ScriptReader::new(Chunks(text.as_bytes().chunks(step).rev().map(<[u8]>::to_vec).collect()))
    }

    struct Chunks(Vec<Vec<u8>>);

    impl AsyncRead for Chunks {
        fn poll_read(
            mut self: std::pin::Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
            buffer: &mut tokio::io::ReadBuf<'_>,
        ) -> std::task::Poll<std::io::Result<()>> {
            if let Some(chunk) = self.0.pop() {
                buffer.put_slice(&chunk);
            }
            std::task::Poll::Ready(Ok(()))
        }
    }

    async fn rows<R: AsyncRead + Unpin>(reader: &mut ScriptReader<R>) -> Vec<String> {
        let mut rows = Vec::new();
        while let Some(more) = reader.rows().await.unwrap() {
            rows.extend_from_slice(more);
        }
        let rows = String::from_utf8(rows).unwrap();
        assert!(rows.is_empty() || rows.ends_with('\n'), "the last row is complete");
        rows.split_terminator('\n').map(str::to_owned).collect()
    }

    #[tokio::test]
    async fn rows_that_look_like_something_else() {
        let nasty = [
            "",
            "\\\\.",
            "\\.x",
            "\\",
            "\\N",
            "-- Data for Name: x; Type: TABLE DATA; Schema: y; Owner: -",
            "\\..",
            "COPY \"a\".\"b\" (\"c\") FROM stdin;",
            "\\restrict x",
            "a\r",
            "\\r\\n",
            "x\\.",
            "\\unrestrict x",
            "--",
            "é\t🦀",
            "",
        ];
        let text = format!("COPY \"s\".\"t\" (\"c\") FROM stdin;\n{}\n\\.\n\n{END}", nasty.join("\n"));
        for step in 1..40 {
            let mut reader = reader(&text, step);
            assert!(matches!(reader.statement().await.unwrap(), Some(Statement::Copy(_))));
            assert_eq!(rows(&mut reader).await, nasty, "step {step}");
            assert_eq!(reader.statement().await.unwrap(), None);
        }
    }

    #[tokio::test]
    async fn names_with_line_ends_and_quotes() {
        let text = format!(
            "SET a = 'b;';\n\n--\n-- Data for Name: we ird \"t; Type: TABLE DATA; Schema: public; Owner: -\n--\n\n\
             COPY \"public\".\"we\nird \"\"t\" (\"id\", \"co,l\n-- x;\n\") FROM stdin;\n\\.\n\n\n\
             SELECT pg_catalog.setval('\"public\".\"s''q;\nx\"', -7, true);\n{END}"
        );
        for step in 1..40 {
            let mut reader = reader(&text, step);
            assert_eq!(reader.statement().await.unwrap(), Some(Statement::Setting("SET a = 'b;';".into())));
            let Some(Statement::Copy(copy)) = reader.statement().await.unwrap() else { panic!("no COPY") };
            assert_eq!((copy.schema.as_str(), copy.table.as_str()), ("public", "we\nird \"t"));
            assert_eq!(copy.columns, ["id", "co,l\n-- x;\n"]);
            assert_eq!(copy.label, Some(label("public", "we\nird \"t")));
            assert_eq!(rows(&mut reader).await, [""; 0]);
            let Some(Statement::Sequence(sequence)) = reader.statement().await.unwrap() else { panic!("no setval") };
            assert_eq!((sequence.name.as_str(), sequence.last_value, sequence.is_called), ("s'q;\nx", -7, true));
            assert_eq!(reader.statement().await.unwrap(), None);
        }
    }

    #[tokio::test]
    async fn a_dump_cut_anywhere_is_noticed() {
        let text = format!(
            "COPY \"s\".\"t\" (\"c\") FROM stdin;\n1\n\\.\n\nSELECT pg_catalog.setval('\"s\".\"q\"', 1, false);\n{END}"
        );
        let complete = text.find("complete\n").unwrap() + "complete\n".len();
        for cut in 0..complete - 1 {
            let mut reader = reader(&text[..cut], 1000);
            let outcome: Result<(), ScriptError> = async {
                while let Some(statement) = reader.statement().await? {
                    if matches!(statement, Statement::Copy(_)) {
                        while reader.rows().await?.is_some() {}
                    }
                }
                Ok(())
            }
            .await;
            assert!(matches!(outcome, Err(ScriptError::Truncated)), "cut at {cut}: {outcome:?}");
        }
    }

    #[test]
    fn a_schema_cut_anywhere_is_noticed() {
        let text = format!("CREATE TABLE \"é🦀\" ();\n{END}");
        let complete = text.find("complete\n").unwrap() + "complete".len();
        for step in 1..40 {
            for cut in 0..text.len() {
                let mut onlooker = Onlooker::default();
                for part in text.as_bytes()[..cut].chunks(step) {
                    onlooker.see(part).unwrap();
                }
                assert!(cut >= complete || !onlooker.is_complete(), "cut at {cut}");
            }
            let mut onlooker = Onlooker::default();
            text.as_bytes().chunks(step).for_each(|part| onlooker.see(part).unwrap());
            assert!(onlooker.is_complete());
        }
    }

    #[test]
    fn bytes_that_are_no_text_are_found() {
        for (odd, line) in [(&b"a\n\xff\n"[..], 2), (b"\xc3(", 1), (b"\n\n\xf0\x9f\xa6b", 3), (b"\xc3\xa9\xa9", 1)] {
            for step in 1..5 {
                let mut onlooker = Onlooker::default();
                let found = odd.chunks(step).find_map(|part| onlooker.see(part).err());
                assert_eq!(found, Some(line), "{odd:?} {step}");
            }
        }
        let mut onlooker = Onlooker::default();
        onlooker.see(END.as_bytes()).unwrap();
        assert!(onlooker.is_complete());
        onlooker.see(b"\xc3").unwrap();
        assert!(!onlooker.is_complete());
    }

    #[tokio::test]
    async fn what_is_not_known_is_an_error() {
        for text in ["DROP TABLE x;\n", "INSERT INTO x VALUES (1);\n", "COPY \"s\".\"t\" FROM 'file';\n", "\\! ls;\n"] {
            let mut reader = reader(&format!("{text}{END}"), 7);
            assert!(matches!(reader.statement().await, Err(ScriptError::Unknown(_))), "{text}");
        }
    }
}
