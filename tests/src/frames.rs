//! Frames, byte by byte.

pub const CLIENT: [u8; 6] = [0x02, 0, 0, 0, 0, 1];
pub const GATEWAY: [u8; 6] = [0x02, 0, 0, 0, 0, 0xfe];

/// From the client to the gateway.
#[must_use]
pub fn ethernet(tags: &[u16], ethertype: u16, payload: &[u8]) -> Vec<u8> {
    ethernet_between(CLIENT, GATEWAY, tags, ethertype, payload)
}

#[must_use]
pub fn ethernet_between(
    source: [u8; 6],
    destination: [u8; 6],
    tags: &[u16],
    ethertype: u16,
    payload: &[u8],
) -> Vec<u8> {
    let mut frame = [destination, source].concat();
    for tag in tags {
        frame.extend([0x81, 0x00]);
        frame.extend(tag.to_be_bytes());
    }
    frame.extend(ethertype.to_be_bytes());
    frame.extend(payload);
    frame
}

pub const CLIENT_V4: [u8; 4] = [10, 20, 0, 14];
pub const SERVER_V4: [u8; 4] = [203, 0, 113, 7];

/// From the client to the server.
#[must_use]
pub fn ipv4(protocol: u8, options: &[u8], fragment: u16, payload: &[u8]) -> Vec<u8> {
    let header_len = 20 + options.len();
    let total = u16::try_from(header_len + payload.len()).unwrap_or(u16::MAX);
    let mut packet = vec![0x40 | u8::try_from(header_len / 4).unwrap_or(u8::MAX), 0];
    packet.extend(total.to_be_bytes());
    packet.extend([0, 1]);
    packet.extend(fragment.to_be_bytes());
    packet.extend([64, protocol, 0, 0]);
    packet.extend(CLIENT_V4);
    packet.extend(SERVER_V4);
    packet.extend(options);
    packet.extend(payload);
    packet
}

#[must_use]
pub fn ipv4_between(source: [u8; 4], destination: [u8; 4], protocol: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = ipv4(protocol, &[], 0, payload);
    packet[12..16].copy_from_slice(&source);
    packet[16..20].copy_from_slice(&destination);
    packet
}

pub const CLIENT_V6: [u8; 16] = [0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x14];
pub const SERVER_V6: [u8; 16] = [0x20, 0x01, 0x0d, 0xb8, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x53];

/// From the client to the server.
#[must_use]
pub fn ipv6(next: u8, payload: &[u8]) -> Vec<u8> {
    ipv6_between(CLIENT_V6, SERVER_V6, next, payload)
}

#[must_use]
pub fn ipv6_between(source: [u8; 16], destination: [u8; 16], next: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend(u16::try_from(payload.len()).unwrap_or(u16::MAX).to_be_bytes());
    packet.extend([next, 64]);
    packet.extend(source);
    packet.extend(destination);
    packet.extend(payload);
    packet
}

#[must_use]
pub fn udp(source: u16, destination: u16) -> Vec<u8> {
    let mut header = source.to_be_bytes().to_vec();
    header.extend(destination.to_be_bytes());
    header.extend([0, 12, 0, 0, 1, 2, 3, 4]);
    header
}

#[must_use]
pub fn tcp(flags: u8) -> Vec<u8> {
    let mut header = 40_000u16.to_be_bytes().to_vec();
    header.extend(443u16.to_be_bytes());
    header.extend([0, 0, 0, 1, 0, 0, 0, 0, 0x50, flags, 0, 64, 0, 0, 0, 0]);
    header
}

/// A datagram with a payload.
#[must_use]
pub fn udp_with(source: u16, destination: u16, payload: &[u8]) -> Vec<u8> {
    let len = u16::try_from(8 + payload.len()).unwrap_or(u16::MAX);
    [&source.to_be_bytes()[..], &destination.to_be_bytes(), &len.to_be_bytes(), &[0, 0], payload].concat()
}

/// A DHCP message of a type (option 53), from or to a device; `options` follow the type.
#[must_use]
pub fn dhcp_message(kind: u8, client: [u8; 6], your_ip: [u8; 4], options: &[u8]) -> Vec<u8> {
    let mut message = vec![0; 236];
    message[0] = if matches!(kind, 2 | 5 | 6) { 2 } else { 1 };
    (message[1], message[2]) = (1, 6);
    message[16..20].copy_from_slice(&your_ip);
    message[28..34].copy_from_slice(&client);
    message.extend([99, 130, 83, 99, 53, 1, kind]);
    message.extend(options);
    message.push(255);
    message
}
