//! Programs to run frames through, and what they counted.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use aya::programs::{SchedClassifier, TestRun, TestRunOptions, Xdp};
use hotspot_agent::capture::{Capture, CaptureError, CaptureSettings, GenerationRead, HookChoice};
use hotspot_archive::entry::{Entry, GenerationPart};
use hotspot_core::fact::FlowDelta;
use rustix::thread::{CpuSet, sched_setaffinity};

/// Where a frame is handed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hook {
    Xdp,
    Ingress,
    Egress,
}

impl Hook {
    pub(crate) const ALL: [Self; 3] = [Self::Xdp, Self::Ingress, Self::Egress];
}

/// Of an agent without interfaces, under pins that no other test has. From here on the test runs on one CPU.
pub(crate) fn settings() -> CaptureSettings {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    // Each CPU has a cache of its own; a test that moved between them would see a flow in both.
    let mut here = CpuSet::new();
    here.set(0);
    sched_setaffinity(None, &here).unwrap();
    CaptureSettings {
        interfaces: Vec::new(),
        hook: HookChoice::Auto,
        client_nets: Vec::new(),
        decapsulate: false,
        bpffs: PathBuf::from("/sys/fs/bpf"),
        instance: format!("test-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed)),
        slots_per_cpu_log2: 10,
        ring_bytes: 1 << 16,
    }
}

/// Programs loaded under pins of their own, which are removed at the end.
pub(crate) struct Rig {
    pub(crate) capture: Capture,
}

impl Rig {
    pub(crate) fn new(slots_per_cpu_log2: u32, ring_bytes: u32) -> Self {
        Self::with(|settings| {
            settings.slots_per_cpu_log2 = slots_per_cpu_log2;
            settings.ring_bytes = ring_bytes;
        })
    }

    pub(crate) fn with(change: impl FnOnce(&mut CaptureSettings)) -> Self {
        let mut settings = settings();
        change(&mut settings);
        let capture = Capture::start(&settings).expect("needs root and a BPF file system at /sys/fs/bpf");
        // From here on dropping it removes the pins, also where the verifier refuses the programs.
        let mut rig = Self { capture };
        rig.capture.load_unattached(0).unwrap();
        rig
    }

    pub(crate) fn run(&mut self, hook: Hook, frame: &[u8]) {
        match hook {
            Hook::Xdp => self.xdp(frame),
            Hook::Ingress => self.tc("hotspot_ingress", frame),
            Hook::Egress => self.tc("hotspot_egress", frame),
        }
    }

    /// A frame at the hook of a program.
    pub(crate) fn at(&mut self, program: &str, frame: &[u8]) {
        if program == "hotspot_xdp" { self.xdp(frame) } else { self.tc(program, frame) }
    }

    pub(crate) fn xdp(&mut self, frame: &[u8]) {
        self.xdp_repeat(frame, 1);
    }

    pub(crate) fn xdp_repeat(&mut self, frame: &[u8], repeat: u32) {
        let program: &mut Xdp = self.capture.programs(0).program_mut("hotspot_xdp").unwrap().try_into().unwrap();
        let options = TestRunOptions { data_in: Some(frame), repeat, ..TestRunOptions::default() };
        let result = program.test_run(options).unwrap();
        assert_eq!(result.return_value, 2, "XDP_PASS");
    }

    pub(crate) fn tc(&mut self, name: &str, frame: &[u8]) {
        let program: &mut SchedClassifier = self.capture.programs(0).program_mut(name).unwrap().try_into().unwrap();
        let options = TestRunOptions { data_in: Some(frame), ..TestRunOptions::default() };
        let result = program.test_run(options).unwrap();
        assert_eq!(result.return_value.cast_signed(), -1, "TCX_NEXT");
    }

    pub(crate) fn drain(&mut self) -> Drained {
        let mut parts = Vec::new();
        let read = self.capture.drain(|entry| {
            if let Entry::Part(part) = entry {
                parts.push(part);
            }
            Ok::<_, CaptureError>(())
        });
        let read = read.unwrap();
        self.capture.drained(&read);
        Drained { read, parts }
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.capture.remove_pins().unwrap();
    }
}

pub(crate) struct Drained {
    pub(crate) read: GenerationRead,
    pub(crate) parts: Vec<GenerationPart>,
}

impl Drained {
    pub(crate) fn deltas(&self) -> Vec<FlowDelta> {
        self.parts.iter().flat_map(|part| part.deltas.iter().copied()).collect()
    }

    /// Outcomes that are not zero.
    pub(crate) fn outcomes(&self) -> Vec<(String, u64)> {
        self.read.done.coverage[0].outcomes.iter().map(|(label, count)| (label.clone(), count.packets)).collect()
    }

    pub(crate) fn announced(&self) -> usize {
        self.read.rings.batches.iter().map(|batch| batch.opened.len()).sum()
    }

    pub(crate) fn evicted(&self) -> Vec<FlowDelta> {
        self.read.rings.batches.iter().flat_map(|batch| batch.evicted.iter().map(|(_, delta)| *delta)).collect()
    }

    pub(crate) fn assert_balanced(&self) {
        let coverage = &self.read.done.coverage[0];
        assert!(coverage.balances(), "{coverage:?}");
    }
}

pub(crate) fn flow(rig: &mut Rig, frame: &[u8]) -> FlowDelta {
    rig.xdp(frame);
    let drained = rig.drain();
    drained.assert_balanced();
    assert_eq!(drained.outcomes(), [], "no other exit");
    let deltas = drained.deltas();
    assert_eq!(deltas.len(), 1);
    assert_eq!((deltas[0].packets, deltas[0].bytes), (1, frame.len() as u64));
    deltas[0]
}

pub(crate) fn outcome(rig: &mut Rig, frame: &[u8]) -> String {
    rig.xdp(frame);
    let drained = rig.drain();
    drained.assert_balanced();
    assert_eq!(drained.deltas(), [], "no flow");
    let outcomes = drained.outcomes();
    assert_eq!(outcomes.len(), 1, "{outcomes:?}");
    assert_eq!(outcomes[0].1, 1);
    outcomes[0].0.clone()
}
