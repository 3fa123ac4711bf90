//! A way that went wrong, for people: when, which host, what.

use std::fmt::Write as _;

use crate::ours::model::TwoHosts;
use crate::ours::moves::World;
use crate::ours::scale::UNIT_S;
use crate::ours::sequences::HOSTS;
use crate::ours::state::{Breakage, Io, Move, State};
use crate::ours::told::Told;
use crate::random::Draw;

/// The steps of a way, as a table.
pub(crate) fn shown(model: &TwoHosts, way: &[(State, Option<Move>)]) -> String {
    let mut text = String::new();
    let mut units = 0;
    for (state, what) in way {
        let Some(what) = *what else { continue };
        if what == Move::Time {
            units += 1;
            continue;
        }
        let at_s = f64::from(units) * UNIT_S;
        let (told, events) = model.with(|world| (told(world, state, what), events(world, state, what)));
        writeln!(text, "  {at_s:6.2} s  {told}").expect("a String takes all");
        for event in events {
            writeln!(text, "            * {event}").expect("a String takes all");
        }
        let after = model.with(|world| world.after(state, what));
        for at in 0..HOSTS {
            let (before, now) = (state.hosts[at].uses, after.hosts[at].uses);
            if now > before || (now == 0 && before > 0) {
                writeln!(text, "            {} may use the device for {now} units more", name(at))
                    .expect("a String takes all");
            }
        }
    }
    text
}

fn name(at: usize) -> &'static str {
    ["alpha", "beta"][at]
}

fn told(world: &World<'_>, state: &State, what: Move) -> String {
    let disk = state.disk;
    match what {
        Move::Time => "a unit passes".into(),
        Move::Begin(at) => format!("{} begins a claim, the disk shows {disk:?}", name(at.into())),
        Move::Tick(at) => format!("{} asks for a look, the disk shows {disk:?}", name(at.into())),
        Move::Answer(at, _) => {
            let io = match state.hosts[usize::from(at)].io {
                Io::Read(block, age) => format!("the look, {age} units old: {block:?}"),
                Io::Landed(block, age) => format!("the acknowledgement of {block:?}, sent {age} units ago"),
                io => format!("{io:?}"),
            };
            format!("{} handles {io}", name(at.into()))
        }
        Move::Issue(at) => format!(
            "{} looks at the clock before its write {:?}{}",
            name(at.into()),
            state.hosts[usize::from(at)].io,
            if world.setup.breakage == Breakage::IgnoresNotAfter { ", and does not care" } else { "" }
        ),
        Move::Land(at, shown) => format!(
            "{}'s write lands: {:?}; a look under way shows it: {shown}",
            name(at.into()),
            state.hosts[usize::from(at)].io
        ),
        Move::LandLoose(number, _) => {
            format!("a write that nobody waits for lands: {:?}", state.loose[usize::from(number)])
        }
        Move::Fail(at, fate) => {
            format!("{}'s I/O fails ({fate:?}): {:?}", name(at.into()), state.hosts[usize::from(at)].io)
        }
        Move::Crash(at, fate) => format!("{} crashes, its write: {fate:?}", name(at.into())),
        Move::Hang(at, fate) => format!("{}'s driver hangs for good, its write: {fate:?}", name(at.into())),
        Move::Release(at) => format!("{} is done and releases", name(at.into())),
        Move::Withdraw(at) => format!("{} gives up its claim", name(at.into())),
    }
}

/// What the guard says of the step.
fn events(world: &mut World<'_>, state: &State, what: Move) -> Vec<String> {
    let (at, told, draw) = match what {
        Move::Tick(at) => (at, Told::Tick, Draw::Least),
        Move::Release(at) => (at, Told::Release, Draw::Least),
        Move::Answer(at, most) => {
            let draw = if most { Draw::Most } else { Draw::Least };
            (at, state.hosts[usize::from(at)].io.answer(), draw)
        }
        Move::Fail(at, _) => (at, state.hosts[usize::from(at)].io.failure(), Draw::Least),
        Move::Withdraw(at) => (at, Told::Withdraw, Draw::Least),
        _ => return Vec::new(),
    };
    let Some(guard) = state.hosts[usize::from(at)].guard else { return Vec::new() };
    let mut heard = Vec::new();
    world.guards.tell_aloud(guard, told, draw, &mut |event| heard.push(format!("{event:?}")));
    heard
}
