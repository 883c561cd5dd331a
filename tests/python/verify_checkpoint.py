"""Verifies checkpoints, notes, cosignatures and requests against a chain, written from docs/formats/checkpoint.md and manifest.md alone.

Usage: verify_checkpoint.py ARCHIVE GATEWAY [--witness VKEY]... [--request FILE]... FILE...

A FILE holds checkpoints as JSON lines, C2SP notes, or both. Prints a finding per line, and `seen LINE TIME NAME` for each cosignature that holds; exit
code 0 where there is no finding, 3 where there is.
"""

import base64
import hashlib
import json
import os
import sys

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

SIGNATURE = b',"signature":"'
DASH = "\u2014 "


def sha256(data):
    return hashlib.sha256(data).digest()


def is_signed(key, message, signature):
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(signature, message)
        return True
    except InvalidSignature:
        return False


def root(leaves):
    """RFC 6962, section 2.1."""
    if not leaves:
        return sha256(b"")
    if len(leaves) == 1:
        return leaves[0]
    split = 1
    while split * 2 < len(leaves):
        split *= 2
    return sha256(b"\x01" + root(leaves[:split]) + root(leaves[split:]))


def path(leaves, index):
    """RFC 6962, section 2.1.1."""
    if len(leaves) == 1:
        return []
    split = 1
    while split * 2 < len(leaves):
        split *= 2
    if index < split:
        return path(leaves[:split], index) + [root(leaves[split:])]
    return path(leaves[split:], index - split) + [root(leaves[:split])]


def consistency(leaves, old):
    """RFC 6962, section 2.1.2."""

    def sub(leaves, old, known):
        if old == len(leaves):
            return [] if known else [root(leaves)]
        split = 1
        while split * 2 < len(leaves):
            split *= 2
        if old <= split:
            return sub(leaves[:split], old, known) + [root(leaves[split:])]
        return sub(leaves[split:], old - split, False) + [root(leaves[:split])]

    return [] if old == 0 else sub(leaves, old, True)


def read_chain(archive, gateway):
    """The lines, and the keys of the epochs with the last line of each."""
    name = os.path.join(archive, "manifest", gateway)
    if os.path.exists(name + ".jsonl"):
        files = [name + ".jsonl"]
    else:
        files = [os.path.join(name + ".lines", file) for file in sorted(os.listdir(name + ".lines"))]
    text = b""
    for file in files:
        with open(file, "rb") as opened:
            text += opened.read()
    with open(name + ".pub") as opened:
        keys = [[bytes.fromhex(opened.read().strip()), None]]
    lines = text.split(b"\n")[:-1]
    for number, line in enumerate(lines, 1):
        event = json.loads(line).get("event", {})
        if "epoch" in event:
            keys[-1][1] = number
            keys.append([bytes.fromhex(event["epoch"]["public"]), None])
    return lines, keys


def signature_line(line):
    """Name, key id, signature."""
    name, _, text = line[len(DASH) :].partition(" ")
    data = base64.b64decode(text, validate=True)
    return name, data[:4], data[4:]


def key_id(name, kind, key):
    return sha256(name.encode() + b"\n" + bytes([kind]) + key)[:4]


def notes(text):
    """Text and signature lines of each note; the empty line between them belongs to neither."""
    body, signatures = "", []
    for line in text.splitlines(keepends=True):
        if signatures and not line.startswith(DASH):
            yield body.removesuffix("\n"), signatures
            body, signatures = "", []
        if line.startswith(DASH):
            signatures.append(line.rstrip("\n"))
        elif body or line.strip():
            body += line
    if signatures:
        yield body.removesuffix("\n"), signatures


class Chain:
    def __init__(self, archive, gateway):
        self.gateway = gateway
        self.lines, self.keys = read_chain(archive, gateway)
        self.leaves = [sha256(b"\x00" + sha256(line)) for line in self.lines]

    def may_sign(self, line):
        return [key for key, ended in self.keys if ended is None or line <= ended]

    def head(self, text):
        """Origin, size and root of a note's text; it must be three lines and no more."""
        origin, size, digest = text.rstrip("\n").split("\n")
        return origin, int(size), base64.b64decode(digest, validate=True)

    def check_head(self, text):
        origin, size, digest = self.head(text)
        if origin != "hotspot/" + self.gateway:
            yield "a note is about " + origin
        elif size > len(self.lines):
            yield f"ends at line {len(self.lines)}, had {size}"
        elif root(self.leaves[:size]) != digest:
            yield f"another tree of {size} lines"

    def check_json(self, line):
        line = line[line.index(b'{"checkpoint":') :].strip()
        head, _, tail = line.rpartition(SIGNATURE)
        signed, signature = head + b"}", bytes.fromhex(tail[:-2].decode())
        checkpoint = json.loads(signed)
        if checkpoint["gateway"] != self.gateway:
            return
        number = checkpoint["line"]
        if number > len(self.lines):
            yield f"ends at line {len(self.lines)}, had {number}"
            return
        if sha256(self.lines[number - 1]).hex() != checkpoint["hash"]:
            yield f"line {number} is another one"
        keys = [key for key in self.may_sign(number) if sha256(key).hex()[:16] == checkpoint["key"]]
        if not any(is_signed(key, signed, signature) for key in keys):
            yield f"the checkpoint of line {number} is not signed by its key"
        if checkpoint["checkpoint"] == 1:
            return
        digest = bytes.fromhex(checkpoint["root"])
        text = f"hotspot/{self.gateway}\n{number}\n{base64.b64encode(digest).decode()}\n"
        yield from self.check_head(text)
        name, identity, signature = signature_line(checkpoint["note"])
        if name != "hotspot/" + self.gateway or not any(
            key_id(name, 1, key) == identity and is_signed(key, text.encode(), signature) for key in keys
        ):
            yield f"the note of line {number} is not signed by its key"

    def check_note(self, text, signatures, witnesses):
        seen = False
        for line in signatures:
            name, identity, signature = signature_line(line)
            for witness, key in witnesses:
                if (name, identity) != (witness, key_id(witness, 4, key)):
                    continue
                at = int.from_bytes(signature[:8], "big")
                message = f"cosignature/v1\ntime {at}\n{text}".encode()
                if not is_signed(key, message, signature[8:]):
                    yield f"the cosignature of {name} does not fit"
                    continue
                seen = True
                findings = list(self.check_head(text))
                yield from findings
                if not findings:
                    print("seen", self.head(text)[1], at, name)
        if witnesses and not seen:
            yield "a note that no witness given has signed"

    def check_request(self, text):
        top, _, note = text.partition("\n\n")
        lines = top.split("\n")
        ((body, signatures),) = notes(note)
        _, size, digest = self.head(body)
        yield from self.check_head(body)
        while lines[0].startswith("epoch "):
            _, number, line, *hashes = lines.pop(0).split(" ")
            if base64.b64decode(line) != self.lines[int(number) - 1]:
                yield f"line {number} is another one"
            if [base64.b64decode(at) for at in hashes] != path(self.leaves[:size], int(number) - 1):
                yield f"line {number} is not proved to be in the tree"
        old = int(lines.pop(0).removeprefix("old "))
        if [base64.b64decode(at) for at in lines] != consistency(self.leaves[:size], old):
            yield f"the proof from {old} lines to {size} is another one"
        name, identity, signature = signature_line(signatures[0])
        keys = [key for key in self.may_sign(size) if key_id(name, 1, key) == identity]
        if not any(is_signed(key, body.encode(), signature) for key in keys):
            yield "the note of the request is not signed by the gateway"


def verifier_key(text):
    name, identity, key = text.split("+", 2)
    data = base64.b64decode(key, validate=True)
    if data[0] != 4 or key_id(name, 4, data[1:]).hex() != identity:
        raise SystemExit("no verifier key of a witness: " + text)
    return name, data[1:]


def main():
    archive, gateway, *rest = sys.argv[1:]
    chain, witnesses, findings, files = Chain(archive, gateway), [], [], []
    while rest:
        word = rest.pop(0)
        if word == "--witness":
            witnesses.append(verifier_key(rest.pop(0)))
        elif word == "--request":
            with open(rest.pop(0)) as opened:
                findings += chain.check_request(opened.read())
        else:
            files.append(word)
    for file in files:
        with open(file, "rb") as opened:
            lines = opened.read().splitlines(keepends=True)
        others = [line for line in lines if b'{"checkpoint":' not in line]
        for line in lines:
            if b'{"checkpoint":' in line:
                findings += chain.check_json(line)
        for text, signatures in notes(b"".join(others).decode()):
            findings += chain.check_note(text, signatures, witnesses)
    for finding in findings:
        print(finding)
    sys.exit(3 if findings else 0)


if __name__ == "__main__":
    main()
