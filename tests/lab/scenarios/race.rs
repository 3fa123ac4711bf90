//! Two hosts that mount one filesystem at the same instant, round after round (K1): who gets in, what whoever is in writes,
//! and what is on the disk afterwards.

use std::sync::Mutex;
use std::time::Duration;

use mmpguard::clock;

use crate::harness::{Lab, Outcome, Running, Vm, Write, seconds};
use crate::scenarios::side::Side;

/// How long a mount may take: the longest waits, and a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);
/// How long it takes from a script's start until it waits for the trigger.
const TO_THE_LINE: Duration = Duration::from_millis(700);
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
    /// How far apart the first writes of both to the block were, where both wrote: how close the race was.
    pub(crate) apart_s: Vec<f64>,
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

    /// Starts both mounts at one instant.
    pub(crate) fn start(&self, sides: [&Side<'_>; 2]) -> Outcome<[Running; 2]> {
        let _alone = self.one_at_a_time.lock().expect("no panic");
        let trigger = self.lab.next_trigger();
        let [mut a, mut b] = [sides[0].mount_at(trigger)?, sides[1].mount_at(trigger)?];
        a.pid()?;
        b.pid()?;
        clock::sleep(TO_THE_LINE);
        self.lab.fire(trigger)?;
        Ok([a, b])
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
        tally.apart_s = windows.iter().filter_map(|window| window.apart_s(&beats)).collect();
        tally.wrote_outside = windows.iter().filter(|window| window.stranger_wrote(&written)).count();
        Ok(tally)
    }

    /// One round on a filesystem that is made for it.
    fn round(&self, gate: &Gate<'_>, number: usize, tally: &mut Tally) -> Outcome<Window> {
        self.a.disk.make_ext4()?;
        let from = seconds();
        let mut let_in = [false; 2];
        let started = gate.start(self.sides())?;
        for ((running, side), is_in) in started.into_iter().zip(self.sides()).zip(&mut let_in) {
            let ended = running.wait_for(PATIENCE)?;
            *is_in = ended.ok();
            if ended.ok() {
                tally.seconds.push(ended.seconds);
            } else if !side.says_in_use(&ended) {
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
            sum.remarks.extend(tally.remarks.iter().cloned());
        }
        sum
    }

    /// Never two at once, nothing written by whoever was refused, nothing damaged, and no other failure.
    pub(crate) fn is_safe(&self) -> bool {
        self.both == 0 && self.wrote_outside == 0 && self.damaged == 0 && self.remarks.is_empty()
    }

    /// For the table.
    pub(crate) fn words(&self) -> String {
        let Tally { rounds, both, one, none, wrote_outside, damaged, seconds, apart_s, remarks } = self;
        let mut words = format!("{rounds} rounds: both in {both}, exactly one {one}, none {none}");
        if let Some(longest) = seconds.iter().copied().reduce(f64::max) {
            words += &format!("; mounts took up to {longest:.1} s");
        }
        let mut apart_s = apart_s.clone();
        apart_s.sort_by(f64::total_cmp);
        if let Some(median) = apart_s.get(apart_s.len() / 2) {
            words +=
                &format!("; both claimed in {}, half of these within {:.0} ms", apart_s.len(), median * 1e3);
        }
        words += &format!("; {damaged} filesystems damaged; {wrote_outside} refused hosts wrote");
        if let Some(remark) = remarks.first() {
            words += &format!("; the first of {}: {remark}", remarks.len());
        }
        words.replace('\n', " ")
    }
}

/// Two hosts with so many disks.
pub(crate) fn hosts(lab: &Lab, disks: &[crate::harness::Disk]) -> Outcome<[Vm; 2]> {
    let disks: Vec<_> = disks.iter().collect();
    let spec = |host| crate::harness::Spec::new(host, &disks);
    Vm::boot_all(lab, [spec("alpha"), spec("beta")])
}
