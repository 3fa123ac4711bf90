//! What the kernel itself still does with a device, looked for in a hurry.
//!
//! Protects: after a fence the device may hang, and so may whatever stands on it. This search opens nothing, looks at no
//! file outside `/dev`, `/proc` and `/sys`, and ends in time. Does not protect: it finds by name where it must
//! (a loop device or swap space over an image file that has been renamed is missed), knows nothing of processes, and
//! does not see what nothing lists, a lazily unmounted filesystem above all: that nobody was found is no proof.

use std::path::PathBuf;
use std::sync::mpsc::channel;
use std::time::Duration;

use super::User;
use super::scan::{self, Found, Manner, OWN_MOUNTS, Subject};
use crate::clock;
use crate::sys::bounded;
use crate::sys::descriptors;
use crate::sys::sysfs::Sysfs;
use crate::sys::target::{Target, TargetKind};

/// How long the whole search may take.
const LIMIT: Duration = Duration::from_secs(2);
/// Short enough that the first few that hang, and the others after them, leave time for the rest.
const MANNER: Manner = Manner { limit: Duration::from_millis(250), by_name: true };

/// One kind of user: what it is called where it could not be looked for, and how to look for it. An error says that the
/// tables which would show it are missing.
type Stage = (&'static str, fn(&Target, &[Subject], &mut Found) -> Result<(), ()>);

const STAGES: [Stage; 5] = [
    ("a mount", mounts_here),
    ("a mount in another namespace", mounts_elsewhere),
    ("swap space", swap_space),
    ("a device that stands on it", holders),
    ("a loop device", loop_devices),
];

/// See [`super::kernel_users`].
pub(super) fn look(target: &Target) -> Vec<User> {
    run(target, &STAGES, LIMIT)
}

/// All stages at once, so that one that hangs takes no time from the others.
fn run(target: &Target, stages: &[Stage], limit: Duration) -> Vec<User> {
    let until = clock::mono() + limit;
    let (sender, receiver) = channel();
    for (place, &(_, stage)) in stages.iter().enumerate() {
        let (sender, target) = (sender.clone(), target.clone());
        // Without a thread there is no answer, and that is said.
        let _ = bounded::thread(move || {
            let mut found = Found::default();
            let subjects = scan::subjects_of(&target);
            let users = stage(&target, &subjects, &mut found).map(|()| found.users);
            let _ = sender.send((place, users));
        });
    }
    drop(sender);
    let mut told: Vec<Option<Vec<User>>> = vec![None; stages.len()];
    while let Ok((place, users)) = receiver.recv_timeout(until.since(clock::mono())) {
        told[place] = users.ok();
    }
    let unseen = |what: &str| vec![User::Unseen { what: what.to_owned() }];
    let told = told.into_iter().zip(stages).map(|(users, (what, _))| users.unwrap_or_else(|| unseen(what)));
    told.flatten().collect()
}

fn mounts_here(target: &Target, subjects: &[Subject], found: &mut Found) -> Result<(), ()> {
    scan::mounts_here(target, subjects, found);
    exists(OWN_MOUNTS)
}

fn mounts_elsewhere(target: &Target, subjects: &[Subject], found: &mut Found) -> Result<(), ()> {
    // A mount of the same place in ours is told already.
    let here = scan::mounts_here(target, subjects, &mut Found::default());
    let pids = descriptors::all_processes().map_err(drop)?;
    let namespace = |pid: i32| Some((std::fs::read_link(format!("/proc/{pid}/ns/mnt")).ok()?, pid));
    let namespaces: Vec<(PathBuf, i32)> = pids.into_iter().filter_map(namespace).collect();
    scan::mounts_elsewhere(target, subjects, &here, namespaces.into_iter(), MANNER, found);
    Ok(())
}

fn swap_space(target: &Target, subjects: &[Subject], found: &mut Found) -> Result<(), ()> {
    scan::swap_space(target, subjects, MANNER, found);
    exists("/proc/self")
}

fn holders(target: &Target, subjects: &[Subject], found: &mut Found) -> Result<(), ()> {
    scan::holders(subjects, found);
    let known = matches!(target.kind, TargetKind::File { .. }) || Sysfs::host().knows(target.kind);
    known.then_some(()).ok_or(())
}

fn loop_devices(target: &Target, subjects: &[Subject], found: &mut Found) -> Result<(), ()> {
    scan::loop_devices(target, subjects, MANNER, found);
    Sysfs::host().lists_devices().then_some(()).ok_or(())
}

fn exists(path: &str) -> Result<(), ()> {
    std::fs::exists(path).is_ok_and(|it| it).then_some(()).ok_or(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_nothing_uses_has_no_users() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let target = Target::of(file.path()).unwrap();
        // Made earlier: the file itself is not looked for any more.
        drop(file);
        assert_eq!(look(&target), []);
    }

    #[test]
    fn a_stage_that_hangs_fails_or_panics_is_unseen_and_keeps_nobody_waiting() {
        let target = Target { canonical: "/x".into(), kind: TargetKind::File { device: 1, inode: 2 } };
        let stages: [Stage; 4] = [
            ("one that hangs", |_, _, _| {
                clock::sleep(Duration::from_secs(5));
                Ok(())
            }),
            ("one that fails", |_, _, _| Err(())),
            ("one that panics", |_, _, _| panic!("this panic belongs to the test")),
            ("one that answers", |_, _, found| {
                found.users.push(User::Swap);
                Ok(())
            }),
        ];
        let begin = clock::mono();
        let users = run(&target, &stages, Duration::from_millis(300));
        let took = clock::mono().since(begin);
        assert!(took < Duration::from_secs(2), "{took:?}");
        let unseen = |what: &str| User::Unseen { what: what.to_owned() };
        let expected =
            [unseen("one that hangs"), unseen("one that fails"), unseen("one that panics"), User::Swap];
        assert_eq!(users, expected);
    }
}
