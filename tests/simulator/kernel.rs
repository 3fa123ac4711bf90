//! The kernel of a host that mounts with it: `ext4_multi_mount_protect` and `kmmpd` (Linux 6.1 to 6.18,
//! `fs/ext4/mmp.c`), with their true behaviour, faults included: no wait on clean, and a kill has no effect there;
//! `kmmpd` re-checks only after a gap of more than its check interval, and reads into the very buffer that it compares
//! with, so it never finds anything. It keeps a count of its own, puts it into that buffer before each beat, and waits
//! for a thaw only after that: what a guard has written into the buffer meanwhile is what it writes first then.
//!
//! A kernel-only host is this and nothing else; for a host of ours that mounts, `mounted` drives it and
//! `filesystem` has what happens to the filesystem once it is mounted.

use std::rc::Rc;

use crate::protocol::{Activity, sequence, timing};
use mmpguard::format::{DeviceName, Image, MmpBlock, NodeName};

use super::disk::Part;
use super::plan::{Kind, MILLISECOND, SECOND, log_uniform};
use super::world::{What, World, shown};

const MIN_CHECK_INTERVAL_S: u64 = 5;
const MAX_CHECK_INTERVAL_S: u64 = 300;
/// Its claim lands within a wait of its look: a stated assumption.
const KERNEL_LANDING_BOUND_NS: u64 = 8 * SECOND;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Step {
    #[default]
    Off,
    /// The first look of the mount.
    Look,
    Wait,
    LookAgain,
    Claim,
    WaitAgain,
    LookLast,
    /// `kmmpd` writes, sleeps, and re-checks.
    Beat,
    Sleep,
    Recheck,
    /// `kmmpd` has counted and waits for the thaw.
    Frozen,
    Clean,
}

/// Why `kmmpd` is to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    Unmount,
    /// The mount failed after the MMP check.
    Undone,
    ReadOnly,
    /// An error, or a forced shutdown: nobody wakes it for that.
    Failure,
}

pub(crate) struct Kernel {
    pub(crate) step: Step,
    pub(crate) number: u64,
    /// `s_mmp_bh`: every read goes into it, every write goes out of it.
    pub(crate) buffer: Image,
    wait_ns: u64,
    /// The clean mark that its mount found, and so did not wait, or not for long enough.
    pub(crate) found_clean: Option<Image>,
    /// What the mount wrote or saw last.
    seq: u32,
    /// `kmmpd`'s own count.
    count: u32,
    check_interval_s: u64,
    beat_at: u64,
    pub(crate) stop: Option<Stop>,
    /// Of a host of ours: which mount of its this is, so that what was planned for an earlier one is void.
    pub(crate) mount: u64,
    /// What it shows of the filesystem.
    pub(crate) shown: Activity,
    /// Whoever called mount(2) has been killed.
    pub(crate) killed: bool,
    /// A mounted filesystem is made writable again.
    pub(crate) remounts: bool,
    pub(crate) frozen: bool,
    /// It is unmounted as soon as it is thawed.
    pub(crate) unmount_pends: bool,
    /// When `kmmpd` last began a beat of its own.
    pub(crate) own_beat_at: u64,
    pub(crate) thawed_at: u64,
}

impl Default for Kernel {
    fn default() -> Self {
        Kernel {
            step: Step::Off,
            number: 0,
            buffer: [0; 1024],
            wait_ns: 0,
            found_clean: None,
            seq: 0,
            count: 0,
            check_interval_s: 0,
            beat_at: 0,
            stop: None,
            mount: 0,
            shown: Activity::Gone,
            killed: false,
            remounts: false,
            frozen: false,
            unmount_pends: false,
            own_beat_at: 0,
            thawed_at: 0,
        }
    }
}

impl Kernel {
    /// The block's page is in its hands: what this host writes to the block lands in there.
    pub(crate) fn has_the_buffer(&self) -> bool {
        self.step != Step::Off
    }

    /// `kmmpd` runs.
    pub(crate) fn beats(&self) -> bool {
        matches!(self.step, Step::Beat | Step::Sleep | Step::Recheck | Step::Frozen)
    }

    /// Its mount found a clean mark.
    pub(crate) fn on_clean(&self) -> bool {
        self.found_clean.is_some()
    }

    /// What is left of it after a cut.
    pub(crate) fn anew(&self) -> Self {
        Kernel { number: self.number + 1, mount: self.mount + 1, ..Kernel::default() }
    }

    /// Between a look of the mount's and what follows from it.
    pub(crate) fn looks_or_claims(&self) -> bool {
        matches!(self.step, Step::Look | Step::LookAgain | Step::Claim | Step::LookLast)
    }

    /// Its clock does.
    pub(crate) fn stands_still(&mut self, span: u64) {
        self.beat_at += span;
    }

    pub(crate) fn next_number(&mut self) -> u64 {
        self.number += 1;
        self.number
    }
}

impl World {
    pub(crate) fn kernel(&mut self, host: usize, what: What) {
        match what {
            What::Start => {
                if self.hosts[host].kernel.step == Step::Off && !self.hosts[host].using {
                    self.note(host, || "kernel: mounts".into());
                    self.kernel_reads(host, Step::Look);
                }
            }
            What::KernelSample(number) => {
                let image = **self.disk.image();
                let kernel = &mut self.hosts[host].kernel;
                if kernel.number == number {
                    kernel.buffer = image;
                }
            }
            What::KernelAnswer(number) if self.hosts[host].kernel.number == number => {
                self.kernel_answered(host);
            }
            What::KernelWake(number) if self.hosts[host].kernel.number == number => {
                match self.hosts[host].kernel.step {
                    Step::Wait => self.kernel_reads(host, Step::LookAgain),
                    Step::WaitAgain => self.kernel_reads(host, Step::LookLast),
                    Step::Sleep => self.kernel_woke(host),
                    _ => {}
                }
            }
            What::KernelAnswer(_) | What::KernelWake(_) => {}
            What::UserDone => self.kernel_unmounts(host),
            What::Peer(act) => self.peer_acts(host, act),
            _ => unreachable!("{what:?} is not for a kernel"),
        }
    }

    /// `kthread_stop`, or what `kmmpd` finds by itself at its next beat.
    pub(crate) fn kernel_stops(&mut self, host: usize, stop: Stop) {
        let kernel = &mut self.hosts[host].kernel;
        kernel.stop = Some(stop);
        if kernel.step == Step::Sleep && stop != Stop::Failure {
            self.kernel_cleans(host);
        }
    }

    pub(crate) fn kernel_reads(&mut self, host: usize, step: Step) {
        let kernel = &mut self.hosts[host].kernel;
        kernel.step = step;
        let number = kernel.next_number();
        let latency = log_uniform(&mut self.rng, 50_000, 20 * MILLISECOND);
        let sample = self.rng.u64(0..=latency);
        let hang = self.outage_ns(host);
        self.after(hang + sample, host, What::KernelSample(number));
        self.after(hang + latency + 1, host, What::KernelAnswer(number));
    }

    /// `write_mmp_block`: the buffer, with a new sequence and time.
    fn kernel_writes(&mut self, host: usize, step: Step, seq: u32) {
        let time_s = self.clock(host).wall.0;
        let mut image = self.hosts[host].kernel.buffer;
        // The mount's claim changes the sequence alone.
        let time_s = if step == Step::Claim { MmpBlock::fields(&image).time_s } else { time_s };
        self.disk.encode(&mut image, seq, time_s, None, None);
        self.hosts[host].kernel.buffer = image;
        self.kernel_submits(host, step);
    }

    /// What stands in the buffer goes out.
    pub(crate) fn kernel_submits(&mut self, host: usize, step: Step) {
        let mut image = self.hosts[host].kernel.buffer;
        let MmpBlock { seq, time_s, .. } = MmpBlock::fields(&image);
        self.disk.encode(&mut image, seq, time_s, None, None);
        let kernel = &mut self.hosts[host].kernel;
        kernel.buffer = image;
        kernel.step = step;
        let number = kernel.next_number();
        self.note(host, || format!("kernel: writes {}", shown(&image)));
        let slowest = self.plan.kernel_write_ns.max(MILLISECOND);
        let latency = log_uniform(&mut self.rng, 50_000, slowest) + self.outage_ns(host);
        let landing = self.rng.u64(0..=latency.min(KERNEL_LANDING_BOUND_NS));
        if self.plan.hosts[host].kind == Kind::Mounted {
            self.largest_c = self.largest_c.max(self.disk_c(&image));
        }
        self.after(landing, host, What::Land(Rc::new(image), Part::Whole));
        self.after(latency + 1, host, What::KernelAnswer(number));
    }

    fn kernel_answered(&mut self, host: usize) {
        let block = MmpBlock::fields(&self.hosts[host].kernel.buffer);
        let kernel = &mut self.hosts[host].kernel;
        match kernel.step {
            Step::Look => self.kernel_looked(host, block),
            Step::LookAgain if block.seq == kernel.seq => self.kernel_claims(host),
            Step::LookLast if block.seq == kernel.seq => self.kernel_mounted(host),
            Step::LookAgain | Step::LookLast => self.kernel_refused(host, "it is active elsewhere"),
            Step::Claim => self.kernel_waits(host, Step::WaitAgain),
            Step::Beat => {
                kernel.step = Step::Sleep;
                let (beat_at, number) = (kernel.beat_at, kernel.number);
                let due = beat_at + self.kernel_interval_s() * SECOND;
                if matches!(self.hosts[host].kernel.stop, Some(Stop::Unmount | Stop::Undone | Stop::ReadOnly))
                    && self.plan.hosts[host].kind == Kind::Mounted
                {
                    return self.kernel_cleans(host);
                }
                self.at(due, host, What::KernelWake(number));
            }
            // The buffer now holds what was read: compared with itself, and with the other's names in it.
            Step::Recheck => self.kernel_goes_on(host),
            Step::Clean => {
                kernel.step = Step::Off;
                if self.plan.hosts[host].kind == Kind::Mounted {
                    return self.kmmpd_ended(host);
                }
                self.note(host, || "kernel: unmounted".into());
                self.kernel_retries(host);
            }
            Step::Off | Step::Wait | Step::WaitAgain | Step::Sleep | Step::Frozen => {}
        }
    }

    /// `schedule_timeout_interruptible`: a wait of nothing is not interrupted.
    fn kernel_waits(&mut self, host: usize, step: Step) {
        let kernel = &mut self.hosts[host].kernel;
        let (wait_ns, number) = (kernel.wait_ns, kernel.number);
        if kernel.killed && wait_ns > 0 {
            return self.kernel_refused(host, "the mount was interrupted");
        }
        kernel.step = step;
        self.after(wait_ns, host, What::KernelWake(number));
    }

    /// A signal has come.
    pub(crate) fn kernel_killed(&mut self, host: usize) {
        let kernel = &mut self.hosts[host].kernel;
        kernel.killed = true;
        if matches!(kernel.step, Step::Wait | Step::WaitAgain) && kernel.wait_ns > 0 {
            self.kernel_refused(host, "the mount was interrupted");
        }
    }

    pub(crate) fn kernel_interval_s(&self) -> u64 {
        timing::update_interval_s(self.plan.filesystem.update_interval_s).into()
    }

    fn kernel_looked(&mut self, host: usize, block: MmpBlock) {
        let superblocks = u64::from(self.plan.filesystem.update_interval_s);
        let c = superblocks.max(MIN_CHECK_INTERVAL_S).max(block.check_interval_s.into());
        let kernel = &mut self.hosts[host].kernel;
        kernel.seq = block.seq;
        let flavour = self.plan.hosts[host].flavour;
        kernel.wait_ns = flavour.clean_wait_ns();
        kernel.found_clean = (block.seq == sequence::SEQ_CLEAN).then_some(kernel.buffer);
        match block.seq {
            sequence::SEQ_CLEAN => self.kernel_claims(host),
            0..=sequence::SEQ_MAX => {
                kernel.wait_ns = flavour.wait_ns(c);
                self.kernel_waits(host, Step::Wait);
            }
            _ => self.kernel_refused(host, "its sequence is unknown"),
        }
    }

    fn kernel_claims(&mut self, host: usize) {
        let seq = self.rng.u32(0..=sequence::SEQ_MAX);
        self.hosts[host].kernel.seq = seq;
        self.kernel_writes(host, Step::Claim, seq);
    }

    fn kernel_refused(&mut self, host: usize, why: &str) {
        self.note(host, || format!("kernel: refused, {why}"));
        let kernel = &mut self.hosts[host].kernel;
        kernel.step = Step::Off;
        kernel.next_number();
        if self.plan.hosts[host].kind == Kind::Mounted {
            return self.mount_failed(host);
        }
        self.stats.refused += 1;
        self.kernel_retries(host);
    }

    fn kernel_mounted(&mut self, host: usize) {
        self.stats.kernel_mounts += 1;
        if !self.hosts[host].kernel.remounts {
            self.start_using(host);
            self.plan_peer(host);
        }
        let c = (2 * self.kernel_interval_s()).max(MIN_CHECK_INTERVAL_S);
        let names = (NodeName::new(&self.plan.hosts[host].node), DeviceName::new("sda"));
        let mut image = self.hosts[host].kernel.buffer;
        self.disk.encode(&mut image, 0, 0, Some(names), u16::try_from(c).ok());
        let kernel = &mut self.hosts[host].kernel;
        (kernel.buffer, kernel.count, kernel.check_interval_s, kernel.stop) = (image, 0, c, None);
        if self.plan.hosts[host].kind == Kind::Mounted {
            self.mount_succeeded(host);
        }
        self.kernel_beats(host);
    }

    fn kernel_beats(&mut self, host: usize) {
        let kernel = &mut self.hosts[host].kernel;
        kernel.count = sequence::next(kernel.count);
        (kernel.beat_at, kernel.own_beat_at) = (self.now, self.now);
        let count = kernel.count;
        if kernel.frozen {
            // `sb_start_write` waits; the checksum is set after it.
            kernel.step = Step::Frozen;
            let time_s = self.clock(host).wall.0;
            let mut image = self.hosts[host].kernel.buffer;
            self.disk.encode(&mut image, count, time_s, None, None);
            self.hosts[host].kernel.buffer = image;
            return;
        }
        self.kernel_writes(host, Step::Beat, count);
    }

    fn kernel_woke(&mut self, host: usize) {
        let kernel = &self.hosts[host].kernel;
        if kernel.stop.is_some() {
            return self.kernel_cleans(host);
        }
        let plan = &self.plan.hosts[host];
        let rereads = plan.kind == Kind::Kernel || plan.mount.rereads;
        if rereads && self.now - kernel.beat_at > kernel.check_interval_s * SECOND {
            self.kernel_reads(host, Step::Recheck);
        } else {
            self.kernel_goes_on(host);
        }
    }

    fn kernel_goes_on(&mut self, host: usize) {
        let kernel = &self.hosts[host].kernel;
        let diff_s = (self.now - kernel.beat_at) / SECOND;
        let c = (2 * diff_s).clamp(MIN_CHECK_INTERVAL_S, MAX_CHECK_INTERVAL_S);
        let mut image = kernel.buffer;
        let block = MmpBlock::fields(&image);
        self.disk.encode(&mut image, block.seq, block.time_s, None, u16::try_from(c).ok());
        let kernel = &mut self.hosts[host].kernel;
        kernel.buffer = image;
        kernel.check_interval_s = c;
        if kernel.stop.is_some() { self.kernel_cleans(host) } else { self.kernel_beats(host) }
    }

    fn kernel_cleans(&mut self, host: usize) {
        if self.plan.hosts[host].kind == Kind::Mounted {
            self.before_clean(host);
        }
        self.kernel_writes(host, Step::Clean, sequence::SEQ_CLEAN);
        let mark = self.hosts[host].kernel.buffer;
        self.note_kernels_clean(host, &mark);
    }
}
