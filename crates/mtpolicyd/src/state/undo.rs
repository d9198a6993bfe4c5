//! Orders as the commands that give them: what undoes a change is shown as one.
//!
//! Knows: the words of the commands. Must not know: who runs them.

use super::forms::{Change, Kind, Order, Select};
use crate::value::shell_word;

impl Order {
    /// The command that has this done.
    pub fn command(&self, kind: Kind) -> String {
        let Select { plugin, key, client, sender, recipient, domain, period, .. } = &self.select;
        // What a command names by its place.
        let placed = match kind {
            Kind::Quota | Kind::Limits => [plugin, key],
            Kind::Honeypot => [client, &None],
            Kind::Greylist | Kind::Awl => [&None, &None],
        };
        let placed: Vec<_> = placed.into_iter().flatten().collect();
        let by_place = matches!(kind, Kind::Quota | Kind::Limits);
        let client = client.as_ref().filter(|_| kind != Kind::Honeypot);
        let given = [
            ("--plugin", plugin.as_ref().filter(|_| !by_place)),
            ("--key", key.as_ref().filter(|_| !by_place)),
            ("--client", client),
            ("--from", sender.as_ref()),
            ("--to", recipient.as_ref()),
            ("--domain", domain.as_ref()),
            ("--period", period.as_ref()),
        ];
        let mut options: Vec<_> =
            given.iter().filter_map(|(name, value)| Some(option(name, value.as_ref()?))).collect();
        let (more, values) = self.change.words(kind);
        let has_dash = placed.iter().any(|word| word.starts_with('-'));
        let placed = placed.into_iter().map(|word| shell_word(word));
        let words: Vec<_> = match (has_dash, by_place) {
            // What begins with a dash is not an option there.
            (true, _) => {
                options.extend(more);
                options.into_iter().chain(["--".to_owned()]).chain(placed).chain(values).collect()
            }
            (false, true) => placed.chain(options).chain(more).chain(values).collect(),
            (false, false) => placed.chain(options).chain(values).chain(more).collect(),
        };
        ["mtpolicyd", &kind.to_string(), self.change.verb(), &words.join(" ")].join(" ")
    }
}

/// An option with its value.
fn option(name: &str, value: &str) -> String {
    let sign = if value.starts_with('-') { '=' } else { ' ' };
    format!("{name}{sign}{}", shell_word(value))
}

impl Change {
    /// The word of the command.
    pub fn verb(&self) -> &'static str {
        match self {
            Change::Reset { .. } => "reset",
            Change::Set { .. } => "set",
            Change::Allow { .. } => "allow",
        }
    }

    /// The options that say what is changed, and the values.
    fn words(&self, kind: Kind) -> (Vec<String>, Vec<String>) {
        let part = if kind == Kind::Limits { "--window" } else { "--metric" };
        let time = |lifetime: &Option<u64>| lifetime.map(|seconds| format!("--for {seconds}s"));
        match self {
            Change::Reset { parts } => (parts.iter().map(|name| option(part, name)).collect(), Vec::new()),
            Change::Allow { lifetime } => (time(lifetime).into_iter().collect(), Vec::new()),
            Change::Set { values, lifetime } => {
                let one = values.iter().next().filter(|_| values.len() == 1);
                match one.filter(|_| matches!(kind, Kind::Limits | Kind::Quota)) {
                    Some((name, value)) => (vec![option(part, name)], vec![value.to_string()]),
                    None => {
                        let values =
                            values.iter().map(|(name, value)| shell_word(&format!("{name}={value}")));
                        (time(lifetime).into_iter().collect(), values.collect())
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn an_undo_is_a_command_that_a_shell_reads() {
        let select = |plugin: &str, key: &str| Select {
            plugin: Some(plugin.to_owned()),
            key: Some(key.to_owned()),
            ..Select::default()
        };
        let values = |values: &[(&str, i64)]| Change::Set {
            values: values.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect(),
            lifetime: None,
        };
        let order = |select, change| Order { select, change, all: false };
        let hour = order(select("outgoing", "alice@example.org"), values(&[("1h", 200)]));
        let expected = "mtpolicyd limits set outgoing alice@example.org --window 1h 200";
        assert_eq!(hour.command(Kind::Limits), expected);
        let two = order(select("out", "it's; me"), values(&[("1h", 2), ("1m", 1)]));
        assert_eq!(two.command(Kind::Limits), "mtpolicyd limits set out 'it'\\''s; me' 1h=2 1m=1");
        let reset = order(select("grey", "-x"), Change::Reset { parts: Vec::new() });
        assert_eq!(reset.command(Kind::Greylist), "mtpolicyd greylist reset --plugin grey --key='-x'");
        let client = Select { client: Some("192.0.2.1".to_owned()), ..Select::default() };
        let trap = order(client, Change::Set { values: BTreeMap::new(), lifetime: Some(60) });
        assert_eq!(trap.command(Kind::Honeypot), "mtpolicyd honeypot set 192.0.2.1 --for 60s");
    }
}
