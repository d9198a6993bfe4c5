//! How the shadows of virtual hosts fare.
//!
//! Knows: what shadows count. Must not know: how it is printed.

use super::call::{Answer, Call, ok};
use crate::server::shadow::Shadows;
use decisions::rfc3339;
use serde::{Deserialize, Serialize};

/// The shadows of the configuration in use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShadowsView {
    /// In the order of the hosts; those that can't be used come last.
    pub shadows: Vec<ShadowView>,
}

/// What runs in the shadow of a virtual host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShadowView {
    /// The virtual host.
    pub host: String,
    /// The configuration file.
    pub file: String,
    /// Since when it has run as it is, in RFC 3339; `None` if it can't be used.
    pub since: Option<String>,
    /// Requests of which both outcomes are known.
    pub compared: u64,
    /// Those with different outcomes.
    pub differ: u64,
    /// Requests that came while too many were looked at.
    pub dropped: u64,
    /// Requests that can't be decided again.
    pub left_out: u64,
    /// Why it can't be used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

impl ShadowsView {
    fn of(shadows: &Shadows) -> ShadowsView {
        let running = shadows.all().iter().map(|shadow| {
            let counts = shadow.counts();
            ShadowView {
                host: shadow.name.to_string(),
                file: shadow.world.path.display().to_string(),
                since: Some(rfc3339(shadow.world.since)),
                compared: counts.compared,
                differ: counts.differ,
                dropped: counts.dropped,
                left_out: counts.left_out,
                problem: None,
            }
        });
        let refused = shadows.refused().iter().flat_map(|refused| {
            refused.hosts.iter().map(|host| ShadowView {
                host: host.to_string(),
                file: refused.path.display().to_string(),
                problem: Some(refused.why.clone()),
                ..ShadowView::default()
            })
        });
        ShadowsView { shadows: running.chain(refused).collect() }
    }
}

pub(super) async fn shadows(call: Call) -> Answer {
    call.query.finish()?;
    ok(&ShadowsView::of(call.shared.service.load().shadows()))
}
