//! The daemon under load: two hundred guards of which one hangs; a log that nobody reads, full disks, a hook that hangs.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use mmpguard::clock;
use serde_json::Value;

use crate::Case;
use crate::guard_support::{longest_gap, mounted, status_of};
use crate::harness::daemon::{Daemon, together};
use crate::harness::lun::{Lun, RUNTIME, Shape, must, text, unmount};
use crate::harness::process::MARK;
use crate::harness::started::{Started, patiently};
use crate::harness::{at_most_strictly, millis, observed, seconds};
use crate::outage::Disk;

pub(crate) const CASES: &[Case] = &[("daemon_6_a_log_that_nobody_reads_and_full_disks_delay_no_beat", full)];
/// Slows the others down: each of their claims looks through all of its processes' threads and mounts.
pub(crate) const ALONE: &[Case] =
    &[("daemon_6_of_two_hundred_guards_one_hangs_and_the_others_are_on_time", two_hundred)];

const GUARDS: usize = 200;
/// So many are mounted at once.
const AT_ONCE: usize = 40;
/// Small: what is measured is beats.
const BYTES: u64 = 8 << 20;
/// How long the one hangs: longer than a lease.
const HANGS: Duration = Duration::from_secs(16);

fn two_hundred() {
    let disk = Disk::new();
    let hanging = disk.lun();
    let shape = Shape { bytes: BYTES, filesystem_bytes: BYTES, ..Shape::default() };
    let others: Vec<Lun> = (1..GUARDS).map(|_| Lun::shaped(shape)).collect();
    let env = together(&hanging);
    let daemon = Daemon::with(&hanging, env!("CARGO_BIN_EXE_mmp"), &env);
    let all: Vec<&Lun> = std::iter::once(&hanging).chain(&others).collect();
    let dirs = mount_all(&all, &env);
    let list = || {
        let list = daemon.call("monitor.sock", "List", &serde_json::json!({}));
        list["parameters"]["guards"].as_array().cloned().unwrap_or_default()
    };
    assert_eq!(list().len(), GUARDS);
    hang_one(&daemon, &disk, &hanging, &others, &list);
    for (lun, dir) in all.iter().zip(&dirs) {
        unmount(dir);
        lun.forget_mount(dir);
    }
    let left = || list().iter().all(|guard| guard["state"] == "lost").then_some(());
    assert!(patiently(seconds(60), left).is_some(), "{:#?}", list());
    daemon.stop().expect(0);
}

fn mount_all(all: &[&Lun], env: &[(&str, String)]) -> Vec<PathBuf> {
    let mut dirs = Vec::new();
    // Not all at once: a claim looks five times as often as a holder beats.
    for some in all.chunks(AT_ONCE) {
        let mounting: Vec<(Started, _)> = some
            .iter()
            .map(|lun| {
                let to = lun.mount_point();
                let arguments = [
                    "mount",
                    "-r",
                    "--on-loss",
                    "shutdown",
                    "--incomplete-fence",
                    "-q",
                    lun.a.path(),
                    text(&to),
                ];
                (lun.start_with(env!("CARGO_BIN_EXE_mmp"), arguments, env), to)
            })
            .collect();
        for (mut mounting, to) in mounting {
            mounting.end(seconds(180)).expect(0);
            dirs.push(to);
        }
    }
    dirs
}

fn hang_one(daemon: &Daemon, disk: &Disk, hanging: &Lun, others: &[Lun], list: &dyn Fn() -> Vec<Value>) {
    let before = clock::mono();
    let samplers: Vec<_> = others.iter().step_by(20).map(|lun| lun.sampler(millis(40))).collect();
    let threads = std::fs::read_dir(format!("/proc/{}/task", daemon.process().pid)).expect("lives").count();
    observed(
        "daemon 6",
        &format!("{threads} threads of one process, {} kB of it its own", private_kib(daemon.process().pid)),
    );
    let cpu = cpu_time(daemon.process().pid);
    let frozen = disk.freeze();
    clock::sleep(HANGS);
    let used = cpu_time(daemon.process().pid).saturating_sub(cpu).as_secs_f64() / HANGS.as_secs_f64();
    observed("daemon 6", &format!("{GUARDS} guards take {:.1} % of a processor", used * 100.0));
    let of = |guards: &[Value], lun: &Lun| {
        guards.iter().find(|guard| guard["device"] == lun.a.path()).cloned().unwrap_or_default()
    };
    let now = list();
    assert_eq!(of(&now, hanging)["state"], "lost", "{:#}", of(&now, hanging));
    let mut worst = 0.0_f64;
    for lun in others {
        let told = of(&now, lun);
        assert_eq!(told["state"], "guarding", "{told:#}");
        worst = worst.max(told["worst_lateness_s"].as_f64().expect("is a number"));
    }
    at_most_strictly(
        "daemon 6",
        "the latest look of the other 199",
        Duration::from_secs_f64(worst),
        0.1,
        1.0,
    );
    let gaps = samplers.iter().map(|sampler| longest_gap(&sampler.since(before), clock::mono()));
    at_most_strictly("daemon 6", "the longest silence of ten of them", gaps.max().expect("ten"), 1.4, 3.0);
    drop(samplers);
    drop(frozen);
}

/// What a process has for itself alone.
fn private_kib(pid: i32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).expect("lives");
    let lines = text.lines().filter(|line| line.starts_with("Private_"));
    lines.filter_map(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok()).sum()
}

fn cpu_time(pid: i32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("lives");
    let fields: Vec<&str> = stat.rsplit(')').next().expect("has fields").split_whitespace().collect();
    let ticks: u64 = fields[11..13].iter().map(|ticks| ticks.parse::<u64>().expect("is a number")).sum();
    Duration::from_millis(ticks * 10)
}

/// Its standard error is a pipe that is full, the disk of its records is full, a hook never ends: beats come all the same.
fn full() {
    let lun = Lun::new();
    let runtime = lun.file(RUNTIME);
    std::fs::create_dir(&runtime).expect("makes a directory");
    must("mount", &["-t", "tmpfs", "-o", "size=256k,mode=0755", "mmpguard-test", text(&runtime)]);
    let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| full_in(&lun, &runtime)));
    for _ in 0..50 {
        if Command::new("umount").arg(&runtime).status().expect("runs").success() {
            break;
        }
        clock::sleep(millis(200));
    }
    if let Err(panic) = ended {
        std::panic::resume_unwind(panic);
    }
}

fn full_in(lun: &Lun, runtime: &Path) {
    let config = lun.file("mmp.toml");
    // Its environment is none of the daemon's: without the mark it would outlive the test.
    let hook = format!(
        "[events]\nhooks = [{{ command = [\"/usr/bin/env\", \"{MARK}={}\", \"sleep\", \"1000\"], time_limit_s = 300 }}]\n",
        lun.mark()
    );
    std::fs::write(&config, hook).expect("writes");
    let (mut reader, mut writer) = std::io::pipe().expect("makes a pipe");
    // What is in the pipe is never read, and there is room for one line more.
    nix::fcntl::fcntl(&writer, nix::fcntl::FcntlArg::F_SETPIPE_SZ(4096)).expect("sets its size");
    std::io::Write::write_all(&mut writer, &[b'x'; 4000]).expect("writes");
    let mut child = Command::new(env!("CARGO_BIN_EXE_mmp"))
        .arg("daemon")
        .envs([("MMP_RUNTIME_DIR", text(runtime)), ("MMP_CONFIG", text(&config)), ("MMP_LOG", "trace")])
        .envs([("MMP_ON_LOSS", "shutdown"), (MARK, lun.mark())])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::from(writer))
        .spawn()
        .expect("starts");
    let listens =
        patiently(seconds(10), || std::os::unix::net::UnixStream::connect(runtime.join("daemon.sock")).ok());
    assert!(listens.is_some());
    let dir = mounted(lun, &lun.a, &["-r"]);
    let pid = i32::try_from(child.id()).expect("fits");
    assert_eq!(status_of(lun, &lun.a)["driver_pid"], pid);
    let sampler = lun.sampler(millis(25));
    let begun = clock::mono();
    // Filled to the last byte.
    let filler = runtime.join("filler");
    let _ = std::fs::write(&filler, vec![7; 1 << 20]);
    clock::sleep(seconds(15));
    let free = nix::sys::statvfs::statvfs(runtime).expect("is there").blocks_available();
    assert_eq!(free, 0);
    let gap = longest_gap(&sampler.since(begun), clock::mono());
    at_most_strictly("daemon 6", "the longest silence beside full disks and a blocked log", gap, 1.4, 3.0);
    drop(sampler);
    // Only now, for whatever is read makes room.
    let flags = nix::fcntl::FcntlArg::F_SETFL(nix::fcntl::OFlag::O_NONBLOCK);
    nix::fcntl::fcntl(&reader, flags).expect("sets");
    let unread = reader.read(&mut [0; 1 << 16]).unwrap_or(0);
    observed("daemon 6", &format!("the disk of the records was full, {unread} bytes of the log waited"));
    assert!(unread >= 4000, "the log was not blocked: {unread}");
    std::fs::remove_file(&filler).expect("removes");
    let late = patiently(seconds(5), || {
        let told = status_of(lun, &lun.a);
        (told["told_s"].as_f64() < Some(2.0)).then(|| told["worst_lateness_s"].as_f64().expect("is a number"))
    });
    at_most_strictly(
        "daemon 6",
        "the latest look beside them",
        Duration::from_secs_f64(late.expect("told again")),
        0.1,
        1.0,
    );
    must("umount", &[text(&dir)]);
    lun.forget_mount(&dir);
    let gone = patiently(seconds(20), || status_of(lun, &lun.a).is_null().then_some(()));
    assert!(gone.is_some(), "{}", status_of(lun, &lun.a));
    child.kill().and_then(|()| child.wait()).expect("ends");
}
