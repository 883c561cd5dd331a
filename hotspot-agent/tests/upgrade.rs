//! An upgrade under load, from the programs of an earlier layout to those of this agent: nothing lost, nothing doubled.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod layouts;

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hotspot_agent::capture::layout::Layout;
use hotspot_agent::capture::object::Object;
use hotspot_agent::capture::{Capture, CaptureError, CaptureSettings, HookChoice};
use hotspot_agent::run::instance;
use hotspot_tests::generator::{Load, recorded};
use hotspot_tests::lab::Lab;
use hotspot_tests::programs::{Agent, coverage, ensure_whole};
use layouts::Earlier;

const CLIENTS: u32 = 50;
/// Flows that are sent at once.
const PART: u32 = 10_000;

/// Attaches as an agent of an earlier layout did, counts for a while with one generation ended, and dies.
fn run_earlier(
    (layout, programs): Earlier,
    data: &Path,
    hook: HookChoice,
    has_attached: &AtomicBool,
) -> anyhow::Result<()> {
    let settings = CaptureSettings {
        interfaces: vec!["lan".to_owned()],
        hook,
        client_nets: Vec::new(),
        decapsulate: false,
        bpffs: "/sys/fs/bpf".into(),
        instance: instance("gw1", data),
        slots_per_cpu_log2: 18,
        ring_bytes: 8 << 20,
    };
    let layout = Layout::of_dir(layout).unwrap();
    let mut earlier = Capture::start_as(&settings, layout, Object::Earlier(programs))?;
    has_attached.store(true, Ordering::Relaxed);
    std::thread::sleep(Duration::from_millis(300));
    // Read and not written down: whoever comes next has to read it.
    drop(earlier.drain(|_| Ok::<_, CaptureError>(()))?);
    std::thread::sleep(Duration::from_millis(100));
    Ok(())
}

fn check(earlier: Earlier, option: &str, hook: HookChoice) {
    let lab = Lab::new(1).unwrap();
    let data = lab.dir().join("data");
    std::fs::create_dir_all(&data).unwrap();
    let (mac, client) = (lab.gateway_mac().unwrap(), &lab.clients[0].namespace);
    let (has_attached, is_upgraded) = (AtomicBool::new(false), AtomicBool::new(false));
    let (sent, agent) = std::thread::scope(|scope| {
        let sending = scope.spawn(|| {
            while !has_attached.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_millis(1));
            }
            let mut sent = 0;
            let mut after = 0;
            while after < 2 && sent < 100 * PART {
                after += u32::from(is_upgraded.load(Ordering::Relaxed));
                let load = Load { from: sent, to: sent + PART, clients: CLIENTS };
                load.send_as_received(client, &lab.gateway, mac).unwrap();
                sent += PART;
            }
            assert_eq!(after, 2, "it was sent before, during and after");
            sent
        });
        lab.gateway.within(|| run_earlier(earlier, &data, hook, &has_attached)).unwrap();
        let agent = Agent::start(&lab.gateway, &data, &["--hook", option, "--grace", "0"]).unwrap();
        is_upgraded.store(true, Ordering::Relaxed);
        (sending.join().unwrap(), agent)
    });
    assert!(agent.log().contains("taking over from an agent of another layout"), "{}", agent.log());
    assert!(agent.stop().unwrap().success());
    let archive = data.join("archive");
    let truth = Load { from: 0, to: sent, clients: CLIENTS }.truth();
    assert_eq!(recorded(&archive).unwrap(), truth, "{} {option}", earlier.0);
    ensure_whole(&archive).unwrap();
    let coverage = coverage(&archive).unwrap();
    assert!(coverage.iter().all(|row| row["balanced"] == true), "{coverage:?}");
}

#[test]
fn an_upgrade_under_load_loses_nothing_and_doubles_nothing() {
    for earlier in layouts::ALL {
        for (option, hook) in [("tc", HookChoice::Tc), ("clsact", HookChoice::Clsact), ("xdp", HookChoice::Xdp)] {
            check(earlier, option, hook);
        }
    }
}
