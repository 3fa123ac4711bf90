//! Loop devices and the image under them, taken down when they are dropped.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use mmpguard::io::{BlockFile, Device};

pub(crate) const LEN: usize = 1 << 20;

const TOOLS: [&str; 6] = ["losetup", "blockdev", "mkfs.ext4", "mount", "setpriv", "strace"];

/// Whether this can run here; says so if not.
pub(crate) fn ready(test: &str) -> bool {
    let missing = if !nix::unistd::geteuid().is_root() {
        "root"
    } else if let Some(tool) = TOOLS.iter().find(|tool| Command::new(tool).arg("-V").output().is_err()) {
        tool
    } else {
        return true;
    };
    assert!(std::env::var_os("MMPGUARD_REQUIRE_ROOT").is_none(), "{test} must run and needs {missing}");
    eprintln!("skipped: {test} needs {missing}");
    false
}

pub(crate) fn run(program: &str, arguments: &[&str]) -> Output {
    Command::new(program).args(arguments).output().unwrap_or_else(|error| panic!("{program}: {error}"))
}

pub(crate) fn must(program: &str, arguments: &[&str]) -> String {
    let output = run(program, arguments);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{program} {arguments:?}: {said}");
    String::from_utf8(output.stdout).expect("UTF-8").trim().to_owned()
}

/// A loop device, detached when dropped.
pub(crate) struct Loop(pub(crate) PathBuf);

impl Loop {
    pub(crate) fn new(image: &Path, sector: u32, more: &[&str]) -> Loop {
        let (image, sector) = (image.to_str().expect("UTF-8"), sector.to_string());
        let mut arguments = vec!["--direct-io=on", "--sector-size", &sector];
        arguments.extend(more);
        arguments.extend(["-f", "--show", image]);
        // Another process may take the same free device in between.
        for _ in 0..10 {
            let output = run("losetup", &arguments);
            if output.status.success() {
                return Loop(String::from_utf8(output.stdout).expect("UTF-8").trim().into());
            }
            eprintln!("losetup: {}", String::from_utf8_lossy(&output.stderr));
        }
        panic!("no loop device after ten tries");
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    pub(crate) fn store(&self, offset: u64, block: u32) -> BlockFile {
        BlockFile::new(&Device::inspect(self.path()).expect("inspects"), offset, block).expect("fits")
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        run("losetup", &["-d", self.0.to_str().expect("UTF-8")]);
    }
}

/// A mounted filesystem, unmounted when dropped.
pub(crate) struct Mount(pub(crate) PathBuf);

impl Drop for Mount {
    fn drop(&mut self) {
        run("umount", &[self.0.to_str().expect("UTF-8")]);
    }
}

/// A directory on a real disk that everybody can reach: neither is sure of /tmp or the build directory.
pub(crate) fn scratch() -> std::io::Result<tempfile::TempDir> {
    tempfile::tempdir_in("/var/tmp")
}

/// An image whose every byte tells its place.
pub(crate) fn image() -> (tempfile::TempDir, PathBuf, Vec<u8>) {
    let dir = scratch().expect("makes a directory");
    let path = dir.path().join("disk.img");
    let bytes: Vec<u8> = (0..LEN).map(|at| u8::try_from(at * 7 % 253).expect("a byte")).collect();
    fs::write(&path, &bytes).expect("writes");
    File::open(&path).and_then(|file| file.sync_all()).expect("syncs");
    (dir, path, bytes)
}

pub(crate) fn at(offset: u64) -> usize {
    usize::try_from(offset).expect("is small")
}
