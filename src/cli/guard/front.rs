//! The front of a guarded mount: what is told to the one who asked for it, his change of mind, the exit code. It ends when the mount is
//! guarded. A process that talks to a terminal, or a thread of the daemon that talks to one.
//!
//! Protects: it touches no device, so the exit code comes while one hangs. Does not decide anything: it tells what driver
//! and keeper found. Its end before the mount is guarded ends the mount.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use super::messages::{FromDriver, ToDriver};
use super::{RUNBOOK, exit, output, render};
use crate::cli::interrupt::NO_ANSWER;
use crate::cli::progress::{Progress, Told};
use crate::clock::{self, Mono};
use crate::keeper::message::Socket;
use crate::keeper::mounts::{self, Link, Memory, Task, ToFront};
use crate::registry::Lost;
use crate::sys::signals::heeded;

/// How often the countdown is redrawn.
const TICK: u16 = 100;
/// How long a withdrawal may take, beside the wait for which a claim of the kernel's is watched before it is taken back.
const WITHDRAW_PATIENCE: Duration = Duration::from_secs(15);
/// How long the processes of a guard that came to nothing may take to end.
const END_PATIENCE: Duration = Duration::from_secs(5);

/// The one who asked.
pub(in crate::cli) trait Asker {
    /// Readable when he may have changed his mind.
    fn descriptor(&self) -> Option<BorrowedFd<'_>>;
    /// True each time that he wants out.
    fn wants_out(&mut self) -> bool;
    /// What goes on.
    fn show(&mut self, told: &Told);
    /// What goes on, in a line.
    fn line(&mut self, line: &str);
    /// What matters, also to one who wants to hear nothing but errors.
    fn complain(&mut self, text: &str);
    /// Time passes.
    fn tick(&mut self) {}
    /// What is shown is over.
    fn clear(&mut self) {}
}

/// The user, at a terminal or behind a pipe; his signals are his change of mind.
pub(in crate::cli) struct Terminal {
    signals: SignalFd,
    progress: Progress,
}

impl Terminal {
    /// Takes his signals from here on.
    pub(in crate::cli) fn new(quiet: bool) -> io::Result<Self> {
        let mut set = heeded(&[Signal::SIGINT, Signal::SIGHUP, Signal::SIGQUIT]);
        set.extend(&SigSet::from_iter([Signal::SIGTERM]));
        set.thread_block()?;
        let signals = SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
        Ok(Terminal { signals, progress: Progress::new(quiet) })
    }
}

impl Asker for Terminal {
    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        Some(self.signals.as_fd())
    }

    fn wants_out(&mut self) -> bool {
        matches!(self.signals.read_signal(), Ok(Some(_)))
    }

    fn show(&mut self, told: &Told) {
        self.progress.show(told);
    }

    fn line(&mut self, line: &str) {
        self.progress.line(line);
    }

    fn complain(&mut self, text: &str) {
        self.progress.clear();
        output::complain(text);
    }

    fn tick(&mut self) {
        self.progress.tick();
    }

    fn clear(&mut self) {
        self.progress.clear();
    }
}

pub(super) struct Front<'a> {
    task: &'a Task,
    asker: &'a mut dyn Asker,
    keeper: Option<Link>,
    driver: Option<Link>,
    withdrawn: Option<Mono>,
}

/// Starts the keeper, and follows it and its driver; gives the exit code.
pub(super) fn run(task: &Task, memory: &Memory, lock: OwnedFd, asker: &mut dyn Asker) -> io::Result<u8> {
    let (ours, theirs) = Socket::pair()?;
    let theirs = OwnedFd::from(theirs);
    let keeper = mounts::start(task, memory, &lock, &theirs)?;
    // The guard's processes have them now; copies here would hide their end.
    drop((theirs, lock));
    Ok(Front::new(task, keeper, Link::of(ours), asker).follow())
}

impl<'a> Front<'a> {
    /// Of a guard whose keeper tells through `keeper`, and whose driver through `driver`.
    pub(super) fn new(task: &'a Task, keeper: Link, driver: Link, asker: &'a mut dyn Asker) -> Self {
        Front { task, asker, keeper: Some(keeper), driver: Some(driver), withdrawn: None }
    }

    /// Until it is guarded, or has ended; gives the exit code.
    pub(super) fn follow(mut self) -> u8 {
        let code = loop {
            self.sleep();
            if let Some(code) =
                self.hear_asker().or_else(|| self.hear_driver()).or_else(|| self.hear_keeper())
            {
                break code;
            }
            if self.withdrawn.is_some_and(|until| clock::mono() >= until) {
                self.asker.complain(NO_ANSWER);
                break exit::INTERRUPTED;
            }
            self.asker.tick();
        };
        self.asker.clear();
        if code != exit::DONE {
            self.wait_for_the_end();
        }
        code
    }

    fn sleep(&self) {
        let links = self.keeper.iter().chain(&self.driver).map(|link| link.as_fd());
        let mut fds: Vec<_> =
            links.chain(self.asker.descriptor()).map(|fd| PollFd::new(fd, PollFlags::POLLIN)).collect();
        // EINTR only wakes us early.
        let _ = poll(&mut fds, PollTimeout::from(TICK));
    }

    fn hear_asker(&mut self) -> Option<u8> {
        while self.asker.wants_out() {
            if self.withdrawn.is_some() {
                self.asker.complain("interrupted twice; leaving at once, a claim may stand in the block");
                return Some(exit::INTERRUPTED);
            }
            self.asker.line(
                "interrupted; nothing is left mounted, and the claim is taken back, which may take a wait",
            );
            self.withdrawn = Some(clock::mono() + WITHDRAW_PATIENCE + self.task.take_back);
            if let Some(driver) = &self.driver {
                let _ = driver.send(&ToDriver::Withdraw);
            }
        }
        None
    }

    fn hear_driver(&mut self) -> Option<u8> {
        while let Some(driver) = &self.driver {
            match driver.receive::<FromDriver>() {
                Ok(None) => return None,
                Ok(Some(FromDriver::Told(told))) => self.asker.show(&told),
                Ok(Some(FromDriver::Guarding { text })) => {
                    self.asker.line(&text);
                    return Some(exit::DONE);
                }
                Ok(Some(FromDriver::Failed { text, code })) => {
                    self.asker.complain(&text);
                    return Some(code);
                }
                Err(_) => self.driver = None,
            }
        }
        None
    }

    fn hear_keeper(&mut self) -> Option<u8> {
        while let Some(keeper) = &self.keeper {
            match keeper.receive::<ToFront>() {
                Ok(None) => return None,
                Ok(Some(message)) => {
                    let code = self.keeper_says(message);
                    if code.is_some() {
                        return code;
                    }
                }
                Err(_) => self.keeper = None,
            }
        }
        if self.driver.is_none() && self.keeper.is_none() {
            self.asker.complain("the guarding processes ended without a word; see `mmp status`");
            return Some(exit::IO);
        }
        None
    }

    fn keeper_says(&mut self, message: ToFront) -> Option<u8> {
        let device = render::shown(&self.task.asked);
        match message {
            ToFront::Ready { only_reboot, incomplete } => {
                if only_reboot {
                    self.asker.line(
                        "note: nothing cuts this device off but a reboot: if its protection is lost, this host reboots \
                         at once, without a sync",
                    );
                }
                if incomplete {
                    self.asker.line(
                        "warning: --incomplete-fence: after a loss this host may still write to the device while \
                         another one uses it",
                    );
                }
                None
            }
            ToFront::NoFence { why } => {
                self.asker.complain(&format!(
                    "{device}: not mounted: nothing of the ladder \"{}\" cuts it off for certain:\n  {}\n  give \
                     another one with --on-loss, such as exec:/COMMAND or one that ends in reboot, or accept that with \
                     --incomplete-fence",
                    self.task.on_loss,
                    why.join("\n  ")
                ));
                Some(exit::NOT_FENCED)
            }
            ToFront::DriverReplaced => {
                self.asker.line("the guarding process died and was replaced");
                // The one that talked to us is dead; of its successor the keeper tells the rest.
                self.driver = None;
                None
            }
            // The driver says so itself, in more words, unless it is the successor of the one that talked to us.
            ToFront::Guarding => self.driver.is_none().then_some(exit::DONE),
            ToFront::DriverGone => {
                self.asker.complain(&format!("{device}: the guarding process died; nothing is mounted"));
                Some(exit::IO)
            }
            ToFront::Fenced { reason, report } => {
                let done = report.as_ref().is_none_or(|report| report.done);
                let lost = Lost { reason, at_s: clock::wall().0, fence: report };
                self.asker.complain(&format!(
                    "{device}: protection lost: {}; {}\n  {RUNBOOK}",
                    lost.reason,
                    super::fenced(&lost)
                ));
                Some(if done { exit::LOST } else { exit::NOT_FENCED })
            }
        }
    }

    /// Nothing of a guard that came to nothing is left when this process ends.
    fn wait_for_the_end(&mut self) {
        let until = clock::mono() + END_PATIENCE;
        if let Some(driver) = &self.driver {
            let _ = driver.send(&ToDriver::Withdraw);
        }
        while clock::mono() < until {
            let keeper = self.keeper.as_mut().is_some_and(|keeper| {
                keeper.reap();
                keeper.receive::<ToFront>().is_ok()
            });
            // One whose keeper was replaced is not known to us by that.
            let driver = self.driver.as_ref().is_some_and(|driver| driver.receive::<FromDriver>().is_ok());
            if !keeper && !driver {
                return;
            }
            clock::sleep(Duration::from_millis(10));
        }
    }
}
