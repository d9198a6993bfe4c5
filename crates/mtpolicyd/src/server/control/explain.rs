//! What would be decided about a request: asked at the control socket.
//!
//! Knows: requests as JSON, the service. Must not know: how a chain runs.

use super::call::{Answer, Call, Problem, ok};
use super::decisions::off_the_runtime;
use crate::server::service::Service;
use crate::settings::{Level, Settings, VirtualHost};
use decisions::{DecisionId, DecisionView};
use hyper::StatusCode;
use postfix_policy::Request;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

/// A request that is to be explained.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Question {
    /// The attributes of the request.
    pub request: BTreeMap<String, String>,
    /// The virtual host by its name; without it the first one, or the one that `policy_context` selects.
    pub host: Option<String>,
    /// Plugins that are left out, by name or path.
    pub without: Vec<String>,
    /// A configuration file to explain with, in place of the one in use: its full path.
    pub configuration: Option<PathBuf>,
}

/// What would be decided.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ExplainedView {
    /// The decision and the way to it.
    pub decision: DecisionView,
    /// What a request would have done besides, and this one has not.
    pub would: Vec<String>,
    /// Options whose values were not those of the file.
    pub chosen: Vec<ChosenView>,
}

/// An option whose value was not that of the file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChosenView {
    /// The path of the plugin with the option.
    pub step: String,
    /// The option.
    pub option: String,
    /// The setting or the field of the session that was looked at.
    pub field: String,
    /// The value that held.
    pub value: String,
    /// The plugin that found the setting; empty if it is a field.
    pub by: String,
    /// Its place in the configuration, as `FILE:LINE`; empty if nothing is known of it.
    pub place: String,
}

pub(super) async fn explain(call: Call) -> Answer {
    let question: Question = call.json()?;
    let in_use = call.shared.service.load_full();
    let service = match question.configuration.clone() {
        None => in_use,
        Some(path) => {
            // It is the daemon that reads the file, so that whoever asks sees what the daemon may read.
            if !call.level().is_some_and(|has| has.includes(Level::Admin)) {
                let text = "only an administrator may have the daemon read another configuration";
                return Err(Problem { status: StatusCode::FORBIDDEN, text: text.to_owned() });
            }
            off_the_runtime(move || with_other_file(path, &in_use)).await??
        }
    };
    let pairs = question.request.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes()));
    let request = Request::from_pairs(pairs).map_err(|why| Problem::bad(format!("the request: {why}")))?;
    let host = host(&service.settings, &question, &request)?;
    let without = without(&service.settings, host, &question.without)?;
    let explained = service.explain(host, &request, without).await;
    let explained = explained.ok_or_else(|| Problem::unavailable("there is no session"))?;
    let steps = &service.settings.steps;
    let chosen = explained.chosen.into_iter().map(|chosen| ChosenView {
        step: steps.get(chosen.step).map(|step| step.path.clone()).unwrap_or_default(),
        place: steps
            .steps
            .iter()
            .find(|step| step.name == chosen.by)
            .map(|by| by.place())
            .unwrap_or_default(),
        option: chosen.option,
        field: chosen.field,
        value: chosen.value,
        by: chosen.by,
    });
    let mut decision = DecisionView::of(&explained.decision);
    // It is not kept, so nobody could find it by its identifier.
    decision.row.id = DecisionId::NONE;
    ok(&ExplainedView { decision, would: explained.would, chosen: chosen.collect() })
}

/// A service for another file, with the connections of the one in use where they are the same.
fn with_other_file(path: PathBuf, in_use: &Service) -> Result<Arc<Service>, Problem> {
    if !path.is_absolute() {
        return Err(Problem::bad("configuration: the full path of the file is needed"));
    }
    match Settings::load(&path, Some(&in_use.settings)) {
        Ok((settings, _)) => Ok(Arc::new(Service::new(settings, Some(in_use)))),
        Err(messages) => {
            Err(Problem { status: StatusCode::UNPROCESSABLE_ENTITY, text: messages.to_string() })
        }
    }
}

fn host<'a>(
    settings: &'a Settings,
    question: &Question,
    request: &Request,
) -> Result<&'a VirtualHost, Problem> {
    let Some(name) = &question.host else {
        let context = request.get("policy_context");
        let first = settings.hosts.first().map_or("", |host| &host.key);
        return settings.host(first, context).ok_or_else(|| Problem::bad("there is no virtual host"));
    };
    let found = settings.hosts.iter().find(|host| *host.name == **name || host.key == *name);
    found.ok_or_else(|| {
        let names: Vec<_> = settings.hosts.iter().map(|host| &*host.name).collect();
        Problem::bad(format!("there is no virtual host `{name}`; there are {}", names.join(", ")))
    })
}

/// The numbers of the plugins that are left out.
fn without(settings: &Settings, host: &VirtualHost, names: &[String]) -> Result<Vec<u16>, Problem> {
    let mut numbers = Vec::new();
    for name in names {
        let before = numbers.len();
        for (number, step) in settings.steps.steps.iter().enumerate() {
            if *step.host == *host.name && (step.name == *name || step.path == *name) {
                numbers.extend(u16::try_from(number));
            }
        }
        if numbers.len() == before {
            return Err(Problem::bad(format!("virtual host {} has no plugin `{name}`", host.name)));
        }
    }
    Ok(numbers)
}
