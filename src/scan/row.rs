//! What is told of a device.

use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;

use crate::format::area::{SlotName, SlotState};
use crate::format::content::Label;
use crate::protocol::{Peer, Sequence, timing};
use crate::sys::TargetKind;

/// A device, or a used slot of an area.
///
/// Paths, names and reasons hold what stood on a disk or in a directory: they are to be escaped where they are shown. Notes are harmless
/// already, since what they name may be no text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// The paths that lead to it; by the first one it is called.
    pub paths: Vec<PathBuf>,
    /// The nodes of these.
    pub nodes: Vec<TargetKind>,
    /// Which slot of the area there; none for the device itself.
    pub slot: Option<Slot>,
    /// How long it is, in bytes.
    pub size_bytes: Option<u64>,
    /// What stands there: as mount(8) or blkid(8) call it, with a plus between several.
    pub filesystem: Option<String>,
    /// The UUID of the filesystem; of a slot's row, of what it guards. None if there is none, or it is nothing but zeroes.
    pub uuid: Option<[u8; 16]>,
    /// The label of the filesystem, or of the area.
    pub label: Option<Label>,
    /// What protects it; none if that could not be found out.
    pub protection: Option<Protection>,
    /// Where the MMP block of its filesystem begins, in bytes from its start.
    pub block_offset_bytes: Option<u64>,
    /// How it stands with that.
    pub state: State,
    /// Whom the block names, and when he wrote it.
    pub last: Option<Peer>,
    /// The number of the last acquisition, of a slot and of what one guards.
    pub generation: Option<u64>,
    /// How often a holder is to beat, by the superblock or by the area's header.
    pub interval: Option<Duration>,
    /// Why nothing more is told, or why the area may not be used.
    pub reason: Option<String>,
    /// What else is worth knowing, one text each, escaped.
    pub notes: Vec<String>,
}

/// A slot of an area.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slot {
    /// Its number.
    pub number: u32,
    /// Its name; empty for one that nobody can read.
    pub name: SlotName,
}

/// What protects a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Protection {
    /// The MMP block of its ext4 or ldiskfs.
    Native,
    /// An area behind what stands on it.
    TailArea,
    /// It is an area, for other devices.
    Area,
    /// It is a slot of such an area.
    Slot,
    /// Nothing.
    None,
}

/// What one look says, in the words of `mmp show`, and why there was none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Nobody uses it, says the block.
    Clean,
    /// In use, or its holder died.
    LiveOrUnclean,
    /// Its block was seen to change, not long ago: somebody beats.
    Live,
    /// e2fsck's mark.
    Fsck,
    /// A sequence that means nothing.
    Unknown,
    /// Superblock, block or header cannot be right.
    Damaged,
    /// There is no protection.
    NotEnabled,
    /// An area whose slots can be used.
    Usable,
    /// An area in which nothing may be claimed.
    Unusable,
    /// Of a kind that is not supported.
    Unsupported,
    /// It cannot be found, opened or read.
    Unreadable,
    /// It does not answer.
    Hung,
    /// There was nobody left to look at it: too many others hang.
    NotAsked,
    /// Neither a block device nor a regular file; it was not opened.
    NoDevice,
}

impl State {
    /// As a person reads it.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            State::Clean => "clean",
            State::LiveOrUnclean => "live or unclean",
            State::Live => "live",
            State::Fsck => "fsck",
            State::Unknown => "unknown",
            State::Damaged => "damaged",
            State::NotEnabled => "not enabled",
            State::Usable => "usable",
            State::Unusable => "UNUSABLE",
            State::Unsupported => "unsupported",
            State::Unreadable => "unreadable",
            State::Hung => "HUNG",
            State::NotAsked => "not asked",
            State::NoDevice => "no device",
        }
    }

    /// It was looked at, whatever was found.
    #[must_use]
    pub fn was_seen(self) -> bool {
        !matches!(self, State::Unreadable | State::Hung | State::NotAsked | State::NoDevice)
    }
}

impl From<Sequence> for State {
    fn from(sequence: Sequence) -> Self {
        match sequence {
            Sequence::Live(_) => State::LiveOrUnclean,
            Sequence::Clean => State::Clean,
            Sequence::Fsck => State::Fsck,
            Sequence::Unknown(_) => State::Unknown,
        }
    }
}

impl From<SlotState> for State {
    fn from(state: SlotState) -> Self {
        match state {
            SlotState::Free | SlotState::Released => State::Clean,
            SlotState::Claiming | SlotState::Holding => State::LiveOrUnclean,
        }
    }
}

impl Row {
    /// Nothing is known of it but that.
    pub(super) fn bare(path: PathBuf, state: State) -> Self {
        Row {
            paths: vec![path],
            nodes: Vec::new(),
            slot: None,
            size_bytes: None,
            filesystem: None,
            uuid: None,
            label: None,
            protection: None,
            block_offset_bytes: None,
            state,
            last: None,
            generation: None,
            interval: None,
            reason: None,
            notes: Vec::new(),
        }
    }

    /// Within this time a live holder is seen to beat.
    pub(super) fn beats_within(&self) -> Duration {
        let interval = self.interval.unwrap_or_default();
        let peer = self.last.as_ref().map_or(0, |last| last.check_interval_s);
        timing::refusal(match self.protection {
            // The superblock's is the interval already.
            Some(Protection::Native) => timing::longest_interval(interval, 1, peer),
            _ => interval,
        })
    }
}
