//! The page of the control socket: how it is reached, and every route as the table has it.
//!
//! Knows: the table of the routes. Must not know: what they do.

use super::{Page, undent};
use crate::server::control::ROUTES;
use std::fmt::Write;
use std::sync::LazyLock;

/// What stands before the routes.
const ABOUT: &str = "\
The running daemon answers at a UNIX socket: HTTP/1.1 (RFC 9112) with JSON. The commands `mtpolicyd status`, \
`metrics`, `reload`, `decisions`, `explain`, `tail`, `top` and `log-level` use it, and so may scripts:

```
curl --unix-socket /run/mtpolicyd/control.sock http://localhost/v1/status
```

The block `<Control>` of the configuration says where the socket is and who may connect. Without it, it is \
`control.sock` in the folder that systemd has made for the service, or else in /run/mtpolicyd if that is \
there.

What a caller may do depends on who it is, which the kernel tells. Root and the user of the daemon have the \
level `admin`; members of the group of the socket have the `group_level` of the block, by default `change`; \
nobody else can connect. A level includes those before it: `read`, `change`, `admin`.

An answer with a status of 400 or more is `{\"error\": TEXT}`. A body of a request has at most 1 MiB. 64 \
connections are open at the same time; for one more, the one that has been idle longest is closed. Names in \
braces stand for values, in which characters that have a meaning in URLs are written with percent signs.
";

static TEXT: LazyLock<String> = LazyLock::new(|| {
    let mut text = ABOUT.to_owned();
    for route in ROUTES {
        // Writing to a string does not fail.
        let _ = write!(text, "\n## {} {}\n\n", route.method, route.path);
        let _ = write!(text, "Level `{}`.\n\n{}", route.level, undent(route.doc));
    }
    text
});

/// The page.
pub fn control() -> Page {
    let summary = "the control socket of mtpolicyd: HTTP with JSON for commands and scripts".to_owned();
    Page { name: "control", summary, about: &TEXT, sections: Vec::new() }
}
