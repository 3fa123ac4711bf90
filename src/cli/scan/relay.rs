//! A process that looks at devices, and one in front of it that tells what it finds.
//!
//! Protects: the prompt comes back while a device hangs. A process with a thread that hangs in the kernel does not end, whatever kills it,
//! and whoever waits for it, or for its end of a pipe, waits with it. So the one that looks holds nothing of the user's: neither his
//! terminal nor his pipes, only one to the process in front, which touches no device, waits for words and not for an end, and leaves
//! it behind. It is killed with the process in front, which for one that hangs means: as soon as its device answers. Does
//! not protect: one that was left behind stays in the list of processes until then, and has the device open.

use std::fs::File;
use std::io::{self, IsTerminal as _, Read as _, Write as _};
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::time::Duration;

use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::{Pid, getppid, pipe2};

use super::super::{exit, output, render};
use crate::sys::process::leader_lives;
use crate::sys::spawn::{Descriptors, Place, fork_process};

/// Its name, as ps(1) shows it.
const NAME: &std::ffi::CStr = c"mmp-scan";
/// After so long somebody who sits at a terminal is told what is waited for.
const SILENCE: Duration = Duration::from_secs(1);
/// One that does not hang is gone within that, after its last word.
const FAREWELL: Duration = Duration::from_millis(200);

const OUTPUT: u8 = 1;
const COMPLAINT: u8 = 2;
const CODE: u8 = 3;

/// Tells the process in front what to say.
pub(super) struct Teller(File);

impl Teller {
    /// On standard output. False if nobody listens any more.
    pub(super) fn say(&mut self, text: &str) -> bool {
        self.tell(OUTPUT, text.as_bytes()).is_ok()
    }

    /// On standard error, a line.
    pub(super) fn complain(&mut self, line: &str) {
        let _ = self.tell(COMPLAINT, line.as_bytes());
    }

    fn tell(&mut self, what: u8, bytes: &[u8]) -> io::Result<()> {
        let length = u32::try_from(bytes.len()).map_err(io::Error::other)?;
        self.0.write_all(&[what])?;
        self.0.write_all(&length.to_ne_bytes())?;
        self.0.write_all(bytes)
    }
}

/// Runs `body` in a process that may hang, says what it says, and gives its exit code. With a `patience`: how long it is silent at most if a
/// device hangs.
pub(super) fn run(patience: Option<Duration>, body: impl FnOnce(&mut Teller) -> u8) -> ExitCode {
    let front = Pid::this();
    let started = pipe2(OFlag::O_CLOEXEC).map_err(io::Error::from).and_then(|(read, write)| {
        let descriptor = write.as_raw_fd();
        let mut teller = Teller(write.into());
        let child = fork_process(NAME, Place::OwnGroup, Descriptors::Only(&[descriptor]), || {
            let bound = prctl::set_pdeathsig(Signal::SIGKILL);
            // It died before the line above took effect: nobody listens.
            if bound.is_ok() && getppid() == front {
                let code = catch_unwind(AssertUnwindSafe(|| body(&mut teller))).unwrap_or_else(|_| {
                    teller.complain("the process that looks at devices has a bug");
                    exit::IO
                });
                let _ = teller.tell(CODE, &[code]);
            }
            0
        })?;
        Ok((child, File::from(read)))
    });
    match started {
        Ok((child, mut told)) => {
            let code = relay(child, &mut told, patience);
            collect(child, &told);
            code
        }
        Err(error) => {
            output::complain(&format!("cannot start the process that looks at devices: {error}"));
            ExitCode::from(exit::IO)
        }
    }
}

/// Says what is told until there is a code.
fn relay(child: Pid, told: &mut File, patience: Option<Duration>) -> ExitCode {
    if let Some(patience) = patience.filter(|_| io::stderr().is_terminal()) {
        tell_of_silence(told, patience);
    }
    loop {
        match wait(child, told) {
            Waited::Words => {}
            Waited::Nobody => return ExitCode::from(exit::DONE),
            Waited::Death => return died(),
        }
        match next(told) {
            Ok((OUTPUT, text)) => match output::try_text(&String::from_utf8_lossy(&text)) {
                Ok(true) => {}
                Ok(false) => return ExitCode::from(exit::DONE),
                Err(code) => return code,
            },
            Ok((COMPLAINT, line)) => output::complain(&String::from_utf8_lossy(&line)),
            Ok((CODE, code)) if code.len() == 1 => return ExitCode::from(code[0]),
            _ => return died(),
        }
    }
}

fn died() -> ExitCode {
    output::complain("the process that looks at devices has ended before it was done");
    ExitCode::from(exit::IO)
}

enum Waited {
    Words,
    /// Nobody reads any more what we would say.
    Nobody,
    /// What it has said was said; a thread of it that hangs keeps its end of the pipe open.
    Death,
}

/// Waits for the next thing told.
fn wait(child: Pid, told: &File) -> Waited {
    let stdout = std::io::stdout();
    loop {
        // Before the pipe is looked at: what it told last is there then.
        let lives = leader_lives(child.as_raw());
        let mut asked =
            [PollFd::new(told.as_fd(), PollFlags::POLLIN), PollFd::new(stdout.as_fd(), PollFlags::empty())];
        let _ = poll(&mut asked, PollTimeout::try_from(SILENCE).unwrap_or(PollTimeout::NONE));
        let gone = PollFlags::POLLERR | PollFlags::POLLHUP;
        if asked[1].revents().is_some_and(|events| events.intersects(gone)) {
            return Waited::Nobody;
        }
        match asked[0].revents() {
            Some(events) if !events.is_empty() => return Waited::Words,
            _ if !lives => return Waited::Death,
            _ => {}
        }
    }
}

fn next(told: &mut File) -> io::Result<(u8, Vec<u8>)> {
    let (mut what, mut length) = ([0], [0; 4]);
    told.read_exact(&mut what)?;
    told.read_exact(&mut length)?;
    let mut bytes = vec![0; u32::from_ne_bytes(length) as usize];
    told.read_exact(&mut bytes)?;
    Ok((what[0], bytes))
}

/// Waits for its end, unless it hangs: all its threads have left their system calls when the kernel has closed its end of the pipe.
fn collect(child: Pid, told: &File) {
    let mut asked = [PollFd::new(told.as_fd(), PollFlags::POLLIN)];
    let _ = poll(&mut asked, PollTimeout::try_from(FAREWELL).unwrap_or(PollTimeout::ZERO));
    let closed = asked[0].revents().is_some_and(|events| events.contains(PollFlags::POLLHUP));
    let flags = if closed { None } else { Some(WaitPidFlag::WNOHANG) };
    let _ = waitpid(child, flags);
}

fn tell_of_silence(told: &File, patience: Duration) {
    let mut asked = [PollFd::new(told.as_fd(), PollFlags::POLLIN)];
    let span = PollTimeout::try_from(SILENCE).unwrap_or(PollTimeout::NONE);
    if patience > SILENCE && poll(&mut asked, span) == Ok(0) {
        let patience = render::seconds(patience);
        output::complain(&format!(
            "something does not answer; whatever does not within {patience} has a row that says so"
        ));
    }
}
