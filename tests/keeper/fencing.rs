//! When the keeper fences, when it does not, and that nothing survives it.

use std::fs;

use mmpguard::clock;
use mmpguard::driver::cell::CellState;
use mmpguard::keeper::{FromKeeper, StartRefusal, ToKeeper, Why};
use mmpguard::sys::cgroup::Cgroup;
use mmpguard::sys::process::{become_subreaper, kill_tree};
use mmpguard::sys::spawn::{Descriptors, Place, fork_process};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;

use super::stage::{LONG, Stage, alive, beats, gone, holds_for, ms, wait_until};

pub(crate) const CASES: &[(&str, fn())] = &[
    ("a_lease_that_runs_out_ends_the_whole_tree_in_time", lease_runs_out),
    ("a_driver_that_dies_is_fenced_at_once", driver_dies),
    ("a_lost_cell_and_a_wake_fence_at_once", cell_lost),
    ("a_lease_shortened_without_a_wake_is_noticed", lease_shortened),
    ("a_front_that_is_killed_takes_everything_along", front_killed),
    ("a_front_that_goes_after_the_command_leaves_the_driver_holding", front_gone_after),
    ("a_front_that_goes_before_the_command_ends_the_driver", front_gone_before),
    ("a_keeper_that_was_stopped_fences_when_continued", keeper_stopped),
    ("a_keeper_that_was_stopped_spares_a_lease_that_was_extended", keeper_stopped_in_vain),
    ("a_front_that_does_not_listen_delays_nothing", front_deaf),
    ("a_keeper_that_is_killed_leaves_nothing_that_its_front_cannot_kill", keeper_killed),
    ("the_walk_alone_kills_everything", walk_alone),
    ("a_process_stuck_in_its_io_is_reported_and_not_waited_for", stuck),
    ("no_command_starts_without_a_lease", start_refused),
    ("nothing_expires_before_the_first_lease_or_after_the_release", nothing_expires),
];

fn lease_runs_out() {
    let stage = Stage::with_tree(holds_for(ms(1500)));
    let CellState::Until(end) = stage.cell.state() else { panic!("not armed") };
    assert!(!alive(stage.dir.path()).is_empty());
    let (told, report) = stage.fenced(Why::LeaseExpired);
    println!("  told {:?} after the end of the lease; {report:?}", told.since(end));
    assert!(told >= end, "before the end");
    assert!(told.since(end) < ms(300), "{:?} late", told.since(end));
    assert!(report.is_done() && report.killed >= 2, "{report:?}");
    assert_eq!(stage.cell.state(), CellState::Lost);
    stage.all_dead();
}

fn driver_dies() {
    let stage = Stage::with_tree(holds_for(ms(60_000)));
    let begin = clock::mono();
    kill(stage.driver, Signal::SIGKILL).unwrap();
    let (told, report) = stage.fenced(Why::DriverGone);
    assert!(told.since(begin) < ms(300) && report.is_done(), "{:?} {report:?}", told.since(begin));
    assert_eq!(stage.cell.state(), CellState::Lost);
    stage.all_dead();
}

fn cell_lost() {
    let stage = Stage::with_tree(|cell, pipe| {
        cell.arm(clock::mono() + ms(60_000)).unwrap();
        clock::sleep(ms(1500));
        cell.lose();
        pipe.wake();
        clock::sleep(ms(60_000));
        0
    });
    let begin = clock::mono();
    let (told, _) = stage.fenced(Why::CellLost);
    assert!(told.since(begin) < ms(1800), "{:?}", told.since(begin));
    stage.all_dead();
}

fn lease_shortened() {
    let stage = Stage::with_tree(|cell, _pipe| {
        let far = clock::mono() + ms(60_000);
        cell.arm(far).unwrap();
        clock::sleep(ms(1200));
        cell.extend(far, clock::mono() + ms(100)).unwrap();
        clock::sleep(ms(60_000));
        0
    });
    let begin = clock::mono();
    let (told, _) = stage.fenced(Why::LeaseExpired);
    assert!(told.since(begin) < ms(1200 + 1000 + 300), "{:?}", told.since(begin));
    stage.all_dead();
}

fn front_killed() {
    let dir = tempfile::tempdir().unwrap();
    let note = dir.path().join("note");
    let body = || {
        let stage = Stage::with_tree(beats);
        let text = format!("{} {} {}\n", stage.driver, stage.keeper_pid, stage.dir.path().display());
        fs::write(dir.path().join("part"), text).unwrap();
        fs::rename(dir.path().join("part"), &note).unwrap();
        clock::sleep(ms(60_000));
        0
    };
    let front = fork_process(c"front", Place::OwnGroup, Descriptors::Passed(&[]), body).unwrap();
    wait_until("the front", || note.exists());
    let text = fs::read_to_string(&note).unwrap();
    let words: Vec<&str> = text.split_whitespace().collect();
    let begin = clock::mono();
    kill(front, Signal::SIGKILL).unwrap();
    waitpid(front, None).unwrap();
    for pid in [words[0], words[1]] {
        wait_until("driver and keeper to end", || gone(pid.parse().unwrap()));
    }
    assert!(clock::mono().since(begin) < ms(1000), "{:?}", clock::mono().since(begin));
    assert_eq!(alive(words[2].as_ref()), Vec::<String>::new());
    assert!(
        Cgroup::left_by(Pid::from_raw(words[1].parse().unwrap())).is_none(),
        "the cgroup was left behind"
    );
    fs::remove_dir_all(words[2]).unwrap();
}

fn front_gone_after() {
    let mut stage = Stage::new(&["true"], beats);
    stage.start_when_held();
    assert!(matches!(stage.next(), FromKeeper::CommandEnded { .. }));
    assert_eq!(stage.next(), FromKeeper::TreeEmpty);
    stage.keeper = None;
    assert_eq!(stage.keeper_exit(), mmpguard::keeper::EXIT_FINISHED);
    let CellState::Until(end) = stage.cell.state() else { panic!("the cell was touched") };
    clock::sleep(ms(300));
    assert!(!gone(stage.driver.as_raw()), "the driver was killed");
    let CellState::Until(later) = stage.cell.state() else { panic!("the cell was touched") };
    assert!(later > end, "the driver goes on holding");
    assert!(Cgroup::left_by(stage.keeper_pid).is_none(), "the cgroup was left behind");

    // The same where something of the tree outlived the command is a fence.
    let mut stage = Stage::new(&["sh", "-c", "(setsid sleep 1000 &); exit 0"], beats);
    stage.start_when_held();
    assert!(matches!(stage.next(), FromKeeper::CommandEnded { .. }));
    stage.keeper = None;
    stage.all_dead();
}

fn front_gone_before() {
    let mut stage = Stage::new(&["true"], beats);
    wait_until("the lease", || matches!(stage.cell.state(), CellState::Until(_)));
    stage.keeper = None;
    stage.all_dead();
}

fn keeper_stopped() {
    let stage = Stage::with_tree(holds_for(ms(1500)));
    let CellState::Until(end) = stage.cell.state() else { panic!("not armed") };
    kill(stage.keeper_pid, Signal::SIGSTOP).unwrap();
    clock::sleep_until(end + ms(300));
    assert!(!alive(stage.dir.path()).is_empty(), "nobody else fences");
    let begin = clock::mono();
    kill(stage.keeper_pid, Signal::SIGCONT).unwrap();
    let (told, _) = stage.fenced(Why::LeaseExpired);
    assert!(told.since(begin) < ms(300), "{:?}", told.since(begin));
    stage.all_dead();
}

fn keeper_stopped_in_vain() {
    let stage = Stage::with_tree(beats);
    kill(stage.keeper_pid, Signal::SIGSTOP).unwrap();
    clock::sleep(ms(1500)); // longer than the lease that the keeper's timer knows of
    kill(stage.keeper_pid, Signal::SIGCONT).unwrap();
    assert_eq!(stage.next_within(ms(400)), None);
    assert!(matches!(stage.cell.state(), CellState::Until(_)));
    assert!(!alive(stage.dir.path()).is_empty());
}

fn front_deaf() {
    let stage = Stage::new(&["sh", "-c", "while :; do kill -STOP $$; done"], holds_for(ms(2500)));
    let command = stage.start_when_held();
    let CellState::Until(end) = stage.cell.state() else { panic!("not armed") };
    // Fills the socket with reports of stops, which nobody reads.
    while clock::mono() < end - ms(300) {
        let _ = kill(Pid::from_raw(-command.as_raw()), Signal::SIGCONT);
    }
    wait_until("the command to end", || gone(command.as_raw()));
    assert!(clock::mono().since(end) < ms(300), "{:?}", clock::mono().since(end));
    wait_until("the driver to end", || gone(stage.driver.as_raw()));
    stage.fenced(Why::LeaseExpired); // told although the queue was full
    assert_eq!(stage.keeper_exit(), mmpguard::keeper::EXIT_FENCED);
}

fn keeper_killed() {
    let dir = tempfile::tempdir().unwrap();
    let body = || {
        become_subreaper().unwrap();
        let stage = Stage::with_tree(beats);
        kill(stage.keeper_pid, Signal::SIGKILL).unwrap();
        waitpid(stage.keeper_pid, None).unwrap();
        let command = stage.lines("pids")[0].parse().unwrap();
        wait_until("the command to be killed with its parent", || gone(command));
        assert!(!alive(stage.dir.path()).is_empty(), "orphans are left");
        let report = kill_tree(&[stage.driver], LONG, &mut |_, _| {});
        assert!(report.still_there.is_empty() && report.killed >= 1, "{report:?}");
        assert_eq!(alive(stage.dir.path()), Vec::<String>::new());
        if let Some(cgroup) = Cgroup::left_by(stage.keeper_pid) {
            cgroup.remove().unwrap();
        }
        assert!(!gone(stage.driver.as_raw()), "the driver was to be spared");
        fs::write(dir.path().join("passed"), "").unwrap();
        drop(stage);
        0
    };
    let front = fork_process(c"front", Place::OwnGroup, Descriptors::Passed(&[]), body).unwrap();
    waitpid(front, None).unwrap();
    assert!(dir.path().join("passed").exists());
}

fn walk_alone() {
    let dir = tempfile::tempdir().unwrap();
    let script = "for i in 1 2 3; do (setsid sh -c 'trap \"\" TERM; while :; do sleep 1; done' &); done; \
                  touch $D/up; wait; sleep 1000";
    let body = || {
        become_subreaper().unwrap();
        #[allow(clippy::zombie_processes)] // reaped by what is tested
        std::process::Command::new("sh").args(["-c", script]).env("D", dir.path()).spawn().unwrap();
        wait_until("the daemons", || dir.path().join("up").exists() && alive(dir.path()).len() >= 7);
        let mut reaped = 0;
        let report = kill_tree(&[], LONG, &mut |_, _| reaped += 1);
        assert!(report.still_there.is_empty() && report.killed >= 4 && reaped >= 4, "{report:?} {reaped}");
        i32::from(!alive(dir.path()).is_empty())
    };
    let root = fork_process(c"root", Place::OwnSession, Descriptors::Passed(&[]), body).unwrap();
    assert_eq!(waitpid(root, None).unwrap(), WaitStatus::Exited(root, 0));
}

/// A frozen filesystem: whoever writes there sleeps uninterruptibly until it thaws.
struct Frozen(tempfile::TempDir);

impl Frozen {
    fn new() -> Frozen {
        let frozen = Frozen(tempfile::tempdir().unwrap());
        let script = "truncate -s 16M image && mkfs.ext4 -q image && mkdir mnt && mount -o loop image mnt && \
                      fsfreeze -f mnt";
        assert!(frozen.sh(script), "cannot freeze a filesystem");
        frozen
    }

    fn sh(&self, script: &str) -> bool {
        let mut command = std::process::Command::new("sh");
        command.args(["-c", script]).current_dir(self.0.path()).status().unwrap().success()
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        self.sh("fsfreeze -u mnt; for i in 1 2 3 4 5; do umount mnt && break; sleep 0.2; done");
    }
}

fn stuck() {
    if !nix::unistd::geteuid().is_root() {
        let required = std::env::var_os("MMPGUARD_REQUIRE_ROOT").is_some();
        assert!(!required, "this case needs root");
        eprintln!("  skipped: freezing a filesystem needs root");
        return;
    }
    let frozen = Frozen::new();
    let file = frozen.0.path().join("mnt/file").display().to_string();
    let script = format!("sleep 1000 & touch {file}; touch $D/thawed");
    let stage = Stage::new(&["sh", "-c", &script], holds_for(ms(700)));
    stage.start_when_held();
    let CellState::Until(end) = stage.cell.state() else { panic!("not armed") };
    let (told, report) = stage.fenced(Why::LeaseExpired);
    assert!(told.since(end) < ms(2500), "{:?}", told.since(end));
    assert_eq!((report.still_there_count, report.still_there.len()), (1, 1), "{report:?}");
    assert_eq!((report.still_there[0].comm.as_str(), report.still_there[0].state), ("touch", 'D'));
    let driver = waitpid(stage.driver, None).unwrap();
    assert_eq!(driver, WaitStatus::Signaled(stage.driver, Signal::SIGKILL, false));
    assert_eq!(stage.keeper_exit(), mmpguard::keeper::EXIT_NOT_FENCED);
    drop(frozen);
    wait_until("the signal to take effect", || gone(report.still_there[0].pid));
    assert!(!stage.dir.path().join("thawed").exists(), "the script went on");
    if let Some(cgroup) = Cgroup::left_by(stage.keeper_pid) {
        wait_until("the cgroup to empty", || cgroup.remove().is_ok());
    }
}

fn start_refused() {
    let stage = Stage::new(&["touch", "/nonexistent/never"], |_, _| {
        clock::sleep(ms(60_000));
        0
    });
    stage.ask_for_start();
    assert_eq!(stage.next(), FromKeeper::StartRefused { why: StartRefusal::NotHeld });
    // A driver that ended without ever holding is no reason to fence, nor one to start.
    kill(stage.driver, Signal::SIGKILL).unwrap();
    assert_eq!(stage.next_within(ms(200)), None);
    stage.ask_for_start();
    assert_eq!(stage.next(), FromKeeper::StartRefused { why: StartRefusal::DriverGone });
    stage.send(&ToKeeper::Finish);
    assert_eq!(stage.keeper_exit(), mmpguard::keeper::EXIT_FINISHED);
    let expired = Stage::new(&["true"], holds_for(ms(0)));
    expired.fenced(Why::LeaseExpired); // nothing ran, and the front hears of it
}

fn nothing_expires() {
    let stage = Stage::new(&["true"], |cell, _| {
        clock::sleep(ms(1200));
        cell.arm(clock::mono() + ms(400)).unwrap();
        clock::sleep(ms(100));
        cell.release().unwrap();
        0 // and the pipe is closed
    });
    assert_eq!(stage.next_within(ms(2500)), None);
    assert_eq!(stage.cell.state(), CellState::Released);
    stage.ask_for_start();
    assert_eq!(stage.next(), FromKeeper::StartRefused { why: StartRefusal::DriverGone });
    stage.send(&ToKeeper::Finish);
    assert_eq!(stage.keeper_exit(), mmpguard::keeper::EXIT_FINISHED);
}
