//! An archive that is sealed here, and asking it: what the tests of the tool share.

use std::fs;
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::Arc;

use hotspot_archive::keys::{Identity, Recipients};
use hotspot_archive::manifest::{GatewayKey, Manifest, Sealing};
use hotspot_archive::segment::Origin;
use hotspot_core::MacAddr;
use hotspot_core::fact::IdentitySource;
use hotspot_core::record::{Attribution, EndReason, FlowRecord, Identity as Who, NatState, PublicEndpoint};
use serde_json::Value;

pub(crate) const SECOND_NS: i64 = 1_000_000_000;
/// 2026-11-23T00:00:00Z.
pub(crate) const BEGIN_NS: i64 = 1_795_392_000 * SECOND_NS;
pub(crate) const SEGMENTS: u64 = 24;
pub(crate) const CLIENTS: u64 = 10;
/// Flows of a client in a segment.
pub(crate) const FLOWS: u64 = 20;

/// Client `c` is there in every segment whose number it divides evenly, and talks to peers of its own.
pub(crate) fn flow(segment: u64, client: u64, number: u64) -> FlowRecord {
    let start_ns = BEGIN_NS + (segment * 300 + number * 10) as i64 * SECOND_NS;
    let last = client as u8;
    FlowRecord {
        flow_id: segment << 32 | (client * FLOWS + number),
        start_ns,
        end_ns: start_ns + 5 * SECOND_NS,
        interface: "lan".into(),
        vlan: None,
        inner_vlan: None,
        client_mac: MacAddr([2, 0, 0, 0, 0, last]),
        client_ip: [10, 20, 0, last].into(),
        client_port: Some(40_000 + number as u16),
        public: Some(PublicEndpoint {
            ip: [203, 0, 113, 7].into(),
            port: Some((10_000 + client * 1000 + number) as u16),
        }),
        nat: Some(NatState::Exact),
        peer_ip: Some(IpAddr::from([198, 51, 100, last])),
        peer_port: Some(443),
        protocol: Some(6),
        icmp_type: None,
        icmp_code: None,
        packets_out: 2,
        bytes_out: 100 * (client + 1),
        packets_in: 1,
        bytes_in: 1000,
        tcp_flags_out: Some(0x1b),
        tcp_flags_in: Some(0x1b),
        end_reason: EndReason::EndOfFlow,
        attribution: Attribution::Authenticated,
        identity: Some(Arc::new(Who {
            users: vec![format!("09{client:08}")],
            session_ids: vec![format!("nas/{client}")],
            auth_method: None,
            source: IdentitySource::Radius,
            ap_mac: None,
            ssid: None,
            nas: None,
        })),
        hostname: None,
        device_vendor: None,
    }
}

fn flows_of(segment: u64) -> Vec<FlowRecord> {
    let clients = (1..=CLIENTS).filter(|client| segment.is_multiple_of(*client));
    clients.flat_map(|client| (0..FLOWS).map(move |number| flow(segment, client, number))).collect()
}

pub(crate) struct Venue {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) identity: Option<PathBuf>,
    pub(crate) site: String,
    pub(crate) gateway: String,
    pub(crate) recipients: Option<Recipients>,
}

impl Venue {
    pub(crate) fn new(is_encrypted: bool) -> Self {
        Self::of("cafe", "gw", is_encrypted)
    }

    pub(crate) fn of(site: &str, gateway: &str, is_encrypted: bool) -> Self {
        Self::with(site, gateway, is_encrypted, flows_of)
    }

    pub(crate) fn with(site: &str, gateway: &str, is_encrypted: bool, flows: impl Fn(u64) -> Vec<FlowRecord>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (mut recipients, mut identity) = (None, None);
        if is_encrypted {
            let identities = [Identity::generate(), Identity::generate()];
            let names: Vec<String> = identities.iter().map(Identity::recipient).collect();
            recipients = Some(Recipients::parse(&names, false).unwrap());
            let path = dir.path().join("identity");
            fs::write(&path, identities[1].expose().as_bytes()).unwrap();
            fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
            identity = Some(path);
        }
        let venue = Self { dir, identity, site: site.to_owned(), gateway: gateway.to_owned(), recipients };
        let mut manifest = venue.manifest();
        (1..=SEGMENTS).for_each(|segment| venue.seal_flows(&mut manifest, segment, &flows(segment)));
        venue
    }

    /// The gateway's manifest, to write to.
    pub(crate) fn manifest(&self) -> Manifest {
        let key = GatewayKey::open(&self.dir.path().join("signing.key")).unwrap();
        let manifest = Manifest::open(&self.archive(), &self.gateway, key).unwrap();
        manifest.encrypted_for(self.recipients.clone())
    }

    pub(crate) fn seal(&self, manifest: &mut Manifest, segment: u64) {
        self.seal_flows(manifest, segment, &flows_of(segment));
    }

    pub(crate) fn seal_flows(&self, manifest: &mut Manifest, segment: u64, flows: &[FlowRecord]) {
        let opened_ns = BEGIN_NS + segment as i64 * 300 * SECOND_NS;
        let origin = Origin { site: self.site.clone(), gateway: self.gateway.clone(), sequence: segment };
        let mut draft = manifest.draft(&origin, opened_ns).unwrap();
        flows.iter().for_each(|flow| draft.flow(flow).unwrap());
        let sealing = Sealing {
            closed_ns: opened_ns + 300 * SECOND_NS,
            sealed_ns: opened_ns + 310 * SECOND_NS,
            clock: None,
            step_ns: 0,
            sessions: &[],
            devices: &[],
            coverage: &[],
        };
        manifest.seal(draft, &sealing).unwrap();
    }

    pub(crate) fn archive(&self) -> PathBuf {
        self.dir.path().join("archive")
    }

    pub(crate) fn command(&self, command: &str) -> Command {
        let mut process = Command::new(env!("CARGO_BIN_EXE_hotspot"));
        process.arg(command).arg("--archive").arg(self.archive());
        if let Some(identity) = &self.identity {
            process.arg("--identity").arg(identity);
        }
        process
    }

    pub(crate) fn find(&self, words: &[&str]) -> Output {
        self.command("find").args(words).output().unwrap()
    }

    pub(crate) fn count(&self, filter: &str) -> usize {
        let output = self.find(&["--json", filter]);
        // Up to now is asked for, and nothing was recorded since the last segment.
        assert!(matches!(output.status.code(), Some(0 | 3)), "{filter}: {output:?}");
        assert!(!text(&output.stderr).contains("not searched"), "{filter}: {output:?}");
        rows(&output).len()
    }

    pub(crate) fn files(&self, class: &str) -> Vec<PathBuf> {
        let mut files: Vec<PathBuf> = Vec::new();
        let mut dirs = vec![self.archive().join(class)];
        while let Some(dir) = dirs.pop() {
            for entry in fs::read_dir(dir).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() { dirs.push(path) } else { files.push(path) }
            }
        }
        files.retain(|path| path.extension().is_some_and(|kind| kind != "age"));
        files.sort();
        files
    }

    pub(crate) fn audited(&self) -> usize {
        fs::read_to_string(self.archive().join("audit/queries.jsonl")).map_or(0, |text| text.lines().count())
    }
}

/// The rows of an answer in JSON, without the last line, which says what the answer is.
pub(crate) fn rows(output: &Output) -> Vec<Value> {
    let mut lines = json(output);
    if lines.last().is_some_and(|line| line.get("answer").is_some()) {
        lines.pop();
    }
    lines
}

/// What the last line of an answer in JSON says.
pub(crate) fn answer(output: &Output) -> Value {
    json(output).last().and_then(|line| line.get("answer")).unwrap_or_else(|| panic!("{output:?}")).clone()
}

fn json(output: &Output) -> Vec<Value> {
    text(&output.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}
