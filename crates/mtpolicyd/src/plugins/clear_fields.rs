//! `ClearFields`: forgets fields of the session.

use crate::options::options;
use crate::plugin::{Cx, Error, Plugin, Setup, Verdict};

options! {
    /// Clears fields of the session: what SetField set, scores, cached results and once-per-message marks.
    ///
    /// ```conf
    /// <Plugin start-again>
    ///   module = "ClearFields"
    ///   fields = "score,score_detail"
    ///   fields_prefix = "rbl-"
    /// </Plugin>
    /// ```
    pub struct ClearFieldsOptions {
        /// Names, separated by commas.
        fields: Option<String>,
        /// Prefixes of names, separated by commas: every field that begins with one is cleared.
        fields_prefix: Option<String>,
    }
}

pub struct ClearFields {
    names: Vec<String>,
    prefixes: Vec<String>,
}

impl Plugin for ClearFields {
    const NAME: &'static str = "ClearFields";
    type Options = ClearFieldsOptions;

    fn new(options: ClearFieldsOptions, setup: &mut Setup<'_, '_>) -> Option<ClearFields> {
        if options.fields.is_none() && options.fields_prefix.is_none() {
            setup.has_no_effect("`fields` and no `fields_prefix`");
        }
        Some(ClearFields { names: words(options.fields), prefixes: words(options.fields_prefix) })
    }

    async fn run(&self, cx: &mut Cx<'_>) -> Result<Verdict, Error> {
        for name in &self.names {
            cx.session.clear(name);
        }
        for prefix in &self.prefixes {
            cx.session.clear_prefix(prefix);
        }
        Ok(Verdict::Next)
    }
}

/// An empty word would, as a prefix, mean every field.
fn words(list: Option<String>) -> Vec<String> {
    let list = list.unwrap_or_default();
    list.split(',').map(|word| word.trim().to_owned()).filter(|word| !word.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use crate::testing::Bench;

    #[test]
    fn fields_are_cleared_by_name_and_by_prefix() {
        let text =
            "<Plugin c>\n module = ClearFields\n fields = \"a , x\"\n fields_prefix = \"pre-,\"\n</Plugin>";
        let mut bench = Bench::new(text);
        for field in ["a", "ab", "pre-1", "pre-2", "other"] {
            bench.session.set(field, "1");
        }
        assert_eq!(bench.run(), None);
        let left = ["a", "ab", "pre-1", "pre-2", "other"].map(|field| bench.session.text(field).is_some());
        assert_eq!(left, [false, true, false, false, true]);
    }
}
