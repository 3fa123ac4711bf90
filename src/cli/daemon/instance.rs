//! One daemon a runtime directory.
//!
//! Protects: a second one is refused, with the process that is there. The lock is the kernel's, which gives it up with the process; but a process
//! whose thread hangs in a device is dead long before it is gone, and must not keep its successor out: then the lock's file is
//! replaced. Does not protect from two daemons with different directories.

use std::fs::{File, TryLockError};
use std::io::{self, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;

use crate::registry::Registry;
use crate::sys::process::leader_lives;

/// The right to be the daemon, as long as this lives.
#[derive(Debug)]
pub(super) struct Instance(#[allow(dead_code)] File);

/// Who has it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Taken {
    /// 0 if it has not said so yet.
    pub(super) pid: i32,
}

/// Becomes the only one.
///
/// # Errors
/// When the system refuses.
pub(super) fn become_the_one(registry: &Registry) -> io::Result<Result<Instance, Taken>> {
    let path = lock_of(registry);
    // Starting is itself one at a time: two that find a dead owner must not both replace his file.
    let (_starting, first) = open(&registry.directory().join("daemon.start"))?;
    if !first {
        return Ok(Err(Taken { pid: 0 }));
    }
    let (mut file, locked) = open(&path)?;
    if !locked {
        let pid = daemon_pid(registry).unwrap_or(0);
        if pid == 0 || leader_lives(pid) {
            return Ok(Err(Taken { pid }));
        }
        std::fs::remove_file(&path)?;
        let (again, locked) = open(&path)?;
        if !locked {
            return Ok(Err(Taken { pid: 0 }));
        }
        file = again;
    }
    file.set_len(0)?;
    file.seek(SeekFrom::Start(0))?;
    writeln!(file, "{}", std::process::id())?;
    Ok(Ok(Instance(file)))
}

/// The process that is the daemon, by what it has written down; none if none has.
pub(super) fn daemon_pid(registry: &Registry) -> Option<i32> {
    let text = std::fs::read_to_string(lock_of(registry)).ok()?;
    text.trim().parse().ok().filter(|&pid| pid > 0)
}

fn lock_of(registry: &Registry) -> PathBuf {
    registry.directory().join("daemon.lock")
}

fn open(path: &PathBuf) -> io::Result<(File, bool)> {
    let file = File::options().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
    match file.try_lock() {
        Ok(()) => Ok((file, true)),
        Err(TryLockError::WouldBlock) => Ok((file, false)),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_one_is_refused_and_a_dead_ones_lock_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let registry = Registry::at(dir.path());
        let first = become_the_one(&registry).unwrap().unwrap();
        let us = i32::try_from(std::process::id()).unwrap();
        assert_eq!(become_the_one(&registry).unwrap().unwrap_err(), Taken { pid: us });
        // Its process is gone, and a thread of it that hangs keeps the lock.
        std::fs::write(dir.path().join("daemon.lock"), "999999999\n").unwrap();
        let second = become_the_one(&registry).unwrap().unwrap();
        assert_eq!(become_the_one(&registry).unwrap().unwrap_err(), Taken { pid: us });
        drop(first);
        assert!(become_the_one(&registry).unwrap().is_err());
        drop(second);
        assert!(become_the_one(&registry).unwrap().is_ok());
    }
}
