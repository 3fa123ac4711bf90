//! What this host knows: who uses a device, who we are, processes.

pub mod cgroup;
pub mod process;
pub mod realtime;
pub mod shared;
pub mod spawn;
pub mod terminal;
