//! The rung `scsi`: every path offline, then removed.
//!
//! Protects: all paths are looked up again when it runs, so one that came since is cut too, and each is read back. Offline
//! alone would not last: the kernel lets an offline device be blocked and then set running again when its transport comes
//! back (`scsi_device_set_state`), and iscsid sets offline devices running after a login
//! (`iscsi_sysfs_set_device_online`). So once nothing is under way every path is removed as well, which nothing undoes for
//! what stands on it: a device found again is another one. Does not protect under dm-multipath: multipathd would put a path
//! that is found again into the map. There it only helps.
//!
//! A device whose transport set it offline (`transport-offline`) cannot be set offline; that is a failure, because it comes
//! back by itself.

use std::fs::{File, OpenOptions};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::climb::{Effect, Ended, Rung};
use super::helper::{Answer, Helper};
use super::{Ready, run_helper};
use crate::clock::{self, Mono};
use crate::sys::stack::{Bus, Stack};
use crate::sys::sysfs::Sysfs;
use crate::sys::target::TargetKind;

/// With the end of its line: the kernel knows the word by it (`store_state_field`).
const OFFLINE: &[u8] = b"offline\n";
/// How often a path is asked whether it is removed.
const POLL: std::time::Duration = std::time::Duration::from_millis(10);

/// Opens the state of every path for writing.
pub(super) fn prepare(sysfs: Sysfs<'_>, stack: &Stack) -> Result<Ready, String> {
    let paths = open_all(stack)?;
    let names: Vec<_> = paths.iter().map(|path| path.name.as_str()).collect();
    let states: Vec<_> = paths.iter().map(|path| path.dir.join("state").display().to_string()).collect();
    let multipath = stack.layers.iter().find(|layer| layer.is_multipath());
    let mut description = format!("writes offline to {}, then removes ", states.join(", "));
    description += &names.join(", ");
    let lacks = multipath.map(|layer| {
        format!("multipathd puts a path that is found again back into {}; dm is the cut there", layer.name)
    });
    let (root, device) = (sysfs.0.to_owned(), stack.layers[0].kind);
    let rung = Scsi { paths, root, device, multipath: multipath.is_some() };
    Ok(Ready { rung: Box::new(rung), description, cut: lacks.is_none(), lacks })
}

struct Scsi {
    paths: Vec<PathFile>,
    root: PathBuf,
    device: TargetKind,
    multipath: bool,
}

/// A SCSI device that leads to the disk.
struct PathFile {
    name: String,
    /// Of the SCSI device.
    dir: PathBuf,
    state: File,
    delete: File,
}

impl Rung for Scsi {
    fn effect(&self) -> Effect {
        if self.multipath { Effect::Helps } else { Effect::Cuts }
    }

    fn run(&mut self, until: Mono) -> Ended {
        run_helper(&self.descriptors(), until, false, || self.offline())
    }

    fn holds(&self) -> Result<(), String> {
        self.paths.iter().try_for_each(PathFile::refuses)
    }

    fn seal(&mut self, until: Mono) -> Result<(), String> {
        self.renew();
        let removers: Vec<_> =
            self.paths.iter().filter(|path| !path.is_gone()).map(PathFile::remove).collect();
        loop {
            if self.paths.iter().all(PathFile::is_gone) {
                for mut remover in removers.into_iter().flatten() {
                    let _ = remover.answer(); // reaps it; one that waits for the device is let be
                }
                return Ok(());
            }
            if clock::mono() >= until {
                return Err("a path could not be removed".to_owned());
            }
            clock::sleep(POLL);
        }
    }

    fn descriptors(&self) -> Vec<RawFd> {
        let files = self.paths.iter().flat_map(|path| [&path.state, &path.delete]);
        files.map(AsRawFd::as_raw_fd).collect()
    }
}

impl Scsi {
    /// In the helper.
    fn offline(&self) -> Answer {
        // What was opened beforehand first: it takes no look at anything. What they are afterwards decides.
        for path in &self.paths {
            let _ = path.state.write_at(OFFLINE, 0);
        }
        let found = self.now()?;
        let new: Vec<_> =
            found.iter().filter(|(_, dir)| self.paths.iter().all(|path| path.dir != *dir)).collect();
        for (name, dir) in &new {
            let path = PathFile::open(name, dir)?;
            let _ = path.state.write_at(OFFLINE, 0);
            path.refuses()?;
        }
        self.holds()?;
        let names: Vec<_> =
            self.paths.iter().map(|path| &path.name).chain(new.iter().map(|(name, _)| name)).collect();
        let names: Vec<_> = names.into_iter().map(String::as_str).collect();
        Ok(format!("offline: {}", names.join(", ")))
    }

    /// The paths there are at this moment; none if the device itself is gone.
    fn now(&self) -> Result<Vec<(String, PathBuf)>, String> {
        Sysfs(&self.root).stack(self.device).map_or(Ok(Vec::new()), |stack| scsi_devices(&stack))
    }

    /// Takes in paths that came since.
    fn renew(&mut self) {
        for (name, dir) in self.now().unwrap_or_default() {
            if self.paths.iter().all(|path| path.dir != dir)
                && let Ok(path) = PathFile::open(&name, &dir)
            {
                self.paths.push(path);
            }
        }
    }
}

impl PathFile {
    fn open(name: &str, dir: &Path) -> Result<PathFile, String> {
        let open = |attribute: &str, readable: bool| {
            let path = dir.join(attribute);
            let opened = OpenOptions::new().read(readable).write(true).open(&path);
            opened.map_err(|error| format!("{} cannot be opened for writing: {error}", path.display()))
        };
        let (state, delete) = (open("state", true)?, open("delete", false)?);
        Ok(PathFile { name: name.to_owned(), dir: dir.to_owned(), state, delete })
    }

    /// Its state; `None` if it is gone.
    fn state(&self) -> Option<String> {
        let mut buffer = [0; 32];
        match self.state.read_at(&mut buffer, 0) {
            Ok(count) => Some(String::from_utf8_lossy(&buffer[..count]).trim_end().to_owned()),
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => None,
            Err(error) => Some(error.to_string()),
        }
    }

    fn refuses(&self) -> Result<(), String> {
        match self.state().as_deref() {
            None | Some("offline" | "cancel" | "deleted") => Ok(()),
            Some(state) => Err(format!("{} is not offline, but {state}", self.name)),
        }
    }

    /// On its way out, from where no state leads back.
    fn is_gone(&self) -> bool {
        matches!(self.state().as_deref(), None | Some("cancel" | "deleted"))
    }

    /// A helper that removes it: that may wait for the device.
    fn remove(&self) -> std::io::Result<Helper> {
        Helper::start(&[self.delete.as_raw_fd()], || {
            self.delete.write_at(b"1", 0).map(|_| String::new()).map_err(|error| error.to_string())
        })
    }
}

fn open_all(stack: &Stack) -> Result<Vec<PathFile>, String> {
    scsi_devices(stack)?.iter().map(|(name, dir)| PathFile::open(name, dir)).collect()
}

/// The SCSI devices below, by the names of their disks; all that is below must be SCSI.
fn scsi_devices(stack: &Stack) -> Result<Vec<(String, PathBuf)>, String> {
    let device = |disk: &crate::sys::stack::Disk| match &disk.bus {
        Bus::Scsi(dir) => Ok((disk.name.clone(), dir.clone())),
        _ => Err(format!("{} is no SCSI device", disk.name)),
    };
    stack.disks.iter().map(device).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::fake_sysfs::FakeSysfs;

    const fn block(major: u32, minor: u32) -> TargetKind {
        TargetKind::Block { major, minor }
    }

    fn rung(fake: &FakeSysfs, device: TargetKind) -> Scsi {
        let stack = fake.sysfs().stack(device).unwrap();
        Scsi { paths: open_all(&stack).unwrap(), root: fake.sysfs().0.to_owned(), device, multipath: false }
    }

    fn state(dir: &Path) -> String {
        std::fs::read_to_string(dir.join("state")).unwrap()
    }

    #[test]
    fn every_path_goes_offline_and_so_does_one_that_came_later() {
        let fake = FakeSysfs::new();
        let first = fake.scsi("sda", (8, 0), "3:0:0:0");
        let second = fake.scsi("sdb", (8, 16), "4:0:0:0");
        fake.device_mapper("dm-0", (253, 0), ("mpatha", "mpath-1"), &["sda", "sdb"]);
        let mut rung = rung(&fake, block(253, 0));
        assert!(rung.holds().unwrap_err().contains("sda is not offline, but running"));
        let third = fake.scsi("sdc", (8, 32), "5:0:0:0");
        std::os::unix::fs::symlink(
            fake.path("devices/block/sdc"),
            fake.path("devices/block/dm-0/slaves/sdc"),
        )
        .unwrap();
        assert_eq!(rung.offline().unwrap(), "offline: sda, sdb, sdc");
        for dir in [&first, &second, &third] {
            assert_eq!(state(dir), "offline\n");
        }
        rung.renew();
        assert_eq!(rung.paths.len(), 3);
        rung.holds().unwrap();
        std::fs::write(second.join("state"), "running\n").unwrap();
        assert!(rung.holds().unwrap_err().starts_with("sdb is not offline"));
        for dir in [&first, &second, &third] {
            std::fs::write(dir.join("state"), "cancel\n").unwrap();
        }
        rung.seal(Mono(0)).unwrap();
    }

    #[test]
    fn a_partition_is_cut_off_with_its_disk() {
        let fake = FakeSysfs::new();
        let dir = fake.scsi("sda", (8, 0), "3:0:0:0");
        fake.partition("sda", "sda1", (8, 1));
        std::fs::write(dir.join("state"), "").unwrap(); // so that all of what is written is seen
        let stack = fake.sysfs().stack(block(8, 1)).unwrap();
        let ready = prepare(fake.sysfs(), &stack).unwrap();
        assert!(ready.cut && ready.lacks.is_none());
        let description = &ready.description;
        assert!(
            description.contains("3:0:0:0/state") && description.ends_with("removes sda"),
            "{description}"
        );
        rung(&fake, block(8, 1)).offline().unwrap();
        assert_eq!(state(&dir), "offline\n");
    }

    #[test]
    fn under_multipath_it_only_helps() {
        let fake = FakeSysfs::new();
        fake.scsi("sda", (8, 0), "3:0:0:0");
        fake.device_mapper("dm-0", (253, 0), ("mpatha", "mpath-1"), &["sda"]);
        fake.device_mapper("dm-1", (253, 1), ("vg-lv", "LVM-1"), &["dm-0"]);
        let ready = prepare(fake.sysfs(), &fake.sysfs().stack(block(253, 1)).unwrap()).unwrap();
        assert_eq!((ready.cut, ready.rung.effect()), (false, Effect::Helps));
        assert!(ready.lacks.unwrap().contains("back into dm-0"));
    }

    #[test]
    fn what_is_not_scsi_or_not_to_be_opened_is_told() {
        let fake = FakeSysfs::new();
        fake.virtio("vda", (254, 0), "virtio1");
        let dir = fake.scsi("sda", (8, 0), "3:0:0:0");
        fake.device_mapper("dm-0", (253, 0), ("vg-lv", "LVM-1"), &["sda", "vda"]);
        let why = |device| prepare(fake.sysfs(), &fake.sysfs().stack(device).unwrap()).err().unwrap();
        assert_eq!(why(block(254, 0)), "vda is no SCSI device");
        assert_eq!(why(block(253, 0)), "vda is no SCSI device");
        std::fs::remove_file(dir.join("state")).unwrap();
        assert!(why(block(8, 0)).contains("state cannot be opened for writing"));
    }

    #[test]
    fn a_transport_that_will_come_back_is_no_cut() {
        let fake = FakeSysfs::new();
        let dir = fake.scsi("sda", (8, 0), "3:0:0:0");
        let rung = rung(&fake, block(8, 0));
        rung.offline().unwrap();
        std::fs::write(dir.join("state"), "transport-offline\n").unwrap();
        assert!(rung.holds().unwrap_err().contains("transport-offline"));
    }
}
