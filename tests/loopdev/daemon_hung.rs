//! A daemon that dies while a thread of it hangs in a device: what remains of its process keeps every descriptor that it had, and none of its
//! other guards is to suffer from that.

use nix::sys::signal::Signal;
use serde_json::json;

use mmpguard::clock;

use crate::Case;
use crate::guard_support::mount_on;
use crate::harness::areas::{Content, Made};
use crate::harness::daemon::{Daemon, together};
use crate::harness::lun::{Lun, must, text, unmount};
use crate::harness::process::Process;
use crate::harness::started::{Ended, patiently};
use crate::harness::{observed, seconds};
use crate::outage::Disk;

pub(crate) const CASES: &[Case] = &[(
    "daemon_2_what_a_dead_one_that_hangs_in_another_device_had_open_is_released_and_mounted_again",
    beside,
)];

fn beside() {
    let disk = Disk::new();
    let hanging = disk.lun();
    // We beat both: one that is written to is kept open.
    let other = Lun::protected(Content::Ext3, Made::default());
    let env = together(&hanging);
    let mmp = |arguments: &[&str]| -> Ended {
        other.start_with(env!("CARGO_BIN_EXE_mmp"), arguments, &env).end(seconds(90))
    };
    let first = Daemon::with(&hanging, env!("CARGO_BIN_EXE_mmp"), &env);
    let (hangs_on, dir) = (hanging.mount_point(), other.mount_point());
    mount_on(&hanging, hanging.a.path(), &hangs_on, &["-r"], &env).end(seconds(60)).expect(0);
    mount_on(&other, other.a.path(), &dir, &[], &env).end(seconds(60)).expect(0);

    // Whatever fails, what hangs is let go before a daemon is waited for.
    let second;
    let frozen = disk.freeze();
    let dead = first.process();
    clock::sleep(seconds(3));
    assert!(hangs(&dead), "nothing hangs: {}", dead.states());
    dead.signal(Signal::SIGKILL);
    second = Daemon::with(&hanging, env!("CARGO_BIN_EXE_mmp"), &env);
    let taken_over = || {
        let list = second.call("monitor.sock", "List", &json!({}));
        let guards = list["parameters"]["guards"].as_array().cloned().unwrap_or_default();
        let ours = guards.into_iter().find(|guard| guard["device"] == other.a.path())?;
        (ours["driver_pid"] == second.process().pid && ours["state"] == "guarding").then_some(())
    };
    assert!(patiently(seconds(10), taken_over).is_some(), "{}", second.said());
    assert!(hangs(&dead), "it let go too early: {}", dead.states());

    let begun = clock::mono();
    must("umount", &[text(&dir)]);
    let released = mmp(&["umount", "--wait", "20s", text(&dir)]);
    observed("daemon 2", &format!("released beside a dead daemon: {}", released.text().trim()));
    assert!(hangs(&dead), "it let go too early: {}", dead.states());
    mmp(&["check", other.b.path()]).expect(0).says("free");
    mount_on(&other, other.a.path(), &dir, &[], &env).end(seconds(60)).expect(0);
    assert!(hangs(&dead), "it let go too early: {}", dead.states());
    observed("daemon 2", &format!("released and mounted again in {:?}", clock::mono().since(begun)));
    mmp(&["umount", text(&dir)]).expect(0).says("released");
    other.forget_mount(&dir);

    drop(frozen);
    unmount(&hangs_on);
    hanging.forget_mount(&hangs_on);
    second.stop().expect(0);
    drop(first);
}

/// One of its threads is in the kernel, and cannot be woken.
fn hangs(process: &Process) -> bool {
    process.states().contains('D')
}
