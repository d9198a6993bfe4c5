//! `OwnHelo`: does the client call itself by our name?

use crate::fields::Template;
use crate::mode::FailMode;
use crate::options::{UserConfig, options};
use crate::plugin::{Cx, Error, Plugin, Setup, Verdict};
use crate::scoring::Scoring;

options! {
    /// Rejects clients that call themselves by the name of your mail server, as no honest one does.
    ///
    /// ```conf
    /// <Plugin own-helo>
    ///   module = "OwnHelo"
    ///   name = "mx.example.org"
    /// </Plugin>
    /// ```
    pub struct OwnHeloOptions {
        /// The name of your mail server; case makes no difference.
        name: String,
        + enabled,
        /// What to do with the message: `reject` it, or only add the score (`passive`).
        mode: UserConfig<FailMode> = FailMode::Reject,
        /// The text of the rejection; `%HELO%` is the name as the client writes it.
        reject_message: Template = "%HELO% is our name",
        /// Added to the score, once per message.
        score: Scoring,
    }
}

pub struct OwnHelo {
    options: OwnHeloOptions,
}

impl Plugin for OwnHelo {
    const NAME: &'static str = "OwnHelo";
    type Options = OwnHeloOptions;

    fn new(options: OwnHeloOptions, _setup: &mut Setup<'_, '_>) -> Option<OwnHelo> {
        Some(OwnHelo { options })
    }

    async fn run(&self, cx: &mut Cx<'_>) -> Result<Verdict, Error> {
        if !cx.attribute("helo_name")?.eq_ignore_ascii_case(self.options.name.as_bytes()) {
            return Ok(Verdict::Next);
        }
        self.options.score.add_once(cx.session);
        let message = || self.options.reject_message.fill(&[("%HELO%", &cx.shown("helo_name"))]);
        Ok(self.options.mode.get(cx.session).verdict(message))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugin::Kind;
    use crate::testing::Bench;

    /// A plugin that `plugins/mod.rs` lists needs no list of its own: `Bench::new(text)`.
    const KINDS: &[Kind] = &[Kind::of::<OwnHelo>()];

    #[test]
    fn a_client_with_our_name_is_rejected() {
        let text = "<Plugin p>\n module = OwnHelo\n name = mx.example.org\n uc_enabled = check\n</Plugin>";
        let mut bench = Bench::with_kinds(text, KINDS).attribute("helo_name", "MX.Example.org");
        assert_eq!(bench.run().as_deref(), Some("reject MX.Example.org is our name"));
        bench.session.set_user("check", "off");
        assert_eq!(bench.run(), None);
        assert_eq!(bench.attribute("helo_name", "mail.example.net").run_fresh(), None);
    }
}
