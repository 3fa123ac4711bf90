//! From the claim to a mount that is guarded; or to nothing at all.
//!
//! Protects: the first foreign change ends the mount, by killing mount(8), which the kernel lets go at once. Whether
//! anything is mounted is asked of the kernel. A mount that came to nothing leaves no claim standing, if it was ours.

use std::ffi::OsString;
use std::ops::ControlFlow;

use super::{
    Activity, Adoption, CellState, CommandEnd, Error, Event, Failure, FromDriver, Guardian, Held, Kind, Loss,
    PERIOD, Purpose, ToKeeper, clock, describe, exit, progress, render,
};
use crate::clock::Mono;
use crate::keeper::mounts::Handover;
use crate::protocol::{Refusal, Standing};

/// With less of a lease left a successor does not try again.
const LAST_TRY: std::time::Duration = std::time::Duration::from_secs(1);
/// So often in a row a peer may have left just now, or the kernel not have come to its claim.
const TRIES: u32 = 5;

/// How one try to mount came out.
pub(super) enum Tried {
    Guarding(Box<Held>),
    /// The other one has just left, or the kernel did not come to its claim.
    Again,
    Failed(Failure),
    /// Somebody uses it.
    InUse(Error),
}

impl Guardian {
    /// Claims and mounts, or adopts.
    pub(super) fn begin(&mut self) -> Result<Held, Failure> {
        if let Some(adoption) = self.adoption.take() {
            return self.succeed(adoption);
        }
        if let Purpose::Adopt { counted } = self.task.purpose {
            let counted = counted.map(|(at, seq)| (Mono(at), seq));
            return self.adopt(Adoption { counted, left: None });
        }
        let Purpose::Mount { wait, .. } = self.task.purpose else { unreachable!("the other purpose") };
        let patience_until = clock::mono() + wait;
        let (mut tries, mut seen_live) = (0, false);
        loop {
            match self.try_to_mount(patience_until, seen_live) {
                Tried::Guarding(held) => return Ok(*held),
                Tried::Failed(failure) => return Err(failure),
                Tried::InUse(_) if clock::mono() < patience_until && !self.withdrawn => seen_live = true,
                Tried::InUse(error) => return Err(Failure::from(&error)),
                Tried::Again if tries < TRIES && !self.withdrawn => tries += 1,
                Tried::Again => {
                    let text = format!("{}: not mounted; try again", render::shown(&self.task.asked));
                    return Err(Failure { text, code: exit::INTERRUPTED });
                }
            }
            self.memory.renew();
        }
    }

    fn try_to_mount(&mut self, patience_until: Mono, seen_live: bool) -> Tried {
        let Purpose::Mount { handover, ref fenced, tolerate, .. } = self.task.purpose else {
            unreachable!("the other purpose")
        };
        let fenced = fenced.clone();
        let mut options = self.options().wait(patience_until.since(clock::mono()));
        // A vouch shortens our own watch; the kernel would not heed it.
        let ours = self.task.is_ours_to_beat();
        let kernel_waits = !ours && handover == Handover::Kernel && fenced.is_none();
        if kernel_waits {
            options = options.kernel_waits(seen_live);
        }
        // Of the first try alone: whatever was seen since is newer.
        if let Some(credit) = self.task.standby.take() {
            options = options.credit(credit);
        }
        if let Some(node) = &fenced {
            options = options.fenced(node);
        }
        if let Some(outage) = tolerate {
            options = options.tolerate(outage);
        }
        let acquired = self.acquire_with_companions(options, patience_until);
        let mut held = match acquired {
            Ok(held) => held,
            Err(error) => return Tried::Failed(Failure::from(&error)),
        };
        if !ours && !kernel_waits {
            held.hand_over(false);
            if let Err(failure) = self.wait_for_hand_over(&mut held) {
                return Tried::Failed(failure);
            }
        }
        self.ask_to_mount(self.mount_arguments());
        if ours { self.mount_under_our_beats(held) } else { self.mount_for_kernel(held) }
    }

    fn wait_for_hand_over(&mut self, held: &mut Held) -> Result<(), Failure> {
        loop {
            match held.next_event(PERIOD) {
                Some(Event::HandedOver { .. }) => return Ok(()),
                Some(Event::Lost { loss, .. }) => return Err(self.lost_before(&loss)),
                Some(event) => self.heard(&event),
                None if held.is_over() => return Err(self.lost_before(&Loss::LeaseExpired)),
                None => self.tend(held),
            }
        }
    }

    /// The kernel is to beat: mount(8) runs, with our looks beside it.
    fn mount_for_kernel(&mut self, mut held: Held) -> Tried {
        let (mut overtaken, mut ended, mut beats, mut stopping) = (None, None, false, false);
        let mut unseen_until = Mono::FAR;
        loop {
            match held.next_event(PERIOD) {
                Some(Event::Overtaken { refusal }) => {
                    self.tell_keeper(&ToKeeper::StopMount);
                    if refusal.is_none() {
                        // A refusal is told as the result.
                        self.tell(FromDriver::Told(progress::told(&Event::Overtaken { refusal: None })));
                    }
                    overtaken = Some(refusal);
                }
                Some(Event::KernelBeats { .. }) => beats = true,
                Some(Event::Lost { loss, .. }) => return Tried::Failed(self.lost_while_mounting(&loss)),
                Some(Event::NotMounted { standing, refusal }) => {
                    // Unless it was told before, the kernel itself found who was in the way.
                    let overtaken = overtaken.or_else(|| refusal.map(Some));
                    return self.not_mounted(overtaken.into(), ended, standing);
                }
                // Unmounted: the kernel had begun to beat, and then its mount failed.
                Some(Event::Released | Event::Unmounted) => {
                    return self.not_mounted(overtaken.into(), ended, Standing::Clean);
                }
                // The claim could not be taken back in time.
                Some(Event::Refused { .. }) => {
                    return self.not_mounted(overtaken.into(), ended, Standing::Claim);
                }
                Some(event) => self.heard(&event),
                None if held.is_over() => {
                    return Tried::Failed(self.lost_while_mounting(&Loss::LeaseExpired));
                }
                None => {}
            }
            self.tend(&held);
            if let Some(loss) = self.companions_lost() {
                return Tried::Failed(self.lost_while_mounting(&loss));
            }
            if self.given_up {
                return Tried::Failed(self.lost_before(&Loss::LeaseExpired));
            }
            if ended.is_none()
                && let Some(end) = self.mount_end.take()
            {
                held.mount_ended(matches!(end.0, CommandEnd::Killed(_)));
                unseen_until = clock::mono() + self.task.wait_after_lease;
                ended = Some(end);
            }
            // The guard would say so, but its look may hang: then nothing else would ever stop what is mounted.
            if !beats
                && clock::mono() >= unseen_until
                && !matches!(self.view.ask(), Activity::Gone | Activity::Ending)
            {
                return Tried::Failed(self.lost_while_mounting(&Loss::NoKernelBeat));
            }
            match ended.take() {
                // It failed without a clean mark: that is ours to write.
                Some((end, said)) if self.releasing => return self.give_back(held, (end, said)),
                Some((end, _)) if beats && self.has_mounted(&end) => return Tried::Guarding(Box::new(held)),
                end => ended = end,
            }
            if !beats && !stopping && self.is_withdrawn() {
                stopping = true;
                self.tell_keeper(&ToKeeper::StopMount);
            }
        }
    }

    /// A kernel that beats may yet fail to mount (its journal cannot be recovered). A mount(8) that failed may have
    /// mounted.
    fn has_mounted(&self, end: &CommandEnd) -> bool {
        *end == CommandEnd::Exited(0) || !matches!(self.view.ask(), Activity::Gone | Activity::Ending)
    }

    /// The mount came to nothing.
    pub(super) fn not_mounted(
        &self,
        overtaken: Overtaken,
        ended: Option<(CommandEnd, String)>,
        standing: Standing,
    ) -> Tried {
        let path = self.task.asked.clone();
        match overtaken {
            _ if self.withdrawn => {
                let device = render::shown(&path);
                let text = format!("{device}: interrupted; nothing is mounted, and {}", left(standing));
                Tried::Failed(Failure { text, code: exit::INTERRUPTED })
            }
            Overtaken::By(refusal) => {
                let error = Error::Refused { path, refusal };
                match error.kind() {
                    Kind::InUse => Tried::InUse(error),
                    _ => Tried::Failed(Failure::from(&error)),
                }
            }
            Overtaken::Again => Tried::Again,
            Overtaken::No => Tried::Failed(self.mount_failed(ended, standing)),
        }
    }

    fn mount_failed(&self, ended: Option<(CommandEnd, String)>, standing: Standing) -> Failure {
        let (end, said) = ended.unwrap_or((CommandEnd::Exited(0), String::new()));
        let how = match end {
            CommandEnd::Exited(status) => format!("status {status}"),
            CommandEnd::Killed(signal) => format!("signal {signal}"),
            CommandEnd::NotStarted(failure) => format!("not started: {failure}"),
        };
        let said: Vec<_> = said
            .lines()
            .map(|line| format!("\n  {}", crate::format::name::escape(line.as_bytes())))
            .collect();
        let device = render::shown(&self.task.asked);
        let text = format!(
            "{device}: mount(8) failed ({how}); nothing is mounted, and {}{}",
            left(standing),
            said.concat()
        );
        Failure { text, code: exit::IO }
    }

    fn mount_arguments(&self) -> Vec<OsString> {
        let Purpose::Mount { ref options, read_only, .. } = self.task.purpose else {
            unreachable!("the other purpose")
        };
        let mut all = options.clone();
        if self.task.filesystem == "btrfs" {
            // Nobody may have shown them to this host's kernel yet.
            for device in self.companion_devices() {
                if !all.is_empty() {
                    all.push(",");
                }
                all.push("device=");
                all.push(device);
            }
        }
        if read_only {
            if !all.is_empty() {
                all.push(",");
            }
            all.push("ro");
        }
        let mut arguments: Vec<OsString> = vec!["-t".into(), self.task.filesystem.clone().into()];
        if !read_only {
            // mount(8) would fall back to a read-only mount, which asks nobody and is beaten by nobody.
            arguments.push("-w".into());
        }
        if !all.is_empty() {
            arguments.extend(["-o".into(), all]);
        }
        arguments.extend([self.task.device.clone().into(), self.task.dir.clone().into()]);
        arguments
    }

    /// A guard of this host's died under its lease, or while the kernel mounted.
    fn succeed(&mut self, adoption: Adoption) -> Result<Held, Failure> {
        self.note(match (self.resident, self.task.resident) {
            (true, _) => "taken over by another daemon",
            (false, true) => "the daemon died; a process of its own guards until there is another one",
            (false, false) => "the guarding process died and was replaced",
        });
        let mut held = self.adopt(adoption);
        // What is not found, or cannot be read at this moment, may be so in the next one: a guard that runs survives that, too.
        while held.is_err() && !self.resident && self.may_try_again(&adoption) {
            clock::sleep(PERIOD * 4);
            held = self.adopt(adoption);
        }
        if let Err(failure) = &held
            && self.view.ask() != Activity::Gone
        {
            self.note(&failure.text);
            // What is mounted without any beat is not protected by anything; but its lease runs, and a process may have what a
            // daemon lacks.
            match self.resident {
                true => self.abandoned = true,
                false => drop(self.lost(&Loss::NoKernelBeat)),
            }
        }
        held
    }

    /// Nobody has used the lease yet, and enough of it is left.
    fn may_try_again(&mut self, adoption: &Adoption) -> bool {
        self.look_after_keeper();
        let left = adoption.left.as_ref().map(|left| left.lease_end);
        let unused = left.is_some_and(|end| self.memory.cell(0).state() == CellState::Until(end));
        unused && left.is_some_and(|end| end > clock::mono() + LAST_TRY) && self.view.ask() != Activity::Gone
    }

    fn adopt(&mut self, adoption: Adoption) -> Result<Held, Failure> {
        let fail = |error: Error| Failure::from(&error);
        if adoption.left.is_none() && self.view.ask() == Activity::ReadOnly {
            // Nobody beats it: it is claimed, as for a read-only mount.
            let options = self.options().mounted_here();
            let acquired = options.acquire_with(|event| {
                if let Some(event) = event {
                    self.tell(FromDriver::Told(progress::told(event)));
                }
                if self.is_withdrawn() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            });
            return acquired.map_err(fail);
        }
        let mut options = match adoption.left {
            Some(_) => self.options_of_succession(),
            None => self.options(),
        };
        if let Some(node) = self.node_of_kernel() {
            options = options.node(node);
        }
        let mut held = options.adopt(adoption).map_err(fail)?;
        if let Err(error) = self.adopt_companions() {
            // Their leases run on for whoever the keeper finds.
            held.abandon();
            self.companions.drain(..).for_each(Held::abandon);
            self.wait_for_threads();
            return Err(fail(error));
        }
        loop {
            match held.next_event(PERIOD) {
                Some(Event::KernelBeats { .. } | Event::Held { .. }) => return Ok(held),
                Some(Event::Lost { loss, .. }) => {
                    self.lost(&loss);
                    return Err(self.lost_before(&loss));
                }
                Some(Event::Refused { refusal }) => {
                    return Err(fail(Error::Refused { path: self.task.asked.clone(), refusal }));
                }
                Some(Event::Unmounted) => {
                    let text = format!("{}: it was unmounted just now", render::shown(&self.task.asked));
                    return Err(Failure { text, code: exit::UNSUPPORTED });
                }
                Some(event) => self.heard(&event),
                None if held.is_over() || self.given_up => return Err(self.lost_before(&Loss::LeaseExpired)),
                None => self.tend(&held),
            }
        }
    }

    /// The name that the kernel beats under: it has taken it when it mounted, and this host may be called otherwise by now.
    /// Its own buffer is what a reader through the page cache of this node sees.
    fn node_of_kernel(&self) -> Option<String> {
        let place = crate::driver::Place::find(&self.task.device, None).ok()?;
        let block = place.read_cached_block().ok()?;
        (block.device == place.medium().owner().device).then(|| block.node.to_string())
    }

    /// Lost, and nothing was mounted.
    pub(super) fn lost_before(&self, loss: &Loss) -> Failure {
        let path = self.task.asked.clone();
        let error = Error::Lost { path, loss: loss.clone() };
        Failure { text: error.to_string(), code: exit::LOST }
    }

    /// Lost, and something may be mounted: the keeper looks, fences, and tells the front.
    pub(super) fn lost_while_mounting(&mut self, loss: &Loss) -> Failure {
        self.note(&describe::loss(loss));
        self.lost(loss);
        self.lost_before(loss)
    }
}

/// What stands in the block after a mount that came to nothing.
fn left(standing: Standing) -> &'static str {
    match standing {
        Standing::Clean => "the MMP block is clean",
        Standing::AsBefore => "the MMP block is as it was before",
        Standing::Claim => "a claim of this host stands in the MMP block: whoever comes next watches it out",
        Standing::Others => "another host has written the MMP block since",
    }
}

/// Why a mount was stopped.
pub(super) enum Overtaken {
    No,
    Again,
    By(Refusal),
}

impl From<Option<Option<Refusal>>> for Overtaken {
    fn from(told: Option<Option<Refusal>>) -> Self {
        match told {
            None => Overtaken::No,
            Some(None) => Overtaken::Again,
            Some(Some(refusal)) => Overtaken::By(refusal),
        }
    }
}
