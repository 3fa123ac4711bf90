//! Two hosts of ours on a slot of an area.

use crate::check::run;
use crate::ours::model::TwoHosts;
use crate::ours::state::{Before, Faults, Setup, Slot};

const NONE: Faults = Faults::of(0, 0, 0);

fn check(setup: Setup) -> crate::check::Outcome {
    run(TwoHosts::new(setup))
}

#[test]
#[ignore = "scratch"]
fn scratch() {
    let spec = std::env::var("SPEC").unwrap();
    let words: Vec<&str> = spec.split_whitespace().collect();
    let has = |w: &str| words.contains(&w);
    let before = [("clean", Before::Clean), ("dead", Before::Dead), ("held", Before::Held), ("torn", Before::Torn)]
        .into_iter().find(|(n, _)| has(n)).unwrap().1;
    let n = |p: &str| words.iter().find_map(|w| w.strip_prefix(p)).map_or(0, |v| v.parse().unwrap());
    let slot = Slot { clocks_behind: has("behind"), late_mark: has("mark"), tears: has("tears"), withdrawals: n("w=") };
    let rule = words.iter().find_map(|w| w.strip_prefix("rule="));
    let without = std::iter::once(crate::left_out::Breakage::None).chain(crate::left_out::Breakage::MACHINES)
        .find(|b| rule.map_or(true, |r| format!("{b:?}") == r)).unwrap();
    let setup = Setup { releases: has("releases"), without, usual_delay: n("usual="), ..Setup::on_slot(before, Faults::of(n("c="), n("f="), n("d=")), slot) };
    let outcome = check(setup);
    if let Some((property, way)) = outcome.violated { println!("VIOLATED {property}\n{way}"); }
}

#[test]
fn without_faults() {
    let slot = Slot { withdrawals: 1, ..Slot::default() };
    for before in [Before::Clean, Before::Free, Before::Dead, Before::Held, Before::Torn] {
        check(Setup { releases: true, ..Setup::on_slot(before, NONE, slot) }).closes(1_000);
    }
}
