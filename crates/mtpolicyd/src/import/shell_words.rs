//! Words as a shell reads them: blanks separate, quotes and backslashes keep together.
//!
//! Knows: quotes. Must not know: variables, commands.

/// The words of a line, or `None` if a quote is left open.
pub fn split(text: &str) -> Option<Vec<String>> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    let mut characters = text.chars();
    while let Some(c) = characters.next() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None | Some('"'), '\\') => word.get_or_insert_default().push(characters.next()?),
            (None, c) if c.is_whitespace() => words.extend(word.take()),
            (_, c) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    quote.is_none().then_some(words)
}

/// The assignments of a file such as those in /etc/default: the last of each name, without its quotes.
pub fn assignment(text: &str, name: &str) -> Option<String> {
    let lines = text.lines().map(str::trim).filter(|line| !line.starts_with('#'));
    let mut values = lines.filter_map(|line| {
        let line = line.strip_prefix("export ").unwrap_or(line).trim_start();
        line.strip_prefix(name)?.strip_prefix('=')
    });
    values.next_back().map(|value| split(value).unwrap_or_default().into_iter().next().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_assignments_are_those_of_a_shell() {
        assert_eq!(split(r#"  --a="b c" 'd"e' f\ g "" "#).unwrap(), ["--a=b c", "d\"e", "f g", ""]);
        assert_eq!(split("open 'quote"), None);
        let file = "# OPTS=no\nOPTS=\"--inet=10023 --delay=60\" # ours\nexport TEXT='a b'\nOPTS_2=x\n";
        assert_eq!(assignment(file, "OPTS").unwrap(), "--inet=10023 --delay=60");
        assert_eq!(assignment(file, "TEXT").unwrap(), "a b");
        assert_eq!(assignment(file, "NONE"), None);
    }
}
