//! The page of the log: every message as it is declared, in Markdown.
//!
//! Knows: the declarations of the messages. Must not know: where they are logged.

use super::undent;
use crate::log::messages::GROUPS;
use log_messages::{Group, Kind, Message};
use std::fmt::Write;

/// What stands before the messages.
const ABOUT: &str = "\
# The log

Every message that the daemon logs, with its level and what to do about it. Names in braces stand for values.
Texts are stable, so they can be searched for; a change of one is in CHANGELOG.md.

| level | name | in the text | holds |
|---|---|---|---|
| 0 | error | `error: ` before it | something that needs somebody |
| 1 | warning | `warning: ` before it | something to look at; the line of each request |
| 2 | notice | | start, reload, files read again; the default of `log_level` |
| 3 | info | | connections |
| 4 | debug | | what each plugin found, and how long it took |

A heading that is only a name, such as `{error}`, is a text from elsewhere: of the configuration, of a server,
of the system.

A message is logged if its level is at most the global `log_level`. Values that others send are escaped, so
that a message is always one line. With `log_format = json` a line is an object with `time`, `level` and
`message`.

## The line of each request

```
HOST: instance=I, type=T, t=MSms, plugin=P, result=R, client=C, sender=S, recipient=R, login=L, queue_id=Q
```

*level 1, without a prefix*

One for every request, also for one that gets no answer. `plugin` is the one that decided and `result` what
Postfix was told; both are empty if no plugin decided. `result=(connection closed)` means that there was no
answer. What Postfix did not send is left out; `log_addresses` shortens or hides sender, recipient and login.
In JSON these are members of the object, with `event` set to `request`.
";

/// The page.
pub fn log_page() -> String {
    let mut page = ABOUT.to_owned();
    for Group { title, about, messages } in GROUPS {
        // Writing to a string does not fail.
        let _ = write!(page, "\n## {title}\n\n{about}\n");
        for Message { kind, text, doc } in *messages {
            let _ = write!(page, "\n### `{text}`\n\n*{}*\n\n{}", level(*kind), undent(doc));
        }
    }
    page
}

fn level(kind: Kind) -> &'static str {
    match kind {
        Kind::Error => "error, level 0",
        Kind::Warning => "warning, level 1",
        Kind::Notice => "notice, level 2",
        Kind::Info => "info, level 3",
        Kind::Debug => "debug, level 4",
        Kind::Finding => "`log_level` of the plugin",
    }
}
