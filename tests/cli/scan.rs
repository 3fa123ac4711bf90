//! `scan` of images and directories: the table, the document, exit codes, hostile names, and what `--follow` says.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use mmpguard::clock;
use mmpguard::format::NodeName;
use serde_json::Value;

use crate::support::{
    MMP, OrdinaryUser, Ran, Scratch, layout, mmp, patch_block, patch_superblock, ran, write_block,
};

fn document(ran: &Ran) -> Vec<Value> {
    let report: Value = serde_json::from_str(&ran.out).unwrap_or_else(|error| panic!("{error}: {ran:?}"));
    assert_eq!(report["schema"], 1);
    report["devices"].as_array().expect("is a list").clone()
}

fn scan(arguments: &[&OsStr]) -> Ran {
    mmp([&["scan".as_ref()], arguments].concat())
}

#[test]
fn a_directory_has_a_row_for_each_image_and_one_for_what_is_none() {
    let scratch = Scratch::new();
    fs::copy(&scratch.image, scratch.file("copy.img")).expect("copies");
    fs::write(scratch.file("junk"), [7; 4096]).expect("writes");
    nix::unistd::mkfifo(&scratch.file("pipe"), nix::sys::stat::Mode::S_IRWXU).expect("makes a fifo");
    let before = scratch.bytes();
    let told = scan(&[scratch.dir().as_os_str()]);
    assert_eq!((told.code, told.err.as_str()), (Some(0), ""), "{told:?}");
    let lines: Vec<Vec<_>> = told.out.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(
        lines[0],
        ["device", "size", "filesystem", "mmp", "state", "last", "named", "age", "interval"]
    );
    let of = |name: &str| {
        let path = scratch.file(name).display().to_string();
        lines.iter().find(|words| words.first() == Some(&path.as_str())).unwrap_or_else(|| panic!("{told:?}"))
    };
    assert_eq!(of("disk.img")[1..8], ["64", "KiB", "ext4", "native", "clean", "golden", "(demo.img)"]);
    assert_eq!(of("disk.img")[10..], ["1", "s"]);
    assert_eq!(of("junk")[1..], ["4", "KiB", "-", "none", "not", "enabled", "-", "-", "-"]);
    assert_eq!(of("pipe")[1..6], ["-", "-", "-", "no", "device"]);
    assert!(told.out.contains("\n  same UUID as ") && told.out.contains("\n  is a fifo"), "{told:?}");
    assert!(scratch.bytes() == before);
}

#[test]
fn the_document_has_one_shape() {
    let scratch = Scratch::with(|bytes| patch_block(bytes, |block| block.seq = 77));
    let told = scan(&["--json".as_ref(), scratch.image.as_os_str()]);
    let devices = document(&told);
    assert_eq!((told.code, devices.len()), (Some(0), 1), "{told:?}");
    let device = &devices[0];
    assert_eq!(device["device"].as_str(), scratch.image.to_str());
    assert_eq!((&device["mmp"], &device["state"]), (&"native".into(), &"live_or_unclean".into()));
    assert_eq!((&device["size_bytes"], &device["interval_ms"]), (&65536.into(), &1000.into()));
    assert_eq!((&device["last"]["node"], &device["last"]["seq"]), (&"golden".into(), &77.into()));
    assert!(device["last"]["age_s"].as_i64().is_some_and(|age| age > 0), "{device}");
    assert!(device["filesystem_uuid"].as_str().is_some_and(|uuid| uuid.len() == 36), "{device}");
    for nothing in ["slot", "generation", "guarded_here", "reason"] {
        assert!(device[nothing].is_null(), "{nothing}: {device}");
    }
    // What has nothing has the same keys.
    let gone = scratch.file("gone");
    let told = scan(&["--json".as_ref(), gone.as_os_str(), scratch.image.as_os_str()]);
    let both = document(&told);
    let keys = |device: &Value| device.as_object().expect("is an object").keys().cloned().collect::<Vec<_>>();
    assert_eq!((told.code, both.len()), (Some(4), 2), "{told:?}");
    assert_eq!((keys(&both[0]), &both[0]["state"]), (keys(device), &"unreadable".into()));
    assert!(both[0]["reason"].as_str().is_some_and(|why| why.contains("No such file")), "{told:?}");
}

/// The same words as `mmp show`, of the same images.
#[test]
fn states_are_those_of_show() {
    let bare = layout().superblock.feature_incompat & !0x0100;
    for (state, scratch) in [
        ("clean", Scratch::new()),
        ("live_or_unclean", Scratch::with(|bytes| patch_block(bytes, |block| block.seq = 5))),
        ("fsck", Scratch::with(|bytes| patch_block(bytes, |block| block.seq = 0xE24D_4D50))),
        ("damaged", Scratch::with(|bytes| bytes[layout().at] ^= 1)),
        ("not_enabled", Scratch::with(|bytes| patch_superblock(bytes, 0x60, &bare.to_le_bytes()))),
    ] {
        let shown = mmp(["show".as_ref(), "--json".as_ref(), scratch.image.as_os_str()]);
        let shown: Value = serde_json::from_str(&shown.out).expect("is JSON");
        let scanned = scan(&["--json".as_ref(), scratch.image.as_os_str()]);
        assert_eq!((&document(&scanned)[0]["state"], &shown["state"]), (&state.into(), &state.into()));
        assert_eq!(scanned.code, Some(0), "it was looked at: {scanned:?}");
    }
}

#[test]
fn slots_of_an_area_can_be_named_as_they_are_shown() {
    let scratch = Scratch::new();
    let area = scratch.file("control.area");
    let area_text = area.to_str().expect("is UTF-8");
    let made = mmp(["area", "create", "--slots", "3", "--quiet", area_text]);
    assert_eq!(made.code, Some(0), "{made:?}");
    let devices = document(&scan(&["--json".as_ref(), area.as_os_str()]));
    assert_eq!(devices.len(), 1, "no slot is used: {devices:?}");
    assert_eq!((&devices[0]["mmp"], &devices[0]["state"]), (&"area".into(), &"usable".into()));
    assert_eq!(devices[0]["notes"][0], "0 of 3 slots used");
}

#[test]
fn hostile_names_are_escaped() {
    let mut node = [0xFF_u8; 64];
    node[..12].copy_from_slice(b"\x1b]0;evil\x07\x1b[2");
    let scratch = Scratch::with(|bytes| {
        patch_superblock(bytes, 0x78, b"\x1b[2Jlabel\n");
        patch_block(bytes, |block| block.node = NodeName::from_field(node));
    });
    let named = scratch.dir().join(OsStr::from_bytes(b"\x1b[31m\n\xff.img"));
    fs::copy(&scratch.image, &named).expect("copies");
    fs::write(scratch.dir().join(OsStr::from_bytes(b"\xe2\x80\xaeshort")), b"x").expect("writes");
    for json in [&[][..], &["--json".as_ref()]] {
        let told = scan(&[json, &[scratch.dir().as_os_str()]].concat());
        assert_eq!((told.code, told.err.as_str()), (Some(0), ""), "{told:?}");
        assert!(told.out.contains("evil") && told.out.contains("x1b[31m"), "{told:?}");
        let harmful = told.out.chars().find(|&c| (c.is_control() && c != '\n') || c == '\u{202e}');
        assert_eq!(harmful, None, "{told:?}");
    }
    let told = scan(&[named.as_os_str(), scratch.file("\u{1b}[2Jgone").as_os_str()]);
    assert!(told.code == Some(4) && !told.out.contains('\u{1b}') && !told.err.contains('\u{1b}'), "{told:?}");
}

#[test]
fn what_may_not_be_read_has_a_row() {
    let scratch = Scratch::new();
    let user = OrdinaryUser::new();
    fs::set_permissions(&scratch.image, std::os::unix::fs::PermissionsExt::from_mode(0o600)).expect("sets");
    if !nix::unistd::geteuid().is_root() {
        fs::set_permissions(&scratch.image, std::os::unix::fs::PermissionsExt::from_mode(0o000))
            .expect("sets");
    }
    let told = ran(user.mmp().args(["scan", "--json"]).arg(&scratch.image));
    let device = &document(&told)[0];
    assert_eq!((told.code, &device["state"]), (Some(4), &"unreadable".into()), "{told:?}");
    assert!(device["reason"].as_str().is_some_and(|why| why.contains("Permission denied")), "{told:?}");
    let inside = ran(user.mmp().arg("scan").arg(scratch.dir()));
    assert_eq!(inside.code, Some(0), "it was not named: {inside:?}");
}

#[test]
fn a_host_is_scanned_without_a_path() {
    let told = mmp(["scan", "--json"]);
    let devices = document(&told);
    assert_eq!((told.code, told.err.as_str()), (Some(0), ""), "{told:?}");
    let has_ram = devices
        .iter()
        .filter_map(|device| device["device"].as_str())
        .any(|name| name.starts_with("/dev/ram"));
    assert!(!has_ram, "{told:?}");
}

#[test]
fn mistakes_are_usage_errors() {
    for arguments in
        [&["--interval", "2s"][..], &["--timeout", "0"], &["--timeout", "soon"], &["--frobnicate"]]
    {
        let told = mmp([&["scan"], arguments].concat());
        assert_eq!((told.code, told.out.as_str()), (Some(2), ""), "{arguments:?}: {told:?}");
    }
}

#[test]
fn closed_outputs_are_borne() {
    let scratch = Scratch::new();
    let dir = scratch.dir().display().to_string();
    for (script, code) in [
        (format!("{MMP} scan {dir} >&-"), 0),
        (format!("{MMP} scan --json {dir} >&- 2>&- <&-"), 0),
        (format!("{MMP} scan {dir}/gone 2>&-"), 4),
        (format!("{MMP} scan {dir} >/dev/full"), 4),
    ] {
        let told = ran(Command::new("sh").args(["-c", &script]));
        assert_eq!(told.code, Some(code), "{script}: {told:?}");
    }
    for more in ["", "--json", "--follow", "--follow --json"] {
        let script = format!("({MMP} scan {more} --timeout 9s {dir}; echo \"code $?\" >&2) | head -1");
        let change = format!("({script}) & sleep 1; rm {dir}/disk.img; wait");
        let told = ran(Command::new("sh").args(["-c", &change]));
        assert!(told.err.trim().ends_with("code 0"), "{script}: {told:?}");
        fs::copy(Path::new(env!("CARGO_MANIFEST_DIR")).join("testimages/demo.img"), &scratch.image)
            .expect("copies");
    }
}

/// What follows in the file, line by line.
struct Followed {
    out: std::path::PathBuf,
    child: std::process::Child,
}

impl Followed {
    fn start(scratch: &Scratch, json: bool) -> Self {
        let out = scratch.file("followed");
        let into = fs::File::create(&out).expect("makes it");
        let mut command = Command::new(MMP);
        command.args(["scan", "--follow", "--interval", "50ms"]).arg(&scratch.image).stdin(Stdio::null());
        command.args(json.then_some("--json")).stdout(into).stderr(Stdio::null());
        Followed { out, child: command.spawn().expect("starts") }
    }

    fn until(&self, what: &str) -> String {
        let until = clock::mono() + Duration::from_secs(30);
        loop {
            let text = fs::read_to_string(&self.out).expect("reads");
            if text.contains(what) && text.ends_with('\n') {
                return text;
            }
            assert!(clock::mono() < until, "no {what:?}: {text}");
            clock::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Followed {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_follower_tells_what_changes() {
    let scratch = Scratch::new();
    let followed = Followed::start(&scratch, false);
    let table = followed.until("golden");
    assert!(table.starts_with("device ") && table.contains(" clean "), "{table}");
    let mut block = scratch.block();
    (block.seq, block.node) = (41, NodeName::new("beta"));
    write_block(&scratch.image, &block);
    // A claim alone is no beat.
    followed.until(": clean -> live or unclean; beta (demo.img)\n");
    for seq in 42..44 {
        block.seq = seq;
        write_block(&scratch.image, &block);
        followed.until(": live or unclean -> live; beta (demo.img)\n");
    }
    // He may beat every 2.5 s.
    followed.until(": live -> live or unclean; beta (demo.img)\n");
    fs::rename(&scratch.image, scratch.file("away")).expect("renames");
    followed.until(": live or unclean -> unreadable; cannot find it: No such file");
    fs::rename(scratch.file("away"), &scratch.image).expect("renames");
    let text = followed.until(": unreadable -> live or unclean; beta (demo.img)\n");
    assert_eq!(
        text.lines().filter(|line| line.contains(" -> ")).count(),
        5,
        "a beat alone is no line: {text}"
    );
}

#[test]
fn a_follower_tells_in_json_line_by_line_and_its_other_process_dies_with_it() {
    let scratch = Scratch::new();
    let mut followed = Followed::start(&scratch, true);
    followed.until("\"found\"");
    fs::remove_file(&scratch.image).expect("removes");
    let text = followed.until("unreadable");
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).expect("is JSON")).collect();
    let told: Vec<_> =
        lines.iter().map(|line| (&line["change"], &line["was"], &line["device"]["state"])).collect();
    assert_eq!(told[0], (&"found".into(), &Value::Null, &"clean".into()));
    assert_eq!(told[1], (&"changed".into(), &"clean".into(), &"unreadable".into()));
    assert!(lines.iter().all(|line| line["schema"] == 1 && line["at"].is_string()), "{text}");
    let pid = followed.child.id();
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).expect("reads");
    let child = children.trim().to_owned();
    assert!(
        fs::read_to_string(format!("/proc/{child}/comm")).is_ok_and(|comm| comm == "mmp-scan\n"),
        "{children}"
    );
    followed.child.kill().expect("is a child");
    followed.child.wait().expect("is a child");
    let until = clock::mono() + Duration::from_secs(10);
    let is_alive = || {
        let stat = fs::read_to_string(format!("/proc/{child}/stat")).unwrap_or_default();
        stat.contains("(mmp-scan)") && !stat.contains("(mmp-scan) Z")
    };
    while is_alive() {
        assert!(clock::mono() < until, "it goes on alone");
        clock::sleep(Duration::from_millis(10));
    }
}
