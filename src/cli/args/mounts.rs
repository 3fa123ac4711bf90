//! The arguments of the verbs that mount, unmount, and cut off.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueHint};

use super::{GuardedBy, duration, node_name};
use crate::sys::fence::LadderSpec;

#[derive(Debug, Args)]
pub(in crate::cli) struct Mount {
    /// The block device, or UUID=, LABEL=, PARTUUID= or PARTLABEL= and its value.
    #[arg(value_name = "DEV", value_hint = ValueHint::FilePath)]
    pub(in crate::cli) device: PathBuf,
    /// Where to mount it.
    #[arg(value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(in crate::cli) dir: PathBuf,
    #[command(flatten)]
    pub(in crate::cli) by: GuardedBy,
    /// Hold this device as well, or a slot, as TARGET:SLOT: all or nothing. For a filesystem on several devices, or with
    /// an external log.
    #[arg(long, value_name = "DEV", value_hint = ValueHint::FilePath)]
    pub(in crate::cli) with: Vec<PathBuf>,
    /// The filesystem's type, for mount(8) [default: what is found on the device].
    #[arg(short = 't', long = "types", value_name = "TYPE")]
    pub(in crate::cli) filesystem: Option<String>,
    /// Options for mount(8), separated by commas.
    #[arg(short = 'o', long = "options", value_name = "OPTS", action = clap::ArgAction::Append)]
    pub(in crate::cli) options: Vec<OsString>,
    /// Mount it read-only. mmp beats its block for as long as it is mounted.
    #[arg(short = 'r', long)]
    pub(in crate::cli) read_only: bool,
    /// Wait so long for somebody who uses the device to leave (such as 30s, 5m).
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub(in crate::cli) wait: Option<Duration>,
    /// NODE is dead, and the cluster vouches for it (it was fenced): if the block names NODE, one beat is waited for
    /// instead of a whole watch. Handed over clean.
    #[arg(long, value_name = "NODE", value_parser = node_name)]
    pub(in crate::cli) fenced: Option<String>,
    /// How the block is handed over to the kernel [default: kernel, or as the configuration file says].
    #[arg(long, value_enum, value_name = "HOW")]
    pub(in crate::cli) handover: Option<crate::keeper::mounts::Handover>,
    /// With --read-only: survive a storage outage of so long.
    #[arg(long, value_name = "DURATION", value_parser = duration, requires = "read_only")]
    pub(in crate::cli) tolerate: Option<Duration>,
    #[command(flatten)]
    pub(in crate::cli) fence: OnLoss,
    /// Guard it by processes of its own, although there is a daemon.
    #[arg(long)]
    pub(in crate::cli) without_daemon: bool,
    /// Say nothing but errors.
    #[arg(short, long)]
    pub(in crate::cli) quiet: bool,
}

/// What is done on a loss.
#[derive(Debug, Args)]
pub(in crate::cli) struct OnLoss {
    /// What to do when protection is lost: `auto`, or rungs in order, separated by commas: dm, scsi, unbind, shutdown,
    /// kill, exec:/COMMAND, reboot [default: auto, or as the configuration file says].
    #[arg(long, value_name = "LADDER", env = "MMP_ON_LOSS", value_parser = ladder)]
    pub(in crate::cli) on_loss: Option<LadderSpec>,
    /// Mount although no rung of the ladder is a fence by itself. After a loss this host may still write to the device
    /// while another one uses it.
    #[arg(long)]
    pub(in crate::cli) incomplete_fence: bool,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct Umount {
    /// Where it is mounted, or the device.
    #[arg(value_name = "DIR|DEV", value_hint = ValueHint::AnyPath)]
    pub(in crate::cli) what: PathBuf,
    /// Detach it now; it is released when nothing uses it any more (umount -l).
    #[arg(short, long)]
    pub(in crate::cli) lazy: bool,
    /// Unmount also what has lost its protection. What is dirty here is written over another host's data then.
    #[arg(long)]
    pub(in crate::cli) although_lost: bool,
    /// Wait so long until it is released.
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "60s")]
    pub(in crate::cli) wait: Duration,
    /// Say nothing but errors.
    #[arg(short, long)]
    pub(in crate::cli) quiet: bool,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct Remount {
    /// Where it is mounted, or the device.
    #[arg(value_name = "DIR|DEV", value_hint = ValueHint::AnyPath)]
    pub(in crate::cli) what: PathBuf,
    /// Options for mount(8), separated by commas, such as rw or ro.
    #[arg(short = 'o', long = "options", value_name = "OPTS", default_value = "rw")]
    pub(in crate::cli) options: OsString,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct Adopt {
    /// The block device.
    #[arg(value_name = "DEV", value_hint = ValueHint::FilePath)]
    pub(in crate::cli) device: PathBuf,
    #[command(flatten)]
    pub(in crate::cli) fence: OnLoss,
    /// Guard it by processes of its own, although there is a daemon.
    #[arg(long)]
    pub(in crate::cli) without_daemon: bool,
    /// Say nothing but errors.
    #[arg(short, long)]
    pub(in crate::cli) quiet: bool,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct Fence {
    /// The block device or image file.
    #[arg(value_name = "DEV", value_hint = ValueHint::FilePath)]
    pub(in crate::cli) device: PathBuf,
    /// Tell what would be done; without it nothing is told or done.
    #[arg(long)]
    pub(in crate::cli) test: bool,
    /// The rungs to climb, in this order, separated by commas: dm, scsi, unbind, shutdown, kill, exec:/absolute/command,
    /// reboot; or auto.
    #[arg(long, value_name = "LADDER", env = "MMP_ON_LOSS", default_value = "auto", value_parser = ladder)]
    pub(in crate::cli) on_loss: LadderSpec,
    /// The type of the filesystem, instead of what is found (such as ext4, xfs).
    #[arg(long = "type", value_name = "FSTYPE")]
    pub(in crate::cli) filesystem: Option<String>,
    /// Report as JSON.
    #[arg(long)]
    pub(in crate::cli) json: bool,
}

fn ladder(text: &str) -> Result<LadderSpec, String> {
    text.parse().map_err(|error: crate::sys::fence::LadderError| error.to_string())
}
