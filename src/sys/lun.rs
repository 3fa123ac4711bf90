//! Which block devices this host has, and which of them are paths to one LUN.
//!
//! Protects: two devices count as one only by an identity that the kernel vouches for: the same node; paths of one dm-multipath map;
//! one worldwide name of a kind that is unique in the world; loop devices over the same bytes of the same file; the partition of
//! one of these with the same number and the same beginning, since one path's partition table may be out of date. A clone or a snapshot has a filesystem with the same UUID and the same MMP block, and is another
//! disk all the same: it never counts as one with its origin. Does not protect: two paths whose disks tell no such name are
//! two devices here, as are partitions that kpartx made, whose beginning sysfs does not tell; and a disk that lies about its name may hide another.
//!
//! Source: Linux `Documentation/ABI/stable/sysfs-block`; `drivers/scsi/scsi_lib.c` (`scsi_vpd_lun_id`) and `drivers/nvme/host/sysfs.c`
//! (`wwid_show`) for the names; multipath-tools for the UUIDs of its maps.

use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::content::is_private;
use super::loops;
use super::stack::attribute;
use super::sysfs::{LoopDevice, Named, Sysfs, entries, file_name, named_device};
use super::target::TargetKind;

/// Layers that are followed down; real stacks have five or so.
const DEEPEST: usize = 32;
/// The unit of `size` in sysfs, whatever the sector of the device.
const SYSFS_SECTOR_BYTES: u64 = 512;
/// RAM disks, floppies and optical drives: nothing that two hosts share, and some of them take seconds to say that they are empty.
const LEFT_OUT_MAJORS: [u32; 3] = [1, 2, 11];
/// The names that are assigned by registries. `t10.` and `nvme.` are vendor, model and serial number, which cheap disks and emulated ones
/// share, and `naa.3` is given away by whoever likes.
const UNIQUE_NAMES: [&str; 5] = ["naa.2", "naa.5", "naa.6", "eui.", "uuid."];

/// A block device of this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockDevice {
    /// Which one.
    pub node: TargetKind,
    /// Where its node is: the friendly name of a device mapper device, where there is one.
    pub path: PathBuf,
    /// Its size in bytes, as sysfs tells it.
    pub size_bytes: u64,
}

/// What a device or file leads to. Equal ones are one and the same.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Lun {
    /// The node itself: nothing else is known to lead there.
    Node(TargetKind),
    /// A disk with a name that no other disk has.
    Worldwide(String),
    /// A part of something, as a loop device shows it.
    Window {
        /// Of what.
        of: Box<Lun>,
        /// Where it begins, in bytes.
        offset_bytes: u64,
        /// How long it is at most, in bytes; 0 for up to the end.
        limit_bytes: u64,
    },
    /// A partition.
    Partition {
        /// Of what.
        of: Box<Lun>,
        /// Its number.
        number: u32,
        /// Where it begins, in bytes, by the partition table that the kernel goes by.
        start_bytes: u64,
    },
}

/// All block devices with bytes on them, partitions among them, by their numbers. Without RAM disks, floppies and optical drives, and what
/// device mapper's users keep for themselves (the parts of a mirror or of a snapshot).
///
/// # Errors
/// When sysfs cannot be listed.
pub fn block_devices() -> io::Result<Vec<BlockDevice>> {
    devices_of(Sysfs::host())
}

/// What `node` leads to. Asks the driver of a loop device, which may hang: whoever cannot afford that takes [`lun_by_sysfs`].
#[must_use]
pub fn lun(node: TargetKind) -> Lun {
    lun_of(Sysfs::host(), node, Some(&loops::backing_of), 0)
}

/// The same by sysfs alone, which never hangs: a loop device counts by itself.
#[must_use]
pub fn lun_by_sysfs(node: TargetKind) -> Lun {
    lun_of(Sysfs::host(), node, None, 0)
}

/// Whether it is the dm-multipath map over its paths: what is to be named where there are several paths.
#[must_use]
pub fn is_multipath(node: TargetKind) -> bool {
    is_map(Sysfs::host(), node)
}

/// How a loop device's backing is found.
type Backing<'a> = &'a dyn Fn(&LoopDevice) -> Option<TargetKind>;

impl Sysfs<'_> {
    fn dm_uuid(self, node: TargetKind) -> Option<String> {
        attribute(&self.dir_of(node)?.join("dm/uuid"))
    }

    fn below(self, node: TargetKind) -> Vec<TargetKind> {
        let Some(dir) = self.dir_of(node) else { return Vec::new() };
        entries(&dir.join("slaves")).iter().filter_map(|slave| Some(named_device(slave)?.kind)).collect()
    }

    fn above(self, node: TargetKind) -> Vec<TargetKind> {
        let Some(dir) = self.dir_of(node) else { return Vec::new() };
        entries(&dir.join("holders")).iter().filter_map(|holder| Some(named_device(holder)?.kind)).collect()
    }

    /// A name that is unique in the world, of a SCSI or NVMe disk.
    fn worldwide_name(self, disk: TargetKind) -> Option<String> {
        let dir = self.dir_of(disk)?;
        let name = attribute(&dir.join("device/wwid")).or_else(|| attribute(&dir.join("wwid")))?;
        // Nothing but zeroes is what a disk says that was never given a name; a UUID has dashes between them.
        let is_name = |rest: &str| rest.len() > 8 && rest.bytes().any(|digit| !matches!(digit, b'0' | b'-'));
        UNIQUE_NAMES.iter().any(|kind| name.strip_prefix(kind).is_some_and(is_name)).then_some(name)
    }
}

fn devices_of(sysfs: Sysfs<'_>) -> io::Result<Vec<BlockDevice>> {
    // An error of its own: no block devices at all would look the same.
    std::fs::read_dir(sysfs.0.join("block"))?;
    let mut found = Vec::new();
    for dir in entries(&sysfs.0.join("block")) {
        let Some(disk) = named_device(&dir) else { continue };
        let TargetKind::Block { major, .. } = disk.kind else { continue };
        let private = sysfs.dm_uuid(disk.kind).is_some_and(|uuid| is_private(uuid.as_bytes()));
        if LEFT_OUT_MAJORS.contains(&major) || disk.name.starts_with("zram") || private {
            continue;
        }
        let partitions = sysfs.partitions(disk.kind);
        let with_bytes = std::iter::once(disk).chain(partitions).filter_map(|named| device(sysfs, named));
        found.extend(with_bytes);
    }
    found.sort_by_key(|device| match device.node {
        TargetKind::Block { major, minor } => (major, minor),
        TargetKind::File { .. } => (u32::MAX, u32::MAX),
    });
    Ok(found)
}

/// None if it has no bytes: a loop device without a file, a card reader without a card.
fn device(sysfs: Sysfs<'_>, named: Named) -> Option<BlockDevice> {
    let dir = sysfs.dir_of(named.kind)?;
    let sectors: u64 = attribute(&dir.join("size"))?.parse().ok()?;
    let friendly = attribute(&dir.join("dm/name")).map(|name| Path::new("/dev/mapper").join(name));
    let is_it = |path: &PathBuf| {
        let rdev = std::fs::metadata(path).ok().map(|metadata| TargetKind::block(metadata.rdev()));
        rdev == Some(named.kind)
    };
    let path = friendly.filter(is_it).unwrap_or_else(|| Path::new("/dev").join(&named.name));
    let size_bytes = sectors.checked_mul(SYSFS_SECTOR_BYTES)?;
    (size_bytes > 0).then_some(BlockDevice { node: named.kind, path, size_bytes })
}

fn lun_of(sysfs: Sysfs<'_>, node: TargetKind, backing: Option<Backing<'_>>, depth: usize) -> Lun {
    let itself = Lun::Node(node);
    let Some(dir) = sysfs.dir_of(node).filter(|_| depth < DEEPEST) else { return itself };
    let next = |below| Box::new(lun_of(sysfs, below, backing, depth + 1));
    if let Some(disk) = sysfs.disk_of(node) {
        return place_of(&dir).map_or(itself, |(number, start_bytes)| Lun::Partition {
            of: next(disk.kind),
            number,
            start_bytes,
        });
    }
    if is_map(sysfs, node) {
        // All paths have one name; one that is not unique does for them, since the map says that they belong together.
        let name = sysfs.below(node).into_iter().find_map(|path| sysfs.worldwide_name(path));
        return name.map_or(itself, Lun::Worldwide);
    }
    if let Some(map) = sysfs.above(node).into_iter().find(|&above| is_map(sysfs, above)) {
        return *next(map);
    }
    if let Some(name) = sysfs.worldwide_name(node) {
        return Lun::Worldwide(name);
    }
    backing.and_then(|asked| window(&dir, node, asked)).map_or(itself, |(of, offset_bytes, limit_bytes)| {
        match (offset_bytes, limit_bytes) {
            (0, 0) => *next(of),
            _ => Lun::Window { of: next(of), offset_bytes, limit_bytes },
        }
    })
}

/// The number of a partition, and where it begins, in bytes.
fn place_of(dir: &Path) -> Option<(u32, u64)> {
    let start_sectors: u64 = attribute(&dir.join("start"))?.parse().ok()?;
    let number = attribute(&dir.join("partition"))?.parse().ok()?;
    Some((number, start_sectors.checked_mul(SYSFS_SECTOR_BYTES)?))
}

/// What a loop device shows, from where, and how much of it.
fn window(dir: &Path, node: TargetKind, backing: Backing<'_>) -> Option<(TargetKind, u64, u64)> {
    let dir = dir.canonicalize().ok()?;
    let told = |name: &str| attribute(&dir.join("loop").join(name));
    let shown = PathBuf::from(told("backing_file")?);
    let (offset, limit) = (told("offset")?.parse().ok()?, told("sizelimit")?.parse().ok()?);
    let device = Named { name: file_name(&dir), kind: node };
    Some((backing(&LoopDevice { device, backing: shown })?, offset, limit))
}

/// A device of multipath-tools. A partition of one, by kpartx, is `partN-mpath-`.
fn is_map(sysfs: Sysfs<'_>, device: TargetKind) -> bool {
    sysfs.dm_uuid(device).is_some_and(|uuid| uuid.starts_with("mpath-"))
}

#[cfg(test)]
#[path = "lun_tests.rs"]
mod tests;
