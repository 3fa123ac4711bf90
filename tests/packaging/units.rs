//! `packaging/systemd`: what systemd says of the units, and what must stand in them.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use crate::{MMP, have, path, read, said};

const SERVICE: &str = "packaging/systemd/mmpd.service";
const UNITS: [&str; 3] = ["mmpd.service", "mmpd.socket", "mmpd-monitor.socket"];

/// Settings of a unit, comments left out.
fn settings(name: &str) -> Vec<String> {
    read(name)
        .lines()
        .filter(|line| line.contains('=') && !line.starts_with('#'))
        .map(str::to_owned)
        .collect()
}

/// The units as they are installed and enabled, with the program under test; a guarded mount and a service beside them.
fn installed() -> TempDir {
    let root = tempfile::tempdir().expect("makes a directory");
    let write = |name: &str, text: &str| {
        let file = root.path().join(name);
        fs::create_dir_all(file.parent().expect("is below")).expect("makes a directory");
        fs::write(file, text).expect("writes");
    };
    for unit in UNITS {
        write(unit, &read(&format!("packaging/systemd/{unit}")).replace("/usr/bin/mmp ", &format!("{MMP} ")));
    }
    write("srv.mount", "[Mount]\nWhat=/dev/loop77\nWhere=/srv\n");
    write("srv.mount.d/mmp.conf", &read("packaging/systemd/examples/mount.conf"));
    write("user.service", "[Service]\nExecStart=/bin/true\n");
    write("user.service.d/mmp.conf", &read("packaging/systemd/examples/user.conf"));
    let enable = |unit: &str, target: &str| {
        let wants = root.path().join(format!("{target}.wants"));
        fs::create_dir_all(&wants).expect("makes a directory");
        symlink(Path::new("..").join(unit), wants.join(unit)).expect("links");
    };
    enable("mmpd.service", "sysinit.target");
    enable("mmpd.socket", "sockets.target");
    enable("mmpd-monitor.socket", "sockets.target");
    enable("srv.mount", "local-fs.target");
    root
}

/// systemd's own units are read as well, so that a cycle with one of them is found.
#[test]
fn systemd_finds_nothing_wrong() {
    if !have("systemd-analyze") {
        return;
    }
    let root = installed();
    for unit in UNITS.iter().chain(&["srv.mount", "user.service", "multi-user.target"]) {
        let output = Command::new("systemd-analyze")
            .args(["verify", "--man=no", unit])
            .env("SYSTEMD_UNIT_PATH", format!("{}:", root.path().display()))
            .output()
            .expect("starts");
        // Of the whole target only what names us: this system's other units are not ours to judge.
        let wrong: Vec<_> = said(&output)
            .lines()
            .filter(|line| *unit != "multi-user.target" || line.contains("mmpd"))
            .map(str::to_owned)
            .collect();
        assert!(wrong.is_empty(), "{unit}: {wrong:#?}");
    }
}

/// systemctl help shows what `Documentation=` names.
#[test]
fn pages_that_units_name_are_there() {
    let pages = crate::manual::pages();
    for unit in UNITS {
        let settings = settings(&format!("packaging/systemd/{unit}"));
        let named =
            settings.iter().find_map(|line| line.strip_prefix("Documentation=")).expect("names a page");
        for page in named.split_whitespace() {
            let page = page.strip_prefix("man:").and_then(|page| page.strip_suffix(')')).expect("is a page");
            let file = page.replace('(', ".");
            assert!(pages.path().join(&file).exists(), "{unit} names {page}), which there is not");
        }
    }
}

/// Each of them is what keeps guards alive; none may go by an edit that meant something else.
#[test]
fn guards_outlive_the_daemon_and_mounts_do_not_outlive_it() {
    let unit = settings(SERVICE);
    for wanted in [
        "Type=notify",
        "KillMode=process",
        "Restart=always",
        "WatchdogSec=5s",
        "WatchdogSignal=SIGKILL",
        "StartLimitIntervalSec=0",
        "OOMPolicy=continue",
        "IgnoreOnIsolate=yes",
        "DefaultDependencies=no",
        "Wants=local-fs-pre.target remote-fs-pre.target",
        "Before=local-fs-pre.target remote-fs-pre.target",
        "LimitMEMLOCK=infinity",
        "RuntimeDirectory=mmp",
        "RuntimeDirectoryPreserve=yes",
        "Sockets=mmpd.socket mmpd-monitor.socket",
    ] {
        assert!(unit.iter().any(|line| line == wanted), "{SERVICE} lacks {wanted}");
    }
}

/// Whatever gives the unit a mount namespace of its own hides mounts from it, or from the host.
#[test]
fn the_daemon_has_no_namespace_of_its_own() {
    for line in settings(SERVICE) {
        let key = line.split('=').next().unwrap_or_default();
        let starts = ["Protect", "Private", "Bind", "Temporary", "Root", "Mount", "ReadOnly", "ReadWrite"];
        let is = [
            "InaccessiblePaths",
            "ExecPaths",
            "NoExecPaths",
            "DynamicUser",
            "ProcSubset",
            "RestrictRealtime",
        ];
        assert!(
            !starts.iter().any(|start| key.starts_with(start)) && !is.contains(&key),
            "{SERVICE}: {line}"
        );
    }
}

#[test]
fn the_sockets_are_as_the_daemon_expects_them() {
    for (unit, wanted) in [
        (
            "mmpd.socket",
            ["ListenStream=/run/mmp/daemon.sock", "FileDescriptorName=control", "SocketMode=0600"],
        ),
        (
            "mmpd-monitor.socket",
            ["ListenStream=/run/mmp/monitor.sock", "FileDescriptorName=monitor", "SocketMode=0660"],
        ),
    ] {
        let name = format!("packaging/systemd/{unit}");
        let lines = settings(&name);
        for setting in wanted.iter().chain(&["Service=mmpd.service", "IgnoreOnIsolate=yes"]) {
            assert!(lines.iter().any(|line| line == setting), "{name} lacks {setting}");
        }
    }
    assert!(settings("packaging/systemd/mmpd-monitor.socket").contains(&"SocketGroup=mmp".to_owned()));
    assert!(read("packaging/systemd/mmp.sysusers").lines().any(|line| line == "g mmp -"));
    assert!(path("packaging/systemd/examples").is_dir());
}
