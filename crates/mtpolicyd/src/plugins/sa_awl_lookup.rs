//! `SaAwlLookup`: what does SpamAssassin's auto-whitelist know of the sender?

use crate::awl::{self, Entry};
use crate::facts::file::FileError;
use crate::facts::maps::indexed::{Format, Indexed};
use crate::log::messages::findings;
use crate::options::options;
use crate::plugin::{Cx, Error, Plugin, Setup, Verdict};
use crate::sql_query;
use crate::value::{Value, numeric_prefix};
use backends::sql::{self, Durability, Param, Sql, SqlSettings};
use backends::{Call, Secret};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

options! {
    /// Looks up a sender in the auto-whitelist of SpamAssassin.
    ///
    /// This is the list of mean scores that SpamAssassin's AWL plugin keeps by sender address and client
    /// network. SaAwlAction plugins after this one act on the result.
    ///
    /// The list is a Berkeley DB file (`db_file`) or a database table (`dsn`, or `db` with the name of a
    /// `<Connection>`). If it can't be read, the plugin fails (`on_error`). The daemon needs permission to
    /// read the file and its directory. With amavis that may take `group = "mtpolicyd amavis"`, and
    /// `auto_whitelist_file_mode 0770` in SpamAssassin's local.cf.
    ///
    /// ```conf
    /// <Plugin amavis-awl>
    ///   module = "SaAwlLookup"
    ///   db_file = "/var/lib/amavis/.spamassassin/auto-whitelist"
    /// </Plugin>
    /// <Plugin spamd-awl>
    ///   module = "SaAwlLookup"
    ///   dsn = "dbi:mysql:database=spamassassin;host=127.0.0.1"
    ///   user = "mtpolicyd"
    ///   password = "secret"
    /// </Plugin>
    /// ```
    pub struct SaAwlLookupOptions {
        /// The file. Without it, and without `dsn` and `db`, it is
        /// `/var/lib/amavis/.spamassassin/auto-whitelist`.
        db_file: Option<String>,
        /// The database, in the form of `dsn` of a `<Connection>`.
        dsn: Option<String>,
        /// The user for `dsn`.
        user: String = "",
        /// The password for `dsn`.
        password: Secret = Secret::default(),
        /// The database as the name of a `<Connection>` of module Sql, instead of `dsn`.
        db: Option<String>,
        /// The query, whose two `?` are the address and the network (`192.0`, `2001:0DB8::`). Each row has
        /// the number of messages and the sum of their scores; several rows are added up. Before
        /// SpamAssassin 4 the column `msgcount` may be called `count`.
        sql_query: AwlQuery = default_query(),
    }
    rules {
        AtMostOne(db_file, dsn, db),
        OnlyWith(user, dsn),
        OnlyWith(password, dsn),
        OnlyWith(sql_query, dsn, db),
    }
}

/// A query for an address and a network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AwlQuery(Arc<str>);

impl std::fmt::Display for AwlQuery {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl Value for AwlQuery {
    const FORM: &'static str = "SQL query with two `?`";
    fn parse(text: &str) -> Result<Self, String> {
        match sql::count_parameters(text) {
            2 => Ok(AwlQuery(text.into())),
            count => Err(format!("there are {count} `?` in the query instead of 2")),
        }
    }
}

fn default_query() -> AwlQuery {
    AwlQuery("SELECT msgcount, totscore FROM awl WHERE email = ? AND ip = ?".into())
}

/// Where amavis keeps the list.
const DEFAULT_FILE: &str = "/var/lib/amavis/.spamassassin/auto-whitelist";

/// How long a database of its own may take, as that of a `<Connection>`.
const SQL_TIMEOUT: Duration = Duration::from_secs(5);

/// Connections to it at most.
const SQL_MAX_CONNECTIONS: usize = 10;

pub struct SaAwlLookup {
    result: String,
    list: List,
}

/// Where the list is.
enum List {
    File(Indexed),
    Sql(Arc<Sql>, AwlQuery),
}

impl Plugin for SaAwlLookup {
    const NAME: &'static str = "SaAwlLookup";
    type Options = SaAwlLookupOptions;

    fn new(options: SaAwlLookupOptions, setup: &mut Setup<'_, '_>) -> Option<SaAwlLookup> {
        let list = match (options.dsn, options.db) {
            (Some(dsn), _) => {
                let sql = own_database(dsn, options.user, options.password, setup)?;
                List::Sql(Arc::new(sql), options.sql_query)
            }
            (None, Some(db)) => List::Sql(setup.sql("db", &db)?, options.sql_query),
            (None, None) => {
                let file = options.db_file.as_deref().unwrap_or(DEFAULT_FILE);
                List::File(Indexed::new(file, Format::Berkeley))
            }
        };
        Some(SaAwlLookup { result: awl::result_field(setup.name), list })
    }

    async fn run(&self, cx: &mut Cx<'_>) -> Result<Verdict, Error> {
        if awl::recall(cx.session, &self.result).is_some() {
            return Ok(Verdict::Next);
        }
        let (Some(sender), Some(client)) = (cx.request.get("sender"), cx.request.get("client_address"))
        else {
            return Ok(Verdict::Next);
        };
        let (sender, client) = (String::from_utf8_lossy(sender), String::from_utf8_lossy(client));
        let entry = match client.parse() {
            Ok(ip) => {
                let mut entry = None;
                for form in cx.request.forms("sender").map(String::from_utf8_lossy) {
                    if entry.is_none() {
                        entry = self.list.entry(&form, ip, cx.call).await?;
                    }
                }
                entry
            }
            Err(_) => None,
        };
        match &entry {
            Some(Entry { count, score }) => {
                cx.note(findings::history(sender, client, count, score));
            }
            None => cx.note(findings::history_unknown(sender, client)),
        }
        awl::remember(cx.session, &self.result, entry.as_ref());
        Ok(Verdict::Next)
    }
}

/// A database of the plugin's own.
fn own_database(dsn: String, user: String, password: Secret, setup: &Setup<'_, '_>) -> Option<Sql> {
    let settings = SqlSettings {
        dsn,
        user,
        password,
        timeout: SQL_TIMEOUT,
        max_connections: SQL_MAX_CONNECTIONS,
        durability: Durability::Full,
        tls_ca: None,
        identity: None,
    };
    match Sql::new(&format!("of plugin {}", setup.name), settings) {
        Ok(sql) => Some(sql),
        Err(mistake) => setup.refuse(mistake),
    }
}

impl List {
    async fn entry(&self, sender: &str, ip: IpAddr, call: Call<'_>) -> Result<Option<Entry>, Error> {
        let (address, network) = (awl::address_key(sender), awl::network_key(ip));
        match self {
            List::File(file) => {
                let key = format!("{address}|ip={network}");
                let keys = vec![key.clone().into_bytes(), format!("{key}|totscore").into_bytes()];
                let failed = |error: FileError| Error::service("auto-whitelist", error.to_string());
                match &file.values(keys, call.deadline()).await.map_err(failed)?[..] {
                    [Some(count), Some(total)] => Ok(Entry::of(count, total)),
                    _ => Ok(None),
                }
            }
            List::Sql(sql, query) => {
                let params = vec![Param::text(address.as_bytes()), Param::text(network.as_bytes())];
                let rows = sql_query::ask(sql, &query.0, params, true, call).await?;
                let column = |row: &[Option<String>], column: usize| {
                    let text = row.get(column).and_then(Option::as_deref);
                    text.map_or(0.0, |text| numeric_prefix(text.as_bytes()))
                };
                let sum = |number| rows.iter().map(|row| column(row, number)).sum();
                Ok(Entry::mean(sum(0), sum(1)))
            }
        }
    }
}

#[cfg(test)]
mod tests;
