//! `mmp remount`: asks the guard, which knows who beats the block; without a guard, mount(8).

use std::process::{Command, ExitCode};

use super::args::Remount;
use super::guard::driver::{Request, ask};
use super::{exit, guard, output, render};
use crate::keeper::mounts::{FSTAB_VARIABLE, NO_FSTAB};
use crate::registry::Registry;

pub(super) fn run(arguments: &Remount) -> ExitCode {
    ended(arguments, plain)
}

/// For mount(8), which has read fstab already, and called us for the type that stands there: asked once more, it would again.
pub(super) fn without_fstab(arguments: &Remount) -> ExitCode {
    ended(arguments, |command| plain(command.env(FSTAB_VARIABLE, NO_FSTAB)))
}

/// `unguarded` runs the mount(8) that it is given.
fn ended(arguments: &Remount, unguarded: impl FnOnce(&mut Command) -> ExitCode) -> ExitCode {
    let what = render::shown(&arguments.what);
    let Some(options) = arguments.options.to_str() else {
        output::complain("options for mount(8) have to be UTF-8");
        return ExitCode::from(exit::USAGE);
    };
    let found = guard::find(&Registry::host(), &arguments.what);
    if let Some(why) = found.as_ref().and_then(|(_, record)| guard::why_not(record)) {
        output::complain(&format!("{what}: not remounted: {why}\n  {}", guard::RUNBOOK));
        return ExitCode::from(exit::LOST);
    }
    if found.as_ref().is_some_and(|(slot, _)| !slot.is_locked()) {
        output::complain(&format!(
            "warning: {what}: its guarding processes are gone; `mmp adopt` puts new ones there"
        ));
    }
    let Some((slot, record)) = found.filter(|(slot, _)| slot.is_locked()) else {
        let mut command = Command::new("mount");
        return unguarded(command.args(["-o", &format!("remount,{options}")]).arg(&arguments.what));
    };
    match ask(&slot.socket(), &Request::Remount { options: options.to_owned() }) {
        Ok(answer) => {
            if !answer.text.is_empty() {
                output::complain(&format!("{what}: {}", answer.text));
            }
            ExitCode::from(answer.code)
        }
        Err(error) => {
            output::complain(&format!(
                "{what}: its guard (process {}) does not answer: {error}; see `mmp status`",
                record.driver_pid
            ));
            ExitCode::from(exit::IO)
        }
    }
}

fn plain(command: &mut Command) -> ExitCode {
    match command.status() {
        Ok(status) if status.success() => ExitCode::from(exit::DONE),
        Ok(_) => ExitCode::from(exit::IO), // it said why
        Err(error) => {
            output::complain(&format!("cannot run mount(8): {error}"));
            ExitCode::from(exit::IO)
        }
    }
}
