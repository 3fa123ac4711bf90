//! Claim, hold and release: the rules by which no two hosts use a device at once, as sans-IO machines.
//!
//! [`Guard`] is the machine; `claim`, `hold`, `watch` and `foreign` are its parts; [`medium`] says what a block means,
//! [`timing`] has every formula. A device that the local kernel has mounted, and beats itself, is `watch`'s business; its
//! argument (W1 to W6) stands there and rests on this one. This is the safety argument. It is written to be attacked: each step names what it
//! rests on, and where it ends.
//!
//! # What is protected, and what is not
//! *Exclusion*: between [`Event::Held`] and the end of the lease, no other host that keeps these rules, Linux's, or
//! e2fsprogs', uses the device. *Liveness*: without faults somebody gets in, within [`timing::Consequences`].
//! The protocol says when protection ends ([`Event::Lost`], and the lease's end before it); stopping the user is the
//! keeper's work, and has one wait to be done in.
//!
//! # Terms
//! A *look* reads the block; it starts when the machine asks and ends when it handles the answer, so it is never
//! taken for shorter than it was. A *write* may land at any time from its submission on, also long after an error.
//! C is the check interval, in the block. W = `wait(C)` is what a taker waits, `lease(C) <= W` what a holder relies on.
//! Clocks are `CLOCK_BOOTTIME`; they run at the same speed everywhere, and need not agree.
//!
//! # Assumptions
//! - A1. A block read reflects all writes acknowledged before the read began, on every host (no stale caches: `io`).
//! - A2. A write that lands, lands whole, or torn at 512 bytes; a torn one is found by its checksum, and without one
//!   the fields lie in the first sector (`format::block`).
//! - A3. A write whose acknowledgement is not handled within [`timing::limit`] may land later, but not later than one
//!   wait after the claim that would be hurt by it has become a holder *and looked away*: a holder looks every interval,
//!   so what lands on him is seen (see *A write that comes late*).
//! - A4. A kernel's or e2fsprogs' gap between its last look and its write is shorter than W.
//! - A5. A host whose clock runs either runs our processes or, when it resumes, runs the keeper before long: what the
//!   stalled user does in between is not ours to prevent (README, *What it cannot promise*).
//!
//! # The claim
//! 1. *Look.* Unknown, damaged (also when read again): refuse. Fsck's mark: refuse. Clean: to 3, but only if the
//!    superblock, read from the disk after it, was unmounted cleanly; a doubtful clean is watched for
//!    [`timing::doubtful_clean_watch`]. Live: to 2.
//! 2. *Watch* for W, plus a margin for peers who check late and the worst I/O seen; where the C in the block is larger
//!    than ours, for so much longer that the device is used no sooner than two waits of *that* C after the last write.
//!    From the **end** of the first look to the **start** of the last: any change refuses, at once. A change to *clean*
//!    goes to 1.
//! 3. *Claim.* Look, read the superblock again (is the block still where it was?), write a random sequence under our
//!    name. From the start of the look to the handled acknowledgement at most [`timing::limit`] = W/4, or the write
//!    counts for nothing and everything starts at 1, with C doubled.
//! 4. *Silence* of W/2, looking all the while; one **middle beat**, within the limit of its look; silence of W/2.
//!    Any change is a lost race: leave the block alone, back off for a random time, start at 1.
//! 5. *Last beat*, within the limit of its look, and only if what stood before it did not stand for as long as any
//!    peer watches (looks that hang): else start at 1. Held.
//!
//! # The hold
//! Every interval, jittered: look, compare all 1024 bytes with what we wrote last, write the next; between beats that
//! are far apart, look at least every [`timing::MAX_HOLD_LOOK`]. The lease of a write
//! ends `lease(C in it)` after the **start of the look before it**; the holder's lease is the earliest end among his
//! last acknowledged write and every later one whose fate he does not know. Whatever is handled at or after that end
//! means *lost*: nothing is written any more, also not by a write that was decided before it (`not_after`).
//!
//! # Why exclusion holds
//! **S1. Against a holder (unclean takeover).** Let the holder's last counted write have its look start at s and land at
//! p >= s. A taker saw the bytes of that write, or of a later one, unchanged from a look that ended at f >= p to one
//! that started at l >= f + W. Any later counted write was acknowledged by s + W, so it landed in (f, l] and would have
//! been seen, or after l, and then s + W > l >= p + W contradicts p >= s. So at l the holder's lease has ended:
//! s + lease(C) <= s + W <= p + W <= l. The taker uses the device no sooner than l + W (steps 4 and 5): a whole wait
//! is left for the fence. With a kernel or e2fsprogs as taker the same, since they wait W on what they read.
//! *Falls without*: stamps at the far ends of looks (`claim`, `still`), the lease from the look (`hold`, `write`), two
//! waits of the dead holder's own C (simulator, families Faults and Hangs).
//!
//! **S2. One winner among claimers of ours.** Let the claims (step 3) of A and B both count, and land at a < b. B's last
//! look did not see A's claim, so it began before a (A1), and b < a + W/4 by the limit. A is then in its first
//! silence, which lasts until a + W/2 at least, and looks again at its end, before the middle beat: it sees B's claim,
//! or a later one, and withdraws. So of all claims that meet like this only the last to land goes on. A rival who comes
//! later finds a standing claim: he has to see it unchanged for W, and its middle beat lands within W/2 + W/4.
//! *Falls without*: the limit (B's claim may land after A's last look), the middle beat (the claim would stand still
//! for the very W that a rival watches), silence between them (two who beat all the time can cover each other).
//!
//! **S3. Clean.** A clean claim waits as an unclean one does from step 3 on, so S2 covers it, and a kernel that
//! claimed at the same instant beats, or is seen writing, within our silence (A4). The kernel's own clean path waits
//! for nothing, and two kernels both get in: that is theirs.
//!
//! **S4. A claimer does not stop a live holder.** A counted claim cannot land on a holder of the same C: the claimer's
//! look saw clean, or a sequence that stood for W, at most W/4 before. What does land on a holder is a write that came
//! late, a claimer whose C is larger, or one who found a clean mark that was forced onto the live block. The holder sees
//! a live block that is not his. It stands still, for two of the longest intervals: he beats over it. It jumps again: he
//! beats over it at once, for that was the middle beat, and half a wait of silence is still ahead. In any case he
//! beats before three quarters of his lease have passed since a look that came before that write. The claimer is in his
//! silence, or has been told that his write was late, and watches: he sees it.
//! *Falls without*: the second jump's being answered at once, and looks every [`timing::MAX_HOLD_LOOK`] (simulator, family
//! LateClean).
//!
//! **S5. A write that comes late.** A claimer learns that his write came late when it is acknowledged. Whoever holds
//! under it needed as long to get in as the write was late, at least; so the claimer watches for that long, at least,
//! from 1 on, and the holder beats within. A *holder's* beat that comes after his lease lands on a taker or on a
//! claimer: a claimer sees a change and withdraws (nobody uses, which is safe); a taker who holds sees a block that
//! stands still and beats over it (S4).
//!
//! **S6. Two holders** can meet only if an assumption failed (a clock stood still, A3, A4). Both look before they
//! write, and jitter keeps them out of phase: one of them sees a foreign block, stops writing to look at it, and sees
//! it *count*. He stops if he slept, if his clock stood still, if his name is lower, and after a while in any case;
//! so the double use ends within four of the longest intervals, on one side only (`foreign`). Whom we took over from is
//! the one that slept, since we watched his block stand still: against him our lower name does not count. We still stop
//! after a while, if he does not.
//!
//! **S7. Clean over a holder.** A clean mark seen by a holder with a running lease cannot be a successor's, who needs
//! two waits, unless our clock stood still; then its stamp runs ahead of our wall clock and we stop (`medium`). Should
//! that clock have been set right in between, the names tell: a successor that is a kernel, or of our kind, writes
//! other names than ours and no path. What is left is our own mark, one that e2fsprogs forced (it writes the path), or
//! the last word of the kernel that we took over from: beat at once. An e2fsck that came, worked and left in a pause
//! with both clocks stopped, and its stamp hidden by a clock set right, is not found.
//!
//! **S8. A vouch.** Where a cluster vouches that the holder is dead (`GuardOptions::fenced`) he writes no more, and neither
//! does what he protected: his two waits need not be waited for. What is left is the vouch's being wrong, or about
//! somebody else: the block has to name the node, a living holder shows himself within one of his beats, and the vouch is
//! for the bytes that were seen, since a kernel's claim keeps the dead one's name. Steps 3 to 5 are as ever.
//!
//! **S9. Taking back.** A claim under which nothing was ever used is marked clean again, if what stood there before was clean:
//! within one limit of a look that still shows it, so by S2 no rival has got in by then, and whoever claims in between
//! sees his claim changed and begins anew. A claim of the local kernel's may be a rival kernel's instead: it has to stand for
//! a wait and the margin first, since a rival beats within that (A4). Over an unclean block nothing is taken back: its holder's
//! second wait would be lost to whoever takes clean for leave.
//!
//! # Why somebody gets in
//! Claimers that see each other withdraw for random times, up to half a wait, so one of them is alone for long enough
//! before long. Slow writes double C, which doubles the limit; a device slower than the largest limit is refused with
//! that reason.
mod claim;
pub mod describe;
pub mod event;
mod foreign;
pub mod guard;
mod hold;
mod lease;
pub mod medium;
pub mod sequence;
#[cfg(test)]
mod tests;
pub mod timing;
mod watch;

pub use event::{Change, Event, FailureKind, LoserRule, Loss, Peer, Quiet, Refusal, Resumption, Standing};
pub use guard::{Activity, Failure, Guard, GuardOptions, Input, Mode, Output, Write};
pub use medium::{Medium, Native, Owner};
pub use sequence::Sequence;
pub use watch::{Adoption, Left};
