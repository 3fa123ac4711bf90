//! A block that does not decode: read again first; in an area watched, if a torn write can have left it; natively only if the one who
//! asks answers for these very bytes.
//!
//! Protects: nothing is claimed over what is no block of ours any more, unless somebody says so. Does not repair: a claim over a damaged
//! block writes it anew.

use super::super::event::Refusal;
use super::super::guard::Context;
use super::super::timing;
use super::{Claim, Progress, Step, refuse};
use crate::clock::Now;
use crate::format::{Damage, Image};

impl Claim {
    pub(super) fn reread(
        &mut self,
        now: Now,
        image: Image,
        damage: Damage,
        context: &mut Context,
    ) -> Progress {
        self.undecoded += 1;
        self.credit = None;
        if matches!(self.step, Step::Drawn { .. }) {
            // What was claimed over is not known to have stood all the while.
            self.step = Step::Look;
        }
        let claimable = self.is_answered_for(&image) || context.medium.claims_damaged(&damage);
        if self.undecoded > timing::TORN_REREADS && claimable {
            return self.watch_damaged(now, image, context);
        }
        if self.undecoded > timing::TORN_REREADS {
            return refuse(Refusal::Damaged { damage }, context);
        }
        self.look_at(now.mono + timing::TORN_PAUSE);
        Progress::Going
    }
}
