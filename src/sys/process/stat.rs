//! Who there is, and who descends from whom: `/proc/PID/stat`.
//!
//! A listing is taken process by process, so it is never the state of one instant: good for finding, no proof of absence.

use std::collections::HashSet;
use std::io;

use nix::unistd::Pid;

/// One line of `/proc/PID/stat`, as far as it matters here (proc_pid_stat(5)).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stat {
    /// Field 1.
    pub pid: i32,
    /// Field 2, without its parentheses; at most 15 bytes, anything but NUL. Invalid UTF-8 is replaced.
    pub comm: String,
    /// Field 3: R, S, D, Z, T, t, X, I ...
    pub state: char,
    /// Field 4.
    pub parent: i32,
    /// Field 5.
    pub group: i32,
    /// Field 20. A zombie with more than one is a process whose *first* thread ended: it runs on.
    pub threads: u64,
    /// Field 22, clock ticks since boot: with the pid it names a process once and for all.
    pub start_time: u64,
}

impl Stat {
    /// Reads the line. The name may hold spaces, newlines and parentheses: it ends at the *last* parenthesis.
    #[must_use]
    pub fn parse(line: &[u8]) -> Option<Stat> {
        let open = line.iter().position(|&byte| byte == b'(')?;
        let close = line.iter().rposition(|&byte| byte == b')').filter(|&close| close > open)?;
        let rest = std::str::from_utf8(&line[close + 1..]).ok()?;
        let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
        Some(Stat {
            pid: std::str::from_utf8(&line[..open]).ok()?.trim().parse().ok()?,
            comm: String::from_utf8_lossy(&line[open + 1..close]).into_owned(),
            state: fields.first()?.chars().next()?,
            parent: fields.get(1)?.parse().ok()?,
            group: fields.get(2)?.parse().ok()?,
            threads: fields.get(17)?.parse().ok()?,
            start_time: fields.get(19)?.parse().ok()?,
        })
    }

    /// Reads it for `pid`; `None` if there is no such process.
    #[must_use]
    pub fn of(pid: i32) -> Option<Stat> {
        Stat::parse(&std::fs::read(format!("/proc/{pid}/stat")).ok()?)
    }

    /// Nothing of it can run any more: it only waits to be reaped.
    #[must_use]
    pub fn is_over(&self) -> bool {
        matches!(self.state, 'Z' | 'X' | 'x') && self.threads <= 1
    }
}

/// All processes, zombies too, in the order of `/proc`.
///
/// # Errors
/// When `/proc` cannot be listed.
pub fn processes() -> io::Result<Vec<Stat>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let pid = name.to_str().and_then(|name| name.parse().ok());
        found.extend(pid.and_then(Stat::of)); // one that ended since the listing is no error
    }
    Ok(found)
}

/// Whether this process has `CAP_SYS_ADMIN`; `None` if `/proc` does not say. In a user namespace it may have it and still
/// be refused: then the operation itself says so.
#[must_use]
pub fn may_administer() -> Option<bool> {
    const CAP_SYS_ADMIN: u32 = 21;
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    Some(u64::from_str_radix(effective.trim(), 16).ok()? & (1 << CAP_SYS_ADMIN) != 0)
}

/// Who waits for this process: its parent, that one's parent and so on, without pid 1.
#[must_use]
pub fn ancestors() -> Vec<i32> {
    let parent = |pid: &i32| Stat::of(*pid).map(|stat| stat.parent).filter(|&parent| parent > 1);
    // No line of ancestors is longer than this; a list read while processes end may hold a circle.
    std::iter::successors(parent(&Pid::this().as_raw()), parent).take(1000).collect()
}

/// The descendants of `root` at about this moment, zombies too, without `root` itself, and without `spare` and
/// what descends from those.
///
/// # Errors
/// As [`processes`].
pub fn descendants(root: Pid, spare: &[Pid]) -> io::Result<Vec<Stat>> {
    Ok(closure(processes()?, root, spare))
}

fn closure(mut candidates: Vec<Stat>, root: Pid, spare: &[Pid]) -> Vec<Stat> {
    candidates.retain(|stat| !spare.contains(&Pid::from_raw(stat.pid)));
    let mut family = HashSet::from([root.as_raw()]);
    let mut found = Vec::new();
    loop {
        let (in_it, outside) = candidates
            .into_iter()
            .partition::<Vec<_>, _>(|stat| family.contains(&stat.parent) && stat.pid != root.as_raw());
        if in_it.is_empty() {
            return found;
        }
        family.extend(in_it.iter().map(|stat| stat.pid));
        found.extend(in_it);
        candidates = outside;
    }
}

/// True as long as the leader of a process lives. One that is a zombie has nothing left but threads that hang in the kernel, and end
/// before they run another instruction.
#[must_use]
pub fn leader_lives(pid: i32) -> bool {
    Stat::of(pid).is_some_and(|stat| !matches!(stat.state, 'Z' | 'X'))
}

/// Where a thread is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ThreadState {
    /// It has ended.
    Gone,
    /// In a system call, or just about to return from one.
    InSystemCall,
    /// Anywhere else, or it cannot be found out.
    Runs,
}

/// Where a thread of a process is, by `/proc/PID/task/TID/syscall` (proc(5)): `running`, or the number of the system call, -1 outside of
/// one. Takes root, and a kernel that tells; otherwise it counts as running.
#[must_use]
pub fn thread_state(pid: i32, thread: i32) -> ThreadState {
    match std::fs::read_to_string(format!("/proc/{pid}/task/{thread}/syscall")) {
        Ok(text) => in_call(&text),
        // Not every kernel has that file.
        Err(_) if !std::path::Path::new(&format!("/proc/{pid}/task/{thread}")).exists() => ThreadState::Gone,
        Err(_) => ThreadState::Runs,
    }
}

/// What a thread that was killed is in: it hangs in the kernel, and ends before it runs another instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LastCall {
    /// It reads, writes or asks what this descriptor leads to.
    On(i32),
    /// It opens something.
    Opens,
}

/// The call that the thread below `task` (`/proc/PID/task/TID`) is in for the last time. None if it may go on after that, or is in
/// another call, or that cannot be found out.
///
/// Source: proc(5), `status` and `syscall`; a killed process has SIGKILL pending for each of its threads (Linux `kernel/signal.c`,
/// `complete_signal` and `zap_other_threads`).
#[must_use]
pub fn last_call(task: &std::path::Path) -> Option<LastCall> {
    let status = std::fs::read_to_string(task.join("status")).ok()?;
    let call = std::fs::read_to_string(task.join("syscall")).ok()?;
    if is_killed(&status) { call_of(&call) } else { None }
}

fn is_killed(status: &str) -> bool {
    let pending = status.lines().find_map(|line| line.strip_prefix("SigPnd:"));
    let pending = pending.and_then(|signals| u64::from_str_radix(signals.trim(), 16).ok());
    pending.is_some_and(|signals| signals & (1 << (nix::libc::SIGKILL - 1)) != 0)
}

fn call_of(text: &str) -> Option<LastCall> {
    use nix::libc::{
        SYS_fdatasync, SYS_fsync, SYS_ioctl, SYS_openat, SYS_pread64, SYS_preadv2, SYS_pwrite64, SYS_pwritev2,
    };
    let mut words = text.split_whitespace();
    let number: nix::libc::c_long = words.next()?.parse().ok()?;
    if number == SYS_openat {
        return Some(LastCall::Opens);
    }
    let on_descriptor =
        [SYS_fdatasync, SYS_fsync, SYS_ioctl, SYS_pread64, SYS_preadv2, SYS_pwrite64, SYS_pwritev2];
    let first = u64::from_str_radix(words.next()?.strip_prefix("0x")?, 16).ok()?;
    on_descriptor.contains(&number).then(|| i32::try_from(first).ok().map(LastCall::On)).flatten()
}

fn in_call(text: &str) -> ThreadState {
    let number = text.split_whitespace().next().and_then(|first| first.parse::<i64>().ok());
    match number {
        Some(number) if number >= 0 => ThreadState::InSystemCall,
        _ => ThreadState::Runs,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stat(pid: i32, parent: i32) -> Stat {
        let line = format!("{pid} (x) S {parent} {parent} 0 0 0 0 0 0 0 0 0 0 0 0 0 0 1 0 9 0");
        Stat::parse(line.as_bytes()).unwrap()
    }

    #[test]
    fn the_last_call_of_a_killed_thread_is_known_if_it_is_about_one_descriptor() {
        let text =
            |number: nix::libc::c_long| format!("{number} 0x7 0x7f 0x1000 0x400 0x0 0x0 0x7ffd 0x7f3e\n");
        assert_eq!(call_of(&text(nix::libc::SYS_pwrite64)), Some(LastCall::On(7)));
        assert_eq!(call_of(&text(nix::libc::SYS_openat)), Some(LastCall::Opens));
        for other in [
            text(nix::libc::SYS_mount),
            text(nix::libc::SYS_futex),
            "running\n".into(),
            "-1 0x7ffd 0x7f3e\n".into(),
        ] {
            assert_eq!(call_of(&other), None, "{other}");
        }
        assert!(is_killed("Name:\tx\nSigPnd:\t0000000000000100\nShdPnd:\t0000000000000000\n"));
        assert!(!is_killed("SigPnd:\t0000000000000000\nShdPnd:\t0000000000000100\n"));
        assert!(!is_killed("Name:\tx\n"));
        assert_eq!(last_call(std::path::Path::new("/proc/self/task/1")), None, "nobody kills us");
    }

    #[test]
    fn a_hostile_name_does_not_shift_the_fields() {
        for comm in ["x", "a b", ") Z 1 1 (", "(((", ")", "(sd-pam)", "a\nb", "\u{1b}[2J", " ) D 7 "] {
            let line = format!(
                "42 ({comm}) S 7 8 9 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 3 0 12345 1024 99 18446744073709551615\n"
            );
            let stat = Stat::parse(line.as_bytes()).unwrap();
            let seen = (stat.pid, stat.comm.as_str(), stat.state, stat.parent, stat.group);
            assert_eq!(seen, (42, comm, 'S', 7, 8));
            assert_eq!((stat.threads, stat.start_time), (3, 12345));
        }
        assert!(Stat::parse(b"42 (\xff\xfe) S 7 8 9 0 -1 0 1 2 3 4 5 6 7 8 20 0 3 0 5").is_some());
    }

    #[test]
    fn what_is_cut_off_or_nonsense_is_no_process() {
        let line = b"42 (x) S 7 8 9 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 3 0 12345";
        assert!(Stat::parse(line).is_some());
        for end in 0..line.len() - 5 {
            assert_eq!(Stat::parse(&line[..end]), None, "{end}");
        }
        assert_eq!(Stat::parse(b") 1 (x S"), None);
    }

    #[test]
    fn a_thread_in_a_system_call_is_told_from_one_that_runs() {
        assert_eq!(in_call("18 0x7 0x7f 0x1000 0x400 0x0 0x0 0x7ffd 0x7f3e\n"), ThreadState::InSystemCall);
        assert_eq!(in_call("0 0x0\n"), ThreadState::InSystemCall);
        for runs in ["running\n", "-1 0x7ffd 0x7f3e\n", "", "x"] {
            assert_eq!(in_call(runs), ThreadState::Runs, "{runs}");
        }
        let us = i32::try_from(std::process::id()).unwrap();
        assert_eq!(thread_state(us, i32::MAX), ThreadState::Gone);
        let thread = std::thread::spawn(|| {
            let thread = nix::unistd::gettid().as_raw();
            crate::clock::sleep(std::time::Duration::from_millis(20));
            thread
        });
        let thread = thread.join().unwrap();
        assert_eq!(thread_state(us, thread), ThreadState::Gone);
    }

    #[test]
    fn a_zombie_with_threads_runs_on() {
        let mut zombie = stat(5, 1);
        zombie.state = 'Z';
        assert!(zombie.is_over());
        zombie.threads = 2;
        assert!(!zombie.is_over());
    }

    #[test]
    fn the_closure_takes_generations_in_any_order_and_spares_whole_branches() {
        let all = [(9, 8), (1, 0), (8, 5), (5, 1), (6, 5), (7, 6), (2, 1), (20, 9)].map(|(p, q)| stat(p, q));
        let pids = |spare: &[Pid]| {
            let mut pids: Vec<i32> =
                closure(all.to_vec(), Pid::from_raw(5), spare).iter().map(|s| s.pid).collect();
            pids.sort_unstable();
            pids
        };
        assert_eq!(pids(&[]), [6, 7, 8, 9, 20]);
        assert_eq!(pids(&[Pid::from_raw(8)]), [6, 7]);
    }
}
