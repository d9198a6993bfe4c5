//! `HttpLookup`: what does a service of the administrator's say about this message?

mod answers;
mod attributes;

use crate::facts::lookup_service::{LookupAnswer, MAX_ANSWER_BYTES};
use crate::log::messages::{findings, plugins};
use crate::options::{Flow, UserConfig, options};
use crate::plugin::{Cx, Error, Plugin, Setup, Verdict};
use crate::scoring::ScoreField;
use crate::session::RECIPIENT;
use crate::value::{NonZeroSeconds, Score, Seconds, words};
use answers::{Answers, Known};
use attributes::Attributes;
use backends::http::{HttpService, HttpSettings, Post, Url};
use backends::{BackendError, Call, OptionError, Secret};
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::time::timeout_at;

options! {
    /// Asks a web service of your own about the message, over HTTP or HTTPS.
    ///
    /// It sends attributes of the request as a JSON object, by POST:
    ///
    /// ```json
    /// {"client_address": "192.0.2.1", "recipient": "bob@example.net", "sender": "alice@example.org"}
    /// ```
    ///
    /// `sender` and `recipient` are the addresses that Postfix will understand (`ceo@victim.example` for
    /// `victim.example!ceo`), their domains in lower case and in ASCII; `raw_sender` and `raw_recipient` are
    /// the values as sent in the request.
    ///
    /// The service answers with status 200 and a JSON object, whose members are all optional and may be
    /// `null`:
    ///
    /// ```json
    /// {"action": "reject not today", "score": 2.5, "user": {"spf_mode": "passive", "limit": 50}}
    /// ```
    ///
    /// `action`, a string, is the answer to Postfix and ends the chain. Without it, the chain goes on.
    ///
    /// `score`, a number, is added to the score: once per message, or once per recipient if the answer
    /// depends on the recipient (that is, if it is among `cache_key` or, without one, among `attributes`).
    ///
    /// `user` has settings for the `uc_` options of the plugins after it and for `session:NAME` in a
    /// Condition: strings, numbers, booleans (`1`, `0`). They replace the settings of the previous answer,
    /// even if there are none. A setting can't replace a score or a plugin's result.
    ///
    /// Status 204 means that the service has no opinion. Everything else is an error, and `on_error`
    /// decides: any other status (even 404, which a wrong path would give), text that is not such an object,
    /// a member of the wrong type, an action of more than 2048 bytes, an answer of more than 64 KiB, no
    /// answer in time. Status 400, 413, 414, 422 or 431 means that the service can't handle the content of
    /// this message: then `on_bad_request` decides. Nothing of such an answer is used. Unknown members are
    /// ignored with a warning.
    ///
    /// An answer is cached for `cache_ttl`, or for less if the service says so (`Cache-Control: max-age=10`
    /// or `no-store`), also across a reload that does not change the plugin. Identical requests at the same
    /// time share one query. The cached answers of a plugin take at most 32 MB of memory; beyond it the least
    /// recently used are evicted.
    ///
    /// ```conf
    /// <Plugin lookup>
    ///   module = "HttpLookup"
    ///   url = "http://127.0.0.1:8081/mail"
    ///   attributes = "client_address, sender, recipient"
    ///   timeout = 2
    ///   on_error = "continue"
    /// </Plugin>
    /// ```
    pub struct HttpLookupOptions {
        /// The URL of the service. `http://USER:PASSWORD@HOST/` logs in. Redirects are not followed.
        url: Url,
        + enabled,
        /// Whether to use `action` (`active`) or only log it (`passive`). Score and settings count in any
        /// case.
        mode: UserConfig<Mode> = Mode::Active,
        /// The attributes to send, separated by commas, or `*` for all of the request. Those that Postfix
        /// did not send are omitted.
        attributes: Attributes = Attributes::named(&DEFAULT_ATTRIBUTES),
        /// The attributes on which the answer depends; the default is all that are sent. An answer is used
        /// again for requests that have the same values in these attributes.
        cache_key: Option<Attributes>,
        /// How long to cache an answer, including an empty one; `0` turns the cache off. Failures are not
        /// cached.
        cache_ttl: Seconds = Seconds::of(300),
        score_field: ScoreField,
        /// A token for the service, sent as `Authorization: Bearer TOKEN`.
        token: Option<Secret>,
        /// The path of a UNIX socket to connect to instead of the host in the URL.
        socket_path: Option<String>,
        /// Maximum time for the service to answer, including the connection. The deadline of the request
        /// applies in any case.
        timeout: NonZeroSeconds = NonZeroSeconds(Seconds::of(5)),
        /// A PEM file of certificate authorities to trust for `https://` in addition to those of the system.
        tls_ca: Option<String>,
    }
}

/// Default of `attributes`: client, sender and recipient, and nothing that is different for each message.
const DEFAULT_ATTRIBUTES: [&str; 6] =
    ["client_address", "client_name", "helo_name", "sender", "recipient", "sasl_username"];

words! {
    /// Whether the action of the service is obeyed.
    pub enum Mode {
        /// Its action is the answer.
        Active = "active",
        /// Its action is only noted.
        Passive = "passive",
    } else Passive
}

/// Maximum number of different unknown members to warn about, each once.
const MAX_WARNED: usize = 20;

pub struct HttpLookup {
    name: String,
    options: HttpLookupOptions,
    service: HttpService,
    answers: Answers,
    /// The unknown members that were warned of.
    warned: Mutex<BTreeSet<String>>,
}

impl Plugin for HttpLookup {
    const NAME: &'static str = "HttpLookup";
    type Options = HttpLookupOptions;

    fn new(options: HttpLookupOptions, setup: &mut Setup<'_, '_>) -> Option<HttpLookup> {
        options.attributes.check("attributes", setup);
        if let Some(key) = &options.cache_key {
            key.check("cache_key", setup);
        } else if options.attributes.is_all() && options.cache_ttl > Seconds::default() {
            let why =
                "no answer is used for another message, since `instance` is different; name a `cache_key`";
            setup.section.warn("attributes", why);
        }
        if options.token.as_ref().is_some_and(|token| token.0.trim().is_empty()) {
            return setup.refuse(OptionError::new("token", "it is empty"));
        }
        let settings = HttpSettings {
            url: options.url.clone(),
            socket_path: options.socket_path.as_ref().map(PathBuf::from),
            token: options.token.clone(),
            tls_ca: options.tls_ca.clone(),
            timeout: options.timeout.0.duration(),
            max_answer_bytes: MAX_ANSWER_BYTES,
        };
        setup.section.note_flow("url", Flow::SetsAny);
        let service = setup.http(settings.clone())?;
        let question = (settings, options.attributes.clone(), options.cache_key.clone(), options.cache_ttl);
        let answers = setup.carried_over(question, |_| Answers::default());
        let (name, warned) = (setup.name.to_owned(), Mutex::default());
        Some(HttpLookup { name, options, service, answers, warned })
    }

    /// Whatever comes of it, the settings of the answer before hold no longer.
    fn skip(&self, cx: &mut Cx<'_>) {
        cx.session.load_settings(&self.name, []);
    }

    async fn run(&self, cx: &mut Cx<'_>) -> Result<Verdict, Error> {
        let options = &self.options;
        self.skip(cx);
        let decisive = options.cache_key.as_ref().unwrap_or(&options.attributes);
        if decisive.has(RECIPIENT) || decisive.has("raw_recipient") {
            cx.session.depend_on(RECIPIENT);
        }
        let key = decisive.key(cx.request);
        let body = options.attributes.to_json(cx.request);
        // Whoever waits for the question of another has no more time than if it had asked.
        let call = cx.call.at_most(options.timeout.0.duration());
        let found = timeout_at(call.deadline(), async {
            // What is remembered here is of another time than the one that is replayed.
            match call.replay() {
                Some(_) => self.ask(body, call).await,
                None => self.answers.get(key, self.ask(body, call)).await,
            }
        })
        .await;
        let known = found.unwrap_or_else(|_| Err(self.service.timed_out()))?;
        let Some(answer) = known.answer.as_deref() else {
            cx.note(findings::no_opinion());
            return Ok(Verdict::Next);
        };
        let settings = answer.user.iter().map(|(name, text)| (name.as_str(), text.as_str()));
        cx.session.load_settings(&self.name, settings);
        if let Some(score) = answer.score.filter(|score| *score != 0.0) {
            options.score_field.add_once(cx.session, &Score::from(score));
        }
        let mode = options.mode.get(cx.session);
        note(answer, mode, cx);
        Ok(match &answer.action {
            Some(action) if mode == Mode::Active => Verdict::Stop(action.clone()),
            _ => Verdict::Next,
        })
    }
}

impl HttpLookup {
    async fn ask(&self, body: Vec<u8>, call: Call<'_>) -> Result<Known, BackendError> {
        const JSON: &str = "application/json";
        let post = Post { content_type: JSON, accept: JSON, headers: Vec::new(), body };
        let answer = self.service.post(post, call).await?;
        let kept: Duration = self.options.cache_ttl.duration();
        let ttl = answer.max_age.map_or(kept, |bound| kept.min(bound));
        match answer.status {
            200 => {
                let read = LookupAnswer::read(&answer.body);
                let answer = read.map_err(|why| self.service.refuse(format!("the answer is bad: {why}")))?;
                self.warn_of_unknown(&answer.unknown);
                Ok(Known::new(Some(answer), ttl))
            }
            204 => Ok(Known::new(None, ttl)),
            // The service blames the question, which senders write.
            status @ (400 | 413 | 414 | 422 | 431) => {
                Err(self.service.refuse_value(format!("the answer has status {status}")))
            }
            status => Err(self.service.refuse(format!("the answer has status {status}"))),
        }
    }

    fn warn_of_unknown(&self, names: &[String]) {
        let mut warned = self.warned.lock().unwrap_or_else(PoisonError::into_inner);
        for name in names {
            if warned.len() < MAX_WARNED && warned.insert(name.clone()) {
                plugins::unknown_member(&self.name, name);
            }
        }
    }
}

fn note(answer: &LookupAnswer, mode: Mode, cx: &mut Cx<'_>) {
    let action = match (&answer.action, mode) {
        (None, _) => "no action".to_owned(),
        (Some(action), Mode::Active) => format!("`{action}`"),
        (Some(action), Mode::Passive) => format!("`{action}`, which is not obeyed (passive)"),
    };
    let score = answer.score.map(|score| format!(", score {score}")).unwrap_or_default();
    let settings = answer.user.len();
    cx.note(findings::opinion(action, score, settings));
}

#[cfg(all(test, feature = "http"))]
mod tests;
