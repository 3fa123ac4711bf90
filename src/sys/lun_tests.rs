use std::os::unix::fs::symlink;

use super::*;
use crate::sys::fake_sysfs::FakeSysfs;

const fn block(major: u32, minor: u32) -> TargetKind {
    TargetKind::Block { major, minor }
}

/// Two paths to one LUN, with a name, and a partition on each.
fn two_paths(name: &str) -> FakeSysfs {
    let fake = FakeSysfs::new();
    for (disk, minor, address) in [("sda", 0, "3:0:0:0"), ("sdb", 16, "4:0:0:0")] {
        fake.scsi(disk, (8, minor), address);
        fake.set(&format!("devices/block/{disk}/device/wwid"), &format!("{name}\n"));
        fake.partition(disk, &format!("{disk}1"), (8, minor + 1));
        fake.set(&format!("devices/block/{disk}/{disk}1/size"), "1024\n");
        fake.set(&format!("devices/block/{disk}/{disk}1/start"), "2048\n");
    }
    fake
}

/// A multipath map over the paths, with a partition of it.
fn map_over(fake: &FakeSysfs, paths: &[&str]) {
    fake.device_mapper("dm-0", (253, 0), ("mpatha", "mpath-3600"), paths);
    fake.device_mapper("dm-1", (253, 1), ("mpatha1", "part1-mpath-3600"), &["dm-0"]);
    for path in paths {
        let holders = fake.path(&format!("devices/block/{path}/holders"));
        std::fs::create_dir_all(&holders).unwrap();
        symlink(fake.path("devices/block/dm-0"), holders.join("dm-0")).unwrap();
    }
}

fn of(fake: &FakeSysfs, node: TargetKind) -> Lun {
    lun_of(fake.sysfs(), node, None, 0)
}

#[test]
fn paths_with_a_worldwide_name_are_one_and_so_are_their_partitions() {
    for name in ["naa.60014051234567890abcdef012345678", "eui.0025385b71b00123", "uuid.12345678-1234-1234"] {
        let fake = two_paths(name);
        assert_eq!(of(&fake, block(8, 0)), Lun::Worldwide(name.to_owned()));
        assert_eq!(of(&fake, block(8, 0)), of(&fake, block(8, 16)));
        assert_eq!(of(&fake, block(8, 1)), of(&fake, block(8, 17)));
        assert_ne!(of(&fake, block(8, 1)), of(&fake, block(8, 0)));
    }
}

#[test]
fn names_that_others_may_have_are_not_gone_by() {
    for name in [
        "t10.ATA     QEMU HARDDISK                           QM00001",
        "naa.333333000000007d0",
        "nvme.1b36-deadbeef-0001-00000001",
        "naa.6",
        "eui.",
        "naa.5000000000000000",
        "naa.60000000000000000000000000000000",
        "eui.0000000000000000",
        "uuid.00000000-0000-0000-0000-000000000000",
        "",
    ] {
        let fake = two_paths(name);
        assert_eq!(of(&fake, block(8, 0)), Lun::Node(block(8, 0)), "{name}");
        assert_ne!(of(&fake, block(8, 1)), of(&fake, block(8, 17)), "{name}");
    }
}

#[test]
fn a_multipath_map_is_what_its_paths_are() {
    for name in ["naa.60014051234567890abcdef012345678", "t10.whatever"] {
        let fake = two_paths(name);
        map_over(&fake, &["sda", "sdb"]);
        let map = of(&fake, block(253, 0));
        assert_eq!((of(&fake, block(8, 0)), of(&fake, block(8, 16))), (map.clone(), map.clone()), "{name}");
        let partition = Lun::Partition { of: Box::new(map), number: 1, start_bytes: 1 << 20 };
        for node in [block(8, 1), block(8, 17)] {
            assert_eq!(of(&fake, node), partition, "{name}");
        }
        assert_eq!(of(&fake, block(253, 1)), Lun::Node(block(253, 1)), "nobody tells where kpartx's begins");
    }
    // A third path that is not in the map yet is known by its name.
    let fake = two_paths("naa.60014051234567890abcdef012345678");
    map_over(&fake, &["sda"]);
    assert_eq!(of(&fake, block(8, 16)), of(&fake, block(253, 0)));
}

#[test]
fn partitions_by_two_tables_are_two() {
    let fake = two_paths("naa.60014051234567890abcdef012345678");
    fake.set("devices/block/sdb/sdb1/start", "4096\n");
    assert_ne!(of(&fake, block(8, 1)), of(&fake, block(8, 17)));
    for unknown in ["", "x\n", "18446744073709551615\n"] {
        fake.set("devices/block/sdb/sdb1/start", unknown);
        assert_eq!(of(&fake, block(8, 17)), Lun::Node(block(8, 17)), "{unknown:?}");
    }
}

#[test]
fn other_maps_are_devices_of_their_own() {
    let fake = two_paths("naa.60014051234567890abcdef012345678");
    fake.device_mapper("dm-2", (253, 2), ("vg-lv", "LVM-abc"), &["sda"]);
    assert_eq!(of(&fake, block(253, 2)), Lun::Node(block(253, 2)));
}

#[test]
fn loop_devices_over_the_same_bytes_are_one() {
    let fake = FakeSysfs::new();
    for (name, minor, offset, limit) in [
        ("loop0", 0, "0", "0"),
        ("loop1", 1, "0", "0"),
        ("loop2", 2, "4096", "0"),
        ("loop3", 3, "4096", "8192"),
    ] {
        fake.bare(name, (7, minor));
        for (attribute, text) in [("backing_file", "/a"), ("offset", offset), ("sizelimit", limit)] {
            fake.set(&format!("devices/block/{name}/loop/{attribute}"), text);
        }
    }
    let file = TargetKind::File { device: 1, inode: 2 };
    let backing = |found: &LoopDevice| (found.backing == Path::new("/a")).then_some(file);
    let of = |minor| lun_of(fake.sysfs(), block(7, minor), Some(&backing), 0);
    assert_eq!((of(0), of(1)), (Lun::Node(file), Lun::Node(file)), "and as the file itself");
    let window = |limit_bytes| Lun::Window { of: Box::new(Lun::Node(file)), offset_bytes: 4096, limit_bytes };
    assert_eq!((of(2), of(3)), (window(0), window(8192)));
    let unknown = |_: &LoopDevice| None;
    assert_eq!(lun_of(fake.sysfs(), block(7, 0), Some(&unknown), 0), Lun::Node(block(7, 0)));
    // One that shows itself, as no kernel lets it.
    let itself = |_: &LoopDevice| Some(block(7, 0));
    assert_eq!(lun_of(fake.sysfs(), block(7, 0), Some(&itself), 0), Lun::Node(block(7, 0)));
}

#[test]
fn what_hosts_share_is_listed_and_nothing_else() {
    let fake = two_paths("naa.60014051234567890abcdef012345678");
    fake.bare("loop7", (7, 7));
    fake.bare("loop8", (7, 8));
    fake.set("devices/block/loop8/size", "0\n");
    fake.bare("ram0", (1, 0));
    fake.bare("fd0", (2, 0));
    fake.bare("sr0", (11, 0));
    fake.bare("zram0", (252, 0));
    fake.device_mapper("dm-0", (253, 0), ("vg-lv", "LVM-abc"), &["sda"]);
    fake.device_mapper("dm-1", (253, 1), ("vg-lv-real", "LVM-abc-real"), &["sda"]);
    let found = devices_of(fake.sysfs()).unwrap();
    let paths: Vec<_> = found.iter().map(|device| device.path.to_str().unwrap()).collect();
    assert_eq!(
        paths,
        ["/dev/loop7", "/dev/sda", "/dev/sda1", "/dev/sdb", "/dev/sdb1", "/dev/dm-0"],
        "the friendly name leads nowhere here"
    );
    assert_eq!((found[0].size_bytes, found[2].size_bytes), (1 << 20, 1 << 19));
    assert!(devices_of(Sysfs(Path::new("/nonexistent"))).is_err());
}

#[test]
fn maps_are_known_by_their_uuids() {
    for (uuid, known) in [
        ("mpath-3600", true),
        ("", false),
        ("LVM-abc", false),
        ("part1-mpath-3600", false),
        ("CRYPT-mpath-", false),
    ] {
        let fake = two_paths("");
        fake.device_mapper("dm-0", (253, 0), ("name", uuid), &["sda"]);
        assert_eq!(is_map(fake.sysfs(), block(253, 0)), known, "{uuid}");
    }
}
