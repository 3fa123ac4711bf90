//! Three hosts and one block, with the protocol as a small table of its own: what `protocol` says in its module doc, written down
//! once more with nothing but its rules, so that three hosts fit, and so that each rule can be left out.
//!
//! Checks the rules, not the code: `ours` runs the code. Everything may be late by any time whatever, as often as it likes:
//! reads show what stood there at any time between question and answer, writes land up to a bound after they went out,
//! answers are handled whenever. Left out: errors of I/O, different check intervals, the clean mark after a use.

use std::array;

/// Hosts in the table; one that a configuration does not need stays off.
pub(crate) const HOSTS: usize = 3;

/// The rules. Each may be left out.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules {
    /// W in units, a multiple of two; the lease is as long.
    pub(crate) wait: u8,
    /// For so many units a write may be on its way.
    pub(crate) landing: u8,
    /// A write of a claim counts only within a quarter of a wait from its look.
    pub(crate) limit: bool,
    /// The lease runs from the look before the write, not from its acknowledgement.
    pub(crate) lease_from_look: bool,
    /// A watch counts from the end of the first look to the start of the last one.
    pub(crate) stamps: bool,
    /// A claim beats once in the middle of its silence.
    pub(crate) middle_beat: bool,
    /// A watch of a block that is not clean is longer than a wait, by one unit.
    pub(crate) margin: bool,
    /// In an area there is no margin, and a claim is known for one by one look: it is beaten over at once.
    pub(crate) area: bool,
    /// Not a rule: which host is which does not matter. Keeps fewer states, and ways that no longer say who is who.
    pub(crate) alike: bool,
}

impl Rules {
    pub(crate) const fn all(wait: u8) -> Self {
        Rules {
            wait,
            landing: wait,
            limit: true,
            lease_from_look: true,
            stamps: true,
            middle_beat: true,
            margin: true,
            area: false,
            alike: false,
        }
    }

    /// The rule that is not there.
    pub(crate) fn left_out(self) -> &'static str {
        match self {
            Rules { limit: false, .. } => "the limit",
            Rules { lease_from_look: false, .. } => "the lease from the look",
            Rules { stamps: false, .. } => "the stamps",
            Rules { middle_beat: false, .. } => "the middle beat",
            Rules { margin: false, .. } => "the margin",
            _ => "",
        }
    }

    pub(crate) fn watch(self) -> u8 {
        self.wait + u8::from(self.margin && !self.area)
    }

    pub(crate) fn silence(self) -> u8 {
        if self.middle_beat { self.wait / 2 } else { self.wait }
    }

    pub(crate) fn within_limit(self, took: u8) -> bool {
        !self.limit || took <= self.wait / 4
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Kind {
    Clean,
    /// What one wrote who died before.
    Dead,
    Claim,
    Beat,
    /// e2fsck's.
    Mark,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Image {
    pub(crate) host: u8,
    pub(crate) kind: Kind,
    /// Tells the writes of one host from each other; no order is meant by it.
    pub(crate) number: u8,
}

impl std::fmt::Debug for Image {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.kind {
            Kind::Clean => f.write_str("clean"),
            Kind::Dead => f.write_str("one who died"),
            kind => write!(f, "{}'s {kind:?} #{}", name(self.host.into()), self.number),
        }
    }
}

pub(crate) fn name(at: usize) -> &'static str {
    ["alpha", "beta", "gamma"][at]
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Step {
    Off,
    /// The first look.
    Look,
    /// Units since the end of the look that saw it first, up to the start of the look under way.
    Watch(Image, u8),
    Write(Stage),
    /// Units since the acknowledgement.
    Silent(Image, u8, Stage),
    /// What it wrote last, and what foreign was seen over it for so many units.
    Hold(Image, Option<(Image, u8)>),
    /// An e2fsck at work: it neither looks nor writes.
    Work,
}

/// Which write of a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Stage {
    Claim,
    Middle,
    Last,
    /// A holder's.
    Beat,
    /// e2fsck's last one.
    Mark,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Io {
    None,
    /// What it sampled.
    Read(Image),
    /// On its way for so many units.
    Flying(Image, u8),
    Landed(Image),
}

/// Who a host is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Who {
    Nobody,
    Ours,
    /// e2fsprogs: waits a wait, writes, waits a wait, marks, and works; prompt in all of it.
    Fsck,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Host {
    pub(crate) who: Who,
    pub(crate) step: Step,
    pub(crate) io: Io,
    /// Units since its last look began, not told apart beyond a lease.
    pub(crate) look: u8,
    /// Units since the look before the write that stands in its silence.
    pub(crate) stood: u8,
    /// Units until its lease ends.
    pub(crate) lease: u8,
    /// Units until its user has stopped.
    pub(crate) uses: u8,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct State {
    pub(crate) hosts: [Host; HOSTS],
    pub(crate) disk: Image,
    /// The write of one that crashed, on its way for so many units.
    pub(crate) loose: Option<(Image, u8)>,
    pub(crate) crashes: u8,
}

impl State {
    pub(crate) fn first(who: [Who; HOSTS], clean: bool, crashes: u8) -> Self {
        let hosts =
            who.map(|who| Host { who, step: Step::Off, io: Io::None, look: 0, stood: 0, lease: 0, uses: 0 });
        let kind = if clean { Kind::Clean } else { Kind::Dead };
        State { hosts, disk: Image { host: 0, kind, number: 0 }, loose: None, crashes }
    }

    /// Every image there is in it.
    fn images(&mut self) -> Vec<&mut Image> {
        let mut all = vec![&mut self.disk];
        all.extend(self.loose.as_mut().map(|(image, _)| image));
        for host in &mut self.hosts {
            match &mut host.io {
                Io::None => {}
                Io::Read(image) | Io::Flying(image, _) | Io::Landed(image) => all.push(image),
            }
            match &mut host.step {
                Step::Watch(image, _) | Step::Silent(image, ..) | Step::Hold(image, None) => all.push(image),
                Step::Hold(image, Some((foreign, _))) => all.extend([image, foreign]),
                Step::Off | Step::Look | Step::Write(_) | Step::Work => {}
            }
        }
        all
    }

    /// A number that no image of the host has.
    pub(crate) fn fresh(&mut self, at: usize) -> u8 {
        let at = u8::try_from(at).expect("there are few");
        let used: Vec<u8> =
            self.images().iter().filter(|image| image.host == at).map(|image| image.number).collect();
        (1..).find(|number| !used.contains(number)).expect("there are few images")
    }

    /// Numbers in the order in which they are met: states that differ in nothing else are the same.
    pub(crate) fn renumber(&mut self) {
        let mut met: [Vec<u8>; HOSTS] = array::from_fn(|_| Vec::new());
        for image in self.images() {
            if matches!(image.kind, Kind::Clean | Kind::Dead) {
                continue;
            }
            let met = &mut met[usize::from(image.host)];
            let place = met.iter().position(|&number| number == image.number).unwrap_or_else(|| {
                met.push(image.number);
                met.len() - 1
            });
            image.number = u8::try_from(place + 1).expect("there are few images");
        }
    }

    /// Which host is which does not matter: a state that differs in that alone is the same. Hosts alike but for their images
    /// stay as they are, so some states are kept twice.
    pub(crate) fn sort_hosts(&mut self) {
        let mut order: [usize; HOSTS] = array::from_fn(|at| at);
        order.sort_by_key(|&at| self.hosts[at].rank());
        if order.is_sorted() {
            return;
        }
        for image in self.images() {
            if !matches!(image.kind, Kind::Clean | Kind::Dead) {
                let place = order.iter().position(|&at| at == usize::from(image.host)).unwrap_or(0);
                image.host = u8::try_from(place).expect("there are few");
            }
        }
        let hosts = order.map(|at| self.hosts[at].clone());
        self.hosts = hosts;
    }
}

impl Host {
    /// All of it but the images.
    fn rank(&self) -> impl Ord {
        let step = match self.step {
            Step::Off => (0, 0, 0),
            Step::Look => (1, 0, 0),
            Step::Watch(_, units) => (2, units, 0),
            Step::Write(stage) => (3, stage as u8, 0),
            Step::Silent(_, units, stage) => (4, units, stage as u8),
            Step::Hold(_, None) => (5, 0, 0),
            Step::Hold(_, Some((_, units))) => (6, units, 0),
            Step::Work => (7, 0, 0),
        };
        let io = match self.io {
            Io::None => (0, 0),
            Io::Read(_) => (1, 0),
            Io::Flying(_, age) => (2, age),
            Io::Landed(_) => (3, 0),
        };
        (self.who as u8, step, io, self.look, self.stood, self.lease, self.uses)
    }
}
