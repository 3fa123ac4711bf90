//! The same hosts with plain mounts and a fixed schedule: what judges a soak has to find what the kernel alone lets happen.

use std::time::Duration;

use mmpguard::clock::{self, Mono};

use super::faults::{Ends, end, freeze, hang};
use super::host::{Doing, Host};
use super::{Plan, check, step};
use crate::book::{Book, Guarded};
use crate::harness::{Lab, Outcome};
use crate::scenarios::stage::Kind;

const PLAN: Plan = Plan { guarded: Guarded::Kernel, kind: Kind::Ext4, arguments: "" };
/// Longer than a takeover by the kernel, which takes 22 s.
const FROZEN: Duration = Duration::from_secs(30);
const HUNG: Duration = Duration::from_secs(26);
/// How long both write afterwards.
const AFTERWARDS: Duration = Duration::from_secs(6);
const PATIENCE: Duration = Duration::from_secs(120);

/// What is done to the holder while the other host tries to mount.
#[derive(Clone, Copy)]
enum Way {
    Freeze,
    Hang,
}

pub(super) fn soak(book: &Book) -> Outcome<()> {
    let promise = book.promise(
        "soak, kernel alone: must be found to have two writers",
        Guarded::Kernel,
        "nothing: a holder frozen for 30 s, and one that hung for 26 s without a watchdog, write beside their successors; every check of \
         the soak's that this breaks must say so",
    );
    let mut found = Vec::new();
    for way in [Way::Freeze, Way::Hang] {
        found.extend(round(way)?);
    }
    let says =
        |(must, error): &&(&str, Option<String>)| error.as_ref().is_some_and(|error| error.contains(must));
    let shown = found.iter().filter(says).count();
    let words: Vec<_> = found
        .iter()
        .map(|found| if says(&found) { found.0.to_owned() } else { format!("not as it must be: {found:?}") })
        .collect();
    promise.judge(
        shown == found.len(),
        &format!("{shown} of {} checks found it: {}", found.len(), words.join(", ")),
    )
}

/// One holder, one successor. What each check has to say, and what it says.
fn round(way: Way) -> Outcome<Vec<(&'static str, Option<String>)>> {
    let lab = Lab::new()?;
    let disk = lab.disk("shared0", 256)?;
    disk.make_ext4()?;
    let random = fastrand::Rng::with_seed(0);
    let mut hosts = [
        Host::new(&lab, "alpha", &disk, PLAN, random.clone())?,
        Host::new(&lab, "beta", &disk, PLAN, random)?,
    ];
    until(&lab, &mut hosts, |host| matches!(host.doing, Doing::Idle(_)), [true, true])?;
    // Nobody does anything but what is told here.
    hosts[1].doing = Doing::Idle(Mono::FAR);
    hosts[0].doing = Doing::Idle(clock::mono());
    until(&lab, &mut hosts, is_in, [true, false])?;
    for_so_long(&lab, &mut hosts, AFTERWARDS)?;
    let begun = clock::mono();
    let (fault, lasts) = match way {
        Way::Freeze => (freeze(&mut hosts[0])?, FROZEN),
        Way::Hang => (hang(&mut hosts[0], false)?, HUNG),
    };
    hosts[1].doing = Doing::Idle(clock::mono());
    until(&lab, &mut hosts, is_in, [false, true])?;
    for_so_long(&lab, &mut hosts, (begun + lasts).since(clock::mono()).max(AFTERWARDS))?;
    end(&lab, &fault, &mut hosts[0])?;
    for_so_long(&lab, &mut hosts, AFTERWARDS)?;
    let [alpha, beta] = hosts.each_ref().map(Host::history);
    let ([alpha, beta], protection) = ([alpha?, beta?], disk.protection()?);
    let mut found = vec![
        ("two writers", check::one_writer_at_a_time(&[&alpha, &beta], protection).err()),
        ("two writers", check::nobody_beside(&beta, &alpha, protection).err()),
        ("a loser's beat", check::no_beats_beside(&beta, &alpha, protection).err()),
    ];
    if matches!(fault, Ends::Hang { .. }) {
        found.push(("after its attempt", check::writes_only_while_in(&alpha).err()));
    } else {
        found.push(("two writers", check::nobody_beside(&alpha, &beta, protection).err()));
    }
    Ok(found)
}

fn is_in(host: &Host) -> bool {
    matches!(host.doing, Doing::Mounted(..))
}

/// Goes on until it holds of those hosts.
fn until(lab: &Lab, hosts: &mut [Host; 2], holds: fn(&Host) -> bool, of: [bool; 2]) -> Outcome<()> {
    let end = clock::mono() + PATIENCE;
    while !hosts.iter().zip(of).all(|(host, asked)| !asked || holds(host)) {
        if clock::mono() >= end {
            return Err("the kernel alone did not let it happen".to_owned());
        }
        go_on(lab, hosts)?;
    }
    Ok(())
}

fn for_so_long(lab: &Lab, hosts: &mut [Host; 2], length: Duration) -> Outcome<()> {
    let end = clock::mono() + length;
    while clock::mono() < end {
        go_on(lab, hosts)?;
    }
    Ok(())
}

/// A step, in which nobody leaves, and who was refused does not try again by himself.
fn go_on(lab: &Lab, hosts: &mut [Host; 2]) -> Outcome<()> {
    step(lab, hosts)?;
    for host in hosts {
        if let Doing::Mounted(_, until) = &mut host.doing {
            *until = Mono::FAR;
        }
    }
    Ok(())
}
