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
use crate::sys::sysfs::{LoopDevice, Sysfs};
use crate::sys::target::{Target, TargetKind, identify};
use crate::sys::{loops, swaps};

/// The mount table of our own namespace.
pub(super) const OWN_MOUNTS: &str = "/proc/self/mountinfo";

/// How often the exclusive claim is asked for while nobody is seen who could have it, and the pause between.
const TRIES: u32 = 3;
const PAUSE: Duration = Duration::from_millis(100);

/// So many processes that do not answer are named.
const NAMED_AT_MOST: usize = 8;

/// What the processes told.
struct Told {
    processes: Vec<(i32, Process)>,
    /// Those whose descriptors could not be seen.
    stuck: Vec<i32>,
    /// False if there may be processes, or mappings of one, that were not looked at.
    complete: bool,
}

/// The target itself, a partition of it, or its whole disk.
pub(super) struct Subject {
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

/// Says if the tables that show users inside the kernel are missing, as they may be in a container: without them silence
/// means nothing, and a clean mark would be a guess.
pub(super) fn require_tables(target: &Target, sysfs: Sysfs<'_>, mountinfo: &Path) -> Result<(), Error> {
    let lacks = |what: String| Error::Unsupported { path: target.canonical.clone(), what };
    if !std::fs::read(mountinfo).is_ok_and(|table| !table.is_empty()) {
        let table = mountinfo.display();
        return Err(lacks(format!(
            "whether it is mounted on this host cannot be seen, {table} is missing or unreadable; mount /proc"
        )));
    }
    if let TargetKind::Block { major, minor } = target.kind
        && !sysfs.knows(target.kind)
    {
        let root = sysfs.0.display();
        return Err(lacks(format!(
            "what stands on it on this host cannot be seen, {root}/dev/block/{major}:{minor} is missing; \
             mount sysfs on {root} (in a container: the host's)"
        )));
    }
    Ok(())
}

/// Searches, without touching the device.
pub(super) fn look(target: &Target, ignore_pids: &[i32]) -> Result<Survey, Error> {
    let subjects = subjects_of(target);
    let mut found = Found { users: Vec::new(), complete: true };
    found.complete &= match target.kind {
        TargetKind::Block { .. } => Sysfs::host().knows(target.kind),
        TargetKind::File { .. } => Sysfs::host().lists_devices(),
    };
    let told = look_into_processes(&subjects)?;
    found.complete &= told.complete;
    let here = mounts_here(target, &subjects, &mut found);
    let namespaces = told.processes.iter().filter_map(|(pid, it)| Some((it.mount_namespace.clone()?, *pid)));
    mounts_elsewhere(target, &subjects, &here, namespaces, Manner::THOROUGH, &mut found);
    swap_space(target, &subjects, Manner::THOROUGH, &mut found);
    holders(&subjects, &mut found);
    loop_devices(target, &subjects, Manner::THOROUGH, &mut found);
    let own = i32::try_from(std::process::id()).unwrap_or_default();
    let ignored = |pid: i32| pid == own || ignore_pids.contains(&pid);
    for (pid, process) in &told.processes {
        found.complete &= !process.hidden;
        for &(place, writable) in &process.uses {
            // A process with the whole disk open (a monitor, multipathd) does not thereby use this partition.
            if !ignored(*pid) && !matches!(subjects[place].place, Place::WholeDisk(_)) {
                let command = process.command.clone();
                found.add(&subjects[place], User::Process { pid: *pid, command, writable });
            }
        }
    }
    found.unseen_processes(told.stuck.into_iter().filter(|&pid| !ignored(pid)).collect());
    Ok(Survey { users: found.users, complete: found.complete })
}

/// How to look at what is not the target's own.
#[derive(Clone, Copy)]
pub(super) struct Manner {
    /// How long one thing may take.
    pub(super) limit: Duration,
    /// Opens no loop device and looks at no file outside `/dev`: names decide instead of identities.
    pub(super) by_name: bool,
}

impl Manner {
    const THOROUGH: Manner = Manner { limit: STEP_LIMIT, by_name: false };

    /// Which path may be asked what it is: a dead file server is not behind `/dev`.
    fn may_ask(self, path: &Path) -> bool {
        !self.by_name || path.starts_with("/dev")
    }
}

#[derive(Default)]
pub(super) struct Found {
    pub(super) users: Vec<User>,
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

    /// Names some of them: a dead file server may have hundreds stuck.
    fn unseen_processes(&mut self, pids: Vec<i32>) {
        for pid in pids.iter().take(NAMED_AT_MOST) {
            self.unseen(format!("process {pid} ({})", descriptors::command_of(*pid)));
        }
        match pids.len().saturating_sub(NAMED_AT_MOST) {
            0 => {}
            1 => self.unseen("1 more process".to_owned()),
            more => self.unseen(format!("{more} more processes")),
        }
    }
}

pub(super) fn subjects_of(target: &Target) -> Vec<Subject> {
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

/// Asks every process for its descriptors, and those that answered for their mappings.
fn look_into_processes(subjects: &[Subject]) -> Result<Told, Error> {
    let pids = descriptors::all_processes()
        .map_err(|error| Error::io("list the processes", Path::new("/proc"), error))?;
    let search = Arc::new(Search::new(subjects.iter().map(|subject| subject.kind).collect()));
    let by_descriptor = Arc::clone(&search);
    let name = |pid: &i32| format!("descriptors of {pid}");
    let answers = bounded::each(pids.clone(), STEP_LIMIT, name, move |&pid| by_descriptor.descriptors(pid));
    let stuck = answers.stuck.into_iter().map(|place| pids[place]).collect();
    let mut processes: Vec<_> =
        answers.done.into_iter().map(|(place, process)| (pids[place], process)).collect();
    let asked = processes.iter().map(|(pid, _)| *pid).collect();
    let name = |pid: &i32| format!("mappings of {pid}");
    let answers = bounded::each(asked, STEP_LIMIT, name, move |&pid| search.mappings(pid));
    for (place, mapped) in answers.done {
        processes[place].1.merge(mapped);
    }
    let complete = answers.stuck.is_empty() && descriptors::shows_all(&pids);
    Ok(Told { processes, stuck, complete })
}

/// The devices whose mounts are mounts of each subject.
fn mountable(subjects: &[Subject]) -> Vec<Vec<TargetKind>> {
    let siblings = |kind| Sysfs::host().btrfs_siblings(kind);
    subjects.iter().map(|subject| [vec![subject.kind], siblings(subject.kind)].concat()).collect()
}

/// Which subject a mount is of.
fn place_of(mount: &Mount, mountable: &[Vec<TargetKind>], target: &Target) -> Option<usize> {
    let image = matches!(target.kind, TargetKind::File { .. }).then_some(target.canonical.as_path());
    mountable.iter().position(|devices| mount.is_of(devices, image))
}

/// The mounts in our own namespace; gives their places.
pub(super) fn mounts_here(target: &Target, subjects: &[Subject], found: &mut Found) -> Vec<(usize, PathBuf)> {
    let mountable = mountable(subjects);
    let table = std::fs::read(OWN_MOUNTS).unwrap_or_default();
    found.complete &= !table.is_empty();
    let mut here = Vec::new();
    for mount in mountinfo::parse(&table) {
        let Some(place) = place_of(&mount, &mountable, target) else { continue };
        here.push((place, mount.dir.clone()));
        let source = mount.source.to_string_lossy().into_owned();
        found.add(&subjects[place], User::Mount { dir: mount.dir, filesystem: mount.filesystem, source });
    }
    here
}

/// The mounts in every other mount namespace, read through one of its processes.
pub(super) fn mounts_elsewhere(
    target: &Target,
    subjects: &[Subject],
    here: &[(usize, PathBuf)],
    namespaces: impl Iterator<Item = (PathBuf, i32)>,
    manner: Manner,
    found: &mut Found,
) {
    let own = std::fs::read_link("/proc/self/ns/mnt").ok();
    let mut groups: BTreeMap<PathBuf, Vec<i32>> = BTreeMap::new();
    for (namespace, pid) in namespaces.filter(|(namespace, _)| Some(namespace) != own.as_ref()) {
        groups.entry(namespace).or_default().push(pid);
    }
    let groups: Vec<_> = groups.into_iter().collect();
    let first_of: Vec<i32> = groups.iter().map(|(_, pids)| pids[0]).collect();
    let name = |(namespace, _): &(PathBuf, Vec<i32>)| format!("mounts of {}", namespace.display());
    let answers = bounded::each(groups, manner.limit, name, |(_, pids)| {
        // The first that still lives: a process that is ending has no table any more.
        pids.iter().find_map(|&pid| {
            let table = std::fs::read(format!("/proc/{pid}/mountinfo")).ok()?;
            (!table.is_empty()).then_some((pid, table))
        })
    });
    for place in answers.stuck {
        found.unseen(format!("the mount namespace of process {}", first_of[place]));
    }
    let mountable = mountable(subjects);
    for (pid, table) in answers.done.into_iter().filter_map(|(_, table)| table) {
        for mount in mountinfo::parse(&table) {
            let Some(place) = place_of(&mount, &mountable, target) else { continue };
            // A copy in the namespace of a service says nothing new while it is mounted there in ours as well.
            if !here.contains(&(place, mount.dir.clone())) {
                let command = descriptors::command_of(pid);
                found.add(&subjects[place], User::MountElsewhere { pid, command, dir: mount.dir });
            }
        }
    }
}

pub(super) fn swap_space(target: &Target, subjects: &[Subject], manner: Manner, found: &mut Found) {
    // A kernel without swap has no such file.
    let mut swaps = swaps::parse(&std::fs::read("/proc/swaps").unwrap_or_default());
    for path in &swaps {
        if *path == target.canonical {
            found.add(&subjects[0], User::Swap);
        }
    }
    swaps.retain(|path| manner.may_ask(path));
    let name = |path: &PathBuf| format!("swap {}", path.display());
    let answers = bounded::each(swaps, manner.limit, name, |path| identify(path).ok().flatten());
    for kind in answers.done.into_iter().filter_map(|(_, kind)| kind) {
        for subject in subjects.iter().filter(|subject| subject.kind == kind) {
            found.add(subject, User::Swap);
        }
    }
    found.complete &= answers.stuck.is_empty();
}

pub(super) fn holders(subjects: &[Subject], found: &mut Found) {
    for subject in subjects {
        for name in Sysfs::host().holders(subject.kind) {
            found.add(subject, User::Holder { name });
        }
    }
}

pub(super) fn loop_devices(target: &Target, subjects: &[Subject], manner: Manner, found: &mut Found) {
    // Nothing backs itself, and the target may be the one device that hangs.
    let mut candidates = Sysfs::host().loops();
    candidates.retain(|candidate| subjects.iter().all(|subject| subject.kind != candidate.device.kind));
    let path_of = |candidate: &LoopDevice| format!("/dev/{}", candidate.device.name);
    let paths: Vec<_> = candidates.iter().map(path_of).collect();
    let target = target.clone();
    let answers = bounded::each(candidates, manner.limit, path_of, move |candidate| {
        if !manner.by_name {
            return loops::backing_of(candidate);
        }
        if candidate.backing == target.canonical {
            return Some(target.kind);
        }
        manner.may_ask(&candidate.backing).then(|| identify(&candidate.backing).ok().flatten()).flatten()
    });
    for (place, backing) in answers.done {
        for subject in subjects.iter().filter(|subject| Some(subject.kind) == backing) {
            found.add(subject, User::Loop { device: paths[place].clone() });
        }
    }
    for place in answers.stuck {
        found.unseen(paths[place].clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_the_kernels_tables_nothing_is_said() {
        let root = tempfile::tempdir().unwrap();
        let (sysfs, table) = (Sysfs(root.path()), root.path().join("mountinfo"));
        let of = |kind| Target { canonical: "/dev/x".into(), kind };
        let block = of(TargetKind::Block { major: 7, minor: 3 });
        let file = of(TargetKind::File { device: 1, inode: 2 });
        let lacks = |target: &Target| match require_tables(target, sysfs, &table) {
            Err(Error::Unsupported { what, .. }) => what,
            other => panic!("{other:?}"),
        };
        for empty in [false, true] {
            if empty {
                std::fs::write(&table, "").unwrap();
            }
            assert!(lacks(&block).contains("mountinfo is missing") && lacks(&file).contains("mount /proc"));
        }
        std::fs::write(&table, "36 27 7:3 / /srv rw - xfs /dev/loop3 rw\n").unwrap();
        assert!(lacks(&block).contains("/dev/block/7:3 is missing"), "{}", lacks(&block));
        assert!(require_tables(&file, sysfs, &table).is_ok());
        std::fs::create_dir_all(root.path().join("dev/block/7:3")).unwrap();
        assert!(require_tables(&block, sysfs, &table).is_ok());
    }

    #[test]
    fn few_of_many_stuck_processes_are_named() {
        let texts = |count| {
            let mut found = Found { complete: true, ..Found::default() };
            found.unseen_processes((i32::MAX - count..i32::MAX).collect());
            assert_eq!(found.complete, count == 0);
            found.users.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!((texts(0).len(), texts(8).len(), texts(9).len(), texts(300).len()), (0, 8, 9, 9));
        assert!(texts(8)[0].starts_with("process "), "{:?}", texts(8));
        assert_eq!(texts(9)[8], "1 more process may use it: no answer");
        assert_eq!(texts(300)[8], "292 more processes may use it: no answer");
    }
}
