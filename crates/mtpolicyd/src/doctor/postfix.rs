//! How Postfix is configured: what `postconf -n` and `postconf -M` print, read as far as the doctor needs it.
//!
//! Knows: postconf(1), master(5). Must not know: what is wrong with a configuration.

use super::restrictions::{Item, PolicyServer, parse};
use std::collections::BTreeMap;

/// The lists of restrictions in which a policy service can be asked, in the order in which Postfix looks at
/// them, each with its own stage.
pub const LISTS: [(&str, &str); 7] = [
    ("smtpd_client_restrictions", "CONNECT"),
    ("smtpd_helo_restrictions", "EHLO"),
    ("smtpd_sender_restrictions", "MAIL"),
    ("smtpd_relay_restrictions", "RCPT"),
    ("smtpd_recipient_restrictions", "RCPT"),
    ("smtpd_data_restrictions", "DATA"),
    ("smtpd_end_of_data_restrictions", "END-OF-MESSAGE"),
];

/// The deepest nesting of `$name` in a value.
const MAX_DEPTH: usize = 10;

/// The configuration of a Postfix.
#[derive(Clone, Debug, Default)]
pub struct Postfix {
    parameters: BTreeMap<String, String>,
    services: Vec<Service>,
}

/// A line of master.cf.
#[derive(Clone, Debug, Default)]
pub struct Service {
    /// `smtp`, or an address and a port.
    pub name: String,
    /// `inet`, `pass` and so on.
    pub kind: String,
    /// Whether it is confined to the folder of the queue.
    pub is_chrooted: bool,
    /// Maximum number of its processes; `None` is the default of all.
    pub processes: Option<u32>,
    /// The program.
    command: String,
    /// What `-o` says.
    options: BTreeMap<String, String>,
}

/// A place at which Postfix asks a policy service.
#[derive(Clone, Debug)]
pub struct Question<'a> {
    /// The service that asks.
    pub service: &'a Service,
    /// The list.
    pub list: &'static str,
    /// The list's items, `$name` and classes resolved.
    pub items: Vec<Item>,
    /// Which of them asks.
    pub at: usize,
    /// Whom it asks.
    pub server: PolicyServer,
    /// The stage that the policy service sees.
    pub stage: &'static str,
}

impl Question<'_> {
    /// The restrictions before the question.
    pub fn before(&self) -> &[Item] {
        &self.items[..self.at]
    }

    /// Whether one of these restrictions is before the question.
    pub fn is_behind(&self, names: &[&str]) -> bool {
        self.before().iter().any(|item| names.contains(&item.name.as_str()))
    }

    /// Where that is written, for people: `smtpd_data_restrictions of submission`.
    pub fn place(&self) -> String {
        if self.service.options.contains_key(self.list) {
            format!("{} of {} in master.cf", self.list, self.service.name)
        } else {
            format!("{} in main.cf", self.list)
        }
    }
}

impl Service {
    /// Whether its own line says the parameter.
    pub fn overrides(&self, parameter: &str) -> bool {
        self.options.contains_key(parameter)
    }

    /// Whether users hand in their messages there.
    pub fn is_submission(&self) -> bool {
        matches!(self.port(), "submission" | "submissions" | "smtps" | "587" | "465")
    }

    /// Whether only this machine reaches it.
    pub fn is_local(&self) -> bool {
        ["127.", "localhost:", "[::1]:", "::1:"].iter().any(|start| self.name.starts_with(start))
    }

    fn port(&self) -> &str {
        self.name.rsplit(':').next().unwrap_or_default()
    }
}

impl Postfix {
    /// From what `postconf -n` and `postconf -M` print. Without the second, one service that is not confined.
    pub fn parse(main: &str, master: &str) -> Postfix {
        let parameters = main.lines().filter_map(|line| {
            let (name, value) = line.split_once('=')?;
            Some((name.trim().to_owned(), value.trim().to_owned()))
        });
        let parameters = parameters.collect();
        let mut lines: Vec<String> = Vec::new();
        for line in master.lines().filter(|line| !line.trim().is_empty() && !line.starts_with('#')) {
            match lines.last_mut().filter(|_| line.starts_with(char::is_whitespace)) {
                Some(last) => last.push_str(line),
                None => lines.push(line.to_owned()),
            }
        }
        let mut services: Vec<_> = lines.iter().filter_map(|line| service(line)).collect();
        if services.is_empty() {
            let (name, kind, command) = ("smtp".to_owned(), "inet".to_owned(), "smtpd".to_owned());
            services.push(Service { name, kind, command, ..Service::default() });
        }
        Postfix { parameters, services }
    }

    /// The services that take messages over SMTP, behind a postscreen too.
    pub fn smtpds(&self) -> impl Iterator<Item = &Service> {
        self.services.iter().filter(|service| service.command == "smtpd")
    }

    /// The value of a parameter for a service, or for all, with each `$name` resolved; `None` where nothing
    /// sets it.
    pub fn value(&self, service: Option<&Service>, name: &str) -> Option<String> {
        self.raw(service, name).map(|value| self.resolved(value, service, 0))
    }

    /// The same as it is written.
    pub fn raw<'a>(&'a self, service: Option<&'a Service>, name: &str) -> Option<&'a str> {
        let own = service.and_then(|service| service.options.get(name));
        own.or_else(|| self.parameters.get(name)).map(String::as_str)
    }

    /// A time of Postfix in seconds.
    pub fn seconds(&self, name: &str) -> Option<u64> {
        seconds(&self.value(None, name)?)
    }

    /// A number.
    pub fn number(&self, name: &str) -> Option<u64> {
        self.value(None, name)?.parse().ok()
    }

    /// A list of restrictions with its classes in place.
    pub fn list(&self, service: &Service, name: &str) -> Vec<Item> {
        let classes = self.value(None, "smtpd_restriction_classes").unwrap_or_default();
        let classes: Vec<_> = classes.split([',', ' ']).filter(|class| !class.is_empty()).collect();
        let items = parse(&self.value(Some(service), name).unwrap_or_default());
        let expand = |item: Item| match self.value(Some(service), &item.name) {
            Some(inner) if classes.contains(&item.name.as_str()) => parse(&inner),
            _ => vec![item],
        };
        items.into_iter().flat_map(expand).collect()
    }

    /// Every place at which a policy service is asked.
    pub fn questions(&self) -> Vec<Question<'_>> {
        let mut questions = Vec::new();
        for service in self.smtpds() {
            let delays = self.value(Some(service), "smtpd_delay_reject").is_none_or(|value| value != "no");
            for (list, stage) in LISTS {
                let stage =
                    if delays && matches!(stage, "CONNECT" | "EHLO" | "MAIL") { "RCPT" } else { stage };
                let items = self.list(service, list);
                for (at, item) in items.iter().enumerate() {
                    if let Some(server) = item.policy_server() {
                        let items = items.clone();
                        questions.push(Question { service, list, items, at, server, stage });
                    }
                }
            }
        }
        questions
    }

    fn resolved(&self, value: &str, service: Option<&Service>, depth: usize) -> String {
        let mut text = String::new();
        let mut rest = value;
        while let Some(at) = rest.find('$') {
            text.push_str(&rest[..at]);
            rest = &rest[at + 1..];
            let (name, behind) = match rest.strip_prefix('{').and_then(|inner| inner.split_once('}')) {
                Some((name, behind)) => (name, behind),
                None => rest.split_at(
                    rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len()),
                ),
            };
            if let Some(inner) = self.raw(service, name).filter(|_| depth < MAX_DEPTH) {
                text.push_str(&self.resolved(inner, service, depth + 1));
            }
            rest = behind;
        }
        text + rest
    }
}

/// A time as Postfix writes it: `10s`, `5m`, `2h`, without a unit seconds.
pub fn seconds(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let number: u64 = text[..digits].parse().ok()?;
    let unit = match &text[digits..] {
        "" | "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        "w" => 604_800,
        _ => return None,
    };
    number.checked_mul(unit)
}

fn unbraced(text: &str) -> &str {
    text.strip_prefix('{').and_then(|inner| inner.strip_suffix('}')).map_or(text, str::trim)
}

fn service(line: &str) -> Option<Service> {
    let words = super::restrictions::words(line, char::is_whitespace);
    let [name, kind, _, _, chroot, _, processes, command, arguments @ ..] = &words[..] else { return None };
    let mut options = BTreeMap::new();
    let mut arguments = arguments.iter();
    while let Some(argument) = arguments.next() {
        let option = match argument.strip_prefix("-o") {
            Some("") => arguments.next().map(String::as_str),
            other => other,
        };
        // `-o { name = value with blanks }`
        let option = option.map(unbraced);
        if let Some((name, value)) = option.and_then(|option| option.split_once('=')) {
            options.insert(name.trim().to_owned(), value.trim().to_owned());
        }
    }
    let command = command.rsplit('/').next().unwrap_or_default().to_owned();
    Some(Service {
        name: name.clone(),
        kind: kind.clone(),
        is_chrooted: chroot == "y",
        processes: processes.parse().ok(),
        command,
        options,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_postconf_prints_is_read() {
        let main = "mine = permit_mynetworks, late\nsmtpd_restriction_classes = late\n\
                    late = check_policy_service unix:private/late\nmynetworks = 10.0.0.0/8\n\
                    smtpd_recipient_restrictions = $mine, check_policy_service \
                    { inet:[::1]:10, timeout=5m }\n";
        let master = "smtp inet n - y - 20 smtpd -o a=b -o { smtpd_delay_reject = no } -v\n\
                      submission inet n - n - - smtpd\n  -o smtpd_recipient_restrictions=${mine}\n\
                      pickup unix n - y 60 1 pickup\n";
        let postfix = Postfix::parse(main, master);
        let services: Vec<_> = postfix.smtpds().collect();
        assert_eq!((services.len(), services[0].processes, services[0].is_chrooted), (2, Some(20), true));
        assert_eq!(postfix.value(Some(services[0]), "smtpd_delay_reject").as_deref(), Some("no"));
        let questions = postfix.questions();
        let shown: Vec<_> = questions
            .iter()
            .map(|question| (question.service.name.as_str(), question.at, question.server.endpoint.as_str()))
            .collect();
        let expected = [
            ("smtp", 1, "unix:private/late"),
            ("smtp", 2, "inet:[::1]:10"),
            ("submission", 1, "unix:private/late"),
        ];
        assert_eq!(shown, expected);
        assert_eq!(questions[1].server.option("timeout").and_then(seconds), Some(300));
        assert_eq!(questions[1].place(), "smtpd_recipient_restrictions in main.cf");
        assert_eq!(questions[2].place(), "smtpd_recipient_restrictions of submission in master.cf");
    }

    #[test]
    fn a_value_that_names_itself_ends() {
        let postfix = Postfix::parse("a = $b\nb = $a\n", "");
        assert_eq!(postfix.value(None, "a").as_deref(), Some(""));
        assert_eq!(postfix.smtpds().count(), 1);
    }

    #[test]
    fn times_have_units() {
        let read = ["10s", "5m", "2h", "7", "x", "5x"].map(seconds);
        assert_eq!(read, [Some(10), Some(300), Some(7_200), Some(7), None, None]);
    }
}
