//! The model checker.

// `fastrand::Rng` is `random::Rng` in here: what the protocol draws is an input.
extern crate self as fastrand;

mod calm;
mod clock;
mod fingerprint;
mod format;
mod guards;
mod hashing;
mod many;
mod moves;
mod protocol;
mod random;
mod scale;
mod sequences;
mod state;
mod superblock;
mod table;
mod three;
mod timeline;
mod two;

pub(crate) use random::Rng;

use stateright::{Checker, HasDiscoveries, Model};

use state::{Breakage, Faults, Setup};
use two::TwoHosts;

fn check(setup: Setup) {
    let began = mmpguard::clock::mono();
    let checker =
        TwoHosts::new(setup).checker().finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
    let took = mmpguard::clock::mono().since(began);
    let (guards, steps) = checker.model().tables().guards.count();
    println!(
        "{}: {} states, depth {}, {:.1} s; {guards} guards, {steps} steps of theirs; somebody is in within {} units",
        setup.name,
        checker.unique_state_count(),
        checker.max_depth(),
        took.as_secs_f64(),
        checker.model().tables().longest,
    );
    for (name, path) in checker.discoveries() {
        println!("{name}");
        if name.contains(" is in") {
            continue;
        }
        println!("{}", timeline::shown(checker.model(), &path.into_vec()));
    }
}

#[test]
fn try_it() {
    let n = |name: &str, default: u8| std::env::var(name).map_or(default, |v| v.parse().expect("n"));
    let setup = Setup {
        name: "trial",
        clean: n("CLEAN", 1) == 1,
        holds: false,
        faults: Faults::of(n("CRASHES", 0), n("FAILURES", 0), n("DELAYS", 0)),
        longest_delay: n("LONGEST", 6),
        usual_delay: n("USUAL", 0),
        releases: n("RELEASES", 0) == 1,
        breakage: [
            Breakage::None,
            Breakage::SlowFence,
            Breakage::LeaseFromAcknowledgement,
            Breakage::IgnoresNotAfter,
            Breakage::EarlyAcknowledgement,
            Breakage::NoKeeper,
        ][usize::from(n("BREAK", 0))],
    };
    check(setup);
}

#[test]
fn try_table() {
    use table::{Rules, Who};
    let n = |name: &str, default: u8| std::env::var(name).map_or(default, |v| v.parse().expect("n"));
    let mut rules = Rules::all(n("W", 4));
    match n("BREAK", 0) {
        1 => rules.limit = false,
        2 => rules.lease_from_look = false,
        3 => rules.stamps = false,
        4 => rules.middle_beat = false,
        5 => rules.margin = false,
        _ => {}
    }
    let who = [Who::Ours, if n("HOSTS", 2) > 1 { Who::Ours } else { Who::Nobody }, match n("THIRD", 0) { 0 => Who::Nobody, 1 => Who::Ours, _ => Who::Fsck }];
    let table = three::Table { rules, who, clean: n("CLEAN", 1) == 1, crashes: n("CRASHES", 0), known: std::sync::Mutex::default() };
    let began = mmpguard::clock::mono();
    let checker = table.checker().finish_when(HasDiscoveries::AnyFailures).threads(usize::from(n("THREADS", 1))).spawn_bfs().join();
    let took = mmpguard::clock::mono().since(began);
    println!("table: {} states, depth {}, {:.1} s, in within {}", checker.unique_state_count(), checker.max_depth(), took.as_secs_f64(), checker.model().known.lock().unwrap().1);
    for (name, path) in checker.discoveries() {
        println!("{name}");
        if name.contains(" is in") { continue; }
        for (state, what) in path.into_vec() { println!("   {what:?}   {:?}", state.disk); for h in &state.hosts { println!("         {h:?}"); } }
    }
}
