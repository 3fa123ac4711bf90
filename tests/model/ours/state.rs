//! A state of two hosts of ours and one block, and what a configuration allows.

use crate::ours::guards::Id;
use crate::ours::scale::{LANDING_UNITS, UNIT_S};
use crate::ours::sequences::{Block, HOSTS};

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
        Setup { before, faults, longest_delay: 6, usual_delay: 0, releases: false, breakage: Breakage::None }
    }

    pub(crate) fn name(&self) -> String {
        let Faults { crashes, failures, delays } = self.faults;
        let faults = [(crashes, "crashes"), (failures, "failures"), (delays, "delays")];
        let mut name = format!("two of ours, {}", self.before.told());
        for (count, what) in faults.into_iter().filter(|&(count, _)| count > 0) {
            name += &format!(", {what}: {count}");
        }
        if self.usual_delay > 0 {
            name += &format!(", {} s for each I/O is no fault", f64::from(self.usual_delay) * UNIT_S);
        }
        if self.releases {
            name += ", with releases";
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
}

impl Before {
    fn told(self) -> &'static str {
        match self {
            Before::Clean => "clean",
            Before::Dead => "unclean",
            Before::Held => "one of them is in",
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
    pub(crate) wrong: Option<Wrong>,
}

/// What can go wrong beside two users at once, and is seen in one step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Wrong {
    /// A holder that had no fault of its own was stopped.
    Stopped,
    /// A write was begun after its time.
    WrittenLate,
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
    Never,
}
