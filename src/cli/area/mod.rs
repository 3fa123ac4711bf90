//! `mmp area`: making, showing and changing areas; and `mmp enable`, which takes whatever protection suits a device.

pub(super) mod args;
pub(super) mod change;
mod enable;
mod report;

use std::process::ExitCode;

use self::args::{Area, Create, SlotVerb, Verb};
pub(super) use self::enable::run as enable;
pub(super) use self::report::show_slot;
use super::interrupt::Interrupt;
use super::{exit, output, render};
use crate::area::{Plan, Wanted};
use crate::driver::AreaView;
use crate::error::Error;
use crate::io::Device;

pub(super) fn run(arguments: &Area) -> ExitCode {
    match &arguments.verb {
        Verb::Create(arguments) => create(arguments),
        Verb::Show(arguments) => report::show(arguments),
        Verb::List(arguments) => report::list(arguments),
        Verb::Slot(SlotVerb::Add(arguments)) => ended(change::add(arguments)),
        Verb::Slot(SlotVerb::Remove(arguments)) => ended(change::remove(arguments)),
        Verb::Slot(SlotVerb::Rename(arguments)) => ended(change::rename(arguments)),
        Verb::Move(arguments) => ended(change::relocate(arguments)),
        Verb::Repair(arguments) => ended(change::repair(arguments)),
        Verb::Destroy(arguments) => ended(change::destroy(arguments)),
    }
}

fn ended(result: Result<(), Error>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::from(exit::DONE),
        Err(error) => output::failure(&error),
    }
}

fn create(arguments: &Create) -> ExitCode {
    ended(file_and_area(arguments))
}

fn file_and_area(arguments: &Create) -> Result<(), Error> {
    let path = &arguments.target;
    let wanted = Wanted { slots: arguments.slots, ..wanted(&arguments.made, arguments.interval) };
    // A file that is not there is made; one that could not become an area is taken away again.
    let made = match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            // A device that is not there, and no file in its place.
            if path.starts_with("/dev") && !path.starts_with("/dev/shm") {
                return Err(Error::io("find it", path, error));
            }
            let file = std::fs::File::options().write(true).create_new(true).open(path);
            Some(file.map_err(|source| Error::io("make the file", path, source))?)
        }
        _ => None,
    };
    let result = make_file_long(path, arguments.slots).and_then(|was_empty| {
        // Nobody needs to say that nothing stood in it.
        let wanted = Wanted { blank: wanted.blank || was_empty, ..wanted };
        let plan = Plan::new(&Device::inspect(path)?, &wanted)?;
        make(&plan, arguments.quiet)
    });
    if result.is_err() && made.is_some() {
        let _ = std::fs::remove_file(path);
    }
    let view = result?;
    output::tell(path, arguments.quiet, &told(&view));
    Ok(())
}

/// An empty file is made as long as the area; tells whether it was empty.
fn make_file_long(path: &std::path::Path, slots: u32) -> Result<bool, Error> {
    let metadata = std::fs::metadata(path).map_err(|source| Error::io("find it", path, source))?;
    if !metadata.is_file() || metadata.len() > 0 {
        return Ok(false);
    }
    let layout = crate::format::area::AreaLayout::new(0, slots.saturating_add(1))
        .map_err(|error| Error::Argument(error.to_string()))?;
    let file = std::fs::File::options().write(true).open(path);
    file.and_then(|file| file.set_len(layout.total_bytes()))
        .map(|()| true)
        .map_err(|source| Error::io("make it long enough", path, source))
}

fn wanted(made: &args::Made, interval_ms: u32) -> Wanted {
    Wanted {
        slots: 1,
        label: made.label,
        interval_ms,
        end_bytes: made.end,
        blank: made.blank,
        fresh: made.fresh,
    }
}

/// Carries a plan out, with a progress bar, until it is interrupted.
fn make(plan: &Plan, quiet: bool) -> Result<AreaView, Error> {
    let interrupt = Interrupt::listen()?;
    let hidden = quiet || plan.layout.slots() < 4096;
    let bar = match hidden {
        true => indicatif::ProgressBar::hidden(),
        false => indicatif::ProgressBar::new(plan.layout.slots().into()),
    };
    let result = plan.carry_out(&mut |done, total| {
        bar.set_length(total.into());
        bar.set_position(done.into());
        !interrupt.came()
    });
    bar.finish_and_clear();
    result
}

/// What was made, in a line.
fn told(view: &AreaView) -> String {
    let slots = view.header.slots - 1;
    format!(
        "an area of {slots} slot{} stands at bytes {} to {}",
        if slots == 1 { "" } else { "s" },
        view.layout.header_offset_bytes(),
        view.layout.end_bytes() - 1
    )
}
