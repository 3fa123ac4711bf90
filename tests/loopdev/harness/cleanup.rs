//! Whatever becomes of the cases (an abort, Ctrl-C): nothing of theirs stays behind. The cases run in a process of
//! their own, under a supervisor that takes down what that one left, and calls it a failure.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, ExitCode};

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use super::lun::{DIRECTORY_PREFIX, SCRATCH, command, unmount};
use super::process::{kill_marked, marked};
use super::{millis, seconds, started, throttle};

/// Names one run; every file name and every mark of it begins with that.
const RUN: &str = "MMPGUARD_LOOPDEV_RUN";

/// What this run's files and marks carry.
pub(crate) fn run() -> String {
    std::env::var(RUN).unwrap_or_else(|_| std::process::id().to_string())
}

/// Where `mmp` keeps its records in this run: never the host's own place.
pub(crate) fn runtime() -> String {
    format!("{SCRATCH}/{DIRECTORY_PREFIX}{}-runtime", run())
}

/// Takes away what is recorded of guards of `device`.
pub(crate) fn forget_guards_of(device: &str) {
    let Ok(number) = fs::metadata(device).map(|metadata| metadata.rdev()) else { return };
    let slot = format!("{}-{}.", nix::libc::major(number), nix::libc::minor(number));
    for entry in fs::read_dir(runtime()).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with(&slot) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// True in the process that runs the cases.
pub(crate) fn is_supervised() -> bool {
    std::env::var_os(RUN).is_some()
}

/// Runs this program again, as the one with the cases, and clears away after it.
pub(crate) fn supervise() -> ExitCode {
    let program = std::env::current_exe().expect("has a path");
    let mut child =
        Command::new(program).args(std::env::args_os().skip(1)).env(RUN, run()).spawn().expect("starts");
    // Only now: a child would inherit it.
    let signals: SigSet = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP].into_iter().collect();
    signals.thread_block().expect("blocks");
    let came =
        SignalFd::with_flags(&signals, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC).expect("listens");
    let status = loop {
        if let Some(status) = child.try_wait().expect("is a child of ours") {
            break status;
        }
        if came.read_signal().is_ok_and(|signal| signal.is_some()) {
            let _ = child.kill();
        }
        mmpguard::clock::sleep(millis(100));
    };
    let _ = fs::remove_dir_all(runtime());
    // The kernel detaches a loop device when its last user is gone, a moment later.
    let left = started::patiently(seconds(5), || left_behind().is_empty().then(Vec::new))
        .unwrap_or_else(left_behind);
    for what in &left {
        println!("LEFT BEHIND: {what}");
    }
    clear();
    if let Some(signal) = status.signal() {
        println!("the cases were ended by signal {signal}");
    }
    match status.code() {
        Some(0) if left.is_empty() => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}

/// Processes with our mark, mounts and loop devices over our images, directories.
fn left_behind() -> Vec<String> {
    let mut left: Vec<String> =
        marked(&format!("{}.", run())).iter().map(|process| format!("{process:?}")).collect();
    left.extend(mounts().into_iter().map(|mount| format!("a mount on {mount}")));
    left.extend(loops().into_iter().map(|device| format!("the loop device {device}")));
    left.extend(directories().into_iter().map(|directory| format!("the directory {}", directory.display())));
    left
}

fn clear() {
    throttle::lift_all();
    kill_marked(&format!("{}.", run()));
    for mount in mounts().into_iter().rev() {
        // Fails where nothing is frozen.
        command("fsfreeze", &["-u", &mount]);
        unmount(mount.as_ref());
    }
    // What is mounted on one of them, and lies on another, goes in between.
    for _ in 0..2 {
        for device in loops() {
            command("losetup", &["-d", &device]);
        }
        mounts().into_iter().for_each(|mount| unmount(mount.as_ref()));
    }
    for directory in directories() {
        let _ = fs::remove_dir_all(directory);
    }
}

fn ours() -> String {
    format!("{DIRECTORY_PREFIX}{}-", run())
}

fn mounts() -> Vec<String> {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let points = mounts.lines().filter_map(|line| line.split(' ').nth(1));
    points.filter(|point| point.contains(&ours())).map(ToOwned::to_owned).collect()
}

/// Those over our images, and those over them; what stands on another comes first.
fn loops() -> Vec<String> {
    let entries = fs::read_dir("/sys/block").into_iter().flatten().flatten();
    let backed = entries.filter_map(|entry| {
        let backing = fs::read_to_string(entry.path().join("loop/backing_file")).ok()?;
        Some((format!("/dev/{}", entry.file_name().display()), backing.trim().to_owned()))
    });
    let backed: Vec<_> = backed.collect();
    let over_images =
        backed.iter().filter(|(_, backing)| backing.contains(&ours())).map(|(device, _)| device);
    let over_images: Vec<_> = over_images.cloned().collect();
    let stacked = backed.into_iter().filter(|(_, backing)| over_images.contains(backing));
    let mut all: Vec<_> = stacked.map(|(device, _)| device).collect();
    all.extend(over_images);
    all
}

fn directories() -> Vec<std::path::PathBuf> {
    let entries = fs::read_dir(SCRATCH).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).filter(|path| path.to_string_lossy().contains(&ours())).collect()
}
