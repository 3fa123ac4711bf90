//! Runs a model and says what came of it.
//!
//! A model counts as closed when the checker has visited every state that can be reached and no property was violated in any
//! of them; a floor under the number of states, and a state in which each host is in, keep an empty model from passing.

use std::hash::Hash;
use std::sync::atomic::{AtomicBool, Ordering};

use stateright::{Checker, Expectation, HasDiscoveries, Model};

/// Never two users at once.
pub(crate) const EXCLUSION: &str = "never do two use the device at once";
/// A holder without a fault of its own is never stopped.
pub(crate) const GOES_ON: &str = "no holder without a fault of its own is stopped";
/// No write is begun after its time.
pub(crate) const IN_TIME: &str = "no write is begun after its time";
/// In an area: a generation is given to nobody twice, and grows.
pub(crate) const GENERATIONS: &str = "whoever holds a slot has a greater generation than all before";
/// Somebody gets in.
pub(crate) const GETS_IN: &str = "somebody gets in";

/// The checker goes on for a while after a violation, and keeps the last one that it saw. Only the first one is told, which in a
/// search in breadth is one with the shortest way.
#[derive(Default)]
pub(crate) struct First(AtomicBool);

impl First {
    /// True if it is well, or if something else was not before.
    pub(crate) fn well(&self, well: bool) -> bool {
        well || self.0.swap(true, Ordering::Relaxed)
    }
}

/// What a model needs to be run here.
pub(crate) trait Checked: Model {
    fn name(&self) -> String;
    /// What else there is to say when it is done.
    fn figures(&self) -> String;
    /// A way through it, for people.
    fn timeline(&self, way: &[(Self::State, Option<Self::Action>)]) -> String;
}

/// What came of it.
pub(crate) struct Outcome {
    pub(crate) name: String,
    pub(crate) states: usize,
    /// The property, and the way there.
    pub(crate) violated: Option<(&'static str, String)>,
}

/// One thread a model: the tests run beside each other, and only one thread finds the shortest way.
pub(crate) fn run<M>(model: M) -> Outcome
where
    M: Checked + Send + Sync + 'static,
    M::State: Hash + Clone + PartialEq + Send + Sync + 'static,
    M::Action: Clone + PartialEq,
{
    let began = mmpguard::clock::mono();
    let checker = model.checker().finish_when(HasDiscoveries::AnyFailures).threads(1).spawn_bfs().join();
    let took_s = mmpguard::clock::mono().since(began).as_secs_f64();
    let (model, states) = (checker.model(), checker.unique_state_count());
    let name = model.name();
    println!(
        "{name}: {states} states, {} steps deep, {took_s:.1} s; {}",
        checker.max_depth(),
        model.figures()
    );
    let discoveries = checker.discoveries();
    let properties = model.properties();
    let violated = properties.iter().find_map(|property| {
        let failure = !matches!(property.expectation, Expectation::Sometimes);
        let path = discoveries.get(property.name).filter(|_| failure)?.clone();
        Some((property.name, model.timeline(&path.into_vec())))
    });
    if violated.is_none() {
        assert!(checker.is_done(), "{name}: it was not explored to its end");
        for property in &properties {
            let wanted = matches!(property.expectation, Expectation::Sometimes);
            assert!(!wanted || discoveries.contains_key(property.name), "{name}: never {}", property.name);
        }
    }
    Outcome { name, states, violated }
}

impl Outcome {
    /// Everything was visited, that is at least `states`, and nothing was wrong.
    pub(crate) fn closes(self, states: usize) {
        if let Some((property, way)) = self.violated {
            panic!("{}: it does not hold that {property}:\n{way}", self.name);
        }
        assert!(self.states >= states, "{}: only {} states", self.name, self.states);
    }

    /// `property` does not hold, and was found not to.
    pub(crate) fn violates(self, property: &str) {
        let (violated, way) = self.violated.unwrap_or_else(|| panic!("{}: it was not found", self.name));
        println!("{}: found, as it should be, that this does not hold: {violated}\n{way}", self.name);
        assert_eq!(violated, property, "{}: another one was violated", self.name);
    }
}

/// True if the models that take minutes were asked for.
pub(crate) fn large() -> bool {
    let asked = std::env::var_os("MMPGUARD_MODEL").is_some_and(|value| value == "large");
    if !asked {
        println!("skipped: it takes minutes, and runs with MMPGUARD_MODEL=large");
    }
    asked
}
