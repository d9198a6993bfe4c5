//! policyd-rate-limit: its YAML file.
//!
//! It counts a message for the login, else for the sender, else for the address of the client: whichever
//! comes first. Here each is a RateLimit of its own, and the later ones stand inside a Condition.
//!
//! Knows: policyd-rate-limit.yaml(5). Must not know: how messages are counted here.

mod database;
mod yaml;

use super::{ImportError, Imported, block, entry, literal, plugin, read};
use crate::network::Network;
use config_general::Item;
use std::net::IpAddr;
use std::path::Path;
use yaml::{Settings, scalar};
use yaml_rust2::Yaml;

/// Where Debian keeps the file.
pub const DEFAULT_FILE: &str = "/etc/policyd-rate-limit.yaml";

/// Settings that mean nothing for another program.
const OF_THE_PROCESS: &[&str] = &["debug", "user", "group", "pidfile", "delay_to_close", "config_file"];

/// What the reports need.
const OF_REPORTS: &[&str] = &[
    "report_from",
    "report_to",
    "report_subject",
    "report_limits",
    "report_only_if_needed",
    "smtp_server",
    "smtp_starttls",
    "smtp_credentials",
];

/// The words of policyd-rate-limit for its refusal.
const FAIL_ACTION: &str = "defer_if_permit Rate limit reach, retry later";

/// What messages are counted for, and the field that holds the limits of one of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Counted {
    Login,
    Sender,
    Address,
}

impl Counted {
    fn attribute(self) -> &'static str {
        match self {
            Counted::Login => "sasl_username",
            Counted::Sender => "sender",
            Counted::Address => "client_address",
        }
    }

    fn field(self) -> &'static str {
        match self {
            Counted::Login => "login_limit",
            Counted::Sender => "sender_limit",
            Counted::Address => "address_limit",
        }
    }

    /// The name of the plugin.
    fn name(self) -> &'static str {
        match self {
            Counted::Login => "per-login",
            Counted::Sender => "per-sender",
            Counted::Address => "per-address",
        }
    }
}

/// Reads the file. `state` is the folder where the new daemon keeps its database.
pub fn import(path: &Path, state: &Path) -> Result<Imported, ImportError> {
    if path.extension().is_some_and(|extension| extension == "conf") {
        return Err(ImportError(format!(
            "{} is the old form of the file, a program in Python: write its settings as YAML first, as \
             policyd-rate-limit.yaml(5) says",
            path.display()
        )));
    }
    let mut imported = Imported::default();
    let mut settings = Settings::parse(path, &read(path)?)?;
    let counted = counted(&mut settings, &mut imported);
    let limits = limit(&settings.take("limits"), &mut imported, "limits");
    let own = own_limits(&settings.take("limits_by_id"), &counted, &mut imported);
    let fail = settings.text("fail_action").unwrap_or_else(|| FAIL_ACTION.to_owned());
    let fail = checked("fail_action", fail, FAIL_ACTION, &mut imported);
    let mut plugins = own.plugins;
    let mut inner = Vec::new();
    for (counted, networks) in counted.iter().rev() {
        let rate_limit = rate_limit(*counted, &limits, &fail, own.of.contains(counted));
        inner = match counted {
            Counted::Login => [vec![rate_limit], unless(*counted, inner)].concat(),
            Counted::Sender => [vec![rate_limit], unless(*counted, inner)].concat(),
            Counted::Address => match networks {
                Some(pattern) => vec![within(pattern, rate_limit)],
                None => vec![rate_limit],
            },
        };
    }
    plugins.extend(inner);
    let success = settings.text("success_action").unwrap_or_else(|| "dunno".to_owned());
    if !success.eq_ignore_ascii_case("dunno") {
        let success = checked("success_action", success, "dunno", &mut imported);
        plugins.push(plugin("otherwise", "Action", vec![entry("action", success)]));
    }
    write(&mut settings, plugins, state, &mut imported);
    mention_the_rest(settings, &mut imported);
    Ok(imported)
}

/// What is counted, in the order in which the first that there is counts; addresses with the pattern of those
/// that are limited, unless all are.
fn counted(settings: &mut Settings, imported: &mut Imported) -> Vec<(Counted, Option<String>)> {
    let mut counted = Vec::new();
    if settings.is_on("limit_by_sasl", true) {
        counted.push((Counted::Login, None));
    }
    if settings.is_on("limit_by_sender", false) {
        counted.push((Counted::Sender, None));
    }
    let networks = settings.take("limited_networks");
    let networks: Vec<_> = networks.as_vec().into_iter().flatten().filter_map(scalar).collect();
    if settings.is_on("limit_by_ip", false) && !networks.is_empty() {
        match pattern(&networks, imported) {
            Some(pattern) if pattern.is_empty() => counted.push((Counted::Address, None)),
            Some(pattern) => counted.push((Counted::Address, Some(pattern))),
            None => {}
        }
    }
    if counted.is_empty() {
        imported.leave_out("limits", "by these settings nothing is counted");
    }
    counted
}

/// A pattern of the addresses in these networks: an empty one for all, `None` for none.
fn pattern(networks: &[String], imported: &mut Imported) -> Option<String> {
    let mut parts = Vec::new();
    for text in networks {
        let part = Network::parse(text).map(|network| match network.first() {
            IpAddr::V4(first) => Some(ipv4_pattern(first.octets(), network.prefix())),
            IpAddr::V6(first) => ipv6_pattern(first.segments(), network.prefix()),
        });
        match part {
            Some(Some(part)) => parts.push(part),
            Some(None) => imported.leave_out(
                format!("limited_networks: {text}"),
                "a network of IPv6 is taken over if its prefix is a multiple of 16 without a group of zeros",
            ),
            None => imported.leave_out(format!("limited_networks: {text}"), "not a network"),
        }
    }
    let has_all = |every: &str| parts.iter().any(|part| part == every);
    if has_all(EVERY_IPV4) && has_all(EVERY_IPV6) {
        return Some(String::new());
    }
    (!parts.is_empty()).then(|| format!("^({})", parts.join("|")))
}

/// How each address of IPv4 begins.
const EVERY_IPV4: &str = r"\d+\.";

/// How each address of IPv6 begins.
const EVERY_IPV6: &str = "[0-9a-fA-F]*:";

/// How the addresses of a network of IPv4 begin.
fn ipv4_pattern(octets: [u8; 4], prefix: u8) -> String {
    if prefix == 0 {
        return EVERY_IPV4.to_owned();
    }
    let (whole, rest) = (usize::from(prefix / 8), prefix % 8);
    let mut pattern: String = octets.iter().take(whole).map(|octet| format!(r"{octet}\.")).collect();
    if rest > 0 {
        let (first, size) = (u16::from(octets[whole]), 1_u16 << (8 - rest));
        let numbers: Vec<_> = (first..first + size).map(|number| number.to_string()).collect();
        pattern += &format!("({})", numbers.join("|"));
        pattern += if whole == 3 { "$" } else { r"\." };
    } else if whole == 4 {
        pattern.truncate(pattern.len() - 2);
        pattern += "$";
    }
    pattern
}

/// How the addresses of a network of IPv6 begin, if that can be said of their text.
fn ipv6_pattern(groups: [u16; 8], prefix: u8) -> Option<String> {
    if prefix == 0 {
        return Some(EVERY_IPV6.to_owned());
    }
    if prefix == 128 {
        return Some(format!("{}$", std::net::Ipv6Addr::from(groups)));
    }
    let whole = usize::from(prefix / 16);
    let fits = prefix.is_multiple_of(16) && groups.iter().take(whole).all(|group| *group != 0);
    fits.then(|| groups.iter().take(whole).map(|group| format!("{group:x}:")).collect())
}

/// A list of pairs `[number, seconds]` as a limit.
fn limit(list: &Yaml, imported: &mut Imported, of: &str) -> String {
    let mut limits = Vec::new();
    for pair in list.as_vec().into_iter().flatten() {
        let numbers: Vec<_> = pair.as_vec().into_iter().flatten().filter_map(Yaml::as_i64).collect();
        match numbers[..] {
            [number, seconds] if number >= 0 && seconds > 0 => {
                limits.push(format!("{number}/{}", period(seconds)));
            }
            _ => imported.leave_out(format!("a limit of {of}"), "not a pair of a number and seconds"),
        }
    }
    if limits.is_empty() { "none".to_owned() } else { limits.join(", ") }
}

/// Seconds in the largest unit that they fill.
fn period(seconds: i64) -> String {
    let units = [(604_800, "w"), (86_400, "d"), (3_600, "h"), (60, "m")];
    let unit = units.iter().find(|(unit, _)| seconds % unit == 0);
    unit.map_or_else(|| format!("{seconds}s"), |(unit, name)| format!("{}{name}", seconds / unit))
}

/// Limits of some logins, senders and addresses.
struct OwnLimits {
    plugins: Vec<Item>,
    /// What of has any.
    of: Vec<Counted>,
}

/// A Condition for each id, which sets the field that the RateLimit reads.
fn own_limits(map: &Yaml, counted: &[(Counted, Option<String>)], imported: &mut Imported) -> OwnLimits {
    let mut own = OwnLimits { plugins: Vec::new(), of: Vec::new() };
    for (number, (id, limits)) in map.as_hash().into_iter().flatten().enumerate() {
        let Some(id) = scalar(id) else { continue };
        let limit = limit(limits, imported, &format!("limits_by_id: {id}"));
        let is_address = id.parse::<IpAddr>().is_ok();
        let means = |what: Counted| (what == Counted::Address) == is_address;
        let mut wanted = counted.iter().map(|(what, _)| *what).filter(|what| means(*what)).peekable();
        if wanted.peek().is_none() {
            imported.leave_out(format!("limits_by_id: {id}"), "nothing is counted for it by these settings");
        }
        for what in wanted {
            let set = plugin(
                &format!("own-{}-{}-value", what.name(), number + 1),
                "SetField",
                vec![entry("key", what.field()), entry("value", &limit)],
            );
            let matching = if is_address {
                entry("match", &id)
            } else {
                entry("re_match", format!("(?i)^{}$", literal(&id)))
            };
            let condition = vec![entry("key", what.attribute()), matching, set];
            own.plugins.push(plugin(&format!("own-{}-{}", what.name(), number + 1), "Condition", condition));
            if !own.of.contains(&what) {
                own.of.push(what);
            }
        }
    }
    own
}

fn rate_limit(counted: Counted, limits: &str, action: &str, has_own: bool) -> Item {
    let mut options = vec![entry("key", counted.attribute()), entry("limit", limits)];
    if has_own {
        options.push(entry("uc_limit", counted.field()));
    }
    options.extend([entry("count", "recipients"), entry("store", database::NAME), entry("action", action)]);
    plugin(counted.name(), "RateLimit", options)
}

/// Plugins for requests without such an attribute.
fn unless(counted: Counted, inner: Vec<Item>) -> Vec<Item> {
    if inner.is_empty() {
        return inner;
    }
    let condition = vec![entry("key", counted.attribute()), entry("match", "")];
    vec![plugin(&format!("without-{}", counted.attribute()), "Condition", [condition, inner].concat())]
}

/// A plugin for some addresses.
fn within(pattern: &str, inner: Item) -> Item {
    let condition = vec![entry("key", "client_address"), entry("re_match", pattern), inner];
    plugin("limited-networks", "Condition", condition)
}

/// An action that Postfix reads as it looks.
fn checked(setting: &str, action: String, otherwise: &str, imported: &mut Imported) -> String {
    match postfix_policy::check_action(&action) {
        None => action,
        Some(warning) => {
            imported.leave_out(format!("{setting}: {action}"), format!("{warning}; `{otherwise}` is used"));
            otherwise.to_owned()
        }
    }
}

/// The file around the plugins.
fn write(settings: &mut Settings, plugins: Vec<Item>, state: &Path, imported: &mut Imported) {
    let (port, key) = settings.listens_on(imported);
    imported.head = vec![
        "Made from policyd-rate-limit.yaml by `mtpolicyd import policyd-rate-limit`.".to_owned(),
        "It listens where policyd-rate-limit did, so main.cf stays as it is: stop policyd-rate-limit, \
         then start \
         mtpolicyd with this file. To have it beside other checks, copy the blocks Connection and \
         Plugin into your \
         file."
            .to_owned(),
    ];
    imported.note_socket(&port);
    let mut items = vec![entry("port", port)];
    if let Some(mode) = settings.take_mode("socket_permission").filter(|_| key.starts_with('/')) {
        items.push(entry("socket_mode", mode));
    }
    items.push(database::connection(settings, state, imported));
    let mut host = vec![entry("name", "rate-limit")];
    host.extend(on_error(settings, imported).map(|on_error| entry("on_error", on_error)));
    host.extend(plugins);
    items.push(block("VirtualHost", &key, host));
    imported.root.items = items;
    imported.note("what was counted until now is not taken over: all limits begin anew");
    imported.note("a line is logged when 80 % of a limit is used, and when all of it is");
}

/// What happens while the database is down.
fn on_error(settings: &mut Settings, imported: &mut Imported) -> Option<&'static str> {
    let action = settings.text("db_error_action").unwrap_or_else(|| "dunno".to_owned());
    let first = action.split_whitespace().next().unwrap_or_default().to_ascii_lowercase();
    match first.as_str() {
        "dunno" => Some("dunno"),
        "defer" | "defer_if_permit" | "defer_if_reject" | "450" | "451" => Some("defer"),
        _ => {
            imported.leave_out(
                format!("db_error_action: {action}"),
                "only dunno and defer; the message is deferred",
            );
            Some("defer")
        }
    }
}

fn mention_the_rest(mut settings: Settings, imported: &mut Imported) {
    if settings.is_on("report", false) {
        imported
            .leave_out("report", "no reports are sent; the log has a line for each limit that is reached");
    }
    for key in settings.rest() {
        if !OF_THE_PROCESS.contains(&key.as_str()) && !OF_REPORTS.contains(&key.as_str()) {
            imported.leave_out(&key, "mtpolicyd has nothing like it");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn imported(text: &str) -> Imported {
        let mut file = tempfile::Builder::new().suffix(".yaml").tempfile().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        import(file.path(), Path::new("/var/lib/mtpolicyd")).unwrap()
    }

    fn matches(network: &str, address: &str) -> bool {
        let pattern = pattern(&[network.to_owned()], &mut Imported::default()).unwrap();
        regex_matches(&pattern, address)
    }

    fn regex_matches(pattern: &str, value: &str) -> bool {
        let pattern = perl_regex::Pattern::new(pattern).unwrap();
        pattern.is_match(value.as_bytes(), &mut perl_regex::Budget::new(100_000, 100_000)).unwrap()
    }

    #[test]
    fn networks_become_patterns_of_their_addresses() {
        for (network, inside, outside) in [
            ("10.0.0.0/8", "10.1.2.3", "100.1.2.3"),
            ("192.168.4.0/22", "192.168.7.255", "192.168.8.0"),
            ("192.0.2.0/24", "192.0.2.17", "192.0.20.17"),
            ("192.0.2.16/28", "192.0.2.31", "192.0.2.32"),
            ("192.0.2.16/28", "192.0.2.16", "192.0.2.160"),
            ("192.0.2.1", "192.0.2.1", "192.0.2.10"),
            ("0.0.0.0/0", "203.0.113.7", "2001:db8::1"),
            ("2001:db8::/32", "2001:db8::1", "2001:db80::1"),
            ("2001:db8::1", "2001:db8::1", "2001:db8::12"),
            ("::/0", "2001:db8::1", "192.0.2.1"),
        ] {
            assert!(matches(network, inside) && !matches(network, outside), "{network}");
        }
        assert_eq!(ipv6_pattern([0x2001, 0xdb8, 0, 0, 0, 0, 0, 0], 48), None);
        let every = ["0.0.0.0/0".to_owned(), "::/0".to_owned()];
        assert_eq!(pattern(&every, &mut Imported::default()).as_deref(), Some(""));
    }

    #[test]
    fn what_is_counted_first_keeps_the_others_out() {
        let text = imported(
            "limits:\n  - [10, 60]\n  - [150, 86400]\nlimit_by_sasl: True\nlimit_by_sender: true\n\
             limit_by_ip: yes\nlimited_networks: [\"192.0.2.0/24\"]\n\
             limits_by_id:\n  foo: []\n  192.0.2.7:\n    - [1000, 604800]\n",
        );
        assert!(text.left_out.is_empty(), "{:?}", text.left_out);
        let text = text.text();
        let places: Vec<_> = [
            "value = \"none\"",
            "value = \"1000/1w\"",
            "key = \"sasl_username\"\n    limit = \"10/1m, 150/1d\"\n    uc_limit = \"login_limit\"",
            "<Plugin \"without-sasl_username\">",
            "<Plugin \"per-sender\">",
            "<Plugin \"without-sender\">",
            "<Plugin \"limited-networks\">",
            "<Plugin \"per-address\">",
        ]
        .iter()
        .map(|words| text.find(words).unwrap_or_else(|| panic!("{words}\n{text}")))
        .collect();
        assert!(places.is_sorted(), "{places:?}\n{text}");
    }

    #[test]
    fn what_has_no_counterpart_is_told() {
        let imported = imported(
            "limits: [[10, 60], [x, 1]]\nfail_action: 550\nsuccess_action: permit\nreport: True\n\
             report_to: a@example.org\ndb_error_action: reject\nunknown_thing: 1\nlimits_by_id: \
             {192.0.2.1: []}\n",
        );
        let left_out = imported.left_out.join("\n");
        for words in [
            "a limit of limits",
            "fail_action: 550",
            "report:",
            "db_error_action",
            "unknown_thing",
            "192.0.2.1",
        ] {
            assert!(left_out.contains(words), "{words}\n{left_out}");
        }
        assert!(!left_out.contains("report_to"));
    }
}
