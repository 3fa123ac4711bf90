//! blkid(8) and sysfs are played; `tests/content` asks the real ones about what real tools made.

use std::fs::File;
use std::os::unix::fs::FileExt;

use super::blkid::tests::stand_in;
use super::*;
use crate::clock;
use crate::error::Kind;
use crate::io::DeviceKind;
use crate::sys::fake_sysfs::FakeSysfs;

/// The beginning of an ext2 of 1000 blocks of 1 KiB, with a UUID of zeroes, to be put at byte 1024.
fn ext2() -> [u8; 1024] {
    let mut bytes = [0; 1024];
    for (at, value) in [(0x00, 16u32), (0x04, 1000), (0x14, 1), (0x20, 8192), (0x28, 16), (0x38, 0xEF53)] {
        bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
    }
    bytes
}

/// What is found if blkid is `script` and `puts` is put at their places.
fn found(script: &str, puts: &[(u64, &[u8])]) -> Result<Found, Error> {
    let (dir, blkid, device) = stand_in(script);
    let image = File::options().write(true).open(dir.path().join("disk.img")).unwrap();
    for (at, bytes) in puts {
        image.write_all_at(bytes, *at).unwrap();
    }
    let sysfs = FakeSysfs::new();
    for _ in 0..50 {
        match identify_by(&device, &blkid, sysfs.sysfs()) {
            // Another test's child still has the script open for writing.
            Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::ExecutableFileBusy => {
                clock::sleep(Duration::from_millis(20));
            }
            answer => return answer,
        }
    }
    panic!("the script stays busy");
}

fn contradicts(script: &str, puts: &[(u64, &[u8])]) {
    match found(script, puts) {
        Err(error @ Error::Unsupported { .. }) => assert!(error.to_string().contains("flushbufs"), "{error}"),
        other => panic!("{other:?}"),
    }
}

fn unsuitable(script: &str, puts: &[(u64, &[u8])]) -> String {
    match found(script, puts) {
        Ok(Found::Unsuitable { what, .. }) => what,
        other => panic!("{other:?}"),
    }
}

const SAYS_EXT: &str = "echo ID_FS_TYPE=ext2; echo ID_FS_USAGE=filesystem";
const SAYS_VFAT: &str = "echo ID_FS_TYPE=vfat; echo ID_FS_USAGE=filesystem; echo ID_FS_UUID=AB-12";

#[test]
fn both_have_to_say_the_same() {
    let ext2 = ext2();
    let puts: &[(u64, &[u8])] = &[(1024, &ext2)];
    let Found::Filesystem(standing) = found(SAYS_EXT, puts).unwrap() else { panic!("is one") };
    assert_eq!((standing.kind, standing.end_bytes), ("ext2", 1000 << 10));
    let later = SAYS_EXT.replace("ext2", "ext4");
    assert!(matches!(found(&later, puts), Ok(Found::Filesystem(_))), "features may change between two looks");
    contradicts(&format!("{SAYS_EXT}; echo ID_FS_UUID=30313233-3435-3637-3839-616263646566"), puts);
    contradicts(SAYS_EXT, &[]);
    contradicts("exit 2", puts);
    contradicts(&SAYS_EXT.replace("ext2", "xfs"), puts);
}

#[test]
fn what_is_not_ours_has_to_be_alone() {
    let other = Found::Other { kind: "vfat".to_owned(), uuid: Some("AB-12".to_owned()) };
    assert_eq!(found(SAYS_VFAT, &[]).unwrap(), other);
    let names = unsuitable(SAYS_VFAT, &[(1024, &ext2())]);
    assert!(names.contains("ext2 0000") && names.contains("vfat"), "{names}");
    assert_eq!(found("exit 2", &[]).unwrap(), Found::Blank);
}

#[test]
fn an_owner_of_the_device_is_named_whatever_superblocks_stand_there() {
    let mut damaged = ext2();
    damaged[0x18] = 99;
    let puts: &[(u64, &[u8])] = &[(1024, &damaged)];
    let says = "echo ID_FS_TYPE=LVM2_member; echo ID_FS_USAGE=raid";
    assert!(unsuitable(says, puts).contains("LVM"));
    assert!(unsuitable("echo ID_PART_TABLE_TYPE=gpt", puts).contains("gpt"));
    assert!(unsuitable("echo 'ID_FS_AMBIVALENT=filesystem:a filesystem:b'; exit 8", puts).contains("a, b"));
    for script in ["exit 2", SAYS_EXT, SAYS_VFAT] {
        let error = found(script, puts).unwrap_err();
        assert!(matches!(error, Error::Content { .. }) && error.kind() == Kind::Damaged, "{error}");
    }
}

#[test]
fn a_disk_with_partitions_is_refused_though_blkid_sees_nothing() {
    let sysfs = FakeSysfs::new();
    sysfs.bare("sdx", (8, 16));
    sysfs.partition("sdx", "sdx1", (8, 17));
    let names = |number| {
        let kind = DeviceKind::Block { major: 8, minor: number };
        sysfs.sysfs().partitions(kind).into_iter().map(|partition| partition.name).collect::<Vec<_>>()
    };
    assert_eq!((names(16), names(17)), (vec!["sdx1".to_owned()], Vec::new()));
    assert!(
        matches!(kinds::partitioned("partitions: sdx1"), Found::Unsuitable { what, .. } if what.contains("sdx1"))
    );
}

#[test]
fn a_device_without_bytes_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("disk.img");
    std::fs::write(&image, b"").unwrap();
    let device = Device::inspect(&image).unwrap();
    assert_eq!(filesystems(&device).unwrap(), Vec::new());
    assert!(identify(&device).unwrap_err().to_string().contains("no bytes"));
}

#[test]
fn a_device_that_changes_meanwhile_is_refused() {
    let script = "for it; do :; done; truncate --size 4096 \"$it\"; exit 2";
    let error = found(script, &[]).unwrap_err();
    assert!(matches!(&error, Error::Io { .. }) && error.to_string().contains("changed its size"), "{error}");
}

#[test]
fn a_superblock_that_is_being_written_is_read_again() {
    let (dir, _, device) = stand_in("exit 2");
    let image = File::options().write(true).open(dir.path().join("disk.img")).unwrap();
    let mut torn = ext2();
    torn[0x20] = 0;
    torn[0x21] = 0;
    image.write_all_at(&torn, 1024).unwrap();
    assert!(filesystems(&device).is_err());
    let writer = std::thread::spawn(move || {
        clock::sleep(BETWEEN_LOOKS + BETWEEN_LOOKS / 2);
        image.write_all_at(&ext2(), 1024).unwrap();
    });
    let found = filesystems(&device);
    writer.join().unwrap();
    assert_eq!(found.unwrap().len(), 1);
}
