//! Values of PostgreSQL as text, and those that are sent to it.
//!
//! Knows: the binary forms of types, literals. Must not know: statements.

use crate::sql::{Param, Row};
use bytes::BytesMut;
use std::borrow::Cow;
use std::error::Error as StdError;
use tokio_postgres::types::{Format, FromSql, IsNull, ToSql, Type};
use tokio_postgres::{Error, SimpleQueryRow};

/// A parameter goes as text; the server casts it to what it needs.
impl ToSql for Param {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn StdError + Sync + Send>> {
        match self {
            Param::Null => return Ok(IsNull::Yes),
            Param::Integer(number) => out.extend_from_slice(number.to_string().as_bytes()),
            Param::Text(text) => out.extend_from_slice(without_nul(text).as_bytes()),
        }
        Ok(IsNull::No)
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    fn encode_format(&self, _: &Type) -> Format {
        Format::Text
    }

    tokio_postgres::types::to_sql_checked!();
}

/// A parameter as it is written into a statement, where the server takes it for what it takes a parameter
/// for. The connection is in UTF-8, so no byte of another character is a quote or a backslash; the letter in
/// front says that a backslash escapes, whatever the server's `standard_conforming_strings`.
pub(super) fn literal(param: &Param) -> String {
    match param {
        Param::Null => "NULL".to_owned(),
        Param::Integer(number) => format!("'{number}'"),
        Param::Text(text) => {
            let quoted = without_nul(text).replace('\'', "''");
            if quoted.contains('\\') {
                format!(" E'{}'", quoted.replace('\\', "\\\\"))
            } else {
                format!("'{quoted}'")
            }
        }
    }
}

/// PostgreSQL's texts hold no NUL.
fn without_nul(text: &str) -> Cow<'_, str> {
    if text.contains('\0') { text.replace('\0', "\u{fffd}").into() } else { text.into() }
}

/// The values of a row as the server itself shows them.
pub(super) fn shown(row: &SimpleQueryRow) -> Result<Row, Error> {
    (0..row.len()).map(|at| Ok(row.try_get(at)?.map(str::to_owned))).collect()
}

/// The values of a row as DBD::Pg shows them.
pub(super) fn texts(row: &tokio_postgres::Row) -> Result<Row, Error> {
    let columns = row.columns().iter().enumerate();
    columns
        .map(|(at, column)| Ok(row.try_get::<_, Option<Raw<'_>>>(at)?.map(|raw| raw.text(column.type_()))))
        .collect()
}

/// A value as the server sent it.
struct Raw<'a>(&'a [u8]);

impl<'a> FromSql<'a> for Raw<'a> {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn StdError + Sync + Send>> {
        Ok(Raw(raw))
    }

    fn accepts(_: &Type) -> bool {
        true
    }
}

impl Raw<'_> {
    fn text(&self, kind: &Type) -> String {
        match (kind, self.0) {
            (&Type::BOOL, [truth]) => truth.to_string(),
            (&Type::INT2, &[a, b]) => i16::from_be_bytes([a, b]).to_string(),
            (&Type::INT4, &[a, b, c, d]) => i32::from_be_bytes([a, b, c, d]).to_string(),
            (&Type::INT8, &[a, b, c, d, e, f, g, h]) => {
                i64::from_be_bytes([a, b, c, d, e, f, g, h]).to_string()
            }
            (_, bytes) => String::from_utf8_lossy(bytes).into_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_in_a_statement_ends_nowhere_but_at_its_end() {
        for (text, expected) in [
            ("", "''"),
            ("it's", "'it''s'"),
            ("\\'; DROP TABLE t; --", " E'\\\\''; DROP TABLE t; --'"),
            ("a\\", " E'a\\\\'"),
            ("\0'", "'\u{fffd}'''"),
        ] {
            assert_eq!(literal(&Param::Text(text.to_owned())), expected);
        }
        assert_eq!(
            (literal(&Param::Integer(-5)), literal(&Param::Null)),
            ("'-5'".to_owned(), "NULL".to_owned())
        );
    }
}
