//! The thread driver: one thread a device runs its `Guard` inline (poll, read or write, handle).
//!
//! No channel, no lock that another can hold for long and no allocation stand on the beat path; a device that hangs
//! in a read or a write stops only its own thread, and the lease cell runs out all the same because the keeper reads
//! it. Events leave through a bounded channel: whoever does not fetch them loses them, counted, and delays no beat.
//!
//! Protects: the cell is moved *before* a write that may shorten the lease is submitted and *after* each
//! acknowledgement was judged in time; the clock is read once more right before a write is begun. Does not protect
//! from a stall between that reading and the write: a rival finds such a write and beats over it (`protocol`).

use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::mpsc::{SyncSender, TrySendError};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::EventFd;
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};

use super::cell::LeaseCell;
use super::history::{History, Pace, PulseWords};
use super::trace::Trace;
use crate::clock::{self, Mono};
use crate::error::Error;
use crate::format::MmpBlock;
use crate::format::superblock::SUPERBLOCK_BYTES;
use crate::io::{BlockStore, Durability};
use crate::protocol::{Activity, Event, Failure, Guard, Input, Loss, Mode, Output, Write};

/// What the thread and its owner share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) cell: LeaseCell,
    /// Wakes the thread for a command.
    pub(super) wake: EventFd,
    /// The commands that wait, of the constants below.
    pub(super) commands: AtomicU64,
    /// Who beats: a [`Mode`].
    pub(super) mode: AtomicU64,
    /// Start of the look before the last acknowledged beat, in Mono nanoseconds; 0 before the first.
    pub(super) last_beat: AtomicU64,
    /// Acknowledged writes since *held*.
    pub(super) beats: AtomicU64,
    /// The worst lateness of a look against its deadline, in nanoseconds.
    pub(super) worst_lateness_ns: AtomicU64,
    /// Events that nobody fetched in time.
    pub(super) events_lost: AtomicU64,
    /// The number of this acquisition; 0 where there is none.
    pub(super) generation: AtomicU64,
    /// The last looks and beats.
    pub(super) history: History,
    /// What the thread does now.
    pub(super) pulse: PulseWords,
    /// What a successor needs to know if this process dies.
    pub(super) trace: Option<Trace>,
}

// Commands, each a bit: one that comes while another waits does not replace it.
/// Give the device back.
pub(super) const COMMAND_RELEASE: u64 = 1;
/// Give up a claim.
pub(super) const COMMAND_WITHDRAW: u64 = 1 << 1;
/// Stop without another word: the sequence stays as it is, as after a crash.
pub(super) const COMMAND_CRASH: u64 = 1 << 2;
/// Mark it clean for the kernel to mount.
pub(super) const COMMAND_HAND_OVER: u64 = 1 << 3;
/// The same, for a mount that is there and read-only.
pub(super) const COMMAND_HAND_OVER_MOUNTED: u64 = 1 << 4;
/// Whatever tried to mount has ended by itself.
pub(super) const COMMAND_MOUNT_ENDED: u64 = 1 << 5;
/// It was killed.
pub(super) const COMMAND_MOUNT_KILLED: u64 = 1 << 6;

/// Each command and what the guard is told, in the order in which they are carried out.
const INPUTS: [(u64, Input<'static>); 6] = [
    (COMMAND_WITHDRAW, Input::Withdraw),
    (COMMAND_HAND_OVER, Input::HandOver { mounted: false }),
    (COMMAND_HAND_OVER_MOUNTED, Input::HandOver { mounted: true }),
    (COMMAND_MOUNT_ENDED, Input::MountEnded { killed: false }),
    (COMMAND_MOUNT_KILLED, Input::MountEnded { killed: true }),
    (COMMAND_RELEASE, Input::Release),
];

/// Finds out what the kernel does with the device. Called from the guarding thread, only when something is to be judged.
pub(super) type AskKernel = Box<dyn FnMut() -> Activity + Send>;

/// Looks at what stands before a tail area. Called from the guarding thread, before a claim is written.
pub(super) type CheckContent = Box<dyn FnMut() -> Result<(), Error> + Send>;

pub(super) struct Driver<S> {
    pub(super) guard: Guard,
    pub(super) store: S,
    pub(super) shared: Arc<Shared>,
    pub(super) events: SyncSender<Event>,
    /// Makes the keeper look at once when the lease is lost or shortened; dropped with the thread.
    pub(super) wake_keeper: Option<super::WakeKeeper>,
    pub(super) timer: TimerFd,
    pub(super) ask_kernel: AskKernel,
    /// Whether what stands before a tail area leaves it alone: right before every claim.
    pub(super) check_content: CheckContent,
    /// What the cell was left at.
    pub(super) cell_end: Option<Mono>,
    pub(super) pace: Pace,
}

/// A timer on the clock that counts through a suspend.
pub(super) fn timer() -> nix::Result<TimerFd> {
    TimerFd::new(ClockId::CLOCK_BOOTTIME, TimerFlags::TFD_CLOEXEC | TimerFlags::TFD_NONBLOCK)
}

impl<S: BlockStore> Driver<S> {
    /// Runs until the guard is over or told to crash.
    pub(super) fn run(mut self) {
        self.shared.mode.store(self.guard.mode() as u64, SeqCst);
        if let Some(trace) = &self.shared.trace {
            trace.by_this_thread();
        }
        loop {
            while let Some(output) = self.guard.poll() {
                match self.given_up(&output) {
                    COMMAND_CRASH => return self.end(),
                    COMMAND_WITHDRAW => self.step(Input::Withdraw),
                    _ => self.carry_out(output),
                }
            }
            self.pace.settle(self.cell_end.is_some(), &self.shared.history);
            if self.guard.is_over() {
                return self.end();
            }
            let deadline = self.guard.deadline();
            self.shared.pulse.sleeping_until(deadline);
            self.sleep(deadline);
            let commands = self.shared.commands.swap(0, SeqCst);
            if commands & COMMAND_CRASH != 0 {
                return self.end();
            }
            if commands == 0 {
                let late = clock::mono().since(deadline);
                self.shared.worst_lateness_ns.fetch_max(nanos(late), SeqCst);
                self.pace.woke(late);
                self.step(Input::Tick);
            }
            for (command, input) in INPUTS {
                if commands & command != 0 {
                    self.step(input);
                }
            }
        }
    }

    /// Told to crash, or to withdraw, while the I/O before hung: not one more write. A holder does not withdraw.
    fn given_up(&self, output: &Output) -> u64 {
        let commands = match output {
            Output::Write(_) | Output::WriteEntry(_) => self.shared.commands.load(SeqCst),
            _ => 0,
        };
        if commands & COMMAND_CRASH != 0 {
            COMMAND_CRASH
        } else if self.guard.mode() == Mode::Claiming {
            commands & COMMAND_WITHDRAW
        } else {
            0
        }
    }

    /// With this are dropped: the descriptor, the sender (so the owner sees the end) and the way to the keeper.
    fn end(mut self) {
        self.close();
        self.shared.pulse.sleeping_until(Mono::FAR);
        if self.cell_end.is_some() {
            self.lose();
        }
    }

    fn carry_out(&mut self, output: Output) {
        match output {
            Output::Read => {
                self.pace.settle(self.cell_end.is_some(), &self.shared.history);
                // Copied out so that the store can be borrowed again; 1 KiB on the stack.
                let (read, timed) = self.shared.pulse.timed(|| self.store.read().copied());
                self.pace.looked(timed);
                match read {
                    Ok(image) => self.step(Input::Read(Ok(&image))),
                    Err(error) => self.failed(&error, |failure| Input::Read(Err(failure))),
                }
            }
            Output::Superblock => match self.read_superblock() {
                Ok(bytes) => self.step(Input::Superblock(Ok(&bytes))),
                Err(error) => self.failed(&error, |failure| Input::Superblock(Err(failure))),
            },
            Output::Write(write) => self.write(&write),
            Output::Entry => match self.shared.pulse.timed(|| self.store.read_entry()).0 {
                Ok(image) => self.step(Input::Entry(Ok(&image))),
                Err(error) => self.failed(&error, |failure| Input::Entry(Err(failure))),
            },
            Output::WriteEntry(write) => self.write_entry(&write),
            Output::Activity => {
                let (activity, _) = self.shared.pulse.timed(|| (self.ask_kernel)());
                self.step(Input::Activity(activity));
            }
            Output::Event(event) => self.tell(event),
        }
    }

    fn read_superblock(&mut self) -> Result<[u8; SUPERBLOCK_BYTES], Error> {
        let Driver { store, check_content, shared, .. } = self;
        shared.pulse.timed(|| check_content().and_then(|()| store.read_superblock())).0
    }

    fn open_for_writing(&mut self) -> Result<(), Error> {
        self.shared.pulse.timed(|| self.store.open_for_writing()).0
    }

    fn write(&mut self, write: &Write) {
        if let Err(error) = self.open_for_writing() {
            return self.failed(&error, |failure| Input::Written(Err(failure)));
        }
        let durability = if write.durable { Durability::Durable } else { Durability::Beat };
        if clock::mono() > write.not_after {
            return self.step(Input::NotWritten);
        }
        if let Some(trace) = &self.shared.trace {
            trace.submit(MmpBlock::fields(&write.image).seq);
        }
        let (written, timed) = self.shared.pulse.timed(|| self.store.write(&write.image, durability));
        self.pace.wrote(timed);
        match written {
            Ok(()) => self.step(Input::Written(Ok(()))),
            Err(error) => self.failed(&error, |failure| Input::Written(Err(failure))),
        }
    }

    fn write_entry(&mut self, write: &Write) {
        if let Err(error) = self.open_for_writing() {
            return self.failed(&error, |failure| Input::EntryWritten(Err(failure)));
        }
        if clock::mono() > write.not_after {
            return self.step(Input::NotWritten);
        }
        match self.shared.pulse.timed(|| self.store.write_entry(&write.image)).0 {
            Ok(()) => self.step(Input::EntryWritten(Ok(()))),
            Err(error) => self.failed(&error, |failure| Input::EntryWritten(Err(failure))),
        }
    }

    fn failed(&mut self, error: &Error, input: impl FnOnce(Failure<'_>) -> Input<'_>) {
        let what = error.without_path();
        self.step(input(Failure { what: &what, kind: error.failure_kind() }));
    }

    /// Hands an input to the guard and moves the cell to where the lease ends now.
    fn step(&mut self, input: Input<'_>) {
        let acknowledged = matches!(input, Input::Written(Ok(())));
        self.guard.handle(clock::now(), input);
        let mode = self.guard.mode();
        self.shared.mode.store(mode as u64, SeqCst);
        if let Some(trace) = &self.shared.trace {
            trace.note(self.guard.is_beating(), self.guard.kernel_counted(), self.guard.generation());
        }
        if let Some(generation) = self.guard.generation() {
            self.shared.generation.store(generation, SeqCst);
        }
        if self.move_cell().is_err() {
            self.guard.handle(clock::now(), Input::CellLost);
        } else if acknowledged && self.guard.lease_end().is_some() {
            self.beaten();
        }
    }

    fn beaten(&self) {
        self.shared.last_beat.store(clock::mono().0, SeqCst);
        self.shared.beats.fetch_add(1, SeqCst);
    }

    fn move_cell(&mut self) -> Result<(), super::cell::CellLost> {
        match (self.cell_end, self.guard.lease_end()) {
            (None, Some(end)) => {
                self.shared.cell.arm(end)?;
                self.beaten();
            }
            (Some(from), Some(to)) if from != to => {
                self.shared.cell.extend(from, to)?;
                if to > from && self.guard.mode() == Mode::Watching {
                    self.beaten(); // by the kernel
                }
                if to < from {
                    self.wake_keeper();
                }
            }
            // Handed over to a kernel that has yet to mount.
            (Some(from), None) if !self.guard.is_over() => self.shared.cell.disarm(from)?,
            // The end of the guard: what became of it is in its last event.
            _ => return Ok(()),
        }
        self.cell_end = self.guard.lease_end();
        Ok(())
    }

    fn tell(&mut self, event: Event) {
        let event = match event {
            Event::Released | Event::Unmounted | Event::NotMounted { .. }
                if self.shared.cell.release().is_ok() =>
            {
                self.cell_end = None;
                event
            }
            // The keeper was faster than the clean mark.
            Event::Released | Event::Unmounted | Event::NotMounted { .. } => {
                self.lose();
                Event::Lost { loss: Loss::LeaseExpired, at: clock::mono() }
            }
            Event::Lost { .. } => {
                self.lose();
                event
            }
            Event::LostRace { .. }
            | Event::TooSlow { .. }
            | Event::HandedOver { .. }
            | Event::BridgeEnded => {
                // A watcher keeps no descriptor. Under a mount it would also suppress the flush at the last close.
                self.close();
                event
            }
            _ => event,
        };
        match self.events.try_send(event) {
            // Nobody listens any more: the owner is gone and the command to crash is on its way.
            Ok(()) | Err(TrySendError::Disconnected(_)) => {}
            Err(TrySendError::Full(event)) if is_last(&event) => {
                // The last word may wait: nothing is beaten any more.
                let _ = self.events.send(event);
            }
            Err(TrySendError::Full(_)) => {
                self.shared.events_lost.fetch_add(1, SeqCst);
            }
        }
    }

    /// The last close of a device may wait for its I/O.
    fn close(&mut self) {
        let _ = self.shared.pulse.timed(|| self.store.close());
    }

    fn lose(&mut self) {
        self.shared.cell.lose();
        self.cell_end = None;
        self.wake_keeper();
    }

    fn wake_keeper(&mut self) {
        if let Some(wake) = &self.wake_keeper {
            wake();
        }
    }

    /// Sleeps until `until` or a command. Early returns are harmless: the guard looks at the clock itself.
    fn sleep(&mut self, until: Mono) {
        let set = if until == Mono::FAR {
            self.timer.unset()
        } else {
            // An absolute time of zero would disarm the timer.
            let at = TimeSpec::from_duration(std::time::Duration::from_nanos(until.0.max(1)));
            self.timer.set(Expiration::OneShot(at), TimerSetTimeFlags::TFD_TIMER_ABSTIME)
        };
        debug_assert!(set.is_ok(), "a valid absolute time on a timer of ours: {set:?}");
        let mut fds = [
            PollFd::new(self.timer.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.shared.wake.as_fd(), PollFlags::POLLIN),
        ];
        // EINTR and the like only wake us early.
        let _ = poll(&mut fds, PollTimeout::NONE);
        if fds[1].any().unwrap_or(false) {
            let _ = self.shared.wake.read();
        }
    }
}

fn is_last(event: &Event) -> bool {
    matches!(
        event,
        Event::Lost { .. }
            | Event::Refused { .. }
            | Event::Watched { .. }
            | Event::Released
            | Event::Unmounted
            | Event::NotMounted { .. }
    )
}

fn nanos(span: std::time::Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}
