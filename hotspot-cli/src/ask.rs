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
    let default = audit::default_path(root);
    let path = asking.audit.as_deref().unwrap_or(&default);
    let marker = default.with_file_name(audit::CASE_REQUIRED);
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
    audit::record(path, &question).map_err(|error| Failure::Refused(error.to_string()))
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
