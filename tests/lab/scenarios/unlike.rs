//! Hosts that are not alike: `mmp` on one and plain mount(8) on the other, and a kernel 6.1 beside a 6.12. Refusal of what is
//! live and takeover in both directions, and races.

use std::time::Duration;

use crate::book::{Book, Guarded};
use crate::harness::lab::{OLDER_KERNEL, has_kernel};
use crate::harness::{Disk, Lab, Outcome, Spec, Vm, seconds};
use crate::scenarios::race::{self, CLOSE, Tally, Track};
use crate::scenarios::side::{Mapping, Side};
use crate::scenarios::stage::{BUSY_SECONDS, KERNEL_WAITS, NATIVE_WAITS, REFUSAL_SECONDS};
use crate::{Scenario, Set};

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario { name: "mixed_pair", set: Set::Long, run: mixed },
    Scenario { name: "older_kernel_beside", set: Set::Long, run: older },
];

/// What a kernel takes to refuse, at most: two waits and its look.
const KERNEL_REFUSAL_SECONDS: f64 = 24.0;
/// Races of each configuration, a disk for each.
const TRACKS_EACH: usize = 4;
const ROUNDS: usize = 4;
const DELAYS_MS: [u32; 2] = [0, 20];

/// Two hosts, and who protects what on each.
struct Unlike {
    title: &'static str,
    guarded: Guarded,
    by: [Guarded; 2],
    vms: [Vm; 2],
    lab: Lab,
    disks: Vec<Disk>,
}

fn mixed(book: &Book) -> Outcome<()> {
    let by = [Guarded::Mmp, Guarded::Kernel];
    Unlike::new("mmp beside plain mount(8)", Guarded::Mixed, by, |spec| spec)?.all(book)
}

fn older(book: &Book) -> Outcome<()> {
    if !has_kernel(OLDER_KERNEL) {
        return Err(format!("kernel {OLDER_KERNEL} was not fetched"));
    }
    let by = [Guarded::Mmp, Guarded::Mmp];
    Unlike::new("kernel 6.12 beside 6.1", Guarded::Mmp, by, |spec| spec.kernel(OLDER_KERNEL))?.all(book)
}

impl Unlike {
    fn new(
        title: &'static str,
        guarded: Guarded,
        by: [Guarded; 2],
        second: impl FnOnce(Spec) -> Spec,
    ) -> Outcome<Unlike> {
        let lab = Lab::new()?;
        let count = TRACKS_EACH * DELAYS_MS.len();
        let disks: Outcome<Vec<Disk>> =
            (0..count).map(|number| lab.disk(&format!("shared{number}"), 64)).collect();
        let disks = disks?;
        let all: Vec<&Disk> = disks.iter().collect();
        let specs = [Spec::new("alpha", &all), second(Spec::new("beta", &all))];
        let vms = Vm::boot_all(&lab, specs)?;
        Ok(Unlike { title, guarded, by, vms, lab, disks })
    }

    fn all(&self, book: &Book) -> Outcome<()> {
        // Each begins on a filesystem that is made for it, so one that fails spoils none of the others.
        let outcomes = [
            self.refusal(book, [0, 1]),
            self.refusal(book, [1, 0]),
            self.takeover(book, [0, 1]),
            self.takeover(book, [1, 0]),
            self.races(book),
        ];
        let failed: Vec<String> = outcomes.into_iter().filter_map(Result::err).collect();
        if failed.is_empty() { Ok(()) } else { Err(failed.join("; ")) }
    }

    fn side<'v>(&'v self, which: usize, disk: &'v Disk) -> Side<'v> {
        Side::new(&self.vms[which], disk, self.by[which])
    }

    /// Who is who in a row of the table.
    fn title(&self, what: &str, [first, second]: [usize; 2]) -> String {
        let name = |which: usize| match (self.by[which], self.vms[which].spec.kernel) {
            (Guarded::Kernel, _) => "plain mount".to_owned(),
            (_, kernel) if self.guarded == Guarded::Mixed => format!("mmp ({kernel})"),
            (_, kernel) => format!("mmp on {kernel}"),
        };
        format!("{}: {what}: holder {}, then {}", self.title, name(first), name(second))
    }

    /// The second host tries to mount what the first one has, three times.
    fn refusal(&self, book: &Book, order: [usize; 2]) -> Outcome<()> {
        const TRIES: usize = 3;
        let limit =
            if self.by[order[1]] == Guarded::Kernel { KERNEL_REFUSAL_SECONDS } else { REFUSAL_SECONDS };
        let title = self.title("a live filesystem", order);
        let promise = book.promise(
            &title,
            self.guarded,
            &format!(
                "refused as in use within {limit} s (+{BUSY_SECONDS} s if busy); whole, and the block clean"
            ),
        );
        let disk = &self.disks[0];
        disk.make_ext4()?;
        let [holder, other] = order.map(|which| self.side(which, disk));
        holder.vm.must(&holder.mount())?;
        let since_s = seconds();
        let writer = holder.writer(1)?;
        let (mut refused, mut longest) = (0, 0.0_f64);
        for _ in 0..TRIES {
            let (ended, in_use) = other.try_refused()?;
            refused += usize::from(in_use);
            longest = longest.max(ended.seconds);
        }
        let durable = writer.stop(holder.vm)?;
        holder.leave()?;
        let strange = other.writes_since(since_s)?.len();
        let verdict = holder.inspect(&durable)?;
        promise.judge(
            refused == TRIES
                && longest <= limit + BUSY_SECONDS
                && strange == 0
                && verdict.is_whole_and_left()
                && !durable.is_empty(),
            &format!("{refused} of {TRIES} refused in up to {longest:.2} s; {}", verdict.words_and_block()),
        )
    }

    /// The first host is reset while it writes; the second one asks at that moment.
    fn takeover(&self, book: &Book, order: [usize; 2]) -> Outcome<()> {
        // mmp looks for a beat of the holder's before it calls the kernel, since the block is fresh.
        let waits = if self.by[order[1]] == Guarded::Kernel { KERNEL_WAITS } else { NATIVE_WAITS };
        let title = self.title("takeover after a crash", order);
        let promised = format!(
            "{}; whole, with all that was durable, and the block clean",
            waits.words(2.0 * BUSY_SECONDS)
        );
        let promise = book.promise(&title, self.guarded, &promised);
        let disk = &self.disks[1];
        disk.make_ext4()?;
        let [holder, other] = order.map(|which| self.side(which, disk));
        holder.vm.must(&holder.mount())?;
        let mut writer = holder.writer(1)?;
        writer.wait_for(10, Duration::from_secs(60))?;
        let boots = holder.vm.boots();
        holder.vm.reset()?;
        let ended = other.try_mount()?;
        if !ended.ok() {
            return promise.judge(false, &ended.said());
        }
        let mut successor = other.writer(2)?;
        successor.wait_for(5, Duration::from_secs(60))?;
        let mut durable = successor.stop(other.vm)?;
        other.leave()?;
        holder.vm.wait_for_boot(boots + 1)?;
        // What was durable when it was reset, not some time before.
        durable.extend(writer.last_words()?);
        let verdict = other.inspect(&durable)?;
        promise.judge(
            waits.are_kept(2.0 * BUSY_SECONDS, ended.seconds) && verdict.is_whole_and_left(),
            &format!("in after {:.1} s; {}", ended.seconds, verdict.words_and_block()),
        )
    }

    /// Races for a clean filesystem.
    fn races(&self, book: &Book) -> Outcome<()> {
        let promise = book.promise(
            &format!("{}: clean race, writes 0 and 20 ms late", self.title),
            self.guarded,
            &format!(
                "never both, refused hosts write nothing, the block clean after the last unmount; one in at least 3 of 4 rounds (two \
                 kernels that claim at one tick may both be refused); {CLOSE}"
            ),
        );
        let mut tracks = Vec::new();
        for (at, disk) in self.disks.iter().enumerate() {
            let pause_ms = DELAYS_MS[at % DELAYS_MS.len()];
            let mapping = if pause_ms == 0 { Mapping::None } else { Mapping::SlowWrites(pause_ms) };
            let [a, b] = [self.side(0, disk).mapped(mapping)?, self.side(1, disk).mapped(mapping)?];
            tracks.push(Track { a, b });
        }
        let tally = Tally::sum(&race::run(&self.lab, &tracks, ROUNDS)?);
        promise
            .judge(tally.is_safe() && tally.is_close() && tally.one * 4 >= tally.rounds * 3, &tally.words())
    }
}
