//! `hotspot stamp`: time stamps of RFC 3161 for checkpoints, asked for by HTTP or by a command of the operator's.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use hotspot_archive::chain::{SignedCheckpoint, parse_checkpoint};
use hotspot_archive::checkpoints;
use hotspot_archive::stamp::{REPLY_BYTES_MAX, file_name, is_answer, path, query};

use crate::arguments::StampArguments;
use crate::output::stdout;
use crate::remote::here;
use crate::tsa::Authorities;
use crate::{Failure, Outcome};

/// How often an authority is asked before the command gives up; whoever runs it from time to time tries again.
const TRIES: u32 = 3;
/// Between two tries.
const PAUSE: Duration = Duration::from_secs(2);
/// How long an answer may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);

pub(crate) fn run(arguments: &StampArguments) -> Result<Outcome, Failure> {
    let authorities = (!arguments.tsa_ca.is_empty()).then(|| Authorities::read(&arguments.tsa_ca)).transpose()?;
    let mut to = stdout();
    for kept in newest(arguments)? {
        let (gateway, line) = (&kept.checkpoint.gateway, kept.checkpoint.line);
        let stamp = match (&arguments.archive, &arguments.checkpoint) {
            (Some(archive), _) => archive.join(path(gateway, line)),
            (None, file) => file.as_deref().unwrap_or(Path::new("")).with_file_name(file_name(gateway, line)),
        };
        if stamp.exists() {
            writeln!(to, "{gateway}: line {line} has its stamp already, {}", stamp.display())?;
            continue;
        }
        let imprint = kept.imprint();
        let reply = ask(arguments, &query(&imprint), &imprint, authorities.as_ref()).map_err(|error| {
            Failure::Damaged(format!("gateway {gateway}: the checkpoint of line {line} was not stamped: {error}"))
        })?;
        write(&stamp, &reply)
            .map_err(|error| Failure::Damaged(format!("{} cannot be written: {error}", stamp.display())))?;
        writeln!(to, "{gateway}: line {line} was stamped, {}", stamp.display())?;
    }
    to.flush()?;
    Ok(Outcome::Done)
}

/// The newest checkpoint of each gateway.
fn newest(arguments: &StampArguments) -> Result<Vec<SignedCheckpoint>, Failure> {
    let mut lines = Vec::new();
    if let Some(archive) = &arguments.archive {
        let archive = here(archive)?;
        let dir = archive.join(checkpoints::DIRECTORY);
        let failed = |error: io::Error| {
            Failure::Damaged(format!("{} cannot be read: {error}; an agent of this version writes it", dir.display()))
        };
        for entry in std::fs::read_dir(&dir).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name().to_string_lossy().into_owned();
            let Some(gateway) = name.strip_suffix(".jsonl") else { continue };
            lines.extend(checkpoints::read(archive, gateway).map_err(failed)?);
        }
    }
    if let Some(file) = &arguments.checkpoint {
        let text = std::fs::read_to_string(file)
            .map_err(|error| Failure::Usage(format!("{} cannot be read: {error}", file.display())))?;
        lines.extend(text.lines().map(str::to_owned));
    }
    let mut newest: BTreeMap<String, SignedCheckpoint> = BTreeMap::new();
    for kept in lines.iter().filter_map(|line| parse_checkpoint(line)) {
        let known = newest.get(&kept.checkpoint.gateway);
        if known.is_none_or(|known| known.checkpoint.line <= kept.checkpoint.line) {
            newest.insert(kept.checkpoint.gateway.clone(), kept);
        }
    }
    if newest.is_empty() {
        return Err(Failure::Usage("there is no checkpoint to be stamped".to_owned()));
    }
    Ok(newest.into_values().collect())
}

/// Asks until there is an answer that is one, a few times.
fn ask(
    arguments: &StampArguments,
    query: &[u8],
    imprint: &[u8; 32],
    authorities: Option<&Authorities>,
) -> Result<Vec<u8>, String> {
    let mut failure = String::new();
    for number in 1..=TRIES {
        let reply = match (&arguments.tsa_command, &arguments.tsa) {
            (Some(command), _) => by_command(command, query),
            (None, url) => by_http(url.as_deref().unwrap_or_default(), query),
        };
        let judged = reply.map_err(|error| error.to_string()).and_then(|reply| {
            if !is_answer(&reply, imprint) {
                return Err("what came back is no time stamp of this checkpoint".to_owned());
            }
            authorities.map_or(Ok(()), |authorities| authorities.judge(&reply).map(drop))?;
            Ok(reply)
        });
        match judged {
            Ok(reply) => return Ok(reply),
            Err(what) => failure = what,
        }
        if number < TRIES {
            std::thread::sleep(PAUSE);
        }
    }
    Err(failure)
}

fn by_command(command: &str, query: &[u8]) -> io::Result<Vec<u8>> {
    let mut child =
        Command::new("/bin/sh").args(["-c", command]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    if let Some(mut input) = child.stdin.take() {
        // The question fits into the pipe; a command that does not read it is judged by its answer.
        let _ = input.write_all(query);
    }
    let mut reply = Vec::new();
    if let Some(output) = child.stdout.take() {
        output.take(REPLY_BYTES_MAX as u64 + 1).read_to_end(&mut reply)?;
    }
    let status = child.wait()?;
    if status.success() { Ok(reply) } else { Err(io::Error::other(format!("the command ended with {status}"))) }
}

/// RFC 3161, section 3.4. Without TLS is as good: what counts is the signature of the answer.
fn by_http(url: &str, query: &[u8]) -> io::Result<Vec<u8>> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let failed = |error: reqwest::Error| io::Error::other(crate::store::innermost(&error));
    runtime.block_on(async {
        let client = reqwest::Client::builder().timeout(ANSWER_WITHIN).build().map_err(failed)?;
        let request = client.post(url).header("Content-Type", "application/timestamp-query").body(query.to_vec());
        let mut response = request.send().await.map_err(failed)?.error_for_status().map_err(failed)?;
        let mut reply = Vec::new();
        while let Some(part) = response.chunk().await.map_err(failed)? {
            reply.extend_from_slice(&part);
            if reply.len() > REPLY_BYTES_MAX {
                return Err(io::Error::other("the answer is longer than any time stamp"));
            }
        }
        Ok(reply)
    })
}

/// Whole or not at all.
fn write(path: &Path, reply: &[u8]) -> io::Result<()> {
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut file = tempfile::Builder::new().prefix(".stamp").tempfile_in(dir)?;
    file.write_all(reply)?;
    file.as_file().sync_all()?;
    file.persist_noclobber(path).map_err(|error| error.error)?;
    std::fs::File::open(dir)?.sync_all()
}
