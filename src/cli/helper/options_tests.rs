//! Any string of options is sorted whole or refused with its name.

use proptest::prelude::*;

use super::*;

fn sorted(options: &str) -> Sorted {
    sort(&[options.into()]).expect("is sorted")
}

fn text(options: &[OsString]) -> String {
    joined(options).into_string().expect("is UTF-8")
}

#[test]
fn what_mount_8_hands_over_is_sorted() {
    let all = "rw,noatime,noexec,nosuid,nodev,fstype=xfs,mmp.wait=5m,logdev=/dev/sdb,mmp.with=/dev/sdb,_netdev,nofail,users,x-foo=1";
    let sorted = sorted(all);
    assert_eq!(sorted.filesystem.as_deref(), Some(OsStr::new("xfs")));
    assert_eq!(sorted.guard, ["--wait=5m", "--with=/dev/sdb"]);
    assert_eq!(text(&sorted.kernel), "noatime,noexec,nosuid,nodev,logdev=/dev/sdb");
    assert_eq!(text(&sorted.table), "_netdev,x-foo=1");
    assert!(!sorted.read_only && !sorted.remount && sorted.no_fail);
}

#[test]
fn a_remount_is_told_from_a_mount() {
    let sorted = sorted("ro,relatime,remount,helper=mmp,uhelper=mmp");
    assert!(sorted.remount && sorted.read_only);
    assert_eq!(
        (text(&sorted.kernel), text(&sorted.helpers)),
        ("relatime".into(), "helper=mmp,uhelper=mmp".into())
    );
}

#[test]
fn the_last_one_counts_but_devices_add_up() {
    let sorted = sort(&["mmp.wait=1m,mmp.with=a,ro".into(), "mmp.wait=2m,mmp.with=b,rw,fstype=auto".into()]);
    let sorted = sorted.expect("is sorted");
    assert_eq!(sorted.guard, ["--with=a", "--wait=2m", "--with=b"]);
    assert!(!sorted.read_only);
}

#[test]
fn a_ladder_has_plus_signs_or_quoted_commas() {
    for typed in [
        "mmp.on-loss=dm+exec:/a+reboot",
        "mmp.on-loss=\"dm,exec:/a,reboot\"",
        "mmp.on-loss=dm\\,exec:/a\\,reboot",
    ] {
        assert_eq!(sorted(typed).guard, ["--on-loss=dm,exec:/a,reboot"], "{typed}");
    }
    assert_eq!(sorted("mmp.on-loss=\"exec:/a+b,reboot\"").guard, ["--on-loss=exec:/a+b,reboot"]);
}

#[test]
fn quotes_hold_an_option_together() {
    let sorted = sorted("context=\"system_u:object_r:tmp_t:s0:c1,ro\",noatime,,");
    assert!(!sorted.read_only);
    assert_eq!(text(&sorted.kernel), "context=\"system_u:object_r:tmp_t:s0:c1,ro\",noatime");
}

#[test]
fn what_is_wrong_is_named() {
    for (wrong, told) in [
        ("mmp.frobnicate", "mmp.frobnicate: there is no such option; there are mmp.area=TARGET:SLOT"),
        ("mmp.", "no such option"),
        ("mmp.wait", "mmp.wait=DURATION: its value is missing"),
        ("mmp.wait=", "mmp.wait=DURATION: its value is missing"),
        ("mmp.incomplete-fence=yes", "mmp.incomplete-fence: takes no value"),
        ("fstype", "fstype= takes a type"),
        ("fstype=", "fstype= takes a type"),
        ("mmp.\x1b[2J", "\\u{1b}"),
    ] {
        let error = sort(&[wrong.into()]).expect_err(wrong);
        assert!(error.contains(told) && !error.contains('\x1b'), "{wrong}: {error}");
    }
}

fn kernel_option() -> impl Strategy<Value = String> {
    "[a-w][a-z0-9]{0,6}(=[a-z0-9/:]{0,6}|=\"[a-z,=]{0,6}\"|=[a-z]\\\\,[a-z])?".prop_filter(
        "means something here",
        |option| {
            let name = option.split('=').next().unwrap_or_default();
            !SPENT.contains(&name)
                && !["fstype", "remount", "nofail", "ro", "rw", "helper", "uhelper"].contains(&name)
        },
    )
}

proptest! {
    /// What is not ours comes out as it went in, in its order, whatever stands between.
    #[test]
    fn nothing_of_the_filesystems_is_lost(
        options in prop::collection::vec(kernel_option(), 0..8),
        between in prop::sample::select(vec!["ro", "mmp.wait=5m", "x-a=b", "noauto", "X-mount.mkdir=0755", "fstype=xfs", ""]),
    ) {
        let typed = options.join(&format!(",{between},"));
        let sorted = sorted(&typed);
        prop_assert_eq!(text(&sorted.kernel), options.join(","));
        // Sorted once more, it stays as it is.
        let again = sort(&[joined(&sorted.kernel)]).expect("is sorted");
        prop_assert_eq!(again.kernel, sorted.kernel);
    }

    /// No byte is too much.
    #[test]
    fn any_bytes_are_sorted_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        match sort(&[OsString::from_vec(bytes)]) {
            Ok(sorted) => prop_assert!(sorted.guard.iter().all(|argument| argument.as_bytes().starts_with(b"--"))),
            Err(error) => prop_assert!(!error.chars().any(char::is_control)),
        }
    }
}
