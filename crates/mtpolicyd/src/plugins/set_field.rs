//! `SetField`: sets a field of the session.

use crate::options::{Flow, options};
use crate::plugin::{Cx, Error, Plugin, Setup, Verdict};

options! {
    /// Sets a field of the session, for a Condition or a `uc_` option of the plugins after it.
    ///
    /// ```conf
    /// <Plugin trusted-listed-clients-only>
    ///   module = "SetField"
    ///   key = "listing"
    ///   value = "off"
    /// </Plugin>
    /// ```
    pub struct SetFieldOptions {
        /// The name of the field; `score` sets the score.
        key: String,
        /// The value to set.
        value: String,
    }
}

pub struct SetField {
    options: SetFieldOptions,
}

impl Plugin for SetField {
    const NAME: &'static str = "SetField";
    type Options = SetFieldOptions;

    fn new(options: SetFieldOptions, setup: &mut Setup<'_, '_>) -> Option<SetField> {
        setup.section.note_flow("key", Flow::Sets(options.key.clone()));
        Some(SetField { options })
    }

    async fn run(&self, cx: &mut Cx<'_>) -> Result<Verdict, Error> {
        cx.session.configure(&self.options.key, &self.options.value);
        Ok(Verdict::Next)
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::Bench;

    #[test]
    fn a_field_is_set_and_set_again() {
        let text = "<Plugin a>\n module = SetField\n key = k\n value = one\n</Plugin>\n\
                    <Plugin b>\n module = SetField\n key = k\n value = \"\"\n</Plugin>";
        let mut bench = Bench::new(text);
        assert_eq!(bench.run(), None);
        assert_eq!(bench.session.text("k"), Some(""));
    }
}
