//! Which of blkid's kinds may have an area behind them, and why the others may not.
//!
//! Protects: what is not a filesystem is refused unless it is listed here. Does not protect: a filesystem that blkid(8) learns of
//! tomorrow and that writes at the end of its device is let through, to whoever says where it ends.
//!
//! Sources: util-linux `libblkid/src/superblocks/` for names and usages; for what writes at the very end of its device, whatever its
//! own size, Linux `fs/nilfs2/the_nilfs.c` (`NILFS_SB2_OFFSET_BYTES`), `fs/hfs/mdb.c` and `fs/hfsplus/wrapper.c`
//! (the alternate volume header).

use super::Found;

/// blkid's kinds, what that is, why it is refused and what to do instead.
const REFUSED: &[(&[&str], &str, &str)] = &[
    (
        &["LVM2_member", "LVM1_member"],
        "a physical volume of LVM",
        "LVM uses all of it; make the area in a logical volume of its own, or guard the volume group by a slot of an area on \
         another LUN",
    ),
    (
        &["linux_raid_member"],
        "a member of an md array",
        "the array uses all of it, and its metadata may stand at the end; make the area on the array (/dev/md...), or guard the \
         array by a slot of an area on another LUN; if it is only a rest of one, `mdadm --zero-superblock` removes it",
    ),
    (
        &["zfs_member"],
        "a member of a ZFS pool",
        "ZFS uses all of it and has two labels at its end; guard the pool by a slot of an area on another LUN",
    ),
    (
        &["crypto_LUKS"],
        "a LUKS container",
        "its data reaches to the end of the device; make the area on the opened mapping, behind its filesystem, or on a \
         device or partition of its own",
    ),
    (
        &["BitLocker", "cs_fvault2"],
        "an encrypted volume",
        "its data reaches to the end of the device; make the area on a device or partition of its own",
    ),
    (
        &["bcache"],
        "a device of bcache",
        "bcache uses all of it; make the area on the cached device (/dev/bcache...), or on a device or partition of its own",
    ),
    (
        &["drbd", "drbdmanage_control_volume", "drbdproxy_datalog"],
        "a device of DRBD",
        "DRBD uses it to the end and decides itself which host may write; make the area on another device",
    ),
    (
        &["mpath_member"],
        "a path of a multipath device",
        "name the multipath device (/dev/mapper/...), not one of its paths",
    ),
    (
        &["ceph_bluestore"],
        "an OSD of Ceph",
        "Ceph uses all of it; make the area on a device or partition of its own",
    ),
    (
        &["VMFS_volume_member", "VMFS"],
        "a VMFS datastore",
        "it belongs to hypervisors, which coordinate themselves; make the area on another LUN",
    ),
    (
        &["stratis", "mpool"],
        "a member of a storage pool",
        "the pool uses all of it; guard the pool by a slot of an area on another LUN",
    ),
    (
        &["vdo"],
        "the storage of a VDO volume",
        "VDO uses all of it; make the area on the volume, or on a device or partition of its own",
    ),
    (&["jbd"], "an external journal of ext4", "guard the filesystem it belongs to, not its journal"),
    (&["xfs_external_log"], "an external log of XFS", "guard the filesystem it belongs to, not its log"),
    (
        &["nilfs2"],
        "a NILFS2 filesystem",
        "it writes its second superblock into the last blocks of the device, wherever the filesystem ends; make the area on a \
         device or partition of its own",
    ),
    (
        &["hfs", "hfsplus"],
        "an HFS filesystem",
        "it writes a copy of its header to the end of the device, wherever the filesystem ends; make the area on a device or \
         partition of its own",
    ),
    (
        &["bcachefs"],
        "a device of bcachefs",
        "it keeps a copy of its superblock at the end of the device; make the area on a device or partition of its own",
    ),
    (&["zonefs"], "a zonefs filesystem", "it uses all zones of the device; make the area on another device"),
    (
        &["gfs", "gfs2", "ocfs", "ocfs2", "scoutfs_meta", "scoutfs_data", "oracleasm"],
        "made for several hosts at once",
        "its hosts have locks of their own: there is nothing to guard",
    ),
];

/// What blkid(8) counts as "other" and what ends somewhere all the same.
const OTHER_THAN_FILESYSTEMS: [&str; 2] = ["swap", "swsuspend"];

/// Why nothing is put behind a `kind` of this `usage`; `None` if something may be.
pub(super) fn refusal(kind: &str, usage: &str) -> Option<Found> {
    if let Some((_, what, why)) = REFUSED.iter().find(|(kinds, ..)| kinds.contains(&kind)) {
        return Some(Found::Unsuitable { what: format!("{what} ({kind})"), why: (*why).to_owned() });
    }
    if kind.ends_with("_raid_member") {
        return Some(Found::Unsuitable {
            what: format!("a member of a RAID set of the firmware ({kind})"),
            why: "the set's metadata stands at the end of the device; make the area on the assembled set, or on a device or \
                  partition of its own; if it is only a rest of one, wipefs(8) removes it"
                .to_owned(),
        });
    }
    if usage == "filesystem" || OTHER_THAN_FILESYSTEMS.contains(&kind) {
        return None;
    }
    Some(Found::Unsuitable {
        what: format!("\"{kind}\", as blkid(8) calls it"),
        why: format!(
            "it is no filesystem ({usage}), and whether it uses its device to the end is not known; make the area on a device or partition of its own"
        ),
    })
}

/// Whether a device mapper device with this `dm/uuid` is kept by LVM or Stratis for itself: util-linux `lib/sysfs.c`
/// (`sysfs_devno_is_dm_private`), by which blkid(8) does not look at it.
pub(in crate::sys) fn is_private(uuid: &[u8]) -> bool {
    let uuid = uuid.trim_ascii_end();
    let rest = uuid.strip_prefix(b"LVM-").unwrap_or_default();
    // The plain ones have two UUIDs without a dash between, and nothing behind them.
    let has_suffix = rest.contains(&b'-') && !rest.ends_with(b"-");
    has_suffix || uuid.starts_with(b"stratis-1-private")
}

/// What is said of such a device.
pub(super) fn private() -> Found {
    Found::Unsuitable {
        what: "a device that LVM or Stratis keeps for itself".to_owned(),
        why: "it is a part of another device; name that one, or make the area in a logical volume of its own"
            .to_owned(),
    }
}

/// A disk whose partitions the kernel sees, or a device with the table that `table` names.
pub(super) fn partitioned(table: &str) -> Found {
    Found::Unsuitable {
        what: format!("a device with {table}"),
        why: "the partitions own it, and GPT has its copy at the end; name the partition that is meant, or make one for the area".to_owned(),
    }
}

/// A partition table, alone or beside something else.
pub(super) fn table(table: &str, beside: Option<&str>) -> Found {
    let Some(beside) = beside else { return partitioned(&format!("a partition table ({table})")) };
    Found::Unsuitable {
        what: format!("{beside} beside a partition table ({table})"),
        why: format!(
            "which of them is in use cannot be told; `wipefs` shows where they stand, and if the table is only a rest or a boot \
             sector's mark, `wipefs --backup --types {table} --all` removes that"
        ),
    }
}

/// Several things stand on the device. `names` are safe to show.
pub(super) fn ambivalent(names: &[String]) -> Found {
    let names = if names.is_empty() { "not named".to_owned() } else { names.join(", ") };
    Found::Unsuitable {
        what: format!("several things at once ({names})"),
        why: "which of them is in use cannot be told; `wipefs` shows where they stand, and `wipefs --backup --types TYPE --all` removes \
              one that is only a rest"
            .to_owned(),
    }
}

/// Whether the end of a `kind` is told by its superblock.
pub(super) fn is_ours(kind: &str) -> bool {
    matches!(kind, "ext2" | "ext3" | "ext4" | "ext4dev" | "xfs" | "btrfs")
}

/// ext2/3/4 are one family: blkid(8) tells them apart by features, and a journal may come or go.
pub(super) fn same_family(one: &str, other: &str) -> bool {
    one == other || (one.starts_with("ext") && other.starts_with("ext"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(kind: &str, usage: &str) -> Option<String> {
        match refusal(kind, usage) {
            Some(Found::Unsuitable { what, why }) => Some(format!("{what}: {why}")),
            None => None,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn owners_of_whole_devices_are_refused_with_what_to_do() {
        for kind in REFUSED.iter().flat_map(|(kinds, ..)| *kinds) {
            // Whatever blkid(8) says its usage is: ZFS counts as a filesystem.
            assert!(refused(kind, "filesystem").is_some(), "{kind}");
        }
        assert!(refused("LVM2_member", "raid").unwrap().contains("logical volume"));
        assert!(refused("isw_raid_member", "raid").unwrap().contains("isw_raid_member"));
        assert!(refused("gfs2", "filesystem").unwrap().contains("(gfs2)"));
    }

    #[test]
    fn what_is_unknown_passes_as_a_filesystem_only() {
        for kind in ["vfat", "ntfs", "f2fs", "jfs", "iso9660", "exfat", "newfs"] {
            assert_eq!(refused(kind, "filesystem"), None, "{kind}");
        }
        assert_eq!(refused("swap", "other"), None);
        for usage in ["raid", "crypto", "other", "unknown", ""] {
            assert!(refused("DM_thing", usage).is_some(), "{usage}");
        }
    }

    #[test]
    fn private_devices_are_told_by_their_uuid() {
        let plain = format!("LVM-{}{}\n", "a".repeat(32), "b".repeat(32));
        assert!(!is_private(plain.as_bytes()) && !is_private(b"mpath-36001-x") && !is_private(b""));
        assert!(!is_private(b"CRYPT-LUKS2-abc-name") && !is_private(b"LVM-abc-"));
        assert!(is_private(b"LVM-abc-tdata\n") && is_private(b"stratis-1-private-abc"));
    }

    #[test]
    fn families_are_told() {
        assert!(is_ours("ext4dev") && is_ours("xfs") && !is_ours("exfat"));
        assert!(same_family("ext2", "ext4") && same_family("xfs", "xfs") && !same_family("xfs", "btrfs"));
    }
}
