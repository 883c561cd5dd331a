use super::*;

const S: WallNs = SECOND;
const A: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
const B: MacAddr = MacAddr([2, 0, 0, 0, 0, 2]);

fn ip() -> IpAddr {
    [10, 0, 0, 7].into()
}

fn fact(mac: MacAddr, at_s: i64, source: DeviceSource, event: DeviceEvent) -> DeviceFact {
    DeviceFact { at_ns: at_s * S, client_mac: mac, vlan: 0, inner_vlan: 0, source, event }
}

fn uses(mac: MacAddr, at_s: i64) -> DeviceFact {
    fact(mac, at_s, DeviceSource::Arp, DeviceEvent::Uses { ip: ip() })
}

fn leased(mac: MacAddr, at_s: i64, lease_s: u32) -> DeviceFact {
    fact(mac, at_s, DeviceSource::Dhcp, DeviceEvent::Leased { ip: ip(), lease_s })
}

fn named(mac: MacAddr, at_s: i64, hostname: &str) -> DeviceFact {
    let names = DeviceNames { hostname: Some(hostname.into()), ..DeviceNames::default() };
    fact(mac, at_s, DeviceSource::Dhcp, DeviceEvent::Named(names))
}

fn table(facts: &[DeviceFact]) -> DeviceTable {
    let mut table = DeviceTable::default();
    facts.iter().for_each(|fact| table.apply(fact));
    let mut again = table.clone();
    facts.iter().rev().take(1).for_each(|fact| again.apply(fact));
    assert_eq!(again.devices(), table.devices(), "the same fact again changes nothing");
    let mut restored = DeviceTable::default();
    table.devices().into_iter().for_each(|device| restored.restore(device));
    assert_eq!(restored.devices(), table.devices());
    table
}

fn holders(table: &DeviceTable, at_s: i64) -> Vec<MacAddr> {
    let mut holders: Vec<MacAddr> = table.holders(ip(), at_s * S).collect();
    holders.sort_unstable();
    holders
}

#[test]
fn a_name_counts_from_when_it_was_said() {
    let table = table(&[named(A, 10, "old"), named(A, 20, "new"), uses(A, 30)]);
    let name = |at_s| table.device(A).unwrap().names_at(at_s * S).unwrap().hostname.clone().unwrap();
    assert_eq!((name(5), name(15), name(25)), ("old".into(), "old".into(), "new".into()));
    assert_eq!(table.device(A).unwrap().first_seen_ns, 10 * S);
}

#[test]
fn a_message_without_a_name_does_not_take_it_away() {
    let class = DeviceNames { vendor_class: Some("android".into()), ..DeviceNames::default() };
    let table = table(&[named(A, 10, "phone"), fact(A, 20, DeviceSource::Dhcp, DeviceEvent::Named(class))]);
    let names = table.device(A).unwrap().names_at(30 * S).unwrap();
    assert_eq!((names.hostname.as_deref(), names.vendor_class.as_deref()), (Some("phone"), Some("android")));
}

#[test]
fn a_lease_lasts_as_long_as_it_says_and_is_renewed() {
    let table = table(&[leased(A, 100, 60), leased(A, 130, 60)]);
    assert_eq!(holders(&table, 99), []);
    assert_eq!(holders(&table, 189), [A]);
    assert_eq!(holders(&table, 190), []);
}

#[test]
fn an_address_given_back_is_nobodys() {
    let released = fact(A, 110, DeviceSource::Dhcp, DeviceEvent::Released { ip: ip() });
    let table = table(&[leased(A, 100, 3600), released, leased(A, 200, 3600)]);
    assert_eq!((holders(&table, 105), holders(&table, 150), holders(&table, 250)), (vec![A], vec![], vec![A]));
}

#[test]
fn a_lease_given_to_the_next_ends_the_one_before() {
    let table = table(&[leased(A, 100, 3600), uses(A, 101), leased(B, 500, 3600), uses(B, 501)]);
    assert_eq!((holders(&table, 499), holders(&table, 500), holders(&table, 600)), (vec![A], vec![B], vec![B]));
}

#[test]
fn a_guess_gives_way_to_evidence() {
    let table = table(&[uses(A, 100), uses(B, 400)]);
    assert_eq!((holders(&table, 399), holders(&table, 401)), (vec![A], vec![B]));
}

#[test]
fn two_that_both_go_on_claiming_an_address_are_a_conflict() {
    let table = table(&[uses(A, 100), uses(B, 200), uses(A, 300), uses(B, 400)]);
    assert_eq!(holders(&table, 150), [A]);
    assert_eq!(holders(&table, 250), [A, B]);
    assert_eq!(holders(&table, 350), [A, B]);
}

#[test]
fn who_claims_anothers_lease_is_a_conflict() {
    let table = table(&[leased(A, 100, 3600), uses(B, 200)]);
    assert_eq!((holders(&table, 150), holders(&table, 250)), (vec![A], vec![A, B]));
}

#[test]
fn the_same_address_in_another_vlan_is_another_address() {
    let elsewhere = DeviceFact { vlan: 20, ..leased(B, 200, 3600) };
    let table = table(&[leased(A, 100, 3600), elsewhere]);
    assert!(table.holds(A, ip(), 300 * S, 300 * S) && table.holds(B, ip(), 300 * S, 300 * S));
}

#[test]
fn what_is_learnt_right_after_a_flow_began_counts_for_it() {
    let table = table(&[uses(A, 100)]);
    assert!(table.holds(A, ip(), 95 * S, 96 * S));
    assert!(!table.holds(A, ip(), 80 * S, 81 * S));
    assert!(table.holds(A, ip(), 80 * S, 120 * S), "a flow that lasted until then");
    assert!(!table.holds(B, ip(), 95 * S, 96 * S));
}

#[test]
fn what_ended_long_ago_is_forgotten() {
    let mut table = table(&[named(A, 100, "a"), uses(A, 100), leased(B, 100, 4 * 86_400)]);
    table.forget(&DeviceTimeouts::default(), (100 + 3600 + 901) * S);
    assert!(table.device(A).unwrap().addresses.is_empty(), "its name is kept for a day");
    table.forget(&DeviceTimeouts::default(), (100 + 86_401) * S);
    assert!(table.device(A).is_none());
    assert_eq!(holders(&table, 86_500), [B], "a lease that lasts is kept");
}

#[test]
fn made_up_devices_do_not_push_out_those_that_have_leases() {
    let mut table = DeviceTable::default();
    table.apply(&leased(A, 1, 3600));
    for number in 0..u32::try_from(DEVICES_MAX).unwrap() + 10 {
        let [_, a, b, c] = number.to_be_bytes();
        table.apply(&uses(MacAddr([6, 0, 0, a, b, c]), 2));
    }
    assert!(table.devices.len() <= DEVICES_MAX);
    assert!(table.device(A).is_some());
}

#[test]
fn a_device_that_claims_every_address_keeps_few() {
    let mut table = DeviceTable::default();
    for last in 0..=255 {
        let event = DeviceEvent::Uses { ip: [10, 0, 0, last].into() };
        table.apply(&fact(A, i64::from(last), DeviceSource::Arp, event));
    }
    assert_eq!(table.device(A).unwrap().addresses.len(), ADDRESSES_MAX);
}
