//! `LdapUserConfig`: the settings of a user from a directory.

use crate::log::messages::findings;
use crate::options::{Flow, options};
use crate::plugin::{Cx, Error, Plugin, Setup, Verdict};
use crate::sql_query::{Complaints, user_names};
use crate::value::Value;
use backends::ldap::{Ldap, escape, is_filter, without_blanks};
use std::sync::Arc;

options! {
    /// Loads the settings of a user from a directory, for the `uc_` options of the plugins after it and for
    /// `session:NAME` in a Condition.
    ///
    /// The filter must find exactly one entry at or below `basedn`. The first value of each attribute is
    /// used, unless it is empty. A user's setting can't replace a score or a plugin's result. The settings
    /// replace those of the user looked up before, even if there are none; with `filter_field = "recipient"`
    /// they apply to that recipient only.
    ///
    /// If the directory refuses a search, or it finds no entry or several, this is logged and the request
    /// goes on without settings. If the directory can't be asked, or refuses the login, `on_error` decides.
    ///
    /// ```conf
    /// <Connection ldap>
    ///   module = "Ldap"
    ///   host = "ldap.example.com"
    ///   binddn = "cn=readonly,dc=example,dc=com"
    ///   password = "secret"
    /// </Connection>
    /// <Plugin user-config>
    ///   module = "LdapUserConfig"
    ///   basedn = "ou=users,dc=example,dc=com"
    ///   filter = "(mail=%s)"
    ///   filter_field = "sasl_username"
    ///   config_fields = "mailMessageLimit, mailSendExternal"
    /// </Plugin>
    /// ```
    pub struct LdapUserConfigOptions {
        /// The directory, a `<Connection>` of module Ldap.
        ldap: String = "ldap",
        /// The base of the search. If it is an alias, it is followed (see `deref` of the connection).
        basedn: String = "",
        /// What is searched for (RFC 4515); every `%s` stands for the user, whose name can't change the
        /// filter. Blanks between its parts are ignored.
        filter: Filter,
        /// The attribute of the request that names the user. If the request does not have it, there is no
        /// search. A recipient or sender is searched for as Postfix will understand it (`bob@example.org` for
        /// `example.org!bob`); if there is no entry, then in lower case, as written, and without its
        /// extension. Any other value is searched for as written, then in lower case. Identical searches are
        /// made once.
        filter_field: String = "sasl_username",
        /// What separates an extension from a user, as in Postfix: `bob+any@example.org` has the settings of
        /// `bob@example.org` unless it has some of its own. Each of several characters is a delimiter by
        /// itself; without any, addresses have no extension.
        recipient_delimiter: String = "+",
        /// The attributes of the entry to load, separated by commas. Each becomes a setting of that name.
        config_fields: Names,
    }
}

/// The longest value that becomes a setting, in bytes. The session takes it along to a shared cache at every
/// request.
const MAX_VALUE_BYTES: usize = 4096;

/// What is there for the user in a filter.
const PLACEHOLDER: &str = "%s";

/// A filter with a placeholder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter(String);

impl std::fmt::Display for Filter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl Value for Filter {
    const FORM: &'static str = "LDAP filter with `%s`";
    fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        // The original takes a single condition without the parentheses, too.
        let filter = if text.starts_with('(') { text.to_owned() } else { format!("({text})") };
        let filter = Filter(without_blanks(&filter));
        if is_filter(&filter.of(b"x")) {
            Ok(filter)
        } else {
            Err(format!("`{text}` is not a filter (RFC 4515)"))
        }
    }
}

impl Filter {
    fn of(&self, user: &[u8]) -> String {
        self.0.replace(PLACEHOLDER, &escape(user))
    }
}

/// Names, separated by commas.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names(Vec<String>);

impl std::fmt::Display for Names {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0.join(", "))
    }
}

impl Value for Names {
    const FORM: &'static str = "names, separated by commas";
    fn parse(text: &str) -> Result<Self, String> {
        let names = text.split(',').map(str::trim).filter(|name| !name.is_empty());
        let names: Vec<_> = names.map(str::to_owned).collect();
        if names.is_empty() { Err("there is no name".to_owned()) } else { Ok(Names(names)) }
    }
}

pub struct LdapUserConfig {
    complaints: Complaints,
    options: LdapUserConfigOptions,
    ldap: Arc<Ldap>,
}

impl Plugin for LdapUserConfig {
    const NAME: &'static str = "LdapUserConfig";
    type Options = LdapUserConfigOptions;

    fn new(options: LdapUserConfigOptions, setup: &mut Setup<'_, '_>) -> Option<LdapUserConfig> {
        let ldap = setup.ldap("ldap", &options.ldap)?;
        if !options.filter.0.contains(PLACEHOLDER) {
            let why = format!("it has no {PLACEHOLDER}, so it finds the same for everybody");
            setup.section.warn("filter", why);
        }
        for name in &options.config_fields.0 {
            setup.section.note_flow("config_fields", Flow::Sets(name.clone()));
        }
        let complaints = Complaints::of(setup.name);
        Some(LdapUserConfig { complaints, options, ldap })
    }

    async fn run(&self, cx: &mut Cx<'_>) -> Result<Verdict, Error> {
        let LdapUserConfigOptions { basedn, filter, filter_field, config_fields: Names(names), .. } =
            &self.options;
        cx.session.depend_on(filter_field);
        // Whatever comes of it, the settings of another user hold no longer.
        cx.session.load_settings(cx.name(), []);
        let Some(written) = cx.request.get(filter_field) else {
            cx.note(findings::no_user(filter_field));
            return Ok(Verdict::Next);
        };
        let mut users = user_names(cx.request, filter_field, &self.options.recipient_delimiter);
        if users.is_empty() {
            users.push(written.to_vec());
        }
        let (mut entries, mut searched) = (Vec::new(), String::new());
        for user in users {
            searched = filter.of(&user);
            // One more than wanted tells that there are several.
            let answer = self.ldap.search(basedn, &searched, names, 2, cx.call).await;
            let Some(found) = self.complaints.answered(answer)? else { return Ok(Verdict::Next) };
            entries = found;
            if !entries.is_empty() {
                break;
            }
        }
        let filter = searched;
        let [entry] = &entries[..] else {
            let count = if entries.is_empty() { "no entry" } else { "several entries" };
            cx.note(findings::no_single_entry(filter, count));
            return Ok(Verdict::Next);
        };
        cx.note(findings::entry(filter, &entry.dn));
        let mut usable = Vec::new();
        for name in names {
            match entry.value(name).filter(|value| !value.is_empty()) {
                Some(value) if value.len() <= MAX_VALUE_BYTES => usable.push((name.as_str(), value)),
                Some(_) => cx.note(findings::setting_too_long(name, MAX_VALUE_BYTES)),
                None => cx.note(findings::setting_empty(name)),
            }
        }
        cx.session.load_settings(cx.name(), usable);
        Ok(Verdict::Next)
    }
}

#[cfg(feature = "ldap")]
#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Bench;

    fn text(options: &str) -> String {
        format!(
            "<Connection ldap>\n module = Ldap\n host = 127.0.0.1\n starttls = 0\n port = 1\n</Connection>\n\
             <Plugin u>\n module = LdapUserConfig\n config_fields = \"a, b\"\n {options}\n</Plugin>"
        )
    }

    #[test]
    fn a_user_cannot_change_the_filter() {
        let filter = Filter::parse("(|(mail=%s)(uid=%s))").unwrap();
        assert_eq!(filter.of(b"*)(a=\xff"), "(|(mail=\\2a\\29\\28a=\\ff)(uid=\\2a\\29\\28a=\\ff))");
        assert_eq!(Filter::parse("mail=%s").unwrap().of(b"a"), "(mail=a)");
    }

    #[test]
    fn mistakes_are_found_at_the_start() {
        assert!(Bench::mistakes(&text("filter = \"(mail=%s\""))[0].contains("is not a filter"));
        assert!(Bench::mistakes(&text(""))[0].contains("filter"));
        assert!(Bench::warnings(&text("filter = \"(mail=a)\""))[0].contains("the same for everybody"));
        assert!(Names::parse(" , ").is_err());
        assert_eq!(Names::parse("a ,b,").unwrap().to_string(), "a, b");
    }

    #[test]
    fn a_directory_that_is_away_fails_the_plugin_if_there_is_somebody_to_search_for() {
        let mut bench = Bench::new(&text("filter = \"(mail=%s)\""));
        assert_eq!(bench.run(), None);
        let error = bench.attribute_again("sasl_username", "a").try_run().unwrap_err();
        assert!(error.contains("connection ldap: down"), "{error}");
    }
}
