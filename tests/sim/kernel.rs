//! A host that mounts with the kernel: `ext4_multi_mount_protect` and `kmmpd` (Linux 6.1 to 6.18, `fs/ext4/mmp.c`),
//! with their true behaviour, faults included: no wait on clean; `kmmpd` re-checks only after a gap of more than its
//! check interval, and reads into the very buffer that it compares with, so it never finds anything.

use std::rc::Rc;

use mmpguard::format::{DeviceName, Image, MmpBlock, NodeName};
use mmpguard::protocol::{sequence, timing};

use super::plan::{MILLISECOND, SECOND, log_uniform};
use super::world::{What, World, shown};

const MIN_CHECK_INTERVAL_S: u64 = 5;
const MAX_CHECK_INTERVAL_S: u64 = 300;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Step {
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
    Clean,
}

pub(crate) struct Kernel {
    step: Step,
    number: u64,
    /// `s_mmp_bh`: every read goes into it, every write goes out of it.
    buffer: Image,
    wait_ns: u64,
    /// What the mount wrote or saw last.
    seq: u32,
    /// `kmmpd`'s own count.
    count: u32,
    check_interval_s: u64,
    beat_at: u64,
    unmounting: bool,
}

impl Default for Kernel {
    fn default() -> Self {
        Kernel {
            step: Step::Off,
            number: 0,
            buffer: [0; 1024],
            wait_ns: 0,
            seq: 0,
            count: 0,
            check_interval_s: 0,
            beat_at: 0,
            unmounting: false,
        }
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
            What::Sample(number) => {
                let image = self.disk.image;
                let kernel = &mut self.hosts[host].kernel;
                if kernel.number == number {
                    kernel.buffer = image;
                }
            }
            What::Answer(number) if self.hosts[host].kernel.number == number => self.kernel_answered(host),
            What::Answer(_) => {}
            What::KernelWake => match self.hosts[host].kernel.step {
                Step::Wait => self.kernel_reads(host, Step::LookAgain),
                Step::WaitAgain => self.kernel_reads(host, Step::LookLast),
                Step::Sleep => self.kernel_woke(host),
                _ => {}
            },
            What::UserDone => {
                if self.hosts[host].using {
                    self.stop_using(host, "kernel: unmounts");
                    self.hosts[host].kernel.unmounting = true;
                    if self.hosts[host].kernel.step == Step::Sleep {
                        self.kernel_cleans(host);
                    }
                }
            }
            _ => unreachable!("{what:?} is not for a kernel"),
        }
    }

    fn kernel_reads(&mut self, host: usize, step: Step) {
        let kernel = &mut self.hosts[host].kernel;
        kernel.step = step;
        kernel.number += 1;
        let number = kernel.number;
        let latency = log_uniform(&mut self.rng, 50_000, 20 * MILLISECOND);
        let sample = self.rng.u64(0..=latency);
        self.after(sample, host, What::Sample(number));
        self.after(latency + 1, host, What::Answer(number));
    }

    /// `write_mmp_block`: the buffer, with a new sequence and time.
    fn kernel_writes(&mut self, host: usize, step: Step, seq: u32) {
        let time_s = self.clock(host).wall.0;
        let mut image = self.hosts[host].kernel.buffer;
        self.disk.encode(&mut image, seq, time_s, None, None);
        let kernel = &mut self.hosts[host].kernel;
        kernel.buffer = image;
        kernel.step = step;
        kernel.number += 1;
        let number = kernel.number;
        self.note(host, || format!("kernel: writes {}", shown(&image)));
        let slowest = self.plan.kernel_write_ns.max(MILLISECOND);
        let latency = log_uniform(&mut self.rng, 50_000, slowest);
        let landing = self.rng.u64(0..=latency);
        let image = Rc::new(image);
        for sector in 0..2 {
            self.after(landing, host, What::Land(Rc::clone(&image), sector));
        }
        self.after(latency + 1, host, What::Answer(number));
    }

    fn kernel_answered(&mut self, host: usize) {
        let block = MmpBlock::fields(&self.hosts[host].kernel.buffer);
        let kernel = &mut self.hosts[host].kernel;
        match kernel.step {
            Step::Look => self.kernel_looked(host, block),
            Step::LookAgain if block.seq == kernel.seq => self.kernel_claims(host),
            Step::LookLast if block.seq == kernel.seq => self.kernel_mounted(host),
            Step::LookAgain | Step::LookLast => self.kernel_refused(host),
            Step::Claim => {
                kernel.step = Step::WaitAgain;
                let wait_ns = kernel.wait_ns;
                self.after(wait_ns, host, What::KernelWake);
            }
            Step::Beat => {
                kernel.step = Step::Sleep;
                let due = kernel.beat_at + self.kernel_interval_s() * SECOND;
                self.at(due, host, What::KernelWake);
            }
            // The buffer now holds what was read: compared with itself, and with the other's names in it.
            Step::Recheck => self.kernel_goes_on(host),
            Step::Clean => {
                kernel.step = Step::Off;
                self.note(host, || "kernel: unmounted".into());
                self.kernel_retries(host);
            }
            Step::Off | Step::Wait | Step::WaitAgain | Step::Sleep => {}
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
        kernel.wait_ns = 0;
        match block.seq {
            sequence::SEQ_CLEAN => self.kernel_claims(host),
            0..=sequence::SEQ_MAX => {
                kernel.wait_ns = (2 * c + 1).min(c + 60) * SECOND;
                kernel.step = Step::Wait;
                let wait_ns = kernel.wait_ns;
                self.after(wait_ns, host, What::KernelWake);
            }
            _ => self.kernel_refused(host),
        }
    }

    fn kernel_claims(&mut self, host: usize) {
        let seq = self.rng.u32(0..=sequence::SEQ_MAX);
        self.hosts[host].kernel.seq = seq;
        self.kernel_writes(host, Step::Claim, seq);
    }

    fn kernel_refused(&mut self, host: usize) {
        self.note(host, || "kernel: refused".into());
        self.hosts[host].kernel.step = Step::Off;
        self.stats.refused += 1;
        self.kernel_retries(host);
    }

    fn kernel_retries(&mut self, host: usize) {
        let pause = log_uniform(&mut self.rng, SECOND / 2, 60 * SECOND);
        self.after(pause, host, What::Start);
    }

    fn kernel_mounted(&mut self, host: usize) {
        self.stats.kernel_mounts += 1;
        self.start_using(host);
        let c = (2 * self.kernel_interval_s()).max(MIN_CHECK_INTERVAL_S);
        let names = (NodeName::new(&self.plan.hosts[host].node), DeviceName::new("sda"));
        let mut image = self.hosts[host].kernel.buffer;
        self.disk.encode(&mut image, 0, 0, Some(names), u16::try_from(c).ok());
        let kernel = &mut self.hosts[host].kernel;
        (kernel.buffer, kernel.count, kernel.check_interval_s, kernel.unmounting) = (image, 0, c, false);
        self.kernel_beats(host);
    }

    fn kernel_beats(&mut self, host: usize) {
        let kernel = &mut self.hosts[host].kernel;
        kernel.count = sequence::next(kernel.count);
        kernel.beat_at = self.now;
        let count = kernel.count;
        self.kernel_writes(host, Step::Beat, count);
    }

    fn kernel_woke(&mut self, host: usize) {
        let kernel = &self.hosts[host].kernel;
        if kernel.unmounting {
            return self.kernel_cleans(host);
        }
        if self.now - kernel.beat_at > kernel.check_interval_s * SECOND {
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
        self.disk.encode(&mut image, 0, 0, None, u16::try_from(c).ok());
        let kernel = &mut self.hosts[host].kernel;
        kernel.buffer = image;
        kernel.check_interval_s = c;
        if kernel.unmounting { self.kernel_cleans(host) } else { self.kernel_beats(host) }
    }

    fn kernel_cleans(&mut self, host: usize) {
        self.kernel_writes(host, Step::Clean, sequence::SEQ_CLEAN);
    }
}
