//! postgrey: its command line, its whitelists and its databases.
//!
//! Knows: postgrey(8) up to 1.37, where Debian keeps its files. Must not know: how greylisting works here.

mod command_line;
mod database;
mod lists;

use super::{ImportError, Imported, block, entry, plugin, read, shell_words};
use command_line::CommandLine;
pub use database::Found;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

/// Seconds of a day.
const DAY: u64 = 86_400;

/// The longest network of IPv6 that greylisting keeps apart here.
const IPV6_LONGEST: u64 = 64;

/// What to read, and where to write.
#[derive(Debug)]
pub struct Sources {
    /// Debian's file with the command line.
    pub defaults: PathBuf,
    /// The command line, in place of that file.
    pub arguments: Vec<String>,
    /// The folder of the whitelists.
    pub lists: PathBuf,
    /// The folder of the databases, where the command line names none.
    pub databases: PathBuf,
    /// Where the new daemon keeps its database.
    pub state: PathBuf,
    /// A folder for copies of the whitelists.
    pub copies: Option<PathBuf>,
    /// The time, in seconds since the epoch.
    pub now: i64,
}

/// What postgrey's files say.
#[derive(Debug)]
pub struct Postgrey {
    /// The configuration.
    pub imported: Imported,
    /// What its databases hold, if they can be read.
    pub found: Option<Found>,
    /// Bits of an IPv4 and of an IPv6 address that tell clients apart.
    pub prefixes: [u8; 2],
}

/// Reads all there is.
pub fn import(sources: &Sources) -> Result<Postgrey, ImportError> {
    let mut imported = Imported::default();
    let arguments = arguments(sources, &mut imported)?;
    let line = CommandLine::parse(&arguments)?;
    let databases = line.text("dbdir").map_or_else(|| sources.databases.clone(), PathBuf::from);
    let settings = Settings::new(&line, &mut imported)?;
    let found = read_databases(&databases, &settings, &line, sources, &mut imported)?;
    let mut options = settings.options(&line, &mut imported);
    options.extend(lists::take_over(sources, &line, &mut imported)?);
    options.extend(whitelisted(found.as_ref(), sources, &mut imported)?);
    write(&mut imported, &line, options, sources);
    command_line::mention_the_rest(&line, &mut imported);
    let prefixes = settings.prefixes;
    Ok(Postgrey { imported, found, prefixes })
}

/// The command line: given here, or Debian's file, in which the text stands apart.
fn arguments(sources: &Sources, imported: &mut Imported) -> Result<Vec<String>, ImportError> {
    if !sources.arguments.is_empty() {
        return Ok(sources.arguments.clone());
    }
    let path = &sources.defaults;
    if !path.exists() {
        imported.note(format!(
            "there is no {}: postgrey's defaults are used; give its command line behind `--` if it has \
             another",
            path.display()
        ));
        return Ok(vec!["--inet=10023".to_owned()]);
    }
    let text = read(path)?;
    let line = shell_words::assignment(&text, "POSTGREY_OPTS").unwrap_or_default();
    let open_quote = || ImportError(format!("{}: POSTGREY_OPTS has an open quote", path.display()));
    let mut arguments = shell_words::split(&line).ok_or_else(open_quote)?;
    if let Some(text) = shell_words::assignment(&text, "POSTGREY_TEXT") {
        arguments.push(format!("--greylist-text={text}"));
    }
    Ok(arguments)
}

/// The numbers of the command line.
struct Settings {
    delay: u64,
    retry_window: u64,
    max_age_days: u64,
    prefixes: [u8; 2],
    by_host: bool,
    threshold: u64,
    has_client_list: bool,
}

impl Settings {
    fn new(line: &CommandLine, imported: &mut Imported) -> Result<Settings, ImportError> {
        let retry_window = match line.text("retry-window") {
            None => 2 * DAY,
            Some(text) => hours_or_days(text).ok_or_else(|| {
                ImportError(format!("--retry-window={text} is neither a number of days nor hours such as 6h"))
            })?,
        };
        // As in Perl, 0 counts as not given.
        let or = |name, default| line.number(name).map(|number| number.filter(|n| *n > 0).unwrap_or(default));
        let delay = or("delay", 300)?;
        let by_host = line.has("lookup-by-host");
        let (ipv4, mut ipv6) = (or("ipv4cidr", 24)?.min(32), or("ipv6cidr", 64)?);
        if ipv6 > IPV6_LONGEST && !by_host {
            imported.leave_out(format!("--ipv6cidr={ipv6}"), "a network of IPv6 has 64 bits at most; taken");
            ipv6 = IPV6_LONGEST;
        }
        let prefixes = if by_host { [32, 128] } else { [bits(ipv4), bits(ipv6)] };
        // An empty value is the default, 0 turns it off.
        let threshold = match line.text("auto-whitelist-clients") {
            None | Some("") => 5,
            Some(_) => line.number("auto-whitelist-clients")?.unwrap_or(5),
        };
        let retry_window = if retry_window > delay {
            retry_window
        } else {
            imported.leave_out(
                format!("--retry-window of {retry_window} seconds"),
                format!("it ends before a client may retry, after {delay} seconds; twice that is used"),
            );
            delay.saturating_mul(2)
        };
        let max_age_days = or("max-age", 35)?;
        let has_client_list = threshold > 0;
        Ok(Settings { delay, retry_window, max_age_days, prefixes, by_host, threshold, has_client_list })
    }

    /// The options of the block, but for the lists.
    fn options(&self, line: &CommandLine, imported: &mut Imported) -> Vec<config_general::Item> {
        let mut options = vec![
            entry("client_key", if self.by_host { "ip" } else { "net" }),
            entry("ignore_sender_tags", 1),
            entry("min_retry_wait", self.delay),
            entry("max_retry_wait", self.retry_window),
            entry("autowl_threshold", 1),
            entry("autowl_expire_days", self.max_age_days),
        ];
        if !self.by_host && self.prefixes != [24, 64] {
            options.push(entry("ipv4_prefix", self.prefixes[0]));
            options.push(entry("ipv6_prefix", self.prefixes[1]));
        }
        options.push(entry("defer_message", answer(line, imported)));
        imported.note(
            "after one successful retry mtpolicyd knows the network of a client together with the \
             domain of the \
             sender (autowl_threshold = 1); postgrey knows network, sender and recipient, and after \
             --auto-whitelist-clients retries the client alone",
        );
        options
    }
}

fn bits(number: u64) -> u8 {
    u8::try_from(number).unwrap_or(u8::MAX)
}

fn hours_or_days(text: &str) -> Option<u64> {
    let hours = text.strip_suffix(['h', 'H']);
    let unit = if hours.is_some() { 3_600 } else { DAY };
    hours.unwrap_or(text).parse::<u64>().ok()?.checked_mul(unit).filter(|seconds| *seconds > 0)
}

/// The answer that defers a message.
fn answer(line: &CommandLine, imported: &mut Imported) -> String {
    const ACTION: &str = "defer_if_permit";
    const TEXT: &str = "Greylisted, try again later";
    let mut action = line.text("greylist-action").unwrap_or(ACTION).to_ascii_lowercase();
    let mut text = line.text("greylist-text").unwrap_or(TEXT).to_owned();
    if let Some(placeholder) = ["%s", "%r", "%H"].iter().find(|placeholder| text.contains(**placeholder)) {
        imported.leave_out(
            format!("--greylist-text=\"{text}\""),
            format!(
                "an answer has no placeholder such as {placeholder}; `{TEXT}` is used, and an early \
                 retry is told \
                 the remaining seconds behind it"
            ),
        );
        text = TEXT.to_owned();
    }
    if !text.starts_with(|c: char| c.is_ascii_digit()) {
        text.insert_str(0, "4.2.0 ");
    }
    if let Some(warning) = postfix_policy::check_action(&format!("{action} {text}")) {
        imported.leave_out(format!("--greylist-action={action}"), format!("{warning}; `{ACTION}` is used"));
        action = ACTION.to_owned();
    }
    format!("{action} {text}")
}

/// Reads the databases, unless there are none.
fn read_databases(
    folder: &Path,
    settings: &Settings,
    line: &CommandLine,
    sources: &Sources,
    imported: &mut Imported,
) -> Result<Option<Found>, ImportError> {
    let ages = database::Ages {
        now: sources.now,
        delay: i64::try_from(settings.delay).unwrap_or(i64::MAX),
        oldest: sources.now.saturating_sub(i64::try_from(settings.max_age_days * DAY).unwrap_or(i64::MAX)),
        threshold: settings.threshold,
    };
    if !folder.join(database::TRIPLETS).exists() {
        imported.note(format!(
            "there is no {}: nothing is known of clients",
            folder.join(database::TRIPLETS).display()
        ));
        return Ok(None);
    }
    if line.has("privacy") {
        imported
            .leave_out("--privacy", "the keys of the databases are hashes, from which nothing can be taken");
        return Ok(None);
    }
    let found = database::read(folder, &ages, settings.has_client_list)?;
    found.report(imported);
    Ok(Some(found))
}

/// The clients that have a database of their own, as a whitelist.
fn whitelisted(
    found: Option<&Found>,
    sources: &Sources,
    imported: &mut Imported,
) -> Result<Option<config_general::Item>, ImportError> {
    let clients: &[IpAddr] = found.map_or(&[], |found| &found.clients);
    if clients.is_empty() {
        return Ok(None);
    }
    let Some(folder) = &sources.copies else {
        imported.leave_out(
            database::CLIENTS,
            format!(
                "{} clients that pass for all their senders; with --lists DIR they are written into a \
                 whitelist",
                clients.len()
            ),
        );
        return Ok(None);
    };
    let path = folder.join("postgrey_clients");
    let text: String = clients.iter().map(|client| format!("{client}\n")).collect();
    lists::write(&path, &format!("# Clients that postgrey had let through often enough.\n{text}"))?;
    imported.note(format!(
        "{} lists {} clients from {}; nothing removes them later",
        path.display(),
        clients.len(),
        database::CLIENTS
    ));
    Ok(Some(entry("whitelist_clients", path.display())))
}

/// The file around the block.
fn write(imported: &mut Imported, line: &CommandLine, options: Vec<config_general::Item>, sources: &Sources) {
    let (port, key) = line.listens_on(imported);
    imported.note_socket(&port);
    imported.head.push("Made from postgrey's configuration by `mtpolicyd import postgrey`.".to_owned());
    imported.head.push(format!(
        "It listens where postgrey did, so `check_policy_service` in main.cf stays as it is: stop \
         postgrey, then start \
         mtpolicyd with this file. To have it beside other checks, copy the blocks Connection {NAME} and \
         Plugin {NAME} into your file."
    ));
    let dsn = format!("dbi:SQLite:dbname={}", sources.state.join("mtpolicyd.sqlite").display());
    let store = || vec![entry("module", "Sql"), entry("db", NAME)];
    let mut options = options;
    options.push(block("Ticket", "", store()));
    options.push(block("AWL", "", store()));
    imported.root.items = vec![
        entry("port", port),
        block("Connection", NAME, vec![entry("module", "Sql"), entry("dsn", dsn)]),
        block("VirtualHost", &key, vec![entry("name", NAME), plugin(NAME, "Greylist", options)]),
    ];
    if let Some(mode) = line.text("socketmode").filter(|_| line.has("unix")) {
        imported.root.items.insert(1, entry("socket_mode", mode));
    }
}

/// The name of all blocks.
const NAME: &str = "greylist";
