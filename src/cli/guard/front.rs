//! The front process of a guarded mount: progress, signals, the exit code. It ends when the mount is guarded.
//!
//! Protects: it touches no device, so the exit code comes while one hangs. Does not decide anything: it tells what driver
//! and keeper found. Its own death before the mount is guarded ends the mount.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use super::messages::{FromDriver, ToDriver};
use super::{RUNBOOK, exit, output, render};
use crate::cli::progress::Progress;
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

struct Front<'a> {
    task: &'a Task,
    signals: SignalFd,
    keeper: Option<Link>,
    driver: Option<Link>,
    progress: Progress,
    withdrawn: Option<Mono>,
}

/// Starts the keeper, and follows it and its driver; gives the exit code.
pub(super) fn run(task: &Task, memory: &Memory, lock: OwnedFd, quiet: bool) -> io::Result<u8> {
    let mut set = heeded(&[Signal::SIGINT, Signal::SIGHUP, Signal::SIGQUIT]);
    set.extend(&SigSet::from_iter([Signal::SIGTERM]));
    set.thread_block()?;
    let signals = SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
    let (ours, theirs) = Socket::pair()?;
    let theirs = OwnedFd::from(theirs);
    let keeper = mounts::start(task, memory, &lock, &theirs)?;
    // The guard's processes have them now; copies here would hide their end.
    drop((theirs, lock));
    let front = Front {
        task,
        signals,
        keeper: Some(keeper),
        driver: Some(Link::of(ours)),
        progress: Progress::new(quiet),
        withdrawn: None,
    };
    Ok(front.follow())
}

impl Front<'_> {
    fn follow(mut self) -> u8 {
        let code = loop {
            self.sleep();
            if let Some(code) =
                self.hear_signals().or_else(|| self.hear_driver()).or_else(|| self.hear_keeper())
            {
                break code;
            }
            if self.withdrawn.is_some_and(|until| clock::mono() >= until) {
                output::complain(
                    "interrupted; the device does not answer, and a claim may stand in the block",
                );
                break exit::INTERRUPTED;
            }
            self.progress.tick();
        };
        self.progress.clear();
        if code != exit::DONE {
            self.wait_for_the_end();
        }
        code
    }

    fn sleep(&self) {
        let mut fds = vec![PollFd::new(self.signals.as_fd(), PollFlags::POLLIN)];
        let links = self.keeper.iter().chain(&self.driver);
        fds.extend(links.map(|link| PollFd::new(link.as_fd(), PollFlags::POLLIN)));
        // EINTR only wakes us early.
        let _ = poll(&mut fds, PollTimeout::from(TICK));
    }

    fn hear_signals(&mut self) -> Option<u8> {
        while let Ok(Some(_)) = self.signals.read_signal() {
            if self.withdrawn.is_some() {
                self.progress.clear();
                output::complain("interrupted twice; leaving at once, a claim may stand in the block");
                return Some(exit::INTERRUPTED);
            }
            self.progress.line(
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
                Ok(Some(FromDriver::Told(told))) => self.progress.show(&told),
                Ok(Some(FromDriver::Guarding { text })) => {
                    self.progress.clear();
                    self.progress.line(&text);
                    return Some(exit::DONE);
                }
                Ok(Some(FromDriver::Failed { text, code })) => {
                    self.progress.clear();
                    output::complain(&text);
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
            self.progress.clear();
            output::complain("the guarding processes ended without a word; see `mmp status`");
            return Some(exit::IO);
        }
        None
    }

    fn keeper_says(&mut self, message: ToFront) -> Option<u8> {
        let device = render::shown(&self.task.asked);
        match message {
            ToFront::Ready { only_reboot, incomplete } => {
                if only_reboot {
                    self.progress.line(
                        "note: nothing cuts this device off but a reboot: if its protection is lost, this host reboots \
                         at once, without a sync",
                    );
                }
                if incomplete {
                    self.progress.line(
                        "warning: --incomplete-fence: after a loss this host may still write to the device while \
                         another one uses it",
                    );
                }
                None
            }
            ToFront::NoFence { why } => {
                output::complain(&format!(
                    "{device}: not mounted: nothing of the ladder \"{}\" cuts it off for certain:\n  {}\n  give \
                     another one with --on-loss, such as exec:/COMMAND or one that ends in reboot, or accept that with \
                     --incomplete-fence",
                    self.task.on_loss,
                    why.join("\n  ")
                ));
                Some(exit::NOT_FENCED)
            }
            ToFront::DriverReplaced => {
                self.progress.line("the guarding process died and was replaced");
                // The one that talked to us is dead; of its successor the keeper tells the rest.
                self.driver = None;
                None
            }
            // The driver says so itself, in more words, unless it is the successor of the one that talked to us.
            ToFront::Guarding => self.driver.is_none().then_some(exit::DONE),
            ToFront::DriverGone => {
                self.progress.clear();
                output::complain(&format!("{device}: the guarding process died; nothing is mounted"));
                Some(exit::IO)
            }
            ToFront::Fenced { reason, report } => {
                self.progress.clear();
                let done = report.as_ref().is_none_or(|report| report.done);
                let lost = Lost { reason, at_s: clock::wall().0, fence: report };
                output::complain(&format!(
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
