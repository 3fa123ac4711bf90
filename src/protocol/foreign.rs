//! A live foreign block over our beat: claimer or holder? On a native medium only time tells. A claimer writes once and
//! stands still (every write of his is a jump); a holder counts by one.
//!
//! Protects a live holder from being stopped by claimers, however many and however often, and stops one of two
//! holders. Does not undo what both wrote before they found each other.
//!
//! Why a look may last: a claimer writes three times, half a wait apart, and needs the second half in silence. We look
//! oftener than that (`timing::MAX_HOLD_LOOK`) and beat over his second jump at once, whatever his check interval and
//! ours; and before three quarters of our own lease are over in any case. Another holder is looked at for no longer than that.

use std::time::Duration;

use super::event::{Event, LoserRule, Loss, Peer};
use super::guard::Context;
use super::medium::{Owner, stamp_ahead, stamp_behind};
use super::sequence::{COUNTING_REACH, steps};
use super::timing::{self, CheckInterval};
use crate::clock::{Mono, Now};
use crate::format::{Image, MmpBlock};

/// Whose block was watched standing still before we took over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Predecessor {
    pub(super) owner: Owner,
    /// The sequence that stood there.
    stood_at: u32,
}

impl Predecessor {
    pub(super) fn of(block: &MmpBlock) -> Self {
        Predecessor { owner: Owner::of(block), stood_at: block.seq }
    }

    /// He counts on from where he stood, under whatever names: a kernel that slept re-reads the block into the very buffer that
    /// it goes on with (`kmmpd` before Linux 5.10), and beats under the names of whoever took over.
    pub(super) fn goes_on(&self, block: &MmpBlock) -> bool {
        matches!(steps(self.stood_at, block.seq, COUNTING_REACH), Some(1..))
    }
}

/// Whose clean mark may still be a losing kernel's last word: the predecessor's, as long as it is waited for.
pub(super) fn expected(predecessor: Option<Predecessor>, waited_for: bool) -> Option<Owner> {
    predecessor.filter(|_| waited_for).map(|predecessor| predecessor.owner)
}

/// What the look at a foreign block came to.
pub(super) enum Ruling {
    /// Not decided yet.
    LookOn,
    /// It stood still: beat over it. Names the claimer, if the block could be read.
    BeatOver(Option<Peer>),
    /// Another holder, and he is the one to stop: beat over him, so that he sees us. Names him once.
    Contend(Option<Peer>),
    /// We stop.
    WeLose(Loss),
}

/// What we saw of others while holding.
#[derive(Clone, Debug, Default)]
pub(super) struct Foreign {
    /// The block under our eyes, while there is one.
    current: Option<Box<Sight>>,
    /// The last one, and when it was first seen: a slow beater is known by it when he comes again.
    last: Option<(MmpBlock, Mono)>,
    /// He counts, we are both awake, and he is the one to stop.
    contest: Option<Contest>,
}

#[derive(Clone, Copy, Debug)]
struct Sight {
    image: Image,
    /// End of the first look that saw these bytes.
    since: Mono,
}

#[derive(Clone, Copy, Debug)]
struct Contest {
    with: Owner,
    /// If he counts on then, he does not look, or thinks the same of us: we stop.
    give_up_at: Mono,
    /// When he was last seen to count. What comes long after is another story.
    counted_at: Mono,
}

/// A look at a foreign block, and what we know of ourselves.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sighted<'a> {
    /// When the look began.
    pub(super) started: Mono,
    pub(super) image: &'a Image,
    /// When we must have decided, to beat within the lease.
    pub(super) latest: Mono,
    /// Our beats had a gap longer than the check interval.
    pub(super) slept: bool,
    /// Whose block we watched standing still before we took over.
    pub(super) predecessor: Option<Predecessor>,
    /// The local kernel beats, whatever we do: he has seen that for as long as we have seen him.
    pub(super) kernel_beats: bool,
}

impl Sighted<'_> {
    /// Whether a gap between looks, last seen at `gap`, is recent enough to say that we slept.
    pub(super) fn slept(gap: Option<Mono>, now: Mono) -> bool {
        gap.is_some_and(|at| now.since(at) <= timing::wait(timing::MAX_CHECK_INTERVAL_S))
    }
}

/// What is told when a block is beaten over: of the claimer, or of damage.
pub(super) fn beaten_over(by: Option<Peer>) -> Event {
    by.map_or(Event::Repaired, |by| Event::Intruder { by })
}

impl Foreign {
    /// Our own block stands again.
    pub(super) fn gone(&mut self) {
        self.current = None;
    }

    /// Looks at a foreign block once more.
    pub(super) fn rule(&mut self, now: Now, sighted: &Sighted<'_>, context: &Context) -> Ruling {
        let &Sighted { started, image, latest, .. } = sighted;
        let block = context.medium.decode(image).ok();
        let changed = self.current.as_ref().is_none_or(|sight| sight.image != *image);
        if changed {
            let before = self.current.as_ref().and_then(|sight| context.medium.decode(&sight.image).ok());
            let counts = block.zip(self.last).is_some_and(|(new, (last, _))| counted(&last, &new));
            // Whom we have beaten over may have decided on his next write before he could see that.
            let again = block.zip(self.last).is_some_and(|(new, (last, seen))| {
                let c = context.medium.taker_check_of(last.check_interval_s);
                jumped_again(&last, &new, now.mono.since(seen), c)
            });
            self.current = Some(Box::new(Sight { image: *image, since: now.mono }));
            self.last = block.map(|block| (block, now.mono)).or(self.last);
            if let (true, Some(block)) = (counts, block) {
                return self.contest(now, &block, sighted, context);
            }
            if let (true, Some(block)) = ((before.is_some() || again) && !broken!(SecondJumpWaits), block) {
                // A second jump: a claimer's middle beat, or another claimer. Half a wait later he would be in.
                self.current = None;
                return Ruling::BeatOver(Some(Peer::from(&block)));
            }
        }
        let since = self.current.as_ref().map_or(now.mono, |sight| sight.since);
        let peer_check_interval_s = block.map_or(0, |block| block.check_interval_s);
        let window = timing::foreign_look(longest(peer_check_interval_s, context));
        let still_for = started.since(since);
        if still_for >= window || now.mono >= latest {
            self.current = None;
            return Ruling::BeatOver(block.map(|block| Peer::from(&block)));
        }
        Ruling::LookOn
    }

    /// He counts: one of us has to stop.
    fn contest(&mut self, now: Now, block: &MmpBlock, sighted: &Sighted<'_>, context: &Context) -> Ruling {
        let by = Peer::from(block);
        let lose = |because| Ruling::WeLose(Loss::Stolen { by, because });
        let tolerance_s = context.medium.stamp_tolerance_s();
        if sighted.slept {
            return lose(LoserRule::Slept);
        }
        if stamp_ahead(block, now.wall, tolerance_s) {
            return lose(LoserRule::ClockStoodStill);
        }
        let ours = context.medium.owner();
        let his = Owner::of(block);
        // Whom we took over from is the one that slept: we saw his block stand still for a wait and more. So is he whose clock stood
        // still, by his stamp. He has his time to stop, whatever the names.
        let predecessors = sighted.predecessor.is_some_and(|predecessor| match ours == his {
            true => predecessor.goes_on(block) && !broken!(TakenNamesAreATwins),
            false => predecessor.owner == his,
        });
        let excepted = predecessors || stamp_behind(block, now.wall, tolerance_s);
        if ours == his && !excepted {
            return lose(LoserRule::EqualNames);
        }
        if ours < his && !excepted {
            return lose(LoserRule::LowerName);
        }
        let longest = longest(block.check_interval_s, context);
        let span = if sighted.kernel_beats { longest } else { timing::contest(longest) };
        // Against whom we took over from we can wait for longer than he can: he slept, and he may not know it.
        let patience = if excepted { span * 2 } else { span };
        // Several of his beats in a row may be covered by ours.
        let lately = timing::contest(longest) * 4;
        let running = self
            .contest
            .filter(|contest| contest.with == his && now.mono.since(contest.counted_at) <= lately);
        let give_up_at = running.map_or(now.mono + patience, |contest| contest.give_up_at);
        let contest = Contest { with: his, give_up_at, counted_at: now.mono };
        self.contest = Some(contest);
        if now.mono >= contest.give_up_at && !broken!(NeverStops) {
            return lose(LoserRule::OtherDidNotStop);
        }
        self.current = None;
        Ruling::Contend(running.is_none().then_some(by))
    }
}

fn longest(peer_check_interval_s: u16, context: &Context) -> Duration {
    context.medium.longest_interval(context.options.interval, peer_check_interval_s)
}

/// Whom we have beaten over is silent for half of his wait after each of his writes, by the larger of his check interval and
/// the superblock's: what comes within such a wait is his next.
fn jumped_again(last: &MmpBlock, new: &MmpBlock, since: Duration, c: CheckInterval) -> bool {
    Owner::of(last) == Owner::of(new) && last.seq != new.seq && since <= c.wait()
}

/// The same names, and a few beats on.
fn counted(last: &MmpBlock, new: &MmpBlock) -> bool {
    Owner::of(last) == Owner::of(new) && matches!(steps(last.seq, new.seq, COUNTING_REACH), Some(1..))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::{DeviceName, NodeName};

    fn block(node: &str, seq: u32) -> MmpBlock {
        let (node, device) = (NodeName::new(node), DeviceName::new("sda"));
        MmpBlock { seq, time_s: 0, node, device, check_interval_s: 5 }
    }

    #[test]
    fn a_jump_of_the_same_one_within_a_wait_is_his_next() {
        let (last, soon) = (block("alpha", 77), Duration::from_secs(11));
        let c = CheckInterval::Native(5);
        assert!(jumped_again(&last, &block("alpha", 0x100_0000), soon, c));
        assert!(!jumped_again(&last, &block("alpha", 0x100_0000), soon + Duration::from_millis(1), c));
        assert!(!jumped_again(&last, &block("alpha", 77), soon, c));
        assert!(!jumped_again(&last, &block("zulu", 0x100_0000), soon, c));
    }

    #[test]
    fn a_few_beats_on_under_the_same_names_is_a_count() {
        let last = block("alpha", 77);
        assert!(counted(&last, &block("alpha", 78)) && counted(&last, &block("alpha", 77 + COUNTING_REACH)));
        for other in
            [block("alpha", 77), block("alpha", 78 + COUNTING_REACH), block("alpha", 76), block("zulu", 78)]
        {
            assert!(!counted(&last, &other), "{other:?}");
        }
    }
}
