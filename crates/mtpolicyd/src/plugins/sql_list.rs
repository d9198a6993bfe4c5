//! `SqlList`: is a value on a list in a database?

use crate::log::messages::findings;
use crate::network::plain_address;
use crate::options::options;
use crate::plugin::{Cx, Error, Plugin, Setup, Verdict};
use crate::scoring::Scoring;
use crate::sql_query::Query;
use backends::sql::{Dialect, Sql};
use postfix_policy::{Mailbox, Request};
use std::borrow::Cow;
use std::sync::Arc;

options! {
    /// Adds to the score or answers, depending on whether a database query finds a row for a value.
    ///
    /// The score counts once per message, or once per recipient if `field` is the recipient.
    ///
    /// The query is made for each request. If it fails, for instance because its table is missing, the
    /// plugin fails (`on_error`). A value that the database can't compare with its column is not listed, such
    /// as an address with an umlaut in an ASCII table or a word where the column holds network addresses.
    ///
    /// ```conf
    /// <Connection db>
    ///   module = "Sql"
    ///   dsn = "dbi:SQLite:dbname=/var/lib/mtpolicyd/lists.sqlite"
    /// </Connection>
    /// <Plugin blacklist>
    ///   module = "SqlList"
    ///   sql_query = "SELECT 1 FROM blacklist WHERE client_ip=?"
    ///   match_action = "reject you are on our blacklist"
    /// </Plugin>
    /// ```
    pub struct SqlListOptions {
        + enabled,
        /// The database, a `<Connection>` of module Sql.
        db: String = "db",
        /// The query; `?` is replaced by the value. Any row is a match, whatever it contains. The default is
        /// for MariaDB and MySQL, and for IPv4 addresses only.
        sql_query: Query = default_query(),
        /// The attribute whose value is looked up. If the request does not have it, nothing happens. A
        /// sender or recipient that is not listed as written is looked up as Postfix will understand it
        /// (`ceo@victim.example` for `victim.example!ceo`), if that is a different address, and then the same
        /// in lower case. An IPv4-mapped IPv6 address (`::ffff:192.0.2.1`) is looked up as it is written,
        /// then as the IPv4 address.
        field: String = "client_address",
        /// The answer to Postfix if there is a row.
        match_action: Option<String>,
        /// The answer to Postfix otherwise.
        not_match_action: Option<String>,
        /// Added to the score if there is a row.
        score: Scoring,
    }
}

/// The query of the original.
const DEFAULT_QUERY: &str = "SELECT client_ip FROM whitelist WHERE client_ip=INET_ATON(?)";

fn default_query() -> Query {
    Query::from(DEFAULT_QUERY)
}

pub struct SqlList {
    options: SqlListOptions,
    sql: Arc<Sql>,
}

impl Plugin for SqlList {
    const NAME: &'static str = "SqlList";
    type Options = SqlListOptions;

    fn new(options: SqlListOptions, setup: &mut Setup<'_, '_>) -> Option<SqlList> {
        setup.check_match_actions(options.match_action.as_ref(), options.not_match_action.as_ref());
        let sql = setup.sql("db", &options.db)?;
        options.sql_query.check("sql_query", &sql, setup);
        if sql.dialect() != Dialect::MySql && options.sql_query == default_query() {
            let only = "only MariaDB and MySQL have INET_ATON, which the default query needs";
            setup.warn("sql_query", format!("Plugin {}: {only}; write a sql_query", setup.name));
        }
        Some(SqlList { options, sql })
    }

    async fn run(&self, cx: &mut Cx<'_>) -> Result<Verdict, Error> {
        let options = &self.options;
        let field = &options.field;
        cx.session.depend_on(field);
        let Some(value) = cx.request.get(field) else {
            cx.note(findings::no_attribute(field));
            return Ok(Verdict::Next);
        };
        let mut listed = false;
        for form in forms(cx.request, field) {
            if !listed {
                let rows = options.sql_query.ask(&self.sql, &form, cx.call).await?;
                listed = !rows.is_empty();
            }
        }
        let value = String::from_utf8_lossy(value);
        if listed {
            cx.note(findings::sql_listed(field, value));
            options.score.add_once(cx.session);
        } else {
            cx.note(findings::sql_not_listed(field, value));
        }
        let action = if listed { &options.match_action } else { &options.not_match_action };
        Ok(action.clone().map_or(Verdict::Next, Verdict::Stop))
    }
}

/// Returns the texts under which a value may be listed, each once: as it is written and, of a sender or
/// recipient, as Postfix will understand it, also in lower case, of a client the plain
/// address.
fn forms<'a>(request: &'a Request, field: &str) -> Vec<Cow<'a, [u8]>> {
    let mut forms: Vec<Cow<'a, [u8]>> = request.forms(field).map(Cow::Borrowed).collect();
    let folded = request.mailbox(field).filter(|mailbox| !mailbox.is_null()).map(Mailbox::key);
    for form in request.get(field).map(plain_address).into_iter().chain(folded) {
        if !forms.contains(&form) {
            forms.push(form);
        }
    }
    forms
}

#[cfg(test)]
mod tests {
    use crate::testing::Bench;
    use tempfile::NamedTempFile;

    const TABLE: &str = "CREATE TABLE list (name TEXT, v TEXT);
                         INSERT INTO list VALUES ('a@b', 'x'), ('null', NULL), ('zero', '0'),
                         ('192.0.2.1', 'x');";

    fn bench(options: &str) -> (Bench, NamedTempFile) {
        let file = NamedTempFile::new().unwrap();
        rusqlite::Connection::open(file.path()).unwrap().execute_batch(TABLE).unwrap();
        (Bench::new(&text(file.path().to_str().unwrap(), options)), file)
    }

    fn text(file: &str, options: &str) -> String {
        format!(
            "<Connection db>\n module = Sql\n dsn = \"dbi:SQLite:dbname={file}\"\n</Connection>\n\
             <Plugin l>\n module = SqlList\n field = sender\n {options}\n</Plugin>"
        )
    }

    const QUERY: &str = "sql_query = \"SELECT v FROM list WHERE name=?\"\n";

    #[test]
    fn a_row_is_a_match_whatever_is_in_it() {
        let (mut bench, _file) =
            bench(&format!("{QUERY} match_action = on\n not_match_action = off\n score = 2"));
        for (sender, action) in [
            ("a@b", "on"),
            ("null", "on"),
            ("zero", "on"),
            ("A@b", "on"),
            ("B@a", "off"),
            ("", "off"),
            ("' OR 1=1 --", "off"),
            ("a@b\u{1}", "off"),
            ("\u{fffd}", "off"),
        ] {
            assert_eq!(bench.attribute_again("sender", sender).run().as_deref(), Some(action), "{sender:?}");
        }
        assert_eq!(bench.session.text("score_detail"), Some("l=2"));
    }

    #[test]
    fn an_address_is_looked_up_as_postfix_will_understand_it() {
        let (mut bench, _file) = bench(&format!("{QUERY} match_action = on"));
        for sender in ["a@b", "a@B.", "b!a", "a%b", "A@b", "A@B", "B!A", "A%b"] {
            assert_eq!(bench.attribute_again("sender", sender).run().as_deref(), Some("on"), "{sender}");
        }
    }

    #[test]
    fn an_address_of_a_client_is_found_however_it_is_written() {
        let (_, file) = bench("");
        let text = text(file.path().to_str().unwrap(), &format!("{QUERY} match_action = on"));
        let mut bench = Bench::new(&text.replace("field = sender", "field = client_address"));
        for client in ["192.0.2.1", "::ffff:192.0.2.1", "::ffff:c000:201"] {
            let action = bench.attribute_again("client_address", client).run();
            assert_eq!(action.as_deref(), Some("on"), "{client}");
        }
        assert_eq!(bench.attribute_again("client_address", "::ffff:192.0.2.2").run(), None);
    }

    #[test]
    fn without_the_attribute_nothing_happens() {
        let (mut bench, _file) = bench(&format!("{QUERY} not_match_action = off"));
        assert_eq!(bench.run(), None);
    }

    #[test]
    fn a_user_may_switch_it_off() {
        let (bench, _file) = bench(&format!("{QUERY} match_action = on\n uc_enabled = use"));
        let mut bench = bench.attribute("sender", "a@b");
        assert_eq!(bench.run().as_deref(), Some("on"));
        bench.session.set_user("use", "off");
        assert_eq!(bench.run(), None);
    }

    #[test]
    fn a_query_that_cannot_work_is_noticed_and_fails() {
        for (query, warning) in [
            ("sql_query = \"SELECT 1\"", Some("no `?`")),
            ("", Some("INET_ATON")),
            ("sql_query = \"SELECT x FROM nosuch WHERE y=?\"", None),
        ] {
            let (bench, file) = bench(query);
            let warnings = Bench::warnings(&text(file.path().to_str().unwrap(), query));
            assert_eq!(warnings.len(), usize::from(warning.is_some()), "{warnings:?}");
            assert!(warnings.iter().all(|said| said.contains(warning.unwrap_or_default())), "{warnings:?}");
            let error = bench.attribute("sender", "a@b").try_run().unwrap_err();
            assert!(error.contains("connection db"), "{error}");
        }
    }

    #[test]
    fn the_database_has_to_be_there() {
        let mistakes = Bench::mistakes("<Plugin l>\n module = SqlList\n db = other\n</Plugin>");
        assert!(mistakes.len() == 1 && mistakes[0].contains("other"), "{mistakes:?}");
    }
}
