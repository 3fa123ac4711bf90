//! Starting processes: our own by fork without exec, the protected command by fork and exec.
//!
//! Two things are guarded here. *Descriptors*: an end of a pipe that one process too many holds never reports its
//! end, and so the death of a process would go unnoticed; every child closes what is not its own. Ours are
//! all close-on-exec and the user's are not, which tells them apart. *Inheritance*: the command starts as if the user had
//! started it, without our scheduling, OOM score, signal mask and descriptors.
//!
//! The command's start is asynchronous: reading a program from a hung disk must not keep the keeper from its fence.

use std::ffi::OsString;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::Command;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
use nix::sys::prctl;
use nix::sys::signal::{SigSet, SigmaskHow, Signal, pthread_sigmask};
use nix::unistd::{ForkResult, Pid, fork, getppid, pipe2, setpgid, setsid};
use serde::{Deserialize, Serialize};

use super::cgroup::Cgroup;
use super::realtime::Protection;
use super::terminal;

/// What a panic of a forked process exits with, as a panicking Rust program does.
const PANICKED: i32 = 101;
/// The first real-time signal's number is above it; the last signal's is 64.
const LAST_SIGNAL: libc::c_int = 64;

/// Where a forked process of ours belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// A process group of its own in the same session: keys pressed on the terminal do not reach it.
    OwnGroup,
    /// A session of its own: it has no terminal at all.
    OwnSession,
}

/// Which descriptors a forked process of ours keeps.
#[derive(Clone, Copy, Debug)]
pub enum Descriptors<'a> {
    /// These, and what the user passed to us (whatever is not close-on-exec): for who starts the command later.
    Passed(&'a [RawFd]),
    /// These, and `/dev/null` as standard input, output and error: it holds up no pipe and no lock of the user's.
    Only(&'a [RawFd]),
}

/// Forks a process that runs `body` and ends with its result, without exec. It starts with every signal blocked.
///
/// What `body` captured is a copy; a descriptor among it is open in the child only if `keep` names it, and values
/// of the caller's other stack frames must not be touched. Nothing of the parent's is dropped or flushed in the child.
///
/// # Errors
/// When this process has more than one thread (a fork copies only the calling one, and locks that others hold
/// stay locked for ever), or when the kernel refuses.
pub fn fork_process(
    name: &std::ffi::CStr,
    place: Place,
    keep: Descriptors<'_>,
    body: impl FnOnce() -> i32,
) -> io::Result<Pid> {
    let pid = fork_blocked(|| {
        let _ = prctl::set_name(name);
        let _ = match place {
            Place::OwnGroup => setpgid(Pid::from_raw(0), Pid::from_raw(0)).map(drop),
            Place::OwnSession => setsid().map(drop),
        };
        if close_descriptors(keep).is_err() {
            return PANICKED; // not able to guarantee that ends are noticed: better no process at all
        }
        body()
    })?;
    if place == Place::OwnGroup {
        let _ = setpgid(pid, Pid::from_raw(0)); // whoever comes first: afterwards it is so
    }
    Ok(pid)
}

/// Ends this process with all its threads, without exit handlers, buffers and destructors.
pub fn exit_at_once(code: u8) -> ! {
    // SAFETY: _exit(2) returns to nobody.
    unsafe { libc::_exit(code.into()) }
}

/// Forks with all signals blocked, so that none ends the child before it has its own handling.
fn fork_blocked(body: impl FnOnce() -> i32) -> io::Result<Pid> {
    let threads = std::fs::read_dir("/proc/self/task")?.count();
    if threads != 1 {
        return Err(io::Error::other(format!("cannot fork a process with {threads} threads")));
    }
    let mut before = SigSet::empty();
    pthread_sigmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::all()), Some(&mut before))?;
    // SAFETY: this process has one thread, so the child's copy of the memory is consistent and no lock in it is
    // held by a thread that does not exist there.
    let forked = unsafe { fork() };
    if matches!(forked, Ok(ForkResult::Child)) {
        let code = catch_unwind(AssertUnwindSafe(body)).unwrap_or(PANICKED);
        // SAFETY: _exit(2) ends the process without the parent's exit handlers, buffers and destructors.
        unsafe { libc::_exit(code) }
    }
    pthread_sigmask(SigmaskHow::SIG_SETMASK, Some(&before), None)?;
    match forked? {
        ForkResult::Parent { child } => Ok(child),
        ForkResult::Child => unreachable!("the child ended above"),
    }
}

/// Gives up the descriptors the user passed to us, and standard input, output and error: a pipe's reader must not
/// wait for us.
///
/// # Errors
/// When `/proc` or `/dev/null` cannot be read.
pub fn give_up_passed_descriptors() -> io::Result<()> {
    for fd in open_descriptors()? {
        if fd > 2 && is_passed(fd) {
            close(fd);
        }
    }
    stdio_to_null()
}

/// Closes every descriptor but these and the standard ones, and makes those `/dev/null`: for a process of ours that was
/// started by exec.
///
/// # Errors
/// As [`give_up_passed_descriptors`].
pub fn alone_with(keep: &[RawFd]) -> io::Result<()> {
    close_descriptors(Descriptors::Only(keep))
}

/// Makes `file` standard output and standard error of this process, and of what it starts.
///
/// # Errors
/// When there is no descriptor left.
pub fn output_to(file: BorrowedFd<'_>) -> io::Result<()> {
    for fd in 1..=2 {
        // SAFETY: dup2(2) replaces what 1 and 2 stand for; they stay open, as the standard library expects.
        Errno::result(unsafe { libc::dup2(file.as_raw_fd(), fd) })?;
    }
    Ok(())
}

/// The descriptor that this process was given as its standard input, as one of its own.
///
/// # Errors
/// When it is closed, or there is no descriptor left.
pub fn take_stdin() -> io::Result<OwnedFd> {
    // SAFETY: dup(2) makes a descriptor that nobody else knows of.
    let descriptor = Errno::result(unsafe { libc::fcntl(0, libc::F_DUPFD_CLOEXEC, 3) })?;
    // SAFETY: as said.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

fn close_descriptors(keep: Descriptors<'_>) -> io::Result<()> {
    let (kept, passed_too) = match keep {
        Descriptors::Passed(kept) => (kept, true),
        Descriptors::Only(kept) => (kept, false),
    };
    for fd in open_descriptors()? {
        let named = kept.contains(&fd);
        if !named && fd > 2 && !(passed_too && is_passed(fd)) {
            close(fd);
        }
    }
    if passed_too { Ok(()) } else { stdio_to_null() }
}

fn open_descriptors() -> io::Result<Vec<RawFd>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc/self/fd")? {
        found.extend(entry?.file_name().to_str().and_then(|name| name.parse::<RawFd>().ok()));
    }
    Ok(found) // one of them was the listing's own and is closed by now: closing it again does no harm
}

fn is_passed(fd: RawFd) -> bool {
    // SAFETY: the descriptor is used for this one fcntl only, which fails on one that is not open.
    let flags = fcntl(unsafe { BorrowedFd::borrow_raw(fd) }, FcntlArg::F_GETFD);
    flags.is_ok_and(|flags| !FdFlag::from_bits_retain(flags).contains(FdFlag::FD_CLOEXEC))
}

fn close(fd: RawFd) {
    // SAFETY: only called in a process that just forked or gives up what it was passed: nothing in it uses, or will
    // drop, a value that owns this descriptor.
    unsafe { libc::close(fd) };
}

fn stdio_to_null() -> io::Result<()> {
    let both = std::fs::OpenOptions::new().read(true).write(true).open("/dev/null");
    // A device node with the wrong mode is no reason to fail: nothing of ours writes there.
    let null = both.or_else(|_| std::fs::File::open("/dev/null"))?;
    for fd in 0..=2 {
        // SAFETY: dup2(2) replaces what 0, 1 and 2 stand for; they stay open, as the standard library expects.
        Errno::result(unsafe { libc::dup2(null.as_raw_fd(), fd) })?;
    }
    Ok(())
}

/// How a command's start failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SpawnKind {
    /// There is no such program, or its interpreter is missing.
    NotFound,
    /// It is there and cannot be executed.
    NotExecutable,
    /// Something of ours failed: no memory, no process, no pipe.
    Other,
}

/// Why a command did not start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{}", io::Error::from_raw_os_error(*errno))]
pub struct SpawnFailure {
    /// What kind.
    pub kind: SpawnKind,
    /// What the system said.
    pub errno: i32,
}

impl SpawnFailure {
    /// Of execvp(3).
    #[must_use]
    fn of_exec(errno: i32) -> Self {
        let found = errno != libc::ENOENT;
        SpawnFailure { kind: if found { SpawnKind::NotExecutable } else { SpawnKind::NotFound }, errno }
    }

    /// Of what comes before it.
    #[must_use]
    pub fn of_ours(error: &io::Error) -> Self {
        SpawnFailure { kind: SpawnKind::Other, errno: error.raw_os_error().unwrap_or(libc::EINVAL) }
    }
}

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CommandEnd {
    /// With this status.
    Exited(i32),
    /// By this signal.
    Killed(i32),
    /// It never started.
    NotStarted(SpawnFailure),
}

impl CommandEnd {
    /// The exit code, as env(1) and the shell have it: the status itself, 128 + signal, 127 not found, 126 not
    /// executable. `other` is the caller's own code for a failure that is not the command's.
    #[must_use]
    pub fn exit_code(self, other: u8) -> u8 {
        let code = match self {
            CommandEnd::Exited(status) => status,
            CommandEnd::Killed(signal) => 128 + signal,
            CommandEnd::NotStarted(failure) => match failure.kind {
                SpawnKind::NotFound => 127,
                SpawnKind::NotExecutable => 126,
                SpawnKind::Other => i32::from(other),
            },
        };
        u8::try_from(code & 0xff).unwrap_or(other)
    }
}

/// What to start, and how.
#[derive(Debug)]
pub struct CommandSpec<'a> {
    /// The program, looked up in `PATH`, and its arguments. Never empty.
    pub argv: &'a [OsString],
    /// Added to our environment.
    pub env: &'a [(OsString, OsString)],
    /// Give its process group the foreground of the terminal on standard input.
    pub foreground: bool,
    /// Put it into this cgroup.
    pub cgroup: Option<&'a Cgroup>,
    /// What it must not inherit.
    pub protection: &'a Protection,
}

/// A command on its way: forked, perhaps not executing yet.
#[derive(Debug)]
pub struct Spawning {
    /// Its process and its process group.
    pub pid: Pid,
    errors: std::fs::File,
}

/// Forks the command, as the leader of a process group of its own, killed when this process dies.
///
/// # Errors
/// [`SpawnFailure`] when not even the fork succeeded; exec's own failure comes from [`Spawning::result`].
///
/// # Panics
/// If `argv` is empty.
pub fn spawn_command(spec: &CommandSpec<'_>) -> Result<Spawning, SpawnFailure> {
    assert!(!spec.argv.is_empty(), "a command of no words");
    let start = || -> io::Result<Spawning> {
        let (read, write) = pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)?;
        let parent = Pid::this();
        let pid = fork_blocked(|| {
            let errno = execute(spec, parent);
            let _ = nix::unistd::write(&write, &errno.to_ne_bytes());
            127
        })?;
        // Here too, so that a signal to the group finds it from now on.
        let _ = setpgid(pid, pid);
        Ok(Spawning { pid, errors: read.into() })
    };
    start().map_err(|error| SpawnFailure::of_ours(&error))
}

impl Spawning {
    /// Readable when [`Spawning::result`] has something to say.
    #[must_use]
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.errors.as_fd()
    }

    /// `None` while exec has neither succeeded nor failed. Success is also what is said of a command that was
    /// killed before it came to exec: its end says the rest.
    #[must_use]
    pub fn result(&self) -> Option<Result<(), SpawnFailure>> {
        let mut errno = [0; 4];
        match (&self.errors).read(&mut errno) {
            Ok(4) => Some(Err(SpawnFailure::of_exec(i32::from_ne_bytes(errno)))),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => None,
            _ => Some(Ok(())),
        }
    }
}

/// Becomes the command. Returns only on failure, with its error number.
fn execute(spec: &CommandSpec<'_>, parent: Pid) -> i32 {
    let own = Pid::this();
    let _ = setpgid(own, own);
    if let Err(error) = prctl::set_pdeathsig(Signal::SIGKILL) {
        return error as i32;
    }
    if getppid() != parent {
        return libc::ESRCH; // it died before the line above took effect: then nobody would kill us
    }
    if let Some(cgroup) = spec.cgroup {
        let _ = cgroup.join(); // without it the tree is walked
    }
    if spec.foreground {
        let _ = terminal::set_foreground(own); // the terminal may have hung up: no reason not to run
    }
    spec.protection.undo_in_child();
    reset_signals();
    let words = spec.env.iter().map(|(name, value)| (name, value));
    let error = Command::new(&spec.argv[0]).args(&spec.argv[1..]).envs(words).exec();
    error.raw_os_error().unwrap_or(libc::EINVAL)
}

/// Nothing blocked, nothing ignored (the Rust runtime ignores SIGPIPE), except for what nohup(1) and a shell's `&`
/// ignore on purpose; nothing of ours ignores those.
pub(super) fn reset_signals() {
    for signal in 1..=LAST_SIGNAL {
        if ![libc::SIGHUP, libc::SIGINT, libc::SIGQUIT].contains(&signal) {
            // SAFETY: SIG_DFL installs no handler; signals that cannot be set are refused, which is harmless.
            unsafe { libc::signal(signal, libc::SIG_DFL) };
        }
    }
    let _ = pthread_sigmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_are_those_of_env() {
        let not_started = |errno| CommandEnd::NotStarted(SpawnFailure::of_exec(errno)).exit_code(120);
        assert_eq!(CommandEnd::Exited(0).exit_code(120), 0);
        assert_eq!(CommandEnd::Exited(255).exit_code(120), 255);
        assert_eq!(CommandEnd::Killed(libc::SIGKILL).exit_code(120), 137);
        assert_eq!(CommandEnd::Killed(64).exit_code(120), 192);
        assert_eq!(not_started(libc::ENOENT), 127);
        for errno in [libc::EACCES, libc::ENOEXEC, libc::EISDIR, libc::ENOTDIR, libc::E2BIG] {
            assert_eq!(not_started(errno), 126, "{errno}");
        }
        let ours = SpawnFailure::of_ours(&io::Error::from_raw_os_error(libc::ENOENT));
        assert_eq!(CommandEnd::NotStarted(ours).exit_code(120), 120);
        assert_eq!(SpawnFailure::of_exec(libc::ENOENT).to_string(), "No such file or directory (os error 2)");
    }

    #[test]
    fn a_process_with_threads_is_not_forked() {
        let thread = std::thread::spawn(std::thread::park);
        let error = fork_process(c"x", Place::OwnGroup, Descriptors::Only(&[]), || 0).unwrap_err();
        assert!(error.to_string().contains("threads"), "{error}");
        thread.thread().unpark();
        thread.join().unwrap();
    }
}
