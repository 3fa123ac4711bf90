//! `mmp mount` and `mmp adopt`: from the command line to a guard's task. Whatever can be refused is refused here, before
//! anything is started.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use super::args::{Adopt, Mount, OnLoss};
use super::{daemon, exit, guard, output, whole};
use crate::clock;
use crate::config::Config;
use crate::driver::Place;
use crate::error::Error;
use crate::keeper::mounts::{Handover, Purpose, Task};
use crate::protocol::{Activity, timing};
use crate::registry::Registry;
use crate::sys::{KernelView, Target, TargetKind, User, mountinfo, probe, process, queueing, tags, users};

/// Options that make another thing of a mount than what is guarded, and what to use instead.
const FOREIGN_OPTIONS: [(&str, &str); 15] = [
    ("remount", "`mmp remount` does that"),
    ("bind", "a bind mount has no device of its own: guard the filesystem, then bind with mount(8)"),
    ("rbind", "a bind mount has no device of its own: guard the filesystem, then bind with mount(8)"),
    ("move", "use mount(8)"),
    ("loop", "a loop device is this host's alone: make it with losetup(8) and name it"),
    ("offset", "a loop device is this host's alone: make it with losetup(8) and name it"),
    ("sizelimit", "a loop device is this host's alone: make it with losetup(8) and name it"),
    ("shared", "use mount(8) once it is mounted"),
    ("slave", "use mount(8) once it is mounted"),
    ("private", "use mount(8) once it is mounted"),
    ("unbindable", "use mount(8) once it is mounted"),
    ("rshared", "use mount(8) once it is mounted"),
    ("rslave", "use mount(8) once it is mounted"),
    ("rprivate", "use mount(8) once it is mounted"),
    ("runbindable", "use mount(8) once it is mounted"),
];

pub(super) fn run(arguments: &Mount) -> ExitCode {
    let begun = match arguments.without_daemon {
        true => Ok(None),
        false => no_automount(&arguments.dir).and_then(|()| daemon::client::mount(arguments)),
    };
    match begun {
        Ok(Some(code)) => ExitCode::from(code),
        Ok(None) => match task(arguments, &mut output::complain) {
            Ok(task) => guard::guard(&task, arguments.quiet),
            Err(error) => output::failure(&error),
        },
        Err(error) => output::failure(&error),
    }
}

/// Refuses what [`run`] would before it starts anything, and starts nothing.
pub(super) fn check(arguments: &Mount) -> ExitCode {
    match task(arguments, &mut output::complain) {
        Ok(_) => ExitCode::from(exit::DONE),
        Err(error) => output::failure(&error),
    }
}

pub(super) fn adopt(arguments: &Adopt) -> ExitCode {
    let begun = if arguments.without_daemon { Ok(None) } else { daemon::client::adopt(arguments) };
    match begun {
        Ok(Some(code)) => ExitCode::from(code),
        Ok(None) => match adoption(arguments, &mut output::complain) {
            Ok(task) => guard::guard(&task, arguments.quiet),
            Err(error) => output::failure(&error),
        },
        Err(error) => output::failure(&error),
    }
}

/// What there is to do, with everything checked that can be; `warn` hears what is no reason to refuse.
pub(super) fn task(arguments: &Mount, warn: &mut dyn FnMut(&str)) -> Result<Task, Error> {
    let config = Config::host()?;
    let (options, read_only) = options(arguments)?;
    if arguments.filesystem.as_ref().is_some_and(|types| types.contains(',') || types.starts_with("no")) {
        let what = "-t takes one type; to mount(8) a list, or no before one, means others";
        return Err(Error::Argument(what.into()));
    }
    if arguments.tolerate.is_some() && !read_only {
        return Err(Error::Argument("--tolerate is for read-only mounts: otherwise the kernel beats".into()));
    }
    let device = tags::resolve(&arguments.device)?;
    no_automount(&arguments.dir)?;
    let dir = directory(&arguments.dir)?;
    let purpose = Purpose::Mount {
        options,
        read_only,
        handover: arguments.handover.or(config.mount.handover).unwrap_or(Handover::Kernel),
        wait: arguments.wait.unwrap_or_default(),
        fenced: arguments.fenced.clone(),
        tolerate: arguments.tolerate,
    };
    suitable(&device)?;
    let filesystem = match &arguments.filesystem {
        Some(filesystem) => filesystem.clone(),
        None => found_on(&device)?,
    };
    // The processes that stay work in the root directory.
    let absolute = |path: &PathBuf| {
        std::path::absolute(path).map_err(|source| Error::io("find the way to", path, source))
    };
    let slot = arguments.by.area.as_ref().map(absolute).transpose()?;
    let with = arguments.with.iter().map(absolute).collect::<Result<Vec<_>, _>>()?;
    let by = Together { slot: slot.as_deref(), with: &with };
    if by.slot.is_none() {
        whole::check(std::iter::once(device.as_path()).chain(by.with.iter().map(PathBuf::as_path)))?;
    }
    let begin = Begin { asked: &device, dir, filesystem: &filesystem, fence: &arguments.fence, by };
    let task = begin.task(&config, purpose)?;
    check_queueing(&task, warn)?;
    Ok(task)
}

/// As [`task`].
pub(super) fn adoption(arguments: &Adopt, warn: &mut dyn FnMut(&str)) -> Result<Task, Error> {
    let config = Config::host()?;
    let asked = tags::resolve(&arguments.device)?;
    suitable(&asked)?;
    let place = Place::find(&asked, None)?;
    let kernel_name = place.device().kernel_name();
    let unsuitable = |what: String| Err(Error::Unsupported { path: asked.clone(), what });
    let Some(target) = place.target().filter(|_| place.slot().is_none()) else {
        return unsuitable(
            "it is guarded by a slot of an area: what was mounted without that was not protected, and who used it meanwhile is not \
             known; unmount it, and mount it with `mmp mount`"
                .into(),
        );
    };
    match KernelView::new(target.clone(), &kernel_name).ask() {
        Activity::ReadWrite | Activity::ReadOnly => {}
        Activity::Gone | Activity::Ending => {
            return unsuitable("nothing is mounted of it on this host; `mmp mount` mounts it guarded".into());
        }
        Activity::Stopped => {
            return unsuitable(
                "the kernel has stopped its filesystem after an error: unmount it and check it with e2fsck"
                    .into(),
            );
        }
    }
    let Some((dir, filesystem)) = mounted_on(target) else {
        return unsuitable(
            "it is mounted where this process cannot see it; run mmp in that mount namespace".into(),
        );
    };
    let registry = Registry::host();
    // What an earlier guard saw tells whether this host slept since.
    let counted = registry
        .slot(target.kind)
        .and_then(|slot| slot.read().ok().flatten())
        .filter(crate::registry::Record::is_of_this_boot)
        .and_then(|record| record.kernel_counted);
    let by = Together { slot: None, with: &[] };
    let begin = Begin { asked: &asked, dir, filesystem: &filesystem, fence: &arguments.fence, by };
    let task = begin.task(&config, Purpose::Adopt { counted })?;
    // It is mounted already: whatever is found is told, and no reason to leave it unguarded.
    for finding in queueing::check(&task.target(), task.wait_after_lease) {
        warn(&format!("warning: {}; {}", finding.what, finding.advice));
    }
    Ok(task)
}

/// What every task begins with.
struct Begin<'a> {
    asked: &'a Path,
    dir: PathBuf,
    filesystem: &'a str,
    fence: &'a OnLoss,
    by: Together<'a>,
}

/// Where its protection stands, and what is protected with it.
struct Together<'a> {
    slot: Option<&'a Path>,
    with: &'a [PathBuf],
}

impl Begin<'_> {
    fn task(self, config: &Config, purpose: Purpose) -> Result<Task, Error> {
        let number = suitable(self.asked)?;
        let place = Place::find_by(self.asked, self.by.slot, None)?;
        check_writes(&place)?;
        let (mut wait_after_lease, take_back) = waits(&place);
        for other in self.by.with {
            let other = Place::find(other, None)?;
            other.check_writable()?;
            check_writes(&other)?;
            wait_after_lease = wait_after_lease.min(waits(&other).0);
        }
        let device = place.guarded().unwrap_or(place.device());
        Ok(Task {
            asked: self.asked.to_owned(),
            device: device.canonical().to_owned(),
            number,
            kernel_name: device.kernel_name(),
            dir: self.dir,
            filesystem: self.filesystem.to_owned(),
            purpose,
            on_loss: self.fence.on_loss.clone().or_else(|| config.mount.on_loss.clone()).unwrap_or_default(),
            incomplete_fence: self.fence.incomplete_fence,
            wait_after_lease,
            take_back,
            area: place.slot().is_some(),
            known_slot: place.known_slot(),
            guarded_by: self.by.slot.map(Path::to_owned),
            with: self.by.with.to_vec(),
            registry: Registry::host().directory().to_owned(),
            events: config.events.clone(),
            since_s: clock::wall().0,
            earlier: None,
            standby: None,
            resident: false,
        })
    }
}

/// A tail area is beaten while the kernel has the device mounted, and not every kernel allows that.
fn check_writes(place: &Place) -> Result<(), Error> {
    let same = place.guarded().is_some_and(|device| device.kind() == place.device().kind());
    if place.slot().is_none() || !same || !crate::io::kernel_refuses_mounted_writes() {
        return Ok(());
    }
    let what = "this kernel lets nobody write to a device that is mounted, so the area behind its filesystem cannot be beaten; boot with \
                bdev_allow_write_mounted=1, or guard it by a slot of a control LUN (`mmp enable --area`)";
    Err(Error::Unsupported { path: place.asked().to_owned(), what: what.to_owned() })
}

/// How long the fence may take after the lease, and a claim to be taken back.
fn waits(place: &Place) -> (Duration, Duration) {
    match place.slot() {
        Some((area, _)) => (timing::CheckInterval::Area(area.header.interval_ms).wait(), Duration::ZERO),
        None => {
            let superblock = place.medium().update_interval_s();
            let take_back = timing::wait(timing::kernel_check_interval_s(superblock)) + timing::NATIVE_MARGIN;
            (timing::lease(timing::taker_check_interval_s(superblock, 0)), take_back)
        }
    }
}

/// The type of the filesystem on it, as the kernel calls it.
fn found_on(device: &Path) -> Result<String, Error> {
    let found =
        probe::filesystem(device).map_err(|source| Error::io("look what stands on", device, source))?;
    found.map(ToOwned::to_owned).ok_or_else(|| {
        let what = "neither XFS nor ext4 nor btrfs stands on it; say what to mount with -t TYPE".to_owned();
        Error::Unsupported { path: device.to_owned(), what }
    })
}

/// The number of a block device that this process may mount. Looked at before the device is opened, which an ordinary
/// user may not do, and would be told so instead.
fn suitable(asked: &Path) -> Result<(u32, u32), Error> {
    let unsuitable = |what: &str| Err(Error::Unsupported { path: asked.to_owned(), what: what.to_owned() });
    let TargetKind::Block { major, minor } = Target::of(asked)?.kind else {
        return unsuitable(
            "is an image file; make a loop device of it (losetup --direct-io=on -f --show) and mount that",
        );
    };
    if process::may_administer() == Some(false) {
        return unsuitable("mounting takes CAP_SYS_ADMIN; run as root");
    }
    Ok((major, minor))
}

/// All `-o` in one, and whether they ask for a read-only mount.
fn options(arguments: &Mount) -> Result<(OsString, bool), Error> {
    let joined = arguments.options.join(std::ffi::OsStr::new(","));
    let mut read_only = arguments.read_only;
    for option in joined.as_bytes().split(|&byte| byte == b',') {
        match std::str::from_utf8(option).unwrap_or_default() {
            "ro" => read_only = true,
            "rw" if arguments.read_only => {
                return Err(Error::Argument("--read-only and -o rw contradict each other".into()));
            }
            "rw" => read_only = false,
            option => {
                let name = option.split('=').next().unwrap_or_default();
                if let Some((_, instead)) = FOREIGN_OPTIONS.iter().find(|(foreign, _)| *foreign == name) {
                    return Err(Error::Argument(format!("-o {name}: not with a guarded mount; {instead}")));
                }
            }
        }
    }
    Ok((joined, read_only))
}

/// While an automount waits for its mount the kernel lets nobody near the directory but the process group that systemd mounts in, and a guard
/// leaves that: it would wait for itself. The table is asked, since looking at the directory is what waits.
fn no_automount(dir: &Path) -> Result<(), Error> {
    let absolute = std::path::absolute(dir).unwrap_or_default();
    // One that something was mounted on is none any more.
    let waits =
        mountinfo::on_top(|mounted| mounted == absolute).is_some_and(|mount| mount.filesystem == "autofs");
    if !waits {
        return Ok(());
    }
    let what = "an automount waits there (x-systemd.automount, autofs(5)), and would hold up the guard that is to mount it; take that away, and \
                use noauto or nofail"
        .to_owned();
    Err(Error::Unsupported { path: dir.to_owned(), what })
}

fn directory(dir: &Path) -> Result<PathBuf, Error> {
    let fail = |source| Error::io("mount on", dir, source);
    let canonical = dir.canonicalize().map_err(fail)?;
    if !canonical.metadata().map_err(fail)?.is_dir() {
        return Err(fail(std::io::Error::from(std::io::ErrorKind::NotADirectory)));
    }
    Ok(canonical)
}

/// Where it is mounted, as far as this process sees.
fn mounted_on(target: &Target) -> Option<(PathBuf, String)> {
    let users = users::kernel_users(target);
    users.into_iter().find_map(|user| match user {
        User::Mount { dir, filesystem, .. } => Some((dir, filesystem)),
        _ => None,
    })
}

/// Layers that hold I/O back for longer than a wait: what they hold reaches the device after another host took it.
fn check_queueing(task: &Task, warn: &mut dyn FnMut(&str)) -> Result<(), Error> {
    let targets = std::iter::once(task.target()).chain(task.other_targets());
    let found: Vec<_> = targets.flat_map(|target| queueing::check(&target, task.wait_after_lease)).collect();
    let mut refused = Vec::new();
    for finding in found {
        let text = format!("{}; {}", finding.what, finding.advice);
        if finding.refuse && !task.incomplete_fence {
            refused.push(text);
        } else {
            warn(&format!("warning: {text}"));
        }
    }
    if refused.is_empty() {
        return Ok(());
    }
    let what =
        format!("I/O may be held back here for longer than another host waits: {}", refused.join("; "));
    Err(Error::Unsupported { path: task.asked.clone(), what })
}
