"""Checks proofs of rows, and recomputes the roots of segments, written from docs/formats/row-proof.md alone.

    verify_rows.py proof FILE ROOT ROWS     is the row in the file of which a signed line has this root and so many rows?
    verify_rows.py root SEGMENT             the root over the rows of a segment in the clear (needs pyarrow)
    verify_rows.py vectors FILE             the test vectors, both ways (needs pyarrow)

Exit code 0 where it holds, 3 where it does not. A proof needs the standard library only.
"""

import hashlib
import ipaddress
import json
import os
import struct
import sys

NAT = ["exact", "uncertain", "none"]
END_REASON = ["idle", "active", "end_of_flow", "forced", "lost_power", "overflow"]
ATTRIBUTION = ["authenticated", "mac_only", "ip_only", "before_login", "ambiguous", "conflict", "unknown"]


def fields(text):
    """Columns as the page lists them: a name, and a kind where it is not text."""
    return [tuple((part.split() + ["text"])[:2]) for part in text.split(",")]


FIELDS = {
    "flows": (
        fields(
            "site, gateway, interface, vlan u16, inner_vlan u16, client_mac mac, client_ip ip, user list, session_id list,"
            "auth_method, identity_source, ap_mac mac, ssid, nas, hostname, device_vendor"
        ),
        fields(
            "flow_id count, start time, end time, client_port u16, public_ip ip, public_port u16, nat code, peer_ip ip,"
            "peer_port u16, protocol u8, icmp_type u8, icmp_code u8, packets_out count, bytes_out count, packets_in count,"
            "bytes_in count, tcp_flags_out u8, tcp_flags_in u8, end_reason code, attribution code"
        ),
    ),
    "sessions": (
        fields("site, gateway"),
        fields(
            "session_id, user, auth_method, identity_source, client_mac mac, client_ips, ap_mac mac, ssid, nas, nas_port,"
            "started time, ended time, end_cause, packets_out count, bytes_out count, packets_in count, bytes_in count,"
            "client_prefixes, nas_port_type, multi_session_id, chargeable_user, class, location, calling_station,"
            "called_station, status"
        ),
    ),
    "devices": (
        fields("site, gateway"),
        fields(
            "client_mac mac, random_mac flag, device_vendor, hostname, vendor_class, dhcp_fingerprint, client_id, ips,"
            "first_seen time, last_seen time, source, many_addresses flag"
        ),
    ),
    "coverage": (
        fields("site, gateway"),
        fields(
            "interface, generation count, from time, to time, hook, seen_packets count, seen_bytes count, flow_packets count,"
            "flow_bytes count, overflow_packets count, overflow_bytes count, outcomes, happenings, clock_offset_ns integer, gap"
        ),
    ),
}
CLASSES = ["flows", "sessions", "devices", "coverage"]
LABELS = {"nat": NAT, "end_reason": END_REASON, "attribution": ATTRIBUTION}


def sha256(content):
    return hashlib.sha256(content).digest()


# Writing a row's bytes.


def count_bytes(value):
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def text_bytes(text):
    encoded = text.encode()
    return count_bytes(len(encoded)) + encoded


def value_bytes(name, kind, value):
    if kind == "text":
        return text_bytes(" ".join(value) if isinstance(value, list) else value)
    if kind == "list":
        items = value if isinstance(value, list) else [value]
        return count_bytes(len(items)) + b"".join(map(text_bytes, items))
    if kind == "count":
        return count_bytes(value)
    if kind in ("integer", "time"):
        return struct.pack(">q", value)
    if kind == "u16":
        return struct.pack(">H", value)
    if kind in ("u8", "flag"):
        return bytes([value])
    if kind == "mac":
        return bytes.fromhex(value.replace(":", ""))
    if kind == "ip":
        packed = ipaddress.ip_address(value).packed
        return bytes([len(packed)]) + packed
    return bytes([LABELS[name].index(value)])


def part_bytes(part, row):
    presence, values = bytearray((len(part) + 7) // 8), b""
    for number, (name, kind) in enumerate(part):
        if row.get(name) is not None:
            presence[number // 8] |= 1 << number % 8
            values += value_bytes(name, kind, row[name])
    return bytes(presence) + values


def row_bytes(kind, row):
    shared, own = FIELDS[kind]
    return bytes([1, CLASSES.index(kind) + 1]) + part_bytes(shared, row), part_bytes(own, row)


# Reading them again.


class Reader:
    def __init__(self, content):
        self.content = content

    def take(self, length):
        taken, self.content = self.content[:length], self.content[length:]
        if len(taken) != length:
            raise ValueError("the row ends too early")
        return taken

    def count(self):
        value, shift = 0, 0
        while True:
            byte = self.take(1)[0]
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    def text(self):
        return self.take(self.count()).decode()

    def value(self, name, kind):
        if kind == "text":
            return self.text()
        if kind == "list":
            return [self.text() for _ in range(self.count())]
        if kind == "count":
            return self.count()
        if kind in ("integer", "time"):
            return struct.unpack(">q", self.take(8))[0]
        if kind == "u16":
            return struct.unpack(">H", self.take(2))[0]
        if kind == "u8":
            return self.take(1)[0]
        if kind == "flag":
            return [False, True][self.take(1)[0]]
        if kind == "mac":
            return ":".join(f"{byte:02x}" for byte in self.take(6))
        if kind == "ip":
            return str(ipaddress.ip_address(self.take(self.take(1)[0])))
        return LABELS[name][self.take(1)[0]]

    def part(self, part):
        presence, row = self.take((len(part) + 7) // 8), {}
        for number, (name, kind) in enumerate(part):
            if presence[number // 8] >> number % 8 & 1:
                row[name] = self.value(name, kind)
        if self.content:
            raise ValueError("something is left over")
        return row


def read_row(shared, own):
    if shared[0] != 1:
        raise ValueError("another version")
    kind = CLASSES[shared[1] - 1]
    return kind, {**Reader(shared[2:]).part(FIELDS[kind][0]), **Reader(own).part(FIELDS[kind][1])}


# Salts and the tree.


def chacha20_block(key, number):
    """RFC 8439, section 2.3, with a nonce of zeros."""
    begin = list(struct.unpack("<4I", b"expand 32-byte k")) + list(struct.unpack("<8I", key)) + [number, 0, 0, 0]
    state = begin[:]

    def rotate(value, by):
        return (value << by | value >> 32 - by) & 0xFFFFFFFF

    def quarter(a, b, c, d):
        for x, y, z, by in ((a, b, d, 16), (c, d, b, 12), (a, b, d, 8), (c, d, b, 7)):
            state[x] = (state[x] + state[y]) & 0xFFFFFFFF
            state[z] = rotate(state[z] ^ state[x], by)

    for _ in range(10):
        for column in range(4):
            quarter(column, column + 4, column + 8, column + 12)
        for diagonal in range(4):
            quarter(diagonal, (diagonal + 1) % 4 + 4, (diagonal + 2) % 4 + 8, (diagonal + 3) % 4 + 12)
    return struct.pack("<16I", *((a + b) & 0xFFFFFFFF for a, b in zip(state, begin)))


def salts(key):
    number = 0
    while True:
        block = chacha20_block(key, number)
        yield from (block[at : at + 16] for at in range(0, 64, 16))
        number += 1


def leaf(salt, shared, own):
    return sha256(b"\0" + salt + sha256(shared) + own)


def tree_root(leaves):
    """RFC 6962, section 2.1."""
    if len(leaves) < 2:
        return leaves[0] if leaves else sha256(b"")
    split = 1
    while split * 2 < len(leaves):
        split *= 2
    return sha256(b"\1" + tree_root(leaves[:split]) + tree_root(leaves[split:]))


def leads_to(hash_, index, size, path):
    """RFC 9162, section 2.1.3.2; the root, or None."""
    place, last = index, size - 1
    if not 0 <= place <= last:
        return None
    for sibling in path:
        if last == 0:
            return None
        if place & 1 or place == last:
            hash_ = sha256(b"\1" + sibling + hash_)
            while not place & 1 and place:
                place, last = place >> 1, last >> 1
        else:
            hash_ = sha256(b"\1" + hash_ + sibling)
        place, last = place >> 1, last >> 1
    return hash_ if last == 0 else None


# What is asked.


def unhex(text):
    content = bytes.fromhex(text)
    if content.hex() != text:
        raise ValueError("another spelling of bytes")
    return content


def parse_proof(text):
    lines = text.split("\n")
    if lines[0] != "hotspot row proof 1" or lines.pop() != "":
        raise ValueError("no row proof")
    values = []
    for line, name in zip(lines[1:6], ("index", "size", "salt", "shared", "own")):
        found, _, value = line.partition(" ")
        if found != name:
            raise ValueError("no " + name)
        values.append(value)
    index, size = (int(value) for value in values[:2])
    if [str(index), str(size)] != values[:2]:
        raise ValueError("another spelling of a number")
    salt, shared, own = (unhex(value) for value in values[2:])
    path = [unhex(line) for line in lines[6:]]
    if len(salt) != 16 or any(len(hash_) != 32 for hash_ in path):
        raise ValueError("a wrong length")
    return index, size, salt, shared, own, path


def check_proof(text, root, rows):
    """The class and the columns of the row; an error where the proof does not hold."""
    index, size, salt, shared, own, path = parse_proof(text)
    if size != rows:
        raise ValueError(f"is about a file of {size} rows, not {rows}")
    if leads_to(leaf(salt, shared, own), index, size, path) != root:
        raise ValueError("does not lead to the root")
    return read_row(shared, own)


def segment_root(path):
    import pyarrow
    import pyarrow.parquet

    file = pyarrow.parquet.ParquetFile(path)
    metadata = {key.decode(): value.decode() for key, value in file.metadata.metadata.items()}
    kind, stream = metadata["hotspot.class"], salts(unhex(metadata["hotspot.row_salts"]))
    table = file.read()
    for number, field in enumerate(table.schema):
        if pyarrow.types.is_timestamp(field.type):
            table = table.set_column(number, field.name, table.column(number).cast(pyarrow.int64()))
    leaves = [leaf(next(stream), *row_bytes(kind, row)) for row in table.to_pylist()]
    return tree_root(leaves), len(leaves)


def check_vectors(path):
    with open(path) as file:
        vectors = json.load(file)
    for segment in vectors["segments"]:
        root, rows = segment_root(os.path.join(os.path.dirname(path), segment["file"]))
        if (root.hex(), rows) != (segment["rows_root"], segment["rows"]):
            raise ValueError(segment["file"] + ": another root")
        for proof in segment["proofs"]:
            kind, row = check_proof(proof["text"], root, rows)
            if kind != segment["class"] or row != proof["columns"]:
                raise ValueError(f"{segment['file']}: another row: {row}")
            if row_bytes(kind, row) != parse_proof(proof["text"])[3:5]:
                raise ValueError(f"{segment['file']}: other bytes")


def main():
    if len(sys.argv) < 2 or sys.argv[1] in ("-h", "--help"):
        sys.exit(__doc__)
    what, *arguments = sys.argv[1:]
    try:
        if what == "proof":
            with open(arguments[0], newline="") as file:
                kind, row = check_proof(file.read(), unhex(arguments[1]), int(arguments[2]))
            print(json.dumps({"class": kind, "columns": row}))
        elif what == "root":
            root, rows = segment_root(arguments[0])
            print(json.dumps({"rows_root": root.hex(), "rows": rows}))
        else:
            check_vectors(arguments[0])
    except (ValueError, IndexError, KeyError) as error:
        print(error)
        sys.exit(3)


if __name__ == "__main__":
    main()
