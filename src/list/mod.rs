//! List: the entries of a bundle, in the order of their paths.

mod error;
pub mod options;

use std::io::Write;
use std::sync::Arc;

use pacharc_format::{BundleReader, BundleStream, CatalogLine, Found, Key, ReadOptions, State, Unlock};
use serde::Serialize;

pub use error::Error;
pub use options::Options;

use crate::budget::Budget;
use crate::bundle::{Input, Selection};
use crate::failure::Class;
use crate::interrupt::Interrupt;
use crate::monitor::{Event, Monitor};
use crate::visible::one_line;

/// What a listing was.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Outcome {
    /// Entries that were told.
    pub entries: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl crate::outcome::Outcome for Outcome {
    fn class(&self) -> Option<Class> {
        None
    }

    fn summary(&self) -> String {
        String::new()
    }
}

/// Lists the bundle's entries, one a line to `output` if there is one, and as events to `monitor`. Memory does not grow
/// with their number.
///
/// # Errors
/// [`Error`]; what is printed before one is right nevertheless.
pub async fn run(
    options: &Options,
    unlock: &Unlock,
    output: Option<&mut (dyn Write + Send)>,
    interrupt: &Interrupt,
    monitor: Arc<dyn Monitor>,
) -> Result<Outcome, Error> {
    let input = Input::open(&options.bundle, options.ca_file.as_deref(), Arc::clone(&monitor)).await?;
    let selection = Selection::new(&options.paths);
    let mut listing = Listing { output, monitor: monitor.as_ref(), outcome: Outcome::default() };
    let work = async {
        // A signature comes last, when the list would have been told.
        if input.is_seekable() || !options.trusted.is_empty() {
            listing.by_ranges(&input, unlock, &selection, options).await
        } else {
            listing.by_stream(&input, unlock, &selection, options).await
        }
    };
    interrupt.guard(work).await?;
    listing.finish()
}

struct Listing<'o, 'm> {
    output: Option<&'o mut (dyn Write + Send)>,
    monitor: &'m dyn Monitor,
    outcome: Outcome,
}

impl Listing<'_, '_> {
    async fn by_ranges(
        &mut self,
        input: &Input,
        unlock: &Unlock,
        selection: &Selection,
        options: &Options,
    ) -> Result<(), Error> {
        let ranges = input.ranges().await?;
        let reader = BundleReader::open(ranges, unlock).await?;
        options.trusted.check_reader::<_, Error>(&reader).await?;
        for from in selection.ranges() {
            let mut catalog = reader.catalog(from);
            'range: while let Some(lines) = catalog.next().await? {
                for line in lines {
                    if !line.entry.path.starts_with(from) {
                        break 'range;
                    }
                    if selection.takes(&line.entry.path) {
                        self.line(&line)?;
                    }
                }
            }
        }
        Ok(())
    }

    async fn by_stream(
        &mut self,
        input: &Input,
        unlock: &Unlock,
        selection: &Selection,
        options: &Options,
    ) -> Result<(), Error> {
        let limits = &options.limits;
        let memory = Budget::new(limits.max_memory).read_alone;
        let read = ReadOptions { jobs: limits.jobs, memory, temp_dir: &limits.temp_dir };
        let mut stream = BundleStream::open(input.stream().await?, read).await?;
        stream.unlock(unlock)?;
        while let Some(found) = stream.next().await? {
            match found {
                Found::Damage(error) => return Err(error.into()),
                Found::Catalog(lines) => {
                    for line in lines.iter().filter(|line| selection.takes(&line.entry.path)) {
                        self.line(line)?;
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn line(&mut self, line: &CatalogLine) -> Result<(), Error> {
        let CatalogLine { state, entry } = line;
        self.outcome.entries += 1;
        // Of a missing object nobody has checked it.
        self.outcome.bytes = self.outcome.bytes.saturating_add(entry.size);
        if let Some(output) = &mut self.output {
            let path = one_line(&entry.path);
            writeln!(output, "{:<8} {:>14} {path}", name(*state), entry.size).map_err(Error::Output)?;
        }
        self.monitor.event(Event::Entry {
            path: entry.path.clone(),
            size: entry.size,
            state: *state,
            key: Key::from_path(&entry.path).and_then(|key| key.as_str().map(str::to_owned)),
            hash: entry.hash,
            metadata: entry.metadata.clone(),
        });
        Ok(())
    }

    fn finish(self) -> Result<Outcome, Error> {
        if let Some(output) = self.output {
            output.flush().map_err(Error::Output)?;
        }
        Ok(self.outcome)
    }
}

/// The word for a state, as in JSON.
fn name(state: State) -> &'static str {
    match state {
        State::File => "file",
        State::Live => "live",
        State::Orphan => "orphan",
        State::Foreign => "foreign",
        State::Rotten => "rotten",
        State::Missing => "missing",
        State::Object => "object",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::monitor::Silent;

    #[test]
    fn sizes_that_make_no_sense_are_no_harm() {
        let entry = serde_json::from_str(&format!(r#"{{"path":"a","size":{}}}"#, u64::MAX)).unwrap();
        let line = CatalogLine { state: State::Missing, entry };
        let mut listing = Listing { output: None, monitor: &Silent, outcome: Outcome::default() };
        listing.line(&line).unwrap();
        listing.line(&line).unwrap();
        let outcome = listing.finish().unwrap();
        assert_eq!((outcome.entries, outcome.bytes), (2, u64::MAX));
    }
}
