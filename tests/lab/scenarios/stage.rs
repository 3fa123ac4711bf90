//! What the scenarios have in common: two hosts on a disk, who mounts it how, who writes, and what is on it afterwards.

use std::time::Duration;

use mmpguard::clock;
use mmpguard::protocol::sequence::SEQ_CLEAN;

use crate::agent::Found;
use crate::book::Guarded;
use crate::harness::{Disk, Doing, Ended, Lab, Outcome, Running, Spec, Turn, Vm, turns};

/// Where the hosts mount.
pub(crate) const DIRECTORY: &str = "/mnt/a";
/// How soon a device is refused whose holder beats every second: 1.1 intervals and 0.3 s. The start of the program counts, too.
pub(crate) const REFUSAL_SECONDS: f64 = 1.4;
/// What a wait may take longer when the machine that emulates the hosts is busy with others: the hosts' clocks run on, their
/// processors do not.
pub(crate) const BUSY_SECONDS: f64 = 5.0;

/// Before a kernel is called to wait, a beat is looked for if the last one's stamp is fresh: 1.1 of the longest interval (half
/// of the kernel's C) and 0.3 s.
pub(crate) const LOOK_SECONDS: f64 = 3.05;
/// What the kernel says of a device that another host beats. It says other things of one that it cannot read, or does not know.
const IN_USE: &str = "Device is already active";
/// How long a line of a kernel's log may take through the emulated serial port.
const LINES_COME_WITHIN: Duration = Duration::from_secs(2);

/// What a mount's waits take, at least and at most. One that waits for nothing is as wrong as one that takes too long: it
/// was lucky that nobody else was there.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Waits {
    pub(crate) floor_seconds: f64,
    pub(crate) limit_seconds: f64,
}

/// Two waits of the kernel's, whoever calls it.
pub(crate) const KERNEL_WAITS: Waits = Waits { floor_seconds: 20.0, limit_seconds: 22.6 };
/// The same behind `mmp`, which may look for a beat first.
pub(crate) const NATIVE_WAITS: Waits = Waits {
    floor_seconds: KERNEL_WAITS.floor_seconds,
    limit_seconds: KERNEL_WAITS.limit_seconds + LOOK_SECONDS,
};
/// An area that was left clean: one wait.
pub(crate) const CLEAN_AREA_WAITS: Waits = Waits { floor_seconds: 10.5, limit_seconds: 11.5 };
/// An area that was not: two waits.
pub(crate) const CRASHED_AREA_WAITS: Waits = Waits { floor_seconds: 20.0, limit_seconds: 22.5 };

/// Two hosts, one disk.
pub(crate) struct Pair {
    pub(crate) lab: Lab,
    pub(crate) disk: Disk,
    pub(crate) a: Vm,
    pub(crate) b: Vm,
}

/// What is on the disk.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Ext4,
    Xfs,
}

/// Somebody who writes stamped files until he is stopped.
pub(crate) struct Writer {
    running: Running,
}

/// What a disk has on it when all is over.
#[derive(Debug, Default)]
pub(crate) struct Verdict {
    /// Whether the block of an ext4 said clean when nobody had it mounted any more.
    pub(crate) left_clean: bool,
    /// Of `e2fsck -fn` or `xfs_repair -n`, after a mount has replayed the journal: 0 is clean.
    pub(crate) check: i32,
    /// What the check said if it found anything, or why nothing could be read.
    pub(crate) said: String,
    pub(crate) good: usize,
    /// Files that are not what their names say.
    pub(crate) bad: Vec<String>,
    /// Files that were durable when their writer said so, and are gone or not whole.
    pub(crate) lost: Vec<String>,
}

impl Guarded {
    /// The command by which a host mounts the disk.
    pub(crate) fn mount(self, disk: &str) -> String {
        self.mount_with("", disk)
    }

    /// The same with further arguments.
    pub(crate) fn mount_with(self, arguments: &str, disk: &str) -> String {
        self.mount_at(arguments, disk, DIRECTORY)
    }

    /// The same in another directory.
    pub(crate) fn mount_at(self, arguments: &str, disk: &str, directory: &str) -> String {
        let program = if self == Guarded::Kernel { "mount" } else { "mmp mount" };
        format!("{program} {arguments} {disk} {directory}")
    }

    /// The command by which it unmounts.
    pub(crate) fn umount(self) -> String {
        self.umount_at(DIRECTORY)
    }

    /// The same in another directory.
    pub(crate) fn umount_at(self, directory: &str) -> String {
        let program = if self == Guarded::Kernel { "umount" } else { "mmp umount" };
        format!("{program} {directory}")
    }

    /// Whether a mount of this disk was refused because another host uses it, and for no other reason. `log_before` is how
    /// long the host's kernel log was before that mount: what stands above is about earlier ones.
    pub(crate) fn says_in_use(self, vm: &Vm, disk: &str, log_before: usize, ended: &Ended) -> Outcome<bool> {
        if self != Guarded::Kernel {
            return Ok(ended.code == 1);
        }
        // mount(8) has one exit status for every failure; the kernel's log has the reason, for each of its disks.
        if ended.code != 32 {
            return Ok(false);
        }
        let name = vm.must(&format!("basename $(readlink -f {disk})"))?;
        let about = format!("(device {})", name.trim());
        let until = clock::mono() + LINES_COME_WITHIN;
        loop {
            let log = vm.kernel_log();
            let new = log.get(log_before..).unwrap_or_default();
            if new.lines().any(|line| line.contains(&about) && line.contains(IN_USE)) {
                return Ok(true);
            }
            if clock::mono() >= until {
                return Ok(false);
            }
            clock::sleep(Duration::from_millis(50));
        }
    }
}

impl Waits {
    /// For a promise; `busy_seconds` is what a busy machine may add to the limit.
    pub(crate) fn words(self, busy_seconds: f64) -> String {
        let Waits { floor_seconds, limit_seconds } = self;
        format!("not before {floor_seconds:.1} s, within {limit_seconds:.2} s (+{busy_seconds:.0} s if busy)")
    }

    /// Whether that promise was kept.
    pub(crate) fn are_kept(self, busy_seconds: f64, seconds: f64) -> bool {
        (self.floor_seconds..=self.limit_seconds + busy_seconds).contains(&seconds)
    }
}

impl Pair {
    /// Two hosts like each other, and an ext4 with MMP between them.
    pub(crate) fn ext4() -> Outcome<Pair> {
        Pair::of(Disk::make_ext4, |spec| spec, |spec| spec)
    }

    /// Two hosts and a disk that is prepared before they boot; `a` and `b` say what is special about each.
    pub(crate) fn of(
        prepare: impl FnOnce(&Disk) -> Outcome<()>,
        a: impl FnOnce(Spec) -> Spec,
        b: impl FnOnce(Spec) -> Spec,
    ) -> Outcome<Pair> {
        let lab = Lab::new()?;
        let disk = lab.disk("shared0", 64)?;
        prepare(&disk)?;
        let [a, b] = Vm::boot_all(&lab, [a(Spec::new("alpha", &[&disk])), b(Spec::new("beta", &[&disk]))])?;
        Ok(Pair { lab, disk, a, b })
    }

    /// Who wrote when outside the block that protects, as the emulators saw it.
    pub(crate) fn turns(&self) -> Outcome<Vec<Turn>> {
        let protection = self.disk.protection()?;
        let (a, b) = (self.a.writes(&self.disk)?, self.b.writes(&self.disk)?);
        Ok(turns(&[(&self.a.spec.host, &a), (&self.b.spec.host, &b)], protection))
    }

    /// What is on the disk. Nobody may have it mounted any more; it is read by `a`.
    pub(crate) fn inspect(&self, kind: Kind, durable: &[String]) -> Outcome<Verdict> {
        inspect(&self.a, &self.disk, kind, durable)
    }
}

impl Writer {
    /// Writes into the directory, one file every `pause` at most. Every session of a host has a number of its own.
    pub(crate) fn start(vm: &Vm, session: u64, pause: Duration) -> Outcome<Writer> {
        Writer::start_in(vm, DIRECTORY, session, pause)
    }

    /// The same in another directory.
    pub(crate) fn start_in(vm: &Vm, directory: &str, session: u64, pause: Duration) -> Outcome<Writer> {
        let (host, pause) = (&vm.spec.host, pause.as_millis());
        let script = format!("exec /lab/agent lab-agent write {directory} {host} {session} {pause}");
        Ok(Writer { running: vm.listen(&script)? })
    }

    /// The stamps of files that it has said to be durable so far.
    pub(crate) fn durable(&mut self) -> Vec<String> {
        self.running.lines().to_vec()
    }

    /// Whether it runs no more: because a write failed, or with its machine.
    pub(crate) fn has_ended(&mut self) -> bool {
        !matches!(self.running.poll(), Ok(None))
    }

    /// Its process.
    pub(crate) fn pid(&mut self) -> Outcome<u32> {
        self.running.pid()
    }

    /// Waits until it has written so many.
    pub(crate) fn wait_for(&mut self, count: usize, patience: Duration) -> Outcome<()> {
        let until = clock::mono() + patience;
        while self.running.lines().len() < count {
            if clock::mono() >= until {
                return Err(format!("only {} files written in {patience:?}", self.running.lines().len()));
            }
            clock::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// What it had said when its machine ended: also what was still on its way then.
    pub(crate) fn last_words(mut self) -> Outcome<Vec<String>> {
        let until = clock::mono() + Duration::from_secs(10);
        while !self.has_ended() {
            if clock::mono() >= until {
                return Err("a writer goes on whose machine has ended".to_owned());
            }
            clock::sleep(Duration::from_millis(20));
        }
        Ok(self.durable())
    }

    /// Ends it, waits for its end, and gives what it had said. The machine has to run.
    pub(crate) fn stop(mut self, vm: &Vm) -> Outcome<Vec<String>> {
        let pid = self.running.pid()?;
        vm.run(&format!("kill -9 {pid}"))?;
        // Its last words come before its end.
        let until = clock::mono() + Duration::from_secs(10);
        while self.running.poll()?.is_none() && clock::mono() < until {
            clock::sleep(Duration::from_millis(20));
        }
        Ok(self.durable())
    }
}

/// What is on a disk that nobody uses any more; `vm` reads the files. Several may be looked at at once: e2fsck waits for long.
pub(crate) fn inspect(vm: &Vm, disk: &Disk, kind: Kind, durable: &[String]) -> Outcome<Verdict> {
    inspect_at(vm, disk, &disk.node(), DIRECTORY, kind, durable)
}

/// The same by another name of the disk, in another directory.
pub(crate) fn inspect_at(
    vm: &Vm,
    disk: &Disk,
    node: &str,
    directory: &str,
    kind: Kind,
    durable: &[String],
) -> Outcome<Verdict> {
    let mut verdict = Verdict::default();
    if kind == Kind::Ext4 {
        verdict.left_clean = disk.block().read().seq == SEQ_CLEAN;
        // Nobody holds it: what a crash has left in the block is in nobody's way.
        disk.tool_says("tune2fs", &["-f", "-E", "clear_mmp"])?;
    }
    // The mount also replays the journal, without which a check says nothing.
    let read = vm.run(&format!(
        "exec 9>/run/inspecting; flock 9
         mount {node} {directory} && /lab/agent lab-agent verify {directory}; ended=$?; umount {directory}; exit $ended"
    ))?;
    (verdict.check, verdict.said) = match kind {
        Kind::Ext4 => disk.tool_says("e2fsck", &["-fn"])?,
        Kind::Xfs => disk.tool_says("xfs_repair", &["-n"])?,
    };
    if verdict.check == 0 {
        verdict.said.clear();
    }
    if !read.ok() {
        verdict.said += &read.said();
        verdict.lost = durable.to_vec();
        return Ok(verdict);
    }
    let found: Found = serde_json::from_str(&read.stdout).doing(&read.stdout)?;
    verdict.lost = durable.iter().filter(|stamp| !found.good.contains(stamp)).cloned().collect();
    verdict.good = found.good.len();
    verdict.bad = found.bad.into_iter().filter(|name| !is_unfinished(name, durable)).collect();
    Ok(verdict)
}

/// Whether a file is the one that its writer was at when it ended: each number of a session comes after the one before
/// was durable.
fn is_unfinished(name: &str, durable: &[String]) -> bool {
    let Some((session, number)) = name.rsplit_once('-') else { return false };
    let session = format!("{} ", session.replace('-', " "));
    let written = durable.iter().filter_map(|stamp| stamp.strip_prefix(&session)?.parse::<u64>().ok());
    number.parse() == Ok(written.max().map_or(0, |last| last + 1))
}

impl Verdict {
    /// Nothing is damaged, and nothing is missing.
    pub(crate) fn is_whole(&self) -> bool {
        self.check == 0 && self.bad.is_empty() && self.lost.is_empty()
    }

    /// The same, and whoever had it last said in the block of this ext4 that he has left.
    pub(crate) fn is_whole_and_left(&self) -> bool {
        self.is_whole() && self.left_clean
    }

    /// The same as [`Verdict::words`], and what the block of an ext4 said.
    pub(crate) fn words_and_block(&self) -> String {
        format!("block {}, {}", if self.left_clean { "clean" } else { "not clean" }, self.words())
    }

    /// In a few words, for the table.
    pub(crate) fn words(&self) -> String {
        let Verdict { check, good, bad, lost, .. } = self;
        if self.is_whole() {
            return format!("check clean, {good} files whole");
        }
        format!(
            "check exit status {check}, {good} files whole, {} not whole, {} durable ones lost",
            bad.len(),
            lost.len()
        )
    }
}
