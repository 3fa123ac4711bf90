//! A layer that holds I/O back for ever: found before anything is mounted on it.

use crate::book::{Book, Guarded};
use crate::harness::{Lab, Outcome, Spec, Vm};
use crate::{Scenario, Set};

pub(crate) const SCENARIOS: &[Scenario] =
    &[Scenario { name: "queue_if_no_path", set: Set::Short, run: queue_if_no_path }];

/// What mmp says about a multipath that queues, made as multipathd makes one and by hand, and about one that does not.
fn queue_if_no_path(book: &Book) -> Outcome<()> {
    let lab = Lab::new()?;
    let disk = lab.disk("shared0", 64)?;
    disk.make_ext4()?;
    let vm = Vm::boot(&lab, Spec::new("alpha", &[&disk]))?;
    vm.must("modprobe dm-multipath && modprobe dm-round-robin && mkdir -p /mnt/a")?;
    let promise = book.promise(
        "multipath with queue_if_no_path",
        Guarded::Mmp,
        "`fence --test` tells it, `mount` refuses with exit status 7, writes nothing and says how to change it; not once it does not queue",
    );
    let before = disk.snapshot()?;
    let (mut kept, mut words) = (true, Vec::new());
    for (name, uuid, way_out) in
        [("mpatha", "--uuid mpath-3600", "disablequeueing"), ("plain", "", "fail_if_no_path")]
    {
        vm.must(&format!(
            "set -e; size=$(blockdev --getsz {0}); number=$(cat /sys/block/$(basename $(readlink {0}))/dev); \
             dmsetup create {name} {uuid} --table \"0 $size multipath 1 queue_if_no_path 0 1 1 round-robin 0 1 1 $number 1\"; \
             dmsetup mknodes",
            disk.node()
        ))?;
        let told = vm.run(&format!("mmp fence --test /dev/mapper/{name}"))?;
        let refused = vm.run(&format!("mmp mount /dev/mapper/{name} /mnt/a"))?;
        let says = |text: &str| text.contains("queue_if_no_path") && text.contains(way_out);
        let both = told.stdout.clone() + &told.stderr;
        kept &= says(&both) && says(&refused.stderr) && refused.code == 7;
        words.push(format!(
            "{name}: told: {}, mount's exit status {} after {:.2} s",
            says(&both),
            refused.code,
            refused.seconds
        ));
        vm.must(&format!("dmsetup message {name} 0 fail_if_no_path"))?;
        let told = vm.run(&format!("mmp fence --test /dev/mapper/{name}"))?;
        kept &= told.ok() && !told.stdout.contains("queue_if_no_path");
        vm.must(&format!("dmsetup remove {name}"))?;
    }
    let changed = before.changed(&disk.snapshot()?, &[]).len();
    promise.judge(kept && changed == 0, &format!("{}; {changed} blocks changed", words.join("; ")))
}
