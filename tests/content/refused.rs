//! What nothing is put behind, what needs to be told its end, and what is blank.

use std::path::{Path, PathBuf};
use std::process::Command;

use mmpguard::io::Device;
use mmpguard::sys::content::{Found, filesystems, identify};

use super::{MIB, has, image, must_run, one, put, run, unsuitable};

#[test]
fn swap_and_a_made_vfat_need_to_be_told_their_end() {
    if !has(&["mkswap", "blkid"]) {
        return;
    }
    let (_dir, swap) = image(20 * MIB);
    run("mkswap", &["-q"], &swap);
    let (_dir, vfat) = image(20 * MIB);
    put(&vfat, 0, &vfat_boot_sector());
    for (image, name) in [(&swap, "swap"), (&vfat, "vfat")] {
        let found = identify(&Device::inspect(image).unwrap()).unwrap();
        let Found::Other { kind, uuid } = found else { panic!("{found:?}") };
        assert_eq!((kind.as_str(), uuid.is_some()), (name, true));
        assert_eq!(filesystems(&Device::inspect(image).unwrap()).unwrap(), Vec::new());
    }
}

/// FAT16: 40960 sectors of 512 bytes, clusters of 4.
fn vfat_boot_sector() -> [u8; 512] {
    let mut sector = [0; 512];
    sector[..11].copy_from_slice(b"\xEB\x3C\x90mkfs.fat");
    sector[11..24].copy_from_slice(&[0, 2, 4, 4, 0, 2, 0, 2, 0, 0xA0, 0xF8, 64, 0]);
    sector[0x24..0x2B].copy_from_slice(&[0x80, 0, 0x29, 1, 2, 3, 4]);
    sector[0x2B..0x3E].copy_from_slice(b"NO NAME    FAT16   ");
    sector[510..].copy_from_slice(&[0x55, 0xAA]);
    sector
}

#[test]
fn partition_tables_are_refused() {
    if !has(&["sfdisk", "mkfs.ext4", "blkid"]) {
        return;
    }
    for (table, name) in [("gpt", "gpt"), ("dos", "dos")] {
        let (_dir, image) = image(20 * MIB);
        run("sh", &["-c", &format!("echo ,, | sfdisk -q -X {table} \"$0\"")], &image);
        assert!(unsuitable(&image).contains(name));
    }
    let (_dir, image) = image(20 * MIB);
    run("mkfs.ext4", &["-q", "-F"], &image);
    put(&image, 510, &[0x55, 0xAA]);
    let what = unsuitable(&image);
    assert!(what.contains("ext4 beside a partition table (dos)"), "{what}");
}

/// The tools of these are rarely installed: the few bytes are written as they do.
#[test]
fn members_and_containers_are_refused() {
    if !has(&["blkid"]) {
        return;
    }
    let uberblock = [0xBA_B10Cu64, 5000, 1].map(u64::to_le_bytes).concat();
    let zfs: Vec<_> = (0..8).map(|at| ((128 << 10) + at * 1024, uberblock.clone())).collect();
    let end = 64 * MIB;
    for (puts, name, instead) in [
        (vec![(512, lvm2_label())], "LVM2_member", "logical volume"),
        (vec![(4096, md_superblock(8))], "linux_raid_member", "array"),
        (vec![(end - 8192, md_superblock(end / 512 - 16))], "linux_raid_member", "array"),
        (vec![(0, md_superblock(0))], "linux_raid_member", "array"),
        (vec![(0, b"LUKS\xBA\xBE\0\x01".to_vec())], "crypto_LUKS", "opened"),
        (vec![(end - 1024, b"Intel Raid ISM Cfg Sig. 1.2.00".to_vec())], "isw_raid_member", "set"),
        (zfs, "zfs_member", "pool"),
    ] {
        let (_dir, image) = image(end);
        for (at, bytes) in &puts {
            put(&image, *at, bytes);
        }
        let what = unsuitable(&image);
        assert!(what.contains(name) && what.contains(instead), "{name}: {what}");
    }
}

/// The second sector of a physical volume: `struct label_header` of LVM2.
fn lvm2_label() -> Vec<u8> {
    let mut sector = [0; 512];
    sector[..8].copy_from_slice(b"LABELONE");
    sector[8..16].copy_from_slice(&1u64.to_le_bytes());
    sector[20..24].copy_from_slice(&32u32.to_le_bytes());
    sector[24..32].copy_from_slice(b"LVM2 001");
    sector[32..64].copy_from_slice(b"0123456789abcdefghijklmnopqrstuv");
    let mut crc = 0xF597_A6CFu32;
    for byte in &sector[20..] {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = crc >> 1 ^ if crc & 1 == 1 { 0xEDB8_8320 } else { 0 };
        }
    }
    sector[16..20].copy_from_slice(&crc.to_le_bytes());
    sector.to_vec()
}

/// `struct mdp_superblock_1` of a mirror of two, at that sector of its device.
fn md_superblock(sector: u64) -> Vec<u8> {
    let mut bytes = [0; 256 + 4];
    for (at, value) in [(0, 0xA92B_4EFCu32), (4, 1), (72, 1), (92, 2), (220, 2)] {
        bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
    }
    bytes[16..32].copy_from_slice(b"0123456789abcdef");
    bytes[32..38].copy_from_slice(b"host:0");
    for (at, value) in [(80, 65536u64), (128, 2048), (136, 65536), (144, sector), (200, 7)] {
        bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
    }
    let sum: u64 =
        bytes.chunks_exact(4).map(|word| u64::from(u32::from_le_bytes(word.try_into().unwrap()))).sum();
    let folded = u32::try_from((sum & 0xFFFF_FFFF) + (sum >> 32)).unwrap();
    bytes[216..220].copy_from_slice(&folded.to_le_bytes());
    bytes.to_vec()
}

#[test]
fn noise_and_zeroes_are_blank() {
    if !has(&["blkid"]) {
        return;
    }
    let (_dir, image) = image(10 * MIB + 512);
    assert_eq!(identify(&Device::inspect(&image).unwrap()).unwrap(), Found::Blank);
    let mut random = fastrand::Rng::with_seed(7);
    put(&image, 0, &std::iter::repeat_with(|| random.u8(..)).take(9 << 20).collect::<Vec<_>>());
    assert_eq!(identify(&Device::inspect(&image).unwrap()).unwrap(), Found::Blank);
    assert_eq!(filesystems(&Device::inspect(&image).unwrap()).unwrap(), Vec::new());
}

/// A loop device over an image, taken off again.
struct Loop(PathBuf);

impl Loop {
    fn over(image: &Path) -> Loop {
        Loop(run("losetup", &["--show", "--partscan", "--find"], image).trim().into())
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let _ = Command::new("losetup").arg("--detach").arg(&self.0).status();
    }
}

#[test]
fn block_devices_are_looked_at_like_images() {
    if !nix::unistd::geteuid().is_root() {
        assert!(!must_run(), "this needs root, and MMPGUARD_REQUIRE_ROOT=1 says that it must run");
        eprintln!("SKIPPED: needs root");
        return;
    }
    if !has(&["losetup", "addpart", "mkfs.ext4", "blkid"]) {
        return;
    }
    let (_dir, plain) = image(32 * MIB);
    let output = Command::new("mkfs.ext4").args(["-q", "-F"]).arg(&plain).arg("20M").output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let device = Loop::over(&plain);
    assert_eq!((one(&device.0).end_bytes, one(&device.0)), (20 * MIB, one(&plain)));
    // Without a table that blkid(8) could see: the kernel was told of a partition. Not every kernel knows tables itself.
    let (_dir, disk) = image(32 * MIB);
    let device = Loop::over(&disk);
    let name = device.0.file_name().unwrap().to_str().unwrap();
    let expected = format!("partitions: {name}p1");
    let added = Command::new("addpart").arg(&device.0).args(["1", "2048", "4096"]).output().unwrap();
    assert!(added.status.success(), "{added:?}");
    let what = unsuitable(&device.0);
    assert!(what.contains(&expected), "{what}");
}
