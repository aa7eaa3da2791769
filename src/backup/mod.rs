//! Backup: a source becomes one bundle.
//!
//! The bucket is copied while the cluster runs; then a snapshot of the databases says which objects must be there; those
//! that are not are fetched; when one has vanished meanwhile a newer snapshot is opened; the dump is made from the
//! snapshot whose every live object is in the bundle (`docs/consistency.md`).

mod catalog;
mod copy;
mod error;
mod fetch;
mod found;
mod job;
pub mod options;
mod outcome;
mod plan;
mod source;

use std::io::ErrorKind;
use std::sync::Arc;

use jiff::Timestamp;
use pacharc_format::Lock;
use uuid::Uuid;

pub use error::Error;
pub use options::{Options, Quiesce};
pub use outcome::{DatabaseOutcome, Outcome};
pub use plan::{Plan, PlannedBucket, PlannedDatabase, plan};
pub use source::Source;

use crate::bundle::{Output, Place};
use crate::interrupt::Interrupt;
use crate::monitor::{Monitor, Phase};
use crate::signature::SigningKey;

/// Backs up what `options` name into a bundle that `lock` opens, signed by `signer` where there is one.
///
/// The output has its final name only if this returns `Ok`.
///
/// # Errors
/// [`Error`]. Live objects that the source lacks are no error (unless [`Options::strict`]): the outcome says so.
pub async fn run(
    options: &Options,
    lock: Lock,
    signer: Option<&SigningKey>,
    interrupt: &Interrupt,
    monitor: Arc<dyn Monitor>,
) -> Result<Outcome, Error> {
    let (created, bundle) = (Timestamp::now(), Uuid::new_v4());
    monitor.phase(Phase::Check);
    let output = options.output.as_ref().ok_or(Error::NoOutput)?;
    let location = output.fill(&options.names(created, bundle)?);
    let place = Place::open(&location, options.ca_file.as_deref()).await?;
    let source = interrupt.guard(Source::open(options, monitor.as_ref())).await?;
    source.check_room(&location)?;
    check_temp_dir(options)?;
    let (writer, output) = Output::create(&place).await?;
    let job = job::Job { options, source: &source, created, bundle, monitor: Arc::clone(&monitor) };
    match interrupt.guard(job.write(writer, lock, signer)).await {
        Ok((written, manifest)) => {
            output.commit().await?;
            let signed_by = signer.map(SigningKey::id);
            Ok(Outcome { signed_by, ..Outcome::new(place.to_string(), &written, &manifest) })
        }
        Err(error) => {
            if let Err(left) = output.abort().await {
                // An upload that failed closes its end of the pipe: its own error says more than the writer's.
                if matches!(&error, Error::Format(pacharc_format::Error::Write(source)) if source.kind() == ErrorKind::BrokenPipe)
                {
                    return Err(left.into());
                }
                monitor.warn(format!("something of the unfinished bundle may be left: {left}"));
            }
            Err(error)
        }
    }
}

/// Temporary files are made late: better to know now that they cannot be.
fn check_temp_dir(options: &Options) -> Result<(), Error> {
    let folder = &options.limits.temp_dir;
    let made = tempfile::tempfile_in(folder).map(drop);
    made.map_err(|source| Error::TempDir { folder: folder.clone(), source })
}
