//! What a guarding thread is told: each a bit in one word, so that nobody waits for anybody.

use crate::protocol::Input;

// Commands, each a bit: one that comes while another waits does not replace it.
/// Give the device back.
pub(super) const COMMAND_RELEASE: u64 = 1;
/// Give up a claim.
pub(super) const COMMAND_WITHDRAW: u64 = 1 << 1;
/// Stop without another word: the sequence stays as it is, as after a crash.
pub(super) const COMMAND_CRASH: u64 = 1 << 2;
/// As [`COMMAND_CRASH`], and the lease is another one's to go on with.
pub(super) const COMMAND_ABANDON: u64 = 1 << 7;
/// Mark it clean for the kernel to mount.
pub(super) const COMMAND_HAND_OVER: u64 = 1 << 3;
/// The same, for a mount that is there and read-only.
pub(super) const COMMAND_HAND_OVER_MOUNTED: u64 = 1 << 4;
/// Whatever tried to mount has ended by itself.
pub(super) const COMMAND_MOUNT_ENDED: u64 = 1 << 5;
/// It was killed.
pub(super) const COMMAND_MOUNT_KILLED: u64 = 1 << 6;

/// Each command and what the guard is told, in the order in which they are carried out.
pub(super) const INPUTS: [(u64, Input<'static>); 6] = [
    (COMMAND_WITHDRAW, Input::Withdraw),
    (COMMAND_HAND_OVER, Input::HandOver { mounted: false }),
    (COMMAND_HAND_OVER_MOUNTED, Input::HandOver { mounted: true }),
    (COMMAND_MOUNT_ENDED, Input::MountEnded { killed: false }),
    (COMMAND_MOUNT_KILLED, Input::MountEnded { killed: true }),
    (COMMAND_RELEASE, Input::Release),
];
