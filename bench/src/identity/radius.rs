//! Accounting requests at a fixed rate, whether answers come or not, and the time from each request to its answer.
//!
//! The agent is the real one, on a cable into a namespace; an answer means that the request is on disk. Requests are sent when they
//! are due, and what counts is the time from then: a stall makes every request behind it late, not only one.

use std::net::UdpSocket;
use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use hotspot_core::radius::sign;
use hotspot_tests::cable::Cable;
use hotspot_tests::programs::{Agent, Cost};
use serde::Serialize;

const SECRET: &[u8] = b"not-a-secret-in-a-bench";
const AGENT: &str = "10.20.0.1:1813";
/// How long answers are waited for after the last request.
const LAST_ANSWERS_WITHIN: Duration = Duration::from_secs(5);
/// Reports about one session: a start, interims, a stop.
const REPORTS_PER_SESSION: u32 = 5;
const ACCOUNTING_RESPONSE: u8 = 5;
const PROXY_STATE: u8 = 33;

#[derive(Serialize)]
pub(super) struct Figures {
    /// Requests answered per second of load.
    radius_rps: f64,
    /// From when a request was due to its answer; an unanswered one counts as the longest wait.
    radius_p99_ms: f64,
}

/// Measures and prints the table.
#[expect(clippy::print_stdout, reason = "the table is what this program is for")]
pub(super) fn measure(rate: u32, seconds: u32) -> anyhow::Result<(Figures, Cost)> {
    let cable = Cable::new()?;
    cable.gateway.ip("addr add 10.20.0.1/24 dev lan")?;
    cable.sender.ip("addr add 10.20.0.2/24 dev eth0")?;
    let (data, secret) = (cable.dir().join("data"), cable.dir().join("secret"));
    std::fs::write(&secret, SECRET)?;
    std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(0o600))?;
    let secret = secret.display().to_string();
    let options = ["--no-nat", "--grace", "0", "--radius-listen", AGENT, "--radius-secret-file", &secret];
    let agent = Agent::start(&cable.gateway, &data, &options)?;
    let requests = rate * seconds;
    let mut waits = cable.sender.within(|| load(rate, requests))?;
    let cost = agent.stop_and_count()?;
    let answered = waits.iter().filter(|wait| **wait < LAST_ANSWERS_WITHIN).count();
    waits.sort_unstable();
    let per_mille_ms = |share: usize| waits[(waits.len() - 1) * share / 1000].as_secs_f64() * 1e3;
    let figures = Figures { radius_rps: answered as f64 / f64::from(seconds), radius_p99_ms: per_mille_ms(990) };
    println!(
        "{:>10}  {:>8}  {:>8}  {:>7}  {:>7}  {:>7}  {:>7}  {:>6}  {:>8}",
        "requests/s", "sent", "answered", "p50 ms", "p99 ms", "p99.9", "max ms", "cpu s", "RSS MiB"
    );
    println!(
        "{:>10.0}  {:>8}  {:>8}  {:>7.2}  {:>7.2}  {:>7.2}  {:>7.2}  {:>6.2}  {:>8}",
        figures.radius_rps,
        requests,
        answered,
        per_mille_ms(500),
        per_mille_ms(990),
        per_mille_ms(999),
        per_mille_ms(1000),
        cost.cpu_s,
        cost.rss_max_mib
    );
    ensure!(answered > 0, "no request was answered");
    Ok((figures, cost))
}

/// Sends so many requests at a rate; how long each waited.
fn load(rate: u32, requests: u32) -> anyhow::Result<Vec<Duration>> {
    let socket = UdpSocket::bind("10.20.0.2:0")?;
    socket.connect(AGENT)?;
    socket.set_read_timeout(Some(Duration::from_millis(200)))?;
    let (all_sent, began) = (AtomicBool::new(false), Instant::now() + Duration::from_millis(50));
    let due = |number: u32| Duration::from_secs_f64(f64::from(number) / f64::from(rate));
    std::thread::scope(|scope| {
        let receiver = scope.spawn(|| {
            let mut waits = vec![LAST_ANSWERS_WITHIN; requests as usize];
            let (mut answer, mut missing, mut last) = ([0; 4096], requests, Instant::now());
            while missing > 0 && !(all_sent.load(Ordering::Relaxed) && last.elapsed() > LAST_ANSWERS_WITHIN) {
                let Ok(len) = socket.recv(&mut answer) else { continue };
                last = Instant::now();
                let number = number_of(&answer[..len])?;
                let wait = waits.get_mut(number as usize).context("an answer to nothing that was asked")?;
                missing -= u32::from(*wait == LAST_ANSWERS_WITHIN);
                *wait = last.saturating_duration_since(began + due(number)).min(*wait);
            }
            anyhow::Ok(waits)
        });
        for number in 0..requests {
            std::thread::sleep((began + due(number)).saturating_duration_since(Instant::now()));
            socket.send(&request(number))?;
        }
        all_sent.store(true, Ordering::Relaxed);
        receiver.join().map_err(|_| anyhow::anyhow!("the receiver panicked"))?
    })
}

/// The number a request carried in its Proxy-State, which every answer must give back (RFC 2865 §5.33).
fn number_of(answer: &[u8]) -> anyhow::Result<u32> {
    ensure!(
        answer.len() == 26 && answer[0] == ACCOUNTING_RESPONSE && answer[20] == PROXY_STATE,
        "no answer: {answer:?}"
    );
    Ok(u32::from_be_bytes(answer[22..26].try_into()?))
}

/// One report of a session, as an access point makes it.
fn request(number: u32) -> Vec<u8> {
    let (session, report) = (number / REPORTS_PER_SESSION, number % REPORTS_PER_SESSION);
    let status: u32 = match report {
        0 => 1,
        report if report == REPORTS_PER_SESSION - 1 => 2,
        _ => 3,
    };
    let [_, high, middle, low] = session.to_be_bytes();
    let mut packet = vec![4, number.to_be_bytes()[3], 0, 0];
    packet.extend([0; 16]);
    let mut put = |kind: u8, value: &[u8]| {
        packet.push(kind);
        packet.push(u8::try_from(value.len() + 2).unwrap_or(u8::MAX));
        packet.extend(value);
    };
    put(PROXY_STATE, &number.to_be_bytes());
    put(40, &status.to_be_bytes());
    put(44, format!("{session:016x}").as_bytes());
    put(1, format!("guest{session}@hotel.example").as_bytes());
    put(31, format!("02-00-00-{high:02X}-{middle:02X}-{low:02X}").as_bytes());
    put(30, b"00-10-A4-23-19-C0:Cafe Wi-Fi");
    put(8, &[10, high, middle, low]);
    put(32, b"ap1");
    put(61, &19u32.to_be_bytes());
    put(85, &300u32.to_be_bytes());
    for counter in [42, 43, 46, 47, 48] {
        put(counter, &(report * 1000).to_be_bytes());
    }
    let len = u16::try_from(packet.len()).unwrap_or(u16::MAX);
    packet[2..4].copy_from_slice(&len.to_be_bytes());
    sign(&mut packet, SECRET);
    packet
}
