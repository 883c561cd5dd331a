//! Frames that the comparison once read otherwise than the agent, and wrongly.

use super::{Capture, capture};

/// By what they are about, in hexadecimal.
const FRAMES: [(&str, &str); 6] = [
    ("the header of IPv6, cut", "333300000005fa163e6d82a386dd6c000000004c5901fe800000000000"),
    (
        "addresses that tshark writes in another way",
        "00000001000000000002000086dd600000000028064000000000000000000000000010000001000000000000000000000000 \
         30000001040100501212121200000000a00280005f900000020405b4010303000402080a0000000000000000",
    ),
    (
        "a source route in a quoted packet",
        "aabbcc000100aabbcc000200080045000044001e0000fe01a5950a0203030a0000010c0048301400000048000064004b0000 \
         fe0108230a0000010a020303890b080a0203020a0203030008008fc0000f0000",
    ),
    (
        "PPPoE with a code that is none of a session",
        "cc050e880000ca010e880006886411040011004e00576e00000000240001fe80000000000000c8010efffe880008ff020000 \
         0000000000000000000000163a000502000001008f009a720000000104000000ff050000000000000000000000010003",
    ),
    (
        "a service tag from before its number was settled",
        "aabbcc000210aabbcc000110920000148100000a080045000064002d0000ff01a3670a0102010a0102020800b3d300090000 \
         00000000001cca51abcdabcdabcdabcdabcdabcdabcdabcdabcdabcdabcdabcdabcdabcdabcdabcdabcdabcdabcdabcdabcd \
         abcdabcdabcdabcdabcdabcdabcdabcdabcdabcdabcd",
    ),
    (
        "a frame in a frame of Cisco's ISL",
        "01000c00000000235dc95a840082aaaa0300235d1f420000000000000000400100235dc95ac2080045000064000d0000ff01 \
         36dac0a801fec0a801630800867700050000000000000007f7c6abcdabcdabcdabcdabcdabcdabcdabcdabcdabcdabcdabcd \
         abcdabcdabcdabcdabcdabcdabcdabcdabcdabcdabcdabcdabcdabcdabcdabcdabcdabcdabcdabcd133abba1",
    ),
];

pub(super) fn misread() -> Vec<Capture> {
    FRAMES.into_iter().map(|(name, digits)| capture(name, vec![bytes(digits)])).collect()
}

fn bytes(digits: &str) -> Vec<u8> {
    let digits: Vec<u8> = digits.chars().filter_map(|digit| u8::try_from(digit.to_digit(16)?).ok()).collect();
    digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}
