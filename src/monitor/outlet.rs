//! The way out of a run, for its events and for what people read: a thread of its own writes them. Whoever tells something may
//! be bringing a cluster back, and must not wait for a reader that hangs, be it a program or a terminal that was stopped.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How many bytes may wait to be written: some thousand lines, so that a run whose reader is only slow waits for nothing.
const ROOM: usize = 1 << 20;

/// A reader that takes nothing for so long is waited for no longer.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

/// Takes items, and has them written in their order.
pub(super) struct Outlet<T> {
    shared: Arc<Shared<T>>,
}

struct Shared<T> {
    state: Mutex<State<T>>,
    /// Something came or was written, or it is over.
    changed: Condvar,
}

struct State<T> {
    /// What is to be written, each with its size in bytes.
    waiting: VecDeque<(T, usize)>,
    /// The bytes of all that.
    size: usize,
    /// Whether an item is being written.
    is_writing: bool,
    /// When something was last taken by the reader, or offered to it after a rest.
    moved: Instant,
    /// Whether nothing is written any more, for want of a reader.
    is_over: bool,
    /// Whether nothing more comes.
    is_closed: bool,
}

impl<T> State<T> {
    fn is_idle(&self) -> bool {
        self.waiting.is_empty() && !self.is_writing
    }
}

impl<T: Send + 'static> Outlet<T> {
    /// Starts the thread `name`, which calls `write` for each item. `write` calls what it is given beside the item whenever
    /// the reader took a part of it; its first error is the end. A machine that has no thread left tells nothing, and nothing
    /// worse.
    pub(super) fn start(name: &str, mut write: impl FnMut(T, &dyn Fn()) -> io::Result<()> + Send + 'static) -> Self {
        let state = State {
            waiting: VecDeque::new(),
            size: 0,
            is_writing: false,
            moved: Instant::now(),
            is_over: false,
            is_closed: false,
        };
        let shared = Arc::new(Shared { state: Mutex::new(state), changed: Condvar::new() });
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn({
            let shared = Arc::clone(&shared);
            move || {
                while let Some(item) = shared.next() {
                    if write(item, &|| shared.lock().moved = Instant::now()).is_err() {
                        shared.end();
                    }
                }
            }
        });
        if thread.is_err() {
            shared.end();
        }
        Self { shared }
    }
}

impl<T> Outlet<T> {
    /// Hands on an item of `size` bytes. Where there is no room, waits for some: as long as the reader takes something within
    /// `patience`, or for ever without one. Whether there was room, or is no reader any more.
    pub(super) fn push(&self, item: T, size: usize, patience: Option<Duration>) -> bool {
        let has_room = |state: &State<T>| state.waiting.is_empty() || state.size + size <= ROOM;
        let (state, is_taken) = self.shared.wait(patience, None, has_room);
        if is_taken {
            self.shared.add(state, item, size);
        }
        is_taken
    }

    /// Hands on an item that is of this moment alone: it is left out where anything else waits.
    pub(super) fn offer(&self, item: T, size: usize) {
        let state = self.shared.lock();
        if state.waiting.is_empty() {
            self.shared.add(state, item, size);
        }
    }

    /// Waits until everything is written, as long as the reader takes something within `patience`, or for ever without one.
    /// The reader has that long from `since` on. Where it did not take everything, it is given up, and `false` comes out.
    pub(super) fn drain(&self, patience: Option<Duration>, since: Instant) -> bool {
        let is_drained = self.shared.wait(patience, Some(since), State::is_idle).1;
        if !is_drained {
            self.give_up();
        }
        is_drained
    }

    /// Waits until everything is written, for `limit` at most. Whether it is.
    pub(super) fn settle(&self, limit: Duration) -> bool {
        let until = Instant::now() + limit;
        let mut state = self.shared.lock();
        while !state.is_over && !state.is_idle() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            state = self.shared.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }

    /// Writes nothing more, but for the item that has begun.
    pub(super) fn give_up(&self) {
        self.shared.end();
    }

    #[cfg(test)]
    pub(super) fn is_over(&self) -> bool {
        self.shared.lock().is_over
    }
}

/// The thread writes what waits, and ends.
impl<T> Drop for Outlet<T> {
    fn drop(&mut self) {
        self.shared.lock().is_closed = true;
        self.shared.changed.notify_all();
    }
}

impl<T> Shared<T> {
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next item, when there is one; the one before is written. `None` at the end.
    fn next(&self) -> Option<T> {
        let mut state = self.lock();
        state.is_writing = false;
        state.moved = Instant::now();
        loop {
            if state.is_over {
                return None;
            }
            // Whoever waits for room, or until all is written, may go on.
            self.changed.notify_all();
            if let Some((item, size)) = state.waiting.pop_front() {
                state.size -= size;
                state.is_writing = true;
                state.moved = Instant::now();
                return Some(item);
            }
            if state.is_closed {
                return None;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn add(&self, mut state: MutexGuard<'_, State<T>>, item: T, size: usize) {
        if state.is_over {
            return;
        }
        if state.is_idle() {
            // Nobody can have taken anything before.
            state.moved = Instant::now();
        }
        state.waiting.push_back((item, size));
        state.size += size;
        drop(state);
        self.changed.notify_all();
    }

    fn end(&self) {
        let mut state = self.lock();
        state.is_over = true;
        state.waiting.clear();
        state.size = 0;
        drop(state);
        self.changed.notify_all();
    }

    /// Waits until the state is as wanted, or nothing is written any more; or until the reader has taken nothing for
    /// `patience`, counted from `since` at the earliest: then `false` comes out.
    fn wait(
        &self,
        patience: Option<Duration>,
        since: Option<Instant>,
        is_wanted: impl Fn(&State<T>) -> bool,
    ) -> (MutexGuard<'_, State<T>>, bool) {
        let mut state = self.lock();
        while !state.is_over && !is_wanted(&state) {
            state = match patience {
                None => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(patience) => {
                    let moved = since.map_or(state.moved, |since| since.max(state.moved));
                    let left = patience.saturating_sub(moved.elapsed());
                    if left.is_zero() {
                        return (state, false);
                    }
                    self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
        (state, true)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};

    use super::*;

    const BRIEF: Option<Duration> = Some(Duration::from_millis(500));
    const LONG: Option<Duration> = Some(Duration::from_secs(60));

    /// An outlet that writes one item each time that it is let; what was written comes out at the end.
    fn gated() -> (Outlet<u32>, Sender<()>, Receiver<u32>) {
        let ((open, gate), (sender, written)) = (channel::<()>(), channel::<u32>());
        let outlet = Outlet::start("test", move |item: u32, _| {
            gate.recv().map_err(io::Error::other)?;
            sender.send(item).map_err(io::Error::other)
        });
        // The second finds room when the first is being written.
        assert!(outlet.push(0, ROOM, LONG) && outlet.push(1, ROOM, LONG));
        (outlet, open, written)
    }

    #[test]
    fn a_slow_reader_gets_everything_in_its_order() {
        let (sender, written) = channel::<u32>();
        let outlet = Outlet::start("test", move |item: u32, _| {
            std::thread::sleep(Duration::from_millis(1));
            sender.send(item).map_err(io::Error::other)
        });
        for item in 0..100 {
            assert!(outlet.push(item, ROOM / 4, LONG), "four of them have room");
        }
        assert!(outlet.drain(LONG, Instant::now()));
        assert!(written.try_iter().eq(0..100));
    }

    #[test]
    fn a_reader_that_takes_a_long_line_bit_by_bit_is_there() {
        let outlet = Outlet::start("test", |_: u32, moved| {
            for _ in 0..12 {
                std::thread::sleep(Duration::from_millis(50));
                moved();
            }
            Ok(())
        });
        assert!(outlet.push(0, 1, LONG) && outlet.drain(BRIEF, Instant::now()));
    }

    #[test]
    fn a_reader_that_hangs_is_waited_for_once() {
        let (outlet, open, written) = gated();
        outlet.offer(2, 1);
        assert!(!outlet.push(3, 1, BRIEF));
        let begun = Instant::now();
        assert!(!outlet.push(4, 1, BRIEF) && BRIEF > Some(begun.elapsed()), "it has hung for long enough already");
        // It is back.
        open.send(()).unwrap();
        assert!(outlet.push(5, 1, LONG));
        open.send(()).unwrap();
        open.send(()).unwrap();
        assert!(outlet.drain(LONG, Instant::now()));
        assert_eq!(written.try_iter().collect::<Vec<_>>(), [0, 1, 5]);
    }

    #[test]
    fn what_is_settled_is_written() {
        let (outlet, open, written) = gated();
        assert!(!outlet.settle(Duration::from_millis(1)));
        open.send(()).unwrap();
        open.send(()).unwrap();
        assert!(outlet.settle(Duration::from_secs(60)));
        assert_eq!(written.try_iter().collect::<Vec<_>>(), [0, 1]);
    }

    #[test]
    fn nothing_is_written_for_nobody() {
        let (outlet, open, written) = gated();
        assert!(!outlet.drain(BRIEF, Instant::now()) && outlet.is_over());
        // Whoever comes now need not wait.
        assert!(outlet.push(2, ROOM, None) && outlet.push(3, ROOM, None) && outlet.drain(None, Instant::now()));
        open.send(()).unwrap();
        assert_eq!(written.iter().collect::<Vec<_>>(), [0], "it had begun");
    }

    #[test]
    fn the_first_error_is_the_end() {
        let outlet = Outlet::start("test", |_: u32, _| Err(io::ErrorKind::BrokenPipe.into()));
        assert!(outlet.push(0, 1, LONG) && outlet.drain(LONG, Instant::now()));
        assert!(outlet.is_over());
        assert!(outlet.push(1, ROOM, None) && outlet.push(2, ROOM, None));
    }
}
