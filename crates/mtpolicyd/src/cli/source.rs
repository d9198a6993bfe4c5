//! Where commands find decisions: at the running daemon, or in the file of a journal without one.
//!
//! Knows: both. Must not know: what is searched, how it is printed.

use super::control::{Daemon, Failure};
use super::terminal::own;
use crate::recorder::damaged;
use crate::server::control::{AuditView, AuditsView, DecisionsView, KeptView, filter_query};
use clap::{Arg, ArgMatches, value_parser};
use decisions::journal::{JournalFile, Progress};
use decisions::{DecisionId, DecisionView, Filter, RowView, rfc3339};
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long one page of a search in a file takes at most, so that its progress can be shown.
const PAGE_LIMIT: Duration = Duration::from_secs(1);

/// Where decisions are found.
pub enum Source {
    /// The running daemon.
    Daemon(Daemon),
    /// A file, and its name for messages.
    File(JournalFile, String),
}

/// The option that names a file.
pub fn journal_option() -> Arg {
    Arg::new("journal")
        .long("journal")
        .value_name("FILE")
        .value_parser(value_parser!(PathBuf))
        .conflicts_with_all(["config", "socket"])
        .help(
            "Read the file of a journal, without a daemon: also a copy, or that of another machine. Nothing \
             is written",
        )
}

impl Source {
    /// That of the command line.
    pub fn of(matches: &ArgMatches) -> Result<Source, Failure> {
        let Some(path) = matches.get_one::<PathBuf>("journal") else {
            return Daemon::of(matches).map(Source::Daemon);
        };
        Source::open(path)
    }

    /// A file.
    fn open(path: &Path) -> Result<Source, Failure> {
        let file = JournalFile::open(path).map_err(failure)?;
        Ok(Source::File(file, path.display().to_string()))
    }

    /// A page of a search: decisions older than `before`, at most `limit` of them.
    pub fn search(
        &self,
        filter: &Filter,
        before: Option<DecisionId>,
        limit: u64,
    ) -> Result<DecisionsView, Failure> {
        match self {
            Source::Daemon(daemon) => {
                let cursor = before.map(|before| format!("&before={before}")).unwrap_or_default();
                daemon.get(&format!("/v1/decisions?limit={limit}{cursor}&{}", filter_query(filter)))
            }
            Source::File(file, name) => {
                let (limit, progress) = (
                    usize::try_from(limit).unwrap_or(usize::MAX),
                    Progress::until(Instant::now() + PAGE_LIMIT),
                );
                let found = file.search(filter, limit, before, &progress).map_err(failure)?;
                Ok(DecisionsView {
                    next: found.next(),
                    unfinished: !found.has_more && found.searched_to.is_some(),
                    problems: damaged(found.damaged),
                    decisions: found.decisions.iter().map(|decision| RowView::of(decision)).collect(),
                    kept: KeptView {
                        place: format!("the journal {name}"),
                        begins: found.covered.from.map(|begins| rfc3339(begins.time())),
                        lost: found.covered.lost,
                        problem: None,
                    },
                })
            }
        }
    }

    /// One decision in a row.
    pub fn row(&self, id: DecisionId) -> Result<RowView, Failure> {
        match self {
            Source::Daemon(daemon) => daemon.get(&format!("/v1/decisions/{id}?walk=0")),
            Source::File(..) => self.one(id).map(|(view, _)| view.row),
        }
    }

    /// One decision with the way to it, and the same as JSON.
    pub fn one(&self, id: DecisionId) -> Result<(DecisionView, String), Failure> {
        match self {
            Source::Daemon(daemon) => {
                let (status, body) = daemon.get_bytes(&format!("/v1/decisions/{id}"))?;
                let view = daemon.understand(status, &body)?;
                Ok((view, String::from_utf8_lossy(&body).into_owned()))
            }
            Source::File(file, name) => {
                let found = file.get(id).map_err(failure)?;
                let unknown = || Failure(format!("no decision {id} in the journal {}", own(name)));
                let view = DecisionView::of(&*found.ok_or_else(unknown)?);
                let json = json(&view)?;
                Ok((view, json))
            }
        }
    }

    /// The latest notes about searches and changes, the newest first.
    pub fn audits(&self, limit: usize) -> Result<Vec<AuditView>, Failure> {
        match self {
            Source::Daemon(daemon) => {
                let AuditsView { audits } = daemon.get(&format!("/v1/audit?limit={limit}"))?;
                Ok(audits)
            }
            Source::File(file, _) => {
                let audits = file.audits(limit).map_err(failure)?;
                Ok(audits.into_iter().map(AuditView::from).collect())
            }
        }
    }

    /// The daemon, where it is one.
    pub fn daemon(&self) -> Option<&Daemon> {
        match self {
            Source::Daemon(daemon) => Some(daemon),
            Source::File(..) => None,
        }
    }
}

fn failure(error: decisions::journal::JournalError) -> Failure {
    Failure(own(&error.to_string()))
}

/// A value as JSON, in one line.
pub fn json(value: &impl Serialize) -> Result<String, Failure> {
    serde_json::to_string(value).map_err(|error| Failure(error.to_string()))
}
