//! The order of a climb: which rung runs when, how long, and when the fence is done. No I/O here.
//!
//! Protects: *done* is said only when new I/O is refused **and** nothing is under way, on every layer, and the cut holds
//! still. Unknown is not zero. Whatever hangs, the reboot runs at the limit at the latest. Does not protect: what a rung
//! says it did is believed; what it proves is the rung's own business.

use std::time::Duration;

use super::report::{ClimbReport, Outcome, RungReport};
use crate::clock::Mono;

/// How long a rung may take.
const RUNG_LIMIT: Duration = Duration::from_secs(3);
/// An administrator's command may talk to something over a network.
const COMMAND_LIMIT: Duration = Duration::from_secs(5);
/// Processes die at once or not at all.
const HELP_LIMIT: Duration = Duration::from_secs(1);
/// How long I/O under way may take to end before the next rung runs beside it.
const SETTLE: Duration = Duration::from_secs(2);
/// How often that is asked.
const POLL: Duration = Duration::from_millis(20);
/// How long we look on while the host reboots.
const REBOOT_LIMIT: Duration = Duration::from_secs(30);

/// What a rung is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    /// Refuses new I/O, for good.
    Cuts,
    /// Somebody vouches for that: what cannot be counted is believed.
    Vouched,
    /// Nothing writes any more, although the device would take it (an XFS that is shut down).
    Stills,
    /// Makes less of it. Not a fence.
    Helps,
    /// As [`Effect::Helps`], and does harm without a cut (an ext4 that is shut down writes a clean mark).
    HelpsAfterCut,
    /// Ends this host.
    Reboots,
}

/// How a rung ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// It did it. `drained`: the device is gone, and the kernel had waited for what was under way.
    Did {
        detail: String,
        drained: bool,
    },
    Failed(String),
    /// It did not end in time. `goes_on`: it may come to its end yet, and [`Rung::later`] tells.
    Late {
        detail: String,
        goes_on: bool,
    },
}

/// One rung that is possible, prepared.
pub(super) trait Rung {
    fn effect(&self) -> Effect;

    /// Runs it until `until` at most.
    fn run(&mut self, until: Mono) -> Ended;

    /// What became of one that was late and goes on, if it has ended since.
    fn later(&mut self) -> Option<Ended> {
        None
    }

    /// Whether what it did still holds.
    fn holds(&self) -> Result<(), String> {
        Ok(())
    }

    /// Makes it last, once nothing is under way.
    fn seal(&mut self, _until: Mono) -> Result<(), String> {
        Ok(())
    }

    /// The descriptors it needs.
    fn descriptors(&self) -> Vec<std::os::fd::RawFd> {
        Vec::new()
    }
}

/// A rung of the ladder: prepared, or why it is not possible.
pub(super) struct Step<'a> {
    pub(super) name: String,
    pub(super) rung: Result<&'a mut dyn Rung, &'a str>,
}

/// What a climb sees of the world.
pub(super) trait Scene {
    fn now(&self) -> Mono;
    fn sleep(&self, span: Duration);
    /// The I/O under way on the device and all it stands on. What is `drained` counts as nothing where it is gone.
    fn in_flight(&self, drained: bool) -> Option<u64>;
}

/// Climbs until the fence is done, or nothing is left.
pub(super) fn climb(
    steps: &mut [Step<'_>],
    scene: &dyn Scene,
    limit: Mono,
    complete: bool,
    report: &mut dyn FnMut(&RungReport),
) -> ClimbReport {
    let mut climb = Climb::new(steps, scene, limit);
    climb.run(report);
    let done = climb.done_by.is_some();
    ClimbReport {
        done,
        cut: done && climb.is_cut(),
        incomplete: !complete && !done,
        by: climb.done_by.map(|place| climb.steps[place].name.clone()),
        in_flight: climb.in_flight(),
        took_ms: ms(scene.now().since(climb.begin)),
        rungs: climb.told,
    }
}

struct Climb<'a, 'b> {
    steps: &'a mut [Step<'b>],
    scene: &'a dyn Scene,
    begin: Mono,
    limit: Mono,
    told: Vec<RungReport>,
    /// Those whose effect is in force, and those that were late.
    in_force: Vec<usize>,
    late: Vec<usize>,
    drained: bool,
    done_by: Option<usize>,
    /// What was under way when it was done: a path that is removed after that tells nothing any more.
    then: Option<u64>,
}

impl<'a, 'b> Climb<'a, 'b> {
    fn new(steps: &'a mut [Step<'b>], scene: &'a dyn Scene, limit: Mono) -> Self {
        let (told, in_force, late) = (Vec::with_capacity(steps.len()), Vec::new(), Vec::new());
        let begin = scene.now();
        Climb { steps, scene, begin, limit, told, in_force, late, drained: false, done_by: None, then: None }
    }

    fn run(&mut self, report: &mut dyn FnMut(&RungReport)) {
        let reboot = self.reboot();
        for place in 0..self.steps.len() {
            if Some(place) == reboot {
                continue;
            }
            let begin = self.scene.now();
            let (outcome, detail) = self.climb_one(place, reboot.is_some());
            self.tell(place, begin, outcome, detail, report);
            if self.done_by.is_some() {
                return;
            }
        }
        // Nothing else is left to do: what is in force may still come to its end.
        self.settle(self.limit);
        if let (None, Some(place)) = (self.done_by, reboot) {
            let begin = self.scene.now();
            report(&self.report(place, begin, Outcome::Begun, "reboots now".to_owned()));
            let (outcome, detail) = self.attempt(place, begin + REBOOT_LIMIT);
            if outcome == Outcome::Achieved {
                self.done_by = Some(place);
            }
            self.tell(place, begin, outcome, detail, report);
        }
    }

    /// Where a reboot that is possible stands.
    fn reboot(&self) -> Option<usize> {
        let reboots = |step: &Step<'_>| step.rung.as_ref().is_ok_and(|rung| rung.effect() == Effect::Reboots);
        self.steps.iter().position(reboots)
    }

    fn climb_one(&mut self, place: usize, reboot_follows: bool) -> (Outcome, String) {
        let effect = match &self.steps[place].rung {
            Ok(rung) => rung.effect(),
            Err(why) => return (Outcome::Impossible, (*why).to_owned()),
        };
        let now = self.scene.now();
        // Late is better than never: only a reboot that follows is better than late.
        if now >= self.limit && reboot_follows {
            return (Outcome::Skipped, "no time was left before the reboot".to_owned());
        }
        self.hear_the_late();
        if effect == Effect::HelpsAfterCut && reboot_follows && !self.is_cut() {
            return (
                Outcome::Skipped,
                "does harm while the device takes writes, and a reboot follows".to_owned(),
            );
        }
        let time = match effect {
            Effect::Vouched => COMMAND_LIMIT,
            Effect::Helps | Effect::HelpsAfterCut => HELP_LIMIT,
            _ => RUNG_LIMIT,
        };
        let within = |until: Mono, limit: Mono| if reboot_follows { until.min(limit) } else { until };
        let ended = self.attempt(place, within(now + time, self.limit));
        self.settle(within(self.scene.now() + SETTLE, self.limit));
        ended
    }

    fn attempt(&mut self, place: usize, until: Mono) -> (Outcome, String) {
        let Ok(rung) = &mut self.steps[place].rung else { return (Outcome::Impossible, String::new()) };
        match rung.run(until) {
            Ended::Did { detail, drained } => {
                self.in_force.push(place);
                self.drained |= drained;
                (Outcome::Achieved, detail)
            }
            Ended::Failed(detail) => (Outcome::Failed, detail),
            Ended::Late { detail, goes_on } => {
                if goes_on {
                    self.late.push(place);
                }
                (Outcome::Late, detail)
            }
        }
    }

    /// Waits until nothing is under way, if there is a reason to wait: something is in force, or may come to be.
    fn settle(&mut self, until: Mono) {
        loop {
            self.hear_the_late();
            let in_flight = self.in_flight();
            let mut may_come = !self.late.is_empty();
            for at in 0..self.in_force.len() {
                let place = self.in_force[at];
                let Ok(rung) = &mut self.steps[place].rung else { continue };
                let effect = rung.effect();
                if !matches!(effect, Effect::Cuts | Effect::Vouched | Effect::Stills) {
                    continue;
                }
                may_come |= in_flight.is_some();
                let idle = in_flight == Some(0) || (in_flight.is_none() && effect == Effect::Vouched);
                if idle && rung.holds().is_ok() && rung.seal(until).is_ok() && rung.holds().is_ok() {
                    (self.done_by, self.then) = (Some(place), in_flight);
                    return;
                }
            }
            if !may_come || self.scene.now() >= until {
                return;
            }
            self.scene.sleep(POLL);
        }
    }

    fn hear_the_late(&mut self) {
        let mut at = 0;
        while at < self.late.len() {
            let place = self.late[at];
            let ended = self.steps[place].rung.as_mut().ok().and_then(|rung| rung.later());
            match ended {
                None | Some(Ended::Late { .. }) => at += 1,
                Some(ended) => {
                    self.late.remove(at);
                    if let Ended::Did { drained, .. } = ended {
                        self.in_force.push(place);
                        self.drained |= drained;
                    }
                }
            }
        }
    }

    fn is_cut(&self) -> bool {
        let cuts = |place: &usize| {
            let effect = self.steps[*place].rung.as_ref().map(|rung| rung.effect());
            matches!(effect, Ok(Effect::Cuts | Effect::Vouched))
        };
        self.in_force.iter().any(cuts)
    }

    fn in_flight(&self) -> Option<u64> {
        if self.done_by.is_some() { self.then } else { self.scene.in_flight(self.drained) }
    }

    fn report(&self, place: usize, begin: Mono, outcome: Outcome, detail: String) -> RungReport {
        let took_ms = ms(self.scene.now().since(begin));
        RungReport {
            rung: self.steps[place].name.clone(),
            outcome,
            detail,
            took_ms,
            in_flight: self.in_flight(),
        }
    }

    fn tell(
        &mut self,
        place: usize,
        begin: Mono,
        outcome: Outcome,
        detail: String,
        report: &mut dyn FnMut(&RungReport),
    ) {
        let told = self.report(place, begin, outcome, detail);
        report(&told);
        self.told.push(told);
    }
}

fn ms(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
#[path = "climb_tests.rs"]
mod tests;
