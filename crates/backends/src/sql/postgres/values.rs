//! Values of PostgreSQL as text.
//!
//! Knows: the binary forms of types. Must not know: statements.

use crate::sql::Row;
use std::error::Error as StdError;
use tokio_postgres::Error;
use tokio_postgres::types::{FromSql, Type};

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
