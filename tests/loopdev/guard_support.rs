//! Guarded mounts: starting them, finding their two processes, and what must be true when nothing is left of one.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use mmpguard::clock::{self, Mono};
use mmpguard::protocol::sequence::SEQ_CLEAN;
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::harness::block::Sample;
use crate::harness::lun::{Loop, Lun, RUNTIME, must, text};
use crate::harness::process::{Process, marked};
use crate::harness::started::{Ended, Started, patiently};
use crate::harness::{millis, seconds};

/// What every mount of the tests is given, so that a loss never ends in a reboot.
pub(crate) const NO_REBOOT: [&str; 3] = ["--on-loss", "shutdown", "--incomplete-fence"];
/// A lease of the tests' mounts.
pub(crate) const LEASE: Duration = Duration::from_secs(11);

/// The two processes of a guard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Guard {
    pub(crate) driver: Process,
    pub(crate) keeper: Process,
}

/// Starts `mmp mount`.
pub(crate) fn mount(lun: &Lun, on: &Loop, options: &[&str]) -> (Started, PathBuf) {
    let to = lun.mount_point();
    (mount_on(lun, on.path(), &to, options, &[]), to)
}

pub(crate) fn mount_on(
    lun: &Lun,
    device: &str,
    to: &Path,
    options: &[&str],
    env: &[(&str, String)],
) -> Started {
    let mut arguments = vec!["mount"];
    if !options.contains(&"--on-loss") {
        arguments.extend(NO_REBOOT);
    }
    arguments.extend(options);
    arguments.extend([device, text(to)]);
    lun.start_with(env!("CARGO_BIN_EXE_mmp"), arguments, env)
}

/// Mounts guarded, and waits for it.
pub(crate) fn mounted(lun: &Lun, on: &Loop, options: &[&str]) -> PathBuf {
    let (mut mounting, to) = mount(lun, on, options);
    mounting.end(seconds(60)).expect(0).says("guarded on");
    assert!(is_mounted(&to));
    to
}

/// As [`mounted`], soon.
pub(crate) fn mounted_clean(lun: &Lun, on: &Loop) -> PathBuf {
    mounted(lun, on, &["--handover", "clean"])
}

/// Where an empty file says that the fence was called, and when; and the ladder that does that.
pub(crate) fn marking_fence(lun: &Lun) -> String {
    let script = lun.file("cut-off");
    let mark = lun.file("fenced");
    let what = format!("#!/bin/sh\ncut -d' ' -f1 /proc/uptime > {0}.new; mv {0}.new {0}\n", mark.display());
    std::fs::write(&script, what).expect("writes");
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).expect("sets");
    format!("exec:{}", script.display())
}

/// When the fence of [`marking_fence`] was called.
pub(crate) fn fenced_at(lun: &Lun) -> Option<Mono> {
    lun.marked("fenced")
}

/// `mmp status --json`.
pub(crate) fn status(lun: &Lun) -> (i32, Value) {
    let ended = lun.mmp(&["status", "--json"]).end(seconds(20));
    let report: Value = serde_json::from_str(&ended.out).unwrap_or_else(|error| panic!("{error}: {ended:?}"));
    assert_eq!(report["schema"], 1, "{report}");
    (ended.code, report)
}

/// What the status says of one device; null if it says nothing.
pub(crate) fn status_of(lun: &Lun, on: &Loop) -> Value {
    let (_, report) = status(lun);
    let guards = report["guards"].as_array().expect("is a list");
    guards.iter().find(|guard| guard["device"] == on.path()).cloned().unwrap_or_default()
}

/// Waits until the status of a device has `value` under `key`.
pub(crate) fn becomes(lun: &Lun, on: &Loop, key: &str, value: &str, patience: Duration) -> Value {
    // A loss is told when it is found, and in full when its fence has ended.
    let whole = |told: &Value| value != "lost" || !told["lost"].is_null();
    let is_so = |told: &Value| told[key] == value && whole(told);
    let told = patiently(patience, || Some(status_of(lun, on)).filter(is_so));
    told.unwrap_or_else(|| panic!("{key} never became {value}: {}", status_of(lun, on)))
}

/// The processes as the status names them.
pub(crate) fn guard(lun: &Lun, on: &Loop) -> Guard {
    let told = status_of(lun, on);
    guard_in(&told).unwrap_or_else(|| panic!("its processes are not there: {told}"))
}

fn guard_in(told: &Value) -> Option<Guard> {
    let process = |key: &str| {
        let pid = i32::try_from(told[key].as_i64()?).ok()?;
        Process::of(pid).filter(Process::is_alive)
    };
    let guard = Guard { driver: process("driver_pid")?, keeper: process("keeper_pid")? };
    // One that was started just now has another name for a moment.
    (guard.driver.comm == "mmp-driver" && guard.keeper.comm == "mmp-keeper").then_some(guard)
}

/// Waits until the status names two living processes, at least one of them not of `before`.
pub(crate) fn replaced(lun: &Lun, on: &Loop, before: &Guard, patience: Duration) -> Guard {
    let found = patiently(patience, || guard_in(&status_of(lun, on)).filter(|guard| guard != before));
    found.unwrap_or_else(|| panic!("not replaced: {}", status_of(lun, on)))
}

/// Ends both at one instant: neither can replace the other.
pub(crate) fn kill_both(guard: &Guard) {
    guard.keeper.signal(Signal::SIGSTOP);
    guard.driver.signal(Signal::SIGSTOP);
    guard.keeper.signal(Signal::SIGKILL);
    guard.driver.signal(Signal::SIGKILL);
    let gone = patiently(seconds(5), || (!guard.keeper.is_alive() && !guard.driver.is_alive()).then_some(()));
    assert!(gone.is_some(), "they do not end");
}

/// The guarding processes that live.
pub(crate) fn guards(lun: &Lun) -> Vec<Process> {
    let all = marked(lun.mark());
    all.into_iter().filter(|process| process.comm.starts_with("mmp")).collect()
}

/// A process that drives in the daemon's stead, if there is one.
pub(crate) fn substitute(lun: &Lun) -> Option<Process> {
    guards(lun).into_iter().find(|process| process.comm == "mmp-driver")
}

/// Waits until this process drives.
pub(crate) fn driven_by(lun: &Lun, pid: i32) -> bool {
    patiently(seconds(10), || (status_of(lun, &lun.a)["driver_pid"] == pid).then_some(())).is_some()
}

/// The keeper that the status names, if it lives.
pub(crate) fn keeper_of(lun: &Lun) -> Option<Process> {
    let pid = status_of(lun, &lun.a)["keeper_pid"].as_i64().and_then(|pid| i32::try_from(pid).ok());
    pid.and_then(Process::of).filter(Process::is_alive)
}

/// The files of guards in the registry, without the locks.
pub(crate) fn records(lun: &Lun) -> Vec<String> {
    let entries = std::fs::read_dir(lun.file(RUNTIME)).into_iter().flatten().flatten();
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    let of_guards = names.filter(|name| name.starts_with(|first: char| first.is_ascii_digit()));
    of_guards.filter(|name| !name.ends_with(".lock")).collect()
}

/// No process, no record, nothing mounted.
pub(crate) fn nothing_is_left(lun: &Lun) {
    let left = || {
        let (guards, records) = (guards(lun), records(lun));
        (guards.is_empty() && records.is_empty()).then_some(())
    };
    let gone = patiently(seconds(10), left);
    assert!(gone.is_some(), "left: {:?} {:?}", guards(lun), records(lun));
    let mounts = std::fs::read_to_string("/proc/self/mounts").expect("reads");
    let dir = lun.file("mounted-");
    assert!(!mounts.contains(text(&dir)), "something is mounted: {mounts}");
}

/// Clean, and nothing is left.
pub(crate) fn nothing_is_left_and_clean(lun: &Lun) {
    nothing_is_left(lun);
    let clean = patiently(seconds(5), || (lun.raw().read().seq == SEQ_CLEAN).then_some(()));
    assert!(clean.is_some(), "not clean: {:?}", lun.raw().read());
}

/// `umount(8)`, and then until everything is gone.
pub(crate) fn unmount_plainly(lun: &Lun, from: &Path) {
    must("umount", &[text(from)]);
    nothing_is_left_and_clean(lun);
}

pub(crate) fn is_mounted(dir: &Path) -> bool {
    mount_options(dir).is_some()
}

/// The options of a mount, as the kernel lists them.
pub(crate) fn mount_options(dir: &Path) -> Option<String> {
    let mounts = std::fs::read_to_string("/proc/self/mounts").expect("reads");
    let line = mounts.lines().find(|line| line.split(' ').nth(1) == Some(text(dir)))?;
    line.split(' ').nth(3).map(ToOwned::to_owned)
}

/// Another host asks `mmp mount`, and is refused at once.
pub(crate) fn refuses_others(lun: &Lun) -> Ended {
    let (mut mounting, to) = mount(lun, &lun.b, &[]);
    let ended = mounting.end(seconds(30));
    ended.expect(1).says("in use elsewhere");
    assert!(!is_mounted(&to));
    ended
}

/// The longest time between two changes of the block, the time until `end` included.
pub(crate) fn longest_gap(samples: &[Sample], end: Mono) -> Duration {
    let times: Vec<Mono> = samples.iter().map(|sample| sample.at).chain([end]).collect();
    times.windows(2).map(|pair| pair[1].since(pair[0])).max().unwrap_or_default()
}

/// A filesystem that is frozen until this is dropped.
pub(crate) struct Frozen(PathBuf);

impl Frozen {
    pub(crate) fn new(dir: &Path) -> Frozen {
        must("fsfreeze", &["-f", text(dir)]);
        Frozen(dir.to_owned())
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        let _ = std::process::Command::new("fsfreeze").arg("-u").arg(&self.0).status();
    }
}

/// Somebody's program that has `path` open until dropped.
pub(crate) fn opener(lun: &Lun, path: &str, how: &str) -> Started {
    let mut user = lun.start("sh", ["-c", &format!("exec 3{how}{path}; echo open >&2; exec sleep 1000")]);
    user.says("open", seconds(10));
    clock::sleep(millis(50));
    user
}
