//! Numbers as Perl reads and prints them.
//!
//! Knows: text, floating point. Must not know: what a number counts.

/// A number as Perl's type checks accept it: no blanks, no `0x`, no `5.`, no infinity.
pub(super) fn number(text: &str) -> Option<f64> {
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let mantissa = unsigned.split(['e', 'E']).next()?;
    let starts_well = mantissa.starts_with(|c: char| c.is_ascii_digit() || c == '.');
    let ends_well = mantissa.ends_with(|c: char| c.is_ascii_digit());
    text.parse().ok().filter(|n: &f64| starts_well && ends_well && n.is_finite())
}

/// What Perl makes of text where it needs a number: the number in front, else 0.
pub fn numeric_prefix(text: &[u8]) -> f64 {
    let text = text.trim_ascii_start();
    let sign = usize::from(text.first().is_some_and(|b| matches!(b, b'+' | b'-')));
    let digits = |from: usize| text[from..].iter().take_while(|b| b.is_ascii_digit()).count();
    let whole = digits(sign);
    let mut end = sign + whole;
    if text.get(end) == Some(&b'.') {
        end += 1 + digits(end + 1);
    }
    if text.get(end).is_some_and(|b| matches!(b, b'e' | b'E')) {
        let after_sign = end + 1 + usize::from(text.get(end + 1).is_some_and(|b| matches!(b, b'+' | b'-')));
        if digits(after_sign.min(text.len())) > 0 {
            end = after_sign + digits(after_sign);
        }
    }
    let word = |word: &[u8]| text[sign..].get(..word.len()).is_some_and(|at| at.eq_ignore_ascii_case(word));
    if word(b"inf") {
        return if text.first() == Some(&b'-') { f64::NEG_INFINITY } else { f64::INFINITY };
    }
    if word(b"nan") {
        return f64::NAN;
    }
    std::str::from_utf8(&text[..end]).ok().and_then(|number| number.parse().ok()).unwrap_or(0.0)
}

/// A number as Perl prints it: fifteen digits, no trailing zeros, an exponent when it is very large or small.
///
/// Perl adds whole numbers as integers while they fit, so those keep all their digits.
pub fn perl_number(number: f64) -> String {
    /// Of `%.15g`, with which Perl prints.
    const DIGITS: usize = 15;
    /// Below it and from -4 on an exponent is written out.
    const POSITIONAL: std::ops::Range<i32> = -4..DIGITS as i32;
    /// What fits into 64 bits with or without a sign.
    const INTEGERS: std::ops::Range<f64> = -9_223_372_036_854_775_808.0..18_446_744_073_709_551_616.0;
    if number.is_nan() {
        return "NaN".to_owned();
    }
    if number.is_infinite() {
        return if number > 0.0 { "Inf" } else { "-Inf" }.to_owned();
    }
    if number.fract() == 0.0 && INTEGERS.contains(&number) {
        // The sum has no negative zero.
        let is_short = number.abs() < 1e15;
        return if is_short { (number as i64).to_string() } else { (number + 0.0).to_string() };
    }
    // Rust prints the fewest digits that read back as the same number: those, unless they are too many.
    if (1e-4..1e15).contains(&number.abs()) {
        let text = number.to_string();
        // With the point, and perhaps a sign and a zero before it, which are not digits of the number.
        if text.len() <= DIGITS + 1 {
            return text;
        }
    }
    let mut scientific = format!("{number:e}");
    let digits = scientific.bytes().take_while(|b| *b != b'e').filter(u8::is_ascii_digit).count();
    let mut rounded = number;
    if digits > DIGITS {
        rounded = format!("{number:.*e}", DIGITS - 1).parse().unwrap_or(number);
        scientific = format!("{rounded:e}");
    }
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    match exponent.parse() {
        Ok(exponent) if POSITIONAL.contains(&exponent) => rounded.to_string(),
        Ok(exponent) if exponent < 0 => format!("{mantissa}e-{:02}", -exponent),
        _ => format!("{mantissa}e+{exponent:0>2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_print_as_in_perl() {
        let cases = [
            (0.1 + 0.2, "0.3"),
            (7.5, "7.5"),
            (-10.0, "-10"),
            (1e20, "1e+20"),
            (1e14, "100000000000000"),
            (1e15, "1000000000000000"),
            (1e15 + 0.25, "1e+15"),
            (1e21, "1e+21"),
            (-1e19, "-1e+19"),
            (1e308 * 10.0, "Inf"),
            (12_345_678.901_234_568, "12345678.9012346"),
            (0.1 + 0.2 - 0.5, "-0.2"),
            (1e-7, "1e-07"),
            (1.25e-9, "1.25e-09"),
            (0.000_001, "1e-06"),
            (0.000_01, "1e-05"),
            (0.000_1, "0.0001"),
            (1_234_567.891, "1234567.891"),
            (-0.0, "0"),
            (99_999_999_999_999.5, "99999999999999.5"),
        ];
        for (number, text) in cases {
            assert_eq!(perl_number(number), text);
        }
    }

    #[test]
    fn text_counts_as_the_number_it_begins_with() {
        let cases = [
            ("9abc", 9.0),
            ("abc", 0.0),
            ("", 0.0),
            (" 5", 5.0),
            ("0x7ff", 0.0),
            ("1e4", 1e4),
            ("1e", 1.0),
            ("-0.5", -0.5),
            ("1,5", 1.0),
            (".5.5", 0.5),
            ("-inf", f64::NEG_INFINITY),
        ];
        for (text, value) in cases {
            assert_eq!(numeric_prefix(text.as_bytes()), value, "{text}");
        }
    }
}
