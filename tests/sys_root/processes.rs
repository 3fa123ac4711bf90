//! Processes that have the device open, and what the exclusive hold keeps out.

use std::fs::OpenOptions;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::fcntl::{OFlag, open};
use nix::mount::{MsFlags, mount};
use nix::sys::stat::Mode;

use mmpguard::clock;
use mmpguard::sys::{TargetKind, User, claim_unused, kernel_users, survey, users_before_claim};

use crate::host::*;

#[test]
fn a_process_counts_by_how_it_opened_the_device() {
    need!("losetup");
    let image = Image::new(8);
    let device = Loop::over(&image.path);
    for target in [device.target(), image.target()] {
        let loops = match target.kind {
            TargetKind::Block { .. } => vec![],
            TargetKind::File { .. } => vec![User::Loop { device: device.0.clone() }],
        };
        let reader = Process::with_open(&target.canonical, "<");
        assert_eq!(before_claim(&target), loops, "a reader is no danger to a claim");
        assert_eq!(at_release(&target), [loops.clone(), vec![reader.user(false)]].concat());
        let writer = Process::with_open(&target.canonical, "<>");
        assert_eq!(before_claim(&target), [loops.clone(), vec![writer.user(true)]].concat());
        assert_eq!(users_before_claim(&target, &[writer.pid()]).unwrap(), loops);
        drop(reader);
        assert_eq!(at_release(&target), [loops.clone(), vec![writer.user(true)]].concat());
        let ignored = claim_unused(&target, &[writer.pid()]).unwrap();
        assert_eq!(ignored.is_ok(), loops.is_empty());
        drop(ignored);
        drop(writer);
        assert_eq!(at_release(&target), loops);
    }
}

/// A device node of any other name leads to the same device.
#[test]
fn a_process_with_another_node_of_the_device_counts() {
    need!("losetup", "mknod");
    let image = Image::new(8);
    let device = Loop::over(&image.path);
    let TargetKind::Block { major, minor } = device.target().kind else { panic!("a loop is a block device") };
    let node = image.dir.path().join("node");
    run("mknod", &[node.to_str().unwrap(), "b", &major.to_string(), &minor.to_string()]);
    let writer = Process::with_open(&node, "<>");
    assert_eq!(before_claim(&device.target()), [writer.user(true)]);
    std::fs::remove_file(&node).unwrap();
    assert_eq!(at_release(&device.target()), [writer.user(true)]);
}

/// Two loop devices over one file stand for two hosts: what one uses is no use of the other.
#[test]
fn two_loops_over_one_file_are_independent() {
    need!("mkfs.ext4", "losetup");
    let image = Image::new(16);
    let (one, two) = (Loop::over(&image.path), Loop::over(&image.path));
    run("mkfs.ext4", &["-q", &one.0]);
    let mounted = Mounted::new(&one.0, &image);
    let writer = Process::with_open(Path::new(&one.0), "<>");
    assert_eq!(before_claim(&two.target()), []);
    assert_eq!(at_release(&two.target()), []);
    assert_eq!(before_claim(&one.target()), [mount_user(&mounted, "ext4", &one.0), writer.user(true)]);
    let both = [&one, &two].map(|device| User::Loop { device: device.0.clone() });
    let users = before_claim(&image.target());
    assert!(users.len() == 2 && both.iter().all(|user| users.contains(user)), "{users:?}");
}

/// While the hold lives nobody can mount; when it is dropped, everybody can. It does not stop a plain opener, which
/// is why descriptors are searched for as well.
#[test]
fn the_hold_keeps_the_kernel_out() {
    need!("mkfs.ext4", "losetup");
    let image = Image::new(16);
    let device = Loop::over(&image.path);
    run("mkfs.ext4", &["-q", &device.0]);
    let mut hold = claim_unused(&device.target(), &[]).unwrap();
    for _ in 0..20 {
        if hold.is_ok() {
            break; // else udev is still looking at what mkfs wrote
        }
        clock::sleep(Duration::from_millis(100));
        hold = claim_unused(&device.target(), &[]).unwrap();
    }
    let hold = hold.expect("nobody uses it");
    let dir = image.dir.path().join("m");
    std::fs::create_dir(&dir).unwrap();
    let mount = || Command::new("mount").arg(&device.0).arg(&dir).stderr(Stdio::null()).status().unwrap();
    assert!(!mount().success());
    assert_eq!(before_claim(&device.target()), [User::Exclusive]);
    OpenOptions::new().read(true).write(true).open(&device.0).expect("a plain open succeeds beside it");
    drop(hold);
    assert!(mount().success());
    drop(Mounted(dir));
}

/// A process that opened it exclusively cannot be told from one that did not: both it and the claim are reported.
#[test]
fn an_exclusive_opener_is_reported() {
    need!("losetup");
    let image = Image::new(8);
    let device = Loop::over(&image.path);
    let file = OpenOptions::new().read(true).custom_flags(libc::O_EXCL).open(&device.0).unwrap();
    // Its descriptor is to outlive the exec.
    nix::fcntl::fcntl(&file, nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::empty())).unwrap();
    let heir = Process(Command::new("sleep").arg("1000").spawn().unwrap());
    heir.until_it_sleeps();
    drop(file);
    assert_eq!(before_claim(&device.target()), [heir.user(false), User::Exclusive]);
    drop(heir);
    assert_eq!(before_claim(&device.target()), []);
}

/// A survey says whether it saw everything; how long it takes is printed.
#[test]
fn a_survey_says_whether_it_is_complete() {
    need!("losetup");
    let image = Image::new(8);
    let device = Loop::over(&image.path);
    let before = clock::mono();
    let found = survey(&device.target(), &[]).unwrap();
    let took = clock::mono().since(before);
    // Even root may be denied a process, by a security module or one with more capabilities.
    let denied = |path: PathBuf| {
        std::fs::read(path).is_err_and(|error| error.kind() == std::io::ErrorKind::PermissionDenied)
    };
    let pids = std::fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    let pids: Vec<_> = pids.filter(|it| it.file_name().to_string_lossy().parse::<i32>().is_ok()).collect();
    eprintln!("a survey took {took:?} with {} processes", pids.len());
    // Of the first PID namespace; /proc shows only what is below its own.
    let first = std::fs::read_link("/proc/self/ns/pid").unwrap() == Path::new("pid:[4026531836]");
    let complete = first && !pids.iter().any(|pid| denied(pid.path().join("maps")));
    assert_eq!(found.complete, complete);
    if let Ok(hold) = claim_unused(&device.target(), &[]).unwrap() {
        assert_eq!(hold.complete(), complete);
    }
}

/// In a container without the host's sysfs no device is said to be unused. The scan runs in a process with a
/// mount namespace of its own, where an empty directory covers them: this test binary once more.
#[test]
fn without_sysfs_there_is_no_release() {
    need!("losetup", "unshare", "mount");
    const DEVICE: &str = "MMPGUARD_TEST_BARE_DEVICE";
    if let Some(device) = std::env::var_os(DEVICE) {
        let target = mmpguard::sys::Target::of(Path::new(&device)).unwrap();
        for error in [users_before_claim(&target, &[]).unwrap_err(), claim_unused(&target, &[]).unwrap_err()]
        {
            println!("REFUSED {error}");
        }
        println!("KERNEL {:?}", kernel_users(&target));
        return;
    }
    let image = Image::new(8);
    let device = Loop::over(&image.path);
    let this = std::env::current_exe().unwrap();
    let bare = |hide: &str| {
        let script = format!("{hide} && exec \"$0\" --exact --nocapture processes::{NAME}");
        let output = Command::new("unshare")
            .args(["-m", "--propagation", "private", "sh", "-c", &script])
            .arg(&this)
            .env(DEVICE, &device.0)
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{text} {}", String::from_utf8_lossy(&output.stderr));
        text
    };
    const NAME: &str = "without_sysfs_there_is_no_release";
    let text = bare("mount -t tmpfs none /sys");
    assert_eq!(text.matches("REFUSED").count(), 2, "{text}");
    assert_eq!(text.matches("is missing; mount sysfs on /sys").count(), 2, "{text}");
    assert!(text.contains(r#"Unseen { what: "a device that stands on it" }"#), "{text}");
    assert!(text.contains(r#"Unseen { what: "a loop device" }"#), "{text}");
}

/// A process stuck in the kernel must not keep the search: here the filesystem that the backing file lies on is frozen,
/// and a writer hangs in it.
#[test]
fn a_hung_writer_does_not_hang_the_search() {
    need!("mkfs.ext4", "losetup", "fsfreeze", "dd");
    let image = Image::new(64);
    let lower = Loop::over(&image.path);
    run("mkfs.ext4", &["-q", &lower.0]);
    let mounted = Mounted::new(&lower.0, &image);
    let inner = mounted.0.join("inner");
    std::fs::write(&inner, vec![0; 4 << 20]).unwrap();
    let device = Loop::over(&inner);
    struct Thaw<'a>(&'a Path);
    impl Drop for Thaw<'_> {
        fn drop(&mut self) {
            let _ = Command::new("fsfreeze").arg("-u").arg(self.0).status();
        }
    }
    run("fsfreeze", &["-f", mounted.0.to_str().unwrap()]);
    let thaw = Thaw(&mounted.0);
    let of = format!("of={}", device.0);
    let mut writer = Command::new("dd")
        .args(["if=/dev/zero", &of, "bs=4k", "oflag=direct"])
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let pid = i32::try_from(writer.id()).unwrap();
    clock::sleep(Duration::from_millis(500));
    assert!(writer.try_wait().unwrap().is_none(), "the write hangs");
    let before = clock::mono();
    let users = before_claim(&device.target());
    let took = clock::mono().since(before);
    let before = clock::mono();
    let in_kernel = [kernel_users(&device.target()), kernel_users(&lower.target())];
    let took_in_kernel = clock::mono().since(before);
    let expected = [vec![], vec![mount_user(&mounted, "ext4", &lower.0)]];
    drop(thaw);
    let _ = writer.kill();
    let _ = writer.wait();
    assert_eq!(users, [User::Process { pid, command: "dd".to_owned(), writable: true }]);
    assert_eq!(in_kernel, expected);
    eprintln!("the search took {took:?} beside a hung writer, two in the kernel {took_in_kernel:?}");
    assert!(took < Duration::from_secs(3) && took_in_kernel < Duration::from_secs(4), "{took:?}");
}

/// A process with a descriptor on a file server that answers nothing: a FUSE filesystem that nobody serves.
#[test]
fn a_dead_file_server_does_not_hang_the_search() {
    need!("losetup", "stat", "timeout");
    let image = Image::new(8);
    let device = Loop::over(&image.path);
    let dir = image.dir.path().join("dead");
    std::fs::create_dir(&dir).unwrap();
    let Ok(server) = OpenOptions::new().read(true).write(true).open("/dev/fuse") else {
        return skip("there is no /dev/fuse");
    };
    let options = format!("fd={},rootmode=40000,user_id=0,group_id=0", server.as_raw_fd());
    mount(Some("dead"), &dir, Some("fuse"), MsFlags::empty(), Some(options.as_str())).unwrap();
    let mounted = Mounted(dir.clone());
    // Opened by path only, which asks the server nothing, and inherited.
    let descriptor = open(&dir, OFlag::O_PATH, Mode::empty()).unwrap();
    let client = Process(Command::new("sleep").arg("1000").spawn().unwrap());
    client.until_it_sleeps();
    drop(descriptor);
    let held = std::fs::read_dir(format!("/proc/{}/fd", client.pid())).unwrap().filter_map(Result::ok);
    assert!(held.map(|it| std::fs::read_link(it.path()).unwrap()).any(|link| link == dir));
    let plain = Command::new("timeout").args(["-s", "KILL", "1", "stat"]).arg(&dir).output().unwrap();
    assert!(!plain.status.success(), "the server does not answer");

    let before = clock::mono();
    assert_eq!(users_before_claim(&device.target(), &[]).unwrap(), []);
    let took = clock::mono().since(before);
    drop(server); // ends the connection; unmounting asks nobody now
    drop(mounted);
    eprintln!("the search took {took:?} beside a dead file server");
    assert!(took < Duration::from_secs(1), "{took:?}");
}
