//! What is taken away from a history, so that one that fails becomes short enough to be read. It is written and read as
//! text (`-host2,-slow,-fault7,calm=80,salt=3`), so that what was made short can be replayed.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use super::plan::{Plan, SECOND};

/// Troubles that a plan may have, each with its rate.
pub(crate) const TROUBLES: [(&str, Rate); 19] = [
    ("slow", |plan| &mut plan.rates.slow),
    ("error", |plan| &mut plan.rates.error),
    ("stall-before-check", |plan| &mut plan.rates.stall_before_check),
    ("stall-after-check", |plan| &mut plan.rates.stall_after_check),
    ("late-handling", |plan| &mut plan.rates.late_handling),
    ("torn", |plan| &mut plan.rates.torn),
    ("crashes", |plan| &mut plan.rates.crashes_per_s),
    ("stalls", |plan| &mut plan.rates.stalls_per_s),
    ("failed-mounts", |plan| &mut plan.mounts.fails),
    ("freezes", |plan| &mut plan.mounts.freezes),
    ("remounts", |plan| &mut plan.mounts.remounts),
    ("failures", |plan| &mut plan.mounts.failures),
    ("guard-stalls", |plan| &mut plan.mounts.guard_stalls_per_s),
    ("guard-crashes", |plan| &mut plan.mounts.guard_crashes_per_s),
    ("outages", |plan| &mut plan.mounts.outages_per_s),
    ("standby-stalls", |plan| &mut plan.standby.stalls),
    ("standby-slow", |plan| &mut plan.standby.slow),
    ("standby-errors", |plan| &mut plan.standby.errors),
    ("echoes", |plan| &mut plan.standby.echoes),
];

type Rate = fn(&mut Plan) -> &mut f64;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Edits {
    /// They never start.
    pub(crate) hosts: BTreeSet<usize>,
    /// Names of [`TROUBLES`].
    pub(crate) troubles: BTreeSet<&'static str>,
    /// Faults by their number, as they would strike.
    pub(crate) faults: BTreeSet<u64>,
    /// No fault begins after this.
    pub(crate) calm_s: Option<u64>,
    /// Another history of the same plan; 0 is the seed's own.
    pub(crate) salt: u64,
}

impl Edits {
    pub(crate) fn apply(&self, plan: &mut Plan) {
        for &host in &self.hosts {
            if let Some(host) = plan.hosts.get_mut(host) {
                (host.start_ns, host.faulty) = (u64::MAX, false);
            }
        }
        for (name, rate) in TROUBLES {
            if self.troubles.contains(name) {
                *rate(plan) = 0.0;
            }
        }
        if let Some(calm_s) = self.calm_s {
            plan.calm_ns = plan.calm_ns.min(calm_s * SECOND);
        }
    }
}

impl fmt::Display for Edits {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hosts = self.hosts.iter().map(|host| format!("-host{host}"));
        let troubles = self.troubles.iter().map(|name| format!("-{name}"));
        let faults = self.faults.iter().map(|number| format!("-fault{number}"));
        let calm = self.calm_s.iter().map(|calm_s| format!("calm={calm_s}"));
        let salt = (self.salt != 0).then(|| format!("salt={}", self.salt));
        let all: Vec<String> = hosts.chain(troubles).chain(faults).chain(calm).chain(salt).collect();
        out.write_str(&all.join(","))
    }
}

impl FromStr for Edits {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut edits = Edits::default();
        for word in text.split(',').filter(|word| !word.is_empty()) {
            let number = |digits: &str| digits.parse().map_err(|_| format!("{word}: not a number"));
            if let Some(host) = word.strip_prefix("-host") {
                edits.hosts.insert(host.parse().map_err(|_| format!("{word}: not a number"))?);
            } else if let Some(fault) = word.strip_prefix("-fault") {
                edits.faults.insert(number(fault)?);
            } else if let Some(calm_s) = word.strip_prefix("calm=") {
                edits.calm_s = Some(number(calm_s)?);
            } else if let Some(salt) = word.strip_prefix("salt=") {
                edits.salt = number(salt)?;
            } else {
                let name = TROUBLES.iter().map(|(name, _)| *name).find(|name| word == format!("-{name}"));
                edits.troubles.insert(name.ok_or_else(|| format!("{word}: no such edit"))?);
            }
        }
        Ok(edits)
    }
}
