//! Which processes have a device or file open or mapped.
//!
//! Protects: descriptors are compared by identity, not by name, so that a device node of another name, a renamed or a
//! deleted file are recognised. A process that ends during the scan is no user, and nothing about it is an error.
//!
//! Does not protect: not seen are processes outside this PID namespace or hidden by `hidepid`, those that this
//! process may not inspect (told by [`Process::hidden`]), descriptors in flight in a socket or registered with an
//! io_uring alone, the table of a thread that does not share its process's, a SCSI generic node of the same disk,
//! and users inside the kernel without a descriptor (an iSCSI target's file). A descriptor opened with `O_PATH` can
//! neither read nor write and does not count.
//!
//! A process that was killed and hangs in one device keeps all its descriptors until that lets go. Where each of its threads is in a call
//! about a known descriptor, the devices of the others are not in use by it: none of them runs another instruction, and what is closed
//! in the end was read and written past the page cache, or flushed before.
//!
//! What may hang here, for which reason everything runs within `bounded`: attributes of a file on a dead server (see
//! `target::identify`), and `maps`, which waits for the address space of a process that may itself be stuck in a page
//! fault. Descriptors and mappings are therefore asked for apart, so that the first are known where the second hang.
//! Names come from `comm`, as `cmdline` would wait for the same lock.

use std::collections::HashMap;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use super::mountinfo::{path, unescape};
use super::process::{LastCall, last_call};
use super::target::{TargetKind, identify};

/// What one process told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Process {
    /// Its name, cut at 15 bytes by the kernel.
    pub(super) command: String,
    /// Which of the devices looked for it uses (their places), and whether for writing.
    pub(super) uses: Vec<(usize, bool)>,
    /// The identity of its mount namespace; `None` if it may not be asked or has ended.
    pub(super) mount_namespace: Option<PathBuf>,
    /// It exists but may not be inspected.
    pub(super) hidden: bool,
}

/// Looks for some devices and files in many processes.
pub(super) struct Search {
    wanted: Vec<TargetKind>,
    /// What mapped files turned out to be, by filesystem and inode as `maps` shows them: most are shared libraries
    /// that every process has.
    mapped: Mutex<HashMap<(u64, u64), Option<TargetKind>>>,
}

/// Whether `/proc` shows every process of the host: it need not in a PID namespace of our own (whose processes
/// outside are not listed), or mounted with `hidepid` (then not even the first process is, except for root).
pub(super) fn shows_all(pids: &[i32]) -> bool {
    // `PROC_PID_INIT_INO` of Linux `include/uapi/linux/nsfs.h`, fixed since 3.8. No such file: no PID namespaces.
    let first = match std::fs::read_link("/proc/self/ns/pid") {
        Ok(namespace) => namespace.as_os_str() == "pid:[4026531836]",
        Err(error) => error.kind() == io::ErrorKind::NotFound,
    };
    first && pids.contains(&1)
}

/// The processes of this host, from `/proc`.
pub(super) fn all_processes() -> io::Result<Vec<i32>> {
    let mut pids: Vec<i32> = std::fs::read_dir("/proc")?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect();
    pids.sort_unstable();
    Ok(pids)
}

/// The process's name, from `comm`; empty if it has ended.
pub(super) fn command_of(pid: i32) -> String {
    let comm = std::fs::read(format!("/proc/{pid}/comm")).unwrap_or_default();
    String::from_utf8_lossy(comm.strip_suffix(b"\n").unwrap_or(&comm)).into_owned()
}

impl Search {
    pub(super) fn new(wanted: Vec<TargetKind>) -> Self {
        Search { wanted, mapped: Mutex::default() }
    }

    /// Looks into the descriptors of one process.
    pub(super) fn descriptors(&self, pid: i32) -> Process {
        let proc = PathBuf::from(format!("/proc/{pid}"));
        let mut process =
            Process { mount_namespace: std::fs::read_link(proc.join("ns/mnt")).ok(), ..Process::default() };
        if !self.descriptors_in(&proc, &mut process) {
            let threads = other_threads(&proc, pid);
            let mut left = Process::default();
            for thread in &threads {
                self.descriptors_in(thread, &mut left);
            }
            if let Some(busy) = self.last_business(&threads) {
                left.uses.retain(|&(place, _)| busy.contains(&self.wanted[place]));
            }
            process.merge(left);
        }
        if !process.uses.is_empty() || process.mount_namespace.is_some() {
            process.command = command_of(pid);
        }
        process
    }

    /// What the threads of a process that was killed still do something to: of all that its table holds, that alone is in use. None if one
    /// of them may run again, or does what cannot be told.
    fn last_business(&self, threads: &[PathBuf]) -> Option<Vec<TargetKind>> {
        let mut busy = Vec::new();
        for thread in threads {
            match last_call(thread)? {
                LastCall::On(descriptor) => {
                    busy.extend(identify(&thread.join(format!("fd/{descriptor}"))).ok()?);
                }
                // What is opened is not read or written any more; of a file it could be the length.
                LastCall::Opens => {
                    self.wanted.iter().all(|kind| matches!(kind, TargetKind::Block { .. })).then_some(())?
                }
            }
        }
        Some(busy)
    }

    /// Looks into the mappings of one process.
    pub(super) fn mappings(&self, pid: i32) -> Process {
        let proc = PathBuf::from(format!("/proc/{pid}"));
        let mut process = Process::default();
        if !self.mappings_in(&proc, &proc, &mut process) {
            for thread in other_threads(&proc, pid) {
                self.mappings_in(&thread, &proc, &mut process);
            }
        }
        if !process.uses.is_empty() {
            process.command = command_of(pid);
        }
        process
    }

    /// Looks into the descriptors of one thread; true if it had any.
    fn descriptors_in(&self, thread: &Path, process: &mut Process) -> bool {
        let mut any = false;
        match std::fs::read_dir(thread.join("fd")) {
            Ok(descriptors) => {
                for descriptor in descriptors.filter_map(Result::ok) {
                    any = true;
                    self.look_at_descriptor(&descriptor.path(), process);
                }
            }
            Err(error) => process.hidden |= error.kind() == io::ErrorKind::PermissionDenied,
        }
        any
    }

    /// Looks into the mappings that one thread shows; true if there are any.
    fn mappings_in(&self, thread: &Path, process_dir: &Path, process: &mut Process) -> bool {
        match std::fs::read(thread.join("maps")) {
            Ok(maps) => {
                for mapping in maps.split(|&byte| byte == b'\n').filter_map(Mapping::parse) {
                    self.look_at_mapping(&mapping, process_dir, process);
                }
                !maps.is_empty()
            }
            Err(error) => {
                process.hidden |= error.kind() == io::ErrorKind::PermissionDenied;
                false
            }
        }
    }

    fn look_at_descriptor(&self, link: &Path, process: &mut Process) {
        let Ok(Some(kind)) = identify(link) else { return };
        let Some(place) = self.place_of(kind) else { return };
        // The permission bits of the link itself are the mode the file was opened with (`fs/proc/fd.c`).
        let Ok(metadata) = link.symlink_metadata() else { return };
        if metadata.mode() & 0o600 != 0 {
            process.add(place, metadata.mode() & 0o200 != 0);
        }
    }

    fn look_at_mapping(&self, mapping: &Mapping<'_>, process_dir: &Path, process: &mut Process) {
        let key = (mapping.device, mapping.inode);
        let known = self.mapped.lock().unwrap_or_else(PoisonError::into_inner).get(&key).copied();
        let kind = known.unwrap_or_else(|| {
            let kind = mapping.identify(process_dir);
            if let Some(kind) = kind {
                self.mapped.lock().unwrap_or_else(PoisonError::into_inner).insert(key, kind);
            }
            kind.flatten()
        });
        if let Some(place) = kind.and_then(|kind| self.place_of(kind)) {
            process.add(place, mapping.shared_writable);
        }
    }

    fn place_of(&self, kind: TargetKind) -> Option<usize> {
        self.wanted.iter().position(|&wanted| wanted == kind)
    }
}

/// What to look into where the first thread shows nothing: it is a kernel thread, or has ended and others have not.
fn other_threads(proc: &Path, pid: i32) -> Vec<PathBuf> {
    let threads = std::fs::read_dir(proc.join("task")).into_iter().flatten().filter_map(Result::ok);
    threads.filter(|it| it.file_name().to_str() != Some(&pid.to_string())).map(|it| it.path()).collect()
}

impl Process {
    /// Adds what another look at the same process told.
    pub(super) fn merge(&mut self, other: Process) {
        for (place, writable) in other.uses {
            self.add(place, writable);
        }
        self.hidden |= other.hidden;
        if self.command.is_empty() {
            self.command = other.command;
        }
    }

    fn add(&mut self, place: usize, writable: bool) {
        match self.uses.iter_mut().find(|(known, _)| *known == place) {
            Some((_, known)) => *known |= writable,
            None => self.uses.push((place, writable)),
        }
    }
}

/// One line of `/proc/PID/maps` that maps a file.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Mapping<'a> {
    start: u64,
    end: u64,
    shared_writable: bool,
    /// The filesystem's number (on btrfs not the one that stat gives) and the inode; of a block device, its node's.
    device: u64,
    inode: u64,
    path: &'a [u8],
}

impl<'a> Mapping<'a> {
    /// Reads `START-END PERMS OFFSET MAJOR:MINOR INODE PATH`; `None` if no file is mapped.
    fn parse(line: &'a [u8]) -> Option<Self> {
        let mut fields = line.splitn(6, |&byte| byte == b' ');
        let mut field = || std::str::from_utf8(fields.next()?).ok();
        let (start, end) = field()?.split_once('-')?;
        let permissions = field()?;
        let _offset = field()?;
        let (major, minor) = field()?.split_once(':')?;
        let inode = field()?.parse().ok().filter(|&inode| inode != 0)?;
        Some(Mapping {
            start: u64::from_str_radix(start, 16).ok()?,
            end: u64::from_str_radix(end, 16).ok()?,
            shared_writable: permissions.contains('w') && permissions.contains('s'),
            device: libc::makedev(u32::from_str_radix(major, 16).ok()?, u32::from_str_radix(minor, 16).ok()?),
            inode,
            path: fields.next().unwrap_or_default().trim_ascii_start(),
        })
    }

    /// What is mapped; the outer `None` if it is unmapped meanwhile.
    fn identify(&self, process_dir: &Path) -> Option<Option<TargetKind>> {
        let link = process_dir.join(format!("map_files/{:x}-{:x}", self.start, self.end));
        match identify(&link) {
            Ok(kind) => Some(kind),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                // Following these links takes CAP_CHECKPOINT_RESTORE. Second best: device nodes by their name, files by
                // the numbers shown here.
                let name = path(unescape(self.path));
                let node = name.as_os_str().as_bytes().starts_with(b"/dev/");
                let file = TargetKind::File { device: self.device, inode: self.inode };
                Some(if node { identify(&name).ok().flatten() } else { Some(file) })
            }
            Err(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::fs::OpenOptions;

    fn own_pid() -> i32 {
        i32::try_from(std::process::id()).unwrap()
    }

    #[test]
    fn mapping_lines_are_read() {
        let line = b"00400000-00452000 rw-s 00000000 fd:1a 173521      /usr/bin/a b";
        let mapping = Mapping::parse(line).unwrap();
        assert_eq!((mapping.start, mapping.end), (0x40_0000, 0x45_2000));
        assert_eq!((mapping.device, mapping.inode), (libc::makedev(0xfd, 0x1a), 173_521));
        assert!(mapping.shared_writable);
        assert_eq!(mapping.path, b"/usr/bin/a b");
        assert!(!Mapping::parse(b"0-1 rw-p 0 1:1 5 /x").unwrap().shared_writable);
        assert_eq!(Mapping::parse(b"7ffd000-7ffe000 rw-p 00000000 00:00 0      [stack]"), None);
        assert_eq!(Mapping::parse(b""), None);
    }

    #[test]
    fn own_descriptors_and_mappings_are_found() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("image");
        std::fs::write(&file, [0; 4096]).unwrap();
        let kind = identify(&file).unwrap().unwrap();
        let uses = || {
            let search = Search::new(vec![kind]);
            let mut process = search.descriptors(own_pid());
            process.merge(search.mappings(own_pid()));
            process.uses
        };
        assert_eq!(uses(), []);
        let reader = OpenOptions::new().read(true).open(&file).unwrap();
        assert_eq!(uses(), [(0, false)]);
        let writer = OpenOptions::new().read(true).write(true).open(&file).unwrap();
        std::fs::remove_file(&file).unwrap();
        assert_eq!(uses(), [(0, true)]);
        // SAFETY: nothing else touches this scratch file.
        let map = unsafe { memmap2::MmapMut::map_mut(&writer) }.unwrap();
        drop((reader, writer));
        assert_eq!(uses(), [(0, true)], "a mapping outlives its descriptor");
        drop(map);
        assert_eq!(uses(), []);
    }

    #[test]
    fn a_path_only_descriptor_is_no_use() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("image");
        std::fs::write(&file, b"x").unwrap();
        let kind = identify(&file).unwrap().unwrap();
        let descriptor = nix::fcntl::open(
            &file,
            nix::fcntl::OFlag::O_PATH | nix::fcntl::OFlag::O_CLOEXEC,
            nix::sys::stat::Mode::empty(),
        )
        .unwrap();
        assert_eq!(Search::new(vec![kind]).descriptors(own_pid()).uses, []);
        drop(descriptor);
    }

    #[test]
    fn a_process_that_is_gone_is_nothing() {
        assert_eq!(Search::new(Vec::new()).descriptors(i32::MAX), Process::default());
        assert_eq!(Search::new(Vec::new()).mappings(i32::MAX), Process::default());
        assert_eq!(command_of(i32::MAX), "");
        assert!(all_processes().unwrap().contains(&own_pid()));
    }

    proptest! {
        #[test]
        fn garbage_never_panics(line in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Mapping::parse(&line);
        }

        #[test]
        fn damaged_lines_never_panic(line in "[0-9a-f\\-]{0,30} [rwsxp\\-]{0,5} [0-9a-f]{0,9} [0-9a-f:]{0,30} [0-9]{0,25} .{0,9}") {
            let _ = Mapping::parse(line.as_bytes());
        }
    }
}
