//! Hosts that are reset and come back at once: both of them, and a holder while his peer is still waiting to take over.

use std::time::Duration;

use mmpguard::clock;

use crate::book::{Book, Guarded};
use crate::harness::{Disk, Lab, Outcome, Running, Vm, seconds};
use crate::scenarios::race::{self, Gate};
use crate::scenarios::side::Side;
use crate::{Scenario, Set};

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario { name: "reset_both_kernel", set: Set::Long, run: |book| both(book, Guarded::Kernel) },
    Scenario { name: "reset_both_mmp", set: Set::Long, run: |book| both(book, Guarded::Mmp) },
    Scenario {
        name: "reset_in_the_wait_kernel",
        set: Set::Long,
        run: |book| in_the_wait(book, Guarded::Kernel),
    },
    Scenario { name: "reset_in_the_wait_mmp", set: Set::Long, run: |book| in_the_wait(book, Guarded::Mmp) },
];

/// Side by side.
const DISKS: usize = 4;
const ROUNDS: usize = 3;
/// A boot, and the waits of two mounts.
const PATIENCE: Duration = Duration::from_secs(120);
/// For how long a kernel watches what was not left cleanly, at least.
const PEER_WAITS: Duration = Duration::from_secs(20);
const PROMISED: &str = "never both; exactly one on at least 3 of 4 disks; whole afterwards";

/// Who got in, over all rounds and disks.
#[derive(Default)]
struct Tally {
    tries: usize,
    both: usize,
    none: usize,
    /// The one that had not held it before.
    peer: usize,
    damaged: usize,
    /// Disks on which a refused host wrote outside the block that protects.
    wrote_outside: usize,
    longest: f64,
    remarks: Vec<String>,
}

fn both(book: &Book, guarded: Guarded) -> Outcome<()> {
    let promise = book.promise("both hosts are reset at once, and mount at once", guarded, PROMISED);
    let tally = rounds(guarded, |vms, sides, gate| {
        let boots = vms.map(Vm::boots);
        for vm in vms {
            vm.reset()?;
        }
        let since_s = seconds();
        for (vm, boots) in vms.into_iter().zip(boots) {
            vm.wait_for_boot(boots + 1)?;
        }
        let started: Outcome<Vec<_>> = sides.iter().map(|pair| gate.start([&pair[0], &pair[1]])).collect();
        Ok((since_s, started?))
    })?;
    promise.judge(tally.is_kept(), &tally.words())
}

fn in_the_wait(book: &Book, guarded: Guarded) -> Outcome<()> {
    let promise = book.promise("a holder is reset, and mounts again in his peer's wait", guarded, PROMISED);
    let mut rounds_in_the_wait = 0;
    let tally = rounds(guarded, |[holder, peer], sides, _| {
        let boots = holder.boots();
        holder.reset()?;
        let since_s = seconds();
        let asked = clock::mono();
        let mut waiting = Vec::new();
        for pair in sides {
            waiting.push(peer.start(&pair[1].mount())?);
        }
        holder.wait_for_boot(boots + 1)?;
        // A slow boot comes when the peer is in, and is another scenario.
        rounds_in_the_wait += u32::from(clock::mono().since(asked) < PEER_WAITS);
        let mut started = Vec::new();
        for (pair, waiting) in sides.iter().zip(waiting) {
            started.push([holder.start(&pair[0].mount())?, waiting]);
        }
        Ok((since_s, started))
    })?;
    let measured = format!("{}; back in the wait in {rounds_in_the_wait} of {ROUNDS} rounds", tally.words());
    promise.judge(tally.is_kept() && rounds_in_the_wait > 0, &measured)
}

type Started = (f64, Vec<[Running; 2]>);

/// In each round the first host holds every disk and writes; then `happens`, and starts the mounts of both.
fn rounds(
    guarded: Guarded,
    mut happens: impl FnMut([&Vm; 2], &[[Side<'_>; 2]], &Gate<'_>) -> Outcome<Started>,
) -> Outcome<Tally> {
    let lab = Lab::new()?;
    let disks: Outcome<Vec<Disk>> =
        (0..DISKS).map(|number| lab.disk(&format!("shared{number}"), 64)).collect();
    let disks = disks?;
    let [a, b] = race::hosts(&lab, &disks)?;
    let gate = Gate::new(&lab);
    let mut tally = Tally::default();
    for _ in 0..ROUNDS {
        for disk in &disks {
            disk.make_ext4()?;
        }
        let sides: Vec<[Side<'_>; 2]> =
            disks.iter().map(|disk| [&a, &b].map(|vm| Side::new(vm, disk, guarded))).collect();
        let mounting: Outcome<Vec<_>> = sides.iter().map(|pair| a.start(&pair[0].mount())).collect();
        for running in mounting? {
            let ended = running.wait_for(PATIENCE)?;
            if !ended.ok() {
                return Err(format!("the first mount: {}", ended.said()));
            }
        }
        let mut durable = Vec::new();
        for pair in &sides {
            let mut writer = pair[0].writer(1)?;
            writer.wait_for(5, Duration::from_secs(60))?;
            durable.push(writer.stop(&a)?);
        }
        let (since_s, started) = happens([&a, &b], &sides, &gate)?;
        for ((pair, running), durable) in sides.iter().zip(started).zip(durable) {
            tally.take(pair, running, durable, since_s)?;
        }
    }
    Ok(tally)
}

impl Tally {
    /// What came of one disk in one round.
    fn take(
        &mut self,
        sides: &[Side<'_>; 2],
        started: [Running; 2],
        mut durable: Vec<String>,
        since_s: f64,
    ) -> Outcome<()> {
        let mut let_in = [false; 2];
        for ((running, side), is_in) in started.into_iter().zip(sides).zip(&mut let_in) {
            let ended = running.wait_for(PATIENCE)?;
            *is_in = ended.ok();
            if ended.ok() {
                self.longest = self.longest.max(ended.seconds);
            } else if !side.says_in_use(&ended) {
                self.remarks.push(format!("{}: {}", side.vm.spec.host, ended.said().trim()));
            }
        }
        self.tries += 1;
        match let_in {
            [true, true] => self.both += 1,
            [false, false] => self.none += 1,
            [false, true] => self.peer += 1,
            [true, false] => {}
        }
        for (side, is_in) in sides.iter().zip(let_in) {
            if is_in {
                let mut writer = side.writer(2)?;
                writer.wait_for(3, Duration::from_secs(60))?;
                durable.extend(writer.stop(side.vm)?);
                side.leave()?;
            } else if !side.writes_since(since_s)?.is_empty() {
                self.wrote_outside += 1;
            }
        }
        let verdict = sides[0].inspect(&durable)?;
        if !verdict.is_whole() {
            self.damaged += 1;
            self.remarks.push(verdict.words());
        }
        Ok(())
    }

    fn is_kept(&self) -> bool {
        let one = self.tries - self.both - self.none;
        let safe = self.both == 0 && self.damaged == 0 && self.wrote_outside == 0 && self.remarks.is_empty();
        safe && one * 4 >= self.tries * 3
    }

    fn words(&self) -> String {
        let Tally { tries, both, none, peer, damaged, wrote_outside, longest, remarks } = self;
        let mut words = format!(
            "{tries} times: both in {both}, none {none}, exactly one {}, the second host {peer} times; mounts took up to \
             {longest:.1} s; {damaged} filesystems damaged; {wrote_outside} refused hosts wrote",
            tries - both - none
        );
        if let Some(remark) = remarks.first() {
            words += &format!("; the first of {}: {remark}", remarks.len());
        }
        words.replace('\n', " ")
    }
}
