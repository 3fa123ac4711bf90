//! Two hosts that mount one filesystem at the same instant, round after round (K1): who gets in, what whoever is in writes,
//! and what is on the disk afterwards.

use std::sync::Mutex;
use std::time::Duration;

use mmpguard::clock;

use crate::agent::trigger;
use crate::harness::{Lab, Outcome, Running, Vm, Write, seconds};
use crate::scenarios::side::Side;

/// How long a mount may take: the longest waits, and a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);
/// How long both hosts may take from a script's start until they wait for the trigger, and from the trigger until they go.
const TO_THE_LINE: Duration = Duration::from_secs(60);
/// How far apart two mounts may begin that are called a race. Half of the rounds at least have to be one.
const CLOSE_SECONDS: f64 = 0.3;
/// What [`Tally::is_close`] wants, in words.
pub(crate) const CLOSE: &str = "both mounts begun within 0.3 s in at least half of the rounds";
/// For how long whoever is in writes.
const WRITES_FOR: Duration = Duration::from_millis(1500);

/// A disk on which two hosts race.
pub(crate) struct Track<'v> {
    pub(crate) a: Side<'v>,
    pub(crate) b: Side<'v>,
}

/// What came of some rounds.
#[derive(Debug, Default, Clone)]
pub(crate) struct Tally {
    pub(crate) rounds: usize,
    pub(crate) both: usize,
    pub(crate) one: usize,
    pub(crate) none: usize,
    /// Rounds in which a host wrote that was not let in, outside the block that protects.
    pub(crate) wrote_outside: usize,
    /// Rounds after which the check found something, or files were not whole or not there.
    pub(crate) damaged: usize,
    /// How long the winners' mounts took.
    pub(crate) seconds: Vec<f64>,
    /// How far apart both mounts began, at most: how close the race was.
    pub(crate) apart_s: Vec<f64>,
    /// How far apart the first writes of both to the block were, where both wrote.
    claims_apart_s: Vec<f64>,
    /// What went otherwise than promised to protected hosts.
    pub(crate) remarks: Vec<String>,
}

/// One round's window in the traces, and who was let in.
struct Window {
    from: f64,
    to: f64,
    let_in: [bool; 2],
}

/// The gate through which every start goes: a trigger that is fired also fires the ones before it.
pub(crate) struct Gate<'l> {
    lab: &'l Lab,
    one_at_a_time: Mutex<()>,
}

impl<'l> Gate<'l> {
    pub(crate) fn new(lab: &'l Lab) -> Gate<'l> {
        Gate { lab, one_at_a_time: Mutex::new(()) }
    }

    /// Starts both mounts at one instant, and says how many seconds apart they began, at most.
    pub(crate) fn start(&self, sides: [&Side<'_>; 2]) -> Outcome<([Running; 2], f64)> {
        let _alone = self.one_at_a_time.lock().expect("no panic");
        let trigger = self.lab.next_trigger();
        let started = [sides[0].mount_at(trigger)?, sides[1].mount_at(trigger)?];
        let hosts = sides.map(|side| side.vm.spec.host.as_str());
        wait_at_the_line(self.lab, trigger, hosts)?;
        self.lab.fire(trigger)?;
        Ok((started, apart_s(self.lab, trigger, hosts)?))
    }
}

/// Waits until both hosts wait for the trigger.
pub(crate) fn wait_at_the_line(lab: &Lab, trigger: u64, hosts: [&str; 2]) -> Outcome<()> {
    let until = clock::mono() + TO_THE_LINE;
    for host in hosts {
        while lab.said_at_trigger(host)? != trigger::ready(trigger) {
            if clock::mono() >= until {
                return Err(format!("{host} does not wait for its trigger after {TO_THE_LINE:?}"));
            }
            clock::sleep(Duration::from_millis(5));
        }
    }
    Ok(())
}

/// How far apart both hosts have gone, at most: from the last look at which neither had, to the first at which both have.
pub(crate) fn apart_s(lab: &Lab, trigger: u64, hosts: [&str; 2]) -> Outcome<f64> {
    let fired = clock::mono();
    let mut neither = fired;
    loop {
        let look = clock::mono();
        let [a, b] = hosts.map(|host| lab.said_at_trigger(host));
        match [a?, b?].map(|said| said == trigger::gone(trigger)) {
            [true, true] => return Ok(clock::mono().since(neither).as_secs_f64()),
            [false, false] => neither = look,
            _ => {}
        }
        if look.since(fired) >= TO_THE_LINE {
            return Err(format!("{} and {} have not both seen their trigger", hosts[0], hosts[1]));
        }
        clock::sleep(Duration::from_millis(1));
    }
}

/// Runs so many rounds on each track, side by side: a tally for each.
pub(crate) fn run(lab: &Lab, tracks: &[Track<'_>], rounds: usize) -> Outcome<Vec<Tally>> {
    let gate = Gate::new(lab);
    std::thread::scope(|scope| {
        let threads: Vec<_> =
            tracks.iter().map(|track| scope.spawn(|| track.rounds(&gate, rounds))).collect();
        threads.into_iter().map(|thread| thread.join().expect("no panic")).collect()
    })
}

impl Track<'_> {
    fn sides(&self) -> [&Side<'_>; 2] {
        [&self.a, &self.b]
    }

    fn rounds(&self, gate: &Gate<'_>, rounds: usize) -> Outcome<Tally> {
        let mut tally = Tally::default();
        let mut windows = Vec::new();
        for number in 0..rounds {
            windows.push(self.round(gate, number, &mut tally)?);
        }
        let written = [self.a.writes_since(0.0)?, self.b.writes_since(0.0)?];
        let beats = [self.a.beats()?, self.b.beats()?];
        tally.claims_apart_s = windows.iter().filter_map(|window| window.apart_s(&beats)).collect();
        tally.wrote_outside = windows.iter().filter(|window| window.stranger_wrote(&written)).count();
        Ok(tally)
    }

    /// One round on a filesystem that is made for it.
    fn round(&self, gate: &Gate<'_>, number: usize, tally: &mut Tally) -> Outcome<Window> {
        self.a.disk.make_ext4()?;
        let from = seconds();
        let mut let_in = [false; 2];
        let log_before = self.sides().map(Side::log_bytes);
        let (started, apart_s) = gate.start(self.sides())?;
        tally.apart_s.push(apart_s);
        let hosts = self.sides().into_iter().zip(log_before);
        for ((running, (side, log_before)), is_in) in started.into_iter().zip(hosts).zip(&mut let_in) {
            let ended = running.wait_for(PATIENCE)?;
            *is_in = ended.ok();
            if ended.ok() {
                tally.seconds.push(ended.seconds);
            } else if !side.says_in_use(log_before, &ended)? {
                tally.remarks.push(format!("{}: {}", side.vm.spec.host, ended.said().trim()));
            }
        }
        let durable = self.write(let_in, u32::try_from(number).unwrap_or(u32::MAX))?;
        let to = seconds();
        let verdict = self.a.inspect(&durable)?;
        if !verdict.is_whole() {
            tally.damaged += 1;
            tally.remarks.push(verdict.words());
        }
        if let_in.contains(&true) && !verdict.left_clean {
            tally.remarks.push("the block not clean after the last unmount".to_owned());
        }
        tally.rounds += 1;
        match let_in {
            [true, true] => tally.both += 1,
            [false, false] => tally.none += 1,
            _ => tally.one += 1,
        }
        Ok(Window { from, to, let_in })
    }

    /// Whoever is in writes for a while, and leaves. What was durable.
    fn write(&self, let_in: [bool; 2], session: u32) -> Outcome<Vec<String>> {
        let inside: Vec<&Side<'_>> =
            self.sides().into_iter().zip(let_in).filter(|(_, is_in)| *is_in).map(|(side, _)| side).collect();
        let mut writers = Vec::new();
        for side in &inside {
            writers.push((side.vm, side.writer(session)?));
        }
        clock::sleep(WRITES_FOR);
        let mut durable = Vec::new();
        for (vm, writer) in writers {
            durable.extend(writer.stop(vm)?);
        }
        for side in inside {
            side.leave()?;
        }
        Ok(durable)
    }
}

impl Window {
    fn apart_s(&self, beats: &[Vec<Write>; 2]) -> Option<f64> {
        let [a, b] = beats
            .each_ref()
            .map(|beats| beats.iter().map(|beat| beat.at).find(|at| (self.from..=self.to).contains(at)));
        Some((a? - b?).abs())
    }

    fn stranger_wrote(&self, written: &[Vec<Write>; 2]) -> bool {
        let wrote =
            |writes: &[Write]| writes.iter().any(|write| write.at >= self.from && write.at <= self.to);
        written.iter().zip(self.let_in).any(|(writes, is_in)| !is_in && wrote(writes))
    }
}

impl Tally {
    /// Of several tracks together.
    pub(crate) fn sum(tallies: &[Tally]) -> Tally {
        let mut sum = Tally::default();
        for tally in tallies {
            sum.rounds += tally.rounds;
            sum.both += tally.both;
            sum.one += tally.one;
            sum.none += tally.none;
            sum.wrote_outside += tally.wrote_outside;
            sum.damaged += tally.damaged;
            sum.seconds.extend(&tally.seconds);
            sum.apart_s.extend(&tally.apart_s);
            sum.claims_apart_s.extend(&tally.claims_apart_s);
            sum.remarks.extend(tally.remarks.iter().cloned());
        }
        sum
    }

    /// Never two at once, nothing written by whoever was refused, nothing damaged, and no other failure.
    pub(crate) fn is_safe(&self) -> bool {
        self.both == 0 && self.wrote_outside == 0 && self.damaged == 0 && self.remarks.is_empty()
    }

    /// Whether they were races at all.
    pub(crate) fn is_close(&self) -> bool {
        self.rounds > 0 && self.close_rounds() * 2 >= self.rounds
    }

    fn close_rounds(&self) -> usize {
        self.apart_s.iter().filter(|apart_s| **apart_s <= CLOSE_SECONDS).count()
    }

    /// For the table.
    pub(crate) fn words(&self) -> String {
        let Tally { rounds, both, one, none, wrote_outside, damaged, seconds, remarks, .. } = self;
        let mut words = format!("{rounds} rounds: both in {both}, exactly one {one}, none {none}");
        if let Some(longest) = seconds.iter().copied().reduce(f64::max) {
            words += &format!("; mounts took up to {longest:.1} s");
        }
        words += &format!("; begun within {CLOSE_SECONDS} s in {}", self.close_rounds());
        if let Some(median) = median(&self.apart_s) {
            words += &format!(", half within {:.0} ms", median * 1e3);
        }
        if let Some(median) = median(&self.claims_apart_s) {
            let both = self.claims_apart_s.len();
            words += &format!("; both claimed in {both}, half of these within {:.0} ms", median * 1e3);
        }
        words += &format!("; {damaged} filesystems damaged; {wrote_outside} refused hosts wrote");
        if let Some(remark) = remarks.first() {
            words += &format!("; the first of {}: {remark}", remarks.len());
        }
        words.replace('\n', " ")
    }
}

fn median(of: &[f64]) -> Option<f64> {
    let mut sorted = of.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied()
}

/// Two hosts with so many disks.
pub(crate) fn hosts(lab: &Lab, disks: &[crate::harness::Disk]) -> Outcome<[Vm; 2]> {
    let disks: Vec<_> = disks.iter().collect();
    let spec = |host| crate::harness::Spec::new(host, &disks);
    Vm::boot_all(lab, [spec("alpha"), spec("beta")])
}
