//! The agent with the rights that its systemd unit leaves it, as root without any other capability.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;
use std::process::Command;

use hotspot_tests::generator::{Load, recorded};
use hotspot_tests::lab::Lab;
use hotspot_tests::programs::{Agent, ensure_whole};

const UNIT: &str = include_str!("../../contrib/systemd/hotspot-agent.service");

/// The capabilities of the unit, as setpriv(1) has them.
fn bounding_set() -> String {
    let names = UNIT.lines().find_map(|line| line.strip_prefix("CapabilityBoundingSet=")).unwrap();
    let kept = names.split_whitespace().map(|name| format!(",+{}", name.trim_start_matches("CAP_").to_lowercase()));
    format!("--bounding-set=-all{}", kept.collect::<String>())
}

fn start(lab: &Lab, data: &Path, hook: &str) -> Agent {
    let whole = Agent::command(&lab.gateway, data, &["--hook", hook, "--grace", "0"]).unwrap();
    // First the namespace, which takes other rights.
    let mut words = whole.get_args();
    let mut command = Command::new(whole.get_program());
    command.arg(words.next().unwrap());
    command.args(["setpriv", "--no-new-privs", "--inh-caps=-all", &bounding_set()]).args(words);
    Agent::start_command(&mut command, data).unwrap()
}

#[test]
fn the_capabilities_of_the_unit_are_enough_also_to_go_on_after_a_kill() {
    for hook in ["tc", "clsact", "xdp"] {
        let lab = Lab::new(1).unwrap();
        let data = lab.dir().join("data");
        let (mac, client) = (lab.gateway_mac().unwrap(), &lab.clients[0].namespace);
        let load = |from, to| Load { from, to, clients: 5 };
        let agent = start(&lab, &data, hook);
        load(0, 1_000).send_as_received(client, &lab.gateway, mac).unwrap();
        agent.kill().unwrap();
        load(1_000, 2_000).send_as_received(client, &lab.gateway, mac).unwrap();
        let agent = start(&lab, &data, hook);
        assert!(agent.log().contains("took over from an earlier agent"), "{}", agent.log());
        assert!(agent.log().contains("watching translations"), "{}", agent.log());
        load(2_000, 3_000).send_as_received(client, &lab.gateway, mac).unwrap();
        assert!(agent.stop().unwrap().success());
        assert_eq!(recorded(&data.join("archive")).unwrap(), load(0, 3_000).truth(), "{hook}");
        ensure_whole(&data.join("archive")).unwrap();
    }
}
