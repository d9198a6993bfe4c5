//! `CtIpRep`: what does Commtouch's ctipd think of the client?

use crate::facts::ctipd::{self, Reply, Reputation};
use crate::fields::Template;
use crate::log::messages::findings;
use crate::options::{UserConfig, options};
use crate::plugin::{Cx, Error, Plugin, Setup, Verdict};
use crate::scoring::ScoreField;
use crate::session::Session;
use crate::value::{NonZeroSeconds, Score, Seconds, Value, ZeroIsNone, words};
use backends::Secret;
use backends::http::{HttpService, HttpSettings, Post, Url};

options! {
    /// Looks up the client's address in ctipd, the IP reputation service of Commtouch (later Cyren).
    ///
    /// The service answers `accept`, `permfail` or `tempfail`; answer and score count once per message. If
    /// the service is unreachable, too slow or answers otherwise, the plugin fails and `on_error` decides.
    ///
    /// ```conf
    /// <Plugin ctipd>
    ///   module = "CtIpRep"
    ///   url = "http://localhost:8080/ctipd/iprep"
    ///   permfail_mode = "reject"
    ///   tempfail_mode = "passive"
    ///   tempfail_score = 3
    ///   on_error = "continue"
    /// </Plugin>
    /// ```
    pub struct CtIpRepOptions {
        + enabled,
        /// The URL of ctipd. `http://USER:PASSWORD@HOST/` logs in.
        url: Url = Url::of("http://localhost:8080/ctipd/iprep"),
        /// The key, if ctipd requires one.
        key: Option<Secret>,
        /// The text of a rejection. `%IP%` is the address of the client, `%REFID%` the reference to name
        /// when asking Commtouch about it. Only the first occurrence of each placeholder is replaced.
        reject_message: Template = REJECT_MESSAGE,
        /// The text of a deferral, in the same form.
        defer_message: Template = DEFER_MESSAGE,
        /// What to do with a client that ctipd calls `permfail`: `reject` or `defer` the message, or only
        /// add the score (`passive`).
        permfail_mode: UserConfig<Mode> = Mode::Reject,
        /// The same for `tempfail`.
        tempfail_mode: UserConfig<Mode> = Mode::Defer,
        /// Added to the score for `permfail`.
        permfail_score: Option<ZeroIsNone<Score>>,
        /// Added to the score for `tempfail`.
        tempfail_score: Option<ZeroIsNone<Score>>,
        score_field: ScoreField,
        /// Maximum time for ctipd to answer, including the connection. The deadline of the request applies
        /// in any case.
        timeout: NonZeroSeconds = NonZeroSeconds(Seconds::of(5)),
        /// A PEM file of certificate authorities to trust for `https://` in addition to those of the system.
        tls_ca: Option<String>,
    }
}

const REJECT_MESSAGE: &str = "550 delivery from %IP% is rejected. Check at \
    http://www.commtouch.com/Site/Resources/Check_IP_Reputation.asp. Reference code: %REFID%";
const DEFER_MESSAGE: &str = "450 delivery from %IP% is deferred,repeatedly. Send again or check at \
    http://www.commtouch.com/Site/Resources/Check_IP_Reputation.asp. Reference code: %REFID%";

words! {
    /// What to do with a client of ill repute.
    pub enum Mode {
        /// Reject the message.
        Reject = "reject",
        /// Have it come again.
        Defer = "defer",
        /// Only add the score.
        Passive = "passive",
    } else Passive
}

/// An answer has a few short lines.
const MAX_ANSWER_BYTES: usize = 8 << 10;

/// What a body of lines was sent as by the library of the original; ctipd does not look at it.
const CONTENT_TYPE: &str = "application/x-www-form-urlencoded";

pub struct CtIpRep {
    options: CtIpRepOptions,
    service: HttpService,
    result: String,
}

impl Plugin for CtIpRep {
    const NAME: &'static str = "CtIpRep";
    type Options = CtIpRepOptions;

    fn new(options: CtIpRepOptions, setup: &mut Setup<'_, '_>) -> Option<CtIpRep> {
        let service = setup.http(HttpSettings {
            url: options.url.clone(),
            socket_path: None,
            token: None,
            tls_ca: options.tls_ca.clone(),
            timeout: options.timeout.0.duration(),
            max_answer_bytes: MAX_ANSWER_BYTES,
        })?;
        let result = format!("{}-result", setup.name);
        Some(CtIpRep { options, service, result })
    }

    async fn run(&self, cx: &mut Cx<'_>) -> Result<Verdict, Error> {
        let options = &self.options;
        let ip = cx.client_address()?;
        let Some(Reply { reputation, reference }) = self.reply(cx).await? else {
            cx.note(findings::not_an_address(&ip));
            return Ok(Verdict::Next);
        };
        cx.note(findings::reputation(&ip, reputation, &reference));
        let (score, mode) = match reputation {
            Reputation::Accept => return Ok(Verdict::Next),
            Reputation::PermFail => (&options.permfail_score, &options.permfail_mode),
            Reputation::TempFail => (&options.tempfail_score, &options.tempfail_mode),
        };
        if let Some(ZeroIsNone(Some(score))) = score {
            options.score_field.add_once(cx.session, score);
        }
        let (action, message) = match mode.get(cx.session) {
            Mode::Reject => ("reject", &options.reject_message),
            Mode::Defer => ("defer", &options.defer_message),
            Mode::Passive => return Ok(Verdict::Next),
        };
        let message = message.fill(&[("%IP%", &ip), ("%REFID%", &reference)]);
        Ok(Verdict::Stop(format!("{action} {message}")))
    }
}

impl CtIpRep {
    /// What the session remembers or ctipd says; `None` where there is no address to ask about.
    async fn reply(&self, cx: &mut Cx<'_>) -> Result<Option<Reply>, Error> {
        if let Some(known) = self.recall(cx.session) {
            return Ok(Some(known));
        }
        let Some(ip) = cx.request.client_ip() else { return Ok(None) };
        let key = self.options.key.as_ref().map(|key| key.0.as_str());
        let body = ctipd::question(ip, key).into_bytes();
        let post = Post { content_type: CONTENT_TYPE, accept: "*/*", headers: Vec::new(), body };
        let answer = self.service.post(post, cx.call).await?;
        if answer.status != 200 {
            return Err(self.service.refuse(format!("the answer has status {}", answer.status)).into());
        }
        let reply = ctipd::read(&answer.body).map_err(|why| self.service.refuse(why))?;
        cx.session.set(&self.result, &format!("{} {}", reply.reputation, reply.reference));
        Ok(Some(reply))
    }

    fn recall(&self, session: &Session) -> Option<Reply> {
        let (word, reference) = session.result(&self.result)?.split_once(' ')?;
        Some(Reply { reputation: Reputation::parse(word).ok()?, reference: reference.to_owned() })
    }
}

#[cfg(feature = "http")]
#[cfg(test)]
mod tests {
    use crate::session::Session;
    use crate::testing::Bench;
    use crate::testing::fake_http::{FakeHttp, Say};

    fn ctipd() -> FakeHttp {
        FakeHttp::start(|asked| {
            let (_, ip) = asked.body.split_once("x-ctch-ip: ").unwrap();
            let action = match ip.trim_end() {
                "192.0.2.1" => "accept",
                "192.0.2.2" | "2001:db8::2" => "permfail",
                "192.0.2.3" => "tempfail",
                "192.0.2.4" => return Say::Status(503),
                "192.0.2.5" => return Say::Status(204),
                _ => "weird",
            };
            Say::Json(format!("x-ctch-dm-action:{action}\r\nx-ctch-refid:ref 1\r\n"))
        })
    }

    fn bench(server: &FakeHttp, options: &str, ip: &str) -> Bench {
        let url = format!("http://{}/ctipd/iprep", server.address());
        let text = format!("<Plugin c>\n module = CtIpRep\n url = \"{url}\"\n {options}\n</Plugin>");
        Bench::new(&text).attribute("client_address", ip)
    }

    const MESSAGES: &str = "reject_message = \"R %IP% %REFID%\"\ndefer_message = \"D %IP% %REFID%\"\n\
                            uc_permfail_mode = p\nuc_tempfail_mode = t\nuc_enabled = e\n\
                            permfail_score = 5\ntempfail_score = 2.50";

    #[test]
    fn a_reputation_decides() {
        let server = ctipd();
        for (ip, answer, detail) in [
            ("192.0.2.1", None, None),
            ("192.0.2.2", Some("reject R 192.0.2.2 ref 1"), Some("c=5")),
            ("192.0.2.3", Some("defer D 192.0.2.3 ref 1"), Some("c=2.50")),
            ("2001:db8::2", Some("reject R 2001:db8::2 ref 1"), Some("c=5")),
            ("unknown", None, None),
        ] {
            let mut bench = bench(&server, MESSAGES, ip);
            assert_eq!(bench.run().as_deref(), answer, "{ip}");
            assert_eq!(bench.session.score_detail("score"), detail, "{ip}");
        }
    }

    #[test]
    fn answer_and_score_count_once_a_mail_also_from_a_shared_session() {
        let server = ctipd();
        let mut bench = bench(&server, MESSAGES, "192.0.2.2");
        for _ in 0..3 {
            assert_eq!(bench.run().as_deref(), Some("reject R 192.0.2.2 ref 1"));
            bench.session = Session::from_bytes(&bench.session.to_bytes()).unwrap();
        }
        assert_eq!((server.asked().len(), bench.session.score_detail("score")), (1, Some("c=5")));
        bench.session.clear_prefix("c-");
        bench.run();
        assert_eq!((server.asked().len(), bench.session.score_detail("score")), (2, Some("c=5, c=5")));
        // A connection is free again a moment after its answer: a question that comes earlier opens another.
        let is_kept = |_| {
            let before = server.connections();
            bench.session.clear_prefix("c-");
            bench.run();
            server.connections() == before
        };
        assert!((0..1000).any(is_kept), "no connection is used again");
    }

    #[test]
    fn a_user_chooses_the_mode() {
        let server = ctipd();
        for (field, word, ip, answer) in [
            ("p", "defer", "192.0.2.2", Some("defer D 192.0.2.2 ref 1")),
            ("p", "passive", "192.0.2.2", None),
            ("p", "whatever", "192.0.2.2", None),
            ("t", "reject", "192.0.2.3", Some("reject R 192.0.2.3 ref 1")),
            ("e", "off", "192.0.2.3", None),
        ] {
            let mut bench = bench(&server, MESSAGES, ip);
            bench.session.set_user(field, word);
            assert_eq!(bench.run().as_deref(), answer, "{field}={word}");
        }
    }

    #[test]
    fn no_score_is_no_mark_either() {
        let server = ctipd();
        let mut bench = bench(&server, "permfail_score = 0\npermfail_mode = passive", "192.0.2.2");
        assert_eq!(bench.run(), None);
        assert_eq!((bench.session.text("score"), bench.session.text("c-score")), (None, None));
    }

    #[test]
    fn what_is_no_answer_fails_the_plugin() {
        let server = ctipd();
        for ip in ["192.0.2.4", "192.0.2.5", "192.0.2.6", ""] {
            assert!(bench(&server, "", ip).try_run().is_err(), "{ip}");
            assert_eq!(bench(&server, "on_error = continue", ip).run(), None);
        }
        assert!(bench(&server, "timeout = 1", "192.0.2.6").try_run().unwrap_err().contains("`weird`"));
        let url = format!("http://{}/", server.address());
        drop(server);
        let gone = format!("<Plugin c>\n module = CtIpRep\n url = \"{url}\"\n</Plugin>");
        let error = Bench::new(&gone).attribute("client_address", "192.0.2.1").try_run().unwrap_err();
        assert!(error.contains("down: "), "{error}");
    }

    #[test]
    fn the_key_is_sent() {
        let server = ctipd();
        bench(&server, "key = \"k 1\"", "192.0.2.1").run();
        let body = "x-ctch-request-type: classifyip\r\nx-ctch-pver: 1.0\r\nx-ctch-key: k 1\r\n\r\n\
                    x-ctch-ip: 192.0.2.1\r\n";
        assert_eq!(server.asked()[0].body, body);
    }
}
