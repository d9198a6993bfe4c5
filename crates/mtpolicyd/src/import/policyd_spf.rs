//! policyd-spf (postfix-policyd-spf-python, spf-engine): its file of `key = value` lines.
//!
//! Where it judges HELO and sender by different rules, the milder one is taken for both: our check has
//! one rule.
//!
//! Knows: policyd-spf.conf(5) up to 3.0. Must not know: how SPF works here.

use super::{ImportError, Imported, block, entry, list, literal, plugin, read};
use crate::network::Network;
use config_general::Item;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;

/// Where Debian keeps the file.
pub const DEFAULT_FILE: &str = "/etc/postfix-policyd-spf-python/policyd-spf.conf";

/// Settings that mean nothing for another program.
const OF_THE_PROCESS: &[&str] = &["debugLevel", "QueueID", "Hide_Receiver", "Whitelist_Lookup_Time"];

/// Settings of the milter in the same package.
const OF_THE_MILTER: &[&str] = &["Socket", "PidFile", "UserID", "UMask", "InternalHosts", "MacroList"];

/// What a result other than `pass` may lead to, the mildest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Rule {
    NoCheck,
    Never,
    /// `fail`, for messages without a sender.
    NullSender,
    Fail,
    Softfail,
    NotPass,
}

impl Rule {
    fn parse(text: &str) -> Option<Rule> {
        Some(match text.to_ascii_lowercase().as_str() {
            "no_check" => Rule::NoCheck,
            "false" => Rule::Never,
            "null" => Rule::NullSender,
            "fail" => Rule::Fail,
            "softfail" => Rule::Softfail,
            "spf_not_pass" => Rule::NotPass,
            _ => return None,
        })
    }
}

/// The settings that were not looked at yet.
struct Settings(BTreeMap<String, String>);

impl Settings {
    /// Later lines win, as in the original.
    fn parse(text: &str, imported: &mut Imported) -> Settings {
        let mut settings = BTreeMap::new();
        for (at, line) in text.lines().enumerate() {
            let line = line.split('#').next().unwrap_or_default().trim();
            match line.split_once('=') {
                Some((key, value)) => drop(settings.insert(key.trim().to_owned(), value.trim().to_owned())),
                None if line.is_empty() => {}
                None => {
                    imported.leave_out(format!("line {}", at + 1), format!("`{line}` is not `key = value`"))
                }
            }
        }
        Settings(settings)
    }

    fn take(&mut self, key: &str) -> Option<String> {
        self.0.remove(key).filter(|value| !value.is_empty() && !value.eq_ignore_ascii_case("none"))
    }

    fn is_on(&mut self, key: &str, default: bool) -> bool {
        let value = self.take(key).map(|value| value.to_ascii_lowercase());
        value.map_or(default, |value| matches!(value.as_str(), "true" | "yes" | "1"))
    }

    fn rule(&mut self, key: &str, imported: &mut Imported) -> Rule {
        let Some(text) = self.take(key) else { return Rule::Fail };
        Rule::parse(&text).unwrap_or_else(|| {
            imported.leave_out(format!("{key} = {text}"), "no such rule; `Fail` is used");
            Rule::Fail
        })
    }
}

/// Reads the file.
pub fn import(path: &Path, hostname: &str) -> Result<Imported, ImportError> {
    let mut imported = Imported::default();
    let mut settings = Settings::parse(&read(path)?, &mut imported);
    let mut options = modes(&mut settings, &mut imported);
    options.extend(exemptions(&mut settings, &mut imported));
    options.extend(header(&mut settings, hostname));
    options.extend(limits(&mut settings, &mut imported));
    let mut checks = Vec::new();
    let strict: Vec<_> = list_of(&mut settings, "Reject_Not_Pass_Domains");
    if !strict.is_empty() {
        let mut inside: Vec<_> =
            options.iter().filter(|item| !is_one_of(item, &["softfail_mode"])).cloned().collect();
        inside.push(entry("softfail_mode", "reject"));
        let pattern =
            format!("@({})$", strict.iter().map(|name| literal(name)).collect::<Vec<_>>().join("|"));
        let inside = vec![
            entry("key", "sender"),
            entry("re_match", format!("(?i){pattern}")),
            plugin("spf-strict", "SPF", inside),
        ];
        checks.push(plugin("strict-domains", "Condition", inside));
        imported.leave_out(
            "Reject_Not_Pass_Domains",
            "`softfail` is rejected for these domains, `neutral` is not",
        );
    }
    checks.push(plugin("spf", "SPF", options));
    write(&mut imported, within_names(&mut settings, checks));
    mention_the_rest(&settings, &mut imported);
    Ok(imported)
}

/// What a result leads to.
fn modes(settings: &mut Settings, imported: &mut Imported) -> Vec<Item> {
    if settings.0.contains_key("defaultSeedOnly") {
        let value = settings.take("defaultSeedOnly").unwrap_or_default();
        settings.0.entry("TestOnly".to_owned()).or_insert(value);
    }
    let rejects = settings.is_on("TestOnly", true);
    let (helo, sender) =
        (settings.rule("HELO_reject", imported), settings.rule("Mail_From_reject", imported));
    let permanent = settings.is_on("PermError_reject", false);
    let temporary = settings.is_on("TempError_Defer", false);
    let no_mail = settings.is_on("No_Mail", false);
    // `Null` is milder than any rule for all senders.
    let checks_helo = helo > Rule::NullSender || sender <= Rule::Never && helo > Rule::NoCheck;
    let rule = if checks_helo { helo.min(sender) } else { sender };
    if helo != sender {
        let what = if checks_helo { "the milder rule holds for both" } else { "HELO is not checked" };
        imported.leave_out(
            format!("HELO_reject = {helo:?}, Mail_From_reject = {sender:?}"),
            format!("mtpolicyd has one rule for both; {what}"),
        );
    }
    if rule == Rule::NotPass {
        imported.leave_out("SPF_Not_Pass", "`neutral` is not rejected");
    }
    if no_mail {
        imported.leave_out("No_Mail", "there is no rule for domains that send no mail; nothing is rejected");
    }
    if !rejects {
        imported.note("TestOnly = 0: nothing is rejected, the header is added");
    }
    let acts = rejects && !no_mail;
    let reject = |condition: bool| if condition && acts { "reject" } else { "passive" };
    let judges = rule > Rule::Never;
    let defers = temporary && judges && acts;
    let mut options = vec![
        entry("fail_mode", reject(rule >= Rule::Fail)),
        entry("softfail_mode", reject(rule >= Rule::Softfail)),
        entry("permerror_mode", reject(judges && (permanent || rule == Rule::NotPass))),
        entry("temperror_mode", if defers { "defer" } else { "passive" }),
    ];
    if !checks_helo {
        options.push(entry("check_helo", "off"));
    }
    options
}

/// The text of a rejection, limits, and what becomes of restriction classes.
fn limits(settings: &mut Settings, imported: &mut Imported) -> Vec<Item> {
    const TEXT: &str = "SPF validation failed: %LOCAL_EXPL%";
    let mut options = Vec::new();
    let code = if settings.is_on("SPF_Enhanced_Status_Codes", true) { "5.7.23 " } else { "" };
    let text = settings.take("Reason_Message").unwrap_or_default();
    if text.contains('{') {
        imported.leave_out("Reason_Message", "its placeholders are unknown here; a text of ours is used");
    }
    let text = if text.is_empty() || text.contains('{') { TEXT } else { &text };
    options.push(entry("reject_message", format!("{code}{text}")));
    for (key, option) in [("Lookup_Time", "time_limit"), ("Void_Limit", "max_void_dns_lookups")] {
        let Some(value) = settings.take(key) else { continue };
        match value.parse::<u32>() {
            Ok(number) if number > 0 || option == "max_void_dns_lookups" => {
                options.push(entry(option, number))
            }
            _ => imported.leave_out(format!("{key} = {value}"), "not a number above 0"),
        }
    }
    for key in ["HELO_pass_restriction", "Mail_From_pass_restriction"] {
        if let Some(class) = settings.take(key) {
            let why = "a pass can't answer with a restriction class; use pass_mode or pass_score";
            imported.leave_out(format!("{key} = {class}"), why);
        }
    }
    options
}

/// Clients that are not checked.
fn exemptions(settings: &mut Settings, imported: &mut Imported) -> Vec<Item> {
    let mut options = Vec::new();
    let mut networks: Vec<String> = Vec::new();
    for key in ["skip_addresses", "Whitelist"] {
        for text in list_of(settings, key) {
            match Network::parse(&text).map(plain) {
                Some(network) if networks.contains(&network.to_string()) => {}
                Some(network) => networks.push(network.to_string()),
                None => imported.leave_out(format!("{key}: {text}"), "not an address or a network"),
            }
        }
    }
    if !networks.is_empty() {
        options.push(entry("whitelist", networks.join(", ")));
    }
    for (key, option) in [("HELO_Whitelist", "whitelist_helo"), ("Domain_Whitelist", "whitelist_spf_of")] {
        let names = list_of(settings, key);
        if !names.is_empty() {
            options.push(entry(option, names.join(", ")));
        }
    }
    options
}

/// A network of IPv4 that is written as one of IPv6, in its own form.
fn plain(network: Network) -> Network {
    match network.first() {
        IpAddr::V6(first) => match (first.to_ipv4_mapped(), network.prefix().checked_sub(96)) {
            (Some(ip), Some(prefix)) => Network::around(ip.into(), prefix),
            _ => network,
        },
        IpAddr::V4(_) => network,
    }
}

/// Hosts below these names are not checked either: the checks move into a block.
fn within_names(settings: &mut Settings, checks: Vec<Item>) -> Vec<Item> {
    let names = list_of(settings, "Domain_Whitelist_PTR");
    if names.is_empty() {
        return checks;
    }
    let names: Vec<_> = names.iter().map(|name| literal(name.trim_start_matches('.'))).collect();
    let mut items = vec![
        entry("key", "client_name"),
        entry("re_match", format!("(?i)(^|\\.)({})$", names.join("|"))),
        entry("invert", 1),
    ];
    items.extend(checks);
    vec![plugin("other-hosts", "Condition", items)]
}

/// The header.
fn header(settings: &mut Settings, hostname: &str) -> Vec<Item> {
    let kind = settings.0.remove("Header_Type").unwrap_or_default().to_ascii_lowercase();
    let name = settings.take("Authserv_Id").filter(|name| name != "HOSTNAME");
    let header = match kind.as_str() {
        "none" => return Vec::new(),
        "ar" => "Authentication-Results",
        _ => "Received-SPF",
    };
    vec![entry("header", header), entry("hostname", name.as_deref().unwrap_or(hostname))]
}

fn list_of(settings: &mut Settings, key: &str) -> Vec<String> {
    settings.take(key).iter().flat_map(|value| list(value)).map(str::to_owned).collect()
}

fn is_one_of(item: &Item, keys: &[&str]) -> bool {
    matches!(item, Item::Entry(entry) if keys.contains(&entry.key.as_str()))
}

/// The file around the checks.
fn write(imported: &mut Imported, checks: Vec<Item>) {
    imported.head = vec![
        "Made from policyd-spf.conf by `mtpolicyd import policyd-spf`.".to_owned(),
        "In main.cf, write `check_policy_service { inet:127.0.0.1:12345, timeout=30s, \
         default_action=DUNNO }` in \
         place of `check_policy_service unix:private/policyd-spf`, and take the service policyd-spf out \
         of master.cf. \
         To have it beside other checks, copy the Plugin blocks into your file."
            .to_owned(),
    ];
    let mut host = vec![entry("name", "spf")];
    host.extend(checks);
    imported.root.items = vec![
        entry("port", "127.0.0.1:12345"),
        entry("request_timeout", 25),
        // So that a message has one header and is checked once.
        block("SessionCache", "", vec![entry("module", "Memory")]),
        block("VirtualHost", "12345", host),
    ];
}

fn mention_the_rest(settings: &Settings, imported: &mut Imported) {
    for (key, value) in &settings.0 {
        let is = |keys: &[&str]| keys.contains(&key.as_str());
        match () {
            () if is(OF_THE_PROCESS) => {}
            () if is(OF_THE_MILTER) => imported.leave_out(format!("{key} = {value}"), "only for the milter"),
            () if key == "Mock" && value.eq_ignore_ascii_case("false") => {}
            () => imported.leave_out(format!("{key} = {value}"), "mtpolicyd has nothing like it"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn imported(text: &str) -> Imported {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        import(file.path(), "mx.example.org").unwrap()
    }

    #[test]
    fn rules_become_modes() {
        for (text, modes, left_out) in [
            ("", ["reject", "passive", "passive", "passive"], 0),
            ("TestOnly = 0\n", ["passive"; 4], 0),
            (
                "HELO_reject = Softfail\nMail_From_reject = Softfail\n",
                ["reject", "reject", "passive", "passive"],
                0,
            ),
            ("HELO_reject = SPF_Not_Pass\n", ["reject", "passive", "passive", "passive"], 1),
            (
                "PermError_reject = True\nTempError_Defer = True\n",
                ["reject", "passive", "reject", "defer"],
                0,
            ),
            ("HELO_reject = False\nMail_From_reject = False\nPermError_reject = True\n", ["passive"; 4], 0),
            ("No_Mail = True\n", ["passive"; 4], 1),
        ] {
            let imported = imported(text);
            let written = imported.text();
            let names = ["fail_mode", "softfail_mode", "permerror_mode", "temperror_mode"];
            for (name, mode) in names.iter().zip(modes) {
                assert!(written.contains(&format!(" {name} = \"{mode}\"")), "{text}: {name}\n{written}");
            }
            assert_eq!(imported.left_out.len(), left_out, "{:?}", imported.left_out);
        }
    }

    #[test]
    fn a_milder_rule_for_helo_is_never_made_stricter() {
        for rule in ["No_Check", "False", "Null"] {
            let imported = imported(&format!("HELO_reject = {rule}\n"));
            assert!(imported.text().contains("check_helo = \"off\""), "{rule}");
            assert_eq!(imported.left_out.len(), 1);
        }
    }

    #[test]
    fn exemptions_and_headers_are_taken_over() {
        let text = imported(
            "skip_addresses = 127.0.0.0/8,::ffff:127.0.0.0/104,::1\nWhitelist = 192.0.2.0/24\n\
             Domain_Whitelist = pobox.test\nDomain_Whitelist_PTR = yahoo.test,a-b.test\nHeader_Type = AR\n\
             Authserv_Id = mx.other.test # ours\nReject_Not_Pass_Domains = aol.test\nVoid_Limit = 4\n",
        )
        .text();
        for words in [
            "whitelist = \"127.0.0.0/8, ::1, 192.0.2.0/24\"",
            "whitelist_spf_of = \"pobox.test\"",
            "re_match = \"(?i)(^|\\\\.)(yahoo\\\\.test|a-b\\\\.test)\\$\"",
            "re_match = \"(?i)@(aol\\\\.test)\\$\"",
            "header = \"Authentication-Results\"",
            "hostname = \"mx.other.test\"",
            "max_void_dns_lookups = \"4\"",
        ] {
            assert!(text.contains(words), "{words}\n{text}");
        }
        assert!(!imported("Header_Type = None\n").text().contains("hostname"));
    }
}
