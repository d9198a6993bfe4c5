//! Option types that several plugins share: where a value comes from, what a text says.
//!
//! Knows: sections, sessions, requests, values. Must not know: plugins.

use crate::facts::dnslist::{ReturnCodes, ReturnCodesError};
use crate::options::{Field, OptionSpec, Presence, Section};
use crate::session::Session;
use crate::value::{Value, has_key_elsewhere, is_key_elsewhere, nearest, numeric_prefix, resolve};
use backends::http::Url;
use backends::{Endpoint, Secret};
use config_general::Entry;
use perl_regex::Pattern;
use postfix_policy::{Mailbox, Request};
use std::fmt::Display;

/// Which value is looked at: an attribute of the request, or a field of the session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FieldRef {
    /// An attribute that Postfix sent.
    Request(String),
    /// A field that a plugin set.
    Session(String),
}

impl FieldRef {
    /// The value, or `None` where there is none. What is made of it depends on it.
    pub fn get<'a>(&self, request: &'a Request, session: &'a Session) -> Option<&'a [u8]> {
        match self {
            FieldRef::Request(name) => {
                session.depend_on(name);
                request.get(name)
            }
            FieldRef::Session(name) => session.text(name).map(str::as_bytes),
        }
    }

    /// The value and, if it is a sender or recipient that Postfix will understand otherwise than it is
    /// written, the address as Postfix will understand it.
    pub fn forms<'a>(&self, request: &'a Request, session: &'a Session) -> impl Iterator<Item = &'a [u8]> {
        let mailbox = match self {
            FieldRef::Request(name) => request.mailbox(name),
            FieldRef::Session(_) => None,
        };
        let rewritten = mailbox.filter(|mailbox| mailbox.is_rewritten()).map(Mailbox::address);
        self.get(request, session).into_iter().chain(rewritten)
    }

    /// The value as a number; a score is exact.
    pub fn number(&self, request: &Request, session: &Session) -> f64 {
        match self {
            FieldRef::Request(name) => request.get(name).map_or(0.0, numeric_prefix),
            FieldRef::Session(name) => session.shown_number(name),
        }
    }
}
impl Display for FieldRef {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            FieldRef::Request(name) => write!(f, "request:{name}"),
            FieldRef::Session(name) => write!(f, "session:{name}"),
        }
    }
}
impl Value for FieldRef {
    const FORM: &'static str = "`NAME` or `request:NAME` (an attribute), `session:NAME` (a session field)";
    fn parse(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            None => Ok(FieldRef::Request(text.to_owned())),
            Some(("request" | "r", name)) => Ok(FieldRef::Request(name.to_owned())),
            Some(("session" | "s", name)) => Ok(FieldRef::Session(name.to_owned())),
            Some((scope, _)) => {
                let hint = nearest(scope, ["request", "session"]);
                let hint = hint.map(|word| format!("; did you mean `{word}:`?")).unwrap_or_default();
                Err(format!("`{scope}` is not a scope{hint}"))
            }
        }
    }
    fn session_fields(&self) -> Vec<String> {
        match self {
            FieldRef::Request(_) => Vec::new(),
            FieldRef::Session(name) => vec![name.clone()],
        }
    }
}

/// A text with placeholders such as `%IP%`. Only the first occurrence of each is replaced, as in the
/// original.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template(String);

impl Template {
    /// The text with the placeholders filled in; what is filled in is not looked at again.
    pub fn fill(&self, values: &[(&str, &str)]) -> String {
        let mut places: Vec<_> = values
            .iter()
            .filter_map(|(name, value)| self.0.find(name).map(|at| (at, *name, *value)))
            .collect();
        places.sort_unstable();
        let mut filled = String::with_capacity(self.0.len() + 64);
        let mut done = 0;
        for (at, name, value) in places {
            // `%A%B%` has room for one of the two, which share a sign.
            if at < done {
                continue;
            }
            filled.push_str(&self.0[done..at]);
            filled.push_str(value);
            done = at + name.len();
        }
        filled.push_str(&self.0[done..]);
        filled
    }

    /// Whether the text has the placeholder.
    pub fn has(&self, placeholder: &str) -> bool {
        self.0.contains(placeholder)
    }
}
impl Display for Template {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}
impl Value for Template {
    const FORM: &'static str = "text";
    fn parse(text: &str) -> Result<Self, String> {
        Ok(Template(text.to_owned()))
    }
}
impl From<&str> for Template {
    fn from(text: &str) -> Self {
        Template(text.to_owned())
    }
}

impl Value for Pattern {
    const FORM: &'static str = "Perl regular expression";
    fn parse(text: &str) -> Result<Self, String> {
        Pattern::new(text).map_err(|error| error.to_string())
    }
}

impl Value for ReturnCodes {
    const FORM: &'static str = "addresses, ranges and networks, separated by commas";
    fn parse(text: &str) -> Result<Self, String> {
        text.parse().map_err(|error: ReturnCodesError| error.to_string())
    }
}

/// What the manual says of a secret's value.
const SECRET_FORM: &str = "text that nobody else may read, or `${file:PATH}` or `${env:NAME}`";

fn read_secret(entry: &Entry, section: &Section<'_>) -> Option<Secret> {
    let text = entry.value.clone().unwrap_or_default();
    if text.contains(char::is_control) {
        let message = format!("{}: it has a line break or another control character", entry.key);
        section.report().error(entry.value_span, message, Some(format!("a value is {SECRET_FORM}")));
        return None;
    }
    if !is_key_elsewhere(&text) {
        return Some(Secret(text));
    }
    let resolved = resolve(&text);
    let refused = |why: String| section.refuse_value(entry, &why, SECRET_FORM);
    resolved.map_err(refused).ok().map(|resolved| resolved.text)
}

fn hide_secret(section: &Section<'_>, name: &str) {
    section.hide_where(name, |text| !text.is_empty() && !is_key_elsewhere(text), |_| false);
}

fn secret_spec(name: &str, doc: &'static str) -> Vec<OptionSpec> {
    let (form, presence) = (SECRET_FORM, Presence::Optional);
    let (user_config, may_be_secret) = (false, true);
    let (name, rules) = (name.to_owned(), Vec::new());
    vec![OptionSpec { name, user_config, form, may_be_secret, presence, rules, doc }]
}

/// Not a [`Value`]: those can be printed.
impl Field for Secret {
    fn take(section: &mut Section<'_>, name: &str, default: Option<Self>) -> Option<Self> {
        <Option<Secret> as Field>::take(section, name, None)?.or(default).or_else(|| {
            section.missing(name);
            None
        })
    }
    fn specs(name: &str, doc: &'static str, _: Option<Self>) -> Vec<OptionSpec> {
        secret_spec(name, doc)
    }
}

impl Field for Option<Secret> {
    fn take(section: &mut Section<'_>, name: &str, _: Option<Self>) -> Option<Self> {
        hide_secret(section, name);
        match section.take(name) {
            Some(entry) => read_secret(entry, section).map(Some),
            None => Some(None),
        }
    }
    fn specs(name: &str, doc: &'static str, _: Option<Self>) -> Vec<OptionSpec> {
        secret_spec(name, doc)
    }
    fn absent() -> Option<Self> {
        Some(None)
    }
}

impl Value for Endpoint {
    const FORM: &'static str = Endpoint::FORM;

    fn parse(text: &str) -> Result<Endpoint, String> {
        text.parse().map_err(|error: backends::EndpointError| error.to_string())
    }
}

impl Value for Url {
    const FORM: &'static str = "URL that begins with `http://` or `https://`";
    const MAY_BE_SECRET: bool = true;
    fn parse(text: &str) -> Result<Self, String> {
        if !has_key_elsewhere(text) {
            return text.parse();
        }
        let found = resolve(text)?;
        let url: Url = found.text.0.parse()?;
        // Messages name a service by its host.
        let is_in_host = |(key, _): &(Secret, String)| url.origin().contains(&key.0);
        if found.keys.iter().any(is_in_host) {
            return Err("the host of a URL is shown, so a key can't be a part of it".to_owned());
        }
        Ok(url)
    }
    fn is_secret(text: &str) -> bool {
        !has_key_elsewhere(text) && text.parse().map_or(text.contains('@'), |url: Url| url.has_user())
    }
    fn is_hidden(text: &str) -> bool {
        // Many services take a key behind the question mark, or as a part of the path.
        Self::is_secret(text)
            || text.parse().map_or(true, |url: Url| !matches!(url.uri().path(), "" | "/"))
            || text.contains('?')
    }
}

/// The zone of a DNS list, which may hold the key of a customer. What is shown of it has no key.
#[derive(Clone, PartialEq, Eq)]
pub struct ListZone(pub String);

impl Display for ListZone {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&backends::dns::without_key(&self.0))
    }
}
impl Value for ListZone {
    const FORM: &'static str = "text, in which a key may be `${file:PATH}` or `${env:NAME}`";
    const MAY_BE_SECRET: bool = true;
    fn parse(text: &str) -> Result<Self, String> {
        if !has_key_elsewhere(text) {
            return Ok(ListZone(text.to_owned()));
        }
        let found = resolve(text)?;
        backends::dns::name_keys(&found.text.0, &found.shown, found.keys);
        Ok(ListZone(found.text.0))
    }
    fn is_hidden(text: &str) -> bool {
        !has_key_elsewhere(text) && backends::dns::without_key(text) != text
    }
}

/// The largest list file: a hundred times what anybody keeps.
const MAX_LIST_BYTES: u64 = 16 << 20;

/// What a file of entries holds that an option names.
pub fn read_list(path: &str) -> std::io::Result<Vec<u8>> {
    safe_files::read(path.as_ref(), MAX_LIST_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_key_names_its_scope() {
        assert_eq!(FieldRef::parse("sender"), Ok(FieldRef::Request("sender".into())));
        assert_eq!(FieldRef::parse("r:sender"), Ok(FieldRef::Request("sender".into())));
        assert_eq!(FieldRef::parse("s:a:b"), Ok(FieldRef::Session("a:b".into())));
        assert_eq!(
            FieldRef::parse("sesion:a"),
            Err("`sesion` is not a scope; did you mean `session:`?".to_owned())
        );
    }

    #[test]
    fn a_url_has_its_key_from_elsewhere_but_not_in_its_host() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        std::fs::write(&path, "k3y").unwrap();
        let key = format!("${{file:{}}}", path.display());
        let url = |text: String| Url::parse(&text).map(|url| url.to_string());
        assert_eq!(url(format!("http://me:{key}@h.test/{key}")), Ok("http://h.test/k3y".to_owned()));
        let error = url(format!("http://{key}.h.test/")).unwrap_err();
        assert!(error.contains("host") && !error.contains("k3y"), "{error}");
        assert!(
            url("http://h.test/${file:/none/such}".to_owned()).unwrap_err().contains("can't read the key")
        );
    }

    #[test]
    fn the_first_of_each_placeholder_is_filled_in() {
        let template = Template::from("%B% %A% %A% 100%");
        assert_eq!(template.fill(&[("%A%", "%B%"), ("%B%", "b"), ("%C%", "c")]), "b %B% %A% 100%");
        assert_eq!(Template::from("%A%B%").fill(&[("%A%", "a"), ("%B%", "b")]), "aB%");
    }

    proptest! {
        #[test]
        fn what_is_filled_in_is_not_looked_at_again(
            template in "(%A%|%AB%|%B%|%|A|ü){0,12}",
            values in prop::collection::vec("(%A%|%AB%|%B%|%|A|ü){0,3}", 3),
        ) {
            let (names, stand_ins) = (["%A%", "%AB%", "%B%"], ["1", "2", "3"]);
            let template = Template(template);
            let fill = |values: [&str; 3]| template.fill(&[0, 1, 2].map(|n| (names[n], values[n])));
            let mut expected = String::new();
            for c in fill(stand_ins).chars() {
                match stand_ins.iter().position(|stand_in| stand_in.chars().eq([c])) {
                    Some(n) => expected.push_str(&values[n]),
                    None => expected.push(c),
                }
            }
            prop_assert_eq!(fill([&values[0], &values[1], &values[2]]), expected);
        }

        #[test]
        fn the_first_of_each_that_has_room_is_filled_in(template in "(%A%|%B%|%|A){0,12}") {
            let filled = Template(template.clone()).fill(&[("%A%", "1"), ("%B%", "2")]);
            prop_assert_eq!(filled.replace('1', "%A%").replace('2', "%B%"), template.clone());
            prop_assert!(filled.matches('1').count() <= 1 && filled.matches('2').count() <= 1);
            let has_one = template.contains("%A%") || template.contains("%B%");
            prop_assert_eq!(filled.contains(['1', '2']), has_one);
        }
    }
}
