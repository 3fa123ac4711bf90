//! What the hosts of a soak did, and what was done to them, in seconds by this machine's wall clock: what the checks judge.

use crate::harness::{Write, seconds};

/// What is written in the moment of an ordered reset is no host's fault any more once this is over.
const RESET_SECONDS: f64 = 1.0;

/// What a host was done to, from when until when.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fault {
    pub(crate) kind: FaultKind,
    pub(crate) from: f64,
    /// Infinite while it lasts.
    pub(crate) until: f64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FaultKind {
    /// It stands still, and its clock runs.
    Hang,
    /// It stands still, and its clock with it.
    Pause,
    /// Its filesystem is frozen.
    Freeze,
    /// Its I/O waits.
    PathWaits,
    /// Its I/O fails.
    PathFails,
}

/// What a host without a fault never comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Loss {
    /// A mount said that the protection was lost (exit status 5), or its guard had ended when it was asked for.
    Lost,
    /// A mount said that the system refused an operation (exit status 4).
    MountFailed,
    UmountFailed,
    WriterEnded,
    /// It booted, and nobody had ordered that.
    Rebooted,
}

/// One attempt to mount, and what came of it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Attempt {
    pub(crate) begun: f64,
    /// When the mount's answer was there.
    pub(crate) mounted: Option<f64>,
    /// Until when it has the filesystem for sure: an unmount was asked for, a loss was seen, its power was cut, it booted.
    pub(crate) held_until: f64,
    /// It writes nothing later than this, until it tries again.
    pub(crate) over: f64,
}

/// A hang that its watchdog has to end.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wakeup {
    /// When it went on.
    pub(crate) resumed: f64,
    /// When the next boot's first words were seen, or its power was cut.
    pub(crate) ended: Option<f64>,
}

/// All of one host's.
#[derive(Debug, Clone, Default)]
pub(crate) struct History {
    pub(crate) host: &'static str,
    pub(crate) attempts: Vec<Attempt>,
    pub(crate) faults: Vec<Fault>,
    pub(crate) losses: Vec<(f64, Loss)>,
    pub(crate) wakeups: Vec<Wakeup>,
    /// Attempts that ended with exit status 1.
    pub(crate) refused: usize,
    pub(crate) durable: Vec<String>,
    /// After how many mounts the status named the device, in an area.
    pub(crate) named: usize,
    /// `(when it was mounted, generation)`, in an area.
    pub(crate) generations: Vec<(f64, u64)>,
    pub(crate) writes: Vec<Write>,
}

impl Fault {
    pub(crate) fn lasted(&self) -> f64 {
        self.until - self.from
    }
}

impl History {
    pub(crate) fn mounts(&self) -> usize {
        self.attempts.iter().filter(|attempt| attempt.mounted.is_some()).count()
    }

    pub(crate) fn count(&self, what: Loss) -> usize {
        self.losses.iter().filter(|(_, loss)| *loss == what).count()
    }

    pub(super) fn tries(&mut self) {
        let attempt =
            Attempt { begun: seconds(), mounted: None, held_until: f64::INFINITY, over: f64::INFINITY };
        self.attempts.push(attempt);
    }

    pub(super) fn mounted(&mut self, at: f64) {
        if let Some(attempt) = self.attempts.last_mut() {
            attempt.mounted = Some(at);
        }
    }

    /// An unmount is asked for: what it writes for that is still its own.
    pub(super) fn leaves(&mut self) {
        if let Some(attempt) = self.attempts.last_mut() {
            attempt.held_until = attempt.held_until.min(seconds());
        }
    }

    /// It has left, was refused, or is gone.
    pub(super) fn is_out(&mut self) {
        self.leaves();
        if let Some(attempt) = self.attempts.last_mut() {
            attempt.over = attempt.over.min(seconds());
        }
    }

    /// It is reset now: a write that was under way may still be seen.
    pub(super) fn is_reset(&mut self) {
        self.leaves();
        if let Some(attempt) = self.attempts.last_mut() {
            attempt.over = attempt.over.min(seconds() + RESET_SECONDS);
        }
    }

    pub(super) fn loses(&mut self, what: Loss) {
        self.losses.push((seconds(), what));
    }

    pub(super) fn fault_begins(&mut self, kind: FaultKind) {
        self.faults.push(Fault { kind, from: seconds(), until: f64::INFINITY });
    }

    /// What was done to it is over, because it was taken back or because it booted.
    pub(super) fn fault_ends(&mut self) {
        if let Some(fault) = self.faults.last_mut() {
            fault.until = fault.until.min(seconds());
        }
    }

    pub(super) fn wakes(&mut self) {
        self.wakeups.push(Wakeup { resumed: seconds(), ended: None });
    }

    /// A boot has begun, or its power is cut.
    pub(super) fn wakeup_ends(&mut self) {
        if let Some(wakeup) = self.wakeups.last_mut() {
            wakeup.ended.get_or_insert(seconds());
        }
    }

    /// When it went on after a hang whose boot has not been seen yet.
    pub(super) fn awaits_boot(&self) -> Option<f64> {
        self.wakeups.last().filter(|wakeup| wakeup.ended.is_none()).map(|wakeup| wakeup.resumed)
    }
}
