//! The guards of a model, each kept once: what a state holds of a guard is a number.
//!
//! A guard lives in the table with a *now* and latest sequences of its own; any guard that looks the same relative to those
//! (`fingerprint`) is the same guard. Every step a guard takes is computed once and remembered. The library's own
//! `Guard` runs here, and nothing of what it decides is decided anywhere else.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use crate::clock::{self, Mono, Now, Wall};
use crate::hashing::Quick;
use crate::left_out::Breakage;
use crate::ours::fingerprint::{exact, normal};
use crate::ours::scale::{PAUSE_NS, UNIT_NS, units_until, whole_units};
use crate::ours::sequences::{Base, Block, HOSTS, WALL_S, first_base, generations_behind, owner};
use crate::ours::slot;
use crate::ours::state::PAST;
use crate::ours::superblock::{self, SUPERBLOCK};
use crate::ours::told::{Asks, Id, Step, Told, key};
use crate::protocol::{Event, Failure, FailureKind, Guard, GuardOptions, Input, Medium, Native, Output};
use crate::random::{self, Draw};

/// A guard, and the time and the sequences that it lives at.
#[derive(Clone)]
struct Living {
    guard: Guard,
    host: usize,
    now: Mono,
    base: Base,
}

/// What the guards of a model have in common.
#[derive(Clone, Copy)]
pub(crate) struct On {
    /// A slot of an area, and not a native block.
    pub(crate) area: bool,
    /// Both of its blocks may be damaged.
    pub(crate) damage: bool,
    /// The rule of the protocol's that they do not keep.
    pub(crate) without: Breakage,
}

struct Kept {
    living: Living,
    /// The hash of its text by distances alone.
    exact: u64,
    /// Another one that only the rules of `fingerprint` make the same.
    twin: Option<Box<Living>>,
    /// What it was told.
    told: Vec<(Told, Draw)>,
    /// Units until a tick is due.
    due: u8,
    /// Nanoseconds until the lease ends.
    lease_ns: Option<i64>,
    older: Option<Id>,
}

pub(crate) struct Guards {
    on: On,
    kept: Vec<Kept>,
    ids: HashMap<u128, Id, Quick>,
    steps: HashMap<u64, Step, Quick>,
    behind: HashMap<u64, Id, Quick>,
    /// What twins have still to be told.
    unchecked: Vec<(Id, Told, Draw)>,
    twins_checked: usize,
}

impl Guards {
    pub(crate) fn new(on: On) -> Self {
        Guards {
            on,
            kept: Vec::new(),
            ids: HashMap::default(),
            steps: HashMap::default(),
            behind: HashMap::default(),
            unchecked: Vec::new(),
            twins_checked: 0,
        }
    }

    /// How many there are, how many steps of theirs are known, and how many of those a twin took as well.
    pub(crate) fn count(&self) -> (usize, usize, usize) {
        (self.kept.len(), self.steps.len(), self.twins_checked)
    }

    /// Units until a tick is due; 0 if it is.
    pub(crate) fn due(&self, id: Id) -> u8 {
        self.kept[id as usize].due
    }

    /// Nanoseconds until its lease ends, if it holds.
    pub(crate) fn lease_ns(&self, id: Id) -> Option<i64> {
        self.kept[id as usize].lease_ns
    }

    /// A host begins a claim.
    pub(crate) fn begin(&mut self, host: usize) -> Step {
        let base = first_base();
        let now = Mono(1_000 * UNIT_NS);
        random::draws(Draw::Least, base.latest[host]);
        let medium = match self.on.area {
            true => slot::medium(host),
            false => Medium::Native(Native::new(superblock::decoded(), owner(host))),
        };
        let guard = Guard::new(medium, GuardOptions::default(), 0, wall(now));
        self.drain(Living { guard, host, now, base }, &mut |_| {})
    }

    /// A unit passes.
    pub(crate) fn older(&mut self, id: Id) -> Id {
        let kept = &self.kept[id as usize];
        if let Some(older) = kept.older {
            return older;
        }
        let mut living = kept.living.clone();
        living.now.0 += UNIT_NS;
        let older = self.keep(living, false);
        self.kept[id as usize].older = Some(older);
        older
    }

    /// Somebody else has drawn a greater generation than there was.
    pub(crate) fn generations_on(&mut self, id: Id, by: u8) -> Id {
        self.behind(id, HOSTS, by.into())
    }

    /// Another host's sequence went on, or where `host` is beyond them, what was drawn.
    pub(crate) fn behind(&mut self, id: Id, host: usize, steps: u16) -> Id {
        if steps == 0 {
            return id;
        }
        let key = u64::from(id) << 20 | u64::from(steps) << 2 | host as u64;
        if let Some(&behind) = self.behind.get(&key) {
            return behind;
        }
        let mut living = self.kept[id as usize].living.clone();
        match living.base.latest.get_mut(host) {
            Some(latest) => *latest += u32::from(steps),
            None => living.base.top += u64::from(steps),
        }
        let behind = self.keep(living, false);
        self.behind.insert(key, behind);
        behind
    }

    pub(crate) fn tell(&mut self, id: Id, told: Told, draw: Draw) -> Step {
        let key = key(id, told, draw);
        if let Some(step) = self.steps.get(&key) {
            return *step;
        }
        let step = self.tell_aloud(id, told, draw, &mut |_| {});
        self.steps.insert(key, step);
        self.kept[id as usize].told.push((told, draw));
        self.unchecked.push((id, told, draw));
        self.check_twins();
        step
    }

    /// A twin does the same as the one that is kept, whatever it is told. This is what `fingerprint` rests on.
    fn check_twins(&mut self) {
        while let Some((id, told, draw)) = self.unchecked.pop() {
            let Some(twin) = self.kept[id as usize].twin.as_deref().cloned() else { continue };
            let known = self.steps[&key(id, told, draw)];
            let step = self.step(twin, told, draw, &mut |_| {});
            assert_eq!(step, known, "two guards that look alike are not: {id}, {told:?}");
            self.twins_checked += 1;
        }
    }

    /// As [`Guards::tell`], and `hears` every event.
    pub(crate) fn tell_aloud(
        &mut self,
        id: Id,
        told: Told,
        draw: Draw,
        hears: &mut dyn FnMut(&Event),
    ) -> Step {
        let living = self.kept[id as usize].living.clone();
        self.step(living, told, draw, hears)
    }

    fn step(&mut self, mut living: Living, told: Told, draw: Draw, hears: &mut dyn FnMut(&Event)) -> Step {
        let base = living.base;
        self.on.without.begin();
        random::draws(draw, base.latest[living.host]);
        let mut now = wall(living.now);
        let failure = Failure { what: "failed", kind: FailureKind::System };
        let image;
        let input = match told {
            Told::Tick => {
                // A pause of milliseconds is over at once.
                now.mono =
                    now.mono.max(living.guard.deadline().min(living.now + Duration::from_nanos(PAUSE_NS)));
                Input::Tick
            }
            Told::Read(block) => {
                image = block.image(base);
                Input::Read(Ok(&image))
            }
            Told::ReadFailed => Input::Read(Err(failure)),
            Told::Entry(block, clock) => {
                now.wall = Wall(clock.generation(base));
                image = block.image(base);
                Input::Entry(Ok(&image))
            }
            Told::EntryWritten => Input::EntryWritten(Ok(())),
            Told::EntryFailed => Input::EntryWritten(Err(failure)),
            Told::Written => Input::Written(Ok(())),
            Told::WriteFailed => Input::Written(Err(failure)),
            Told::NotWritten => Input::NotWritten,
            Told::Release => Input::Release,
            Told::Withdraw => Input::Withdraw,
        };
        living.guard.handle(now, input);
        self.drain(living, hears)
    }

    /// Carries out what is asked for, up to the next thing that takes time. The superblock, or header, never changes, and is read at
    /// once: to be late with it is to be late with the look before it.
    fn drain(&mut self, mut living: Living, hears: &mut dyn FnMut(&Event)) -> Step {
        let Living { guard, host, now, base } = &mut living;
        let (host, now) = (*host, *now);
        let mut step = Step::new();
        let drawn = guard.generation().unwrap_or(0);
        if drawn > base.top {
            step.generations = u8::try_from(drawn - base.top).expect("one more, or what the time gives");
            base.top = drawn;
        }
        while let Some(output) = guard.poll() {
            match output {
                Output::Read => step.asks = Asks::Read,
                Output::Superblock => {
                    let bytes = if self.on.area { &*slot::HEADER } else { &*SUPERBLOCK };
                    guard.handle(wall(now), Input::Superblock(Ok(bytes)));
                }
                Output::Entry => step.asks = Asks::Entry,
                Output::WriteEntry(write) => {
                    step.asks = Asks::Write(Block::of_entry(&write.image, *base), left(write.not_after, now));
                }
                Output::Write(write) => {
                    let seq = crate::format::MmpBlock::fields(&write.image).seq;
                    if seq != crate::protocol::sequence::SEQ_CLEAN {
                        step.steps =
                            u16::try_from(seq - base.latest[host]).expect("a host counts on, or jumps");
                        base.latest[host] = seq;
                    }
                    step.asks = Asks::Write(Block::of(&write.image, *base), left(write.not_after, now));
                }
                Output::Activity => unreachable!("no kernel has mounted anything here"),
                Output::Event(event) => {
                    let generation = guard.generation().map_or(0, |held| generations_behind(held, *base));
                    step.hear(&event, generation, self.on.damage);
                    hears(&event);
                }
            }
        }
        if !guard.is_over() {
            step.guard = Some(self.keep(living, step.asks == Asks::Entry));
        }
        step
    }

    /// `draws`: the next thing that it does is to draw a generation.
    fn keep(&mut self, living: Living, draws: bool) -> Id {
        let Living { guard, host, now, base } = &living;
        clock::at(*now);
        let text = format!("{guard:?}");
        let hash = |salt: u8, text: String| {
            let mut hasher = DefaultHasher::new();
            (salt, text, host).hash(&mut hasher);
            hasher.finish()
        };
        let alike = normal(&text, *base, draws);
        let print = u128::from(hash(0, alike.clone())) << 64 | u128::from(hash(1, alike));
        let exact = hash(2, exact(&text, *base));
        let due_ns = distance(guard.deadline(), *now);
        let due = if due_ns <= PAUSE_NS.cast_signed() { 0 } else { units_until(due_ns) };
        let lease_ns = guard.lease_end().map(|end| distance(end, *now));
        let next = Id::try_from(self.kept.len()).expect("memory ends before");
        let id = *self.ids.entry(print).or_insert(next);
        if id == next {
            let (twin, told) = (None, Vec::new());
            self.kept.push(Kept { living, exact, twin, told, due, lease_ns, older: None });
            return id;
        }
        let kept = &mut self.kept[id as usize];
        assert_eq!((due, lease_ns), (kept.due, kept.lease_ns), "two guards that look alike are not: {text}");
        if exact != kept.exact && kept.twin.is_none() {
            kept.twin = Some(Box::new(living));
            self.unchecked.extend(kept.told.iter().map(|&(told, draw)| (id, told, draw)));
        }
        id
    }
}

/// Whole units until then. A look that was answered late leaves no time.
fn left(not_after: Mono, now: Mono) -> u8 {
    if not_after < now { PAST } else { whole_units(not_after.since(now)) }
}

fn wall(now: Mono) -> Now {
    Now { mono: now, wall: Wall(WALL_S) }
}

fn distance(at: Mono, now: Mono) -> i64 {
    i64::try_from(i128::from(at.0) - i128::from(now.0)).unwrap_or(i64::MAX)
}
