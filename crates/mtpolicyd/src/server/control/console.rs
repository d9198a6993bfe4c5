//! How people get into the console: links that work once, and tokens.
//!
//! Knows: what is asked for, and by whom. Must not know: pages, how a session is kept.

use super::call::{Answer, Call, Problem, ok};
use super::decisions::off_the_runtime;
use crate::log::messages::console as messages;
use crate::server::console::{LINK_LIFETIME, Person, TokenError, TokenFile};
use crate::settings::{ConsoleOptions, Level};
use crate::value::Value;
use decisions::rfc3339;
use hyper::StatusCode;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::time::{Instant, SystemTime};

/// A link that signs in once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConsoleLinkView {
    /// What comes behind the address of the console.
    pub path: String,
    /// The whole link; `None` if only a web server in front of the console knows.
    pub url: Option<String>,
    /// For how long it works.
    pub seconds: u64,
    /// Who is signed in by it.
    pub name: String,
    /// What they may do.
    pub level: String,
}

/// The tokens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokensView {
    /// In the order in which they were made.
    pub tokens: Vec<TokenView>,
}

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenView {
    /// Whose it is.
    pub name: String,
    /// What it allows.
    pub level: String,
    /// When it was made, in RFC 3339.
    pub created: String,
}

/// A new token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenAddedView {
    /// Whose it is.
    pub name: String,
    /// What it allows.
    pub level: String,
    /// The token.
    pub token: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WantedLink {
    #[serde(default)]
    level: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WantedToken {
    name: String,
    level: String,
}

pub(super) async fn link(call: Call) -> Answer {
    let WantedLink { level } = call.json()?;
    let options = options(&call)?;
    let own = call.level().ok_or_else(|| Problem::forbidden("you may do nothing"))?;
    let level = level.map_or(Ok(own), |level| read_level(&level))?;
    if !own.includes(level) {
        return Err(Problem::forbidden(format!("you have level {own}, a link can't have {level}")));
    }
    let name = call.peer.name().await;
    call.audit(&format!("made a link to the console, level {level}")).await;
    messages::console_link(&name, level);
    let person = Person { name: name.clone(), level };
    let path = format!("open/{}", call.shared.console.sessions.offer(person, Instant::now()));
    let url = options.shown_url().map(|url| format!("{url}{path}"));
    let (seconds, level) = (LINK_LIFETIME.as_secs(), level.to_string());
    ok(&ConsoleLinkView { path, url, seconds, name, level })
}

pub(super) async fn tokens(call: Call) -> Answer {
    let path = PathBuf::from(options(&call)?.tokens);
    let tokens = off_the_runtime(move || TokenFile(&path).read()).await?.map_err(problem)?;
    let tokens = tokens.into_iter().map(|token| TokenView {
        name: token.person.name,
        level: token.person.level.to_string(),
        created: token.created,
    });
    ok(&TokensView { tokens: tokens.collect() })
}

pub(super) async fn add_token(call: Call) -> Answer {
    let WantedToken { name, level } = call.json()?;
    let (path, level) = (PathBuf::from(options(&call)?.tokens), read_level(&level)?);
    let person = Person { name: name.clone(), level };
    let created = rfc3339(SystemTime::now());
    let token = {
        let _alone = call.shared.console.token_file.lock().await;
        off_the_runtime(move || TokenFile(&path).add(person, created)).await?.map_err(problem)?
    };
    call.audit(&format!("made token {name} of the console, level {level}")).await;
    messages::console_token_added(call.peer.name().await, &name, level);
    ok(&TokenAddedView { name, level: level.to_string(), token })
}

pub(super) async fn remove_token(call: Call) -> Answer {
    let (path, name) = (PathBuf::from(options(&call)?.tokens), call.segment().to_owned());
    let removed = {
        let (_alone, name) = (call.shared.console.token_file.lock().await, name.clone());
        off_the_runtime(move || TokenFile(&path).remove(&name)).await?.map_err(problem)?
    };
    call.shared.console.sessions.end_of_token(&removed);
    call.audit(&format!("removed token {name} of the console")).await;
    messages::console_token_removed(call.peer.name().await, &name);
    ok(&serde_json::json!({ "removed": name }))
}

fn options(call: &Call) -> Result<ConsoleOptions, Problem> {
    let options = call.shared.service.load().settings.console.clone();
    options.ok_or_else(|| Problem::not_found("there is no console: the configuration has no block <Console>"))
}

fn read_level(text: &str) -> Result<Level, Problem> {
    Level::parse(text).map_err(|why| Problem::bad(format!("level: {why}")))
}

fn problem(error: TokenError) -> Problem {
    let status = match &error {
        TokenError::Name => StatusCode::BAD_REQUEST,
        TokenError::Exists(_) | TokenError::Full => StatusCode::CONFLICT,
        TokenError::Unknown(_) => StatusCode::NOT_FOUND,
        TokenError::File { .. } => StatusCode::SERVICE_UNAVAILABLE,
    };
    Problem { status, text: error.to_string() }
}
