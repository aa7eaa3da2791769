//! Standard output for commands whose product is text: buffered, and quiet when the reader has gone.

use std::io::{self, BufWriter, ErrorKind, Stdout, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use crate::failure::{Class, Explain};

/// Cannot be written, for another reason than a reader that has gone.
#[derive(Debug, thiserror::Error)]
#[error("cannot write to standard output")]
pub(super) struct Error(#[from] io::Error);

impl Explain for Error {
    fn class(&self) -> Class {
        Class::Other
    }
}

/// A writer that remembers whether `| head` has had enough.
pub(super) struct Output {
    inner: BufWriter<Stdout>,
    gone: Arc<AtomicBool>,
}

/// Tells whether the reader of an [`Output`] has gone, even after the output itself was moved away.
#[derive(Clone)]
pub(super) struct Reader(Arc<AtomicBool>);

impl Reader {
    /// What failed after this failed because nobody wants more: no error.
    pub(super) fn has_gone(&self) -> bool {
        self.0.load(Relaxed)
    }
}

impl Output {
    pub(super) fn new() -> Self {
        Self { inner: BufWriter::new(io::stdout()), gone: Arc::default() }
    }

    pub(super) fn reader(&self) -> Reader {
        Reader(Arc::clone(&self.gone))
    }

    fn note<T>(&self, result: io::Result<T>) -> io::Result<T> {
        if let Err(error) = &result
            && error.kind() == ErrorKind::BrokenPipe
        {
            self.gone.store(true, Relaxed);
        }
        result
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes);
        self.note(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        let flushed = self.inner.flush();
        self.note(flushed)
    }
}

/// Writes all of `text`. A reader that has gone is no error.
pub(super) fn print(text: &str) -> Result<(), Error> {
    let mut output = Output::new();
    let reader = output.reader();
    match output.write_all(text.as_bytes()).and_then(|()| output.flush()) {
        Err(_) if reader.has_gone() => Ok(()),
        result => Ok(result?),
    }
}
