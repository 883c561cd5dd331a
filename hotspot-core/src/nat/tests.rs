use proptest::prelude::*;

use super::*;

const S: WallNs = 1_000_000_000;

fn tuple(client: u8) -> Tuple {
    Tuple {
        protocol: 6,
        client_ip: [10, 0, 0, client].into(),
        client_port: 1000,
        peer_ip: [198, 51, 100, 1].into(),
        peer_port: 80,
    }
}

fn fact(event: NatEvent, at_s: i64, client: u8, public_port: u16) -> NatFact {
    let tuple = tuple(client);
    NatFact {
        event,
        at_ns: at_s * S,
        protocol: tuple.protocol,
        client_ip: tuple.client_ip,
        client_port: tuple.client_port,
        peer_ip: tuple.peer_ip,
        peer_port: tuple.peer_port,
        public_ip: [203, 0, 113, 1].into(),
        public_port,
    }
}

fn port(table: &NatTable, client: u8, start_s: i64, end_s: i64) -> (Option<NatState>, Option<u16>) {
    let (state, public) = table.lookup(&tuple(client), start_s * S, end_s * S);
    (state, public.and_then(|public| public.port))
}

#[test]
fn a_port_used_by_two_clients_in_turn_has_two_owners() {
    let mut table = NatTable::default();
    table.apply_watch(NatWatchFact { watch: NatWatch::Started, at_ns: 0 });
    table.apply(&fact(NatEvent::Created, 10, 1, 5000));
    table.apply(&fact(NatEvent::Destroyed, 20, 1, 5000));
    table.apply(&fact(NatEvent::Created, 21, 2, 5000));
    assert_eq!(port(&table, 1, 10, 19), (Some(NatState::Exact), Some(5000)));
    assert_eq!(port(&table, 2, 21, 25), (Some(NatState::Exact), Some(5000)));
    assert_eq!(port(&table, 1, 30, 31), (Some(NatState::None), None));
}

#[test]
fn the_binding_that_covers_most_of_the_flow_counts() {
    let mut table = NatTable::default();
    for (event, at, port) in
        [(NatEvent::Created, 10, 5000), (NatEvent::Destroyed, 20, 5000), (NatEvent::Created, 21, 6000)]
    {
        table.apply(&fact(event, at, 1, port));
    }
    assert_eq!(port(&table, 1, 10, 20).1, Some(5000));
    assert_eq!(port(&table, 1, 21, 60).1, Some(6000));
}

#[test]
fn absence_means_something_only_while_somebody_watched() {
    let mut table = NatTable::default();
    assert_eq!(port(&table, 1, 1, 2), (None, None));
    table.apply_watch(NatWatchFact { watch: NatWatch::Started, at_ns: 10 * S });
    assert_eq!(port(&table, 1, 1, 2), (None, None));
    assert_eq!(port(&table, 1, 11, 12), (Some(NatState::None), None));
    table.apply_watch(NatWatchFact { watch: NatWatch::Lost, at_ns: 20 * S });
    assert_eq!(port(&table, 1, 15, 21), (Some(NatState::Uncertain), None));
    assert_eq!(port(&table, 1, 22, 23), (Some(NatState::Uncertain), None));
    table.apply_watch(NatWatchFact { watch: NatWatch::Started, at_ns: 30 * S });
    assert_eq!(port(&table, 1, 31, 32), (Some(NatState::None), None));
}

#[test]
fn a_binding_that_was_found_may_cover_what_was_before() {
    let mut table = NatTable::default();
    table.apply(&fact(NatEvent::Found, 10, 1, 5000));
    assert_eq!(port(&table, 1, 1, 2), (Some(NatState::Uncertain), Some(5000)));
    assert_eq!(port(&table, 1, 1, 11), (Some(NatState::Exact), Some(5000)), "it went on when it was found");
    table.apply(&fact(NatEvent::Created, 1, 1, 5000));
    assert_eq!(port(&table, 1, 1, 2), (Some(NatState::Exact), Some(5000)), "its beginning was learnt later");
}

fn watch(table: &mut NatTable, watch: NatWatch, at_s: i64) {
    table.apply_watch(NatWatchFact { watch, at_ns: at_s * S });
}

#[test]
fn what_a_dump_does_not_find_has_ended() {
    let mut table = NatTable::default();
    watch(&mut table, NatWatch::Started, 0);
    for client in [1, 2, 3] {
        table.apply(&fact(NatEvent::Created, 10, client, 5000));
    }
    watch(&mut table, NatWatch::Lost, 50);
    table.apply(&fact(NatEvent::Found, 60, 1, 5000));
    watch(&mut table, NatWatch::Started, 60);
    assert_eq!(port(&table, 1, 70, 80), (Some(NatState::Exact), Some(5000)), "it was found");
    assert_eq!(port(&table, 2, 20, 49), (Some(NatState::Exact), Some(5000)), "nothing was lost then");
    assert_eq!(port(&table, 2, 55, 59), (Some(NatState::Uncertain), Some(5000)));
    assert_eq!(port(&table, 2, 70, 80), (Some(NatState::None), None), "it is gone");
    // The end of one was under way while the dump was made.
    table.apply(&fact(NatEvent::Destroyed, 61, 3, 5000));
    assert_eq!(port(&table, 3, 55, 59), (Some(NatState::Exact), Some(5000)));
    let mut rebuilt = NatTable::default();
    table.facts().0.iter().for_each(|fact| rebuilt.apply(fact));
    table.facts().1.into_iter().for_each(|fact| rebuilt.apply_watch(fact));
    for client in [1, 2, 3] {
        for at in 5..80 {
            assert_eq!(port(&rebuilt, client, at, at), port(&table, client, at, at), "client {client} at {at}");
        }
    }
    table.forget(65 * S);
    assert_eq!(table.len(), 1, "only what goes on stays");
}

#[test]
fn a_port_is_another_clients_within_a_second() {
    let mut table = NatTable::default();
    watch(&mut table, NatWatch::Started, 0);
    let at = |event, at_ms: i64, client| NatFact { at_ns: at_ms * 1_000_000, ..fact(event, 0, client, 5000) };
    for fact in [at(NatEvent::Created, 10_000, 1), at(NatEvent::Destroyed, 10_300, 1), at(NatEvent::Created, 10_600, 2)]
    {
        table.apply(&fact);
    }
    assert_eq!(port(&table, 1, 10, 10), (Some(NatState::Exact), Some(5000)));
    assert_eq!(port(&table, 2, 11, 11), (Some(NatState::Exact), Some(5000)));
    assert_eq!(port(&table, 1, 13, 13), (Some(NatState::None), None));
}

#[test]
fn ipv6_is_translated_too() {
    let mut table = NatTable::default();
    let client: IpAddr = "fd00::1".parse().unwrap();
    let public: IpAddr = "2001:db8::1".parse().unwrap();
    let peer: IpAddr = "2001:db8:1::1".parse().unwrap();
    let fact = NatFact { client_ip: client, peer_ip: peer, public_ip: public, ..fact(NatEvent::Created, 10, 1, 5000) };
    table.apply(&fact);
    let tuple = Tuple { client_ip: client, peer_ip: peer, ..tuple(1) };
    assert_eq!(table.lookup(&tuple, 11 * S, 12 * S).1.map(|found| found.ip), Some(public));
    assert_eq!(table.lookup(&Tuple { client_ip: peer, ..tuple }, 11 * S, 12 * S).1, None);
    assert_eq!(table.facts().0, [fact]);
}

fn any_fact() -> impl Strategy<Value = NatFact> {
    let event = prop::sample::select(vec![NatEvent::Created, NatEvent::Found, NatEvent::Destroyed, NatEvent::Missed]);
    (event, 0i64..100, 1u8..3, 5000u16..5002).prop_map(|(event, at, client, port)| fact(event, at, client, port))
}

proptest! {
    #[test]
    fn exported_facts_give_the_same_answers(mut facts in prop::collection::vec(any_fact(), 0..12), lost in 0i64..50, whole in 50i64..100) {
        facts.sort_by_key(|fact| fact.at_ns);
        let mut table = NatTable::default();
        watch(&mut table, NatWatch::Started, 0);
        facts.iter().for_each(|fact| table.apply(fact));
        watch(&mut table, NatWatch::Lost, lost);
        watch(&mut table, NatWatch::Started, whole);
        let mut rebuilt = NatTable::default();
        let (exported, watched) = table.facts();
        exported.iter().for_each(|fact| rebuilt.apply(fact));
        watched.into_iter().for_each(|fact| rebuilt.apply_watch(fact));
        for at in 0..110 {
            for client in 1..3 {
                prop_assert_eq!(port(&rebuilt, client, at, at + 1), port(&table, client, at, at + 1));
            }
        }
    }
}

#[test]
fn facts_applied_again_or_exported_make_the_same_table() {
    let facts = [
        fact(NatEvent::Created, 10, 1, 5000),
        fact(NatEvent::Destroyed, 20, 1, 5000),
        fact(NatEvent::Created, 21, 1, 5000),
        fact(NatEvent::Found, 5, 2, 6000),
        fact(NatEvent::Destroyed, 7, 3, 7000),
    ];
    let mut once = NatTable::default();
    facts.iter().for_each(|fact| once.apply(fact));
    let mut twice = once.clone();
    facts.iter().for_each(|fact| twice.apply(fact));
    assert_eq!(once.facts(), twice.facts());
    let mut rebuilt = NatTable::default();
    once.facts().0.iter().for_each(|fact| rebuilt.apply(fact));
    assert_eq!(rebuilt.facts(), once.facts());
    rebuilt.forget(15 * S);
    assert_eq!(port(&rebuilt, 3, 6, 7).1, None, "forgotten");
    assert_eq!(port(&rebuilt, 1, 18, 19).1, Some(5000));
}

#[test]
fn a_newer_binding_ends_the_one_before_whose_end_nobody_reported() {
    let mut table = NatTable::default();
    table.apply(&fact(NatEvent::Found, 5, 1, 5000));
    watch(&mut table, NatWatch::Started, 5);
    table.apply(&fact(NatEvent::Created, 100, 1, 6000));
    table.apply(&fact(NatEvent::Destroyed, 200, 1, 6000));
    table.apply(&fact(NatEvent::Created, 300, 1, 7000));
    assert_eq!(port(&table, 1, 6, 6), (Some(NatState::Exact), Some(5000)), "it was found a second ago");
    assert_eq!(port(&table, 1, 50, 60), (Some(NatState::Uncertain), Some(5000)), "it may have ended by then");
    assert_eq!(port(&table, 1, 110, 190), (Some(NatState::Exact), Some(6000)));
    assert_eq!(port(&table, 1, 301, 400), (Some(NatState::Exact), Some(7000)));
    // Its end was on the way.
    table.apply(&fact(NatEvent::Destroyed, 90, 1, 5000));
    assert_eq!(port(&table, 1, 50, 60), (Some(NatState::Exact), Some(5000)));
}

#[test]
fn what_a_later_look_misses_has_ended_since_the_look_before() {
    let mut table = NatTable::default();
    table.apply(&fact(NatEvent::Found, 5, 1, 5000));
    watch(&mut table, NatWatch::Started, 5);
    table.apply(&fact(NatEvent::Found, 35, 1, 5000));
    table.apply(&fact(NatEvent::Missed, 65, 1, 5000));
    assert_eq!(port(&table, 1, 20, 30), (Some(NatState::Exact), Some(5000)));
    assert_eq!(port(&table, 1, 50, 60), (Some(NatState::Uncertain), Some(5000)));
    assert_eq!(port(&table, 1, 70, 80), (Some(NatState::None), None));
    table.apply(&fact(NatEvent::Missed, 95, 1, 5000));
    assert_eq!(port(&table, 1, 70, 80), (Some(NatState::None), None), "it is missed once");
    table.forget(70 * S);
    assert!(table.is_empty());
}

#[test]
fn a_row_that_two_bindings_share_is_not_exact() {
    let mut table = NatTable::default();
    for (event, at, port) in
        [(NatEvent::Created, 10, 5000), (NatEvent::Destroyed, 50, 5000), (NatEvent::Created, 60, 6000)]
    {
        table.apply(&fact(event, at, 1, port));
    }
    assert_eq!(port(&table, 1, 20, 120), (Some(NatState::Uncertain), Some(6000)));
    assert_eq!(port(&table, 1, 20, 51), (Some(NatState::Exact), Some(5000)));
    assert_eq!(
        port(&table, 1, 49, 120),
        (Some(NatState::Exact), Some(6000)),
        "its first second may be as late as the report"
    );
}
