//! Inspect: what a bundle says of itself, to anyone; with the key the manifest, too, and whether the clear parts are those
//! that it was sealed with. Of the rest nothing is proved.

mod error;
pub mod options;
mod outcome;

use std::sync::Arc;

use pacharc_format::{BundleReader, BundleStream, Found, Manifest, ReadOptions, Unlock};

pub use error::Error;
pub use options::Options;
pub use outcome::Outcome;

use crate::bundle::Input;
use crate::interrupt::Interrupt;
use crate::monitor::Monitor;

/// Bytes that are read ahead of a pipe.
const READ_AHEAD: usize = 16 << 20;

/// Reads what stands in clear, and with `unlock` the manifest.
///
/// # Errors
/// [`Error`]. A torn bundle is no error without a key: the outcome says so.
pub async fn run(
    options: &Options,
    unlock: Option<&Unlock>,
    interrupt: &Interrupt,
    monitor: Arc<dyn Monitor>,
) -> Result<Outcome, Error> {
    let input = Input::open(&options.bundle, options.ca_file.as_deref(), monitor).await?;
    let work =
        async { if input.is_seekable() { by_ranges(&input, unlock).await } else { by_stream(&input, unlock).await } };
    interrupt.guard(work).await
}

async fn by_ranges(input: &Input, unlock: Option<&Unlock>) -> Result<Outcome, Error> {
    let ranges = input.ranges().await?;
    let inspection = pacharc_format::inspect(&ranges).await?;
    let manifest = match unlock {
        Some(unlock) => {
            let reader = BundleReader::open(ranges, unlock).await?;
            reader.check_sums().await?;
            if reader.manifest().about != inspection.about {
                let what = "it is not the one that was sealed".to_owned();
                return Err(pacharc_format::Error::Damaged { entry: "bundle.json".into(), offset: 0, what }.into());
            }
            Some(reader.manifest().clone())
        }
        None => None,
    };
    let pacharc_format::Inspection { about, trailer, recipients, bytes } = inspection;
    let signed = trailer.as_ref().is_some_and(|trailer| trailer.signature.length > 0);
    let id = trailer.map(|trailer| hex::encode(trailer.id));
    Ok(Outcome { about, id, bytes, recipients, signed, manifest })
}

async fn by_stream(input: &Input, unlock: Option<&Unlock>) -> Result<Outcome, Error> {
    let temp_dir = std::env::temp_dir();
    let read = ReadOptions { jobs: 1, memory: READ_AHEAD, temp_dir: &temp_dir };
    let mut stream = BundleStream::open(input.stream().await?, read).await?;
    if let Some(unlock) = unlock {
        stream.unlock(unlock)?;
    }
    let (about, recipients) = (stream.about().clone(), stream.recipients());
    let mut manifest: Option<Box<Manifest>> = None;
    let (mut id, mut signed) = (None, false);
    loop {
        match stream.next().await {
            Ok(Some(Found::Manifest(found))) => manifest = Some(found),
            Ok(Some(Found::End { id: found, signature, .. })) => (id, signed) = (Some(found), signature.is_some()),
            Ok(Some(Found::Damage(error))) => return Err(error.into()),
            Ok(Some(_)) => {}
            Ok(None) => break,
            // What lies in clear is told of a part, too; the manifest is not, and was asked for.
            Err(pacharc_format::Error::Torn { .. }) if unlock.is_none() => break,
            Err(error) => return Err(error.into()),
        }
    }
    let bytes = stream.offset();
    Ok(Outcome { about, id, bytes, recipients, signed, manifest: manifest.map(|manifest| *manifest) })
}
