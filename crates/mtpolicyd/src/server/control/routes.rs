//! What can be asked at the control socket: one table, of which the answers and the manual are made.
//!
//! Knows: paths, levels, documentation. Must not know: how an answer comes about.

use super::call::{Answer, Busy, Call, Problem, Response};
use super::peer::Peer;
use super::query::{self, Query};
use super::{activity, audit, change, console, decisions, events, explain, forget, shadow, state, status};
use crate::server::Shared;
use crate::settings::Level;
use bytes::Bytes;
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::header::{ALLOW, HeaderValue};
use hyper::{Request, StatusCode};
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

/// The longest body of a request, in bytes: a configuration that is to be tried fits in.
const MAX_BODY: usize = 1 << 20;

/// How long a request may take, from its head to the head of its answer, where the table says nothing else.
const USUAL_LIMIT: u64 = 10;

/// One thing that can be asked.
pub struct Route {
    /// The method of HTTP.
    pub method: &'static str,
    /// The path; a segment `{name}` stands for any.
    pub path: &'static str,
    /// What the caller has to be allowed.
    pub level: Level,
    /// What it does, for the manual.
    pub doc: &'static str,
    limit: Duration,
    answer: fn(Call) -> Pin<Box<dyn Future<Output = Answer> + Send>>,
}

/// Declares the table: documentation, method, path, level, for how many seconds at most, and what answers.
macro_rules! routes {
    ($($(#[doc = $doc:literal])+ $method:ident $path:literal $Level:ident $(within $limit:literal)?
        => $answer:path;)+) => {
        &[$(Route {
            method: stringify!($method),
            path: $path,
            level: Level::$Level,
            doc: concat!($($doc, "\n"),+),
            limit: Duration::from_secs(routes!(@limit $($limit)?)),
            answer: |call| Box::pin($answer(call)),
        }),+]
    };
    (@limit $limit:literal) => { $limit };
    (@limit) => { USUAL_LIMIT };
}

/// Everything that can be asked.
pub const ROUTES: &[Route] = routes! {
    /// How the daemon is: version, configuration, hosts, ports, connections, backends, decisions that are
    /// kept. `ready` says whether it can do its work, and `problems` why not.
    GET "/v1/status" Read => status::status;
    /// All numbers of the daemon, which `docs/metrics.md` explains: `families`, each with `name`, `type`,
    /// `unit`, `help` and `series`, of which each has `labels` and `value`; of a histogram the value is the
    /// number of observations, with their `sum` and `buckets`.
    GET "/v1/metrics.json" Read => status::metrics;
    /// The configuration in use: the file, its hash, the virtual hosts and their plugins with their options.
    /// Values that may be secret are not shown.
    GET "/v1/config" Read => status::config;
    /// Decisions, the newest first: `decisions`, `next` if there are more, and `kept`, which says what was
    /// searched. A search that takes longer than some seconds ends with `unfinished`, and `next` goes on; an
    /// answer may have no decisions then. `problems` says what could not be searched. Those to which
    /// everything applies that the query gives: `from`, `to`, `client`, `client_name`, `login`, `helo`,
    /// `queue`, `instance`, `plugin`, `outcome` (several with commas), `host`, `since` and `until` (an
    /// identifier, a time as in RFC 3339, or how long ago: `2d`), `slower` (microseconds), `failed=1`,
    /// `shadow_differs=1`, `text`, and `about`, an address or a login that occurs anywhere. `limit` is at
    /// most 1000, by default 100; `before` is the `next` of the answer before.
    GET "/v1/decisions" Read => decisions::search;
    /// One decision by its identifier, with what each plugin did and what was asked of servers; with
    /// `walk=0` without that.
    GET "/v1/decisions/{id}" Read => decisions::one;
    /// Removes every decision in which an address or a login occurs, in the journal and in memory. The body
    /// is `{"address": "bob@example.org"}`; the answer says how many decisions of the `journal` and of those
    /// in `memory` were removed. It can't be undone.
    POST "/v1/forget" Admin within 610 => forget::forget;
    /// Who searched decisions or changed something by hand, the newest first, as far as there is a journal:
    /// `audits`, each with `time`, `who` and `what`. `limit` is at most 10000, by default 100.
    GET "/v1/audit" Admin => audit::audits;
    /// Decisions as they are made, as server-sent events, filtered as above; with `walk=1` each with what
    /// every plugin did. What a reader does not take in time it misses: an event `lagged` tells how many.
    GET "/v1/tail" Read => decisions::tail;
    /// What an administrator was told, the newest first, and who is told: `events`, each with `id`, `time`,
    /// `kind`, `state` (`begins`, `ends`, `digest` or `test`), `level`, `source`, `key`, `text` and `advice`;
    /// and `receivers`, each with `name`, `way`, how many events are `waiting` and were `delivered`, `failed`
    /// and `dropped`, and the `problem` if it takes none. With a journal they are those of the file, else the
    /// last 1000 since the start. `kind` selects one kind; `limit` is at most 10000, by default 100.
    GET "/v1/events" Read => events::events;
    /// Sends an event that says nothing to each receiver, or to the one that the body names: `{"name":
    /// "ops"}`. The answer has `tests`, each with `name`, `delivered` and the `error` if it was not taken.
    POST "/v1/events/test" Change within 180 => events::test;
    /// What was done in the last `seconds` (by default 60, at most 3600), as far as decisions are kept:
    /// requests, outcomes, times, plugins. With `slices`, at most 240, also the outcomes of as many parts of
    /// the time.
    GET "/v1/activity" Read => activity::activity;
    /// How the shadows of virtual hosts fare: `shadows`, each with its `host`, `file`, `since` when it has
    /// run, how many requests were `compared`, how many of them `differ`, and how many were not compared:
    /// `dropped` (too many at once) and `left_out` (they can't be decided again). One that can't be used has
    /// a `problem`.
    GET "/v1/shadow" Read => shadow::shadows;
    /// What would be decided about a request, with what each plugin would do. The body is `{"request":
    /// {"client_address": ...}, "host": NAME, "without": [PLUGIN], "configuration": PATH}`, of which only
    /// `request` is needed. Questions are asked of servers; nothing is changed, counted or sent, and `would`
    /// says what a request would have done. `configuration`, another file, is for administrators.
    POST "/v1/explain" Change within 120 => explain::explain;
    /// Reads the configuration file again and waits for the result: `reloaded`, what there is to say about
    /// the file as `messages` and as `text` for a terminal, and `error` for another reason. With mistakes
    /// the status is 422 and the old configuration stays in use.
    POST "/v1/reload" Admin within 300 => change::reload;
    /// Starts the program again, which may be a new version, and has it take over the ports, as SIGUSR2 does;
    /// waits until it answers requests: `process` is its number. If it does not start, the status is 422,
    /// `error` says why, and the old process stays in service.
    POST "/v1/handover" Admin within 100 => change::hand_over;
    /// Makes a link that signs in to the console once, within 60 seconds, with the name and the level of the
    /// caller. The body is `{}`, or `{"level": "read"}` for a lower level. The answer has the `path` of the
    /// link, and its `url` as far as the address of the console is known.
    POST "/v1/console/links" Change => console::link;
    /// The tokens that sign in to the console: `tokens`, each with `name`, `level` and when it was `created`.
    /// What they are is known to nobody: only their hashes are kept.
    GET "/v1/console/tokens" Admin => console::tokens;
    /// Makes a token that signs in to the console. The body is `{"name": "alice", "level": "read"}`; the
    /// answer has the `token`, which is shown this once. Levels are `read`, `change` and `admin`.
    POST "/v1/console/tokens" Admin => console::add_token;
    /// Removes a token of the console and signs out whoever has used it.
    DELETE "/v1/console/tokens/{name}" Admin => console::remove_token;
    /// Changes how much is logged. The body is `{"level": 4, "seconds": 600}`: after that time the level of
    /// the configuration returns. Without `seconds` the level stays until the next reload.
    POST "/v1/log-level" Change => change::log_level;
    /// How the DNS lists fare: `lists`, each with its `state` (`well`, `silent`, `refused`, `lists-nothing`,
    /// `lists-everybody`, `not-testable`), `since` when, when it was `tested`, and whether it is
    /// `quarantined`, which two bad rounds of tests do and a good one ends. Parameters: `name`, the zone of a
    /// list or the name of a plugin; `test=1` asks the lists now about the names that every list has and must
    /// not have (RFC 5782, section 5), which is a round.
    GET "/v1/state/lists" Read => state::lists;
    /// What plugins remember: `{kind}` is `greylist`, `awl`, `quota`, `limits` or `honeypot`. Parameters that
    /// select entries: `plugin`, `key`, `client`, `from`, `to`, `domain`, `period` and `over` (percent); and
    /// `limit`, the number of entries on a page. The answer has `entries`, `next` (the `cursor` of the next
    /// page; a page may be empty though there is one) and `notes` about what can't be listed.
    GET "/v1/state/{kind}" Read => state::list;
    /// Changes what a plugin remembers. The body has `select`, with the parameters above (`sender` and
    /// `recipient` instead of `from` and `to`), and `change`: `{"action": "reset", "parts": ["1h"]}`,
    /// `{"action": "set", "values": {"1h": 200}, "lifetime": 3600}` or `{"action": "allow"}`. With
    /// `"all": true` it may be several entries; otherwise the status is 409 if there are. The answer has
    /// `changed`: what was done to each entry, and the body that undoes it as `undo`.
    POST "/v1/state/{kind}" Change => state::change;
};

/// Answers a request, whatever it is.
pub async fn answer(
    request: Request<Incoming>,
    peer: Peer,
    shared: Arc<Shared>,
    busy: Arc<Busy>,
) -> Result<Response, Infallible> {
    let (head, body) = request.into_parts();
    let (method, path) = (head.method.as_str(), head.uri.path());
    let question = Question { method, path, query: head.uri.query().unwrap_or_default() };
    let answer = ask(question, read_body(body, MAX_BODY), peer, shared, Some(busy)).await;
    Ok(answer.unwrap_or_else(Problem::into_response))
}

/// What is asked.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// The method of HTTP.
    pub method: &'a str,
    /// The path.
    pub path: &'a str,
    /// What is behind the question mark.
    pub query: &'a str,
}

/// Answers a question that may have come in another way than by a connection to the socket.
pub async fn ask(
    question: Question<'_>,
    body: impl Future<Output = Result<Bytes, Problem>>,
    peer: Peer,
    shared: Arc<Shared>,
    busy: Option<Arc<Busy>>,
) -> Answer {
    let Question { method, path, query } = question;
    let here: Vec<_> = ROUTES.iter().filter_map(|route| Some((route, segments(route.path, path)?))).collect();
    if here.is_empty() {
        return Err(Problem::not_found(format!("there is no {path} here")));
    }
    let Some((route, segments)) = here.iter().find(|(route, _)| route.method == method) else {
        return Ok(wrong_method(method, &here.iter().map(|(route, _)| route.method).collect::<Vec<_>>()));
    };
    let has = peer.level(shared.service.load().settings.control.group_level);
    if !has.is_some_and(|has| has.includes(route.level)) {
        return Err(refusal(&peer, has, route.level).await);
    }
    let query = Query::parse(query)?;
    let answer = async {
        let body = body.await?;
        (route.answer)(Call { shared, peer, query, body, segments: segments.clone(), busy }).await
    };
    let limit = route.limit;
    let late = || Problem::unavailable(format!("no answer within {} seconds", limit.as_secs()));
    tokio::time::timeout(limit, answer).await.unwrap_or_else(|_| Err(late()))
}

/// What stands for the `{name}`s of a path; `None` if it is another path.
fn segments(pattern: &str, path: &str) -> Option<Vec<String>> {
    let (mut wanted, mut given) = (pattern.split('/'), path.split('/'));
    let mut found = Vec::new();
    loop {
        match (wanted.next(), given.next()) {
            (None, None) => return Some(found),
            (Some(wanted), Some(given)) if wanted.starts_with('{') && !given.is_empty() => {
                found.push(query::decode(given).ok()?);
            }
            (Some(wanted), Some(given)) if wanted == given => {}
            _ => return None,
        }
    }
}

fn wrong_method(method: &str, allowed: &[&str]) -> Response {
    let allowed = allowed.join(", ");
    let text = format!("{method} is not possible here, only {allowed}");
    let mut response = Problem { status: StatusCode::METHOD_NOT_ALLOWED, text }.into_response();
    if let Ok(allowed) = HeaderValue::from_str(&allowed) {
        response.headers_mut().insert(ALLOW, allowed);
    }
    response
}

async fn refusal(peer: &Peer, has: Option<Level>, needed: Level) -> Problem {
    let name = peer.name().await;
    let why = match has {
        Some(has) => format!("you are {name} and have level {has}, this needs {needed}"),
        None => format!("you are {name}; {} may", peer.allowed().await),
    };
    Problem::forbidden(why)
}

/// The whole body of a request, of at most this many bytes.
pub async fn read_body(body: Incoming, most: usize) -> Result<Bytes, Problem> {
    match Limited::new(body, most).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<http_body_util::LengthLimitError>() => {
            let text = format!("the body is longer than {most} bytes");
            Err(Problem { status: StatusCode::PAYLOAD_TOO_LARGE, text })
        }
        Err(error) => Err(Problem::bad(format!("the body can't be read: {error}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_in_braces_stands_for_any() {
        let all = |pattern, path| segments(pattern, path).map(|found| found.join("|"));
        assert_eq!(all("/v1/status", "/v1/status").as_deref(), Some(""));
        assert_eq!(all("/v1/state/{kind}/{key}", "/v1/state/awl/a%2Fb%40c").as_deref(), Some("awl|a/b@c"));
        for other in
            ["/v1/state/awl", "/v1/state/awl/", "/v1/state/awl/b/c", "/v1/state//b", "/v1/state/a/%ff"]
        {
            assert_eq!(all("/v1/state/{kind}/{key}", other), None, "{other}");
        }
    }

    #[test]
    fn every_route_is_explained_and_can_be_told_apart() {
        for (number, route) in ROUTES.iter().enumerate() {
            let doc = route.doc.trim();
            assert!(doc.len() > 40 && doc.ends_with('.'), "{} {}: {doc}", route.method, route.path);
            assert!(["GET", "POST", "PUT", "DELETE"].contains(&route.method), "{}", route.method);
            assert!(route.path.starts_with("/v1/"), "{}", route.path);
            assert!(route.method == "GET" || route.level != Level::Read || route.path == "/v1/explain");
            let before = &ROUTES[..number];
            let same = |other: &&Route| other.method == route.method && other.path == route.path;
            assert!(!before.iter().any(|other| same(&other)), "{} {}", route.method, route.path);
        }
    }
}
