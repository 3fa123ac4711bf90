//! Multiple-mount protection (MMP) in userspace, byte-compatible with ext4, ldiskfs and e2fsprogs.
//!
//! # Code map
//! Imports run downward only.
//!
//! | module | what | may |
//! |---|---|---|
//! | [`clock`] | the only clock reads | syscalls |
//! | [`format`](mod@format) | bytes to types and back | nothing: pure |
//! | [`protocol`] | claim, hold, release as sans-IO machines; the safety argument | nothing: pure |
//! | [`io`] | the device: `O_DIRECT`, aligned locked buffers | `unsafe`, I/O |
//! | [`sys`] | what this host knows: users of a device, identity, processes | `unsafe`, I/O |
//! | [`driver`] | runs a `Guard` on a device: one thread a LUN | I/O, threads |
//! | [`keeper`] | the process that outlives the driver and fences when a lease runs out | processes |
//!
//! # Invariants
//! 1. Nothing is written to a block that was not looked at first, within a limit (`protocol::timing`).
//! 2. Whoever holds writes nothing once his lease ended, and hears of it before another may use the device.
//! 3. Dropping is crashing: only an explicit release, verified, writes the clean mark.
#![warn(missing_docs)]

pub mod cli;
pub mod clock;
pub mod driver;
pub mod error;
pub mod format;
#[allow(unsafe_code)]
pub mod io;
pub mod keeper;
pub mod protocol;
#[allow(unsafe_code)]
pub mod sys;

pub use driver::{Held, Options, Place, Status, watch};
pub use error::{Error, Kind};
pub use protocol::{Event, Loss, Peer, Quiet, Refusal};
