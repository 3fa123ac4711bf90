//! The table as a model of stateright's: what is asked of every state.

use std::sync::{Mutex, PoisonError};

use stateright::{Model, Property};

use crate::calm::{self, Known};
use crate::many::{self, Move};
use crate::table::{HOSTS, Io, Rules, State, Step, Who};
use crate::two::{EXCLUSION, IN};

/// In so many waits of prompt I/O somebody is in, whatever happened before.
const WAITS_TO_GET_IN: u8 = 8;

pub(crate) struct Table {
    pub(crate) rules: Rules,
    pub(crate) who: [Who; HOSTS],
    pub(crate) clean: bool,
    pub(crate) crashes: u8,
    pub(crate) known: Mutex<(Known, u8)>,
}

impl Table {
    fn somebody_gets_in(&self, state: &State) -> bool {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let (known, longest) = &mut *known;
        let units = calm::units(state, known, |state| {
            let holds = state.hosts.iter().any(|host| host.uses > 0 && host.step != Step::Off);
            let what = self.prompt(state);
            (!holds).then(|| (many::after(self.rules, state, what), what == Move::Time))
        });
        *longest = (*longest).max(units);
        units <= WAITS_TO_GET_IN * self.rules.wait
    }

    /// What happens if all is prompt. Whoever has lost a race backs off for longer than one who is still at it takes.
    fn prompt(&self, state: &State) -> Move {
        if state.loose.is_some() {
            return Move::LandLoose(reads(state));
        }
        for (at, host) in state.hosts.iter().enumerate() {
            match host.io {
                Io::None => {}
                Io::Read(_) | Io::Landed(_) => return Move::Answer(at),
                Io::Flying(..) => return Move::Land(at, reads(state)),
            }
            // Also with wrong stamps a look is due when the watch is over.
            if many::may_look(Rules { stamps: true, ..self.rules }, host) {
                return Move::Look(at);
            }
        }
        let ours = || state.hosts.iter().enumerate().filter(|(_, host)| host.who == Who::Ours);
        let idle = ours().find(|(_, host)| host.step == Step::Off && host.uses == 0);
        match idle {
            Some((at, _)) if ours().all(|(_, host)| host.step == Step::Off) => Move::Begin(at),
            _ => Move::Time,
        }
    }
}

fn reads(state: &State) -> [bool; HOSTS] {
    std::array::from_fn(|at| matches!(state.hosts[at].io, Io::Read(_)))
}

impl Model for Table {
    type State = State;
    type Action = Move;

    fn init_states(&self) -> Vec<State> {
        vec![State::first(self.who, self.clean, self.crashes)]
    }

    fn actions(&self, state: &State, moves: &mut Vec<Move>) {
        many::moves(self.rules, state, moves);
    }

    fn next_state(&self, state: &State, what: Move) -> Option<State> {
        Some(many::after(self.rules, state, what))
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(EXCLUSION, |_, state: &State| {
                state.hosts.iter().filter(|host| host.uses > 0).count() < 2
            }),
            Property::always(IN, Table::somebody_gets_in),
            Property::sometimes("the last one is in", |_, state: &State| {
                state.hosts.iter().rfind(|host| host.who != Who::Nobody).is_some_and(|host| host.uses > 0)
            }),
        ]
    }
}
