//! What happens to the hosts of a soak, drawn at random.

use std::fmt;
use std::time::Duration;

use mmpguard::clock::{self, Mono};

use super::host::{Doing, Host, PATH};
use crate::harness::{Lab, Outcome};
use crate::scenarios::stage::DIRECTORY;

/// A hang of more than this has to be ended by the watchdog; one of less changes nothing.
const HANG_WITHOUT_WATCHDOG_MS: u64 = 7_000;

/// The faults under way, one a host at most, and when the next one comes.
pub(super) struct Faults {
    next: Mono,
    active: [Option<Active>; 2],
    pub(super) count: usize,
}

/// A fault that ends by itself at a time.
struct Active {
    until: Mono,
    what: Ends,
}

enum Ends {
    /// It hung.
    Hang { with_watchdog: bool },
    /// It was paused.
    Pause,
    /// What a script in it did.
    Script(&'static str),
}

impl fmt::Debug for Ends {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Ends::Hang { with_watchdog } => write!(f, "hangs, to be reset: {with_watchdog}"),
            Ends::Pause => write!(f, "is paused"),
            Ends::Script(what) => write!(f, "{what}"),
        }
    }
}

impl Faults {
    pub(super) fn new(random: &mut fastrand::Rng) -> Faults {
        let next = clock::mono() + Duration::from_millis(random.u64(15_000..30_000));
        Faults { next, active: [None, None], count: 0 }
    }

    /// Ends what is over, and begins what is due.
    pub(super) fn step(
        &mut self,
        lab: &Lab,
        hosts: &mut [Host; 2],
        random: &mut fastrand::Rng,
    ) -> Outcome<()> {
        let now = clock::mono();
        for (active, host) in self.active.iter_mut().zip(hosts.iter_mut()) {
            if active.as_ref().is_some_and(|active| now >= active.until)
                && let Some(Active { what, .. }) = active.take()
            {
                end(&what, host)?;
            }
        }
        if now < self.next {
            return Ok(());
        }
        self.next = now + Duration::from_millis(random.u64(5_000..25_000));
        self.begin(lab, hosts, random)
    }

    /// Ends all that is under way.
    pub(super) fn end(&mut self, hosts: &mut [Host; 2]) -> Outcome<()> {
        for (active, host) in self.active.iter_mut().zip(hosts.iter_mut()) {
            if let Some(Active { what, .. }) = active.take() {
                end(&what, host)?;
            }
        }
        Ok(())
    }

    fn begin(&mut self, lab: &Lab, hosts: &mut [Host; 2], random: &mut fastrand::Rng) -> Outcome<()> {
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
        let at = random.usize(0..2);
        let host = &mut hosts[at];
        if self.active[at].is_some() || matches!(host.doing, Doing::Off(_) | Doing::Booting) {
            return Ok(());
        }
        let fault = random.u32(0..6);
        // Only a filesystem that is mounted can be frozen.
        let fault = if fault == 3 && !matches!(host.doing, Doing::Mounted(..)) { 2 } else { fault };
        self.count += 1;
        let now = clock::mono();
        let lasts = |ms: u64| now + Duration::from_millis(ms);
        let active = match fault {
            0 => {
                let ms = random.u64(0..40_000);
                lab.tell(&format!("fault: {} crashes, off for {ms} ms", host.name));
                host.crash(Duration::from_millis(ms));
                return Ok(());
            }
            1 => {
                let ms = random.u64(500..40_000);
                // Between the two the watchdog may be faster or not, and a lease may just hold or not: both are kept apart.
                let ms = if (HANG_WITHOUT_WATCHDOG_MS..12_000).contains(&ms) { 26_000 } else { ms };
                host.vm()?.hang()?;
                host.stands_still = true;
                Active {
                    until: lasts(ms),
                    what: Ends::Hang { with_watchdog: ms >= HANG_WITHOUT_WATCHDOG_MS },
                }
            }
            2 => {
                host.vm()?.pause()?;
                host.stands_still = true;
                Active { until: lasts(random.u64(500..8_000)), what: Ends::Pause }
            }
            3 => Active { until: lasts(random.u64(3_000..40_000)), what: freeze(host)? },
            4 => Active { until: lasts(random.u64(500..40_000)), what: path(host, true)? },
            _ => Active { until: lasts(random.u64(500..40_000)), what: path(host, false)? },
        };
        lab.tell(&format!("fault: {}: {:?} for {:?}", host.name, active.what, active.until.since(now)));
        self.active[at] = Some(active);
        Ok(())
    }
}

/// A snapshot's freeze of the filesystem. What is not mounted would be the guest's own root, which must not stand still.
fn freeze(host: &Host) -> Outcome<Ends> {
    host.vm()?.start(&format!("mountpoint -q {DIRECTORY} && fsfreeze -f {DIRECTORY}"))?;
    Ok(Ends::Script("is frozen"))
}

/// The path of the disk: I/O that waits, or fails.
fn path(host: &Host, waits: bool) -> Outcome<Ends> {
    let suspend = format!("dmsetup suspend --noflush --nolockfs {PATH}");
    if waits {
        host.vm()?.start(&suspend)?;
        return Ok(Ends::Script("waits for its path"));
    }
    host.vm()?.start(&format!(
        "export DM_DISABLE_UDEV=1; sectors=$(blockdev --getsz /dev/mapper/{PATH})
         dmsetup load {PATH} --table \"0 $sectors error\" && {suspend} && dmsetup resume --noflush --nolockfs {PATH}"
    ))?;
    Ok(Ends::Script("has lost its path"))
}

/// The host goes on, or its path is there again.
fn end(what: &Ends, host: &mut Host) -> Outcome<()> {
    // It may have been crashed, or have reset itself, meanwhile: then there is nothing to end.
    if matches!(host.doing, Doing::Off(_)) {
        return Ok(());
    }
    host.stands_still = false;
    match what {
        Ends::Hang { with_watchdog } => {
            if *with_watchdog {
                host.resumed();
            }
            host.vm()?.resume()
        }
        Ends::Pause => host.vm()?.unpause(),
        Ends::Script(..) => {
            let script = format!(
                "export DM_DISABLE_UDEV=1; mountpoint -q {DIRECTORY} && fsfreeze -u {DIRECTORY}
                 sectors=$(blockdev --getsz /dev/mapper/{PATH})
                 dmsetup load {PATH} --table \"0 $sectors linear /dev/lab/shared0 0\"; dmsetup resume --noflush --nolockfs {PATH}"
            );
            host.vm()?.start(&script).map(drop)
        }
    }
}
