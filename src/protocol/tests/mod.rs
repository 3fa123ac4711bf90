//! The machines, one at a time, on a bench: one guard, one block, exact times.

// Seconds as f64, for reading, and back.
#![allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]

mod adoption;
mod answered;
mod area;
mod area_adoption;
mod area_entry;
mod area_late;
mod claim;
mod claim_rules;
mod credit;
mod hold;
mod hold_rules;
mod resumed;
mod rules;
mod standby;
mod watch;
mod watch_adopt;
mod watch_beats;
mod watch_bridge;
mod watch_expect;
mod watch_found;
mod watch_pace;
mod watch_unmount;

use std::collections::VecDeque;
use std::time::Duration;

use byteorder::{ByteOrder, LittleEndian};

use super::sequence::{SEQ_CLEAN, SEQ_FSCK};
use super::*;
use crate::clock::{Mono, Now, Wall};
use crate::format::{DeviceName, Image, MmpBlock, NodeName, Superblock};

/// What the bench's clocks show at second 0.
const BOOT_S: u64 = 1_000;
const WALL_S: u64 = 1_800_000_000;

/// What becomes of a write.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fate {
    /// Lands and is acknowledged after so many seconds.
    Takes(f64),
    FailsLanded,
    FailsLost,
    /// The driver found it too late to begin.
    NotBegun,
}

struct Bench {
    guard: Guard,
    seconds: f64,
    image: Image,
    superblock: [u8; 1024],
    /// Of a slot of an area.
    entry: Image,
    /// So many times it is too late to write it.
    late_entries: u32,
    /// How long the next writes of it take; 1 ms after that.
    entry_writes: VecDeque<f64>,
    /// How long the next reads take; 1 ms after that.
    reads: VecDeque<f64>,
    read_errors: u32,
    fates: VecDeque<Fate>,
    events: Vec<(f64, Event)>,
    /// When each write was issued, and its block.
    writes: Vec<(f64, MmpBlock, bool)>,
    /// Until when each of them might have been begun.
    begin_by: Vec<f64>,
    looks: Vec<f64>,
    /// What the kernel says of its filesystem, the last answer for good.
    activity: VecDeque<Activity>,
    asked: u32,
    /// What others write, and when; in order.
    timetable: VecDeque<(f64, MmpBlock)>,
}

impl Bench {
    /// A guard of node "mike" with interval 1 s, on a block that shows `seq` and `check_interval_s` of node "zulu".
    fn new(seq: u32, check_interval_s: u16) -> Self {
        Self::with(seq, check_interval_s, GuardOptions::default(), superblock(false))
    }

    fn clean() -> Self {
        Self::new(SEQ_CLEAN, 5)
    }

    fn with(seq: u32, check_interval_s: u16, options: GuardOptions, superblock: [u8; 1024]) -> Self {
        let decoded = Superblock::decode(&superblock).unwrap();
        let owner = Owner { node: NodeName::new("mike"), device: DeviceName::new("sda") };
        let medium = Medium::Native(Native::new(decoded, owner));
        let now = Now { mono: Mono(BOOT_S * 1_000_000_000), wall: Wall(WALL_S) };
        let mut bench = Bench {
            guard: Guard::new(medium, options, 7, now),
            seconds: 0.0,
            image: [0; 1024],
            superblock,
            entry: [0; 1024],
            late_entries: 0,
            entry_writes: VecDeque::new(),
            reads: VecDeque::new(),
            read_errors: 0,
            fates: VecDeque::new(),
            events: Vec::new(),
            writes: Vec::new(),
            begin_by: Vec::new(),
            looks: Vec::new(),
            activity: [Activity::ReadWrite].into(),
            asked: 0,
            timetable: VecDeque::new(),
        };
        bench.put("zulu", seq, check_interval_s);
        // Its last beat is long ago.
        MmpBlock { time_s: WALL_S - 600, ..bench.block() }.encode_into(&mut bench.image, None);
        bench
    }

    fn patient(seq: u32, patience_s: u64) -> Self {
        let patience_until = Some(Mono((BOOT_S + patience_s) * 1_000_000_000));
        Self::with(seq, 5, GuardOptions { patience_until, ..GuardOptions::default() }, superblock(false))
    }

    /// A holder, one second after *held*.
    fn held() -> Self {
        let mut bench = Self::clean();
        bench.run_until(11.9);
        assert!(bench.has(|event| matches!(event, Event::Held { .. })));
        bench.events.clear();
        bench.writes.clear();
        bench
    }

    fn now(&self) -> Now {
        let mono = BOOT_S * 1_000_000_000 + Duration::from_secs_f64(self.seconds).as_nanos() as u64;
        Now { mono: Mono(mono), wall: Wall(WALL_S + self.seconds as u64) }
    }

    /// Somebody else's write.
    fn put(&mut self, node: &str, seq: u32, check_interval_s: u16) {
        let time_s = self.now().wall.0;
        let (node, device) = (NodeName::new(node), DeviceName::new("sda"));
        MmpBlock { seq, time_s, node, device, check_interval_s }.encode_into(&mut self.image, None);
    }

    /// Puts another device name into what stands there.
    fn name_device(&mut self, device: &str) {
        MmpBlock { device: DeviceName::new(device), ..self.block() }.encode_into(&mut self.image, None);
    }

    fn block(&self) -> MmpBlock {
        MmpBlock::fields(&self.image)
    }

    /// Drives the guard as the thread driver does.
    fn run_until(&mut self, until: f64) {
        loop {
            while let Some(output) = self.guard.poll() {
                self.carry_out(output);
            }
            if self.guard.is_over() || self.guard.deadline() == Mono::FAR {
                break;
            }
            let due = self.guard.deadline().0.saturating_sub(BOOT_S * 1_000_000_000) as f64 / 1e9;
            if due >= until {
                break;
            }
            // A nanosecond more than the rounding may take away.
            self.seconds = self.seconds.max(due + 1e-8);
            self.guard.handle(self.now(), Input::Tick);
        }
        self.seconds = self.seconds.max(until);
    }

    fn give(&mut self, input: Input<'_>) {
        self.guard.handle(self.now(), input);
        self.run_until(self.seconds);
    }

    fn carry_out(&mut self, output: Output) {
        match output {
            Output::Event(event) => self.events.push((self.seconds, event)),
            Output::Activity => {
                self.asked += 1;
                let answer = match self.activity.len() {
                    0 | 1 => self.activity[0],
                    _ => self.activity.pop_front().expect("there are two"),
                };
                self.guard.handle(self.now(), Input::Activity(answer));
            }
            Output::Read => {
                while self.timetable.front().is_some_and(|(at, _)| *at <= self.seconds) {
                    let (_, block) = self.timetable.pop_front().expect("there is one");
                    block.encode_into(&mut self.image, None);
                }
                self.looks.push(self.seconds);
                let image = self.image;
                self.seconds += self.reads.pop_front().unwrap_or(0.001);
                let failed = self.read_errors > 0;
                self.read_errors = self.read_errors.saturating_sub(1);
                let answer = if failed {
                    Err(Failure { what: "no read", kind: FailureKind::System })
                } else {
                    Ok(&image)
                };
                self.guard.handle(self.now(), Input::Read(answer));
            }
            Output::Entry => {
                let entry = self.entry;
                self.seconds += 0.001;
                self.guard.handle(self.now(), Input::Entry(Ok(&entry)));
            }
            Output::WriteEntry(write) => {
                assert!(write.durable);
                if self.late_entries > 0 {
                    self.late_entries -= 1;
                    return self.guard.handle(self.now(), Input::NotWritten);
                }
                self.entry = write.image;
                self.seconds += self.entry_writes.pop_front().unwrap_or(0.001);
                self.guard.handle(self.now(), Input::EntryWritten(Ok(())));
            }
            Output::Superblock => {
                let bytes = self.superblock;
                self.seconds += 0.001;
                self.guard.handle(self.now(), Input::Superblock(Ok(&bytes)));
            }
            Output::Write(write) => {
                let fate = self.fates.pop_front().unwrap_or(Fate::Takes(0.001));
                if fate == Fate::NotBegun {
                    return self.guard.handle(self.now(), Input::NotWritten);
                }
                self.writes.push((self.seconds, MmpBlock::fields(&write.image), write.durable));
                self.begin_by.push(seconds(write.not_after));
                if fate != Fate::FailsLost {
                    self.image = write.image;
                }
                self.seconds += if let Fate::Takes(span) = fate { span } else { 0.001 };
                let failed = matches!(fate, Fate::FailsLanded | Fate::FailsLost);
                let answer = if failed {
                    Err(Failure { what: "no write", kind: FailureKind::TooShort })
                } else {
                    Ok(())
                };
                self.guard.handle(self.now(), Input::Written(answer));
            }
        }
    }

    /// Begins the next look, whose answer does not come.
    fn hang_in_a_look(&mut self) {
        self.seconds += (self.guard.deadline().0 - self.now().mono.0) as f64 / 1e9 + 1e-8;
        self.guard.handle(self.now(), Input::Tick);
        assert_eq!(self.guard.poll(), Some(Output::Read));
    }

    /// The answer to it, with what stands there now.
    fn answer_the_look(&mut self) {
        let image = self.image;
        self.guard.handle(self.now(), Input::Read(Ok(&image)));
        self.run_until(self.seconds);
    }

    /// Runs until so many more looks were taken.
    fn run_looks(&mut self, count: usize) {
        let all = self.looks.len() + count;
        while self.looks.len() < all {
            assert!(!self.guard.is_over(), "{:?}", self.events);
            self.run_until(self.seconds + 0.001);
        }
    }

    /// The shortest and the longest time between two looks that began in that span.
    fn look_gaps(&self, span: std::ops::Range<f64>) -> (f64, f64) {
        let looks: Vec<f64> = self.looks.iter().copied().filter(|at| span.contains(at)).collect();
        let gaps = looks.windows(2).map(|pair| pair[1] - pair[0]);
        gaps.fold((f64::MAX, 0.0), |(shortest, longest), gap| (gap.min(shortest), gap.max(longest)))
    }

    fn has(&self, matches: impl Fn(&Event) -> bool) -> bool {
        self.events.iter().any(|(_, event)| matches(event))
    }

    /// When the last event came, and which.
    fn last(&self) -> (f64, &Event) {
        let (at, event) = self.events.last().expect("there was an event");
        (*at, event)
    }

    fn loss(&self) -> &Loss {
        match self.last().1 {
            Event::Lost { loss, .. } => loss,
            other => panic!("not lost, but {other:?}"),
        }
    }

    fn refusal(&self) -> &Refusal {
        match self.last().1 {
            Event::Refused { refusal } => refusal,
            other => panic!("not refused, but {other:?}"),
        }
    }

    /// The pauses between looks that began within these seconds.
    #[track_caller]
    fn pauses(&self, from: f64, to: f64) -> Vec<f64> {
        let looks: Vec<f64> = self.looks.iter().copied().filter(|at| (from..to).contains(at)).collect();
        assert!(looks.len() > 3, "hardly any look: {looks:?}");
        looks.windows(2).map(|pair| pair[1] - pair[0]).collect()
    }

    fn lease_end_s(&self) -> f64 {
        seconds(self.guard.lease_end().expect("held"))
    }
}

/// What the bench's clock shows then.
fn seconds(at: Mono) -> f64 {
    (at.0 - BOOT_S * 1_000_000_000) as f64 / 1e9
}

fn superblock(needs_recovery: bool) -> [u8; 1024] {
    let mut bytes = [0; 1024];
    let fields: [(usize, u32); 6] = [
        (0x04, 25_600),
        (0x18, 2),
        (0x4C, 1),
        (0x5C, 0x0004),
        (0x60, 0x0100 | if needs_recovery { 0x0004 } else { 0 }),
        (0x168, 1234),
    ];
    for (at, value) in fields {
        LittleEndian::write_u32(&mut bytes[at..], value);
    }
    LittleEndian::write_u16(&mut bytes[0x38..], 0xEF53);
    LittleEndian::write_u16(&mut bytes[0x3A..], 1);
    LittleEndian::write_u16(&mut bytes[0x166..], 1);
    bytes
}

#[track_caller]
fn about(value: f64, want: f64) {
    assert!((value - want).abs() < 0.1, "{value} is not about {want}");
}
