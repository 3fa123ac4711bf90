//! Asking the daemon, from the command line.
//!
//! Protects: what the daemon cannot do for this process (another mount namespace, a name that is not UTF-8) is done without it, as
//! if there were none; in a mount unit of systemd's it is refused instead, since what guards must not be killed with the unit. A
//! signal withdraws, as it does without a daemon.

use std::io::{self, Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde::Deserialize;
use serde_json::{Value, json};

use super::instance;
use super::request::{AdoptRequest, MountRequest};
use super::varlink::{self, Call, Reply};
use crate::cli::args::{Adopt, Mount};
use crate::cli::exit;
use crate::cli::guard::{self, Asker, Terminal};
use crate::cli::progress::Told;
use crate::clock::{self, Mono};
use crate::error::Error;
use crate::registry::{Phase, Registry};
use crate::sys::process::leader_lives;

/// How long it takes until it is known what became of a guard whose daemon died.
const AFTERMATH: Duration = Duration::from_secs(3);
/// How often a countdown is redrawn.
const TICK: u16 = 100;
/// How often the daemon is looked for while it has no answer.
const DAEMON_LOOK: Duration = Duration::from_secs(1);

/// Has the daemon mount; gives the exit code. None if there is no daemon, or none that could do it for this process.
pub(in crate::cli) fn mount(arguments: &Mount) -> Result<Option<u8>, Error> {
    let Some(request) = MountRequest::of(arguments)? else { return alone(&arguments.device) };
    let dir = arguments.dir.canonicalize().ok();
    let about = About { device: &arguments.device, dir, since_s: clock::wall().0 };
    ask_for_guard("Mount", json!({ "request": request }), &about, arguments.quiet)
}

/// As [`mount`], for what is mounted already.
pub(in crate::cli) fn adopt(arguments: &Adopt) -> Result<Option<u8>, Error> {
    let Some(request) = AdoptRequest::of(arguments)? else { return alone(&arguments.device) };
    let parameters = serde_json::to_value(request).unwrap_or_default();
    let about = About { device: &arguments.device, dir: None, since_s: clock::wall().0 };
    ask_for_guard("Adopt", parameters, &about, arguments.quiet)
}

/// What came of a call.
pub(in crate::cli) enum Answer {
    /// There is no daemon, or none that this user may ask.
    NoDaemon,
    Done(Value),
    Refused {
        exit_code: u8,
        text: String,
    },
}

/// One call with one reply.
pub(in crate::cli) fn call(method: &str, parameters: Value) -> Result<Answer, Error> {
    let path = socket();
    let fail = |source| Error::io("talk to the daemon at", &path, source);
    let Some(mut line) = Line::connect(&path).map_err(fail)? else { return Ok(Answer::NoDaemon) };
    line.send(method, parameters, false).map_err(fail)?;
    loop {
        if let Some(reply) = line.receive().map_err(fail)? {
            return Ok(match reply.error {
                None => Answer::Done(reply.parameters),
                Some(name) => {
                    let (exit_code, text) = refusal(&name, &reply.parameters);
                    Answer::Refused { exit_code, text }
                }
            });
        }
        line.wait(None, PollTimeout::from(TICK));
    }
}

/// Where the daemon listens.
pub(in crate::cli) fn socket() -> PathBuf {
    super::control_socket(&Registry::host())
}

/// What is asked for.
struct About<'a> {
    device: &'a Path,
    /// Where it is to be mounted.
    dir: Option<PathBuf>,
    /// When it was asked for.
    since_s: u64,
}

fn ask_for_guard(
    method: &str,
    parameters: Value,
    about: &About<'_>,
    quiet: bool,
) -> Result<Option<u8>, Error> {
    let path = socket();
    let fail = |source| Error::io("talk to the daemon at", &path, source);
    // Only root may; anybody else is told so by what he cannot do himself.
    let device = about.device;
    let Some(mut line) = Line::connect(&path).map_err(fail)? else { return alone(device) };
    let mut terminal = Terminal::new(quiet).map_err(fail)?;
    line.send(method, parameters, true).map_err(fail)?;
    let mut withdrawn = 0;
    loop {
        while terminal.wants_out() {
            withdrawn += 1;
            if withdrawn > 1 {
                terminal.complain("interrupted twice; leaving at once, the daemon goes on taking it back");
                return Ok(Some(exit::INTERRUPTED));
            }
            let _ = line.stream.shutdown(std::net::Shutdown::Write);
        }
        match line.receive() {
            Ok(Some(reply)) => match tell(&reply, &mut terminal) {
                Heard::Goes => {}
                Heard::Ended(code) => {
                    terminal.clear();
                    return Ok(Some(code));
                }
                Heard::NotForUs(_) if withdrawn > 0 => {
                    terminal.clear();
                    return Ok(Some(exit::INTERRUPTED));
                }
                Heard::NotForUs(why) => {
                    terminal.line(&format!("not by the daemon: {why}; guarded by processes of its own"));
                    return alone(device);
                }
            },
            Ok(None) => line.wait(terminal.descriptor(), PollTimeout::from(TICK)),
            Err(error) => {
                terminal.clear();
                if about.is_guarded() {
                    terminal.line("the daemon ended just when it was guarded; its keeper goes on with it");
                    return Ok(Some(exit::DONE));
                }
                let what = format!("the daemon ended before it had an answer ({error}); see `mmp status`");
                return Err(Error::Daemon { what });
            }
        }
        terminal.tick();
    }
}

impl About<'_> {
    /// It was guarded, and its keeper has found another driver, within a moment.
    fn is_guarded(&self) -> bool {
        let until = clock::mono() + AFTERMATH;
        loop {
            let found = guard::find(&Registry::host(), self.device);
            // An earlier guard, which was waited for, is none.
            let found = found.filter(|(_, record)| {
                record.since_s >= self.since_s && (self.dir.is_none() || record.dir == self.dir)
            });
            match found {
                Some((slot, record)) if record.phase == Phase::Guarding && slot.is_locked() => return true,
                Some(_) if clock::mono() < until => clock::sleep(AFTERMATH / 20),
                _ => return false,
            }
        }
    }
}

enum Heard {
    Goes,
    Ended(u8),
    NotForUs(String),
}

#[derive(Debug, Default, Deserialize)]
struct Said {
    #[serde(flatten)]
    told: Told,
    /// Also for one who wants to hear nothing but errors.
    #[serde(default)]
    complaint: Option<String>,
    #[serde(default)]
    ended: Option<Ended>,
}

#[derive(Debug, Deserialize)]
struct Ended {
    exit_code: u8,
    #[serde(default)]
    text: Option<String>,
}

fn tell(reply: &Reply, terminal: &mut Terminal) -> Heard {
    match reply.error.as_deref() {
        Some("org.mmpguard.NotForYou") => {
            return Heard::NotForUs(text_of(&reply.parameters, "why"));
        }
        Some(name) => {
            let (exit_code, text) = refusal(name, &reply.parameters);
            terminal.complain(&text);
            return Heard::Ended(exit_code);
        }
        None => {}
    }
    let said: Said = serde_json::from_value(reply.parameters.clone()).unwrap_or_default();
    if let Some(complaint) = said.complaint {
        terminal.complain(&complaint);
    }
    match said.ended {
        Some(ended) => {
            if let Some(text) = ended.text {
                terminal.complain(&text);
            }
            Heard::Ended(ended.exit_code)
        }
        None => {
            terminal.show(&said.told);
            Heard::Goes
        }
    }
}

fn refusal(name: &str, parameters: &Value) -> (u8, String) {
    let text = match name {
        "org.mmpguard.Failed" => text_of(parameters, "text"),
        "org.mmpguard.NotAllowed" => "the daemon does that for root alone".to_owned(),
        name => format!("the daemon refuses: {name} {parameters}"),
    };
    let code = parameters.get("exit_code").and_then(Value::as_u64);
    (code.and_then(|code| u8::try_from(code).ok()).unwrap_or(exit::IO), text)
}

fn text_of(parameters: &Value, key: &str) -> String {
    parameters.get(key).and_then(Value::as_str).unwrap_or_default().to_owned()
}

/// Without the daemon: not in a mount unit, where what guards would be killed with it.
fn alone(device: &Path) -> Result<Option<u8>, Error> {
    if !in_mount_unit(&std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default()) {
        return Ok(None);
    }
    let what = "in a mount unit of systemd's the daemon guards, since what guards must not be killed with the unit; there is none that \
                could: `systemctl enable --now mmpd.socket`"
        .to_owned();
    Err(Error::Unsupported { path: device.to_owned(), what })
}

/// True of the control group of a unit whose name ends in `.mount`.
fn in_mount_unit(cgroups: &str) -> bool {
    cgroups.lines().any(|line| line.rsplit('/').next().is_some_and(|last| last.ends_with(".mount")))
}

/// A connection to the daemon.
struct Line {
    stream: UnixStream,
    buffer: Vec<u8>,
    /// The daemon that was seen to live since it was made.
    daemon: Option<i32>,
    /// When that is asked again.
    next_look: Mono,
}

impl Line {
    /// None if nobody listens there, or only others may.
    fn connect(path: &Path) -> io::Result<Option<Self>> {
        use io::ErrorKind::{ConnectionRefused, NotFound, PermissionDenied};
        match UnixStream::connect(path) {
            Ok(stream) => {
                stream.set_nonblocking(true)?;
                Ok(Some(Line { stream, buffer: Vec::new(), daemon: None, next_look: Mono(0) }))
            }
            Err(error) if matches!(error.kind(), NotFound | ConnectionRefused | PermissionDenied) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn send(&mut self, method: &str, parameters: Value, more: bool) -> io::Result<()> {
        let method = format!("{}.{method}", varlink::INTERFACE_NAME);
        self.stream.set_nonblocking(false)?;
        self.stream.write_all(&varlink::message(&Call { method, parameters, more, oneway: false }))?;
        self.stream.set_nonblocking(true)
    }

    /// The next reply, if it is there.
    ///
    /// A daemon that died closes its end, unless a thread of it hangs in a device: then its successor tells that it is gone. (Who is at the
    /// other end says the kernel, but of a socket that systemd made it says systemd.)
    fn receive(&mut self) -> io::Result<Option<Reply>> {
        let died = self.has_died();
        let reply = self.read_reply()?;
        if died && reply.is_none() { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(reply) }
    }

    fn has_died(&mut self) -> bool {
        if clock::mono() < self.next_look {
            return false;
        }
        self.next_look = clock::mono() + DAEMON_LOOK;
        let now = instance::daemon_pid(&Registry::host()).filter(|&pid| leader_lives(pid));
        let before = self.daemon;
        self.daemon = before.or(now);
        before.is_some() && before != now
    }

    fn read_reply(&mut self) -> io::Result<Option<Reply>> {
        loop {
            if let Some(message) = varlink::next_message(&mut self.buffer) {
                return Ok(Some(serde_json::from_slice(&message)?));
            }
            let mut bytes = [0; 4096];
            match self.stream.read(&mut bytes) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(read) => self.buffer.extend_from_slice(&bytes[..read]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn wait(&self, other: Option<std::os::fd::BorrowedFd<'_>>, patience: PollTimeout) {
        let all = std::iter::once(self.stream.as_fd()).chain(other);
        let mut fds: Vec<_> = all.map(|fd| PollFd::new(fd, PollFlags::POLLIN)).collect();
        // EINTR only wakes us early.
        let _ = poll(&mut fds, patience);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_unit_is_told_by_its_control_group() {
        assert!(in_mount_unit("0::/system.slice/srv-data.mount\n"));
        assert!(in_mount_unit("12:cpu:/\n1:name=systemd:/system.slice/srv.mount\n"));
        assert!(!in_mount_unit("0::/user.slice/user-0.slice/session-1.scope\n"));
        assert!(!in_mount_unit("0::/system.slice/data.mount.service\n0::/\n"));
        assert!(!in_mount_unit(""));
    }
}
