//! Starting the guarding thread of one device.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::mpsc::sync_channel;

use nix::sys::eventfd::{EfdFlags, EventFd};

use super::cell::LeaseCell;
use super::first_use::check_content;
use super::history::{History, Pace, PulseWords};
use super::place::Place;
use super::thread::{self, Driver, Shared};
use super::trace::Trace;
use super::{Held, WakeKeeper};
use crate::clock;
use crate::error::Error;
use crate::format::Image;
use crate::protocol::{Activity, Adoption, Credit, Guard, GuardOptions, Mode};
use crate::sys::KernelView;

/// Events that may wait for a listener.
const EVENT_BACKLOG: usize = 256;
/// The thread's stack: its frames hold a few images of 1 KiB.
const STACK_BYTES: usize = 256 * 1024;

/// What the guarding thread is started with.
pub(super) struct Start {
    pub(super) options: GuardOptions,
    pub(super) adoption: Option<Adoption>,
    pub(super) credit: Option<Credit>,
    pub(super) answered_for: Option<Image>,
    pub(super) cell: LeaseCell,
    pub(super) trace: Option<Trace>,
    pub(super) realtime: bool,
    pub(super) wake_keeper: Option<WakeKeeper>,
}

/// Starts it.
pub(super) fn start(place: Place, with: Start) -> Result<Held, Error> {
    let Start { options, adoption, credit, answered_for, cell, trace, realtime, wake_keeper } = with;
    let path = place.asked().to_owned();
    let wake = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)
        .map_err(|source| Error::io("make an event descriptor for", &path, source))?;
    let timer =
        thread::timer().map_err(|source| Error::io("make a CLOCK_BOOTTIME timer for", &path, source))?;
    let shared = Arc::new(Shared {
        cell,
        wake,
        commands: AtomicU64::new(0),
        mode: AtomicU64::new(Mode::Claiming as u64),
        // Of what is adopted, somebody saw a beat before.
        last_beat: AtomicU64::new(
            adoption.map_or(0, |adoption| adoption.counted.map_or(clock::mono(), |(at, _)| at).0),
        ),
        beats: AtomicU64::new(0),
        worst_lateness_ns: AtomicU64::new(0),
        events_lost: AtomicU64::new(0),
        generation: AtomicU64::new(0),
        history: History::default(),
        pulse: PulseWords::default(),
        trace,
    });
    super::pulses::enter(&path, &shared);
    let (sender, events) = sync_channel(EVENT_BACKLOG);
    let store = place.store()?;
    let (medium, seed) = (place.medium().clone(), fastrand::u64(..));
    let guard = match adoption {
        None => {
            let guard = Guard::new(medium, options, seed, clock::now());
            let guard = match credit {
                Some(credit) => guard.with_credit(credit),
                None => guard,
            };
            match answered_for {
                Some(seen) => guard.answering_for(seen),
                None => guard,
            }
        }
        Some(adoption) => Guard::adopt(medium, options, adoption, seed, clock::now()),
    };
    let kernel = place.target().map(|target| KernelView::new(target.clone(), &place.device().kernel_name()));
    let claimed = place.clone();
    let driver = Driver {
        guard,
        store,
        shared: Arc::clone(&shared),
        events: sender,
        wake_keeper,
        timer,
        // What is used under a slot alone is not known; in an area nobody asks.
        ask_kernel: Box::new(move || kernel.as_ref().map_or(Activity::Gone, KernelView::ask)),
        check_content: Box::new(move || check_content(&claimed)),
        // A successor goes on with the lease that the cell carries.
        cell_end: adoption.and_then(|adoption| adoption.left).map(|left| left.lease_end),
        pace: Pace::default(),
    };
    // Detached: a thread that hangs in a dead device's I/O is waited for by nobody.
    std::thread::Builder::new()
        .name("mmp-beat".to_owned())
        .stack_size(STACK_BYTES)
        .spawn(move || {
            if realtime {
                // Best effort; without it beats are only less punctual under load.
                let _ = crate::sys::realtime::schedule_this_thread();
            }
            driver.run();
        })
        .map_err(|source| Error::io("start the guarding thread for", &path, source))?;
    Ok(Held { place, shared, events, put_back: None, over: false, lost: None, another_host: false })
}
