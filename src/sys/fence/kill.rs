//! The rung `kill`: SIGKILL to the processes that use the mount or write to the device.
//!
//! Protects nothing by itself: what they have written stands in caches and is written out by the kernel. It makes less of it,
//! and lets a later unmount succeed. Does not protect: processes in other PID namespaces, those of a btrfs subvolume (its
//! files have numbers of their own), and whoever waits for I/O, who dies when that ends.
//!
//! Only who writes to the device node itself is killed, not who reads it: multipathd and monitors do. Never the calling
//! process, those to be spared, or the users of the root filesystem.

use std::ffi::CString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use nix::unistd::{Pid, getppid};

use super::climb::{Effect, Ended, Rung};
use super::helper::Answer;
use super::{FenceTarget, Ready, run_helper};
use crate::clock::{self, Mono};
use crate::sys::descriptors::{self, Search};
use crate::sys::mountinfo;
use crate::sys::process::{ProcessRef, Stat};
use crate::sys::target::{Target, TargetKind};

/// How long those that were signalled are waited for.
const PATIENCE: Duration = Duration::from_millis(500);

/// Whether the processes can be seen, and the filesystem is not the one that everybody uses.
pub(super) fn prepare(target: &FenceTarget) -> Result<Ready, String> {
    descriptors::all_processes().map_err(|error| format!("/proc cannot be read: {error}"))?;
    if let TargetKind::Block { major, minor } = target.target.kind
        && std::fs::metadata("/").is_ok_and(|root| root.dev() == libc::makedev(major, minor))
    {
        return Err("it is the root filesystem, which every process uses".to_owned());
    }
    let description = "sends SIGKILL to the processes that use the mount or write to the device".to_owned();
    let rung = Kill { target: target.target.clone(), spare: target.spare.clone() };
    let lacks = Some("what processes have written is written out without them".to_owned());
    Ok(Ready { rung: Box::new(rung), description, cut: false, lacks })
}

/// As ps(1) shows it.
const DAEMON_NAME: &str = "mmpd";

struct Kill {
    target: Target,
    spare: Vec<i32>,
}

impl Rung for Kill {
    fn effect(&self) -> Effect {
        Effect::Helps
    }

    fn run(&mut self, until: Mono) -> Ended {
        run_helper(&[], until, false, || self.kill(until))
    }
}

impl Kill {
    /// In the helper.
    fn kill(&self, until: Mono) -> Answer {
        let filesystems = filesystems_of(&self.target);
        let own = [1, Pid::this().as_raw(), getppid().as_raw()];
        let pids = descriptors::all_processes().map_err(|error| format!("/proc cannot be read: {error}"))?;
        let pids: Vec<i32> = pids
            .into_iter()
            .filter(|pid| !own.contains(pid) && !self.spare.contains(pid) && !guards(*pid))
            .collect();
        let search = Search::new(vec![self.target.kind]);
        let writes = |pid| search.descriptors(pid).uses.iter().any(|(_, writable)| *writable);
        let by_descriptor = |pid: i32| has_open(pid, &filesystems) || writes(pid);
        let mut killed = kill_those(&pids, by_descriptor);
        // Apart and last: asking for the mappings of a process that is stuck may hang.
        killed.extend(kill_those(&pids, |pid| has_mapped(pid, &filesystems)));
        let patience = until.min(clock::mono() + PATIENCE);
        let mut left = killed.len();
        while left > 0 && clock::mono() < patience {
            left = killed.iter().filter(|pid| Stat::of(**pid).is_some_and(|stat| !stat.is_over())).count();
            clock::sleep(Duration::from_millis(10));
        }
        Ok(format!("{} killed, of whom {left} are not gone yet", killed.len()))
    }
}

/// The daemon, which has other devices to guard, too; a thread of it that drives this one is its keeper's to judge.
fn guards(pid: i32) -> bool {
    Stat::of(pid).is_some_and(|stat| stat.comm == DAEMON_NAME) && same_user(pid)
}

/// Whoever calls himself so has to be us.
fn same_user(pid: i32) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    std::fs::metadata(format!("/proc/{pid}"))
        .is_ok_and(|metadata| metadata.uid() == nix::unistd::geteuid().as_raw())
}

/// Kills those who use it; each is pinned before it is looked at.
fn kill_those(pids: &[i32], uses: impl Fn(i32) -> bool) -> Vec<i32> {
    let kill = |pid: &&i32| {
        let Ok(process) = ProcessRef::open(Pid::from_raw(**pid)) else { return false };
        uses(**pid) && process.signal(libc::SIGKILL).is_ok()
    };
    pids.iter().filter(kill).copied().collect()
}

/// The numbers that files on the device's filesystem have.
fn filesystems_of(target: &Target) -> Vec<u64> {
    let table = std::fs::read("/proc/self/mountinfo").unwrap_or_default();
    let mounts = mountinfo::parse(&table).into_iter().filter(|mount| mount.is_of(&[target.kind], None));
    let devices = mounts.map(|mount| mount.device).chain([target.kind]);
    let number = |kind| match kind {
        TargetKind::Block { major, minor } => Some(libc::makedev(major, minor)),
        TargetKind::File { .. } => None,
    };
    let mut numbers: Vec<_> = devices.filter_map(number).collect();
    numbers.dedup();
    numbers
}

/// Whether a file on one of the filesystems is open, or is the process's directory, root or program.
fn has_open(pid: i32, filesystems: &[u64]) -> bool {
    let process = Path::new("/proc").join(pid.to_string());
    let open =
        std::fs::read_dir(process.join("fd")).into_iter().flatten().flatten().map(|entry| entry.path());
    let own = ["cwd", "root", "exe"].map(|name| process.join(name));
    own.into_iter().chain(open).any(|link| filesystem_of(&link).is_ok_and(|it| filesystems.contains(&it)))
}

/// Whether one is mapped.
fn has_mapped(pid: i32, filesystems: &[u64]) -> bool {
    let maps = std::fs::read(format!("/proc/{pid}/maps")).unwrap_or_default();
    maps.split(|&byte| byte == b'\n').any(|line| mapped(line).is_some_and(|it| filesystems.contains(&it)))
}

/// The number of the filesystem that a line of `maps` names.
fn mapped(line: &[u8]) -> Option<u64> {
    let device = line.split(|&byte| byte == b' ').nth(3)?;
    let (major, minor) = std::str::from_utf8(device).ok()?.split_once(':')?;
    Some(libc::makedev(u32::from_str_radix(major, 16).ok()?, u32::from_str_radix(minor, 16).ok()?))
}

/// The number of the filesystem that a link of `/proc` leads to, without asking a server.
fn filesystem_of(link: &Path) -> io::Result<u64> {
    let link = CString::new(link.as_os_str().as_bytes())?;
    let flags = libc::AT_STATX_DONT_SYNC | libc::AT_NO_AUTOMOUNT;
    let mut found = std::mem::MaybeUninit::<libc::statx>::zeroed();
    // SAFETY: `link` is NUL-terminated and `found` is a writable statx buffer; both outlive the call.
    let status =
        unsafe { libc::statx(libc::AT_FDCWD, link.as_ptr(), flags, libc::STATX_TYPE, found.as_mut_ptr()) };
    if status != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: zeroed at first, and every bit pattern of this plain C structure is valid.
    let found = unsafe { found.assume_init() };
    Ok(libc::makedev(found.stx_dev_major, found.stx_dev_minor))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_uses_what_it_has_open_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let file = std::fs::File::create(dir.path().join("x")).unwrap();
        let number = file.metadata().unwrap().dev();
        let own = Pid::this().as_raw();
        assert!(has_open(own, &[number]) && !has_open(own, &[]) && !has_open(own, &[u64::MAX]));
        assert!(!has_open(i32::MAX, &[number]) && !has_mapped(i32::MAX, &[number]));
        let program = std::fs::metadata("/proc/self/exe").unwrap().dev();
        assert!(has_mapped(own, &[program]) && !has_mapped(own, &[u64::MAX]));
    }

    #[test]
    fn mappings_are_read_by_their_device() {
        let line = b"00400000-00452000 r-xp 00000000 fd:1a 173521      /usr/bin/a b";
        assert_eq!(mapped(line), Some(libc::makedev(0xfd, 0x1a)));
        for bad in [&b""[..], b"1-2 rw-p 0", b"1-2 rw-p 0 xx:1 5", b"\xff \xff \xff \xff"] {
            assert_eq!(mapped(bad), None);
        }
    }

    #[test]
    fn the_users_of_the_root_filesystem_are_never_killed() {
        let root = TargetKind::block(std::fs::metadata("/").unwrap().dev());
        let target = Target { canonical: "/dev/root".into(), kind: root };
        let target = FenceTarget { target, filesystem: "ext4".to_owned(), spare: Vec::new() };
        assert!(prepare(&target).err().unwrap().contains("root filesystem"));
    }

    #[test]
    fn the_devices_own_number_is_always_looked_for() {
        let kind = TargetKind::Block { major: 4095, minor: 77 };
        let target = Target { canonical: "/dev/x".into(), kind };
        assert_eq!(filesystems_of(&target), [libc::makedev(4095, 77)]);
    }
}
