//! Where `mmp enable` puts no area: it says why and what else can be done, and writes nothing.

use std::fs::File;
use std::os::unix::fs::FileExt as _;

use crate::Case;
use crate::harness::areas::{Content, Made};
use crate::harness::lun::{Lun, must, text};
use crate::harness::{observed, seconds};

pub(crate) const CASES: &[Case] = &[
    ("area_9_no_room_is_told_with_the_ways_out", no_room),
    ("area_9_what_must_not_have_an_area_behind_it_is_refused", unsuitable),
    ("area_9_a_device_in_use_or_read_only_is_refused", in_use),
];

const MIB: u64 = 1 << 20;

/// Refused with that code, saying all of that, and not a byte was written.
fn refused(lun: &Lun, options: &[&str], code: i32, told: &[&str]) {
    let before = lun.digest();
    let mut arguments = vec!["enable"];
    arguments.extend(options);
    arguments.push(lun.a.path());
    let end = lun.mmp(&arguments).end(seconds(30));
    end.expect(code);
    told.iter().for_each(|told| {
        end.says(told);
    });
    assert!(!end.err.contains("\\x0a"), "lines are told as lines: {}", end.err);
    assert_eq!(lun.digest(), before, "a refusal wrote something");
    observed("area 9", end.err.lines().next().unwrap_or_default());
}

fn no_room() {
    for (content, command) in
        [(Content::Xfs, "mkfs.xfs -d size=299m"), (Content::Btrfs, "mkfs.btrfs -b 259M")]
    {
        let lun = Lun::made(content.filesystem_bytes(), None, None, |image| content.make(image, None));
        let command = format!("`{command} {}`", lun.a.path());
        let ways = ["no room", "grow the LUN by 1 MiB", "partition", "--area CONTROL", &command];
        refused(&lun, &[], 7, &ways);
        // Every way is a line.
        let end = lun.verb(&["enable", lun.a.path()]);
        assert_eq!(end.err.lines().filter(|line| line.starts_with("  - ")).count(), 4, "{}", end.err);
        lun.grow(MIB);
        lun.verb(&["enable", lun.a.path()]).expect(0).says("protected");
    }
}

fn unsuitable() {
    let table = Lun::made(16 * MIB, None, None, |image| {
        must("sh", &["-c", "echo ,, | sfdisk -q -X gpt \"$0\"", text(image)]);
    });
    refused(&table, &[], 7, &["gpt"]);
    for (at, bytes, told) in [
        (512, lvm2_label(), ["LVM2_member", "logical volume"]),
        (4096, md_superblock(8), ["linux_raid_member", "array"]),
    ] {
        let member = Lun::made(16 * MIB, None, None, |image| {
            let file = File::options().write(true).open(image).expect("opens");
            file.write_all_at(&bytes, at).expect("writes");
        });
        for options in [&[][..], &["--blank"], &["--end", "8M"]] {
            refused(&member, options, 7, &told);
        }
    }
    let swap = Lun::made(16 * MIB, None, None, |image| {
        must("mkswap", &["-q", text(image)]);
    });
    refused(&swap, &[], 7, &["it holds swap", "--end BYTES"]);
    swap.verb(&["enable", "--end", "15M", swap.a.path()]).expect(0).says("protected");

    let blank = Lun::blank(16 * MIB);
    refused(&blank, &[], 7, &["--blank", "--end"]);
    let native = Lun::holding(Content::Ext3, Made::default());
    refused(&native, &["--label", "x"], 2, &["MMP of its own", "mmp area create"]);
    blank.verb(&["enable", "--blank", blank.a.path()]).expect(0);
}

fn in_use() {
    let lun = Lun::holding(Content::Xfs, Made::default());
    must("blockdev", &["--setro", lun.a.path()]);
    refused(&lun, &[], 4, &["read-only"]);
    must("blockdev", &["--setrw", lun.a.path()]);
    let dir = lun.mount_point();
    must("mount", &["-t", "xfs", "-o", "ro,norecovery", lun.a.path(), text(&dir)]);
    refused(&lun, &[], 1, &["in use on this host", text(&dir)]);
    must("umount", &[text(&dir)]);
    lun.forget_mount(&dir);
    lun.verb(&["enable", lun.a.path()]).expect(0);
    let again = lun.verb(&["enable", lun.b.path()]);
    again.expect(0).says("it is protected already");
}

/// The second sector of a physical volume: `struct label_header` of LVM2, whose tools are rarely installed.
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

/// `struct mdp_superblock_1` of a mirror of two, at byte 4096.
/// A member of an md array, whose superblock stands in that sector.
pub(crate) fn md_superblock(sector: u64) -> Vec<u8> {
    let mut bytes = [0; 256 + 4];
    for (at, value) in [(0, 0xA92B_4EFCu32), (4, 1), (72, 1), (92, 2), (220, 2)] {
        bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
    }
    bytes[16..32].copy_from_slice(b"0123456789abcdef");
    bytes[32..38].copy_from_slice(b"host:0");
    for (at, value) in [(80, 65536u64), (128, 2048), (136, 65536), (144, sector), (200, 7)] {
        bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
    }
    let words = bytes.chunks_exact(4).map(|word| u32::from_le_bytes(word.try_into().expect("has four")));
    let sum: u64 = words.map(u64::from).sum();
    let folded = u32::try_from((sum & 0xFFFF_FFFF) + (sum >> 32)).expect("fits");
    bytes[216..220].copy_from_slice(&folded.to_le_bytes());
    bytes.to_vec()
}
