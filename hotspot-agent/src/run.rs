//! Starting, recovering, and ending: what `hotspot-agent run` does, in order.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use hotspot_archive::entry::{Entry, JournalClock, JournalHeader};
use hotspot_archive::first::{self, Expected};
use hotspot_archive::journal::{JournalError, JournalKeys, JournalWriter};
use hotspot_archive::keys::{KeyError, Recipients};
use hotspot_archive::layout::{DataDir, is_name};
use hotspot_archive::manifest::{GatewayKey, Manifest, ManifestError};
use hotspot_archive::state;
use hotspot_core::WallNs;
use hotspot_core::detail::{Detail, DetailLimits};
use hotspot_core::fact::{NatWatch, NatWatchFact};
use hotspot_core::vendor::VendorTable;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing::{info, warn};

use crate::capture::clock::{self, ClockReading};
use crate::capture::{Capture, CaptureError, CaptureSettings};
use crate::carrier::{Beginning, Carrier, CarrierError, Stop};
use crate::cli::RunArguments;
use crate::identity::portal::{PortalError, PortalListener, PortalSecrets, PortalSecretsError};
use crate::identity::radius::{RadiusListener, RadiusSettings};
use crate::identity::secrets::SecretsError;
use crate::identity::sessions_file::{self, SessionsFileError};
use crate::journals::Journals;
use crate::locks::{Lock, LockError};
use crate::nat::{NatError, NatWatcher};
use crate::recorder::{NotRecorded, Recorder};
use crate::recovery::{Found, Left, RecoveryError, note_nas};
use crate::sealer::Sealer;
use crate::secrecy::{self, CredentialError};
use crate::upkeep::Upkeep;
use crate::vendors::{self, VendorsError};

/// How long the sources may take for what came last.
const SOURCES_END_WITHIN: Duration = Duration::from_secs(2);

/// Why the agent does not run, or ended.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error("{option} {value:?} is no name: up to 64 letters, digits, '-', '_' and '.', not beginning with '.'")]
    Name { option: &'static str, value: String },
    #[error("hotspot-agent needs root: it loads programs into the kernel")]
    NotRoot,
    #[error("the data directory {} cannot be used", path.display())]
    DataDir { path: PathBuf, source: io::Error },
    #[error("cannot listen for RADIUS on {address}")]
    Listen { address: std::net::SocketAddr, source: io::Error },
    #[error("the RADIUS listener ended")]
    Radius(#[source] io::Error),
    #[error(transparent)]
    Lock(#[from] LockError),
    #[error(transparent)]
    Credential(#[from] CredentialError),
    #[error(transparent)]
    Capture(#[from] CaptureError),
    #[error(transparent)]
    Journal(#[from] JournalError),
    #[error(transparent)]
    Recovery(#[from] RecoveryError),
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    #[error(transparent)]
    Secrets(#[from] SecretsError),
    #[error(transparent)]
    Portal(#[from] PortalError),
    #[error("the portals' listener ended")]
    PortalEnded(#[source] io::Error),
    #[error(transparent)]
    PortalSecrets(#[from] PortalSecretsError),
    #[error(transparent)]
    Sessions(#[from] SessionsFileError),
    #[error(transparent)]
    Vendors(#[from] VendorsError),
    #[error(transparent)]
    Nat(#[from] NatError),
    #[error(transparent)]
    NotRecorded(#[from] NotRecorded),
    #[error(transparent)]
    Carrier(#[from] CarrierError),
    #[error("a part of the agent ended unexpectedly")]
    Ended,
    #[error(transparent)]
    Recipients(#[from] KeyError),
    #[error("the operating system refused {what}")]
    System { what: &'static str, source: io::Error },
}

impl RunError {
    /// 2 usage, 3 damaged or incomplete data, 4 refused, 1 anything else.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Name { .. }
            | Self::Recipients(_)
            | Self::Sessions(_)
            | Self::Vendors(_)
            | Self::Capture(CaptureError::UnknownInterface { .. })
            | Self::Portal(PortalError::NoSecrets { .. })
            | Self::PortalSecrets(PortalSecretsError::Line { .. } | PortalSecretsError::Empty { .. })
            | Self::Secrets(SecretsError::Line { .. } | SecretsError::Twice { .. } | SecretsError::Empty { .. }) => 2,
            Self::Manifest(
                ManifestError::Broken { .. } | ManifestError::OutOfOrder { .. } | ManifestError::NotAKey { .. },
            ) => 3,
            Self::Recovery(RecoveryError::DataDir { .. })
            | Self::NotRoot
            | Self::DataDir { .. }
            | Self::Listen { .. }
            | Self::Lock(_)
            | Self::Credential(_)
            | Self::Capture(_)
            | Self::Manifest(_)
            | Self::Secrets(_)
            | Self::Portal(_)
            | Self::PortalSecrets(_)
            | Self::Nat(NatError::NoConntrack | NatError::EventsOff) => 4,
            Self::Radius(_)
            | Self::PortalEnded(_)
            | Self::Recovery(RecoveryError::Journal(_))
            | Self::Journal(_)
            | Self::Nat(_)
            | Self::NotRecorded(_)
            | Self::Carrier(_)
            | Self::Ended
            | Self::System { .. } => 1,
        }
    }
}

/// Runs until SIGTERM or SIGINT.
pub fn run(arguments: &RunArguments) -> Result<(), RunError> {
    for (option, value) in [("--site", &arguments.site), ("--gateway", &arguments.gateway)] {
        if !is_name(value) {
            return Err(RunError::Name { option, value: value.clone() });
        }
    }
    if !rustix::process::geteuid().is_root() {
        return Err(RunError::NotRoot);
    }
    let mut radius = RadiusSettings::of(arguments)?;
    let recipients = recipients(arguments)?;
    let data = DataDir(arguments.data_dir.clone());
    data.create().map_err(|source| RunError::DataDir { path: data.0.clone(), source })?;
    let _data_lock = Lock::data_dir(&data.lock(), &arguments.data_dir)?;
    let key_dir = arguments.key_dir.clone().unwrap_or_else(|| data.journal_keys());
    secrecy::close_files(&data, &key_dir).map_err(|source| RunError::DataDir { path: data.0.clone(), source })?;
    let at_rest = secrecy::at_rest()?;
    let keys = JournalKeys::new(key_dir, recipients.clone()).lying(at_rest.clone());
    keys.forget_orphans(&[data.journals(), data.states()])?;
    let key = GatewayKey::open_under(&data.signing_key(), &at_rest)?;
    let manifest = Manifest::open(&data.archive(), &arguments.gateway, key)?;
    manifest.compare(&data)?;
    announce_first(arguments, &manifest);
    let manifest = manifest.encrypted_for(recipients);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|source| RunError::System { what: "threads", source })?;
    let boot_id = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned();
    let vendors = vendors::load(arguments.vendor_table.as_deref())?;
    let capture = Capture::start(&settings(arguments))?;
    let mut recovered = recover(arguments, &data, &keys, &manifest, &boot_id, capture)?;
    if let Some(radius) = &mut radius {
        radius.known = std::mem::take(&mut recovered.nas);
    }
    runtime.block_on(serve(arguments, data, Sealing { keys, manifest, boot_id, vendors }, recovered, radius))
}

/// Says beside a chain without a segment when the first will be there, for those who ask before.
fn announce_first(arguments: &RunArguments, manifest: &Manifest) {
    let said = if manifest.last_sequence() == 0 {
        let began_ns = ClockReading::now().wall_now();
        let expected_ns = began_ns + i64::from(arguments.rotate + arguments.grace) * 1_000_000_000;
        first::announce(manifest.archive(), manifest.gateway(), Expected { began_ns, expected_ns })
    } else {
        first::forget(manifest.archive(), manifest.gateway())
    };
    if let Err(error) = said {
        // It is for words only; what has to be written says for itself when the disk is full.
        warn!(%error, "when the first segment comes cannot be said");
    }
}

/// Those who can read what is sealed; none where nothing is encrypted.
fn recipients(arguments: &RunArguments) -> Result<Option<Recipients>, RunError> {
    if arguments.recipients.is_empty() {
        warn!("the archive is not encrypted: whoever has the disk reads it; give --recipient");
        return Ok(None);
    }
    Ok(Some(Recipients::parse(&arguments.recipients, arguments.allow_one_recipient)?))
}

fn settings(arguments: &RunArguments) -> CaptureSettings {
    let log2 = |value: u32| value.next_power_of_two().trailing_zeros();
    CaptureSettings {
        interfaces: arguments.interfaces.clone(),
        hook: arguments.hook,
        client_nets: arguments.client_nets.clone(),
        decapsulate: arguments.decapsulate,
        bpffs: arguments.bpffs.clone(),
        instance: instance(&arguments.gateway, &arguments.data_dir),
        slots_per_cpu_log2: log2(arguments.flow_slots),
        ring_bytes: 1 << log2(arguments.ring_bytes),
    }
}

/// What flows may take on disk, bytes in an hour.
fn detail_limits(arguments: &RunArguments) -> DetailLimits {
    let limit = |bytes| if bytes == 0 { u64::MAX } else { bytes };
    DetailLimits { client: limit(arguments.client_detail), interface: limit(arguments.interface_detail) }
}

/// Names the pins: the maps belong to the data directory their counts go to.
#[must_use]
pub fn instance(gateway: &str, data_dir: &Path) -> String {
    let path = fs::canonicalize(data_dir).unwrap_or_else(|_| data_dir.to_path_buf());
    let hash = crc32c::crc32c(path.as_os_str().as_encoded_bytes());
    // bpffs refuses dots in names.
    format!("{}-{hash:08x}", gateway.replace('.', "_"))
}

/// A journal to go on with, the capture brought to where the journals end, and journals that wait to be sealed.
struct Recovered {
    capture: Capture,
    journal: JournalWriter,
    header: JournalHeader,
    closed: Vec<u64>,
    /// NAS that are known, and since when.
    nas: HashMap<String, WallNs>,
}

fn recover(
    arguments: &RunArguments,
    data: &DataDir,
    keys: &JournalKeys,
    manifest: &Manifest,
    boot_id: &str,
    mut capture: Capture,
) -> Result<Recovered, RunError> {
    let control = capture.control();
    let mut found = Found::of(&control);
    found.detail = Detail::new(detail_limits(arguments));
    // What agents of other layouts left.
    let earlier = capture.earlier().iter().map(Found::of).collect();
    let mut left = Left::read(data, keys, manifest.last_sequence(), found, earlier)?;
    // Sealed is only what ended in order, with all translations.
    let has_ended = left.found.until_ns == 0;
    left.found.learn_of_sealed(manifest.last_segment());
    if let Some(boot_to_wall_ns) = left.found.boot_to_wall_ns.filter(|_| left.found.boot_id == boot_id) {
        // Where the clock was set while no agent was running, the carrier takes it over between two journals.
        clock::keep(boot_to_wall_ns);
    }
    let now = ClockReading::now();
    let until_ns = left.found.until_ns;
    // Where the programs counted on without an agent, no time lies between two journals.
    let went_on = until_ns != 0 && left.found.boot_id == boot_id && capture.went_on();
    let begin = |sequence| JournalHeader {
        sequence,
        site: arguments.site.clone(),
        gateway: arguments.gateway.clone(),
        boot_id: boot_id.to_owned(),
        opened_ns: if went_on { until_ns } else { now.wall_now() },
        software: concat!("hotspot-agent ", env!("CARGO_PKG_VERSION")).to_owned(),
        clock: Some(JournalClock { boot_to_wall_ns: now.boot_to_wall_ns(), step_ns: 0 }),
    };
    let (mut journal, header) = left.go_on(data, keys, boot_id, begin)?;
    let Left { waiting, mut found, earlier, .. } = left;
    let mut nas = std::mem::take(&mut found.nas);
    for sequence in data.list_states().unwrap_or_default() {
        // A state that cannot be read is the sealer's to tell of.
        let state = state::read(&data.state(sequence), keys).map_or_else(|_| Vec::new(), |state| state.entries);
        for entry in &state {
            if let Entry::Session(fact) = entry {
                note_nas(&mut nas, fact);
            } else if let Entry::Sessions(facts) = entry {
                facts.iter().for_each(|fact| note_nas(&mut nas, fact));
            }
        }
    }
    capture.interface_names().iter().try_for_each(|entry| journal.append(entry))?;
    if found.last_ns != 0 {
        note_absence(&mut journal, &capture, &found, !arguments.no_nat && !has_ended)?;
    }
    journal.commit()?;
    let last_ns = if capture.resumed() { found.last_ns } else { 0 };
    capture.limit_detail(std::mem::take(&mut found.detail));
    capture.resume_from(&found.positions, found.notices, found.evictions, last_ns);
    if capture.resumed() && found.drained + 1 < control.generation {
        let read = capture.read_generation(control.generation - 1, |entry| keep(&mut journal, &entry))?;
        capture.drained(&read);
        info!(generation = read.generation, "read the generation that an earlier agent left");
    }
    for (remains, found) in capture.take_earlier().into_iter().zip(earlier) {
        let Found { drained, positions, notices, evictions, last_ns, .. } = found;
        remains.read_remains(drained, &positions, notices, evictions, last_ns, |entry| keep(&mut journal, &entry))?;
    }
    Ok(Recovered { capture, journal, header, closed: waiting, nas })
}

/// Puts a generation on disk, of which this is the next that was read.
fn keep(journal: &mut JournalWriter, entry: &Entry) -> Result<(), RunError> {
    journal.append(entry)?;
    if matches!(entry, Entry::Done(_)) {
        journal.commit()?;
    }
    Ok(())
}

/// Records what the time without an agent means: nobody watched translations, and perhaps nobody counted.
fn note_absence(journal: &mut JournalWriter, capture: &Capture, found: &Found, lost_nat: bool) -> Result<(), RunError> {
    if lost_nat {
        journal.append(&Entry::NatWatch(NatWatchFact { watch: NatWatch::Lost, at_ns: found.last_ns }))?;
    }
    for gap in capture.broken_since(found.last_ns) {
        warn!(?gap, "an interface was not counted since the last agent ended");
        journal.append(&gap)?;
    }
    Ok(())
}

/// What the sealer is made of.
struct Sealing {
    keys: JournalKeys,
    manifest: Manifest,
    boot_id: String,
    vendors: Arc<VendorTable>,
}

async fn serve(
    arguments: &RunArguments,
    data: DataDir,
    sealing: Sealing,
    recovered: Recovered,
    radius: Option<RadiusSettings>,
) -> Result<(), RunError> {
    let Sealing { keys, manifest, boot_id, vendors } = sealing;
    let system = |what| move |source| RunError::System { what, source };
    let mut terminate = signal(SignalKind::terminate()).map_err(system("signals"))?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(system("signals"))?;
    let mut hangup = signal(SignalKind::hangup()).map_err(system("signals"))?;
    let (recorder, submissions) = Recorder::new();
    let (stop, stopped) = watch::channel(Stop::No);
    let (jobs, queue) = std::sync::mpsc::channel();
    for sequence in &recovered.closed {
        // The queue is read as long as this function runs.
        let _ = jobs.send(crate::sealer::SealJob::Closed { sequence: *sequence });
    }
    let grace = Duration::from_secs(arguments.grace.into());
    let upkeep = Upkeep::new(&arguments.upkeep, boot_id.clone());
    let sealer = Sealer::new(data.clone(), keys.clone(), manifest, boot_id, grace, upkeep, vendors);
    let sealer = std::thread::Builder::new()
        .name("sealer".into())
        .spawn(move || sealer.run(&queue))
        .map_err(system("a thread"))?;
    let carrier = Carrier::new(Beginning {
        capture: recovered.capture,
        journals: Journals::new(recovered.journal, recovered.header, data, keys, jobs),
        submissions,
        stop: stopped,
        rotate: Duration::from_secs(arguments.rotate.into()),
        generation: Duration::from_secs(arguments.generation.into()),
    });
    let runtime = tokio::runtime::Handle::current();
    let (ended, mut carrier_ended) = tokio::sync::oneshot::channel();
    std::thread::Builder::new()
        .name("carrier".into())
        .spawn(move || drop(ended.send(carrier.run(&runtime))))
        .map_err(system("a thread"))?;

    let mut sources = JoinSet::new();
    let (stop_sources, sources_stopped) = watch::channel(false);
    let started = start_sources(arguments, &recorder, radius.as_ref(), &mut sources, &sources_stopped).await;
    let outcome = if let Err(error) = started {
        Err(error)
    } else {
        info!(interfaces = ?arguments.interfaces, site = arguments.site, gateway = arguments.gateway, "capturing");
        loop {
            tokio::select! {
                _ = terminate.recv() => break Ok(()),
                _ = interrupt.recv() => break Ok(()),
                _ = hangup.recv() => reload(arguments, &recorder, radius.as_ref()).await,
                ended = sources.join_next(), if !sources.is_empty() => break match ended {
                    Some(Ok(Err(error))) => Err(error),
                    Some(Ok(Ok(())) | Err(_)) | None => Err(RunError::Ended),
                },
                ended = &mut carrier_ended => return Err(ended.map_or(RunError::Ended, |ended| {
                    ended.err().map_or(RunError::Ended, RunError::Carrier)
                })),
            }
        }
    };
    // RADIUS clients whose report was not answered send it again. With a full disk the last translations stay unsaid; the next
    // start says that they were not watched.
    drop(stop_sources);
    let last_facts = async { while sources.join_next().await.is_some() {} };
    if tokio::time::timeout(SOURCES_END_WITHIN, last_facts).await.is_err() {
        sources.shutdown().await;
    }
    info!("stopping: reading what is left, and sealing");
    // Fails only if the carrier is gone, which shows below.
    let _ = stop.send(if arguments.keep_attached { Stop::KeepAttached } else { Stop::Detach });
    let outcome_of_carrier = carrier_ended.await.map_err(|_| RunError::Ended)?;
    let joined = tokio::task::spawn_blocking(move || sealer.join()).await;
    outcome?;
    outcome_of_carrier?;
    joined.map_err(|_| RunError::Ended)?.map_err(|_| RunError::Ended)
}

async fn start_sources(
    arguments: &RunArguments,
    recorder: &Recorder,
    radius: Option<&RadiusSettings>,
    sources: &mut JoinSet<Result<(), RunError>>,
    stopped: &watch::Receiver<bool>,
) -> Result<(), RunError> {
    if let Some(radius) = radius {
        let mut listener = RadiusListener::new(radius);
        for address in &radius.listen {
            listener.bind(*address).map_err(|source| RunError::Listen { address: *address, source })?;
        }
        let (recorder, stopped) = (recorder.clone(), stopped.clone());
        sources.spawn(async move { listener.run(recorder, stopped).await.map_err(RunError::Radius) });
    }
    start_portals(arguments, recorder, sources, stopped)?;
    if !arguments.no_nat {
        let mut watcher = NatWatcher::subscribe()?;
        watcher.dump_first(recorder).await?;
        let (recorder, stopped) = (recorder.clone(), stopped.clone());
        sources.spawn(async move { watcher.run(recorder, stopped).await.map_err(RunError::Nat) });
    }
    if let Some(path) = &arguments.sessions {
        record_sessions(path, recorder).await?;
    }
    Ok(())
}

fn start_portals(
    arguments: &RunArguments,
    recorder: &Recorder,
    sources: &mut JoinSet<Result<(), RunError>>,
    stopped: &watch::Receiver<bool>,
) -> Result<(), RunError> {
    let nonces = DataDir(arguments.data_dir.clone()).portal_nonces();
    let secrets = arguments.portal_secret_file.as_deref().map(|path| PortalSecrets::read(path, &nonces)).transpose()?;
    for address in &arguments.portal_listen {
        let listener = PortalListener::bind(address, secrets.as_ref(), recorder.clone())?;
        let stopped = stopped.clone();
        sources.spawn(async move { listener.run(stopped).await.map_err(RunError::PortalEnded) });
    }
    Ok(())
}

async fn record_sessions(path: &Path, recorder: &Recorder) -> Result<(), RunError> {
    let facts = sessions_file::read(path, ClockReading::now().wall_now())?;
    info!(sessions = facts.len(), "read the sessions file");
    if !facts.is_empty() {
        recorder.record(facts.into_iter().map(Entry::Session).collect()).await?;
    }
    Ok(())
}

/// SIGHUP: reads the files again. A bad file changes nothing.
async fn reload(arguments: &RunArguments, recorder: &Recorder, radius: Option<&RadiusSettings>) {
    if let Some(path) = &arguments.sessions
        && let Err(error) = record_sessions(path, recorder).await
    {
        warn!(error = %crate::sealer::chain(&error), "the sessions file was not read again");
    }
    match radius.map(RadiusSettings::reload) {
        Some(Ok(())) => info!("read the RADIUS secrets again"),
        Some(Err(error)) => warn!(%error, "the RADIUS secrets stay as they were"),
        None => {}
    }
}
