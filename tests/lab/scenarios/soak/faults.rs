//! What happens to the hosts of a soak, and when: a schedule that its seed alone draws.
//!
//! Every fault is drawn with the same few numbers, whether it can be done when it is due or not. One that cannot, because its host
//! boots or has another fault, is left out; both hosts idle make a race of it.

use std::fmt;
use std::time::Duration;

use mmpguard::clock::{self, Mono};

use super::history::FaultKind;
use super::host::{Doing, Host, PATH};
use crate::harness::{Lab, Outcome};
use crate::scenarios::stage::DIRECTORY;

/// Between the two the watchdog may be faster or not, and a lease may just hold or not: no hang is that long.
const HANGS_BETWEEN_MS: std::ops::Range<u64> = 6_000..12_000;
/// How long a hang is instead.
const LONG_HANG_MS: u64 = 26_000;

/// The faults under way, one a host at most, and when the next one comes.
pub(super) struct Faults {
    random: fastrand::Rng,
    next: Mono,
    active: [Option<Active>; 2],
    pub(super) count: usize,
}

/// What one fault is drawn as.
struct Drawn {
    /// To the one after it.
    next_ms: u64,
    host: usize,
    number: u32,
    /// How far between its shortest and its longest it is, of 1000.
    part: u64,
}

/// A fault that ends by itself at a time.
struct Active {
    until: Mono,
    what: Ends,
}

pub(super) enum Ends {
    /// It hung.
    Hang { with_watchdog: bool },
    /// It was paused.
    Pause,
    /// What a script in it did.
    Script(FaultKind),
}

impl fmt::Debug for Ends {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Ends::Hang { with_watchdog } => write!(f, "hangs, to be reset: {with_watchdog}"),
            Ends::Pause => write!(f, "is paused"),
            Ends::Script(kind) => write!(f, "{kind:?}"),
        }
    }
}

impl Drawn {
    fn new(random: &mut fastrand::Rng) -> Drawn {
        Drawn {
            next_ms: random.u64(5_000..25_000),
            host: random.usize(0..2),
            number: random.u32(0..6),
            part: random.u64(0..1_000),
        }
    }

    fn ms(&self, shortest: u64, longest: u64) -> u64 {
        shortest + (longest - shortest) * self.part / 1_000
    }
}

impl Faults {
    pub(super) fn new(mut random: fastrand::Rng) -> Faults {
        let next = clock::mono() + Duration::from_millis(random.u64(10_000..20_000));
        Faults { random, next, active: [None, None], count: 0 }
    }

    /// Ends what is over, and begins what is due.
    pub(super) fn step(&mut self, lab: &Lab, hosts: &mut [Host; 2]) -> Outcome<()> {
        let now = clock::mono();
        for (active, host) in self.active.iter_mut().zip(hosts.iter_mut()) {
            if active.as_ref().is_some_and(|active| now >= active.until)
                && let Some(Active { what, .. }) = active.take()
            {
                end(lab, &what, host)?;
            }
        }
        if now < self.next {
            return Ok(());
        }
        let drawn = Drawn::new(&mut self.random);
        self.next = self.next + Duration::from_millis(drawn.next_ms);
        self.begin(lab, hosts, &drawn)
    }

    /// Ends all that is under way.
    pub(super) fn end(&mut self, lab: &Lab, hosts: &mut [Host; 2]) -> Outcome<()> {
        for (active, host) in self.active.iter_mut().zip(hosts.iter_mut()) {
            if let Some(Active { what, .. }) = active.take() {
                end(lab, &what, host)?;
            }
        }
        Ok(())
    }

    fn begin(&mut self, lab: &Lab, hosts: &mut [Host; 2], drawn: &Drawn) -> Outcome<()> {
        if self.active.iter().all(Option::is_none)
            && hosts.iter().all(|host| matches!(host.doing, Doing::Idle(_)))
        {
            let trigger = lab.next_trigger();
            for host in hosts.iter_mut() {
                host.race(trigger)?;
            }
            clock::sleep(Duration::from_millis(300));
            self.count += 1;
            lab.tell("both mount at once");
            return lab.fire(trigger);
        }
        let host = &mut hosts[drawn.host];
        if self.active[drawn.host].is_some()
            || matches!(host.doing, Doing::Off(_) | Doing::Booting | Doing::Preparing(_))
            || host.history.awaits_boot().is_some()
        {
            return Ok(());
        }
        // Only a filesystem that is mounted can be frozen.
        let is_mounted = matches!(host.doing, Doing::Mounted(..));
        let number = if drawn.number == 3 && !is_mounted { 2 } else { drawn.number };
        self.count += 1;
        let (what, ms) = match number {
            0 => {
                let ms = drawn.ms(0, 40_000);
                lab.tell(&format!("fault: {} crashes, off for {ms} ms", host.name));
                host.crash(Duration::from_millis(ms));
                return Ok(());
            }
            1 => {
                let ms = drawn.ms(500, 40_000);
                let ms = if HANGS_BETWEEN_MS.contains(&ms) { LONG_HANG_MS } else { ms };
                (hang(host, ms >= HANGS_BETWEEN_MS.end)?, ms)
            }
            2 => (pause(host)?, drawn.ms(500, 8_000)),
            3 => (freeze(host)?, drawn.ms(3_000, 40_000)),
            4 => (path(host, FaultKind::PathWaits)?, drawn.ms(500, 40_000)),
            _ => (path(host, FaultKind::PathFails)?, drawn.ms(500, 40_000)),
        };
        lab.tell(&format!("fault: {}: {what:?} for {ms} ms", host.name));
        self.active[drawn.host] = Some(Active { until: clock::mono() + Duration::from_millis(ms), what });
        Ok(())
    }
}

/// Its processor stands still, and its clock does not.
pub(super) fn hang(host: &mut Host, with_watchdog: bool) -> Outcome<Ends> {
    host.history.fault_begins(FaultKind::Hang);
    host.stands_still = true;
    host.vm()?.hang()?;
    Ok(Ends::Hang { with_watchdog })
}

fn pause(host: &mut Host) -> Outcome<Ends> {
    host.history.fault_begins(FaultKind::Pause);
    host.stands_still = true;
    host.vm()?.pause()?;
    Ok(Ends::Pause)
}

/// A snapshot's freeze of the filesystem. What is not mounted would be the guest's own root, which must not stand still.
pub(super) fn freeze(host: &mut Host) -> Outcome<Ends> {
    host.history.fault_begins(FaultKind::Freeze);
    host.is_frozen = true;
    host.vm()?.start(&format!("mountpoint -q {DIRECTORY} && fsfreeze -f {DIRECTORY}"))?;
    Ok(Ends::Script(FaultKind::Freeze))
}

/// The path of the disk: I/O that waits, or fails.
fn path(host: &mut Host, kind: FaultKind) -> Outcome<Ends> {
    host.history.fault_begins(kind);
    let suspend = format!("dmsetup suspend --noflush --nolockfs {PATH}");
    if kind == FaultKind::PathWaits {
        host.vm()?.start(&suspend)?;
        return Ok(Ends::Script(kind));
    }
    host.vm()?.start(&format!(
        "export DM_DISABLE_UDEV=1; sectors=$(blockdev --getsz /dev/mapper/{PATH})
         dmsetup load {PATH} --table \"0 $sectors error\" && {suspend} && dmsetup resume --noflush --nolockfs {PATH}"
    ))?;
    Ok(Ends::Script(kind))
}

/// The host goes on, or its path is there again.
pub(super) fn end(lab: &Lab, what: &Ends, host: &mut Host) -> Outcome<()> {
    // It may have been crashed, or have reset itself, meanwhile: then there is nothing to end.
    if matches!(host.doing, Doing::Off(_)) {
        return Ok(());
    }
    (host.stands_still, host.is_frozen) = (false, false);
    match what {
        Ends::Hang { with_watchdog } => {
            if *with_watchdog {
                host.wakes()?;
            }
            host.vm()?.resume()?;
        }
        Ends::Pause => host.vm()?.unpause()?,
        Ends::Script(..) => {
            let script = format!(
                "export DM_DISABLE_UDEV=1; mountpoint -q {DIRECTORY} && fsfreeze -u {DIRECTORY}
                 sectors=$(blockdev --getsz /dev/mapper/{PATH})
                 dmsetup load {PATH} --table \"0 $sectors linear /dev/lab/shared0 0\"; dmsetup resume --noflush --nolockfs {PATH}"
            );
            host.vm()?.start(&script)?;
        }
    }
    host.history.fault_ends();
    lab.tell(&format!("fault over: {}: {what:?}", host.name));
    Ok(())
}
