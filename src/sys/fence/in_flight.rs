//! How much I/O is under way on a device and everything it stands on.
//!
//! Protects: what the kernel does not count is unknown and not zero: a missing `inflight`, a queue with `iostats` off
//! (then its requests are not counted), a disk that is gone (its attributes vanish before its last requests have
//! ended). Does not protect: a partition's and a slave's count is that of all who use it, so that others' I/O may keep it
//! above zero; that errs on the safe side.
//!
//! Source: Linux `Documentation/ABI/stable/sysfs-block`, `block/genhd.c` (`part_inflight_show`, `del_gendisk`),
//! `block/blk-mq.c` (`blk_mq_check_in_driver`: requests without `RQF_IO_STAT` are passed over).

use std::fs::File;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::sys::stack::{Stack, nvme_paths};
use crate::sys::sysfs::Sysfs;
use crate::sys::target::TargetKind;

/// Opened beforehand; a descriptor in sysfs keeps no device and no mount.
#[derive(Debug, Default)]
pub(super) struct Gauges(Vec<Gauge>);

#[derive(Debug)]
struct Gauge {
    dir: PathBuf,
    count: Option<File>,
    /// Whether the queue counts at all; none for what has no such attribute and counts always.
    counts: Option<File>,
}

/// What one gauge shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shown {
    Count(u64),
    Gone,
    Unknown,
}

impl Gauges {
    pub(super) fn of(stack: Option<&Stack>) -> Gauges {
        let mut gauges = Gauges::default();
        if let Some(stack) = stack {
            gauges.add(stack);
        }
        gauges
    }

    /// Adds what has come to the stack since: a path that was found meanwhile.
    pub(super) fn renew(&mut self, sysfs: Sysfs<'_>, device: TargetKind) {
        if let Some(stack) = sysfs.stack(device) {
            self.add(&stack);
        }
    }

    /// The sum; `None` if any of them is not known. What is gone counts as nothing if `drained`: whoever removed it had
    /// waited for its requests.
    pub(super) fn total(&self, drained: bool) -> Option<u64> {
        if self.0.is_empty() {
            return None;
        }
        self.0.iter().try_fold(0_u64, |sum, gauge| match gauge.read() {
            Shown::Count(count) => Some(sum.saturating_add(count)),
            Shown::Gone if drained => Some(sum),
            Shown::Gone | Shown::Unknown => None,
        })
    }

    /// Why the total will not be known, if so.
    pub(super) fn unknown(&self) -> Option<String> {
        if self.0.is_empty() {
            return Some("the kernel does not count its I/O under way".to_owned());
        }
        let gauge = self.0.iter().find(|gauge| !matches!(gauge.read(), Shown::Count(_)))?;
        Some(match (&gauge.count, gauge.is_off()) {
            (Some(_), true) => format!("{} counts no I/O, queue/iostats is off", gauge.dir.display()),
            _ => format!("{} tells no I/O under way", gauge.dir.display()),
        })
    }

    pub(super) fn descriptors(&self) -> Vec<RawFd> {
        let files = self.0.iter().flat_map(|gauge| gauge.count.iter().chain(&gauge.counts));
        files.map(AsRawFd::as_raw_fd).collect()
    }

    fn add(&mut self, stack: &Stack) {
        for layer in &stack.layers {
            self.add_one(&layer.dir, &layer.disk);
        }
        for disk in &stack.disks {
            for path in nvme_paths(disk) {
                self.add_one(&path, &path);
            }
        }
    }

    fn add_one(&mut self, dir: &Path, disk: &Path) {
        if self.0.iter().any(|gauge| gauge.dir == dir && gauge.read() != Shown::Gone) {
            return;
        }
        let open = |path: PathBuf| File::open(path).ok();
        let (count, counts) = (open(dir.join("inflight")), open(disk.join("queue/iostats")));
        self.0.retain(|gauge| gauge.dir != dir);
        self.0.push(Gauge { dir: dir.to_owned(), count, counts });
    }
}

impl Gauge {
    fn read(&self) -> Shown {
        let Some(file) = &self.count else { return Shown::Unknown };
        let mut buffer = [0; 64];
        match file.read_at(&mut buffer, 0) {
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Shown::Gone,
            Err(_) => Shown::Unknown,
            Ok(_) if self.is_off() => Shown::Unknown,
            Ok(count) => sum(&buffer[..count]).map_or(Shown::Unknown, Shown::Count),
        }
    }

    fn is_off(&self) -> bool {
        let mut buffer = [0; 4];
        let read = self.counts.as_ref().and_then(|file| file.read_at(&mut buffer, 0).ok());
        read.is_some_and(|count| buffer[..count].starts_with(b"0"))
    }
}

/// Reads and writes under way, as `inflight` shows them.
fn sum(text: &[u8]) -> Option<u64> {
    let mut numbers = std::str::from_utf8(text).ok()?.split_ascii_whitespace().map(str::parse::<u64>);
    let (reads, writes) = (numbers.next()?.ok()?, numbers.next()?.ok()?);
    numbers.next().is_none().then(|| reads.saturating_add(writes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::fake_sysfs::FakeSysfs;

    const DM: TargetKind = TargetKind::Block { major: 253, minor: 0 };

    fn gauges(fake: &FakeSysfs, device: TargetKind) -> Gauges {
        Gauges::of(fake.sysfs().stack(device).as_ref())
    }

    #[test]
    fn every_layer_counts_and_a_new_path_too() {
        let fake = FakeSysfs::new();
        fake.scsi("sda", (8, 0), "3:0:0:0");
        fake.device_mapper("dm-0", (253, 0), ("mpatha", "mpath-1"), &["sda"]);
        let mut gauges = gauges(&fake, DM);
        assert_eq!((gauges.total(false), gauges.unknown()), (Some(0), None));
        fake.set("devices/block/dm-0/inflight", "       0        2\n");
        fake.set("devices/block/sda/inflight", "       1        4\n");
        assert_eq!(gauges.total(false), Some(7));
        fake.scsi("sdb", (8, 16), "4:0:0:0");
        fake.set("devices/block/sdb/inflight", "       0        1\n");
        std::os::unix::fs::symlink(
            fake.path("devices/block/sdb"),
            fake.path("devices/block/dm-0/slaves/sdb"),
        )
        .unwrap();
        gauges.renew(fake.sysfs(), DM);
        assert_eq!((gauges.total(false), gauges.descriptors().len()), (Some(8), 6));
        gauges.renew(fake.sysfs(), DM);
        assert_eq!(gauges.descriptors().len(), 6);
    }

    #[test]
    fn a_partition_counts_for_itself() {
        let fake = FakeSysfs::new();
        fake.scsi("sda", (8, 0), "3:0:0:0");
        fake.partition("sda", "sda1", (8, 1));
        fake.set("devices/block/sda/inflight", "9 9\n");
        assert_eq!(gauges(&fake, TargetKind::Block { major: 8, minor: 1 }).total(false), Some(0));
    }

    #[test]
    fn the_paths_of_an_nvme_multipath_count() {
        let fake = FakeSysfs::new();
        fake.nvme_multipath("nvme0n1", (259, 0), &[("nvme0", "0000:00:04.0")]);
        let hidden = fake.sysfs().stack(TargetKind::Block { major: 259, minor: 0 }).unwrap();
        let hidden = nvme_paths(&hidden.disks[0]).remove(0);
        std::fs::write(hidden.join("inflight"), "0 5\n").unwrap();
        assert_eq!(gauges(&fake, TargetKind::Block { major: 259, minor: 0 }).total(false), Some(5));
    }

    #[test]
    fn what_is_not_counted_is_unknown() {
        let fake = FakeSysfs::new();
        fake.bare("loop0", (7, 0));
        let device = TargetKind::Block { major: 7, minor: 0 };
        fake.set("devices/block/loop0/queue/iostats", "0\n");
        let off = gauges(&fake, device);
        assert_eq!(off.total(true), None);
        assert!(off.unknown().unwrap().contains("iostats is off"));
        fake.set("devices/block/loop0/queue/iostats", "1\n");
        assert_eq!(off.total(false), Some(0));
        std::fs::remove_file(fake.path("devices/block/loop0/inflight")).unwrap();
        let missing = gauges(&fake, device);
        assert_eq!(missing.total(true), None);
        assert!(missing.unknown().unwrap().contains("tells no I/O"));
        let nothing = gauges(&fake, TargetKind::File { device: 1, inode: 1 });
        assert_eq!(nothing.total(true), None);
        assert!(nothing.unknown().is_some());
    }

    #[test]
    fn only_two_numbers_are_a_count() {
        assert_eq!(sum(b"       3       39\n"), Some(42));
        for bad in [&b""[..], b"3", b"3 x", b"1 2 3", b"-1 0", b"\xff 0"] {
            assert_eq!(sum(bad), None, "{bad:?}");
        }
    }
}
