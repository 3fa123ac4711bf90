//! One beat, end to end, against its floor: what the guard does on every interval against one `pread` and one
//! `pwrite` of the same block of the same file with `O_DIRECT`. Both in one run, in turns, so that a disk that is
//! slower at times is so for both.
//!
//! A beat here is what the thread driver does inline: the guard's deadline has come, it asks for a look, the block is
//! read and compared, the next one is encoded and written, and the timer is set anew. The guard's clock runs ahead of
//! the real one and the timer's time has always passed, so that nothing is waited for.
//!
//! `cargo bench --bench beat [-- DIRECTORY]`; without one in the system's directory for temporary files, which should
//! not lie in memory: there is no direct I/O there, and the ratio would say nothing.

use std::fs::{File, OpenOptions};
use std::os::fd::AsFd as _;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use mmpguard::Place;
use mmpguard::clock::{self, Mono, Now};
use mmpguard::io::{Arena, BlockStore, Device, Durability};
use mmpguard::protocol::{Event, Failure, FailureKind, Guard, GuardOptions, Input, Output};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};

/// An ext4 filesystem with MMP, 1 KiB blocks.
const DEMO: &[u8] = include_bytes!("../testimages/demo.img");
const BEATS: usize = 5000;
const WARM_UP: usize = 200;
/// What the ratio should not exceed.
const GOAL: f64 = 1.5;

/// A guard with its store, and a clock of its own that starts now.
struct Holder {
    guard: Guard,
    store: Box<dyn BlockStore>,
    now: Now,
    held: bool,
    timer: TimerFd,
}

fn main() {
    // `cargo bench` passes --bench; `cargo test --benches` passes nothing of the kind and only wants to see it run.
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let beats = if arguments.iter().any(|argument| argument == "--bench") { BEATS } else { 100 };
    let named = arguments.iter().find(|argument| !argument.starts_with('-')).map(PathBuf::from);
    let dir = tempfile::tempdir_in(named.unwrap_or_else(std::env::temp_dir)).expect("makes a directory");
    let image = dir.path().join("beat.img");
    std::fs::write(&image, DEMO).expect("writes the image");
    File::open(&image).and_then(|file| file.sync_all()).expect("syncs");

    let direct = Device::inspect(&image).expect("is a file").is_direct();
    let mut holder = Holder::hold(&image);
    let mut floor = Floor::open(&image, direct);
    let (mut ours, mut floors) = (Vec::with_capacity(beats), Vec::with_capacity(beats));
    for turn in 0..beats + WARM_UP {
        // Who comes first changes, too.
        let (beat, plain) = if turn % 2 == 0 {
            let beat = holder.beat();
            (beat, floor.turn())
        } else {
            let plain = floor.turn();
            (holder.beat(), plain)
        };
        if turn >= WARM_UP {
            ours.push(beat);
            floors.push(plain);
        }
    }
    report(&mut ours, &mut floors, direct);
}

fn report(ours: &mut [Duration], floors: &mut [Duration], direct: bool) {
    let (beat, floor) = (median(ours), median(floors));
    let ratio = beat.as_secs_f64() / floor.as_secs_f64();
    println!("beats                              {}", ours.len());
    println!(
        "O_DIRECT                           {}",
        if direct { "yes" } else { "no: the ratio says little" }
    );
    println!("one beat, median                   {:8.2} us", beat.as_secs_f64() * 1e6);
    println!("one pread + one pwrite, median     {:8.2} us", floor.as_secs_f64() * 1e6);
    println!("ratio                              {ratio:8.3}   (goal: at most {GOAL})");
    println!("goal                               {}", if ratio <= GOAL { "met" } else { "MISSED" });
}

fn median(of: &mut [Duration]) -> Duration {
    of.sort_unstable();
    of[of.len() / 2]
}

impl Holder {
    /// Claims the image, without waiting: the guard is told that time passes.
    fn hold(image: &Path) -> Self {
        let place = Place::find(image, Some("bench")).expect("has MMP");
        let store = place.store().expect("opens");
        let now = clock::now();
        let guard = Guard::new(place.medium().clone(), GuardOptions::default(), 1, now);
        let flags = TimerFlags::TFD_CLOEXEC | TimerFlags::TFD_NONBLOCK;
        let timer = TimerFd::new(ClockId::CLOCK_BOOTTIME, flags).expect("has timers");
        let mut holder = Holder { guard, store, now, held: false, timer };
        while !holder.held {
            holder.turn();
        }
        holder
    }

    /// One beat, timed: from the deadline until nothing is to be done any more.
    fn beat(&mut self) -> Duration {
        let lease = self.guard.lease_end();
        let took = self.turn();
        assert!(self.guard.lease_end() > lease, "no beat was acknowledged");
        took
    }

    /// Lets the guard's time run to its deadline, then does what it asks for.
    fn turn(&mut self) -> Duration {
        // Without a deadline it waits for the answer to its first question.
        let deadline = Some(self.guard.deadline()).filter(|&deadline| deadline != Mono::FAR);
        self.now.mono = deadline.unwrap_or(self.now.mono).max(self.now.mono);
        let ahead = self.now.mono;
        let start = clock::mono();
        self.sleep(start);
        if deadline.is_some() {
            self.step(start, ahead, Input::Tick);
        }
        while let Some(output) = self.guard.poll() {
            match output {
                Output::Entry | Output::WriteEntry(_) => unreachable!("what is measured is native"),
                Output::Read => {
                    let image = *self.store.read().expect("reads");
                    self.step(start, ahead, Input::Read(Ok(&image)));
                }
                Output::Superblock => {
                    let bytes = self.store.read_superblock().expect("reads");
                    self.step(start, ahead, Input::Superblock(Ok(&bytes)));
                }
                Output::Write(write) => {
                    self.store.open_for_writing().expect("opens");
                    let too_late = self.guard_time(start, ahead).mono > write.not_after;
                    assert!(!too_late, "the bench is slower than a quarter of the wait");
                    let durability = if write.durable { Durability::Durable } else { Durability::Beat };
                    let written =
                        self.store.write(&write.image, durability).map_err(|error| error.to_string());
                    let input =
                        written.as_ref().copied().map_err(|what| Failure { what, kind: FailureKind::System });
                    self.step(start, ahead, Input::Written(input));
                }
                Output::Activity => unreachable!("nothing is mounted"),
                Output::Event(Event::Held { .. }) => self.held = true,
                Output::Event(event @ (Event::Refused { .. } | Event::Lost { .. })) => panic!("{event:?}"),
                Output::Event(_) => {}
            }
        }
        clock::mono().since(start)
    }

    /// The guard's time is where it was ahead, plus what really passed: the clock is read as often as the driver does.
    fn step(&mut self, start: Mono, ahead: Mono, input: Input<'_>) {
        self.now = self.guard_time(start, ahead);
        self.guard.handle(self.now, input);
    }

    fn guard_time(&self, start: Mono, ahead: Mono) -> Now {
        let real = clock::now();
        Now { mono: ahead + real.mono.since(start), wall: real.wall }
    }

    /// Sets the timer and waits for it, as the driver does between beats; `at` has passed already.
    fn sleep(&self, at: Mono) {
        let at = Expiration::OneShot(TimeSpec::from_duration(Duration::from_nanos(at.0)));
        self.timer.set(at, TimerSetTimeFlags::TFD_TIMER_ABSTIME).expect("sets");
        let mut fds = [PollFd::new(self.timer.as_fd(), PollFlags::POLLIN)];
        poll(&mut fds, PollTimeout::NONE).expect("waits");
    }
}

/// The least that looking and writing can cost.
struct Floor {
    file: File,
    buffer: Arena,
    offset: u64,
}

impl Floor {
    fn open(image: &Path, direct: bool) -> Self {
        let place = Place::find(image, None).expect("has MMP");
        let block = usize::try_from(place.block_bytes()).expect("is small");
        let flags = if direct { nix::libc::O_DIRECT } else { 0 };
        let file = OpenOptions::new().read(true).write(true).custom_flags(flags).open(image).expect("opens");
        Floor { file, buffer: Arena::new(block).expect("has memory"), offset: place.offset_bytes() }
    }

    /// One look and one write of the same bytes, timed.
    fn turn(&mut self) -> Duration {
        let start = clock::mono();
        self.file.read_exact_at(self.buffer.bytes_mut(), self.offset).expect("reads");
        self.file.write_all_at(self.buffer.bytes(), self.offset).expect("writes");
        clock::mono().since(start)
    }
}
