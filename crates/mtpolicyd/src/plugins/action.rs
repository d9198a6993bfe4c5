//! `Action`: always answers the same.

use crate::options::options;
use crate::plugin::{Cx, Error, Passes, Plugin, Setup, Verdict};

options! {
    /// Answers with a fixed action and ends the chain.
    ///
    /// Any action of access(5) is allowed, and so is the name of a Postfix restriction class.
    ///
    /// ```conf
    /// <Plugin closed>
    ///   module = "Action"
    ///   action = "reject this server accepts no mail"
    /// </Plugin>
    /// ```
    pub struct ActionOptions {
        /// The answer to Postfix.
        action: String,
    }
}

pub struct Action {
    action: String,
}

impl Plugin for Action {
    const NAME: &'static str = "Action";
    type Options = ActionOptions;

    fn new(options: ActionOptions, setup: &mut Setup<'_, '_>) -> Option<Action> {
        setup.check_action("action", &options.action);
        Some(Action { action: options.action })
    }

    fn passes(&self) -> Passes {
        Passes::Never
    }

    async fn run(&self, _cx: &mut Cx<'_>) -> Result<Verdict, Error> {
        Ok(Verdict::Stop(self.action.clone()))
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::Bench;

    #[test]
    fn it_answers_and_ends_the_chain() {
        let text = "<Plugin a>\n module = Action\n action = reject no\n</Plugin>\n\
                    <Plugin b>\n module = Action\n action = never\n</Plugin>";
        assert_eq!(Bench::new(text).run(), Some("reject no".into()));
    }

    #[test]
    fn an_action_that_postfix_reads_as_permission_is_noticed() {
        let text = "<Plugin a>\n module = Action\n action = 550\n</Plugin>";
        assert!(Bench::warnings(text)[0].starts_with("3:11 "), "{:?}", Bench::warnings(text));
    }

    #[test]
    fn it_needs_an_action() {
        let mistakes = Bench::mistakes("<Plugin a>\n module = Action\n</Plugin>");
        assert_eq!(mistakes, ["1:1 Plugin a needs the option `action`"]);
    }
}
