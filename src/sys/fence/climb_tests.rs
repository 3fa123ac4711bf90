//! Climbs of ladders made of fakes, in a time of their own.

use std::cell::{Cell, RefCell};

use super::*;

const S: Duration = Duration::from_secs(1);
const LIMIT: Duration = Duration::from_secs(9);
const RUNG_LIMIT_MS: u64 = 3000;

/// A world whose clock the rungs and the sleeps move.
#[derive(Default)]
struct World {
    ns: Cell<u64>,
    /// How much is under way: the last entry that has begun.
    in_flight: Vec<(Duration, Option<u64>)>,
    /// What is gone counts as nothing when the kernel had waited.
    gone: bool,
    ran: RefCell<Vec<&'static str>>,
}

impl World {
    fn with(in_flight: &[(Duration, Option<u64>)]) -> World {
        World { in_flight: in_flight.to_vec(), ..World::default() }
    }

    fn passes(&self, span: Duration) {
        self.ns.set((self.now() + span).0);
    }
}

impl Scene for World {
    fn now(&self) -> Mono {
        Mono(self.ns.get())
    }
    fn sleep(&self, span: Duration) {
        self.passes(span);
    }
    fn in_flight(&self, drained: bool) -> Option<u64> {
        if self.gone {
            return drained.then_some(0);
        }
        let since = self.now().since(Mono(0));
        self.in_flight.iter().rev().find(|(from, _)| *from <= since).and_then(|(_, count)| *count)
    }
}

struct Fake<'w> {
    world: &'w World,
    name: &'static str,
    effect: Effect,
    takes: Duration,
    ends: Ended,
    ends_later_at: Option<Duration>,
    holds_until: Duration,
    seals: bool,
}

impl Rung for Fake<'_> {
    fn effect(&self) -> Effect {
        self.effect
    }
    fn run(&mut self, until: Mono) -> Ended {
        self.world.ran.borrow_mut().push(self.name);
        let left = until.since(self.world.now());
        self.world.passes(self.takes.min(left));
        if self.takes > left {
            return Ended::Late { detail: "hangs".to_owned(), goes_on: self.ends_later_at.is_some() };
        }
        self.ends.clone()
    }
    fn later(&mut self) -> Option<Ended> {
        self.ends_later_at.filter(|at| Mono(0) + *at <= self.world.now()).map(|_| self.ends.clone())
    }
    fn holds(&self) -> Result<(), String> {
        let holds = self.world.now() < Mono(0) + self.holds_until;
        holds.then_some(()).ok_or_else(|| "undone".to_owned())
    }
    fn seal(&mut self, _until: Mono) -> Result<(), String> {
        self.seals.then_some(()).ok_or_else(|| "not for good".to_owned())
    }
}

fn did(drained: bool) -> Ended {
    Ended::Did { detail: "did".to_owned(), drained }
}

fn fake<'w>(world: &'w World, name: &'static str, effect: Effect) -> Fake<'w> {
    let (takes, holds_until) = (S / 10, Duration::MAX);
    Fake { world, name, effect, takes, ends: did(false), ends_later_at: None, holds_until, seals: true }
}

/// Climbs with the limit at 9 s; gives the report and the outcomes as they were told.
fn climbed(world: &World, rungs: &mut [Fake<'_>]) -> (ClimbReport, Vec<(String, Outcome)>) {
    let complete = rungs.iter().any(|rung| !matches!(rung.effect, Effect::Helps | Effect::HelpsAfterCut));
    let mut steps: Vec<_> = rungs
        .iter_mut()
        .map(|rung| Step { name: rung.name.to_owned(), rung: Ok(rung as &mut dyn Rung) })
        .collect();
    let mut told = Vec::new();
    let report = climb(&mut steps, world, Mono(0) + LIMIT, complete, &mut |rung| {
        told.push((rung.rung.clone(), rung.outcome));
    });
    (report, told)
}

fn outcomes(told: &[(String, Outcome)]) -> Vec<(&str, Outcome)> {
    told.iter().map(|(name, outcome)| (name.as_str(), *outcome)).collect()
}

#[test]
fn a_cut_with_nothing_under_way_is_done_and_the_rest_is_left_alone() {
    let world = World::with(&[(Duration::ZERO, Some(0))]);
    let mut rungs = [fake(&world, "dm", Effect::Cuts), fake(&world, "reboot", Effect::Reboots)];
    let (report, told) = climbed(&world, &mut rungs);
    assert_eq!((report.done, report.by.as_deref(), report.in_flight), (true, Some("dm"), Some(0)));
    assert_eq!((report.took_ms, outcomes(&told)), (100, vec![("dm", Outcome::Achieved)]));
    assert_eq!(*world.ran.borrow(), ["dm"]);
}

#[test]
fn it_waits_for_what_is_under_way() {
    let world = World::with(&[(Duration::ZERO, Some(3)), (S, Some(0))]);
    let (report, _) = climbed(&world, &mut [fake(&world, "scsi", Effect::Cuts)]);
    assert!(report.done && (1000..1040).contains(&report.took_ms), "{report:?}");
    assert_eq!(report.rungs[0].in_flight, Some(0));
}

#[test]
fn what_never_ends_leads_to_the_next_rung_and_at_the_limit_to_the_reboot() {
    let world = World::with(&[(Duration::ZERO, Some(1))]);
    let mut rungs = [
        fake(&world, "dm", Effect::Cuts),
        fake(&world, "kill", Effect::Helps),
        fake(&world, "reboot", Effect::Reboots),
    ];
    let (report, told) = climbed(&world, &mut rungs);
    let expected = [
        ("dm", Outcome::Achieved),
        ("kill", Outcome::Achieved),
        ("reboot", Outcome::Begun),
        ("reboot", Outcome::Achieved),
    ];
    assert_eq!(outcomes(&told), expected);
    assert_eq!(report.rungs.len(), 3, "the begin is told while it runs, not kept");
    assert_eq!((report.rungs[0].took_ms, report.rungs[0].in_flight), (2100, Some(1)));
    let ms = report.took_ms;
    assert!(report.by.as_deref() == Some("reboot") && (9000..9200).contains(&ms), "{report:?}");
}

#[test]
fn unknown_is_not_zero_unless_somebody_vouches() {
    let world = World::with(&[]);
    let (report, _) = climbed(&world, &mut [fake(&world, "dm", Effect::Cuts)]);
    assert_eq!((report.done, report.incomplete, report.took_ms), (false, false, 100), "nothing to wait for");
    let world = World::with(&[]);
    let mut rungs = [fake(&world, "dm", Effect::Cuts), fake(&world, "exec:/x", Effect::Vouched)];
    let (report, _) = climbed(&world, &mut rungs);
    assert_eq!((report.done, report.by.as_deref()), (true, Some("exec:/x")));
    // What is counted counts, whoever vouches.
    let world = World::with(&[(Duration::ZERO, Some(1))]);
    assert!(!climbed(&world, &mut [fake(&world, "exec:/x", Effect::Vouched)]).0.done);
}

#[test]
fn a_rung_that_hangs_gets_its_time_and_no_more() {
    let world = World::with(&[(Duration::ZERO, Some(0))]);
    let hanging = Fake { takes: 100 * S, ..fake(&world, "dm", Effect::Cuts) };
    let (report, told) = climbed(&world, &mut [hanging, fake(&world, "scsi", Effect::Cuts)]);
    assert_eq!(outcomes(&told), [("dm", Outcome::Late), ("scsi", Outcome::Achieved)]);
    assert!(report.done && report.rungs[0].took_ms == RUNG_LIMIT_MS, "nothing is awaited of it: {report:?}");
}

#[test]
fn rungs_are_skipped_at_the_limit_and_the_reboot_runs() {
    let world = World::with(&[(Duration::ZERO, Some(1))]);
    let hanging = |name| Fake { takes: 100 * S, ..fake(&world, name, Effect::Cuts) };
    let mut rungs = [
        hanging("dm"),
        hanging("scsi"),
        hanging("unbind"),
        fake(&world, "kill", Effect::Helps),
        fake(&world, "reboot", Effect::Reboots),
    ];
    let (report, told) = climbed(&world, &mut rungs);
    let outcomes: Vec<_> = told.iter().map(|(_, outcome)| *outcome).collect();
    use Outcome::{Achieved, Begun, Late, Skipped};
    assert_eq!(outcomes, [Late, Late, Late, Skipped, Begun, Achieved]);
    assert!(report.took_ms < 9200, "{report:?}");
    assert_eq!(*world.ran.borrow(), ["dm", "scsi", "unbind", "reboot"]);
}

#[test]
fn a_cut_that_was_late_counts_once_it_has_ended() {
    let world = World::with(&[(Duration::ZERO, Some(1)), (6 * S, Some(0))]);
    let late = Fake { takes: 100 * S, ends_later_at: Some(6 * S), ..fake(&world, "dm", Effect::Cuts) };
    let failing = Fake { ends: Ended::Failed("no".to_owned()), ..fake(&world, "scsi", Effect::Cuts) };
    let mut rungs = [late, failing, fake(&world, "reboot", Effect::Reboots)];
    let (report, told) = climbed(&world, &mut rungs);
    assert_eq!(outcomes(&told), [("dm", Outcome::Late), ("scsi", Outcome::Failed)]);
    assert!(report.by.as_deref() == Some("dm") && (6000..6100).contains(&report.took_ms), "{report:?}");
}

#[test]
fn a_cut_that_was_undone_or_cannot_be_made_to_last_is_none() {
    let world = World::with(&[(Duration::ZERO, Some(1)), (S, Some(0))]);
    let undone = Fake { holds_until: S / 2, ..fake(&world, "scsi", Effect::Cuts) };
    let (report, _) = climbed(&world, &mut [undone]);
    assert!(!report.done && !report.incomplete);
    let world = World::with(&[(Duration::ZERO, Some(0))]);
    let unsealed = Fake { seals: false, ..fake(&world, "scsi", Effect::Cuts) };
    assert!(!climbed(&world, &mut [unsealed]).0.done);
}

#[test]
fn a_device_that_is_gone_counts_only_if_the_kernel_had_waited() {
    let world = World { gone: true, ..World::default() };
    assert!(!climbed(&world, &mut [fake(&world, "unbind", Effect::Cuts)]).0.done);
    let drained = Fake { ends: did(true), ..fake(&world, "unbind", Effect::Cuts) };
    assert!(climbed(&world, &mut [drained]).0.done);
}

#[test]
fn an_incomplete_ladder_says_so_and_tells_what_it_did() {
    let world = World::with(&[(Duration::ZERO, Some(0))]);
    let mut rungs = [fake(&world, "shutdown", Effect::HelpsAfterCut), fake(&world, "kill", Effect::Helps)];
    let (report, told) = climbed(&world, &mut rungs);
    assert_eq!((report.done, report.incomplete, report.by), (false, true, None));
    assert_eq!(outcomes(&told), [("shutdown", Outcome::Achieved), ("kill", Outcome::Achieved)]);
}

#[test]
fn what_does_harm_without_a_cut_is_skipped_before_a_reboot() {
    let climbed_with = |cut: Ended| {
        let world = World::with(&[(Duration::ZERO, Some(1))]);
        let mut rungs = [
            Fake { ends: cut, ..fake(&world, "dm", Effect::Cuts) },
            fake(&world, "shutdown", Effect::HelpsAfterCut),
            fake(&world, "reboot", Effect::Reboots),
        ];
        climbed(&world, &mut rungs).0.rungs.iter().map(|rung| rung.outcome).collect::<Vec<_>>()
    };
    use Outcome::{Achieved, Failed, Skipped};
    assert_eq!(climbed_with(did(false)), [Achieved, Achieved, Achieved]);
    assert_eq!(climbed_with(Ended::Failed("no".to_owned())), [Failed, Skipped, Achieved]);
}

#[test]
fn a_stilled_filesystem_is_done_when_nothing_is_under_way() {
    let world = World::with(&[(Duration::ZERO, Some(2)), (S / 2, Some(0))]);
    let (report, _) = climbed(&world, &mut [fake(&world, "shutdown", Effect::Stills)]);
    assert!(report.done && !report.incomplete, "{report:?}");
}

#[test]
fn without_a_cut_the_reboot_does_not_wait() {
    let world = World::with(&[(Duration::ZERO, Some(5))]);
    let why = "no device mapper device".to_owned();
    let mut reboot = fake(&world, "reboot", Effect::Reboots);
    let mut steps = [
        Step { name: "dm".to_owned(), rung: Err(&why) },
        Step { name: "reboot".to_owned(), rung: Ok(&mut reboot) },
    ];
    let report = climb(&mut steps, &world, Mono(0) + LIMIT, true, &mut |_| {});
    assert_eq!((report.rungs[0].outcome, report.rungs[0].detail.as_str()), (Outcome::Impossible, &why[..]));
    assert!(report.done && report.took_ms == 100, "{report:?}");
}

#[test]
fn a_reboot_that_fails_is_not_done() {
    let world = World::with(&[(Duration::ZERO, Some(0))]);
    let mut reboot = fake(&world, "reboot", Effect::Reboots);
    reboot.ends = Ended::Failed("refused".to_owned());
    let (report, told) = climbed(&world, &mut [reboot]);
    assert_eq!(outcomes(&told), [("reboot", Outcome::Begun), ("reboot", Outcome::Failed)]);
    assert!(!report.done && !report.incomplete);
}
