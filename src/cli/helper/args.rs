//! The command lines that mount(8) and umount(8) call their helpers with. The man pages in section 8 are generated from them.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{ArgAction, Parser, ValueHint};

/// Mount a filesystem, guarded: what mount(8) calls for the type mmp.
///
/// `mount -t mmp DEV DIR`, and a line of fstab(5) with the type mmp, do what `mmp mount` does: the mount is refused while another
/// host uses the device, and stopped when its protection is lost. The type of the filesystem is found, or named by fstype=TYPE.
/// With the option remount it does what `mmp remount` does.
///
/// It waits for the safety interval before it mounts. What starts it must have that patience: see FSTAB AND SYSTEMD.
#[derive(Debug, Parser)]
#[command(name = "mount.mmp", version, max_term_width = 100)]
pub(super) struct MountHelper {
    /// The block device.
    #[arg(value_name = "DEV", value_hint = ValueHint::FilePath)]
    pub(super) device: PathBuf,
    /// Where to mount it.
    #[arg(value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(super) dir: PathBuf,
    /// Check all that can be checked at once, and mount nothing.
    #[arg(short = 'f')]
    pub(super) fake: bool,
    /// Leave no note of it in /run/mount/utab: umount(8) then does not call umount.mmp.
    #[arg(short = 'n')]
    pub(super) no_table: bool,
    /// Taken and not heeded: a filesystem's own options are never ignored.
    #[arg(short = 's')]
    pub(super) sloppy: bool,
    /// Say what is done.
    #[arg(short = 'v')]
    pub(super) verbose: bool,
    /// Refused: a guard lives in the mount namespace it was started in. nsenter(1) starts it in another one.
    #[arg(short = 'N', value_name = "NAMESPACE")]
    pub(super) namespace: Option<OsString>,
    /// Options, separated by commas.
    #[arg(short = 'o', value_name = "OPTIONS", action = ArgAction::Append, allow_hyphen_values = true)]
    pub(super) options: Vec<OsString>,
    /// mmp, or mmp.TYPE, which is another way to say fstype=TYPE.
    #[arg(short = 't', value_name = "TYPE")]
    pub(super) filesystem: Option<String>,
}

/// Unmount a guarded filesystem and wait until it is released: what umount(8) calls for what mount.mmp has mounted.
///
/// It does what `mmp umount` does: after a loss it refuses, since what is dirty here would be written over another host's data.
/// `mmp umount --although-lost` overrides that. Any other way to unmount ends the guard as well; it is not waited for then.
#[derive(Debug, Parser)]
#[command(name = "umount.mmp", version, max_term_width = 100)]
pub(super) struct UmountHelper {
    /// Where it is mounted, or the device.
    #[arg(value_name = "DIR|DEV", value_hint = ValueHint::AnyPath)]
    pub(super) what: PathBuf,
    /// Taken and not heeded: there is no way to force the unmount of a filesystem on a block device.
    #[arg(short = 'f')]
    pub(super) force: bool,
    /// Detach it now; it is released when nothing uses it any more.
    #[arg(short = 'l')]
    pub(super) lazy: bool,
    /// Taken and not heeded: what is unmounted leaves no line in /run/mount/utab.
    #[arg(short = 'n')]
    pub(super) no_table: bool,
    /// Remount it read-only if it cannot be unmounted.
    #[arg(short = 'r')]
    pub(super) read_only: bool,
    /// Say what is done.
    #[arg(short = 'v')]
    pub(super) verbose: bool,
    /// Refused, as in mount.mmp(8).
    #[arg(short = 'N', value_name = "NAMESPACE")]
    pub(super) namespace: Option<OsString>,
    /// Taken and not heeded: the guard knows the type.
    #[arg(short = 't', value_name = "TYPE")]
    pub(super) filesystem: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_definitions_are_sound() {
        MountHelper::command().debug_assert();
        UmountHelper::command().debug_assert();
    }

    #[test]
    fn they_take_what_mount_8_gives() {
        // As traced from util-linux 2.38.
        let mount = MountHelper::try_parse_from([
            "/sbin/mount.mmp",
            "/dev/sdX1",
            "/srv",
            "-s",
            "-f",
            "-n",
            "-v",
            "-o",
            "rw,noatime,fstype=xfs,_netdev,nofail",
            "-t",
            "mmp.xfs",
            "-N",
            "/proc/1/ns/mnt",
        ])
        .expect("parses");
        assert!(mount.fake && mount.no_table && mount.sloppy && mount.verbose && mount.namespace.is_some());
        let umount = UmountHelper::try_parse_from(["umount.mmp", "/srv", "-n", "-l", "-f", "-v", "-r"]);
        let umount = umount.expect("parses");
        assert!(umount.no_table && umount.lazy && umount.force && umount.verbose && umount.read_only);
    }
}
