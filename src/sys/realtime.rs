//! Keeps a process running when the machine is short of everything.
//!
//! Best effort, each step on its own: locked memory (a page of the program on a hung disk must not be needed when
//! the fence runs), real-time scheduling, no OOM kill, and no memory reclaim through the very device that hangs
//! (`PR_SET_IO_FLUSHER`). What failed is recorded, and shown, and never fatal: without privileges a guard still
//! guards, only less surely under load.
//!
//! None of it may reach a protected command: [`Protection::undo_in_child`] gives back what a fork copies. It does
//! not protect against SIGSTOP, a stopped virtual machine or a hung kernel.

use std::io;
use std::sync::OnceLock;

use nix::errno::Errno;
use nix::sys::mman::{MlockAllFlags, mlockall, munlockall};
use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit, setrlimit};
use serde::{Deserialize, Serialize};

/// prctl(2), Linux 5.6; not in the `libc` crate for every target.
const PR_SET_IO_FLUSHER: libc::c_int = 57;
const PR_GET_IO_FLUSHER: libc::c_int = 58;
/// sched(7); not in the `libc` crate for every target.
const SCHED_RESET_ON_FORK: libc::c_int = 0x4000_0000;
/// The lowest real-time priority: above every ordinary process, below every other real-time one.
const PRIORITY: libc::c_int = 1;
/// `OOM_SCORE_ADJ_MIN`: never chosen (proc_pid_oom_score_adj(5)).
const SPARED: &str = "-1000";

/// Which memory to lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lock {
    /// All of it, read in now: for a small process that must not wait for a disk later.
    Everything,
    /// What is used, from its first use on: for a process with many thread stacks.
    OnFault,
}

/// What [`protect`] achieved, and what it replaced.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Protection {
    /// mlockall(2) succeeded.
    pub locked: bool,
    /// `SCHED_RR`, reset in children.
    pub realtime: bool,
    /// `oom_score_adj` is -1000.
    pub oom: bool,
    /// Memory reclaim for this process starts no I/O.
    pub io_flusher: bool,
    /// One text for each step that failed.
    pub failures: Vec<String>,
    original: Original,
}

/// What a child gets back.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Original {
    oom_score_adj: Option<String>,
    policy: Option<(i32, i32)>,
    nice: Option<i32>,
}

/// Protects the calling process (and the threads it starts from here on, except for the scheduling).
#[must_use]
pub fn protect(lock: Lock) -> Protection {
    let mut done = protect_without_scheduling(lock);
    done.realtime =
        done.note("get real-time scheduling", set_policy(libc::SCHED_RR | SCHED_RESET_ON_FORK, PRIORITY));
    done
}

/// As [`protect`], for a process whose first thread must not come before those that guard.
#[must_use]
pub fn protect_without_scheduling(lock: Lock) -> Protection {
    let mut done = Protection { original: original(), ..Protection::default() };
    keep_heap();
    let flags = match lock {
        Lock::Everything => MlockAllFlags::MCL_CURRENT | MlockAllFlags::MCL_FUTURE,
        // MCL_ONFAULT, Linux 4.4.
        Lock::OnFault => {
            MlockAllFlags::MCL_CURRENT
                | MlockAllFlags::MCL_FUTURE
                | MlockAllFlags::from_bits_retain(libc::MCL_ONFAULT)
        }
    };
    done.locked = done.note("lock its memory", lock_memory(flags));
    done.oom = done.note("be spared by the OOM killer", set_oom_score_adj(SPARED));
    done.io_flusher = done.note("keep memory reclaim from its I/O", set_io_flusher(true));
    done
}

/// Locks memory, unless `RLIMIT_MEMLOCK` applies: then whatever is mapped beyond it fails later on (mlockall(2)), a
/// thread's stack or an allocation of the guard, and that is worse than a page that has to be read in.
fn lock_memory(flags: MlockAllFlags) -> io::Result<()> {
    mlockall(flags)?;
    let (limit, _) = getrlimit(Resource::RLIMIT_MEMLOCK)?;
    match limit == RLIM_INFINITY || may_map_locked(usize::try_from(limit).unwrap_or(usize::MAX)) {
        true => Ok(()),
        false => {
            munlockall()?;
            let limit = format!("RLIMIT_MEMLOCK allows {limit} bytes, and later mappings would fail");
            Err(io::Error::other(limit))
        }
    }
}

/// Whether this process, all of whose mappings are locked, may map so many bytes more. To ask the kernel is the only
/// way to know: a capability that shows may belong to a user namespace and then does not count.
fn may_map_locked(bytes: usize) -> bool {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    // SAFETY: a mapping of its own at an address of the kernel's choice, unmapped again before anybody knows of it.
    unsafe {
        let at = libc::mmap(std::ptr::null_mut(), bytes.max(1), libc::PROT_NONE, flags, -1, 0);
        at != libc::MAP_FAILED && libc::munmap(at, bytes.max(1)) == 0
    }
}

/// Real-time scheduling for the calling thread alone, as [`protect`] gives it to a process's first thread.
///
/// # Errors
/// What sched_setscheduler(2) says, mostly that it takes a privilege.
pub fn schedule_this_thread() -> io::Result<()> {
    set_policy(libc::SCHED_RR | SCHED_RESET_ON_FORK, PRIORITY)
}

/// Lets this process open as many files as it may at all: a daemon has several a device.
pub fn raise_open_files() {
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
}

/// Asks that the OOM killer spare the calling process, and nothing else: for a process that has no beat to keep,
/// but whose death ends what it started.
///
/// Children that are forked from here on inherit it, and [`protect`] in one of them would take it for the user's own
/// setting and give *that* to the command. So it is called after the last fork, when the driver and the keeper are
/// there: they remember what the user had set.
///
/// # Errors
/// What the kernel says, mostly that it takes a privilege (`CAP_SYS_RESOURCE`). Nothing is changed then.
pub fn spare_from_oom() -> io::Result<()> {
    set_oom_score_adj(SPARED)
}

/// What this process was given.
static OWN: OnceLock<Protection> = OnceLock::new();

/// Remembers what [`protect`] gave this process, for whatever it starts by exec and for hooks: they are not to take it for the user's setting.
pub fn remember(protection: &Protection) {
    let _ = OWN.set(protection.clone());
}

/// What was remembered.
#[must_use]
pub fn remembered() -> Option<&'static Protection> {
    OWN.get()
}

impl Protection {
    /// The same, of a process that was started by one that was protected itself: what that one replaced is what children get back.
    #[must_use]
    pub fn started_by(self, starter: Option<Protection>) -> Self {
        match starter {
            Some(starter) => Protection {
                original: starter.original,
                io_flusher: self.io_flusher || starter.io_flusher,
                ..self
            },
            None => self,
        }
    }

    /// Gives back in a forked child what it must not inherit. Memory locks are not inherited by any child (mlock(2)).
    /// Failures are ignored: what could be taken can be given back.
    pub fn undo_in_child(&self) {
        if self.io_flusher {
            let _ = set_io_flusher(false);
        }
        if let (true, Some(value)) = (self.oom, &self.original.oom_score_adj) {
            let _ = set_oom_score_adj(value);
        }
        // The reset at fork goes to nice 0: the user's own nice value or policy (nice(1), chrt(1)) comes back.
        if let (true, Some((policy, priority))) = (self.realtime, self.original.policy) {
            let _ = set_policy(policy, priority);
            if let Some(nice) = self.original.nice {
                // SAFETY: setpriority(2) takes three integers and touches no memory of ours.
                let _ = unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, nice) };
            }
        }
    }

    fn note(&mut self, what: &str, result: io::Result<()>) -> bool {
        if let Err(error) = &result {
            self.failures.push(format!("cannot {what}: {error}"));
        }
        result.is_ok()
    }
}

fn original() -> Original {
    let mut parameters = libc::sched_param { sched_priority: 0 };
    // SAFETY: sched_getparam(2) writes one sched_param, which lives here; the other two take integers.
    let (policy, nice) = unsafe {
        libc::sched_getparam(0, &raw mut parameters);
        (libc::sched_getscheduler(0), libc::getpriority(libc::PRIO_PROCESS, 0))
    };
    Original {
        oom_score_adj: std::fs::read_to_string("/proc/self/oom_score_adj")
            .ok()
            .map(|text| text.trim().to_owned()),
        policy: (policy >= 0).then_some((policy, parameters.sched_priority)),
        nice: Some(nice),
    }
}

fn set_policy(policy: libc::c_int, priority: libc::c_int) -> io::Result<()> {
    let parameters = libc::sched_param { sched_priority: priority };
    // SAFETY: sched_setscheduler(2) reads one sched_param, which lives here.
    Ok(Errno::result(unsafe { libc::sched_setscheduler(0, policy, &raw const parameters) }).map(drop)?)
}

fn set_oom_score_adj(value: &str) -> io::Result<()> {
    std::fs::write("/proc/self/oom_score_adj", value)
}

fn set_io_flusher(on: bool) -> io::Result<()> {
    // SAFETY: these two prctl(2) operations take integers only.
    unsafe {
        let is_on = Errno::result(libc::prctl(PR_GET_IO_FLUSHER, 0, 0, 0, 0))? == 1;
        if is_on != on {
            Errno::result(libc::prctl(PR_SET_IO_FLUSHER, libc::c_ulong::from(on), 0, 0, 0))?;
        }
    }
    Ok(())
}

/// Lets the allocator keep what it has: a page given back to the kernel has to be found again under pressure.
fn keep_heap() {
    const ROOM: usize = 1 << 20;
    #[cfg(target_env = "gnu")]
    // SAFETY: mallopt(3) takes two integers; the process has one thread or none that changes them too.
    unsafe {
        libc::mallopt(libc::M_TRIM_THRESHOLD, -1);
        libc::mallopt(libc::M_MMAP_MAX, 0);
    }
    std::hint::black_box(vec![1_u8; ROOM]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_original_is_this_process_own() {
        let original = original();
        assert!(original.oom_score_adj.is_some_and(|value| value.parse::<i32>().is_ok()));
        assert!(original.policy.is_some());
    }

    #[test]
    fn a_failure_is_recorded_with_what_was_tried() {
        let mut protection = Protection::default();
        assert!(!protection.note("fly", Err(io::Error::from_raw_os_error(libc::EPERM))));
        assert!(protection.note("walk", Ok(())));
        assert_eq!(protection.failures, ["cannot fly: Operation not permitted (os error 1)"]);
    }
}
