//! Values of MariaDB and MySQL as DBD::mysql shows them: as the server itself writes them.
//!
//! Knows: the types of columns. Must not know: statements.

use crate::sql::{Row, number};
use mysql_async::consts::{ColumnFlags, ColumnType};
use mysql_async::{Column, Value};

/// The digits of a FLOAT, and of a DOUBLE, before the server writes an exponent.
const FLOAT_DIGITS: usize = 6;
const DOUBLE_DIGITS: usize = 15;

/// What stands for "as many as needed" among the digits after the point.
const ANY_DECIMALS: u8 = 31;

/// The values of a row.
pub(super) fn texts(mut row: mysql_async::Row, columns: &[Column]) -> Row {
    columns.iter().enumerate().map(|(at, column)| text(row.take(at)?, column)).collect()
}

fn text(value: Value, column: &Column) -> Option<String> {
    let decimals = column.decimals();
    Some(match value {
        Value::NULL => return None,
        Value::Bytes(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Value::Int(number) => padded(number.to_string(), column),
        Value::UInt(number) => padded(number.to_string(), column),
        Value::Float(number) if decimals < ANY_DECIMALS => format!("{number:.*}", usize::from(decimals)),
        Value::Double(number) if decimals < ANY_DECIMALS => format!("{number:.*}", usize::from(decimals)),
        Value::Float(number) => number::general(f64::from(number), FLOAT_DIGITS).replace("e+", "e"),
        Value::Double(number) => shortest(number),
        Value::Date(year, month, day, hour, minute, second, micros) => {
            let date = format!("{year:04}-{month:02}-{day:02}");
            match column.column_type() {
                ColumnType::MYSQL_TYPE_DATE | ColumnType::MYSQL_TYPE_NEWDATE => date,
                _ => format!("{date} {hour:02}:{minute:02}:{second:02}{}", fraction(micros, decimals)),
            }
        }
        Value::Time(negative, days, hours, minutes, seconds, micros) => {
            let (sign, hours) = (if negative { "-" } else { "" }, days * 24 + u32::from(hours));
            format!("{sign}{hours:02}:{minutes:02}:{seconds:02}{}", fraction(micros, decimals))
        }
    })
}

/// Numbers of a ZEROFILL column are as wide as it.
fn padded(number: String, column: &Column) -> String {
    if !column.flags().contains(ColumnFlags::ZEROFILL_FLAG) {
        return number;
    }
    let width = usize::try_from(column.column_length()).unwrap_or(0);
    format!("{number:0>width$}")
}

/// The shortest text that gives the same number.
fn shortest(number: f64) -> String {
    let scientific = format!("{number:e}");
    number::layout(&scientific, DOUBLE_DIGITS).replace("e+", "e")
}

fn fraction(micros: u32, decimals: u8) -> String {
    let digits = usize::from(decimals.min(6));
    if digits == 0 { String::new() } else { format!(".{}", &format!("{micros:06}")[..digits]) }
}
