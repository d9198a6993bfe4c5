//! `SqlUserConfig`: the settings of a user from a database.

use crate::facts::json::{read_object, scalar_text};
use crate::log::messages::findings;
use crate::options::{Flow, options};
use crate::plugin::{Cx, Error, Plugin, Setup, Verdict};
use crate::sql_query::{Complaints, Query, user_names};
use backends::sql::Sql;
use std::sync::Arc;

options! {
    /// Loads the settings of a user from a database, for the `uc_` options of the plugins after it and for
    /// `session:NAME` in a Condition.
    ///
    /// The first column of the first row that the query finds is a JSON object. Its strings, numbers and
    /// booleans (`1`, `0`) become settings; `null` sets nothing; nested values are ignored. A user's setting
    /// can't replace a score or a plugin's result. The settings replace those of the user looked up before,
    /// even if there are none; those of a recipient apply to that recipient only.
    ///
    /// If the database refuses the query, the row is missing or its text is not a JSON object, this is
    /// logged and the request goes on without settings. A user whose name the database can't represent has
    /// none. If the database can't be asked, `on_error` decides.
    ///
    /// ```conf
    /// <Connection db>
    ///   module = "Sql"
    ///   dsn = "dbi:SQLite:dbname=/var/lib/mtpolicyd/users.sqlite"
    /// </Connection>
    /// # {"listing": "off"}
    /// <Plugin user-config>
    ///   module = "SqlUserConfig"
    ///   sql_query = "SELECT config FROM user_config WHERE address=?"
    /// </Plugin>
    /// <Plugin dialup-names>
    ///   module = "RegexList"
    ///   uc_enabled = "listing"
    ///   key = "client_name"
    ///   regex = "^(ppp|dial)\d"
    ///   action = "reject no mail from dial-up lines"
    /// </Plugin>
    /// ```
    pub struct SqlUserConfigOptions {
        /// The database, a `<Connection>` of module Sql.
        db: String = "db",
        /// The query; `?` is replaced by the user.
        sql_query: Query = Query::from("SELECT config FROM user_config WHERE address=?"),
        /// The attribute that names the user. If it is missing or blank, nothing is looked up. A recipient
        /// or sender is looked up as Postfix will understand it (`bob@example.org` for `example.org!bob`); if
        /// there is no row, then in lower case, as written, and without its extension. Any other value is
        /// looked up as written, then in lower case. Identical queries are made once.
        field: String = "recipient",
        /// What separates an extension from a user, as in Postfix: `bob+any@example.org` has the settings of
        /// `bob@example.org` unless it has some of its own. Each of several characters is a delimiter by
        /// itself; without any, addresses have no extension.
        recipient_delimiter: String = "+",
    }
}

/// The longest JSON text that is read, in bytes. The session takes the settings along to a shared cache at
/// every request.
const MAX_JSON_BYTES: usize = 64 << 10;

pub struct SqlUserConfig {
    complaints: Complaints,
    options: SqlUserConfigOptions,
    sql: Arc<Sql>,
}

impl Plugin for SqlUserConfig {
    const NAME: &'static str = "SqlUserConfig";
    type Options = SqlUserConfigOptions;

    fn new(options: SqlUserConfigOptions, setup: &mut Setup<'_, '_>) -> Option<SqlUserConfig> {
        let sql = setup.sql("db", &options.db)?;
        options.sql_query.check("sql_query", &sql, setup);
        setup.section.note_flow("sql_query", Flow::SetsAny);
        let complaints = Complaints::of(setup.name);
        Some(SqlUserConfig { complaints, options, sql })
    }

    async fn run(&self, cx: &mut Cx<'_>) -> Result<Verdict, Error> {
        let field = &self.options.field;
        cx.session.depend_on(field);
        // Whatever comes of it, the settings of another user hold no longer.
        cx.session.load_settings(cx.name(), []);
        let names = user_names(cx.request, field, &self.options.recipient_delimiter);
        let Some(user) = names.first().map(|user| String::from_utf8_lossy(user)) else {
            cx.note(findings::no_user(field));
            return Ok(Verdict::Next);
        };
        let mut json = None;
        for name in &names {
            let answer = self.options.sql_query.ask_shown(&self.sql, name, cx.call).await;
            let Some(rows) = self.complaints.answered(answer)? else { return Ok(Verdict::Next) };
            if let Some(row) = rows.into_iter().next() {
                json = row.into_iter().next().flatten();
                break;
            }
        }
        let Some(json) = json else {
            cx.note(findings::no_settings(user));
            return Ok(Verdict::Next);
        };
        let settings = match read_object(json.as_bytes(), MAX_JSON_BYTES) {
            Ok(settings) => settings,
            Err(why) => {
                self.complaints.complain(format_args!("settings of {user}: {why}"));
                return Ok(Verdict::Next);
            }
        };
        let mut usable = Vec::new();
        for (name, value) in &settings {
            match scalar_text(value) {
                Some(text) => usable.push((name.as_str(), text)),
                None if value.is_null() => {}
                None => cx.note(findings::setting_nested(&user, name)),
            }
        }
        cx.session.load_settings(cx.name(), usable.iter().map(|(name, text)| (*name, text.as_str())));
        Ok(Verdict::Next)
    }
}

#[cfg(test)]
mod tests {
    use crate::session::Session;
    use crate::testing::Bench;
    use tempfile::NamedTempFile;

    fn bench(json: Option<&str>, options: &str) -> (Bench, NamedTempFile) {
        let file = NamedTempFile::new().unwrap();
        let database = rusqlite::Connection::open(file.path()).unwrap();
        database.execute("CREATE TABLE user_config (address TEXT, config TEXT)", []).unwrap();
        database.execute("INSERT INTO user_config VALUES ('a@b', ?1)", [json]).unwrap();
        let bench = Bench::new(&format!(
            "<Connection db>\n module = Sql\n dsn = \"dbi:SQLite:dbname={}\"\n</Connection>\n\
             <Plugin u>\n module = SqlUserConfig\n {options}\n</Plugin>",
            file.path().display()
        ));
        (bench, file)
    }

    #[test]
    fn a_recipient_has_settings_however_it_is_written() {
        let (mut bench, _file) = bench(Some(r#"{"k":"v"}"#), "");
        for recipient in ["a@b", "A@B.", "b!a", "a%b", "a@b@b", "a%b@localhost", "A+x@b"] {
            bench.attribute_again("recipient", recipient).run_fresh();
            assert_eq!(bench.session.text("k"), Some("v"), "{recipient}");
        }
        bench.attribute_again("recipient", "b@b").run_fresh();
        assert_eq!(bench.session.text("k"), None);
        let (mut bench, _file) = super::tests::bench(Some(r#"{"k":"v"}"#), "recipient_delimiter = \"\"");
        bench.attribute_again("recipient", "a+x@b").run_fresh();
        assert_eq!(bench.session.text("k"), None);
    }

    #[test]
    fn a_client_has_settings_however_its_address_is_written() {
        let (mut bench, file) = bench(Some(r#"{"k":"v"}"#), "field = client_address");
        let database = rusqlite::Connection::open(file.path()).unwrap();
        database.execute("UPDATE user_config SET address = '192.0.2.1'", []).unwrap();
        for client in ["192.0.2.1", "::ffff:192.0.2.1", "::ffff:c000:201"] {
            bench.attribute_again("client_address", client).run_fresh();
            assert_eq!(bench.session.text("k"), Some("v"), "{client}");
        }
    }

    fn settings_of(json: Option<&str>) -> Session {
        let (bench, _file) = bench(json, "");
        let mut bench = bench.attribute("recipient", "a@b");
        assert_eq!(bench.run(), None);
        bench.session
    }

    #[test]
    fn values_become_the_text_that_perl_shows() {
        let json = r#"{"s":"v\u00e9","i":-5,"u":18446744073709551615,"f":5.50,"e":1e3,"t":true,"n":false,
                       "null":null,"list":[1],"map":{"a":1},"":"x"}"#;
        let session = settings_of(Some(json));
        let expected = [
            ("s", "v\u{e9}"),
            ("i", "-5"),
            ("u", "18446744073709551615"),
            ("f", "5.5"),
            ("e", "1000"),
            ("t", "1"),
            ("n", "0"),
        ];
        for (name, text) in expected {
            assert_eq!(session.text(name), Some(text), "{name}");
        }
        for name in ["null", "list", "map"] {
            assert_eq!(session.text(name), None, "{name}");
        }
    }

    #[test]
    fn no_setting_takes_the_place_of_a_score() {
        let session = settings_of(Some(r#"{"score":7,"score_detail":"x=7"}"#));
        assert_eq!((session.number("score"), session.result("score_detail")), (0.0, None));
    }

    #[test]
    fn what_cannot_be_read_sets_nothing() {
        let long = format!("{{\"a\":\"{}\"}}", "x".repeat(super::MAX_JSON_BYTES));
        let deep = "[".repeat(100_000);
        for json in
            [None, Some(""), Some("{not json"), Some("[1,2]"), Some("\"k\""), Some(&long), Some(&deep)]
        {
            assert!(settings_of(json).is_empty(), "{json:?}");
        }
    }

    #[test]
    fn a_query_that_is_refused_is_only_logged() {
        for query in ["SELECT wrong wrong wrong ?", "SELECT config FROM nowhere WHERE x=?"] {
            let (bench, _file) = bench(None, &format!("sql_query = \"{query}\""));
            assert_eq!(bench.attribute("recipient", "a@b").try_run(), Ok(None), "{query}");
        }
    }

    #[test]
    fn a_database_that_is_away_fails_the_plugin() {
        let text = "<Connection db>\n module = Sql\n dsn = \"dbi:SQLite:dbname=/no/such/folder/db\"\n\
                    </Connection>\n<Plugin u>\n module = SqlUserConfig\n</Plugin>";
        assert!(Bench::new(text).attribute("recipient", "a@b").try_run().is_err());
    }

    #[test]
    fn another_attribute_may_name_the_user() {
        let (mut bench, _file) = bench(Some(r#"{"k":"v"}"#), "field = sasl_username");
        for (user, found) in [("", None), (" ", None), ("x", None), ("a@b", Some("v"))] {
            bench.attribute_again("sasl_username", user).run_fresh();
            assert_eq!(bench.session.text("k"), found, "{user:?}");
        }
    }
}
