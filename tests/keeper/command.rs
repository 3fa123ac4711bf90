//! How the command is started, what it inherits, and what is told of it.

use std::collections::BTreeSet;
use std::fs;
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use mmpguard::clock;
use mmpguard::keeper::{EXIT_FENCED, EXIT_FINISHED, FromKeeper, StartRefusal, ToKeeper};
use mmpguard::sys::cgroup::Cgroup;
use mmpguard::sys::process::Stat;
use mmpguard::sys::realtime::spare_from_oom;
use mmpguard::sys::spawn::{CommandEnd, SpawnKind};
use mmpguard::sys::spawn::{Descriptors, Place, fork_process};
use mmpguard::sys::terminal::Terminal;
use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
use nix::pty::{grantpt, posix_openpt, ptsname_r, unlockpt};
use nix::sys::signal::{Signal, kill};
use nix::sys::termios::{LocalFlags, tcgetattr};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{getpgrp, tcgetpgrp};

use super::stage::{Stage, beats, gone, ms, wait_until};

pub(crate) const CASES: &[(&str, fn())] = &[
    ("the_end_of_the_command_is_told_as_it_was", ends),
    ("an_orphan_keeps_the_tree_alive_until_it_ends", orphan),
    ("finishing_while_something_runs_kills_it", finish_early),
    ("what_cannot_be_started_says_why", not_started),
    ("signals_reach_the_whole_group_and_stops_are_told", signals),
    ("after_the_command_signals_reach_what_it_left", signals_to_orphans),
    ("what_nohup_and_nice_set_stays_so", nohup),
    ("the_foreground_goes_to_the_command_and_comes_back", foreground),
    ("the_command_inherits_nothing_of_ours_and_all_of_the_users", inheritance),
    ("a_front_spared_from_the_oom_killer_does_not_pass_that_on", oom),
];

/// Runs a command to its end and gives that, with the number of processes it left.
fn end_of(command: &[&str]) -> (CommandEnd, usize) {
    let stage = Stage::new(command, beats);
    stage.start_when_held();
    let FromKeeper::CommandEnded { end, remaining } = stage.next() else { panic!("no end") };
    assert_eq!(stage.next(), FromKeeper::TreeEmpty);
    stage.ask_for_start();
    assert_eq!(stage.next(), FromKeeper::StartRefused { why: StartRefusal::StartedBefore });
    stage.send(&ToKeeper::Finish);
    assert_eq!(stage.keeper_exit(), EXIT_FINISHED);
    assert!(Cgroup::left_by(stage.keeper_pid).is_none(), "the cgroup was left behind");
    (end, remaining)
}

fn ends() {
    assert_eq!(end_of(&["true"]), (CommandEnd::Exited(0), 0));
    assert_eq!(end_of(&["sh", "-c", "exit 7"]), (CommandEnd::Exited(7), 0));
    assert_eq!(end_of(&["sh", "-c", "kill -TERM $$"]), (CommandEnd::Killed(15), 0));
    assert_eq!(end_of(&["sh", "-c", "kill -40 $$"]), (CommandEnd::Killed(40), 0), "a real-time signal");
}

fn orphan() {
    let script = "(setsid sh -c 'while test ! -e $D/end; do sleep 0.02; done' &) ; exit 3";
    let stage = Stage::new(&["sh", "-c", script], beats);
    stage.start_when_held();
    let FromKeeper::CommandEnded { end, remaining } = stage.next() else { panic!("no end") };
    assert_eq!(end, CommandEnd::Exited(3));
    assert!(remaining >= 1, "{remaining}");
    assert_eq!(stage.next_within(ms(200)), None, "still in use");
    fs::write(stage.dir.path().join("end"), "").unwrap();
    assert_eq!(stage.next(), FromKeeper::TreeEmpty);
    stage.cell.release().unwrap();
    kill(stage.driver, Signal::SIGKILL).unwrap(); // after the release its end means nothing
    assert_eq!(stage.next_within(ms(100)), None);
    stage.send(&ToKeeper::Finish);
    assert_eq!(stage.keeper_exit(), EXIT_FINISHED);
}

fn finish_early() {
    let stage = Stage::with_tree(beats);
    stage.send(&ToKeeper::Finish);
    assert_eq!(stage.keeper_exit(), EXIT_FENCED);
    assert_eq!(super::stage::alive(stage.dir.path()), Vec::<String>::new());
    wait_until("the driver to be killed", || gone(stage.driver.as_raw()));
}

fn not_started() {
    let dir = tempfile::tempdir().unwrap();
    let plain = dir.path().join("plain");
    fs::write(&plain, "").unwrap();
    fs::set_permissions(&plain, fs::Permissions::from_mode(0o644)).unwrap();
    let interpreter = dir.path().join("script");
    fs::write(&interpreter, "#!/nonexistent/interpreter\n").unwrap();
    fs::set_permissions(&interpreter, fs::Permissions::from_mode(0o755)).unwrap();
    let cases = [
        ("mmp-no-such-command", SpawnKind::NotFound, 127),
        ("/nonexistent/command", SpawnKind::NotFound, 127),
        (interpreter.to_str().unwrap(), SpawnKind::NotFound, 127),
        (plain.to_str().unwrap(), SpawnKind::NotExecutable, 126),
        (dir.path().to_str().unwrap(), SpawnKind::NotExecutable, 126),
    ];
    for (command, kind, code) in cases {
        let stage = Stage::new(&[command, "x"], beats);
        wait_until("the lease", || stage.cell.state() != mmpguard::driver::cell::CellState::Unarmed);
        stage.ask_for_start();
        let FromKeeper::SpawnFailed { failure } = stage.next() else { panic!("{command} started") };
        assert_eq!((failure.kind, CommandEnd::NotStarted(failure).exit_code(120)), (kind, code), "{command}");
        assert_eq!(stage.next(), FromKeeper::TreeEmpty);
        stage.send(&ToKeeper::Finish);
        assert_eq!(stage.keeper_exit(), EXIT_FINISHED);
    }
}

fn signals() {
    let script = "exec 2>$D/errors; trap 'echo parent >>$D/got; exit 5' USR1
        sh -c 'trap \"echo child >>$D/got; exit\" USR1; touch $D/up; while :; do sleep 0.02; done' &
        while :; do sleep 0.02; done";
    let stage = Stage::new(&["sh", "-c", script], beats);
    let command = stage.start_when_held();
    wait_until("the traps", || stage.dir.path().join("up").exists());
    stage.send(&ToKeeper::Signal { signal: libc::SIGTSTP });
    assert_eq!(stage.next(), FromKeeper::Stopped { signal: libc::SIGTSTP });
    stage.send(&ToKeeper::Signal { signal: libc::SIGUSR1 });
    assert_eq!(stage.next_within(ms(200)), None, "stopped, so it does not act on it yet");
    assert_eq!(Stat::of(command.as_raw()).unwrap().state, 'T');
    stage.send(&ToKeeper::Signal { signal: libc::SIGCONT });
    let FromKeeper::CommandEnded { end, .. } = stage.next() else { panic!("no end") };
    assert_eq!(end, CommandEnd::Exited(5));
    assert_eq!(stage.next(), FromKeeper::TreeEmpty);
    let mut got = stage.lines("got");
    got.sort();
    assert_eq!(got, ["child", "parent"]);
}

fn signals_to_orphans() {
    let script = "(setsid sh -c 'touch $D/up; sleep 1000' &) ; while test ! -e $D/up; do sleep 0.02; done";
    let stage = Stage::new(&["sh", "-c", script], beats);
    stage.start_when_held();
    assert!(matches!(stage.next(), FromKeeper::CommandEnded { remaining: 1.., .. }));
    stage.send(&ToKeeper::Signal { signal: libc::SIGTERM });
    assert_eq!(stage.next(), FromKeeper::TreeEmpty);
}

/// Runs itself again under an ignored SIGHUP, as nohup(1) would, and with another nice value.
fn nohup() {
    if ignored() & 1 == 0 {
        let again = "trap '' HUP; exec nice -n 3 \"$0\" --exact what_nohup_and_nice_set_stays_so";
        let program = std::env::current_exe().unwrap();
        let output = std::process::Command::new("sh").args(["-c", again]).arg(program).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        return;
    }
    let nice = std::process::Command::new("nice").output().unwrap().stdout;
    let nice = String::from_utf8(nice).unwrap();
    assert!(nice.trim().parse::<i32>().unwrap() >= 3, "{nice}");
    let script = format!("kill -HUP $$; test $(nice) = {} && exit 9", nice.trim());
    assert_eq!(end_of(&["sh", "-c", &script]), (CommandEnd::Exited(9), 0));
}

/// The signals that this process ignores.
fn ignored() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).unwrap();
    u64::from_str_radix(mask.trim(), 16).unwrap()
}

/// On a terminal of its own: what is typed reaches the command, Ctrl-Z stops it, and it can be continued.
fn foreground() {
    let master = posix_openpt(OFlag::O_RDWR | OFlag::O_CLOEXEC).unwrap();
    grantpt(&master).unwrap();
    unlockpt(&master).unwrap();
    let name = ptsname_r(&master).unwrap();
    let kept = [master.as_raw_fd()];
    let body = || {
        // The leader of a session without a terminal gets the first one it opens.
        let slave = fs::OpenOptions::new().read(true).write(true).open(&name).unwrap();
        nix::unistd::dup2_stdin(&slave).unwrap();
        drop(slave);
        on_the_terminal(&|keys| {
            nix::unistd::write(&master, keys.as_bytes()).unwrap();
        });
        0
    };
    let front = fork_process(c"front", Place::OwnSession, Descriptors::Only(&kept), body).unwrap();
    assert_eq!(waitpid(front, None).unwrap(), WaitStatus::Exited(front, 0));
}

fn on_the_terminal(type_keys: &dyn Fn(&str)) {
    let holder = || tcgetpgrp(std::io::stdin()).unwrap();
    let terminal = Terminal::to_pass_on(&[]).expect("a terminal of our own");
    let stage = Stage::new(&["sh", "-c", "stty -echo; cat >$D/typed; exit 4"], beats);
    let command = stage.start_in(true);
    wait_until("the command to have the terminal", || holder() == command);
    assert!(Terminal::to_pass_on(&[]).is_none(), "it is not ours to pass on any more");
    type_keys("hello\n");
    wait_until("the command to read", || stage.lines("typed") == ["hello"]);
    type_keys("\x1a");
    assert_eq!(stage.next(), FromKeeper::Stopped { signal: libc::SIGTSTP });
    terminal.take_back(false).unwrap();
    assert_eq!(holder(), getpgrp());
    terminal.give(command).unwrap();
    stage.send(&ToKeeper::Signal { signal: libc::SIGCONT });
    type_keys("again\n\x04");
    assert!(matches!(stage.next(), FromKeeper::CommandEnded { end: CommandEnd::Exited(4), .. }));
    assert_eq!(stage.lines("typed"), ["hello", "again"]);
    let echo = || tcgetattr(std::io::stdin()).unwrap().local_flags.contains(LocalFlags::ECHO);
    assert!(!echo());
    terminal.take_back(true).unwrap();
    assert!(echo() && holder() == getpgrp());
}

fn inheritance() {
    let passed = tempfile::tempfile().unwrap();
    fcntl(&passed, FcntlArg::F_SETFD(FdFlag::empty())).unwrap();
    let private = tempfile::tempfile().unwrap(); // close-on-exec, like everything of ours
    let script = "cat /proc/self/status >$D/status; cat /proc/self/stat >$D/stat; \
                  cat /proc/self/oom_score_adj >$D/oom; exec sleep 1000";
    let stage = Stage::new(&["sh", "-c", script], beats);
    let command = stage.start_when_held();
    wait_until("the report", || Stat::of(command.as_raw()).is_some_and(|stat| stat.comm == "sleep"));
    let own = |file: &str| fs::read_to_string(format!("/proc/self/{file}")).unwrap().trim().to_owned();
    let line = |name: &str| -> String {
        let status = stage.lines("status");
        status.iter().find_map(|line| line.strip_prefix(name)).expect(name).trim().to_owned()
    };
    // What nohup(1) and a shell's `&` ignore stays ignored; 32 and 33 are the C library's own, which nobody can set.
    let theirs = u64::from_str_radix(&line("SigIgn:"), 16).unwrap();
    assert_eq!(theirs, ignored() & 0x1_8000_0007, "{:#x}", ignored());
    assert_eq!(line("SigBlk:"), "0000000000000000");
    assert_eq!(line("SigCgt:"), "0000000000000000");
    assert_eq!(line("VmLck:"), "0 kB");
    assert_eq!(stage.lines("oom"), [own("oom_score_adj")]);
    let field = |line: &str, number: usize| -> u64 {
        line.rsplit_once(')').unwrap().1.split_whitespace().nth(number - 3).unwrap().parse().unwrap()
    };
    let (theirs, ours) = (stage.lines("stat")[0].clone(), own("stat"));
    for number in [19, 40, 41] {
        assert_eq!(
            field(&theirs, number),
            field(&ours, number),
            "nice, real-time priority, policy: {number}"
        );
    }
    assert_eq!(field(&theirs, 9) & 0x0018_0000, 0, "PF_MEMALLOC_NOIO, PF_LOCAL_THROTTLE");
    // 0, 1, 2, the file above, and what whoever runs this test passed on.
    let numbers = |list: Vec<(i32, String)>| list.into_iter().map(|(fd, _)| fd).collect::<BTreeSet<_>>();
    // The loader of the program has a library open for a moment.
    let patience = clock::mono() + Duration::from_secs(5);
    let seen = loop {
        let seen = numbers(descriptors(command.as_raw()));
        if seen == passed_by_this_test() || clock::mono() > patience {
            break seen;
        }
        clock::sleep(Duration::from_millis(10));
    };
    assert_eq!(seen, passed_by_this_test());
    assert!(seen.contains(&passed.as_raw_fd()) && !seen.contains(&private.as_raw_fd()));
    // Of its own group, and driver and keeper hold nothing of the user's any more.
    assert_eq!(Stat::of(command.as_raw()).unwrap().group, command.as_raw());
    for (pid, name) in [(stage.driver, "mmp-driver"), (stage.keeper_pid, "mmp-keeper")] {
        assert_eq!(Stat::of(pid.as_raw()).unwrap().comm, name);
        for (fd, target) in descriptors(pid.as_raw()) {
            let own = ["pipe:", "socket:", "anon_inode:", "/sys/fs/cgroup/"]
                .iter()
                .any(|kind| target.starts_with(kind));
            assert!(if fd <= 2 { target == "/dev/null" } else { own }, "{name} holds {fd}: {target}");
        }
    }
    keeper_is_protected(&stage, field);
}

/// The descriptors of this process that are not close-on-exec.
fn passed_by_this_test() -> BTreeSet<i32> {
    let open = descriptors(std::process::id().try_into().unwrap());
    let passed = open.into_iter().map(|(fd, _)| fd).filter(|fd| {
        let info = fs::read_to_string(format!("/proc/self/fdinfo/{fd}")).unwrap_or_default();
        let flags = info.lines().find_map(|line| line.strip_prefix("flags:"));
        flags.is_some_and(|flags| i32::from_str_radix(flags.trim(), 8).unwrap() & libc::O_CLOEXEC == 0)
    });
    passed.collect()
}

fn descriptors(pid: i32) -> Vec<(i32, String)> {
    let listing = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().map(Result::unwrap);
    let open = listing.filter_map(|entry| {
        let target = fs::read_link(entry.path()).ok()?.display().to_string();
        Some((entry.file_name().to_str()?.parse().ok()?, target))
    });
    open.collect()
}

/// What the keeper says of itself is so. What it cannot have here (no privileges) it says too.
fn keeper_is_protected(stage: &Stage, field: impl Fn(&str, usize) -> u64) {
    let (pid, protection) = (stage.keeper_pid.as_raw(), &stage.protection);
    println!("  {protection:?}");
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let realtime = (field(&stat, 40), field(&stat, 41) & 7) == (1, 2); // SCHED_RR
    let locked = status.lines().find_map(|line| line.strip_prefix("VmLck:")).unwrap().trim() != "0 kB";
    let oom = fs::read_to_string(format!("/proc/{pid}/oom_score_adj")).unwrap().trim() == "-1000";
    let io_flusher = field(&stat, 9) & 0x0018_0000 == 0x0018_0000;
    let claimed = (protection.locked, protection.realtime, protection.oom, protection.io_flusher);
    assert_eq!(claimed, (locked, realtime, oom, io_flusher));
    assert_eq!(
        protection.failures.len(),
        [locked, realtime, oom, io_flusher].iter().filter(|on| !**on).count()
    );
    assert_eq!(field(&stat, 5), u64::try_from(pid).unwrap(), "a process group of its own");
}

/// The front is spared after it forked driver and keeper, and neither they nor the command take that for the user's.
fn oom() {
    let dir = tempfile::tempdir().unwrap();
    let own = || fs::read_to_string("/proc/self/oom_score_adj").unwrap();
    let body = || {
        let before = own();
        let stage = Stage::new(&["sh", "-c", "cat /proc/self/oom_score_adj >$D/oom"], beats);
        match spare_from_oom() {
            Ok(()) => assert_eq!(own(), "-1000\n"),
            Err(error) => {
                // Not even root may, without CAP_SYS_RESOURCE; the keeper's own attempt is the measure.
                assert!(!stage.protection.oom, "{error}");
                assert_eq!(own(), before);
            }
        }
        stage.start_when_held();
        assert!(matches!(stage.next(), FromKeeper::CommandEnded { end: CommandEnd::Exited(0), .. }));
        assert_eq!(stage.lines("oom"), [before.trim()]);
        fs::write(dir.path().join("passed"), "").unwrap();
        drop(stage);
        0
    };
    let front = fork_process(c"front", Place::OwnGroup, Descriptors::Passed(&[]), body).unwrap();
    waitpid(front, None).unwrap();
    assert!(dir.path().join("passed").exists());
}
