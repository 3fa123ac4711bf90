//! What this host's kernel does with a filesystem on a device: asked before anything in its MMP block is judged.
//!
//! Protects: a filesystem that was lazily unmounted, or is mounted in another mount namespace only, is still there, and
//! one that is gone is known to be gone: by ext4's own list and by its `kmmpd` thread, never by a table of mounts alone.
//! The kernel's exclusive claim says less: mkfs, e2fsck or the next mount may have it a moment after an unmount, and none of
//! them is ours to judge. What cannot be found out counts as mounted and writing, which stops nobody else and judges
//! everything.
//!
//! Does not protect: a filesystem without a list like ext4's is seen as long as a mount table shows it; after a lazy
//! unmount only the claim is left, and that may be another user's by then. The same where kernel threads are not seen (a PID
//! namespace of its own).
//!
//! Sources: Linux `fs/ext4/sysfs.c` (`/proc/fs/ext4/DEV` exists from the end of a mount until `ext4_put_super` begins, for
//! every namespace), `fs/ext4/mmp.c` (the thread `kmmpd-DEV` lives from the kernel's claim until everything is written and
//! the clean mark stands; its name is the block's, with '/'), `fs/ext4/super.c` (`_ext4_show_options`: `rw`, `ro`, `emergency_ro`, `shutdown`; the last two since
//! 6.15; '/' in a name is '!').

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::exclusive::ExclusiveHold;
use super::mountinfo;
use super::target::Target;
use crate::protocol::Activity;

/// ext4's list of what it has mounted.
const EXT4: &str = "/proc/fs/ext4";

/// `TASK_COMM_LEN`, without its NUL.
const COMM_BYTES: usize = 15;

/// Asks about one device. Made before the mount, so that no path has to be looked up later.
#[derive(Clone, Debug)]
pub struct KernelView {
    target: Target,
    listed: PathBuf,
    /// The name of the kernel's thread, with the device's '/' as it is and as '!'.
    kmmpd: [String; 2],
    /// The thread is there for as long as the filesystem writes.
    kmmpd_tells: bool,
}

impl KernelView {
    /// Of `target`, whose kernel name is `kernel_name`.
    #[must_use]
    pub fn new(target: Target, kernel_name: &str) -> Self {
        let name = kernel_name.replace('/', "!");
        let listed = Path::new(EXT4).join(&name).join("options");
        KernelView {
            target,
            listed,
            kmmpd: [format!("kmmpd-{kernel_name}"), format!("kmmpd-{name}")],
            kmmpd_tells: true,
        }
    }

    /// The same, of a filesystem that has no `kmmpd`, since its protection stands elsewhere: only the kernel's exclusive claim tells
    /// when it is gone, and whoever claims the device then is taken for it.
    #[must_use]
    pub fn without_kmmpd(self, without: bool) -> Self {
        KernelView { kmmpd_tells: !without, ..self }
    }

    /// What it does with it at this moment. Where ext4 cannot be asked it opens the device, for reading and for no longer
    /// than a moment; that may hang with a device that hangs.
    #[must_use]
    pub fn ask(&self) -> Activity {
        match std::fs::read(&self.listed) {
            Ok(options) => return of_options(&options),
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(_) => return Activity::ReadWrite,
        }
        if let Some(activity) = self.by_mounts() {
            return activity;
        }
        let listed = self.kmmpd_tells && Path::new(EXT4).is_dir();
        match listed.then(|| self.kmmpd_lives()).flatten() {
            // ext4 has given its entry up, or does not have it yet.
            Some(true) => return Activity::Ending,
            Some(false) => return Activity::Gone,
            None => {}
        }
        match ExclusiveHold::take(&self.target) {
            Ok(Some(_)) => Activity::Gone,
            Ok(None) if listed => Activity::Ending,
            Ok(None) | Err(_) => Activity::ReadWrite,
        }
    }

    /// Whether a filesystem on it is seen, mounted and all.
    #[must_use]
    pub fn is_seen(&self) -> bool {
        matches!(self.ask(), Activity::ReadWrite | Activity::ReadOnly | Activity::Stopped)
    }

    /// Whether anything in the kernel claims the device exclusively, a mount(2) that has only begun included. Opens it, and
    /// may hang with a device that hangs.
    #[must_use]
    pub fn is_claimed(&self) -> bool {
        !matches!(ExclusiveHold::take(&self.target), Ok(Some(_)))
    }

    /// Whether the kernel's thread for this device lives; none where kernel threads are not seen.
    fn kmmpd_lives(&self) -> Option<bool> {
        let mut sees_kernel_threads = false;
        for entry in std::fs::read_dir("/proc").ok()?.flatten() {
            let pid = entry.file_name();
            if !pid.as_encoded_bytes().iter().all(u8::is_ascii_digit) {
                continue;
            }
            let Ok(comm) = std::fs::read(entry.path().join("comm")) else { continue };
            let comm = comm.trim_ascii_end();
            sees_kernel_threads |= comm == b"kthreadd";
            // The name may be cut at 15 bytes, and another device's then looks the same: that only seems to live longer.
            let is_ours = |name: &String| {
                comm == name.as_bytes() || (comm.len() == COMM_BYTES && name.as_bytes().starts_with(comm))
            };
            if self.kmmpd.iter().any(is_ours) {
                return Some(true);
            }
        }
        sees_kernel_threads.then_some(false)
    }

    /// A mount that can be seen, of whatever filesystem.
    fn by_mounts(&self) -> Option<Activity> {
        let table = std::fs::read("/proc/self/mountinfo").ok()?;
        let mounts = mountinfo::parse(&table);
        let mount = mounts.iter().find(|mount| mount.is_of(&[self.target.kind], None))?;
        Some(if mount.read_only { Activity::ReadOnly } else { Activity::ReadWrite })
    }
}

/// Of ext4's `options`: one a line.
fn of_options(text: &[u8]) -> Activity {
    let has = |wanted: &[u8]| text.split(|&byte| byte == b'\n').any(|line| line == wanted);
    if has(b"emergency_ro") || has(b"shutdown") {
        Activity::Stopped
    } else if has(b"ro") {
        Activity::ReadOnly
    } else {
        Activity::ReadWrite
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ext4_says_how_it_is_mounted() {
        assert_eq!(of_options(b"rw\nbsddf\nerrors=continue\n"), Activity::ReadWrite);
        assert_eq!(of_options(b"ro\nbsddf\nerrors=remount-ro\n"), Activity::ReadOnly);
        assert_eq!(of_options(b"rw\nbsddf\nprefetch_block_bitmaps\nemergency_ro\n"), Activity::Stopped);
        assert_eq!(of_options(b"rw\nshutdown\n"), Activity::Stopped);
        assert_eq!(of_options(b""), Activity::ReadWrite, "what is not known counts as writing");
    }

    #[test]
    fn what_nobody_claims_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let image = dir.path().join("image");
        std::fs::write(&image, [0; 4096]).unwrap();
        let view = KernelView::new(Target::of(&image).unwrap(), "no such/device");
        assert_eq!(view.ask(), Activity::Gone);
        assert_eq!(view.listed, Path::new("/proc/fs/ext4/no such!device/options"));
    }
}
