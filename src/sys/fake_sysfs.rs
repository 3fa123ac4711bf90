//! Trees that look like sysfs, for tests. Does not protect: a write into one changes a file and nothing else.

use std::fs::{create_dir_all, write};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use super::sysfs::Sysfs;

/// A tree in a directory of its own.
pub(super) struct FakeSysfs(tempfile::TempDir);

impl FakeSysfs {
    pub(super) fn new() -> FakeSysfs {
        let root = tempfile::tempdir().unwrap();
        for dir in ["dev/block", "block", "devices", "bus", "class"] {
            create_dir_all(root.path().join(dir)).unwrap();
        }
        FakeSysfs(root)
    }

    pub(super) fn sysfs(&self) -> Sysfs<'_> {
        Sysfs(self.0.path())
    }

    pub(super) fn path(&self, below: &str) -> PathBuf {
        self.0.path().join(below)
    }

    /// Writes an attribute, given below the root.
    pub(super) fn set(&self, below: &str, text: &str) {
        let path = self.path(below);
        create_dir_all(path.parent().unwrap()).unwrap();
        write(path, text).unwrap();
    }

    /// A disk without a device behind it.
    pub(super) fn bare(&self, name: &str, number: (u32, u32)) -> PathBuf {
        let dir = self.path(&format!("devices/block/{name}"));
        self.block(&dir, number);
        write(dir.join("size"), "2048\n").unwrap();
        create_dir_all(dir.join("queue")).unwrap();
        write(dir.join("queue/iostats"), "1\n").unwrap();
        symlink(&dir, self.path(&format!("block/{name}"))).unwrap();
        dir
    }

    pub(super) fn partition(&self, disk: &str, name: &str, number: (u32, u32)) {
        let dir = self.path(&format!("devices/block/{disk}/{name}"));
        self.block(&dir, number);
        write(dir.join("partition"), "1\n").unwrap();
    }

    /// A SCSI disk below host 3's session 1; gives the directory of its SCSI device.
    pub(super) fn scsi(&self, name: &str, number: (u32, u32), address: &str) -> PathBuf {
        let disk = self.bare(name, number);
        let host = address.split(':').next().unwrap();
        let device = self.path(&format!("devices/platform/host{host}/session{host}/target/{address}"));
        self.device(&device, &disk, "bus/scsi");
        write(device.join("state"), "running\n").unwrap();
        write(device.join("delete"), "").unwrap();
        write(device.join("timeout"), "30\n").unwrap();
        device
    }

    pub(super) fn virtio(&self, name: &str, number: (u32, u32), address: &str) {
        let disk = self.bare(name, number);
        let device = self.path(&format!("devices/pci/{address}"));
        self.device(&device, &disk, "bus/virtio");
        self.driver(&device, "bus/virtio/drivers/virtio_blk");
    }

    /// An NVMe disk without NVMe's own multipath.
    pub(super) fn nvme(&self, name: &str, number: (u32, u32), controller: &str, address: &str) {
        let disk = self.bare(name, number);
        let controller = self.nvme_controller(controller, address);
        symlink(&controller, disk.join("device")).unwrap();
        create_dir_all(controller.join(name)).unwrap();
    }

    /// One with it: its device is the subsystem.
    pub(super) fn nvme_multipath(&self, name: &str, number: (u32, u32), controllers: &[(&str, &str)]) {
        let disk = self.bare(name, number);
        let subsystem = self.path("devices/virtual/nvme-subsystem/nvme-subsys0");
        self.device(&subsystem, &disk, "class/nvme-subsystem");
        for (place, (controller, address)) in controllers.iter().enumerate() {
            let dir = self.nvme_controller(controller, address);
            symlink(&dir, subsystem.join(controller)).unwrap();
            let hidden =
                dir.join(name.replacen('n', "N", 1).replace('n', &format!("c{place}n")).replace('N', "n"));
            create_dir_all(&hidden).unwrap();
            write(hidden.join("inflight"), "       0        0\n").unwrap();
        }
    }

    pub(super) fn device_mapper(&self, dm: &str, number: (u32, u32), name: (&str, &str), below: &[&str]) {
        let dir = self.bare(dm, number);
        create_dir_all(dir.join("dm")).unwrap();
        create_dir_all(dir.join("slaves")).unwrap();
        write(dir.join("dm/name"), format!("{}\n", name.0)).unwrap();
        write(dir.join("dm/uuid"), format!("{}\n", name.1)).unwrap();
        for slave in below {
            let found = self.find(slave);
            symlink(found, dir.join("slaves").join(slave)).unwrap();
        }
    }

    fn find(&self, name: &str) -> PathBuf {
        let whole = self.path(&format!("devices/block/{name}"));
        let disk = name.trim_end_matches(|digit: char| digit.is_ascii_digit());
        if whole.exists() { whole } else { self.path(&format!("devices/block/{disk}/{name}")) }
    }

    fn block(&self, dir: &Path, (major, minor): (u32, u32)) {
        create_dir_all(dir).unwrap();
        write(dir.join("dev"), format!("{major}:{minor}\n")).unwrap();
        write(dir.join("inflight"), "       0        0\n").unwrap();
        symlink(dir, self.path(&format!("dev/block/{major}:{minor}"))).unwrap();
    }

    fn nvme_controller(&self, name: &str, address: &str) -> PathBuf {
        let pci = self.path(&format!("devices/pci/{address}"));
        let dir = pci.join("nvme").join(name);
        create_dir_all(&dir).unwrap();
        self.subsystem(&dir, "class/nvme");
        self.subsystem(&pci, "bus/pci");
        symlink(&pci, dir.join("device")).unwrap();
        write(dir.join("transport"), "pcie\n").unwrap();
        self.driver(&pci, "bus/pci/drivers/nvme");
        dir
    }

    fn device(&self, device: &Path, disk: &Path, subsystem: &str) {
        create_dir_all(device).unwrap();
        symlink(device, disk.join("device")).unwrap();
        self.subsystem(device, subsystem);
    }

    fn subsystem(&self, device: &Path, subsystem: &str) {
        create_dir_all(self.path(subsystem)).unwrap();
        symlink(self.path(subsystem), device.join("subsystem")).unwrap();
    }

    fn driver(&self, device: &Path, driver: &str) {
        create_dir_all(self.path(driver)).unwrap();
        write(self.path(driver).join("unbind"), "").unwrap();
        symlink(self.path(driver), device.join("driver")).unwrap();
    }
}
