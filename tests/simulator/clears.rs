//! `tune2fs -f -E clear_mmp`: an administrator, on any host, writes clean over whatever stands there, unchecked. The struct
//! is zeroed and named anew, with the path that was typed (e2fsprogs 1.47, `ext2fs_mmp_reset`). It is a buffered write:
//! on a host whose kernel has the filesystem mounted it lands in `kmmpd`'s own buffer, which goes on with these names.
//!
//! Two uses: over the mark of an e2fsck that has died, which is the only way on; and over anything, at any time
//! (`Profile::Clears`). Then whoever takes clean for leave gets in beside a live user: counted apart, by name.

use std::rc::Rc;

use crate::protocol::medium::is_path;
use crate::protocol::{Loss, sequence};
use mmpguard::format::{DeviceName, NodeName};

use super::disk::Part;
use super::plan::{Kind, MILLISECOND, Profile, SECOND, log_uniform};
use super::world::{What, World, shown};

impl World {
    /// An e2fsck has died: somebody may find out, one day.
    pub(crate) fn plan_clear_of_mark(&mut self, host: usize) {
        if self.rng.f64() < self.plan.marks_cleared {
            let span = log_uniform(&mut self.rng, 5 * SECOND, 120 * SECOND);
            self.after(span, host, What::Clear { dead_mark: true });
        }
    }

    /// The next one that is forced, whatever stands there.
    pub(crate) fn plan_clear(&mut self, host: usize) {
        if self.plan.profile == Profile::Clears {
            let wait_s = -self.rng.f64().max(1e-9).ln() / self.plan.clears_per_s;
            self.after((wait_s * 1e9) as u64, host, What::Clear { dead_mark: false });
        }
    }

    pub(crate) fn clear(&mut self, host: usize, dead_mark: bool) {
        if !dead_mark {
            self.plan_clear(host);
        } else if self.mark_is_alive() || self.disk.block().seq != sequence::SEQ_FSCK {
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
            self.forced_clears.push(self.now);
        }
        if self.hosts[host].kernel.has_the_buffer() {
            self.hosts[host].kernel.buffer = image;
        }
        let landing = log_uniform(&mut self.rng, 50_000, 20 * MILLISECOND);
        self.after(landing, host, What::Land(Rc::new(image), Part::Whole));
    }

    /// An e2fsck is at work, or about to be.
    pub(crate) fn mark_is_alive(&self) -> bool {
        (0..self.hosts.len()).any(|host| self.plan.hosts[host].kind == Kind::Fsck && self.is_marked_by(host))
    }

    /// A holder may take a forced clear for the end of a successor, and stops: if the administrator's wall clock is ahead of
    /// his, or if he has been looking at a claimer for a while who came over a clear before this one.
    pub(crate) fn is_stopped_by_clear(&mut self, host: usize, loss: &Loss) -> bool {
        let Loss::ForeignClean { by } = loss else { return false };
        if !is_path(&by.device) {
            return false;
        }
        let wall_s = self.clock(host).wall.0;
        let lately = self.now.saturating_sub(self.longest_wait_ns());
        let ahead = by.last_update.0 > wall_s + 5;
        let again = self.forced_clears.iter().filter(|&&at| at >= lately).count() > 1;
        self.stats.apart.clear_ahead += u64::from(ahead);
        self.stats.apart.cleared_again += u64::from(again && !ahead);
        ahead || again
    }

    /// Two users at once, since a clear was forced: a mount that found the clean mark, or a user who never beats.
    /// A claimer of ours waits on clean as on everything, and whoever beats shows himself within that.
    pub(crate) fn is_by_clear(&mut self, one: usize, other: usize) -> bool {
        if self.forced_clears.is_empty() {
            return false;
        }
        let later = if self.hosts[one].using_since >= self.hosts[other].using_since { one } else { other };
        let there = one + other - later;
        let mounts = matches!(self.plan.hosts[later].kind, Kind::Kernel | Kind::Mounted);
        let excused =
            (mounts && self.hosts[later].kernel.on_clean) || self.plan.hosts[there].kind == Kind::Fsck;
        self.stats.apart.forced_clear += u64::from(excused);
        excused
    }
}
