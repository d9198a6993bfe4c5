//! What a domain says about a failure (RFC 7208, 6.2).
//!
//! Knows: explanations. Must not know: how the failure was found.

use crate::client::true_name;
use crate::expand::Values;
use crate::lookups::Lookups;
use crate::macros::MacroText;
use crate::name::is_name;
use crate::outcome::Outcome;
use crate::request::{Request, Settings};
use crate::resolve::Resolve;

impl Outcome {
    /// What the domain that refuses the client has to say about it: printable ASCII in one line, and no more
    /// than fits into a reply. `None` where it says nothing or nothing that can be read.
    pub async fn explanation<R: Resolve>(
        &self,
        resolver: &R,
        request: &Request,
        settings: &Settings,
    ) -> Option<String> {
        let spec = self.exp.as_ref()?;
        let lookups = Lookups::new(resolver);
        let domain = &self.decided_by;
        let true_name = name_for(spec, &lookups, domain, request, settings).await;
        let name = Values { request, settings, domain, true_name: true_name.as_deref() }.name(spec);
        if !is_name(&name) {
            return None;
        }
        let texts = lookups.texts(&name).await.ok()?;
        let [text] = &texts[..] else { return None };
        let text = MacroText::explanation(str::from_utf8(text).ok()?).ok()?;
        self.explain(&text, &lookups, request, settings).await
    }

    /// The text that stands in for an explanation where the domain has none.
    pub async fn default_explanation<R: Resolve>(
        &self,
        text: &MacroText,
        resolver: &R,
        request: &Request,
        settings: &Settings,
    ) -> Option<String> {
        self.explain(text, &Lookups::new(resolver), request, settings).await
    }

    async fn explain<R: Resolve>(
        &self,
        text: &MacroText,
        lookups: &Lookups<'_, R>,
        request: &Request,
        settings: &Settings,
    ) -> Option<String> {
        let domain = &self.decided_by;
        let true_name = name_for(text, lookups, domain, request, settings).await;
        printable(&Values { request, settings, domain, true_name: true_name.as_deref() }.explanation(text))
    }
}

/// The name of the client, where a text has a macro that wants it.
async fn name_for<R: Resolve>(
    text: &MacroText,
    lookups: &Lookups<'_, R>,
    domain: &str,
    request: &Request,
    settings: &Settings,
) -> Option<String> {
    if text.has('p') { true_name(lookups, request, settings, domain).await } else { None }
}

/// A value of the message may hold anything; what is not printable ASCII becomes a question mark.
fn printable(text: &str) -> Option<String> {
    let printable = |c: char| if c.is_ascii_graphic() || c == ' ' { c } else { '?' };
    let text: String = text.chars().map(printable).collect();
    (!text.trim().is_empty()).then_some(text)
}
