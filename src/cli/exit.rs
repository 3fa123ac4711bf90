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
/// A signal ended it.
pub(super) const INTERRUPTED: u8 = 6;
/// Not supported here, or MMP is not enabled.
pub(super) const UNSUPPORTED: u8 = 7;
/// Unclean, the holder seems dead (`check`).
pub(super) const HOLDER_DEAD: u8 = 8;
/// e2fsck's mark.
pub(super) const FSCK: u8 = 9;

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

/// What `--help` says of them.
pub(super) const HELP: &str = "\
Exit codes: 0 done or free, 1 in use, 2 usage, 3 block damaged or unknown, 4 I/O, 5 protection lost, 6 interrupted, \
7 not supported or not enabled, 8 unclean and the holder seems dead (check), 9 e2fsck's mark.
`run` gives its command's status (126, 127 and 128 + signal as env(1)); its own: 121 in use or e2fsck's mark, \
122 usage, 123 damaged, 124 I/O, 125 protection lost, 120 anything else.";

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
