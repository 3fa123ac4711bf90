//! What a device stands on: partition, device mapper, md, down to the disks and their paths.
//!
//! Protects: a fence has to reach every disk below, and in-flight I/O is counted on every layer. Does not protect: a
//! layer without `slaves` in sysfs (a loop device over a file, a network block device) counts as a disk, and whoever
//! looks at its bus finds that it is none. sysfs may change while it is read: a path may come or go at any time, so
//! whoever acts on it looks again.
//!
//! Source: Linux `Documentation/ABI/stable/sysfs-block`; `drivers/nvme/host/multipath.c` for the names of NVMe's paths.

use std::path::{Path, PathBuf};

use super::sysfs::{Sysfs, entries, file_name, named_device};
use super::target::TargetKind;

/// So deep stacks are followed; real ones have five layers or so.
const DEEPEST: usize = 64;

/// One device of a stack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Layer {
    pub(super) kind: TargetKind,
    /// The kernel's name.
    pub(super) name: String,
    /// Its directory in sysfs, no symbolic link.
    pub(super) dir: PathBuf,
    /// That of its whole disk, where `queue` and `device` are.
    pub(super) disk: PathBuf,
}

/// A device and all that it stands on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Stack {
    /// The device first, then what is below. A partition stands for itself, not for its disk.
    pub(super) layers: Vec<Layer>,
    /// The disks at the bottom, whole ones.
    pub(super) disks: Vec<Disk>,
}

/// A disk, or one path to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Disk {
    pub(super) name: String,
    pub(super) dir: PathBuf,
    pub(super) bus: Bus,
}

/// How a disk is attached, with the directory of the device behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Bus {
    Scsi(PathBuf),
    /// Its controllers: one, or all that lead to the subsystem under NVMe's own multipath.
    Nvme(Vec<PathBuf>),
    Virtio(PathBuf),
    /// What sysfs calls it; `None` if there is no device behind (loop, AoE, network block devices).
    Other(Option<String>),
}

impl Layer {
    /// Name and UUID, if it is a device mapper device.
    pub(super) fn device_mapper(&self) -> Option<(String, String)> {
        let name = attribute(&self.dir.join("dm/name"))?;
        Some((name, attribute(&self.dir.join("dm/uuid")).unwrap_or_default()))
    }

    /// Whether it is a dm-multipath map.
    pub(super) fn is_multipath(&self) -> bool {
        self.device_mapper().is_some_and(|(_, uuid)| uuid.starts_with("mpath-"))
    }
}

impl Sysfs<'_> {
    /// What `device` stands on; `None` if it is no block device, or sysfs does not know it (any more).
    pub(super) fn stack(self, device: TargetKind) -> Option<Stack> {
        let mut open = vec![self.layer(device)?];
        let mut stack = Stack::default();
        while let Some(layer) = open.pop() {
            if stack.layers.contains(&layer) || stack.layers.len() >= DEEPEST {
                continue;
            }
            let below: Vec<_> = entries(&layer.disk.join("slaves"))
                .iter()
                .filter_map(|slave| self.layer(named_device(slave)?.kind))
                .collect();
            if below.is_empty() {
                let disk = self.disk(&layer);
                if !stack.disks.contains(&disk) {
                    stack.disks.push(disk);
                }
            }
            open.extend(below.into_iter().rev());
            stack.layers.push(layer);
        }
        Some(stack)
    }

    fn layer(self, kind: TargetKind) -> Option<Layer> {
        let dir = self.dir_of(kind)?.canonicalize().ok()?;
        let disk = if dir.join("partition").exists() { dir.parent()?.to_owned() } else { dir.clone() };
        Some(Layer { kind, name: file_name(&dir), dir, disk })
    }

    fn disk(self, layer: &Layer) -> Disk {
        let dir = layer.disk.clone();
        let bus = match dir.join("device").canonicalize() {
            Err(_) => Bus::Other(None),
            Ok(device) => match subsystem(&device).as_deref() {
                Some("scsi") => Bus::Scsi(device),
                Some("virtio") => Bus::Virtio(device),
                Some("nvme") => Bus::Nvme(vec![device]),
                Some("nvme-subsystem") => Bus::Nvme(controllers(&device)),
                other => Bus::Other(other.map(ToOwned::to_owned)),
            },
        };
        Disk { name: file_name(&dir), dir, bus }
    }
}

/// The paths of an NVMe disk under NVMe's own multipath: hidden disks below its controllers (`nvme0c1n1` of `nvme0n1`).
pub(super) fn nvme_paths(disk: &Disk) -> Vec<PathBuf> {
    let Bus::Nvme(controllers) = &disk.bus else { return Vec::new() };
    let namespace = namespace_of(&disk.name);
    let is_path = |dir: &PathBuf| {
        let name = file_name(dir);
        name.starts_with("nvme") && name[4..].contains('c') && namespace_of(&name) == namespace
    };
    controllers.iter().flat_map(|controller| entries(controller)).filter(is_path).collect()
}

/// Other NVMe namespaces than the disk's own below a controller, by their kernel names.
pub(super) fn other_namespaces(controller: &Path, disk: &str) -> Vec<String> {
    let own = namespace_of(disk);
    let names = entries(controller).into_iter().map(|entry| file_name(&entry));
    names.filter(|name| namespace_of(name).is_some() && namespace_of(name) != own).collect()
}

/// The text of an attribute, without the end of its line.
pub(super) fn attribute(path: &Path) -> Option<String> {
    let text = std::fs::read(path).ok()?;
    Some(String::from_utf8_lossy(text.trim_ascii_end()).into_owned())
}

/// The subsystem a device in sysfs belongs to.
pub(super) fn subsystem(device: &Path) -> Option<String> {
    Some(file_name(&device.join("subsystem").canonicalize().ok()?))
}

/// The `nvmeN` links of a subsystem's directory.
fn controllers(subsystem: &Path) -> Vec<PathBuf> {
    let is_controller = |dir: &PathBuf| {
        let name = file_name(dir);
        let number = name.strip_prefix("nvme").unwrap_or_default();
        !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())
    };
    let links = entries(subsystem).into_iter().filter(is_controller);
    links.filter_map(|link| link.canonicalize().ok()).collect()
}

/// The number after the `n` in `nvme0n1` and `nvme0c1n1`; `None` for any other name.
fn namespace_of(name: &str) -> Option<u32> {
    let (head, namespace) = name.strip_prefix("nvme")?.rsplit_once('n')?;
    let numbers = head.split('c').all(|number| number.parse::<u32>().is_ok());
    numbers.then(|| namespace.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::fake_sysfs::FakeSysfs;

    const fn block(major: u32, minor: u32) -> TargetKind {
        TargetKind::Block { major, minor }
    }

    fn names(stack: &Stack) -> (Vec<&str>, Vec<&str>) {
        let layers = stack.layers.iter().map(|layer| layer.name.as_str()).collect();
        (layers, stack.disks.iter().map(|disk| disk.name.as_str()).collect())
    }

    #[test]
    fn a_logical_volume_over_multipath_over_partitions_leads_to_every_path() {
        let fake = FakeSysfs::new();
        fake.scsi("sda", (8, 0), "3:0:0:0");
        fake.scsi("sdb", (8, 16), "4:0:0:0");
        fake.device_mapper("dm-0", (253, 0), ("mpatha", "mpath-3600"), &["sda", "sdb"]);
        fake.device_mapper("dm-1", (253, 1), ("mpatha1", "part1-mpath-3600"), &["dm-0"]);
        fake.device_mapper("dm-2", (253, 2), ("vg-lv", "LVM-abc"), &["dm-1"]);
        let stack = fake.sysfs().stack(block(253, 2)).unwrap();
        assert_eq!(names(&stack), (vec!["dm-2", "dm-1", "dm-0", "sda", "sdb"], vec!["sda", "sdb"]));
        assert!(stack.disks.iter().all(|disk| matches!(&disk.bus, Bus::Scsi(dir) if dir.is_dir())));
        let multipath: Vec<_> = stack.layers.iter().filter(|layer| layer.is_multipath()).collect();
        assert_eq!(multipath.len(), 1);
        assert_eq!(stack.layers[0].device_mapper(), Some(("vg-lv".to_owned(), "LVM-abc".to_owned())));
    }

    #[test]
    fn a_partition_is_a_layer_and_its_disk_is_the_disk() {
        let fake = FakeSysfs::new();
        fake.scsi("sda", (8, 0), "3:0:0:0");
        fake.partition("sda", "sda1", (8, 1));
        let stack = fake.sysfs().stack(block(8, 1)).unwrap();
        assert_eq!(names(&stack), (vec!["sda1"], vec!["sda"]));
        assert!(stack.layers[0].disk.ends_with("sda"));
        // Two partitions of one disk below one device: the disk stands there once.
        fake.partition("sda", "sda2", (8, 2));
        fake.device_mapper("dm-0", (253, 0), ("vg-lv", "LVM-x"), &["sda1", "sda2"]);
        let stack = fake.sysfs().stack(block(253, 0)).unwrap();
        assert_eq!(names(&stack), (vec!["dm-0", "sda1", "sda2"], vec!["sda"]));
    }

    #[test]
    fn buses_are_told_apart() {
        let fake = FakeSysfs::new();
        fake.virtio("vda", (254, 0), "virtio3");
        fake.bare("loop0", (7, 0));
        fake.nvme("nvme0n1", (259, 0), "nvme0", "0000:00:04.0");
        let bus = |kind| fake.sysfs().stack(kind).unwrap().disks.remove(0).bus;
        assert!(matches!(bus(block(254, 0)), Bus::Virtio(dir) if dir.ends_with("virtio3")));
        assert_eq!(bus(block(7, 0)), Bus::Other(None));
        assert!(matches!(bus(block(259, 0)), Bus::Nvme(controllers) if controllers[0].ends_with("nvme0")));
        assert_eq!(fake.sysfs().stack(block(9, 9)), None);
        assert_eq!(fake.sysfs().stack(TargetKind::File { device: 1, inode: 2 }), None);
    }

    #[test]
    fn every_controller_of_an_nvme_multipath_is_found() {
        let fake = FakeSysfs::new();
        fake.nvme_multipath("nvme0n1", (259, 0), &[("nvme0", "0000:00:04.0"), ("nvme1", "0000:00:05.0")]);
        let stack = fake.sysfs().stack(block(259, 0)).unwrap();
        let Bus::Nvme(controllers) = &stack.disks[0].bus else { panic!("{stack:?}") };
        assert_eq!(controllers.len(), 2);
        let paths: Vec<_> = nvme_paths(&stack.disks[0]).iter().map(|path| file_name(path)).collect();
        assert_eq!(paths, ["nvme0c0n1", "nvme0c1n1"]);
        std::fs::create_dir(controllers[0].join("nvme0c0n2")).unwrap();
        assert_eq!(other_namespaces(&controllers[0], "nvme0n1"), ["nvme0c0n2"]);
        assert!(other_namespaces(&controllers[1], "nvme0n1").is_empty());
    }

    #[test]
    fn namespaces_are_known_by_their_names() {
        for (name, namespace) in [("nvme0n1", Some(1)), ("nvme10c3n12", Some(12)), ("nvme0", None)] {
            assert_eq!(namespace_of(name), namespace, "{name}");
        }
        for other in ["ng0n1", "nvme0n1p2", "hwmon1", "nvmen", "nvme0cn1"] {
            assert_eq!(namespace_of(other), None, "{other}");
        }
    }
}
