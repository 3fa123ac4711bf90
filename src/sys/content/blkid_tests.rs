//! blkid(8) is played by shell scripts; `tests/content` asks the real one.

use std::os::unix::fs::PermissionsExt;

use super::*;

/// A blkid that runs `script`, and an image to ask about.
pub(in crate::sys::content) fn stand_in(script: &str) -> (tempfile::TempDir, Blkid, Device) {
    let dir = tempfile::tempdir().unwrap();
    let program = dir.path().join("blkid");
    std::fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    let image = dir.path().join("disk.img");
    std::fs::write(&image, vec![0; 100_000]).unwrap();
    let device = Device::inspect(&image).unwrap();
    (dir, Blkid { programs: vec![program], limit: Duration::from_secs(10) }, device)
}

/// Starts it, again where another test's child still has the script open for writing (ETXTBSY).
fn asked(script: &str) -> Result<Seen, Error> {
    let (_dir, blkid, device) = stand_in(script);
    for _ in 0..50 {
        match blkid.ask(&device) {
            Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::ExecutableFileBusy => {
                clock::sleep(Duration::from_millis(20));
            }
            answer => return answer,
        }
    }
    panic!("the script stays busy");
}

fn refused(script: &str) -> String {
    match asked(script) {
        Err(Error::Unsupported { what, .. }) => what,
        other => panic!("{other:?}"),
    }
}

#[test]
fn one_thing_is_told_with_its_uuid() {
    let found =
        asked("echo ID_FS_LABEL=x; echo ID_FS_UUID=ab-12; echo ID_FS_TYPE=ext4; echo ID_FS_USAGE=filesystem");
    let (kind, usage) = ("ext4".to_owned(), "filesystem".to_owned());
    assert_eq!(found.unwrap(), Seen::One { kind, usage, uuid: Some("ab-12".to_owned()) });
    let found = asked("echo ID_FS_TYPE=swap; echo 'ID_FS_UUID=a b'").unwrap();
    assert_eq!(found, Seen::One { kind: "swap".to_owned(), usage: String::new(), uuid: None });
}

#[test]
fn nothing_is_nothing_only_without_a_complaint() {
    assert_eq!(asked("exit 2").unwrap(), Seen::Nothing);
    assert_eq!(asked("echo ID_PART_ENTRY_SCHEME=gpt; echo ID_PART_ENTRY_NAME=a=b").unwrap(), Seen::Nothing);
    assert!(refused("echo 'blkid: error: /dev/x: No such file' >&2; exit 2").contains("No such file"));
}

#[test]
fn tables_and_several_things_are_told() {
    let table = || "dos".to_owned();
    assert_eq!(asked("echo ID_PART_TABLE_TYPE=dos").unwrap(), Seen::Table { table: table(), beside: None });
    let beside = Some("ext4".to_owned());
    let both = asked("echo ID_FS_TYPE=ext4; echo ID_PART_TABLE_TYPE=dos").unwrap();
    assert_eq!(both, Seen::Table { table: table(), beside });
    let names = ["ext4", "btrfs"].map(ToOwned::to_owned).to_vec();
    let several = asked("echo 'ID_FS_AMBIVALENT=filesystem:ext4:1.0 filesystem:btrfs'; exit 8").unwrap();
    assert_eq!(several, Seen::Several(names));
    assert_eq!(asked("exit 8").unwrap(), Seen::Several(Vec::new()));
}

#[test]
fn what_is_not_understood_is_refused() {
    for script in [
        "echo hello",
        "echo =x",
        "echo 'A B=x'",
        "echo ID_FS_TYPE=",
        "echo 'ID_FS_TYPE=a b'",
        "printf 'ID_FS_TYPE=\\033[2J\\n'",
        "printf 'ID_FS_TYPE=\\377\\n'",
        "echo ID_FS_TYPE=xfs; echo ID_FS_TYPE=ext4",
        "echo 'usage' >&2; exit 4",
        "kill -9 $$",
    ] {
        let what = refused(script);
        assert!(what.starts_with("blkid(8)") && !what.contains('\x1b'), "{script}: {what}");
    }
}

#[test]
fn one_that_hangs_is_ended() {
    for script in ["exec sleep 60", "exec >&- 2>&-; exec sleep 60", "echo ID_FS_TYPE=xfs; exec sleep 60"] {
        let (_dir, mut blkid, device) = stand_in(script);
        blkid.limit = Duration::from_millis(300);
        let before = clock::mono();
        let answer = blkid.ask(&device);
        if matches!(&answer, Err(Error::Io { .. })) {
            continue; // busy: see above
        }
        assert!(matches!(answer, Err(Error::Unsupported { .. })), "{answer:?}");
        assert!(clock::mono().since(before) < Duration::from_secs(10), "{script}");
    }
}

#[test]
fn one_that_does_not_stop_talking_is_ended() {
    let answer =
        asked("while :; do echo A=aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa; done");
    assert!(matches!(answer, Err(Error::Io { .. })), "{answer:?}");
}

#[test]
fn one_that_is_missing_is_named() {
    let (dir, mut blkid, device) = stand_in("exit 2");
    blkid.programs = vec![dir.path().join("none"), dir.path().join("neither")];
    let error = blkid.ask(&device).unwrap_err();
    assert!(error.to_string().contains("install util-linux"), "{error}");
}
