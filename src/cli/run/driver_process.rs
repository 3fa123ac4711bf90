//! The driver process of `mmp run`: all device I/O, so that nothing but this process can hang in it.
//!
//! Protects: beats come from a thread of their own; this, the main thread, talks and scans and flushes beside it.
//! When the front is gone it goes on holding: the keeper kills the command's tree and then this process. When both are
//! gone it holds until nothing uses the device any more, and then ends as in a crash.

use std::ffi::OsString;
use std::ops::ControlFlow;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt as _;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, getppid};

use super::super::args::Run;
use super::super::{exit, progress, render};
use super::messages::{FromDriver, ToDriver};
use crate::clock::{self, Mono};
use crate::driver::cell::LeaseCell;
use crate::driver::{Held, Options, Released};
use crate::error::{Error, Kind};
use crate::keeper::DriverPipe;
use crate::keeper::message::Socket;
use crate::protocol::Event;
use crate::sys::realtime::{Lock, protect};
use crate::sys::users;

/// How often the main thread looks at the socket, and asks whether the device is unused.
const PERIOD: Duration = Duration::from_millis(100);
/// How often the scan for users is repeated while somebody uses the device.
const SCAN_PERIOD: Duration = Duration::from_millis(500);

/// The same for a use that lasts.
const LONGEST_SCAN_PERIOD: Duration = Duration::from_secs(2);
/// So many searches in a row have to find nobody before an orphaned device is let go: what is left of a command may
/// open it again.
const QUIET_SCANS: u32 = 20;

/// What the driver process needs.
pub(super) struct Driver {
    pub(super) cell: LeaseCell,
    pub(super) pipe: DriverPipe,
    pub(super) front: Socket,
}

/// How the front was heard.
enum Heard {
    Nothing,
    Message(ToDriver),
    Gone,
}

impl Driver {
    /// Runs until the end; gives the exit code of the process, which nobody reads.
    pub(super) fn run(self, arguments: &Run) -> i32 {
        let protection = protect(Lock::OnFault);
        tracing::debug!(?protection, "driver");
        let Ok(keeper) = self.pipe.as_fd().try_clone_to_owned() else { return 1 };
        let front_pid = getppid();
        let Driver { cell, pipe, front } = self;
        let mut options = Options::new(&arguments.device)
            .interval(arguments.interval)
            .wait(arguments.wait.unwrap_or_default())
            .cell(cell)
            .realtime(true)
            .pretend_another_host(arguments.pretend_another_host)
            .wake_keeper(move || pipe.wake());
        if let Some(node) = &arguments.node {
            options = options.node(node);
        }
        if let Some(node) = &arguments.fenced {
            options = options.fenced(node);
        }
        if let Some(outage) = arguments.tolerate {
            options = options.tolerate(outage);
        }
        let acquired = options.acquire_with(|event| {
            if let Some(event) = event {
                tell(&front, FromDriver::Told(progress::told(event)));
            }
            match hear(&front) {
                Heard::Nothing | Heard::Message(ToDriver::Release) => ControlFlow::Continue(()),
                Heard::Message(ToDriver::Withdraw) | Heard::Gone => ControlFlow::Break(()),
            }
        });
        match acquired {
            Err(error) => fail(&front, &error),
            Ok(held) => {
                tell(&front, FromDriver::Held { env: environment(&held) });
                Holding {
                    held,
                    front,
                    front_pid,
                    keeper,
                    releasing: false,
                    seen: Vec::new(),
                    told: String::new(),
                    damage: None,
                }
                .run()
            }
        }
    }
}

struct Holding {
    held: Held,
    front: Socket,
    front_pid: Pid,
    /// The driver's pipe: an error on it says that the keeper is gone.
    keeper: OwnedFd,
    releasing: bool,
    /// Whom the last search for users found. Once is not told: udev looks at a device that was just closed.
    seen: Vec<String>,
    /// What of the release was told last.
    told: String,
    /// A flush that failed, once and for all: the kernel forgets the pages.
    damage: Option<String>,
}

impl Holding {
    fn run(mut self) -> i32 {
        let mut next_scan = Mono(0);
        let mut pause = SCAN_PERIOD;
        let mut quiet = 0;
        loop {
            match self.held.next_event(PERIOD) {
                Some(Event::Lost { loss, .. }) => return self.lost(&Error::Lost { path: self.path(), loss }),
                Some(event) => tell(&self.front, FromDriver::Told(progress::told(&event))),
                None if self.held.is_over() => return 1,
                None => {}
            }
            let keeper_is_gone = self.keeper_is_gone();
            match hear(&self.front) {
                Heard::Message(ToDriver::Release) => self.releasing = true,
                // Too late to withdraw; the front asks for a release when it hears that it is held.
                Heard::Message(ToDriver::Withdraw) => {}
                // The front does the keeper's work, but not while it is stopped.
                Heard::Nothing if keeper_is_gone && !self.releasing => {
                    let _ = kill(self.front_pid, Signal::SIGCONT);
                }
                Heard::Nothing => {}
                // With the keeper alive it is his to end us, after the command's tree.
                Heard::Gone if !keeper_is_gone => {}
                Heard::Gone if !self.releasing && clock::mono() >= next_scan => {
                    // Without both, whatever is left of that tree is protected as long as it uses the device. The mark is
                    // not clean then: this was a crash, and others have to wait.
                    let found = users::survey(self.held.place().target(), &[]);
                    quiet = if found.is_ok_and(|found| found.users.is_empty()) { quiet + 1 } else { 0 };
                    if quiet >= QUIET_SCANS {
                        return 1;
                    }
                    next_scan = clock::mono() + SCAN_PERIOD;
                }
                Heard::Gone => {}
            }
            if self.releasing && clock::mono() >= next_scan {
                if let Some(code) = self.release() {
                    return code;
                }
                next_scan = clock::mono() + pause;
                pause = (pause * 5 / 4).min(LONGEST_SCAN_PERIOD);
            }
        }
    }

    fn release(&mut self) -> Option<i32> {
        match self.held.release() {
            Ok(left) => {
                if let Released::LeftToOthers { by } = left {
                    tell(&self.front, FromDriver::Told(progress::told(&Event::LeftToOthers { by })));
                }
                tell(&self.front, FromDriver::Released { damage: self.damage.take() });
                Some(0)
            }
            Err(Error::UsedHere { users, .. }) => {
                let again = users == self.seen;
                self.seen.clone_from(&users);
                if again && self.is_news(users.join(", ")) {
                    tell(&self.front, FromDriver::StillUsed { users });
                }
                None
            }
            Err(error) if error.kind() == Kind::Lost => Some(self.lost(&error)),
            // It stays held, and is tried again as long as the lease lasts.
            Err(error) => {
                let text = render::error(&error);
                if matches!(error, Error::Io { op, .. } if op == crate::io::FLUSH) {
                    self.damage.get_or_insert_with(|| text.clone());
                }
                if self.is_news(text.clone()) {
                    tell(
                        &self.front,
                        FromDriver::Told(progress::Told::line(format!("warning: {text}; trying again"))),
                    );
                }
                None
            }
        }
    }

    fn is_news(&mut self, text: String) -> bool {
        let news = text != self.told;
        self.told = text;
        news
    }

    fn lost(&self, error: &Error) -> i32 {
        tell(&self.front, FromDriver::Lost { text: render::error(error) });
        1
    }

    fn path(&self) -> std::path::PathBuf {
        self.held.place().device().path().to_owned()
    }

    fn keeper_is_gone(&self) -> bool {
        let mut fds = [PollFd::new(self.keeper.as_fd(), PollFlags::empty())];
        let asked = poll(&mut fds, PollTimeout::ZERO);
        asked.is_ok() && fds[0].revents().is_some_and(|events| events.contains(PollFlags::POLLERR))
    }
}

fn environment(held: &Held) -> Vec<(OsString, OsString)> {
    let place = held.place();
    vec![
        ("MMP_DEVICE".into(), place.device().canonical().into()),
        ("MMP_NODE".into(), OsString::from_vec(place.medium().owner().node.bytes().to_vec())),
        ("MMP_BLOCK".into(), place.superblock().mmp_block.to_string().into()),
    ]
}

fn fail(front: &Socket, error: &Error) -> i32 {
    let conflict = matches!(error.kind(), Kind::InUse | Kind::Fsck);
    let code = exit::run_number(error.kind());
    tell(front, FromDriver::Failed { text: render::error(error), code, conflict });
    1
}

/// A front that does not listen loses what is only told; the rest waits for it. The beats wait for nobody.
fn tell(front: &Socket, message: FromDriver) {
    loop {
        match front.send_message(&message) {
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => match message {
                FromDriver::Told(_) | FromDriver::StillUsed { .. } => return,
                _ => clock::sleep(PERIOD),
            },
            _ => return,
        }
    }
}

fn hear(front: &Socket) -> Heard {
    match front.receive() {
        Ok(Some(message)) => Heard::Message(message),
        Ok(None) => Heard::Nothing,
        Err(_) => Heard::Gone,
    }
}
