//! What holds now and did not hold in mtpolicyd 2.05.
//!
//! Knows: what the original did with the options. Must not know: tickets, lists.

use crate::options::codes;
use crate::plugin::Setup;

/// Says which options mtpolicyd 2.05 read and ignored, and what it did instead.
pub(super) fn notice_what_holds_now(setup: &Setup<'_, '_>) {
    let ignored = [
        ("min_retry_wait", "Ticket", "300", "waited 300 seconds"),
        ("max_retry_wait", "Ticket", "7200", "kept tickets for 7200 seconds"),
        ("autowl_expire_days", "AWL", "60", "kept entries for 60 days"),
        ("autowl_table", "AWL", "autowl", "used the table autowl"),
    ];
    let section = &setup.section;
    for (option, block, held, did) in ignored {
        let Some((value, span)) = section.given(option) else { continue };
        let inside = section.given_inside(block, option);
        if inside.unwrap_or(value) == held {
            continue;
        }
        let holds = match inside {
            Some(value) => format!("`{value}` of the {block} block holds"),
            None => format!("`{value}` holds"),
        };
        let message = format!("{option}: mtpolicyd 2.05 ignored it and {did}; now {holds}");
        section.report().say(&codes::HOLDS_NOW, span, message, None);
    }
    if let Some((_, span)) = section.given("autowl_threshold").or_else(|| section.given("use_autowl")) {
        let message = "the auto-whitelist of mtpolicyd 2.05 never counted beyond 1, so nobody got on it; now \
                       clients do, and are not greylisted any more";
        section.report().say(&codes::HOLDS_NOW, span, message, None);
    }
}
