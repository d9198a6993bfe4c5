//! Signing in and out: links, tokens, and users of a web server in front of the console.
//!
//! Knows: cookies, forms, sessions. Must not know: what the pages show to whoever is signed in.

use super::answer::{page, see_other, set_cookie};
use super::door::Visitor;
use super::form::Form;
use super::gate::Head;
use super::layout::{self, Frame};
use super::sessions::{Hash, Person, SESSION_LIFETIME};
use super::tokens::TokenFile;
use crate::log::messages::console as messages;
use crate::server::Shared;
use crate::server::control::{Problem, Response};
use crate::settings::ConsoleOptions;
use hyper::header::COOKIE;
use hyper::{HeaderMap, StatusCode};
use maud::html;
use std::path::PathBuf;
use std::time::Instant;

/// The cookie of a session; browsers hold to the promises of the longer name only with HTTPS.
fn cookie_name(is_https: bool) -> &'static str {
    if is_https { "__Host-mtpolicyd" } else { "mtpolicyd" }
}

/// The value of a cookie.
pub fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let lines = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut pairs = lines.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find_map(|(known, value)| (known == name).then_some(value))
}

/// Somebody who is signed in, and what their forms carry.
pub struct SignedIn {
    /// Who it is.
    pub person: Person,
    /// What forms have to carry.
    pub form_token: String,
    /// Whether they can sign out here.
    pub can_leave: bool,
}

/// Who sends a request, if anybody is signed in.
pub fn who(
    visitor: &Visitor,
    headers: &HeaderMap,
    options: &ConsoleOptions,
    shared: &Shared,
) -> Result<Option<SignedIn>, Problem> {
    let sessions = &shared.console.sessions;
    if let Some(user) = &visitor.user {
        let level = options.level_of(user).ok_or_else(|| {
            let text = "you are signed in, but no list of <Console> names you (`read_users` and others)";
            Problem::forbidden(text)
        })?;
        let person = Person { name: user.clone(), level };
        let form_token = sessions.form_token(&format!("user {user}"));
        return Ok(Some(SignedIn { person, form_token, can_leave: false }));
    }
    let Some(secret) = cookie(headers, cookie_name(visitor.is_https)) else { return Ok(None) };
    let person = sessions.find(secret, Instant::now());
    let form_token = sessions.form_token(secret);
    Ok(person.map(|person| SignedIn { person, form_token, can_leave: true }))
}

/// The page with the field for a token.
pub fn form(head: &Head<'_>, status: StatusCode, said: Option<&str>, to: &str) -> Response {
    let frame = Frame::without_person(head, "Sign in");
    let main = html! {
        div class="narrow" {
            h1 { "Sign in" }
            @if let Some(said) = said {
                p class="notice bad" role="alert" { (said) }
            }
            form method="post" action={ (head.root) "login" } class="stack" {
                input type="hidden" name="to" value=(to);
                label for="token" { "Token" }
                input id="token" name="token" type="password" autocomplete="current-password" required
                    spellcheck="false";
                button type="submit" class="primary" { "Sign in" }
            }
            p class="quiet" {
                "Without a token: on the machine, " code { "mtpolicyd console open" }
                " prints a link that signs in once."
            }
        }
    };
    page(status, layout::page(&frame, &main))
}

/// Signs in with a token.
pub async fn with_token(
    head: &Head<'_>,
    fields: &Form,
    options: &ConsoleOptions,
    shared: &Shared,
) -> Result<Response, Problem> {
    let (sessions, client, now) = (&shared.console.sessions, &head.visitor.client, Instant::now());
    let to = layout::safe_target(fields.get("to"));
    if !sessions.may_try(client, now) {
        return Ok(too_often(head, &to));
    }
    let (path, secret) = (PathBuf::from(&options.tokens), fields.get("token").to_owned());
    // A token is not removed between the search and the session.
    let _alone = shared.console.token_file.lock().await;
    let found = tokio::task::spawn_blocking(move || TokenFile(&path).find(&secret)).await;
    let found = found.map_err(|_| Problem::unavailable("a bug in the daemon, see its log"))?;
    let found = found.map_err(|error| Problem::unavailable(error.to_string()))?;
    let Some((person, token)) = found else {
        refused(head, shared, now);
        let said = "This token is not valid, or not any more.";
        return Ok(form(head, StatusCode::FORBIDDEN, Some(said), &to));
    };
    Ok(begin(head, person, Some(token), &to, shared))
}

/// Signs in by a link.
pub fn by_link(head: &Head<'_>, secret: &str, shared: &Shared) -> Response {
    let (sessions, now) = (&shared.console.sessions, Instant::now());
    if !sessions.may_try(&head.visitor.client, now) {
        return too_often(head, "");
    }
    match sessions.redeem(secret, now) {
        Some(person) => begin(head, person, None, "", shared),
        None => {
            refused(head, shared, now);
            let said = "This link is not valid any more: it works once, for a minute.";
            form(head, StatusCode::FORBIDDEN, Some(said), "")
        }
    }
}

fn too_often(head: &Head<'_>, to: &str) -> Response {
    let said = "Too many failures from your address. Wait a minute, then try again.";
    form(head, StatusCode::TOO_MANY_REQUESTS, Some(said), to)
}

fn refused(head: &Head<'_>, shared: &Shared, now: Instant) {
    let client = &head.visitor.client;
    shared.console.sessions.failed(client, now);
    messages::console_refused(client);
    shared.service.load().recorder().journal().audit(client, "was refused by the console");
}

fn begin(head: &Head<'_>, person: Person, token: Option<Hash>, to: &str, shared: &Shared) -> Response {
    let client = &head.visitor.client;
    messages::console_signed_in(&person.name, person.level, client);
    let (who, what) =
        (format!("{} (console)", person.name), format!("signed in to the console from {client}"));
    shared.service.load().recorder().journal().audit(&who, &what);
    let secret = shared.console.sessions.begin(person, token, Instant::now());
    let mut response = see_other(&format!("{}{to}", head.root));
    let is_https = head.visitor.is_https;
    set_cookie(&mut response, cookie_name(is_https), &secret, SESSION_LIFETIME.as_secs(), is_https);
    response
}

/// Signs out.
pub fn leave(head: &Head<'_>, headers: &HeaderMap, person: &Person, shared: &Shared) -> Response {
    let is_https = head.visitor.is_https;
    if let Some(secret) = cookie(headers, cookie_name(is_https)) {
        shared.console.sessions.end(secret);
        let who = format!("{} (console)", person.name);
        shared.service.load().recorder().journal().audit(&who, "signed out of the console");
    }
    let mut response = see_other(&format!("{}login", head.root));
    set_cookie(&mut response, cookie_name(is_https), "", 0, is_https);
    response
}
