//! A list of restrictions of Postfix: words, their arguments, and policy services among them.
//!
//! Knows: access restrictions of postconf(5). Must not know: what is wrong with a list.

use std::collections::BTreeMap;
use std::fmt;

/// The restriction that asks a policy service.
const ASKS: &str = "check_policy_service";

/// One restriction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// Its name.
    pub name: String,
    /// Its argument, as it is written.
    pub argument: Option<String>,
}

/// A policy service as a list names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyServer {
    /// `inet:127.0.0.1:12345`, `unix:private/policy`.
    pub endpoint: String,
    /// What stands behind it in braces.
    options: BTreeMap<String, String>,
}

impl fmt::Display for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        self.argument.iter().try_for_each(|argument| write!(f, " {argument}"))
    }
}

impl Item {
    /// A restriction without an argument.
    pub fn named(name: &str) -> Item {
        Item { name: name.to_owned(), argument: None }
    }

    /// The policy service that it asks.
    pub fn policy_server(&self) -> Option<PolicyServer> {
        let argument = self.argument.as_deref().filter(|_| self.name == ASKS)?;
        let inner = argument.strip_prefix('{').and_then(|inner| inner.strip_suffix('}')).unwrap_or(argument);
        let mut parts = inner.split([',', ' ', '\t']).filter(|part| !part.is_empty());
        let endpoint = parts.next()?.to_owned();
        let options = parts.filter_map(|part| part.split_once('='));
        let options = options.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        Some(PolicyServer { endpoint, options })
    }

    /// Whether it leaves nothing to those behind it.
    pub fn is_last(&self) -> bool {
        matches!(self.name.as_str(), "permit" | "reject" | "defer")
    }

    /// Whether it keeps strangers from sending to others through this server.
    pub fn guards_relay(&self) -> bool {
        matches!(self.name.as_str(), "reject_unauth_destination" | "defer_unauth_destination" | "reject")
    }
}

impl PolicyServer {
    /// A service without options.
    pub fn at(endpoint: &str) -> PolicyServer {
        PolicyServer { endpoint: endpoint.to_owned(), options: BTreeMap::new() }
    }

    /// One of its options.
    pub fn option(&self, name: &str) -> Option<&str> {
        self.options.get(name).map(String::as_str)
    }

    /// The same with an option.
    pub fn with(mut self, name: &str, value: &str) -> PolicyServer {
        self.options.insert(name.to_owned(), value.to_owned());
        self
    }

    /// The restriction that asks it.
    pub fn item(&self) -> Item {
        let options: String = self.options.iter().map(|(name, value)| format!(", {name}={value}")).collect();
        let argument = match options.is_empty() {
            true => self.endpoint.clone(),
            false => format!("{{ {}{options} }}", self.endpoint),
        };
        Item { name: ASKS.to_owned(), argument: Some(argument) }
    }
}

/// The words between such characters; what is in braces is one.
pub(super) fn words(text: &str, is_between: fn(char) -> bool) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    let (mut word, mut depth) = (String::new(), 0_usize);
    for c in text.chars() {
        match c {
            '{' => depth += 1,
            '}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth == 0 && is_between(c) {
            words.extend(Some(std::mem::take(&mut word)).filter(|word| !word.is_empty()));
        } else {
            word.push(c);
        }
    }
    words.extend(Some(word).filter(|word| !word.is_empty()));
    words
}

/// A list as it is written in main.cf.
pub fn parse(text: &str) -> Vec<Item> {
    let mut items = Vec::new();
    let mut words = words(text, |c| c.is_whitespace() || c == ',').into_iter();
    while let Some(name) = words.next() {
        // Bare tables, such as `hash:/etc/postfix/access`, have none.
        let takes_one = name.starts_with("check_") && !name.contains(':')
            || name.starts_with("reject_rbl_client")
            || name.starts_with("reject_rhsbl_")
            || matches!(name.as_str(), "permit_dnswl_client" | "permit_rhswl_client" | "sleep");
        let argument = if takes_one && !name.contains('=') { words.next() } else { None };
        items.push(Item { name, argument });
    }
    items
}

/// A list as main.cf takes it.
pub fn render(items: &[Item]) -> String {
    let mut text = String::new();
    for item in items {
        if !text.is_empty() {
            // What follows the word belongs to it.
            text.push_str(if text.ends_with("warn_if_reject") { " " } else { ", " });
        }
        text.push_str(&item.to_string());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_read_and_written() {
        let text = "permit_mynetworks, reject_rbl_client zen.example=127.0.0.[2..3], warn_if_reject \
                    check_policy_service { inet:127.0.0.1:1, timeout=10s, default_action=DUNNO }, \
                    check_client_access hash:/etc/postfix/access, permit";
        let items = parse(text);
        assert_eq!(items.len(), 6, "{items:?}");
        let server = items[3].policy_server().unwrap();
        assert_eq!((server.endpoint.as_str(), server.option("timeout")), ("inet:127.0.0.1:1", Some("10s")));
        assert_eq!(parse(&render(&items)), items);
        assert_eq!(parse("check_policy_service unix:private/a")[0].policy_server(), {
            Some(PolicyServer::at("unix:private/a"))
        });
        let item = PolicyServer::at("inet:1").with("timeout", "5s").item();
        assert_eq!(item.to_string(), "check_policy_service { inet:1, timeout=5s }");
    }
}
