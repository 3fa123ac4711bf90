//! Two hosts of ours, as a model of stateright's: what is asked of every state.

use std::sync::{Mutex, MutexGuard, PoisonError};

use stateright::{Model, Property};

use crate::calm::{self, Known};
use crate::check::{Checked, EXCLUSION, First, GENERATIONS, GETS_IN, GOES_ON, IN_TIME};
use crate::ours::guards::Guards;
use crate::ours::moves::World;
use crate::ours::scale::UNIT_S;
use crate::ours::sequences::HOSTS;
use crate::ours::state::{Io, Move, Setup, Shown, State, Wrong};
use crate::ours::timeline;
use crate::ours::told::Told;
use crate::random::Draw;

/// In so many units of prompt I/O somebody is in, whatever happened before.
const UNITS_TO_GET_IN: u8 = 120;

pub(crate) struct TwoHosts {
    pub(crate) setup: Setup,
    tables: Mutex<Tables>,
    first: First,
}

pub(crate) struct Tables {
    pub(crate) guards: Guards,
    known: Known,
    /// The longest that it took until somebody was in.
    pub(crate) longest: u8,
}

impl TwoHosts {
    pub(crate) fn new(setup: Setup) -> Self {
        let tables = Tables { guards: Guards::new(setup.on()), known: Known::default(), longest: 0 };
        TwoHosts { setup, tables: Mutex::new(tables), first: First::default() }
    }

    pub(crate) fn tables(&self) -> MutexGuard<'_, Tables> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn with<T>(&self, what: impl FnOnce(&mut World<'_>) -> T) -> T {
        let mut tables = self.tables();
        what(&mut World { setup: &self.setup, guards: &mut tables.guards })
    }

    fn somebody_gets_in(&self, state: &State) -> bool {
        let mut tables = self.tables();
        let Tables { guards, known, longest } = &mut *tables;
        let mut world = World { setup: &self.setup, guards };
        let units = calm::units(state, known, |state| {
            let holds = state.hosts.iter().any(|host| host.uses > 0 && host.guard.is_some());
            let what = prompt(&mut world, state);
            (!holds).then(|| (world.after(state, what), what == Move::Time))
        });
        *longest = (*longest).max(units);
        units <= UNITS_TO_GET_IN
    }
}

impl Model for TwoHosts {
    type State = State;
    type Action = Move;

    fn init_states(&self) -> Vec<State> {
        vec![self.with(|world| world.first())]
    }

    fn actions(&self, state: &State, moves: &mut Vec<Move>) {
        self.with(|world| world.moves(state, moves));
    }

    fn next_state(&self, state: &State, what: Move) -> Option<State> {
        Some(self.with(|world| world.after(state, what)))
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(EXCLUSION, |model: &Self, state: &State| {
                model.first.well(!state.hosts.iter().all(|host| host.uses > 0))
            }),
            Property::always(GOES_ON, |model: &Self, state: &State| {
                model.first.well(state.wrong != Some(Wrong::Stopped))
            }),
            Property::always(IN_TIME, |model: &Self, state: &State| {
                model.first.well(state.wrong != Some(Wrong::WrittenLate))
            }),
            Property::always(GENERATIONS, |model: &Self, state: &State| {
                model.first.well(state.wrong != Some(Wrong::Generation))
            }),
            Property::always(GETS_IN, |model: &Self, state: &State| {
                model.first.well(model.somebody_gets_in(state))
            }),
            Property::sometimes("the first one is in", |_, state: &State| state.hosts[0].uses > 0),
            Property::sometimes("the second one is in", |_, state: &State| state.hosts[1].uses > 0),
        ]
    }
}

impl Checked for TwoHosts {
    fn name(&self) -> String {
        self.setup.name()
    }

    fn figures(&self) -> String {
        let tables = self.tables();
        let (guards, steps, twins) = tables.guards.count();
        format!(
            "{guards} guards, {steps} steps of theirs, {twins} by twins; somebody is in within {:.1} s of prompt I/O",
            f64::from(tables.longest) * UNIT_S
        )
    }

    fn timeline(&self, way: &[(State, Option<Move>)]) -> String {
        timeline::shown(self, way)
    }
}

/// What happens if all is prompt; host 0 backs off for the shortest time, host 1 for the longest.
fn prompt(world: &mut World<'_>, state: &State) -> Move {
    if !state.loose.is_empty() {
        let reads = [0, 1].map(|at: usize| matches!(state.hosts[at].io, Io::Read(..)));
        return Move::LandLoose(0, Shown(reads));
    }
    for at in 0..HOSTS {
        let host = &state.hosts[at];
        let number = u8::try_from(at).expect("there are few");
        let Some(guard) = host.guard else {
            if host.uses == 0 {
                return Move::Begin(number);
            }
            continue;
        };
        match host.io {
            Io::None if world.guards.due(guard) == 0 => return Move::Tick(number),
            Io::None => {}
            Io::Read(block, _) => {
                let drew = world.guards.tell(guard, Told::Read(block), Draw::Least).drew;
                return Move::Answer(number, drew && at == 1);
            }
            Io::Asked(..) => return Move::Issue(number),
            Io::Flying(..) => {
                return Move::Land(number, matches!(state.hosts[1 - at].io, Io::Read(..)));
            }
            Io::Landed(..) => return Move::Answer(number, false),
        }
    }
    Move::Time
}
