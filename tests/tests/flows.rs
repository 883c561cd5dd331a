//! Nothing lost, nothing doubled: 200 000 known flows through the gateway, undisturbed and with the agent killed.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use hotspot_tests::generator::{Load, recorded};
use hotspot_tests::lab::Lab;
use hotspot_tests::programs::{Agent, ensure_whole};

const FLOWS: u32 = 200_000;
const CLIENTS: u32 = 50;

/// Options that make several segments and generations of a short run.
const OPTIONS: [&str; 6] = ["--rotate", "6", "--grace", "1", "--generation", "1"];

fn all_flows() -> Load {
    Load { from: 0, to: FLOWS, clients: CLIENTS }
}

#[test]
fn two_hundred_thousand_flows_are_all_in_the_archive() {
    let lab = Lab::new(1).unwrap();
    let data = lab.dir().join("data");
    let agent = Agent::start(&lab.gateway, &data, &OPTIONS).unwrap();
    all_flows().send(&lab.clients[0].namespace, lab.gateway_mac().unwrap()).unwrap();
    assert!(agent.stop().unwrap().success());
    assert_eq!(recorded(&data.join("archive")).unwrap(), all_flows().truth());
    ensure_whole(&data.join("archive")).unwrap();
}

#[test]
fn a_cache_far_too_small_loses_nothing_either() {
    let lab = Lab::new(1).unwrap();
    let data = lab.dir().join("data");
    let agent = Agent::start(&lab.gateway, &data, &[&OPTIONS[..], &["--flow-slots", "1024"]].concat()).unwrap();
    all_flows().send(&lab.clients[0].namespace, lab.gateway_mac().unwrap()).unwrap();
    assert!(agent.stop().unwrap().success());
    assert_eq!(recorded(&data.join("archive")).unwrap(), all_flows().truth());
    ensure_whole(&data.join("archive")).unwrap();
}

#[test]
fn an_agent_that_is_killed_loses_nothing_and_doubles_nothing() {
    let lab = Lab::new(1).unwrap();
    let data = lab.dir().join("data");
    let mac = lab.gateway_mac().unwrap();
    let client = &lab.clients[0].namespace;
    let parts = 8;
    let mut agent = Some(Agent::start(&lab.gateway, &data, &OPTIONS).unwrap());
    for part in 0..parts {
        let load = Load { from: part * FLOWS / parts, to: (part + 1) * FLOWS / parts, clients: CLIENTS };
        std::thread::scope(|scope| {
            let sending = scope.spawn(|| load.send(client, mac));
            if part % 2 == 0 {
                // In the middle of sending, at another moment of the agent's work each time.
                std::thread::sleep(std::time::Duration::from_millis(u64::from(30 + part * 37)));
                agent.take().unwrap().kill().unwrap();
                agent = Some(Agent::start(&lab.gateway, &data, &OPTIONS).unwrap());
            }
            sending.join().unwrap().unwrap();
        });
    }
    assert!(agent.unwrap().stop().unwrap().success());
    assert_eq!(recorded(&data.join("archive")).unwrap(), all_flows().truth());
    ensure_whole(&data.join("archive")).unwrap();
}
