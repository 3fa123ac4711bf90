//! `mmp run`: hold a device while a command runs; the command dies when the protection does.
//!
//! Three processes: this one, the *front*, which the user sees and which never touches the device; the *driver*,
//! which does all device I/O and may hang in it; the *keeper*, which starts the command and kills it when the lease
//! runs out, whatever became of the other two. See `keeper` for why that is enough.
//!
//! Protects: whichever of the three is killed, the command's tree is dead at once. Does not protect from a stop of the
//! whole host: what was stopped with everything else runs on for as long as the keeper needs to run.

mod driver_process;
mod front;
mod messages;

use std::os::fd::{AsFd, AsRawFd};
use std::process::ExitCode;

use nix::unistd::Pid;

use self::driver_process::Driver;
use self::front::{Front, Watched};
use super::args::Run;
use super::{exit, output};
use crate::driver::cell::LeaseCell;
use crate::driver::leases::Leases;
use crate::keeper::message::Socket;
use crate::keeper::{DriverPipe, KeeperHandle, KeeperSpec};
use crate::sys::Target;
use crate::sys::process;
use crate::sys::realtime::spare_from_oom;
use crate::sys::spawn::{Descriptors, Place, fork_process};

pub(super) fn run(arguments: &Run) -> ExitCode {
    match start(arguments) {
        Ok(front) => ExitCode::from(front.run()),
        Err(error) => {
            output::complain(&format!("cannot start the guarding processes: {error}"));
            ExitCode::from(exit::RUN_OTHER)
        }
    }
}

/// Forks driver and keeper. Until the keeper was told to start, nothing is protected and nothing runs.
fn start(arguments: &Run) -> std::io::Result<Front<'_>> {
    // What the keeper leaves behind, should it be killed, falls to us.
    process::become_subreaper()?;
    let signals = front::signals()?;
    let cells = arguments.devices.iter().map(|_| LeaseCell::new()).collect::<std::io::Result<Vec<_>>>()?;
    let cell = Leases::from(cells.clone());
    // Whatever is wrong with a path, the driver says it.
    let targets = arguments.devices.iter().filter_map(|device| Target::of(device).ok()).collect();
    let (pipe, driver_pipe) = DriverPipe::new()?;
    let (ours, theirs) = Socket::pair()?;
    let keep = [pipe.as_fd().as_raw_fd(), theirs.as_fd().as_raw_fd()];
    let driver = Driver { cells, pipe, front: theirs };
    // The closure owns the driver's ends: this process's copies are closed with it.
    let driver = fork_process(c"mmp-driver", Place::OwnSession, Descriptors::Only(&keep), move || {
        driver.run(arguments)
    })?;
    let keeper = KeeperHandle::fork(KeeperSpec {
        cell: cell.clone(),
        driver_pipe,
        driver,
        command: arguments.command.clone(),
    })
    .inspect_err(|_| kill(driver))?;
    // After the forks: the command must not inherit it.
    if let Err(error) = spare_from_oom() {
        tracing::debug!(%error, "front");
    }
    Ok(Front::new(arguments, signals, Watched { cell, targets }, driver, ours, keeper))
}

/// All of them, as they were asked for.
fn named(devices: &[std::path::PathBuf]) -> String {
    devices.iter().map(|device| super::render::shown(device)).collect::<Vec<_>>().join(", ")
}

fn kill(pid: Pid) {
    let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
}
