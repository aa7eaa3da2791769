//! Work that outlives its owner. What a dropped value must still do over the network (an upload in parts that is taken
//! back) is started here, and waited for before the process ends: else an interrupted run would leave it undone.

use std::future::Future;
use std::sync::LazyLock;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

/// How long a cluster that must run again is waited for after a signal, or after the job: less than the 120 s that a pod of ours
/// is given to end. A second signal ends the process at once.
pub(crate) const RETURN: Duration = Duration::from_secs(100);

static WORK: LazyLock<TaskTracker> = LazyLock::new(TaskTracker::new);

/// Starts `work`, on the runtime that this is called in; without one there is nobody who could do it.
pub(crate) fn start(work: impl Future<Output = ()> + Send + 'static) {
    if let Ok(runtime) = Handle::try_current() {
        WORK.spawn_on(work, &runtime);
    }
}

/// Starts a task that ends when its handle is dropped. That is waited for, too: only then what it held is taken back.
pub(crate) fn task<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> AbortOnDropHandle<T> {
    AbortOnDropHandle::new(WORK.spawn(work))
}

/// Waits until all of it is done, for `patience` at most. Whether it is.
pub(crate) async fn finish(patience: Duration) -> bool {
    WORK.close();
    tokio::time::timeout(patience, WORK.wait()).await.is_ok()
}

/// The commands that do what is owed, oldest first.
type Debts = Vec<(u64, String)>;

#[cfg(not(test))]
fn debts<T>(look: impl FnOnce(&mut Debts) -> T) -> T {
    static DEBTS: std::sync::Mutex<Debts> = std::sync::Mutex::new(Vec::new());
    look(&mut DEBTS.lock().unwrap_or_else(std::sync::PoisonError::into_inner))
}

/// Tests are many in one process, each of them on a thread of its own.
#[cfg(test)]
fn debts<T>(look: impl FnOnce(&mut Debts) -> T) -> T {
    thread_local!(static DEBTS: std::cell::RefCell<Debts> = const { std::cell::RefCell::new(Vec::new()) });
    DEBTS.with_borrow_mut(look)
}

/// Something that must not be left undone: a cluster that must run again. A process that ends with a debt says so.
#[must_use]
#[derive(Debug)]
pub(crate) struct Debt(u64);

/// Owes what `command` would do.
pub(crate) fn owe(command: String) -> Debt {
    debts(|debts| {
        let number = debts.last().map_or(0, |(last, _)| last + 1);
        debts.push((number, command));
        Debt(number)
    })
}

impl Debt {
    /// It is done.
    pub(crate) fn settle(self) {
        debts(|debts| debts.retain(|(number, _)| *number != self.0));
    }
}

/// The command that does what is still owed.
pub(crate) fn owed() -> Option<String> {
    debts(|debts| debts.first().map(|(_, command)| command.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    #[test]
    fn what_is_not_settled_is_owed() {
        let (first, second) = (owe("one".to_owned()), owe("two".to_owned()));
        first.settle();
        assert_eq!(owed().as_deref(), Some("two"));
        second.settle();
        assert_eq!(owed(), None);
    }

    #[tokio::test]
    async fn work_is_waited_for_but_not_for_ever() {
        let done = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&done);
        start(async move {
            tokio::time::sleep(Duration::from_millis(20)).await;
            flag.store(true, Ordering::Relaxed);
        });
        assert!(finish(Duration::from_secs(60)).await);
        assert!(done.load(Ordering::Relaxed));
        start(std::future::pending());
        assert!(!finish(Duration::from_millis(20)).await);
    }
}
