//! The demo, as the README's first command runs it.

use std::process::{Command, Stdio};
use std::time::Duration;

use mmpguard::clock;
use mmpguard::sys::process::Stat;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::support::{OrdinaryUser, Scratch, finished, ran};

/// The whole story, as an ordinary user and with the image in memory.
#[test]
fn the_demo_comes_out_as_told() {
    let user = OrdinaryUser::new();
    let there = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir_in("/var/tmp"));
    let there = there.expect("makes a directory");
    user.owns(there.path());
    let ran = ran(user.mmp().arg("demo").env("TMPDIR", there.path()).env("TZ", "UTC"));
    assert_eq!((ran.code, ran.err.as_str()), (Some(0), ""), "{ran:?}");
    let told = [
        "1. alpha claims the disk",
        "alpha says: mmp: claimed; watching for 11 s",
        "alpha holds it",
        "2. beta wants it",
        "beta says:   last named: node \"alpha\"",
        "exit code 121; its command never ran",
        "3. alpha is killed with SIGKILL",
        "alpha's command is dead",
        "4. beta asks again",
        "beta says: mmp: not clean; watching it for 12.5 s; last named: node \"alpha\"",
        "s left",
        "beta holds it",
        "the block is marked clean",
        "last named           node \"beta\"",
        "What to try next",
    ];
    let mut rest = ran.out.as_str();
    for line in told {
        rest = rest
            .split_once(line)
            .unwrap_or_else(|| panic!("{line:?} is not told in its place: {}", ran.out))
            .1;
    }
    assert!((34..70).contains(&ran.took.as_secs()), "took {:?}", ran.took);
    let left: Vec<_> = there.path().read_dir().expect("lists").collect();
    assert!(left.is_empty(), "left behind: {left:?}");
}

#[test]
fn an_interrupted_demo_leaves_nothing_behind() {
    let user = OrdinaryUser::new();
    let there = tempfile::tempdir_in("/var/tmp").expect("makes a directory");
    user.owns(there.path());
    let mut command = user.mmp();
    command.arg("demo").env("TMPDIR", there.path());
    let start = clock::mono();
    let demo =
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("starts");
    clock::sleep(Duration::from_secs(13)); // alpha holds it by now, its command runs
    let running = processes_in(there.path()).len();
    assert!(running >= 3, "front, driver and keeper should run, not {running}");
    kill(Pid::from_raw(i32::try_from(demo.id()).expect("is a pid")), Signal::SIGINT).expect("signals");
    let ran = finished(&demo.wait_with_output().expect("ends"), clock::mono().since(start));
    assert_eq!(ran.code, Some(6), "{ran:?}");
    assert!(ran.err.contains("interrupted"), "{ran:?}");
    assert!(ran.took < Duration::from_secs(18), "{ran:?}");
    let left: Vec<_> = there.path().read_dir().expect("lists").collect();
    assert!(left.is_empty(), "left behind: {left:?}");
    assert_eq!(processes_in(there.path()), [0; 0]);
}

/// A step that does not come out fails the demo: here alpha is killed before it holds anything.
#[test]
fn a_step_that_fails_fails_the_demo() {
    let there = tempfile::tempdir_in("/var/tmp").expect("makes a directory");
    let start = clock::mono();
    let demo = Command::new(crate::support::MMP)
        .arg("demo")
        .env("TMPDIR", there.path())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("starts");
    let front = loop {
        clock::sleep(Duration::from_millis(200));
        let parent = |pid| Stat::of(pid).map(|stat| stat.parent.unsigned_abs());
        if let Some(front) =
            processes_in(there.path()).into_iter().find(|&pid| parent(pid) == Some(demo.id()))
        {
            break front;
        }
    };
    clock::sleep(Duration::from_secs(2));
    kill(Pid::from_raw(front), Signal::SIGKILL).expect("signals");
    let ran = finished(&demo.wait_with_output().expect("ends"), clock::mono().since(start));
    assert_eq!(ran.code, Some(11), "{ran:?}");
    assert!(ran.err.contains("the demo failed: alpha ended"), "{ran:?}");
    assert!(!ran.out.contains("alpha holds it"), "{ran:?}");
    let left: Vec<_> = there.path().read_dir().expect("lists").collect();
    assert!(left.is_empty(), "left behind: {left:?}");
}

#[test]
fn the_demo_writes_over_nothing() {
    let scratch = Scratch::new();
    let before = scratch.bytes();
    let ran = ran(Command::new(crate::support::MMP).arg("demo").arg("--image").arg(&scratch.image));
    assert_eq!(ran.code, Some(4), "{ran:?}");
    assert!(ran.err.contains("File exists"), "{ran:?}");
    assert!(scratch.bytes() == before);
}

/// Processes with a path in `directory` on their command line.
fn processes_in(directory: &std::path::Path) -> Vec<i32> {
    let needle = directory.to_str().expect("is UTF-8");
    let entries = std::fs::read_dir("/proc").expect("lists");
    entries
        .flatten()
        .filter(|entry| {
            let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&line).contains(needle)
        })
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect()
}
