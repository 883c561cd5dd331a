//! The shipped programs and their twins, loaded and never attached, on one CPU.

use std::hint::black_box;
use std::path::PathBuf;

use anyhow::Context;
use aya::maps::{Array, MapData, ProgramArray};
use aya::programs::{SchedClassifier, TestRun, TestRunOptions, Xdp};
use aya::{Ebpf, EbpfLoader, Pod};
use hotspot_agent::capture::object::Object;
use hotspot_agent::capture::{Capture, CaptureError, CaptureSettings, GenerationRead, HookChoice};
use rustix::thread::{CpuSet, sched_setaffinity};

/// Which flow comes next; the same as in the kernel program.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Course {
    random: u64,
    mask: u64,
    in_order: u64,
    burst: u64,
    runs: u64,
}

// SAFETY: integers only.
unsafe impl Pod for Course {}

impl Course {
    /// One of `flows` at random, which are a power of two.
    pub(crate) fn at_random(flows: u32) -> Self {
        Self { random: 0x2545_f491_4f6c_dd1d, mask: u64::from(flows - 1), in_order: 0, burst: 1, runs: 0 }
    }

    /// One after the other, beginning with number `from`.
    pub(crate) fn in_order(from: u64, flows: u32) -> Self {
        Self { random: from, mask: u64::from(flows - 1), in_order: 1, burst: 1, runs: 0 }
    }
}

/// A reach grows at once and shrinks by half from one generation to the next: from 2 097 152 slots to 16 384 in seven.
const GENERATIONS_TO_SETTLE: usize = 12;

pub(crate) struct Rig {
    pub(crate) capture: Capture,
    bench: Ebpf,
    course: Array<MapData, Course>,
    target: ProgramArray<MapData>,
}

impl Rig {
    pub(crate) fn new(slots_log2: u32, ring_bytes: u32) -> anyhow::Result<Self> {
        // Each CPU has flows of its own: a benchmark that wandered would fill the cache anew.
        let mut here = CpuSet::new();
        here.set(rustix::thread::sched_getcpu());
        sched_setaffinity(None, &here)?;
        let settings = CaptureSettings {
            interfaces: Vec::new(),
            hook: HookChoice::Auto,
            client_nets: Vec::new(),
            decapsulate: false,
            bpffs: PathBuf::from("/sys/fs/bpf"),
            instance: format!("bench-{}-{slots_log2}", std::process::id()),
            slots_per_cpu_log2: slots_log2,
            ring_bytes,
        };
        let mut capture = Capture::start(&settings).context("the benchmark needs root")?;
        capture.load_unattached(0)?;
        let mut bench = EbpfLoader::new()
            .override_global("SLOTS_PER_CPU_LOG2", &slots_log2, false)
            .map_max_entries("LINES", 1 << slots_log2)
            .map_max_entries("FLOWS", 1 << slots_log2)
            .load(Object::Bench.bytes()?)?;
        for name in ["vary", "empty", "parse_only", "floor", "hash"] {
            xdp(&mut bench, name)?.load()?;
        }
        tc(&mut bench, "empty_tc")?.load()?;
        let course = bench.take_map("COURSE").context("no map COURSE")?.try_into()?;
        let target = bench.take_map("TARGET").context("no map TARGET")?.try_into()?;
        Ok(Self { capture, bench, course, target })
    }

    fn object_of(&mut self, name: &str) -> &mut Ebpf {
        if name.starts_with("hotspot") { self.capture.programs(0) } else { &mut self.bench }
    }

    /// Average nanoseconds of an XDP program per frame, as the kernel measures it, with the choice of the flow before it.
    pub(crate) fn vary(&mut self, name: &str, course: Course, frame: &[u8], runs: u32) -> anyhow::Result<f64> {
        self.course.set(0, course, 0)?;
        let target = xdp(self.object_of(name), name)?.fd()?.try_clone()?;
        self.target.set(0, &target, 0)?;
        let options = TestRunOptions { data_in: Some(frame), repeat: runs, ..TestRunOptions::default() };
        let result = xdp(&mut self.bench, "vary")?.test_run(options)?;
        anyhow::ensure!(result.return_value == 2, "{name} answered {}", result.return_value);
        Ok(result.duration.as_nanos() as f64)
    }

    /// Lets the reach become what suits so many flows, and leaves the cache empty.
    pub(crate) fn settle(&mut self, course: Course, frame: &[u8], flows: u32) -> anyhow::Result<()> {
        for _ in 0..GENERATIONS_TO_SETTLE {
            self.vary("hotspot_xdp", course, frame, flows)?;
            self.drain()?;
        }
        Ok(())
    }

    /// The same for one frame again and again, of an XDP program.
    pub(crate) fn repeat_xdp(&mut self, name: &str, frame: &[u8], runs: u32) -> anyhow::Result<f64> {
        let options = TestRunOptions { data_in: Some(frame), repeat: runs, ..TestRunOptions::default() };
        Ok(xdp(self.object_of(name), name)?.test_run(options)?.duration.as_nanos() as f64)
    }

    /// The same for one frame again and again, of a tc program.
    pub(crate) fn repeat_tc(&mut self, name: &str, frame: &[u8], runs: u32) -> anyhow::Result<f64> {
        let options = TestRunOptions { data_in: Some(frame), repeat: runs, ..TestRunOptions::default() };
        Ok(tc(self.object_of(name), name)?.test_run(options)?.duration.as_nanos() as f64)
    }

    /// Ends the generation, and fails unless it balances.
    pub(crate) fn drain(&mut self) -> anyhow::Result<GenerationRead> {
        let read = self.capture.drain(|entry| {
            drop(black_box(entry));
            Ok::<_, CaptureError>(())
        })?;
        self.capture.drained(&read);
        anyhow::ensure!(read.done.coverage[0].balances(), "the generation does not balance: {:?}", read.done.coverage);
        Ok(read)
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        let _ = self.capture.remove_pins();
    }
}

fn xdp<'a>(object: &'a mut Ebpf, name: &str) -> anyhow::Result<&'a mut Xdp> {
    Ok(object.program_mut(name).with_context(|| format!("no program {name}"))?.try_into()?)
}

fn tc<'a>(object: &'a mut Ebpf, name: &str) -> anyhow::Result<&'a mut SchedClassifier> {
    Ok(object.program_mut(name).with_context(|| format!("no program {name}"))?.try_into()?)
}

/// The mean of the middle half: as little moved by a bad round as the median, and finer than the whole nanoseconds the kernel tells.
pub(crate) fn middle(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    let half = &figures[figures.len() / 4..figures.len() - figures.len() / 4];
    half.iter().sum::<f64>() / half.len() as f64
}

pub(crate) fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}
