//! MMP areas: the codec against the test vectors of `mmp-format.md`, and against `tests/area_reader.py`, which was
//! written from that document alone: each reads what the other one makes.

mod vectors;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Output};

use mmpguard::format::area::record::check_interval_s;
use mmpguard::format::area::{
    AreaDamage, AreaError, AreaHeader, AreaLayout, AreaPlace, Choice, EntryState, GuardRecord, HeaderRole,
    SlotBlock, SlotEntry, SlotName, SlotState, choose, counterpart, image_of, last_block_offset_bytes,
    slot_name, whole_block,
};
use mmpguard::format::{ChecksumSeed, DeviceName, Image, MMP_STRUCT_BYTES, MmpBlock, Name, NodeName};
use serde_json::{Value, json};
use vectors::{Vector, parse, uuid, vectors};

const CLEAN: u32 = 0xFF4D_4D50;

/// The field that an error is about, and whether it is damage.
fn field(error: AreaError) -> (&'static str, bool) {
    match error {
        AreaError::Damaged { damage: AreaDamage::Field { field, .. } } => (field, true),
        AreaError::Damaged { damage: AreaDamage::Contradiction { .. } } => ("mmp_seq", true),
        AreaError::Unsupported { field, .. } => (field, false),
        other => panic!("{other}"),
    }
}

/// Checks an error against "damaged FIELD" or "unsupported FIELD"; false if the vector is to decode.
fn refused<T: std::fmt::Debug>(vector: &Vector, decoded: &Result<T, AreaError>) -> bool {
    let wanted = |key: &str| vector.values.get(key).map(String::as_str);
    let Some(want) = wanted("damaged").or(wanted("unsupported")) else { return false };
    let error = *decoded.as_ref().expect_err(&vector.title);
    assert_eq!(field(error), (want, wanted("damaged").is_some()), "{}", vector.title);
    true
}

/// What a name in a vector stands for.
fn named(values: &BTreeMap<String, String>, key: &str) -> String {
    if values[key] == "none" { String::new() } else { values[key].clone() }
}

fn role(vector: &Vector) -> HeaderRole {
    match &*vector.values["role"] {
        "header" => HeaderRole::Header,
        "copy" => HeaderRole::Copy,
        other => panic!("{other}"),
    }
}

fn image(vector: &Vector) -> &Image {
    vector.bytes.first_chunk().unwrap()
}

#[test]
fn the_documents_header_vectors_hold() {
    let found = vectors("area_header", Some(MMP_STRUCT_BYTES));
    assert_eq!(found.len(), 4);
    for vector in &found {
        let decoded = AreaHeader::decode(image(vector), role(vector));
        if refused(vector, &decoded) {
            continue;
        }
        let values = &vector.values;
        let want = AreaHeader {
            incompat: 0,
            ro_compat: 0,
            compat: 0,
            uuid: uuid(&values["uuid"]),
            offset_bytes: parse(values, "offset_bytes"),
            target_bytes: parse(values, "target_bytes"),
            slots: parse(values, "slots"),
            interval_ms: parse(values, "interval_ms"),
            created_s: parse(values, "created_s"),
            revision: parse(values, "revision"),
            role: role(vector),
            place: AreaPlace::Tail,
            label: Name::new(&values["label"]),
            content_end_bytes: parse(values, "content_end_bytes"),
            content: Name::new(&values["content"]),
        };
        assert_eq!((decoded, &*values["place"]), (Ok(want), "tail"), "{}", vector.title);
        assert_eq!(want.seed(), ChecksumSeed(vector.hex("area_seed")));
        let mut again = [0; MMP_STRUCT_BYTES];
        want.encode_into(&mut again);
        assert_eq!(&again, image(vector), "{}", vector.title);
    }
    let choice = choose(image(&found[0]), image(&found[1])).unwrap();
    assert_eq!((choice.header.role, choice.repair), (HeaderRole::Header, None));
    assert_eq!(&counterpart(image(&found[0]), HeaderRole::Copy), image(&found[1]));
}

#[test]
fn the_documents_slot_vectors_hold() {
    let found = vectors("area_slot", Some(MMP_STRUCT_BYTES));
    assert_eq!(found.len(), 7);
    for vector in &found {
        let (values, seed) = (&vector.values, vector.seed().unwrap());
        let decoded = SlotBlock::decode(image(vector), seed, parse(values, "slot"));
        if refused(vector, &decoded) {
            continue;
        }
        let slot = decoded.unwrap();
        assert_eq!(slot.block, MmpBlock::decode(image(vector), Some(seed)).unwrap());
        let want = SlotBlock {
            block: MmpBlock {
                seq: vector.hex("sequence"),
                time_s: parse(values, "time"),
                node: NodeName::new(&named(values, "node")),
                device: DeviceName::new(&named(values, "device")),
                check_interval_s: parse(values, "check_interval"),
            },
            record: GuardRecord {
                state: slot.record.state,
                generation: parse(values, "generation"),
                slot: parse(values, "slot"),
                interval_ms: parse(values, "interval_ms"),
                boot_id: uuid(&values["boot_id"]),
                target: uuid(&values["target"]),
                name: SlotName::new(&named(values, "name")),
            },
        };
        assert_eq!((slot, slot.record.state.to_string()), (want, values["state"].clone()));
        assert_eq!(slot.block.check_interval_s, check_interval_s(slot.record.interval_ms));
        let mut again = [0; MMP_STRUCT_BYTES];
        want.encode_into(&mut again, seed);
        assert_eq!(&again, image(vector), "{}", vector.title);
    }
}

#[test]
fn the_documents_entry_vectors_hold() {
    let found = vectors("area_entry", Some(MMP_STRUCT_BYTES));
    assert_eq!(found.len(), 2);
    for vector in &found {
        let values = &vector.values;
        let want = SlotEntry {
            slot: parse(values, "slot"),
            state: if values["state"] == "used" { EntryState::Used } else { EntryState::Free },
            high_water: parse(values, "high_water"),
            target: uuid(&values["target"]),
            name: SlotName::new(&named(values, "name")),
            changed_s: parse(values, "changed_s"),
            area: uuid(&values["area"]),
        };
        let decoded = SlotEntry::decode(image(vector), &want.area, want.slot);
        assert_eq!(decoded, Ok(want), "{}", vector.title);
        let mut again = [0; MMP_STRUCT_BYTES];
        want.encode_into(&mut again);
        assert_eq!(&again, image(vector), "{}", vector.title);
    }
}

/// An area with everything in it, on a target that may be longer.
struct Area {
    header: AreaHeader,
    slots: Vec<SlotBlock>,
    entries: Vec<SlotEntry>,
}

impl Area {
    /// Slot 1 claiming, 2 holding, 3 released, the rest free.
    fn new(place: AreaPlace, layout: AreaLayout, target_bytes: u64) -> Self {
        let offset_bytes = layout.header_offset_bytes();
        let header = AreaHeader {
            incompat: 0,
            ro_compat: 0,
            compat: 0,
            uuid: *b"an area's uuid!!",
            offset_bytes,
            target_bytes,
            slots: layout.slots(),
            interval_ms: 300,
            created_s: 1_700_000_000,
            revision: 5,
            role: HeaderRole::Header,
            place,
            label: Name::new("größe 4"),
            content_end_bytes: if place == AreaPlace::Tail { offset_bytes - 4096 } else { 0 },
            content: Name::new("btrfs"),
        };
        Area {
            header,
            slots: (0..layout.slots()).map(slot).collect(),
            entries: (0..layout.slots()).map(|number| entry(number, header.uuid)).collect(),
        }
    }

    fn write(&self, path: &Path) {
        let layout = self.header.check().unwrap();
        // What stands before and behind the area is no zero.
        let mut bytes = vec![0xa5; usize::try_from(self.header.target_bytes).unwrap()];
        let mut put = |at: u64, image: &Image| {
            let at = usize::try_from(at).unwrap();
            bytes[at..at + 4096].copy_from_slice(&whole_block(image));
        };
        let mut header = [0; MMP_STRUCT_BYTES];
        self.header.encode_into(&mut header);
        put(layout.header_offset_bytes(), &header);
        put(layout.copy_offset_bytes(), &counterpart(&header, HeaderRole::Copy));
        for (number, (slot, entry)) in (0..).zip(self.slots.iter().zip(&self.entries)) {
            let mut image = [0; MMP_STRUCT_BYTES];
            slot.encode_into(&mut image, self.header.seed());
            put(layout.slot_offset_bytes(number).unwrap(), &image);
            let mut image = [0; MMP_STRUCT_BYTES];
            entry.encode_into(&mut image);
            put(layout.entry_offset_bytes(number).unwrap(), &image);
        }
        std::fs::write(path, bytes).unwrap();
    }

    /// What the reader should print.
    fn json(&self) -> Value {
        json!({
            "header": header_json(&self.header),
            "repair": null,
            "slots": self.slots.iter().map(slot_json).collect::<Vec<_>>(),
            "entries": self.entries.iter().map(entry_json).collect::<Vec<_>>(),
        })
    }
}

fn name_of(number: u32) -> SlotName {
    match number {
        0 => slot_name(b"lock").unwrap(),
        1 => slot_name("größe".as_bytes()).unwrap(),
        2 => slot_name(b"not \xff utf-8").unwrap(),
        3 => slot_name(&[b'n'; 64]).unwrap(),
        _ => SlotName::new(""),
    }
}

fn slot(number: u32) -> SlotBlock {
    let state = match number {
        1 => SlotState::Claiming,
        2 => SlotState::Holding,
        3 => SlotState::Released,
        _ => SlotState::Free,
    };
    SlotBlock {
        block: MmpBlock {
            seq: if state.goes_with(CLEAN) { CLEAN } else { 0xE24D_4D4F - number },
            time_s: 1_700_000_100 + u64::from(number),
            node: NodeName::new("alpha"),
            device: DeviceName::new("mapper/lun-4"),
            check_interval_s: check_interval_s(300),
        },
        record: GuardRecord {
            state,
            generation: u64::from(number) << 40,
            slot: number,
            interval_ms: 300,
            boot_id: [number.to_le_bytes()[0]; 16],
            target: [0xfe; 16],
            name: name_of(number),
        },
    }
}

fn entry(number: u32, area: [u8; 16]) -> SlotEntry {
    SlotEntry {
        slot: number,
        state: if number < 4 { EntryState::Used } else { EntryState::Free },
        high_water: u64::MAX - u64::from(number),
        target: [0xfe; 16],
        name: name_of(number),
        changed_s: 1_700_000_200,
        area,
    }
}

fn hex(bytes: &[u8; 16]) -> String {
    format!("{:032x}", u128::from_be_bytes(*bytes))
}

fn header_json(header: &AreaHeader) -> Value {
    json!({
        "incompat": header.incompat,
        "ro_compat": header.ro_compat,
        "compat": header.compat,
        "uuid": hex(&header.uuid),
        "offset_bytes": header.offset_bytes,
        "target_bytes": header.target_bytes,
        "slots": header.slots,
        "interval_ms": header.interval_ms,
        "created_s": header.created_s,
        "revision": header.revision,
        "place": header.place,
        "label": header.label,
        "content_end_bytes": header.content_end_bytes,
        "content": header.content,
    })
}

fn slot_json(slot: &SlotBlock) -> Value {
    let (block, record) = (&slot.block, &slot.record);
    json!({
        "slot": record.slot,
        "state": record.state,
        "mmp_seq": block.seq,
        "mmp_time": block.time_s,
        "mmp_nodename": block.node,
        "mmp_bdevname": block.device,
        "mmp_check_interval": block.check_interval_s,
        "generation": record.generation,
        "interval_ms": record.interval_ms,
        "boot_id": hex(&record.boot_id),
        "target": hex(&record.target),
        "name": record.name,
    })
}

fn entry_json(entry: &SlotEntry) -> Value {
    json!({
        "slot": entry.slot,
        "state": entry.state,
        "high_water": entry.high_water,
        "target": hex(&entry.target),
        "name": entry.name,
        "changed_s": entry.changed_s,
    })
}

/// Runs the reader; none where there is no Python.
fn python(arguments: &[&str], path: &Path) -> Option<Output> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/area_reader.py");
    match Command::new("python3")
        .arg("-B")
        .arg(script)
        .arg(arguments[0])
        .arg(path)
        .args(&arguments[1..])
        .output()
    {
        Ok(output) => Some(output),
        Err(error) => {
            let required = std::env::var_os("MMPGUARD_REQUIRE_ROOT").is_some_and(|value| value == "1");
            assert!(
                !required,
                "no python3 here ({error}), and MMPGUARD_REQUIRE_ROOT=1 says that everything must run"
            );
            eprintln!("SKIPPED: no python3 here ({error})");
            None
        }
    }
}

/// What `show` prints, and its exit code.
fn shown(path: &Path, how: &[&str]) -> Option<(Value, Option<i32>)> {
    let output = python(&[&["show"], how].concat(), path)?;
    let text = String::from_utf8_lossy(&output.stdout);
    let printed = serde_json::from_str(&text)
        .unwrap_or_else(|error| panic!("{error}: {text}{}", String::from_utf8_lossy(&output.stderr)));
    Some((printed, output.status.code()))
}

/// Reads a whole area with the codec.
fn read(path: &Path, tail: bool) -> (Choice, Area) {
    let bytes = std::fs::read(path).unwrap();
    let target_bytes = bytes.len() as u64;
    let block =
        |at: u64| -> &Image { image_of(bytes[usize::try_from(at).unwrap()..].first_chunk().unwrap()) };
    let (found, role) = match tail {
        true => (last_block_offset_bytes(target_bytes).unwrap(), HeaderRole::Copy),
        false => (0, HeaderRole::Header),
    };
    let first = AreaHeader::decode(block(found), role).unwrap();
    first.check_position(found, target_bytes).unwrap();
    let layout = first.check().unwrap();
    let choice = choose(block(layout.header_offset_bytes()), block(layout.copy_offset_bytes())).unwrap();
    let header = choice.header;
    let numbers = 0..header.slots;
    let slot = |number: u32| {
        let at = layout.slot_offset_bytes(number).unwrap();
        SlotBlock::decode(block(at), header.seed(), number).unwrap()
    };
    let entry = |number: u32| {
        let at = layout.entry_offset_bytes(number).unwrap();
        SlotEntry::decode(block(at), &header.uuid, number).unwrap()
    };
    let area =
        Area { header, slots: numbers.clone().map(slot).collect(), entries: numbers.map(entry).collect() };
    (choice, area)
}

/// Every place, with the arguments that find it.
fn areas() -> [(Area, &'static [&'static str]); 3] {
    let tail_bytes = 100 * 4096 + 512;
    let tail = AreaLayout::tail(tail_bytes, 7).unwrap();
    let alone = AreaLayout::new(0, 6).unwrap();
    [
        (Area::new(AreaPlace::Tail, tail, tail_bytes), &["--tail"]),
        (Area::new(AreaPlace::Whole, alone, 1 << 20), &[]),
        (Area::new(AreaPlace::File, alone, alone.total_bytes()), &[]),
    ]
}

#[test]
fn python_reads_what_the_codec_makes() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("area");
    for (area, how) in areas() {
        area.write(&path);
        let (choice, again) = read(&path, !how.is_empty());
        assert_eq!((choice.repair, again.json()), (None, area.json()));
        let Some(printed) = shown(&path, how) else { return };
        assert_eq!(printed, (area.json(), Some(0)));
    }
}

#[test]
fn python_reads_what_the_codec_makes_when_it_is_damaged() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("area");
    let (area, how) = areas().into_iter().next().unwrap();
    area.write(&path);
    let layout = area.header.check().unwrap();
    let mut bytes = std::fs::read(&path).unwrap();
    let mut flip = |at: u64| {
        bytes[usize::try_from(at).unwrap()] ^= 0x20;
        std::fs::write(&path, &bytes).unwrap();
    };
    // What a reader has to ignore.
    flip(layout.header_offset_bytes() + 1024);
    flip(layout.slot_offset_bytes(2).unwrap() + 4095);
    let Some(printed) = shown(&path, how) else { return };
    assert_eq!(printed, (area.json(), Some(0)));
    // What it has to find.
    flip(layout.slot_offset_bytes(2).unwrap() + 0x300);
    flip(layout.entry_offset_bytes(3).unwrap() + 1);
    flip(layout.header_offset_bytes() + 0x40);
    let mut want = area.json();
    want["repair"] = json!("header");
    want["slots"][2] = json!({ "slot": 2, "damaged": "checksum" });
    want["entries"][3] = json!({ "slot": 3, "damaged": "magic" });
    assert_eq!(shown(&path, how), Some((want, Some(0))));
    flip(layout.copy_offset_bytes() + 0x200);
    assert_eq!(shown(&path, how), Some((json!({ "damaged": "checksum" }), Some(3))));
    // A device that grew, by less than a block: found, but not believed.
    area.write(&path);
    let grown = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    grown.set_len(area.header.target_bytes + 512).unwrap();
    assert_eq!(shown(&path, how), Some((json!({ "moved": "target_bytes" }), Some(3))));
}

#[test]
fn the_codec_reads_what_python_makes() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("area");
    for (place, slots, want) in [("whole", "2", AreaPlace::Whole), ("file", "5", AreaPlace::File)] {
        let named =
            ["--label", "größe 4", "--place", place, "--name", "db größe", "--created-s", "1700000000"];
        let made =
            python(&[&["make", "--slots", slots, "--interval-ms", "9999"][..], &named].concat(), &path);
        let Some(made) = made else { return };
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let (choice, area) = read(&path, false);
        assert_eq!((choice.repair, choice.header.place), (None, want));
        let header = area.header;
        assert_eq!((header.slots.to_string(), header.interval_ms, header.revision), (slots.into(), 9999, 1));
        assert_eq!((header.label, header.created_s), (Name::new("größe 4"), 1_700_000_000));
        for (slot, entry) in area.slots.iter().zip(&area.entries) {
            assert_eq!((slot.record.state, slot.block.seq), (SlotState::Free, CLEAN));
            assert_eq!((slot.record.generation, entry.high_water), (0, 0));
            assert_eq!(slot.block.check_interval_s, check_interval_s(header.interval_ms));
            let name = ["lock", "db größe", ""][usize::try_from(entry.slot.min(2)).unwrap()];
            assert_eq!((slot.record.name, entry.name), (SlotName::new(name), SlotName::new(name)));
            assert_eq!(entry.state == EntryState::Used, entry.slot < 2);
        }
        assert_eq!(shown(&path, &[]), Some((area.json(), Some(0))));
        // Byte for byte what the codec makes of the same.
        let bytes = std::fs::read(&path).unwrap();
        area.write(&path);
        assert!(std::fs::read(&path).unwrap() == bytes);
    }
}
