//! The field in the header: whatever is typed there leads to the page that shows it.
//!
//! Knows: what identifiers, addresses and names look like. Must not know: what is found.

use crate::network::Network;
use crate::server::console::answer::see_other;
use crate::server::console::form::Form;
use crate::server::console::gate::Visit;
use crate::server::control::Response;
use decisions::DecisionId;

/// Where to look for it.
pub fn answer(visit: &Visit<'_>) -> Response {
    see_other(&format!("{}{}", visit.head.root, target(visit.query.get("q"))))
}

fn target(text: &str) -> String {
    // Queue identifiers of Postfix may have the ten characters of a decision's as well, but no dash.
    if text.as_bytes().get(5) == Some(&b'-')
        && let Ok(id) = text.parse::<DecisionId>()
    {
        return format!("decisions/{id}");
    }
    let is_queue = (5..=20).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric());
    let field = match text {
        "" => return "decisions".to_owned(),
        _ if text.contains('@') => "about",
        _ if Network::parse(text).is_some() => "client",
        _ if is_queue => "queue",
        _ => "text",
    };
    format!("decisions?{}", Form::default().with(field, text).query())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_typed_leads_to_its_page() {
        for (typed, page) in [
            ("", "decisions"),
            ("9F3KQ-2M7TX", "decisions/9F3KQ-2M7TX"),
            ("bob@example.org", "decisions?about=bob%40example.org"),
            ("192.0.2.7", "decisions?client=192.0.2.7"),
            ("2001:db8::/32", "decisions?client=2001%3Adb8%3A%3A%2F32"),
            ("4XyZ12abcDz", "decisions?queue=4XyZ12abcDz"),
            ("mail.example.org", "decisions?text=mail.example.org"),
        ] {
            assert_eq!(target(typed), page, "{typed}");
        }
    }
}
