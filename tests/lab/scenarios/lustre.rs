//! Lustre's ten cases of multiple-mount protection (its test suite's `mmp`), with `mmp mount` in place of mount(8), and
//! with the kernel alone.
//!
//! Each case has a disk of its own, and all of them run at once on the same two hosts: they sleep most of the time. The only
//! one that resets a host comes last, when nothing else of that host is under way.

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::thread::{Scope, ScopedJoinHandle, scope};
use std::time::Duration;

use mmpguard::clock;
use mmpguard::protocol::sequence::SEQ_FSCK;

use crate::book::{Book, Guarded};
use crate::harness::{Disk, Ended, Lab, Outcome, Spec, Turn, Vm, turns};
use crate::scenarios::race;
use crate::scenarios::stage::{Kind, NATIVE_WAITS, inspect};
use crate::{Scenario, Set};

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario { name: "lustre_ten_kernel", set: Set::Long, run: |book| ten(book, Guarded::Kernel) },
    Scenario { name: "lustre_ten_mmp", set: Set::Short, run: |book| ten(book, Guarded::Mmp) },
];

/// The interval of e2fsck's block in case 8: what Lustre's test writes.
const FSCK_INTERVAL_S: u16 = 30;
/// What ten cases at once on two machines may add to a wait.
const BESIDE_NINE_SECONDS: f64 = 8.0;
/// How long the case that resets a host waits for the others.
const PATIENCE: Duration = Duration::from_secs(150);
/// Long enough for 2 looks of e2fsck at that interval, and for its passes.
const FSCK_PATIENCE: Duration = Duration::from_secs(240);

/// What a case is about.
const CASES: [&str; 10] = [
    "two mounts at once",
    "the second 1 s later",
    "the second 11 s later",
    "the second 20 s later",
    "mount during an unmount",
    "mount after an unmount",
    "mount after a reset of the holder",
    "mount beside an e2fsck that has begun",
    "mount with e2fsck's mark, and after its clearing",
    "e2fsck -fn beside a mount",
];

/// One case on its disk.
struct Case<'a> {
    guarded: Guarded,
    /// From 1.
    number: usize,
    lab: &'a Lab,
    disk: &'a Disk,
    a: &'a Vm,
    b: &'a Vm,
    /// How many cases need `a` no more.
    left_a: &'a AtomicUsize,
}

/// How a case went.
struct Told {
    kept: bool,
    words: String,
    /// Files that were durable when their writers said so.
    durable: Vec<String>,
}

/// All of them.
fn ten(book: &Book, guarded: Guarded) -> Outcome<()> {
    let lab = Lab::new()?;
    let names = (1..=CASES.len()).map(|number| format!("shared{number}"));
    let disks = names.map(|serial| lab.disk(&serial, 64)).collect::<Outcome<Vec<_>>>()?;
    disks.iter().try_for_each(Disk::make_ext4)?;
    let shared: Vec<&Disk> = disks.iter().collect();
    let [a, b] = Vm::boot_all(&lab, [Spec::new("alpha", &shared), Spec::new("beta", &shared)])?;
    let promises: Vec<_> = (CASES.iter().zip(1..))
        .map(|(what, number)| {
            let promise = match guarded {
                Guarded::Kernel => "nothing: what the kernel does is told".to_owned(),
                _ => case_promise(number),
            };
            book.promise(&format!("Lustre's case {number:02}: {what}"), guarded, &promise)
        })
        .collect();
    let left_a = AtomicUsize::new(0);
    let case = |number: usize| {
        let disk = &disks[number - 1];
        Case { guarded, number, lab: &lab, disk, a: &a, b: &b, left_a: &left_a }
    };
    let told = scope(|scope| {
        let started: Vec<_> = (1..=CASES.len()).map(|number| start(scope, case(number))).collect();
        started.into_iter().map(|case| case.join().expect("no panic")).collect::<Vec<_>>()
    });
    let seen = scope(|scope| {
        let looks = told.into_iter().zip(1..).map(|(told, number)| {
            let case = case(number);
            scope.spawn(move || {
                let told = told.map_err(|error| format!("case {number}: {error}"))?;
                let turns = case.turns()?;
                let end = inspect(case.b, case.disk, Kind::Ext4, &told.durable)?;
                Ok((told, turns, end))
            })
        });
        let looks: Vec<_> = looks.collect();
        looks.into_iter().map(|look| look.join().expect("no panic")).collect::<Outcome<Vec<_>>>()
    })?;
    let mut broken = Vec::new();
    for ((promise, (told, turns, end)), number) in promises.into_iter().zip(seen).zip(1..) {
        let case = case(number);
        // e2fsck alone was at work in case 8.
        let end_kept = if number == 8 { end.is_whole() } else { end.is_whole_and_left() };
        let words = format!("{}; {}", told.words, end.words_and_block());
        let kept = told.kept && end_kept && case.in_turn(&turns);
        if guarded == Guarded::Kernel {
            promise.measured(&words);
        } else {
            broken.extend(promise.judge(kept, &format!("{words}; {} in turn", turns.len())).err());
        }
    }
    if broken.is_empty() { Ok(()) } else { Err(broken.join("\n")) }
}

fn case_promise(number: usize) -> String {
    let waits = NATIVE_WAITS.words(BESIDE_NINE_SECONDS);
    let what = match number {
        1..=4 => format!(
            "exactly one gets in, not before {:.1} s, the other is refused as in use",
            NATIVE_WAITS.floor_seconds
        ),
        5 => "asked for before the unmount has ended: refused as in use, or in after it".to_owned(),
        6 | 7 => format!("it gets in, {waits}"),
        8 => return "refused, and e2fsck ends well; whole".to_owned(),
        9 => format!("refused, then let in, {waits}"),
        _ => "exit status 0 or 4, and the mount is unharmed".to_owned(),
    };
    what + "; whole, and the block clean after the last unmount"
}

fn start<'scope, 'a: 'scope>(
    scope: &'scope Scope<'scope, '_>,
    case: Case<'a>,
) -> ScopedJoinHandle<'scope, Outcome<Told>> {
    scope.spawn(move || {
        let told = match case.number {
            1 => case.two(Duration::ZERO),
            2 => case.two(Duration::from_secs(1)),
            3 => case.two(Duration::from_secs(11)),
            4 => case.two(Duration::from_secs(20)),
            5 => case.during_an_unmount(),
            6 => case.after_an_unmount(),
            7 => return case.after_a_reset(),
            8 => return case.beside_a_check(),
            9 => case.with_the_mark(),
            _ => case.checked_while_mounted(),
        };
        case.left_a.fetch_add(1, SeqCst);
        told
    })
}

impl Case<'_> {
    fn directory(&self) -> String {
        format!("/mnt/case{}", self.number)
    }

    fn mount(&self) -> String {
        let program = if self.guarded == Guarded::Kernel { "mount" } else { "mmp mount" };
        format!("mkdir -p {0}; exec {program} {1} {0}", self.directory(), self.disk.node())
    }

    fn umount(&self) -> String {
        let program = if self.guarded == Guarded::Kernel { "umount" } else { "mmp umount" };
        format!("exec {program} {}", self.directory())
    }

    /// Writes stamped files for two seconds, and gives those that are durable.
    fn write(&self, vm: &Vm) -> Outcome<Vec<String>> {
        self.write_as(vm, 1)
    }

    fn write_as(&self, vm: &Vm, session: u32) -> Outcome<Vec<String>> {
        let (directory, host) = (self.directory(), &vm.spec.host);
        let script = format!("timeout 2 /lab/agent lab-agent write {directory} {host} {session} 100");
        let written = vm.run(&script)?;
        let stamps: Vec<_> = written.stdout.lines().map(str::to_owned).collect();
        if stamps.is_empty() { Err(format!("nothing was written: {}", written.said())) } else { Ok(stamps) }
    }

    /// Who wrote outside the MMP block.
    fn turns(&self) -> Outcome<Vec<Turn>> {
        let (a, b) = (self.a.writes(self.disk)?, self.b.writes(self.disk)?);
        Ok(turns(&[(&self.a.spec.host, &a), (&self.b.spec.host, &b)], self.disk.protection()?))
    }

    /// Whether those turns are the ones that the case has: each host comes once, the holder first.
    fn in_turn(&self, turns: &[Turn]) -> bool {
        let hosts: Vec<&str> = turns.iter().map(|turn| turn.host.as_str()).collect();
        match self.number {
            1..=4 => hosts.len() == 1,
            5 => hosts == ["alpha"] || hosts == ["alpha", "beta"],
            // e2fsck at work on beta; the mark cleared on alpha, as it changes the superblock.
            8 => hosts == ["beta"],
            9 => hosts == ["beta"] || hosts == ["alpha", "beta"],
            10 => hosts == ["alpha"],
            _ => hosts == ["alpha", "beta"],
        }
    }

    /// Cases 1 to 4.
    fn two(&self, later: Duration) -> Outcome<Told> {
        let (first, second) = if later.is_zero() {
            let trigger = self.lab.next_trigger();
            let both = (self.a.start_at(trigger, &self.mount())?, self.b.start_at(trigger, &self.mount())?);
            race::wait_at_the_line(self.lab, trigger, [&self.a.spec.host, &self.b.spec.host])?;
            self.lab.fire(trigger)?;
            both
        } else {
            let first = self.a.start(&self.mount())?;
            clock::sleep(later);
            (first, self.b.start(&self.mount())?)
        };
        let ended = [(self.a, first.wait()?), (self.b, second.wait()?)];
        let mut durable = Vec::new();
        let inside: Vec<_> = ended.iter().filter(|(_, ended)| ended.ok()).collect();
        for (vm, _) in &inside {
            durable.extend(self.write(vm)?);
        }
        for (vm, _) in &inside {
            vm.must(&self.umount())?;
        }
        let waited = inside.iter().all(|(_, ended)| ended.seconds >= NATIVE_WAITS.floor_seconds);
        let words = format!(
            "{} of 2 in; first {}, second {}",
            inside.len(),
            self.how(&ended[0].1),
            self.how(&ended[1].1)
        );
        Ok(Told { kept: inside.len() == 1 && waited && self.refused_well(&ended), words, durable })
    }

    /// Who did not get in was told that the device is in use: exit status 1 of `mmp mount`.
    fn refused_well(&self, ended: &[(&Vm, Ended)]) -> bool {
        self.guarded == Guarded::Kernel || ended.iter().all(|(_, ended)| matches!(ended.code, 0 | 1))
    }

    /// It got in, and not before it had waited.
    fn in_after_waits(&self, ended: &Ended) -> bool {
        ended.ok() && NATIVE_WAITS.are_kept(BESIDE_NINE_SECONDS, ended.seconds)
    }

    fn how(&self, ended: &Ended) -> String {
        let seconds = ended.seconds;
        if ended.ok() { format!("in after {seconds:.1} s") } else { format!("refused after {seconds:.1} s") }
    }

    fn during_an_unmount(&self) -> Outcome<Told> {
        self.a.must(&self.mount())?;
        let mut durable = self.write(self.a)?;
        self.a
            .must(&format!("dd if=/dev/urandom of={}/lost+found/large bs=1M count=24", self.directory()))?;
        let mut leaving = self.a.start(&self.umount())?;
        let mut entering = self.b.start(&self.mount())?;
        entering.pid()?;
        let during = leaving.poll()?.is_none();
        let ended = entering.wait()?;
        let left = leaving.wait()?;
        if ended.ok() {
            durable.extend(self.write(self.b)?);
            self.b.must(&self.umount())?;
        }
        let words = format!(
            "asked for {} the unmount, which took {:.1} s; the other {}",
            if during { "during" } else { "after" },
            left.seconds,
            self.how(&ended)
        );
        let answered = self.guarded == Guarded::Kernel || matches!(ended.code, 0 | 1);
        Ok(Told { kept: during && left.ok() && answered, words, durable })
    }

    fn after_an_unmount(&self) -> Outcome<Told> {
        self.a.must(&self.mount())?;
        let mut durable = self.write(self.a)?;
        self.a.must(&self.umount())?;
        let ended = self.b.run(&self.mount())?;
        if ended.ok() {
            durable.extend(self.write(self.b)?);
            self.b.must(&self.umount())?;
        }
        Ok(Told { kept: self.in_after_waits(&ended), words: self.how(&ended), durable })
    }

    /// Once no other case needs the host that is reset.
    fn after_a_reset(&self) -> Outcome<Told> {
        self.a.must(&self.mount())?;
        let mut durable = self.write(self.a)?;
        let until = clock::mono() + PATIENCE;
        while self.left_a.load(SeqCst) < CASES.len() - 1 {
            if clock::mono() >= until {
                return Err(format!(
                    "{} cases still need the host that is to be reset",
                    CASES.len() - 1 - self.left_a.load(SeqCst)
                ));
            }
            clock::sleep(Duration::from_secs(1));
        }
        self.a.reset()?;
        let ended = self.b.run(&self.mount())?;
        if ended.ok() {
            durable.extend(self.write(self.b)?);
            self.b.must(&self.umount())?;
        }
        self.a.wait_for_boot(2)?;
        Ok(Told { kept: self.in_after_waits(&ended), words: self.how(&ended), durable })
    }

    fn beside_a_check(&self) -> Outcome<Told> {
        let raw = self.disk.block();
        let mut block = raw.read();
        (block.seq, block.check_interval_s) = (1, FSCK_INTERVAL_S);
        raw.write(&block);
        let check = self.b.start(&format!("exec e2fsck -fy {}", self.disk.node()))?;
        clock::sleep(Duration::from_secs(5));
        let ended = self.a.run(&self.mount())?;
        if ended.ok() {
            self.a.must(&self.umount())?;
        }
        self.left_a.fetch_add(1, SeqCst);
        let check = check.wait_for(FSCK_PATIENCE)?;
        let words = format!(
            "mount {}; e2fsck exit status {} after {:.1} s",
            self.how(&ended),
            check.code,
            check.seconds
        );
        // 9 is *marked by e2fsck*, which it may say if it comes to look late.
        let refused = self.guarded == Guarded::Kernel && !ended.ok() || matches!(ended.code, 1 | 9);
        Ok(Told { kept: refused && matches!(check.code, 0 | 1), words, durable: Vec::new() })
    }

    fn with_the_mark(&self) -> Outcome<Told> {
        let raw = self.disk.block();
        let mut block = raw.read();
        block.seq = SEQ_FSCK;
        raw.write(&block);
        let marked = self.b.run(&self.mount())?;
        self.a.must(&format!("tune2fs -f -E clear_mmp {}", self.disk.node()))?;
        let cleared = self.b.run(&self.mount())?;
        let mut durable = Vec::new();
        if cleared.ok() {
            durable.extend(self.write(self.b)?);
            self.b.must(&self.umount())?;
        }
        let words = format!("marked: {}, cleared: {}", self.how(&marked), self.how(&cleared));
        let refused = self.guarded == Guarded::Kernel && !marked.ok() || marked.code == 9;
        Ok(Told { kept: refused && self.in_after_waits(&cleared), words, durable })
    }

    fn checked_while_mounted(&self) -> Outcome<Told> {
        self.a.must(&self.mount())?;
        let mut durable = self.write(self.a)?;
        let check = format!("exec e2fsck -fn {}", self.disk.node());
        let codes = [self.a.run(&check)?.code, self.b.run(&check)?.code];
        durable.extend(self.write_as(self.a, 2)?);
        self.a.must(&self.umount())?;
        let words = format!("exit status {} on the holder, {} on the other", codes[0], codes[1]);
        Ok(Told { kept: codes.iter().all(|code| matches!(code, 0 | 4)), words, durable })
    }
}
