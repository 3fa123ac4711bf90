//! What `show` and `check` report, also of hostile names, and to a reader who does not listen.

use std::process::Command;
use std::time::Duration;

use mmpguard::format::{DeviceName, NodeName};
use mmpguard::{Options, clock};
use serde_json::Value;

use crate::support::{MMP, Scratch, mmp, patch_block, ran};

fn json(verb: &str, scratch: &Scratch) -> Value {
    let ran = mmp([verb.as_ref(), "--json".as_ref(), scratch.image.as_os_str()]);
    let report: Value = serde_json::from_str(&ran.out).expect("is JSON");
    assert_eq!(report["schema"], 1);
    if verb == "check" {
        assert_eq!(report["exit_code"], ran.code.expect("exits"));
    }
    report
}

#[test]
fn a_clean_image_is_shown_and_free() {
    let scratch = Scratch::new();
    let before = scratch.bytes();
    let report = json("show", &scratch);
    assert_eq!(report["state"], "clean");
    assert_eq!((&report["last"]["node"], &report["mmp_block"]), (&"golden".into(), &22.into()));
    assert_eq!(report["last"]["last_update_s"], 1_700_000_000);
    assert_eq!((&report["timing"]["crash_mount_s"], &report["timing"]["wait_s"]), (&22.into(), &11.into()));
    let shown = mmp(["show".as_ref(), scratch.image.as_os_str()]);
    assert_eq!((shown.code, shown.err.as_str()), (Some(0), ""));
    assert!(shown.out.contains("golden") && shown.out.contains("after a crash"), "{shown:?}");

    let report = json("check", &scratch);
    assert_eq!((&report["state"], &report["peer"]["node"]), (&"free".into(), &"golden".into()));
    let checked = mmp(["check".as_ref(), scratch.image.as_os_str()]);
    assert_eq!((checked.code, checked.err.as_str()), (Some(0), ""), "{checked:?}");
    assert!(checked.took < Duration::from_secs(5) && checked.out.contains("free"), "{checked:?}");
    assert!(scratch.bytes() == before);
}

/// A live sequence that stands still: known to be dead after a whole watch, not before.
#[test]
fn a_dead_holder_is_told_apart() {
    let scratch = Scratch::with(|bytes| {
        patch_block(bytes, |block| (block.seq, block.node) = (77, NodeName::new("alpha")));
    });
    let before = scratch.bytes();
    assert_eq!(json("show", &scratch)["state"], "live_or_unclean");
    let start = clock::mono();
    let report = json("check", &scratch);
    let took = clock::mono().since(start);
    assert_eq!((&report["state"], &report["exit_code"]), (&"holder_dead".into(), &8.into()));
    assert_eq!((&report["peer"]["node"], &report["safe_after_s"]), (&"alpha".into(), &23.5.into()));
    assert!(took >= Duration::from_secs(11), "a holder was called dead after {took:?}");
    assert!(scratch.bytes() == before);
}

/// Somebody of this host uses it: said at once, with who.
#[test]
fn a_user_on_this_host_is_named() {
    let scratch = Scratch::new();
    let held = Options::new(&scratch.image).node("alpha").acquire().expect("holds it");
    let checked = mmp(["check".as_ref(), scratch.image.as_os_str()]);
    assert_eq!(checked.code, Some(1), "{checked:?}");
    assert!(checked.took < Duration::from_secs(5), "{checked:?}");
    assert!(checked.out.contains("in use on this host"), "{checked:?}");
    assert!(checked.out.contains(&std::process::id().to_string()), "does not name us: {checked:?}");
    let report = json("check", &scratch);
    assert_eq!(report["state"], "in_use_here");
    assert!(!report["users"].as_array().expect("is a list").is_empty());
    let image = scratch.image.as_os_str();
    let run = mmp(["run".as_ref(), image, "--".as_ref(), "true".as_ref()]);
    assert_eq!(run.code, Some(121), "{run:?}");
    let run = mmp(["run".as_ref(), "-E".as_ref(), "77".as_ref(), image, "--".as_ref(), "true".as_ref()]);
    assert_eq!(run.code, Some(77), "{run:?}");
    assert!(held.is_held());
}

#[test]
fn hostile_names_are_escaped() {
    let mut node = [0xFF_u8; 64];
    node[..12].copy_from_slice(b"\x1b]0;evil\x07\x1b[2");
    let device = DeviceName::from_field(*b"\x1b[31m\r\n'\"\\<\xe2\x80\xae0123456789abcdefgh");
    for seq in [0xFF4D_4D50, 0xE24D_4D50] {
        let scratch = Scratch::with(|bytes| {
            patch_block(bytes, |block| {
                (block.seq, block.node, block.device) = (seq, NodeName::from_field(node), device);
            });
        });
        let image = scratch.image.as_os_str();
        for arguments in [
            vec!["show".as_ref(), image],
            vec!["show".as_ref(), "--json".as_ref(), image],
            vec!["check".as_ref(), image],
            vec!["check".as_ref(), "--json".as_ref(), image],
        ] {
            let ran = mmp(&arguments);
            let said = format!("{}{}", ran.out, ran.err);
            assert!(said.contains("evil"), "{arguments:?}: {ran:?}");
            let harmful = said.chars().find(|&c| (c.is_control() && c != '\n') || c == '\u{202e}');
            assert_eq!(harmful, None, "{arguments:?}: {ran:?}");
            assert!(!said.contains('\u{fffd}'), "bytes were lost: {ran:?}");
        }
        assert_eq!(
            json("show", &scratch)["last"]["node"].as_str().map(|name| name.starts_with("\\x1b]0;evil")),
            Some(true)
        );
    }
}

/// Nobody has to listen: nothing panics, and the exit code still tells.
#[test]
fn closed_outputs_are_borne() {
    let scratch = Scratch::new();
    let damaged = Scratch::with(|bytes| bytes[0] = 1);
    let image = scratch.image.to_str().expect("is UTF-8");
    let gone = damaged.file("gone").display().to_string();
    let cases = [
        (format!("{MMP} show {image} >&-"), 0),
        (format!("{MMP} show --json {image} >&- 2>&-"), 0),
        (format!("{MMP} check {image} >&- 2>&- <&-"), 0),
        (format!("{MMP} show {gone} >&- 2>&-"), 4),
        (format!("{MMP} check {gone} 2>&-"), 4),
        (format!("{MMP} run {gone} -- true >&- 2>&- <&-"), 124),
        (format!("{MMP} --help >&-"), 0),
        (format!("{MMP} frobnicate 2>&-"), 2),
        (format!("{MMP} show {image} >/dev/full"), 4),
    ];
    for (script, code) in cases {
        let ran = ran(Command::new("sh").args(["-c", &script]));
        assert_eq!(ran.code, Some(code), "{script}: {ran:?}");
    }
    for verb in ["show", "show --json", "check", "--help"] {
        let image = if verb == "--help" { "" } else { image };
        let script = format!("({MMP} {verb} {image}; echo \"code $?\" >&2) | head -0");
        let ran = ran(Command::new("sh").args(["-c", &script]));
        assert!(ran.err.trim().ends_with("code 0"), "{script}: {ran:?}");
    }
}
