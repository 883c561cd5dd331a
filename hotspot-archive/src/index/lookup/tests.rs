//! What an index says against a naive reading of the rows, and what a damaged one never says.

use std::collections::BTreeSet;
use std::io::Write;
use std::sync::Arc;

use hotspot_core::record::{FlowRecord, PublicEndpoint};
use proptest::prelude::*;

use super::super::builder::{Builder, IndexFile, Parts};
use super::super::section::Section;
use super::super::{KeyChain, Sealed, seal};
use super::*;
use crate::keys::{DataKey, Identity, Keyring, Recipients};
use crate::segment::Origin;

const HASH: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

/// Rows of a few clients, each with several users, addresses and peers.
fn flow(client: u8, other: u8, port: u16) -> FlowRecord {
    let mut flow = crate::segment::tests::flow(u64::from(other % 5));
    flow.client_mac = MacAddr([2, 0, 0, 0, 0, client]);
    flow.client_ip = [10, 20, client, 1].into();
    flow.peer_ip = (other != 0).then_some([198, 51, 100, other].into());
    flow.public =
        (!other.is_multiple_of(3)).then_some(PublicEndpoint { ip: [203, 0, 113, other % 2].into(), port: Some(port) });
    if let Some(identity) = &mut flow.identity {
        Arc::make_mut(identity).users = vec![format!("user{}", client / 2)];
    }
    flow
}

fn parts(flows: &[FlowRecord]) -> Parts {
    let mut builder = Builder::default();
    flows.iter().for_each(|flow| builder.add(flow));
    builder.finish(HASH, &[7; 64])
}

fn file(bytes: &[u8]) -> File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    file
}

fn read(bytes: &[u8], head: &str) -> Result<Index, IndexError> {
    Index::in_file(file(bytes), Said { head, segment: HASH })
}

fn index(file: &IndexFile) -> Result<Index, IndexError> {
    read(&file.bytes, &file.head())
}

fn origin() -> Origin {
    Origin { site: "s".into(), gateway: "g".into(), sequence: 1 }
}

/// An encrypted index, and the keys that open it.
struct Encrypted {
    file: IndexFile,
    keyring: Keyring,
    data_key: DataKey,
}

impl Encrypted {
    fn new(parts: &Parts) -> Self {
        let identity = Identity::generate();
        let mut chain = KeyChain::begin(&Recipients::parse(&[identity.recipient()], true).unwrap()).unwrap();
        let (_, data_key) = (chain.take(), DataKey::generate().unwrap());
        let file = seal(parts, &chain.take().unwrap(), &data_key, &origin()).unwrap();
        Self { file, keyring: Keyring::of(vec![identity]), data_key }
    }

    /// By the chain, and by the segment's key.
    fn open(&self, bytes: &[u8], origin: &Origin) -> [Result<Index, IndexError>; 2] {
        [true, false].map(|is_chained| {
            let sealed = Sealed::read(file(bytes))?;
            let key =
                if is_chained { sealed.chained_key(&self.keyring) } else { sealed.key_by(&self.data_key, origin) };
            let frames = key.and_then(|key| sealed.open(&key, origin)).ok_or(IndexError::Damaged)?;
            Index::sealed(frames, Said { head: &self.file.head(), segment: HASH })
        })
    }
}

fn covered(rows: Rows) -> BTreeSet<usize> {
    let Rows::Some(ranges) = rows else { panic!("not all") };
    ranges.into_iter().flatten().map(|row| row as usize).collect()
}

fn naive(flows: &[FlowRecord], is_asked: impl Fn(&FlowRecord) -> bool) -> BTreeSet<usize> {
    flows.iter().enumerate().filter(|(_, flow)| is_asked(flow)).map(|(row, _)| row).collect()
}

proptest! {
    #[test]
    fn an_index_says_what_a_scan_says(
        rows in prop::collection::vec((0u8..8, 0u8..20, any::<u16>()), 0..60),
        asked in (0u8..9, 0u8..21, any::<u16>(), 16u8..=32),
    ) {
        let flows: Vec<_> = rows.iter().map(|(client, other, port)| flow(*client, *other, *port)).collect();
        let index = index(&parts(&flows).in_the_clear()).unwrap();
        let (client, other, port, prefix) = asked;
        let mac = MacAddr([2, 0, 0, 0, 0, client]);
        prop_assert_eq!(covered(index.mac(mac).unwrap()), naive(&flows, |flow| flow.client_mac == mac));
        let user = format!("user{}", client / 2);
        prop_assert_eq!(
            covered(index.user(&user).unwrap()),
            naive(&flows, |flow| flow.identity.as_ref().is_some_and(|who| who.users == [user.as_str()]))
        );
        let net = IpNet::new([10, 20, client, 1].into(), prefix).unwrap();
        prop_assert_eq!(covered(index.client(net).unwrap()), naive(&flows, |flow| net.contains(&flow.client_ip)));
        let net = IpNet::new([198, 51, 100, other].into(), prefix).unwrap();
        let is_peer = |flow: &FlowRecord| flow.peer_ip.is_some_and(|ip| net.contains(&ip));
        prop_assert_eq!(index.has_peer(net).unwrap(), flows.iter().any(is_peer));
        let net = IpNet::new([203, 0, 113, other].into(), prefix).unwrap();
        let is_translated = |flow: &FlowRecord| flow.public.is_some_and(|public| net.contains(&public.ip));
        prop_assert_eq!(index.has_translated(net).unwrap(), flows.iter().any(is_translated));
        for port in rows.iter().map(|row| row.2).chain([port]) {
            for ip in [[203, 0, 113, other % 2].into(), [10, 20, client, 1].into()] {
                let found = |flow: &FlowRecord| crate::filter::public_endpoint(flow);
                let is_there = flows.iter().any(|flow| found(flow) == (ip, Some(port)));
                prop_assert_eq!(index.public(ip, Some(port)).unwrap().is_some(), is_there);
                let translated: Vec<bool> =
                    flows.iter().filter(|flow| found(flow).0 == ip).map(|flow| flow.public.is_some()).collect();
                let is_translated = translated.iter().copied().reduce(|one, other| one || other);
                prop_assert_eq!(index.public(ip, None).unwrap(), is_translated);
            }
        }
    }
}

#[test]
fn an_index_of_many_pieces_says_what_a_scan_says() {
    let flows: Vec<_> = (0..6_000u32)
        .map(|number| {
            let [.., high, low] = (number % 900 * 2).to_be_bytes();
            let mut flow = flow((number % 250) as u8, 1, number as u16);
            flow.client_mac = MacAddr([2, 0, 0, 0, high, low]);
            flow.peer_ip = Some(number.wrapping_mul(2_654_435_761).to_be_bytes().into());
            flow
        })
        .collect();
    let (parts, encrypted) = (parts(&flows), Encrypted::new(&parts(&flows)));
    assert!([0, 4].iter().all(|kind| parts.sections[*kind].pieces.len() > 5), "there are many");
    let file = parts.in_the_clear();
    let sealed = encrypted.open(&encrypted.file.bytes, &origin()).map(Result::unwrap);
    for index in sealed.into_iter().chain([index(&file).unwrap()]) {
        for asked in 0..1_900u16 {
            let [high, low] = asked.to_be_bytes();
            let mac = MacAddr([2, 0, 0, 0, high, low]);
            assert_eq!(covered(index.mac(mac).unwrap()), naive(&flows, |flow| flow.client_mac == mac), "{mac}");
            let net = IpNet::new([high, low, high, low].into(), 8 + (asked % 25) as u8).unwrap();
            let is_peer = flows.iter().any(|flow| flow.peer_ip.is_some_and(|ip| net.contains(&ip)));
            assert_eq!(index.has_peer(net).unwrap(), is_peer, "{net}");
        }
        let all = "0.0.0.0/0".parse().unwrap();
        assert!(covered(index.client(all).unwrap()).len() == flows.len() && index.has_peer(all).unwrap());
    }
}

/// So that what an index says takes no more memory than it is worth.
/// Thousands of names, so that spellings of one lie in several pieces of the section.
#[test]
fn every_spelling_of_a_name_is_found_and_no_other() {
    let spellings = [
        "0912345678",
        "+84 912 345 678",
        "84912345678",
        "ANNA",
        "anna",
        "ａｎｎａ",
        " anna",
        r"CORP\\anna",
        r"Corp\anna",
    ];
    let mut names: Vec<String> = (0..3000u32).map(|number| format!("09{:08}", number * 7919 % 100_000_000)).collect();
    names.extend((0..2000).map(|number| format!("guest{number}")));
    names.extend(spellings.map(str::to_owned));
    let flows: Vec<_> = names
        .iter()
        .zip(0u64..)
        .map(|(name, number)| {
            let mut flow = crate::segment::tests::flow(number % 5);
            if let Some(identity) = &mut flow.identity {
                Arc::make_mut(identity).users = vec![name.clone()];
            }
            flow
        })
        .collect();
    let parts = parts(&flows);
    let encrypted = Encrypted::new(&parts);
    let [chained, by_key] = encrypted.open(&encrypted.file.bytes, &origin());
    for index in [index(&parts.in_the_clear()).unwrap(), chained.unwrap(), by_key.unwrap()] {
        for asked in ["0912345678", "+84912345678", "Anna", r"CORP\anna", "guest7", "nobody", "é"] {
            let alike = Alike::new(asked);
            let expected = naive(&flows, |flow| flow.identity.as_ref().is_some_and(|who| alike.is_same(&who.users[0])));
            assert_eq!(covered(index.user_alike(&alike).unwrap()), expected, "{asked}");
        }
        let none = covered(index.user_alike(&Alike::new("nobody")).unwrap());
        assert!(none.is_empty());
    }
    assert_eq!(Alike::new("0912345678").met(), [""; 0], "what only the index has is not told");
}

#[test]
fn a_value_in_too_many_places_is_everywhere() {
    let flows = |rows: usize| (0..rows).map(|row| flow((row % 2) as u8, 1, 1)).collect::<Vec<_>>();
    let asked = |rows: usize| index(&parts(&flows(rows)).in_the_clear()).unwrap().mac(flow(1, 1, 1).client_mac);
    assert_eq!(covered(asked(2 * RANGES_MAX).unwrap()).len(), RANGES_MAX);
    assert_eq!(asked(2 * RANGES_MAX + 2).unwrap(), Rows::All);
}

#[test]
fn an_address_with_most_of_its_ports_is_a_bitmap() {
    let flows: Vec<_> = (0..60_000u16).step_by(2).map(|port| flow(1, 1, port)).collect();
    let file = parts(&flows).in_the_clear();
    assert!(file.bytes.len() < BITMAP_BYTES + 1_000, "{}", file.bytes.len());
    let index = index(&file).unwrap();
    let ip = [203, 0, 113, 1].into();
    assert_eq!((index.public(ip, Some(59_998)), index.public(ip, Some(59_999))), (Ok(Some(true)), Ok(None)));
}

/// Whatever is changed: the answer is the right one, or an error.
#[test]
fn a_changed_byte_or_a_cut_never_hides_a_row() {
    let flows: Vec<_> = (0..40u8).map(|number| flow(number / 8, number, 1000 + u16::from(number))).collect();
    let (plain, encrypted) = (parts(&flows).in_the_clear(), Encrypted::new(&parts(&flows)));
    let (bytes, head) = (&plain.bytes, plain.head());
    let answers = |index: &Index| {
        Ok::<_, IndexError>((
            index.mac(MacAddr([2, 0, 0, 0, 0, 3]))?,
            index.user("user1")?,
            index.client("10.20.2.0/24".parse().unwrap())?,
            index.public([203, 0, 113, 1].into(), Some(1001))?,
            index.has_peer("198.51.100.7/32".parse().unwrap())?,
            index.blocks()?,
        ))
    };
    let right = answers(&index(&plain).unwrap()).unwrap();
    for index in encrypted.open(&encrypted.file.bytes, &origin()) {
        assert_eq!(answers(&index.unwrap()).unwrap(), right);
    }
    let check = |indexes: Vec<Result<Index, IndexError>>, what: &str| {
        for answer in indexes.into_iter().filter_map(|index| answers(&index.ok()?).ok()) {
            assert_eq!(answer, right, "{what}");
        }
    };
    for at in 0..bytes.len() {
        for bit in 0..8 {
            let mut changed = bytes.clone();
            changed[at] ^= 1 << bit;
            check(vec![read(&changed, &head)], &format!("byte {at}, bit {bit}"));
        }
        assert!(read(&bytes[..at], &head).and_then(|index| answers(&index)).is_err(), "cut at {at}");
    }
    for at in 0..encrypted.file.bytes.len() {
        let mut changed = encrypted.file.bytes.clone();
        changed[at] ^= 1;
        check(encrypted.open(&changed, &origin()).into(), &format!("encrypted, byte {at}"));
        for index in encrypted.open(&encrypted.file.bytes[..at], &origin()) {
            assert!(index.and_then(|index| answers(&index)).is_err(), "encrypted, cut at {at}");
        }
    }
    let other = HASH.replace("00", "01");
    let said = Said { head: &head, segment: &other };
    assert_eq!(Index::in_file(file(bytes), said).err(), Some(IndexError::OtherSegment));
    let other = Origin { sequence: 2, ..origin() };
    assert!(encrypted.open(&encrypted.file.bytes, &other).iter().all(Result::is_err));
    assert_eq!(Sealed::read(file(bytes)).err(), Some(IndexError::Format));
}

/// A forged file with right hashes: lengths and counts that lie are errors, in no more memory than the file.
#[test]
fn lying_lengths_are_errors() {
    let mut refused = [0usize; 7];
    let mut state = 1u64;
    let mut change = |bytes: &mut [u8]| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        bytes[(state >> 33) as usize % bytes.len()] = (state >> 20) as u8;
    };
    for round in 0..20_000 {
        let mut forged = parts(&[flow(1, 1, 1)]);
        let entries = forged.header[ENTRIES_AT..].chunks_exact_mut(ENTRY_BYTES);
        for (position, (entry, Section { directory, pieces })) in entries.zip(&mut forged.sections).enumerate() {
            if position == round % Kind::ALL.len() {
                change(&mut pieces[0]);
            }
            let hash_at = directory.len() - 32;
            directory[hash_at..].copy_from_slice(&Sha256::digest(&pieces[0]));
            if position == round / 8 % Kind::ALL.len() {
                change(&mut directory[..hash_at]);
                change(&mut entry[4..16]);
            }
            entry[16..].copy_from_slice(&Sha256::digest(&directory));
        }
        let index = index(&forged.in_the_clear()).unwrap();
        let is_refused = [
            index.mac(MacAddr([2, 0, 0, 0, 0, 1])).is_err(),
            index.user("user1").is_err(),
            index.client("::/0".parse().unwrap()).is_err(),
            index.public([203, 0, 113, 1].into(), Some(1)).is_err(),
            index.has_translated("::/0".parse().unwrap()).is_err(),
            index.has_peer("ff00::/8".parse().unwrap()).is_err(),
            index.blocks().is_err(),
        ];
        for (refused, is_refused) in refused.iter_mut().zip(is_refused) {
            *refused += usize::from(is_refused);
        }
    }
    assert!(refused.iter().all(|refused| *refused > 0), "every question meets lies that are errors: {refused:?}");
}
