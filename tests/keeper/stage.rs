//! Front, driver and keeper of one case: this process is the front.

use std::fs;
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;
use std::time::Duration;

use mmpguard::clock::{self, Mono};
use mmpguard::driver::cell::LeaseCell;
use mmpguard::keeper::{DriverPipe, FromKeeper, KeeperHandle, KeeperSpec, ToKeeper, Why, fence::FenceReport};
use mmpguard::sys::cgroup::Cgroup;
use mmpguard::sys::process::Stat;
use mmpguard::sys::realtime::Protection;
use mmpguard::sys::spawn::{Descriptors, Place, fork_process};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;

/// Three generations, a daemon that forked twice into sessions of its own, and one that ignores SIGTERM.
const TREE: &str = r#"
echo $$ >>"$D/pids"
case $1 in
top) sh "$D/tree.sh" middle & (setsid sh "$D/tree.sh" daemon &) ; wait; sleep 1000;;
middle) sh "$D/tree.sh" leaf & wait;;
daemon) (setsid sh "$D/tree.sh" stubborn &) ; exit 0;;
stubborn) trap '' TERM HUP INT; while :; do sleep 1; done;;
leaf) exec sleep 1000;;
esac
"#;
/// top, middle, leaf, daemon, stubborn; each writes its line.
const TREE_LINES: usize = 5;

pub(crate) const LONG: Duration = Duration::from_secs(10);

pub(crate) fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

pub(crate) struct Stage {
    pub(crate) cell: LeaseCell,
    pub(crate) driver: Pid,
    /// `None` once it was let go.
    pub(crate) keeper: Option<KeeperHandle>,
    pub(crate) keeper_pid: Pid,
    /// As the keeper's first message told it.
    pub(crate) protection: Protection,
    pub(crate) dir: tempfile::TempDir,
}

impl Stage {
    /// Forks a driver that runs `driver`, then the keeper of `command`, and awaits its first message.
    pub(crate) fn new(command: &[&str], driver: impl FnOnce(LeaseCell, DriverPipe) -> i32) -> Stage {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("tree.sh"), TREE).unwrap();
        let cell = LeaseCell::new().unwrap();
        let (pipe, driver_pipe) = DriverPipe::new().unwrap();
        let (kept, drivers_cell) = ([pipe.as_fd().as_raw_fd()], cell.clone());
        let body = move || driver(drivers_cell, pipe);
        let driver = fork_process(c"mmp-driver", Place::OwnSession, Descriptors::Only(&kept), body).unwrap();
        let command = command.iter().map(Into::into).collect();
        let spec = KeeperSpec { cell: cell.clone().into(), driver_pipe, driver, command };
        let keeper = KeeperHandle::fork(spec).unwrap();
        let keeper_pid = keeper.pid();
        let protection = Protection::default();
        let mut stage = Stage { cell, driver, keeper: Some(keeper), keeper_pid, protection, dir };
        match stage.next() {
            FromKeeper::Ready { protection, .. } => stage.protection = protection,
            other => panic!("{other:?} comes first"),
        }
        stage
    }

    /// The same with the tree, running.
    pub(crate) fn with_tree(driver: impl FnOnce(LeaseCell, DriverPipe) -> i32) -> Stage {
        let stage = Stage::new(&["sh", "-c", r#"exec sh "$D/tree.sh" top"#], driver);
        stage.start_when_held();
        wait_until("the tree to grow", || stage.lines("pids").len() == TREE_LINES);
        stage
    }

    pub(crate) fn send(&self, message: &ToKeeper) {
        self.keeper.as_ref().unwrap().send(message).unwrap();
    }

    /// Starts the command; its directory, and the mark by which its processes are found, are in its environment.
    pub(crate) fn ask_for_start(&self) {
        self.ask(false);
    }

    fn ask(&self, foreground: bool) {
        // A directory of PATH that cannot be searched would make a missing program look forbidden.
        let env = vec![("D".into(), self.dir.path().into()), ("PATH".into(), "/usr/bin:/bin".into())];
        self.send(&ToKeeper::Start { env, foreground });
    }

    pub(crate) fn start_when_held(&self) -> Pid {
        self.start_in(false)
    }

    /// Starts it once the lease runs, in the foreground or not.
    pub(crate) fn start_in(&self, foreground: bool) -> Pid {
        wait_until("the driver to arm the cell", || {
            matches!(self.cell.state(), mmpguard::driver::cell::CellState::Until(_))
        });
        self.ask(foreground);
        match self.next() {
            FromKeeper::Started { pid } => Pid::from_raw(pid),
            other => panic!("{other:?} instead of a start"),
        }
    }

    pub(crate) fn next(&self) -> FromKeeper {
        self.next_within(LONG).expect("the keeper to say something")
    }

    pub(crate) fn next_within(&self, span: Duration) -> Option<FromKeeper> {
        let until = clock::mono() + span;
        let keeper = self.keeper.as_ref().unwrap();
        loop {
            if let Some(message) = keeper.receive().unwrap() {
                return Some(message);
            }
            let left = u16::try_from(until.since(clock::mono()).as_millis()).unwrap();
            if left == 0 {
                return None;
            }
            poll(&mut [PollFd::new(keeper.as_fd(), PollFlags::POLLIN)], PollTimeout::from(left)).unwrap();
        }
    }

    /// Awaits the fence for this reason; gives when it was told, and what was done.
    pub(crate) fn fenced(&self, expected: Why) -> (Mono, FenceReport) {
        loop {
            match self.next() {
                FromKeeper::Fenced { why, report } => {
                    assert_eq!(why, expected, "{report:?}");
                    return (clock::mono(), report);
                }
                FromKeeper::Stopped { .. } => {}
                other => panic!("{other:?} instead of a fence"),
            }
        }
    }

    /// After a fence: nothing of the tree lives, nor do driver and keeper. Without a report to wait for (the front is
    /// gone) the keeper's end says that it fenced.
    pub(crate) fn all_dead(&self) {
        let code = self.keeper_exit();
        assert_eq!(alive(self.dir.path()), Vec::<String>::new());
        assert_eq!(
            waitpid(self.driver, None).unwrap(),
            WaitStatus::Signaled(self.driver, Signal::SIGKILL, false)
        );
        assert_eq!(code, mmpguard::keeper::EXIT_FENCED);
        assert!(Cgroup::left_by(self.keeper_pid).is_none(), "the cgroup was left behind");
    }

    pub(crate) fn keeper_exit(&self) -> i32 {
        match waitpid(self.keeper_pid, None).unwrap() {
            WaitStatus::Exited(_, code) => code,
            other => panic!("the keeper ended by {other:?}"),
        }
    }

    pub(crate) fn lines(&self, file: &str) -> Vec<String> {
        let text = fs::read_to_string(self.dir.path().join(file)).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }
}

impl Drop for Stage {
    /// Lets the keeper go, which kills what is left, and ends the driver.
    fn drop(&mut self) {
        self.keeper = None;
        let _ = kill(self.driver, Signal::SIGKILL);
        let _ = (waitpid(self.driver, None), waitpid(self.keeper_pid, None));
    }
}

/// A driver that arms the cell once and never again.
pub(crate) fn holds_for(span: Duration) -> impl FnOnce(LeaseCell, DriverPipe) -> i32 {
    move |cell, _pipe| {
        cell.arm(clock::mono() + span).unwrap();
        clock::sleep(ms(60_000));
        0
    }
}

/// A driver that extends its lease of a second every 20 ms, until it fails.
pub(crate) fn beats(cell: LeaseCell, _pipe: DriverPipe) -> i32 {
    let mut end = clock::mono() + ms(1000);
    cell.arm(end).unwrap();
    loop {
        clock::sleep(ms(20));
        let next = clock::mono() + ms(1000);
        if cell.extend(end, next).is_err() {
            return 1;
        }
        end = next;
    }
}

/// Every process that carries this directory in its environment and can still run.
pub(crate) fn alive(dir: &Path) -> Vec<String> {
    let mark = format!("D={}", dir.display());
    let marked = |stat: &Stat| {
        let environment = fs::read(format!("/proc/{}/environ", stat.pid)).unwrap_or_default();
        environment.split(|&byte| byte == 0).any(|word| word == mark.as_bytes())
    };
    let all = mmpguard::sys::process::processes().unwrap();
    let found = all.iter().filter(|stat| !stat.is_over() && marked(stat));
    found.map(|stat| format!("{} {} {}", stat.pid, stat.comm, stat.state)).collect()
}

pub(crate) fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let until = clock::mono() + LONG;
    while !condition() {
        assert!(clock::mono() < until, "waited in vain for {what}");
        clock::sleep(ms(5));
    }
}

pub(crate) fn gone(pid: i32) -> bool {
    Stat::of(pid).is_none_or(|stat| stat.is_over())
}
