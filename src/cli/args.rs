//! The command line's definition. Man pages and completions are generated from it.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueHint};
use jiff::SignedDuration;

mod mounts;

pub(super) use self::mounts::{Adopt, Fence, Mount, OnLoss, Remount, Umount};

/// Multiple-mount protection for shared devices, byte-compatible with ext4, ldiskfs and e2fsprogs.
///
/// Two hosts that see one device destroy what is on it when they use it at once. mmp holds the device as a mounted
/// ext4 does: it rewrites one block every second, and whoever comes later watches that block before he touches
/// anything. Kernels and e2fsprogs on other hosts see it, and it sees them.
#[derive(Debug, Parser)]
#[command(name = "mmp", version, max_term_width = 100, after_help = super::exit::help())]
pub(super) struct Cli {
    #[command(subcommand)]
    pub(super) verb: Verb,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Show what the MMP block of a device says, and what follows from it. Never writes.
    ///
    /// One look, at once: who was last named in the block and when, and how long a refusal, a claim, a takeover after
    /// a crash and a storage outage may take with the intervals found. It cannot tell whether a holder lives; `mmp
    /// check` can.
    Show(Show),
    Scan(super::scan::Arguments),
    /// Find out whether anybody uses a device: free, in use, holder dead, marked by e2fsck, damaged. Never writes.
    ///
    /// A use on this host is told at once, a live holder on another one after about one of his beats. A holder who
    /// seems dead takes a whole watch, 12.5 s with the usual intervals: less does not prove it.
    Check(Check),
    /// Make a stale block clean again, after a crash or a dead e2fsck; refused while anybody is alive there.
    ///
    /// For what looks at nothing but the block, as kernels and e2fsprogs do: `mmp mount` and `mmp run` wait by themselves, and need
    /// no clear. A block that looks live is claimed first (23.5 s with the usual intervals), and any change refuses. An e2fsck
    /// cannot be proved dead by watching: its node is to be confirmed, and its mark is claimed then. Never writes the superblock.
    Clear(super::clear::args::Clear),
    /// Make, show and change MMP areas: protection for what has no MMP of its own.
    ///
    /// An area is a few blocks on a device, or in a file, with a slot for each thing that one host at a time may use. It stands
    /// behind the filesystem it guards, or on a small LUN that all hosts see and that guards many devices.
    Area(super::area::args::Area),
    /// Protect a device: by the MMP of its ext2/3/4 itself, or by an area behind XFS, btrfs, anything.
    ///
    /// Switches the filesystem's own MMP on where it can have it; makes an area behind what else stands on the device; or, with
    /// --area, adds a slot to an area elsewhere. Whatever is refused is refused before anything is written, with the ways out.
    ///
    /// Nobody may use the device meanwhile, on no host: without protection other hosts cannot be seen. A mount on another host that is
    /// read-only, or frozen for a snapshot, looks like none.
    Enable(super::area::args::Enable),
    /// Take the protection of a device away: the MMP of its ext2/3/4, or the area behind what stands on it.
    ///
    /// Claims the device first, as a mount would: whoever uses it elsewhere is found. The block is given back to the filesystem.
    Disable(super::native::args::Disable),
    /// Change how often kernels beat an ext2/3/4 with MMP.
    ///
    /// Claims the device first, as a mount would. How often mmp itself beats is said by `mmp run --interval`.
    Set(super::native::args::Set),
    /// Hold a device while a command runs; the command dies when the protection does.
    ///
    /// Claims the device as a mount of ext4 would, waits until that is safe (11 s if it was left clean, 23.5 s after a
    /// crash, with the usual intervals), then runs the command and rewrites the block every second. Kernels, e2fsprogs
    /// and mmp on other hosts refuse the device meanwhile.
    ///
    /// If the device hangs for longer than the lease, or another host took it, or the guarding processes are killed,
    /// the command and all its descendants are killed with SIGKILL. If the command ends while something else still uses
    /// the device, it stays held until that ends. Signals are passed on to the command.
    ///
    /// The device itself is not made inaccessible to other processes on this host: what the command did not start is
    /// not killed.
    Run(Run),
    /// Mount a filesystem, guarded: refused while another host uses it, stopped when the protection is lost.
    ///
    /// Claims the device, or lets the kernel claim it, and mounts with mount(8). Returns when the filesystem is mounted,
    /// and leaves two small processes behind that watch the kernel's beats, beat in its stead while it cannot (a
    /// snapshot's freeze), and cut the device off when its protection is lost. A plain umount(8) ends them, too.
    ///
    /// How it is cut off is said by --on-loss; `mmp fence --test DEV` tells what is possible here. Where there is nothing
    /// but a reboot, a loss reboots this host at once, without a sync.
    Mount(Mount),
    /// Unmount a guarded filesystem and wait until it is released.
    Umount(Umount),
    /// Remount a guarded filesystem with other options.
    ///
    /// A plain `mount -o remount,rw` of a guarded mount that is read-only fails, because mmp beats its block; this hands
    /// the block back to the kernel first. Without a guard it is what mount(8) does.
    Remount(Remount),
    /// Guard a filesystem that a plain mount(8) has mounted.
    Adopt(Adopt),
    /// Show what this host guards, and what it has lost.
    Status(super::monitor::Status),
    /// Tell in one line, and by the exit code, whether everything that this host guards is well. For monitors.
    ///
    /// 0: it is, or nothing is guarded. 12: it is protected, but something is wrong. 5: something is not protected. The first line
    /// says which; each finding has a line of its own below it.
    Health(super::monitor::Health),
    /// Print what happened to the guards of this host: held, taken over, bridged, late, lost, fenced, released.
    ///
    /// The log is below the runtime directory (/run/mmp) and begins with the boot. The same goes to the journal, where
    /// `journalctl -t mmp` finds it, and to the hooks of /etc/mmp/mmp.toml.
    Events(super::monitor::Events),
    /// Print figures for Prometheus, once: for the textfile collector of node_exporter. docs/metrics.md has every name.
    Metrics,
    /// Runs a hook. Started by whoever has something to tell.
    #[command(name = crate::events::hooks::VERB, hide = true)]
    EventHook,
    /// Tell how a mounted device would be cut off from this host if its protection were lost. Does none of it.
    ///
    /// What is protected must be stopped when the protection ends. For a mounted filesystem that takes a fence: a way to
    /// keep this host from writing to the device, whatever hangs. Each rung of the ladder is tried out as far as that
    /// changes nothing: what it needs is looked up and opened. Layers that hold I/O back for longer than others wait are
    /// told, too.
    ///
    /// Rungs: dm replaces the table of a device mapper device by one that refuses everything; scsi sets all its paths
    /// offline and removes them; unbind takes the driver away (virtio, NVMe); shutdown is the filesystem's own, and a fence
    /// on XFS alone; kill ends the processes that use it, and is none; exec:/absolute/command is your own, whose exit
    /// status 0 vouches that the device is cut off; reboot restarts this host at once, without sync. auto is every rung that
    /// the device has, reboot last.
    Fence(Fence),
    /// See it work, without root and without a device: two holders, a refusal, a crash, a takeover.
    ///
    /// Takes about 40 s, on an image file that is removed again. Each step is checked; one that does not come out as
    /// told ends the demo with exit code 11.
    Demo(super::demo::Demo),
    /// Guard many devices in one process, for the whole host.
    ///
    /// `mmp mount` and mount(8) use it when it is there. It is best started by systemd (mmpd.socket); what it guards
    /// outlives it: a daemon that is killed, or replaced by a newer one, finds its guards again.
    Daemon(super::daemon::Daemon),
    /// Watch a device that another host uses, so that a takeover has less to wait for.
    ///
    /// The daemon watches it, without ever opening it for writing. A later `mmp mount` on this host counts the time for which it
    /// saw the very same bytes: after a crash that saves one of two waits.
    Standby(super::daemon::Standby),
    /// The process that fences. Started by `mount` and `adopt`.
    #[command(name = crate::keeper::mounts::VERB, hide = true)]
    GuardKeeper,
    /// Write man pages or completions, generated from this definition.
    #[command(hide = true)]
    Generate(super::generate::Generate),
}

#[derive(Debug, Args)]
pub(super) struct Show {
    /// The block device or image file, or a slot of an area, as TARGET:SLOT.
    #[arg(value_name = "DEV", value_hint = ValueHint::FilePath)]
    pub(super) device: PathBuf,
    #[command(flatten)]
    pub(super) by: GuardedBy,
    /// Report as JSON.
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Debug, Args)]
pub(super) struct Check {
    /// The block device or image file, or a slot of an area, as TARGET:SLOT.
    #[arg(value_name = "DEV", value_hint = ValueHint::FilePath)]
    pub(super) device: PathBuf,
    #[command(flatten)]
    pub(super) by: GuardedBy,
    /// Report as JSON.
    #[arg(long)]
    pub(super) json: bool,
    /// Do not tell what is waited for.
    #[arg(short, long)]
    pub(super) quiet: bool,
}

#[derive(Debug, Args)]
pub(super) struct Run {
    /// The block device or image file, or a slot of an area, as TARGET:SLOT. Of several all are held, or none.
    #[arg(value_name = "DEV", required = true, value_hint = ValueHint::FilePath)]
    pub(super) devices: Vec<PathBuf>,
    #[command(flatten)]
    pub(super) by: GuardedBy,
    /// The command to run while the device is held, and its arguments.
    #[arg(value_name = "COMMAND", required = true, last = true, value_hint = ValueHint::CommandWithArguments)]
    pub(super) command: Vec<OsString>,
    /// Wait so long for somebody who uses the device to leave (such as 30s, 5m).
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub(super) wait: Option<Duration>,
    /// The node name to write into the block, instead of this host's.
    #[arg(long, value_name = "NAME", env = "MMP_NODE_NAME", value_parser = node_name)]
    pub(super) node: Option<String>,
    /// How often to beat, 100ms to 60s [default: 1s]. Not in an area, whose header says it.
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub(super) interval: Option<Duration>,
    /// Survive a storage outage of so long; others wait longer before they may take over. Not in an area: there it is
    /// eleven of its intervals.
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub(super) tolerate: Option<Duration>,
    /// NODE is dead, and the cluster vouches for it (it was fenced): if the block names NODE, one beat is waited for
    /// instead of a whole watch.
    #[arg(long, value_name = "NODE", value_parser = node_name)]
    pub(super) fenced: Option<String>,
    /// Exit with CODE, instead of 121, if somebody else uses the device.
    #[arg(short = 'E', long, value_name = "CODE")]
    pub(super) conflict_exit_code: Option<u8>,
    /// Say nothing but errors.
    #[arg(short, long)]
    pub(super) quiet: bool,
    /// Do not look for other users on this host: several holders of one image file, as `demo` has them.
    #[arg(long, hide = true)]
    pub(super) pretend_another_host: bool,
}

/// Where the protection of a device stands that has none of its own.
#[derive(Debug, Args)]
pub(super) struct GuardedBy {
    /// The device is guarded by this slot of an area elsewhere.
    #[arg(long, value_name = "TARGET:SLOT", value_hint = ValueHint::FilePath)]
    pub(super) area: Option<PathBuf>,
}

pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let parsed: Result<SignedDuration, _> = match text.parse::<u32>() {
        Ok(seconds) => Ok(SignedDuration::from_secs(seconds.into())),
        Err(_) => text.parse(),
    };
    let hint = "give a length of time such as 500ms, 30s or 5m";
    let span = parsed.map_err(|_| hint.to_owned())?;
    Duration::try_from(span).ok().filter(|span| !span.is_zero()).ok_or_else(|| format!("{hint}, above zero"))
}

pub(super) fn node_name(text: &str) -> Result<String, String> {
    match text {
        "" => Err("a node name cannot be empty".to_owned()),
        _ if text.len() > 64 => Err(format!("a node name has at most 64 bytes, not {}", text.len())),
        _ if text.contains('\0') || text.chars().any(char::is_control) => {
            Err("a node name cannot hold control characters".to_owned())
        }
        _ => Ok(text.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn durations_are_lengths_of_time() {
        assert_eq!(duration("5"), Ok(Duration::from_secs(5)));
        assert_eq!(duration("100ms"), Ok(Duration::from_millis(100)));
        assert_eq!(duration("1m 30s"), Ok(Duration::from_secs(90)));
        for bad in ["", "0", "-5s", "soon", "99999999999999999999s"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn node_names_are_checked() {
        assert!(node_name("alpha").is_ok());
        for bad in ["", "a\x1bb", &"x".repeat(65)] {
            assert!(node_name(bad).is_err(), "{bad}");
        }
    }
}
