//! Guarded mounts: what `mount`, `adopt`, `umount`, `remount` and `status` have in common.
//!
//! Three processes while a mount is being made: this one, the *front*, which the user sees; the *driver*, which does
//! all device I/O; the *keeper*, which runs mount(8) and fences. The last two stay when it is mounted. See
//! `keeper::mounts` for why that is enough.

pub(super) mod driver;
mod front;
mod holders;
mod messages;

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::{exit, output, render};
use crate::clock::{self, Wall};
use crate::error::Error;
use crate::keeper::message::Socket;
use crate::keeper::mounts::{self, Link, Memory, Purpose, Task};
use crate::protocol::Activity;
use crate::registry::{Lost, Phase, Record, Registry, Slot};
use crate::sys::mountinfo::Mount;
use crate::sys::{KernelView, Target, TargetKind, User, mountinfo, tags, users};

use front::Front;
pub(super) use front::{Asker, Terminal};
pub(super) use holders::Holders;

/// What to do after a loss, in this order. README has it at length.
pub(super) const RUNBOOK: &str = "do not use, sync or unmount it here: what is dirty in this host's memory would be \
     written over another host's data; see who has it with `mmp check`; then reboot this host without a sync \
     (`reboot -ff -n`), or cut the device off before you unmount (`mmp fence --test` tells how); only then mount again";

/// How long a guard whose mount is gone may take to release the device.
const LETTING_GO: Duration = Duration::from_secs(5);
/// The name of a thread of the daemon that drives a guard.
pub(super) const DRIVER_THREAD: &str = "mmp-driver";
/// Its stack: a claim's frames hold a few images of 1 KiB, and a look for users a table of processes.
const DRIVER_STACK_BYTES: usize = 1 << 20;
/// How often it is looked for.
const LOOK: Duration = Duration::from_millis(50);

/// Runs the verb `guard-keeper`.
pub(super) fn keeper() -> ExitCode {
    let code = mounts::run(&|parts| driver::run(parts));
    ExitCode::from(u8::try_from(code).unwrap_or(exit::IO))
}

/// Starts a guard with processes of its own, and tells what becomes of it, until it guards or has ended.
pub(super) fn guard(task: &Task, quiet: bool) -> ExitCode {
    let started = Terminal::new(quiet)
        .map_err(|source| Error::io("prepare for signals about", &task.asked, source))
        .and_then(|mut terminal| begin(task, &mut terminal, &front::run));
    match started {
        Ok(code) => ExitCode::from(code),
        Err(error) => output::failure(&error),
    }
}

/// How a guard's driver and keeper are started, and followed until it guards or has ended.
pub(super) type Run<'a> = &'a dyn Fn(&Task, &Memory, OwnedFd, &mut dyn Asker) -> io::Result<u8>;

/// Starts a guard whose driver is a thread of this process, the daemon, and follows it.
pub(super) fn run_in_daemon(
    task: &Task,
    memory: &Memory,
    lock: OwnedFd,
    asker: &mut dyn Asker,
) -> io::Result<u8> {
    let (ours, theirs) = Socket::pair()?;
    let (parts, keeper) = mounts::start_resident(task, memory, lock, Link::of(theirs))?;
    drive(parts)?;
    Ok(Front::new(task, keeper, Link::of(ours), asker).follow())
}

/// Starts the thread that drives a guard.
pub(super) fn drive(parts: mounts::Driver) -> io::Result<()> {
    let builder = std::thread::Builder::new().name(DRIVER_THREAD.to_owned()).stack_size(DRIVER_STACK_BYTES);
    let handed = Arc::new(Mutex::new(Some(parts)));
    let taken = Arc::clone(&handed);
    let body = move || {
        let Some(parts) = taken.lock().ok().and_then(|mut parts| parts.take()) else { return };
        let _one = OneMore::new();
        // Without real-time scheduling, which the threads that beat have: it looks through all processes of the host, and writes records.
        driver::run_in_daemon(parts);
    };
    if let Err(error) = builder.spawn(body) {
        if let Some(parts) = handed.lock().ok().and_then(|mut parts| parts.take()) {
            driver::give_up(parts);
        }
        return Err(error);
    }
    Ok(())
}

/// So many drivers are threads of this process.
pub(super) fn in_daemon() -> usize {
    DRIVERS.load(SeqCst)
}

static DRIVERS: AtomicUsize = AtomicUsize::new(0);

/// One of them, as long as it lives.
struct OneMore;

impl OneMore {
    fn new() -> Self {
        DRIVERS.fetch_add(1, SeqCst);
        OneMore
    }
}

impl Drop for OneMore {
    fn drop(&mut self) {
        DRIVERS.fetch_sub(1, SeqCst);
    }
}

/// Starts a guard and tells what becomes of it, until it guards or has ended.
pub(super) fn begin(task: &Task, asker: &mut dyn Asker, run: Run<'_>) -> Result<u8, Error> {
    let registry = Registry::at(&task.registry);
    let fail = |op, path: &Path| {
        let path = path.to_owned();
        move |source| Error::io(op, &path, source)
    };
    registry.create().map_err(fail("make the directory", registry.directory()))?;
    let Some(lock) = lock(task, asker)? else { return Ok(exit::INTERRUPTED) };
    let lock = lock.map_err(fail("take the lock in", registry.directory()))?;
    let earlier = task.slot().read().ok().flatten().filter(Record::outlives_a_failure);
    if let Some(lost) = earlier.as_ref().and_then(|record| record.lost.as_ref()) {
        let what = earlier_loss(&task.asked, lost);
        if matches!(task.purpose, Purpose::Adopt { .. }) && lost.fence.is_some() {
            asker.complain(&format!("{}: not adopted: {what}\n  {RUNBOOK}", render::shown(&task.asked)));
            return Ok(exit::LOST);
        }
        asker.complain(&format!("note: {what}"));
    }
    let memory = Memory::new(task.members()).map_err(fail("share memory for the lease of", &task.asked))?;
    let task = Task { earlier: earlier.map(Box::new), ..task.clone() };
    run(&task, &memory, lock, asker)
        .map_err(|source| Error::io("start the guarding processes for", &task.asked, source))
}

/// Becomes the device's only guard. One that is there may be about to let go: it is waited for as long as the user
/// said, and a moment in any case if nothing is mounted any more. None if he changed his mind.
fn lock(task: &Task, asker: &mut dyn Asker) -> Result<Option<io::Result<OwnedFd>>, Error> {
    let slot = task.slot();
    let view = KernelView::new(task.target(), &task.kernel_name).without_kmmpd(task.area);
    let asked_until = clock::mono() + task.patience();
    let mut told = task.patience().is_zero();
    let mut begun = None;
    loop {
        match slot.lock() {
            Ok(Some(lock)) => return Ok(Some(Ok(lock))),
            Ok(None) => {}
            Err(error) => return Ok(Some(Err(error))),
        }
        if asker.wants_out() {
            asker.complain("interrupted; nothing was begun");
            return Ok(None);
        }
        let now = clock::mono();
        let ending = matches!(view.ask(), Activity::Gone | Activity::Ending);
        // Somebody who only asks has it for less than that.
        let begun = *begun.get_or_insert(now);
        let patience = if ending { LETTING_GO } else { LOOK * 2 };
        if now >= asked_until && now >= begun + patience {
            let record = slot.read().ok().flatten();
            let users = vec![record.as_ref().map_or_else(|| "guarded by mmp already".to_owned(), guarded)];
            return Err(Error::UsedHere { path: task.asked.clone(), users });
        }
        if !std::mem::replace(&mut told, true) {
            asker.line("in use on this host, guarded by mmp; waiting for it to end");
        }
        clock::sleep(LOOK);
    }
}

fn guarded(record: &Record) -> String {
    let dir = record.dir.as_deref().map(render::shown).unwrap_or_default();
    match record.phase {
        Phase::Beginning => format!("process {} is about to mount it on {dir}", record.driver_pid),
        Phase::Guarding => format!("guarded by process {}, mounted on {dir}", record.driver_pid),
        Phase::Releasing => format!("process {} is releasing it", record.driver_pid),
        Phase::Lost => format!("lost, and being fenced by process {}", record.keeper_pid),
    }
}

/// What is said of a device that this host lost before.
pub(super) fn earlier_loss(device: &Path, lost: &Lost) -> String {
    format!(
        "this host lost {} at {}: {}; {}",
        render::shown(device),
        render::when(Wall(lost.at_s)),
        lost.reason,
        fenced(lost)
    )
}

/// What keeps a filesystem from being unmounted or remounted: it was lost while it was mounted.
pub(super) fn why_not(record: &Record) -> Option<String> {
    match (&record.lost, record.phase) {
        (None, Phase::Lost) => Some("its protection was lost just now, and it is being fenced".to_owned()),
        (Some(lost), _) if lost.fence.is_some() => Some(earlier_loss(&record.device, lost)),
        _ => None,
    }
}

/// What the fence came to.
pub(super) fn fenced(lost: &Lost) -> String {
    lost.outcome()
}

/// The guarded device that is named by itself, by a tag, or by where it is mounted, through symbolic links, too.
pub(super) fn find(registry: &Registry, what: &Path) -> Option<(Slot, Record)> {
    let here = |(_, record): &(Slot, Record)| record.is_of_this_boot();
    let records: Vec<_> = registry.list().unwrap_or_default().into_iter().filter(here).collect();
    let device = tags::resolve(what).unwrap_or_else(|_| what.to_owned());
    let by_device = Target::of(&device).ok().and_then(|target| registry.slot(target.kind));
    let names = [what.to_owned(), std::path::absolute(what).unwrap_or_default(), without_links(what)];
    let mounted = mounted_at(what);
    if let (None, Some(Mount { device: TargetKind::Block { major: 0, .. }, filesystem, .. })) =
        (&by_device, &mounted)
    {
        // The number of the filesystem, not of a device (btrfs): what every guarded one is mounted on tells. What was mounted over
        // a guarded one, a tmpfs, is another.
        let is_there = |record: &Record| {
            record.filesystem == *filesystem && dirs_of(record).iter().any(|dir| names.contains(dir))
        };
        return records.into_iter().find(|(_, record)| is_there(record));
    }
    let slot = by_device.or_else(|| mounted.and_then(|mount| registry.slot(mount.device)));
    if let Some(slot) = slot {
        return records.into_iter().find(|(other, _)| *other == slot);
    }
    // Nothing is mounted there any more, but a guard may still be at it, or have lost it.
    let same = |dir: &Path| names.iter().any(|name| name == dir);
    let mut found = records.into_iter().filter(|(_, record)| record.dir.as_deref().is_some_and(same));
    found.next_back()
}

/// What is mounted there, the last one if there are several on top of each other. The directory may be a mount that hangs: its name is
/// compared, and it is not looked into.
pub(super) fn mounted_at(dir: &Path) -> Option<Mount> {
    let names = [std::path::absolute(dir).unwrap_or_default(), without_links(dir)];
    mountinfo::on_top(|mounted| names.iter().any(|name| name == mounted))
}

/// Where this device is mounted now, as far as this process sees: it may have been moved since it was guarded.
pub(super) fn where_mounted(record: &Record) -> Option<PathBuf> {
    let dirs = dirs_of(record);
    dirs.iter().find(|dir| record.dir.as_ref() == Some(dir)).or_else(|| dirs.first()).cloned()
}

/// Every directory that it is mounted on, as far as this process sees; of a filesystem on several devices, all of it.
fn dirs_of(record: &Record) -> Vec<PathBuf> {
    let users = users::kernel_users(&target_of(record)).into_iter();
    users.filter_map(|user| if let User::Mount { dir, .. } = user { Some(dir) } else { None }).collect()
}

/// What a record is about.
pub(super) fn target_of(record: &Record) -> Target {
    let Record { major, minor, .. } = *record;
    Target { canonical: record.device.clone(), kind: TargetKind::Block { major, minor } }
}

/// Its parent without symbolic links; the last part is not looked at, unless it is a link itself.
fn without_links(path: &Path) -> PathBuf {
    if path.is_symlink() {
        return path.canonicalize().unwrap_or_default();
    }
    let path = std::path::absolute(path).unwrap_or_default();
    match (path.parent().and_then(|parent| parent.canonicalize().ok()), path.file_name()) {
        (Some(parent), Some(name)) => parent.join(name),
        _ => path,
    }
}
