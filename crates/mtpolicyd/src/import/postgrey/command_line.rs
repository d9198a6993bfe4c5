//! The command line of postgrey, as Getopt::Long reads it: long names may be cut short.
//!
//! Knows: the options. Must not know: what becomes of them.

use crate::import::{ImportError, Imported};
use std::net::IpAddr;

/// Whether an option has a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Takes {
    Nothing,
    Value,
    /// A value behind `=`, or none.
    Perhaps,
}

/// The options, with their other names.
const OPTIONS: &[(&str, &[&str], Takes)] = &[
    ("verbose", &["v"], Takes::Nothing),
    ("quiet", &["q"], Takes::Nothing),
    ("daemonize", &["d"], Takes::Nothing),
    ("unix", &["u"], Takes::Value),
    ("inet", &["i"], Takes::Value),
    ("socketmode", &[], Takes::Value),
    ("user", &[], Takes::Value),
    ("group", &[], Takes::Value),
    ("dbdir", &[], Takes::Value),
    ("pidfile", &[], Takes::Value),
    ("delay", &[], Takes::Value),
    ("max-age", &[], Takes::Value),
    ("lookup-by-subnet", &[], Takes::Nothing),
    ("lookup-by-host", &[], Takes::Nothing),
    ("ipv4cidr", &[], Takes::Value),
    ("ipv6cidr", &[], Takes::Value),
    ("auto-whitelist-clients", &[], Takes::Perhaps),
    ("whitelist-clients", &[], Takes::Value),
    ("whitelist-recipients", &[], Takes::Value),
    ("syslogfacility", &["syslog-facility", "facility"], Takes::Value),
    ("retry-window", &[], Takes::Value),
    ("greylist-action", &[], Takes::Value),
    ("greylist-text", &[], Takes::Value),
    ("privacy", &[], Takes::Nothing),
    ("hostname", &[], Takes::Value),
    ("exim", &[], Takes::Nothing),
    ("listen-queue-size", &[], Takes::Value),
    ("x-greylist-header", &[], Takes::Value),
];

/// Options that have no meaning for another program, and what stands for them.
const OF_THE_PROCESS: &[&str] =
    &["verbose", "quiet", "daemonize", "user", "group", "pidfile", "syslogfacility", "listen-queue-size"];

/// The options that were given, with their values, in order.
#[derive(Debug)]
pub struct CommandLine(Vec<(&'static str, String)>);

impl CommandLine {
    /// Reads the words of a command line.
    pub fn parse(words: &[String]) -> Result<CommandLine, ImportError> {
        let mut given = Vec::new();
        let mut words = words.iter();
        while let Some(word) = words.next() {
            let Some(option) = word.strip_prefix("--").or_else(|| word.strip_prefix('-')) else {
                return Err(ImportError(format!("`{word}` is not an option of postgrey")));
            };
            let (name, value) = match option.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (option, None),
            };
            let (name, takes) = find(name)?;
            let value = match (takes, value) {
                (Takes::Nothing | Takes::Perhaps, None) => String::new(),
                (Takes::Value, None) => words
                    .next()
                    .cloned()
                    .ok_or_else(|| ImportError(format!("--{name}, an option of postgrey, has no value")))?,
                (_, Some(value)) => value,
            };
            given.push((name, value));
        }
        Ok(CommandLine(given))
    }

    /// Whether an option was given.
    pub fn has(&self, name: &str) -> bool {
        self.text(name).is_some()
    }

    /// The value of an option, the last if it was given several times.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.all(name).last()
    }

    /// All values of an option.
    pub fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        self.0.iter().filter(move |(given, _)| *given == name).map(|(_, value)| value.as_str())
    }

    /// The value of an option that is a number.
    pub fn number(&self, name: &str) -> Result<Option<u64>, ImportError> {
        let Some(text) = self.text(name) else { return Ok(None) };
        let number = text.parse().map_err(|_| ImportError(format!("--{name}={text} is not a number")))?;
        Ok(Some(number))
    }

    /// The value of `port`, and what its virtual host is called.
    pub fn listens_on(&self, imported: &mut Imported) -> (String, String) {
        if let Some(path) = self.text("unix").filter(|_| !self.has("inet")) {
            return (format!("{path}|unix"), path.to_owned());
        }
        let place = self.text("inet").unwrap_or("10023");
        let (host, port) = place.rsplit_once(':').unwrap_or(("localhost", place));
        let host = match host.trim_matches(['[', ']']) {
            "localhost" | "" => "127.0.0.1".to_owned(),
            host => match host.parse() {
                Ok(IpAddr::V4(ip)) => ip.to_string(),
                Ok(IpAddr::V6(ip)) => format!("[{ip}]"),
                Err(_) => {
                    imported.leave_out(format!("--inet={place}"), "not an address; 127.0.0.1 is used");
                    "127.0.0.1".to_owned()
                }
            },
        };
        (format!("{host}:{port}"), port.to_owned())
    }
}

/// The option of that name, or the only one that begins like that.
fn find(name: &str) -> Result<(&'static str, Takes), ImportError> {
    let exact = OPTIONS.iter().find(|(known, others, _)| *known == name || others.contains(&name));
    let mut cut: Vec<_> =
        OPTIONS.iter().filter(|(known, ..)| name.len() > 1 && known.starts_with(name)).collect();
    match (exact.or_else(|| cut.pop().filter(|_| cut.is_empty())), name) {
        (Some((known, _, takes)), _) => Ok((known, *takes)),
        (None, _) => {
            Err(ImportError(format!("`--{name}` is not an option of postgrey, or stands for several")))
        }
    }
}

/// What is not in the configuration, and why.
pub fn mention_the_rest(line: &CommandLine, imported: &mut Imported) {
    let process: Vec<_> = OF_THE_PROCESS.iter().filter(|name| line.has(name)).collect();
    if !process.is_empty() {
        let names: Vec<_> = process.iter().map(|name| format!("--{name}")).collect();
        imported.note(format!("{}: the service of mtpolicyd has its own", names.join(", ")));
    }
    if line.has("exim") {
        imported.leave_out("--exim", "mtpolicyd answers Postfix");
    }
    match line.text("x-greylist-header") {
        Some(header) => imported.leave_out(format!("--x-greylist-header=\"{header}\""), "no header is added"),
        None => imported
            .note("postgrey adds a header X-Greylist to a message that had to wait; mtpolicyd does not"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<CommandLine, ImportError> {
        CommandLine::parse(&line.split(' ').map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn options_are_read_as_perl_reads_them() {
        let line =
            parse("-i 10023 --del=60 --auto-whitelist-clients --whitelist-clients a --whitelist-clients=b")
                .unwrap();
        assert_eq!(line.text("inet"), Some("10023"));
        assert_eq!(line.number("delay").unwrap(), Some(60));
        assert_eq!(line.text("auto-whitelist-clients"), Some(""));
        assert_eq!(line.all("whitelist-clients").collect::<Vec<_>>(), ["a", "b"]);
        assert!(!line.has("unix"));
        for wrong in ["--no-such", "--white=x", "--delay", "word"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
        assert!(parse("--delay=soon").unwrap().number("delay").is_err());
    }

    #[test]
    fn it_listens_where_postgrey_did() {
        for (line, port, key) in [
            ("--inet=10023", "127.0.0.1:10023", "10023"),
            ("--inet=localhost:60000", "127.0.0.1:60000", "60000"),
            ("--inet=::1:10023", "[::1]:10023", "10023"),
            ("--inet=192.0.2.1:7", "192.0.2.1:7", "7"),
            ("--unix=/run/postgrey.sock", "/run/postgrey.sock|unix", "/run/postgrey.sock"),
        ] {
            let mut imported = Imported::default();
            let place = parse(line).unwrap().listens_on(&mut imported);
            assert_eq!(place, (port.to_owned(), key.to_owned()), "{line}");
            assert!(imported.left_out.is_empty());
        }
        let mut imported = Imported::default();
        parse("--inet=mail.example.org:1").unwrap().listens_on(&mut imported);
        assert_eq!(imported.left_out.len(), 1);
    }
}
