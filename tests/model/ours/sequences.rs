//! Sequences, generations and images by their distance from what was written, or drawn, last. A state of the model has images in this
//! form only, so that a holder who counts on comes back to the state that he was in a beat ago.

use crate::format::area::SlotState;
use crate::format::{DeviceName, Image, MmpBlock, NodeName};
use crate::ours::fingerprint::{COUNTS, JUMPS};
use crate::ours::slot;
use crate::protocol::Owner;
use crate::protocol::sequence::{JUMP, SEQ_CLEAN, SEQ_MAX};

/// From where distances are counted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Base {
    /// The latest sequence of each host.
    pub(crate) latest: [u32; HOSTS],
    /// The greatest generation that anybody has drawn.
    pub(crate) top: u64,
}

pub(crate) const HOSTS: usize = 2;
/// The wall clocks of all hosts stand at this: no rule that concerns claimers and holders of ours compares less than whole check
/// intervals of it (clocks kept by NTP), and a block with another time in it would only be easier to tell apart. What it is worth as
/// a generation goes on, see [`slot::Clock`].
pub(crate) const WALL_S: u64 = 1_700_000_000;
/// What the one wrote last who died before the model begins.
const LONG_GONE_SEQ: u32 = 77;
const LONG_GONE: u8 = 2;
const REGION: u32 = 0x1000_0000;
const FIRST_TOP: u64 = 1 << 20;
/// A generation that lies so far back is less than all that anybody still has, whatever else it is.
pub(crate) const LONG_AGO: u8 = 16;
/// No block stands there for so long that it falls so far behind.
const MOST_BEHIND: u8 = 128;

/// Where each host's sequences begin, and generations.
pub(crate) fn first_base() -> Base {
    let latest = std::array::from_fn(|host| REGION * (u32::try_from(host).unwrap_or(0) + 1) + REGION / 2);
    Base { latest, top: FIRST_TOP }
}

/// Whose sequence it is, and how far it is from his latest; none if it is nobody's or has a meaning of its own.
pub(crate) fn relative(seq: u32, base: Base) -> Option<(usize, u32)> {
    let host = region(seq)?;
    let behind = base.latest[host].checked_sub(seq).expect("no host is behind what it wrote");
    Some((host, behind))
}

/// The same of a sequence that its host has chosen and not written: how far it is ahead. A claim that is taken back has one.
pub(crate) fn ahead(seq: u32, base: Base) -> Option<(usize, u32)> {
    let host = region(seq)?;
    Some((host, seq.checked_sub(base.latest[host]).filter(|&ahead| ahead > 0)?))
}

fn region(seq: u32) -> Option<usize> {
    let host = usize::try_from(seq / REGION).ok()?.checked_sub(1)?;
    (seq <= SEQ_MAX && host < HOSTS).then_some(host)
}

/// How far a generation is behind the greatest.
pub(crate) fn generations_behind(generation: u64, base: Base) -> u8 {
    let behind = base.top.checked_sub(generation).expect("nobody has a greater one");
    u8::try_from(behind).expect("nobody keeps one for that long")
}

pub(crate) fn owner(host: usize) -> Owner {
    let (node, device) = [("alpha", "sda"), ("beta", "sdb"), ("long-gone", "sdz")][host];
    Owner { node: NodeName::new(node), device: DeviceName::new(device) }
}

/// What a block is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Kind {
    /// Native.
    Clean,
    Live,
    /// A slot's block.
    Free,
    Released,
    Claiming,
    Holding,
    /// A slot's other one.
    Entry,
}

/// An image, in 29 bits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Block {
    /// Whose names it has; one beyond the hosts is dead.
    pub(crate) host: u8,
    pub(crate) kind: Kind,
    /// Its checksum does not fit.
    pub(crate) torn: bool,
    /// How many sequences its host has gone on since.
    pub(crate) behind: u16,
    pub(crate) check_interval_s: u16,
    /// In an area: how far its generation is behind the greatest.
    pub(crate) generation: u8,
}

impl std::fmt::Debug for Block {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name = ["alpha", "beta", "long-gone"][usize::from(self.host)];
        let Block { behind, check_interval_s, generation, .. } = self;
        match self.kind {
            Kind::Clean => write!(f, "{name}'s clean mark")?,
            Kind::Live => write!(f, "{name}-{behind} (C {check_interval_s} s)")?,
            Kind::Free => write!(f, "free, generation -{generation}")?,
            Kind::Released => write!(f, "{name}'s clean mark, generation -{generation}")?,
            Kind::Claiming => write!(f, "{name}-{behind} claiming, generation -{generation}")?,
            Kind::Holding => write!(f, "{name}-{behind} holding, generation -{generation}")?,
            Kind::Entry => write!(f, "entry with generation -{generation}")?,
        }
        if self.torn { f.write_str(", torn") } else { Ok(()) }
    }
}

impl Block {
    /// What stands there when the model begins: the block of one who died before, or his entry.
    pub(crate) fn before(kind: Kind, torn: bool) -> Self {
        let host = if kind == Kind::Entry { 0 } else { LONG_GONE };
        Block { host, kind, torn, behind: 0, check_interval_s: 5, generation: 0 }
    }

    pub(crate) fn of(image: &Image, base: Base) -> Self {
        let block = MmpBlock::fields(image);
        let host = (0..=HOSTS).find(|&host| Owner::of(&block) == owner(host)).expect("one of the names");
        let clean = block.seq == SEQ_CLEAN;
        let behind = match relative(block.seq, base) {
            Some((_, behind)) if !clean => u16::try_from(behind).expect("no host is far ahead of its block"),
            _ => 0,
        };
        let host = u8::try_from(host).expect("there are few");
        let (kind, generation) = match slot::record(image) {
            None if clean => (Kind::Clean, 0),
            None => (Kind::Live, 0),
            Some((state, generation)) => (Kind::of(state), generations_behind(generation, base)),
        };
        Block { host, kind, torn: false, behind, check_interval_s: block.check_interval_s, generation }
    }

    /// Of a slot's entry. Who wrote it does not stand there.
    pub(crate) fn of_entry(image: &Image, base: Base) -> Self {
        let generation = generations_behind(slot::high_water(image), base);
        Block { generation, ..Block::before(Kind::Entry, false) }
    }

    pub(crate) fn image(self, base: Base) -> Image {
        let host = usize::from(self.host);
        let seq = match (self.is_clean(), base.latest.get(host)) {
            (true, _) => SEQ_CLEAN,
            (false, Some(latest)) => latest - u32::from(self.behind),
            (false, None) => LONG_GONE_SEQ,
        };
        let Owner { node, device } = owner(host);
        let block = MmpBlock { seq, time_s: WALL_S, node, device, check_interval_s: self.check_interval_s };
        let generation = base.top - u64::from(self.generation);
        let mut image = Image([0; 1024]);
        match self.kind.state() {
            Some(state) => slot::encode(&mut image, block, state, generation, self.host),
            None if self.kind == Kind::Entry => slot::encode_entry(&mut image, generation),
            None => block.encode_into(&mut image, None),
        }
        if self.torn {
            slot::tear(&mut image);
        }
        image
    }

    /// A clean mark that is whole.
    pub(crate) fn is_clean(self) -> bool {
        matches!(self.kind, Kind::Clean | Kind::Free | Kind::Released)
    }

    /// Its host has written something later.
    pub(crate) fn behind_by(self, host: usize, steps: u16) -> Self {
        let concerns = usize::from(self.host) == host && !self.is_clean() && self.kind != Kind::Entry;
        let behind = self.behind + if concerns { steps } else { 0 };
        // Else `fingerprint` would not tell it from another.
        let (jumps, counts) = (u32::from(behind) / JUMP, u32::from(behind) % JUMP);
        assert!(jumps < JUMPS && counts < COUNTS, "no block stands while its host goes on: {self:?}");
        Block { behind, ..self }
    }

    /// Somebody has drawn a greater generation than there was, by so much.
    pub(crate) fn generations_on(self, by: u8) -> Self {
        let by = if matches!(self.kind, Kind::Clean | Kind::Live) { 0 } else { by };
        let generation = self.generation + by;
        let most = if self.kind == Kind::Entry { LONG_AGO } else { MOST_BEHIND };
        assert!(generation < most, "no block stands while everybody draws: {self:?}");
        Block { generation, ..self }
    }

    /// For a key.
    pub(crate) fn bits(self) -> u64 {
        let last = match self.kind {
            Kind::Clean | Kind::Live => self.check_interval_s,
            _ => self.generation.into(),
        };
        u64::from(self.host)
            | (self.kind as u64) << 2
            | u64::from(self.torn) << 5
            | u64::from(self.behind) << 6
            | u64::from(last) << 20
    }
}

impl Kind {
    fn of(state: SlotState) -> Self {
        match state {
            SlotState::Free => Kind::Free,
            SlotState::Released => Kind::Released,
            SlotState::Claiming => Kind::Claiming,
            SlotState::Holding => Kind::Holding,
        }
    }

    fn state(self) -> Option<SlotState> {
        match self {
            Kind::Clean | Kind::Live | Kind::Entry => None,
            Kind::Free => Some(SlotState::Free),
            Kind::Released => Some(SlotState::Released),
            Kind::Claiming => Some(SlotState::Claiming),
            Kind::Holding => Some(SlotState::Holding),
        }
    }
}
