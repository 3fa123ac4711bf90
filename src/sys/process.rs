//! Processes: who descends from whom, and how to end all of them.
//!
//! [`kill_tree`] protects against what a group or a session cannot catch: daemons that forked twice, processes with
//! sessions of their own, ignored signals. It relies on the root being a *subreaper*: then every orphan becomes its
//! child, no descendant ever leaves, and "no children" (`ECHILD`) proves that there are no descendants. A scan of
//! `/proc` alone proves nothing, since processes fork and end while it runs.
//!
//! It does not reach what another process starts on request (systemd, cron, a container daemon), and cannot end
//! a process in uninterruptible sleep: that one dies when its I/O ends, and is reported. Nobody but a descendant
//! is ever signalled: each is pinned by a pidfd and looked at again before the signal, so a reused pid is not hit.

use std::collections::HashSet;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::prctl;
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use crate::clock;

mod stat;
pub use stat::{
    LastCall, Stat, ThreadState, ancestors, descendants, last_call, leader_lives, may_administer, processes,
    thread_state,
};

/// Makes the orphans among this process's descendants its children, and lets it hear of their ends: under an ignored
/// SIGCHLD, which a careless parent passes on through exec, the kernel would throw away how they ended.
///
/// # Errors
/// When the kernel refuses (before Linux 3.4).
pub fn become_subreaper() -> io::Result<()> {
    // SAFETY: SIG_DFL installs no handler.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_DFL) };
    Ok(prctl::set_child_subreaper(true)?)
}

/// A process that cannot be mistaken for a later one with the same pid.
#[derive(Debug)]
pub struct ProcessRef {
    pid: Pid,
    start_time: u64,
    /// `None` before Linux 5.3.
    pidfd: Option<OwnedFd>,
}

impl ProcessRef {
    /// Pins the process that `pid` names now.
    ///
    /// # Errors
    /// `ESRCH` when there is none; otherwise what pidfd_open(2) says.
    pub fn open(pid: Pid) -> io::Result<Self> {
        let pidfd = match pidfd_open(pid) {
            Ok(fd) => Some(fd),
            Err(Errno::ENOSYS) => None,
            Err(error) => return Err(error.into()),
        };
        // Read after the pin: whatever it says is about the pinned one, or the pinned one is gone.
        let stat = Stat::of(pid.as_raw()).ok_or(Errno::ESRCH)?;
        Ok(ProcessRef { pid, start_time: stat.start_time, pidfd })
    }

    /// Its pid.
    #[must_use]
    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// The descriptor that pins it, for a fork that closes others. `None` before Linux 5.3.
    #[must_use]
    pub fn descriptor(&self) -> Option<RawFd> {
        self.pidfd.as_ref().map(AsRawFd::as_raw_fd)
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// `ESRCH` when it ended (also when the pid is somebody else's by now), `EPERM` when we may not.
    pub fn signal(&self, signal: i32) -> io::Result<()> {
        match &self.pidfd {
            Some(fd) => Ok(pidfd_send_signal(fd, signal)?),
            None => {
                let stat = Stat::of(self.pid.as_raw()).filter(|stat| stat.start_time == self.start_time);
                stat.ok_or(Errno::ESRCH)?;
                // SAFETY: kill(2) takes two integers and touches no memory of ours.
                Ok(Errno::result(unsafe { libc::kill(self.pid.as_raw(), signal) }).map(drop)?)
            }
        }
    }
}

/// Signals a process that a scan found, if it still is that one.
///
/// # Errors
/// As [`ProcessRef::signal`].
pub fn signal_found(stat: &Stat, signal: i32) -> io::Result<()> {
    let process = ProcessRef::open(Pid::from_raw(stat.pid))?;
    if process.start_time != stat.start_time {
        return Err(Errno::ESRCH.into());
    }
    process.signal(signal)
}

/// Signals every process of a group. The group must be known to exist still: its leader unreaped, or a member alive.
///
/// # Errors
/// `ESRCH` when there is none, `EPERM` when we may signal none of them.
pub fn signal_group(group: Pid, signal: i32) -> io::Result<()> {
    if group.as_raw() <= 1 {
        return Err(Errno::EINVAL.into()); // 0, -1 and 1 mean somebody else, or everybody
    }
    // SAFETY: kill(2) takes two integers and touches no memory of ours.
    Ok(Errno::result(unsafe { libc::kill(-group.as_raw(), signal) }).map(drop)?)
}

/// A process that outlived its SIGKILL so far.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Left {
    /// Its pid.
    pub pid: i32,
    /// Its name, as it chose it: escape it before showing it.
    pub comm: String,
    /// Its state; D means that it waits for I/O and dies when that ends, Z that a thread of it does.
    pub state: char,
}

impl Left {
    /// It only waits for its I/O to end: nothing more can be done to it.
    #[must_use]
    pub fn is_stuck(&self) -> bool {
        matches!(self.state, 'D' | 'Z')
    }
}

/// What [`kill_tree`] achieved.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KillReport {
    /// At least so many processes were killed; one that its own dying parent reaped may be missing.
    pub killed: usize,
    /// Which of them still are there.
    pub still_there: Vec<Left>,
}

/// Kills every descendant of this process, which should be a subreaper, except `spare` and theirs, and reaps them,
/// telling `reaped` how each ended. Returns when none is left, or after `limit` with those that still are there.
///
/// Without `spare` the end is exact: no children are left (`ECHILD`). With it, two scans in a row that find none.
pub fn kill_tree(spare: &[Pid], limit: Duration, reaped: &mut dyn FnMut(Pid, Change)) -> KillReport {
    let until = clock::mono() + limit;
    let mut signalled = HashSet::new();
    let mut killed = HashSet::new();
    let mut pause = Duration::from_millis(1);
    let mut clean_scans = 0;
    loop {
        let found = descendants(Pid::this(), spare);
        for stat in found.iter().flatten().filter(|stat| !stat.is_over()) {
            let name = (stat.pid, stat.start_time);
            if !signalled.contains(&name) && signal_found(stat, libc::SIGKILL).is_ok() {
                signalled.insert(name);
                killed.insert(stat.pid);
            }
        }
        let no_children = reap(found.as_deref().unwrap_or_default(), spare, &mut |pid, change| {
            if change == Change::Killed(libc::SIGKILL) {
                killed.insert(pid.as_raw()); // also one that a cgroup killed before it was found
            }
            reaped(pid, change);
        });
        clean_scans = if found.as_ref().is_ok_and(Vec::is_empty) { clean_scans + 1 } else { 0 };
        let clean = no_children || (!spare.is_empty() && clean_scans >= 2);
        if clean || clock::mono() >= until {
            let still_there = if clean { Vec::new() } else { not_proved_gone(spare) };
            return KillReport { killed: killed.len().saturating_sub(still_there.len()), still_there };
        }
        clock::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(20));
    }
}

/// What is left when nothing proved that nothing is.
fn not_proved_gone(spare: &[Pid]) -> Vec<Left> {
    let left = left(spare);
    // Children, and none in the listing, not even a zombie (a debugger may keep those): they fork faster than they are found.
    let unseen =
        left.is_empty() && spare.is_empty() && descendants(Pid::this(), spare).is_ok_and(|d| d.is_empty());
    if unseen && !reap_all(Wait::Ends, &mut |_, _| {}) {
        return vec![Left { pid: 0, comm: "unknown: forks faster than it is found".to_owned(), state: 'R' }];
    }
    left
}

/// The descendants of this process that may still run, except `spare` and theirs. If that cannot be found out, an
/// entry says so: unknown is not empty.
#[must_use]
pub fn left(spare: &[Pid]) -> Vec<Left> {
    match descendants(Pid::this(), spare) {
        Ok(found) => {
            let alive = found.into_iter().filter(|stat| !stat.is_over());
            alive.map(|stat| Left { pid: stat.pid, comm: stat.comm, state: stat.state }).collect()
        }
        Err(error) => vec![Left { pid: 0, comm: format!("unknown: /proc: {error}"), state: '?' }],
    }
}

/// How a child changed. Signals are plain numbers: real-time ones have no name everywhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It ended with this status, 0 to 255.
    Exited(i32),
    /// A signal ended it.
    Killed(i32),
    /// A signal stopped it (only when asked for with [`Wait::EndsAndStops`]).
    Stopped(i32),
}

/// Which changes to collect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// Children that ended.
    Ends,
    /// Also children that were stopped.
    EndsAndStops,
}

/// Collects every change of a child, without waiting, and reaps those that ended. Says whether no children are
/// left at all, which for a subreaper means: no descendants.
pub fn reap_all(wait: Wait, changed: &mut dyn FnMut(Pid, Change)) -> bool {
    loop {
        match wait_no_hang(Pid::from_raw(-1), wait) {
            Ok(Some((pid, change))) => changed(pid, change),
            Ok(None) => return false,
            Err(error) => return error == Errno::ECHILD,
        }
    }
}

/// As [`reap_all`] for what ended, but touches no child that is to be spared.
fn reap(found: &[Stat], spare: &[Pid], changed: &mut dyn FnMut(Pid, Change)) -> bool {
    if spare.is_empty() {
        return reap_all(Wait::Ends, changed);
    }
    for stat in found.iter().filter(|stat| stat.parent == Pid::this().as_raw()) {
        if let Ok(Some((pid, change))) = wait_no_hang(Pid::from_raw(stat.pid), Wait::Ends) {
            changed(pid, change);
        }
    }
    false
}

fn wait_no_hang(pid: Pid, wait: Wait) -> Result<Option<(Pid, Change)>, Errno> {
    let flags = libc::WNOHANG | if wait == Wait::EndsAndStops { libc::WUNTRACED } else { 0 };
    let mut status = 0;
    // SAFETY: waitpid(2) writes one int, which lives here. nix's wrapper fails on real-time signals and so loses
    // which child it reaped.
    let pid = Errno::result(unsafe { libc::waitpid(pid.as_raw(), &raw mut status, flags) })?;
    let change = if libc::WIFEXITED(status) {
        Change::Exited(libc::WEXITSTATUS(status))
    } else if libc::WIFSTOPPED(status) {
        Change::Stopped(libc::WSTOPSIG(status))
    } else {
        Change::Killed(libc::WTERMSIG(status))
    };
    Ok((pid != 0).then_some((Pid::from_raw(pid), change)))
}

fn pidfd_open(pid: Pid) -> Result<OwnedFd, Errno> {
    // SAFETY: pidfd_open(2) takes two integers and gives a new descriptor or an error.
    let fd = Errno::result(unsafe { libc::syscall(libc::SYS_pidfd_open, pid.as_raw(), 0) })?;
    let fd = i32::try_from(fd).map_err(|_| Errno::EBADF)?;
    // SAFETY: the kernel just made this descriptor for us; it is close-on-exec by itself.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn pidfd_send_signal(pidfd: &OwnedFd, signal: i32) -> Result<(), Errno> {
    let none = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: pidfd_send_signal(2) with a null siginfo reads no memory; the descriptor is open.
    let result = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), signal, none, 0) };
    Errno::result(result).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_found_and_a_signal_to_one_that_ended_goes_nowhere() {
        let me = Stat::of(Pid::this().as_raw()).unwrap();
        assert!(!me.is_over());
        assert!(processes().unwrap().iter().any(|stat| stat.pid == me.pid));
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let pid = Pid::from_raw(i32::try_from(child.id()).unwrap());
        let process = ProcessRef::open(pid).unwrap();
        child.wait().unwrap();
        assert_eq!(process.signal(0).unwrap_err().raw_os_error(), Some(libc::ESRCH));
        let mut found = me.clone();
        found.start_time += 1; // the same pid, another process
        assert!(signal_found(&found, libc::SIGKILL).is_err());
    }
}
