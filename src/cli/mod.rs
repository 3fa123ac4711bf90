//! The command line: one file a verb.

mod area;
mod args;
mod check;
mod clear;
mod daemon;
mod demo;
mod events;
mod exit;
mod fence;
mod generate;
mod guard;
mod health;
mod helper;
mod history;
mod interrupt;
mod monitor;
mod mount;
mod native;
mod output;
mod progress;
mod remount;
mod render;
mod run;
mod scan;
mod show;
mod status;
mod umount;
mod whole;

use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::process::ExitCode;

use clap::Parser as _;

use self::args::{Cli, Verb};
use crate::metrics;
use crate::registry::Registry;

/// Parses the arguments, runs the verb and gives its exit code. By what name it is called decides who it is.
#[must_use]
pub fn main() -> ExitCode {
    let called = std::env::args_os().next().unwrap_or_default();
    match Path::new(&called).file_name().and_then(OsStr::to_str) {
        Some("mount.mmp") => helper::mount(),
        Some("umount.mmp") => helper::umount(),
        Some(daemon::NAME) => verb(Some("daemon")),
        _ => verb(None),
    }
}

/// `named` is the verb that the name of the program stands for.
fn verb(named: Option<&str>) -> ExitCode {
    let mut arguments: Vec<OsString> = std::env::args_os().collect();
    if let Some(named) = named {
        arguments.insert(1, named.into());
    }
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    match cli.verb {
        Verb::Daemon(_) => daemon::log(),
        _ => log(),
    }
    match &cli.verb {
        Verb::Show(arguments) => show::run(arguments),
        Verb::Scan(arguments) => scan::run(arguments),
        Verb::Check(arguments) => check::run(arguments),
        Verb::Clear(arguments) => clear::run(arguments),
        Verb::Area(arguments) => area::run(arguments),
        Verb::Enable(arguments) => area::enable(arguments),
        Verb::Disable(arguments) => native::disable(arguments),
        Verb::Set(arguments) => native::set(arguments),
        Verb::Run(arguments) => run::run(arguments),
        Verb::Mount(arguments) => mount::run(arguments),
        Verb::Umount(arguments) => umount::run(arguments),
        Verb::Remount(arguments) => remount::run(arguments),
        Verb::Adopt(arguments) => mount::adopt(arguments),
        Verb::Status(arguments) => status::run(arguments),
        Verb::Daemon(arguments) => daemon::run(arguments),
        Verb::Standby(arguments) => daemon::standby(arguments),
        Verb::Health(arguments) => health::run(arguments),
        Verb::Events(arguments) => events::run(arguments),
        Verb::Metrics => output::text(&metrics::render(&Registry::host())),
        Verb::EventHook => hook(),
        Verb::GuardKeeper => guard::keeper(),
        Verb::Fence(arguments) => fence::run(arguments),
        Verb::Demo(arguments) => demo::run(arguments),
        Verb::Generate(arguments) => generate::run(arguments),
    }
}

/// Supervises a hook; nobody waits for its exit code.
fn hook() -> ExitCode {
    match crate::events::hooks::run_supervisor() {
        Ok(_) => ExitCode::from(exit::DONE),
        Err(_) => ExitCode::from(exit::IO),
    }
}

/// Debugging output, for whoever asks for it with `MMP_LOG=debug`. Never from the thread that beats.
fn log() {
    if let Ok(filter) = tracing_subscriber::EnvFilter::try_from_env("MMP_LOG") {
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    }
}

/// Help and version go to standard output with 0; mistakes to standard error with the usage code of the verb.
fn usage(error: &clap::Error) -> ExitCode {
    let _ = error.print();
    let for_run = std::env::args_os().nth(1).is_some_and(|verb| verb == "run");
    match (error.use_stderr(), for_run) {
        (false, _) => ExitCode::from(exit::DONE),
        (true, true) => ExitCode::from(exit::RUN_USAGE),
        (true, false) => ExitCode::from(exit::USAGE),
    }
}
