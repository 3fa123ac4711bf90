//! Loop devices, mounts and processes that end with their test.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::Duration;

use mmpguard::clock;
use mmpguard::sys::{Target, User, claim_unused, users_before_claim};

/// Says why a test does nothing, or fails if nothing may be skipped.
pub(crate) fn skip(why: &str) {
    assert!(std::env::var_os("MMPGUARD_REQUIRE_ROOT").is_none_or(|it| it != "1"), "must not skip: {why}");
    eprintln!("SKIPPED: {why}");
}

/// One test at a time: a child that another test is just starting has a copy of every descriptor until it runs its program,
/// and so would be a user of this test's device.
pub(crate) static ALONE: Mutex<()> = Mutex::new(());

/// Leaves the test, loudly, where it cannot run; else keeps the others waiting until its end.
macro_rules! need {
    ($($tool:expr),*) => {
        let _alone = $crate::host::ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if !nix::unistd::geteuid().is_root() {
            return $crate::host::skip("needs root");
        }
        for tool in [$($tool),*] as [&str; _] {
            if !$crate::host::has(tool) {
                return $crate::host::skip(&format!("needs {tool}"));
            }
        }
    };
}

pub(crate) fn has(tool: &str) -> bool {
    let found = Command::new("sh").args(["-c", &format!("command -v {tool}")]).stdout(Stdio::null()).status();
    found.is_ok_and(|status| status.success())
}

/// Runs a command that must succeed; returns what it printed.
pub(crate) fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{program} {arguments:?}: {}", text(&output.stderr));
    text(&output.stdout)
}

/// A sparse image file in a directory of its own.
pub(crate) struct Image {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) path: PathBuf,
}

impl Image {
    pub(crate) fn new(mebibytes: u64) -> Image {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("image");
        File::create(&path).unwrap().set_len(mebibytes << 20).unwrap();
        Image { path, dir }
    }

    pub(crate) fn target(&self) -> Target {
        Target::of(&self.path).unwrap()
    }
}

/// A loop device, detached at the end.
pub(crate) struct Loop(pub(crate) String);

impl Loop {
    pub(crate) fn over(backing: &Path) -> Loop {
        Loop(run("losetup", &["-f", "--show", backing.to_str().unwrap()]).trim().to_owned())
    }

    pub(crate) fn target(&self) -> Target {
        Target::of(Path::new(&self.0)).unwrap()
    }

    pub(crate) fn name(&self) -> &str {
        self.0.strip_prefix("/dev/").unwrap()
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let _ = Command::new("losetup").args(["-d", &self.0]).status();
    }
}

/// A mount, ended at the end, lazily if need be.
pub(crate) struct Mounted(pub(crate) PathBuf);

impl Mounted {
    pub(crate) fn new(device: &str, image: &Image) -> Mounted {
        let dir = image.dir.path().join("mount point");
        std::fs::create_dir_all(&dir).unwrap();
        run("mount", &[device, dir.to_str().unwrap()]);
        Mounted(dir)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if Command::new("umount").arg(&self.0).stderr(Stdio::null()).status().is_ok_and(|it| !it.success()) {
            let _ = Command::new("umount").arg("-l").arg(&self.0).stderr(Stdio::null()).status();
        }
    }
}

/// A process of the test, killed at the end.
pub(crate) struct Process(pub(crate) Child);

impl Process {
    /// Sleeps with a descriptor on `path`, opened by the shell as `redirection` says (`<`, `<>`, `>>`).
    pub(crate) fn with_open(path: &Path, redirection: &str) -> Process {
        let script = format!("exec sleep 1000 9{redirection}'{}'", path.display());
        let process = Process(Command::new("sh").args(["-c", &script]).spawn().unwrap());
        process.until_it_sleeps();
        process
    }

    /// Waits until the shell has become `sleep`, so that descriptors and name are what the test expects.
    pub(crate) fn until_it_sleeps(&self) {
        for _ in 0..500 {
            let comm = std::fs::read_to_string(format!("/proc/{}/comm", self.0.id())).unwrap_or_default();
            if comm.trim_end() == "sleep" {
                return;
            }
            clock::sleep(Duration::from_millis(10));
        }
        panic!("the shell did not start sleep");
    }

    pub(crate) fn pid(&self) -> i32 {
        i32::try_from(self.0.id()).unwrap()
    }

    pub(crate) fn user(&self, writable: bool) -> User {
        User::Process { pid: self.pid(), command: "sleep".to_owned(), writable }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub(crate) fn before_claim(target: &Target) -> Vec<User> {
    users_before_claim(target, &[]).unwrap()
}

/// Users at a release; empty if there are none. udev's look at a device that a writer has just closed passes by itself.
pub(crate) fn at_release(target: &Target) -> Vec<User> {
    let mut users = Vec::new();
    for _ in 0..20 {
        match claim_unused(target, &[]).unwrap() {
            Ok(hold) => {
                drop(hold);
                return Vec::new();
            }
            Err(found) => users = found,
        }
        let is_udev = |user: &User| matches!(user, User::Process { command, .. } if command.contains("udev"));
        if !users.iter().all(is_udev) {
            break;
        }
        clock::sleep(Duration::from_millis(100));
    }
    users
}

pub(crate) fn mount_user(mounted: &Mounted, filesystem: &str, source: &str) -> User {
    let filesystem = filesystem.to_owned();
    User::Mount { dir: mounted.0.canonicalize().unwrap(), filesystem, source: source.to_owned() }
}

pub(crate) use need;
