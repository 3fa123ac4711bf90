//! `tune2fs -f -E clear_mmp`: an administrator, on any host, writes clean over whatever stands there, unchecked. The struct
//! is zeroed and named anew, with the path that was typed (e2fsprogs 1.47, `ext2fs_mmp_reset`). It is a buffered write:
//! on a host whose kernel has the filesystem mounted it lands in `kmmpd`'s own buffer, which goes on with these names.
//!
//! Two uses: over the mark of an e2fsck that has died, where half of them are by a claim of ours instead that is told of the mark (S14 of
//! `docs/safety.md`); and over anything, at any time
//! (`Profile::Clears`). Then whoever takes clean for leave gets in beside a live user: counted apart, by name.

use std::rc::Rc;
use std::time::Duration;

use crate::protocol::medium::is_path;
use crate::protocol::{Loss, sequence, timing};
use mmpguard::format::{DeviceName, Image, NodeName};

use super::disk::Part;
use super::plan::{Kind, MILLISECOND, Profile, SECOND, log_uniform};
use super::world::{What, World, shown};

/// A buffered write is on the disk within this time.
const LANDING_NS: u64 = 20 * MILLISECOND;

/// A clear that was forced on whatever stood there.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Forced {
    at: u64,
    host: usize,
    /// Whose block it covered, and whether that was the mark of an e2fsck.
    over: NodeName,
    over_mark: bool,
    image: Image,
}

impl World {
    /// An e2fsck has died: somebody may find out, one day.
    pub(crate) fn plan_clear_of_mark(&mut self, host: usize) {
        if self.rng.f64() < self.plan.peers.marks_cleared {
            let span = log_uniform(&mut self.rng, 5 * SECOND, 120 * SECOND);
            self.after(span, host, What::Clear { dead_mark: true });
        }
    }

    /// The next one that is forced, whatever stands there.
    pub(crate) fn plan_clear(&mut self, host: usize) {
        if self.plan.profile == Profile::Clears {
            let wait_s = -self.rng.f64().max(1e-9).ln() / self.plan.peers.clears_per_s;
            self.after((wait_s * 1e9) as u64, host, What::Clear { dead_mark: false });
        }
    }

    pub(crate) fn clear(&mut self, host: usize, dead_mark: bool) {
        if !dead_mark {
            self.plan_clear(host);
        } else if self.mark_is_alive() || self.disk.block().seq != sequence::SEQ_FSCK {
            return;
        } else if self.rng.bool() {
            // `mmp clear`: by a claim, which may be long in coming. The mark may be another one's by then, who lives.
            self.answered = Some(**self.disk.image());
            return;
        }
        let names = (NodeName::new(&self.plan.hosts[host].node), DeviceName::new("/dev/sda"));
        let c = self.plan.filesystem.update_interval_s.max(5);
        let time_s = self.clock(host).wall.0;
        let mut image = [0; 1024];
        self.disk.encode(&mut image, sequence::SEQ_CLEAN, time_s, Some(names), Some(c));
        self.note(host, || format!("tune2fs: writes {}", shown(&image)));
        self.stats.fsck.clears += 1;
        if !dead_mark {
            let covered = self.disk.block();
            let over_mark = covered.seq == sequence::SEQ_FSCK;
            self.forced.push(Forced { at: self.now, host, over: covered.node, over_mark, image });
            self.hosts[host].cleared_at = self.now;
        }
        if self.hosts[host].kernel.has_the_buffer() {
            self.hosts[host].kernel.buffer = image;
        }
        let landing = log_uniform(&mut self.rng, 50_000, LANDING_NS);
        self.after(landing, host, What::Land(Rc::new(image), Part::Whole));
    }

    /// An e2fsck is at work, or about to be.
    pub(crate) fn mark_is_alive(&self) -> bool {
        (0..self.hosts.len()).any(|host| self.plan.hosts[host].kind == Kind::Fsck && self.is_marked_by(host))
    }

    /// A holder may take a forced clear for the end of a successor, and stops: if the administrator's wall clock is ahead of
    /// his, or if he has not seen his own block for a while, because of another clear or of a claimer who came over it.
    /// And a mount whose kernel writes what was typed on this very host, before its first beat was seen, is not known by
    /// its names.
    pub(crate) fn is_stopped_by_clear(&mut self, host: usize, loss: &Loss) -> bool {
        let Some(forced) = self.forced.last().copied() else { return false };
        let before = self.forced.iter().rev().nth(1).map(|forced| forced.at);
        let lately = self.now.saturating_sub(self.longest_wait_ns());
        let (plan, state, apart) = (&self.plan.hosts[host], &self.hosts[host], &mut self.stats.apart);
        match loss {
            Loss::NoKernelBeat if state.cleared_at > state.mounted.handed_at => apart.clear_in_mount += 1,
            Loss::ForeignClean { by } if is_path(&by.device) => {
                let own_s = plan.wall_skew_s + i64::from(self.plan.filesystem.update_interval_s.max(5));
                if self.plan.hosts[forced.host].wall_skew_s >= own_s {
                    apart.clear_ahead += 1;
                } else if forced.over != NodeName::new(&plan.node)
                    || before.is_some_and(|at| at >= lately)
                    || state.intruded_at > lately
                {
                    apart.cleared_again += 1;
                } else {
                    return false;
                }
            }
            _ => return false,
        }
        true
    }

    /// Two users at once, since a clear was forced: a mount that found that clean mark, an e2fsck that did, or a user whose
    /// e2fsck's mark it covered. A claimer of ours waits on clean as on everything, and whoever beats shows himself within that.
    pub(crate) fn is_by_clear(&mut self, one: usize, other: usize) -> bool {
        let later = if self.hosts[one].using_since >= self.hosts[other].using_since { one } else { other };
        let there = one + other - later;
        let is_forced = |found: &Option<Image>| {
            found.is_some_and(|found| self.forced.iter().any(|forced| forced.image == found))
        };
        // It waits by the superblock's interval alone, and a slow beater looks at it for longer.
        let interval = self.plan.hosts[there].interval.max(Duration::from_secs(self.kernel_interval_s()));
        let c = self.plan.filesystem.update_interval_s.max(timing::MIN_CHECK_INTERVAL_S);
        let looks_for = timing::foreign_look(interval) + timing::MAX_HOLD_LOOK;
        let slower = self.plan.hosts[later].kind == Kind::Fsck
            && looks_for >= timing::wait(c)
            && is_forced(&self.hosts[later].fsck.found_clean);
        let covered = self.plan.hosts[there].kind == Kind::Fsck
            && self.forced.iter().any(|forced| {
                forced.over_mark
                    && forced.at + LANDING_NS >= self.hosts[there].using_since
                    && forced.at < self.hosts[later].using_since
            });
        let mounts = self.mounts(later) && is_forced(&self.hosts[later].kernel.found_clean);
        let excused = slower || mounts || covered;
        self.stats.apart.forced_clear += u64::from(excused);
        excused
    }
}
