//! The page of the codes of `mtpolicyd check`, and what `--explain` prints of one, in Markdown.
//!
//! Knows: the declarations of the codes. Must not know: where a mistake is found.

use super::undent;
use crate::options::codes::{self, Code};
use config_general::Severity;
use std::fmt::Write;

/// What stands before the codes.
const ABOUT: &str = "\
# What check says

`mtpolicyd check FILE` reads a configuration and says what is wrong with it. Each mistake and each doubt has a
code, which never changes its meaning. `mtpolicyd check --explain W031` prints what is here about one of them.

| letter | in the output | means |
|---|---|---|
| E | `error[E012]: ` | a mistake: the file is not used, neither at the start nor at a reload |
| W | `warning[W031]: ` | a doubt: perhaps the file does not mean what its writer thinks |
| N | `notice[N001]: ` | worth knowing |

With `--strict` a doubt is a mistake.

A doubt that is known can be allowed, with a reason behind the code:

```conf
# mtpolicyd: allow W010 (read by our inventory)
owner = \"postmaster\"
contact = \"postmaster@example.org\"  # mtpolicyd: allow W010
```

The comment is about the next line with an option or block if it stands alone, else about its own line.
Several codes are separated by commas. An `allow` that silences nothing is a doubt itself (W090). Doubts about
the machine (W023, W024, W025) have no line; they are allowed by a comment anywhere in the file.

With `--format json` each is an object on a line of its own: `code`, `severity` (`error`, `warning` or
`notice`), `file`, `line`, `column`, `message` and `help`; what it does not have is `null`.

`check` exits with 0 if the file can be used, with 1 if it can't, and with 2 for an option that it
does not have.
";

/// The page.
pub fn check_page() -> String {
    let mut page = ABOUT.to_owned();
    for (severity, title) in
        [(Severity::Error, "Mistakes"), (Severity::Warning, "Doubts"), (Severity::Notice, "Notices")]
    {
        // Writing to a string does not fail.
        let _ = write!(page, "\n## {title}\n");
        for code in codes::all().into_iter().filter(|code| code.severity() == severity) {
            let _ = write!(page, "\n### {}: {}\n\n{}", code.id, code.title, undent(code.doc));
            if let Some(when) = code.ignore {
                let _ = write!(page, "\n*Right to ignore:* {when}\n");
            }
        }
    }
    page
}

/// What `--explain` prints.
pub fn explain_code(code: &Code) -> String {
    let Code { id, title, doc, ignore } = code;
    let mut text = format!("{id}: {title}\n\n{}", undent(doc));
    if let Some(when) = ignore {
        let _ = write!(
            text,
            "\nRight to ignore: {when}\nThen write `# mtpolicyd: allow {id}` on the line before, or behind \
             the option.\n"
        );
    }
    text
}
