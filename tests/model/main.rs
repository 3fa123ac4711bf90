//! The model checker (stateright): every history of a few hosts and one block, within stated bounds, where the simulator (`tests/sim`)
//! has many random ones.
//!
//! # What runs
//! - `ours`: two hosts, each with the library's own `Guard`, on a native block or on a slot of an area (`ours::areas`). The sources of `guard`, `claim`, `hold`, `foreign`, `lease`, `medium` and
//!   `timing` are compiled as they stand (`protocol`), beside a model of a disk, a driver and a keeper.
//! - `table`: the rules alone, written down once more as a small table: three hosts, an e2fsck, and each rule left out in
//!   turn. It says that the rules are sufficient, and each of them necessary; it says nothing of the code.
//!
//! # What is checked in every state
//! - *Exclusion*: never two users at once.
//! - *No holder without a fault of its own is stopped*, whatever the other one does. A fault before it was in does not count as one.
//! - *No write is begun after its time.*
//! - *Generations*: in an area whoever holds has a greater one than all before.
//! - *Somebody gets in*: from every state, if from there on all is prompt (`calm` says what that proves).
//!
//! When one of them fails, the shortest way there is printed as a timeline.
//!
//! # What can happen
//! - *Order*: what falls on the same step of time happens in every order.
//! - *Reads* show what stood there when they were asked for, or anything that landed since. *Writes* land at any time up to a
//!   wait after they went out, also when they failed, or when their host crashed; or never, then.
//! - *Delays*: a host is late with a tick, with an answer, between its answer and its look at the clock, or its write takes long: up
//!   to 16.5 s each, a wait and a half. Its user goes on meanwhile.
//! - *Failures* of reads and writes.
//! - *Crashes*, and restarts at any time under the same names; drivers that hang for good, while their users go on until the keeper
//!   has stopped them. Whoever was refused or has lost claims again at any time.
//! - In an area also: entries that are written late, or never; the clean mark of whoever was there before, that comes again however
//!   late; writes that land torn; claims that are given up.
//! - *Fences* take until the end of the lease and all but nothing of a wait (`tests/sim`: less 2 s).
//! - In the table there is no bound on delays: every host may be late with everything, by any time, as often as it likes.
//!
//! # Bounds
//! - *Time* goes in units of 2.75 s, the limit at C = 5 s: what is due in between is done with the next unit, or later. So of the
//!   times at which things may happen these are a part, with its extremes: nothing late, a limit late, exactly a wait apart. What
//!   is wrong by less than a unit may not be found. With beats 2.75 s apart a holder writes C = 6 s, and more after a delay.
//! - *Faults* are counted: a configuration allows so many crashes, failures and delays, each at any time. All else repeats for ever,
//!   and the space closes, because time and sequences are kept as distances (`ours::guards`, `ours::fingerprint`).
//! - *Random*: back-offs are the shortest or the longest; jitter is the shortest; jumps never meet (`stand_in`).
//! - *Wall clocks* stand at one time, the same for all (clocks kept by NTP): two blocks differ in sequence, names and C, or generation.
//! - *In an area* U is 1 s, so all times are as on a native block with C = 5 s. What the time is worth as a generation is more than all that
//!   was drawn in another unit of time, or nothing (`ours::slot`). An entry is read at once: to be late with it is to be late with the look
//!   before it, or with the write that follows.
//! - *Not here*: kernels that mount (`watch` is a stand-in), torn blocks but in an area, checksums, slots that are added or removed, larger check intervals by wish, vouches,
//!   patience, clocks that stand still. `tests/sim` has those.
//! - *The table* has one check interval and no failures. An e2fsck there is prompt, and our writes land within half a wait: while
//!   it works it neither looks nor writes for a minute, so a claim of ours that lands on its mark is never found.
//!
//! # Use
//! `cargo test --test model -- --nocapture` prints how many states each model has, how deep it is and how long it took.
//! `MMPGUARD_MODEL=large` runs the ones with more faults, too: minutes each, a few GB. The unit tests of what is compiled along
//! run here once more.

// `fastrand::Rng` is `random::Rng` in here: what the protocol draws is an input.
extern crate self as fastrand;

/// In these sources `broken!(Rule)` is true while that rule, or one of several, is left out.
macro_rules! broken {
    ($($rule:ident),+) => {
        $(crate::left_out::is_broken(crate::left_out::Breakage::$rule))||+
    };
}

mod calm;
mod check;
#[path = "stand_in/clock.rs"]
mod clock;
#[path = "stand_in/format.rs"]
mod format;
mod hashing;
#[allow(dead_code)] // some of it is the simulator's own
#[path = "../simulator/breakage.rs"]
mod left_out;
mod ours;
mod protocol;
#[path = "stand_in/random.rs"]
mod random;
mod table;

pub(crate) use random::Rng;
