//! The database of policyd-rate-limit, as a connection of ours.
//!
//! Knows: its three kinds of database. Must not know: what is kept there.

use super::yaml::{Settings, scalar};
use crate::import::{Imported, block, entry};
use config_general::Item;
use std::path::Path;
use yaml_rust2::Yaml;

/// The name of the connection.
pub const NAME: &str = "limits";

/// The connection: a file of our own in place of SQLite's, the same database in place of the others.
pub fn connection(settings: &mut Settings, state: &Path, imported: &mut Imported) -> Item {
    let backend = settings.text("backend").unwrap_or_else(|| "0".to_owned());
    let [_, mysql, postgres] =
        ["sqlite_config", "mysql_config", "pgsql_config"].map(|key| settings.take(key));
    let options = match backend.as_str() {
        "1" => server("mysql", "dbname", &mysql, &["user", "passwd", "password", "db", "database"]),
        "2" => server("Pg", "dbname", &postgres, &["user", "password", "dbname", "database"]),
        other => {
            if other != "0" {
                imported.leave_out(format!("backend: {other}"), "not 0, 1 or 2; a file of SQLite is used");
            }
            let file = state.join("mtpolicyd.sqlite");
            vec![entry("dsn", format!("dbi:SQLite:dbname={}", file.display()))]
        }
    };
    if options.len() > 1 {
        imported.note(
            "the password of the database is in the configuration: let only root and the daemon read \
             the file \
             (chmod 640)",
        );
        imported.note("the counts are in a new table, mtpolicyd_limits; mail_count is not used any more");
    }
    block("Connection", NAME, [vec![entry("module", "Sql")], options].concat())
}

/// A database server: what names the database and the user, and the rest of what is known of it.
fn server(driver: &str, database: &str, config: &Yaml, known: &[&str]) -> Vec<Item> {
    let value = |names: &[&str]| names.iter().find_map(|name| scalar(&config[*name]));
    let mut dsn = format!("dbi:{driver}:{database}={}", value(&known[known.len() - 2..]).unwrap_or_default());
    for (theirs, ours) in [("host", "host"), ("port", "port"), ("unix_socket", "mysql_socket")] {
        if let Some(value) = value(&[theirs]) {
            dsn += &format!(";{ours}={value}");
        }
    }
    let mut options = vec![entry("dsn", dsn)];
    options.extend(value(&["user"]).map(|user| entry("user", user)));
    options.extend(value(&["passwd", "password"]).map(|password| entry("password", password)));
    options
}
