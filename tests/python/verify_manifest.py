"""Verifies the chains of an archive, written from docs/formats/manifest.md alone.

Usage: verify_manifest.py ARCHIVE [CHECKPOINTS]. Prints a finding per line; exit code 0 where there is none, 3 where there is.
"""

import hashlib
import json
import os
import sys

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

SIGNATURE = b',"signature":"'


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


def read_moved(archive):
    """Gateway and sequence of what was moved elsewhere."""
    path = os.path.join(archive, "shipped", "moved.jsonl")
    if not os.path.exists(path):
        return set()
    with open(path) as file:
        receipts = [json.loads(line) for line in file]
    return {(receipt["gateway"], receipt["sequence"]) for receipt in receipts}


def verify_chain(archive, gateway, checkpoints):
    """Findings of one chain."""
    with open(os.path.join(archive, "manifest", gateway + ".pub")) as file:
        key = bytes.fromhex(file.read().strip())
    text = read_chain(archive, gateway)
    if text and not text.endswith(b"\n"):
        yield "the last line has no end"
    prev, sequence, epoch = "0" * 64, 0, 1
    hashes, named, of, deleted, keys = [], {}, {}, {}, [key]
    moved = read_moved(archive)
    for number, line in enumerate(text.split(b"\n")[:-1], 1):
        at = f"line {number}: "
        hashes.append(hashlib.sha256(line).hexdigest())
        try:
            signed, record, signature = split(line)
        except ValueError as error:
            yield at + str(error)
            prev = hashes[-1]
            continue
        genuine = record["key"] == key_id(key) and is_signed(key, signed, signature)
        if not genuine:
            yield at + "not signed by the key of its epoch"
        if record["prev"] != prev:
            yield at + "does not follow the line before"
        if record["gateway"] != gateway:
            yield at + "another gateway"
        prev = hashes[-1]
        if record["format"] == 1:
            sequence += 1
            if record["sequence"] != sequence:
                yield at + f"sequence {record['sequence']}, expected {sequence}"
            sequence = record["sequence"]
            for entry in record["files"]:
                if entry["path"] in named:
                    yield at + "names a file twice: " + entry["path"]
                named[entry["path"]] = entry
                of[entry["path"]] = (gateway, sequence)
        elif record["format"] == 2 and genuine:
            if "epoch" in record["event"]:
                epoch += 1
                if record["event"]["epoch"]["epoch"] != epoch:
                    yield at + "wrong epoch"
                key = bytes.fromhex(record["event"]["epoch"]["public"])
                keys.append(key)
            else:
                for entry in record["event"]["deleted"]["files"]:
                    deleted[entry["path"]] = entry["sha256"]
    for path, entry in named.items():
        full = os.path.join(archive, path)
        if not os.path.exists(full):
            if deleted.get(path) != entry["sha256"] and of[path] not in moved:
                yield path + ": is missing"
            continue
        with open(full, "rb") as file:
            content = file.read()
        if len(content) != entry["bytes"] or hashlib.sha256(content).hexdigest() != entry["sha256"]:
            yield path + ": was changed"
    for path in deleted:
        if path not in named:
            yield path + ": is deleted, and was never named"
    for line in checkpoints:
        signed, head, signature = split(line[line.index(b'{"checkpoint":') :].strip())
        if head["gateway"] != gateway:
            continue
        if head["line"] > len(hashes):
            yield f"ends at line {len(hashes)}, had {head['line']}"
        elif hashes[head["line"] - 1] != head["hash"]:
            yield f"line {head['line']} is another one"
        elif not any(key_id(key) == head["key"] and is_signed(key, signed, signature) for key in keys):
            yield "a checkpoint is not signed by the gateway"


def main():
    archive = sys.argv[1]
    checkpoints = []
    if len(sys.argv) > 2:
        with open(sys.argv[2], "rb") as file:
            checkpoints = file.readlines()
    found = False
    for name in sorted(os.listdir(os.path.join(archive, "manifest"))):
        gateway, ending = os.path.splitext(name)
        if ending in (".jsonl", ".lines"):
            for finding in verify_chain(archive, gateway, checkpoints):
                found = True
                print(name, finding)
    sys.exit(3 if found else 0)


if __name__ == "__main__":
    main()
