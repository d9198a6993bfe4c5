//! What becomes of a request when a plugin fails, by which kind of failure.

use super::{Chain, DEFERRED};
use crate::options::options;
use crate::plugin::{BadRequest, Cx, Error, Kind, Plugin, Setup, Verdict};
use crate::testing::Bench;
use decisions::StepOutcome;

options! {
    /// Fails as its option says, or answers.
    pub struct FailingOptions {
        /// `outage`, `request`, or an action.
        does: String,
    }
}

struct Failing {
    does: String,
    inner: Chain,
}

impl Plugin for Failing {
    const NAME: &'static str = "Failing";
    type Options = FailingOptions;
    fn new(options: FailingOptions, setup: &mut Setup<'_, '_>) -> Option<Failing> {
        Some(Failing { does: options.does, inner: Chain::nested(setup)? })
    }
    async fn run(&self, cx: &mut Cx<'_>) -> Result<Verdict, Error> {
        match self.does.as_str() {
            "outage" => Err(Error::service("upstream", "down")),
            "request" => {
                let (attribute, why) = ("sender".to_owned(), "it is odd".to_owned());
                Err(Error::Request(BadRequest::Unreadable { attribute, why }))
            }
            "nothing" => self.inner.act(None, cx).await,
            action => Ok(Verdict::Stop(action.to_owned())),
        }
    }
}

const KINDS: &[Kind] = &[Kind::of::<Failing>()];

/// The answer of a chain of plugins that do this, each with its options.
fn answer(steps: &[(&str, &str)]) -> Result<Option<String>, String> {
    let block = |(n, (does, options)): (usize, &(&str, &str))| {
        format!("<Plugin p{n}>\nmodule = Failing\ndoes = {does}\n{options}\n</Plugin>\n")
    };
    let text: String = steps.iter().enumerate().map(block).collect();
    Bench::with_kinds(&text, KINDS).attribute("sender", "a@example.org").try_run()
}

fn deferred() -> Result<Option<String>, String> {
    Ok(Some(DEFERRED.to_owned()))
}

#[test]
fn a_message_that_a_plugin_cannot_judge_does_not_pass() {
    let failing = ("request", "");
    assert_eq!(answer(&[failing]), deferred());
    for passes in ["dunno", "ok", "\"PREPEND X-A: b\"", "\"defer_if_reject x\"", "\"a_class\"", "nothing"] {
        assert_eq!(answer(&[failing, (passes, "")]), deferred(), "{passes}");
    }
    for refuses in ["reject no", "550 5.7.1 no", "defer later", "discard", "hold"] {
        let found = answer(&[failing, (&format!("\"{refuses}\""), "")]);
        assert_eq!(found, Ok(Some(refuses.to_owned())));
    }
}

#[test]
fn what_was_decided_before_it_holds() {
    assert_eq!(answer(&[("ok", ""), ("request", "")]), Ok(Some("ok".to_owned())));
}

#[test]
fn on_error_has_no_say_in_it() {
    for on_error in ["close", "continue", "defer", "dunno"] {
        let failing = ("request", &*format!("on_error = {on_error}"));
        assert_eq!(answer(&[failing, ("dunno", "")]), deferred(), "{on_error}");
    }
}

#[test]
fn the_failure_may_be_ignored() {
    let failing = ("request", "on_bad_request = continue");
    assert_eq!(answer(&[failing, ("dunno", "")]), Ok(Some("dunno".to_owned())));
    assert_eq!(answer(&[failing]), Ok(None));
}

#[test]
fn a_nested_chain_goes_on_as_well() {
    let inner = "<Plugin a>\nmodule = Failing\ndoes = request\n</Plugin>\n\
         <Plugin b>\nmodule = Failing\ndoes = \"reject inside\"\n</Plugin>";
    assert_eq!(answer(&[("nothing", inner)]), Ok(Some("reject inside".to_owned())));
    let inner = "on_bad_request = defer\n<Plugin a>\nmodule = Failing\ndoes = request\n</Plugin>";
    assert_eq!(answer(&[("nothing", inner), ("dunno", "")]), deferred());
    let inner = "on_bad_request = continue\n<Plugin a>\nmodule = Failing\ndoes = request\n</Plugin>";
    assert_eq!(answer(&[("nothing", inner), ("dunno", "")]), Ok(Some("dunno".to_owned())), "as around it");
}

/// Of each step its number, depth and how it ended.
fn walk(text: &str) -> (Option<String>, Vec<(u16, u8, StepOutcome)>, Bench) {
    let mut bench = Bench::new(text).attribute("sender", "a@example.org");
    let answer = bench.try_run().unwrap_or_default();
    let steps = bench.walk.steps.iter().map(|step| (step.number, step.depth, step.outcome)).collect();
    (answer, steps, bench)
}

#[test]
fn the_way_through_the_chain_is_written_down() {
    use StepOutcome::{Next, Off, Stopped};
    let text = "<Plugin off>\nmodule = RBL\nenabled = off\ndomain = zen.example\n</Plugin>\n\
                <Plugin other>\nmodule = Condition\nkey = sender\nmatch = b@example.org\n\
                <Plugin never>\nmodule = Action\naction = ok\n</Plugin>\n</Plugin>\n\
                <Plugin fits>\nmodule = Condition\nkey = sender\nmatch = a@example.org\nscore = 2.5\n\
                <Plugin inside>\nmodule = Action\naction = \"reject no\"\n</Plugin>\n</Plugin>\n\
                <Plugin last>\nmodule = Action\naction = ok\n</Plugin>\n";
    let (answer, steps, bench) = walk(text);
    assert_eq!(answer.as_deref(), Some("reject no"));
    assert_eq!(steps, [(0, 0, Off), (1, 0, Next), (3, 0, Stopped), (4, 1, Stopped)]);
    let points: Vec<_> = bench.walk.points.iter().map(|p| (p.step, &*p.field, p.points)).collect();
    assert_eq!(points, [(2, "score", 2.5)], "the step is a place in the walk");
    let notes: Vec<_> = bench.walk.notes().collect();
    assert!(notes.len() == 1 && notes[0].0 == 2 && notes[0].1.contains("a@example.org"), "{notes:?}");
}

#[test]
fn failures_are_written_down() {
    let steps = |text: &[(&str, &str)]| {
        let block = |(n, (does, options)): (usize, &(&str, &str))| {
            format!("<Plugin p{n}>\nmodule = Failing\ndoes = {does}\n{options}\n</Plugin>\n")
        };
        let text: String = text.iter().enumerate().map(block).collect();
        let mut bench = Bench::with_kinds(&text, KINDS);
        let _ = bench.try_run();
        bench.walk.steps.iter().map(|step| step.outcome).collect::<Vec<_>>()
    };
    let skipped = ("outage", "on_error = continue");
    assert_eq!(
        steps(&[("request", ""), skipped, ("outage", ""), ("ok", "")]),
        [StepOutcome::Undecided, StepOutcome::Skipped, StepOutcome::Failed]
    );
}

#[test]
fn an_outage_is_left_to_on_error() {
    assert_eq!(answer(&[("outage", "on_error = continue"), ("ok", "")]), Ok(Some("ok".to_owned())));
    assert_eq!(answer(&[("outage", ""), ("ok", "")]), Err("plugin p0 failed: upstream: down".to_owned()));
    let skipped = ("outage", "on_error = continue");
    assert_eq!(answer(&[("request", ""), skipped, ("ok", "")]), deferred());
}
