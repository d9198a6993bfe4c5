//! The files that run in the shadow of virtual hosts: read with the configuration, and refused alone.
//!
//! Knows: files, hosts. Must not know: what a shadow does.

use super::{Messages, Settings, VirtualHost};
use crate::options::{Report, codes};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A configuration that runs in the shadow of virtual hosts.
pub struct ShadowFile {
    /// The file.
    pub path: PathBuf,
    /// The names of the hosts, each with the place of the host of the file that decides for it.
    pub hosts: Vec<(Arc<str>, usize)>,
    /// What it says; `None` if it can't be used.
    pub settings: Option<Settings>,
    /// What there is to say about it.
    pub messages: Messages,
    /// Why it can't be used, if there is no mistake in it.
    pub problem: Option<String>,
}

impl ShadowFile {
    /// Why it can't be used.
    pub fn refusal(&self) -> Option<String> {
        let errors = self.messages.errors();
        match (&self.settings, &self.problem) {
            (Some(_), _) => None,
            (None, Some(problem)) => Some(problem.clone()),
            (None, None) => Some(format!("{errors} error{}", if errors == 1 { "" } else { "s" })),
        }
    }
}

/// The place of the host of a shadow that decides for a host.
fn counterpart(host: &VirtualHost, shadow: &Settings) -> Option<usize> {
    let named = shadow.hosts.iter().position(|other| other.name == host.name);
    named.or_else(|| shadow.hosts.iter().position(|other| other.key == host.key))
}

/// Reads the files that the hosts name, each once. One that can't be used is a doubt at the option.
pub(super) fn read(hosts: &[VirtualHost], report: &Report) -> Vec<ShadowFile> {
    let mut files: Vec<ShadowFile> = Vec::new();
    for host in hosts {
        let Some((path, _)) = &host.shadow else { continue };
        let known = files.iter().position(|file| file.path == *path);
        let place = known.unwrap_or_else(|| {
            files.push(ShadowFile::read(path));
            files.len() - 1
        });
        files[place].add(host, hosts);
    }
    for (path, span) in hosts.iter().filter_map(|host| host.shadow.as_ref()) {
        let file = files.iter().find(|file| file.path == *path);
        if let Some(why) = file.and_then(ShadowFile::refusal) {
            let message = format!("shadow: {} can't be used: {why}", path.display());
            let help = Some("the host answers as ever, without a shadow".to_owned());
            report.say(&codes::NO_SHADOW, *span, message, help);
        }
    }
    files
}

impl ShadowFile {
    fn read(path: &Path) -> ShadowFile {
        let (settings, messages) = match Settings::load_shadow(path) {
            Ok((settings, messages)) => (Some(settings), messages),
            Err(messages) => (None, messages),
        };
        ShadowFile { path: path.to_owned(), hosts: Vec::new(), settings, messages, problem: None }
    }

    /// It is to run in the shadow of a host too, one of all.
    fn add(&mut self, host: &VirtualHost, hosts: &[VirtualHost]) {
        let name = &host.name;
        let Some(shadow) = &self.settings else { return self.hosts.push((name.clone(), 0)) };
        let is_only = hosts.iter().filter(|other| other.name == *name).count() == 1;
        let problem = match counterpart(host, shadow) {
            Some(place) if is_only => return self.hosts.push((name.clone(), place)),
            Some(_) => format!("there is more than one virtual host of the name {name}"),
            None => format!("it has no virtual host of the name {name} or with the port {}", host.key),
        };
        self.hosts.push((name.clone(), 0));
        (self.settings, self.problem) = (None, Some(problem));
    }
}

/// Refuses shadows of a shadow.
pub(super) fn refuse(hosts: &[VirtualHost], report: &Report) {
    for (_, span) in hosts.iter().filter_map(|host| host.shadow.as_ref()) {
        let help = "remove the option; the file of the daemon has it".to_owned();
        report.error(
            *span,
            "shadow: a file that runs in the shadow of another one has none itself",
            Some(help),
        );
    }
}
