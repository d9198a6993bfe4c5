//! One request to the console: who sends it, whether they may, and which page answers.
//!
//! Knows: paths and methods. Must not know: what a page shows.

use super::answer::{guarded, see_other, set_cookie, text, wrong_method};
use super::door::{Entrance, Visitor};
use super::form::Form;
use super::layout::{self, Theme};
use super::sign_in::{self, SignedIn};
use super::{assets, pages};
use crate::server::Shared;
use crate::server::control::{ApiQuestion, Busy, Peer, Problem, Response, ask, read_body};
use bytes::Bytes;
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::header::{ALLOW, HeaderValue};
use hyper::{Method, Request, StatusCode};
use percent_encoding::percent_decode_str;
use serde::de::DeserializeOwned;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

/// The longest body of a request, in bytes.
const MAX_BODY: usize = 64 << 10;
/// A form that takes longer to arrive holds a connection that others want.
const BODY_LIMIT: Duration = Duration::from_secs(10);

/// The longest answer of the API that a page is made of, in bytes.
const MAX_ANSWER: usize = 16 << 20;

/// How long somebody's choice of colors is kept, in seconds.
const THEME_SECONDS: u64 = 365 * 86_400;

/// What is known of every request.
pub struct Head<'a> {
    /// Who sends it.
    pub visitor: &'a Visitor,
    /// The way to the first page, as links are relative.
    pub root: &'static str,
    /// The path and the query, without the way.
    pub here: String,
    /// The colors that the browser has chosen.
    pub theme: Theme,
}

/// A request of somebody who is signed in.
pub struct Visit<'a> {
    /// What is known of every request.
    pub head: Head<'a>,
    /// Who it is.
    pub who: SignedIn,
    /// What stands behind the question mark.
    pub query: Form,
    /// The daemon.
    pub shared: Arc<Shared>,
    /// The connection is not idle while this is kept.
    pub busy: Arc<Busy>,
}

impl Visit<'_> {
    /// Asks what commands ask at the control socket, with the rights of whoever is signed in.
    pub async fn ask(&self, path: &str, query: &str) -> Result<Response, Problem> {
        let peer = Peer::at_console(&self.who.person.name, self.who.person.level);
        let question = ApiQuestion { method: "GET", path, query };
        let body = async { Ok(Bytes::new()) };
        ask(question, body, peer, self.shared.clone(), Some(self.busy.clone())).await
    }

    /// The same, as a value.
    pub async fn get<T: DeserializeOwned>(&self, path: &str, query: &str) -> Result<T, Problem> {
        let answer = self.ask(path, query).await?;
        let bug = || Problem::unavailable("a bug in the daemon: what it answers can't be read");
        let body = Limited::new(answer.into_body(), MAX_ANSWER).collect().await.map_err(|_| bug())?;
        serde_json::from_slice(&body.to_bytes()).map_err(|_| bug())
    }
}

/// What a path leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    Asset(String),
    Link(String),
    Login,
    Logout,
    Theme,
    Home,
    Find,
    Decisions,
    DecisionsJson,
    DecisionsCsv,
    Live,
    Decision(String),
}

impl Place {
    fn of(path: &str) -> Option<(Place, &'static str)> {
        let parts: Vec<_> = path.strip_prefix('/')?.split('/').collect();
        let text = |part: &str| percent_decode_str(part).decode_utf8().ok().map(|text| text.into_owned());
        let place = match parts.as_slice() {
            [""] => Place::Home,
            ["login"] => Place::Login,
            ["logout"] => Place::Logout,
            ["theme"] => Place::Theme,
            ["find"] => Place::Find,
            ["decisions"] => Place::Decisions,
            ["decisions.json"] => Place::DecisionsJson,
            ["decisions.csv"] => Place::DecisionsCsv,
            ["live"] => Place::Live,
            ["assets", name] => Place::Asset(text(name)?),
            ["open", secret] => Place::Link(text(secret)?),
            ["decisions", id] => Place::Decision(text(id)?),
            _ => return None,
        };
        Some((place, if parts.len() > 1 { "../" } else { "./" }))
    }

    /// The methods that it has.
    fn methods(&self) -> &'static str {
        match self {
            Place::Login => "GET, HEAD, POST",
            Place::Logout | Place::Theme => "POST",
            _ => "GET, HEAD",
        }
    }
}

/// Answers a request, whatever it is.
pub async fn answer(
    request: Request<Incoming>,
    entrance: &Entrance,
    shared: Arc<Shared>,
    busy: Arc<Busy>,
) -> Response {
    let theme = Theme::of(sign_in::cookie(request.headers(), layout::THEME_COOKIE));
    let found = Place::of(request.uri().path());
    let (root, allowed) = found.as_ref().map_or(("./", None), |(place, root)| (*root, Some(place.methods())));
    let answer = dispatch(request, found, entrance, (shared, busy), theme).await;
    let mut response = answer.unwrap_or_else(|problem| layout::problem(&problem, root, theme));
    if response.status() == StatusCode::METHOD_NOT_ALLOWED
        && let Some(allowed) = allowed
    {
        response.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
    }
    guarded(response)
}

async fn dispatch(
    request: Request<Incoming>,
    found: Option<(Place, &'static str)>,
    entrance: &Entrance,
    (shared, busy): (Arc<Shared>, Arc<Busy>),
    theme: Theme,
) -> Result<Response, Problem> {
    let options = shared.service.load().settings.console.clone();
    let options = options.ok_or_else(|| Problem::unavailable("there is no console any more"))?;
    let (parts, body) = request.into_parts();
    let visitor = Visitor::of(&parts.headers, entrance, &options)?;
    let (place, root) = found.ok_or_else(|| Problem::not_found("there is no such page"))?;
    let is_post = parts.method == Method::POST;
    let is_get = matches!(parts.method, Method::GET | Method::HEAD);
    if !place.methods().split(", ").any(|method| method == parts.method.as_str()) {
        return Err(wrong_method(place.methods()));
    }
    let query = parts.uri.query().unwrap_or_default();
    let path = parts.uri.path().trim_start_matches('/');
    let here = if query.is_empty() { path.to_owned() } else { format!("{path}?{query}") };
    let head = Head { visitor: &visitor, root, here, theme };
    if let Place::Asset(name) = &place {
        return assets::answer(name, &parts.headers).ok_or_else(|| Problem::not_found("no such file"));
    }
    let fields = if is_post {
        visitor.check_origin(&parts.headers)?;
        let late = |_| Problem {
            status: StatusCode::REQUEST_TIMEOUT,
            text: "the form took too long to arrive".to_owned(),
        };
        let body = timeout(BODY_LIMIT, read_body(body, MAX_BODY)).await.map_err(late)??;
        Form::parse(&String::from_utf8_lossy(&body))?
    } else {
        Form::default()
    };
    let query = Form::parse(query)?;
    match &place {
        Place::Login if is_post => return sign_in::with_token(&head, &fields, &options, &shared).await,
        Place::Link(secret) => return Ok(sign_in::by_link(&head, secret, &shared)),
        _ => {}
    }
    let who = sign_in::who(&visitor, &parts.headers, &options, &shared)?;
    if place == Place::Login {
        let to = layout::safe_target(query.get("to"));
        return Ok(match who {
            Some(_) => see_other(&format!("{root}{to}")),
            None => sign_in::form(&head, StatusCode::OK, None, &to),
        });
    }
    let Some(who) = who else { return not_signed_in(&head, &place, is_get) };
    if is_post && fields.get("form") != who.form_token {
        return Err(Problem::forbidden("this form is not from this sign-in; open the page again"));
    }
    if place == Place::Logout {
        return Ok(sign_in::leave(&head, &parts.headers, &who.person, &shared));
    }
    if place == Place::Theme {
        return Ok(choose_theme(&head, &fields));
    }
    show(&place, Visit { head, who, query, shared, busy }).await
}

/// A page, for somebody who is signed in.
async fn show(place: &Place, visit: Visit<'_>) -> Result<Response, Problem> {
    match place {
        Place::Home => pages::overview::answer(&visit).await,
        Place::Find => Ok(pages::find::answer(&visit)),
        Place::Decisions => pages::decisions::answer(&visit).await,
        Place::DecisionsJson => pages::export::json(&visit).await,
        Place::DecisionsCsv => pages::export::csv(&visit).await,
        Place::Live => pages::live::answer(&visit).await,
        Place::Decision(id) => pages::decision::answer(&visit, id).await,
        Place::Asset(_) | Place::Link(_) | Place::Login | Place::Logout | Place::Theme => {
            Err(Problem::not_found("there is no such page"))
        }
    }
}

/// A page leads to the sign-in and back; what a program reads says why there is nothing.
fn not_signed_in(head: &Head<'_>, place: &Place, is_get: bool) -> Result<Response, Problem> {
    let is_page = matches!(place, Place::Home | Place::Find | Place::Decisions | Place::Decision(_));
    if is_get && is_page {
        let to = Form::default().with("to", &layout::safe_target(&head.here)).query();
        let question = if to.is_empty() { "" } else { "?" };
        return Ok(see_other(&format!("{}login{question}{to}", head.root)));
    }
    Ok(text(StatusCode::FORBIDDEN, "text/plain; charset=utf-8", "not signed in\n".to_owned()))
}

fn choose_theme(head: &Head<'_>, fields: &Form) -> Response {
    let theme = Theme::of(Some(fields.get("theme")));
    let mut response = see_other(&format!("{}{}", head.root, layout::safe_target(fields.get("to"))));
    let is_https = head.visitor.is_https;
    set_cookie(&mut response, layout::THEME_COOKIE, theme.name(), THEME_SECONDS, is_https);
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_leads_somewhere_and_back() {
        assert_eq!(Place::of("/"), Some((Place::Home, "./")));
        assert_eq!(Place::of("/decisions/9F3KQ-2M7TX").map(|(_, root)| root), Some("../"));
        for nowhere in
            ["", "decisions", "//", "/decisions/", "/decisions/a/b", "/../login", "/open/%ff", "/x"]
        {
            let found = Place::of(nowhere);
            assert!(found.is_none() || nowhere == "/decisions/", "{nowhere}: {found:?}");
        }
        for place in [Place::Logout, Place::Theme] {
            assert!(!place.methods().contains("GET"), "{place:?} changes something");
        }
    }
}
