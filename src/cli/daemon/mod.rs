//! `mmp daemon`: many guards in one process, and who asks for them.
//!
//! # What it protects
//! As `mmp mount` does with two processes a guard; here the drivers are threads of one process, and each guard has a keeper of its own, as
//! before: what fences must not wait for what fences another device. The guarding threads know nothing of the rest: sockets, signals
//! and systemd are served by one thread with tokio, which no beat waits for.
//!
//! # Why its death costs nothing
//! A keeper whose daemon is gone waits for the next one for less than a beat, then puts a process of its own there
//! (`keeper::mounts::handing`, and `process::succession`). A daemon that starts asks every keeper for its guard. Nothing that
//! matters is in the daemon alone: lease and trace are words in memory that the keeper shares, the rest stands in `/run/mmp`.
//!
//! # What it does not
//! It decides nothing: it guards what it is asked to. A standby's watch dies with it.

pub(super) mod client;
mod instance;
mod logging;
mod methods;
mod request;
mod residents;
mod serve;
mod standby;
mod standing;
mod systemd;
mod varlink;

use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use nix::unistd::Group;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinSet;

pub(super) use logging::begin as log;
pub(super) use standing::{Standby, run as standby};

use self::instance::Instance;
use self::methods::Host;
use self::serve::Side;
use super::{exit, guard, output};
use crate::clock;
use crate::config::Config;
use crate::error::Error;
use crate::metrics::{self, Listen};
use crate::registry::Registry;
use crate::sys::activation::passed_sockets;
use crate::sys::realtime::{Lock, protect_without_scheduling, raise_open_files};

/// The name under which it is called directly, and its process's name.
pub(super) const NAME: &str = "mmpd";
/// Whose members may ask how things are.
const MONITOR_GROUP: &str = "mmp";

/// Threads without which it is no daemon.
const ESSENTIAL: [&str; 4] = [guard::DRIVER_THREAD, "mmp-beat", "mmp-adoption", "mmp-standby"];
/// So many requests and scrapes read records at once.
const BLOCKING_AT_MOST: usize = 8;
/// How often it is tried again to listen for those who want figures.
const FIGURES_AGAIN: Duration = Duration::from_secs(5);
/// How long what a bug says may take to be written.
const LAST_WORDS: Duration = Duration::from_millis(100);

#[derive(Debug, Args)]
pub(super) struct Daemon {}

/// Where root asks.
pub(super) fn control_socket(registry: &Registry) -> PathBuf {
    registry.directory().join("daemon.sock")
}

/// Where others ask how things are.
fn monitor_socket(registry: &Registry) -> PathBuf {
    registry.directory().join("monitor.sock")
}

/// Runs it until it is told to end.
pub(super) fn run(_: &Daemon) -> ExitCode {
    match start() {
        Ok(code) => ExitCode::from(code),
        Err(error) => output::failure(&error),
    }
}

fn start() -> Result<u8, Error> {
    let registry = Registry::host();
    let fail = |op| {
        let path = registry.directory().to_owned();
        move |source| Error::io(op, &path, source)
    };
    // A file that cannot be meant is told now. What is guarded already goes on; a mount is refused as long as it is so.
    let config = Config::host().unwrap_or_else(|error| {
        output::failure(&error);
        Config::default()
    });
    registry.create().map_err(fail("make the directory"))?;
    let instance = match instance::become_the_one(&registry).map_err(fail("take the daemon's lock in"))? {
        Ok(instance) => instance,
        Err(taken) => {
            let who = if taken.pid == 0 {
                "which has just started".to_owned()
            } else {
                format!("process {}", taken.pid)
            };
            output::complain(&format!("a daemon runs already, {who}"));
            return Ok(exit::IN_USE);
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(BLOCKING_AT_MOST)
        .build()
        .map_err(fail("start the control plane in"))?;
    // Whoever can reach it can end it in order.
    let signals = {
        let _inside = runtime.enter();
        Signals::listen().map_err(fail("prepare for signals in"))?
    };
    let sockets = Sockets::open(&registry).map_err(fail("listen in"))?;
    prepare_process();
    let host = Arc::new(Host {
        registry: registry.clone(),
        standbys: standby::Standbys::default(),
        under_way: methods::UnderWay::default(),
    });
    let ended = runtime
        .block_on(serve_until_told(signals, sockets, config.metrics.listen, host))
        .map_err(fail("serve the sockets in"));
    if let Err(error) = &ended {
        output::failure(error);
    }
    leave(instance, if ended.is_ok() { exit::DONE } else { exit::IO })
}

/// Ends the process at once, with every guarding thread in it: a guard that was dropped instead would be lost, while its keeper
/// hands it on.
fn leave(instance: Instance, code: u8) -> ! {
    let _keep = instance;
    crate::sys::spawn::exit_at_once(code)
}

fn prepare_process() {
    let protection = protect_without_scheduling(Lock::OnFault);
    tracing::debug!(?protection, "daemon");
    crate::sys::realtime::remember(&protection);
    let _ = nix::sys::prctl::set_name(c"mmpd");
    raise_open_files();
    // Writing a core waits for every thread, and so for one that hangs in a device.
    let _ = nix::sys::prctl::set_dumpable(false);
    // A guard whose thread has a bug must not be left half alive: the keepers hand all of them on.
    std::panic::set_hook(Box::new(move |panic| {
        tracing::error!(%panic, "a bug");
        let thread = std::thread::current();
        if thread.name().is_some_and(|name| ESSENTIAL.contains(&name)) {
            clock::sleep(LAST_WORDS);
            let _ = nix::sys::signal::raise(nix::sys::signal::Signal::SIGKILL);
        }
    }));
}

/// Serves until a signal ends it, or a socket cannot be served.
async fn serve_until_told(
    mut signals: Signals,
    sockets: Sockets,
    figures: Option<Listen>,
    host: Arc<Host>,
) -> io::Result<()> {
    let mut serving = JoinSet::new();
    serving.spawn(serve::serve(sockets.control, Side::Control, Arc::clone(&host)));
    serving.spawn(serve::serve(sockets.monitor, Side::Monitor, Arc::clone(&host)));
    look_for_residents(&host.registry)?;
    systemd::ready();
    if let Some(listen) = figures {
        serving.spawn(serve_figures(listen, host.registry.clone()));
    }
    serving.spawn(systemd::watch());
    loop {
        tokio::select! {
            _ = signals.terminated.recv() => break,
            _ = signals.interrupted.recv() => break,
            // The configuration is read at each mount: there is nothing to read anew.
            _ = signals.hung_up.recv() => {}
            Some(ended) = serving.join_next() => ended.map_err(io::Error::other)??,
        }
    }
    systemd::stopping();
    Ok(())
}

/// Guards matter more than their figures: where nobody can listen that is told, and tried again. A port may be kept by a predecessor that has
/// a thread hang in a device.
async fn serve_figures(listen: Listen, registry: Registry) -> io::Result<()> {
    let mut told = false;
    let listener = loop {
        match metrics::Listener::bind(&listen).await {
            Ok(listener) => break listener,
            Err(error) if !told => {
                output::complain(&format!("metrics are not served at {listen:?} for now: {error}"));
                told = true;
            }
            Err(_) => {}
        }
        tokio::time::sleep(FIGURES_AGAIN).await;
    };
    metrics::serve(listener, move || metrics::render(&registry)).await
}

/// Starts the thread that looks for guards that belong here.
fn look_for_residents(registry: &Registry) -> io::Result<()> {
    let registry = registry.clone();
    let body = move || {
        let mut residents = residents::Residents::default();
        loop {
            residents.adopt(&registry);
            clock::sleep(residents::PERIOD);
        }
    };
    std::thread::Builder::new().name("mmp-adoption".to_owned()).spawn(body).map(drop)
}

/// What ends it.
struct Signals {
    terminated: Signal,
    interrupted: Signal,
    hung_up: Signal,
}

impl Signals {
    /// From here on.
    fn listen() -> io::Result<Self> {
        Ok(Signals {
            terminated: signal(SignalKind::terminate())?,
            interrupted: signal(SignalKind::interrupt())?,
            hung_up: signal(SignalKind::hangup())?,
        })
    }
}

/// What the daemon listens on.
struct Sockets {
    control: OwnedFd,
    monitor: OwnedFd,
}

impl Sockets {
    /// Those that systemd opened, by their names, or else our own.
    fn open(registry: &Registry) -> io::Result<Self> {
        let (mut control, mut monitor) = (None, None);
        for (socket, name) in passed_sockets()? {
            match name.as_str() {
                "control" => control = Some(socket),
                "monitor" => monitor = Some(socket),
                name => tracing::warn!(name, "a socket that is not known was passed"),
            }
        }
        let monitor_of_ours = || {
            // A name service may answer late: it is asked only where it matters.
            let group = Group::from_name(MONITOR_GROUP).ok().flatten().map(|group| group.gid);
            let mode = if group.is_some() { 0o660 } else { 0o600 };
            serve::listen(&monitor_socket(registry), mode, group)
        };
        Ok(Sockets {
            control: control.map_or_else(|| serve::listen(&control_socket(registry), 0o600, None), Ok)?,
            monitor: monitor.map_or_else(monitor_of_ours, Ok)?,
        })
    }
}
