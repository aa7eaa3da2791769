//! Backup: a source becomes one bundle.
//!
//! The bucket is copied while the cluster runs; then a snapshot of the databases says which objects must be there; those
//! that are not are fetched; when one has vanished meanwhile a newer snapshot is opened; the dump is made from the
//! snapshot whose every live object is in the bundle (`docs/consistency.md`). With a pause, the snapshot is opened while the
//! cluster is suspended.

mod catalog;
mod closing;
mod copy;
mod error;
mod fetch;
mod found;
mod herald;
mod job;
pub mod options;
mod outcome;
mod pause;
mod plan;
mod source;

use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use pacharc_format::Lock;
use uuid::Uuid;

pub use error::Error;
pub use options::{Options, Quiesce, Suspending};
pub use outcome::{DatabaseOutcome, Outcome};
pub use plan::{Plan, PlannedBucket, PlannedDatabase, plan};
pub use source::Source;

use herald::Herald;
use pause::Pause;

use crate::bundle::{Output, Place};
use crate::cluster::notice::Notice;
use crate::failure::chain;
use crate::farewell;
use crate::interrupt::{Interrupt, Interrupted};
use crate::monitor::{Monitor, Phase};
use crate::signature::SigningKey;

/// How long a signal leaves to a bundle that lacks nothing but its name.
const COMMIT_PATIENCE: Duration = Duration::from_secs(20);

/// Backs up what `options` name into a bundle that `lock` opens, signed by `signer` where there is one.
///
/// The output has its final name only if this returns `Ok`, or the error that a suspended cluster is not back: then the bundle
/// is complete all the same, and a warning says so. Where a signal cut the last step off, a warning says that it may have it.
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
    let cluster = source.cluster.as_ref().map(|(cluster, _)| cluster);
    let mut pause = interrupt.guard(Pause::prepare(options, cluster, source.is_standby(), &monitor)).await?;
    let created_output = async { Output::create(&place, source.estimate()).await.map_err(Error::from) };
    let (writer, output) = interrupt.guard(created_output).await?;
    let mut herald = Herald::new(cluster, &monitor).await;
    herald.tell(Notice::Started, format!("bundle {bundle}, {}", pause.quiesce())).await;
    let job = job::Job { options, source: &source, created, bundle, monitor: Arc::clone(&monitor) };
    let written = interrupt.guard(job.write(writer, lock, signer, &mut pause)).await;
    let committed = match written {
        Ok(written) => commit(output, &place, interrupt, monitor.as_ref()).await.map(|()| written),
        Err(error) => {
            // The cluster first: it comes back while the rest is cleared away.
            pause.give_back();
            Err(abort(output, error, interrupt, monitor.as_ref()).await)
        }
    };
    let (written, manifest, reread) = match committed {
        Ok(committed) => committed,
        Err(error) => {
            pause.give_back();
            let back = async {
                pause.await_return().await;
                Ok::<_, Interrupted>(())
            };
            // Where that takes longer after a signal, the process tells itself, as it ends, that it is not back.
            let _ = interrupt.finish(farewell::RETURN, back).await;
            herald.tell(Notice::Failed, format!("bundle {bundle}: {}", chain(&error))).await;
            return Err(error);
        }
    };
    let mut outcome = Outcome::new(place.to_string(), &written, &manifest);
    outcome.signed_by = signer.map(SigningKey::id);
    outcome.retried = source.bucket.as_ref().map_or(0, |bucket| bucket.faults());
    outcome.reread = reread;
    let finished = interrupt.finish(farewell::RETURN, pause.finish()).await;
    outcome.pause = pause.report(outcome.snapshots);
    outcome.resume = pause.command_to_resume();
    let keeping = async {
        herald.keep(created, &outcome, &manifest).await;
        Ok::<_, Interrupted>(())
    };
    // A warning says what becomes of it, but where a signal leaves no time for that.
    let _ = interrupt.finish(farewell::RETURN, keeping).await;
    match finished {
        Ok(()) => {
            herald.tell(Notice::Completed, format!("bundle {bundle}, id {}", outcome.id)).await;
            Ok(outcome)
        }
        Err(error) => {
            let error = error.after(crate::outcome::Outcome::class(&outcome));
            let complete = format!("the bundle is complete all the same: {}, id {}", outcome.output, outcome.id);
            herald.tell(Notice::Failed, format!("{}; {complete}", chain(&error))).await;
            monitor.warn(complete);
            Err(error)
        }
    }
}

/// Gives a bundle its name. A signal cuts that off only where it takes long: a server that does not answer may have done it.
async fn commit(output: Output, place: &Place, interrupt: &Interrupt, monitor: &dyn Monitor) -> Result<(), Error> {
    let committing = async { output.commit().await.map_err(Error::from) };
    let committed = interrupt.finish(COMMIT_PATIENCE, committing).await;
    if let Err(Error::Interrupted(_)) = &committed {
        monitor.warn(format!("whether the bundle has got its name is not known: it is whole if there is {place}"));
    }
    committed
}

/// Takes back what was written. The error that says most of why.
async fn abort(output: Output, error: Error, interrupt: &Interrupt, monitor: &dyn Monitor) -> Error {
    let aborted = tokio::select! {
        biased;
        aborted = output.abort() => aborted,
        // What is left of it is taken back before the process ends, which no longer waits for a network that hangs.
        _ = interrupt.wait() => return error,
    };
    let Err(left) = aborted else { return error };
    // An upload that failed closes its end of the pipe: its own error says more than the writer's.
    if matches!(&error, Error::Format(pacharc_format::Error::Write(source)) if source.kind() == ErrorKind::BrokenPipe) {
        return left.into();
    }
    monitor.warn(format!("something of the unfinished bundle may be left: {left}"));
    error
}

/// Temporary files are made late: better to know now that they cannot be.
fn check_temp_dir(options: &Options) -> Result<(), Error> {
    let folder = &options.limits.temp_dir;
    let made = tempfile::tempfile_in(folder).map(drop);
    made.map_err(|source| Error::TempDir { folder: folder.clone(), source })
}
