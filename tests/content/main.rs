//! What stands on images that real tools made, and where it ends: compared with what the tools themselves say of them. No root is
//! needed but for block devices. A tool that is missing is a skip, said loudly, unless `MMPGUARD_REQUIRE_ROOT=1` says that
//! everything must run.

#[path = "../bodies/mod.rs"]
mod bodies;
mod refused;

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use mmpguard::format::content::{HEAD_BYTES, standing};
use mmpguard::io::Device;
use mmpguard::sys::content::{Found, Standing, filesystems, identify};
use mmpguard::{Error, Kind};
use proptest::prelude::*;
use tempfile::TempDir;

const MIB: u64 = 1 << 20;

fn must_run() -> bool {
    std::env::var_os("MMPGUARD_REQUIRE_ROOT").is_some_and(|value| value == "1")
}

/// Whether all of the tools are here.
fn has(tools: &[&str]) -> bool {
    let path = std::env::var("PATH").unwrap_or_default();
    let here = |tool: &&&str| path.split(':').any(|dir| Path::new(dir).join(tool).exists());
    let Some(missing) = tools.iter().find(|tool| !here(tool)) else { return true };
    assert!(!must_run(), "no {missing} here, and MMPGUARD_REQUIRE_ROOT=1 says that everything must run");
    eprintln!("SKIPPED: no {missing} here");
    false
}

/// Runs a tool and gives what it says; that it succeeds is part of the test.
fn run(tool: &str, args: &[&str], image: &Path) -> String {
    let output = Command::new(tool).args(args).arg(image).env("LC_ALL", "C").output().expect("starts");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{tool} {args:?}: {text}{}", String::from_utf8_lossy(&output.stderr));
    text
}

/// The first value that stands behind `key`.
fn value<'a>(text: &'a str, key: &str) -> &'a str {
    let line = text.lines().find_map(|line| line.trim_start().strip_prefix(key));
    let value = line.unwrap_or_else(|| panic!("no {key} in {text}"));
    value.trim_start_matches([':', '=', ' ', '\t']).trim()
}

fn number(text: &str, key: &str) -> u64 {
    value(text, key).parse().unwrap_or_else(|_| panic!("{key} in {text}"))
}

/// A sparse image.
fn image(bytes: u64) -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("disk.img");
    File::create(&image).unwrap().set_len(bytes).unwrap();
    (dir, image)
}

fn grow(image: &Path, bytes: u64) {
    File::options().write(true).open(image).unwrap().set_len(bytes).unwrap();
}

fn put(image: &Path, at: u64, bytes: &[u8]) {
    File::options().write(true).open(image).unwrap().write_all_at(bytes, at).unwrap();
}

/// The one filesystem on the image, by both ways.
fn one(image: &Path) -> Standing {
    let device = Device::inspect(image).unwrap();
    let found = filesystems(&device).unwrap();
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(identify(&device).unwrap(), Found::Filesystem(found[0].clone()));
    assert!(found[0].end_bytes < device.size_bytes(), "the image is longer");
    found[0].clone()
}

fn unsuitable(image: &Path) -> String {
    match identify(&Device::inspect(image).unwrap()).unwrap() {
        Found::Unsuitable { what, why } => format!("{what}: {why}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn ext_ends_where_dumpe2fs_says() {
    if !has(&["mkfs.ext4", "dumpe2fs", "blkid"]) {
        return;
    }
    for (kind, block, features) in [
        ("ext2", "1024", "none,filetype,sparse_super"),
        ("ext2", "4096", "none,filetype"),
        ("ext3", "2048", "none,has_journal,filetype"),
        ("ext3", "1024", "none,has_journal,filetype,sparse_super,resize_inode"),
        ("ext4", "1024", "^64bit,^metadata_csum"),
        ("ext4", "2048", "64bit,^metadata_csum"),
        ("ext4", "4096", "^64bit,metadata_csum"),
        ("ext4", "4096", "64bit,metadata_csum,metadata_csum_seed,mmp"),
        ("ext4", "1024", "64bit,metadata_csum,bigalloc"),
    ] {
        let (_dir, image) = image(64 * MIB);
        let path = image.to_str().unwrap();
        let args = ["-q", "-F", "-t", kind, "-b", block, "-O", features, "-L", "l\x1bbel", path, "32001k"];
        let made = Command::new("mkfs.ext4").args(args).output().expect("starts");
        assert!(made.status.success(), "{args:?}: {}", String::from_utf8_lossy(&made.stderr));
        let said = run("dumpe2fs", &["-h"], &image);
        let found = one(&image);
        assert_eq!(found.kind, kind, "{features}");
        assert_eq!(found.end_bytes, number(&said, "Block count") * number(&said, "Block size"), "{features}");
        assert!((31 * MIB..33 * MIB).contains(&found.end_bytes));
        assert_eq!(found.uuid_text(), value(&said, "Filesystem UUID"));
        assert_eq!(found.label.to_string(), "l\\x1bbel");
        assert_eq!(found.devices, 1);
    }
}

#[test]
fn a_filesystem_that_grew_ends_later() {
    if !has(&["mkfs.ext4", "resize2fs", "blkid"]) {
        return;
    }
    let (_dir, image) = image(64 * MIB);
    run("mkfs.ext4", &["-q", "-F", "-b", "1024"], &image);
    assert_eq!(filesystems(&Device::inspect(&image).unwrap()).unwrap()[0].end_bytes, 64 * MIB);
    grow(&image, 80 * MIB);
    let before = one(&image).end_bytes;
    let output = Command::new("resize2fs").arg(&image).arg("70M").output().unwrap();
    assert!(output.status.success(), "{output:?}");
    // It cut the image.
    grow(&image, 80 * MIB);
    assert_eq!((before, one(&image).end_bytes), (64 * MIB, 70 * MIB));
}

#[test]
fn xfs_ends_where_xfs_db_says() {
    if !has(&["mkfs.xfs", "xfs_db", "blkid"]) {
        return;
    }
    // Small ones are refused since xfsprogs 5.19, and by then there is a word for it.
    let help = Command::new("mkfs.xfs").arg("--unsupported").output().unwrap();
    let knows = !String::from_utf8_lossy(&help.stderr).contains("unrecognized option");
    for (version, sector, block, size) in [
        ("1", "512", "4096", "20m"),
        ("1", "4096", "4096", "301m"),
        ("1", "512", "1024", "33001k"),
        ("1", "2048", "65536", "320m"),
        ("0", "512", "4096", "20m"),
        ("0", "4096", "4096", "300m"),
        ("0", "512", "512", "40m"),
    ] {
        let (_dir, image) = image(0);
        let name = format!("name={},file,size={size}", image.display());
        let mut command = Command::new("mkfs.xfs");
        command.args(knows.then_some("--unsupported"));
        command.args(["-q", "-m", &format!("crc={version}"), "-s", &format!("size={sector}")]);
        let made = command.args(["-b", &format!("size={block}"), "-L", "a b", "-d", &name]).output().unwrap();
        if !made.status.success() {
            // Version 4 goes: what this mkfs does not make any more, nobody has to read of it.
            assert_eq!(version, "0", "{}", String::from_utf8_lossy(&made.stderr));
            eprintln!("SKIPPED in part: this mkfs.xfs makes no version 4");
            continue;
        }
        let device = Device::inspect(&image).unwrap();
        let whole = filesystems(&device).unwrap()[0].end_bytes;
        assert!(whole <= device.size_bytes());
        grow(&image, 400 * MIB);
        let found = one(&image);
        let db = |args: &[&str]| run("xfs_db", &[&["-r", "-c", "sb 0"], args].concat(), &image);
        let said = db(&["-c", "p dblocks blocksize sectsize uuid"]);
        assert_eq!(
            found.end_bytes,
            number(&said, "dblocks") * number(&said, "blocksize"),
            "{version} {size}"
        );
        assert_eq!(number(&said, "sectsize").to_string(), sector);
        assert_eq!((found.uuid_text().as_str(), found.end_bytes), (value(&said, "uuid"), whole));
        assert_eq!((found.kind, found.label.to_string().as_str()), ("xfs", "a b"));
    }
}

#[test]
fn btrfs_ends_where_dump_super_says() {
    if !has(&["mkfs.btrfs", "btrfs", "blkid"]) {
        return;
    }
    for (checksum, bytes) in
        [("crc32c", 200 * MIB), ("xxhash", 128 * MIB), ("sha256", 130 * MIB), ("blake2", 201 * MIB + 4096)]
    {
        let (_dir, image) = image(300 * MIB);
        run("mkfs.btrfs", &["-q", "-b", &bytes.to_string(), "--csum", checksum, "-L", "a\u{202e}b"], &image);
        grow(&image, 300 * MIB);
        let said = run("btrfs", &["inspect-internal", "dump-super"], &image);
        let found = one(&image);
        assert_eq!(found.end_bytes, number(&said, "dev_item.total_bytes"), "{checksum}");
        assert_eq!(found.uuid_text(), value(&said, "fsid"));
        assert_eq!((found.kind, found.devices), ("btrfs", number(&said, "num_devices")));
        assert_eq!(found.label.to_string(), "a\\u{202e}b");
    }
}

#[test]
fn a_btrfs_of_two_devices_says_so_on_both() {
    if !has(&["mkfs.btrfs", "blkid"]) {
        return;
    }
    let (_dir, first) = image(300 * MIB);
    let (_other_dir, second) = image(400 * MIB);
    run("mkfs.btrfs", &["-q", "-d", "single", "-m", "raid1", first.to_str().unwrap()], &second);
    let at = |image| filesystems(&Device::inspect(image).unwrap()).unwrap().remove(0);
    let (first, second) = (at(&first), at(&second));
    assert_eq!((first.devices, second.devices, first.uuid), (2, 2, second.uuid));
    assert_eq!((first.end_bytes, second.end_bytes), (300 * MIB, 400 * MIB));
}

#[test]
fn an_old_superblock_under_a_new_one_is_seen() {
    if !has(&["mkfs.ext4", "mkfs.btrfs", "blkid"]) {
        return;
    }
    let (_dir, old) = image(250 * MIB);
    run("mkfs.ext4", &["-q", "-F", "-b", "4096"], &old);
    let mut superblock = [0; 1024];
    File::open(&old).unwrap().read_exact_at(&mut superblock, 1024).unwrap();
    let (_dir, image) = image(300 * MIB);
    run("mkfs.btrfs", &["-q", "-b", "200m"], &image);
    grow(&image, 300 * MIB);
    put(&image, 1024, &superblock);
    let found = filesystems(&Device::inspect(&image).unwrap()).unwrap();
    let mut ends: Vec<_> = found.iter().map(|one| (one.kind, one.end_bytes)).collect();
    ends.sort_unstable();
    assert_eq!(ends, [("btrfs", 200 * MIB), ("ext4", 250 * MIB)]);
    let what = unsuitable(&image);
    assert!(what.contains("ext4") && what.contains("btrfs"), "{what}");
}

#[test]
fn a_damaged_superblock_is_an_error_and_nothing_is_written() {
    if !has(&["mkfs.ext4", "mkfs.xfs", "mkfs.btrfs", "blkid"]) {
        return;
    }
    let (_dir, ext) = image(32 * MIB);
    run("mkfs.ext4", &["-q", "-F", "-O", "metadata_csum"], &ext);
    let (_dir, btrfs) = image(200 * MIB);
    run("mkfs.btrfs", &["-q"], &btrfs);
    let (_dir, xfs) = image(0);
    run("mkfs.xfs", &["-q", "-d", "file,size=300m"], &xfs);
    for (image, at, name) in
        [(ext, 1024 + 0x100, "ext2/3/4"), (xfs, 0x90, "XFS"), (btrfs, (64 << 10) + 0x500, "btrfs")]
    {
        let mut byte = [0];
        File::open(&image).unwrap().read_exact_at(&mut byte, at).unwrap();
        put(&image, at, &[!byte[0]]);
        let before = std::fs::metadata(&image).unwrap().modified().unwrap();
        let device = Device::inspect(&image).unwrap();
        for error in [filesystems(&device).unwrap_err(), identify(&device).unwrap_err()] {
            let text = error.to_string();
            assert!(matches!(error, Error::Content { .. }) && error.kind() == Kind::Damaged, "{text}");
            assert!(text.contains(name) && text.contains("checksum") && text.contains("wipefs"), "{text}");
        }
        assert_eq!(std::fs::metadata(&image).unwrap().modified().unwrap(), before);
    }
}

proptest! {
    #[test]
    fn any_bytes_are_read_without_a_panic(
        head in proptest::collection::vec(any::<u8>(), 0..2100),
        choice: u8,
        magic: bool,
    ) {
        let mut bytes = head;
        if magic {
            let (at, magic): (usize, &[u8]) =
                [(0x38, &b"\x53\xEF"[..]), (0, b"XFSB"), (0x40, b"_BHRfS_M")][usize::from(choice) % 3];
            if let Some(to) = bytes.get_mut(at..at + magic.len()) {
                to.copy_from_slice(magic);
            }
        }
        bytes.insert(0, choice);
        bodies::content(&bytes);
    }

    #[test]
    fn any_ends_are_taken_as_they_stand(
        count in 1..=(i64::MAX as u64 >> 12),
        at in proptest::sample::select(vec![0u64, 1, 2]),
    ) {
        // A btrfs with a checksum that is not verified, all of whose fields go together.
        let mut head = vec![0; HEAD_BYTES];
        let total = count.saturating_add(at).saturating_mul(4096).min(i64::MAX as u64);
        for (at, value) in [(0x30, 65536u64), (0x88, 1), (0xD1, total), (0x90, 4096 | 16384 << 32)] {
            head[65536 + at..][..8].copy_from_slice(&value.to_le_bytes());
        }
        head[65536 + 0x40..][..8].copy_from_slice(b"_BHRfS_M");
        head[65536 + 0xC4] = 2;
        let found = standing(&head);
        if total < 65536 + 4096 {
            prop_assert!(found.is_err());
        } else {
            prop_assert_eq!(found.unwrap()[0].end_bytes, total);
        }
    }
}
