//! The rung `unbind`: takes the driver away from the disk (virtio, NVMe on PCI).
//!
//! Protects: when the write to `unbind` returns, the disk is gone and the kernel has waited for its requests. Does not
//! protect, on virtio, what was not written yet: before it takes a disk away in order, the kernel has the filesystem on it
//! *write back all that is dirty* (`del_gendisk`, `fs_bdev_mark_dead`; `fsync_bdev` before Linux 6.5). To a device that
//! another host uses by now that is the very damage a fence is for. So there it is a fence for XFS alone, which is shut down
//! first and then writes nothing; elsewhere it cuts, and is no complete fence. NVMe's driver makes the disk empty before
//! (`nvme_ns_remove`, Linux 5.15), so that this write-back fails: there it is one for every filesystem.

use std::fs::{File, OpenOptions};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::climb::{Effect, Ended, Rung};
use super::helper::Answer;
use super::{Ready, run_helper, shutdown};
use crate::sys::stack::{Bus, Disk, Stack, attribute, other_namespaces};
use crate::sys::sysfs::file_name;
use crate::sys::target::TargetKind;

/// The first kernel whose NVMe driver lets nothing through on the way out.
const NVME_IS_EMPTIED: (u32, u32) = (5, 15);

/// Opens the `unbind` file of every driver that is concerned. `release` is the kernel's, as `6.1.0-12-amd64`.
pub(super) fn prepare(stack: &Stack, filesystem: &str, release: &str) -> Result<Ready, String> {
    let mut devices = Vec::new();
    let mut description = Vec::new();
    for disk in &stack.disks {
        let (found, more) = open(disk)?;
        for device in found {
            description.push(format!("writes {} to {}", device.name, device.file.display()));
            devices.push(device);
        }
        description.extend(more);
    }
    let emptied = stack.disks.iter().all(|disk| matches!(disk.bus, Bus::Nvme(_)))
        && version(release).is_some_and(|version| version >= NVME_IS_EMPTIED);
    let stills = !emptied && shutdown::stills(filesystem);
    if stills {
        description.insert(0, "shuts the filesystem down first".to_owned());
    }
    let lacks = (!emptied && !stills).then(|| {
        "before the driver lets go the kernel writes back what is dirty, to a device that may be another host's"
            .to_owned()
    });
    let disks = stack.disks.iter().map(|disk| disk.dir.clone()).collect();
    let rung = Unbind { devices, disks, mounted: stills.then_some(stack.layers[0].kind) };
    Ok(Ready { rung: Box::new(rung), description: description.join("; "), cut: true, lacks })
}

struct Unbind {
    devices: Vec<Device>,
    disks: Vec<PathBuf>,
    /// What is to be shut down before.
    mounted: Option<TargetKind>,
}

/// A device as its bus calls it, and the file that takes its driver away.
struct Device {
    name: String,
    file: PathBuf,
    unbind: File,
}

impl Rung for Unbind {
    fn effect(&self) -> Effect {
        Effect::Cuts
    }

    fn run(&mut self, until: crate::clock::Mono) -> Ended {
        run_helper(&self.descriptors(), until, true, || self.unbind())
    }

    fn descriptors(&self) -> Vec<RawFd> {
        self.devices.iter().map(|device| device.unbind.as_raw_fd()).collect()
    }
}

impl Unbind {
    /// In the helper.
    fn unbind(&self) -> Answer {
        if let Some(device) = self.mounted {
            shutdown::shut_down(device).map_err(|why| format!("not unbound: {why}"))?;
        }
        for device in &self.devices {
            let written = device.unbind.write_at(device.name.as_bytes(), 0);
            written.map_err(|error| format!("{} cannot be unbound: {error}", device.name))?;
        }
        match self.disks.iter().find(|disk| disk.exists()) {
            Some(disk) => Err(format!("{} is still there", file_name(disk))),
            None => Ok("the disk is gone".to_owned()),
        }
    }
}

/// The devices behind a disk, and what else goes with them.
fn open(disk: &Disk) -> Result<(Vec<Device>, Option<String>), String> {
    match &disk.bus {
        Bus::Virtio(device) => Ok((vec![driver_of(device)?], None)),
        Bus::Nvme(controllers) if controllers.is_empty() => {
            Err(format!("{} has no controller at present", disk.name))
        }
        Bus::Nvme(controllers) => {
            let mut devices = Vec::new();
            let mut others = Vec::new();
            for controller in controllers {
                if let Some(transport) = attribute(&controller.join("transport")).filter(|it| it != "pcie") {
                    let name = file_name(controller);
                    return Err(format!(
                        "{name} is reached over {transport} and has no PCI driver to unbind"
                    ));
                }
                let pci = controller.join("device").canonicalize();
                let pci = pci.map_err(|error| format!("{}: {error}", controller.join("device").display()))?;
                devices.push(driver_of(&pci)?);
                others.extend(other_namespaces(controller, &disk.name));
            }
            let more = (!others.is_empty()).then(|| format!("{} go with it", others.join(", ")));
            Ok((devices, more))
        }
        Bus::Scsi(_) => Err(format!("{} is a SCSI device, for which there is the rung scsi", disk.name)),
        Bus::Other(_) => Err(format!("{} is neither virtio nor NVMe", disk.name)),
    }
}

/// The first two numbers of a kernel's release.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|letter: char| !letter.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

fn driver_of(device: &Path) -> Result<Device, String> {
    let driver = device.join("driver").canonicalize();
    let driver = driver.map_err(|error| format!("{} has no driver: {error}", device.display()))?;
    let file = driver.join("unbind");
    let unbind = OpenOptions::new().write(true).open(&file);
    let unbind =
        unbind.map_err(|error| format!("{} cannot be opened for writing: {error}", file.display()))?;
    Ok(Device { name: file_name(device), file, unbind })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::fake_sysfs::FakeSysfs;

    fn prepared(fake: &FakeSysfs, number: (u32, u32), filesystem: &str) -> Result<Ready, String> {
        let device = TargetKind::Block { major: number.0, minor: number.1 };
        prepare(&fake.sysfs().stack(device).unwrap(), filesystem, "6.12.117+deb12-amd64")
    }

    #[test]
    fn a_virtio_disk_is_unbound_by_its_bus_name() {
        let fake = FakeSysfs::new();
        fake.virtio("vda", (254, 0), "virtio7");
        fake.partition("vda", "vda1", (254, 1));
        let ready = prepared(&fake, (254, 1), "ext4").unwrap();
        assert!(ready.description.starts_with("writes virtio7 to "), "{}", ready.description);
        assert!(ready.description.ends_with("bus/virtio/drivers/virtio_blk/unbind"));
        assert!(ready.cut && ready.lacks.unwrap().contains("writes back what is dirty"));
        let xfs = prepared(&fake, (254, 0), "xfs").unwrap();
        assert!(xfs.lacks.is_none() && xfs.description.starts_with("shuts the filesystem down first; "));
    }

    #[test]
    fn it_did_nothing_while_the_disk_is_still_there() {
        let fake = FakeSysfs::new();
        fake.virtio("vda", (254, 0), "virtio7");
        let stack = fake.sysfs().stack(TargetKind::Block { major: 254, minor: 0 }).unwrap();
        let (devices, _) = open(&stack.disks[0]).unwrap();
        let rung = Unbind { devices, disks: vec![stack.disks[0].dir.clone()], mounted: None };
        assert_eq!(rung.unbind(), Err("vda is still there".to_owned()));
        let written = std::fs::read_to_string(fake.path("bus/virtio/drivers/virtio_blk/unbind")).unwrap();
        assert_eq!(written, "virtio7");
        std::fs::remove_dir_all(&stack.disks[0].dir).unwrap();
        assert_eq!(rung.unbind(), Ok("the disk is gone".to_owned()));
    }

    #[test]
    fn every_controller_of_an_nvme_goes_and_what_else_hangs_on_it_is_told() {
        let fake = FakeSysfs::new();
        fake.nvme_multipath("nvme0n1", (259, 0), &[("nvme0", "0000:00:04.0"), ("nvme1", "0000:00:05.0")]);
        std::fs::create_dir(fake.path("devices/pci/0000:00:04.0/nvme/nvme0/nvme0c0n2")).unwrap();
        let ready = prepared(&fake, (259, 0), "ext4").unwrap();
        assert!(ready.lacks.is_none(), "it is emptied before");
        for told in ["0000:00:04.0", "0000:00:05.0", "nvme0c0n2 go with it"] {
            assert!(ready.description.contains(told), "{}", ready.description);
        }
        assert_eq!(ready.rung.descriptors().len(), 2);
    }

    #[test]
    fn an_older_kernel_lets_nvme_write_back() {
        let fake = FakeSysfs::new();
        fake.nvme("nvme0n1", (259, 0), "nvme0", "0000:00:04.0");
        let stack = fake.sysfs().stack(TargetKind::Block { major: 259, minor: 0 }).unwrap();
        let lacks = |filesystem, release| prepare(&stack, filesystem, release).unwrap().lacks.is_some();
        for (release, old) in
            [("5.15.0", false), ("6.1", false), ("5.14.21-150", true), ("4.18.0-553.el8", true), ("", true)]
        {
            assert_eq!(lacks("ext4", release), old, "{release}");
            assert!(!lacks("xfs", release));
        }
    }

    #[test]
    fn fabrics_and_other_buses_are_told() {
        let fake = FakeSysfs::new();
        fake.nvme("nvme0n1", (259, 0), "nvme0", "0000:00:04.0");
        prepared(&fake, (259, 0), "xfs").unwrap();
        fake.set("devices/pci/0000:00:04.0/nvme/nvme0/transport", "tcp\n");
        assert!(prepared(&fake, (259, 0), "xfs").err().unwrap().contains("over tcp"));
        fake.scsi("sda", (8, 0), "3:0:0:0");
        assert!(prepared(&fake, (8, 0), "xfs").err().unwrap().contains("rung scsi"));
        fake.bare("loop0", (7, 0));
        assert_eq!(prepared(&fake, (7, 0), "xfs").err().unwrap(), "loop0 is neither virtio nor NVMe");
    }
}
