//! From a request to an answer: which report it is, whether it may be taken, and whether it is on disk.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use hotspot_archive::entry::Entry;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::{Body, Incoming};
use hyper::header::{ALLOW, CONNECTION, CONTENT_TYPE, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use hyper::{Method, Request, Response, StatusCode};
use percent_encoding::percent_decode_str;
use serde_json::json;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tracing::{debug, warn};

use super::authorize::{PortalSecrets, Proven, Signed, Unauthorized};
use super::report::{BadReport, Operation, Report, Reports, parse_batch, parse_one};
use super::room::{self, Shown};
use crate::capture::clock::ClockReading;
use crate::identity::odd_fields::OddFields;
use crate::recorder::{NotRecorded, Recorder};
use crate::seldom::Seldom;

/// Bytes of a single report, and of a batch.
const REPORT_BYTES_MAX: usize = 64 << 10;
const BATCH_BYTES_MAX: usize = 4 << 20;
/// Facts of leases are up to 5 KiB each, and a frame of the journal holds 16 MiB.
const FACTS_PER_ENTRY: usize = 1024;
/// A body that has not arrived within this time is given up.
const BODY_WITHIN: Duration = Duration::from_secs(10);

/// What became of requests; each ends in exactly one.
#[derive(Debug, Default)]
pub(super) struct PortalCounters {
    recorded: AtomicU64,
    not_recorded: AtomicU64,
    unauthorized: AtomicU64,
    refused: AtomicU64,
    /// Fields that were left out of reports which count without them.
    odd: OddFields,
}

pub(super) struct Portal {
    /// `None` on a Unix socket: the file's mode says who may report.
    secrets: Option<PortalSecrets>,
    /// In KiB.
    room_for_bodies: Arc<Semaphore>,
    recorder: Recorder,
    counters: PortalCounters,
    warned: Seldom,
}

/// Why a request is not answered with 200.
enum Refusal {
    Unauthorized(Unauthorized),
    Report(BadReport),
    /// One that may be taken once the clocks agree.
    Undated(BadReport),
    NoSuchPath,
    /// With the methods that are.
    NoSuchMethod(&'static str),
    TooLarge {
        bytes_max: usize,
    },
    Late,
    Broken,
    Busy,
    NotRecorded(NotRecorded),
}

/// What a path and a method ask for.
enum Asked {
    One(Operation, Option<Vec<u8>>),
    Batch,
    Health,
}

impl Portal {
    pub(super) fn new(secrets: Option<PortalSecrets>, recorder: Recorder) -> Self {
        Self {
            secrets,
            room_for_bodies: room::room_for_bodies(),
            recorder,
            counters: PortalCounters::default(),
            warned: Seldom::default(),
        }
    }

    pub(super) async fn answer(&self, request: Request<Incoming>, shown: &Shown) -> Response<Full<Bytes>> {
        let outcome = self.take(request, shown).await;
        let counter = match &outcome {
            Ok(_) => &self.counters.recorded,
            Err(Refusal::NotRecorded(_) | Refusal::Busy | Refusal::Unauthorized(Unauthorized::NotKept)) => {
                &self.counters.not_recorded
            }
            Err(Refusal::Unauthorized(_)) => &self.counters.unauthorized,
            Err(_) => &self.counters.refused,
        };
        counter.fetch_add(1, Ordering::Relaxed);
        let (status, body) = match &outcome {
            Ok(body) => (StatusCode::OK, body.clone()),
            Err(refusal) => {
                self.log(refusal);
                let mut body = json!({ "error": refusal.text() });
                if matches!(refusal, Refusal::Undated(_)) {
                    body["undated"] = true.into();
                }
                (refusal.status(), body)
            }
        };
        let mut response = Response::new(Full::new(Bytes::from(format!("{body}\n"))));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        match &outcome {
            Err(Refusal::NoSuchMethod(allowed)) => drop(headers.insert(ALLOW, HeaderValue::from_static(allowed))),
            Err(Refusal::NotRecorded(_) | Refusal::Busy | Refusal::Unauthorized(Unauthorized::NotKept)) => {
                headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
            }
            Err(Refusal::Unauthorized(_)) => {
                headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer, HMAC-SHA256"));
            }
            Err(Refusal::Undated(_)) => {
                headers.insert(RETRY_AFTER, HeaderValue::from_static("60"));
            }
            // What is left of the body was not read.
            Err(Refusal::TooLarge { .. } | Refusal::Late | Refusal::Broken) => {
                headers.insert(CONNECTION, HeaderValue::from_static("close"));
            }
            Ok(_) | Err(Refusal::Report(_) | Refusal::NoSuchPath) => {}
        }
        response
    }

    fn log(&self, refusal: &Refusal) {
        let (why, counters) = (refusal.reason(), &self.counters);
        if self.warned.is_time() {
            warn!(why, ?counters, "a portal's request was not taken (logged at most every 10 s)");
        } else {
            debug!(why, "a portal's request was not taken");
        }
    }

    async fn take(&self, request: Request<Incoming>, shown: &Shown) -> Result<serde_json::Value, Refusal> {
        let proven = self.prove(&request)?;
        shown.note();
        let asked = asked(request.method(), request.uri().path())?;
        let bytes_max = if matches!(asked, Asked::Batch) { BATCH_BYTES_MAX } else { REPORT_BYTES_MAX };
        // Until what was read is recorded.
        let _room = self.room(request.body(), bytes_max).await?;
        let body = read(request.into_body(), bytes_max).await?;
        let now_ns = ClockReading::now().wall_now();
        if let Some((secrets, proven)) = proven {
            let (secrets, body) = (secrets.clone(), body.clone());
            let taken = tokio::task::spawn_blocking(move || secrets.take(proven, &body, now_ns / 1_000_000_000));
            taken.await.unwrap_or(Err(Unauthorized::NotKept)).map_err(Refusal::Unauthorized)?;
        }
        let reports = match asked {
            Asked::Health => {
                let software = concat!("hotspot-agent ", env!("CARGO_PKG_VERSION"));
                return Ok(json!({ "software": software }));
            }
            Asked::Batch => parse_batch(&body, now_ns),
            Asked::One(operation, id) => parse_one(operation, id.as_deref(), &body, now_ns),
        };
        let refused = |why: BadReport| if why.is_undated() { Refusal::Undated(why) } else { Refusal::Report(why) };
        self.record(reports.map_err(refused)?).await
    }

    /// What the head of a request proves; nothing has to be proven on a Unix socket.
    fn prove(&self, request: &Request<Incoming>) -> Result<Option<(&PortalSecrets, Proven)>, Refusal> {
        let Some(secrets) = &self.secrets else { return Ok(None) };
        let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
        let signed = Signed { method: request.method().as_str(), path };
        let now_s = ClockReading::now().wall_now() / 1_000_000_000;
        let proven = secrets.prove(request.headers(), &signed, now_s).map_err(Refusal::Unauthorized)?;
        Ok(Some((secrets, proven)))
    }

    /// Room for a body, before it is read.
    async fn room(&self, body: &Incoming, bytes_max: usize) -> Result<OwnedSemaphorePermit, Refusal> {
        let stated = body.size_hint().exact().map_or(Ok(bytes_max), usize::try_from);
        let bytes = stated.ok().filter(|bytes| *bytes <= bytes_max).ok_or(Refusal::TooLarge { bytes_max })?;
        let kib = u32::try_from(bytes.div_ceil(1024)).unwrap_or(u32::MAX);
        let room = Arc::clone(&self.room_for_bodies).acquire_many_owned(kib);
        // Never closed.
        tokio::time::timeout(BODY_WITHIN, room).await.ok().and_then(Result::ok).ok_or(Refusal::Busy)
    }

    async fn record(&self, Reports { reports, odd }: Reports) -> Result<serde_json::Value, Refusal> {
        let recorded = reports.len();
        self.counters.odd.count("portal", &odd);
        if recorded > 0 {
            let (mut entries, mut leases) = (Vec::with_capacity(recorded), Vec::new());
            for report in reports {
                match report {
                    Report::Session(fact) => entries.push(Entry::Session(*fact)),
                    Report::Lease(facts) => leases.extend(facts),
                }
            }
            entries.extend(leases.chunks(FACTS_PER_ENTRY).map(|facts| Entry::Leases(facts.to_vec())));
            self.recorder.record(entries).await.map_err(Refusal::NotRecorded)?;
        }
        Ok(if odd.is_empty() {
            json!({ "recorded": recorded })
        } else {
            // Who sent them can mend them.
            let odd: BTreeSet<&str> = odd.into_iter().collect();
            json!({ "recorded": recorded, "odd_fields": odd })
        })
    }
}

fn asked(method: &Method, path: &str) -> Result<Asked, Refusal> {
    let post = |asked| if method == Method::POST { Ok(asked) } else { Err(Refusal::NoSuchMethod("POST")) };
    match path {
        "/v1/batch" => post(Asked::Batch),
        "/v1/rejections" => post(Asked::One(Operation::Reject, None)),
        "/v1/resets" => post(Asked::One(Operation::Reset, None)),
        "/v1/health" if method == Method::GET => Ok(Asked::Health),
        "/v1/health" => Err(Refusal::NoSuchMethod("GET")),
        _ => {
            let path = path.strip_prefix("/v1/").and_then(|path| path.split_once('/'));
            let (of, name) =
                path.filter(|(_, name)| !name.is_empty() && !name.contains('/')).ok_or(Refusal::NoSuchPath)?;
            let name = percent_decode_str(name).collect();
            let operation = match (of, method) {
                ("sessions", &Method::PUT) => Operation::Put,
                ("sessions", &Method::PATCH) => Operation::Patch,
                ("sessions", &Method::DELETE) => Operation::Delete,
                ("sessions", _) => return Err(Refusal::NoSuchMethod("PUT, PATCH, DELETE")),
                ("leases", &Method::PUT) => Operation::Lease,
                ("leases", &Method::DELETE) => Operation::Release,
                ("leases", _) => return Err(Refusal::NoSuchMethod("PUT, DELETE")),
                _ => return Err(Refusal::NoSuchPath),
            };
            Ok(Asked::One(operation, Some(name)))
        }
    }
}

async fn read(body: Incoming, bytes_max: usize) -> Result<Bytes, Refusal> {
    match tokio::time::timeout(BODY_WITHIN, Limited::new(body, bytes_max).collect()).await {
        Err(_) => Err(Refusal::Late),
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(Refusal::TooLarge { bytes_max }),
        Ok(Err(_)) => Err(Refusal::Broken),
    }
}

impl Refusal {
    fn status(&self) -> StatusCode {
        match self {
            Self::Unauthorized(Unauthorized::Replayed) => StatusCode::CONFLICT,
            Self::Unauthorized(Unauthorized::TooMany) => StatusCode::TOO_MANY_REQUESTS,
            Self::Unauthorized(Unauthorized::Nothing | Unauthorized::Wrong | Unauthorized::OutsideWindow) => {
                StatusCode::UNAUTHORIZED
            }
            Self::Unauthorized(Unauthorized::OtherBody) | Self::Report(_) | Self::Broken => StatusCode::BAD_REQUEST,
            Self::NoSuchPath => StatusCode::NOT_FOUND,
            Self::NoSuchMethod(_) => StatusCode::METHOD_NOT_ALLOWED,
            Self::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Late => StatusCode::REQUEST_TIMEOUT,
            // The report is as it should be, and the moment is not (RFC 8470 section 5.2 has it of requests that may be sent again).
            Self::Undated(_) => StatusCode::TOO_EARLY,
            Self::NotRecorded(_) | Self::Busy | Self::Unauthorized(Unauthorized::NotKept) => {
                StatusCode::SERVICE_UNAVAILABLE
            }
        }
    }

    /// For whoever asked.
    fn text(&self) -> String {
        match self {
            Self::Unauthorized(why) => why.to_string(),
            Self::Report(why) | Self::Undated(why) => why.to_string(),
            Self::NoSuchPath => {
                "no such path; there are /v1/sessions/ID, /v1/leases/ADDRESS, /v1/batch, /v1/rejections, /v1/resets and \
                 /v1/health"
                    .to_owned()
            }
            Self::NoSuchMethod(allowed) => format!("here only: {allowed}"),
            Self::TooLarge { bytes_max } => format!("the body is larger than {bytes_max} bytes"),
            Self::Late => format!("the body did not arrive within {} s", BODY_WITHIN.as_secs()),
            Self::Broken => "the body broke off".to_owned(),
            Self::Busy => "too many bodies are being read at once; send it again".to_owned(),
            Self::NotRecorded(why) => format!("not recorded, send it again: {why}"),
        }
    }

    /// For the log: a reason without anything personal.
    fn reason(&self) -> &'static str {
        match self {
            Self::Unauthorized(_) => "unauthorized",
            Self::Report(_) => "not a report",
            Self::Undated(_) => "its time and this gateway's clock disagree",
            Self::NoSuchPath => "path",
            Self::NoSuchMethod(_) => "method",
            Self::TooLarge { .. } => "too large",
            Self::Late => "late",
            Self::Broken => "broke off",
            Self::Busy => "busy",
            Self::NotRecorded(_) => "not recorded",
        }
    }
}
