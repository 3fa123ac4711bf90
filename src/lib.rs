//! Multiple-mount protection (MMP) in userspace, byte-compatible with ext4, ldiskfs and e2fsprogs.
//!
//! # Example
//! Hold an image file, use it, release it. On a device it is the same with `/dev/...`, and takes as long.
//! ```
//! use std::time::Duration;
//! use mmpguard::{Options, watch, Quiet};
//! # use std::ops::ControlFlow;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let dir = tempfile::tempdir()?;
//! # let image = dir.path().join("disk.img");
//! // An ext4 filesystem of 64 KiB with the mmp feature.
//! std::fs::write(&image, include_bytes!("../testimages/demo.img"))?;
//!
//! let mut held = Options::new(&image).node("alpha").acquire()?; // blocks for the safety interval, 11 s here
//! assert!(held.is_held()); // ask again before each thing that must not happen twice
//! assert!(held.status().lease_left > Duration::from_secs(5));
//! held.release()?; // flushes, verifies, writes the clean mark
//!
//! let quiet = watch(&image, |_| ControlFlow::Continue(()))?; // never opens it for writing
//! assert!(matches!(quiet, Quiet::Clean { by } if by.node.to_string() == "alpha"));
//! # Ok(()) }
//! ```
//!
//! # Code map
//! Imports run downward only.
//!
//! | module | what | may |
//! |---|---|---|
//! | [`clock`] | the only clock reads | syscalls |
//! | [`format`](mod@format) | bytes to types and back | nothing: pure |
//! | [`protocol`] | claim, hold, release as sans-IO machines; the safety argument | nothing: pure |
//! | [`ext4`] | the edits that switch MMP on and off on ext2, ext3 and ext4 | nothing but [`ext4::Bytes`] |
//! | [`io`] | the device: `O_DIRECT`, aligned locked buffers | `unsafe`, I/O |
//! | [`sys`] | what this host knows: users of a device, identity, processes | `unsafe`, I/O |
//! | [`driver`] | runs a `Guard` on a device: one thread a LUN | I/O, threads |
//! | [`area`] | makes, changes and repairs MMP areas | I/O |
//! | [`native`] | ext4's own MMP on and off, and its interval: when that may be written | I/O |
//! | [`scan`] | one look at each of many devices, side by side | I/O, threads |
//! | [`events`] | what happened to guards: log, journal, hooks; never on the path of a beat | I/O, threads, processes |
//! | [`health`] | how a guard fares, by its record and its processes | I/O |
//! | [`metrics`] | the figures for Prometheus, from the same records | I/O |
//! | [`keeper`] | the process that outlives the driver and fences when a lease runs out | processes |
//!
//! # Invariants
//! 1. Nothing is written to a block that was not looked at first, within a limit (`protocol::timing`).
//! 2. Whoever holds writes nothing once his lease ended, and hears of it before another may use the device.
//! 3. Dropping is crashing: only an explicit release, verified, writes the clean mark.
#![warn(missing_docs)]

// The README's example is compiled.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

pub mod area;
pub mod cli;
pub mod clock;
pub mod config;
pub mod driver;
pub mod error;
pub mod events;
pub mod ext4;
pub mod format;
pub mod health;
#[allow(unsafe_code)]
pub mod io;
pub mod keeper;
/// Marks a rule of the protocol that a test leaves out on purpose, to see whether the simulator finds it: `broken!(Rule)`.
/// Here it is `false`, and nothing of it is compiled; `tests/teeth` compiles the same sources with another meaning.
macro_rules! broken {
    ($($rule:ident),+) => {
        false
    };
}

pub mod metrics;
pub mod native;
pub mod protocol;
pub mod registry;
pub mod scan;
#[allow(unsafe_code)]
pub mod sys;

pub use driver::{Held, Options, Place, Released, Status, watch};
pub use error::{Error, Kind};
pub use protocol::{Event, Loss, Peer, Quiet, Refusal};
