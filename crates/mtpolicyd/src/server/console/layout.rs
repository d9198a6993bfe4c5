//! What all pages have around them: the header with its links and forms, the colors, the way links are made.
//!
//! Knows: HTML, who is signed in. Must not know: what a page shows.

use super::answer::page as answer;
use super::assets::{self, ICON, SCRIPT, STYLE};
use super::gate::{Head, Visit};
use super::sign_in::SignedIn;
use crate::log::escape;
use crate::server::control::{Problem, Response};
use maud::{DOCTYPE, Markup, html};
use std::sync::LazyLock;

/// The cookie of the colors that somebody has chosen.
pub const THEME_COOKIE: &str = "mtpolicyd-theme";

/// The name of this machine.
static MACHINE: LazyLock<String> = LazyLock::new(|| {
    let name = nix::unistd::gethostname().unwrap_or_default();
    name.to_string_lossy().into_owned()
});

/// Which colors a page has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Theme {
    /// Those of the system.
    System,
    /// Dark ink on light paper.
    Light,
    /// Light ink on dark paper.
    Dark,
}

impl Theme {
    const ALL: [Theme; 3] = [Theme::System, Theme::Light, Theme::Dark];

    /// The one of this name; the system's if there is none.
    pub fn of(name: Option<&str>) -> Theme {
        Theme::ALL.into_iter().find(|theme| Some(theme.name()) == name).unwrap_or(Theme::System)
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Theme::System => "system",
            Theme::Light => "light",
            Theme::Dark => "dark",
        }
    }
}

/// What the frame of a page needs.
pub struct Frame<'a> {
    root: &'a str,
    here: &'a str,
    theme: Theme,
    title: &'a str,
    who: Option<&'a SignedIn>,
}

impl<'a> Frame<'a> {
    /// That of a page for somebody who is signed in.
    pub fn of(visit: &'a Visit<'_>, title: &'a str) -> Frame<'a> {
        Frame { who: Some(&visit.who), ..Frame::without_person(&visit.head, title) }
    }

    /// That of a page for everybody.
    pub fn without_person(head: &'a Head<'_>, title: &'a str) -> Frame<'a> {
        Frame { root: head.root, here: &head.here, theme: head.theme, title, who: None }
    }
}

/// A whole page.
pub fn page(frame: &Frame<'_>, main: &Markup) -> Markup {
    let Frame { root, theme, title, who, .. } = *frame;
    html! {
        (DOCTYPE)
        html lang="en" data-theme=(theme.name()) {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { (title) " - mtpolicyd" }
                link rel="icon" type="image/svg+xml" href=(assets::link(root, &ICON));
                link rel="stylesheet" href=(assets::link(root, &STYLE));
                script type="module" src=(assets::link(root, &SCRIPT)) {}
            }
            body {
                a class="skip" href="#main" { "Skip to the content" }
                header class="top" {
                    a class="brand" href=(root) { "mtpolicyd" }
                    @if let Some(who) = who { (for_people(frame, who)) }
                }
                main id="main" tabindex="-1" { (main) }
            }
        }
    }
}

/// The part of the header for those who are signed in.
fn for_people(frame: &Frame<'_>, who: &SignedIn) -> Markup {
    let Frame { root, here, theme, .. } = *frame;
    let is_decisions = here.starts_with("decisions");
    html! {
        span class="machine" { (*MACHINE) }
        nav aria-label="Pages" {
            a href=(root) aria-current=[here.is_empty().then_some("page")] { "Overview" }
            a href={ (root) "decisions" } aria-current=[is_decisions.then_some("page")] { "Decisions" }
        }
        form class="find" role="search" method="get" action={ (root) "find" } {
            label for="find" class="hidden" { "Identifier, address, client or queue ID" }
            input id="find" name="q" type="search" placeholder="ID, address, client, queue ID"
                maxlength="320";
        }
        form class="theme" method="post" action={ (root) "theme" } {
            input type="hidden" name="form" value=(who.form_token);
            input type="hidden" name="to" value=(here);
            fieldset {
                legend class="hidden" { "Colors" }
                @for choice in Theme::ALL {
                    button name="theme" value=(choice.name())
                        aria-pressed=(if choice == theme { "true" } else { "false" }) { (choice.name()) }
                }
            }
        }
        form class="person" method="post" action={ (root) "logout" } {
            input type="hidden" name="form" value=(who.form_token);
            span { (shown(&who.person.name)) " " span class="quiet" { (who.person.level.to_string()) } }
            @if who.can_leave { button { "Sign out" } }
        }
    }
}

/// A page that says why there is no other one.
pub fn problem(problem: &Problem, root: &str, theme: Theme) -> Response {
    let title = problem.status.canonical_reason().unwrap_or("Problem");
    let frame = Frame { root, here: "", theme, title, who: None };
    let main = html! {
        div class="narrow" {
            h1 { (title) }
            p class="notice bad" { (shown(&problem.text)) }
            p { a href=(root) { "To the console" } }
        }
    };
    answer(problem.status, page(&frame, &main))
}

/// Foreign text on a page: one line without characters that nobody sees or that change its direction.
pub fn shown(text: &str) -> String {
    escape(text.as_bytes()).into_owned()
}

/// A page of the console to go on with: nothing that leads elsewhere.
pub fn safe_target(text: &str) -> String {
    const MAX: usize = 2000;
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~%&=?/+,@:".contains(&byte);
    let path = text.split('?').next().unwrap_or_default();
    let is_page = path == "decisions" || path.strip_prefix("decisions/").is_some_and(|id| !id.contains('/'));
    let is_good = is_page && text.len() <= MAX && text.bytes().all(is_plain);
    if is_good { text.to_owned() } else { String::new() }
}

/// A moment: for readers without scripts in UTC; the script of the console shows it in their own zone.
pub fn time(rfc3339: &str) -> Markup {
    let plain = rfc3339.replace('T', " ");
    let plain = plain.split('.').next().unwrap_or(&plain);
    html! { time datetime=(rfc3339) title={ (plain) " UTC" } { (plain) } }
}

/// An outcome as a word with a shape of its own, so that its color is not needed.
pub fn outcome(name: &str) -> Markup {
    let (class, shape) = match name {
        "pass" => ("pass", "\u{2713}"),
        "header" => ("pass", "+"),
        "reject" => ("reject", "\u{2715}"),
        "defer" => ("defer", "~"),
        "closed" => ("closed", "!"),
        _ => ("other", "\u{2192}"),
    };
    html! { span class={ "outcome " (class) } { span aria-hidden="true" { (shape) } " " (name) } }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_led_away() {
        for page in ["decisions", "decisions?from=a%40b.test&since=1d", "decisions/9F3KQ-2M7TX"] {
            assert_eq!(safe_target(page), page);
        }
        for elsewhere in [
            "//evil.test",
            "https://evil.test/",
            "\\evil",
            "/x",
            "javascript:a",
            "decisions/../../x",
            "login",
            "decisions\r\nX: y",
            "decisions?\"",
        ] {
            assert_eq!(safe_target(elsewhere), "", "{elsewhere}");
        }
    }

    #[test]
    fn what_strangers_send_is_shown_as_text() {
        let markup = html! { (shown("<b>\u{202e}\u{1b}")) }.into_string();
        assert_eq!(markup, "&lt;b&gt;\\xe2\\x80\\xae\\x1b");
        assert!(outcome("reject").into_string().contains("reject"));
        assert!(time("2026-12-01T09:14:02.25Z").into_string().contains(">2026-12-01 09:14:02<"));
    }
}
