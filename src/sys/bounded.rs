//! Asks many things that may each hang, and goes on without those that do.
//!
//! Protects: a scan of the host ends although processes, filesystems or loop devices it looks at are stuck in the
//! kernel, and what hangs is asked once, however often the host is scanned: it costs one thread and one wait.
//! Does not protect: what hangs cannot be interrupted; its thread stays behind until the kernel lets it go, and a
//! process with such a thread does not end before.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// How long one item may take. A process with 100,000 descriptors takes about 0.2 s.
pub(super) const STEP_LIMIT: Duration = Duration::from_secs(2);

/// After so many stuck items the others get a shorter time each: something that many things wait for is stuck.
const WAITED_FOR_FULLY: usize = 4;
const SHORTENED_BY: u32 = 10;

/// After so many stuck items the rest are given up at once: every one leaves a thread behind.
const STUCK_AT_MOST: usize = 32;

/// Enough for the steps of a scan. The process may be locked in memory, where the usual 2 MiB would all be real.
const STACK_BYTES: usize = 256 << 10;

/// What hung in an earlier scan, and whether it still does.
static HANGING: Mutex<Vec<(String, Arc<AtomicBool>)>> = Mutex::new(Vec::new());

/// What became of the items.
pub(super) struct Answers<O> {
    /// One per item that answered, with the item's place, in order.
    pub(super) done: Vec<(usize, O)>,
    /// The places of the items that did not, in order.
    pub(super) stuck: Vec<usize>,
}

struct Work<I, F> {
    items: Vec<I>,
    /// Which of them are asked.
    places: Vec<usize>,
    /// For each of these: a thread that was at it has left it.
    left: Vec<Arc<AtomicBool>>,
    step: F,
}

/// Runs `step` for every item, one after the other, on a helper thread; an item that takes longer than `limit`
/// is passed over. What already hung under the same `name` and has not come back counts as stuck unasked.
///
/// The limit is measured by the channel's own timer, `CLOCK_MONOTONIC`: nothing about safety hangs
/// on it, a suspend only lengthens the patience.
pub(super) fn each<I, O>(
    items: Vec<I>,
    mut limit: Duration,
    name: impl Fn(&I) -> String,
    step: impl Fn(&I) -> O + Send + Sync + 'static,
) -> Answers<O>
where
    I: Send + Sync + 'static,
    O: Send + 'static,
{
    let hanging = still_hanging();
    let hangs = |item: &I| !hanging.is_empty() && hanging.contains(&name(item));
    let (mut stuck, places): (Vec<_>, Vec<_>) = (0..items.len()).partition(|&place| hangs(&items[place]));
    let left = places.iter().map(|_| Arc::default()).collect();
    let count = places.len();
    let work = Arc::new(Work { items, places, left, step });
    let mut done = Vec::with_capacity(count);
    let (mut next, mut waited) = (0, 0);
    while next < count {
        if waited == STUCK_AT_MOST {
            stuck.extend(&work.places[next..]);
            break;
        }
        let receiver = start(&work, next);
        while next < count {
            let place = work.places[next];
            let answer = receiver.recv_timeout(limit);
            next += 1;
            match answer {
                Ok(answer) => {
                    done.push((place, answer));
                    continue;
                }
                Err(RecvTimeoutError::Timeout) => {
                    remember(name(&work.items[place]), Arc::clone(&work.left[next - 1]));
                }
                // The step panicked or no thread could be started: no answer either.
                Err(RecvTimeoutError::Disconnected) => {}
            }
            stuck.push(place);
            waited += 1;
            if waited == WAITED_FOR_FULLY {
                limit /= SHORTENED_BY;
            }
            break;
        }
    }
    stuck.sort_unstable();
    Answers { done, stuck }
}

fn still_hanging() -> Vec<String> {
    let mut hanging = HANGING.lock().unwrap_or_else(PoisonError::into_inner);
    hanging.retain(|(_, left)| !left.load(Ordering::Acquire));
    hanging.iter().map(|(name, _)| name.clone()).collect()
}

fn remember(name: String, left: Arc<AtomicBool>) {
    HANGING.lock().unwrap_or_else(PoisonError::into_inner).push((name, left));
}

/// Marks an item as left when it is, by an answer or a panic.
struct Leaves<'a>(&'a AtomicBool);

impl Drop for Leaves<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

/// Starts a thread on the items from `first` on. Without a thread (the process limit is reached) the channel is
/// closed at once and the item counts as stuck.
fn start<I, O, F>(work: &Arc<Work<I, F>>, first: usize) -> Receiver<O>
where
    I: Send + Sync + 'static,
    O: Send + 'static,
    F: Fn(&I) -> O + Send + Sync + 'static,
{
    let (sender, receiver) = channel();
    let work = Arc::clone(work);
    let started = thread(move || {
        for (&place, left) in work.places.iter().zip(&work.left).skip(first) {
            let leaves = Leaves(left);
            let answer = (work.step)(&work.items[place]);
            drop(leaves);
            if sender.send(answer).is_err() {
                return; // given up meanwhile
            }
        }
    });
    if let Err(error) = started {
        tracing::warn!(%error, "cannot start a thread to look at this host's users");
    }
    receiver
}

/// Starts a thread for something that may hang.
pub(super) fn thread(body: impl FnOnce() + Send + 'static) -> std::io::Result<()> {
    let thread = std::thread::Builder::new().name("host-scan".to_owned()).stack_size(STACK_BYTES);
    thread.spawn(body).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Hangs until the other end is dropped.
    fn gate() -> (std::sync::mpsc::Sender<()>, impl Fn() + Send + Sync) {
        let (free, wait) = channel::<()>();
        let wait = Mutex::new(wait);
        (free, move || drop(wait.lock().map(|wait| wait.recv())))
    }

    #[test]
    fn a_stuck_item_is_passed_over() {
        let (free, hang) = gate();
        let answers = each(
            vec![1, 2, 3, 4],
            Duration::from_millis(200),
            |item| format!("passed over {item}"),
            move |&item| {
                if item == 2 {
                    hang();
                }
                item * 10
            },
        );
        assert_eq!(answers.done, vec![(0, 10), (2, 30), (3, 40)]);
        assert_eq!(answers.stuck, vec![1]);
        drop(free);
    }

    #[test]
    fn many_stuck_items_do_not_hide_the_others() {
        let (free, hang) = gate();
        let name = |item: &i32| format!("many {item}");
        let answers = each((0..12).collect(), Duration::from_millis(600), name, move |&item| {
            if item < 8 {
                hang();
            }
        });
        assert_eq!(answers.stuck, (0..8).collect::<Vec<_>>());
        assert_eq!(answers.done.len(), 4);
        drop(free);
    }

    #[test]
    fn it_gives_up_when_everything_is_stuck() {
        let (free, hang) = gate();
        let name = |item: &i32| format!("all {item}");
        let answers = each((0..100).collect(), Duration::from_millis(20), name, move |_: &i32| hang());
        assert!(answers.done.is_empty());
        assert_eq!(answers.stuck.len(), 100);
        drop(free);
    }

    #[test]
    fn what_hangs_is_not_asked_again_until_it_has_come_back() {
        let (free, hang) = gate();
        let asked = Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let hang = Arc::new(hang);
        let ask = || {
            let (asked, hang) = (Arc::clone(&asked), Arc::clone(&hang));
            let step = move |_: &i32| {
                asked.fetch_add(1, Ordering::SeqCst);
                hang();
            };
            each(vec![0], Duration::from_millis(100), |_| "asked once".to_owned(), step).stuck.len()
        };
        assert_eq!((ask(), ask(), ask()), (1, 1, 1));
        assert_eq!(asked.load(Ordering::SeqCst), 1);
        drop(free);
        for _ in 0..200 {
            if ask() == 0 {
                return;
            }
            crate::clock::sleep(Duration::from_millis(10));
        }
        panic!("it counts as stuck for ever");
    }

    #[test]
    fn a_panicking_step_is_no_answer() {
        let step = |&item: &i32| {
            assert_ne!(item, 1, "this panic belongs to the test");
            item
        };
        let answers = each(vec![0, 1, 2], Duration::from_secs(5), |item| format!("panics {item}"), step);
        assert_eq!(answers.done, vec![(0, 0), (2, 2)]);
        assert_eq!(answers.stuck, vec![1]);
    }

    #[test]
    fn nothing_to_do_is_done() {
        let name = |item: &i32| item.to_string();
        assert!(each(Vec::new(), Duration::ZERO, name, |&item| item).stuck.is_empty());
    }
}
