//! What is told of the fences of devices that this host has. Prepared here, never climbed: see `tests/fence`.

use std::process::Command;

use mmpguard::sys::fence::{FenceTarget, LadderSpec, RungSpec, Summary, prepare};
use mmpguard::sys::{Target, queueing};

use crate::host::*;

fn summary(target: Target, filesystem: &str, ladder: &str) -> Summary {
    let spec: LadderSpec = ladder.parse().unwrap();
    prepare(&spec, &FenceTarget { target, filesystem: filesystem.to_owned(), spare: Vec::new() }).summary()
}

#[test]
fn a_loop_device_says_why_it_cannot_be_cut_off() {
    need!("losetup");
    let image = Image::new(8);
    let device = Loop::over(&image.path);
    let name = device.name();
    let summary = summary(device.target(), "ext4", "dm,scsi,unbind,shutdown");
    let whys: Vec<_> = summary.rungs.iter().map(|rung| (rung.possible, rung.what.clone())).collect();
    assert_eq!(whys[0], (false, format!("{name} is no device mapper device")));
    assert_eq!(whys[1], (false, format!("{name} is no SCSI device")));
    assert_eq!(whys[2], (false, format!("{name} is neither virtio nor NVMe")));
    assert!(whys[3].0 && !summary.complete && !summary.only_reboot);
    assert_eq!(queueing::check(&device.target(), std::time::Duration::from_secs(11)), []);
}

#[test]
fn a_partition_of_a_loop_device_is_told_by_its_disk() {
    need!("losetup", "addpart", "delpart");
    let image = Image::new(64);
    let device = Loop::over(&image.path);
    if !Command::new("addpart").args([&device.0, "1", "2048", "65536"]).status().unwrap().success() {
        return skip("the kernel makes no partitions on loop devices");
    }
    let partition = Target::of(std::path::Path::new(&format!("{}p1", device.0)));
    let told = partition.map(|partition| summary(partition, "ext4", "scsi,shutdown"));
    assert!(Command::new("delpart").args([&device.0, "1"]).status().unwrap().success());
    let told = told.unwrap();
    assert_eq!(told.rungs[0].what, format!("{} is no SCSI device", device.name()));
    assert!(told.rungs[1].possible);
}

#[test]
fn an_image_file_has_the_reboot_and_a_command_at_most() {
    need!("losetup");
    let image = Image::new(8);
    let summary = summary(image.target(), "ext4", "dm,scsi,unbind,shutdown,exec:/bin/true");
    assert!(
        summary.rungs[..4].iter().all(|rung| !rung.possible && rung.what.contains("image file")),
        "{summary:?}"
    );
    assert_eq!(summary.first_complete, Some(RungSpec::Exec("/bin/true".into())));
}

/// Whatever the root filesystem stands on here, telling about it changes nothing and says one line for each rung.
#[test]
fn every_rung_says_something_about_the_disk_of_this_host() {
    need!("findmnt");
    let root = run("findmnt", &["-n", "-o", "SOURCE", "/"]);
    let Ok(target) = Target::of(std::path::Path::new(root.trim())) else {
        return skip("the root filesystem is on no device");
    };
    let summary = summary(target, "ext4", "dm,scsi,unbind,shutdown,kill");
    assert!(
        summary.rungs.iter().all(|rung| !rung.what.is_empty() && !rung.what.contains('\n')),
        "{summary:?}"
    );
    let kill = summary.rungs.last().unwrap();
    assert!(!kill.possible && kill.what.contains("root filesystem"), "{kill:?}");
}
