//! `mount.mmp` and `umount.mmp` by hand, without a device: what is wrong with a command line, and that nothing is begun by it.

use std::path::PathBuf;
use std::process::Command;

use crate::support::{MMP, Ran, Scratch, ran};

/// Runs it by that name, with a registry of its own, and without any rung that does harm.
fn called(scratch: &Scratch, name: &str, arguments: &[&str]) -> Ran {
    let link = scratch.file(name);
    if !link.exists() {
        std::os::unix::fs::symlink(MMP, &link).expect("links");
    }
    let mut command = Command::new(link);
    command.args(arguments).env("MMP_RUNTIME_DIR", scratch.file("run"));
    // The helper clears MMP_ON_LOSS: every mount here says it itself, or is refused before.
    ran(&mut command)
}

fn dir(scratch: &Scratch) -> PathBuf {
    let dir = scratch.file("dir");
    std::fs::create_dir_all(&dir).expect("makes a directory");
    dir
}

#[test]
fn mistakes_have_mounts_code() {
    let scratch = Scratch::new();
    let (image, dir) = (scratch.image.display().to_string(), dir(&scratch).display().to_string());
    let before = scratch.bytes();
    let (image, dir) = (image.as_str(), dir.as_str());
    let mount: [(&[&str], &str); 17] = [
        (&[], "required"),
        (&[image], "required"),
        (&[image, dir, "more"], "more"),
        (&[image, dir, "-x"], "-x"),
        (&[image, dir, "-t", "xfs"], "mmp.xfs"),
        (&[image, dir, "-t", "mmp.xfs", "-o", "fstype=ext4"], "contradict"),
        (&[image, dir, "-N", "/proc/1/ns/mnt"], "nsenter"),
        (&[image, dir, "-o", "fstype="], "fstype="),
        (&[image, dir, "-o", "mmp.frobnicate=1"], "mmp.frobnicate: there is no such option"),
        (&[image, dir, "-o", "mmp.wait"], "its value is missing"),
        (&[image, dir, "-o", "mmp.wait=soon"], "'mmp.wait <DURATION>': give a length of time"),
        (&[image, dir, "-o", "mmp.handover=soon"], "mmp.handover"),
        (&[image, dir, "-o", "mmp.on-loss=dm+pray"], "pray"),
        (&[image, dir, "-o", "mmp.on-loss=reboot+dm"], "mmp.on-loss"),
        (&[image, dir, "-o", "mmp.tolerate=30s"], "-o ro"),
        (&[image, dir, "-o", "fstype=noext4"], "one type"),
        (&[image, dir, "-o", "bind"], "guard the filesystem, then bind with mount(8)"),
    ];
    for (arguments, told) in mount {
        let ran = called(&scratch, "mount.mmp", arguments);
        assert_eq!((ran.code, ran.out.as_str()), (Some(1), ""), "{arguments:?}: {ran:?}");
        assert!(ran.err.contains(told), "{arguments:?}: {ran:?}");
    }
    let umount: [&[&str]; 4] = [&[], &[dir, "more"], &[dir, "-N", "/proc/1/ns/mnt"], &[dir, "-x"]];
    for arguments in umount {
        let ran = called(&scratch, "umount.mmp", arguments);
        assert_eq!((ran.code, ran.out.as_str()), (Some(1), ""), "{arguments:?}: {ran:?}");
    }
    assert!(scratch.bytes() == before && !scratch.file("run").exists());
}

#[test]
fn what_cannot_be_mounted_or_unmounted_has_mounts_code_for_that() {
    let scratch = Scratch::new();
    let (image, dir) = (scratch.image.display().to_string(), dir(&scratch).display().to_string());
    let (image, dir) = (image.as_str(), dir.as_str());
    let told = |arguments: &[&str], code: i32, told: &str| {
        let ran = called(&scratch, "mount.mmp", arguments);
        assert_eq!((ran.code, ran.out.as_str()), (Some(code), ""), "{arguments:?}: {ran:?}");
        assert!(ran.err.contains(told), "{arguments:?}: {ran:?}");
    };
    let options = "rw,noatime,_netdev,nofail,noauto,comment=hi,users,x-systemd.mount-timeout=5min,X-mount.mkdir,helper=mmp";
    told(&[image, dir, "-sfnv", "-o", options], 32, "losetup --direct-io=on");
    told(&[image, dir, "-o", options], 32, "losetup --direct-io=on");
    told(&["/dev/nonexistent", dir, "-o", "ro"], 32, "No such file");
    told(&["/dev/nonexistent", dir, "-o", "ro,nofail"], 0, "nofail");
    told(
        &["-v", "-o", "fstype=xfs,mmp.wait=5m", image, dir],
        32,
        "runs mmp mount --wait=5m --types=xfs --options=helper=mmp",
    );
    told(&[image, dir, "-f", "-o", "remount,ro"], 0, "");
    let ran = called(&scratch, "umount.mmp", &[dir, "-v"]);
    assert_eq!(ran.code, Some(32), "{ran:?}");
}

#[test]
fn help_is_no_mistake_and_other_names_are_mmp() {
    let scratch = Scratch::new();
    for name in ["mount.mmp", "umount.mmp"] {
        for flag in ["--help", "-h", "--version"] {
            let ran = called(&scratch, name, &[flag]);
            assert_eq!((ran.code, ran.err.as_str()), (Some(0), ""), "{ran:?}");
            assert!(ran.out.contains(name), "{ran:?}");
        }
    }
    let ran = called(&scratch, "mmp-of-another-name", &["--version"]);
    assert_eq!((ran.code, ran.out.trim()), (Some(0), concat!("mmp ", env!("CARGO_PKG_VERSION"))), "{ran:?}");
}
