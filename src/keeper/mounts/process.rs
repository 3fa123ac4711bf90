//! The body of a mount's keeper: one loop around poll(2).

mod children;
mod ending;
mod succession;

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, pthread_sigmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::time::{TimeSpec, TimeValLike as _};
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use nix::unistd::Pid;

use self::children::Mounter;
use super::super::message::Socket;
use super::super::{
    DriverPipe, EXIT_FENCED, EXIT_FINISHED, EXIT_NOT_FENCED, EXIT_SETUP, LOOK_INTERVAL, drain,
};
use super::handing::{Asking, Door};
use super::task::Purpose;
use super::{FromKeeper, LETTER_BYTES, Letter, Link, Memory, Task, ToFront, ToKeeper, why_no_fence};
use crate::clock::{self, Mono};
use crate::driver::cell::CellState;
use crate::driver::leases::Leases;
use crate::protocol::Adoption;
use crate::registry::Record;
use crate::sys::fence::{FenceTarget, Prepared, prepare};
use crate::sys::process::ProcessRef;
use crate::sys::realtime::{Lock, Protection, protect};
use crate::sys::spawn::{alone_with, take_stdin};
use crate::sys::{KernelView, Target, passing};

/// So many drivers may die within a minute.
const REPLACED_AT_MOST: usize = 3;
/// For how long a death is remembered.
const REMEMBERED: Duration = Duration::from_secs(60);
/// With less of a lease left a successor would come too late. Of a short lease it is a fourth.
const SUCCESSION: Duration = Duration::from_millis(500);
/// How often it looks after its driver within a wait, at least.
const LOOKS_A_WAIT: u32 = 8;
/// How long a driver's last word about a loss is waited for.
const LAST_WORD: Duration = Duration::from_millis(300);
/// How long a driver whose front is gone may take to end its claim, beside the wait for which it may have to watch it.
const WITHDRAWAL: Duration = Duration::from_secs(10);

/// What a driver starts with.
#[derive(Debug)]
pub struct Driver {
    /// What for.
    pub task: Task,
    /// The lease cell and the trace, shared with the keeper.
    pub memory: Memory,
    /// The device's lock, shared with the keeper.
    pub lock: OwnedFd,
    /// To the keeper.
    pub keeper: Link,
    /// Its sign of life to the keeper.
    pub pipe: DriverPipe,
    /// To the one who asked, as long as he waits.
    pub front: Option<Link>,
    /// The first driver of this guard, or what its predecessor left.
    pub adoption: Option<Adoption>,
    /// It is a thread of a daemon, and not a process of its own.
    pub resident: bool,
}

/// Runs a keeper, from its standard input on; gives its exit code. `driver` is the body of the driver's process.
pub fn run(driver: &dyn Fn(Driver) -> i32) -> i32 {
    match Keeper::set_up(driver) {
        Ok(Some(keeper)) => keeper.run(),
        Ok(None) => EXIT_FINISHED,
        Err(_) => EXIT_SETUP,
    }
}

struct Keeper<'a> {
    body: &'a dyn Fn(Driver) -> i32,
    task: Task,
    memory: Memory,
    cell: Leases,
    lock: OwnedFd,
    driver: Option<DriverLink>,
    /// Where daemons ask for a guard that belongs into one.
    door: Option<Door>,
    /// The daemon that asked last.
    asking: Option<Asking>,
    /// The daemon died, and the next one is waited for until then.
    awaited: Option<Mono>,
    front: Option<Link>,
    /// The driver's end to the front, until the first driver has it.
    front_for_driver: Option<OwnedFd>,
    signals: SignalFd,
    timer: TimerFd,
    protection: Protection,
    /// One a device: all of them are cut off.
    fences: Vec<Prepared>,
    /// Of what is mounted, and of every device that is used with it: a filesystem may leave one of them.
    views: Vec<KernelView>,
    mounter: Option<Mounter>,
    /// Something may be mounted.
    mount_begun: bool,
    /// The one who asked was told that it is guarded.
    committed: bool,
    /// What died last was a process of ours.
    process_died: bool,
    /// When drivers died that were processes of ours.
    deaths: VecDeque<Mono>,
    /// When daemons died.
    daemon_deaths: VecDeque<Mono>,
    /// The last end of the lease that was seen.
    last_end: Mono,
    lost_reason: Option<String>,
    /// The front is gone, and the driver has until then to end.
    withdrawn: Option<Mono>,
}

struct DriverLink {
    process: ProcessRef,
    link: Link,
    pipe: OwnedFd,
    /// A thread of the daemon, whose process this is.
    resident: bool,
    /// It said that none of its threads is at the device any more.
    stopped: bool,
}

/// Why it fences.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Why {
    LeaseExpired,
    CellLost,
    DriverGone,
}

impl<'a> Keeper<'a> {
    fn set_up(body: &'a dyn Fn(Driver) -> i32) -> io::Result<Option<Self>> {
        pthread_sigmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::all()), None)?;
        // Writing a core waits for every thread, and so for one of the driver's that hangs.
        let _ = nix::sys::prctl::set_dumpable(false);
        let _ = nix::unistd::setsid();
        let _ = nix::sys::prctl::set_name(super::NAMES.0);
        let starter = Socket::of(take_stdin()?)?;
        alone_with(&[starter.as_fd().as_raw_fd()])?;
        // What mount(8) says is caught there, and what a panic says.
        let said = children::catch_output()?;
        let (bytes, descriptors) = passing::receive(starter.as_fd(), LETTER_BYTES)?;
        let letter: Letter = serde_json::from_slice(&bytes)?;
        let mut descriptors = descriptors.into_iter();
        let mut next = || descriptors.next().ok_or(io::Error::from(io::ErrorKind::InvalidData));
        let (memory, lock, third) = (next()?, next()?, next()?);
        let to_front = descriptors.next();
        let task = letter.task;
        let memory = Memory::of_descriptor(memory, task.members())?;
        let _ = std::env::set_current_dir("/"); // no filesystem is kept busy
        let mut signals = SigSet::empty();
        signals.add(Signal::SIGCHLD);
        let fences = fence_targets(&task).iter().map(|target| prepare(&task.on_loss, target)).collect();
        // One that died meanwhile is replaced, like any that dies.
        let driver = letter.driver.map(|pid| ProcessRef::open(Pid::from_raw(pid)));
        let mut keeper = Keeper {
            body,
            cell: memory.leases(),
            memory,
            lock,
            driver: None,
            door: None,
            asking: None,
            awaited: None,
            front: to_front.map(Socket::of).transpose()?.map(Link::of),
            front_for_driver: None,
            signals: SignalFd::with_flags(&signals, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?,
            timer: TimerFd::new(ClockId::CLOCK_BOOTTIME, TimerFlags::TFD_CLOEXEC | TimerFlags::TFD_NONBLOCK)?,
            protection: protect(Lock::Everything).started_by(letter.starter),
            fences,
            views: views(&task),
            mounter: None,
            mount_begun: matches!(task.purpose, Purpose::Adopt { .. }) || letter.begun,
            committed: letter.begun,
            process_died: false,
            deaths: VecDeque::with_capacity(REPLACED_AT_MOST + 1),
            daemon_deaths: VecDeque::with_capacity(REPLACED_AT_MOST + 1),
            last_end: Mono(0),
            lost_reason: None,
            withdrawn: None,
            task,
        };
        children::remember(said);
        match driver {
            Some(process) => {
                if let Ok(process) = process {
                    let (resident, link) = (letter.resident, Link::of(starter));
                    keeper.driver = Some(DriverLink { process, link, pipe: third, resident, stopped: false });
                }
                if !letter.begun && (keeper.driver.is_none() || !keeper.may_begin()) {
                    return Ok(None);
                }
                keeper.open_door();
                keeper.tell_driver(&FromKeeper::Ready);
            }
            None => {
                (keeper.front, keeper.front_for_driver) = (Some(Link::of(starter)), Some(third));
                if !keeper.may_begin() {
                    return Ok(None);
                }
                keeper.start_driver(None)?;
            }
        }
        Ok(Some(keeper))
    }

    /// A real fence, or the word that none is needed.
    fn may_begin(&self) -> bool {
        let summaries: Vec<_> = self.fences.iter().map(Prepared::summary).collect();
        let incomplete = summaries.iter().find(|summary| !summary.complete && !self.task.is_read_only());
        if let Some(summary) = incomplete
            && !self.task.incomplete_fence
        {
            self.tell_front(&ToFront::NoFence { why: why_no_fence(summary) });
            return false;
        }
        let only_reboot = summaries.iter().any(|summary| summary.only_reboot);
        self.tell_front(&ToFront::Ready { only_reboot, incomplete: incomplete.is_some() });
        true
    }

    fn run(mut self) -> i32 {
        loop {
            // The lease comes before everything else, each time.
            let state = self.cell.state();
            if let CellState::Until(end) = state {
                self.last_end = end;
            }
            if self.cell.expire(clock::mono()) {
                let lost = state == CellState::Lost;
                return self.end_with_fence(if lost { Why::CellLost } else { Why::LeaseExpired });
            }
            if self.sleep().is_err() {
                return self.end_with_fence(Why::LeaseExpired); // cannot keep watch any more
            }
            self.hear_front();
            self.hear_daemons();
            if let Some(code) = self.hear_driver() {
                return code;
            }
            self.look_after_children();
            if let Some(code) = self.look_after_driver() {
                return code;
            }
        }
    }

    /// Sleeps until something happens, at most until the end of the lease.
    fn sleep(&mut self) -> io::Result<()> {
        let now = clock::mono();
        let soon = now + LOOK_INTERVAL.min(self.task.wait_after_lease / LOOKS_A_WAIT);
        if self.cell.state() == CellState::Lost {
            return Ok(());
        }
        let wake = self.cell.earliest().map_or(soon, |end| end.min(soon));
        let awaited = self.awaited.filter(|&until| until > now);
        let wake = awaited.map_or(wake, |until| until.min(wake));
        let ns = i64::try_from(wake.0).unwrap_or(i64::MAX);
        let at = Expiration::OneShot(TimeSpec::nanoseconds(ns));
        self.timer.set(at, TimerSetTimeFlags::TFD_TIMER_ABSTIME)?;
        let mut fds = vec![
            PollFd::new(self.timer.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.signals.as_fd(), PollFlags::POLLIN),
        ];
        if let Some(driver) = &self.driver {
            fds.push(PollFd::new(driver.link.as_fd(), PollFlags::POLLIN));
            fds.push(PollFd::new(driver.pipe.as_fd(), PollFlags::POLLIN));
        }
        fds.extend(self.door.iter().map(|door| PollFd::new(door.as_fd(), PollFlags::POLLIN)));
        fds.extend(self.front.iter().map(|front| PollFd::new(front.as_fd(), PollFlags::POLLIN)));
        match poll(&mut fds, PollTimeout::NONE) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// The front says nothing; its end matters until the mount is guarded.
    fn hear_front(&mut self) {
        let gone = self.front.as_ref().is_some_and(|front| is_end(&front.receive::<()>()));
        if gone {
            self.front = None;
            if !self.committed {
                // The driver has seen it, too, and withdraws; if it hangs, that is over before long.
                self.withdrawn = Some(clock::mono() + WITHDRAWAL + self.task.take_back);
            }
        }
    }

    fn hear_driver(&mut self) -> Option<i32> {
        while let Some(driver) = &self.driver {
            match driver.link.receive::<ToKeeper>() {
                Ok(None) | Err(_) => return None, // its pipe tells its end
                Ok(Some(ToKeeper::Mount { arguments })) => self.mount(&arguments),
                Ok(Some(ToKeeper::StopMount)) => self.stop_mount(),
                Ok(Some(ToKeeper::Committed)) => self.driver_committed(),
                Ok(Some(ToKeeper::Lost { reason })) => self.lost_reason = Some(reason),
                Ok(Some(ToKeeper::Stopped)) => self.driver_stopped(),
                Ok(Some(ToKeeper::Finish)) => {
                    self.stop_mount();
                    if !self.committed && !self.deaths.is_empty() {
                        self.tell_front(&ToFront::DriverGone); // a successor has no other way to say so
                    }
                    self.unlock();
                    return Some(EXIT_FINISHED);
                }
            }
        }
        None
    }

    /// The guard is over, for every process that shares the lock. Not left to the end of the last of them: a daemon that died, and has a thread
    /// hang in another device, keeps all its descriptors until that lets go.
    fn unlock(&self) {
        if let Ok(lock) = self.lock.try_clone() {
            let _ = std::fs::File::from(lock).unlock();
        }
    }

    fn driver_committed(&mut self) {
        (self.committed, self.withdrawn) = (true, None);
        // The first driver says so itself, too. A successor may have been left with nothing but to release.
        let mounted = self.deaths.is_empty() || self.front.is_none() || self.is_mounted();
        self.tell_front(if mounted { &ToFront::Guarding } else { &ToFront::DriverGone });
    }

    fn ended_without_driver(&self, earlier: Option<&Record>) -> Option<i32> {
        self.tell_front(&ToFront::DriverGone);
        self.task.slot().put_back(earlier);
        Some(EXIT_FINISHED)
    }

    fn tell_driver(&self, message: &FromKeeper) {
        if let Some(driver) = &self.driver {
            let _ = driver.link.send(message);
        }
    }

    fn tell_front(&self, message: &ToFront) {
        if let Some(front) = &self.front {
            let _ = front.send(message);
        }
    }
}

/// The other side is gone. What cannot be read otherwise (a message that is not understood, no memory) does not say so.
pub(super) fn is_end<T>(received: &io::Result<T>) -> bool {
    matches!(received, Err(error) if error.kind() == io::ErrorKind::UnexpectedEof)
}

/// What the kernel does with each device.
fn views(task: &Task) -> Vec<KernelView> {
    let main = KernelView::new(task.target(), &task.kernel_name).without_kmmpd(task.area);
    let other = |target: Target| {
        let name = target.canonical.file_name().map(|name| name.to_string_lossy().into_owned());
        KernelView::new(target, &name.unwrap_or_default()).without_kmmpd(true)
    };
    std::iter::once(main).chain(task.other_targets().map(other)).collect()
}

/// What is mounted, and every device that is used with it.
fn fence_targets(task: &Task) -> Vec<FenceTarget> {
    let of = |target| FenceTarget {
        target,
        filesystem: task.filesystem.clone(),
        spare: vec![i32::try_from(std::process::id()).unwrap_or(0)],
    };
    std::iter::once(task.target()).chain(task.other_targets()).map(of).collect()
}
