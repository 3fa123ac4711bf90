//! The driver process of a guarded mount: all device I/O, so that nothing but this process can hang in it.
//!
//! Protects: the looks come from a thread of their own; this, the main thread, claims, asks the keeper to mount, talks,
//! writes the record, and releases. Its keeper is replaced when it dies. What the user is told goes to the front as
//! long as there is one, and into the record.

mod claiming;
mod companions;
mod control;
mod events;
mod mounting;
mod our_beats;
mod record;
mod resident;
mod upkeep;

use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::messages::{FromDriver, ToDriver};
use super::{exit, render};
use crate::cli::progress::{self, Told};
use crate::clock::{self, Mono};
use crate::driver::cell::CellState;
use crate::driver::{Held, Options, Released, UNDERMINED_PERIOD};
use crate::error::{Error, Kind};
use crate::keeper::DriverPipe;
use crate::keeper::mounts::{self, Driver, FromKeeper, Link, Memory, Purpose, Task, ToKeeper};
use crate::protocol::{Activity, Adoption, Event, Loss, Mode, Resumption, describe};
use crate::registry::{Lost, Phase, Record, Slot};
use crate::sys::KernelView;
use crate::sys::identity;
use crate::sys::realtime::{Lock, protect};
use crate::sys::spawn::CommandEnd;
use control::Listener;
pub(in crate::cli) use control::{BeatReport, Request, ask};
pub(in crate::cli) use resident::{give_up, run as run_in_daemon};

/// How often the main thread looks around.
const PERIOD: Duration = Duration::from_millis(50);
/// How often the record is written.
const RECORD_PERIOD: Duration = Duration::from_secs(1);
/// How often the kernel is asked whether a filesystem that we beat for is still there, and a release is tried.
const SCAN_PERIOD: Duration = Duration::from_millis(500);
/// How long a keeper may take to end that has nothing left to do.
const FINISH_PATIENCE: Duration = Duration::from_secs(2);
/// How often a keeper is started anew, if that fails.
const KEEPER_PERIOD: Duration = Duration::from_secs(1);
/// How long a lost guard waits for its keeper to end it.
const LOST_PATIENCE: Duration = Duration::from_secs(600);

/// Runs the driver; gives the exit code of the process, which nobody reads.
pub(in crate::cli) fn run(parts: Driver) -> i32 {
    let protection = protect(Lock::OnFault);
    tracing::debug!(?protection, "driver");
    crate::sys::realtime::remember(&protection);
    Guardian::new(parts).run()
}

pub(super) struct Guardian {
    task: Task,
    memory: Memory,
    lock: OwnedFd,
    slot: Slot,
    view: KernelView,
    keeper: Option<Link>,
    /// Those that this process started and that may not have been collected yet.
    dead_keepers: Vec<Link>,
    /// The keeper's sign of our life, and what wakes it; the guarding thread has the same.
    pipe: Arc<Mutex<Option<DriverPipe>>>,
    next_keeper: Mono,
    front: Option<Link>,
    adoption: Option<Adoption>,
    listener: Option<Listener>,
    phase: Phase,
    next_record: Mono,
    next_scan: Mono,
    next_content: Mono,
    bridged: u64,
    notes: Vec<String>,
    /// What mount(8) came to, until it is asked for.
    mount_end: Option<(CommandEnd, String)>,
    withdrawn: bool,
    /// The kernel's filesystem is gone, and the clean mark is ours to write.
    releasing: bool,
    /// mount(8) was asked for, and has not ended.
    mounting: bool,
    /// A keeper died, and what it was mounting has not been seen to end.
    orphaned: bool,
    /// What is used together with what is mounted, and held as well.
    companions: Vec<Held>,
    /// A thread of the daemon, and not a process of its own.
    resident: bool,
    /// The keeper has fenced, and told it in the record: this.
    fenced: Option<Box<Lost>>,
    /// It was lost, and there is nothing left to be said of it here.
    ended_lost: bool,
    /// The keeper has ended it before it began.
    given_up: bool,
    /// It cannot be driven from here, and is left to its keeper.
    abandoned: bool,
    events: events::Events,
}

/// Why there is no guard.
pub(super) struct Failure {
    pub(super) text: String,
    pub(super) code: u8,
}

impl From<&Error> for Failure {
    fn from(error: &Error) -> Self {
        Failure { text: render::error(error), code: exit::number(error) }
    }
}

impl Guardian {
    fn new(parts: Driver) -> Self {
        let Driver { task, memory, lock, keeper, pipe, front, adoption, resident } = parts;
        let slot = task.slot();
        Guardian {
            events: events::Events::of(&task, adoption.as_ref()),
            view: KernelView::new(task.target(), &task.kernel_name).without_kmmpd(task.area),
            listener: Listener::at(&slot.socket()).ok(),
            slot,
            task,
            memory,
            lock,
            keeper: Some(keeper),
            dead_keepers: Vec::new(),
            pipe: Arc::new(Mutex::new(Some(pipe))),
            next_keeper: Mono(0),
            front,
            adoption,
            phase: Phase::Beginning,
            next_record: Mono(0),
            next_scan: Mono(0),
            next_content: clock::mono() + UNDERMINED_PERIOD,
            bridged: 0,
            notes: Vec::new(),
            mount_end: None,
            withdrawn: false,
            releasing: false,
            mounting: false,
            orphaned: false,
            companions: Vec::new(),
            resident,
            fenced: None,
            ended_lost: false,
            given_up: false,
            abandoned: false,
        }
    }

    fn run(&mut self) -> i32 {
        self.write_record(None);
        if self.adoption.is_some() && self.memory.cell(0).state() == CellState::Released {
            return self.finish_for_another();
        }
        match self.begin() {
            Ok(mut held) => {
                self.phase = Phase::Guarding;
                self.tell_keeper(&ToKeeper::Committed);
                self.write_record(Some(&held));
                self.check_bridge(&held);
                self.publish_beginning(&held);
                let dir = render::shown(&self.task.dir);
                let text = format!("{} guarded on {dir}", render::shown(&self.task.asked));
                self.tell(FromDriver::Guarding { text });
                self.front = None;
                self.guard(&mut held)
            }
            // The keeper finds somebody else; or has told all there is to be told.
            Err(_) if self.abandoned || self.ended_lost => i32::from(exit::IO),
            Err(failure) => {
                // Nothing is mounted, so there is nothing to be lost.
                self.tell(FromDriver::Failed { text: failure.text, code: failure.code });
                let _ = self.release_companions(clock::mono() + companions::UNUSED_PATIENCE);
                self.end(self.task.earlier.as_deref())
            }
        }
    }

    /// Guards until the filesystem is gone and the block is clean, or until it is lost.
    fn guard(&mut self, held: &mut Held) -> i32 {
        loop {
            let event = held.next_event(self.period());
            let over = held.is_over();
            match event {
                Some(Event::Lost { loss, .. }) => return self.lost(&loss),
                Some(Event::Unmounted | Event::Released | Event::NotMounted { .. }) => return self.finish(),
                Some(event) => {
                    self.heard(&event);
                    if matches!(event, Event::HandedOver { .. }) {
                        // A remount that was given up before our mark had landed: nobody mounts.
                        held.mount_ended(true);
                    }
                }
                None if over || self.is_lost() => return self.lost(&Loss::LeaseExpired),
                None => {}
            }
            self.tend(held);
            if let Some(loss) = self.companions_lost() {
                return self.lost(&loss);
            }
            if let Some(reason) = self.overrun(held) {
                return self.lost_because(&reason);
            }
            if let Some((request, connection)) = self.listener.as_ref().and_then(Listener::accept) {
                let answer = self.carry_out(held, &request);
                control::answer(connection, &answer);
            }
            if held.mode() == Mode::Beating && clock::mono() >= self.next_scan {
                self.next_scan = clock::mono() + SCAN_PERIOD;
                if let Some(code) = self.release_if_gone(held) {
                    return code;
                }
            }
        }
    }

    /// What has to be done again and again, whatever else goes on.
    fn tend(&mut self, held: &Held) {
        self.look_after_keeper();
        self.watch_lateness(held);
        if self.orphaned && (self.view.is_seen() || !self.view.is_claimed()) {
            (self.orphaned, self.mounting) = (false, false);
            let gone = CommandEnd::Killed(nix::libc::SIGKILL);
            self.mount_end.get_or_insert((gone, "the keeper died".to_owned()));
        }
        if clock::mono() >= self.next_record {
            self.write_record(Some(held));
        }
    }

    fn heard(&mut self, event: &Event) {
        let told = progress::told(event);
        if let Some(line) = told.text() {
            self.note(line);
        }
        self.tell(FromDriver::Told(told));
        self.publish(event);
        match event {
            Event::Bridging { .. } => self.bridged += 1,
            Event::Resumed { why: Resumption::Unmounted } => self.releasing = true,
            _ => {}
        }
        self.next_record = Mono(0);
    }

    /// We beat: for a read-only mount, or for one that the kernel has given up. When it is gone, so is our business.
    fn release_if_gone(&mut self, held: &mut Held) -> Option<i32> {
        if !self.releasing && !self.is_gone() {
            // A release that met a new mount is over.
            self.phase = Phase::Guarding;
            return None;
        }
        self.releasing = true;
        self.phase = Phase::Releasing;
        match held.release() {
            Ok(left) => {
                if let Released::LeftToOthers { by } = left {
                    self.heard(&Event::LeftToOthers { by });
                }
                Some(self.finish())
            }
            Err(Error::Lost { loss, .. }) => Some(self.lost(&loss)),
            Err(Error::UsedHere { users, .. }) => {
                // It may have been mounted again; then it is guarded as before.
                self.releasing = false;
                self.note(&format!("still in use on this host: {}", users.join(", ")));
                None
            }
            Err(error) => {
                self.note(&render::error(&error));
                None
            }
        }
    }

    /// Protection has ended. The keeper fences, and ends this process after that.
    fn lost(&mut self, loss: &Loss) -> i32 {
        self.lost_because(&describe::loss(loss))
    }

    fn lost_because(&mut self, reason: &str) -> i32 {
        self.memory.leases().lose();
        self.tell_keeper(&ToKeeper::Lost { reason: reason.to_owned() });
        self.phase = Phase::Lost;
        self.note(reason);
        // Whoever is about to unmount it is to know before it is fenced. What the keeper has told of its fence stands.
        self.hear_keeper();
        if self.given_up {
            return i32::from(exit::INTERRUPTED);
        }
        self.ended_lost = true;
        if self.fenced.is_none() {
            self.write_record(None);
        }
        if self.resident {
            self.wait_for_the_fence();
            return i32::from(exit::LOST);
        }
        let until = clock::mono() + LOST_PATIENCE;
        while clock::mono() < until {
            self.wake_keeper();
            self.look_after_keeper();
            clock::sleep(PERIOD);
        }
        i32::from(exit::LOST)
    }

    fn finish(&mut self) -> i32 {
        match self.release_companions(Mono::FAR) {
            Ok(()) => {
                self.publish_end();
                self.end(None)
            }
            Err(loss) => self.lost(&loss),
        }
    }

    /// Leaves `earlier` as the device's record; the listener's socket goes with ours.
    fn end(&self, earlier: Option<&Record>) -> i32 {
        self.slot.put_back(earlier);
        self.tell_keeper(&ToKeeper::Finish);
        // What is still held is lost with this process, and that must not reach a keeper that would fence for it.
        let until = clock::mono() + FINISH_PATIENCE;
        let listens = || self.keeper.as_ref().is_some_and(|keeper| keeper.receive::<FromKeeper>().is_ok());
        while !self.companions.is_empty() && clock::mono() < until && listens() {
            clock::sleep(Duration::from_millis(5));
        }
        i32::from(exit::DONE)
    }

    /// Has the keeper run mount(8).
    fn ask_to_mount(&mut self, arguments: Vec<std::ffi::OsString>) {
        (self.mount_end, self.mounting) = (None, true);
        self.tell_keeper(&ToKeeper::Mount { arguments });
    }

    fn tell_keeper(&self, message: &ToKeeper) {
        if let Some(keeper) = &self.keeper {
            let _ = keeper.send(message);
        }
    }

    fn wake_keeper(&self) {
        if let Some(pipe) = self.pipe.lock().ok().as_deref().and_then(Option::as_ref) {
            pipe.wake();
        }
    }

    /// To the front, as long as there is one. What is only told is dropped if it does not listen.
    fn tell(&mut self, message: FromDriver) {
        let last = !matches!(message, FromDriver::Told(_));
        while let Some(front) = &self.front {
            match front.send(&message) {
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock && last => clock::sleep(PERIOD),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return,
                Err(_) => {
                    self.front = None;
                    // As is_withdrawn would have seen it, had it asked first.
                    self.withdrawn |= self.phase == Phase::Beginning;
                }
                Ok(()) => return,
            }
        }
    }

    /// True once the front gave up, or is gone, before it was told that the mount is guarded.
    fn is_withdrawn(&mut self) -> bool {
        if let Some(front) = &self.front {
            match front.receive::<ToDriver>() {
                Ok(None) => {}
                Ok(Some(ToDriver::Withdraw)) | Err(_) => self.withdrawn = true,
            }
        }
        self.withdrawn
    }
}
