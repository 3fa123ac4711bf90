//! Asks many things that may each hang, and goes on without those that do.
//!
//! Protects: a scan of the host ends although a process, a filesystem or a loop device it looks at is stuck in the
//! kernel. Does not protect: what hangs cannot be interrupted; its thread stays behind until the kernel lets it go.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

/// How long one item may take. A process with 100,000 descriptors takes about 0.2 s.
pub(super) const STEP_LIMIT: Duration = Duration::from_secs(2);

/// After so many stuck items the rest are given up at once: every one leaves a thread behind and costs a whole limit.
const STUCK_AT_MOST: usize = 4;

/// Enough for the steps of a scan. The process may be locked in memory, where the usual 2 MiB would all be real.
const STACK_BYTES: usize = 256 << 10;

/// What became of the items.
pub(super) struct Answers<O> {
    /// One per item that answered, with the item's place, in order.
    pub(super) done: Vec<(usize, O)>,
    /// The places of the items that did not.
    pub(super) stuck: Vec<usize>,
}

/// Runs `step` for every item, one after the other, on a helper thread; an item that takes longer than `limit`
/// is passed over. The limit is measured by the channel's own timer, `CLOCK_MONOTONIC`: nothing about safety hangs
/// on it, a suspend only lengthens the patience.
pub(super) fn each<I, O>(
    items: Vec<I>,
    limit: Duration,
    step: impl Fn(&I) -> O + Send + Sync + 'static,
) -> Answers<O>
where
    I: Send + Sync + 'static,
    O: Send + 'static,
{
    let count = items.len();
    let work = Arc::new((items, step));
    let mut answers = Answers { done: Vec::with_capacity(count), stuck: Vec::new() };
    let mut next = 0;
    while next < count {
        let receiver = start(&work, next);
        while next < count {
            // Disconnected when the step panicked or no thread could be started: no answer either.
            let Ok(answer) = receiver.recv_timeout(limit) else {
                answers.stuck.push(next);
                next += 1;
                break;
            };
            answers.done.push((next, answer));
            next += 1;
        }
        if answers.stuck.len() == STUCK_AT_MOST {
            answers.stuck.extend(next..count);
            break;
        }
    }
    answers
}

/// Starts a thread on the items from `first` on. Without a thread (the process limit is reached) the channel is
/// closed at once and the item counts as stuck.
fn start<I, O, F>(work: &Arc<(Vec<I>, F)>, first: usize) -> Receiver<O>
where
    I: Send + Sync + 'static,
    O: Send + 'static,
    F: Fn(&I) -> O + Send + Sync + 'static,
{
    let (sender, receiver) = channel();
    let work = Arc::clone(work);
    let thread = std::thread::Builder::new().name("host-scan".to_owned()).stack_size(STACK_BYTES);
    let started = thread.spawn(move || {
        let (items, step) = &*work;
        for item in &items[first..] {
            if sender.send(step(item)).is_err() {
                return; // given up meanwhile
            }
        }
    });
    if let Err(error) = started {
        tracing::warn!(%error, "cannot start a thread to look at this host's users");
    }
    receiver
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    #[test]
    fn a_stuck_item_is_passed_over() {
        let (free, wait) = channel::<()>();
        let wait = Mutex::new(wait);
        let answers = each(vec![1, 2, 3, 4], Duration::from_millis(200), move |&item| {
            if item == 2 {
                let _ = wait.lock().unwrap().recv();
            }
            item * 10
        });
        assert_eq!(answers.done, vec![(0, 10), (2, 30), (3, 40)]);
        assert_eq!(answers.stuck, vec![1]);
        drop(free);
    }

    #[test]
    fn it_gives_up_when_everything_is_stuck() {
        let (free, wait) = channel::<()>();
        let wait = Mutex::new(wait);
        let answers = each((0..100).collect(), Duration::from_millis(20), move |_: &i32| {
            let _ = wait.lock().unwrap().recv();
        });
        assert!(answers.done.is_empty());
        assert_eq!(answers.stuck.len(), 100);
        drop(free);
    }

    #[test]
    fn a_panicking_step_is_no_answer() {
        let answers = each(vec![0, 1, 2], Duration::from_secs(5), |&item| {
            assert_ne!(item, 1, "this panic belongs to the test");
            item
        });
        assert_eq!(answers.done, vec![(0, 0), (2, 2)]);
        assert_eq!(answers.stuck, vec![1]);
    }

    #[test]
    fn nothing_to_do_is_done() {
        assert!(each(Vec::<i32>::new(), Duration::ZERO, |&item| item).stuck.is_empty());
    }
}
