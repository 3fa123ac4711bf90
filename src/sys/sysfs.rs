//! What sysfs tells about a block device: what stands on it, its partitions, its disk.
//!
//! Does not protect: sysfs may change while it is read; what vanishes meanwhile is no user any more, what appears
//! meanwhile is found by the exclusive open.
//!
//! Source of the layout: Linux `Documentation/ABI/stable/sysfs-block`; `fs/btrfs/sysfs.c` for `/sys/fs/btrfs`.

use std::path::{Path, PathBuf};

use super::mountinfo::path;
use super::target::TargetKind;

/// A block device with its kernel name ("sda1").
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Named {
    pub(super) name: String,
    pub(super) kind: TargetKind,
}

/// A loop device that is in use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct LoopDevice {
    pub(super) device: Named,
    /// The path of what it is backed by, as the kernel shows it: ` (deleted)` is appended if the name is gone.
    pub(super) backing: PathBuf,
}

/// A mounted sysfs; another root in tests.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sysfs<'a>(pub(super) &'a Path);

impl Sysfs<'_> {
    /// This host's.
    pub(super) fn host() -> Sysfs<'static> {
        Sysfs(Path::new("/sys"))
    }

    /// True if the device is known here, so that silence means nothing stands on it.
    pub(super) fn knows(self, device: TargetKind) -> bool {
        self.dir_of(device).is_some_and(|dir| dir.is_dir())
    }

    /// True if block devices are listed here at all, so that silence means there is no loop device.
    pub(super) fn lists_devices(self) -> bool {
        self.0.join("block").is_dir()
    }

    /// What stands on the device: device mapper, md and bcache devices, the first with their own names.
    pub(super) fn holders(self, device: TargetKind) -> Vec<String> {
        let Some(dir) = self.dir_of(device) else { return Vec::new() };
        let named = |holder: PathBuf| {
            let name = file_name(&holder);
            match std::fs::read(holder.join("dm/name")) {
                Ok(friendly) => format!("{name} ({})", String::from_utf8_lossy(friendly.trim_ascii_end())),
                Err(_) => name,
            }
        };
        entries(&dir.join("holders")).into_iter().map(named).collect()
    }

    /// The partitions of a disk.
    pub(super) fn partitions(self, disk: TargetKind) -> Vec<Named> {
        let Some(dir) = self.dir_of(disk) else { return Vec::new() };
        let is_partition = |dir: &PathBuf| dir.join("partition").exists();
        entries(&dir).into_iter().filter(is_partition).filter_map(|dir| named_device(&dir)).collect()
    }

    /// The disk a partition is part of; `None` if the device is no partition.
    pub(super) fn disk_of(self, partition: TargetKind) -> Option<Named> {
        let dir = self.dir_of(partition)?;
        if !dir.join("partition").exists() {
            return None;
        }
        named_device(dir.canonicalize().ok()?.parent()?)
    }

    /// All devices of the mounted btrfs that `device` is part of, itself included; none if it is part of none.
    /// mountinfo names only one of them.
    pub(super) fn btrfs_siblings(self, device: TargetKind) -> Vec<TargetKind> {
        for filesystem in entries(&self.0.join("fs/btrfs")) {
            let devices: Vec<_> = entries(&filesystem.join("devices"))
                .iter()
                .filter_map(|dir| named_device(dir))
                .map(|named| named.kind)
                .collect();
            if devices.contains(&device) {
                return devices;
            }
        }
        Vec::new()
    }

    /// All loop devices that are in use.
    pub(super) fn loops(self) -> Vec<LoopDevice> {
        entries(&self.0.join("block"))
            .into_iter()
            .filter_map(|dir| {
                let mut backing = std::fs::read(dir.join("loop/backing_file")).ok()?;
                if backing.last() == Some(&b'\n') {
                    backing.pop(); // the attribute's own; the name may hold others
                }
                Some(LoopDevice { device: named_device(&dir)?, backing: path(backing) })
            })
            .collect()
    }

    pub(super) fn dir_of(self, device: TargetKind) -> Option<PathBuf> {
        match device {
            TargetKind::Block { major, minor } => Some(self.0.join(format!("dev/block/{major}:{minor}"))),
            TargetKind::File { .. } => None,
        }
    }
}

pub(super) fn named_device(dir: &Path) -> Option<Named> {
    let kind = TargetKind::parse_block(&std::fs::read(dir.join("dev")).ok()?)?;
    Some(Named { name: file_name(dir), kind })
}

/// The kernel's name; sysfs stands `!` where a device name has a slash (`cciss!c0d0`).
pub(super) fn file_name(dir: &Path) -> String {
    dir.file_name().unwrap_or_default().to_string_lossy().replace('!', "/")
}

/// The entries of a directory in a fixed order; none if there is no such directory.
pub(super) fn entries(dir: &Path) -> Vec<PathBuf> {
    let Ok(found) = std::fs::read_dir(dir) else { return Vec::new() };
    let mut entries: Vec<_> = found.filter_map(Result::ok).map(|entry| entry.path()).collect();
    entries.sort();
    entries
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{create_dir_all, write};
    use std::os::unix::fs::symlink;

    const SDA: TargetKind = TargetKind::Block { major: 8, minor: 0 };
    const SDA1: TargetKind = TargetKind::Block { major: 8, minor: 1 };

    /// A disk with two partitions, LVM on the first, md on the disk, and a btrfs over two devices.
    fn fixture() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        let sys = root.path();
        let disk = sys.join("devices/pci/block/sda");
        for (dir, dev) in [("", "8:0"), ("sda1", "8:1"), ("sda2", "8:2")] {
            create_dir_all(disk.join(dir).join("holders")).unwrap();
            write(disk.join(dir).join("dev"), format!("{dev}\n")).unwrap();
        }
        for number in ["1", "2"] {
            write(disk.join(format!("sda{number}/partition")), number).unwrap();
        }
        create_dir_all(disk.join("queue")).unwrap();
        let dm = sys.join("devices/virtual/block/dm-0");
        create_dir_all(dm.join("dm")).unwrap();
        write(dm.join("dm/name"), "vg-lv\n").unwrap();
        symlink(&dm, disk.join("sda1/holders/dm-0")).unwrap();
        create_dir_all(sys.join("devices/virtual/block/md0")).unwrap();
        symlink(sys.join("devices/virtual/block/md0"), disk.join("holders/md0")).unwrap();
        create_dir_all(sys.join("dev/block")).unwrap();
        symlink(&disk, sys.join("dev/block/8:0")).unwrap();
        symlink(disk.join("sda1"), sys.join("dev/block/8:1")).unwrap();
        symlink(disk.join("sda2"), sys.join("dev/block/8:2")).unwrap();
        let btrfs = sys.join("fs/btrfs/1234/devices");
        create_dir_all(&btrfs).unwrap();
        create_dir_all(sys.join("fs/btrfs/features")).unwrap();
        symlink(disk.join("sda1"), btrfs.join("sda1")).unwrap();
        symlink(disk.join("sda2"), btrfs.join("sda2")).unwrap();
        create_dir_all(sys.join("block/loop3/loop")).unwrap();
        write(sys.join("block/loop3/dev"), "7:3\n").unwrap();
        write(sys.join("block/loop3/loop/backing_file"), "/a\nb (deleted)\n").unwrap();
        create_dir_all(sys.join("block/loop4")).unwrap();
        write(sys.join("block/loop4/dev"), "7:4\n").unwrap();
        root
    }

    #[test]
    fn holders_are_named() {
        let root = fixture();
        let sys = Sysfs(root.path());
        assert_eq!(sys.holders(SDA), ["md0"]);
        assert_eq!(sys.holders(SDA1), ["dm-0 (vg-lv)"]);
        assert!(sys.holders(TargetKind::Block { major: 8, minor: 2 }).is_empty());
        assert!(sys.holders(TargetKind::Block { major: 1, minor: 1 }).is_empty());
    }

    #[test]
    fn partitions_and_their_disk_are_found() {
        let root = fixture();
        let sys = Sysfs(root.path());
        let names: Vec<_> = sys.partitions(SDA).into_iter().map(|named| named.name).collect();
        assert_eq!(names, ["sda1", "sda2"]);
        assert!(sys.partitions(SDA1).is_empty());
        assert_eq!(sys.disk_of(SDA1), Some(Named { name: "sda".to_owned(), kind: SDA }));
        assert_eq!(sys.disk_of(SDA), None);
        assert!(sys.knows(SDA) && !sys.knows(TargetKind::Block { major: 9, minor: 9 }));
    }

    #[test]
    fn btrfs_siblings_are_found() {
        let root = fixture();
        let sys = Sysfs(root.path());
        assert_eq!(sys.btrfs_siblings(SDA1), [SDA1, TargetKind::Block { major: 8, minor: 2 }]);
        assert!(sys.btrfs_siblings(SDA).is_empty());
    }

    #[test]
    fn only_loops_in_use_are_listed() {
        let root = fixture();
        let loops = Sysfs(root.path()).loops();
        assert_eq!(loops.len(), 1);
        assert_eq!(loops[0].device.name, "loop3");
        assert_eq!(loops[0].backing, Path::new("/a\nb (deleted)"));
    }
}
