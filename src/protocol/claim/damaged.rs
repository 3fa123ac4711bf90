//! A block that does not decode: read again first; in an area watched, if a torn write can have left it.
//!
//! Protects: nothing is claimed over what is no block of ours any more. Does not repair: a claim over a torn block writes it anew.

use super::super::event::{Event, Peer, Refusal};
use super::super::guard::Context;
use super::super::timing;
use super::{Claim, Progress, Step, Watch, refuse};
use crate::clock::Now;
use crate::format::{Damage, Image, MmpBlock};

impl Claim {
    pub(super) fn reread(
        &mut self,
        now: Now,
        image: Image,
        damage: Damage,
        context: &mut Context,
    ) -> Progress {
        self.undecoded += 1;
        if self.undecoded > timing::TORN_REREADS && context.medium.claims_damaged(&damage) {
            return self.watch_damaged(now, image, context);
        }
        if self.undecoded > timing::TORN_REREADS {
            return refuse(Refusal::Damaged { damage }, context);
        }
        self.look_at(now.mono + timing::TORN_PAUSE);
        Progress::Going
    }

    /// Of an area.
    fn watch_damaged(&mut self, now: Now, base: Image, context: &mut Context) -> Progress {
        self.undecoded = 0;
        self.written = false;
        let need = self.watch_of(self.check(&base, context).wait() * 2, context);
        let of = Peer::from(&MmpBlock::fields(&base));
        context.event(Event::Watching { of, until: now.mono + need, total: need });
        self.watch_from(now, Watch { base, since: now.mono, need, began: now.mono }, context)
    }

    /// What is watched still stands: also if it is damaged.
    pub(super) fn stands(&self, image: &Image) -> bool {
        matches!(&self.step, Step::Watch(watch) if watch.base == *image)
    }
}
