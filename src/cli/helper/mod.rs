//! `mount.mmp` and `umount.mmp`: what mount(8) and umount(8) call for the type mmp. Another way to say `mmp mount`, `mmp remount`
//! and `mmp umount`: these do it, and all their rules hold.
//!
//! Protects: whoever asks mount(8) for the type mmp gets a guarded mount or none. Does not protect from a line of fstab that names
//! the filesystem's own type: that is a plain mount, and nobody here is asked.
//!
//! What mount(8) does by itself (seen in util-linux 2.38): it finds out what is mounted already (`mount -a`), by device and
//! directory, not by type; makes an absolute directory and a device of what was typed; takes away `x-*`, `X-*`, `noauto` and
//! `comment=`; gives an ordinary user's helper no privilege; and hands on the helper's status, but for `-a`.
//! umount(8) calls the helper that `helper=` in `/run/mount/utab` names. The mount(8) that the guard runs writes that there.

mod args;
pub(super) mod manual;
mod options;

use std::ffi::{OsStr, OsString};
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;

use self::args::{MountHelper, UmountHelper};
use self::options::{Sorted, joined, sort};
use super::args::{Cli, Mount, Remount, Umount, Verb};
use super::{exit, guard, log, mount, output, remount, render, umount};
use crate::format::name::escape;
use crate::registry::{Phase, Registry};
use crate::sys::{goes_when_closed, mountinfo};

/// The type that these are the helpers of, and the beginning of one with a subtype.
const TYPE: &str = "mmp";
/// What umount(8) is to call, for root and for others.
const OUR_HELPERS: [&str; 2] = ["helper=mmp", "uhelper=mmp"];
/// How long `umount` waits for the release: below the 90 s that systemd gives it.
const RELEASE_PATIENCE: Duration = Duration::from_secs(60);
/// The same for a lazy one, whose caller does not want to wait.
const LAZY_PATIENCE: Duration = Duration::from_secs(2);

/// Runs as `mount.mmp`.
pub(super) fn mount() -> ExitCode {
    run(|arguments: &MountHelper| {
        no_namespace(arguments.namespace.is_some(), "mount -t mmp")?;
        let sorted = sort(&arguments.options)?;
        let filesystem = filesystem(arguments, &sorted)?;
        if sorted.remount {
            return Ok(exit::for_mount(remounted(arguments, &sorted)));
        }
        if sorted.no_fail && is_missing(&arguments.device) {
            let device = render::shown(&arguments.device);
            output::complain(&format!("{device}: is not there; not mounted, and no failure (nofail)"));
            return Ok(ExitCode::from(exit::DONE));
        }
        if goes_when_closed(&arguments.device) {
            return Err(format!(
                "-o loop: {} was made by mount(8), which has it go through this host's page cache; make one with losetup(8) (--direct-io=on -f \
                 --show), and name it",
                render::shown(&arguments.device)
            ));
        }
        if is_there(arguments, &sorted) {
            output::complain(&format!(
                "{}: mounted there already, guarded",
                render::shown(&arguments.device)
            ));
            return Ok(ExitCode::from(exit::DONE));
        }
        let argv = argv(arguments, &sorted, filesystem);
        if arguments.verbose {
            let words: Vec<_> = argv.iter().map(|word| escape(word.as_bytes())).collect();
            output::complain(&format!("runs {}", words.join(" ")));
        }
        let mount = verb(&argv)?;
        Ok(exit::for_mount(if arguments.fake { mount::check(&mount) } else { mount::run(&mount) }))
    })
}

/// Runs as `umount.mmp`.
pub(super) fn umount() -> ExitCode {
    run(|arguments: &UmountHelper| {
        no_namespace(arguments.namespace.is_some(), "umount")?;
        let ended = umount::run(&Umount {
            what: arguments.what.clone(),
            lazy: arguments.lazy,
            although_lost: false,
            wait: if arguments.lazy { LAZY_PATIENCE } else { RELEASE_PATIENCE },
            quiet: !arguments.verbose,
        });
        if arguments.read_only && ended == ExitCode::from(exit::IO) {
            let what = arguments.what.clone();
            return Ok(exit::for_mount(remount::without_fstab(&Remount { what, options: "ro".into() })));
        }
        Ok(exit::for_umount(ended))
    })
}

/// Parses, runs, and tells what is wrong with the command line.
fn run<A: Parser>(body: impl FnOnce(&A) -> Result<ExitCode, String>) -> ExitCode {
    let arguments = match A::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { exit::MOUNT_USAGE } else { exit::DONE });
        }
    };
    log();
    body(&arguments).unwrap_or_else(|wrong| {
        output::complain(&wrong);
        ExitCode::from(exit::MOUNT_USAGE)
    })
}

/// mount(8) leaves it to the helper to enter another namespace. A guard works with the records, the configuration and the
/// programs of the one it lives in, so it is started there.
fn no_namespace(asked: bool, how: &str) -> Result<(), String> {
    if asked {
        return Err(format!(
            "-N: a guard lives in the mount namespace it was started in: nsenter --mount=NAMESPACE {how} ..."
        ));
    }
    Ok(())
}

/// The type of what is mounted; none if it is to be found out.
fn filesystem(arguments: &MountHelper, sorted: &Sorted) -> Result<Option<OsString>, String> {
    let subtype = match arguments.filesystem.as_deref() {
        None | Some(TYPE) => None,
        Some(asked) => match asked.strip_prefix(TYPE).and_then(|rest| rest.strip_prefix('.')) {
            Some(subtype) if !subtype.is_empty() => Some(OsString::from(subtype)),
            _ => return Err(format!("-t {}: takes mmp, or mmp.TYPE, such as mmp.xfs", asked.escape_debug())),
        },
    };
    let named = sorted.filesystem.clone();
    if let (Some(subtype), Some(named)) = (&subtype, &named)
        && subtype != named
    {
        let [subtype, named] = [subtype, named].map(|name| escape(name.as_bytes()));
        return Err(format!("-t mmp.{subtype} and fstype={named} contradict each other"));
    }
    Ok(named.or(subtype).filter(|name| name != "auto"))
}

fn is_missing(device: &Path) -> bool {
    device.metadata().is_err_and(|error| error.kind() == ErrorKind::NotFound)
}

/// That subvolume of that device is mounted there, guarded. `mount -a` leaves alone what is mounted, but of a subvolume it can
/// tell by the type btrfs only, and calls us.
fn is_there(arguments: &MountHelper, sorted: &Sorted) -> bool {
    let subvolume = sorted.kernel.iter().rev().find_map(|option| option.as_bytes().strip_prefix(b"subvol="));
    let Some(subvolume) = subvolume else { return false };
    let root = Path::new("/").join(OsStr::from_bytes(subvolume));
    let Some((slot, record)) = guard::find(&Registry::host(), &arguments.device) else { return false };
    let guarded = record.phase == Phase::Guarding && slot.is_locked();
    let device = guard::target_of(&record).kind;
    let found = mountinfo::on_top(|dir| dir == arguments.dir);
    guarded && found.is_some_and(|mount| mount.is_of(&[device], None) && mount.root == root)
}

/// The command line of `mmp mount` that says the same.
fn argv(arguments: &MountHelper, sorted: &Sorted, filesystem: Option<OsString>) -> Vec<OsString> {
    let with_value = |option: &str, value: &OsString| {
        let mut argument = OsString::from(option);
        argument.push(value);
        argument
    };
    let mut argv: Vec<OsString> = vec!["mmp".into(), "mount".into()];
    argv.extend(sorted.guard.iter().cloned());
    argv.extend(filesystem.map(|name| with_value("--types=", &name)));
    if sorted.read_only {
        argv.push("--read-only".into());
    }
    let mut passed: Vec<OsString> = sorted.kernel.clone();
    // Without a line in its table, umount(8) knows nothing of us.
    if !arguments.no_table {
        passed.extend(sorted.table.iter().cloned());
        match sorted.helpers.as_slice() {
            [] => passed.extend(OUR_HELPERS.map(OsString::from)),
            said => passed.extend(said.iter().cloned()),
        }
    }
    if !passed.is_empty() {
        argv.push(with_value("--options=", &joined(&passed)));
    }
    argv.extend(["--".into(), arguments.device.clone().into(), arguments.dir.clone().into()]);
    argv
}

/// Reads `argv` by the definition of `mmp mount`.
fn verb(argv: &[OsString]) -> Result<Mount, String> {
    match Cli::try_parse_from(argv) {
        Ok(Cli { verb: Verb::Mount(mount) }) => Ok(mount),
        Ok(_) => Err("the command line cannot be meant".to_owned()),
        Err(error) => Err(in_our_words(&error.to_string())),
    }
}

/// What is wrong with an option, named as it was typed.
fn in_our_words(text: &str) -> String {
    let text = text.strip_prefix("error: ").unwrap_or(text);
    // What follows is about another command line.
    let lines = text.lines().take_while(|line| !line.starts_with("Usage:") && !line.starts_with("For more"));
    let words: Vec<_> = lines.map(str::trim).filter(|line| !line.is_empty()).collect();
    words.join(" ").replace("--read-only", "-o ro").replace("'--", "'mmp.").replace(" --", " mmp.")
}

/// `remount`: what guards it stays as it was.
fn remounted(arguments: &MountHelper, sorted: &Sorted) -> ExitCode {
    let mode = OsString::from(if sorted.read_only { "ro" } else { "rw" });
    let options = joined(std::iter::once(&mode).chain(&sorted.kernel));
    if arguments.fake {
        return ExitCode::from(exit::DONE);
    }
    remount::without_fstab(&Remount { what: arguments.dir.clone(), options })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(arguments: &[&str]) -> (MountHelper, Sorted) {
        let all = ["mount.mmp", "/dev/sdX1", "/srv"].iter().chain(arguments);
        let arguments = MountHelper::try_parse_from(all).expect("parses");
        let sorted = sort(&arguments.options).expect("is sorted");
        (arguments, sorted)
    }

    fn asked(arguments: &[&str]) -> Result<Mount, String> {
        let (arguments, sorted) = parsed(arguments);
        let filesystem = filesystem(&arguments, &sorted)?;
        verb(&argv(&arguments, &sorted, filesystem))
    }

    #[test]
    fn it_says_what_mmp_mount_is_told() {
        let mount = asked(&["-o", "rw,noatime,fstype=xfs,mmp.area=/dev/c:data,mmp.wait=5m,_netdev,nofail"])
            .expect("is");
        assert_eq!(mount.filesystem.as_deref(), Some("xfs"));
        assert_eq!(mount.options, ["noatime,_netdev,helper=mmp,uhelper=mmp"]);
        assert_eq!(mount.by.area.as_deref(), Some(Path::new("/dev/c:data")));
        assert_eq!(
            (mount.wait, mount.read_only, mount.quiet),
            (Some(Duration::from_secs(300)), false, false)
        );
        let mount =
            asked(&["-n", "-o", "ro,_netdev,mmp.tolerate=30s,mmp.with=a,mmp.with=b", "-t", "mmp.ext4"])
                .expect("is");
        assert!(mount.read_only && mount.options.is_empty() && mount.tolerate.is_some());
        assert_eq!((mount.with.len(), mount.filesystem.as_deref()), (2, Some("ext4")));
    }

    #[test]
    fn a_helper_that_was_named_stays() {
        assert_eq!(asked(&["-o", "uhelper=udisks2"]).expect("is").options, ["uhelper=udisks2"]);
    }

    #[test]
    fn what_is_wrong_is_told_in_the_words_it_was_typed_in() {
        for (options, told) in [
            ("mmp.wait=soon", "'mmp.wait <DURATION>': give a length of time"),
            ("mmp.handover=x", "'mmp.handover <HOW>' [possible values: kernel, clean]"),
            ("mmp.on-loss=dm+pray", "'mmp.on-loss <LADDER>'"),
            ("mmp.tolerate=30s", "-o ro"),
        ] {
            let error = asked(&["-o", options]).expect_err(options);
            assert!(
                error.contains(told) && !error.contains("Usage") && !error.contains('\n'),
                "{options}: {error}"
            );
        }
        assert!(asked(&["-t", "xfs"]).expect_err("is no type of ours").contains("mmp.xfs"));
        assert!(asked(&["-t", "mmp."]).is_err());
        assert!(asked(&["-t", "mmp.xfs", "-o", "fstype=ext4"]).expect_err("is two").contains("contradict"));
        assert_eq!(asked(&["-t", "mmp", "-o", "fstype=auto"]).expect("is").filesystem, None);
    }
}
