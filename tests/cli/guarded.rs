//! `mount`, `umount`, `remount`, `adopt` and `status`, as far as they go without a device: arguments, and what is refused
//! before anything is begun. Every ladder here is harmless, and nothing is ever mounted.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::support::{MMP, OrdinaryUser, Ran, Scratch, is_root, ran};

/// Runs it with a registry of its own, and without any rung that does harm.
fn mmp(scratch: &Scratch, arguments: &[&str]) -> Ran {
    ran(command(scratch, arguments).env("MMP_ON_LOSS", "shutdown"))
}

fn command(scratch: &Scratch, arguments: &[&str]) -> Command {
    let mut command = Command::new(MMP);
    command.args(arguments).env("MMP_RUNTIME_DIR", scratch.file("run"));
    command
}

fn dir(scratch: &Scratch) -> String {
    let dir = scratch.file("dir");
    std::fs::create_dir_all(&dir).expect("makes a directory");
    dir.to_str().expect("is UTF-8").to_owned()
}

fn text(path: &Path) -> &str {
    path.to_str().expect("is UTF-8")
}

#[test]
fn mistakes_are_usage_errors() {
    let scratch = Scratch::new();
    let (image, dir) = (text(&scratch.image), dir(&scratch));
    let before = scratch.bytes();
    let long = "x".repeat(65);
    let mistakes: [&[&str]; 21] = [
        &["mount"],
        &["mount", image],
        &["mount", image, &dir, "more"],
        &["mount", "--handover", "soon", image, &dir],
        &["mount", "--wait", "soon", image, &dir],
        &["mount", "--wait", "0", image, &dir],
        &["mount", "--fenced", "", image, &dir],
        &["mount", "--fenced", &long, image, &dir],
        &["mount", "--tolerate", "30s", image, &dir],
        &["mount", "--on-loss", "pray", image, &dir],
        &["mount", "--on-loss", "reboot,dm", image, &dir],
        &["mount", "--on-loss", "exec:relative", image, &dir],
        &["mount", "-r", "-o", "noatime,rw", image, &dir],
        &["mount", "-t", "noext4", image, &dir],
        &["umount"],
        &["umount", "--wait", "never", &dir],
        &["remount"],
        &["remount", "-o", "rw", &dir, "more"],
        &["adopt"],
        &["adopt", "--handover", "clean", image],
        &["status", "--frobnicate"],
    ];
    for arguments in mistakes {
        let ran = mmp(&scratch, arguments);
        assert_eq!((ran.code, ran.out.as_str()), (Some(2), ""), "{arguments:?}: {ran:?}");
        assert!(!ran.err.is_empty());
    }
    assert!(scratch.bytes() == before && !scratch.file("run").exists());
}

#[test]
fn options_that_make_something_else_of_a_mount_are_refused_with_advice() {
    let scratch = Scratch::new();
    let (image, dir) = (text(&scratch.image), dir(&scratch));
    for (option, advice) in [
        ("remount", "mmp remount"),
        ("remount,rw", "mmp remount"),
        ("noatime,bind", "guard the filesystem, then bind with mount(8)"),
        ("rbind", "guard the filesystem, then bind with mount(8)"),
        ("move", "use mount(8)"),
        ("loop", "losetup(8)"),
        ("loop=/dev/loop7", "losetup(8)"),
        ("offset=1048576", "losetup(8)"),
        ("sizelimit=1", "losetup(8)"),
        ("shared", "once it is mounted"),
        ("rprivate", "once it is mounted"),
    ] {
        let ran = mmp(&scratch, &["mount", "-o", option, image, &dir]);
        assert_eq!(ran.code, Some(2), "{option}: {ran:?}");
        let told = ran.err.contains("not with a guarded mount") && ran.err.contains(advice);
        assert!(told, "{option}: {ran:?}");
    }
}

#[test]
fn what_cannot_be_mounted_guarded_is_refused() {
    let scratch = Scratch::new();
    let (image, dir) = (text(&scratch.image), dir(&scratch));
    let before = scratch.bytes();
    let told = |arguments: &[&str], code: i32, told: &str| {
        let ran = mmp(&scratch, arguments);
        assert_eq!((ran.code, ran.out.as_str()), (Some(code), ""), "{arguments:?}: {ran:?}");
        assert!(ran.err.contains(told), "{arguments:?}: {ran:?}");
    };
    told(&["mount", image, &dir], 7, "losetup --direct-io=on");
    told(&["mount", "-r", image, &dir], 7, "losetup --direct-io=on");
    told(&["adopt", image], 7, "losetup --direct-io=on");
    told(&["mount", "/dev/nonexistent", &dir], 4, "No such file");
    told(&["adopt", "/dev/nonexistent"], 4, "No such file");
    told(&["mount", "/dev/null", &dir], 2, "character device");
    told(&["mount", &dir, &dir], 2, "directory");
    told(&["mount", image, "/nowhere/at/all"], 4, "No such file");
    told(&["mount", image, image], 4, "not a directory");
    told(&["umount", &dir], 4, "");
    assert_ne!(mmp(&scratch, &["remount", "-o", "noatime", &dir]).code, Some(0));
    assert!(scratch.bytes() == before, "a refusal wrote something");
}

#[test]
fn the_configuration_file_is_read_whole_or_refused() {
    let scratch = Scratch::new();
    let (image, dir, file) = (text(&scratch.image), dir(&scratch), scratch.file("mmp.toml"));
    let told = |content: Option<&str>| {
        match content {
            Some(content) => std::fs::write(&file, content).expect("writes"),
            None => std::fs::remove_file(&file).expect("is there"),
        }
        let mut command = command(&scratch, &["mount", image, &dir]);
        // The helper clears it: it is for those who do not ask for one.
        let output = command.env("MMP_CONFIG", &file).env("MMP_ON_LOSS", "shutdown").output().expect("runs");
        (output.status.code(), String::from_utf8(output.stderr).expect("is UTF-8"))
    };
    for bad in ["[mount]\nhand_over = \"clean\"\n", "[mount]\nhandover = \"x\"\n", "[mounts]\n", "x"] {
        let (code, err) = told(Some(bad));
        assert!(code == Some(2) && err.contains("mmp.toml") && err.contains("line"), "{bad}: {err}");
    }
    let (code, err) = told(Some("[mount]\nhandover = \"clean\"\non_loss = \"shutdown\"\n"));
    assert!(code == Some(7) && err.contains("image file"), "{err}");
    let (code, err) = told(None);
    assert!(code == Some(4) && err.contains("mmp.toml"), "one that was asked for must be there: {err}");
}

#[test]
fn status_of_a_host_that_guards_nothing() {
    let scratch = Scratch::new();
    let told = mmp(&scratch, &["status"]);
    assert_eq!((told.code, told.err.as_str()), (Some(0), ""), "{told:?}");
    assert_eq!(told.out, "nothing is guarded on this host\n");
    let told = mmp(&scratch, &["status", "--json"]);
    let report: Value = serde_json::from_str(&told.out).expect("is JSON");
    assert_eq!(told.code, Some(0), "{told:?}");
    assert_eq!(report, serde_json::json!({"schema": 1, "guards": []}));
    assert!(!scratch.file("run").exists(), "asking makes no directory");
    let told = mmp(&scratch, &["status", "--json", text(&scratch.image)]);
    assert_eq!(told.code, Some(7), "{told:?}");
    assert!(told.err.contains("not everything asked for is guarded"), "{told:?}");
    assert_eq!(serde_json::from_str::<Value>(&told.out).expect("is JSON")["guards"], serde_json::json!([]));
}

/// A record of another boot says nothing, and neither does a file that is none.
#[test]
fn status_believes_only_records_of_this_boot() {
    let scratch = Scratch::new();
    let run = scratch.file("run");
    std::fs::create_dir(&run).expect("makes it");
    let record = record(&mmpguard::registry::boot_id());
    let write = |record: &Value| std::fs::write(run.join("7-4000.json"), record.to_string()).expect("writes");
    std::fs::write(run.join("7-4001.json"), "{").expect("writes");
    write(&record);
    let told = mmp(&scratch, &["status", "--json"]);
    let report: Value = serde_json::from_str(&told.out).expect("is JSON");
    assert_eq!(told.code, Some(5), "{told:?}");
    let guard = &report["guards"][0];
    assert_eq!((&guard["state"], &guard["device"]), (&"lost".into(), &"/dev/loop4000".into()), "{report}");
    assert_eq!(guard["lost"]["reason"], "the lease ran out", "{report}");
    let text = mmp(&scratch, &["status"]);
    assert!(text.out.contains("LOST") && text.out.contains("\\x1b"), "{text:?}");
    assert!(!text.out.contains('\x1b'), "{text:?}");
    // By the directory's name, which is not looked into.
    let told = mmp(&scratch, &["umount", "/mnt/gone"]);
    assert_eq!(told.code, Some(5), "{told:?}");
    assert!(told.err.contains("not unmounted") && told.err.contains("reboot -ff -n"), "{told:?}");

    write(&self::record("another-boot"));
    let told = mmp(&scratch, &["status"]);
    assert_eq!((told.code, told.out.as_str()), (Some(0), "nothing is guarded on this host\n"), "{told:?}");
}

pub(crate) fn record(boot_id: &str) -> Value {
    serde_json::json!({
        "schema": 1, "boot_id": boot_id, "device": "/dev/loop4000", "major": 7, "minor": 4000,
        "dir": "/mnt/gone", "filesystem": "ext4", "phase": "lost", "mode": "over", "read_only": false,
        "node": "alpha", "block_device": "loop4000", "on_loss": "shutdown", "incomplete_fence": true,
        "driver_pid": 0, "keeper_pid": 0, "written_ns": 1, "since_s": 1, "lease_end_ns": null,
        "last_beat_ns": 1, "beats": 1, "worst_lateness_ns": 0, "kernel_counted": null, "bridged": 0,
        "notes": ["a \u{1b}[2J note"],
        "lost": {"reason": "the lease ran out", "at_s": 1, "fence": {
            "done": false, "incomplete": true, "by": null, "in_flight": null, "took_ms": 1, "rungs": []
        }}
    })
}

#[test]
fn an_ordinary_user_is_told_what_it_takes() {
    if !is_root("the device that an ordinary user is refused") {
        return;
    }
    let (scratch, user) = (Scratch::new(), OrdinaryUser::new());
    let dir = dir(&scratch);
    // No device is opened for this: any block device will do.
    let Some(device) = block_device() else { return };
    for arguments in [&["mount", &device, &dir][..], &["mount", "-r", &device, &dir], &["adopt", &device]] {
        let told = ran(user.mmp().args(arguments).env("MMP_RUNTIME_DIR", scratch.file("run")));
        assert_eq!(told.code, Some(7), "{arguments:?}: {told:?}");
        assert!(told.err.contains("CAP_SYS_ADMIN; run as root"), "{arguments:?}: {told:?}");
    }
    let told = ran(user.mmp().arg("status").env("MMP_RUNTIME_DIR", scratch.file("run")));
    assert_eq!(told.code, Some(0), "{told:?}");
}

fn block_device() -> Option<String> {
    use std::os::unix::fs::FileTypeExt as _;
    let entries = std::fs::read_dir("/dev").ok()?.flatten();
    let mut devices = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_block_device()));
    devices.next().map(|entry| entry.path().display().to_string())
}
