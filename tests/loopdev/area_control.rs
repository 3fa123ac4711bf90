//! A control LUN: slots that two hosts add, remove, rename and hold at once, for what has no room for an area of its own; and one with as
//! many slots as there can be.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use mmpguard::driver::AreaView;
use mmpguard::format::area::{EntryState, SlotBlock, SlotEntry, slot_name, whole_block};
use mmpguard::format::{Image, MMP_STRUCT_BYTES};
use mmpguard::io::Device;
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::Case;
use crate::harness::areas::{Content, Made};
use crate::harness::lun::{Lun, text};
use crate::harness::{observed, seconds};

pub(crate) const CASES: &[Case] = &[
    ("area_6_a_control_area_has_65536_slots_and_the_last_one_works", as_many_as_there_are),
    ("area_5_two_hosts_add_slots_at_once_and_get_different_ones", added_at_once),
    ("area_5_a_slot_that_is_held_is_neither_removed_nor_renamed", held),
    ("area_5_a_slot_guards_its_own_target_and_no_other", other_target),
];

const SLOTS: u32 = 65_536;

fn list(control: &Lun) -> Vec<(u64, String)> {
    let end = control.verb(&["area", "list", "--json", control.b.path()]);
    let report: Value = serde_json::from_str(&end.expect(0).out).expect("is JSON");
    let slots = report["slots"].as_array().unwrap_or_else(|| panic!("no slots: {report:#}"));
    let one = |slot: &Value| {
        (slot["number"].as_u64().expect("has one"), slot["name"].as_str().expect("has one").to_owned())
    };
    slots.iter().map(one).collect()
}

fn added_at_once() {
    let case = "area 5";
    let control = Lun::control(20);
    let mut refused = 0;
    for round in 0..4 {
        let waiting: &[&str] = if round % 2 == 0 { &["--wait", "30s"] } else { &[] };
        let add = |on: &str, name: &str| {
            let mut arguments = vec!["area", "slot", "add"];
            arguments.extend(waiting);
            arguments.extend([on, name]);
            control.mmp(&arguments)
        };
        let names = [format!("one-{round}"), format!("other-{round}")];
        let mut adding = [add(control.a.path(), &names[0]), add(control.b.path(), &names[1])];
        let ends = adding.each_mut().map(|adding| adding.end(seconds(60)));
        for (end, (name, on)) in ends.iter().zip(names.iter().zip([&control.a, &control.b])) {
            if end.code != 0 {
                assert!(waiting.is_empty(), "it was to wait: {end:?}");
                end.expect(1).says("in use elsewhere");
                refused += 1;
                control.verb(&["area", "slot", "add", "--wait", "30s", on.path(), name]).expect(0);
            }
        }
        assert!(ends.iter().any(|end| end.code == 0), "neither: {ends:?}");
    }
    let slots = list(&control);
    let mut numbers: Vec<u64> = slots.iter().map(|(number, _)| *number).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (0..=8).collect::<Vec<_>>(), "{slots:?}");
    observed(case, &format!("8 slots by two hosts at once: 8 numbers; {refused} refused without --wait"));
    let twice = control.verb(&["area", "slot", "add", control.a.path(), "one-0"]);
    assert!(twice.code != 0, "{twice:?}");
    twice.says("one-0");
    control.verb(&["area", "repair", control.a.path()]).expect(0).says("nothing needed a repair");
}

fn held() {
    let control = Lun::control(4);
    control.slot("data");
    let [on_a, on_b] = [&control.a, &control.b].map(|on| format!("{}:data", on.path()));
    let mut run = control.mmp(&["run", "--node", "alpha", &on_a, "--", "sleep", "1000"]);
    run.says("held", seconds(30));
    for verb in [&["remove", control.b.path(), "data"][..], &["rename", control.b.path(), "data", "other"]] {
        let refused = control.verb(&[&["area", "slot"], verb].concat());
        refused.expect(1).says("in use elsewhere").says("alpha");
    }
    control.run_true(&on_b).expect(121).says("alpha");
    control.verb(&["check", &on_b]).expect(1);
    control.verb(&["area", "destroy", control.b.path()]).expect(1).says("in use elsewhere");
    assert!(!run.has_ended(), "{}", run.err());
    run.process().signal(Signal::SIGTERM);
    run.end(seconds(20));
    let generation = control.shown(&on_b)["generation"].as_u64().expect("is told");
    control.verb(&["area", "slot", "rename", control.b.path(), "data", "other"]).expect(0);
    control.run_true(&on_b).expect(122).says("no slot \"data\"");
    let renamed = format!("{}:other", control.a.path());
    control.run_true(&renamed).expect(0);
    assert!(control.shown(&renamed)["generation"].as_u64() > Some(generation));
    control.verb(&["area", "slot", "remove", control.a.path(), "other"]).expect(0).says("is free");
    control.run_true(&renamed).expect(122).says("no slot \"other\"");
    // Whoever gets its number next goes on with its generations.
    control.slot("next");
    let next = format!("{}:1", control.b.path());
    control.run_true(&next).expect(0);
    assert!(control.shown(&next)["generation"].as_u64() > Some(generation + 1));
    control.verb(&["area", "destroy", control.b.path()]).expect(0).says("there is no area any more");
    control.run_true(&next).expect(120).says("there is no area");
}

fn other_target() {
    let case = "area 5, targets";
    let control = Lun::control(4);
    let [right, wrong] = [Content::Ext3, Content::Xfs].map(|content| Lun::holding(content, Made::default()));
    let [on_a, on_b] = [&control.a, &control.b].map(|on| format!("{}:data", on.path()));
    control.verb(&["enable", right.a.path(), "--area", &on_a]).expect(0).says("guarded by slot 1");
    control.verb(&["enable", right.b.path(), "--area", &on_b]).expect(0).says("guarded by slot 1");
    let again = format!("{}:again", control.a.path());
    control.verb(&["enable", right.a.path(), "--area", &again]).expect(7).says("guards it already");
    let before = wrong.digest();
    for verb in [
        &["run", "--area", &on_b, wrong.a.path(), "--", "true"][..],
        &["check", "--area", &on_b, wrong.a.path()],
    ] {
        let refused = control.verb(verb);
        assert_eq!(refused.code, if verb[0] == "run" { 120 } else { 7 }, "{refused:?}");
        refused.says("guards the UUID");
    }
    wrong.mount_fails_by(&on_b, 7, "guards the UUID");
    assert_eq!(wrong.digest(), before, "a refusal wrote something");

    let mounted = right.guarded(&right.a, &["--area", &on_a]);
    control.verb(&["check", "--area", &on_b, right.b.path()]).expect(1).says("in use elsewhere");
    control
        .verb(&["run", "--area", &on_b, right.b.path(), "--", "true"])
        .expect(121)
        .says("in use elsewhere");
    right.mount_fails_by(&on_b, 1, "in use elsewhere");
    // Without the slot that guards it, it is not mounted either.
    right.mount_fails(&right.b, 7, "");
    right.unmount_and_wait(&right.a, &mounted.dir);
    assert_eq!(control.slot_state(&on_b), "released");
    // What has an area of its own is not given another protection.
    let own = Lun::protected(Content::Xfs, Made::default());
    let more = format!("{}:more", control.a.path());
    own.verb(&["enable", own.a.path(), "--area", &more]).expect(7).says("protected already");
    observed(case, "another UUID: run, check and mount refused; guarded by one slot on both hosts");
}

fn as_many_as_there_are() {
    let case = "area 6";
    let lun = Lun::blank(1 << 20);
    let file = lun.file("control");
    let path = text(&file);
    let created =
        lun.mmp(&["area", "create", "--slots", "65536", "--interval", "500ms", path]).end(seconds(300));
    created.expect(0).says("an area of 65536 slots");
    let bytes = file.metadata().expect("is there").len();
    assert_eq!(bytes, (2 * 65_537 + 2) * 4096);
    let mut figures = vec![format!("create {:.2?} ({} MiB)", created.took, bytes >> 20)];
    let mut timed = |what: &str, arguments: &[&str]| {
        let end = lun.verb(arguments);
        end.expect(0);
        figures.push(format!("{what} {:.2?}", end.took));
        end
    };
    timed("list of none", &["area", "list", path]);
    timed("first add", &["area", "slot", "add", path, "first"]);
    fill(&file);
    let added = timed("last add", &["area", "slot", "add", path, "last"]);
    added.says("slot 65536 is \"last\"");
    let all = timed("list of all", &["area", "list", path]);
    assert_eq!(all.out.lines().count(), 1 + 1 + 65_536, "a head, the lock and all of them");
    let last = format!("{path}:last");
    timed("run on the last, by name", &["run", &last, "--", "true"]);
    timed("run on the last, by number", &["run", &format!("{path}:65536"), "--", "true"]);
    let shown = timed("show by name", &["show", &last]);
    shown.says("slot 65536 \"last\"").says("released");
    let full = lun.verb(&["area", "slot", "add", path, "one-more"]);
    assert!(full.code != 0, "{full:?}");
    observed(case, &figures.join(", "));
}

/// Gives every free slot but the last one a name, as another implementation of the format would.
fn fill(path: &Path) {
    let view = AreaView::find(&Device::inspect(path).expect("inspects")).expect("reads").expect("is there");
    let like = view.read_slot(1).expect("reads");
    let (block, entry) = (like.block.expect("decodes"), like.entry.expect("decodes"));
    let (mut blocks, mut entries) = (Vec::new(), Vec::new());
    for slot in 2..SLOTS {
        let name = slot_name(format!("slot-{slot}").as_bytes()).expect("is one");
        let mut image: Image = [0; MMP_STRUCT_BYTES];
        let mut record = block.record;
        (record.slot, record.name) = (slot, name);
        SlotBlock { block: block.block, record }.encode_into(&mut image, view.header.seed());
        blocks.extend(whole_block(&image));
        let mut image: Image = [0; MMP_STRUCT_BYTES];
        SlotEntry { slot, name, state: EntryState::Used, ..entry }.encode_into(&mut image);
        entries.extend(whole_block(&image));
    }
    let file = File::options().write(true).open(path).expect("opens");
    let at = |offset: Option<u64>| offset.expect("there is such a slot");
    file.write_all_at(&blocks, at(view.layout.slot_offset_bytes(2))).expect("writes");
    file.write_all_at(&entries, at(view.layout.entry_offset_bytes(2))).expect("writes");
    file.sync_all().expect("syncs");
}
