//! The fenced blocks of a page.
//!
//! Knows: Markdown's fences. Must not know: what is in a block.

/// A block between lines of three backticks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fence {
    /// What stands behind the opening backticks.
    pub kind: String,
    /// What is inside, without the last line break.
    pub text: String,
    /// The number of its first line, for messages.
    pub line: usize,
}

/// The blocks of a page, in order.
///
/// # Panics
/// If one is not closed.
pub fn fences(page: &str) -> Vec<Fence> {
    let mut found = Vec::new();
    let mut open: Option<(usize, &str, Vec<&str>)> = None;
    for (number, line) in page.lines().enumerate() {
        match (&mut open, line.strip_prefix("```")) {
            (None, Some(kind)) => open = Some((number + 2, kind.trim(), Vec::new())),
            (Some(_), Some("")) => {
                let (line, kind, lines) = open.take().expect("one is open");
                found.push(Fence { kind: kind.to_owned(), text: lines.join("\n"), line });
            }
            (Some((_, _, lines)), _) => lines.push(line),
            (None, None) => {}
        }
    }
    assert!(open.is_none(), "a fence is not closed: {open:?}");
    found
}

/// Whether text is what a page shows: a line of three dots stands for any lines, three dots in a line for any
/// characters.
pub fn is_like(shown: &str, printed: &str) -> bool {
    let lines =
        |text: &'_ str| text.trim_end().lines().map(str::trim_end).map(str::to_owned).collect::<Vec<_>>();
    lines_match(&lines(shown), &lines(printed))
}

fn lines_match(shown: &[String], printed: &[String]) -> bool {
    match shown.split_first() {
        None => printed.is_empty(),
        Some((first, rest)) if first.trim() == "..." => {
            (0..=printed.len()).any(|skipped| lines_match(rest, &printed[skipped..]))
        }
        Some((first, rest)) => printed
            .split_first()
            .is_some_and(|(line, others)| line_matches(first, line) && lines_match(rest, others)),
    }
}

fn line_matches(shown: &str, printed: &str) -> bool {
    let mut parts = shown.split("...");
    let Some(mut left) = parts.next().and_then(|first| printed.strip_prefix(first)) else { return false };
    let parts: Vec<_> = parts.collect();
    let Some((last, middle)) = parts.split_last() else { return left.is_empty() };
    for part in middle {
        match left.split_once(part) {
            Some((_, behind)) => left = behind,
            None => return false,
        }
    }
    left.ends_with(last)
}

#[test]
fn blocks_and_dots_are_understood() {
    let page = "text\n```sh\na\n\nb\n```\n```text\nx\n```\n";
    let found: Vec<_> = fences(page).into_iter().map(|fence| (fence.kind, fence.text, fence.line)).collect();
    let expected =
        [("sh", "a\n\nb", 3), ("text", "x", 8)].map(|(kind, text, line)| (kind.into(), text.into(), line));
    assert_eq!(found, expected);
    for (shown, printed, is) in [
        ("a\nb", "a\nb\n", true),
        ("a\nb", "a\nb\nc", false),
        ("...\nb", "x\ny\nb", true),
        ("a\n...", "a", true),
        ("a ... c", "a bb c", true),
        ("a ... c", "a bb d", false),
        ("a", "ab", false),
        ("<x ...", "<x \"y\">", true),
    ] {
        assert_eq!(is_like(shown, printed), is, "{shown} / {printed}");
    }
}
