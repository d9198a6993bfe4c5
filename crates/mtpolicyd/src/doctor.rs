//! What keeps a daemon from doing its work although nothing says so: how Postfix asks it, the order of
//! time-outs, the stages, and the machine around it.
//!
//! Knows: the configurations of Postfix and of the daemon, what the running daemon says of itself.
//! Must not know: where these come from (`gather` does), how findings are printed.

mod gather;
mod life;
mod lists;
mod machine;
mod postfix;
mod restrictions;
mod stages;
mod timing;
mod wiring;

pub use gather::{Gathered, Sources, gather};
pub use postfix::Postfix;

use crate::address::ListenAddress;
use crate::metrics::MetricsView;
use crate::server::control::StatusView;
use crate::settings::Settings;
use crate::state::ListReport;
use decisions::StepInfo;
use postfix::{Question, Service};
use restrictions::{Item, PolicyServer};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// Everything that is looked at. What is `None` could not be found out, and nothing is said of it.
#[derive(Default)]
pub struct Facts {
    /// Postfix.
    pub postfix: Option<Postfix>,
    /// The configuration of the daemon.
    pub settings: Option<Settings>,
    /// The codes of what `check` says of it.
    pub codes: Vec<&'static str>,
    /// The files in which it has found secrets that every user can read.
    pub secrets: Vec<PathBuf>,
    /// What the running daemon says.
    pub status: Option<StatusView>,
    /// What else it says.
    pub live: Live,
    /// The machine.
    pub machine: Machine,
}

/// What a running daemon tells beside its status.
#[derive(Default)]
pub struct Live {
    /// Its DNS lists, which were tested for this.
    pub lists: Vec<ListReport>,
    /// Its numbers.
    pub metrics: MetricsView,
    /// When it made its last decision, if decisions are kept.
    pub last_decision: Option<Last>,
}

/// Something that happens again and again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Last {
    /// It has not happened as far as it is known.
    Never,
    /// It was then.
    At(SystemTime),
}

/// The machine on which the daemon runs.
#[derive(Debug, Default)]
pub struct Machine {
    /// The name servers of resolv.conf.
    pub resolvers: Vec<IpAddr>,
    /// The unit of systemd with its drop-ins, as `systemctl cat` prints it.
    pub unit: Option<String>,
    /// The file in which the tasks of the night used to be.
    pub cron: Option<String>,
    /// How many files the running daemon may open.
    pub open_files: Option<u64>,
    /// Folders that the daemon writes to, and the MiB that are free there.
    pub free: Vec<(PathBuf, u64)>,
    /// What the user of the daemon can't read or write.
    pub no_access: Vec<String>,
    /// Tables of databases that can't be used, and why.
    pub denied: Vec<String>,
    /// Servers that do not answer, and why; looked at where no daemon runs that says it.
    pub unanswered: Vec<String>,
    /// Files with secrets that every user can read.
    pub readable: Vec<PathBuf>,
    /// Databases, journals and logs that every user can read.
    pub open_data: Vec<PathBuf>,
    /// Files of the configuration that every user can write.
    pub writable: Vec<PathBuf>,
    /// How exposed systemd takes the service to be, from 0 to 10.
    pub exposure: Option<f64>,
    /// Whether the clock is set by another one, if anything says so.
    pub is_clock_set: Option<bool>,
    /// Files that were written at a time that has not come yet.
    pub from_the_future: Vec<PathBuf>,
    /// When Postfix took its last message, if it can be told.
    pub last_mail: Option<SystemTime>,
    /// UNIX sockets of the daemon that Postfix's user can't connect to, and why.
    pub closed_sockets: Vec<(PathBuf, String)>,
}

/// Something that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Its code.
    pub code: &'static str,
    /// Whether it is wrong, and not only doubtful.
    pub is_wrong: bool,
    /// What it is.
    pub text: String,
    /// Where it is written.
    pub place: String,
    /// What to type, a command for each line; comments where no command does it.
    pub fix: Vec<String>,
}

/// One thing that is looked for.
pub struct Check {
    /// Its code, by which the manual names it.
    pub code: &'static str,
    /// What it looks for.
    pub title: &'static str,
    /// Looks for it.
    pub run: fn(&Facts) -> Vec<Finding>,
}

/// Everything that is looked for, by its code.
pub const CHECKS: &[Check] = &[
    Check { code: "D01", title: "a Postfix that is too old", run: wiring::version },
    Check { code: "D02", title: "Postfix asks no policy service", run: wiring::asks_nobody },
    Check { code: "D03", title: "Postfix asks another port", run: wiring::asks_elsewhere },
    Check { code: "D04", title: "a socket outside the chroot of smtpd", run: wiring::chroot },
    Check { code: "D05", title: "a socket that Postfix may not use", run: machine::sockets },
    Check { code: "D06", title: "a question behind a final permit", run: wiring::never_asked },
    Check { code: "D07", title: "an OK that would relay", run: wiring::relays },
    Check { code: "D08", title: "asked for submission, wrongly or only", run: wiring::submission },
    Check { code: "D09", title: "no default_action", run: timing::default_action },
    Check { code: "D10", title: "asked before sender and recipient", run: stages::too_early },
    Check { code: "D11", title: "time-outs in the wrong order", run: timing::timeouts },
    Check { code: "D12", title: "more requests than a connection takes", run: timing::requests },
    Check { code: "D13", title: "connections that are closed too soon", run: timing::idle },
    Check { code: "D14", title: "more smtpd processes than connections", run: timing::processes },
    Check { code: "D15", title: "recipients are counted before DATA", run: stages::recipients },
    Check { code: "D16", title: "sizes are counted before the end", run: stages::sizes },
    Check { code: "D17", title: "logins are counted where none comes", run: stages::logins },
    Check { code: "D18", title: "a filter or proxy in place of the client", run: wiring::hidden_clients },
    Check { code: "D19", title: "another daemon does the same", run: wiring::rivals },
    Check { code: "D20", title: "a cron file beside the own tasks", run: machine::cron },
    Check { code: "D21", title: "a public resolver", run: machine::resolver },
    Check { code: "D22", title: "lists that are not well", run: life::lists },
    Check { code: "D23", title: "backends and tables that can't be used", run: life::backends },
    Check { code: "D24", title: "decisions that can't be kept", run: life::journal },
    Check { code: "D25", title: "secrets and files with the wrong rights", run: machine::rights },
    Check { code: "D26", title: "a unit that is too strict or too weak", run: machine::unit },
    Check { code: "D27", title: "a clock that is wrong", run: life::clock },
    Check { code: "D28", title: "a disk that is nearly full", run: machine::disk },
    Check { code: "D29", title: "too few open files", run: machine::open_files },
    Check { code: "D30", title: "a configuration that is not in use yet", run: machine::changed },
    Check { code: "D31", title: "no request although Postfix takes messages", run: life::no_requests },
];

/// What is found, in the order of the codes.
pub fn look(facts: &Facts) -> Vec<Finding> {
    CHECKS.iter().flat_map(|check| (check.run)(facts)).collect()
}

impl Finding {
    fn wrong(code: &'static str, text: impl Into<String>) -> Finding {
        Finding { is_wrong: true, ..Finding::doubt(code, text) }
    }

    fn doubt(code: &'static str, text: impl Into<String>) -> Finding {
        Finding { code, is_wrong: false, text: text.into(), place: String::new(), fix: Vec::new() }
    }

    fn at(self, place: impl Into<String>) -> Finding {
        Finding { place: place.into(), ..self }
    }

    fn fixed_by(mut self, command: impl Into<String>) -> Finding {
        self.fix.push(command.into());
        self
    }
}

impl Facts {
    /// The places where Postfix asks this daemon; all places if it is not known where the daemon listens.
    fn ours(&self) -> Vec<Question<'_>> {
        let Some(postfix) = &self.postfix else { return Vec::new() };
        let questions = postfix.questions().into_iter();
        questions.filter(|question| self.settings.is_none() || self.address_of(question).is_some()).collect()
    }

    /// The address of the daemon that a question reaches.
    fn address_of(&self, question: &Question<'_>) -> Option<&ListenAddress> {
        let addresses = &self.settings.as_ref()?.addresses;
        let reached = self.reached(&question.server.endpoint, question.service);
        addresses.iter().find(|address| match (address, &reached) {
            (ListenAddress::Tcp(address), Reached::Tcp(host, port)) => {
                address.port() == *port && is_host(host, *address)
            }
            (ListenAddress::Unix(path), Reached::Unix(reached)) => path == reached,
            _ => false,
        })
    }

    /// What an endpoint of a service leads to.
    fn reached(&self, endpoint: &str, service: &Service) -> Reached {
        match endpoint.split_once(':') {
            Some(("unix", path)) => {
                let queue = self.queue_folder();
                let is_inside = service.is_chrooted || !path.starts_with('/');
                Reached::Unix(if is_inside { queue.join(path.trim_start_matches('/')) } else { path.into() })
            }
            Some(("inet", rest)) => {
                let (host, port) = rest.rsplit_once(':').unwrap_or(("127.0.0.1", rest));
                Reached::Tcp(host.trim_matches(['[', ']']).to_owned(), port.parse().unwrap_or_default())
            }
            _ => Reached::Nothing,
        }
    }

    fn queue_folder(&self) -> PathBuf {
        let folder = self.postfix.as_ref().and_then(|postfix| postfix.value(None, "queue_directory"));
        PathBuf::from(folder.unwrap_or_else(|| "/var/spool/postfix".to_owned()))
    }

    /// The plugins of the daemon.
    fn plugins(&self) -> &[StepInfo] {
        self.settings.as_ref().map_or(&[], |settings| &settings.steps.steps)
    }

    fn has(&self, modules: &[&str]) -> bool {
        self.plugins().iter().any(|plugin| modules.contains(&plugin.module.as_str()))
    }
}

/// What an endpoint leads to.
enum Reached {
    Tcp(String, u16),
    Unix(PathBuf),
    Nothing,
}

/// Whether a host that Postfix names is that of an address to listen on, as far as it can be told.
fn is_host(host: &str, address: SocketAddr) -> bool {
    let is_local = |ip: IpAddr| ip.is_loopback() || ip.is_unspecified();
    match host.parse::<IpAddr>() {
        Ok(ip) => {
            ip == address.ip() || address.ip().is_unspecified() || is_local(ip) && is_local(address.ip())
        }
        Err(_) => host != "localhost" || is_local(address.ip()),
    }
}

/// How Postfix has to name an address of the daemon.
fn endpoint_of(address: &ListenAddress, queue: &Path) -> String {
    match address {
        ListenAddress::Tcp(address) if address.ip().is_unspecified() => {
            format!("inet:127.0.0.1:{}", address.port())
        }
        ListenAddress::Tcp(address) => format!("inet:{address}"),
        ListenAddress::Unix(path) => match path.strip_prefix(queue) {
            Ok(inside) => format!("unix:{}", inside.display()),
            Err(_) => format!("unix:{}", path.display()),
        },
    }
}

/// The value of an option of a plugin.
fn option<'a>(plugin: &'a StepInfo, name: &str) -> Option<&'a str> {
    plugin.options.iter().find(|option| option.name == name).map(|option| option.value.as_str())
}

#[cfg(test)]
mod tests;
