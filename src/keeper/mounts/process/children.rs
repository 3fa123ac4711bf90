//! The keeper's children: mount(8), the driver, and who asks the kernel for it.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::sync::OnceLock;
use std::time::Duration;

use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::signal::Signal;
use nix::unistd::Pid;

use super::super::super::message::Socket;
use super::super::{FSTAB_VARIABLE, FromKeeper, Link, NAMES, NO_FSTAB};
use super::{Adoption, Driver, DriverLink, DriverPipe, Keeper};
use crate::clock;
use crate::driver::cell::CellState;
use crate::protocol::Activity;
use crate::sys::process::{self, Change, ProcessRef, Wait};
use crate::sys::spawn::{
    CommandEnd, CommandSpec, Descriptors, Place, SpawnFailure, SpawnKind, Spawning, fork_process, output_to,
    spawn_command,
};

/// What mount(8) says is kept up to so many bytes.
const SAID_AT_MOST: usize = 4096;
/// How long a mount that was killed is waited for.
const KILL_PATIENCE: Duration = Duration::from_millis(500);
/// How long the kernel is asked what it does with the device: that may open it, and hang with it.
const ASK_PATIENCE: Duration = Duration::from_millis(500);

/// Both output streams of this process, and so of what it starts.
static SAID: OnceLock<File> = OnceLock::new();

/// mount(8), on its way.
pub(super) struct Mounter {
    spawning: Spawning,
}

/// Catches what this process and its children write to standard output and standard error.
pub(super) fn catch_output() -> io::Result<File> {
    let file = File::from(memfd_create(c"mmp-said", MFdFlags::MFD_CLOEXEC)?);
    output_to(file.as_fd())?;
    Ok(file)
}

/// Keeps what [`catch_output`] gave.
pub(super) fn remember(said: File) {
    let _ = SAID.set(said);
}

impl Keeper<'_> {
    pub(super) fn mount(&mut self, arguments: &[OsString]) {
        let mut argv = vec![OsString::from("mount")];
        argv.extend(arguments.iter().cloned());
        if self.mounter.is_some() || self.cell.state() == CellState::Lost {
            // One that was given up hangs in the kernel still; and what is lost is not mounted any more.
            let busy = SpawnFailure { kind: SpawnKind::Other, errno: nix::libc::EBUSY };
            return self.mount_ended(CommandEnd::NotStarted(busy));
        }
        self.mount_begun = true;
        forget_what_was_said();
        let spec = CommandSpec {
            argv: &argv,
            env: &[(FSTAB_VARIABLE.into(), NO_FSTAB.into())],
            foreground: false,
            cgroup: None,
            protection: &self.protection,
        };
        match spawn_command(&spec) {
            Ok(spawning) => self.mounter = Some(Mounter { spawning }),
            Err(failure) => self.mount_ended(CommandEnd::NotStarted(failure)),
        }
    }

    /// Ends mount(8): in its waits the kernel lets it go at once. What came of it the kernel knows.
    pub(super) fn stop_mount(&mut self) {
        let Some(mounter) = &self.mounter else { return };
        let _ = process::signal_group(mounter.spawning.pid, Signal::SIGKILL as i32);
        let until = clock::mono() + KILL_PATIENCE;
        while self.mounter.is_some() && clock::mono() < until {
            self.look_after_children();
            clock::sleep(Duration::from_millis(2));
        }
    }

    pub(super) fn look_after_children(&mut self) {
        while let Ok(Some(_)) = self.signals.read_signal() {}
        let mut ends = Vec::new();
        process::reap_all(Wait::Ends, &mut |pid, change| ends.push((pid, change)));
        for (pid, change) in ends {
            let is_mount = self.mounter.as_ref().is_some_and(|mounter| mounter.spawning.pid == pid);
            let end = match change {
                _ if !is_mount => continue,
                Change::Exited(status) => CommandEnd::Exited(status),
                Change::Killed(signal) => CommandEnd::Killed(signal),
                Change::Stopped(_) => continue,
            };
            let mounter = self.mounter.take().expect("it is the mount that ended");
            match mounter.spawning.result() {
                Some(Err(failure)) => self.mount_ended(CommandEnd::NotStarted(failure)),
                _ => self.mount_ended(end),
            }
        }
    }

    fn mount_ended(&self, end: CommandEnd) {
        self.tell_driver(&FromKeeper::MountEnded { end, said: what_was_said() });
    }

    /// Forks the driver off this process.
    pub(super) fn start_driver(&mut self, adoption: Option<Adoption>) -> io::Result<()> {
        let (ours, theirs) = Socket::pair()?;
        let (pipe, our_pipe) = DriverPipe::new()?;
        let front = self.front_for_driver.take().map(Socket::of).transpose()?;
        let parts = Driver {
            task: self.task.clone(),
            memory: self.memory.clone(),
            lock: self.lock.try_clone()?,
            keeper: Link::of(theirs),
            pipe,
            front: front.map(Link::of),
            adoption,
            resident: false,
        };
        let mut keep = vec![
            parts.lock.as_raw_fd(),
            parts.keeper.as_fd().as_raw_fd(),
            parts.pipe.as_fd().as_raw_fd(),
            self.memory.words.descriptor().as_raw_fd(),
        ];
        keep.extend(parts.front.iter().map(|front| front.as_fd().as_raw_fd()));
        let (body, protection) = (self.body, self.protection.clone());
        let pid = fork_process(NAMES.1, Place::OwnSession, Descriptors::Only(&keep), move || {
            protection.undo_in_child();
            body(parts)
        })?;
        let process = ProcessRef::open(pid)?;
        let link = Link::of(ours);
        self.driver = Some(DriverLink { process, link, pipe: our_pipe, resident: false, stopped: false });
        Ok(())
    }

    pub(super) fn kill_driver(&mut self) {
        if let Some(driver) = &self.driver {
            let _ = driver.process.signal(Signal::SIGKILL as i32);
        }
    }

    /// Whether anything of the kernel's uses the device. Asked by a process of its own, since asking may hang; without an
    /// answer it is.
    pub(super) fn is_mounted(&self) -> bool {
        let views = self.views.clone();
        let asked = fork_process(c"mmp-ask", Place::OwnSession, Descriptors::Only(&[]), move || {
            i32::from(views.iter().any(|view| view.ask() != Activity::Gone))
        });
        let Ok(pid) = asked else { return true };
        match answer(pid) {
            Some(code) => code != 0,
            None => true,
        }
    }
}

fn answer(pid: Pid) -> Option<i32> {
    use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
    let until = clock::mono() + ASK_PATIENCE;
    loop {
        match waitpid(pid, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(_, code)) => return Some(code),
            Ok(WaitStatus::StillAlive) if clock::mono() < until => clock::sleep(Duration::from_millis(2)),
            _ => {
                let _ = nix::sys::signal::kill(pid, Signal::SIGKILL);
                return None;
            }
        }
    }
}

fn forget_what_was_said() {
    if let Some(mut said) = SAID.get() {
        let _ = said.set_len(0);
        let _ = said.seek(SeekFrom::Start(0));
    }
}

fn what_was_said() -> String {
    let mut bytes = Vec::new();
    if let Some(mut said) = SAID.get() {
        let _ = said.seek(SeekFrom::Start(0));
        let _ = said.take(SAID_AT_MOST as u64).read_to_end(&mut bytes);
    }
    String::from_utf8_lossy(&bytes).trim().to_owned()
}
