//! Floating-point numbers as Perl and C's printf show them.
//!
//! Knows: `%g`. Must not know: databases.

/// The digits that Perl shows.
pub(super) const PERL_DIGITS: usize = 15;

/// A number as `%.Ng` of printf(3) shows it.
pub(super) fn general(number: f64, digits: usize) -> String {
    if !number.is_finite() {
        return special(number);
    }
    layout(&format!("{number:.*e}", digits.saturating_sub(1)), digits)
}

/// Perl's spelling of what is not a number.
pub(super) fn special(number: f64) -> String {
    let word = if number.is_nan() { "NaN" } else { "Inf" };
    if number == f64::NEG_INFINITY { format!("-{word}") } else { word.to_owned() }
}

/// Lays `d.ddde-N` out: with an exponent only below 0.0001 and beyond `digits` places.
pub(super) fn layout(scientific: &str, digits: usize) -> String {
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let (sign, mantissa) = match mantissa.strip_prefix('-') {
        Some(rest) => ("-", rest),
        None => ("", mantissa),
    };
    let figures: String = mantissa.chars().filter(char::is_ascii_digit).collect();
    let trimmed = figures.trim_end_matches('0');
    let figures = if trimmed.is_empty() { "0" } else { trimmed };
    if exponent < -4 || usize::try_from(exponent).is_ok_and(|places| places >= digits) {
        let point = if figures.len() > 1 { "." } else { "" };
        let mark = if exponent < 0 { '-' } else { '+' };
        return format!("{sign}{}{point}{}e{mark}{:02}", &figures[..1], &figures[1..], exponent.abs());
    }
    let Ok(before) = usize::try_from(exponent + 1) else {
        return format!("{sign}0.{}{figures}", "0".repeat(exponent.unsigned_abs() as usize - 1));
    };
    if before == 0 {
        return format!("{sign}0.{figures}");
    }
    if figures.len() <= before {
        return format!("{sign}{figures}{}", "0".repeat(before - figures.len()));
    }
    format!("{sign}{}.{}", &figures[..before], &figures[before..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_look_as_in_perl() {
        let cases = [
            (0.0, "0"),
            (1.0, "1"),
            (-1.5, "-1.5"),
            (0.1 + 0.2, "0.3"),
            (100.0, "100"),
            (0.05, "0.05"),
            (0.0001, "0.0001"),
            (0.00001, "1e-05"),
            (123_456_789_012_345.0, "123456789012345"),
            (1e15, "1e+15"),
            (1.25e20, "1.25e+20"),
            (f64::INFINITY, "Inf"),
            (f64::NEG_INFINITY, "-Inf"),
        ];
        for (number, text) in cases {
            assert_eq!(general(number, PERL_DIGITS), text);
        }
    }
}
