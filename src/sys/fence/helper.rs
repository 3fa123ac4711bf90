//! A process of its own for whatever may hang, and its answer.
//!
//! Protects: whoever fences does not wait longer than it said, even if the helper is stuck in the kernel; the helper has no
//! descriptor but those it needs. Does not protect: one that is stuck cannot be ended, and what it asked the kernel for may
//! still happen later.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, pipe2, read, write};

use crate::clock::{self, Mono};
use crate::sys::process;
use crate::sys::spawn::{Descriptors, Place, fork_process};

/// What a helper can say: a mark and a line.
const ROOM: usize = 512;
const DID: u8 = b'+';
const DID_NOT: u8 = b'-';
const PAUSE_AT_MOST: Duration = Duration::from_millis(20);
/// How long one that was killed is waited for, so that it leaves no zombie.
const LAST_WAIT: Duration = Duration::from_millis(20);

/// A helper at work.
#[derive(Debug)]
pub(super) struct Helper {
    pid: Pid,
    /// `None` where no pipe could be made: then its exit status is the answer.
    pipe: Option<OwnedFd>,
    said: Vec<u8>,
    ended: Option<i32>,
}

/// What it did, or why it could not.
pub(super) type Answer = Result<String, String>;

impl Helper {
    /// Forks one that runs `body` with the descriptors `keep` and no others. The process must have one thread.
    pub(super) fn start(keep: &[RawFd], body: impl FnOnce() -> Answer) -> io::Result<Helper> {
        let (ours, its) = match pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK) {
            Ok((ours, its)) => (Some(ours), Some(its)),
            Err(_) => (None, None),
        };
        let kept: Vec<RawFd> = keep.iter().copied().chain(its.as_ref().map(AsRawFd::as_raw_fd)).collect();
        let pid = fork_process(c"mmp-fence", Place::OwnSession, Descriptors::Only(&kept), || {
            let answer = body();
            let (mark, text) = match &answer {
                Ok(text) => (DID, text),
                Err(text) => (DID_NOT, text),
            };
            let mut line = vec![mark];
            line.extend(text.bytes().take(ROOM - 1));
            if let Some(its) = &its {
                let _ = write(its, &line);
            }
            i32::from(answer.is_err())
        })?;
        Ok(Helper { pid, pipe: ours, said: Vec::with_capacity(ROOM), ended: None })
    }

    /// Waits until it has ended, or until `until`: then `None`, and it goes on.
    pub(super) fn wait(&mut self, until: Mono) -> Option<Answer> {
        let mut pause = Duration::from_millis(1);
        loop {
            if let Some(answer) = self.answer() {
                return Some(answer);
            }
            let left = until.since(clock::mono());
            if left.is_zero() {
                return None;
            }
            clock::sleep(pause.min(left));
            pause = (pause * 2).min(PAUSE_AT_MOST);
        }
    }

    /// Its answer, if it has ended.
    pub(super) fn answer(&mut self) -> Option<Answer> {
        self.listen();
        if self.ended.is_none() {
            self.ended = match waitpid(self.pid, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Exited(_, status)) => Some(status),
                Ok(WaitStatus::Signaled(_, signal, _)) => Some(128 + signal as i32),
                // Somebody else reaped it: what it said is all there is.
                Err(Errno::ECHILD) => Some(-1),
                _ => return None,
            };
            self.listen();
        }
        let text = self.said.get(1..).map(|text| String::from_utf8_lossy(text).into_owned());
        Some(match (self.said.first(), self.ended?) {
            (Some(&DID), _) => Ok(text.unwrap_or_default()),
            (Some(_), _) => Err(text.unwrap_or_default()),
            (None, 0) => Ok("exit status 0".to_owned()),
            (None, -1) => Err("its end was not seen".to_owned()),
            (None, status @ 129..) => Err(format!("killed by signal {}", status - 128)),
            (None, status) => Err(format!("exit status {status}")),
        })
    }

    /// Sends SIGKILL to it and to what it started, and goes on without it.
    pub(super) fn leave(&mut self) {
        if self.ended.is_some() {
            return;
        }
        let _ = process::signal_group(self.pid, libc::SIGKILL);
        let _ = kill(self.pid, Signal::SIGKILL); // it may not have come to its own group yet
        let _ = self.wait(clock::mono() + LAST_WAIT);
    }

    fn listen(&mut self) {
        let Some(pipe) = &self.pipe else { return };
        let mut buffer = [0; ROOM];
        while let Ok(count @ 1..) = read(pipe, &mut buffer) {
            let room = ROOM - self.said.len();
            self.said.extend_from_slice(&buffer[..count.min(room)]);
        }
    }
}
