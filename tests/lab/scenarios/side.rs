//! A disk as one host sees it: by which name, in which directory, and who protects it there. Several disks of a pair of hosts
//! are raced and broken side by side, each with a side on either host.

use std::time::Duration;

use mmpguard::clock;

use crate::book::Guarded;
use crate::harness::{Disk, Ended, Outcome, Running, Vm, Write};
use crate::scenarios::stage::{Kind, Verdict, Writer, inspect_at};

/// How often a writer writes.
const PAUSE: Duration = Duration::from_millis(100);

/// For how long an unmount is tried again.
const BUSY_FOR: Duration = Duration::from_secs(20);

/// One host and one disk.
#[derive(Clone)]
pub(crate) struct Side<'v> {
    pub(crate) vm: &'v Vm,
    pub(crate) disk: &'v Disk,
    guarded: Guarded,
    /// What stands before the device in the command.
    arguments: String,
    device: String,
    directory: String,
}

/// A mapping of the device mapper over a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mapping {
    /// No mapping at all.
    None,
    /// One that changes nothing: a device that can be cut off.
    Linear,
    /// Writes take so much longer.
    SlowWrites(u32),
}

impl<'v> Side<'v> {
    /// The disk itself.
    pub(crate) fn new(vm: &'v Vm, disk: &'v Disk, guarded: Guarded) -> Side<'v> {
        let directory = format!("/mnt/{}", disk.serial);
        Side { vm, disk, guarded, arguments: String::new(), device: disk.node(), directory }
    }

    /// The same with these arguments of its mount command.
    pub(crate) fn arguments(mut self, arguments: &str) -> Side<'v> {
        arguments.clone_into(&mut self.arguments);
        self
    }

    /// The same through a mapping.
    pub(crate) fn mapped(mut self, mapping: Mapping) -> Outcome<Side<'v>> {
        let (node, sectors) = (self.disk.node(), self.disk.bytes / 512);
        let table = match mapping {
            Mapping::None => return Ok(self),
            Mapping::Linear => format!("0 {sectors} linear {node} 0"),
            Mapping::SlowWrites(pause_ms) => {
                format!("0 {sectors} delay {node} 0 0 {node} 0 {pause_ms}")
            }
        };
        let name = format!("over-{}", self.disk.serial);
        // No udev runs in the machines: nobody answers to a cookie, and nobody else makes the node.
        self.vm.must(&format!(
            "modprobe dm-delay; dmsetup create {name} --noudevrules --noudevsync --table '{table}' && \
             ln -sf /dev/dm-$(dmsetup info -c --noheadings -o minor {name}) /dev/mapper/{name}"
        ))?;
        self.device = format!("/dev/mapper/{name}");
        Ok(self)
    }

    /// The command that mounts it. It makes the directory, which a boot has forgotten.
    pub(crate) fn mount(&self) -> String {
        format!("mkdir -p {} && exec {}", self.directory, self.command())
    }

    fn command(&self) -> String {
        self.guarded.mount_at(&self.arguments, &self.device, &self.directory)
    }

    /// The command that unmounts it.
    pub(crate) fn umount(&self) -> String {
        self.guarded.umount_at(&self.directory)
    }

    /// Unmounts it. A process that was killed may keep it busy for a moment.
    pub(crate) fn leave(&self) -> Outcome<()> {
        let until = clock::mono() + BUSY_FOR;
        loop {
            let left = self.vm.run(&self.umount())?;
            if left.ok() {
                return Ok(());
            }
            if clock::mono() >= until {
                return Err(format!("{}: {}: {}", self.vm.spec.host, self.umount(), left.said()));
            }
            clock::sleep(Duration::from_millis(200));
        }
    }

    /// Mounts it when the trigger is fired. Nothing but the program's own start lies between the two.
    pub(crate) fn mount_at(&self, trigger: u64) -> Outcome<Running> {
        let wait = format!("/lab/agent lab-agent trigger {trigger}");
        self.vm.start(&format!("mkdir -p {} && exec {wait} {}", self.directory, self.command()))
    }

    /// Mounts it, and gives how that ended.
    pub(crate) fn try_mount(&self) -> Outcome<Ended> {
        self.vm.run(&self.mount())
    }

    /// Mounts it, and gives how that ended, and whether it was refused because another host uses the device.
    pub(crate) fn try_refused(&self) -> Outcome<(Ended, bool)> {
        let log_before = self.log_bytes();
        let ended = self.try_mount()?;
        let refused = self.says_in_use(log_before, &ended)?;
        Ok((ended, refused))
    }

    /// How long its host's kernel log is.
    pub(crate) fn log_bytes(&self) -> usize {
        self.vm.kernel_log().len()
    }

    /// Whether a mount was refused because another host uses the device, and for no other reason: see
    /// [`Guarded::says_in_use`].
    pub(crate) fn says_in_use(&self, log_before: usize, ended: &Ended) -> Outcome<bool> {
        self.guarded.says_in_use(self.vm, &self.device, log_before, ended)
    }

    /// Freezes it, as a snapshot of the array's does, or thaws it.
    pub(crate) fn freeze(&self, frozen: bool) -> Outcome<()> {
        let option = if frozen { "-f" } else { "-u" };
        self.vm.must(&format!("fsfreeze {option} {}", self.directory)).map(drop)
    }

    /// Whether it is mounted here and, if mmp does that, guarded.
    pub(crate) fn is_guarded(&self) -> Outcome<bool> {
        let asked = match self.guarded {
            Guarded::Kernel => format!("mountpoint -q {}", self.directory),
            Guarded::Mmp | Guarded::Mixed => format!("mmp status {}", self.directory),
        };
        Ok(self.vm.run(&asked)?.ok())
    }

    /// A writer of stamped files.
    pub(crate) fn writer(&self, session: u32) -> Outcome<Writer> {
        Writer::start_in(self.vm, &self.directory, session.into(), PAUSE)
    }

    /// What this host has written to the disk since then, outside the block that protects.
    pub(crate) fn writes_since(&self, since_s: f64) -> Outcome<Vec<Write>> {
        let protection = self.disk.protection()?;
        let mut writes = self.vm.writes(self.disk)?;
        writes.retain(|write| write.at >= since_s && !write.inside(protection));
        Ok(writes)
    }

    /// What it has written to the block that protects.
    pub(crate) fn beats(&self) -> Outcome<Vec<Write>> {
        let protection = self.disk.protection()?;
        let mut writes = self.vm.writes(self.disk)?;
        writes.retain(|write| write.inside(protection));
        Ok(writes)
    }

    /// What is on the disk, which nobody has mounted any more.
    pub(crate) fn inspect(&self, durable: &[String]) -> Outcome<Verdict> {
        self.vm.must(&format!("mkdir -p {}", self.directory))?;
        inspect_at(self.vm, self.disk, &self.device, &self.directory, Kind::Ext4, durable)
    }
}
