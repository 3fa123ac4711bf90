//! The body of the keeper process: one loop around poll(2).

use std::collections::VecDeque;
use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::time::{TimeSpec, TimeValLike};
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use nix::unistd::Pid;

use super::fence::{Fence, KillTree, Ladder};
use super::message::{FromKeeper, Socket, StartRefusal, ToKeeper, Why, encode};
use super::{EXIT_FENCED, EXIT_FINISHED, EXIT_NOT_FENCED, EXIT_SETUP, KeeperSpec, LOOK_INTERVAL, drain};
use crate::clock::{self, Mono};
use crate::driver::cell::CellState;
use crate::driver::leases::Leases;
use crate::sys::cgroup::Cgroup;
use crate::sys::process::{self, Change, ProcessRef, Wait};
use crate::sys::realtime::{Lock, Protection, protect};
use crate::sys::spawn::{
    CommandEnd, CommandSpec, SpawnFailure, Spawning, give_up_passed_descriptors, spawn_command,
};

/// For how long the last messages to a slow front are waited for.
const PATIENCE: Duration = Duration::from_secs(2);
/// A front that sleeps while its command is stopped and continued gets no more than this many reports of it.
const UNSENT_AT_MOST: usize = 64;

/// Runs the keeper until its end; gives its exit code.
pub(super) fn run(spec: KeeperSpec, driver: ProcessRef, front: Socket) -> i32 {
    let last_resort = LastResort(driver);
    match Keeper::set_up(spec, &last_resort.0, front) {
        Ok(keeper) => keeper.run(),
        Err(_) => EXIT_SETUP,
    }
}

/// If this process panics, nothing may survive it that it was to fence.
struct LastResort(ProcessRef);

impl Drop for LastResort {
    fn drop(&mut self) {
        if std::thread::panicking() {
            KillTree::new(None).run();
            let _ = self.0.signal(libc::SIGKILL);
        }
    }
}

struct Keeper<'a> {
    cell: Leases,
    command: Vec<OsString>,
    driver: &'a ProcessRef,
    /// `None` once the driver is gone.
    driver_pipe: Option<OwnedFd>,
    front: Socket,
    unsent: VecDeque<Vec<u8>>,
    signals: SignalFd,
    timer: TimerFd,
    protection: Protection,
    cgroup: Option<Rc<Cgroup>>,
    ladder: Ladder,
    phase: Phase,
    /// The command is over and nothing of its tree is left. Never taken back: one command a keeper.
    tree_empty_told: bool,
}

/// How far the command is.
#[derive(Debug)]
enum Phase {
    Idle,
    /// Forked, not known to execute yet.
    Spawning(Spawning),
    /// Not reaped: its process group exists.
    Running(Pid),
    /// It ended or never started; some of its tree may be left.
    Over,
}

/// Why the loop ends.
enum End {
    Fence(Why),
    Finished,
}

impl<'a> Keeper<'a> {
    fn set_up(spec: KeeperSpec, driver: &'a ProcessRef, front: Socket) -> io::Result<Self> {
        process::become_subreaper()?;
        // The fence walks /proc: without it there is no keeper. It also brings all its code into memory.
        process::descendants(Pid::this(), &[])?;
        // Signals are blocked since the fork. All but this one stay so: whoever asks everything to terminate
        // (a shutdown) means the command, and the front passes that on.
        let mut child = SigSet::empty();
        child.add(Signal::SIGCHLD);
        let signals = SignalFd::with_flags(&child, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
        let timer =
            TimerFd::new(ClockId::CLOCK_BOOTTIME, TimerFlags::TFD_CLOEXEC | TimerFlags::TFD_NONBLOCK)?;
        let cgroup = Cgroup::create().map(Rc::new);
        let protection = protect(Lock::Everything);
        let mut keeper = Keeper {
            cell: spec.cell,
            command: spec.command,
            driver,
            driver_pipe: Some(spec.driver_pipe),
            front,
            unsent: VecDeque::with_capacity(UNSENT_AT_MOST),
            signals,
            timer,
            ladder: Ladder::new(vec![Box::new(KillTree::new(cgroup.clone()))]),
            protection,
            cgroup,
            phase: Phase::Idle,
            tree_empty_told: false,
        };
        let ready =
            FromKeeper::Ready { protection: keeper.protection.clone(), cgroup: keeper.cgroup.is_some() };
        keeper.tell(&ready);
        Ok(keeper)
    }

    fn run(mut self) -> i32 {
        loop {
            // The lease comes before everything else, each time.
            let was_lost = self.cell.state() == CellState::Lost;
            if self.cell.expire(clock::mono()) {
                return self.fence(if was_lost { Why::CellLost } else { Why::LeaseExpired });
            }
            self.send_unsent();
            let end = match self.sleep() {
                Ok(()) => self.driver_end().or_else(|| self.front_end()),
                // Neither timer nor poll can fail on descriptors of our own; if they do, we cannot keep watch.
                Err(_) => Some(End::Fence(Why::LeaseExpired)),
            };
            match end {
                Some(End::Finished) => return self.finish(EXIT_FINISHED),
                Some(End::Fence(why)) => return self.fence(why),
                None => {}
            }
            self.resolve_spawn();
            self.look_after_children();
        }
    }

    /// Sleeps until something happens, at most until the end of the lease.
    fn sleep(&mut self) -> io::Result<()> {
        let soon = clock::mono() + LOOK_INTERVAL;
        let wake = match self.cell.state() {
            CellState::Until(end) => end.min(soon),
            CellState::Unarmed => soon,
            CellState::Released => Mono::FAR,
            CellState::Lost => return Ok(()),
        };
        match i64::try_from(wake.0) {
            Ok(ns) => {
                let at = Expiration::OneShot(TimeSpec::nanoseconds(ns));
                self.timer.set(at, TimerSetTimeFlags::TFD_TIMER_ABSTIME)?;
            }
            Err(_) => self.timer.unset()?, // never
        }
        let mut wanted = PollFlags::POLLIN;
        wanted.set(PollFlags::POLLOUT, !self.unsent.is_empty());
        let mut fds = vec![
            PollFd::new(self.timer.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.signals.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.front.as_fd(), wanted),
        ];
        fds.extend(self.driver_pipe.iter().map(|pipe| PollFd::new(pipe.as_fd(), PollFlags::POLLIN)));
        if let Phase::Spawning(spawning) = &self.phase {
            fds.push(PollFd::new(spawning.as_fd(), PollFlags::POLLIN));
        }
        match poll(&mut fds, PollTimeout::NONE) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Listens to the driver. A wake needs no answer: the loop looks at the cell in any case.
    fn driver_end(&mut self) -> Option<End> {
        if self.driver_pipe.as_ref().is_some_and(|pipe| !drain(pipe)) {
            self.driver_pipe = None;
        }
        let held = matches!(self.cell.state(), CellState::Until(_));
        // Unarmed: it never held. Released: it did what it had to. Lost: the loop finds that by itself.
        (self.driver_pipe.is_none() && held).then_some(End::Fence(Why::DriverGone))
    }

    /// Does what the front says, and notices its death.
    fn front_end(&mut self) -> Option<End> {
        loop {
            match self.front.receive() {
                Ok(None) => return None,
                Ok(Some(ToKeeper::Start { env, foreground })) => self.start(&env, foreground),
                Ok(Some(ToKeeper::Signal { signal })) => self.forward(signal),
                Ok(Some(ToKeeper::Finish)) if process::reap_all(Wait::Ends, &mut |_, _| {}) => {
                    return Some(End::Finished);
                }
                // Finishing while something runs is what a front does that is going.
                Ok(Some(ToKeeper::Finish)) => return Some(End::Fence(Why::FrontGone)),
                // Its end, and what is no message.
                Err(_) => return Some(self.without_front()),
            }
        }
    }

    /// There is no front any more. What ended with it, or just before, is looked at first: with nothing left to kill the
    /// driver is not ours to end, whoever else may still use the device.
    fn without_front(&mut self) -> End {
        self.resolve_spawn();
        self.look_after_children();
        if self.tree_empty_told { End::Finished } else { End::Fence(Why::FrontGone) }
    }

    fn start(&mut self, env: &[(OsString, OsString)], foreground: bool) {
        let armed = matches!(self.cell.state(), CellState::Until(end) if end > clock::mono());
        let refusal = match &self.phase {
            Phase::Spawning(_) | Phase::Running(_) | Phase::Over => Some(StartRefusal::StartedBefore),
            Phase::Idle if self.driver_pipe.is_none() => Some(StartRefusal::DriverGone),
            Phase::Idle if !armed => Some(StartRefusal::NotHeld),
            Phase::Idle => None,
        };
        if let Some(why) = refusal {
            return self.tell(&FromKeeper::StartRefused { why });
        }
        let spec = CommandSpec {
            argv: &self.command,
            env,
            foreground,
            cgroup: self.cgroup.as_deref(),
            protection: &self.protection,
        };
        match spawn_command(&spec) {
            Ok(spawning) => self.phase = Phase::Spawning(spawning),
            Err(failure) => self.spawn_failed(failure),
        }
        // From here on the command alone holds what the user passed on. If that fails, a reader of ours waits a little longer.
        let _ = give_up_passed_descriptors();
    }

    fn resolve_spawn(&mut self) {
        let Phase::Spawning(spawning) = &self.phase else { return };
        match spawning.result() {
            None => {}
            Some(Ok(())) => {
                let pid = spawning.pid;
                self.phase = Phase::Running(pid);
                self.tell(&FromKeeper::Started { pid: pid.as_raw() });
            }
            Some(Err(failure)) => self.spawn_failed(failure),
        }
    }

    fn spawn_failed(&mut self, failure: SpawnFailure) {
        self.phase = Phase::Over;
        self.tell(&FromKeeper::SpawnFailed { failure });
    }

    fn forward(&self, signal: i32) {
        match &self.phase {
            Phase::Idle => {}
            Phase::Spawning(Spawning { pid, .. }) | Phase::Running(pid) => {
                let _ = process::signal_group(*pid, signal); // it may be ending just now
            }
            // Its group may be gone and the number taken: each process by itself.
            Phase::Over => {
                for stat in process::descendants(Pid::this(), &[]).iter().flatten() {
                    let _ = process::signal_found(stat, signal);
                }
            }
        }
    }

    fn look_after_children(&mut self) {
        while let Ok(Some(_)) = self.signals.read_signal() {}
        let mut changes = Vec::new();
        let none_left = process::reap_all(Wait::EndsAndStops, &mut |pid, change| changes.push((pid, change)));
        self.children_changed(changes);
        if none_left && matches!(self.phase, Phase::Over) && !self.tree_empty_told {
            self.tree_empty_told = true;
            self.tell(&FromKeeper::TreeEmpty);
        }
    }

    /// Only the command's own process matters; adopted orphans are reaped and that is all.
    fn children_changed(&mut self, changes: Vec<(Pid, Change)>) {
        for (pid, change) in changes {
            if matches!(&self.phase, Phase::Spawning(spawning) if spawning.pid == pid) {
                self.resolve_spawn(); // it ended: what it had to say about exec is in the pipe
            }
            if !matches!(self.phase, Phase::Running(command) if command == pid) {
                continue;
            }
            let end = match change {
                Change::Stopped(signal) => {
                    self.tell(&FromKeeper::Stopped { signal });
                    continue;
                }
                Change::Exited(status) => CommandEnd::Exited(status),
                Change::Killed(signal) => CommandEnd::Killed(signal),
            };
            self.phase = Phase::Over;
            self.tell(&FromKeeper::CommandEnded { end, remaining: process::left(&[]).len() });
        }
    }

    /// Sends a message, now or as soon as the front listens. A flood of stops is cut; ends and fences are few.
    fn tell(&mut self, message: &FromKeeper) {
        let stops = matches!(message, FromKeeper::Stopped { .. });
        if let Ok(packet) = encode(message)
            && !(stops && self.unsent.len() >= UNSENT_AT_MOST)
        {
            self.unsent.push_back(packet);
        }
        self.send_unsent();
    }

    fn send_unsent(&mut self) {
        while let Some(packet) = self.unsent.front() {
            match self.front.send(packet) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                // Sent, or nobody is there to read it: his end of file says the rest.
                _ => self.unsent.pop_front(),
            };
        }
    }

    fn fence(mut self, why: Why) -> i32 {
        if why != Why::FrontGone {
            self.cell.lose(); // a driver that comes back to itself must not extend it any more
        }
        let mut report = self.ladder.run();
        // The front's death is no loss: as long as something may still use the device, it stays held.
        while why == Why::FrontGone && !report.is_done() && self.still_held() {
            report = self.ladder.run();
        }
        let _ = self.driver.signal(libc::SIGKILL); // after the tree: until then it holds the device for it
        let code = if report.is_done() { EXIT_FENCED } else { EXIT_NOT_FENCED };
        if let Some(cgroup) = &self.cgroup {
            let _ = cgroup.remove(); // whoever hears of the fence may end this process at once
        }
        self.tell(&FromKeeper::Fenced { why, report });
        self.finish(code)
    }

    fn still_held(&self) -> bool {
        !self.cell.expire(clock::mono())
            && matches!(self.cell.state(), CellState::Until(_))
            && self.driver_pipe.as_ref().is_some_and(drain)
    }

    /// Sends what is unsent, for a while, and clears away.
    fn finish(mut self, code: i32) -> i32 {
        let until = clock::mono() + PATIENCE;
        self.send_unsent();
        while !self.unsent.is_empty() && clock::mono() < until {
            clock::sleep(Duration::from_millis(5));
            self.send_unsent();
        }
        if let Some(cgroup) = &self.cgroup {
            while cgroup.remove().is_err() && clock::mono() < until && code != EXIT_NOT_FENCED {
                clock::sleep(Duration::from_millis(5));
            }
        }
        code
    }
}
