//! e2fsck as a peer, with the true behaviour of e2fsprogs 1.47 (`lib/ext2fs/mmp.c`: `ext2fs_mmp_start`, `_update2`,
//! `_stop`), faults included. It watches what is not clean for one wait, claims with a random sequence under its own
//! names and leaves the check interval alone, looks once more after another wait, and writes its mark; on clean it waits
//! by the superblock's interval alone. It renews the mark at most once a minute, and never at a question. In the end it
//! writes clean; where the comparison before that reads into the buffer that it compares with (before 1.47.0), over
//! whatever stands there.
//!
//! It *uses* the device from its mark until it is done. Killed, it leaves the mark, which never expires (K7): nobody gets
//! in until an administrator clears it (`clears`).
//!
//! Assumed: what it does beside its sleeps takes less than the margin of our watch (`timing::NATIVE_MARGIN`).

use std::rc::Rc;

use crate::protocol::sequence;
use mmpguard::format::{DeviceName, Image, MmpBlock, NodeName};

use super::disk::Part;
use super::plan::{Kind, MILLISECOND, Profile, SECOND, log_uniform};
use super::world::{What, World, shown};

const MIN_CHECK_INTERVAL_S: u64 = 5;
/// `EXT2_MIN_MMP_UPDATE_INTERVAL`.
const RENEWAL_NS: u64 = 60 * SECOND;
/// `sleep` may return so much later; with the I/O about it that is less than the margin.
const LONGEST_OVERSLEEP_NS: u64 = 900 * MILLISECOND;
const LONGEST_IO_NS: u64 = 20 * MILLISECOND;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FsckAct {
    Sampled,
    Answered,
    Woke,
    /// A pass starts.
    Renew,
    Killed,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Step {
    #[default]
    Off,
    Look,
    Wait,
    LookAgain,
    Claim,
    WaitAgain,
    LookLast,
    Mark,
    /// Under its mark.
    Working,
    LookToRenew,
    Renew,
    LookToStop,
    Stop,
}

/// One run after another.
pub(crate) struct State {
    pub(crate) step: Step,
    number: u64,
    /// Which run this is.
    run: u64,
    /// `mmp_buf`: what it wrote last.
    buffer: Image,
    /// `mmp_cmp`: what it read last.
    read: Image,
    /// The clean mark that this run began on.
    pub(crate) found_clean: Option<Image>,
    seq: u32,
    check_interval_s: u64,
    written_at: u64,
    /// Nobody answers its question: it renews nothing.
    asks: bool,
    done: bool,
}

impl Default for State {
    fn default() -> Self {
        State {
            step: Step::Off,
            number: 0,
            run: 0,
            buffer: [0; 1024],
            read: [0; 1024],
            found_clean: None,
            seq: 0,
            check_interval_s: 0,
            written_at: 0,
            asks: false,
            done: false,
        }
    }
}

impl World {
    pub(crate) fn fsck(&mut self, host: usize, what: What) {
        match what {
            What::Start => {
                let wanted = match self.plan.profile {
                    Profile::Fscks => self.faults_strike(),
                    Profile::OneFault => self.hosts[host].fsck.run == 0 && self.stats.fsck.died == 0,
                    _ => true,
                };
                if wanted && self.hosts[host].fsck.step == Step::Off {
                    self.note(host, || "e2fsck: starts".into());
                    let state = &mut self.hosts[host].fsck;
                    (state.done, state.run) = (false, state.run + 1);
                    self.fsck_reads(host, Step::Look);
                }
            }
            What::Fsck(act, number) => self.fsck_acts(host, act, number),
            What::UserDone => {
                self.hosts[host].fsck.done = true;
                self.fsck_stops(host);
            }
            _ => unreachable!("{what:?} is not for an e2fsck"),
        }
    }

    fn fsck_acts(&mut self, host: usize, act: FsckAct, number: u64) {
        let state = &self.hosts[host].fsck;
        let (of_io, of_run) = (state.number == number, state.run == number);
        match act {
            FsckAct::Sampled if of_io => self.hosts[host].fsck.read = **self.disk.image(),
            FsckAct::Answered if of_io => self.fsck_answered(host),
            FsckAct::Woke if of_io => match self.hosts[host].fsck.step {
                Step::Wait => self.fsck_reads(host, Step::LookAgain),
                _ => self.fsck_reads(host, Step::LookLast),
            },
            FsckAct::Renew if of_run => {
                if state.step == Step::Working && !state.asks && state.written_at + RENEWAL_NS <= self.now {
                    self.fsck_reads(host, Step::LookToRenew);
                }
                self.fsck_plans_renewal(host);
            }
            FsckAct::Killed if of_run && self.is_marked_by(host) => self.fsck_dies(host, "is killed"),
            _ => {}
        }
    }

    /// Its mark stands, or may.
    pub(crate) fn is_marked_by(&self, host: usize) -> bool {
        use Step::{LookToRenew, LookToStop, Mark, Renew, Working};
        matches!(self.hosts[host].fsck.step, Mark | Working | LookToRenew | Renew | LookToStop)
    }

    pub(crate) fn fsck_dies(&mut self, host: usize, how: &str) {
        self.note(host, || format!("e2fsck: {how}"));
        self.stats.fsck.died += 1;
        self.one_fault_strikes();
        self.fsck_ends(host);
        self.plan_clear_of_mark(host);
    }

    fn fsck_ends(&mut self, host: usize) {
        self.stop_using(host, "e2fsck: ended");
        let state = &mut self.hosts[host].fsck;
        *state = State { number: state.number + 1, run: state.run + 1, ..State::default() };
        let pause = log_uniform(&mut self.rng, SECOND, 200 * SECOND);
        self.after(pause, host, What::Start);
    }

    fn fsck_reads(&mut self, host: usize, step: Step) {
        let state = &mut self.hosts[host].fsck;
        (state.step, state.number) = (step, state.number + 1);
        let number = state.number;
        let latency = log_uniform(&mut self.rng, 50_000, LONGEST_IO_NS);
        let sample = self.rng.u64(0..=latency);
        self.after(sample, host, What::Fsck(FsckAct::Sampled, number));
        self.after(latency + 1, host, What::Fsck(FsckAct::Answered, number));
    }

    fn fsck_writes(&mut self, host: usize, step: Step, mut image: Image, seq: u32, named: bool) {
        let names = (NodeName::new(&self.plan.hosts[host].node), DeviceName::new("/dev/sda"));
        let time_s = self.clock(host).wall.0;
        self.disk.encode(&mut image, seq, time_s, named.then_some(names), None);
        let state = &mut self.hosts[host].fsck;
        (state.step, state.number, state.seq) = (step, state.number + 1, seq);
        (state.buffer, state.written_at) = (image, self.now);
        let number = state.number;
        self.note(host, || format!("e2fsck: writes {}", shown(&image)));
        let latency = log_uniform(&mut self.rng, 50_000, LONGEST_IO_NS);
        let landing = self.rng.u64(0..=latency);
        self.after(landing, host, What::Land(Rc::new(image), Part::Whole));
        self.after(latency + 1, host, What::Fsck(FsckAct::Answered, number));
    }

    fn fsck_answered(&mut self, host: usize) {
        let state = &self.hosts[host].fsck;
        let (read, buffer) = (state.read, state.buffer);
        let same_seq = MmpBlock::fields(&read).seq == state.seq;
        let reads = !matches!(state.step, Step::Claim | Step::Mark | Step::Renew | Step::Stop);
        if reads && MmpBlock::decode(&read, self.disk.superblock.checksum_seed).is_err() {
            return self.fsck_refused(host, "the block is damaged");
        }
        match state.step {
            Step::Look => self.fsck_looked(host),
            Step::LookAgain if same_seq => self.fsck_claims(host),
            Step::LookLast if same_seq => {
                self.fsck_writes(host, Step::Mark, read, sequence::SEQ_FSCK, false);
            }
            Step::LookAgain | Step::LookLast => self.fsck_refused(host, "the block has changed"),
            Step::Claim => self.fsck_waits(host, Step::WaitAgain),
            Step::Mark => self.fsck_works(host),
            Step::LookToRenew if read == buffer => {
                self.fsck_writes(host, Step::Renew, buffer, sequence::SEQ_FSCK, false);
            }
            Step::LookToRenew => {
                // `fatal_error`, which stops as any other end does.
                self.stop_using(host, "e2fsck: finds the block changed, and gives up");
                self.fsck_reads(host, Step::LookToStop);
            }
            Step::Renew => {
                self.hosts[host].fsck.step = Step::Working;
                self.fsck_stops(host);
            }
            Step::LookToStop => {
                if read == buffer || self.plan.hosts[host].compares_with_itself {
                    self.fsck_writes(host, Step::Stop, read, sequence::SEQ_CLEAN, false);
                } else {
                    self.fsck_ends(host);
                }
            }
            Step::Stop => self.fsck_ends(host),
            Step::Off | Step::Wait | Step::WaitAgain | Step::Working => {}
        }
    }

    fn fsck_looked(&mut self, host: usize) {
        let block = MmpBlock::fields(&self.hosts[host].fsck.read);
        let superblocks = u64::from(self.plan.filesystem.update_interval_s).max(MIN_CHECK_INTERVAL_S);
        let state = &mut self.hosts[host].fsck;
        (state.seq, state.check_interval_s) = (block.seq, superblocks);
        state.found_clean = (block.seq == sequence::SEQ_CLEAN).then_some(state.read);
        match block.seq {
            sequence::SEQ_CLEAN => self.fsck_claims(host),
            sequence::SEQ_FSCK => self.fsck_refused(host, "another one is at work"),
            seq if seq > sequence::SEQ_FSCK => self.fsck_refused(host, "the sequence is unknown"),
            _ => {
                state.check_interval_s = superblocks.max(block.check_interval_s.into());
                self.fsck_waits(host, Step::Wait);
            }
        }
    }

    fn fsck_waits(&mut self, host: usize, step: Step) {
        let state = &mut self.hosts[host].fsck;
        state.step = step;
        let (c, number) = (state.check_interval_s, state.number);
        let late = log_uniform(&mut self.rng, MILLISECOND, LONGEST_OVERSLEEP_NS);
        self.after((2 * c + 1).min(c + 60) * SECOND + late, host, What::Fsck(FsckAct::Woke, number));
    }

    fn fsck_claims(&mut self, host: usize) {
        let seq = self.rng.u32(0..=sequence::SEQ_MAX);
        let read = self.hosts[host].fsck.read;
        self.fsck_writes(host, Step::Claim, read, seq, true);
    }

    fn fsck_refused(&mut self, host: usize, why: &str) {
        self.note(host, || format!("e2fsck: refused, {why}"));
        self.stats.fsck.refused += 1;
        self.fsck_ends(host);
    }

    fn fsck_works(&mut self, host: usize) {
        self.stats.fsck.worked += 1;
        let asks = self.rng.bool();
        let state = &mut self.hosts[host].fsck;
        (state.step, state.asks) = (Step::Working, asks);
        let run = state.run;
        self.start_using(host);
        self.fsck_plans_renewal(host);
        if self.faults_strike() && self.rng.f64() < self.plan.peers.fsck_dies {
            let span = log_uniform(&mut self.rng, SECOND / 10, 60 * SECOND);
            self.after(span, host, What::Fsck(FsckAct::Killed, run));
        }
    }

    fn fsck_plans_renewal(&mut self, host: usize) {
        let run = self.hosts[host].fsck.run;
        let span = log_uniform(&mut self.rng, SECOND / 10, 100 * SECOND);
        if self.is_marked_by(host) {
            self.after(span, host, What::Fsck(FsckAct::Renew, run));
        }
    }

    /// If it is done.
    fn fsck_stops(&mut self, host: usize) {
        if self.hosts[host].fsck.step == Step::Working && self.hosts[host].fsck.done {
            self.stop_using(host, "e2fsck: is done");
            // It has replayed the journal.
            self.disk.set_needs_recovery(false);
            self.fsck_reads(host, Step::LookToStop);
        }
    }

    /// Two users at once of whom one is an e2fsck, and that cannot be promised.
    pub(crate) fn is_fscks_own(&mut self, one: usize, other: usize) -> bool {
        let kinds = [one, other].map(|host| self.plan.hosts[host].kind);
        if !kinds.contains(&Kind::Fsck) {
            return false;
        }
        let apart = &mut self.stats.apart;
        // A mount that the kernel waits for by itself is the kernel's own, whoever looks on.
        let later = if self.hosts[one].using_since >= self.hosts[other].using_since { one } else { other };
        let by_itself = self.plan.hosts[later].kind == Kind::Mounted && !self.hosts[later].kernel.on_clean();
        if by_itself || !kinds.iter().any(|kind| matches!(kind, Kind::Ours | Kind::Mounted)) {
            apart.two_peers += 1;
        } else if self.mark_covered {
            apart.mark_covered += 1;
        } else {
            return false;
        }
        true
    }

    /// A write that lands later than it may be begun is a fault of the device's; over an e2fsck's mark it is not found,
    /// since that does not look for minutes.
    pub(crate) fn note_landing(&mut self) {
        let late = self.late_landings.contains(&self.now);
        if late && self.mark_is_alive() && self.disk.block().seq == sequence::SEQ_FSCK {
            self.mark_covered = true;
        }
    }
}
