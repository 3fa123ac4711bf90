//! The steps of the table: what its hosts do, and what may happen to their I/O.

use crate::table::state::{HOSTS, Host, Image, Io, Kind, Rules, Stage, State, Step, Who};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Move {
    Time,
    Begin(usize),
    Look(usize),
    Answer(usize),
    /// Its write lands, and the reads under way of these hosts show it.
    Land(usize, [bool; HOSTS]),
    LandLoose([bool; HOSTS]),
    /// It goes down; its write is still on its way.
    Crash(usize),
}

pub(crate) fn moves(rules: Rules, state: &State, moves: &mut Vec<Move>) {
    for (at, host) in state.hosts.iter().enumerate() {
        match host.io {
            Io::None if host.step == Step::Off && host.who != Who::Nobody && host.uses == 0 => {
                moves.push(Move::Begin(at));
            }
            Io::None if may_look(rules, host) => moves.push(Move::Look(at)),
            Io::None => {}
            Io::Read(_) | Io::Landed(_) => moves.push(Move::Answer(at)),
            Io::Flying(..) => moves.extend(shown(state).map(|shown| Move::Land(at, shown))),
        }
        let busy = host.step != Step::Off || host.uses > 0;
        if state.crashes > 0 && host.who == Who::Ours && busy && state.loose.is_none() {
            moves.push(Move::Crash(at));
        }
    }
    if state.loose.is_some() {
        moves.extend(shown(state).map(Move::LandLoose));
    }
    if time_may_pass(rules, state) {
        moves.push(Move::Time);
    }
}

/// Looks in between would only find a change earlier, so they are left out: a host may be that late.
pub(crate) fn may_look(rules: Rules, host: &Host) -> bool {
    let watch = if host.who == Who::Fsck { rules.wait } else { rules.watch() };
    let silence = if host.who == Who::Fsck { rules.wait } else { rules.silence() };
    match host.step {
        Step::Look => true,
        // With wrong stamps the time that the look itself takes counts as well.
        Step::Watch(_, units) => units >= watch || !rules.stamps,
        Step::Silent(_, units, _) => units >= silence,
        Step::Hold(..) => host.look > 0 || host.lease == 0,
        Step::Off | Step::Write(_) | Step::Work => false,
    }
}

fn time_may_pass(rules: Rules, state: &State) -> bool {
    let lands = |age: u8| age < rules.landing;
    state.loose.is_none_or(|(_, age)| lands(age))
        && state.hosts.iter().all(|host| {
            let flies = !matches!(host.io, Io::Flying(_, age) if !lands(age));
            let prompt = host.who != Who::Fsck || (host.io == Io::None && !may_look(rules, host));
            flies && prompt
        })
}

/// Each read under way may show what lands now, or not.
fn shown(state: &State) -> impl Iterator<Item = [bool; HOSTS]> {
    let reads: [bool; HOSTS] = std::array::from_fn(|at| matches!(state.hosts[at].io, Io::Read(_)));
    (0..1_u8 << HOSTS)
        .map(|bits| std::array::from_fn(|at| bits & 1 << at != 0))
        .filter(move |shown: &[bool; HOSTS]| (0..HOSTS).all(|at| reads[at] || !shown[at]))
}

pub(crate) fn after(rules: Rules, state: &State, what: Move) -> State {
    let mut next = state.clone();
    match what {
        Move::Time => pass(rules, &mut next),
        Move::Begin(at) => next.hosts[at].step = Step::Look,
        Move::Look(at) if next.hosts[at].is_lost() => next.hosts[at].lose(),
        Move::Look(at) => {
            next.hosts[at].look = 0;
            next.hosts[at].io = Io::Read(next.disk);
        }
        Move::Answer(at) => answer(rules, &mut next, at),
        Move::Land(at, shown) => {
            let Io::Flying(image, _) = next.hosts[at].io else { unreachable!("{what:?}") };
            next.hosts[at].io = Io::Landed(image);
            land(&mut next, image, shown);
        }
        Move::LandLoose(shown) => {
            let (image, _) = next.loose.take().expect("one is on its way");
            land(&mut next, image, shown);
        }
        Move::Crash(at) => {
            next.crashes -= 1;
            let host = &mut next.hosts[at];
            if let Io::Flying(image, age) = host.io {
                next.loose = Some((image, age));
            }
            host.lose();
            (host.uses, host.lease) = (0, 0);
        }
    }
    if rules.alike {
        next.sort_hosts();
    }
    next.renumber();
    next
}

fn pass(rules: Rules, state: &mut State) {
    for host in &mut state.hosts {
        let reads = matches!(host.io, Io::Read(_));
        let grown = |units: u8| (units + 1).min(rules.wait + 1);
        match &mut host.step {
            Step::Watch(_, units) if !reads || !rules.stamps => *units = grown(*units),
            Step::Silent(_, units, _) if !reads => *units = grown(*units),
            Step::Hold(_, Some((_, units))) if !reads => *units = grown(*units),
            _ => {}
        }
        let claims = matches!(host.step, Step::Look | Step::Watch(..));
        let waits = host.io == Io::None && !matches!(host.step, Step::Hold(..));
        host.look = if waits || host.step == Step::Off { 0 } else { grown(host.look) };
        host.stood = if claims || host.step == Step::Off { 0 } else { grown(host.stood) };
        if let Io::Flying(_, age) = &mut host.io {
            *age += 1;
        }
        host.lease = host.lease.saturating_sub(1);
        if host.step != Step::Work {
            host.uses = host.uses.saturating_sub(1);
        }
    }
    if let Some((_, age)) = &mut state.loose {
        *age += 1;
    }
}

fn land(state: &mut State, image: Image, shown: [bool; HOSTS]) {
    state.disk = image;
    for (host, shown) in state.hosts.iter_mut().zip(shown) {
        if let (Io::Read(_), true) = (host.io, shown) {
            host.io = Io::Read(image);
        }
    }
}

impl Host {
    fn is_lost(&self) -> bool {
        matches!(self.step, Step::Hold(..)) && self.lease == 0
    }

    /// Nothing more is written; the user is being stopped, or was never there.
    fn lose(&mut self) {
        (self.step, self.io, self.look, self.stood, self.lease) = (Step::Off, Io::None, 0, 0, 0);
    }
}

fn answer(rules: Rules, state: &mut State, at: usize) {
    let host = &mut state.hosts[at];
    let (io, step) = (std::mem::replace(&mut host.io, Io::None), host.step);
    if host.is_lost() {
        return host.lose();
    }
    match (io, step) {
        (Io::Read(seen), Step::Look) => match seen.kind {
            Kind::Clean => write(rules, state, at, Stage::Claim),
            Kind::Mark => host.lose(),
            _ => host.step = Step::Watch(seen, if rules.stamps { 0 } else { host.look }),
        },
        (Io::Read(seen), Step::Watch(base, units)) if seen == base => {
            let watch = if host.who == Who::Fsck { rules.wait } else { rules.watch() };
            if units >= watch {
                write(rules, state, at, Stage::Claim);
            }
        }
        (Io::Read(seen), Step::Watch(..)) if seen.kind == Kind::Clean => {
            write(rules, state, at, Stage::Claim);
        }
        (Io::Read(seen), Step::Silent(ours, _, stage)) if seen == ours => {
            write(rules, state, at, next_stage(rules, state.hosts[at].who, stage));
        }
        (Io::Read(_), Step::Watch(..) | Step::Silent(..)) => host.lose(),
        (Io::Read(seen), Step::Hold(ours, sight)) => hold(rules, state, at, (seen, ours, sight)),
        (Io::Landed(image), Step::Write(stage)) => wrote(rules, host, image, stage),
        (Io::Landed(image), Step::Hold(..)) => {
            host.step = Step::Hold(image, None);
            host.lease = lease(rules, host.look);
            host.uses = host.lease + rules.wait;
        }
        other => unreachable!("{other:?}"),
    }
}

fn next_stage(rules: Rules, who: Who, stage: Stage) -> Stage {
    match (who, stage) {
        (Who::Fsck, _) => Stage::Mark,
        (_, Stage::Claim) if rules.middle_beat => Stage::Middle,
        _ => Stage::Last,
    }
}

fn lease(rules: Rules, look: u8) -> u8 {
    if rules.lease_from_look { rules.wait.saturating_sub(look) } else { rules.wait }
}

fn hold(
    rules: Rules,
    state: &mut State,
    at: usize,
    (seen, ours, sight): (Image, Image, Option<(Image, u8)>),
) {
    let host = &mut state.hosts[at];
    match sight {
        _ if seen == ours => write(rules, state, at, Stage::Beat),
        _ if rules.area && seen.kind == Kind::Claim => write(rules, state, at, Stage::Beat),
        _ if seen.kind == Kind::Mark || seen.kind == Kind::Clean => host.lose(),
        // A holder who is seen twice: one of the two has to go.
        Some((before, _)) if seen != before && seen.kind == Kind::Beat => host.lose(),
        Some((before, units)) if seen == before && units < 1 && host.lease > rules.wait / 4 => {}
        None if host.lease > rules.wait / 4 => host.step = Step::Hold(ours, Some((seen, 0))),
        _ => write(rules, state, at, Stage::Beat),
    }
}

/// The clock is looked at, and the write goes out.
fn write(rules: Rules, state: &mut State, at: usize, stage: Stage) {
    let number = state.fresh(at);
    let host = &mut state.hosts[at];
    let ours = host.who == Who::Ours;
    if ours && stage != Stage::Beat && !rules.within_limit(host.look) {
        return too_slow(host);
    }
    let kind = match stage {
        Stage::Beat => Kind::Beat,
        Stage::Mark => Kind::Mark,
        Stage::Claim | Stage::Middle | Stage::Last => Kind::Claim,
    };
    let image = Image { host: u8::try_from(at).expect("there are few"), kind, number };
    host.io = Io::Flying(image, 0);
    if stage != Stage::Beat {
        host.step = Step::Write(stage);
    }
}

fn wrote(rules: Rules, host: &mut Host, image: Image, stage: Stage) {
    if host.who == Who::Ours && !rules.within_limit(host.look) {
        return too_slow(host);
    }
    let stood = std::mem::replace(&mut host.stood, host.look);
    match stage {
        Stage::Claim | Stage::Middle => host.step = Step::Silent(image, 0, stage),
        // What stood for as long as a peer watches may be claimed by right. The code asks whether it stood longer: to it, time
        // does not come in steps, and nothing takes none.
        Stage::Last if rules.middle_beat && stood >= rules.wait => too_slow(host),
        Stage::Last => {
            host.step = Step::Hold(image, None);
            host.lease = lease(rules, host.look);
            host.uses = host.lease + rules.wait;
        }
        Stage::Mark => (host.step, host.uses) = (Step::Work, 1),
        Stage::Beat => unreachable!("a beat is a holder's"),
    }
}

/// Everything from the start.
fn too_slow(host: &mut Host) {
    (host.step, host.look, host.stood) = (Step::Look, 0, 0);
}
