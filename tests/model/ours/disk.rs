//! What lands, what is on its way, and how far everything is behind the latest.

use crate::ours::guards::Guards;
use crate::ours::scale::LANDING_UNITS;
use crate::ours::sequences::{Block, HOSTS, Kind, LONG_AGO};
use crate::ours::slot::{AHEAD, Clock};
use crate::ours::state::{Fate, Io, Setup, Shown, State};

impl State {
    /// A host's sequence went on: everything else of it is further behind.
    pub(crate) fn go_on(&mut self, guards: &mut Guards, at: usize, steps: u16) {
        self.disk = self.disk.behind_by(at, steps);
        for (block, _) in &mut self.loose {
            *block = block.behind_by(at, steps);
        }
        let other = &mut self.hosts[1 - at];
        other.io = other.io.map(|block| block.behind_by(at, steps));
        other.guard = other.guard.map(|guard| guards.behind(guard, at, steps));
    }

    /// What the time is worth to whoever draws a generation now.
    pub(crate) fn clock(&self, setup: &Setup) -> Clock {
        match (setup.slot.unwrap_or_default().clocks_behind, self.drawn) {
            (true, _) => Clock::Behind,
            (false, None) => Clock::Ahead,
            (false, Some(behind)) => Clock::Drawn(behind),
        }
    }

    /// A host has drawn the greatest generation: all others are further behind.
    pub(crate) fn generations_on(&mut self, guards: &mut Guards, at: usize, by: u8) {
        let older = |behind: u8| (behind + by).min(LONG_AGO);
        self.disk = self.disk.generations_on(by);
        self.entry = self.entry.generations_on(by);
        for (block, _) in &mut self.loose {
            // A clean mark may be on its way for ever.
            *block = match block.kind == Kind::Released {
                true => Block { generation: older(block.generation), ..*block },
                false => block.generations_on(by),
            };
        }
        self.held = older(self.held);
        self.drawn = self.drawn.map(older);
        if by == AHEAD {
            self.drawn = Some(0);
        }
        let other = &mut self.hosts[1 - at];
        other.io = other.io.map(|block| block.generations_on(by));
        other.guard = other.guard.map(|guard| guards.generations_on(guard, by));
    }
}

impl Setup {
    /// It has to land now, if it does at all.
    pub(crate) fn is_due(&self, (block, age): (Block, u8)) -> bool {
        age >= LANDING_UNITS && !self.comes_whenever(block)
    }

    /// Where clean marks are late, they are so for as long as they like.
    pub(crate) fn comes_whenever(&self, block: Block) -> bool {
        self.slot.is_some_and(|slot| slot.late_mark) && block.kind == Kind::Released && !block.torn
    }
}

pub(crate) fn land(state: &mut State, block: Block, shown: Shown) {
    if block.kind == Kind::Entry {
        state.entry = block;
        return;
    }
    state.disk = block;
    for (host, shown) in state.hosts.iter_mut().zip(shown.0) {
        if let (Io::Read(_, age), true) = (host.io, shown) {
            host.io = Io::Read(block, age);
        }
    }
}

pub(crate) fn let_go(state: &mut State, at: usize, fate: Fate) {
    if let (Io::Flying(block, age), Fate::Loose | Fate::Torn) = (state.hosts[at].io, fate) {
        state.loose.push((Block { torn: fate == Fate::Torn, ..block }, age));
        state.loose.sort_unstable();
    }
    state.hosts[at].io = Io::None;
}

/// Which of the reads under way may show a write that lands now: each on its own may, or may not.
pub(crate) fn sights(state: &State, lander: Option<usize>) -> impl Iterator<Item = Shown> {
    let reads = [0, 1].map(|at| lander != Some(at) && matches!(state.hosts[at].io, Io::Read(..)));
    [[false, false], [false, true], [true, false], [true, true]]
        .into_iter()
        .filter(move |shown| (0..HOSTS).all(|at| reads[at] || !shown[at]))
        .map(Shown)
}
