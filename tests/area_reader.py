#!/usr/bin/env python3
"""Reads and writes MMP areas, from what mmp-format.md says alone (section "MMP areas"): no code of the crate was used.

    area_reader.py show FILE [--tail]
    area_reader.py make FILE --slots N --interval-ms U --label L
                   [--place whole|file] [--name NAME ...] [--uuid HEX] [--created-s S]

`show` prints JSON, and exits with 3 if there is no area, a damaged one or one of a later version.
"""

import argparse
import json
import struct
import sys
import time
import uuid

BLOCK = 4096
CARRYING = 1024
CHECKSUM_AT = 0x3FC
PLACES = {1: "tail", 2: "whole", 3: "file"}
STATES = {0: "free", 1: "released", 2: "claiming", 3: "holding"}
CLEAN = 0xFF4D4D50
SEQ_MAX = 0xE24D4D4F


def crc32c_table():
    table = []
    for value in range(256):
        for _ in range(8):
            value = (value >> 1) ^ (0x82F63B78 if value & 1 else 0)
        table.append(value)
    return table


TABLE = crc32c_table()


def crc32c(seed, data):
    """Without inversion at either end."""
    for byte in data:
        seed = TABLE[(seed ^ byte) & 0xFF] ^ (seed >> 8)
    return seed


class Refused(Exception):
    """Damage or a later version; `kind` says which."""

    def __init__(self, kind, text):
        super().__init__(text)
        self.kind = kind


def damaged(text):
    return Refused("damaged", text)


def later(text):
    return Refused("unsupported", text)


def text(field):
    return field.split(b"\0")[0].decode("utf-8", "backslashreplace")


def valid_name(name):
    if not 1 <= len(name) <= 64 or name.isdigit():
        return False
    return not any(byte < 0x20 or byte in b"/:\x7f" for byte in name)


def check_name(field, slot, may_be_empty):
    name = field.split(b"\0")[0]
    if may_be_empty and not name:
        return
    if not valid_name(name) or (slot == 0 and name != b"lock"):
        raise damaged("name")


def check_magic(block, at, magic):
    if block[at:at + len(magic)] != magic:
        raise damaged("magic")


def check_checksum(block, seed):
    if struct.unpack_from("<I", block, CHECKSUM_AT)[0] != crc32c(seed, block[:CHECKSUM_AT]):
        raise damaged("checksum")


def decode_header(block, role):
    check_magic(block, 0, b"mmpguard area\r\n\x1a")
    check_checksum(block, 0xFFFFFFFF)
    incompat, ro_compat, compat, block_bytes = struct.unpack_from("<IIII", block, 0x010)
    offset, target, slots, interval, created, revision = struct.unpack_from("<QQIIQQ", block, 0x030)
    found_role, place = struct.unpack_from("<HH", block, 0x058)
    (content_end,) = struct.unpack_from("<Q", block, 0x0A0)
    if incompat:
        raise later("incompat")
    if block_bytes != BLOCK:
        raise later("block_bytes")
    if place not in PLACES:
        raise later("place")
    if found_role != role:
        raise damaged("role")
    if not 2 <= slots <= 65537:
        raise damaged("slots")
    if not 100 <= interval <= 10000:
        raise damaged("interval_ms")
    end = offset + (2 * slots + 2) * BLOCK
    if offset % BLOCK or end >= 1 << 63:
        raise damaged("offset_bytes")
    if end > target:
        raise damaged("target_bytes")
    if place == 1 and end != target // BLOCK * BLOCK or place != 1 and offset:
        raise damaged("offset_bytes")
    if content_end > (offset if place == 1 else 0):
        raise damaged("content_end_bytes")
    return {
        "incompat": incompat,
        "ro_compat": ro_compat,
        "compat": compat,
        "uuid": block[0x020:0x030].hex(),
        "offset_bytes": offset,
        "target_bytes": target,
        "slots": slots,
        "interval_ms": interval,
        "created_s": created,
        "revision": revision,
        "place": PLACES[place],
        "label": text(block[0x060:0x0A0]),
        "content_end_bytes": content_end,
        "content": text(block[0x0A8:0x0B8]),
    }


def decode_slot(block, seed, number):
    check_magic(block, 0, struct.pack("<I", 0x004D4D50))
    check_checksum(block, seed)
    check_magic(block, 0x080, b"GRD1")
    seq, when = struct.unpack_from("<IQ", block, 0x004)
    (check_interval,) = struct.unpack_from("<H", block, 0x070)
    version, state, generation, slot, interval = struct.unpack_from("<HHQII", block, 0x084)
    if version != 1:
        raise later("version")
    if state not in STATES:
        raise later("state")
    if slot != number:
        raise damaged("slot")
    if not 100 <= interval <= 10000:
        raise damaged("interval_ms")
    check_name(block[0x0C0:0x100], number, state == 0)
    if not (seq == CLEAN if state < 2 else 1 <= seq <= SEQ_MAX):
        raise damaged("mmp_seq")
    return {
        "slot": slot,
        "state": STATES[state],
        "mmp_seq": seq,
        "mmp_time": when,
        "mmp_nodename": text(block[0x010:0x050]),
        "mmp_bdevname": text(block[0x050:0x070]),
        "mmp_check_interval": check_interval,
        "generation": generation,
        "interval_ms": interval,
        "boot_id": block[0x098:0x0A8].hex(),
        "target": block[0x0A8:0x0B8].hex(),
        "name": text(block[0x0C0:0x100]),
    }


def decode_entry(block, seed, area, number):
    check_magic(block, 0, b"MMPSLOT\0")
    check_checksum(block, seed)
    slot, state = struct.unpack_from("<IH", block, 0x008)
    (high_water,) = struct.unpack_from("<Q", block, 0x010)
    (changed,) = struct.unpack_from("<Q", block, 0x068)
    if state > 1:
        raise later("state")
    if block[0x070:0x080] != area:
        raise damaged("area")
    if slot != number:
        raise damaged("slot")
    if number == 0 and state == 0:
        raise damaged("state")
    check_name(block[0x028:0x068], number, state == 0)
    return {
        "slot": slot,
        "state": "used" if state else "free",
        "high_water": high_water,
        "target": block[0x018:0x028].hex(),
        "name": text(block[0x028:0x068]),
        "changed_s": changed,
    }


class Target:
    def __init__(self, path):
        self.file = open(path, "rb")
        self.size = self.file.seek(0, 2)

    def block(self, at):
        """What the block at byte `at` says; torn blocks are read again."""
        self.file.seek(at)
        return self.file.read(BLOCK)[:CARRYING].ljust(CARRYING, b"\0")

    def decoded(self, at, decode, *how):
        for again in range(5):
            if again:
                time.sleep(0.010)
            try:
                return decode(self.block(at), *how)
            except Refused as refused:
                last = refused
                if refused.kind != "damaged":
                    break
        raise last


def attempt(target, at, decode, *how):
    try:
        return target.decoded(at, decode, *how), None
    except Refused as refused:
        return None, refused


def choose(header, header_error, copy, copy_error):
    """Which of the two counts, and which needs repair."""
    for error in (header_error, copy_error):
        if error and error.kind == "unsupported":
            raise error
    if header_error and copy_error:
        raise damaged("both headers")
    if header_error:
        return copy, "header"
    if copy_error:
        return header, "copy"
    if header["uuid"] != copy["uuid"]:
        raise damaged("uuid")
    if header["revision"] != copy["revision"]:
        return (header, "copy") if header["revision"] > copy["revision"] else (copy, "header")
    return header, None


def show(path, tail):
    target = Target(path)
    if tail:
        if target.size < BLOCK:
            raise damaged("size")
        copy_at = (target.size // BLOCK - 1) * BLOCK
        copy = target.decoded(copy_at, decode_header, 1)
        header_at = copy["offset_bytes"]
        header, error = attempt(target, header_at, decode_header, 0)
        chosen, repair = choose(header, error, copy, None)
    else:
        header_at = 0
        header = target.decoded(header_at, decode_header, 0)
        copy_at = (1 + 2 * header["slots"]) * BLOCK
        copy, error = attempt(target, copy_at, decode_header, 1)
        chosen, repair = choose(header, None, copy, error)
    if not repair:
        same = [bytearray(target.block(at)) for at in (header_at, copy_at)]
        for block in same:
            block[0x058:0x05A] = bytes(2)
        if same[0][:CHECKSUM_AT] != same[1][:CHECKSUM_AT]:
            raise damaged("same revision")
    if copy_at != chosen["offset_bytes"] + (1 + 2 * chosen["slots"]) * BLOCK:
        raise Refused("moved", "offset_bytes")
    if chosen["target_bytes"] != target.size:
        raise Refused("moved", "target_bytes")
    area = bytes.fromhex(chosen["uuid"])
    seed = crc32c(0xFFFFFFFF, area)
    slots, entries = [], []
    for number in range(chosen["slots"]):
        at = header_at + (1 + number) * BLOCK
        slot, error = attempt(target, at, decode_slot, seed, number)
        slots.append(slot or {"slot": number, error.kind: str(error)})
        at += chosen["slots"] * BLOCK
        entry, error = attempt(target, at, decode_entry, seed, area, number)
        entries.append(entry or {"slot": number, error.kind: str(error)})
    return {"header": chosen, "repair": repair, "slots": slots, "entries": entries}


def sealed(block, seed):
    struct.pack_into("<I", block, CHECKSUM_AT, crc32c(seed, block[:CHECKSUM_AT]))
    return bytes(block).ljust(BLOCK, b"\0")


def make_header(role, args, area, size):
    block = bytearray(CARRYING)
    block[0:0x010] = b"mmpguard area\r\n\x1a"
    struct.pack_into("<IIII", block, 0x010, 0, 0, 0, BLOCK)
    block[0x020:0x030] = area
    struct.pack_into("<QQIIQQ", block, 0x030, 0, size, args.slots, args.interval_ms, args.created_s, 1)
    struct.pack_into("<HH", block, 0x058, role, 2 if args.place == "whole" else 3)
    label = args.label.encode()
    block[0x060:0x060 + len(label)] = label
    return sealed(block, 0xFFFFFFFF)


def make_slot(number, name, args, seed):
    block = bytearray(CARRYING)
    check_interval = -(-5 * args.interval_ms // 1000)
    struct.pack_into("<IIQ", block, 0, 0x004D4D50, CLEAN, args.created_s)
    struct.pack_into("<H", block, 0x070, check_interval)
    struct.pack_into("<4sHHQII", block, 0x080, b"GRD1", 1, 0, 0, number, args.interval_ms)
    block[0x0C0:0x0C0 + len(name)] = name
    return sealed(block, seed)


def make_entry(number, name, args, seed, area):
    block = bytearray(CARRYING)
    struct.pack_into("<8sIHHQ", block, 0, b"MMPSLOT\0", number, 1 if name else 0, 0, 0)
    block[0x028:0x028 + len(name)] = name
    struct.pack_into("<Q", block, 0x068, args.created_s)
    block[0x070:0x080] = area
    return sealed(block, seed)


def make(args):
    names = [b"lock"] + [name.encode() for name in args.name]
    if not 2 <= args.slots <= 65537 or len(names) > args.slots:
        sys.exit("--slots: 2 to 65537, and no more names than that leaves room for")
    if not 100 <= args.interval_ms <= 10000:
        sys.exit("--interval-ms: 100 to 10000")
    if len(args.label.encode()) > 64:
        sys.exit("--label: at most 64 bytes")
    if len(set(names)) != len(names) or not all(map(valid_name, names)):
        sys.exit("--name: 1 to 64 bytes without / : and controls, not digits alone, each once")
    area = bytes.fromhex(args.uuid) if args.uuid else uuid.uuid4().bytes
    seed = crc32c(0xFFFFFFFF, area)
    names += [b""] * (args.slots - len(names))
    size = (2 * args.slots + 2) * BLOCK
    with open(args.file, "wb") as file:
        file.write(make_header(0, args, area, size))
        for number, name in enumerate(names):
            file.write(make_slot(number, name, args, seed))
        for number, name in enumerate(names):
            file.write(make_entry(number, name, args, seed, area))
        file.write(make_header(1, args, area, size))


def main():
    parser = argparse.ArgumentParser(description="Reads and writes MMP areas (mmp-format.md).")
    verbs = parser.add_subparsers(dest="verb", required=True)
    shown = verbs.add_parser("show")
    shown.add_argument("file")
    shown.add_argument("--tail", action="store_true", help="found from the last whole block")
    made = verbs.add_parser("make")
    made.add_argument("file")
    made.add_argument("--slots", type=int, required=True, help="in all, the lock among them")
    made.add_argument("--interval-ms", type=int, required=True)
    made.add_argument("--label", required=True)
    made.add_argument("--place", choices=["whole", "file"], default="file")
    made.add_argument("--name", action="append", default=[], help="of slot 1, then 2, ...")
    made.add_argument("--uuid", help="32 hexadecimal digits; random if not given")
    made.add_argument("--created-s", type=int, default=int(time.time()))
    args = parser.parse_args()
    if args.verb == "make":
        make(args)
        return 0
    try:
        print(json.dumps(show(args.file, args.tail), indent=2))
        return 0
    except Refused as refused:
        print(json.dumps({refused.kind: str(refused)}))
        return 3


if __name__ == "__main__":
    sys.exit(main())
