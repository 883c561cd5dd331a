"""Verifies the chains of an archive, written from docs/formats/manifest.md alone.

Usage: verify_manifest.py ARCHIVE [--checkpoint FILE] [--public-key FILE] [--policy CLASS=DAYSd,...] [--moved-at DIR] [--trusted-until GATEWAY:LINE]

Prints a finding per line, and the verdict; the exit code is that of docs/formats/manifest.md.
"""

import argparse
import base64
import datetime
import hashlib
import json
import os
import re
import stat
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


class Bad(Exception):
    """Something is not as docs/formats says."""


def pairs(items):
    if len({name for name, _ in items}) != len(items):
        raise Bad("a field twice")
    return dict(items)


def refuse(text):
    raise Bad(f"no such number: {text}")


def read_json(text):
    """Strictly: each field once, whole numbers alone, text that is text."""
    try:
        return json.loads(text.decode("utf-8"), object_pairs_hook=pairs, parse_float=refuse, parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        raise Bad(f"is no JSON: {error}") from None


def spell(value):
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode("utf-8")


def whole(least, most):
    return lambda value: type(value) is int and least <= value <= most


U32, U64, I64 = whole(0, 2**32 - 1), whole(0, 2**64 - 1), whole(-(2**63), 2**63 - 1)


def text_(value):
    return type(value) is str


def digits(count):
    return lambda value: type(value) is str and re.fullmatch(f"[0-9a-f]{{{count}}}", value) is not None


def flag(value):
    return type(value) is bool


def list_of(check):
    return lambda value: type(value) is list and all(check(one) for one in value)


def record(*fields):
    """An object with these fields in this order; a name that ends with `?` may be missing."""

    def check(value):
        if type(value) is not dict:
            return False
        names = [name.rstrip("?") for name, _ in fields if not name.endswith("?") or name[:-1] in value]
        return list(value) == names and all(test(value[name.rstrip("?")]) for name, test in fields if name.rstrip("?") in value)

    return check


def some(check):
    """What is left out where it is empty."""
    return lambda value: bool(value) and check(value)


def is_policy(value):
    # In this order, as many days as nanoseconds can say.
    known = [name for name in ("flows", "sessions", "devices", "coverage") if type(value) is dict and name in value]
    return type(value) is dict and list(value) == known and all(whole(1, 106_751)(days) for days in value.values())


CLOCK = record(("boot", text_), ("boottime_ns", I64), ("synchronised", flag))
FILE = record(
    ("class", text_), ("path", text_), ("rows", U64), ("bytes", U64), ("sha256", text_), ("key?", text_), ("head?", text_), ("rows_root?", text_)
)
COVERAGE = record(("seen_packets", U64), ("seen_bytes", U64), ("balanced", flag), ("gaps", U64))
RANGE = lambda value: list_of(U64)(value) and len(value) == 2
SEQUENCE = record(
    ("format", lambda value: type(value) is int and value in (1, 3)),
    ("gateway", text_), ("site", text_), ("sequence", U64), ("from_ns", I64), ("to_ns", I64), ("sealed_ns", I64), ("files", list_of(FILE)),
    ("coverage", COVERAGE), ("recipients?", some(list_of(text_))), ("clock?", CLOCK), ("clock_step_ns?", I64), ("prev", text_), ("key", text_),
)
EVENTS = {
    "epoch": record(("epoch", U64), ("public", text_)),
    "policy": is_policy,
    "hold": record(("case", text_), ("sequences", list_of(RANGE))),
    "lifted": record(("case", text_)),
    "deleted": record(("why", text_), ("files", list_of(record(("path", text_), ("sha256", text_))))),
}


def is_event(value):
    return type(value) is dict and len(value) == 1 and all(name in EVENTS and EVENTS[name](content) for name, content in value.items())


EVENT = record(
    ("format", lambda value: type(value) is int and value in (2, 4)),
    ("gateway", text_), ("at_ns", I64), ("clock?", CLOCK), ("event", is_event), ("prev", text_), ("key", text_),
)
HEAD = record(("lines", U64), ("hash", text_))
CHECKPOINT = record(
    ("checkpoint", lambda value: type(value) is int and value in (1, 2)),
    ("gateway", text_), ("line", U64), ("sequence", U64), ("at_ns", I64), ("hash", text_), ("root?", text_), ("audit?", HEAD), ("note?", text_), ("key", text_),
)


def split(line, *kinds):
    """The signed bytes, the object, and the signature (None where it is none)."""
    head, _, tail = line.rpartition(SIGNATURE)
    if not head or not tail.endswith(b'"}'):
        raise Bad("no signature")
    signed = head + b"}"
    value = read_json(signed)
    if not any(kind(value) for kind in kinds):
        raise Bad("fields that are not those of its kind")
    try:
        if spell(value) != signed:
            raise Bad("not spelled as it is written")
    except UnicodeEncodeError:
        raise Bad("text that is none") from None
    signature = tail[:-2]
    return signed, value, bytes.fromhex(signature.decode()) if re.fullmatch(rb"[0-9a-f]{128}", signature) else None


# Ed25519, as far as it takes to tell a point of small order from others (RFC 8032, section 5.1).
P = 2**255 - 19
D = -121665 * pow(121666, P - 2, P) % P


def decompress(data):
    y = int.from_bytes(data, "little")
    sign, y = y >> 255, (y & ((1 << 255) - 1)) % P
    square = (y * y - 1) * pow(D * y * y + 1, P - 2, P) % P
    x = pow(square, (P + 3) // 8, P)
    if x * x % P != square:
        x = x * pow(2, (P - 1) // 4, P) % P
    if x * x % P != square:
        return None
    return (P - x if x & 1 != sign else x) % P, y


def is_strong(data):
    """A point of the curve that is not of small order: eight times itself is not the identity."""
    point = decompress(data)
    if point is None:
        return False
    x, y = point
    for _ in range(3):
        product = D * x * x * y * y % P
        x, y = 2 * x * y * pow(1 + product, P - 2, P) % P, (y * y + x * x) * pow(1 - product, P - 2, P) % P
    return (x, y) != (0, 1)


def parse_key(text):
    """A public key as 64 digits."""
    if not digits(64)(text) or not is_strong(bytes.fromhex(text)):
        raise Bad("no public key")
    return bytes.fromhex(text)


def is_signed(key, signed, signature):
    if signature is None or not is_strong(signature[:32]):
        return False
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(signature, signed)
        return True
    except (InvalidSignature, ValueError):
        return False


def leaf(line_hash):
    return hashlib.sha256(b"\0" + line_hash).digest()


def root_of(leaves):
    """RFC 6962, section 2.1."""
    if len(leaves) == 1:
        return leaves[0]
    middle = 1
    while middle * 2 < len(leaves):
        middle *= 2
    return hashlib.sha256(b"\1" + root_of(leaves[:middle]) + root_of(leaves[middle:])).digest()


def is_noted(head, key):
    """Whether the note of a checkpoint is this key's over its head (docs/formats/checkpoint.md)."""
    if head["checkpoint"] == 1:
        return True
    origin = "hotspot/" + head["gateway"]
    text = f"{origin}\n{head['line']}\n{base64.b64encode(bytes.fromhex(head['root'])).decode()}\n".encode()
    identity = hashlib.sha256(origin.encode() + b"\n\x01" + key).digest()[:4]
    words = head["note"].split(" ")
    try:
        signature = base64.b64decode(words[-1], validate=True)
    except ValueError:
        return False
    is_named = len(words) == 3 and words[:2] == ["\u2014", origin] and signature[:4] == identity and len(signature) == 68
    return is_named and is_signed(key, text, signature[4:])


def read_checkpoint(line):
    """The checkpoint in a line of a log."""
    start, end = line.find(b'{"checkpoint":'), line.rfind(b"}")
    if start < 0 or end < start:
        raise Bad("no checkpoint")
    signed, head, signature = split(line[start : end + 1], CHECKPOINT)
    has = ["root" in head, "note" in head]
    if has != [head["checkpoint"] == 2] * 2 or ("root" in head and not digits(64)(head["root"])):
        raise Bad("fields of another version")
    return signed, head, signature


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


def open_file(archive, path):
    """A file of the archive: behind no link, and only a regular one, so that a pipe or device holds up nobody."""
    at = os.open(archive, os.O_PATH | os.O_DIRECTORY)
    *directories, name = path.split("/")
    try:
        for directory in directories:
            inner = os.open(directory, os.O_PATH | os.O_NOFOLLOW | os.O_DIRECTORY, dir_fd=at)
            os.close(at)
            at = inner
        file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=at)
    finally:
        os.close(at)
    if not stat.S_ISREG(os.fstat(file).st_mode):
        os.close(file)
        raise OSError(path + " is no regular file")
    return os.fdopen(file, "rb")


def hash_file(archive, path):
    """Hash and length; `None` for what is not there, or is no file of the archive."""
    try:
        with open_file(archive, path) as file:
            content = file.read()
    except OSError:
        return None
    return hashlib.sha256(content).hexdigest(), len(content)


def read_chain(archive, gateway, find):
    """The gateway's own file, or the pieces of a shipped archive in the order of their names."""
    path = os.path.join(archive, "manifest", gateway)
    if not re.fullmatch(NAME, gateway):
        find("damage", None, "no name of a gateway")
    if os.path.lexists(path + ".jsonl"):
        with open_file(archive, f"manifest/{gateway}.jsonl") as file:
            return file.read()
    text, following = b"", 1
    for name in sorted(os.listdir(path + ".lines")):
        if not re.fullmatch(r"[0-9]{12}\.jsonl", name):
            continue
        with open_file(archive, f"manifest/{gateway}.lines/{name}") as file:
            piece = file.read()
        if int(name[:12]) != following:
            find("damage", None, f"piece {name} begins with line {following}")
        if not piece.endswith(b"\n"):
            find("damage", None, f"piece {name} does not hold whole lines")
        following += piece.count(b"\n")
        text += piece
    return text


def read_receipts(archive):
    """Where each sequence of each gateway was moved to."""
    path = os.path.join(archive, "shipped", "moved.jsonl")
    receipts = {}
    if not os.path.lexists(path):
        return receipts
    with open_file(archive, "shipped/moved.jsonl") as file:
        lines = file.read().decode("utf-8").encode().split(b"\n")
    for line in lines:
        try:
            receipt = read_json(line)
            if RECEIPT(receipt):
                receipts[receipt["gateway"], receipt["sequence"]] = receipt["to"].rstrip("/")
        except Bad:
            continue
    return receipts


def RECEIPT(value):
    """These fields; others beside them say nothing."""
    fields = {"moved": lambda value: type(value) is int and value == 1, "gateway": text_, "sequence": U64, "to": text_, "at_ns": I64}
    return type(value) is dict and all(name in value and check(value[name]) for name, check in fields.items())


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
        self.boots = set()

    def read(self, text):
        if text and not text.endswith(b"\n"):
            self.find("damage", None, "the last line has no end")
        prev = "0" * 64
        for number, line in enumerate(text.split(b"\n")[:-1], 1):
            self.hashes.append(hashlib.sha256(line).hexdigest())
            try:
                signed, record, signature = split(line, SEQUENCE, EVENT)
            except Bad as error:
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
            if self.clock and self.clock[1]["boot"] != clock["boot"]:
                self.boots.add(self.clock[1]["boot"])
            if clock["boot"] in self.boots:
                find("damage", number, "a boot that had ended")
            if clock["boottime_ns"] < 0:
                find("damage", number, "before its boot began")
            self.clock = (wall, clock)
        if min(record.get("from_ns", 0), record.get("to_ns", 0), wall) < 0:
            find("damage", number, "a time before 1970")
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
        if record["to_ns"] < record["from_ns"]:
            find("damage", number, "ended before it began")
        before = record["to_ns"] if self.until is None or early else self.until + min(step, 0)
        self.until = record["to_ns"] if early else max(record["to_ns"], record["from_ns"], before)
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
        if not re.fullmatch(NAME, record["site"]):
            self.find("damage", number, "no name of a site")
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
            if record["format"] == 3 and entry["class"] == "index" and "head" not in entry:
                self.find("damage", number, "names no head of " + entry["path"])
            if not all(digits(64)(entry[name]) for name in ("key", "head", "rows_root") if name in entry):
                self.find("damage", number, "what is no SHA-256, of " + entry["path"])
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
            try:
                key = parse_key(content["public"])
            except Bad as error:
                self.find("damage", number, str(error))
                return
            if key in self.keys:
                self.find("damage", number, "a key that signed before")
            self.ended.append(number)
            self.keys.append(key)
        elif what == "policy":
            if self.is_trusted(number):
                self.policies.append((number, content))
        elif what == "hold":
            if any(first == 0 or first > last for first, last in content["sequences"]):
                self.find("damage", number, "holds what is no range")
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
                if hash_file(archive, path) != expected:
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
                if hash_file(to, path) != expected:
                    self.find("receipt", None, f"{path}: is not at {to} as its line says")

    def compare(self, signed, head, signature, unsigned="damage"):
        """Compares the chain with a checkpoint."""
        line = head["line"]
        theirs = [key for key, last in zip(self.keys, self.ended + [None]) if last is None or line <= last]
        if not any(key_id(key) == head["key"] and is_signed(key, signed, signature) and is_noted(head, key) for key in theirs):
            self.find(unsigned, line, "the checkpoint is not signed by its key")
        elif line > len(self.hashes):
            self.find("cut", line, f"ends at line {len(self.hashes)}")
        elif line == 0 or self.hashes[line - 1] != head["hash"]:
            self.find("damage", line, "is another one than the checkpoint says")
        elif head["sequence"] != sum(known["line"] <= line for known in self.sequences.values()):
            self.find("damage", line, "the checkpoint says another sequence")
        elif "root" in head and root_of([leaf(bytes.fromhex(known)) for known in self.hashes[:line]]).hex() != head["root"]:
            self.find("damage", line, "the checkpoint says another root")


def look_inside(archive, chain, find):
    """The checkpoints that lie in the archive speak against a chain where its gateway signed them, and never for it."""
    path = os.path.join(archive, "checkpoints", chain.gateway + ".jsonl")
    if not os.path.lexists(path):
        return
    with open_file(archive, f"checkpoints/{chain.gateway}.jsonl") as file:
        lines = file.read().split(b"\n")
    for line in filter(None, lines):
        try:
            signed, head, signature = read_checkpoint(line)
        except Bad as error:
            find("notice", None, f"a line of its checkpoints is none: {error}")
            continue
        if head["gateway"] == chain.gateway:
            chain.compare(signed, head, signature, "notice")


def is_ahead(name, gateway, following, shipped):
    """How far behind a chain's end a file lies that no line names."""
    match = re.fullmatch(rf"{re.escape(gateway)}-(\d{{10}})\.(parquet|index)(\.age)?(\.tmp|#.*)?", name)
    if not match or int(match[1]) < following:
        return None
    ahead = int(match[1]) - following
    if ahead == 0 or (shipped and ahead <= 256):
        return "notice"
    return "cut" if shipped else None


def give_up(error):
    raise error


def find_extra_files(archive, chains, find):
    named = {path for chain in chains for path in chain.files}
    for directory in ("flows", "sessions", "devices", "coverage", "index"):
        top = os.path.join(archive, directory)
        if not os.path.exists(top):
            continue
        for where, directories, names in os.walk(top, onerror=give_up):
            links = [name for name in directories if os.path.islink(os.path.join(where, name))]
            for name in names + links:
                path = os.path.relpath(os.path.join(where, name), archive)
                added = re.fullmatch(r"(.*)\.[0-9a-f]{16}\.age", path)
                if path in named or (added and added[1] in named):
                    continue
                kinds = [is_ahead(name, chain.gateway, chain.sequence + 1, chain.is_shipped) for chain in chains]
                kinds = [kind for kind in kinds if kind]
                find(min(kinds, key=KINDS.index) if kinds else "damage", None, path + ": is in no line")


def parse_pins(path):
    """A key for each gateway, or one for all under the name None."""
    with open(path) as file:
        lines = [line.split("#")[0].split() for line in file]
    lines = [words for words in lines if words]
    try:
        if len(lines) == 1 and len(lines[0]) == 1:
            return {None: parse_key(lines[0][0])}
        pins = {gateway: parse_key(key) for gateway, key in lines if re.fullmatch(NAME, gateway)}
    except (Bad, ValueError):
        pins = {}
    if not pins or len(pins) != len(lines):
        sys.exit(usage(f"{path}: no file of pins"))
    return pins


def usage(why):
    print(why, file=sys.stderr)
    return 2


def join_pins(paths):
    """The pins of all files; None without any. What they say of a gateway, or of all, must be the same."""
    pins = {}
    for path in paths:
        for gateway, key in parse_pins(path).items():
            if pins.setdefault(gateway, key) != key:
                sys.exit(usage(f"{path}: another key of {gateway}"))
    if None in pins and any(key != pins[None] for key in pins.values()):
        sys.exit(usage("another key of a gateway"))
    return pins or None


def parse_policy(text):
    policy = {}
    for part in text.split(","):
        match = re.fullmatch(r"(flows|sessions|devices|coverage)=\+?([0-9]{1,18})d", part.strip())
        if not match or match[1] in policy or not whole(1, 106_751)(int(match[2])):
            raise argparse.ArgumentTypeError(f"no retention: {text}")
        policy[match[1]] = int(match[2])
    return policy


def parse_until(texts):
    until = {}
    for text in texts:
        match = re.fullmatch(rf"({NAME}):\+?([0-9]{{1,20}})", text)
        if not match or not U64(int(match[2])):
            sys.exit(usage(f"--trusted-until {text}: write GATEWAY:LINE"))
        until[match[1]] = int(match[2])
    return until


def parse_arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("archive")
    parser.add_argument("--checkpoint", action="append", default=[])
    parser.add_argument("--public-key", action="append", default=[])
    parser.add_argument("--policy", type=parse_policy, default={})
    parser.add_argument("--moved-at", action="append", default=[])
    parser.add_argument("--trusted-until", action="append", default=[])
    options = parser.parse_args()
    options.now = time.time_ns()
    options.trusted_until = parse_until(options.trusted_until)
    options.moved_at = [place.rstrip("/") for place in options.moved_at]
    return options


def verify(options):
    archive = options.archive
    checkpoints, logged = [], []
    for path in options.checkpoint:
        with open(path, "rb") as file:
            logged += [line for line in file.read().split(b"\n") if b'{"checkpoint":' in line]
    pins = join_pins(options.public_key)
    worst = "notice"
    chains = []

    def finder(name):
        def find(kind, line, what):
            nonlocal worst
            worst = max(worst, kind, key=KINDS.index)
            print(f"{kind}: {name}{f', line {line}' if line else ''}: {what}")

        return find

    for line in logged:
        try:
            checkpoints.append(read_checkpoint(line))
        except Bad as error:
            finder("checkpoint")("damage", None, str(error))
    receipts = read_receipts(archive)
    gateways = {}
    for name in sorted(os.listdir(os.path.join(archive, "manifest"))):
        gateway, ending = name[:-6], name[-6:]
        if ending in (".jsonl", ".lines"):
            gateways.setdefault(gateway, []).append(ending)
    for gateway, endings in gateways.items():
        find = finder(f"manifest/{gateway}.jsonl")
        if len(endings) > 1:
            find("damage", None, "is there as a file and in pieces")
        if pins is not None and gateway not in pins and None not in pins:
            find("damage", None, "no public key is pinned")
            continue
        try:
            if pins is None:
                with open_file(archive, f"manifest/{gateway}.pub") as file:
                    key = parse_key(file.read().decode("utf-8").strip())
            else:
                key = pins.get(gateway, pins.get(None))
            text = read_chain(archive, gateway, find)
        except (OSError, ValueError, Bad) as error:
            find("damage", None, f"cannot be read: {error}")
            continue
        chain = Chain(gateway, key, options, find)
        if not text and (gateway in (pins or {}) or None in (pins or {}) or gateway in options.trusted_until):
            find("damage", None, "has no line, though it is named")
        chain.is_shipped = endings == [".lines"] and text.count(b"\n") > 0
        chain.read(text)
        until = options.trusted_until.get(gateway)
        if until is not None and until > len(chain.hashes):
            find("damage", until, "is the last that is trusted, and is not there")
        chain.look(archive, receipts)
        for signed, head, signature in checkpoints:
            if head["gateway"] == gateway:
                chain.compare(signed, head, signature)
        try:
            look_inside(archive, chain, find)
        except OSError as error:
            find("damage", None, f"its checkpoints cannot be read: {error}")
        chains.append(chain)
    find = finder("")
    checked = [chain.gateway for chain in chains]
    for signed, head, signature in checkpoints:
        if head["gateway"] not in checked:
            key = (pins or {}).get(head["gateway"], (pins or {}).get(None))
            known = key and key_id(key) == head["key"] and is_signed(key, signed, signature) and is_noted(head, key)
            find("cut" if known else "damage", None, f"there is no chain of {head['gateway']}")
    for gateway in [*(pins or {}), *options.trusted_until]:
        if gateway is not None and gateway not in gateways:
            find("damage", None, f"there is no chain of {gateway}")
    if not gateways:
        find("damage", None, "there is no manifest")
    for gateway, sequence in receipts:
        if not any(chain.gateway == gateway and 0 < sequence <= chain.sequence for chain in chains):
            find("receipt", None, f"no chain has sequence {sequence} of {gateway}")
    find_extra_files(archive, chains, find)
    return worst


def main():
    options = parse_arguments()
    try:
        worst = verify(options)
    except Exception as error:  # Whatever lies there, there is a verdict.
        print(f"damage: cannot be read: {error!r}")
        worst = "damage"
    word, code = VERDICTS[worst]
    print(word)
    sys.exit(code)


if __name__ == "__main__":
    main()
