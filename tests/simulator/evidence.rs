//! What is remembered so that a history is counted apart only for the reason that stands in the opening of `mod`, and for no other:
//! which clean marks stood over a user, who found which of them, which stamps looked old, which late write covered whom.
//! Bytes are compared: an exception that cannot show the very block it rests on is none.

use std::rc::Rc;

use crate::protocol::{Mode, Sequence};
use mmpguard::format::{Image, MmpBlock, NodeName};

use super::host::is_clean;
use super::plan::Kind;
use super::world::World;

/// Of one host.
#[derive(Default)]
pub(crate) struct Evidence {
    /// Clean marks that its kernel left over what is mounted, or that its guard handed over under, and when.
    marks: Vec<(u64, Image)>,
    /// What its guard wrote last, and the last clean mark of that.
    written: Option<Image>,
    guards_clean: Option<(u64, Image)>,
    /// The last clean mark that its guard began to write after the end of its time.
    late_mark: Option<Image>,
    /// The claim under way began on this clean mark.
    found: Option<Rc<Image>>,
    /// The claim under way took the live block that it found for a dead one's, by its stamp.
    old_stamp: bool,
    /// The next clean mark of its guard takes a claim back.
    takes_back: bool,
    /// The mark that did, and the one that the claim had begun on.
    took_back: Option<(Image, Option<Rc<Image>>)>,
}

/// A stale block with a smaller check interval that covered the block of a user.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LateWrite {
    at: u64,
    covered: usize,
    /// A clean mark stops whoever it covers; anything else he beats over, unless he has a fault, too.
    clean: Option<Image>,
}

impl World {
    /// A guard begins, and with it a claim.
    pub(crate) fn forget_claim(&mut self, host: usize) {
        let evidence = &mut self.hosts[host].evidence;
        (evidence.found, evidence.guards_clean) = (None, None);
        (evidence.old_stamp, evidence.takes_back) = (false, false);
        let using = self.hosts[host].using;
        if !using {
            self.hosts[host].evidence.marks.clear();
        }
    }

    /// What the guard's claim is shown.
    pub(crate) fn note_look(&mut self, host: usize, sample: &Rc<Image>) {
        if self.mode(host) != Some(Mode::Claiming) {
            return;
        }
        let block = MmpBlock::fields(sample);
        let wall_s = self.clock(host).wall.0;
        let evidence = &mut self.hosts[host].evidence;
        let own = evidence.written.as_ref() == Some(&**sample);
        if is_clean(sample) {
            evidence.found = Some(Rc::clone(sample));
        } else if !own {
            evidence.found = None;
        }
        if matches!(Sequence::from(block.seq), Sequence::Live(_)) && !own {
            evidence.old_stamp = block.time_s.saturating_add(block.check_interval_s.into()) < wall_s;
        }
    }

    /// What the guard writes.
    pub(crate) fn note_written(&mut self, host: usize, image: &Image) {
        let now = self.now;
        let evidence = &mut self.hosts[host].evidence;
        evidence.written = Some(*image);
        if is_clean(image) {
            evidence.guards_clean = Some((now, *image));
            if std::mem::take(&mut evidence.takes_back) {
                evidence.took_back = Some((*image, evidence.found.clone()));
            }
        }
    }

    /// A clean mark goes out after its time.
    pub(crate) fn note_late_mark(&mut self, host: usize, image: &Image) {
        self.hosts[host].evidence.late_mark = Some(*image);
    }

    /// What `victim` saw last is such a mark of somebody else's.
    pub(crate) fn is_stopped_by_late_mark(&self, victim: usize) -> bool {
        let seen = self.hosts[victim].last_read.as_deref();
        let late = |host: usize| self.hosts[host].evidence.late_mark.as_ref();
        seen.is_some() && (0..self.hosts.len()).any(|host| host != victim && late(host) == seen)
    }

    /// The guard goes on with its own claim, since nothing was mounted: it will mark the block clean.
    pub(crate) fn note_taking_back(&mut self, host: usize) {
        self.hosts[host].evidence.takes_back = true;
    }

    /// The guard has handed over, under its mark if it wrote one.
    pub(crate) fn note_hand_over(&mut self, host: usize) {
        let now = self.now;
        let evidence = &mut self.hosts[host].evidence;
        let mark = evidence.guards_clean.take();
        evidence.marks.extend(mark.map(|(_, mark)| (now, mark)));
    }

    /// The kernel marks the block clean, and what it has mounted is in use still.
    pub(crate) fn note_kernels_clean(&mut self, host: usize, image: &Image) {
        let state = &mut self.hosts[host];
        if state.using {
            state.evidence.marks.push((self.now, *image));
        }
    }

    /// When that host's mark was written, if this is one of its own over a user.
    fn marked_at(&self, host: usize, found: Option<&Image>) -> Option<u64> {
        let state = &self.hosts[host];
        // It may be found before its guard has the answer, and knows that it has handed over.
        let under_way = state.evidence.guards_clean.as_ref().filter(|_| state.using);
        let mut marks = state.evidence.marks.iter().chain(under_way).rev();
        found.and_then(|found| marks.find(|(_, mark)| mark == found)).map(|&(at, _)| at)
    }

    /// The mark of that host's which the kernel of `comer` took for leave to mount at once.
    pub(crate) fn kernel_found_mark_of(&self, comer: usize, there: usize) -> bool {
        self.marked_at(there, self.hosts[comer].kernel.found_clean.as_ref()).is_some()
    }

    /// `comer` began on a mark of that host's, and that had a fault of its own after it.
    pub(crate) fn came_on_mark_before_fault(&self, comer: usize, there: usize) -> bool {
        let by_guard = self.hosts[comer].evidence.found.as_deref();
        let by_kernel = self.hosts[comer].kernel.found_clean.as_ref();
        let marked_at =
            [by_guard, by_kernel].into_iter().filter_map(|found| self.marked_at(there, found)).max();
        marked_at.is_some_and(|at| self.hosts[there].fault_until >= at)
    }

    /// The claim of a host began on a clean mark.
    pub(crate) fn began_on_clean(&self, host: usize) -> bool {
        self.hosts[host].evidence.found.is_some()
    }

    /// The claim or the mount of `comer` began on this clean mark.
    fn began_on(&self, comer: usize, mark: &Image) -> bool {
        let host = &self.hosts[comer];
        host.evidence.found.as_deref() == Some(mark) || host.kernel.found_clean.as_ref() == Some(mark)
    }

    pub(crate) fn came_on_old_stamp(&self, comer: usize) -> bool {
        self.hosts[comer].evidence.old_stamp
    }

    /// What `victim` saw last is the mark with which somebody took a claim back, that had begun on a mark of the victim's kernel.
    pub(crate) fn is_taken_back(&self, victim: usize) -> bool {
        let seen = self.hosts[victim].last_read.as_deref();
        (0..self.hosts.len()).filter(|&host| host != victim).any(|host| {
            self.hosts[host].evidence.took_back.as_ref().is_some_and(|(mark, found)| {
                seen == Some(mark) && self.marked_at(victim, found.as_deref()).is_some()
            })
        })
    }

    /// A write that its host began after its time covers the block of somebody who uses the device.
    pub(crate) fn note_late_write(&mut self, host: usize, image: &Image) {
        let node = self.disk.block().node;
        let covered = (0..self.hosts.len()).find(|&other| {
            other != host && self.hosts[other].using && NodeName::new(&self.plan.hosts[other].node) == node
        });
        self.late_writes.extend(covered.map(|covered| LateWrite {
            at: self.now,
            covered,
            clean: is_clean(image).then_some(*image),
        }));
    }

    /// One of them was covered so, by a clean mark or with a fault of its own, and the other one came by
    /// what it left, within two waits.
    pub(crate) fn is_by_late_write(&self, one: usize, other: usize) -> bool {
        [(one, other), (other, one)].into_iter().any(|(there, comer)| {
            self.late_writes.iter().any(|late| {
                late.covered == there
                    && self.hosts[there].using_since <= late.at
                    && late
                        .clean
                        .map_or(self.hosts[there].fault_until >= late.at, |mark| self.began_on(comer, &mark))
                    && (late.at..late.at + 2 * self.longest_wait_ns())
                        .contains(&self.hosts[comer].using_since)
            })
        })
    }

    /// Of two hosts one mounts through the kernel, whether or not a guard looks on.
    pub(crate) fn mounts(&self, host: usize) -> bool {
        matches!(self.plan.hosts[host].kind, Kind::Kernel | Kind::Mounted)
    }
}
