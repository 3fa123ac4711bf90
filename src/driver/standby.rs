//! The thread of a standby: it looks at a block that another host beats, for a later claim of this host to count that time.
//!
//! Protects: it never opens the device for writing, and keeps no descriptor between two looks, which would keep a stale page cache alive;
//! what it counts is `protocol::standby`'s. Does not claim anything, and a device that hangs stops this thread alone.

use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::Place;
use crate::clock::{self, Mono};
use crate::error::Error;
use crate::format::{Image, MmpBlock};
use crate::io::BlockStore;
use crate::protocol::{Credit, Medium, Peer, Sequence, Standby, timing};

/// The thread's stack.
const STACK_BYTES: usize = 256 * 1024;
/// How long until a device that could not be read is tried again.
const FAILURE_PAUSE: Duration = Duration::from_secs(1);

/// How long whoever begins waits for the first look.
const FIRST_LOOK_PATIENCE: Duration = Duration::from_secs(1);

/// A look that takes longer is told, instead of what was seen before.
const LOOK_PATIENCE: Duration = Duration::from_secs(3);

/// A block that is watched, until this is dropped.
#[derive(Debug)]
pub(crate) struct Watched {
    medium: Medium,
    interval: Duration,
    state: Arc<Mutex<State>>,
    over: Arc<AtomicBool>,
}

#[derive(Debug)]
struct State {
    standby: Standby,
    decodes: bool,
    changed: bool,
    trouble: Option<String>,
    /// A look is under way since then.
    looking_since: Option<Mono>,
}

/// What is seen of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum View {
    /// No look has ended yet.
    Starting,
    /// It cannot be read, or is damaged.
    Unreadable(String),
    /// What stands there, for how long it has, whether that is longer than its holder's beat, and whether it was ever seen to change.
    Stands { sequence: Sequence, by: Peer, quiet: Duration, silent: bool, changed: bool },
}

impl Watched {
    /// Starts to watch.
    ///
    /// # Errors
    /// When the device cannot be opened, or there is no thread left.
    pub(crate) fn begin(place: Place) -> Result<Self, Error> {
        let path = place.asked().to_owned();
        let interval = place.medium().interval().unwrap_or(timing::DEFAULT_INTERVAL);
        let state = State {
            standby: Standby::new(interval),
            decodes: true,
            changed: false,
            trouble: None,
            looking_since: None,
        };
        let watched = Watched {
            medium: place.medium().clone(),
            interval,
            state: Arc::new(Mutex::new(state)),
            over: Arc::new(AtomicBool::new(false)),
        };
        let (state, over) = (Arc::clone(&watched.state), Arc::clone(&watched.over));
        let mut store = place.store()?;
        std::thread::Builder::new()
            .name("mmp-standby".to_owned())
            .stack_size(STACK_BYTES)
            .spawn(move || {
                while !over.load(SeqCst) {
                    let next = look(&place, &mut *store, &state);
                    clock::sleep(next.since(clock::mono()));
                }
            })
            .map_err(|source| Error::io("start a thread to watch", &path, source))?;
        Ok(watched)
    }

    /// Waits for the first look to end, a moment.
    pub(crate) fn wait_for_a_look(&self) {
        let until = clock::mono() + FIRST_LOOK_PATIENCE;
        while self.view() == View::Starting && clock::mono() < until {
            clock::sleep(Duration::from_millis(5));
        }
    }

    /// What a claim that begins now may count.
    pub(crate) fn credit(&self) -> Option<Credit> {
        let state = lock(&self.state);
        if state.decodes { state.standby.credit() } else { None }
    }

    /// What is seen.
    pub(crate) fn view(&self) -> View {
        let state = lock(&self.state);
        // What was seen before it hung says nothing of now.
        let waits = state.looking_since.map_or(Duration::ZERO, |since| clock::mono().since(since));
        if waits > LOOK_PATIENCE {
            return View::Unreadable(format!("it has not answered for {} s", waits.as_secs()));
        }
        if let Some(trouble) = &state.trouble {
            return View::Unreadable(trouble.clone());
        }
        let Some((image, quiet)) = state.standby.quiet() else { return View::Starting };
        let block = MmpBlock::fields(image);
        let longest = self.medium.longest_interval(self.interval, block.check_interval_s);
        let silent = quiet > timing::refusal(longest);
        View::Stands {
            sequence: block.seq.into(),
            by: Peer::from(&block),
            quiet,
            silent,
            changed: state.changed,
        }
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.over.store(true, SeqCst);
    }
}

/// One look; gives when the next is due.
fn look(place: &Place, store: &mut dyn BlockStore, state: &Mutex<State>) -> Mono {
    let began = clock::mono();
    lock(state).looking_since = Some(began);
    let read: Result<Image, Error> = store.read().copied();
    let ended = clock::mono();
    store.close();
    let mut state = lock(state);
    state.looking_since = None;
    match read {
        Ok(image) => {
            let decoded = place.medium().decode(&image);
            state.decodes = decoded.is_ok();
            state.trouble = decoded.err().map(|damage| damage.to_string());
            let before = state.standby.quiet().map(|(seen, _)| *seen);
            state.changed |= before.is_some_and(|before| before != image);
            state.standby.looked(began, ended, &image);
            state.standby.next_look(began)
        }
        Err(error) => {
            state.trouble = Some(error.without_path());
            state.standby.failed();
            ended + FAILURE_PAUSE
        }
    }
}

/// Whoever panicked with it left plain data.
fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}
