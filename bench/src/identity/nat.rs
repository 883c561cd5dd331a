//! New translations at a rate through a real gateway: whether the agent learns every one, and what that costs.

use std::time::Duration;

use anyhow::{Context, ensure};
use hotspot_tests::cable::Cable;
use hotspot_tests::generator::{Load, send_at_rate};
use hotspot_tests::namespace::{Namespace, run};
use hotspot_tests::programs::{Agent, Cost, ask};
use serde::Serialize;

/// Public addresses: each has some 64 000 ports towards the one server of the load.
const RULES: &str = "table ip nat {\nchain post {\ntype nat hook postrouting priority 100;\n\
                     oifname \"wan\" snat to 203.0.113.1-203.0.113.30 random\n}\n}";

#[derive(Debug, Serialize)]
#[expect(clippy::struct_field_names, reason = "one flat set of figures with those of the other parts")]
pub(super) struct Figures {
    /// New translations per second, as they were made.
    nat_events_per_s: f64,
    /// In the kernel's table when all was sent.
    nat_translations: usize,
    /// Of these, flows whose translation the archive does not hold.
    nat_lost: usize,
    nat_overruns: usize,
    nat_agent_cpu_s: f64,
}

/// Measures and prints.
#[expect(clippy::print_stdout, reason = "the figures are what this program is for")]
pub(super) fn measure(per_second: u32, seconds: u32) -> anyhow::Result<(Figures, Cost)> {
    let cable = Cable::new()?;
    let server = Namespace::new(2000, "net")?;
    translate(&cable, &server)?;
    let data = cable.dir().join("data");
    let agent = Agent::start(&cable.gateway, &data, &["--grace", "0"])?;
    let load = Load { from: 0, to: per_second * seconds, clients: 100 };
    let took = send_at_rate(&cable.sender, "eth0", load, per_second)?;
    let listed = cable.gateway.run("conntrack -C")?.trim().parse().context("conntrack -C")?;
    // With the generation that is being read.
    std::thread::sleep(Duration::from_secs(5));
    let nat_overruns = agent.log().matches("conntrack events were lost").count();
    let cost = agent.stop_and_count()?;
    let rows = ask("find", &data.join("archive"), &["proto", "udp"])?;
    let exact = rows.iter().filter(|row| row["nat"] == "exact" && row["public_ip"].is_string()).count();
    ensure!(rows.len() >= listed, "{} flows for {listed} translations", rows.len());
    let figures = Figures {
        nat_events_per_s: f64::from(load.to) / took.as_secs_f64(),
        nat_translations: listed,
        nat_lost: listed.saturating_sub(exact),
        nat_overruns,
        nat_agent_cpu_s: cost.cpu_s,
    };
    println!(
        "{:>14}  {:>12}  {:>6}  {:>8}  {:>6}  {:>8}",
        "translations/s", "translations", "lost", "overruns", "cpu s", "RSS MiB"
    );
    println!(
        "{:>14.0}  {:>12}  {:>6}  {:>8}  {:>6.2}  {:>8}",
        figures.nat_events_per_s,
        figures.nat_translations,
        figures.nat_lost,
        figures.nat_overruns,
        figures.nat_agent_cpu_s,
        cost.rss_max_mib
    );
    Ok((figures, cost))
}

/// Makes the cable's gateway one that translates, towards a server that is silent.
fn translate(cable: &Cable, server: &Namespace) -> anyhow::Result<()> {
    let gateway = &cable.gateway;
    gateway.ip("link set lan address 02:00:00:00:00:fe")?;
    gateway.ip("addr add 10.20.0.1/16 dev lan")?;
    gateway.ip(&format!("link add wan type veth peer name eth0 netns {}", server.name()))?;
    server.ip("link set eth0 up")?;
    gateway.ip("link set wan up")?;
    gateway.ip("addr add 203.0.113.1/24 dev wan")?;
    gateway.ip("neigh add 203.0.113.254 lladdr 02:00:00:00:00:fd dev wan nud permanent")?;
    gateway.ip("route add default via 203.0.113.254")?;
    gateway.sysctl("net.ipv4.ip_forward", "1")?;
    run(gateway.command("nft").arg(RULES)).map(drop)
}
