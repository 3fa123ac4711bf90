//! Many things that may each hang, asked side by side, each within a limit.
//!
//! Protects: what hangs delays no other: a thread that is slow is replaced long before its limit. What hung is asked again only when it
//! has come back, so that asking for ever leaves one thread behind for each thing that hangs. Does not protect: a thread that hangs in the
//! kernel cannot be ended; where more things hang than threads may be started for ([`SPARES_AT_MOST`]), the rest is not asked.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::clock::{self, Mono};

/// So many threads are started beyond those that ask at once, in place of slow ones. What hung in earlier rounds counts. A path that is lost
/// takes every device behind it along, and with those, what is well has to be asked still; a thread that hangs costs 32 KiB.
const SPARES_AT_MOST: usize = 1024;
/// A thread that takes longer for an item is replaced, or a quarter of the limit if that is less.
const SLOW: Duration = Duration::from_millis(250);
/// The longest time between two looks for what is late.
const LOOK: Duration = Duration::from_millis(50);
/// Enough for a look at a device.
const STACK_BYTES: usize = 256 << 10;

/// Asks, again and again.
#[derive(Debug)]
pub(super) struct Pool {
    at_once: usize,
    limit: Duration,
    spares_at_most: usize,
    /// What hung when it was asked, and whether it has come back.
    hanging: Vec<(PathBuf, Arc<AtomicBool>)>,
}

/// What became of one.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer<O> {
    Done(O),
    /// Not within the limit; or it hung when it was asked before, and has not come back.
    Late,
    /// It was not asked, for this reason.
    NotAsked(&'static str),
    /// The asking thread panicked.
    Failed,
}

enum Place<O> {
    Waiting,
    Asked {
        since: Mono,
        /// Another thread was started, so that this one delays nothing.
        replaced: bool,
    },
    /// Its thread says so when it comes back, and ends.
    GivenUp(Arc<AtomicBool>),
    Answered(Answer<O>),
}

/// What the threads share.
struct Work<I, O, F> {
    items: Vec<I>,
    places: Vec<Mutex<Place<O>>>,
    next: AtomicUsize,
    step: F,
}

impl Pool {
    pub(super) fn new(at_once: usize, limit: Duration) -> Self {
        Pool { at_once: at_once.max(1), limit, spares_at_most: SPARES_AT_MOST, hanging: Vec::new() }
    }

    pub(super) fn limit(&self) -> Duration {
        self.limit
    }

    /// Runs `step` for every item, and gives all of them back with what came of it, in their order. `S` is what a thread keeps
    /// from one item to the next.
    pub(super) fn each<I, O, S, F>(
        &mut self,
        items: Vec<I>,
        name: impl Fn(&I) -> &Path,
        step: F,
    ) -> Vec<(I, Answer<O>)>
    where
        I: Clone + Send + Sync + 'static,
        O: Send + 'static,
        S: Default,
        F: Fn(&I, &mut S) -> O + Send + Sync + 'static,
    {
        self.hanging.retain(|(_, back)| !back.load(Ordering::Acquire));
        let hangs = |item: &I| self.hanging.iter().any(|(path, _)| path == name(item));
        let place =
            |item| Mutex::new(if hangs(item) { Place::Answered(Answer::Late) } else { Place::Waiting });
        let places = items.iter().map(place).collect();
        let work = Arc::new(Work { items: items.clone(), places, next: AtomicUsize::new(0), step });
        self.run(&work, &name);
        let (hung, spares_at_most) = (self.hanging.len(), self.spares_at_most);
        let take = |place: &Mutex<Place<O>>| {
            let mut place = lock(place);
            if matches!(*place, Place::GivenUp(_)) {
                return Answer::Late; // its thread still has to find that out
            }
            match std::mem::replace(&mut *place, Place::Waiting) {
                Place::Answered(answer) => answer,
                _ if hung < spares_at_most => Answer::NotAsked("no thread could be started to look at it"),
                _ => Answer::NotAsked("too many other devices hang: it was not asked"),
            }
        };
        items.into_iter().zip(&work.places).map(|(item, place)| (item, take(place))).collect()
    }

    /// Until every item has an answer, or nobody is left to ask for one.
    fn run<I, O, S, F>(&mut self, work: &Arc<Work<I, O, F>>, name: &impl Fn(&I) -> &Path)
    where
        I: Send + Sync + 'static,
        O: Send + 'static,
        S: Default,
        F: Fn(&I, &mut S) -> O + Send + Sync + 'static,
    {
        let (sender, ended) = channel();
        let mut spares = self.spares_at_most.saturating_sub(self.hanging.len());
        // What is known to hang is not among them, so this many always begin: what is well is never taken for what hangs.
        let wanted = self.at_once.min(work.items.len());
        let mut at_work = (0..wanted).filter(|_| start(work, &sender)).count();
        let slow = SLOW.min(self.limit / 4);
        let look = LOOK.min(slow).max(Duration::from_millis(1));
        while at_work > 0 {
            if ended.recv_timeout(look).is_ok() {
                at_work -= 1;
                continue;
            }
            while spares > 0 && work.has_more() && work.replace_one(slow) && start(work, &sender) {
                (at_work, spares) = (at_work + 1, spares - 1);
            }
            let late = work.give_up(self.limit);
            at_work -= late.len();
            self.hanging.extend(late.into_iter().map(|(at, back)| (name(&work.items[at]).to_owned(), back)));
        }
    }
}

impl<I, O, F> Work<I, O, F> {
    /// Not everything was asked yet.
    fn has_more(&self) -> bool {
        self.next.load(Ordering::Relaxed) < self.items.len()
    }

    /// Finds an item that takes longer than that, and for which no other thread was started yet.
    fn replace_one(&self, slow: Duration) -> bool {
        let now = clock::mono();
        self.places.iter().any(|place| match &mut *lock(place) {
            Place::Asked { since, replaced } if !*replaced && now.since(*since) >= slow => {
                *replaced = true;
                true
            }
            _ => false,
        })
    }

    /// Gives up what is late: its thread counts no more, also when it comes back.
    fn give_up(&self, limit: Duration) -> Vec<(usize, Arc<AtomicBool>)> {
        let now = clock::mono();
        let mut late = Vec::new();
        for (at, place) in self.places.iter().enumerate() {
            let mut place = lock(place);
            if matches!(*place, Place::Asked { since, .. } if now.since(since) >= limit) {
                let back = Arc::new(AtomicBool::new(false));
                *place = Place::GivenUp(Arc::clone(&back));
                late.push((at, back));
            }
        }
        late
    }

    /// Asks one after the other, until none is left. False if this thread was given up meanwhile.
    fn ask<S: Default>(&self) -> bool
    where
        F: Fn(&I, &mut S) -> O,
    {
        let mut kept = S::default();
        loop {
            let at = self.next.fetch_add(1, Ordering::Relaxed);
            let (Some(item), Some(place)) = (self.items.get(at), self.places.get(at)) else { return true };
            match &mut *lock(place) {
                waiting @ Place::Waiting => {
                    *waiting = Place::Asked { since: clock::mono(), replaced: false };
                }
                _ => continue,
            }
            let answer = catch_unwind(AssertUnwindSafe(|| (self.step)(item, &mut kept)));
            match &mut *lock(place) {
                Place::GivenUp(back) => {
                    back.store(true, Ordering::Release);
                    return false;
                }
                place => *place = Place::Answered(answer.map_or(Answer::Failed, Answer::Done)),
            }
        }
    }
}

/// Starts a thread; false if there can be none.
fn start<I, O, S, F>(work: &Arc<Work<I, O, F>>, ended: &Sender<()>) -> bool
where
    I: Send + Sync + 'static,
    O: Send + 'static,
    S: Default,
    F: Fn(&I, &mut S) -> O + Send + Sync + 'static,
{
    let (work, ended) = (Arc::clone(work), ended.clone());
    let thread = std::thread::Builder::new().name("mmp-scan".to_owned()).stack_size(STACK_BYTES);
    let started = thread.spawn(move || {
        if work.ask() {
            let _ = ended.send(()); // nobody listens if all answers are there
        }
    });
    if let Err(error) = &started {
        tracing::warn!(%error, "cannot start a thread to look at a device");
    }
    started.is_ok()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<O> fmt::Debug for Place<O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Place::Waiting => "Waiting",
            Place::Asked { .. } => "Asked",
            Place::GivenUp(_) => "GivenUp",
            Place::Answered(_) => "Answered",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::Sender;

    const SHORT: Duration = Duration::from_millis(100);
    const LONG: Duration = Duration::from_secs(60);

    /// Hangs until the other end is dropped.
    fn gate() -> (Sender<()>, impl Fn() + Send + Sync) {
        let (free, wait) = channel::<()>();
        let wait = Mutex::new(wait);
        (free, move || {
            let _ = lock(&wait).recv();
        })
    }

    fn paths(count: usize) -> Vec<PathBuf> {
        (0..count).map(|at| PathBuf::from(at.to_string())).collect()
    }

    fn number(path: &Path) -> usize {
        path.to_str().and_then(|text| text.parse().ok()).expect("is a number")
    }

    fn answers<O>(given: Vec<(PathBuf, Answer<O>)>) -> Vec<Answer<O>> {
        given.into_iter().map(|(_, answer)| answer).collect()
    }

    #[test]
    fn all_are_asked_and_answers_come_in_order() {
        let mut pool = Pool::new(4, LONG);
        let given = pool.each(paths(100), PathBuf::as_path, |path, asked: &mut usize| {
            *asked += 1;
            (number(path), *asked)
        });
        let done = answers(given).into_iter().map(|answer| match answer {
            Answer::Done(done) => done,
            other => panic!("{other:?}"),
        });
        let done: Vec<_> = done.collect();
        assert!(done.iter().enumerate().all(|(at, (number, _))| at == *number));
        // A thread keeps its state: the counts of all threads come to the whole.
        assert!(done.iter().filter(|(_, asked)| *asked == 1).count() <= 4);
        assert!(pool.each(Vec::new(), PathBuf::as_path, |_, (): &mut ()| ()).is_empty());
    }

    #[test]
    fn what_hangs_is_late_and_delays_no_other() {
        let (free, hang) = gate();
        let mut pool = Pool::new(2, SHORT);
        let given = pool.each(paths(30), PathBuf::as_path, move |path, (): &mut ()| {
            if number(path).is_multiple_of(10) {
                hang();
            }
            number(path)
        });
        for (at, answer) in answers(given).into_iter().enumerate() {
            assert_eq!(answer, if at % 10 == 0 { Answer::Late } else { Answer::Done(at) });
        }
        drop(free);
    }

    #[test]
    fn more_that_hang_than_are_asked_at_once_delay_no_other() {
        let (free, hang) = gate();
        let answered = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&answered);
        // Nothing is given up in this time.
        let limit = LONG;
        let waiting = std::thread::spawn(move || {
            let step = move |path: &PathBuf, (): &mut ()| {
                if number(path) < 20 {
                    hang();
                }
                count.fetch_add(1, Ordering::SeqCst);
            };
            answers(Pool::new(2, limit).each(paths(30), PathBuf::as_path, step))
        });
        for _ in 0..3000 {
            if answered.load(Ordering::SeqCst) == 10 {
                drop(free);
                assert!(waiting.join().unwrap().iter().all(|answer| *answer == Answer::Done(())));
                return;
            }
            clock::sleep(Duration::from_millis(10));
        }
        panic!("only {} of 10 were asked beside those that hang", answered.load(Ordering::SeqCst));
    }

    #[test]
    fn what_hung_is_asked_again_when_it_has_come_back() {
        let (free, hang) = gate();
        let (asked, hang) = (Arc::new(AtomicUsize::new(0)), Arc::new(hang));
        let mut pool = Pool::new(2, SHORT);
        let mut ask = || {
            let (asked, hang) = (Arc::clone(&asked), Arc::clone(&hang));
            let given = pool.each(paths(1), PathBuf::as_path, move |_, (): &mut ()| {
                asked.fetch_add(1, Ordering::SeqCst);
                hang();
            });
            answers(given).remove(0)
        };
        assert_eq!((ask(), ask(), ask()), (Answer::Late, Answer::Late, Answer::Late));
        assert_eq!(asked.load(Ordering::SeqCst), 1);
        drop(free);
        for _ in 0..200 {
            if ask() == Answer::Done(()) {
                return;
            }
            clock::sleep(Duration::from_millis(10));
        }
        panic!("it counts as hung for ever");
    }

    #[test]
    fn the_number_of_hung_threads_is_bounded() {
        let (free, hang) = gate();
        let mut pool = Pool { spares_at_most: 64, ..Pool::new(40, SHORT) };
        let given = pool.each(paths(200), PathBuf::as_path, move |_, (): &mut ()| hang());
        let answers = answers(given);
        let late = answers.iter().filter(|answer| **answer == Answer::Late).count();
        assert_eq!(late, 40 + 64);
        assert!(answers.iter().all(|answer| matches!(answer, Answer::Late | Answer::NotAsked(_))));
        let next = pool.each(paths(1), PathBuf::as_path, |_, (): &mut ()| ());
        assert!(matches!(next[0].1, Answer::Late));
        // However many hang, what is not known to is asked.
        let next = pool.each(vec![PathBuf::from("other")], PathBuf::as_path, |_, (): &mut ()| ());
        assert!(matches!(next[0].1, Answer::Done(())));
        drop(free);
    }

    #[test]
    fn a_panic_is_no_answer() {
        let mut pool = Pool::new(1, LONG);
        let given = pool.each(paths(3), PathBuf::as_path, |path, (): &mut ()| {
            assert_ne!(number(path), 1, "this panic belongs to the test");
        });
        assert_eq!(answers(given), [Answer::Done(()), Answer::Failed, Answer::Done(())]);
    }
}
