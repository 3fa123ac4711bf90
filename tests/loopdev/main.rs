//! `mmp` against the running kernel, e2fsprogs, XFS and btrfs, on loop devices: two over one file are two hosts. Takes root.
//!
//! Shows what only a real kernel can show: who refuses whom, who dies when, what reaches the disk. Nearly all of the
//! time is waiting for safety intervals, so the cases run side by side; those that starve the machine, or whose intervals are
//! a tenth of the others', run one after the other when these are through.

mod area_control;
mod area_copies;
mod area_fast;
mod area_grown;
mod area_refused;
mod area_sectors;
mod area_sets;
mod area_tail;
mod clear;
mod crash;
mod daemon_control;
mod daemon_faults;
mod daemon_hung;
mod daemon_load;
mod daemon_restart;
mod daemon_standby;
mod events;
mod guard_death;
mod guard_ended;
mod guard_handover;
mod guard_load;
mod guard_many;
mod guard_refused;
mod guard_remount;
mod guard_support;
mod guard_umount;
mod guards;
mod harness;
mod hostile;
mod kernel;
mod mount_double;
mod mount_error;
mod mount_freeze;
mod mount_helper;
mod mount_outage;
mod mount_race;
mod mount_readonly;
mod mount_remount;
mod native;
mod native_cut;
mod outage;
mod race;
mod release;
mod scan;
mod stopped;
mod tools;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Conclusion, Trial};

use crate::harness::cleanup;

/// Cases that run at once, unless said otherwise: they sleep.
const CASES_AT_ONCE: usize = 18;
/// Everything that the cases call.
const PROGRAMS: [&str; 29] = [
    "losetup",
    "mkfs.ext4",
    "mount",
    "umount",
    "e2fsck",
    "tune2fs",
    "dumpe2fs",
    "e2mmpstatus",
    "debugfs",
    "fsfreeze",
    "script",
    "flock",
    "cc",
    "mkfs.ext3",
    "mkfs.xfs",
    "xfs_repair",
    "xfs_growfs",
    "xfs_io",
    "mkfs.btrfs",
    "btrfs",
    "sfdisk",
    "blockdev",
    "blkid",
    "wipefs",
    "dd",
    "mkswap",
    "unshare",
    "nsenter",
    "setpriv",
];

/// The longest first.
const SIDE_BY_SIDE: &[&[Case]] = &[
    race::CASES,
    mount_outage::CASES,
    mount_error::CASES,
    mount_race::CASES,
    mount_double::CASES,
    mount_freeze::CASES,
    mount_helper::CASES,
    mount_remount::CASES,
    mount_readonly::CASES,
    native_cut::CASES,
    native::CASES,
    outage::CASES,
    area_tail::CASES,
    area_copies::CASES,
    area_grown::CASES,
    area_sets::CASES,
    area_control::CASES,
    area_sectors::CASES,
    area_refused::CASES,
    release::CASES,
    guards::CASES,
    guard_remount::CASES,
    guard_handover::CASES,
    guard_umount::CASES,
    guard_death::CASES,
    guard_ended::CASES,
    guard_refused::CASES,
    guard_many::CASES,
    daemon_load::CASES,
    daemon_faults::CASES,
    daemon_hung::CASES,
    daemon_standby::CASES,
    daemon_restart::CASES,
    daemon_control::CASES,
    events::CASES,
    clear::CASES,
    crash::CASES,
    stopped::CASES,
    kernel::CASES,
    tools::CASES,
    hostile::CASES,
    scan::CASES,
];
/// What is not to be seen in the others' figures, and the others not in its own.
const ALONE: &[&[Case]] = &[area_fast::CASES, daemon_load::ALONE, guard_load::CASES];

type Case = (&'static str, fn());

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert(CASES_AT_ONCE);
    let missing = missing();
    if missing.is_none() && !arguments.list && !cleanup::is_supervised() {
        return cleanup::supervise();
    }
    let required = std::env::var_os("MMPGUARD_REQUIRE_ROOT").is_some();
    let run = |arguments: &Arguments, cases: &[&[Case]]| {
        let trials =
            cases.concat().into_iter().map(|(name, case)| trial(name, case, missing.clone(), required));
        libtest_mimic::run(arguments, trials.collect())
    };
    if arguments.list {
        let _ = run(&arguments, &[SIDE_BY_SIDE, ALONE].concat());
        return ExitCode::SUCCESS;
    }
    let together = run(&arguments, SIDE_BY_SIDE);
    arguments.test_threads = Some(1);
    let alone = run(&arguments, ALONE);
    if let Some(missing) = &missing {
        let ignored = together.num_ignored + alone.num_ignored;
        println!("ROOT TESTS NOT RUN: {missing} missing; {ignored} of them ignored");
    }
    println!("root tests run: {}", ran(&together, missing.is_some()) + ran(&alone, missing.is_some()));
    match together.has_failed() || alone.has_failed() {
        true => ExitCode::FAILURE,
        false => ExitCode::SUCCESS,
    }
}

fn trial(name: &'static str, case: fn(), missing: Option<String>, required: bool) -> Trial {
    match missing {
        None => Trial::test(name, move || {
            case();
            Ok(())
        }),
        Some(missing) if required => {
            Trial::test(name, move || Err(format!("must run and needs {missing}").into()))
        }
        Some(_) => Trial::test(name, || Ok(())).with_ignored_flag(true),
    }
}

fn ran(conclusion: &Conclusion, skipped: bool) -> u64 {
    if skipped { 0 } else { conclusion.num_passed + conclusion.num_failed }
}

/// What keeps the cases from running here.
fn missing() -> Option<String> {
    if !nix::unistd::geteuid().is_root() {
        return Some("root".to_owned());
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = |program: &str| std::env::split_paths(&path).any(|dir| dir.join(program).is_file());
    PROGRAMS.iter().find(|program| !found(program)).map(|program| (*program).to_owned())
}
