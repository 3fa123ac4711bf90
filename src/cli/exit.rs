//! Exit codes, all of them, once.

use std::process::ExitCode;

use crate::error::{Error, Kind};

/// Done, or free.
pub(super) const DONE: u8 = 0;
/// In use, here or elsewhere.
pub(super) const IN_USE: u8 = 1;
/// The command line cannot be meant.
pub(super) const USAGE: u8 = 2;
/// The block or the superblock is damaged, or a sequence is unknown.
pub(super) const DAMAGED: u8 = 3;
/// The system refused an operation.
pub(super) const IO: u8 = 4;
/// Protection was lost.
pub(super) const LOST: u8 = 5;
/// A signal ended it, who was asked did not confirm it, or a change of the filesystem's settings under the watch: it may be tried again.
pub(super) const INTERRUPTED: u8 = 6;
/// Not supported here, or MMP is not enabled.
pub(super) const UNSUPPORTED: u8 = 7;
/// Unclean, the holder seems dead (`check`).
pub(super) const HOLDER_DEAD: u8 = 8;
/// e2fsck's mark.
pub(super) const FSCK: u8 = 9;
/// What is to be protected could not be fenced, or no fence is possible here.
pub(super) const NOT_FENCED: u8 = 10;
/// A step of `demo` did not come out as told.
pub(super) const DEMO_FAILED: u8 = 11;
/// `health`: it is protected, but something is wrong.
pub(super) const UNHEALTHY: u8 = 12;

/// `run`: none of the below.
pub(super) const RUN_OTHER: u8 = 120;
/// `run`: in use, or e2fsck's mark.
pub(super) const RUN_IN_USE: u8 = 121;
/// `run`: the command line cannot be meant.
pub(super) const RUN_USAGE: u8 = 122;
/// `run`: damaged.
pub(super) const RUN_DAMAGED: u8 = 123;
/// `run`: the system refused an operation.
pub(super) const RUN_IO: u8 = 124;
/// `run`: protection was lost; the command was killed.
pub(super) const RUN_LOST: u8 = 125;
/// `run`: as env(1), the command cannot be executed.
pub(super) const CANNOT_EXECUTE: u8 = 126;
/// `run`: as env(1), there is no such command.
pub(super) const NOT_FOUND: u8 = 127;

/// `mount.mmp`, `umount.mmp`: as mount(8), the command line cannot be meant.
pub(super) const MOUNT_USAGE: u8 = 1;
/// As mount(8): interrupted.
pub(super) const MOUNT_INTERRUPTED: u8 = 8;
/// As mount(8): not mounted, or not unmounted.
pub(super) const MOUNT_FAILED: u8 = 32;

/// Every code and what it means, for `--help` and the man pages.
pub(super) const ALL: [(u8, &str); 13] = [
    (DONE, "done, or free"),
    (IN_USE, "in use, here or elsewhere"),
    (USAGE, "the command line cannot be meant"),
    (DAMAGED, "the MMP block or the superblock is damaged or unknown"),
    (IO, "the system refused an operation"),
    (LOST, "protection was lost"),
    (INTERRUPTED, "interrupted, not confirmed, or the filesystem's settings changed meanwhile: try again"),
    (UNSUPPORTED, "not supported here, or MMP is not enabled (any more)"),
    (HOLDER_DEAD, "not clean, and the holder seems dead (check)"),
    (FSCK, "marked by e2fsck"),
    (NOT_FENCED, "what is to be protected could not be fenced, or no fence is possible here"),
    (DEMO_FAILED, "a step did not come out as told (demo)"),
    (UNHEALTHY, "protected, but something is wrong (health)"),
];

/// What `run` says instead: its command's status, or one of these.
pub(super) const RUN: [(u8, &str); 8] = [
    (RUN_OTHER, "anything else, such as interrupted (as 6) or MMP not enabled (as 7)"),
    (RUN_IN_USE, "in use, here or elsewhere, or marked by e2fsck"),
    (RUN_USAGE, "the command line cannot be meant"),
    (RUN_DAMAGED, "the MMP block or the superblock is damaged or unknown"),
    (RUN_IO, "the system refused an operation"),
    (RUN_LOST, "protection was lost, and the command was killed"),
    (CANNOT_EXECUTE, "the command cannot be executed"),
    (NOT_FOUND, "the command was not found"),
];

/// What `mount.mmp` and `umount.mmp` say instead: mount(8)'s codes. Its others are never theirs: 2 and 4 are mount(8)'s own
/// mistakes, 16 its table's, 64 is for several mounts.
pub(super) const MOUNT: [(u8, &str); 4] = [
    (DONE, "done (0); of umount.mmp also: unmounted, and not released yet (1)"),
    (MOUNT_USAGE, "the command line cannot be meant (2)"),
    (MOUNT_INTERRUPTED, "interrupted, or the filesystem's settings changed meanwhile: try again (6)"),
    (MOUNT_FAILED, "anything else: not mounted, or not unmounted; what is said tells why"),
];

/// What `--help` says of them.
pub(super) fn help() -> String {
    format!(
        "Exit codes:\n{}\nrun gives the status of its command, 128 + N if signal N ended it; its own:\n{}\nmount.mmp and \
         umount.mmp give mount(8)'s:\n{}",
        table(&ALL),
        table(&RUN),
        table(&MOUNT)
    )
}

fn table(codes: &[(u8, &str)]) -> String {
    codes.iter().map(|(code, meaning)| format!("  {code:>3}  {meaning}\n")).collect()
}

/// The exit code of an error, for every verb but `run`.
pub(super) fn code(error: &Error) -> ExitCode {
    ExitCode::from(number(error))
}

/// As [`code`], as a number for a JSON report.
pub(super) fn number(error: &Error) -> u8 {
    match error.kind() {
        Kind::InUse => IN_USE,
        Kind::Fsck => FSCK,
        Kind::Usage => USAGE,
        Kind::Damaged => DAMAGED,
        Kind::Io => IO,
        Kind::Lost => LOST,
        Kind::Interrupted => INTERRUPTED,
        Kind::Unsupported => UNSUPPORTED,
    }
}

/// mount(8)'s code for one of a verb's.
pub(super) fn for_mount(code: ExitCode) -> ExitCode {
    let same = [(DONE, DONE), (USAGE, MOUNT_USAGE), (INTERRUPTED, MOUNT_INTERRUPTED)];
    let found = same.iter().find(|(ours, _)| ExitCode::from(*ours) == code);
    ExitCode::from(found.map_or(MOUNT_FAILED, |(_, theirs)| *theirs))
}

/// As [`for_mount`], of `umount`. What is unmounted is that, even if something keeps the filesystem alive: umount(8) says no less.
pub(super) fn for_umount(code: ExitCode) -> ExitCode {
    if code == ExitCode::from(IN_USE) { ExitCode::from(DONE) } else { for_mount(code) }
}

/// The exit code of an error of `run`'s own.
pub(super) fn run_number(kind: Kind) -> u8 {
    match kind {
        Kind::InUse | Kind::Fsck => RUN_IN_USE,
        Kind::Usage => RUN_USAGE,
        Kind::Damaged => RUN_DAMAGED,
        Kind::Io => RUN_IO,
        Kind::Lost => RUN_LOST,
        Kind::Interrupted | Kind::Unsupported => RUN_OTHER,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_one_of_mounts() {
        for (code, _) in ALL {
            let expected = match code {
                DONE => DONE,
                USAGE => MOUNT_USAGE,
                INTERRUPTED => MOUNT_INTERRUPTED,
                _ => MOUNT_FAILED,
            };
            assert_eq!(for_mount(ExitCode::from(code)), ExitCode::from(expected), "{code}");
            let expected = if code == IN_USE { DONE } else { expected };
            assert_eq!(for_umount(ExitCode::from(code)), ExitCode::from(expected), "{code}");
        }
    }
}
