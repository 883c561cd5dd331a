//! The whole agent under load: new flows at a rate, on a cable into a namespace.

use std::fs;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, ensure};
use hotspot_tests::cable::Cable;
use hotspot_tests::generator::{Load, send_at_rate};
use hotspot_tests::programs::{Agent, coverage};
use serde::Serialize;

use crate::write_json;

#[derive(Serialize)]
struct Figure {
    /// New flows per second, as asked and as sent.
    rate: u32,
    sent_rate: f64,
    flows: u32,
    recorded_packets: u64,
    overflow_packets: u64,
    /// Processor seconds of the agent, per second of load.
    cores: f64,
    /// Processor seconds of the agent from its start to its end, with sealing.
    cpu_s: f64,
    rss_max_mib: u64,
}

/// Measures, prints the table, and writes the file.
#[expect(clippy::print_stdout, reason = "the table is what this program is for")]
pub(crate) fn run(json: Option<&Path>, rates: &[u32], seconds: u32) -> anyhow::Result<()> {
    println!(
        "{:>8}  {:>9}  {:>9}  {:>9}  {:>9}  {:>6}  {:>6}  {:>8}",
        "flows/s", "sent/s", "sent", "recorded", "overflow", "cores", "cpu s", "RSS MiB"
    );
    let mut figures = Vec::new();
    for rate in rates {
        let figure = measure(*rate, seconds)?;
        println!(
            "{:>8}  {:>9.0}  {:>9}  {:>9}  {:>9}  {:>6.2}  {:>6.2}  {:>8}",
            figure.rate,
            figure.sent_rate,
            figure.flows,
            figure.recorded_packets,
            figure.overflow_packets,
            figure.cores,
            figure.cpu_s,
            figure.rss_max_mib
        );
        figures.push(figure);
    }
    write_json(json, &figures)
}

fn measure(rate: u32, seconds: u32) -> anyhow::Result<Figure> {
    let cable = Cable::new()?;
    let data = cable.dir().join("data");
    let agent = Agent::start(&cable.gateway, &data, &["--no-nat", "--grace", "0"])?;
    let load = Load { from: 0, to: rate * seconds, clients: 100 };
    let (before, began) = (cpu_seconds(agent.pid())?, Instant::now());
    let took = send_at_rate(&cable.sender, "eth0", load, rate)?;
    // With the generation that is being read.
    std::thread::sleep(std::time::Duration::from_secs(5));
    let cores = (cpu_seconds(agent.pid())? - before) / began.elapsed().as_secs_f64();
    let cost = agent.stop_and_count()?;
    let rows = coverage(&data.join("archive"))?;
    let sum = |name: &str| rows.iter().map(|row| row[name].as_u64().unwrap_or(0)).sum::<u64>();
    ensure!(rows.iter().all(|row| row["balanced"] == true), "the log does not balance: {rows:?}");
    Ok(Figure {
        rate,
        sent_rate: f64::from(load.to) / took.as_secs_f64(),
        flows: load.to,
        recorded_packets: sum("flow_packets"),
        overflow_packets: sum("overflow_packets"),
        cores,
        cpu_s: cost.cpu_s,
        rss_max_mib: cost.rss_max_mib,
    })
}

/// Processor time of a process so far.
fn cpu_seconds(pid: u32) -> anyhow::Result<f64> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // After the name, which may hold anything, utime and stime are the 12th and 13th.
    let fields: Vec<&str> = text.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks =
        |position: usize| fields.get(position).and_then(|field| field.parse::<u64>().ok()).context("/proc/PID/stat");
    Ok((ticks(11)? + ticks(12)?) as f64 / rustix::param::clock_ticks_per_second() as f64)
}
