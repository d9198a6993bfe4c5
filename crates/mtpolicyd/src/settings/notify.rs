//! The `<Notify>` blocks: who is told of events, and how.
//!
//! Knows: their options. Must not know: what happens, how an event is written.

mod values;

pub use values::{EventKinds, MailAddress};

use crate::events::{Event, EventLevel, EventState, host_name};
use crate::options::{Options, Repeated, Section, codes, options};
use crate::value::{NonZeroSeconds, Seconds};
use backends::http::{HttpService, HttpSettings, Url};
use backends::smtp::Submission;
use backends::{Endpoint, OptionError, Secret};
use nix::fcntl::{AT_FDCWD, AtFlags};
use nix::unistd::{AccessFlags, faccessat};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// Where messages are handed to unless the block says otherwise: the Postfix of this machine.
const OWN_POSTFIX: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 25);

/// The longest secret in a file, in bytes.
const MAX_SECRET: u64 = 4_096;

/// The longest answer of a web service: nobody reads it.
const MAX_ANSWER_BYTES: usize = 4_096;

options! {
    /// Options of a `<Notify NAME>` block: somebody is told when something begins that needs a person, and
    /// when it has ended. There may be several blocks; the name is for the log and for `mtpolicyd events
    /// test NAME`. Each has one of `webhook`, `mail` and `command`.
    ///
    /// An event is sent once when a thing begins and once when it ends, for each login, list or connection.
    /// If there are more than 20 of a kind in ten minutes, the rest comes together in one, a digest. No
    /// request waits for it. A receiver that does not take an event is tried again, at first after a second,
    /// then after up to a minute, until it does, and gets the others in their order after it; up to 256 wait
    /// for it, and further ones are dropped, counted and logged. What waits is lost when the daemon stops.
    ///
    /// Events are also in the log, in `mtpolicyd events` and, if there is a file, in the journal, with or
    /// without such a block. Several daemons tell each what they see themselves: of a limit that they share,
    /// the one tells that meets it; of a server that is down, each.
    pub struct NotifyOptions {
        /// The URL of a web service that gets each event as a JSON object by POST. Any status 200 to 299
        /// means that it was taken; with 400, 413, 415 or 422 it is given up, and with any other it is sent
        /// again. `id` in the object is the same then. Redirects are not followed.
        webhook: Option<Url>,
        /// Signs what the web service gets. The header `X-Mtpolicyd-Signature` is `sha256=` and, in
        /// hexadecimal digits, the HMAC-SHA-256 under this secret of the header `X-Mtpolicyd-Time` (seconds
        /// since 1970), a dot, and the body.
        secret: Option<Secret>,
        /// A file with the secret, without the end of its line. It is read with the configuration, by the
        /// user that the daemon runs as after a reload.
        secret_file: Option<String>,
        /// A file with certificates of authorities to trust besides those of the system.
        tls_ca: Option<String>,
        /// The address that gets each event as a message. Its sender in the envelope is empty, so that
        /// nothing is sent back, and no plugin of this daemon is asked about it if it comes from this
        /// machine: Postfix is told `dunno`.
        mail: Option<MailAddress>,
        /// What stands in `From:` of the message.
        from: Option<MailAddress>,
        /// The mail server that the message is handed to, without encryption or login.
        smtp: Endpoint = Endpoint::from(OWN_POSTFIX),
        /// A program that is run for each event, with a path that begins with a slash. No shell is involved.
        /// It gets the event as JSON on its standard input and in variables of its environment:
        /// `MTPOLICYD_EVENT_ID`, `_TIME`, `_KIND`, `_STATE`, `_LEVEL`, `_SOURCE`, `_KEY`, `_TEXT` and
        /// `_ADVICE`, of which the first is whole and the others begin alike. Apart from them it has `PATH`
        /// only. With exit status 0 the event was taken, with 75 it is run again later, with any other the
        /// event is given up. So it is if it takes longer than `timeout`: then it is killed, with all
        /// processes of its group.
        command: Option<String>,
        /// An argument of the program; several in their order.
        argument: Repeated<String>,
        /// Which kinds of events to send: `limit-near` (80 % of a RateLimit or a Quota), `limit-reached`,
        /// `list-quarantined`, `backend-down`, `reload-refused`, `journal-failing` (it can't be written, or
        /// loses decisions), `deadline-missed` (more than ten requests in a minute took nine tenths of
        /// `request_timeout`), `configuration-changed` (the file has been newer than the configuration in
        /// use for ten minutes). Each is sent when it begins and when it ends.
        events: EventKinds = EventKinds::all(),
        /// The least level of the events to send. Levels belong to the kinds: `limit-near` and
        /// `configuration-changed` are a `notice`; `limit-reached`, `list-quarantined` and `deadline-missed`
        /// a `warning`; the others an `error`.
        min_level: EventLevel = EventLevel::Notice,
        /// Maximum duration of one attempt.
        timeout: NonZeroSeconds = NonZeroSeconds(Seconds::of(30)),
    } rules {
        AnyOf(webhook, mail, command),
        AtMostOne(webhook, mail, command),
        AtMostOne(secret, secret_file),
        OnlyWith(secret, webhook),
        OnlyWith(secret_file, webhook),
        OnlyWith(tls_ca, webhook),
        OnlyWith(from, mail),
        OnlyWith(smtp, mail),
        OnlyWith(argument, command),
    }
}

/// One who is told of events.
#[derive(Clone)]
pub struct NotifySettings {
    /// The name of the block.
    pub name: String,
    /// How.
    pub way: Way,
    events: EventKinds,
    min_level: EventLevel,
    /// How long one attempt may take.
    pub timeout: Duration,
}

/// How somebody is told.
#[derive(Clone)]
pub enum Way {
    /// By a web service.
    Webhook {
        /// The service.
        service: Arc<HttpService>,
        /// What signs the event.
        secret: Option<Secret>,
    },
    /// By a message.
    Mail {
        /// The server that takes it.
        server: Submission,
        /// The recipient.
        to: MailAddress,
        /// Who it says that it is from.
        from: MailAddress,
    },
    /// By a program.
    Command {
        /// The program.
        program: PathBuf,
        /// Its arguments.
        arguments: Vec<String>,
    },
}

impl Way {
    /// Its name.
    pub fn word(&self) -> &'static str {
        match self {
            Way::Webhook { .. } => "webhook",
            Way::Mail { .. } => "mail",
            Way::Command { .. } => "command",
        }
    }
}

impl NotifySettings {
    /// Whether an event is to be told.
    pub fn wants(&self, event: &Event) -> bool {
        let is_wanted = self.events.has(event.kind) && event.level as u8 >= self.min_level as u8;
        is_wanted || event.state == EventState::Test
    }
}

/// The blocks of the file, or `None` after the mistakes were reported.
pub(super) fn read(section: &mut Section<'_>) -> Option<Vec<NotifySettings>> {
    let blocks = section.take_blocks("Notify");
    let mut names = Vec::new();
    let mut read = Vec::new();
    for block in &blocks {
        let inner = Section::new(block, section.report());
        let name = inner.name();
        let is_new = !name.is_empty() && !names.contains(&name);
        if name.is_empty() {
            inner.refuse("this block has no name", Some("write `<Notify NAME>`".to_owned()));
        } else if !is_new {
            let message = format!("block <Notify {name}> occurs more than once");
            section.report().say(&codes::REPEATED_BLOCK, block.span, message, None);
        }
        names.push(name);
        read.push(read_one(inner).filter(|_| is_new));
    }
    read.into_iter().collect()
}

fn read_one(mut section: Section<'_>) -> Option<NotifySettings> {
    let name = section.name().to_owned();
    let options = NotifyOptions::read(&mut section);
    let settings = options.and_then(|options| {
        let timeout = options.timeout.0.duration();
        let way = match (&options.webhook, &options.mail, &options.command) {
            (Some(url), ..) => webhook(url, &options, timeout, &section)?,
            (_, Some(to), _) => mail(to, &options, timeout, &section)?,
            (.., Some(program)) => command(program, &options, &section)?,
            (None, None, None) => return None,
        };
        Some(NotifySettings { name, way, events: options.events, min_level: options.min_level, timeout })
    });
    section.finish();
    settings
}

fn webhook(url: &Url, options: &NotifyOptions, timeout: Duration, section: &Section<'_>) -> Option<Way> {
    if !(url.is_encrypted() || url.is_local()) && url.has_user() {
        let why = "the secret goes over the network without encryption";
        section.warn_as(&codes::PLAIN_SECRET, "webhook", why);
    }
    let refuse = |error| section.refuse_option(error);
    let secret = match &options.secret_file {
        None => options.secret.clone(),
        Some(path) => Some(read_secret(Path::new(path)).map_err(refuse).ok()?),
    };
    if secret.as_ref().is_some_and(|secret| secret.0.is_empty()) {
        refuse(OptionError::new("secret", "it is empty"));
        return None;
    }
    let settings = HttpSettings {
        url: url.clone(),
        socket_path: None,
        token: None,
        tls_ca: options.tls_ca.clone(),
        timeout,
        max_answer_bytes: MAX_ANSWER_BYTES,
    };
    let breaker = backends::Breaker::new(&url.origin());
    let service = HttpService::with_breaker(settings, breaker);
    let service = service.map_err(|error| refuse(OptionError { option: of_webhook(error.option), ..error }));
    Some(Way::Webhook { service: Arc::new(service.ok()?), secret })
}

/// The options of a web service have other names elsewhere.
fn of_webhook(option: &'static str) -> &'static str {
    if option == "tls_ca" { option } else { "webhook" }
}

fn read_secret(path: &Path) -> Result<Secret, OptionError> {
    let wrong = |why: String| OptionError::new("secret_file", format!("{}: {why}", path.display()));
    let bytes = safe_files::read(path, MAX_SECRET).map_err(|error| wrong(error.to_string()))?;
    let text = String::from_utf8(bytes).map_err(|_| wrong("it is not text".to_owned()))?;
    let text = text.strip_suffix('\n').map_or(text.as_str(), |text| text.trim_end_matches('\r'));
    if text.is_empty() { Err(wrong("it is empty".to_owned())) } else { Ok(Secret(text.to_owned())) }
}

fn mail(to: &MailAddress, options: &NotifyOptions, timeout: Duration, section: &Section<'_>) -> Option<Way> {
    if options.from.is_none() {
        let why = "without `from` the messages say that they are from their recipient, which filters dislike";
        section.warn("mail", why);
    }
    match Submission::new(options.smtp.clone(), host_name(), timeout) {
        Ok(server) => {
            let from = options.from.clone().unwrap_or_else(|| to.clone());
            Some(Way::Mail { server, to: to.clone(), from })
        }
        Err(error) => {
            section.refuse_option(error);
            None
        }
    }
}

fn command(program: &str, options: &NotifyOptions, section: &Section<'_>) -> Option<Way> {
    let program = PathBuf::from(program);
    if !program.is_absolute() {
        section.refuse_option(OptionError::new("command", "a path that begins with a slash is needed"));
        return None;
    }
    let is_executable =
        program.is_file() && faccessat(AT_FDCWD, &program, AccessFlags::X_OK, AtFlags::AT_EACCESS).is_ok();
    if !is_executable {
        let why = format!("{} can't be run now", program.display());
        section.warn_as(&codes::NOT_THERE_YET, "command", why);
    }
    Some(Way::Command { program, arguments: options.argument.0.clone() })
}

#[cfg(test)]
mod tests;
