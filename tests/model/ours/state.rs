//! A state of two hosts of ours and one block, and what a configuration allows.

use crate::left_out;
use crate::ours::guards::On;
use crate::ours::scale::{LANDING_UNITS, UNIT_S};
use crate::ours::sequences::{Block, HOSTS, Kind};
use crate::ours::told::{Id, Told};

/// What a configuration begins with and allows. Each fault is counted once, when it begins; it lasts for as long as it likes within
/// the bounds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setup {
    pub(crate) before: Before,
    pub(crate) faults: Faults,
    /// For so many units a host may be late in one episode: with its ticks, its answers, or because its write takes so long.
    pub(crate) longest_delay: u8,
    /// An answer may take this many units without being a fault.
    pub(crate) usual_delay: u8,
    /// Users end, and their hosts release.
    pub(crate) releases: bool,
    pub(crate) breakage: Breakage,
    /// The rule of the protocol's that is left out.
    pub(crate) without: left_out::Breakage,
    pub(crate) slot: Option<Slot>,
}

/// What else there is on a slot of an area.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Slot {
    /// The wall clocks stand far back: what the time is worth as a generation says nothing.
    pub(crate) clocks_behind: bool,
    /// The clean mark of whoever was there before is still on its way, or comes again, whenever it likes.
    pub(crate) late_mark: bool,
    /// Writes whose host fails may land torn.
    pub(crate) tears: bool,
    /// So many claims are given up.
    pub(crate) withdrawals: u8,
}

/// How many faults there are still to come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Faults {
    /// Hosts that go down, or drivers that do.
    pub(crate) crashes: u8,
    /// I/Os that fail. A write that fails may have landed, may land later, or never.
    pub(crate) failures: u8,
    /// Episodes in which one host is late.
    pub(crate) delays: u8,
}

impl Setup {
    /// Nothing is broken, and nothing else is allowed but these faults.
    pub(crate) const fn of(before: Before, faults: Faults) -> Self {
        Setup {
            before,
            faults,
            longest_delay: 6,
            usual_delay: 0,
            releases: false,
            breakage: Breakage::None,
            without: left_out::Breakage::None,
            slot: None,
        }
    }

    /// The same on a slot of an area.
    pub(crate) const fn on_slot(before: Before, faults: Faults, slot: Slot) -> Self {
        Setup { slot: Some(slot), ..Setup::of(before, faults) }
    }

    pub(crate) fn on(&self) -> On {
        let damage = self.slot.is_some_and(|slot| slot.tears);
        On { area: self.slot.is_some(), damage, without: self.without }
    }

    /// The blocks that stand there when it begins: the block itself, or the slot's, and the slot's entry.
    pub(crate) fn blocks(&self) -> (Block, Block) {
        let (area, before) = (self.slot.is_some(), self.before);
        let kind = match (area, before) {
            (false, Before::Clean | Before::Held) => Kind::Clean,
            (false, _) => Kind::Live,
            (true, Before::Free) => Kind::Free,
            (true, Before::Dead | Before::Torn) => Kind::Holding,
            (true, _) => Kind::Released,
        };
        (Block::before(kind, before == Before::Torn), Block::before(Kind::Entry, false))
    }

    /// What happens before anything else may.
    pub(crate) fn way(&self) -> &'static [Move] {
        use Move::{Answer, Begin, Land, Tick, Time};
        match self.before {
            Before::Drawn => &[
                Begin(0),
                Begin(1),
                Answer(0, false),
                Answer(1, false),
                Land(0, false),
                Land(1, false),
                Answer(1, false),
                Answer(1, false),
                Land(1, false),
                Answer(1, false),
                Time,
            ],
            Before::Doubting => &[
                Begin(0),
                Answer(0, false),
                Land(0, false),
                Answer(0, false),
                Begin(1),
                Answer(0, false),
                Answer(1, false),
                Land(0, false),
                Answer(0, false),
                Time,
                Tick(0),
                Answer(0, false),
                Time,
            ],
            _ => &[],
        }
    }

    pub(crate) fn name(&self) -> String {
        let Faults { crashes, failures, delays } = self.faults;
        let faults = [(crashes, "crashes"), (failures, "failures"), (delays, "delays")];
        let place = if self.slot.is_some() { "on a slot" } else { "two of ours" };
        let mut name = format!("{place}, {}", self.before.told());
        for (count, what) in faults.into_iter().filter(|&(count, _)| count > 0) {
            name += &format!(", {what}: {count}");
        }
        if self.usual_delay > 0 {
            name += &format!(", {} s for each I/O is no fault", f64::from(self.usual_delay) * UNIT_S);
        }
        if self.releases {
            name += ", with releases";
        }
        let Slot { clocks_behind, late_mark, tears, withdrawals } = self.slot.unwrap_or_default();
        let more = [
            (withdrawals > 0, "a withdrawal"),
            (late_mark, "a late mark"),
            (tears, "torn writes"),
            (clocks_behind, "clocks far behind"),
        ];
        for (_, what) in more.into_iter().filter(|&(is, _)| is) {
            name += &format!(", {what}");
        }
        if self.without != left_out::Breakage::None {
            name += &format!(", broken: {:?}", self.without);
        }
        if self.breakage != Breakage::None {
            name += &format!(", broken: {:?}", self.breakage);
        }
        name
    }
}

/// What a model begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Before {
    Clean,
    /// One died who never counts here.
    Dead,
    /// Host 0 is in already.
    Held,
    /// A slot that nobody has had yet.
    Free,
    /// A slot's block that is damaged.
    Torn,
    /// Both have drawn the same generation over a clean slot; host 1 has claimed it, and host 0 is late with the answer that its entry
    /// was written.
    Drawn,
    /// Host 0 has claimed a clean slot, and host 1 saw it just before, does not believe the mark, and is late with its second look.
    Doubting,
}

impl Before {
    fn told(self) -> &'static str {
        match self {
            Before::Clean => "clean",
            Before::Dead => "unclean",
            Before::Held => "one of them is in",
            Before::Free => "free",
            Before::Torn => "damaged",
            Before::Drawn => "both have drawn, one is late",
            Before::Doubting => "one claims, one watches and is late",
        }
    }
}

impl Faults {
    pub(crate) const fn of(crashes: u8, failures: u8, delays: u8) -> Self {
        Faults { crashes, failures, delays }
    }
}

/// What is broken on purpose. What can be broken without touching the guard is its surroundings: each is one assumption or
/// one duty of `protocol`'s.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Breakage {
    #[default]
    None,
    /// The keeper takes two waits to stop the user.
    SlowFence,
    /// The keeper counts the lease from the acknowledgement instead of the look.
    LeaseFromAcknowledgement,
    /// The driver begins a write however late it is.
    IgnoresNotAfter,
    /// Writes are acknowledged before they land (A1).
    EarlyAcknowledgement,
    /// Nothing stops the user when the lease ends.
    NoKeeper,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct State {
    pub(crate) hosts: [Host; HOSTS],
    pub(crate) disk: Block,
    /// Writes that nobody waits for any more, and the units that they have been on their way.
    pub(crate) loose: Vec<(Block, u8)>,
    pub(crate) left: Faults,
    /// How many claims may still be given up.
    pub(crate) withdrawals: u8,
    pub(crate) wrong: Option<Wrong>,
    /// Of an area.
    pub(crate) entry: Block,
    /// How far the generation of the last one who held it is behind the greatest.
    pub(crate) held: u8,
    /// Somebody has drawn by the clock in this unit, and that is so far behind the greatest by now.
    pub(crate) drawn: Option<u8>,
}

/// What can go wrong beside two users at once, and is seen in one step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Wrong {
    /// A holder that had no fault of its own was stopped.
    Stopped,
    /// A write was begun after its time.
    WrittenLate,
    /// Somebody holds it with a generation that is not greater than all before.
    Generation,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Host {
    pub(crate) guard: Option<Id>,
    pub(crate) io: Io,
    /// The device is used for so many units more if nothing prolongs that; 0: it is not used.
    pub(crate) uses: u8,
    /// Units of an episode in which it is late; 0: it is not.
    pub(crate) late: u8,
    /// It had a fault of its own since it began its claim.
    pub(crate) faulted: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) enum Io {
    #[default]
    None,
    /// What it sampled, and the units since it was asked for.
    Read(Block, u8),
    /// Asked for, and the clock not looked at yet; not to be begun after so many units.
    Asked(Block, u8),
    /// On its way for so many units.
    Flying(Block, u8),
    /// Landed, and not acknowledged.
    Landed(Block, u8),
}

impl Io {
    /// A unit passes.
    pub(crate) fn older(self) -> Self {
        match self {
            Io::None => Io::None,
            Io::Read(block, age) => Io::Read(block, (age + 1).min(LANDING_UNITS)),
            Io::Asked(block, left) => Io::Asked(block, left.checked_sub(1).unwrap_or(PAST)),
            Io::Flying(block, age) => Io::Flying(block, age + 1),
            Io::Landed(block, age) => Io::Landed(block, (age + 1).min(LANDING_UNITS)),
        }
    }

    /// How a guard is told that its write has landed, or what it read.
    pub(crate) fn answer(self) -> Told {
        match self {
            Io::Read(block, _) => Told::Read(block),
            Io::Flying(block, _) | Io::Landed(block, _) if block.kind == Kind::Entry => Told::EntryWritten,
            Io::Flying(..) | Io::Landed(..) => Told::Written,
            Io::None | Io::Asked(..) => unreachable!("nothing to be answered"),
        }
    }

    /// How it is told that it failed.
    pub(crate) fn failure(self) -> Told {
        match self.answer() {
            Told::Read(_) => Told::ReadFailed,
            Told::EntryWritten => Told::EntryFailed,
            _ => Told::WriteFailed,
        }
    }

    pub(crate) fn map(self, change: impl FnOnce(Block) -> Block) -> Self {
        match self {
            Io::None => Io::None,
            Io::Read(block, age) => Io::Read(change(block), age),
            Io::Asked(block, left) => Io::Asked(change(block), left),
            Io::Flying(block, age) => Io::Flying(change(block), age),
            Io::Landed(block, age) => Io::Landed(change(block), age),
        }
    }
}

/// The time to begin a write has passed.
pub(crate) const PAST: u8 = u8::MAX;

/// What happens next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Move {
    /// A unit passes.
    Time,
    /// A host begins a claim.
    Begin(u8),
    Tick(u8),
    /// A host handles the answer; it draws the longest back-off or the shortest.
    Answer(u8, bool),
    /// A host looks at the clock and begins its write, or does not.
    Issue(u8),
    /// A host's write lands; a read under way on the other one shows it, or does not.
    Land(u8, bool),
    /// One of those lands that nobody waits for.
    LandLoose(u8, Shown),
    /// A host's I/O fails.
    Fail(u8, Fate),
    Crash(u8, Fate),
    /// Its driver hangs for good, or dies unseen: its user goes on until the keeper has stopped it.
    Hang(u8, Fate),
    /// The user is done.
    Release(u8),
    /// A claim is given up.
    Withdraw(u8),
}

/// Which reads under way show what has just landed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Shown(pub(crate) [bool; HOSTS]);

/// What becomes of a write whose host does not wait for it any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Fate {
    /// It has landed, or there was none.
    Done,
    Loose,
    /// The same, but it lands torn.
    Torn,
    Never,
}
