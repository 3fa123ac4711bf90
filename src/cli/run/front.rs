//! The front process of `mmp run`: what the user sees. Progress, signals, the terminal, the exit code.
//!
//! Protects: it waits for nobody who may hang. The exit code comes while a device still hangs. If the keeper is
//! killed it does the keeper's work. Does not decide about protection: it only tells what driver and keeper found.

mod ending;

use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, pthread_sigmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::Pid;

use super::super::args::Run;
use super::super::interrupt::NO_ANSWER;
use super::super::progress::Progress;
use super::super::{exit, output};
use super::kill;
use super::messages::{FromDriver, ToDriver};
use crate::clock::{self, Mono};
use crate::driver::cell::CellState;
use crate::driver::leases::Leases;
use crate::format::name::escape;
use crate::keeper::message::Socket;
use crate::keeper::{FromKeeper, KeeperHandle, ToKeeper, Why};
use crate::sys::Target;
use crate::sys::signals::heeded;
use crate::sys::spawn::CommandEnd;
use crate::sys::terminal::Terminal;
use ending::reason;

/// How long the keeper may take to report the fence after the loss was heard of; it bounds itself to less.
const FENCE_PATIENCE: Duration = Duration::from_secs(10);
/// How often the countdown is redrawn.
const TICK: u16 = 100;
/// How long a withdrawn claim may take to end; the driver's own patience is less.
const WITHDRAW_PATIENCE: Duration = Duration::from_secs(5);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// The driver claims. Once withdrawn, it has until then to say so.
    Claiming { withdrawn: Option<Mono> },
    /// The command runs, or something of its tree.
    Running,
    /// Nothing of the tree is left; the driver releases.
    Releasing,
}

/// The front's state.
pub(super) struct Front<'a> {
    arguments: &'a Run,
    signals: SignalFd,
    watched: Watched,
    driver_pid: Pid,
    driver: Option<Socket>,
    keeper: KeeperHandle,
    keeper_is_gone: bool,
    progress: Progress,
    terminal: Option<Terminal>,
    phase: Phase,
    command: Option<Pid>,
    /// The exit code that the command's end asks for.
    code: u8,
    /// The driver said that protection was lost; the keeper's report is due until then.
    lost: Option<Mono>,
    /// Nothing was started although the device was held.
    refused: bool,
    /// Killed processes still hang, under a good lease: the driver goes on holding for them.
    leave_driver: bool,
}

/// What the front may look at without touching the device.
pub(super) struct Watched {
    /// The leases.
    pub(super) cell: Leases,
    /// Which nodes are used; without those whose path leads nowhere.
    pub(super) targets: Vec<Target>,
}

/// Blocks what is to be handled and gives the descriptor it is read from.
pub(super) fn signals() -> io::Result<SignalFd> {
    // What nohup or a script's `&` had ignored stays ignored, for the command too (`sys::spawn`).
    let mut set = heeded(&[Signal::SIGINT, Signal::SIGHUP, Signal::SIGQUIT]);
    set.extend(&SigSet::from_iter([Signal::SIGTERM, Signal::SIGUSR1, Signal::SIGUSR2, Signal::SIGCONT]));
    // A line on a terminal that the command has in the foreground must not stop us (stty tostop).
    let mut blocked = set;
    blocked.add(Signal::SIGTTOU);
    pthread_sigmask(SigmaskHow::SIG_BLOCK, Some(&blocked), None)?;
    Ok(SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?)
}

impl<'a> Front<'a> {
    pub(super) fn new(
        arguments: &'a Run,
        signals: SignalFd,
        watched: Watched,
        driver_pid: Pid,
        driver: Socket,
        keeper: KeeperHandle,
    ) -> Self {
        Front {
            arguments,
            signals,
            watched,
            driver_pid,
            driver: Some(driver),
            keeper,
            keeper_is_gone: false,
            progress: Progress::new(arguments.quiet),
            terminal: None,
            phase: Phase::Claiming { withdrawn: None },
            command: None,
            code: exit::RUN_OTHER,
            lost: None,
            refused: false,
            leave_driver: false,
        }
    }

    /// Runs to the end; gives the exit code.
    pub(super) fn run(mut self) -> u8 {
        let code = loop {
            self.sleep();
            if let Some(code) =
                self.hear_signals().or_else(|| self.hear_driver()).or_else(|| self.hear_keeper())
            {
                break code;
            }
            if let Some(code) = self.time_passed(clock::mono()) {
                break code;
            }
            self.continue_keeper();
            self.progress.tick();
        };
        self.progress.clear();
        self.give_terminal_back();
        let _ = self.keeper.send(&ToKeeper::Finish);
        // A driver that hangs dies when its I/O ends; it never writes again.
        if !self.leave_driver {
            kill(self.driver_pid);
        }
        self.reap(code == exit::RUN_LOST);
        code
    }

    /// What nobody says, only the clock.
    fn time_passed(&mut self, now: Mono) -> Option<u8> {
        if self.lost.is_some_and(|until| now >= until) {
            return Some(self.do_keepers_work("the keeper did not report in time"));
        }
        if matches!(self.phase, Phase::Claiming { withdrawn: Some(until) } if now >= until) {
            output::complain(NO_ANSWER);
            return Some(exit::RUN_OTHER);
        }
        // Without a keeper nobody else looks at the lease.
        (self.keeper_is_gone && self.watched.cell.expire(now)).then(|| self.lost_without_keeper())
    }

    fn sleep(&self) {
        let mut fds = vec![PollFd::new(self.signals.as_fd(), PollFlags::POLLIN)];
        if !self.keeper_is_gone {
            fds.push(PollFd::new(self.keeper.as_fd(), PollFlags::POLLIN));
        }
        fds.extend(self.driver.iter().map(|driver| PollFd::new(driver.as_fd(), PollFlags::POLLIN)));
        // EINTR only wakes us early.
        let _ = poll(&mut fds, PollTimeout::from(TICK));
    }

    fn hear_signals(&mut self) -> Option<u8> {
        while let Ok(Some(info)) = self.signals.read_signal() {
            let number = i32::try_from(info.ssi_signo).unwrap_or(0);
            let ends = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGQUIT]
                .iter()
                .any(|&signal| signal as i32 == number);
            match self.phase {
                Phase::Claiming { withdrawn: Some(_) } if ends => {
                    output::complain("interrupted twice; leaving at once, a claim may stand in the block");
                    return Some(exit::RUN_OTHER);
                }
                Phase::Claiming { withdrawn: None } if ends => {
                    self.phase = Phase::Claiming { withdrawn: Some(clock::mono() + WITHDRAW_PATIENCE) };
                    self.tell_driver(ToDriver::Withdraw);
                }
                Phase::Claiming { .. } => {}
                Phase::Running => {
                    let _ = self.keeper.send(&ToKeeper::Signal { signal: number });
                }
                Phase::Releasing if ends => {
                    self.progress.line(
                        "still held: the clean mark is written when nothing uses the device any more; \
                         end its users first",
                    );
                }
                Phase::Releasing => {}
            }
        }
        None
    }

    fn hear_driver(&mut self) -> Option<u8> {
        while let Some(driver) = &self.driver {
            match driver.receive::<FromDriver>() {
                Ok(None) => return None,
                Ok(Some(message)) => {
                    let code = self.driver_says(message);
                    if code.is_some() {
                        return code;
                    }
                }
                Err(_) => {
                    self.driver = None;
                    return self.driver_is_gone();
                }
            }
        }
        None
    }

    fn driver_says(&mut self, message: FromDriver) -> Option<u8> {
        match message {
            FromDriver::Told(told) => self.progress.show(&told),
            FromDriver::Held { .. } if matches!(self.phase, Phase::Claiming { withdrawn: Some(_) }) => {
                // The signal came at the very end of the claim: nothing is started, and the device is given back.
                self.phase = Phase::Releasing;
                self.tell_driver(ToDriver::Release);
            }
            FromDriver::Held { env } => {
                self.progress.clear();
                self.phase = Phase::Running;
                self.terminal = Terminal::to_pass_on(&[self.driver_pid, self.keeper.pid()]);
                let start = ToKeeper::Start { env, foreground: self.terminal.is_some() };
                if let Err(error) = self.keeper.send(&start) {
                    return Some(self.do_keepers_work(&format!("the keeper cannot be reached ({error})")));
                }
            }
            FromDriver::Failed { text, code, conflict } => {
                self.progress.clear();
                output::complain(&text);
                return Some(self.arguments.conflict_exit_code.filter(|_| conflict).unwrap_or(code));
            }
            FromDriver::Lost { text } => {
                self.progress.clear();
                output::complain(&text);
                if self.keeper_is_gone {
                    return Some(self.lost_without_keeper());
                }
                self.lost.get_or_insert(clock::mono() + FENCE_PATIENCE);
            }
            FromDriver::StillUsed { users } => {
                self.progress.line(&format!(
                    "the command ended, but the device is still used, so it stays held: {}",
                    users.join(", ")
                ));
            }
            FromDriver::Released { damage: Some(text) } => {
                self.progress.clear();
                output::complain(&text);
                output::complain("released, but not everything that was written to the device is on it");
                return Some(exit::RUN_IO);
            }
            FromDriver::Released { damage: None } => {
                return Some(if self.refused { exit::RUN_LOST } else { self.code });
            }
        }
        None
    }

    fn driver_is_gone(&mut self) -> Option<u8> {
        if let Phase::Claiming { .. } = self.phase {
            output::complain("the guarding process ended while it claimed; nothing was started");
            return Some(exit::RUN_OTHER);
        }
        if self.watched.cell.state() == CellState::Released {
            return Some(self.code); // its last message is lost, its last deed is not
        }
        if self.keeper_is_gone {
            return Some(self.lost_without_keeper());
        }
        // The keeper fences, and its report is told.
        self.lost.get_or_insert(clock::mono() + FENCE_PATIENCE);
        None
    }

    fn hear_keeper(&mut self) -> Option<u8> {
        while !self.keeper_is_gone {
            match self.keeper.receive() {
                Ok(None) => return None,
                Ok(Some(message)) => {
                    let code = self.keeper_says(message);
                    if code.is_some() {
                        return code;
                    }
                }
                Err(_) if self.phase == Phase::Releasing => {
                    // There is nothing left for it to kill; the driver holds and releases without it.
                    self.keeper_is_gone = true;
                }
                Err(_) => return Some(self.do_keepers_work("the keeper is gone")),
            }
        }
        None
    }

    fn keeper_says(&mut self, message: FromKeeper) -> Option<u8> {
        match message {
            FromKeeper::Ready { protection, cgroup } => {
                tracing::debug!(?protection, cgroup, "keeper");
            }
            FromKeeper::Started { pid } => self.command = Some(Pid::from_raw(pid)),
            FromKeeper::SpawnFailed { failure } => {
                let program = escape(self.arguments.command[0].as_encoded_bytes());
                output::complain(&format!("cannot run {program}: {failure}"));
                self.code = CommandEnd::NotStarted(failure).exit_code(exit::RUN_OTHER);
            }
            FromKeeper::StartRefused { why } => {
                output::complain(&format!(
                    "the command was not started: protection ended before it could ({why:?})"
                ));
                self.refused = true;
                self.lost.get_or_insert(clock::mono() + FENCE_PATIENCE);
            }
            FromKeeper::Stopped { .. } => self.stop_too(),
            FromKeeper::CommandEnded { end, remaining } => {
                self.code = end.exit_code(exit::RUN_OTHER);
                self.give_terminal_back();
                if remaining > 0 {
                    self.progress.line(&format!(
                        "the command ended, but {remaining} of its processes still run; the device stays held until they end"
                    ));
                }
            }
            FromKeeper::TreeEmpty => {
                self.phase = Phase::Releasing;
                self.tell_driver(ToDriver::Release);
            }
            FromKeeper::Fenced { why, report } => {
                self.progress.clear();
                // What the driver had to say about it may be under way.
                if let (Why::CellLost, None) = (why, self.lost) {
                    let _ = self.hear_driver();
                }
                self.fenced(reason(why), report.killed, &report.still_there, report.still_there_count);
                return Some(exit::RUN_LOST);
            }
        }
        None
    }

    /// The command was stopped from the terminal: the shell has to see us stopped, too. Driver and keeper go on.
    fn stop_too(&mut self) {
        let (Some(terminal), Some(command)) = (&self.terminal, self.command) else { return };
        // Without a shell that could continue us (ssh -t, a container) the kernel would not have stopped us either.
        if terminal.has_a_shell() {
            let _ = terminal.take_back(false);
            // As the terminal would: with a script that waits for us.
            let _ = nix::sys::signal::kill(Pid::from_raw(0), Signal::SIGSTOP);
            // Continued: by `fg`, and then the command gets the terminal again, or by `bg`.
        }
        if terminal.is_ours() {
            let _ = terminal.give(command);
        }
        let _ = self.keeper.send(&ToKeeper::Signal { signal: Signal::SIGCONT as i32 });
    }

    fn give_terminal_back(&mut self) {
        if let Some(terminal) = self.terminal.take() {
            let _ = terminal.take_back(true);
        }
    }

    fn tell_driver(&self, message: ToDriver) {
        if let Some(driver) = &self.driver {
            let _ = driver.send_message(&message);
        }
    }
}
