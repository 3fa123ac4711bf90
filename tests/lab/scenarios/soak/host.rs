//! One host of the soak: mounts when it may, writes while it has it, unmounts after a while, begins anew after every loss.

use std::time::Duration;

use mmpguard::clock::{self, Mono};

use super::Plan;
use crate::harness::{Disk, Lab, Outcome, Running, Spec, Vm, Write, seconds};
use crate::scenarios::stage::{DIRECTORY, Writer};

/// A file every so often: what a round writes has to fit on the disk.
const PAUSE: Duration = Duration::from_millis(200);
/// The device that is mounted, below it the path that faults take away.
pub(super) const DEVICE: &str = "/dev/mapper/shared";
pub(super) const PATH: &str = "path";
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
    booted: usize,
    session: u32,
    history: History,
}

/// What it is doing.
pub(super) enum Doing {
    /// Its power is off until then.
    Off(Mono),
    Booting,
    /// It will try to mount then.
    Idle(Mono),
    Mounting(Running),
    /// It writes, and will unmount then.
    Mounted(Writer, Mono),
    Unmounting(Running, Writer),
}

/// What it did, for the checks.
#[derive(Default)]
pub(crate) struct History {
    pub(crate) host: &'static str,
    pub(crate) mounts: usize,
    pub(crate) refused: usize,
    pub(crate) durable: Vec<String>,
    /// When each of its attempts to mount began.
    pub(crate) begun: Vec<f64>,
    /// When it went on after a hang that its watchdog ends.
    pub(crate) resumed: Vec<f64>,
    /// `(when it was mounted, generation)`, in an area.
    pub(crate) generations: Vec<(f64, u64)>,
    pub(crate) writes: Vec<Write>,
}

impl Host {
    pub(super) fn new(lab: &Lab, name: &'static str, disk: &Disk, plan: Plan) -> Outcome<Host> {
        let vm = Vm::power_on(lab, Spec::new(name, &[disk]))?;
        let history = History { host: name, ..History::default() };
        let disk = disk.clone();
        Ok(Host {
            name,
            plan,
            disk,
            vm: Some(vm),
            spec: None,
            doing: Doing::Booting,
            stands_still: false,
            booted: 0,
            session: 0,
            history,
        })
    }

    pub(super) fn vm(&self) -> Outcome<&Vm> {
        self.vm.as_ref().ok_or_else(|| format!("{} is off", self.name))
    }

    /// What it did so far.
    pub(super) fn history(&self) -> Outcome<History> {
        let History { host, mounts, refused, ref durable, ref begun, ref resumed, ref generations, .. } =
            self.history;
        let (durable, begun, resumed) = (durable.clone(), begun.clone(), resumed.clone());
        let (generations, writes) = (generations.clone(), self.vm()?.writes(&self.disk)?);
        Ok(History { host, mounts, refused, durable, begun, resumed, generations, writes })
    }

    /// Goes on with what it is doing.
    pub(super) fn step(&mut self, lab: &Lab, random: &mut fastrand::Rng) -> Outcome<()> {
        if self.stands_still {
            return Ok(());
        }
        let now = clock::mono();
        if self.vm.as_ref().is_some_and(|vm| vm.boots() > self.booted) {
            // Also when it was its own fence, or its watchdog, that began this boot.
            self.keep_durable();
            self.booted = self.vm()?.boots();
            lab.tell(&format!("{} has booted", self.name));
            self.prepare()?;
            self.doing = Doing::Idle(now + Duration::from_millis(random.u64(0..6_000)));
        }
        match &mut self.doing {
            Doing::Off(until) if now >= *until => {
                let spec = self.spec.take().ok_or("a host without a spec")?;
                self.vm = Some(Vm::power_on(lab, spec)?);
                (self.booted, self.doing) = (0, Doing::Booting);
            }
            Doing::Idle(until) if now >= *until => {
                let script = self.mount_script();
                self.history.begun.push(seconds());
                lab.tell(&format!("{} tries to mount (attempt {})", self.name, self.history.begun.len()));
                self.doing = Doing::Mounting(self.vm()?.start(&script)?);
            }
            Doing::Mounting(_) => self.mounting(lab, random)?,
            Doing::Mounted(writer, until) => {
                let leaves = now >= *until;
                // A writer that ended was refused a write: the guard has cut it off, or the path is gone.
                if writer.has_ended() {
                    lab.tell(&format!("{}: its writer has ended", self.name));
                    self.begin_anew()?;
                } else if leaves {
                    lab.tell(&format!("{} unmounts", self.name));
                    self.unmount()?;
                }
            }
            Doing::Unmounting(running, _) => match running.poll() {
                Ok(Some(ended)) if ended.ok() => {
                    self.keep_durable();
                    self.doing = Doing::Idle(now + Duration::from_millis(random.u64(0..15_000)));
                }
                Ok(None) => {}
                Ok(Some(_)) | Err(_) => self.begin_anew()?,
            },
            Doing::Off(_) | Doing::Booting | Doing::Idle(_) => {}
        }
        Ok(())
    }

    /// Begins to mount when the lab's trigger of that number is fired.
    pub(super) fn race(&mut self, trigger: u64) -> Outcome<()> {
        let script = self.mount_script();
        self.history.begun.push(seconds());
        self.doing = Doing::Mounting(self.vm()?.start_at(trigger, &script)?);
        Ok(())
    }

    /// Its power is cut, for so long.
    pub(super) fn crash(&mut self, off: Duration) {
        self.keep_durable();
        self.stands_still = false;
        if let Some(vm) = self.vm.take() {
            self.spec = Some(vm.crash());
            self.doing = Doing::Off(clock::mono() + off);
        }
    }

    /// It went on after a hang that its watchdog ends.
    pub(super) fn resumed(&mut self) {
        self.history.resumed.push(seconds());
    }

    /// Unmounts, or whatever leaves the disk alone for good. The host runs afterwards.
    pub(super) fn leave(&mut self, lab: &Lab) -> Outcome<()> {
        let until = clock::mono() + Duration::from_secs(240);
        let mut random = fastrand::Rng::with_seed(0);
        while clock::mono() < until {
            match &mut self.doing {
                Doing::Mounted(_, end) => *end = clock::mono(),
                Doing::Idle(_) => {
                    // Nothing of the devices above the disk is used any more.
                    return self
                        .vm()?
                        .run(&format!("dmsetup remove shared; dmsetup remove {PATH}"))
                        .map(drop);
                }
                _ => {}
            }
            self.step(lab, &mut random)?;
            clock::sleep(Duration::from_millis(50));
        }
        Err(format!("{} does not leave", self.name))
    }

    fn mounting(&mut self, lab: &Lab, random: &mut fastrand::Rng) -> Outcome<()> {
        let Doing::Mounting(running) = &mut self.doing else { return Ok(()) };
        match running.poll() {
            Ok(Some(ended)) if ended.ok() => {
                lab.tell(&format!("{} has mounted: {}", self.name, ended.said()));
                self.history.mounts += 1;
                self.session += 1;
                if let Some(generation) =
                    ended.stdout.lines().find_map(|line| line.strip_prefix("generation "))
                {
                    let number = generation.trim().parse().map_err(|_| format!("generation {generation}"))?;
                    self.history.generations.push((seconds(), number));
                }
                let writer = Writer::start(self.vm()?, self.session, PAUSE)?;
                let hold = Duration::from_millis(random.u64(5_000..60_000));
                self.doing = Doing::Mounted(writer, clock::mono() + hold);
            }
            Ok(Some(ended)) => {
                lab.tell(&format!("{} has not mounted: {}", self.name, ended.said()));
                self.history.refused += 1;
                if ![1, 4, 5].contains(&ended.code) {
                    return Err(format!("{}: an attempt to mount ended with {}", self.name, ended.said()));
                }
                // After a loss in its own attempt nothing is mounted; the device may be cut off.
                let again = Duration::from_millis(random.u64(500..8_000));
                if ended.code == 1 {
                    self.doing = Doing::Idle(clock::mono() + again);
                } else {
                    self.begin_anew()?;
                }
            }
            Ok(None) => {}
            Err(_) => self.begin_anew()?,
        }
        Ok(())
    }

    fn unmount(&mut self) -> Outcome<()> {
        if let Doing::Mounted(mut writer, _) = std::mem::replace(&mut self.doing, Doing::Idle(Mono::FAR)) {
            let stop = writer.pid().map_or_else(|_| String::new(), |pid| format!("kill -9 {pid};"));
            let script = format!("{stop} sleep 0.1; mmp umount {DIRECTORY}");
            self.doing = Doing::Unmounting(self.vm()?.start(&script)?, writer);
        }
        Ok(())
    }

    /// After a loss: what an administrator does, too.
    fn begin_anew(&mut self) -> Outcome<()> {
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
    fn prepare(&self) -> Outcome<()> {
        let (sectors, node) = (self.disk.bytes / 512, self.disk.node());
        self.vm()?
            .must(&format!(
                "export DM_DISABLE_UDEV=1
                 dmsetup create {PATH} --table '0 {sectors} linear {node} 0' &&
                 dmsetup create shared --table '0 {sectors} linear /dev/mapper/{PATH} 0' &&
                 modprobe xfs && modprobe softdog soft_margin={WATCHDOG_SECONDS} &&
                 watchdog -t 1 -T {WATCHDOG_SECONDS} /dev/watchdog"
            ))
            .map(drop)
    }

    fn mount_script(&self) -> String {
        format!(
            "mmp mount --quiet {} {DEVICE} {DIRECTORY}; ended=$?
             mmp status --json {DEVICE} 2>/dev/null | tr ',{{}}' '\\n' | sed -n 's/.*\"generation\": *\\([0-9]*\\).*/generation \\1/p'
             exit $ended",
            self.plan.arguments
        )
    }
}
