//! The driver process of `mmp run`: all device I/O, so that nothing but this process can hang in it.
//!
//! Protects: beats come from a thread of their own; this, the main thread, talks and scans and flushes beside it.
//! When the front is gone it goes on holding: the keeper kills the command's tree and then this process. When both are
//! gone it holds until nothing uses the device any more, and then ends as in a crash.

use std::ffi::OsString;
use std::ops::ControlFlow;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt as _;
use std::sync::Arc;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, getppid};

use super::super::args::Run;
use super::super::{exit, progress, render, whole};
use super::messages::{FromDriver, ToDriver};
use crate::clock::{self, Mono};
use crate::driver::cell::LeaseCell;
use crate::driver::set::{Member, acquire_all};
use crate::driver::{Held, Options, Place, Released, UNDERMINED_PERIOD};
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
    /// One a device.
    pub(super) cells: Vec<LeaseCell>,
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
        let Driver { cells, pipe, front } = self;
        let pipe = Arc::new(pipe);
        let members = match members(arguments, &cells, &pipe) {
            Ok(members) => members,
            Err(error) => return fail(&front, &error),
        };
        drop(pipe);
        let several = members.len() > 1;
        let acquired = acquire_all(members, &|device, event| {
            if let Some(event) = event {
                let told = progress::told(event);
                tell(&front, FromDriver::Told(if several { told.about(device) } else { told }));
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

/// What is to be claimed, and how.
fn members(arguments: &Run, cells: &[LeaseCell], pipe: &Arc<DriverPipe>) -> Result<Vec<Member>, Error> {
    if arguments.by.area.is_some() && arguments.devices.len() > 1 {
        let what = "--area guards one device; a slot that guards several is named by itself, as TARGET:SLOT";
        return Err(Error::Argument(what.to_owned()));
    }
    if arguments.by.area.is_none() {
        whole::check(arguments.devices.iter().map(std::path::PathBuf::as_path))?;
    }
    let node = arguments.node.as_deref();
    let mut members = Vec::new();
    for (device, cell) in arguments.devices.iter().zip(cells) {
        let place = Place::find_by(device, arguments.by.area.as_deref(), node)?;
        let pipe = Arc::clone(pipe);
        let mut options = Options::of_place(place.clone())
            .wait(arguments.wait.unwrap_or_default())
            .cell(cell.clone())
            .realtime(true)
            .pretend_another_host(arguments.pretend_another_host)
            .wake_keeper(move || pipe.wake());
        if let Some(interval) = arguments.interval {
            options = options.interval(interval);
        }
        if let Some(node) = &arguments.fenced {
            options = options.fenced(node);
        }
        if let Some(outage) = arguments.tolerate {
            options = options.tolerate(outage);
        }
        members.push(Member { place, options });
    }
    Ok(members)
}

struct Holding {
    /// Those that are not released yet, as they were asked for.
    held: Vec<Held>,
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
        let mut next_content = clock::mono() + UNDERMINED_PERIOD;
        let mut pause = SCAN_PERIOD;
        let mut quiet = 0;
        loop {
            let patience = PERIOD / u32::try_from(self.held.len()).unwrap_or(u32::MAX);
            for held in &mut self.held {
                match held.next_event(patience) {
                    Some(Event::Lost { loss, .. }) => {
                        let path = held.place().asked().to_owned();
                        return lost(&self.front, &Error::Lost { path, loss });
                    }
                    Some(event) => tell(&self.front, FromDriver::Told(progress::told(&event))),
                    None if held.is_over() => return 1,
                    None => {}
                }
            }
            if clock::mono() >= next_content {
                next_content = clock::mono() + UNDERMINED_PERIOD;
                if let Some(what) = self.overrun() {
                    return lost(&self.front, &what);
                }
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
                    let unused =
                        |target| users::survey(target, &[]).is_ok_and(|found| found.users.is_empty());
                    let mut targets = self.held.iter().filter_map(|held| held.place().target());
                    quiet = if targets.all(unused) { quiet + 1 } else { 0 };
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

    /// A filesystem that was grown over the area in which we beat: its blocks are the filesystem's by now, so what uses it is stopped, and
    /// our end does that.
    fn overrun(&self) -> Option<Error> {
        self.held.iter().find_map(|held| {
            let what = held.place().undermined()?;
            Some(Error::Unsupported { path: held.place().asked().to_owned(), what })
        })
    }

    /// Gives all back, or none as long as one of them is used.
    fn release(&mut self) -> Option<i32> {
        if self.held.len() > 1
            && let Some(users) = self.used()
        {
            self.still_used(users);
            return None;
        }
        while let Some(held) = self.held.last_mut() {
            match held.release() {
                Ok(left) => {
                    if let Released::LeftToOthers { by } = left {
                        tell(&self.front, FromDriver::Told(progress::told(&Event::LeftToOthers { by })));
                    }
                    self.held.pop();
                }
                Err(Error::UsedHere { users, .. }) => {
                    self.still_used(users);
                    return None;
                }
                Err(error) if error.kind() == Kind::Lost => return Some(lost(&self.front, &error)),
                // It stays held, and is tried again as long as the lease lasts.
                Err(error) => {
                    self.not_released(&error);
                    return None;
                }
            }
        }
        tell(&self.front, FromDriver::Released { damage: self.damage.take() });
        Some(0)
    }

    /// Whoever uses one of them; an error of the search is found again by the release itself.
    fn used(&self) -> Option<Vec<String>> {
        let targets = self.held.iter().filter_map(|held| held.place().target());
        let users: Vec<_> = targets
            .filter_map(|target| users::survey(target, &[]).ok())
            .flat_map(|found| found.users)
            .map(|user| user.to_string())
            .collect();
        (!users.is_empty()).then_some(users)
    }

    fn still_used(&mut self, users: Vec<String>) {
        let again = users == self.seen;
        self.seen.clone_from(&users);
        if again && self.is_news(users.join(", ")) {
            tell(&self.front, FromDriver::StillUsed { users });
        }
    }

    fn not_released(&mut self, error: &Error) {
        let text = render::error(error);
        if matches!(error, Error::Io { op, .. } if *op == crate::io::FLUSH) {
            self.damage.get_or_insert_with(|| text.clone());
        }
        if self.is_news(text.clone()) {
            let line = progress::Told::line(format!("warning: {text}; trying again"));
            tell(&self.front, FromDriver::Told(line));
        }
    }

    fn is_news(&mut self, text: String) -> bool {
        let news = text != self.told;
        self.told = text;
        news
    }

    fn keeper_is_gone(&self) -> bool {
        let mut fds = [PollFd::new(self.keeper.as_fd(), PollFlags::empty())];
        let asked = poll(&mut fds, PollTimeout::ZERO);
        asked.is_ok() && fds[0].revents().is_some_and(|events| events.contains(PollFlags::POLLERR))
    }
}

fn lost(front: &Socket, error: &Error) -> i32 {
    tell(front, FromDriver::Lost { text: render::error(error) });
    1
}

/// Of each device; the names of all but the first end in its number.
fn environment(held: &[Held]) -> Vec<(OsString, OsString)> {
    let mut variables = vec![("MMP_MEMBERS".into(), held.len().to_string().into())];
    for (number, held) in (1..).zip(held) {
        let place = held.place();
        let name = |name: &str| match number {
            1 => OsString::from(name),
            number => OsString::from(format!("{name}_{number}")),
        };
        let device = place.guarded().unwrap_or(place.device());
        variables.push((name("MMP_DEVICE"), device.canonical().into()));
        variables.push((name("MMP_NODE"), OsString::from_vec(place.medium().owner().node.bytes().to_vec())));
        if let Some(superblock) = place.superblock() {
            variables.push((name("MMP_BLOCK"), superblock.mmp_block.to_string().into()));
        }
        if let Some((area, slot)) = place.slot() {
            variables.push((name("MMP_AREA"), render::uuid(&area.header.uuid).into()));
            variables.push((name("MMP_SLOT"), slot.number.to_string().into()));
        }
        if let Some(generation) = held.generation() {
            variables.push((name("MMP_GENERATION"), generation.to_string().into()));
        }
    }
    variables
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
