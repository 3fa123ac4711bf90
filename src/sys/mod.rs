//! What this host knows: who uses a device, who we are, processes.
//!
//! Protects: step 0 of a claim (nothing is claimed that this host already uses) and the release (no clean mark while
//! anything here may still write). Does not protect against what this host cannot see: other hosts are `protocol`'s
//! business, and [`users`] says which local users stay invisible.

pub mod activation;
pub mod activity;
mod bounded;
pub mod cgroup;
pub mod content;
mod descriptors;
mod device_mapper;
pub mod exclusive;
#[cfg(test)]
mod fake_sysfs;
pub mod fence;
pub mod fstab;
pub mod identity;
mod loops;
pub mod lun;
pub mod mountinfo;
pub mod passing;
pub mod probe;
pub mod process;
pub mod queueing;
pub mod realtime;
pub mod shared;
pub mod signals;
pub mod spawn;
mod stack;
mod swaps;
mod sysfs;
pub mod tags;
pub mod target;
pub mod terminal;
pub mod unused;
pub mod users;

pub use activity::KernelView;
pub use exclusive::ExclusiveHold;
pub use loops::goes_when_closed;
pub use target::{Target, TargetKind};
pub use users::{Survey, User, claim_unused, kernel_users, survey, users_before_claim};
