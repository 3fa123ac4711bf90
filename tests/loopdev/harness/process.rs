//! Processes of the tests: found by their parents, or by a mark in their environment; ended by number only.

use std::fs;
use std::path::Path;
use std::time::Duration;

use mmpguard::clock::{self, Mono};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Every process that a test starts carries this in its environment, and so do all that come from it.
pub(crate) const MARK: &str = "MMPGUARD_LOOPDEV_MARK";

/// One process; its start time tells it from a later one of the same number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Process {
    pub(crate) pid: i32,
    pub(crate) comm: String,
    start: u64,
}

struct Stat {
    comm: String,
    state: char,
    parent: i32,
    threads: u32,
    start: u64,
}

impl Process {
    pub(crate) fn of(pid: i32) -> Option<Process> {
        stat(pid).map(|stat| Process { pid, comm: stat.comm, start: stat.start })
    }

    /// True until it has ended; a zombie has, unless one of its threads still hangs in the kernel.
    pub(crate) fn is_alive(&self) -> bool {
        let ended = |stat: &Stat| matches!(stat.state, 'Z' | 'X') && stat.threads <= 1;
        stat(self.pid).is_some_and(|stat| stat.start == self.start && !ended(&stat))
    }

    /// For a report: the state letters of its threads, or that it is gone.
    pub(crate) fn states(&self) -> String {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.pid)).into_iter().flatten().flatten();
        let state = |task: fs::DirEntry| stat_at(&task.path().join("stat")).map(|stat| stat.state);
        let states: String = tasks.filter_map(state).collect();
        if states.is_empty() { "gone".to_owned() } else { states }
    }

    pub(crate) fn signal(&self, signal: Signal) {
        if self.is_alive() {
            // It may be ending just now.
            let _ = kill(Pid::from_raw(self.pid), signal);
        }
    }

    pub(crate) fn children(&self) -> Vec<Process> {
        let ours = |pid: &i32| stat(*pid).is_some_and(|stat| stat.parent == self.pid);
        pids().into_iter().filter(ours).filter_map(Process::of).collect()
    }

    /// Its children, their children, and so on.
    pub(crate) fn descendants(&self) -> Vec<Process> {
        let mut all = self.children();
        let mut next = 0;
        while next < all.len() {
            let more = all[next].children();
            all.extend(more);
            next += 1;
        }
        all
    }
}

/// When the last of them had ended; none if that takes longer than `patience`.
pub(crate) fn all_dead(processes: &[Process], patience: Duration) -> Option<Mono> {
    let until = clock::mono() + patience;
    loop {
        let now = clock::mono();
        if !processes.iter().any(Process::is_alive) {
            return Some(now);
        }
        if now >= until {
            return None;
        }
        clock::sleep(Duration::from_millis(5));
    }
}

/// The processes that carry `mark`, or one that begins with it.
pub(crate) fn marked(mark: &str) -> Vec<Process> {
    let wanted = format!("{MARK}={mark}");
    let carries = |pid: &i32| {
        *pid != i32::try_from(std::process::id()).expect("fits")
            && fs::read(format!("/proc/{pid}/environ"))
                .is_ok_and(|all| all.split(|&byte| byte == 0).any(|one| one.starts_with(wanted.as_bytes())))
    };
    pids().into_iter().filter(carries).filter_map(Process::of).filter(Process::is_alive).collect()
}

/// Ends everything that carries `mark`, and waits for it.
pub(crate) fn kill_marked(mark: &str) {
    let until = clock::mono() + Duration::from_secs(5);
    loop {
        let left = marked(mark);
        if left.is_empty() || clock::mono() >= until {
            return;
        }
        for process in left {
            process.signal(Signal::SIGKILL);
        }
        clock::sleep(Duration::from_millis(20));
    }
}

fn pids() -> Vec<i32> {
    let entries = fs::read_dir("/proc").expect("/proc is mounted");
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect()
}

fn stat(pid: i32) -> Option<Stat> {
    stat_at(Path::new(&format!("/proc/{pid}/stat")))
}

fn stat_at(path: &Path) -> Option<Stat> {
    let text = fs::read_to_string(path).ok()?;
    // The name may hold spaces and parentheses; what follows the last one does not.
    let (before, after) = text.rsplit_once(") ")?;
    let fields: Vec<&str> = after.split(' ').collect();
    Some(Stat {
        comm: before.split_once('(')?.1.to_owned(),
        state: fields.first()?.chars().next()?,
        parent: fields.get(1)?.parse().ok()?,
        threads: fields.get(17)?.parse().ok()?,
        start: fields.get(19)?.parse().ok()?,
    })
}
