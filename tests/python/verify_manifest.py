"""Verifies the chains of an archive, written from docs/formats/manifest.md alone.

Usage: verify_manifest.py ARCHIVE [--checkpoint FILE] [--public-key FILE] [--policy CLASS=DAYSd,...] [--moved-at DIR] [--trusted-until GATEWAY:LINE]

Prints a finding per line, and the verdict; the exit code is that of docs/formats/manifest.md.
"""

import argparse
import datetime
import hashlib
import json
import os
import re
import sys
import time

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

SIGNATURE = b',"signature":"'
SECOND = 1_000_000_000
DAY = 86_400 * SECOND
NAME = r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,63}"
PATH = re.compile(
    rf"(flows|sessions|devices|coverage|index)/site=({NAME})/date=(\d{{4}}-\d\d-\d\d)/({NAME})-(\d{{10,}})\.(parquet|parquet\.age|index)"
)
# Later ones are worse.
KINDS = ["notice", "unanchored", "moved", "receipt", "doubt", "cut", "damage"]
VERDICTS = {
    "notice": ("ok", 0),
    "unanchored": ("audit_unanchored", 8),
    "moved": ("moved", 5),
    "receipt": ("receipts_unproved", 6),
    "doubt": ("doubtful", 9),
    "cut": ("cut", 7),
    "damage": ("damaged", 3),
}


def split(line):
    """The signed bytes, the object, and the signature."""
    head, _, tail = line.rpartition(SIGNATURE)
    if not head or not tail.endswith(b'"}') or len(tail) != 130:
        raise ValueError("no signature")
    signed = head + b"}"
    return signed, json.loads(signed), bytes.fromhex(tail[:-2].decode())


def is_signed(key, signed, signature):
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(signature, signed)
        return True
    except InvalidSignature:
        return False


def key_id(key):
    return hashlib.sha256(key).hexdigest()[:16]


def parse_path(path):
    """Class, kind, site, day, gateway and sequence; None where it is no path of an archive."""
    match = PATH.fullmatch(path)
    if not match:
        return None
    directory, site, day, gateway, digits, ending = match.groups()
    if (ending == "index") != (directory == "index") or (len(digits) > 10 and digits[0] == "0"):
        return None
    try:
        datetime.date.fromisoformat(day)
    except ValueError:
        return None
    kind = "key" if ending == "parquet.age" else directory
    return {
        "class": "flows" if directory == "index" else directory,
        "kind": kind,
        "label": (directory, ending),
        "site": site,
        "day": day,
        "gateway": gateway,
        "sequence": int(digits),
    }


def day_of(ns):
    return (datetime.date(1970, 1, 1) + datetime.timedelta(days=ns // DAY)).isoformat()


def hash_file(path):
    with open(path, "rb") as file:
        content = file.read()
    return hashlib.sha256(content).hexdigest(), len(content)


def read_chain(archive, gateway):
    """The gateway's own file, or the pieces of a shipped archive in the order of their names."""
    path = os.path.join(archive, "manifest", gateway)
    if os.path.exists(path + ".jsonl"):
        files = [path + ".jsonl"]
    else:
        files = [os.path.join(path + ".lines", name) for name in sorted(os.listdir(path + ".lines"))]
    text = b""
    for name in files:
        with open(name, "rb") as file:
            text += file.read()
    return text


def read_receipts(archive):
    """Where each sequence of each gateway was moved to."""
    path = os.path.join(archive, "shipped", "moved.jsonl")
    receipts = {}
    if os.path.exists(path):
        with open(path) as file:
            for line in file:
                try:
                    receipt = json.loads(line)
                except ValueError:
                    continue
                receipts[receipt["gateway"], receipt["sequence"]] = receipt["to"]
    return receipts


class Elapsed:
    """The time that a chain proves to have passed."""

    def __init__(self):
        self.total, self.last = 0, None

    def advance(self, wall, clock):
        if clock is None:
            return
        if self.last:
            last_wall, last = self.last
            if last["boot"] == clock["boot"]:
                passed = clock["boottime_ns"] - last["boottime_ns"]
            else:
                off = wall - clock["boottime_ns"] - last_wall
                both = last["synchronised"] and clock["synchronised"]
                passed = min(clock["boottime_ns"] + (max(off, 0) if both else 0), wall - last_wall)
            self.total += max(passed, 0)
        self.last = (wall, clock)


class Chain:
    """One gateway's lines."""

    def __init__(self, gateway, key, options, find):
        self.gateway, self.keys, self.options, self.find = gateway, [key], options, find
        self.ended = []
        self.hashes, self.sequence, self.is_strict = [], 0, False
        # By kind and path: what lines introduced.
        self.files, self.sequences = {}, {}
        self.policies, self.holds = [], {}
        self.elapsed = Elapsed()
        self.clock, self.until, self.unexplained = None, None, None

    def read(self, text):
        if text and not text.endswith(b"\n"):
            self.find("damage", None, "the last line has no end")
        prev = "0" * 64
        for number, line in enumerate(text.split(b"\n")[:-1], 1):
            self.hashes.append(hashlib.sha256(line).hexdigest())
            try:
                signed, record, signature = split(line)
                if record["format"] not in (1, 2, 3, 4):
                    raise ValueError("another format")
            except (ValueError, KeyError, TypeError) as error:
                self.find("damage", number, f"is not a manifest line: {error}")
                prev = self.hashes[-1]
                continue
            genuine = record["key"] == key_id(self.keys[-1]) and is_signed(self.keys[-1], signed, signature)
            if not genuine:
                self.find("damage", number, "not signed by the key of its epoch")
            if record["prev"] != prev:
                self.find("damage", number, "does not follow the line before")
            prev = self.hashes[-1]
            own = record["gateway"] == self.gateway
            if not own:
                self.find("damage", number, "another gateway")
            early = record["format"] in (1, 2)
            if early and self.is_strict:
                self.find("damage", number, "an early format after a later one")
            if record["format"] in (1, 3):
                if record["sequence"] != self.sequence + 1:
                    self.find("damage", number, f"sequence {record['sequence']}, expected {self.sequence + 1}")
                self.sequence = record["sequence"]
            if genuine and own:
                self.is_strict = self.is_strict or not early
                self.times(number, record, early)
                if record["format"] in (1, 3):
                    self.introduce(number, record)
                else:
                    self.event(number, record)

    def times(self, number, record, early):
        def find(kind, line, what):
            self.find("notice" if early else kind, line, what)

        wall = record["sealed_ns"] if "sequence" in record else record["at_ns"]
        clock = record.get("clock")
        if clock and self.clock:
            last_wall, last = self.clock
            if last["boot"] == clock["boot"]:
                if clock["boottime_ns"] < last["boottime_ns"]:
                    find("damage", number, "the clock of the boot runs back")
            elif last["synchronised"] and clock["synchronised"]:
                if wall - clock["boottime_ns"] + 60 * SECOND < last_wall:
                    find("doubt", number, "the boot began before the line before was written")
        if clock:
            self.clock = (wall, clock)
        if wall > self.options.now + DAY:
            find("doubt" if clock and clock["synchronised"] else "notice", number, "a time that has not come yet")
        if "sequence" not in record:
            return
        step = record.get("clock_step_ns", 0)
        if self.unexplained:
            line, away, line_early = self.unexplained
            explained = step <= away + SECOND if away < 0 else step >= away - DAY
            if not explained:
                kind = "notice" if line_early else ("damage" if away < 0 else "doubt")
                self.find(kind, line, "was sealed far from its interval")
            self.unexplained = None
        if self.until is not None:
            if record["from_ns"] - self.until < min(step, 0) - SECOND:
                find("damage", number, "begins before the sequence before ended, without a signed step")
            elif step < -SECOND:
                self.find("notice", number, "a clock that was set back")
        self.until = record["to_ns"]
        away = record["sealed_ns"] - record["to_ns"]
        earlier_boot = clock and record["to_ns"] <= record["sealed_ns"] - clock["boottime_ns"] + 60 * SECOND
        if away < -SECOND or (away > DAY and not earlier_boot):
            self.unexplained = (number, away, early)

    def introduce(self, number, record):
        self.elapsed.advance(record["sealed_ns"], record.get("clock"))
        sequence = {
            "line": number,
            "latest": max(record["from_ns"], record["to_ns"], record["sealed_ns"]),
            "elapsed": self.elapsed.total,
            "trusted": self.is_trusted(number),
        }
        self.sequences[record["sequence"]] = sequence
        kinds = set()
        for entry in record["files"]:
            name = parse_path(entry["path"])
            own = name and (name["site"], name["day"], name["gateway"], name["sequence"], name["kind"]) == (
                record["site"],
                day_of(record["from_ns"]),
                self.gateway,
                record["sequence"],
                entry["class"],
            )
            if not own or name["label"] in kinds or not re.fullmatch("[0-9a-f]{64}", entry["sha256"]):
                self.find("damage", number, "names a file that is not its own: " + entry["path"])
                continue
            kinds.add(name["label"])
            if record["format"] == 3 and entry["class"] == name["class"] and "rows_root" not in entry:
                self.find("damage", number, "names no root over the rows of " + entry["path"])
            self.files[entry["path"]] = {"entry": entry, "name": name, "deleted": None, **sequence}

    def is_trusted(self, number):
        until = self.options.trusted_until.get(self.gateway)
        return until is None or number <= until

    def event(self, number, record):
        self.elapsed.advance(record["at_ns"], record.get("clock"))
        ((what, content),) = record["event"].items()
        if what == "epoch":
            if content["epoch"] != len(self.keys) + 1:
                self.find("damage", number, "wrong epoch")
            self.ended.append(number)
            self.keys.append(bytes.fromhex(content["public"]))
        elif what == "policy":
            if self.is_trusted(number):
                self.policies.append((number, content))
        elif what == "hold":
            self.holds.setdefault(content["case"], []).extend(content["sequences"])
        elif what == "lifted":
            if self.is_trusted(number) and self.holds.pop(content["case"], None) is None:
                self.find("damage", number, "lifts what nothing was held for")
        elif what == "deleted":
            for entry in content["files"]:
                why = self.why_not(number, record, entry)
                if why:
                    self.find("damage", number, f"deletes {entry['path']}: {why}")
                else:
                    self.files[entry["path"]]["deleted"] = number

    def why_not(self, number, record, entry):
        """Why a deletion does not count."""
        if not self.is_trusted(number):
            return "the gateway is not trusted any more"
        if record["at_ns"] > self.options.now + DAY:
            return "a time that has not come yet"
        file = self.files.get(entry["path"])
        if file is None or file["entry"]["sha256"] != entry["sha256"]:
            return "no line before names it so"
        if file["deleted"]:
            return "it was deleted before"
        sequence = file["name"]["sequence"]
        for case, ranges in self.holds.items():
            if any(first <= sequence <= last for first, last in ranges):
                return f"it is held for {case}"
        age = min(record["at_ns"] - file["latest"], self.elapsed.total - file["elapsed"])
        before = [at for at, (stated, _) in enumerate(self.policies) if stated < file["line"]]
        in_force = [policy for _, policy in self.policies[before[-1] if before else 0 :]] + [self.options.policy]
        kept = max((policy[file["name"]["class"]] for policy in in_force if file["name"]["class"] in policy), default=0)
        if age < kept * DAY:
            return f"{age // DAY} days have certainly passed of {kept}"
        return None

    def look(self, archive, receipts):
        """Compares the files with what the lines say of them."""
        for path, file in self.files.items():
            full = os.path.join(archive, path)
            expected = (file["entry"]["sha256"], file["entry"]["bytes"])
            if os.path.exists(full):
                if hash_file(full) != expected:
                    self.find("damage", None, path + ": was changed")
                elif file["deleted"]:
                    self.find("notice", None, path + ": is there, though it is deleted")
                continue
            to = receipts.get((self.gateway, file["name"]["sequence"]))
            if file["deleted"]:
                continue
            if to is None:
                self.find("damage", None, path + ": is missing")
            elif to not in self.options.moved_at:
                self.find("moved", None, f"{path}: is at {to}")
            else:
                there = os.path.join(to, path)
                if not os.path.exists(there) or hash_file(there) != expected:
                    self.find("receipt", None, f"{path}: is not at {to} as its line says")

    def compare(self, line):
        """Compares the chain with a checkpoint."""
        signed, head, signature = split(line[line.index(b'{"checkpoint":') :].strip())
        if head["gateway"] != self.gateway:
            return
        if head["line"] > len(self.hashes):
            self.find("cut", head["line"], f"ends at line {len(self.hashes)}")
        elif self.hashes[head["line"] - 1] != head["hash"]:
            self.find("damage", head["line"], "is another one than the checkpoint says")
        else:
            ended = self.ended + [None]
            theirs = [key for key, last in zip(self.keys, ended) if last is None or head["line"] <= last]
            if not any(key_id(key) == head["key"] and is_signed(key, signed, signature) for key in theirs):
                self.find("damage", head["line"], "the checkpoint is not signed by its key")


def is_ahead(name, gateway, following, shipped):
    """How far behind a chain's end a file lies that no line names."""
    match = re.fullmatch(rf"{re.escape(gateway)}-(\d{{10}})\.(parquet|index)(\.age)?(\.tmp|#.*)?", name)
    if not match or int(match[1]) < following:
        return None
    ahead = int(match[1]) - following
    if ahead == 0 or (shipped and ahead <= 256):
        return "notice"
    return "cut" if shipped else None


def find_extra_files(archive, chains, find):
    named = {path for chain in chains for path in chain.files}
    for directory in ("flows", "sessions", "devices", "coverage", "index"):
        for where, _, names in os.walk(os.path.join(archive, directory)):
            for name in names:
                path = os.path.relpath(os.path.join(where, name), archive)
                added = re.fullmatch(r"(.*)\.[0-9a-f]{16}\.age", path)
                if path in named or (added and added[1] in named):
                    continue
                kinds = [is_ahead(name, chain.gateway, chain.sequence + 1, chain.is_shipped) for chain in chains]
                kinds = [kind for kind in kinds if kind]
                find(min(kinds, key=KINDS.index) if kinds else "damage", None, path + ": is in no line")


def parse_pins(path):
    """A key for each gateway, or one for all under the name None."""
    pins = {}
    with open(path) as file:
        lines = [line.split("#")[0].split() for line in file]
    for words in filter(None, lines):
        pins[words[0] if len(words) == 2 else None] = bytes.fromhex(words[-1])
    return pins


def parse_policy(text):
    return {part.split("=")[0].strip(): int(part.split("=")[1].rstrip("d")) for part in text.split(",") if part}


def parse_arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("archive")
    parser.add_argument("--checkpoint", action="append", default=[])
    parser.add_argument("--public-key")
    parser.add_argument("--policy", type=parse_policy, default={})
    parser.add_argument("--moved-at", action="append", default=[])
    parser.add_argument("--trusted-until", action="append", default=[])
    options = parser.parse_args()
    options.now = time.time_ns()
    options.trusted_until = {text.rpartition(":")[0]: int(text.rpartition(":")[2]) for text in options.trusted_until}
    return options


def main():
    options = parse_arguments()
    archive = options.archive
    checkpoints = []
    for path in options.checkpoint:
        with open(path, "rb") as file:
            checkpoints += [line for line in file.readlines() if b'{"checkpoint":' in line]
    pins = parse_pins(options.public_key) if options.public_key else None
    worst = "notice"
    chains = []

    def finder(name):
        def find(kind, line, what):
            nonlocal worst
            worst = max(worst, kind, key=KINDS.index)
            print(f"{kind}: {name}{f', line {line}' if line else ''}: {what}")

        return find

    receipts = read_receipts(archive)
    gateways = {}
    for name in sorted(os.listdir(os.path.join(archive, "manifest"))):
        gateway, ending = os.path.splitext(name)
        if ending in (".jsonl", ".lines"):
            gateways.setdefault(gateway, []).append(ending)
    for gateway, endings in gateways.items():
        find = finder(f"manifest/{gateway}.jsonl")
        if len(endings) > 1:
            find("damage", None, "is there as a file and in pieces")
        if pins is not None and gateway not in pins and None not in pins:
            find("damage", None, "no public key is pinned")
            continue
        if pins is None:
            path = os.path.join(archive, "manifest", gateway + ".pub")
            if not os.path.exists(path):
                find("damage", None, "no public key")
                continue
            with open(path) as file:
                key = bytes.fromhex(file.read().strip())
        else:
            key = pins.get(gateway, pins.get(None))
        chain = Chain(gateway, key, options, find)
        chain.is_shipped = endings == [".lines"]
        chain.read(read_chain(archive, gateway))
        until = options.trusted_until.get(gateway)
        if until is not None and until > len(chain.hashes):
            find("damage", until, "is the last that is trusted, and is not there")
        chain.look(archive, receipts)
        for line in checkpoints:
            chain.compare(line)
        chains.append(chain)
    find = finder("")
    for line in checkpoints:
        head = split(line[line.index(b'{"checkpoint":') :].strip())[1]
        if head["gateway"] not in gateways:
            find("cut", None, f"there is no chain of {head['gateway']}")
    for gateway in [*(pins or {}), *options.trusted_until]:
        if gateway is not None and gateway not in gateways:
            find("damage", None, f"there is no chain of {gateway}")
    for gateway, sequence in receipts:
        if not any(chain.gateway == gateway and 0 < sequence <= chain.sequence for chain in chains):
            find("receipt", None, f"no chain has sequence {sequence} of {gateway}")
    find_extra_files(archive, chains, find)
    word, code = VERDICTS[worst]
    print(word)
    sys.exit(code)


if __name__ == "__main__":
    main()
