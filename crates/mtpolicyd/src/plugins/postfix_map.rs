//! `PostfixMap`: is a value in one of Postfix's lookup tables?

mod search;

use crate::facts::maps::{self, Found, Map, MapError, ServiceSettings};
use crate::log::messages::findings;
use crate::options::{codes, options};
use crate::plugin::{Cx, Error, Plugin, Setup, Verdict};
use crate::scoring::Scoring;
use crate::value::{Flag, NonZeroSeconds, Seconds};
use backends::OptionError;
use search::Search;
use std::path::PathBuf;

options! {
    /// Adds to the score or answers, depending on whether a lookup table of Postfix contains a value.
    ///
    /// The score counts once per message, or once per recipient if `field` is the recipient.
    ///
    /// An entry with the value `OK`, in capital letters, or a number is a match. An entry with any other
    /// value, such as `REJECT` or `DUNNO`, is not a match and also ends the search, so that an entry for an
    /// address can be an exception to the entry for its network.
    ///
    /// `db_file` is the path of a file that `postmap hash:FILE` has made, with its `.db`, or the name of any
    /// table as in Postfix's main.cf. The types are `hash`, `btree`, `lmdb`, `cdb`, `texthash`, `cidr`,
    /// `regexp`, `pcre`, `socketmap` (`socketmap:inet:HOST:PORT:NAME`, `socketmap:unix:PATH:NAME`) and
    /// `proxy`. `proxy:TYPE:NAME` has Postfix's proxymap look, in a table of any type that is in its
    /// `proxy_read_maps`. A rebuilt table is used within a second. While postmap writes a table, requests
    /// wait for it. A text table (`texthash`, `cidr`, ...) should be edited as a copy and put in place with
    /// mv(1), as Postfix advises.
    ///
    /// A table that can't be read, and a service that does not answer, fails the plugin (`on_error`); a file
    /// that can't be read, or a socket that is missing, is reported at the start and by `check` too.
    /// Expressions that take too much work on an address leave the message undecided (`on_bad_request`). A
    /// service that did not answer is tried in the background, and no request waits for it until it answers.
    ///
    /// Parts of a value are looked up in the order of access(5), in lower case; `cidr`, `regexp`, `pcre` and
    /// `socketmap` get the whole value only. Client addresses: `192.0.2.1`, `192.0.2`, `192.0`, `192`, or
    /// `2001:db8::1`, `2001:db8`, `2001`. Host names: `mail.example.org`, `example.org`, `org`. Mail
    /// addresses: `user+ext@example.org`, `user@example.org`, `example.org`, `org`, `user+ext@`, `user@`; the
    /// null sender is `<>`. If Postfix will understand an address differently than it is written
    /// (`ceo@victim.example` for `victim.example!ceo`), it is looked up as it is written, and then these
    /// parts of the understood address. A user that needs quotes (`"c d"@example.org`) is looked up with
    /// them, then without, as by Postfix.
    ///
    /// ```conf
    /// <Plugin whitelist>
    ///   module = "PostfixMap"
    ///   db_file = "/etc/postfix/whitelist.db"
    ///   match_action = "dunno"
    /// </Plugin>
    /// <Plugin bad-senders>
    ///   module = "PostfixMap"
    ///   db_file = "lmdb:/etc/postfix/bad_senders"
    ///   field = "sender"
    ///   recipient_delimiter = "+"
    ///   match_action = "reject sender is on our blocklist"
    /// </Plugin>
    /// ```
    pub struct PostfixMapOptions {
        /// The table, as described above. A path without a type is a `hash` file that is searched exactly as
        /// mtpolicyd 2 does: for `client_address` only, as Postfix writes it, and once per message.
        db_file: String,
        + enabled,
        /// The attribute whose value is looked up; other than `client_address` needs a table with a type. If
        /// the request does not have it, nothing happens. The attribute decides whether its value is looked
        /// up as a client address, a host name or a mail address. An attribute that is not one of Postfix's
        /// own is looked up as a mail address if its value has an `@`, otherwise as a whole.
        field: String = "client_address",
        /// The character that separates an extension from a user, as in Postfix: `+`. Each of several
        /// characters is a delimiter by itself; without any, addresses have no extension.
        recipient_delimiter: String = "",
        /// Whether `example.org` in the table matches `mail.example.org` too, as in Postfix by default (`1`);
        /// otherwise only `.example.org` does (`0`).
        parent_domain_matches_subdomains: Flag = Flag(true),
        /// The socket of Postfix's proxymap, for `proxy:`. Only the user `postfix` may enter the folder of
        /// the default socket. For a daemon with another user add the line `policymap unix n - n - -
        /// proxymap -n proxymap` to master.cf (it answers to no other name), which creates the socket
        /// `/var/spool/postfix/public/policymap`. The daemon has to be in the group `postdrop`, which may
        /// enter its folder (`SupplementaryGroups=postdrop` in its unit).
        proxymap_socket: String = "/var/spool/postfix/private/proxymap",
        /// How long to wait for one answer of `socketmap` and `proxy`; the deadline of the request ends it
        /// too.
        timeout: NonZeroSeconds = NonZeroSeconds(Seconds::of(5)),
        /// The answer to Postfix if there is a match.
        match_action: Option<String>,
        /// The answer to Postfix otherwise.
        not_match_action: Option<String>,
        /// Added to the score if there is a match.
        score: Scoring,
    }
}

pub struct PostfixMap {
    result: String,
    map: Map,
    search: Search,
    options: PostfixMapOptions,
}

/// What the original looks up.
const CLIENT_ADDRESS: &str = "client_address";

impl Plugin for PostfixMap {
    const NAME: &'static str = "PostfixMap";
    type Options = PostfixMapOptions;

    fn new(options: PostfixMapOptions, setup: &mut Setup<'_, '_>) -> Option<PostfixMap> {
        setup.check_match_actions(options.match_action.as_ref(), options.not_match_action.as_ref());
        let typed = maps::has_type(&options.db_file);
        if !typed && options.field != CLIENT_ADDRESS {
            let error = OptionError::new("field", "a file without a type is for client_address only");
            return setup.refuse(error.with_help(format!("write `db_file = \"hash:{}\"`", options.db_file)));
        }
        let map = if typed { typed_map(&options, setup)? } else { Map::berkeley(&options.db_file) };
        if let Some(why) = map.trouble() {
            let until = if map.is_service() { "it answers" } else { "it can be read" };
            let why = format!("{why}; until {until}, the plugin fails");
            setup.section.warn_as(&codes::NOT_THERE_YET, "db_file", why);
        }
        let search = if typed { Search::of(&options) } else { Search::Plain };
        let result = format!("{}-result", setup.name);
        Some(PostfixMap { result, map, search, options })
    }

    async fn run(&self, cx: &mut Cx<'_>) -> Result<Verdict, Error> {
        let options = &self.options;
        let field = &options.field;
        cx.session.depend_on(field);
        let Some(value) = cx.request.get(field) else {
            cx.note(findings::no_attribute(field));
            return Ok(Verdict::Next);
        };
        let value = value.to_vec();
        let matched = self.is_match(&value, cx).await?;
        let shown = String::from_utf8_lossy(&value);
        if matched {
            cx.note(findings::map_matched(field, shown));
            options.score.add_once(cx.session);
        } else {
            cx.note(findings::map_not_matched(field, shown));
        }
        let action = if matched { &options.match_action } else { &options.not_match_action };
        Ok(action.clone().map_or(Verdict::Next, Verdict::Stop))
    }
}

fn typed_map(options: &PostfixMapOptions, setup: &Setup<'_, '_>) -> Option<Map> {
    let settings = ServiceSettings {
        proxymap: PathBuf::from(&options.proxymap_socket),
        timeout: options.timeout.0.duration(),
    };
    match Map::new(&options.db_file, &settings) {
        Ok(map) => Some(map),
        Err(why) => setup.refuse(OptionError::new("db_file", why)),
    }
}

impl PostfixMap {
    /// Whether the table has the value. The original remembers that for the message, whose client is the same
    /// for all recipients.
    async fn is_match(&self, value: &[u8], cx: &mut Cx<'_>) -> Result<bool, Error> {
        let remembers = self.search == Search::Plain;
        if remembers && let Some(known) = cx.session.result(&self.result) {
            return Ok(known == "1");
        }
        let mailbox = cx.request.mailbox(&self.options.field);
        let keys = self.search.keys(value, mailbox, self.map.has_fixed_keys());
        let keys = keys.map_err(|cause| self.failed(cause.to_owned()))?;
        let found = self.map.find(keys, self.search.accepts(value), cx.matching, cx.call).await;
        let matched = match found {
            Ok(Some(Found { key, value })) => {
                let (key, value) = (String::from_utf8_lossy(&key), String::from_utf8_lossy(&value));
                cx.note(findings::map_entry(&key, &value));
                is_true(value.as_bytes())
            }
            Ok(None) => false,
            Err(MapError::Backend(error)) => return Err(error.into()),
            Err(MapError::File(error)) => return Err(self.failed(error.to_string())),
            Err(MapError::Search { cause, .. }) => return Err(cause.into()),
        };
        if remembers {
            cx.session.set(&self.result, if matched { "1" } else { "0" });
        }
        Ok(matched)
    }

    fn failed(&self, cause: String) -> Error {
        Error::service(self.map.name().to_string(), cause)
    }
}

/// Which values of a table are a match.
fn is_true(value: &[u8]) -> bool {
    value == b"OK" || (!value.is_empty() && value.iter().all(u8::is_ascii_digit))
}

#[cfg(test)]
mod tests;
