//! The table as a model of stateright's: what is asked of every state.

use std::fmt::Write as _;
use std::sync::{Mutex, PoisonError};

use stateright::{Model, Property};

use crate::calm::{self, Known};
use crate::check::{Checked, EXCLUSION, First, GETS_IN};
use crate::table::moves::{self, Move};
use crate::table::state::{HOSTS, Io, Rules, State, Step, Who, name};

/// In so many waits of prompt I/O somebody is in, whatever happened before.
const WAITS_TO_GET_IN: u8 = 8;

pub(crate) struct Table {
    pub(crate) rules: Rules,
    pub(crate) who: [Who; HOSTS],
    pub(crate) clean: bool,
    pub(crate) crashes: u8,
    /// What is known of getting in, and the longest that it takes.
    known: Mutex<(Known, u8)>,
    first: First,
}

impl Table {
    pub(crate) fn new(rules: Rules, who: [Who; HOSTS], clean: bool, crashes: u8) -> Self {
        Table { rules, who, clean, crashes, known: Mutex::default(), first: First::default() }
    }

    fn somebody_gets_in(&self, state: &State) -> bool {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let (known, longest) = &mut *known;
        let units = calm::units(state, known, |state| {
            let holds = state.hosts.iter().any(|host| host.uses > 0 && host.step != Step::Off);
            let what = self.prompt(state);
            (!holds).then(|| (moves::after(self.rules, state, what), what == Move::Time))
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
            if moves::may_look(Rules { stamps: true, ..self.rules }, host) {
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
        moves::moves(self.rules, state, moves);
    }

    fn next_state(&self, state: &State, what: Move) -> Option<State> {
        Some(moves::after(self.rules, state, what))
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(EXCLUSION, |model: &Self, state: &State| {
                model.first.well(state.hosts.iter().filter(|host| host.uses > 0).count() < 2)
            }),
            Property::always(GETS_IN, |model: &Self, state: &State| {
                model.first.well(model.somebody_gets_in(state))
            }),
            Property::sometimes("one of ours is in", |_, state: &State| {
                state.hosts.iter().any(|host| host.who == Who::Ours && host.uses > 0)
            }),
            Property::sometimes("an e2fsck is in, if there is one", |model: &Self, state: &State| {
                !model.who.contains(&Who::Fsck) || state.hosts.iter().any(|host| host.step == Step::Work)
            }),
        ]
    }
}

impl Checked for Table {
    fn name(&self) -> String {
        let count = |who| self.who.iter().filter(|&&other| other == who).count();
        let Rules { wait, landing, .. } = self.rules;
        let mut name = format!("a table of {} of ours, W = {wait}", count(Who::Ours));
        if count(Who::Fsck) > 0 {
            name += &format!(", an e2fsck, writes land within {landing}");
        }
        if self.rules.area {
            name += ", in an area";
        }
        name += if self.clean { ", clean" } else { ", unclean" };
        if self.crashes > 0 {
            name += &format!(", crashes: {}", self.crashes);
        }
        match self.rules.left_out() {
            "" => name,
            rule => format!("{name}, without {rule}"),
        }
    }

    fn figures(&self) -> String {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        format!("somebody is in within {} units of prompt I/O", known.1)
    }

    fn timeline(&self, way: &[(State, Option<Move>)]) -> String {
        let mut text = String::new();
        let mut units = 0;
        for (state, what) in way {
            let disk = state.disk;
            let line = match *what {
                None => continue,
                Some(Move::Time) => {
                    units += 1;
                    continue;
                }
                Some(Move::Begin(at)) => format!("{} begins a claim", name(at)),
                Some(Move::Look(at)) => format!("{} asks for a look, the disk shows {disk:?}", name(at)),
                Some(Move::Answer(at)) => {
                    let host = &state.hosts[at];
                    format!("{} handles {:?} in {:?}", name(at), host.io, host.step)
                }
                Some(Move::Land(at, shown)) => {
                    let io = state.hosts[at].io;
                    format!("{}'s write lands: {io:?}, shown to the looks of {shown:?}", name(at))
                }
                Some(Move::LandLoose(_)) => format!("a dead one's write lands: {:?}", state.loose),
                Some(Move::Crash(at)) => format!("{} crashes", name(at)),
            };
            let users: Vec<_> = (0..HOSTS).filter(|&at| state.hosts[at].uses > 0).map(name).collect();
            writeln!(text, "  {units:3}  {line:100}  users: {users:?}").expect("a String takes all");
        }
        text
    }
}
