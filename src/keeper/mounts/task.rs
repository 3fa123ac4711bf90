//! What a guard is for. Given to its processes, and to whoever replaces one of them.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::driver::KnownSlot;
use crate::protocol::Credit;
use crate::registry::{Record, Registry, Slot};
use crate::sys::fence::LadderSpec;
use crate::sys::{Target, TargetKind};

/// What of a wait is kept for the reboot, at most.
const REBOOT_RESERVE: Duration = Duration::from_secs(2);

/// How the block is handed over to a kernel that mounts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Handover {
    /// The kernel waits by itself, twice, whatever stands in the block. No window, whoever else mounts.
    Kernel,
    /// mmp claims the device, marks it clean, and the kernel mounts at once. For fleets where every host uses mmp: a plain
    /// kernel mount elsewhere at that very instant is not seen in time.
    Clean,
}

/// What is to be guarded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Purpose {
    /// A mount that is to be made.
    Mount {
        /// Options for mount(8), joined by commas; empty for none.
        options: OsString,
        /// The filesystem is not to be written.
        read_only: bool,
        /// How it is handed over, if it is to be written.
        handover: Handover,
        /// How long to wait for whoever uses it to leave.
        wait: Duration,
        /// The node that is vouched to be dead.
        fenced: Option<String>,
        /// The storage outage that a read-only mount is to survive.
        tolerate: Option<Duration>,
    },
    /// One that was made without us.
    Adopt {
        /// When it was last seen, and where its count stood: nanoseconds of `CLOCK_BOOTTIME`.
        counted: Option<(u64, u32)>,
    },
}

/// A guard's task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Task {
    /// The device as it was named.
    pub asked: PathBuf,
    /// The device, without symbolic links.
    pub device: PathBuf,
    /// Its number.
    pub number: (u32, u32),
    /// Its name in the kernel.
    pub kernel_name: String,
    /// Where it is, or is to be, mounted.
    pub dir: PathBuf,
    /// The type for mount(8).
    pub filesystem: String,
    /// What for.
    pub purpose: Purpose,
    /// What is done on a loss.
    pub on_loss: LadderSpec,
    /// It need not be a fence.
    pub incomplete_fence: bool,
    /// The shortest wait of any taker, whoever beat last: so long the fence may take from the end of the lease.
    pub wait_after_lease: Duration,
    /// How long a claim of the kernel's is watched before it is taken back, at most as a rule.
    pub take_back: Duration,
    /// No kernel beats its protection: it is a slot of an area, and we do.
    pub area: bool,
    /// Where that slot was found.
    #[serde(default)]
    pub known_slot: Option<KnownSlot>,
    /// The slot, if it stands in an area elsewhere.
    pub guarded_by: Option<PathBuf>,
    /// What is used together with it, and guarded as well: devices, or slots, as TARGET:SLOT.
    pub with: Vec<PathBuf>,
    /// Where its record is.
    pub registry: PathBuf,
    /// What is run when something happens to it.
    #[serde(default)]
    pub events: crate::events::Settings,
    /// When it was begun, in seconds since 1970.
    pub since_s: u64,
    /// What its place in the registry is to say again if nothing comes of it.
    pub earlier: Option<Box<Record>>,
    /// What a standby of this host has watched of its block.
    #[serde(default)]
    pub standby: Option<Credit>,
    /// Its driver is a thread of the daemon, as long as there is one, and not a process of the keeper's.
    #[serde(default)]
    pub resident: bool,
}

impl Task {
    /// The device as `sys` asks about it.
    #[must_use]
    pub fn target(&self) -> Target {
        let (major, minor) = self.number;
        Target { canonical: self.device.clone(), kind: TargetKind::Block { major, minor } }
    }

    /// Its place in the registry.
    ///
    /// # Panics
    /// Never: a task is about a block device.
    #[must_use]
    pub fn slot(&self) -> Slot {
        Registry::at(&self.registry).slot(self.target().kind).expect("a block device has a place")
    }

    /// How long to wait for whoever uses the device to leave.
    #[must_use]
    pub fn patience(&self) -> Duration {
        match self.purpose {
            Purpose::Mount { wait, .. } => wait,
            Purpose::Adopt { .. } => Duration::ZERO,
        }
    }

    /// True if mount(8) is to be told that it must not write.
    #[must_use]
    pub fn is_read_only(&self) -> bool {
        matches!(self.purpose, Purpose::Mount { read_only: true, .. })
    }

    /// We beat, not a kernel.
    #[must_use]
    pub fn is_ours_to_beat(&self) -> bool {
        self.area || self.is_read_only()
    }

    /// The devices that are used together with it; not slots of areas, nor what is not there any more.
    pub fn other_targets(&self) -> impl Iterator<Item = Target> {
        self.with.iter().filter_map(|device| Target::of(device).ok())
    }

    /// How many leases it takes: its own comes first.
    #[must_use]
    pub fn members(&self) -> usize {
        1 + self.with.len()
    }

    /// What of a wait is kept for the reboot, should the fence not be done by then.
    #[must_use]
    pub fn reboot_reserve(&self) -> Duration {
        REBOOT_RESERVE.min(self.wait_after_lease / 4)
    }
}
