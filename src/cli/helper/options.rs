//! The options of `mount -o`, as mount(8) hands them to a helper: sorted into what guards, what mount(8) is to be told again, and
//! what has had its effect already.
//!
//! Protects: what begins with `mmp.` and is not known is refused; an option that is not ours is passed on as it came, in its
//! place, or left out for a reason that stands here. Does not judge the filesystem's own options: mount(8) and the kernel do.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};

/// An option of ours, without its prefix.
#[derive(Clone, Copy, Debug)]
pub(super) struct Own {
    name: &'static str,
    /// What its value is called; none if it takes none.
    value: Option<&'static str>,
    /// For the man page.
    pub(super) help: &'static str,
}

/// What all of them begin with, so that they never mean something to a filesystem.
const PREFIX: &str = "mmp.";
/// The one that may come several times.
const REPEATED: &str = "with";
/// Whose value is a list, which would end the option at its first comma.
const LADDER: &str = "on-loss";

/// Each is the option of the same name of `mmp mount`.
pub(super) const OWN: [Own; 8] = [
    Own {
        name: "area",
        value: Some("TARGET:SLOT"),
        help: "The device is guarded by this slot of an area elsewhere.",
    },
    Own {
        name: "with",
        value: Some("DEV"),
        help: "Hold this device as well, or a slot, as TARGET:SLOT: all or nothing. May come several times.",
    },
    Own {
        name: "handover",
        value: Some("HOW"),
        help: "kernel or clean: how the block is handed over to the kernel.",
    },
    Own {
        name: "on-loss",
        value: Some("LADDER"),
        help: "What to do when protection is lost: auto, or rungs in order, with + between them, such as dm+reboot.",
    },
    Own {
        name: "incomplete-fence",
        value: None,
        help: "Mount although no rung of the ladder is a fence by itself.",
    },
    Own {
        name: "fenced",
        value: Some("NODE"),
        help: "NODE is dead, and the cluster vouches for it. Not for fstab(5): it is true once.",
    },
    Own {
        name: "wait",
        value: Some("DURATION"),
        help: "Wait so long for somebody who uses the device to leave (such as 30s, 5m).",
    },
    Own { name: "tolerate", value: Some("DURATION"), help: "With ro: survive a storage outage of so long." },
];

impl Own {
    /// As it is typed.
    pub(super) fn shown(&self) -> String {
        let value = self.value.map(|value| format!("={value}")).unwrap_or_default();
        format!("{PREFIX}{}{value}", self.name)
    }
}

/// What `-o` said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Sorted {
    /// `fstype=`.
    pub(super) filesystem: Option<OsString>,
    /// Arguments of `mmp mount`: `--wait=5m`.
    pub(super) guard: Vec<OsString>,
    /// Options for mount(8), which gives them to the kernel.
    pub(super) kernel: Vec<OsString>,
    /// Options that mount(8) keeps in its table (`_netdev`, `x-*`).
    pub(super) table: Vec<OsString>,
    /// Whose helper unmounts it was said: `helper=`, `uhelper=`.
    pub(super) helpers: Vec<OsString>,
    /// `ro`; the last one of `ro` and `rw` counts.
    pub(super) read_only: bool,
    /// A mount that is there is to be changed.
    pub(super) remount: bool,
    /// A device that is not there is no failure.
    pub(super) no_fail: bool,
}

/// Options that have had their effect when a helper is called: by mount(8), fstab's readers, or as words for people.
///
/// Who may mount (`user` and the like) is decided before, and what that implies (`nosuid`, `nodev`, `noexec`) is passed by
/// mount(8) in so many words. `nofail` is heeded here, and not passed on: a mount(8) that calls a missing device a success
/// would be taken for one that has mounted.
const SPENT: [&str; 12] = [
    "defaults", "auto", "noauto", "user", "nouser", "users", "nousers", "owner", "noowner", "group",
    "nogroup", "comment",
];

/// Sorts all `-o`.
///
/// # Errors
/// What is wrong, for people.
pub(super) fn sort(all: &[OsString]) -> Result<Sorted, String> {
    let mut sorted = Sorted::default();
    let mut own: Vec<(&'static str, OsString)> = Vec::new();
    for option in all.iter().flat_map(|options| split(options.as_bytes())) {
        let equals = option.iter().position(|&byte| byte == b'=');
        let (name, value) = (&option[..equals.unwrap_or(option.len())], equals.map(|at| &option[at + 1..]));
        let as_it_came = || OsStr::from_bytes(option).to_owned();
        // A name that is no UTF-8 is none that means anything here.
        match std::str::from_utf8(name).unwrap_or_default() {
            "fstype" => sorted.filesystem = Some(filesystem(value)?),
            "remount" => sorted.remount = true,
            "nofail" => sorted.no_fail = true,
            "ro" if value.is_none() => sorted.read_only = true,
            "rw" if value.is_none() => sorted.read_only = false,
            "_netdev" => sorted.table.push(as_it_came()),
            "helper" | "uhelper" => sorted.helpers.push(as_it_came()),
            name if name.starts_with("x-") => sorted.table.push(as_it_came()),
            // X-mount.mkdir and its like are mount(8)'s alone, and done.
            name if name.starts_with("X-") || SPENT.contains(&name) => {}
            name if name.starts_with(PREFIX) => {
                let (known, argument) = own_option(name, value)?;
                if known != REPEATED {
                    // As with any option of mount(8): the command line comes after fstab, and the last one counts.
                    own.retain(|(other, _)| *other != known);
                }
                own.push((known, argument));
            }
            _ => sorted.kernel.push(as_it_came()),
        }
    }
    sorted.guard = own.into_iter().map(|(_, argument)| argument).collect();
    Ok(sorted)
}

fn filesystem(value: Option<&[u8]>) -> Result<OsString, String> {
    match value.map(plain) {
        Some(name) if !name.is_empty() => Ok(OsString::from_vec(name)),
        _ => {
            Err("fstype= takes a type, such as fstype=xfs; without it, what stands on the device".to_owned())
        }
    }
}

/// The argument of `mmp mount` that an option of ours stands for.
fn own_option(name: &str, value: Option<&[u8]>) -> Result<(&'static str, OsString), String> {
    let bare = name.strip_prefix(PREFIX).unwrap_or(name);
    let Some(own) = OWN.iter().find(|own| own.name == bare) else {
        let all: Vec<_> = OWN.iter().map(Own::shown).collect();
        return Err(format!(
            "{}: there is no such option; there are {}",
            name.escape_debug(),
            all.join(", ")
        ));
    };
    let mut argument = OsString::from(format!("--{}", own.name));
    match (own.value, value.map(plain)) {
        (None, None) => {}
        (Some(_), Some(value)) if !value.is_empty() => {
            argument.push("=");
            argument.push(OsString::from_vec(if own.name == LADDER { ladder(value) } else { value }));
        }
        (Some(_), _) => return Err(format!("{}: its value is missing", own.shown())),
        (None, Some(_)) => return Err(format!("{}: takes no value", own.shown())),
    }
    Ok((own.name, argument))
}

/// `+` is its separator here, unless there are commas, which were quoted then.
fn ladder(mut value: Vec<u8>) -> Vec<u8> {
    if !value.contains(&b',') {
        value.iter_mut().filter(|byte| **byte == b'+').for_each(|byte| *byte = b',');
    }
    value
}

/// The options one by one: at commas, but not at one in double quotes or behind a backslash. So mount(8) does it.
fn split(options: &[u8]) -> Vec<&[u8]> {
    let mut found = Vec::new();
    let (mut start, mut quoted, mut escaped) = (0, false, false);
    for (at, &byte) in options.iter().enumerate() {
        match byte {
            b'"' if !escaped => quoted = !quoted,
            b',' if !escaped && !quoted => {
                found.push(&options[start..at]);
                start = at + 1;
            }
            _ => {}
        }
        escaped = byte == b'\\';
    }
    found.push(&options[start..]);
    found.retain(|option| !option.is_empty());
    found
}

/// A value of ours without its quotes, and commas without their backslash.
fn plain(value: &[u8]) -> Vec<u8> {
    let inner = match value {
        [b'"', inner @ .., b'"'] => inner,
        value => value,
    };
    let mut plain = Vec::with_capacity(inner.len());
    for (at, &byte) in inner.iter().enumerate() {
        if byte != b'\\' || inner.get(at + 1) != Some(&b',') {
            plain.push(byte);
        }
    }
    plain
}

/// Joined again by commas.
pub(super) fn joined<'a>(options: impl IntoIterator<Item = &'a OsString>) -> OsString {
    let mut all = OsString::new();
    for option in options {
        if !all.is_empty() {
            all.push(",");
        }
        all.push(option);
    }
    all
}

#[cfg(test)]
#[path = "options_tests.rs"]
mod tests;
