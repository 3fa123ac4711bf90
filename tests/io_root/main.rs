//! The `io` module on real block devices: loop devices, which take root.
//!
//! Two loop devices over one file are two hosts that see one disk.

mod disks;
mod editor;

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Command;

use disks::{LEN, Loop, Mount, at, image, must, ready, scratch};
use mmpguard::Error;
use mmpguard::io::{Arena, BlockFile, BlockStore, Device, DeviceKind, Durability};

/// Names the device for a test that runs itself again as another program.
const CHILD_DEVICE: &str = "MMPGUARD_TEST_DEVICE";

#[test]
fn a_loop_device_is_described() {
    if !ready("a_loop_device_is_described") {
        return;
    }
    for sector in [512, 4096] {
        let (dir, path, bytes) = image();
        let disk = Loop::new(&path, sector, &[]);
        let link = dir.path().join("by-name");
        std::os::unix::fs::symlink(disk.path(), &link).expect("links");
        let device = Device::inspect(&link).expect("inspects");
        assert_eq!((device.path(), device.canonical()), (link.as_path(), disk.path()));
        assert_eq!(
            device.kernel_name(),
            disk.path().file_name().expect("has a name").to_str().expect("UTF-8")
        );
        assert_eq!(device.size_bytes(), LEN as u64);
        assert_eq!(device.sector_bytes(), sector);
        assert!(device.is_direct() && !device.is_read_only());
        device.check_writable().expect("is writable");
        let number = fs::metadata(disk.path()).expect("exists").rdev();
        let (major, minor) = (nix::libc::major(number), nix::libc::minor(number));
        assert_eq!(device.kind(), DeviceKind::Block { major, minor });
        for (offset, len) in [(0, LEN), (1024, 1024), (4095, 2), (LEN - 1, 1)] {
            let mut into = vec![0; len];
            device.read_at(offset as u64, &mut into).expect("reads");
            assert!(into == bytes[offset..offset + len], "{len} bytes at {offset}, sector {sector}");
        }
    }
}

#[test]
fn on_a_device_only_the_struct_changes() {
    if !ready("on_a_device_only_the_struct_changes") {
        return;
    }
    for sector in [512, 4096] {
        let (_dir, path, mut bytes) = image();
        let disk = Loop::new(&path, sector, &[]);
        for shift in 10..=16 {
            let block = 1_u32 << shift;
            if block < sector {
                let error = BlockFile::new(&Device::inspect(disk.path()).expect("inspects"), 8192, block);
                let error = error.map(drop).expect_err("is smaller than a sector");
                assert!(matches!(error, Error::Unsupported { .. }), "{error}");
                continue;
            }
            let offset = 3 * u64::from(block);
            let mut store = disk.store(offset, block);
            assert!(store.is_direct());
            assert_eq!(store.read().expect("reads")[..], bytes[at(offset)..][..1024]);
            store.open_for_writing().expect("opens");
            for (fill, durability) in [(0xAA, Durability::Beat), (0xBB, Durability::Durable)] {
                store.write(&[fill; 1024], durability).expect("writes");
                bytes[at(offset)..][..1024].fill(fill);
                assert!(fs::read(&path).expect("reads") == bytes, "block {block}, sector {sector}");
                assert_eq!(store.read().expect("reads")[..], [fill; 1024]);
            }
            assert_eq!(store.read_superblock().expect("reads")[..], bytes[1024..2048]);
        }
    }
}

#[test]
fn what_another_host_wrote_is_seen_past_a_stale_page_cache() {
    if !ready("what_another_host_wrote_is_seen_past_a_stale_page_cache") {
        return;
    }
    let (_dir, path, _) = image();
    let (here, there) = (Loop::new(&path, 512, &[]), Loop::new(&path, 512, &[]));
    // A descriptor that stays open keeps what it read in this host's page cache.
    let cached = File::open(here.path()).expect("opens");
    let through_cache = || {
        let mut byte = [0];
        cached.read_at(&mut byte, 8192).expect("reads");
        byte[0]
    };
    let old = through_cache();
    let mut theirs = there.store(8192, 4096);
    theirs.read().expect("reads");
    theirs.open_for_writing().expect("opens");
    theirs.write(&[0xEE; 1024], Durability::Durable).expect("writes");

    assert_eq!(here.store(8192, 4096).read().expect("reads")[0], 0xEE, "a look comes from the disk");
    let mut one = [0];
    Device::inspect(here.path()).expect("inspects").read_at(8192, &mut one).expect("reads");
    assert_eq!(one, [0xEE], "so does a span");
    assert_eq!(through_cache(), old, "the cache is stale, or this test proves nothing");
    Device::inspect(here.path()).expect("inspects").drop_cache().expect("drops");
    assert_eq!(through_cache(), 0xEE, "and is dropped");
}

#[test]
fn a_flush_brings_to_the_disk_what_an_open_descriptor_keeps_in_the_cache() {
    if !ready("a_flush_brings_to_the_disk_what_an_open_descriptor_keeps_in_the_cache") {
        return;
    }
    let (_dir, path, bytes) = image();
    let (here, there) = (Loop::new(&path, 512, &[]), Loop::new(&path, 512, &[]));
    let writer = File::options().write(true).open(here.path()).expect("opens");
    writer.write_all_at(&[0xDD; 4096], 16_384).expect("writes");
    let on_disk = || {
        let mut byte = [0];
        Device::inspect(there.path()).expect("inspects").read_at(16_384, &mut byte).expect("reads");
        byte[0]
    };
    assert_eq!(on_disk(), bytes[16_384], "it is in the cache only, or this test proves nothing");
    Device::inspect(here.path()).expect("inspects").flush().expect("flushes");
    assert_eq!(on_disk(), 0xDD);
    // Dropping writes nothing of its own once it is clean.
    theirs_over(&there, 0xCC);
    drop(writer);
    Device::inspect(here.path()).expect("inspects").drop_cache().expect("drops");
    assert_eq!(on_disk(), 0xCC);
}

fn theirs_over(there: &Loop, fill: u8) {
    let mut store = there.store(16_384, 4096);
    store.read().expect("reads");
    store.open_for_writing().expect("opens");
    store.write(&[fill; 1024], Durability::Durable).expect("writes");
}

#[test]
fn a_write_protected_device_is_read_and_refused() {
    if !ready("a_write_protected_device_is_read_and_refused") {
        return;
    }
    let (_dir, path, bytes) = image();
    let disk = Loop::new(&path, 512, &["-r"]);
    let device = Device::inspect(disk.path()).expect("inspects");
    assert!(device.is_read_only());
    assert!(matches!(device.check_writable(), Err(Error::ReadOnly { .. })));
    let mut store = disk.store(4096, 4096);
    assert_eq!(store.read().expect("reads")[..], bytes[4096..5120]);
    assert!(matches!(store.open_for_writing(), Err(Error::ReadOnly { .. })));
    assert!(store.write(&[1; 1024], Durability::Beat).is_err());
    assert!(fs::read(&path).expect("reads") == bytes);
}

#[test]
fn a_device_that_became_write_protected_since_is_refused() {
    if !ready("a_device_that_became_write_protected_since_is_refused") {
        return;
    }
    let (_dir, path, _) = image();
    let disk = Loop::new(&path, 512, &[]);
    let mut store = disk.store(4096, 4096);
    store.read().expect("reads");
    let name = disk.path().to_str().expect("UTF-8");
    must("blockdev", &["--setro", name]);
    let refused = store.open_for_writing();
    // The flag would outlive the loop device's file.
    must("blockdev", &["--setrw", name]);
    assert!(matches!(refused, Err(Error::ReadOnly { .. })));
}

#[test]
fn a_short_device_is_refused_and_one_that_shrank_is_noticed() {
    if !ready("a_short_device_is_refused_and_one_that_shrank_is_noticed") {
        return;
    }
    let (_dir, path, _) = image();
    let disk = Loop::new(&path, 512, &[]);
    let device = Device::inspect(disk.path()).expect("inspects");
    let end = LEN as u64;
    assert!(matches!(BlockFile::new(&device, end - 1024, 4096), Err(Error::Short { .. })));
    assert!(matches!(device.read_at(end - 1, &mut [0; 2]), Err(Error::Short { .. })));
    let mut store = disk.store(end - 4096, 4096);
    store.read().expect("reads");
    File::options().write(true).open(&path).expect("opens").set_len(end - 1024).expect("shrinks");
    must("losetup", &["-c", disk.path().to_str().expect("UTF-8")]);
    assert!(matches!(store.read(), Err(Error::Short { .. })));
}

#[test]
fn another_device_under_the_same_name_is_refused() {
    if !ready("another_device_under_the_same_name_is_refused") {
        return;
    }
    use nix::sys::stat::{Mode, SFlag, mknod};
    let (dir, path, bytes) = image();
    let (one, two) = (Loop::new(&path, 512, &[]), Loop::new(&path, 512, &[]));
    let name = dir.path().join("sdz");
    let make = |disk: &Loop| {
        let number = fs::metadata(disk.path()).expect("exists").rdev();
        mknod(&name, SFlag::S_IFBLK, Mode::S_IRUSR | Mode::S_IWUSR, number).expect("makes a node");
    };
    make(&one);
    let device = Device::inspect(&name).expect("inspects");
    assert_eq!(Some(device.kernel_name().as_str()), one.path().file_name().and_then(|name| name.to_str()));
    let mut store = BlockFile::new(&device, 4096, 4096).expect("fits");
    store.read().expect("reads");
    fs::remove_file(&name).expect("removes");
    make(&two);
    for error in [store.read().map(drop), store.open_for_writing(), device.read_at(0, &mut [0])] {
        let error = error.expect_err("is another device").to_string();
        assert!(error.contains("belongs to another device"), "{error}");
    }
    assert!(fs::read(&path).expect("reads") == bytes);
}

#[test]
fn files_on_a_filesystem_with_large_sectors_and_on_a_read_only_one() {
    if !ready("files_on_a_filesystem_with_large_sectors_and_on_a_read_only_one") {
        return;
    }
    let dir = scratch().expect("makes a directory");
    let (backing, point) = (dir.path().join("fs.img"), dir.path().join("mnt"));
    File::create(&backing).and_then(|file| file.set_len(32 << 20)).expect("makes an image");
    fs::create_dir(&point).expect("makes a directory");
    let disk = Loop::new(&backing, 4096, &[]);
    let (device, point_text) = (disk.path().to_str().expect("UTF-8"), point.to_str().expect("UTF-8"));
    must("mkfs.ext4", &["-q", "-b", "4096", device]);
    must("mount", &[device, point_text]);
    let mount = Mount(point.clone());
    let inner = point.join("inner.img");
    fs::write(&inner, vec![3; LEN]).expect("writes");

    let found = Device::inspect(&inner).expect("inspects");
    if found.is_direct() {
        assert_eq!(found.sector_bytes(), 4096);
    }
    assert_eq!(BlockFile::new(&found, 8192, 4096).expect("fits").is_direct(), found.is_direct());
    let mut small = BlockFile::new(&found, 5120, 1024).expect("a small block goes through the page cache");
    assert!(!small.is_direct());
    small.read().expect("reads");
    small.open_for_writing().expect("opens");
    small.write(&[4; 1024], Durability::Durable).expect("writes");
    let bytes = fs::read(&inner).expect("reads");
    assert!(bytes.iter().enumerate().all(|(at, &byte)| (byte == 4) == (5120..6144).contains(&at)));
    drop(small);

    must("mount", &["-o", "remount,ro", point_text]);
    let found = Device::inspect(&inner).expect("inspects");
    assert!(found.is_read_only());
    assert!(matches!(found.check_writable(), Err(Error::ReadOnly { .. })));
    let mut store = BlockFile::new(&found, 8192, 4096).expect("fits");
    store.read().expect("reads");
    assert!(matches!(store.open_for_writing(), Err(Error::ReadOnly { .. })));
    drop(mount);
}

#[test]
fn looking_opens_nothing_for_writing() {
    if let Some(device) = std::env::var_os(CHILD_DEVICE) {
        let device = Device::inspect(Path::new(&device)).expect("inspects");
        device.check_writable().expect("is writable");
        device.read_at(100, &mut [0; 100]).expect("reads");
        let mut store = BlockFile::new(&device, 4096, 4096).expect("fits");
        for _ in 0..3 {
            store.read().expect("reads");
            store.read_superblock().expect("reads");
        }
        return;
    }
    if !ready("looking_opens_nothing_for_writing") {
        return;
    }
    let (dir, path, _) = image();
    let disk = Loop::new(&path, 512, &[]);
    let trace = dir.path().join("trace");
    let output = Command::new("strace")
        .args(["-f", "-e", "trace=open,openat,openat2", "-o"])
        .arg(&trace)
        .arg(std::env::current_exe().expect("is known"))
        .args(["--exact", "looking_opens_nothing_for_writing"])
        .env(CHILD_DEVICE, disk.path())
        .output()
        .expect("strace runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    let trace = fs::read_to_string(&trace).expect("reads");
    let name = format!("\"{}\"", disk.path().display());
    let opens: Vec<&str> = trace.lines().filter(|line| line.contains(&name)).collect();
    // inspect, read_at, and three times block and superblock.
    assert_eq!(opens.len(), 8, "{trace}");
    assert!(opens.iter().all(|line| line.contains("O_RDONLY") && line.contains("O_CLOEXEC")), "{opens:#?}");
    assert_eq!(opens.iter().filter(|line| line.contains("O_DIRECT")).count(), 7, "{opens:#?}");
}

#[test]
fn without_permission_it_says_so_and_without_locked_memory_it_works() {
    if let Some(device) = std::env::var_os(CHILD_DEVICE) {
        return unprivileged(Path::new(&device));
    }
    if !ready("without_permission_it_says_so_and_without_locked_memory_it_works") {
        return;
    }
    let (dir, path, _) = image();
    let disk = Loop::new(&path, 512, &[]);
    // Nobody must be able to reach the program.
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("sets");
    let program = dir.path().join("program");
    fs::copy(std::env::current_exe().expect("is known"), &program).expect("copies");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("sets");
    fs::write(dir.path().join("readable.img"), vec![1; 65_536]).expect("writes");
    fs::set_permissions(dir.path().join("readable.img"), fs::Permissions::from_mode(0o444)).expect("sets");
    let output = Command::new("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups", "--bounding-set=-all", "--inh-caps=-all"])
        .arg(&program)
        .args(["--exact", "without_permission_it_says_so_and_without_locked_memory_it_works"])
        .env(CHILD_DEVICE, disk.path())
        .current_dir(dir.path())
        .output()
        .expect("setpriv runs");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
}

/// Runs as nobody, beside a `readable.img` that it may not write.
fn unprivileged(device: &Path) {
    use nix::sys::resource::{Resource, setrlimit};
    let error = Device::inspect(device).expect_err("may not be read").to_string();
    assert!(error.contains("cannot open it for reading: Permission denied"), "{error}");
    let image = Device::inspect(Path::new("readable.img")).expect("may be read");
    assert!(!image.is_read_only());
    let mut store = BlockFile::new(&image, 4096, 4096).expect("fits");
    store.read().expect("reads");
    for error in [image.check_writable(), store.open_for_writing()] {
        let error = error.expect_err("may not be written").to_string();
        assert!(error.contains("cannot open it for writing: Permission denied"), "{error}");
    }
    setrlimit(Resource::RLIMIT_MEMLOCK, 0, 0).expect("sets");
    let mut arena = Arena::new(4096).expect("maps all the same");
    assert!(!arena.is_locked());
    arena.bytes_mut()[4095] = 1;
}
