//! How long things take, the kernel alone and `mmp mount` beside it, in one run: refusals, mounts of a clean
//! filesystem, takeovers. Two loop devices over one file are two hosts. Takes root; about a minute, since the cases wait
//! side by side. `cargo bench --bench mount`.
//!
//! Nothing here can reboot the machine: the ladder is the filesystem's own shutdown, and never climbed.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::time::Duration;

use mmpguard::clock;

const LADDER: [&str; 3] = ["--on-loss", "shutdown", "--incomplete-fence"];

/// One figure: what the kernel alone takes, what mmp takes, and what mmp is to take at most.
struct Row {
    what: &'static str,
    kernel: Option<Duration>,
    mmp: Duration,
    limit_s: f64,
}

type Case = (&'static str, f64, fn() -> (Option<Duration>, Duration));

const CASES: [Case; 9] = [
    ("refusal of a live device", 1.4, refusal),
    ("refusal, read-only mount", 1.4, refusal_read_only),
    ("mount, clean, hand-over by the kernel", 22.6, clean_by_kernel),
    ("mount, clean, hand-over clean", 11.6, clean_by_clean),
    ("takeover, cold, hand-over by the kernel", 22.6, cold_by_kernel),
    ("the same, asked for right after the last beat", 25.7, cold_at_once),
    ("takeover, cold, hand-over clean", 24.5, cold_by_clean),
    ("takeover, --fenced", 14.5, fenced),
    ("unmounted and released", 2.0, release),
];

fn main() {
    if !nix::unistd::geteuid().is_root() {
        println!("needs root, for loop devices and mounts: nothing was measured");
        return;
    }
    let rows = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for (index, (what, limit_s, case)) in CASES.into_iter().enumerate() {
            let rows = &rows;
            scope.spawn(move || {
                let (kernel, mmp) = case();
                let row = Row { what, kernel, mmp, limit_s };
                rows.lock().expect("no case panicked").push((index, row));
            });
        }
    });
    let mut rows = rows.into_inner().expect("no case panicked");
    rows.sort_by_key(|(index, _)| *index);
    println!(
        "| what, update interval 1 s | kernel alone (s) | mmp (s) | at most (s) |\n|---|---:|---:|---:|"
    );
    for (_, Row { what, kernel, mmp, limit_s }) in rows {
        let kernel = kernel.map_or_else(|| "-".to_owned(), |took| format!("{:.2}", took.as_secs_f64()));
        let met = if mmp.as_secs_f64() <= limit_s { "" } else { " NOT MET" };
        println!("| {what} | {kernel} | {:.2} | {limit_s}{met} |", mmp.as_secs_f64());
    }
}

fn refusal() -> (Option<Duration>, Duration) {
    let lun = Lun::new();
    lun.kernel_mount(Host::A);
    (Some(lun.timed_refusal(&["mount", "-t", "ext4"])), lun.timed_refusal(&lun.mmp_mount(&[])))
}

/// The kernel mounts it: that is the figure.
fn refusal_read_only() -> (Option<Duration>, Duration) {
    let lun = Lun::new();
    lun.kernel_mount(Host::A);
    let mmp = lun.timed_refusal(&lun.mmp_mount(&["-r"]));
    let kernel = timed(&["mount", "-t", "ext4", "-o", "ro", lun.device(Host::B), lun.dir(Host::B)], true);
    (Some(kernel), mmp)
}

fn clean_by_kernel() -> (Option<Duration>, Duration) {
    let lun = Lun::new();
    let kernel = lun.kernel_mount(Host::A);
    lun.umount(Host::A);
    (Some(kernel), lun.timed_mount(&["--handover", "kernel"]))
}

fn clean_by_clean() -> (Option<Duration>, Duration) {
    let lun = Lun::new();
    let kernel = lun.kernel_mount(Host::A);
    lun.umount(Host::A);
    (Some(kernel), lun.timed_mount(&["--handover", "clean"]))
}

fn cold_by_kernel() -> (Option<Duration>, Duration) {
    cold(&["--handover", "kernel"])
}

fn cold_by_clean() -> (Option<Duration>, Duration) {
    cold(&["--handover", "clean"])
}

fn fenced() -> (Option<Duration>, Duration) {
    let node = fs::read_to_string("/proc/sys/kernel/hostname").expect("has a name");
    cold(&["--fenced", node.trim()])
}

/// Two copies of one crash: an image taken while its holder lived. Asked for when its last beat is older than a check
/// interval, as it is by the time that a cluster has noticed.
fn cold(options: &[&str]) -> (Option<Duration>, Duration) {
    cold_after(Duration::from_secs(6), options)
}

fn cold_at_once() -> (Option<Duration>, Duration) {
    cold_after(Duration::ZERO, &["--handover", "kernel"])
}

fn cold_after(age: Duration, options: &[&str]) -> (Option<Duration>, Duration) {
    let lun = Lun::new();
    lun.kernel_mount(Host::A);
    let (one, other) = (Lun::copy(&lun), Lun::copy(&lun));
    lun.umount(Host::A);
    clock::sleep(age);
    std::thread::scope(|scope| {
        let kernel = scope.spawn(|| one.kernel_mount(Host::B));
        let mmp = other.timed_mount(options);
        (Some(kernel.join().expect("mounts")), mmp)
    })
}

fn release() -> (Option<Duration>, Duration) {
    let lun = Lun::new();
    lun.timed_mount(&["--handover", "clean"]);
    let begin = clock::mono();
    run(&[env!("CARGO_BIN_EXE_mmp"), "umount", "-q", lun.dir(Host::B)], true);
    (None, clock::mono().since(begin))
}

#[derive(Clone, Copy)]
enum Host {
    A,
    B,
}

/// An image with two loop devices over it.
struct Lun {
    directory: tempfile::TempDir,
    image: PathBuf,
    devices: [String; 2],
    dirs: [String; 2],
}

static LOSETUP: Mutex<()> = Mutex::new(());

impl Lun {
    fn new() -> Lun {
        Lun::made(|image| {
            File::create(image).and_then(|file| file.set_len(24 << 20)).expect("makes an image");
            let made = ["mkfs.ext4", "-q", "-F", "-O", "mmp", "-E", "mmp_update_interval=1"];
            run(&[&made[..], &[text(image)]].concat(), true);
        })
    }

    fn copy(of: &Lun) -> Lun {
        Lun::made(|image| {
            fs::copy(&of.image, image).expect("copies");
        })
    }

    fn made(make: impl FnOnce(&Path)) -> Lun {
        let directory =
            tempfile::Builder::new().prefix("mmpguard-bench-").tempdir_in("/var/tmp").expect("makes");
        let image = directory.path().join("lun.img");
        make(&image);
        let _one_at_a_time = LOSETUP.lock().expect("no panic");
        let devices = [0, 1].map(|_| {
            let shown = Command::new("losetup").args(["--direct-io=on", "-f", "--show"]).arg(&image).output();
            let shown = shown.expect("runs losetup");
            assert!(shown.status.success(), "{shown:?}");
            String::from_utf8(shown.stdout).expect("is text").trim().to_owned()
        });
        let dirs = ["a", "b"].map(|name| {
            let dir = directory.path().join(name);
            fs::create_dir(&dir).expect("makes a directory");
            text(&dir).to_owned()
        });
        Lun { directory, image, devices, dirs }
    }

    fn device(&self, host: Host) -> &str {
        &self.devices[host as usize]
    }

    fn dir(&self, host: Host) -> &str {
        &self.dirs[host as usize]
    }

    fn kernel_mount(&self, host: Host) -> Duration {
        timed(&["mount", "-t", "ext4", self.device(host), self.dir(host)], true)
    }

    fn umount(&self, host: Host) {
        run(&["umount", self.dir(host)], true);
    }

    fn mmp_mount<'a>(&self, options: &[&'a str]) -> Vec<&'a str> {
        [&[env!("CARGO_BIN_EXE_mmp"), "mount", "-q"], &LADDER[..], options].concat()
    }

    /// `command` on the second host, which has to succeed.
    fn timed_mount(&self, options: &[&str]) -> Duration {
        let mut command = self.mmp_mount(options);
        command.extend([self.device(Host::B), self.dir(Host::B)]);
        timed(&command, true)
    }

    /// `command` on the second host, which has to fail.
    fn timed_refusal(&self, command: &[&str]) -> Duration {
        timed(&[command, &[self.device(Host::B), self.dir(Host::B)]].concat(), false)
    }
}

impl Drop for Lun {
    fn drop(&mut self) {
        for dir in &self.dirs {
            let mounted = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
            if mounted.lines().any(|line| line.split(' ').nth(1) == Some(dir)) {
                let _ = Command::new("umount").arg(dir).status();
            }
        }
        // A guard sees the unmount within its interval.
        clock::sleep(Duration::from_secs(2));
        for device in &self.devices {
            let _ = Command::new("losetup").args(["-d", device]).status();
        }
        assert!(self.directory.path().exists());
    }
}

fn timed(command: &[&str], succeeds: bool) -> Duration {
    let begin = clock::mono();
    run(command, succeeds);
    clock::mono().since(begin)
}

fn run(command: &[&str], succeeds: bool) {
    let output = Command::new(command[0])
        .args(&command[1..])
        .env("MMP_ON_LOSS", "shutdown")
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert_eq!(output.status.success(), succeeds, "{command:?}: {output:?}");
}

fn text(path: &Path) -> &str {
    path.to_str().expect("our own paths are UTF-8")
}
