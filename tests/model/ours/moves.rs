//! What may happen in a state of two hosts, and what it leads to.
//!
//! Here is the world around a guard: a disk, a driver and a keeper. The driver does one I/O at a time and looks at the clock right
//! before it begins a write. A read shows what stood there when it was asked for, or whatever landed since. The keeper stops the
//! user when the lease has ended, and needs all but a wait for it.

use crate::ours::disk::{land, let_go, sights};
use crate::ours::guards::Guards;
use crate::ours::scale::{LANDING_UNITS, WAIT_NS, units_until};
use crate::ours::sequences::{Block, HOSTS, Kind};
use crate::ours::state::{Before, Breakage, Fate, Faults, Host, Io, Move, PAST, Setup, Shown, State, Wrong};
use crate::ours::told::{Asks, Step, Told};
use crate::random::Draw;

/// A world that can be asked what may happen and what comes of it.
pub(crate) struct World<'a> {
    pub(crate) setup: &'a Setup,
    pub(crate) guards: &'a mut Guards,
}

impl World<'_> {
    pub(crate) fn first(&mut self) -> State {
        let (disk, entry) = self.setup.blocks();
        let mut state = State {
            hosts: Default::default(),
            disk,
            entry,
            held: 0,
            drawn: None,
            loose: Vec::new(),
            left: Faults::default(),
            withdrawals: self.setup.slot.map_or(0, |slot| slot.withdrawals),
            wrong: None,
        };
        while self.setup.before == Before::Held && state.hosts[0].uses == 0 {
            let what = match (state.hosts[0].guard, state.hosts[0].io) {
                (None, _) => Move::Begin(0),
                (_, Io::Flying(..)) => Move::Land(0, false),
                (_, Io::Read(..) | Io::Landed(..)) => Move::Answer(0, false),
                (_, Io::Asked(..)) => Move::Issue(0),
                (Some(guard), Io::None) if self.guards.due(guard) == 0 => Move::Tick(0),
                (Some(_), Io::None) => Move::Time,
            };
            state = self.after(&state, what);
        }
        for &what in self.setup.way() {
            // Whoever is late there has a delay of his own.
            state.left.delays = u8::from(what == Move::Time);
            state = self.after(&state, what);
        }
        state.left = self.setup.faults;
        if self.setup.slot.is_some_and(|slot| slot.late_mark) {
            // What whoever was there before the model begins wrote last.
            let generation = state.held + u8::from(self.setup.before == Before::Held);
            state.loose.push((Block { generation, ..Block::before(Kind::Released, false) }, 0));
        }
        state
    }

    /// Everything that may happen.
    pub(crate) fn moves(&mut self, state: &State, moves: &mut Vec<Move>) {
        for at in 0..HOSTS {
            self.host_moves(state, at, moves);
        }
        for (number, _) in state.loose.iter().enumerate() {
            let number = u8::try_from(number).expect("there are few");
            for shown in sights(state, None) {
                moves.push(Move::LandLoose(number, shown));
            }
        }
        if self.time_may_pass(state) {
            moves.push(Move::Time);
        }
    }

    fn host_moves(&mut self, state: &State, at: usize, moves: &mut Vec<Move>) {
        let host = &state.hosts[at];
        let number = u8::try_from(at).expect("there are few");
        let Some(guard) = host.guard else {
            if host.uses == 0 {
                moves.push(Move::Begin(number));
            }
            return;
        };
        match host.io {
            Io::None if self.guards.due(guard) == 0 => moves.push(Move::Tick(number)),
            Io::None => {}
            Io::Read(block, _) => {
                moves.push(Move::Answer(number, false));
                if self.guards.tell(guard, Told::Read(block), Draw::Least).drew {
                    moves.push(Move::Answer(number, true));
                }
            }
            Io::Asked(..) => moves.push(Move::Issue(number)),
            Io::Flying(..) => {
                for shown in sights(state, Some(at)) {
                    moves.push(Move::Land(number, shown.0[1 - at]));
                }
                if self.setup.breakage == Breakage::EarlyAcknowledgement {
                    moves.push(Move::Answer(number, false));
                }
            }
            Io::Landed(..) => moves.push(Move::Answer(number, false)),
        }
        if self.setup.releases && host.uses > 0 && host.io == Io::None {
            moves.push(Move::Release(number));
        }
        let slot = self.setup.slot.unwrap_or_default();
        if state.withdrawals > 0 && host.uses == 0 && host.io == Io::None {
            moves.push(Move::Withdraw(number));
        }
        let fates: &[Fate] = match host.io {
            Io::Flying(..) if slot.tears => &[Fate::Loose, Fate::Never, Fate::Torn],
            Io::Flying(..) => &[Fate::Loose, Fate::Never],
            _ => &[Fate::Done],
        };
        if state.left.failures > 0 && matches!(host.io, Io::Read(..) | Io::Flying(..) | Io::Landed(..)) {
            moves.extend(fates.iter().map(|&fate| Move::Fail(number, fate)));
        }
        if state.left.crashes > 0 {
            moves.extend(fates.iter().map(|&fate| Move::Crash(number, fate)));
            if host.uses > 0 {
                moves.extend(fates.iter().map(|&fate| Move::Hang(number, fate)));
            }
        }
    }

    /// Time passes only when everything that is due has been done, or its being late is paid for as a fault.
    fn time_may_pass(&self, state: &State) -> bool {
        let mut delays = state.left.delays;
        for host in &state.hosts {
            if matches!(host.io, Io::Flying(_, LANDING_UNITS..)) {
                return false;
            }
            match (self.is_behind(host), host.late) {
                (true, 0) if delays == 0 => return false,
                (true, 0) => delays -= 1,
                (true, late) if late >= self.setup.longest_delay => return false,
                _ => {}
            }
        }
        !state.loose.iter().any(|&loose| self.setup.is_due(loose))
    }

    /// Something of it is due that has not been done.
    fn is_behind(&self, host: &Host) -> bool {
        let Some(guard) = host.guard else { return false };
        match host.io {
            Io::None => self.guards.due(guard) == 0,
            Io::Asked(..) => true,
            Io::Read(_, age) | Io::Flying(_, age) | Io::Landed(_, age) => age >= self.setup.usual_delay,
        }
    }

    pub(crate) fn after(&mut self, state: &State, what: Move) -> State {
        let mut next = state.clone();
        match what {
            Move::Time => self.pass(&mut next),
            Move::Begin(number) => {
                next.hosts[usize::from(number)].faulted = false;
                let step = self.guards.begin(number.into());
                self.take(&mut next, number.into(), step);
            }
            Move::Tick(number) => self.tell(&mut next, number.into(), Told::Tick, Draw::Least),
            Move::Answer(number, most) => {
                let draw = if most { Draw::Most } else { Draw::Least };
                self.answer(&mut next, number.into(), draw);
            }
            Move::Issue(number) => self.issue(&mut next, number.into()),
            Move::Land(number, shown) => {
                let at = usize::from(number);
                let Io::Flying(block, age) = next.hosts[at].io else { unreachable!("{what:?}") };
                next.hosts[at].io = Io::Landed(block, age);
                let mut sights = [false; HOSTS];
                sights[1 - at] = shown;
                land(&mut next, block, Shown(sights));
            }
            Move::LandLoose(number, shown) => {
                let (block, _) = next.loose.remove(number.into());
                land(&mut next, block, shown);
            }
            Move::Fail(number, fate) => {
                next.left.failures -= 1;
                self.fail(&mut next, number.into(), fate);
            }
            Move::Crash(number, fate) => {
                next.left.crashes -= 1;
                let_go(&mut next, number.into(), fate);
                next.hosts[usize::from(number)] = Host { faulted: true, ..Host::default() };
            }
            Move::Hang(number, fate) => {
                next.left.crashes -= 1;
                let_go(&mut next, number.into(), fate);
                let host = &mut next.hosts[usize::from(number)];
                *host = Host { uses: host.uses, faulted: true, ..Host::default() };
            }
            Move::Release(number) => {
                next.hosts[usize::from(number)].uses = 0;
                self.tell(&mut next, number.into(), Told::Release, Draw::Least);
            }
            Move::Withdraw(number) => {
                next.withdrawals -= 1;
                self.tell(&mut next, number.into(), Told::Withdraw, Draw::Least);
            }
        }
        next
    }

    fn pass(&mut self, state: &mut State) {
        for at in 0..HOSTS {
            let behind = self.is_behind(&state.hosts[at]);
            let host = &mut state.hosts[at];
            if behind {
                if host.late == 0 {
                    state.left.delays -= 1;
                }
                host.late += 1;
            }
            // Also where it is usual: a holder is promised nothing on a device that takes a limit for each I/O.
            host.faulted |= behind || host.io != Io::None;
            host.io = host.io.older();
            if self.setup.breakage != Breakage::NoKeeper {
                host.uses = host.uses.saturating_sub(1);
            }
            host.guard = host.guard.map(|guard| self.guards.older(guard));
        }
        for (block, age) in &mut state.loose {
            *age = if self.setup.comes_whenever(*block) { 0 } else { *age + 1 };
        }
        state.drawn = None;
    }

    fn answer(&mut self, state: &mut State, at: usize, draw: Draw) {
        let io = state.hosts[at].io;
        if matches!(io, Io::Flying(..)) {
            let_go(state, at, Fate::Loose);
        }
        self.tell(state, at, io.answer(), draw);
        if let Io::Landed(block, _) = io {
            self.keeper_is_wrong(state, at, block);
        }
    }

    fn fail(&mut self, state: &mut State, at: usize, fate: Fate) {
        let told = state.hosts[at].io.failure();
        let_go(state, at, fate);
        state.hosts[at].faulted = true;
        self.tell(state, at, told, Draw::Least);
    }

    /// The driver looks at the clock, and the write goes out.
    fn issue(&mut self, state: &mut State, at: usize) {
        let Io::Asked(block, left) = state.hosts[at].io else { unreachable!("nothing is asked for") };
        match (left, self.setup.breakage) {
            (PAST, Breakage::IgnoresNotAfter) => state.wrong = Some(Wrong::WrittenLate),
            (PAST, _) => return self.tell(state, at, Told::NotWritten, Draw::Least),
            _ => {}
        }
        state.hosts[at].io = Io::Flying(block, 0);
        state.hosts[at].late = 0;
    }

    fn tell(&mut self, state: &mut State, at: usize, told: Told, draw: Draw) {
        let host = &mut state.hosts[at];
        (host.io, host.late) = (Io::None, 0);
        let guard = host.guard.expect("only a guard is told");
        let step = self.guards.tell(guard, told, draw);
        self.take(state, at, step);
    }

    /// What a guard's step means to the rest.
    fn take(&mut self, state: &mut State, at: usize, step: Step) {
        if step.steps > 0 {
            state.go_on(self.guards, at, step.steps);
        }
        if step.generations > 0 {
            state.generations_on(self.guards, at, step.generations);
        }
        if step.asks == Asks::Entry {
            // It is read at once: to be late with it is to be late with the look before, or with the write that follows.
            let guard = step.guard.expect("whoever asks goes on");
            let told = Told::Entry(state.entry, state.clock(self.setup));
            let step = self.guards.tell(guard, told, Draw::Least);
            return self.take(state, at, step);
        }
        if let (Some(generation), true) = (step.held, self.setup.slot.is_some()) {
            if generation >= state.held {
                state.wrong = Some(Wrong::Generation);
            }
            state.held = generation;
        }
        let stopped = step.lost && state.hosts[at].uses > 0 && !state.hosts[at].faulted;
        if stopped {
            state.wrong = Some(Wrong::Stopped);
        }
        let fence_ns = self.fence_ns();
        let lease_ns = step.guard.and_then(|guard| self.guards.lease_ns(guard));
        let host = &mut state.hosts[at];
        host.guard = step.guard;
        let counts = self.setup.breakage != Breakage::LeaseFromAcknowledgement;
        match lease_ns {
            Some(lease_ns) if step.held.is_some() => {
                host.uses = units_until(lease_ns + fence_ns);
                host.faulted = false;
            }
            Some(lease_ns) if host.uses > 0 && counts => {
                host.uses = units_until(lease_ns + fence_ns);
            }
            _ if step.lost && self.setup.breakage != Breakage::NoKeeper => {
                host.uses = host.uses.min(units_until(fence_ns));
            }
            _ => {}
        }
        host.io = match step.asks {
            Asks::Nothing | Asks::Entry => Io::None,
            Asks::Read => Io::Read(state.disk, 0),
            Asks::Write(block, left) => Io::Asked(block, left),
        };
        // Between the answer and the look at the clock nothing of this host happens, so it matters only to one that may be late.
        if state.left.delays == 0 && matches!(host.io, Io::Asked(..)) {
            self.issue(state, at);
        }
    }

    /// All but a wait.
    fn fence_ns(&self) -> i64 {
        let wait_ns = i64::try_from(WAIT_NS).expect("a few seconds");
        if self.setup.breakage == Breakage::SlowFence { 2 * wait_ns } else { wait_ns - 1 }
    }

    /// Breakage: the lease runs from here.
    fn keeper_is_wrong(&self, state: &mut State, at: usize, block: Block) {
        let host = &mut state.hosts[at];
        if self.setup.breakage == Breakage::LeaseFromAcknowledgement && host.uses > 0 && host.guard.is_some()
        {
            let lease = crate::protocol::timing::lease(block.check_interval_s);
            let lease_ns = i64::try_from(lease.as_nanos()).expect("a few seconds");
            host.uses = units_until(lease_ns + self.fence_ns());
        }
    }
}
