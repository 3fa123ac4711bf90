//! Users inside the kernel: filesystems, swap space, loop devices, partitions.

use std::fs::File;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use mmpguard::clock;
use mmpguard::sys::{Target, User, kernel_users};

use crate::host::*;

/// Formats, mounts, and expects the mount to be named before a claim and at a release, and nobody after it.
fn mounted_filesystem(filesystem: &str, mebibytes: u64, options: &[&str]) {
    let image = Image::new(mebibytes);
    let device = Loop::over(&image.path);
    let target = device.target();
    assert_eq!(before_claim(&target), []);
    assert_eq!(at_release(&target), []);
    run(&format!("mkfs.{filesystem}"), &[options, &[&device.0]].concat());
    let mounted = Mounted::new(&device.0, &image);
    let expected = [mount_user(&mounted, filesystem, &device.0)];
    assert_eq!(before_claim(&target), expected);
    assert_eq!(at_release(&target), expected);
    assert_eq!(kernel_users(&target), expected);
    assert_eq!(before_claim(&image.target()), [User::Loop { device: device.0.clone() }]);
    drop(mounted);
    assert_eq!(kernel_users(&target), []);
    assert_eq!(before_claim(&target), []);
    assert_eq!(at_release(&target), []);
}

#[test]
fn a_mounted_ext4_is_named() {
    need!("mkfs.ext4", "losetup");
    mounted_filesystem("ext4", 16, &["-q"]);
}

#[test]
fn a_mounted_xfs_is_named() {
    need!("mkfs.xfs", "losetup");
    mounted_filesystem("xfs", 320, &["-q"]);
}

#[test]
fn a_mounted_btrfs_is_named() {
    need!("mkfs.btrfs", "losetup");
    mounted_filesystem("btrfs", 128, &["-q"]);
}

/// mountinfo names one device of a btrfs; the others are used no less.
#[test]
fn every_device_of_a_btrfs_is_in_use() {
    need!("mkfs.btrfs", "losetup");
    let (one, two) = (Image::new(128), Image::new(128));
    let devices = [Loop::over(&one.path), Loop::over(&two.path)];
    run("mkfs.btrfs", &["-q", &devices[0].0, &devices[1].0]);
    let options = format!("device={},device={}", devices[0].0, devices[1].0);
    let dir = one.dir.path().join("m");
    std::fs::create_dir(&dir).unwrap();
    run("mount", &["-o", &options, &devices[0].0, dir.to_str().unwrap()]);
    let mounted = Mounted(dir);
    for device in &devices {
        let users = before_claim(&device.target());
        assert!(
            matches!(&users[..], [User::Mount { dir, .. }] if *dir == mounted.0.canonicalize().unwrap()),
            "{}: {users:?}",
            device.0
        );
    }
}

/// An XFS's external log stands in the options alone.
#[test]
fn an_external_log_is_in_use() {
    need!("mkfs.xfs", "losetup");
    let (one, two) = (Image::new(320), Image::new(80));
    let (data, log) = (Loop::over(&one.path), Loop::over(&two.path));
    run("mkfs.xfs", &["-q", "-l", &format!("logdev={},size=64m", log.0), &data.0]);
    let dir = one.dir.path().join("m");
    std::fs::create_dir(&dir).unwrap();
    run("mount", &["-o", &format!("logdev={}", log.0), &data.0, dir.to_str().unwrap()]);
    let mounted = Mounted(dir);
    assert_eq!(before_claim(&log.target()), [mount_user(&mounted, "xfs", &data.0)]);
}

#[test]
fn a_lazily_unmounted_filesystem_still_counts() {
    need!("mkfs.ext4", "losetup");
    let image = Image::new(16);
    let device = Loop::over(&image.path);
    run("mkfs.ext4", &["-q", &device.0]);
    let mounted = Mounted::new(&device.0, &image);
    let file = File::create(mounted.0.join("open")).unwrap();
    run("umount", &["-l", mounted.0.to_str().unwrap()]);
    assert_eq!(before_claim(&device.target()), [User::Exclusive]);
    assert_eq!(at_release(&device.target()), [User::Exclusive]);
    drop(file);
    // The kernel ends the filesystem when the last file is closed, a moment later.
    let mut users = before_claim(&device.target());
    for _ in 0..20 {
        if users.is_empty() {
            break;
        }
        users = before_claim(&device.target());
    }
    assert_eq!(users, []);
}

#[test]
fn a_loop_over_a_loop_and_over_a_file_is_found() {
    need!("losetup");
    let image = Image::new(8);
    let lower = Loop::over(&image.path);
    let upper = Loop::over(Path::new(&lower.0));
    let expected = [User::Loop { device: upper.0.clone() }];
    assert_eq!(before_claim(&lower.target()), expected);
    assert_eq!(at_release(&lower.target()), expected);
    assert_eq!(kernel_users(&lower.target()), expected);
    let expected = [User::Loop { device: lower.0.clone() }];
    assert_eq!(before_claim(&image.target()), expected);
    assert_eq!(at_release(&image.target()), expected);
    assert_eq!(kernel_users(&image.target()), expected);
    assert_eq!(before_claim(&upper.target()), []);
}

/// The name that sysfs shows no longer leads to the file; the driver still knows it.
#[test]
fn a_loop_over_a_renamed_or_deleted_file_is_found() {
    need!("losetup");
    let image = Image::new(8);
    let other = image.dir.path().join("hard link");
    std::fs::hard_link(&image.path, &other).unwrap();
    let device = Loop::over(&image.path);
    let expected = [User::Loop { device: device.0.clone() }];
    assert_eq!(before_claim(&Target::of(&other).unwrap()), expected);
    std::fs::remove_file(&image.path).unwrap();
    let shown = std::fs::read_to_string(format!("/sys/block/{}/loop/backing_file", device.name())).unwrap();
    assert!(shown.ends_with(" (deleted)\n"), "{shown}");
    assert_eq!(before_claim(&Target::of(&other).unwrap()), expected);
    // Whatever takes the name now is another file.
    File::create(&image.path).unwrap();
    assert_eq!(before_claim(&image.target()), []);
}

/// The disk that the image file lies on is not what the loop device is over.
#[test]
fn a_loop_over_a_file_is_no_user_of_the_files_disk() {
    need!("mkfs.ext4", "losetup");
    let image = Image::new(32);
    let device = Loop::over(&image.path);
    run("mkfs.ext4", &["-q", &device.0]);
    let mounted = Mounted::new(&device.0, &image);
    let inner = mounted.0.join("inner");
    File::create(&inner).unwrap().set_len(4 << 20).unwrap();
    let upper = Loop::over(&inner);
    assert_eq!(before_claim(&device.target()), [mount_user(&mounted, "ext4", &device.0)]);
    drop(upper);
}

#[test]
fn swap_space_is_named() {
    need!("mkswap", "swapon", "losetup");
    let image = Image::new(8);
    let device = Loop::over(&image.path);
    run("mkswap", &[&device.0]);
    if !Command::new("swapon").arg(&device.0).status().unwrap().success() {
        return skip("swapon is not possible here");
    }
    struct Off<'a>(&'a str);
    impl Drop for Off<'_> {
        fn drop(&mut self) {
            let _ = Command::new("swapoff").arg(self.0).status();
        }
    }
    let off = Off(&device.0);
    assert_eq!(before_claim(&device.target()), [User::Swap]);
    assert_eq!(at_release(&device.target()), [User::Swap]);
    assert_eq!(kernel_users(&device.target()), [User::Swap]);
    drop(off);
    assert_eq!(before_claim(&device.target()), []);
}

/// The mount is gone here, but alive in a namespace of its own.
#[test]
fn a_mount_in_another_namespace_is_named() {
    need!("mkfs.ext4", "losetup", "unshare");
    let image = Image::new(16);
    let device = Loop::over(&image.path);
    run("mkfs.ext4", &["-q", &device.0]);
    let mounted = Mounted::new(&device.0, &image);
    let dir = mounted.0.canonicalize().unwrap();
    let elsewhere = Command::new("unshare")
        .args(["-m", "--propagation", "private", "sleep", "1000"])
        .spawn()
        .map(Process)
        .unwrap();
    elsewhere.until_it_sleeps();
    assert_eq!(before_claim(&device.target()), [mount_user(&mounted, "ext4", &device.0)], "said once");
    assert_eq!(kernel_users(&device.target()), [mount_user(&mounted, "ext4", &device.0)], "said once");
    run("umount", &[mounted.0.to_str().unwrap()]);
    let expected = [User::MountElsewhere { pid: elsewhere.pid(), command: "sleep".to_owned(), dir }];
    assert_eq!(before_claim(&device.target()), expected);
    assert_eq!(at_release(&device.target()), expected);
    assert_eq!(kernel_users(&device.target()), expected);
    drop(elsewhere);
    assert_eq!(at_release(&device.target()), []);
}

/// Partitions made by ioctl (`addpart`): this needs no partition table support in the kernel.
#[test]
fn partitions_and_their_disk_stand_for_each_other() {
    need!("mkfs.ext4", "losetup", "addpart", "delpart");
    let image = Image::new(64);
    let device = Loop::over(&image.path);
    if !Command::new("addpart").args([&device.0, "1", "2048", "65536"]).status().unwrap().success() {
        return skip("the kernel makes no partitions on loop devices");
    }
    struct Gone<'a>(&'a str);
    impl Drop for Gone<'_> {
        fn drop(&mut self) {
            // A detached loop device would keep it.
            for _ in 0..10 {
                if Command::new("delpart").args([self.0, "1"]).status().is_ok_and(|it| it.success()) {
                    return;
                }
                clock::sleep(Duration::from_millis(100));
            }
        }
    }
    let gone = Gone(&device.0);
    let partition = format!("{}p1", device.0);
    let part = Target::of(Path::new(&partition)).unwrap();
    let name = format!("{}p1", device.name());
    let through_part = |user| User::Partition { name: name.clone(), user: Box::new(user) };
    let through_disk = |user| User::WholeDisk { name: device.name().to_owned(), user: Box::new(user) };

    run("mkfs.ext4", &["-q", &partition]);
    let mounted = Mounted::new(&partition, &image);
    let mount = mount_user(&mounted, "ext4", &partition);
    assert_eq!(before_claim(&device.target()), [through_part(mount.clone())]);
    assert_eq!(kernel_users(&device.target()), [through_part(mount.clone())]);
    assert_eq!(before_claim(&part), [mount]);
    drop(mounted);

    let writer = Process::with_open(Path::new(&partition), "<>");
    assert_eq!(before_claim(&device.target()), [through_part(writer.user(true))]);
    drop(writer);

    run("mkfs.ext4", &["-q", "-F", &device.0]);
    let mounted = Mounted::new(&device.0, &image);
    assert_eq!(before_claim(&part), [through_disk(mount_user(&mounted, "ext4", &device.0))]);
    drop(mounted);

    let writer = Process::with_open(Path::new(&device.0), "<>");
    assert_eq!(before_claim(&part), [], "a monitor of the disk is no user of the partition");
    drop(writer);
    assert_eq!(at_release(&part), []);
    drop(gone);
}
