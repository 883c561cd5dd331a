//! Before an answer: the question goes into the audit log, or there is no answer.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::fs;
use std::path::Path;

use hotspot_archive::audit::{self, Question, Requester};

use crate::Failure;
use crate::arguments::Asking;
use crate::store::is_url;
use crate::time::{now_ns, utc};

/// Everything that decides what is found, by name.
#[derive(Default)]
pub(crate) struct Query(BTreeMap<String, String>);

impl Query {
    pub(crate) fn with(mut self, name: &str, value: impl Display) -> Self {
        self.0.insert(name.to_owned(), value.to_string());
        self
    }

    pub(crate) fn with_some(self, name: &str, value: Option<impl Display>) -> Self {
        match value {
            Some(value) => self.with(name, value),
            None => self,
        }
    }
}

/// Whether it is known where the question goes; asked before anything is fetched.
pub(crate) fn check_log(asking: &Asking, archive: &Path) -> Result<(), Failure> {
    if is_url(archive) && asking.audit.is_none() {
        return Err(Failure::Usage(format!(
            "{}: name the audit log to write to with --audit FILE; nothing can be appended at an object store",
            archive.display()
        )));
    }
    Ok(())
}

/// Records a question to an archive.
pub(crate) fn record(asking: &Asking, archive: &Path, command: &str, query: Query) -> Result<(), Failure> {
    record_at(asking, archive, archive, command, query)
}

/// Records a question to an archive that is named `of` and whose files are below `root`.
pub(crate) fn record_at(asking: &Asking, of: &Path, root: &Path, command: &str, query: Query) -> Result<(), Failure> {
    if asking.case.as_deref().is_some_and(audit::is_blank) {
        return Err(Failure::Refused(
            "--case names nothing: give the reference of the request, or leave --case away where the archive asks for none".to_owned(),
        ));
    }
    let path = audit::log_for(root, asking.audit.as_deref()).map_err(|error| Failure::Refused(error.to_string()))?;
    let marker = audit::default_path(root).with_file_name(audit::CASE_REQUIRED);
    if asking.case.is_none() && marker.exists() {
        return Err(Failure::Refused(audit::AuditError::NoCase { path: marker }.to_string()));
    }
    let question = Question {
        at: utc(now_ns()),
        requester: requester(),
        case: asking.case.clone(),
        command: command.to_owned(),
        of: if is_url(of) { of.to_path_buf() } else { std::path::absolute(of).unwrap_or_else(|_| of.to_path_buf()) }
            .display()
            .to_string(),
        query: query.0,
        software: concat!("hotspot ", env!("CARGO_PKG_VERSION")).to_owned(),
    };
    audit::record(&path, &question).map_err(|error| Failure::Refused(error.to_string()))
}

/// Records that a file is read: in the log that was named, or in that of the archive the file belongs to. A file that lies
/// somewhere else alone belongs to none.
pub(crate) fn record_file(asking: &Asking, file: &Path, command: &str) -> Result<(), Failure> {
    let path = std::path::absolute(file)?;
    let mut parents = path.ancestors().skip(1).take(5);
    let archive = parents.find_map(|dir| {
        let candidates = [dir.to_path_buf(), dir.join("archive")];
        candidates.into_iter().find(|candidate| candidate.join("manifest").is_dir())
    });
    if archive.is_none() && asking.audit.is_none() {
        return Ok(());
    }
    record(asking, archive.as_deref().unwrap_or(&path), command, Query::default().with("file", path.display()))
}

fn requester() -> Requester {
    let uid = rustix::process::getuid().as_raw();
    let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let name = passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
    });
    Requester { uid, name, sudo_uid: std::env::var("SUDO_UID").ok().and_then(|uid| uid.parse().ok()) }
}
