//! The join of flows and sessions against a naive model, over random histories.
//!
//! `model` (with `threads` and `claimants`) says instant by instant who held what, from the rules as they are written down; `truth` makes up what people really did,
//! has it reported badly, and asks whether anybody is taken for somebody else. Both run briefly with every test run, and for a
//! million histories each in `cargo xtask test soak`.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod claimants;
mod histories;
mod kept;
mod model;
mod threads;
mod truth;

use hotspot_core::WallNs;
use hotspot_core::attribute::{Attributor, Seen};
use hotspot_core::device::DeviceTable;
use hotspot_core::fact::{DeviceFact, SessionFact};
use hotspot_core::record::Attribution;
use hotspot_core::sessions::{Session, SessionTable, SessionTimeouts};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use histories::{Flow, History};

const SECOND: WallNs = 1_000_000_000;
const BRIEF: u32 = 2_000;
const SOAK: u32 = 1_000_000;

/// Short, so that histories of some minutes meet every one of them.
const TIMEOUTS: SessionTimeouts =
    SessionTimeouts { grace_ns: 5 * SECOND, silence_max_ns: 90 * SECOND, keep_ns: 200 * SECOND };

fn sessions<'a>(facts: impl IntoIterator<Item = &'a SessionFact>, now_ns: WallNs) -> Vec<Session> {
    let mut table = SessionTable::default();
    facts.into_iter().for_each(|fact| table.apply(fact.clone()));
    table.sessions(&TIMEOUTS, now_ns)
}

fn devices(shown: &[DeviceFact]) -> DeviceTable {
    let mut table = DeviceTable::default();
    shown.iter().for_each(|fact| table.apply(fact));
    table
}

/// What the join says, and by which sessions.
type Answer = (Attribution, Option<String>, Option<String>, Option<String>);

fn ask(attributor: &mut Attributor<'_>, flow: &Flow) -> Answer {
    let Flow { mac, ip, vlan, start_ns, end_ns } = *flow;
    let (attribution, identity) = attributor.attribute(&Seen { mac, ip, vlan, inner_vlan: 0, start_ns, end_ns });
    match identity {
        None => (attribution, None, None, None),
        Some(identity) => {
            let names = identity.users.join(", ");
            let ap = identity.ap_mac.map(|ap| ap.to_string());
            (attribution, (!names.is_empty()).then_some(names), Some(identity.session_ids.join(", ")), ap)
        }
    }
}

fn run(cases: u32, test: impl Fn(&History) -> Result<(), TestCaseError>) {
    let config = Config { cases, max_shrink_iters: 20_000, failure_persistence: None, ..Config::default() };
    TestRunner::new(config).run(&histories::any_history(), |history| test(&history)).unwrap();
}

/// Flows of a client one after the other, each with others of the same client a while before and after.
fn in_the_order_of_a_segment(flows: &[Flow]) -> Vec<Flow> {
    let mut flows = flows.to_vec();
    flows.sort_by_key(|flow| (flow.mac, flow.ip, flow.vlan, flow.start_ns));
    let later = |flow: Flow, ns: WallNs| Flow { start_ns: flow.start_ns + ns, end_ns: flow.end_ns + ns, ..flow };
    flows.iter().flat_map(|flow| [0, 1, -3 * SECOND, 7 * SECOND, 250 * SECOND].map(|ns| later(*flow, ns))).collect()
}

fn agrees_with_the_model(history: &History) -> Result<(), TestCaseError> {
    let known = sessions(&history.facts, history.now_ns);
    let devices = devices(&history.shown);
    let mut attributor = Attributor::new(&known).with_devices(&devices);
    for flow in &in_the_order_of_a_segment(&history.flows) {
        prop_assert_eq!(
            ask(&mut attributor, flow),
            claimants::attribute(&history.facts, &devices.devices(), &TIMEOUTS, history.now_ns, flow),
            "{:#?}\nsessions {:#?}\ndevices {:#?}",
            flow,
            known,
            devices.devices()
        );
    }
    let backward = sessions(history.facts.iter().rev(), history.now_ns);
    prop_assert_eq!(&known, &backward, "the order of arrival matters");
    let twice = sessions(history.facts.iter().chain(history.facts.iter().rev()), history.now_ns);
    prop_assert_eq!(&known, &twice, "repetition matters");
    Ok(())
}

/// Segments are sealed in the midst of it, and what cannot matter any more is forgotten; later flows must not notice.
fn forgets_nothing_that_matters(history: &History) -> Result<(), TestCaseError> {
    let mut table = SessionTable::default();
    let mut arriving: Vec<&SessionFact> = history.facts.iter().collect();
    arriving.sort_by_key(|fact| fact.received_ns);
    let mut sealed_ns = 0;
    for sealing_ns in [history.now_ns / 3, history.now_ns * 2 / 3] {
        let arrived = arriving.iter().filter(|fact| (sealed_ns..sealing_ns).contains(&fact.received_ns));
        arrived.for_each(|fact| table.apply((*fact).clone()));
        let known = table.sessions(&TIMEOUTS, sealing_ns);
        table.forget(&known, &TIMEOUTS, sealing_ns);
        let mut rebuilt = SessionTable::default();
        table.facts().into_iter().for_each(|fact| rebuilt.apply(fact));
        prop_assert_eq!(table.facts(), rebuilt.facts());
        (table, sealed_ns) = (rebuilt, sealing_ns);
    }
    arriving.iter().filter(|fact| fact.received_ns >= sealed_ns).for_each(|fact| table.apply((*fact).clone()));
    let (whole, kept) = (sessions(&history.facts, history.now_ns), table.sessions(&TIMEOUTS, history.now_ns));
    let (mut whole, mut kept) = (Attributor::new(&whole), Attributor::new(&kept));
    for flow in history.flows.iter().filter(|flow| flow.start_ns >= sealed_ns - 60 * SECOND) {
        prop_assert_eq!(ask(&mut kept, flow), ask(&mut whole, flow), "{:#?}\nkept {:#?}", flow, table.facts());
    }
    Ok(())
}

#[test]
fn every_answer_is_that_of_the_naive_model_in_any_order_of_arrival() {
    run(BRIEF, agrees_with_the_model);
}

#[test]
fn forgetting_changes_no_later_answer() {
    run(BRIEF, forgets_nothing_that_matters);
}

#[test]
fn what_once_was_forgotten_with_a_trace_no_longer_is() {
    for (what, history) in kept::all() {
        agrees_with_the_model(&history).unwrap_or_else(|error| panic!("{what}: {error}"));
        forgets_nothing_that_matters(&history).unwrap_or_else(|error| panic!("{what}: {error}"));
    }
}

#[test]
fn nobody_is_taken_for_somebody_else() {
    truth::run(BRIEF);
}

#[test]
#[ignore = "takes minutes; `cargo xtask test soak` runs it"]
fn soak_a_million_histories_agree_with_the_naive_model() {
    run(SOAK, agrees_with_the_model);
}

#[test]
#[ignore = "takes minutes; `cargo xtask test soak` runs it"]
fn soak_a_million_histories_are_forgotten_without_a_trace() {
    run(SOAK, forgets_nothing_that_matters);
}

#[test]
#[ignore = "takes minutes; `cargo xtask test soak` runs it"]
fn soak_nobody_is_taken_for_somebody_else_in_a_million_evenings() {
    truth::run(SOAK);
}
