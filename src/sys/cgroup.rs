//! A cgroup of the command's own, where there is a cgroup v2 that we may write: it kills a whole tree in one
//! step, forks in flight included (`cgroup.kill`, Linux 5.14).
//!
//! An addition, never a condition: whatever fails here, the tree is killed by walking it (`sys::process`). Both are
//! used together, since a process may be moved out of its cgroup, and a cgroup may have been joined in vain.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use nix::unistd::Pid;

use super::mountinfo;

/// A cgroup made for one command. Dropping it leaves it: call [`Cgroup::remove`].
#[derive(Debug)]
pub struct Cgroup {
    path: PathBuf,
    /// Opened beforehand: a child joins by one write.
    procs: File,
    kill: File,
}

impl Cgroup {
    /// Makes `mmp-run-<pid>` below the cgroup this process is in; `None` if there is no cgroup v2 for us.
    #[must_use]
    pub fn create() -> Option<Cgroup> {
        let own = this_directory()?;
        sweep(&own);
        Self::create_in(&own, &name_for(Pid::this()))
    }

    /// The one that process `maker`, which did not live to remove it, made below the cgroup this process is in.
    #[must_use]
    pub fn left_by(maker: Pid) -> Option<Cgroup> {
        Self::open(this_directory()?.join(name_for(maker)))
    }

    fn create_in(parent: &Path, name: &str) -> Option<Cgroup> {
        let path = parent.join(name);
        // One left behind by an earlier process with our pid goes, unless something still runs in it.
        let _ = remove_directories(&path);
        fs::create_dir(&path).ok()?;
        let made = Self::open(path.clone());
        if made.is_none() {
            let _ = fs::remove_dir(&path);
        }
        made
    }

    fn open(path: PathBuf) -> Option<Cgroup> {
        let open = |file| OpenOptions::new().write(true).open(path.join(file)).ok();
        Some(Cgroup { procs: open("cgroup.procs")?, kill: open("cgroup.kill")?, path })
    }

    /// Puts the calling process into it. For a child between fork and exec.
    ///
    /// # Errors
    /// What the kernel says; the caller goes on without.
    pub fn join(&self) -> io::Result<()> {
        (&self.procs).write_all(b"0")
    }

    /// Sends SIGKILL to everything in it and below it, at once.
    ///
    /// # Errors
    /// What the kernel says; the tree has to be walked in any case.
    pub fn kill(&self) -> io::Result<()> {
        (&self.kill).write_all(b"1")
    }

    /// Removes it, with the cgroups that the command made below. It must be empty.
    ///
    /// # Errors
    /// `EBUSY` while something is in it, zombies included: try again after reaping.
    pub fn remove(&self) -> io::Result<()> {
        match remove_directories(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }
}

const PREFIX: &str = "mmp-run-";

fn name_for(maker: Pid) -> String {
    format!("{PREFIX}{maker}")
}

/// Removes what keepers left that were killed, or that ended before a process in uninterruptible sleep did. One with
/// something in it cannot be removed, so this harms nobody.
fn sweep(parent: &Path) {
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let maker = name.to_str().and_then(|name| name.strip_prefix(PREFIX)?.parse::<u32>().ok());
        if maker.is_some_and(|maker| !Path::new("/proc").join(maker.to_string()).exists()) {
            let _ = remove_directories(&entry.path());
        }
    }
}

fn this_directory() -> Option<PathBuf> {
    let mountinfo = fs::read("/proc/self/mountinfo").ok()?;
    own_directory(&mountinfo, &fs::read("/proc/self/cgroup").ok()?)
}

/// Removes directories, deepest first. The files of a cgroup vanish with it and cannot be unlinked.
fn remove_directories(path: &Path) -> io::Result<()> {
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_directories(&entry.path())?;
        }
    }
    fs::remove_dir(path)
}

/// Where the cgroup v2 of this process is: its path from `/proc/self/cgroup` ("0::/path", cgroups(7)) below the
/// mount point from `/proc/self/mountinfo`, whose root may be a part of the hierarchy only.
fn own_directory(mountinfo: &[u8], membership: &[u8]) -> Option<PathBuf> {
    let membership = String::from_utf8_lossy(membership);
    let own = membership.lines().find_map(|line| line.strip_prefix("0::"))?;
    let mounts = mountinfo::parse(mountinfo);
    mounts.into_iter().filter(|mount| mount.filesystem == "cgroup2").find_map(|mount| {
        let below = Path::new(own).strip_prefix(&mount.root).ok()?;
        // A cgroup outside of our cgroup namespace shows as "/..": not ours to write in.
        let inside = below.components().all(|part| matches!(part, std::path::Component::Normal(_)));
        inside.then(|| mount.dir.join(below))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &[u8] = b"\
24 1 0:22 / /proc rw - proc proc rw
33 32 0:30 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu
42 32 0:39 /pod /sys/fs/cg\\040two rw,relatime shared:9 - cgroup2 cgroup2 rw
";

    #[test]
    fn the_own_directory_is_taken_relative_to_the_root_of_the_mount() {
        let directory = |own: &str| own_directory(MOUNTS, format!("9:cpu:/x\n0::{own}\n").as_bytes());
        assert_eq!(directory("/pod/a"), Some("/sys/fs/cg two/a".into()));
        assert_eq!(directory("/pod"), Some("/sys/fs/cg two".into()));
        assert_eq!(directory("/elsewhere"), None);
        assert_eq!(directory("/../up"), None);
        assert_eq!(directory("/pod/../up"), None);
        assert_eq!(own_directory(MOUNTS, b"4:memory:/x\n"), None);
        assert_eq!(own_directory(b"24 1 0:22 / /proc rw - proc proc rw\n", b"0::/\n"), None);
    }

    #[test]
    fn a_sweep_takes_what_dead_keepers_left_and_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        let live = name_for(Pid::this());
        for name in ["mmp-run-4194399/below", &live, "mmp-run-x", "other"] {
            fs::create_dir_all(directory.path().join(name)).unwrap();
        }
        sweep(directory.path());
        let mut left: Vec<_> =
            fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        left.sort();
        let mut expected: Vec<std::ffi::OsString> = vec![live.into(), "mmp-run-x".into(), "other".into()];
        expected.sort();
        assert_eq!(left, expected);
    }

    #[test]
    fn no_cgroup_is_made_in_an_ordinary_directory() {
        let directory = tempfile::tempdir().unwrap();
        assert!(Cgroup::create_in(directory.path(), "mmp-run-1").is_none());
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    }
}
