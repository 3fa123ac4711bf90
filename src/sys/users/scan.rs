//! The search itself: one pass over mount tables, swaps, sysfs, loop devices and processes.
//!
//! Protects and does not protect: see [`super`]. Everything that may hang runs within `bounded`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::{Survey, User};
use crate::Error;
use crate::clock;
use crate::sys::bounded::{self, STEP_LIMIT};
use crate::sys::descriptors::{self, Process, Search};
use crate::sys::exclusive::ExclusiveHold;
use crate::sys::mountinfo::{self, Mount};
use crate::sys::sysfs::Sysfs;
use crate::sys::target::{Target, TargetKind, identify};
use crate::sys::{loops, swaps};

/// How often the exclusive claim is asked for while nobody is seen who could have it, and the pause between.
const TRIES: u32 = 3;
const PAUSE: Duration = Duration::from_millis(100);

/// What each process told.
type Told = Vec<(i32, Process)>;

/// The target itself, a partition of it, or its whole disk.
struct Subject {
    kind: TargetKind,
    place: Place,
}

enum Place {
    Itself,
    Partition(String),
    WholeDisk(String),
}

/// Takes the exclusive hold, then searches, so that whoever came before the hold is found. With `keep` false the hold
/// is given back before the search already: it would keep others from mounting for as long as that takes.
pub(super) fn look_and_hold(
    target: &Target,
    ignore_pids: &[i32],
    keep: bool,
) -> Result<(Survey, Option<ExclusiveHold>), Error> {
    let mut tries = 1;
    loop {
        let hold = ExclusiveHold::take(target)?;
        let free = hold.is_some();
        let hold = hold.filter(|_| keep);
        let mut survey = look(target, ignore_pids)?;
        if free || survey.users.iter().any(User::claims_exclusively) {
            return Ok((survey, hold));
        }
        if tries == TRIES {
            survey.users.push(User::Exclusive);
            return Ok((survey, None));
        }
        tries += 1;
        clock::sleep(PAUSE);
    }
}

/// Searches, without touching the device.
pub(super) fn look(target: &Target, ignore_pids: &[i32]) -> Result<Survey, Error> {
    let subjects = subjects_of(target);
    let mut found = Found { users: Vec::new(), complete: true };
    if matches!(target.kind, TargetKind::Block { .. }) {
        found.complete &= Sysfs::host().knows(target.kind);
    }
    let (processes, stuck) = look_into_processes(&subjects)?;
    mounts(target, &subjects, &processes, &mut found);
    swap_space(target, &subjects, &mut found);
    for subject in &subjects {
        for name in Sysfs::host().holders(subject.kind) {
            found.add(subject, User::Holder { name });
        }
    }
    loop_devices(&subjects, &mut found);
    let own = i32::try_from(std::process::id()).unwrap_or_default();
    let ignored = |pid: i32| pid == own || ignore_pids.contains(&pid);
    for (pid, process) in &processes {
        found.complete &= !process.hidden;
        for &(place, writable) in &process.uses {
            // A process with the whole disk open (a monitor, multipathd) does not thereby use this partition.
            if !ignored(*pid) && !matches!(subjects[place].place, Place::WholeDisk(_)) {
                let command = process.command.clone();
                found.add(&subjects[place], User::Process { pid: *pid, command, writable });
            }
        }
    }
    for pid in stuck.into_iter().filter(|&pid| !ignored(pid)) {
        found.unseen(format!("process {pid} ({})", descriptors::command_of(pid)));
    }
    Ok(Survey { users: found.users, complete: found.complete })
}

struct Found {
    users: Vec<User>,
    complete: bool,
}

impl Found {
    fn add(&mut self, subject: &Subject, user: User) {
        let user = match &subject.place {
            Place::Itself => user,
            Place::Partition(name) => User::Partition { name: name.clone(), user: Box::new(user) },
            Place::WholeDisk(name) => User::WholeDisk { name: name.clone(), user: Box::new(user) },
        };
        if !self.users.contains(&user) {
            self.users.push(user);
        }
    }

    fn unseen(&mut self, what: String) {
        self.complete = false;
        self.users.push(User::Unseen { what });
    }
}

fn subjects_of(target: &Target) -> Vec<Subject> {
    let mut subjects = vec![Subject { kind: target.kind, place: Place::Itself }];
    subjects.extend(
        Sysfs::host()
            .partitions(target.kind)
            .into_iter()
            .map(|named| Subject { kind: named.kind, place: Place::Partition(named.name) }),
    );
    subjects.extend(
        Sysfs::host()
            .disk_of(target.kind)
            .map(|named| Subject { kind: named.kind, place: Place::WholeDisk(named.name) }),
    );
    subjects
}

/// What the processes told, and those that did not answer.
fn look_into_processes(subjects: &[Subject]) -> Result<(Told, Vec<i32>), Error> {
    let pids = descriptors::all_processes()
        .map_err(|error| Error::io("list the processes", Path::new("/proc"), error))?;
    let search = Search::new(subjects.iter().map(|subject| subject.kind).collect());
    let answers = bounded::each(pids.clone(), STEP_LIMIT, move |&pid| search.look_into(pid));
    let told = answers.done.into_iter().map(|(place, process)| (pids[place], process)).collect();
    Ok((told, answers.stuck.into_iter().map(|place| pids[place]).collect()))
}

fn mounts(target: &Target, subjects: &[Subject], processes: &[(i32, Process)], found: &mut Found) {
    let image = matches!(target.kind, TargetKind::File { .. }).then_some(target.canonical.as_path());
    let devices: Vec<Vec<TargetKind>> = subjects
        .iter()
        .map(|subject| [vec![subject.kind], Sysfs::host().btrfs_siblings(subject.kind)].concat())
        .collect();
    let of = |mount: &Mount| devices.iter().position(|devices| mount.is_of(devices, image));

    let table = std::fs::read("/proc/self/mountinfo").unwrap_or_default();
    found.complete &= !table.is_empty();
    let mut here = Vec::new();
    for mount in mountinfo::parse(&table) {
        let Some(place) = of(&mount) else { continue };
        here.push((place, mount.dir.clone()));
        let source = mount.source.to_string_lossy().into_owned();
        found.add(&subjects[place], User::Mount { dir: mount.dir, filesystem: mount.filesystem, source });
    }
    for (pid, command, table) in other_tables(processes, found) {
        for mount in mountinfo::parse(&table) {
            let Some(place) = of(&mount) else { continue };
            // A copy in the namespace of a service says nothing new while it is mounted there in ours as well.
            if !here.contains(&(place, mount.dir.clone())) {
                let user = User::MountElsewhere { pid, command: command.clone(), dir: mount.dir };
                found.add(&subjects[place], user);
            }
        }
    }
}

/// The mount table of every other mount namespace, with the process it was read through.
fn other_tables(processes: &[(i32, Process)], found: &mut Found) -> Vec<(i32, String, Vec<u8>)> {
    let own = std::fs::read_link("/proc/self/ns/mnt").ok();
    let mut namespaces: BTreeMap<PathBuf, Vec<i32>> = BTreeMap::new();
    for (pid, process) in processes {
        if let Some(namespace) = process.mount_namespace.clone().filter(|it| Some(it) != own.as_ref()) {
            namespaces.entry(namespace).or_default().push(*pid);
        }
    }
    let groups: Arc<Vec<Vec<i32>>> = Arc::new(namespaces.into_values().collect());
    let read = Arc::clone(&groups);
    let answers = bounded::each((0..groups.len()).collect(), STEP_LIMIT, move |&group| {
        // The first that still lives: a process that is ending has no table any more.
        read[group].iter().find_map(|&pid| {
            let table = std::fs::read(format!("/proc/{pid}/mountinfo")).ok()?;
            (!table.is_empty()).then_some((pid, table))
        })
    });
    for place in answers.stuck {
        found.unseen(format!("the mount namespace of process {}", groups[place][0]));
    }
    let name = |pid| {
        processes
            .iter()
            .find(|(known, _)| *known == pid)
            .map(|(_, it)| it.command.clone())
            .unwrap_or_default()
    };
    let tables = answers.done.into_iter().filter_map(|(_, table)| table);
    tables.map(|(pid, table)| (pid, name(pid), table)).collect()
}

fn swap_space(target: &Target, subjects: &[Subject], found: &mut Found) {
    // A kernel without swap has no such file.
    let swaps = swaps::parse(&std::fs::read("/proc/swaps").unwrap_or_default());
    for path in &swaps {
        if *path == target.canonical {
            found.add(&subjects[0], User::Swap);
        }
    }
    let answers = bounded::each(swaps, STEP_LIMIT, |path| identify(path).ok().flatten());
    for kind in answers.done.into_iter().filter_map(|(_, kind)| kind) {
        for subject in subjects.iter().filter(|subject| subject.kind == kind) {
            found.add(subject, User::Swap);
        }
    }
    found.complete &= answers.stuck.is_empty();
}

fn loop_devices(subjects: &[Subject], found: &mut Found) {
    // Nothing backs itself, and the target may be the one device that hangs.
    let mut candidates = Sysfs::host().loops();
    candidates.retain(|candidate| subjects.iter().all(|subject| subject.kind != candidate.device.kind));
    let paths: Vec<_> =
        candidates.iter().map(|candidate| format!("/dev/{}", candidate.device.name)).collect();
    let answers = bounded::each(candidates, STEP_LIMIT, loops::backing_of);
    for (place, backing) in answers.done {
        for subject in subjects.iter().filter(|subject| Some(subject.kind) == backing) {
            found.add(subject, User::Loop { device: paths[place].clone() });
        }
    }
    for place in answers.stuck {
        found.unseen(paths[place].clone());
    }
}
