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
/// For how long a peer watches what was not left cleanly, at least.
const PEER_WAITS: Duration = Duration::from_secs(20);
const PROMISED: &str = "never both; exactly one in at least 3 of 4 tries (two kernels that claim at one tick may both be refused); \
                        whole afterwards, and the block clean";
/// How often a round is repeated that came too late.
const REPEATS: usize = 3;

/// Who got in, over all rounds and disks.
#[derive(Default)]
struct Tally {
    rounds: usize,
    /// Rounds beside these that were not what the scenario is about. What came of them counts no less.
    late: usize,
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
        let started: Outcome<Vec<_>> =
            sides.iter().map(|pair| Ok(gate.start([&pair[0], &pair[1]])?.0)).collect();
        Ok(Started { since_s, mounts: started?, counts: true })
    })?;
    promise.judge(tally.is_kept(), &tally.words())
}

fn in_the_wait(book: &Book, guarded: Guarded) -> Outcome<()> {
    let promise = book.promise(
        "a holder is reset, and mounts again in his peer's wait",
        guarded,
        &format!(
            "{PROMISED}; back in the wait in each of {ROUNDS} rounds, those that came too late repeated"
        ),
    );
    let tally = rounds(guarded, |[holder, peer], sides, _| {
        let boots = holder.boots();
        let begun = || holder.kernel_log().matches("Linux version").count();
        let before = begun();
        holder.reset()?;
        let since_s = seconds();
        // A boot takes as long as a wait on a busy machine: the peer asks when the kernel has begun, so that it comes back inside.
        let until = clock::mono() + PATIENCE;
        while begun() == before {
            if clock::mono() >= until {
                return Err(format!("no kernel has begun {PATIENCE:?} after the reset"));
            }
            clock::sleep(Duration::from_millis(20));
        }
        let asked = clock::mono();
        let mut waiting = Vec::new();
        for pair in sides {
            waiting.push(peer.start(&pair[1].mount())?);
        }
        holder.wait_for_boot(boots + 1)?;
        let mut mounts = Vec::new();
        for (pair, waiting) in sides.iter().zip(waiting) {
            mounts.push([holder.start(&pair[0].mount())?, waiting]);
        }
        // One that comes when the peer is in is another scenario.
        let counts = clock::mono().since(asked) < PEER_WAITS;
        Ok(Started { since_s, mounts, counts })
    })?;
    let measured = format!(
        "{}; back in the wait in {} of {ROUNDS} rounds, {} more came too late",
        tally.words(),
        tally.rounds,
        tally.late
    );
    promise.judge(tally.is_kept() && tally.rounds == ROUNDS, &measured)
}

/// What happened in a round.
struct Started {
    since_s: f64,
    /// Of both hosts, on each disk.
    mounts: Vec<[Running; 2]>,
    /// Whether it was what the scenario is about.
    counts: bool,
}

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
    while tally.rounds < ROUNDS && tally.late <= REPEATS {
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
        let log_before = [&a, &b].map(|vm| vm.kernel_log().len());
        let Started { since_s, mounts, counts } = happens([&a, &b], &sides, &gate)?;
        tally.rounds += usize::from(counts);
        tally.late += usize::from(!counts);
        for ((pair, running), durable) in sides.iter().zip(mounts).zip(durable) {
            tally.take(pair, running, durable, (since_s, log_before))?;
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
        (since_s, log_before): (f64, [usize; 2]),
    ) -> Outcome<()> {
        let mut let_in = [false; 2];
        let hosts = sides.iter().zip(log_before);
        for ((running, (side, log_before)), is_in) in started.into_iter().zip(hosts).zip(&mut let_in) {
            let ended = running.wait_for(PATIENCE)?;
            *is_in = ended.ok();
            if ended.ok() {
                self.longest = self.longest.max(ended.seconds);
            } else if !side.says_in_use(log_before, &ended)? {
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
        if let_in.contains(&true) && !verdict.left_clean {
            self.remarks.push("the block not clean after the last unmount".to_owned());
        }
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
        let Tally { tries, both, none, peer, damaged, wrote_outside, longest, remarks, .. } = self;
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
