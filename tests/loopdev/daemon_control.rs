//! What the daemon is asked for: by `mmp mount`, by root, by whoever may only look, and by whoever talks nonsense.

use mmpguard::clock;
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::Case;
use crate::guard_support::{
    becomes, guards, is_mounted, mount, mounted, mounted_clean, nothing_is_left, refuses_others, status_of,
};
use crate::harness::daemon::{Daemon, reply, say};
use crate::harness::lun::{Lun, forget_other_mounts, must, text};
use crate::harness::process::Process;
use crate::harness::started::patiently;
use crate::harness::{at_most, observed, seconds};

pub(crate) const CASES: &[Case] = &[
    ("daemon_1_a_mount_is_guarded_by_a_thread_of_it_and_released", life),
    ("daemon_1_a_read_only_mount_is_beaten_by_it_and_remounted_through_it", remounts),
    ("daemon_1_whoever_changes_his_mind_leaves_nothing_mounted", withdrawn),
    ("daemon_1_refusals_come_with_their_exit_codes", refusals),
    ("daemon_1_nonsense_gets_an_error_and_ends_nothing", nonsense),
    ("daemon_1_the_monitoring_socket_changes_nothing", monitoring),
    ("daemon_1_another_namespace_and_a_mount_unit", namespaces),
    ("daemon_2_a_second_instance_is_refused", second),
];

/// The processes of a guard that the daemon has: its keeper alone.
fn keepers(lun: &Lun) -> Vec<Process> {
    guards(lun).into_iter().filter(|process| process.comm == "mmp-keeper").collect()
}

fn life() {
    let lun = Lun::new();
    let mut daemon = Daemon::of(&lun);
    let dir = mounted(&lun, &lun.a, &[]);
    let told = status_of(&lun, &lun.a);
    assert_eq!(told["driver_pid"], daemon.process().pid, "{told}");
    assert_eq!(
        (told["state"].as_str(), told["mode"].as_str()),
        (Some("guarding"), Some("watching")),
        "{told}"
    );
    assert_eq!(keepers(&lun).len(), 1);
    assert!(guards(&lun).iter().all(|process| process.comm != "mmp-driver"), "{:?}", guards(&lun));
    let refused = refuses_others(&lun);
    at_most("daemon 1", "the refusal of another host", refused.took, 1.4);

    let list = daemon.call("daemon.sock", "List", &json!({}));
    assert_eq!(list["parameters"]["guards"][0]["device"], lun.a.path(), "{list}");
    must("umount", &[text(&dir)]);
    let unmounted = clock::mono();
    let gone = patiently(seconds(20), || status_of(&lun, &lun.a).is_null().then(clock::mono));
    at_most("daemon 1", "from a plain umount to no guard", gone.expect("ends").since(unmounted), 2.0);
    assert!(patiently(seconds(5), || keepers(&lun).is_empty().then_some(())).is_some());
    assert!(!daemon.has_ended(), "{}", daemon.said());
    // And again: nothing is left that would be in the way.
    let dir = mounted_clean(&lun, &lun.a);
    lun.mmp(&["umount", text(&dir)]).end(seconds(20)).expect(0).says("released");
    lun.forget_mount(&dir);
    daemon.stop().expect(0);
    nothing_is_left(&lun);
}

fn remounts() {
    let lun = Lun::new();
    let daemon = Daemon::of(&lun);
    let dir = mounted(&lun, &lun.a, &["-r"]);
    let told = status_of(&lun, &lun.a);
    assert_eq!(
        (told["driver_pid"].as_i64(), told["mode"].as_str()),
        (Some(daemon.process().pid.into()), Some("beating"))
    );
    lun.mmp(&["remount", "-o", "rw", text(&dir)]).end(seconds(60)).expect(0);
    becomes(&lun, &lun.a, "mode", "watching", seconds(20));
    std::fs::write(dir.join("file"), "x").expect("is writable");
    unmount_gently(&lun, &dir);
    daemon.stop().expect(0);
}

fn unmount_gently(lun: &Lun, dir: &std::path::Path) {
    lun.mmp(&["umount", text(dir)]).end(seconds(30)).expect(0);
    lun.forget_mount(dir);
}

fn withdrawn() {
    let lun = Lun::new();
    let daemon = Daemon::of(&lun);
    for signal in [Signal::SIGINT, Signal::SIGKILL] {
        let (mut mounting, to) = mount(&lun, &lun.a, &["--handover", "clean"]);
        mounting.says("claimed; watching", seconds(20));
        mounting.process().signal(signal);
        let ended = mounting.end(seconds(30));
        if signal == Signal::SIGINT {
            ended.expect(6).says("interrupted");
        }
        let gone = patiently(seconds(20), || status_of(&lun, &lun.a).is_null().then_some(()));
        assert!(gone.is_some(), "{}", status_of(&lun, &lun.a));
        assert!(!is_mounted(&to));
    }
    // What it left is clean, or is watched out.
    let dir = mounted_clean(&lun, &lun.a);
    unmount_gently(&lun, &dir);
    daemon.stop().expect(0);
}

fn refusals() {
    let lun = Lun::new();
    let plain = lun.mounted(&lun.b);
    let daemon = Daemon::of(&lun);
    let (mut mounting, _) = mount(&lun, &lun.a, &[]);
    mounting.end(seconds(30)).expect(1).says("in use elsewhere").says("stop it on node");
    lun.umount(&lun.b, &plain);
    let (mut mounting, _) = mount(&lun, &lun.a, &["-o", "loop"]);
    mounting.end(seconds(10)).expect(2).says("not with a guarded mount");
    let mut missing = lun.mmp(&["mount", "--on-loss", "shutdown", "/dev/nothing-there", "/"]);
    missing.end(seconds(10)).expect(4).says("/dev/nothing-there");
    let to = lun.mount_point();
    let mut fenceless = lun.mmp(&["mount", "--on-loss", "shutdown", lun.a.path(), text(&to)]);
    fenceless.end(seconds(10)).expect(10).says("nothing of the ladder");
    assert!(status_of(&lun, &lun.a).is_null(), "nothing is recorded of what was not begun");
    daemon.stop().expect(0);
    nothing_is_left(&lun);
}

fn nonsense() {
    let lun = Lun::new();
    let mut daemon = Daemon::of(&lun);
    let dir = mounted_clean(&lun, &lun.a);
    let long = vec![b'x'; 1 << 20];
    let bad: [&[u8]; 9] = [
        b"",
        b"{",
        b"null",
        b"[[[[[[",
        b"\xff\xfe",
        br#"{"method":"org.mmpguard.Burn"}"#,
        br#"{"method":"List"}"#,
        br#"{"method":"org.mmpguard.Mount","parameters":{"request":{"device":3}}}"#,
        br#"{"method":"org.mmpguard.List","parameters":{"all":true}}"#,
    ];
    for socket in ["daemon.sock", "monitor.sock"] {
        let mut stream = served(&daemon, socket);
        for message in bad {
            say(&mut stream, message);
            let reply = reply(&mut stream).unwrap_or_else(|| panic!("{socket} ends after {message:?}"));
            assert!(reply["error"].is_string(), "{reply}");
        }
        // The same connection still serves.
        say(&mut stream, br#"{"method":"org.varlink.service.GetInfo"}"#);
        assert_eq!(reply(&mut stream).expect("replies")["parameters"]["product"], "mmp");
        // One that is too long ends its own connection.
        let mut stream = daemon.connect(socket).expect("listens");
        let _ = std::io::Write::write_all(&mut stream, &long);
        assert!(reply(&mut stream).is_none_or(|reply| reply["error"].is_string()));
        // Hundreds that say nothing: root's are served, of those who monitor one too many is told so.
        let mut silent: Vec<_> = (0..300).filter_map(|_| daemon.connect(socket)).collect();
        let last = silent.last_mut().expect("connects");
        say(last, br#"{"method":"org.varlink.service.GetInfo"}"#);
        let told = reply(last).expect("is told");
        let refused = told["parameters"]["text"].as_str().is_some_and(|text| text.contains("try again"));
        assert_eq!(
            (refused, told["error"].is_null()),
            (socket == "monitor.sock", socket == "daemon.sock"),
            "{told}"
        );
        drop(silent);
    }
    assert!(!daemon.has_ended(), "{}", daemon.said());
    let still = patiently(seconds(5), || {
        let list = daemon.try_call("monitor.sock", "List", &json!({})).ok()?;
        (list["parameters"]["guards"][0]["state"] == "guarding").then_some(())
    });
    assert!(still.is_some());
    let late = status_of(&lun, &lun.a)["worst_lateness_s"].as_f64().expect("is a number");
    observed("daemon 1", &format!("the latest look beside the nonsense was {late:.3} s late"));
    unmount_gently(&lun, &dir);
    daemon.stop().expect(0);
}

/// A connection that is served: there may be too many others at first.
fn served(daemon: &Daemon, socket: &str) -> std::os::unix::net::UnixStream {
    let found = patiently(seconds(10), || {
        let mut stream = daemon.connect(socket)?;
        say(&mut stream, b"{}");
        reply(&mut stream).map(|_| stream)
    });
    found.expect("is served")
}

fn monitoring() {
    let lun = Lun::new();
    let daemon = Daemon::of(&lun);
    let request =
        json!({ "request": { "device": lun.a.path(), "directory": "/mnt", "on_loss": "shutdown" } });
    for (method, parameters) in [
        ("Mount", request),
        ("Adopt", json!({ "device": lun.a.path() })),
        ("StandBy", json!({ "device": lun.a.path() })),
        ("EndStandBy", json!({ "device": lun.a.path() })),
    ] {
        let refused = daemon.call("monitor.sock", method, &parameters);
        assert_eq!(refused["error"], "org.mmpguard.NotAllowed", "{method}: {refused}");
    }
    for method in ["List", "ListStandbys"] {
        assert_eq!(daemon.call("monitor.sock", method, &json!({}))["error"], Value::Null);
    }
    let mut stream = daemon.connect("monitor.sock").expect("listens");
    let call = json!({ "method": "org.varlink.service.GetInterfaceDescription",
        "parameters": { "interface": "org.mmpguard" } });
    say(&mut stream, call.to_string().as_bytes());
    let description = reply(&mut stream).expect("replies");
    let text = description["parameters"]["description"].as_str().expect("is text");
    assert!(text.contains("interface org.mmpguard") && text.contains("method Mount("));
    // Root alone reaches the one, a group the other.
    let mode = |socket: &str| {
        let metadata = std::fs::metadata(daemon.directory.join(socket)).expect("is there");
        std::os::unix::fs::PermissionsExt::mode(&metadata.permissions()) & 0o777
    };
    assert_eq!(mode("daemon.sock"), 0o600);
    assert!([0o600, 0o660].contains(&mode("monitor.sock")), "{:o}", mode("monitor.sock"));
    daemon.stop().expect(0);
}

/// What is asked from where the daemon's mounts do not show, or under another name, is guarded by processes of its own; and in a
/// mount unit of systemd's it is refused.
fn namespaces() {
    let lun = Lun::new();
    let daemon = Daemon::of(&lun);
    let to = lun.mount_point();
    let mmp = env!("CARGO_BIN_EXE_mmp");
    let inside = forget_other_mounts()
        + &format!(
            "hostname elsewhere; {mmp} mount --handover clean --on-loss shutdown --incomplete-fence {} {} && {mmp} status --json && umount {}",
            lun.a.path(),
            text(&to),
            text(&to)
        );
    let mut other = lun.start("unshare", ["--uts", "--mount", "sh", "-c", &inside]);
    let ended = other.end(seconds(60));
    ended.expect(0);
    let report: Value = serde_json::from_str(&ended.out).expect("is JSON");
    assert_ne!(report["guards"][0]["driver_pid"], daemon.process().pid, "{report}");
    assert_eq!(report["guards"][0]["node"], "elsewhere");
    assert!(patiently(seconds(20), || status_of(&lun, &lun.a).is_null().then_some(())).is_some());
    daemon.stop().expect(0);
    nothing_is_left(&lun);

    let group = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup/pids", "/sys/fs/cgroup"]
        .into_iter()
        .map(std::path::Path::new)
        .find(|path| path.join("cgroup.procs").exists())
        .expect("has control groups")
        .join(format!("mmpguard-test-{}.mount", std::process::id()));
    std::fs::create_dir(&group).expect("makes a group");
    let to = lun.mount_point();
    let script = format!(
        "echo $$ > {}/cgroup.procs && exec {mmp} mount --on-loss shutdown --incomplete-fence {} {}",
        group.display(),
        lun.a.path(),
        text(&to)
    );
    let ended = lun.start("sh", ["-c", &script]).end(seconds(30));
    std::fs::remove_dir(&group).expect("is empty");
    ended.expect(7).says("mount unit").says("mmpd.socket");
    nothing_is_left(&lun);
}

fn second() {
    let lun = Lun::new();
    let mut daemon = Daemon::of(&lun);
    let mut second = lun.mmp(&["daemon"]);
    second.end(seconds(10)).expect(1).says("a daemon runs already").says(&daemon.process().pid.to_string());
    assert!(!daemon.has_ended());
    daemon.call("daemon.sock", "List", &json!({}));
    daemon.kill();
    Daemon::of(&lun).stop().expect(0);
    lun.mmp(&["daemon", "everything"]).end(seconds(10)).expect(2);
}
