//! A configuration as it can be given to others: what is a secret, or may be one, is replaced, and what is
//! known as a secret can be taken out of other texts too.
//!
//! Knows: blocks, how people write passwords into values. Must not know: which option is a secret.

use super::Settings;
use super::secrets::{HIDDEN, Secrecy};
use crate::connections::Outside;
use crate::value::resolve;
use backends::Secret;
use backends::dns::without_key;
use config_general::{Block, Entry};
use std::path::Path;

/// A shorter one is a part of many words.
const SHORTEST: usize = 4;

/// Secrets of a configuration.
#[derive(Default)]
pub struct Secrets(Vec<Secret>);

impl Secrets {
    /// A text in which none of them is left.
    pub fn removed_from(&self, text: &str) -> String {
        self.0.iter().fold(text.to_owned(), |text, secret| text.replace(&secret.0, HIDDEN))
    }

    fn add(&mut self, text: &str) {
        if text.len() >= SHORTEST && text != HIDDEN {
            self.0.push(Secret(text.to_owned()));
        }
    }

    fn collect(&mut self, block: &Block, secrecy: &Secrecy<'_>) {
        for entry in block.entries() {
            let value = entry.value.as_deref().unwrap_or_default();
            match resolve(value) {
                Ok(resolved) if !resolved.keys.is_empty() => {
                    resolved.keys.iter().for_each(|(key, _)| self.add(&key.0));
                }
                _ if secrecy.may_be_shown(entry) => {}
                _ => self.add_parts(entry),
            }
        }
        block.blocks().for_each(|inner| self.collect(inner, secrecy));
    }

    /// The value of an option, and the password or key that is a part of it.
    fn add_parts(&mut self, entry: &Entry) {
        let value = entry.value.as_deref().unwrap_or(&entry.key);
        self.add(value);
        if let Some((login, _)) = value.rsplit_once('@')
            && let Some((_, password)) = login.rsplit_once(':')
        {
            self.add(password.trim_start_matches('/'));
        }
        for setting in value.split(';') {
            if let Some((name, password)) = setting.rsplit_once('=')
                && name.to_ascii_lowercase().contains("pass")
            {
                self.add(password.trim_matches(['>', ' ', ')']));
            }
        }
        let shown = without_key(value);
        for (label, _) in value.split('.').zip(shown.split('.')).filter(|(label, shown)| label != shown) {
            self.add(label);
        }
    }
}

impl Settings {
    /// A configuration file with everything included and without anything that may be a secret, if it can be
    /// read, also one with mistakes; and the secrets that it has.
    pub fn without_secrets(path: &Path) -> (Option<String>, Secrets) {
        let (mut text, mut secrets) = (None, Secrets::default());
        let also = |root: &Block, secrecy: &Secrecy<'_>| {
            secrets.collect(root, secrecy);
            // The longest first, since one may be a part of another.
            secrets.0.sort_by_key(|secret| std::cmp::Reverse(secret.0.len()));
            text = Some(config_general::to_text(&secrecy.masked_for_others(root)));
        };
        // What is wrong with it is for `check` to say.
        let _ = Settings::load_with(path, None, Outside::Real, also);
        (text, secrets)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> (String, Secrets) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("c");
        std::fs::write(&path, text).unwrap();
        let (text, secrets) = Settings::without_secrets(&path);
        (text.expect("it can be read"), secrets)
    }

    #[test]
    fn what_may_be_a_secret_is_replaced_also_where_the_file_is_wrong() {
        let text = "port = 12345\nhunter2\nunknown = hunter2\nlog_level = nonsense\n\
                    <Connection db>\nmodule = Sql\n\
                    dsn = \"dbi:Pg:dbname=x;password=hunter2\"\n</Connection>\n\
                    <Connection c>\nmodule = Redis\npassword = hunter2\nserver = \"u:hunter2@h:1\"\n\
                    </Connection>\n<Strange hunter2>\na = hunter2\n</Strange>\n\
                    <VirtualHost 12345>\nname = in\n\
                    <Plugin bl>\nmodule = RBL\ndomain = bl.example\n</Plugin>\n\
                    <Plugin k>\nmodule = RBL\n\
                    domain = hunter2.zen.dq.spamhaus.net\nscore = 5\n</Plugin>\n\
                    <Plugin h>\nmodule = HttpLookup\n\
                    url = \"http://me:hunter2@h/\"\ntoken = hunter2\n</Plugin>\n\
                    </VirtualHost>\n";
        let (text, secrets) = shown(text);
        assert!(!text.contains("hunter2"), "{text}");
        for kept in ["port = ", "bl.example", "score = ", "<VirtualHost ", "<Plugin \"bl\">", "<Connection "]
        {
            assert!(text.contains(kept), "{kept}: {text}");
        }
        let cleaned = secrets.removed_from("log: x hunter2, http://me:hunter2@h/, bl.example");
        assert_eq!(cleaned, "log: x (not shown), (not shown), bl.example");
    }
}
