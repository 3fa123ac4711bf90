//! Signals as something to ask about, so that a wait can be ended cleanly. One that was ignored at the start (nohup,
//! `&` in a script) stays ignored.

use nix::sys::signal::Signal;
use nix::sys::signalfd::{SfdFlags, SignalFd};

use crate::error::Error;
use crate::sys::signals;

/// The signals that end a wait.
const ENDING: [Signal; 4] = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGQUIT];

/// Signals blocked and collected from here on, in this thread and those it starts.
pub(super) struct Interrupt(SignalFd);

impl Interrupt {
    /// Starts listening.
    pub(super) fn listen() -> Result<Self, Error> {
        let signals = signals::heeded(&ENDING);
        let fail = |errno: nix::errno::Errno| Error::Argument(format!("cannot listen for signals: {errno}"));
        signals.thread_block().map_err(fail)?;
        SignalFd::with_flags(&signals, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
            .map(Interrupt)
            .map_err(fail)
    }

    /// True once such a signal has come.
    pub(super) fn came(&self) -> bool {
        matches!(self.0.read_signal(), Ok(Some(_)))
    }
}
