//! Guarded mounts of a LUN: `mmp mount`, and the two processes that stay.
//!
//! On a loss nothing runs but the shutdown rung, and that is said each time: no test may reboot the machine it runs on.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use mmpguard::clock::{self, Mono};
use serde_json::Value;

use super::block::Sample;
use super::lun::{Loop, Lun, command, must, text};
use super::process::Process;
use super::started::{Ended, Started, patiently};
use super::throttle::Throttle;
use super::{at_most_strictly, seconds};

/// What is done on a loss.
pub(crate) const LADDER: [&str; 3] = ["--on-loss", "shutdown", "--incomplete-fence"];
/// The longest honest mount: a clean mark that may lie, and the kernel's two waits after it.
pub(crate) const MOUNT_PATIENCE: Duration = Duration::from_secs(120);
/// Starts what follows in the group whose list of processes is its first argument.
const IN_GROUP: &str = "echo $$ > \"$0\" && exec \"$@\"";

/// A guarded mount.
#[derive(Debug)]
pub(crate) struct Guarded {
    pub(crate) dir: PathBuf,
    pub(crate) driver: Process,
    pub(crate) keeper: Process,
    /// How long `mmp mount` took.
    pub(crate) took: Duration,
}

/// How a mount is started: nothing of it is needed.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct How<'a> {
    pub(crate) options: &'a [&'a str],
    pub(crate) env: &'a [(&'a str, String)],
    /// Its writes are slow.
    pub(crate) slow: Option<&'a Throttle>,
}

impl Lun {
    /// Starts `mmp mount`.
    pub(crate) fn guard(&self, on: &Loop, options: &[&str]) -> (Started, PathBuf) {
        self.guard_with(on, How { options, ..How::default() })
    }

    pub(crate) fn guard_with(&self, on: &Loop, how: How<'_>) -> (Started, PathBuf) {
        let dir = self.new_mount();
        let mut arguments = vec![env!("CARGO_BIN_EXE_mmp"), "mount"];
        arguments.extend(LADDER);
        arguments.extend(how.options);
        arguments.extend([on.path(), text(&dir)]);
        (self.start_in(how, &arguments), dir)
    }

    /// Starts a kernel mount.
    pub(crate) fn mount_with(&self, on: &Loop, how: How<'_>) -> (Started, PathBuf) {
        let dir = self.new_mount();
        let mut arguments = vec!["mount", "-t", "ext4"];
        arguments.extend(how.options);
        arguments.extend([on.path(), text(&dir)]);
        (self.start_in(how, &arguments), dir)
    }

    fn start_in(&self, how: How<'_>, arguments: &[&str]) -> Started {
        match how.slow {
            None => self.start_with(arguments[0], &arguments[1..], how.env),
            Some(throttle) => {
                let processes = throttle.processes();
                let mut all = vec!["-c", IN_GROUP, text(&processes)];
                all.extend(arguments);
                self.start_with("sh", all, how.env)
            }
        }
    }

    /// Mounts it guarded, and waits for it.
    pub(crate) fn guarded(&self, on: &Loop, options: &[&str]) -> Guarded {
        let (mut mounting, dir) = self.guard(on, options);
        let end = mounting.end(MOUNT_PATIENCE);
        end.expect(0);
        self.guard_of(on, dir, end.took)
    }

    /// The guard that is there.
    pub(crate) fn guard_of(&self, on: &Loop, dir: PathBuf, took: Duration) -> Guarded {
        let status = self.status(on);
        let process = |name: &str| {
            let pid = status[name].as_i64().and_then(|pid| i32::try_from(pid).ok());
            let process = pid.and_then(Process::of).filter(Process::is_alive);
            process.unwrap_or_else(|| panic!("no {name} in {status}"))
        };
        let (driver, keeper) = (process("driver_pid"), process("keeper_pid"));
        assert_eq!((driver.comm.as_str(), keeper.comm.as_str()), ("mmp-driver", "mmp-keeper"));
        Guarded { dir, driver, keeper, took }
    }

    /// What `mmp status --json` says of it; null if nothing is known of it.
    pub(crate) fn status(&self, on: &Loop) -> Value {
        let mut asked = self.mmp(&["status", "--json", on.path()]);
        let end = asked.end(seconds(20));
        let report: Value = serde_json::from_str(&end.out).unwrap_or_else(|error| panic!("{error}: {end:?}"));
        report["guards"][0].clone()
    }

    /// Waits until the status is as wanted, and gives it with when that was seen.
    pub(crate) fn status_until(
        &self,
        on: &Loop,
        patience: Duration,
        wanted: impl Fn(&Value) -> bool,
    ) -> (Value, Mono) {
        let mut last = Value::Null;
        let found = patiently(patience, || {
            last = self.status(on);
            wanted(&last).then(clock::mono)
        });
        let at = found.unwrap_or_else(|| panic!("not so within {patience:?}: {last:#}"));
        (last, at)
    }

    /// `mmp umount`, which waits until it is released.
    pub(crate) fn release(&self, dir: &Path) -> Ended {
        let end = self.mmp(&["umount", text(dir)]).end(seconds(70));
        end.expect(0);
        self.forget_mount(dir);
        end
    }

    /// `e2fsck -fn` of the image: nobody may have it mounted.
    pub(crate) fn fsck(&self) -> Ended {
        self.start("e2fsck", ["-fn", text(self.image())]).end(seconds(60))
    }
}

impl Guarded {
    /// Both processes at once, so that neither can replace the other.
    pub(crate) fn kill(&self) {
        use nix::sys::signal::Signal::SIGKILL;
        // The keeper first: it would fork a new driver within a millisecond.
        self.keeper.signal(SIGKILL);
        self.driver.signal(SIGKILL);
    }

    /// Neither of them was replaced, and none has ended.
    pub(crate) fn assert_alive(&self) {
        assert!(self.driver.is_alive() && self.keeper.is_alive(), "the guard ended: {self:?}");
    }
}

/// Every state is kmmpd's own: its names, and its count, of which a machine under load may miss a state.
pub(crate) fn kernels_count(device: &str, beats: &[Sample]) -> Vec<u32> {
    let counts: Vec<u32> = beats.iter().map(|beat| beat.block.seq).collect();
    assert!(counts.len() >= 3, "hardly any beat: {beats:#?}");
    assert!(beats.iter().all(|beat| beat.block.device.to_string() == device), "not of {device}: {beats:#?}");
    let counts_on = |pair: &[u32]| (1..=3).contains(&pair[1].wrapping_sub(pair[0]));
    assert!(counts.windows(2).all(counts_on), "a write that is not kmmpd's: {beats:#?}");
    counts
}

/// A refusal of a live device, which takes one beat. How long on a machine under load is not ours to say, but it is sooner
/// than the kernel's own.
pub(crate) fn refused_soon(case: &str, what: &str, took: Duration) {
    at_most_strictly(case, &format!("the refusal of {what}"), took, 1.4, 10.5);
}

/// A frozen filesystem, thawed when dropped.
#[derive(Debug)]
pub(crate) struct FrozenMount(PathBuf);

impl FrozenMount {
    pub(crate) fn new(mount: &Path) -> FrozenMount {
        must("fsfreeze", &["-f", text(mount)]);
        FrozenMount(mount.to_owned())
    }
}

impl Drop for FrozenMount {
    fn drop(&mut self) {
        command("fsfreeze", &["-u", text(&self.0)]);
    }
}

/// Files that are on the disk when this returns; an error ends it.
pub(crate) fn write_files(dir: &Path, name: &str, count: usize) -> std::io::Result<()> {
    for number in 0..count {
        let mut file = File::create(dir.join(format!("{name}-{number}")))?;
        file.write_all(&content(name, number))?;
        file.sync_all()?;
    }
    Ok(())
}

/// How many of these files are not what was written.
pub(crate) fn spoiled(dir: &Path, name: &str, count: usize) -> usize {
    let good = |number: &usize| {
        fs::read(dir.join(format!("{name}-{number}"))).is_ok_and(|bytes| bytes == content(name, *number))
    };
    (0..count).filter(|number| !good(number)).count()
}

fn content(name: &str, number: usize) -> Vec<u8> {
    format!("{name} {number} ").repeat(1000).into_bytes()
}
