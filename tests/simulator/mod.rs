//! The simulator: several hosts and one disk in virtual time, everything drawn from a seed, and the library's own
//! `Guard`, unmodified, on each host of our kind. Deterministic: a seed is a history.
//!
//! # Fault model
//! - *Reads* sample the disk at any instant between issue and answer. *Writes* land at any instant after they went
//!   out, at most 11 s later (the wait of the smallest check interval), also when they fail, when their
//!   acknowledgement is lost, and when their host crashes. Two sectors of 512 bytes: one may land up to 0.1 s after
//!   the other, or, of a failed write, never.
//! - *Latency*: up to 15 s, and hangs up to 150 s. *Errors*, of writes that landed and of writes that did not.
//!   *Answers* that are there and handled up to 15 s later.
//! - *Stalls* of 0.1 to 60 s with the clock running: at any time, between look and write, and between the driver's
//!   check of the clock and its write. A stalled host runs nothing, its keeper included.
//! - *Crashes* and restarts, under the same names. Hosts with equal names. Wall clocks off by up to an hour, and set by as
//!   much at any time.
//! - *Fences* that take until the end of the lease and one wait of the smallest C that the holder writes, less 2 s:
//!   until then its user goes on.
//! - *Peers* with intervals of 0.1, 1, 5 and 30 s and larger check intervals; kernels, with their true behaviour, half of
//!   them ldiskfs's (2 s on clean, `C + 20`). Of a kernel, look, claim and first beat lie within a wait: a stated assumption.
//! - *e2fsck* with its true behaviour, killed at work or dying with its host; what it does beside its sleeps takes less than
//!   the margin of a watch (1.5 s): a stated assumption. Marks that it leaves are cleared by an administrator, or stay.
//! - *Forced clears* (`tune2fs -f -E clear_mmp`), by anybody, at any time, over anything, and into the buffer of a kernel on
//!   that host (`Profile::Clears`).
//! - *Areas* of 0.1 to 10 s, where all that is late, or slow, is so beside the area's interval; their entries, too, are written late,
//!   or never (`areas`). There the guard's process alone dies, too, and is replaced after 0.1 to 2 s, if its lease lasts for so long
//!   (`succession`).
//! - *Standbys*, whose looks come late, hang and fail while everything else of the host is prompt, and claims that begin a while after
//!   they were handed what was watched; beats that land twice (`standby`).
//! - *Claims withdrawn* at any time. *Vouches* for nodes that are dead and stay dead for up to 5 minutes, and for living ones
//!   that have no fault.
//! - *Mounts*: hosts of ours that mount through their own kernel, both ways of handing over, group descriptors that take
//!   up to 20 s and a journal that takes up to 10 s, mounts that fail; freezes of 1 to 120 s, also under an unmount;
//!   remounts, by the administrator (also back within a millisecond) and by `mmp remount`; errors and shutdowns, which
//!   some kernels do not show; unmounts at any time, which write for up to 20 s. Beside them: the guard's process alone
//!   stalls for up to 60 s or dies (adopted while its lease lasts, from what it left or without; else fenced), the path
//!   hangs for up to 60 s under guard and kernel, answers of the kernel's come late.
//!
//! # Checked at every step
//! Never two users at once; a holder without a fault of its own is never stopped; somebody gets in after the last
//! fault, and after any single fault within a stated time (`one_fault`); without faults the stated times hold; a stall
//! shorter than the lease less a beat stops nobody; an e2fsck that is refused stops nobody; a clear that is forced over a
//! holder of ours lets no claimer in. Kernels alone must show K1, K3 and K4 (`sim::kernels`). Of mounts also:
//! a freeze is no fault; after it the kernel beats and the guard only watches; nothing is written over a user by a host
//! that has nothing mounted; a guard does not end while its filesystem is in use; what it says of the kernel is true.
//! Of every host of ours: a lease that has ended is never extended; nobody marks the block clean at the first sight of
//! another who uses the device; whoever is the first to find a doubtful clean mark watches it as long as dirty blocks may
//! follow. In an area no generation is given to two holders, and each is greater than the last; who
//! takes a dead guard's place goes on with its. *Pauses* (S6, S7), where two may meet because a clock stood still: both run for no longer than
//! `timing::double_use`, and never stop for each other both; who slept does not go on where another came, worked and left.
//!
//! # Counted apart (`Apart`), because it cannot be promised
//! What a host could write when it wakes after its lease, before its keeper runs (it counts as stopped then); two
//! kernels that mount at once; a stale write with a smaller check interval that a host began long after its check of the
//! clock, over a holder who stalls at that time too; a block left torn by a write that failed half-way. Of mounts, each of
//! which ends its history: a kernel-only host that finds the clean mark which the kernel of a mounted filesystem leaves for
//! a moment (remount, error, hand-over of a mount); the same found by a host of ours whose claim took the holder for dead,
//! since their wall clocks differ by more than two check intervals, or whose mount was killed while it read the group
//! descriptors; a fault of a host's own while such a mark stands; a fault between the hand-over and the first beat seen,
//! when no cell is armed yet. Of pauses: that two meet (`double_uses`), and that the one that slept takes whom he meets
//! for a claimer, and goes on (`sleeper_went_on`); that both stop, where a kernel that re-reads goes on under the names of one who took over,
//! left and came again (`taken_names`), or where two kernels beat so closely after one another that the sleeper's guard finds the other
//! one late (`stopped_together`). Hosts that share a name may take each other's mounts for lost before they are made.
//! Of e2fsck and forced clears: two peers of which none is ours, or of which one is a kernel that waits by itself for a
//! mount of ours; a write of ours that lands after its time, over the mark
//! of an e2fsck at work, which looks once a minute at most; a mark that nobody clears, and keeps everybody out; a mount that
//! takes the forced clean mark for leave, an e2fsck that claims over it and waits for less than a slow beater looks at it,
//! and an e2fsck whose mark it covers. A holder takes a forced clear for a successor's end, and stops, if the
//! administrator's clock is ahead, if there was another one or a claimer just before, or if his kernel had not been seen to
//! beat; and so he does with a claim that was taken back where his kernel's clean mark stood for a moment.
//! *Not injected*: a stall of more than 5 s between the check of the clock and a **clean mark** (it lands on a successor,
//! who stops; `Profile::LateClean` injects it among hosts of ours; two stalls in a row may come to that); beside others a kernel-only holder that freezes, or
//! sleeps longer than 3 s (K3, K4: only among its like); a vouch for a living node that is slow; writes that land later than
//! a wait; a clock that stands still (`Profile::Pauses`, `Profile::MountPauses` and `Breakage` only), and the shutdown ioctl as a fence of ext4
//! (`Breakage` only); a remount or an error before the guard has seen the first beat.
//!
//! # Use
//! `cargo run --release --example simulate -- Faults 0..100000` runs a range of seeds on all cores and prints the figures;
//! `-- Faults --seed 17` replays one with its timeline. A failure is made short (`shrink`) and printed with the words that
//! replay it.

// Three programs compile this, and none of them uses all of it.
#![allow(dead_code)]
// Probabilities and logarithms are floating point, and a fate may be large.
#![allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
#![allow(clippy::large_enum_variant, clippy::result_large_err)]

mod areas;
mod asked;
pub(crate) mod breakage;
mod checks;
mod clears;
mod disk;
mod driver;
mod edges;
pub(crate) mod edits;
mod evidence;
mod faults;
mod filesystem;
mod fsck;
mod host;
mod io;
mod kernel;
mod mount_checks;
mod mount_plan;
mod mounted;
mod one_fault;
pub(crate) mod outcome;
mod pauses;
mod peers;
pub(crate) mod plan;
mod profile;
mod queue;
pub(crate) mod run;
mod second_life;
mod shrink;
mod standby;
mod succession;
mod world;
