//! Twenty guarded mounts of one host, every one of them taken down by a plain umount(8).

use mmpguard::clock;
use mmpguard::protocol::sequence::SEQ_CLEAN;

use crate::Case;
use crate::guard_support::{guards, mount_on, records};
use crate::harness::lun::{Lun, RUNTIME, must, text};
use crate::harness::started::patiently;
use crate::harness::{at_most, seconds};

pub(crate) const CASES: &[Case] = &[("guard_07_twenty_mounts_are_unmounted_plainly_in_any_order", twenty)];

const MOUNTS: usize = 20;

fn twenty() {
    let luns: Vec<Lun> = (0..MOUNTS).map(|_| Lun::new()).collect();
    // One host has one registry.
    let registry = luns[0].file(RUNTIME);
    let env = [("MMP_RUNTIME_DIR", text(&registry).to_owned())];
    let started: Vec<_> = luns
        .iter()
        .map(|lun| {
            let to = lun.mount_point();
            (mount_on(lun, lun.a.path(), &to, &[], &env), to)
        })
        .collect();
    let mut dirs = Vec::new();
    for (mut mounting, to) in started {
        let mounted = mounting.end(seconds(90));
        at_most("7", "a guarded mount among twenty", mounted.expect(0).took, 24.5);
        dirs.push(to);
    }
    assert_eq!(records(&luns[0]).iter().filter(|name| name.ends_with(".json")).count(), MOUNTS);
    let status = luns[0].mmp(&["status", "--json"]).end(seconds(30));
    assert_eq!(status.expect(0).out.matches("\"guarding\"").count(), MOUNTS, "{status:?}");
    for (lun, dir) in luns.iter().zip(&dirs) {
        std::fs::write(dir.join("file"), "x").expect("writes");
        assert_eq!(guards(lun).len(), 2, "{:?}", guards(lun));
    }

    let mut order: Vec<usize> = (0..MOUNTS).collect();
    fastrand::shuffle(&mut order);
    let began = clock::mono();
    for at in &order {
        must("umount", &[text(&dirs[*at])]);
    }
    let left = || luns.iter().flat_map(guards).next().is_none() && records(&luns[0]).is_empty();
    let gone = patiently(seconds(20), || left().then(clock::mono));
    let gone = gone.unwrap_or_else(|| panic!("left of {order:?}: {:?}", records(&luns[0])));
    at_most("7", "from twenty plain umounts to no guard", gone.since(began), 8.0);
    for lun in &luns {
        assert_eq!(lun.raw().read().seq, SEQ_CLEAN, "{}", lun.a.path());
    }
    let status = luns[0].mmp(&["status"]).end(seconds(30));
    status.expect(0).says("nothing is guarded on this host");
}
