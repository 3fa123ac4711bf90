//! Sequences and images by their distance from what their host wrote last. A state of the model has images in this form only, so
//! that a holder who counts on comes back to the state that he was in a beat ago.

use crate::format::{DeviceName, Image, MmpBlock, NodeName};
use crate::ours::fingerprint::{COUNTS, JUMPS};
use crate::protocol::Owner;
use crate::protocol::sequence::{JUMP, SEQ_CLEAN, SEQ_MAX};

/// The latest sequence of each host.
pub(crate) type Base = [u32; HOSTS];

pub(crate) const HOSTS: usize = 2;
/// The wall clocks of all hosts stand at this: no rule that concerns claimers and holders of ours compares less than whole check
/// intervals of it (clocks kept by NTP), and a block with another time in it would only be easier to tell apart.
pub(crate) const WALL_S: u64 = 1_700_000_000;
/// What the one wrote last who died before the model begins.
const LONG_GONE_SEQ: u32 = 77;
const REGION: u32 = 0x1000_0000;

/// Where each host's sequences begin.
pub(crate) fn first_base() -> Base {
    std::array::from_fn(|host| REGION * (u32::try_from(host).unwrap_or(0) + 1) + REGION / 2)
}

/// Whose sequence it is, and how far it is from his latest; none if it is nobody's or has a meaning of its own.
pub(crate) fn relative(seq: u32, base: Base) -> Option<(usize, u32)> {
    let host = usize::try_from(seq / REGION).ok()?.checked_sub(1)?;
    (seq <= SEQ_MAX && host < HOSTS)
        .then(|| (host, base[host].checked_sub(seq).expect("no host is behind what it wrote")))
}

pub(crate) fn owner(host: usize) -> Owner {
    let (node, device) = [("alpha", "sda"), ("beta", "sdb"), ("long-gone", "sdz")][host];
    Owner { node: NodeName::new(node), device: DeviceName::new(device) }
}

/// An image, in 32 bits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Block {
    /// Whose names it has; one beyond the hosts is dead.
    pub(crate) host: u8,
    pub(crate) clean: bool,
    /// How many sequences its host has gone on since.
    pub(crate) behind: u16,
    pub(crate) check_interval_s: u16,
}

impl std::fmt::Debug for Block {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name = ["alpha", "beta", "long-gone"][usize::from(self.host)];
        match self.clean {
            true => write!(f, "{name}'s clean mark"),
            false => write!(f, "{name}-{} (C {} s)", self.behind, self.check_interval_s),
        }
    }
}

impl Block {
    /// What stands there when the model begins.
    pub(crate) fn before(clean: bool) -> Self {
        Block { host: 2, clean, behind: 0, check_interval_s: 5 }
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
        Block { host, clean, behind, check_interval_s: block.check_interval_s }
    }

    pub(crate) fn image(self, base: Base) -> Image {
        let host = usize::from(self.host);
        let seq = match (self.clean, base.get(host)) {
            (true, _) => SEQ_CLEAN,
            (false, Some(latest)) => latest - u32::from(self.behind),
            (false, None) => LONG_GONE_SEQ,
        };
        let Owner { node, device } = owner(host);
        let mut image = Image([0; 1024]);
        MmpBlock { seq, time_s: WALL_S, node, device, check_interval_s: self.check_interval_s }
            .encode_into(&mut image, None);
        image
    }

    /// Its host has written something later.
    pub(crate) fn behind_by(self, host: usize, steps: u16) -> Self {
        let concerns = usize::from(self.host) == host && !self.clean;
        let behind = self.behind + if concerns { steps } else { 0 };
        // Else `fingerprint` would not tell it from another.
        let (jumps, counts) = (u32::from(behind) / JUMP, u32::from(behind) % JUMP);
        assert!(jumps < JUMPS && counts < COUNTS, "no block stands while its host goes on: {self:?}");
        Block { behind, ..self }
    }

    /// For a key.
    pub(crate) fn bits(self) -> u64 {
        u64::from(self.host)
            | u64::from(self.clean) << 2
            | u64::from(self.behind) << 3
            | u64::from(self.check_interval_s) << 19
    }
}
