//! Long runs: `cargo xtask test soak`.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hotspot_tests::cable::Cable;
use hotspot_tests::generator::Load;
use hotspot_tests::lab::{Lab, SILENT_PORT};
use hotspot_tests::programs::{Agent, ensure_whole};

/// `DuckDB` in the environment `cargo xtask setup` makes: rows of text and numbers.
fn duckdb(sql: &str) -> Vec<(String, u64, u64, u64)> {
    let python = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/venv/bin/python");
    let script = "import duckdb, json, sys; print(json.dumps(duckdb.sql(sys.argv[1]).fetchall()))";
    let output = Command::new(python).args(["-c", script, sql]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Flows, packets and bytes of every client that sent to the silent port.
fn recorded(archive: &Path) -> BTreeMap<String, (u64, u64, u64)> {
    let rows = duckdb(&format!(
        "select client_mac, count(distinct flow_id), sum(packets_out)::bigint, sum(bytes_out)::bigint \
         from read_parquet('{}/flows/**/*.parquet', hive_partitioning = false) \
         where protocol = 17 and peer_port = {SILENT_PORT} group by client_mac",
        archive.display()
    ));
    rows.into_iter().map(|(mac, flows, packets, bytes)| (mac, (flows, packets, bytes))).collect()
}

fn truth(load: Load) -> BTreeMap<String, (u64, u64, u64)> {
    load.truth().into_iter().map(|(mac, sent)| (mac, (sent.flows, sent.packets, sent.bytes))).collect()
}

/// The same numbers each time: xorshift64 (Marsaglia 2003).
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

/// At random moments: while it starts and recovers, captures, rotates and seals.
#[test]
#[ignore = "minutes; cargo xtask test soak"]
fn two_hundred_kills_lose_nothing_and_double_nothing() {
    const CLIENTS: u32 = 50;
    const CHUNK: u32 = 200;
    let lab = Lab::new(1).unwrap();
    let data = lab.dir().join("data");
    let options = ["--rotate", "2", "--grace", "0", "--generation", "1"];
    // The first one is not disturbed until it counts: before that there is nothing to lose.
    let mut agent = Some(Agent::start(&lab.gateway, &data, &options).unwrap());
    let killed = AtomicBool::new(false);
    let (lab, data) = (&lab, &data);
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let sent = std::thread::scope(|scope| {
        let sending = scope.spawn(|| {
            let mut sent = 0;
            while !killed.load(Ordering::Relaxed) && sent < CLIENTS * 60_000 {
                let load = Load { from: sent, to: sent + CHUNK, clients: CLIENTS };
                load.send(&lab.clients[0].namespace, lab.gateway_mac().unwrap()).unwrap();
                sent += CHUNK;
                std::thread::sleep(Duration::from_millis(10));
            }
            sent
        });
        for _ in 0..200 {
            std::thread::sleep(Duration::from_millis(random.below(1500)));
            agent.take().unwrap().kill().unwrap();
            let mut command = Agent::command(&lab.gateway, data, &options).unwrap();
            agent = Some(Agent::begin(&mut command, data).unwrap());
        }
        killed.store(true, Ordering::Relaxed);
        sending.join().unwrap()
    });
    let mut agent = agent.unwrap();
    agent.wait_until_it_captures().unwrap();
    assert!(agent.stop().unwrap().success());
    assert_eq!(recorded(&data.join("archive")), truth(Load { from: 0, to: sent, clients: CLIENTS }));
    ensure_whole(&data.join("archive")).unwrap();
}

#[test]
#[ignore = "minutes; cargo xtask test soak"]
fn four_million_live_flows_are_held_at_once() {
    let load = Load { from: 0, to: 4_000_000, clients: 80 };
    let cable = Cable::new().unwrap();
    let data = cable.dir().join("data");
    let options = ["--flow-slots", "8388608", "--generation", "60", "--rotate", "3600", "--grace", "0", "--no-nat"];
    let agent = Agent::start(&cable.gateway, &data, &options).unwrap();
    load.send(&cable.sender, [0x02, 0, 0, 0, 0, 0xfe]).unwrap();
    assert!(agent.stop().unwrap().success());
    assert_eq!(recorded(&data.join("archive")), truth(load));
    ensure_whole(&data.join("archive")).unwrap();
}
