//! The guard's control socket: one request a connection, one answer, each a line of JSON.
//!
//! Protects: the socket is its owner's alone (mode 0600, root); a request that cannot be meant gets an error, and one
//! that is slow to come is dropped. Nothing here is on the path of a look or a beat.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Activity, CommandEnd, Event, Guardian, Held, Mode, PERIOD, Resumption, ToKeeper, clock, exit};
use crate::clock::Mono;
use crate::driver::Beat;
use crate::sys::fence::{FenceTarget, prepare};

/// How long a client may take to say what he wants.
const PATIENCE: Duration = Duration::from_secs(1);
/// A request is far shorter.
const REQUEST_BYTES: u64 = 1 << 16;
/// How long it may take until we beat what has become read-only.
const SETTLE: Duration = Duration::from_secs(5);
/// How long a remount may take.
const REMOUNT_PATIENCE: Duration = Duration::from_secs(60);

/// What a guard can be asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "do", deny_unknown_fields)]
pub(in crate::cli) enum Request {
    /// Remount with these options.
    Remount {
        /// For mount(8), separated by commas.
        options: String,
    },
    /// Tell the last beats.
    History,
}

/// What it says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::cli) struct Answer {
    /// As an exit code.
    pub(in crate::cli) code: u8,
    /// For the user.
    pub(in crate::cli) text: String,
    /// The last looks and beats, if they were asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(in crate::cli) history: Option<Vec<BeatReport>>,
}

/// A look, and the beat that followed it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::cli) struct BeatReport {
    /// When it began, in nanoseconds of `CLOCK_BOOTTIME`.
    pub(in crate::cli) boottime_ns: u64,
    /// How long the look took.
    pub(in crate::cli) read_ns: u64,
    /// How long the write took; none where a kernel beats.
    pub(in crate::cli) write_ns: Option<u64>,
    /// How late it began.
    pub(in crate::cli) late_ns: u64,
}

impl From<&Beat> for BeatReport {
    fn from(beat: &Beat) -> Self {
        let ns = |length: Duration| u64::try_from(length.as_nanos()).unwrap_or(u64::MAX);
        BeatReport {
            boottime_ns: beat.at.0,
            read_ns: ns(beat.read),
            write_ns: beat.write.map(ns),
            late_ns: ns(beat.late),
        }
    }
}

pub(super) struct Listener(UnixListener);

impl Listener {
    /// Listens there; what a dead guard left is replaced (the lock says that it is dead).
    pub(super) fn at(path: &Path) -> io::Result<Self> {
        let _ = std::fs::remove_file(path);
        let listener = UnixListener::bind(path)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
        listener.set_nonblocking(true)?;
        Ok(Listener(listener))
    }

    /// The next request, if somebody asks.
    pub(super) fn accept(&self) -> Option<(Request, UnixStream)> {
        let (stream, _) = self.0.accept().ok()?;
        stream.set_nonblocking(false).ok()?;
        stream.set_write_timeout(Some(PATIENCE)).ok()?;
        let line = read_line(&stream, clock::mono() + PATIENCE)?;
        match serde_json::from_slice(&line) {
            Ok(request) => Some((request, stream)),
            Err(error) => {
                let text = format!("not understood: {error}");
                answer(stream, &Answer { code: exit::USAGE, text, history: None });
                None
            }
        }
    }
}

/// A request, whole by then: who sends a byte now and then must not keep the guard from its work.
fn read_line(mut stream: &UnixStream, until: Mono) -> Option<Vec<u8>> {
    let (mut line, mut part) = (Vec::new(), [0; 4096]);
    while !line.contains(&b'\n') && (line.len() as u64) < REQUEST_BYTES {
        let left = until.since(clock::mono());
        if left.is_zero() {
            return None;
        }
        stream.set_read_timeout(Some(left)).ok()?;
        match stream.read(&mut part) {
            Ok(0) => break,
            Ok(read) => line.extend_from_slice(&part[..read]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return None,
        }
    }
    let end = line.iter().position(|&byte| byte == b'\n').unwrap_or(line.len());
    line.truncate(end);
    Some(line)
}

/// Answers, to whoever still listens.
pub(super) fn answer(mut stream: UnixStream, answer: &Answer) {
    if let Ok(mut line) = serde_json::to_vec(answer) {
        line.push(b'\n');
        let _ = stream.write_all(&line);
    }
}

/// Asks the guard that listens at `path`.
pub(in crate::cli) fn ask(path: &Path, request: &Request) -> io::Result<Answer> {
    let mut stream = UnixStream::connect(path)?;
    let patience = match request {
        Request::Remount { .. } => REMOUNT_PATIENCE + PATIENCE,
        // A guard that releases, or that hangs, answers later than that, or never.
        Request::History => PATIENCE * 5,
    };
    stream.set_read_timeout(Some(patience))?;
    let mut line = serde_json::to_vec(request)?;
    line.push(b'\n');
    stream.write_all(&line)?;
    let mut said = String::new();
    BufReader::new(stream.take(REQUEST_BYTES)).read_line(&mut said)?;
    Ok(serde_json::from_str(&said)?)
}

impl Guardian {
    pub(super) fn carry_out(&mut self, held: &mut Held, request: &Request) -> Answer {
        let options = match request {
            Request::Remount { options } => options,
            Request::History => {
                let history = held.history(Mono(0)).iter().map(BeatReport::from).collect();
                return Answer { code: exit::DONE, text: String::new(), history: Some(history) };
            }
        };
        let wants = |wanted: &str| options.split(',').any(|option| option == wanted);
        let writable = wants("rw") || !wants("ro");
        self.settle(held);
        // In an area it is for us to beat, however it is mounted.
        let beating = held.mode() == Mode::Beating && !self.task.area;
        match self.view.ask() {
            Activity::Gone | Activity::Ending => refuse("it is not mounted any more"),
            Activity::Stopped => refuse(
                "the kernel has stopped the filesystem after an error; unmount it (mmp keeps it until then), check it \
                 with e2fsck, and mount it again",
            ),
            // The kernel is to beat again.
            Activity::ReadOnly if beating && wants("rw") => self.make_writable(held, options),
            // mount(8) would keep it read-only; said so, lest the block be handed over for nothing.
            Activity::ReadOnly if beating && writable && !wants("ro") => {
                self.run_remount(held, &format!("ro,{options}"))
            }
            _ => self.run_remount(held, options),
        }
    }

    /// A mount that has just become read-only: its kernel beats no more, and it is seen at the next look.
    fn settle(&mut self, held: &mut Held) {
        let until = clock::mono() + SETTLE;
        while held.mode() == Mode::Watching && self.view.ask() == Activity::ReadOnly {
            if self.step(held, until).is_some() {
                return;
            }
        }
    }

    /// Hands the block back to the kernel, and remounts.
    fn make_writable(&mut self, held: &mut Held, options: &str) -> Answer {
        let target = FenceTarget {
            target: self.task.target(),
            filesystem: self.task.filesystem.clone(),
            spare: Vec::new(),
        };
        if !self.task.incomplete_fence && !prepare(&self.task.on_loss, &target).is_complete() {
            return refuse(
                "nothing of its ladder cuts the device off for certain; read-only it could stay guarded without, but \
                 not writable: unmount it, and mount it with another --on-loss",
            );
        }
        held.hand_over(true);
        let until = clock::mono() + REMOUNT_PATIENCE;
        // Or the kernel has it back by itself: the administrator's own remount was faster.
        while !matches!(held.mode(), Mode::Expecting | Mode::Watching) {
            if let Some(answer) = self.step(held, until) {
                held.mount_ended(true);
                return answer;
            }
        }
        if held.mode() == Mode::Watching {
            return self.run_remount(held, options);
        }
        self.start_remount(options);
        let mut stopped = false;
        loop {
            match held.next_event(PERIOD) {
                Some(Event::KernelBeats { .. }) => {
                    let (end, said) = self.mount_end.take().unwrap_or((CommandEnd::Exited(0), String::new()));
                    return remounted(end, &said, true);
                }
                Some(Event::Resumed { why: Resumption::ReadOnly }) => {
                    let (end, said) = self.mount_end.take().unwrap_or((CommandEnd::Exited(0), String::new()));
                    return remounted(end, &said, false);
                }
                Some(Event::Overtaken { .. }) => self.tell_keeper(&ToKeeper::StopMount),
                Some(event @ Event::Lost { .. }) => {
                    held.put_back(event);
                    return refuse("protection was lost");
                }
                Some(event) => self.heard(&event),
                None if held.is_over() => return refuse("it came to no end"),
                None => {}
            }
            if !stopped && clock::mono() >= until {
                // What came of it decides who beats, so that is waited for.
                stopped = true;
                self.tell_keeper(&ToKeeper::StopMount);
            }
            let waiting = self.mount_end.is_none();
            self.tend(held);
            if let (true, Some((end, _))) = (waiting, &self.mount_end) {
                held.mount_ended(matches!(end, CommandEnd::Killed(_)));
            }
        }
    }

    /// A remount that leaves the beats to whoever beats.
    fn run_remount(&mut self, held: &mut Held, options: &str) -> Answer {
        let until = clock::mono() + REMOUNT_PATIENCE;
        self.start_remount(options);
        loop {
            if let Some((end, said)) = self.mount_end.take() {
                return remounted(end, &said, true);
            }
            if let Some(answer) = self.step(held, until) {
                self.tell_keeper(&ToKeeper::StopMount);
                return answer;
            }
        }
    }

    fn start_remount(&mut self, options: &str) {
        let options = format!("remount,{options}");
        let arguments = vec!["-o".into(), options.into(), self.task.dir.clone().into()];
        self.ask_to_mount(arguments);
    }

    /// One round of the guard's loop beside a remount.
    fn step(&mut self, held: &mut Held, until: crate::clock::Mono) -> Option<Answer> {
        match held.next_event(PERIOD) {
            Some(event @ (Event::Lost { .. } | Event::Unmounted | Event::Released)) => {
                held.put_back(event);
                return Some(refuse("it is not guarded any more"));
            }
            Some(event) => self.heard(&event),
            None => {}
        }
        self.tend(held);
        (clock::mono() >= until).then(|| refuse("it took too long"))
    }
}

fn refuse(text: &str) -> Answer {
    Answer { code: exit::IO, text: text.to_owned(), history: None }
}

fn remounted(end: CommandEnd, said: &str, worked: bool) -> Answer {
    let lines: Vec<_> = said.lines().map(|line| crate::format::name::escape(line.as_bytes())).collect();
    let said = lines.join("\n  ");
    match end {
        CommandEnd::Exited(0) if worked => Answer { code: exit::DONE, text: said, history: None },
        CommandEnd::Exited(0) => refuse("mount(8) did not make it writable"),
        _ if said.is_empty() => refuse("mount(8) failed"),
        _ => refuse(&said),
    }
}
