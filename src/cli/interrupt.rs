//! Signals as something to ask about, so that a wait can be ended cleanly. One that was ignored at the start (nohup,
//! `&` in a script) stays ignored.

use std::os::fd::{AsFd as _, BorrowedFd};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use nix::sys::signalfd::{SfdFlags, SignalFd};

use crate::error::Error;
use crate::sys::signals;

/// The signals that end a wait.
const ENDING: [Signal; 4] = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGQUIT];

/// What is told when taking it back hangs, too.
pub(super) const NO_ANSWER: &str =
    "interrupted; the device does not answer, and a claim may stand in the block";

/// Signals blocked and collected from here on, in this thread and those it starts.
pub(super) struct Interrupt(SignalFd);

impl Interrupt {
    /// Starts listening.
    pub(super) fn listen() -> Result<Self, Error> {
        let signals = signals::heeded(&ENDING);
        let fail = |errno: Errno| Error::Argument(format!("cannot listen for signals: {errno}"));
        signals.thread_block().map_err(fail)?;
        SignalFd::with_flags(&signals, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
            .map(Interrupt)
            .map_err(fail)
    }

    /// True once such a signal has come.
    pub(super) fn came(&self) -> bool {
        matches!(self.0.read_signal(), Ok(Some(_)))
    }

    /// Waits until `input` can be read (true), or such a signal has come.
    pub(super) fn or_readable(&self, input: BorrowedFd<'_>) -> bool {
        loop {
            let mut fds =
                [self.0.as_fd(), input].map(|descriptor| PollFd::new(descriptor, PollFlags::POLLIN));
            match poll(&mut fds, PollTimeout::NONE) {
                Ok(_) if self.came() => return false,
                Ok(_) if fds[1].any().unwrap_or(false) => return true,
                Ok(_) | Err(Errno::EINTR) => {}
                Err(_) => return false,
            }
        }
    }
}
