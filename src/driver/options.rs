//! Claiming: from a path to a device held.
//!
//! Protects: everything that can be refused without a claim is refused before it. The claim itself is `protocol`'s.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::cell::LeaseCell;
use super::commands::COMMAND_WITHDRAW;
use super::first_use::{begin_use, check_privilege};
use super::place::Place;
use super::start::{Start, start};
use super::trace::Trace;
use super::{Held, WakeKeeper};
use crate::clock::{self, Mono};
use crate::error::Error;
use crate::format::{Image, NodeName};
use crate::protocol::{Adoption, Credit, Event, GuardOptions, Quiet, Refusal, timing};
use crate::sys::users;

/// How often an observer is asked when nothing happens.
const OBSERVE_PERIOD: Duration = Duration::from_millis(100);
/// How often the users on this host are looked for while waiting for them.
const USERS_PERIOD: Duration = Duration::from_millis(250);
/// A withdrawal waits so long for a thread that may hang in the device.
const WITHDRAW_PATIENCE: Duration = Duration::from_secs(2);

/// How to claim a device.
#[must_use = "options do nothing until `acquire`"]
pub struct Options {
    path: PathBuf,
    guarded_by: Option<PathBuf>,
    place: Option<Place>,
    node: Option<String>,
    interval: Option<Duration>,
    tolerate: Option<Duration>,
    wait: Duration,
    cell: Option<LeaseCell>,
    realtime: bool,
    wake_keeper: Option<WakeKeeper>,
    another_host: bool,
    /// The kernel is to mount and waits for itself; true if somebody was just seen beating.
    kernel_waits: Option<bool>,
    fenced: Option<NodeName>,
    trace: Option<Trace>,
    mounted_here: bool,
    credit: Option<Credit>,
    answered_for: Option<Image>,
}

impl Options {
    /// Claims `path`: a block device or an image file with an ext4 (ldiskfs) filesystem that has MMP enabled, or with an MMP area
    /// behind what it holds; or, as `TARGET:SLOT`, a slot of an area.
    pub fn new(path: impl AsRef<Path>) -> Self {
        Options {
            path: path.as_ref().to_owned(),
            guarded_by: None,
            place: None,
            node: None,
            interval: None,
            tolerate: None,
            wait: Duration::ZERO,
            cell: None,
            realtime: false,
            wake_keeper: None,
            another_host: false,
            kernel_waits: None,
            fenced: None,
            trace: None,
            mounted_here: false,
            credit: None,
            answered_for: None,
        }
    }

    /// The node name to write; by default this host's. Cut at 64 bytes.
    pub fn node(mut self, node: impl Into<String>) -> Self {
        self.node = Some(node.into());
        self
    }

    /// Claims what was found already.
    pub(crate) fn of_place(place: Place) -> Self {
        let options = Options::new(place.asked());
        Options { place: Some(place), ..options }
    }

    /// It is guarded by this slot, `TARGET:SLOT`, of an area elsewhere.
    pub fn guarded_by(mut self, slot: impl AsRef<Path>) -> Self {
        self.guarded_by = Some(slot.as_ref().to_owned());
        self
    }

    /// How often to beat; by default every second. Not in an area: its own interval stands in its header.
    pub fn interval(mut self, interval: Duration) -> Self {
        self.interval = Some(interval);
        self
    }

    /// The storage outage to survive. Longer means that others wait longer before they may take over. Not in an area: it is eleven of
    /// its intervals.
    pub fn tolerate(mut self, outage: Duration) -> Self {
        self.tolerate = Some(outage);
        self
    }

    /// How long to wait for somebody who uses the device to leave; by default not at all.
    pub fn wait(mut self, wait: Duration) -> Self {
        self.wait = wait;
        self
    }

    /// Vouches that `node` is dead (the cluster has fenced it). If the block names it, its holder, or its e2fsck, is
    /// watched for one beat only. Do not say so without knowing: two hosts would use the device.
    pub fn fenced(mut self, node: impl AsRef<str>) -> Self {
        self.fenced = Some(NodeName::new(node.as_ref()));
        self
    }

    /// The kernel is to mount the device, and waits by itself: [`Options::acquire`] returns when the block is ready
    /// for it ([`Held::mode`] is *expecting* then), and nothing is protected before the kernel beats. `seen_live`:
    /// somebody was just seen beating, so the block has to stand still for one of his beats first.
    pub(crate) fn kernel_waits(mut self, seen_live: bool) -> Self {
        self.kernel_waits = Some(seen_live);
        self
    }

    /// It is mounted here already, read-only, and that is what is to be held for: nobody on this host is looked for
    /// before the claim.
    pub(crate) fn mounted_here(mut self) -> Self {
        self.mounted_here = true;
        self
    }

    /// Counts what a standby of this host has watched.
    pub(crate) fn credit(mut self, credit: Credit) -> Self {
        self.credit = Some(credit);
        self
    }

    /// Claims `seen`, to the byte, although it would be refused: see [`Guard::answering_for`](crate::protocol::Guard::answering_for).
    pub(crate) fn answering_for(mut self, seen: Image) -> Self {
        self.answered_for = Some(seen);
        self
    }

    /// Leaves what a successor needs to know in `trace`.
    pub(crate) fn trace(mut self, trace: Trace) -> Self {
        self.trace = Some(trace);
        self
    }

    /// Shares the lease through `cell`, so that another process can watch it; by default a cell of its own.
    pub fn cell(mut self, cell: LeaseCell) -> Self {
        self.cell = Some(cell);
        self
    }

    /// Pretends that this process runs on a host of its own: what else on this host uses the device is not looked for,
    /// neither before the claim nor before the release. For demonstrations with several holders of one image file.
    #[doc(hidden)]
    pub fn pretend_another_host(mut self, another_host: bool) -> Self {
        self.another_host = another_host;
        self
    }

    /// Runs the guarding thread with real-time scheduling, if the system allows it.
    pub fn realtime(mut self, realtime: bool) -> Self {
        self.realtime = realtime;
        self
    }

    /// Called from the guarding thread when the lease was lost or shortened; must not block. Dropped when that thread
    /// ends.
    pub fn wake_keeper(mut self, wake: impl Fn() + Send + 'static) -> Self {
        self.wake_keeper = Some(Box::new(wake));
        self
    }

    /// Claims the device; blocks until it is held. Returns with an error, and nothing of anybody's touched, if it is
    /// used on this host, live elsewhere, marked by e2fsck, damaged, or not enabled.
    ///
    /// # Errors
    /// [`Error`], whose [`kind`](Error::kind) tells these apart.
    pub fn acquire(self) -> Result<Held, Error> {
        self.acquire_with(|_| ControlFlow::Continue(()))
    }

    /// As [`Options::acquire`]; `observe` hears what happens on the way, from the calling thread, and is called
    /// several times a second without an event. When it breaks, the claim is withdrawn.
    ///
    /// # Errors
    /// As [`Options::acquire`]; a withdrawn claim is [`Error::Refused`] of kind `Interrupted`.
    pub fn acquire_with(
        self,
        mut observe: impl FnMut(Option<&Event>) -> ControlFlow<()>,
    ) -> Result<Held, Error> {
        let place = self.find()?;
        let options = self.guard_options(&place)?;
        place.check_writable()?;
        check_privilege(&place)?;
        let patience_until = options.patience_until.unwrap_or_default();
        if self.wait_for_users_here(&place, patience_until, &mut observe)?.is_break() {
            let refusal = Refusal::Withdrawn { claim_left_standing: false };
            return Err(Error::Refused { path: self.path, refusal });
        }
        let cell = match self.cell {
            Some(cell) => cell,
            None => LeaseCell::new()
                .map_err(|source| Error::io("share memory for the lease of", &self.path, source))?,
        };
        let Options { trace, realtime, wake_keeper, credit, answered_for, .. } = self;
        let with =
            Start { options, adoption: None, credit, answered_for, cell, trace, realtime, wake_keeper };
        let mut held = start(place, with)?;
        held.another_host = self.another_host;
        let (mut withdrawn, mounted_here) = (None, self.mounted_here);
        while !held.over {
            let event = held.next_event(OBSERVE_PERIOD);
            if observe(event.as_ref()).is_break() {
                held.command(COMMAND_WITHDRAW);
                withdrawn.get_or_insert(clock::mono());
            }
            match event {
                Some(Event::Held { .. } | Event::HandedOver { .. }) => {
                    return if mounted_here { Ok(held) } else { begin_use(held, withdrawn.is_some()) };
                }
                Some(Event::Refused { refusal }) => return Err(Error::Refused { path: self.path, refusal }),
                // Withdrawn, and the claim is taken back.
                Some(Event::Released) => {
                    let refusal = Refusal::Withdrawn { claim_left_standing: false };
                    return Err(Error::Refused { path: self.path, refusal });
                }
                Some(Event::Lost { loss, .. }) => return Err(Error::Lost { path: self.path, loss }),
                _ => {}
            }
            // Its thread may hang in the device; it begins no write when it comes back, but one may be under way.
            if withdrawn.is_some_and(|at| clock::mono().since(at) > WITHDRAW_PATIENCE) {
                let refusal = Refusal::Withdrawn { claim_left_standing: true };
                return Err(Error::Refused { path: self.path, refusal });
            }
        }
        Err(Error::Interrupted)
    }

    /// Watches a filesystem that the kernel has mounted here already; the first event is the kernel's first beat, or why
    /// it is not watched. Nobody is looked for, and nothing is written.
    pub(crate) fn adopt(self, adoption: Adoption) -> Result<Held, Error> {
        let place = self.find()?;
        let options = self.guard_options(&place)?;
        if place.slot().is_some() && adoption.left.is_none() {
            let what = "it was mounted without its protection, and who used it meanwhile is not known: unmount it, and mount it \
                        with `mmp mount`";
            return Err(Error::Unsupported { path: self.path, what: what.to_owned() });
        }
        let cell = match self.cell {
            Some(cell) => cell,
            None => LeaseCell::new()
                .map_err(|source| Error::io("share memory for the lease of", &self.path, source))?,
        };
        let Options { trace, realtime, wake_keeper, .. } = self;
        let adoption = Some(adoption);
        let with =
            Start { options, adoption, credit: None, answered_for: None, cell, trace, realtime, wake_keeper };
        start(place, with)
    }

    /// Step 0: nothing is claimed that this host uses already.
    fn wait_for_users_here(
        &self,
        place: &Place,
        patience_until: Mono,
        observe: &mut impl FnMut(Option<&Event>) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, Error> {
        let Some(target) = place.target().filter(|_| !self.another_host && !self.mounted_here) else {
            return Ok(ControlFlow::Continue(()));
        };
        let mut told = Vec::new();
        loop {
            let used = users::users_before_claim(target, &[])?;
            let users: Vec<_> = used.iter().map(ToString::to_string).collect();
            if users.is_empty() {
                return Ok(ControlFlow::Continue(()));
            }
            if clock::mono() >= patience_until {
                return Err(Error::UsedHere { path: self.path.clone(), users });
            }
            let event = (users != told).then(|| Event::WaitingHere { users: users.clone(), patience_until });
            told = users;
            if observe(event.as_ref()).is_break() {
                return Ok(ControlFlow::Break(()));
            }
            clock::sleep(USERS_PERIOD.min(patience_until.since(clock::mono())));
        }
    }

    fn find(&self) -> Result<Place, Error> {
        match &self.place {
            Some(place) => Ok(place.clone()),
            None => Place::find_by(&self.path, self.guarded_by.as_deref(), self.node.as_deref()),
        }
    }

    fn guard_options(&self, place: &Place) -> Result<GuardOptions, Error> {
        let interval = self.interval.unwrap_or(timing::DEFAULT_INTERVAL);
        if place.slot().is_some() && (self.interval.is_some() || self.tolerate.is_some()) {
            return Err(Error::Argument(format!(
                "{}: it is guarded by a slot of an area, whose interval stands in its header, and which survives an outage of eleven of \
                 them; an area with another one is made with `mmp area create --interval`",
                place.asked().display()
            )));
        }
        let range = timing::MIN_INTERVAL..=timing::MAX_INTERVAL;
        if !range.contains(&interval) {
            return Err(Error::Argument(format!(
                "an interval of {interval:?} cannot be used; between {:?} and {:?} can",
                range.start(),
                range.end()
            )));
        }
        let check_interval_floor_s = match self.tolerate {
            None => 0,
            Some(outage) => timing::check_interval_for(outage).map_err(|longest| {
                Error::Argument(format!(
                    "an outage of {outage:?} cannot be tolerated; at most {longest:?} can"
                ))
            })?,
        };
        let patience_until = (self.wait > Duration::ZERO).then(|| clock::mono() + self.wait);
        Ok(GuardOptions {
            interval,
            check_interval_floor_s,
            patience_until,
            watch_only: false,
            kernel_waits: self.kernel_waits.is_some(),
            seen_live: self.kernel_waits == Some(true),
            fenced: self.fenced,
        })
    }
}

/// Watches a device without ever opening it for writing, until it is known whether somebody uses it.
///
/// # Errors
/// As [`Options::acquire`]: [`Error::Refused`] if it is in use.
pub fn watch(path: &Path, observe: impl FnMut(Option<&Event>) -> ControlFlow<()>) -> Result<Quiet, Error> {
    watch_place(Place::find(path, None)?, observe)
}

/// As [`watch`], of what was found already.
///
/// # Errors
/// As [`watch`].
pub(crate) fn watch_place(
    place: Place,
    mut observe: impl FnMut(Option<&Event>) -> ControlFlow<()>,
) -> Result<Quiet, Error> {
    let path = &place.asked().to_owned();
    let cell = LeaseCell::new().map_err(|source| Error::io("share memory to watch", path, source))?;
    let options = GuardOptions { watch_only: true, ..GuardOptions::default() };
    let with = Start {
        options,
        adoption: None,
        credit: None,
        answered_for: None,
        cell,
        trace: None,
        realtime: false,
        wake_keeper: None,
    };
    let mut watcher = start(place, with)?;
    while !watcher.over {
        let event = watcher.next_event(OBSERVE_PERIOD);
        if observe(event.as_ref()).is_break() {
            break;
        }
        match event {
            Some(Event::Watched { verdict }) => return Ok(verdict),
            Some(Event::Refused { refusal }) => {
                return Err(Error::Refused { path: path.to_owned(), refusal });
            }
            _ => {}
        }
    }
    Err(Error::Interrupted)
}
