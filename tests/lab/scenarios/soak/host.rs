//! One host of the soak: mounts when it may, writes while it has it, unmounts after a while, begins anew after every loss.

use std::time::Duration;

use mmpguard::clock::{self, Mono};

use super::Plan;
use super::history::{History, Loss};
use crate::book::Guarded;
use crate::harness::{Disk, Doing as _, Ended, Lab, Outcome, Running, Spec, Vm, seconds};
use crate::scenarios::stage::{Kind, Writer};

/// A file every so often: what a round writes has to fit on the disk.
const PAUSE: Duration = Duration::from_millis(200);
/// The device that is mounted, below it the path that faults take away.
pub(super) const DEVICE: &str = "/dev/mapper/shared";
pub(super) const PATH: &str = "path";
/// How long a host has it still, at most, when a round is over.
const LAST_HOLD: Duration = Duration::from_secs(4);
/// For so long a host that has to boot after a hang is waited for at the end of a round.
const LEAVE_SECONDS: f64 = 60.0;
/// The watchdog's time: shorter than a lease of 11 s.
const WATCHDOG_SECONDS: u32 = 8;

/// A host, and what it is doing.
pub(super) struct Host {
    pub(super) name: &'static str,
    plan: Plan,
    disk: Disk,
    /// Nothing while its power is off.
    vm: Option<Vm>,
    spec: Option<Spec>,
    pub(super) doing: Doing,
    /// It hangs or is paused: nothing is asked of it.
    pub(super) stands_still: bool,
    /// A writer in a frozen filesystem cannot be ended, and so it cannot be unmounted.
    pub(super) is_frozen: bool,
    booted: usize,
    /// How many boots the console told of when it went on after a hang.
    starts: usize,
    /// When its mount answered, seen while it stood still.
    answered: Option<f64>,
    session: u64,
    random: fastrand::Rng,
    pub(super) history: History,
}

/// What it is doing.
pub(super) enum Doing {
    /// Its power is off until then.
    Off(Mono),
    Booting,
    Preparing(Running),
    /// It will try to mount then.
    Idle(Mono),
    Mounting(Running),
    /// It writes, and will unmount then.
    Mounted(Writer, Mono),
    Unmounting(Running, Writer),
}

impl Host {
    pub(super) fn new(
        lab: &Lab,
        name: &'static str,
        disk: &Disk,
        plan: Plan,
        random: fastrand::Rng,
    ) -> Outcome<Host> {
        let vm = Vm::power_on(lab, Spec::new(name, &[disk]))?;
        Ok(Host {
            name,
            plan,
            disk: disk.clone(),
            vm: Some(vm),
            spec: None,
            doing: Doing::Booting,
            stands_still: false,
            is_frozen: false,
            booted: 0,
            starts: 0,
            answered: None,
            session: 0,
            random,
            history: History { host: name, ..History::default() },
        })
    }

    pub(super) fn vm(&self) -> Outcome<&Vm> {
        self.vm.as_ref().ok_or_else(|| format!("{} is off", self.name))
    }

    /// What it did so far.
    pub(super) fn history(&self) -> Outcome<History> {
        Ok(History { writes: self.vm()?.writes(&self.disk)?, ..self.history.clone() })
    }

    /// Goes on with what it is doing.
    pub(super) fn step(&mut self, lab: &Lab) -> Outcome<()> {
        if self.stands_still {
            // Its last words may still arrive, and count from now, not from when it goes on.
            if let Doing::Mounting(running) = &mut self.doing
                && self.answered.is_none()
                && matches!(running.poll(), Ok(Some(_)))
            {
                self.answered = Some(seconds());
            }
            return Ok(());
        }
        self.look_for_boots(lab)?;
        let now = clock::mono();
        match &mut self.doing {
            Doing::Off(until) if now >= *until => {
                let spec = self.spec.take().ok_or("a host without a spec")?;
                self.vm = Some(Vm::power_on(lab, spec)?);
                (self.booted, self.doing) = (0, Doing::Booting);
            }
            Doing::Preparing(running) => match running.poll() {
                Ok(Some(ended)) if ended.ok() => self.idle(0..6_000),
                Ok(Some(ended)) => return Err(format!("{}: {}", self.name, ended.said())),
                // It boots again, which is seen at the next step.
                Ok(None) | Err(_) => {}
            },
            Doing::Idle(until) if now >= *until => self.try_to_mount(lab)?,
            Doing::Mounting(_) => self.mounting(lab)?,
            Doing::Mounted(writer, until) => {
                let leaves = now >= *until && !self.is_frozen;
                // A writer that ended was refused a write: the guard has cut it off, or the path is gone.
                if writer.has_ended() {
                    self.loses(lab, Loss::WriterEnded)?;
                } else if leaves {
                    lab.tell(&format!("{} unmounts", self.name));
                    self.unmount()?;
                }
            }
            Doing::Unmounting(running, _) => match running.poll() {
                Ok(Some(ended)) if ended.ok() => {
                    self.history.is_out();
                    self.keep_durable();
                    lab.tell(&format!("{} has unmounted", self.name));
                    self.idle(0..15_000);
                }
                Ok(None) => {}
                Ok(Some(ended)) => {
                    lab.tell(&format!("{} cannot unmount: {}", self.name, ended.said()));
                    self.loses(lab, Loss::UmountFailed)?;
                }
                // It boots by itself, which is seen at the next step.
                Err(_) => {}
            },
            Doing::Off(_) | Doing::Booting | Doing::Idle(_) => {}
        }
        Ok(())
    }

    /// Whether it has booted meanwhile: also when it was its own fence, or its watchdog, that began that.
    fn look_for_boots(&mut self, lab: &Lab) -> Outcome<()> {
        let Some(vm) = &self.vm else { return Ok(()) };
        let boots = vm.boots();
        // The console tells of a boot long before its agent says hello.
        let boots_after_hang =
            self.history.awaits_boot().is_some() && (boots > self.booted || starts(vm) > self.starts);
        if boots_after_hang {
            self.history.wakeup_ends();
        }
        if boots == self.booted && !boots_after_hang {
            return Ok(());
        }
        self.keep_durable();
        if !matches!(self.doing, Doing::Booting) {
            lab.tell(&format!("{} boots by itself", self.name));
            self.history.loses(Loss::Rebooted);
        }
        self.history.is_out();
        self.history.fault_ends();
        self.is_frozen = false;
        self.doing = Doing::Booting;
        if boots == self.booted {
            return Ok(());
        }
        lab.tell(&format!("{} has booted", self.name));
        self.booted = boots;
        self.doing = Doing::Preparing(self.vm()?.start(&self.preparation())?);
        Ok(())
    }

    fn idle(&mut self, for_ms: std::ops::Range<u64>) {
        self.doing = Doing::Idle(clock::mono() + Duration::from_millis(self.random.u64(for_ms)));
    }

    fn try_to_mount(&mut self, lab: &Lab) -> Outcome<()> {
        let script = self.mount_script();
        self.tries();
        lab.tell(&format!("{} tries to mount (attempt {})", self.name, self.history.attempts.len()));
        self.doing = Doing::Mounting(self.vm()?.start(&script)?);
        Ok(())
    }

    fn tries(&mut self) {
        self.answered = None;
        self.history.tries();
    }

    /// Begins to mount when the lab's trigger of that number is fired.
    pub(super) fn race(&mut self, trigger: u64) -> Outcome<()> {
        let script = self.mount_script();
        self.tries();
        self.doing = Doing::Mounting(self.vm()?.start_at(trigger, &script)?);
        Ok(())
    }

    /// Its power is cut, for so long.
    pub(super) fn crash(&mut self, off: Duration) {
        self.keep_durable();
        self.history.is_out();
        self.history.fault_ends();
        self.history.wakeup_ends();
        (self.stands_still, self.is_frozen) = (false, false);
        if let Some(vm) = self.vm.take() {
            self.spec = Some(vm.crash());
            self.doing = Doing::Off(clock::mono() + off);
        }
    }

    /// It is about to go on after a hang that its watchdog ends.
    pub(super) fn wakes(&mut self) -> Outcome<()> {
        self.starts = starts(self.vm()?);
        self.history.wakes();
        Ok(())
    }

    /// Goes on towards an unmount, or whatever leaves the disk alone for good. Whether it has; the host runs then.
    pub(super) fn leaves(&mut self, lab: &Lab) -> Outcome<bool> {
        let boots_soon = self.boots_soon();
        match &mut self.doing {
            // Who got in at the end writes something, too.
            Doing::Mounted(_, end) => *end = (*end).min(clock::mono() + LAST_HOLD),
            Doing::Idle(end) => {
                *end = Mono::FAR;
                if !boots_soon {
                    return Ok(true);
                }
            }
            _ => {}
        }
        self.step(lab)?;
        Ok(false)
    }

    /// Once it has left, nothing of the devices above the disk is used any more. A machine that boots at this moment has none
    /// of them either.
    pub(super) fn clear(&self) -> Outcome<()> {
        let boots = self.vm()?.boots();
        let cleared = self.vm()?.run(&format!("dmsetup remove shared; dmsetup remove {PATH}"));
        if cleared.is_err() {
            self.vm()?.wait_for_boot(boots + 1)?;
        }
        Ok(())
    }

    /// Whether it went on after a hang just now, and its watchdog has yet to end it.
    fn boots_soon(&self) -> bool {
        self.history.awaits_boot().is_some_and(|resumed| seconds() - resumed < LEAVE_SECONDS)
    }

    fn mounting(&mut self, lab: &Lab) -> Outcome<()> {
        let Doing::Mounting(running) = &mut self.doing else { return Ok(()) };
        match running.poll() {
            Ok(Some(ended)) if ended.ok() => self.is_in(lab, &ended),
            Ok(Some(ended)) => {
                lab.tell(&format!("{} has not mounted: {}", self.name, ended.said()));
                match (ended.code, self.plan.guarded) {
                    (1, Guarded::Mmp) | (_, Guarded::Kernel | Guarded::Mixed) => {
                        self.history.refused += 1;
                        self.history.is_out();
                        self.idle(500..8_000);
                        Ok(())
                    }
                    // After a loss in its own attempt nothing is mounted; the device may be cut off.
                    (4, _) => self.loses(lab, Loss::MountFailed),
                    (5, _) => self.loses(lab, Loss::Lost),
                    _ => Err(format!("{}: an attempt to mount ended with {}", self.name, ended.said())),
                }
            }
            // An error: it boots by itself, which is seen at the next step.
            Ok(None) | Err(_) => Ok(()),
        }
    }

    /// It has mounted: notes what the status says, and begins to write.
    fn is_in(&mut self, lab: &Lab, ended: &Ended) -> Outcome<()> {
        self.history.mounted(self.answered.unwrap_or_else(seconds));
        let generation = generation(&ended.stdout)?;
        lab.tell(&format!("{} has mounted: {generation:?}", self.name));
        self.session += 1;
        let mut number = self.session;
        if self.plan.kind == Kind::Xfs {
            // The guard may have ended between the mount and the question: then there is nothing to write for.
            let Some(named) = generation else { return self.loses(lab, Loss::Lost) };
            self.history.named += 1;
            if let Some(generation) = named {
                self.history.generations.push((seconds(), generation));
                number = generation;
            }
        }
        let writer = Writer::start(self.vm()?, number, PAUSE)?;
        let hold = Duration::from_millis(self.random.u64(5_000..60_000));
        self.doing = Doing::Mounted(writer, clock::mono() + hold);
        Ok(())
    }

    fn unmount(&mut self) -> Outcome<()> {
        if let Doing::Mounted(mut writer, _) = std::mem::replace(&mut self.doing, Doing::Idle(Mono::FAR)) {
            let stop = writer.pid().map_or_else(
                |_| String::new(),
                // While its I/O waits it is in the filesystem.
                |pid| format!("kill -9 {pid}; while [ -d /proc/{pid} ]; do sleep 0.1; done;"),
            );
            let script = format!("{stop} {}", self.plan.guarded.umount());
            self.history.leaves();
            self.doing = Doing::Unmounting(self.vm()?.start(&script)?, writer);
        }
        Ok(())
    }

    /// Notes a loss, and begins anew: what an administrator does, too.
    fn loses(&mut self, lab: &Lab, what: Loss) -> Outcome<()> {
        lab.tell(&format!("{}: {what:?}", self.name));
        self.history.loses(what);
        self.history.is_reset();
        self.keep_durable();
        self.doing = Doing::Booting;
        self.vm()?.reset()
    }

    /// What its writer has said so far is not forgotten with it.
    fn keep_durable(&mut self) {
        if let Doing::Mounted(writer, _) | Doing::Unmounting(_, writer) = &mut self.doing {
            self.history.durable.extend(writer.durable());
        }
    }

    /// The devices above the disk, and the watchdog.
    fn preparation(&self) -> String {
        let (sectors, node) = (self.disk.bytes / 512, self.disk.node());
        let devices = format!(
            "export DM_DISABLE_UDEV=1
             dmsetup create {PATH} --table '0 {sectors} linear {node} 0' &&
             dmsetup create shared --table '0 {sectors} linear /dev/mapper/{PATH} 0' && modprobe xfs"
        );
        if self.plan.guarded == Guarded::Kernel {
            return devices;
        }
        format!(
            "{devices} && modprobe softdog soft_margin={WATCHDOG_SECONDS} &&
             watchdog -t 1 -T {WATCHDOG_SECONDS} /dev/watchdog"
        )
    }

    fn mount_script(&self) -> String {
        let mount = self.plan.guarded.mount_with(self.plan.arguments, DEVICE);
        if self.plan.guarded == Guarded::Kernel {
            return mount;
        }
        format!("{mount}; ended=$?; [ $ended != 0 ] || mmp status --json {DEVICE} 2>/dev/null; exit $ended")
    }
}

/// What a guard's status says of its generation; nothing if it names no device.
fn generation(status: &str) -> Outcome<Option<Option<u64>>> {
    let Some(at) = status.find('{') else { return Ok(None) };
    let report: serde_json::Value = serde_json::from_str(&status[at..]).doing("the status")?;
    Ok(report["guards"].get(0).map(|guard| guard["generation"].as_u64()))
}

/// Of how many boots the console tells.
fn starts(vm: &Vm) -> usize {
    vm.kernel_log().matches("Linux version").count()
}
