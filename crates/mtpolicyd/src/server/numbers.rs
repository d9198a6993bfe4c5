//! What is counted of requests and connections, with a place for each plugin and host of the configuration.
//!
//! Knows: decisions, labels of the settings. Must not know: how numbers are written or asked for.

use crate::metrics::{Cells, Histogram, Word};
use crate::settings::Labels;
use decisions::{Decision, DecisionId, Lookup, LookupKind, Origin, Outcome, StepOutcome};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// How the turns of plugins end, by the numbers of [`StepOutcome`].
pub(super) const TURNS: [Word; StepOutcome::ALL.len()] =
    ["not_finished", "next", "stopped", "skipped", "failed", "undecided", "off"];
/// Behind them, the microseconds that the turns took.
pub(super) const TURN_MICROS: usize = TURNS.len();

/// Where answers come from, by the numbers of [`Origin`].
pub(super) const ORIGINS: [Word; Origin::ALL.len()] = ["asked", "asked_ahead", "remembered"];
/// Lookups of each kind and origin.
const LOOKUPS: usize = LookupKind::ALL.len() * ORIGINS.len();

/// The requests of a host.
#[derive(Default)]
pub(super) struct HostCells {
    pub(super) outcomes: Cells<{ Outcome::ALL.len() }>,
    pub(super) seconds: Histogram,
    /// What its shadow has decided, by the live outcome and that of the shadow.
    pub(super) shadow: Cells<{ Outcome::ALL.len() * Outcome::ALL.len() }>,
    /// Requests that the shadow has not compared, by [`NOT_COMPARED`].
    pub(super) not_compared: Cells<{ NOT_COMPARED.len() }>,
}

/// Why a shadow does not compare a request: it was busy, or the request can't be decided again.
pub(super) const NOT_COMPARED: [Word; 2] = ["busy", "left_out"];

/// The place of two outcomes among the numbers of a shadow.
pub(super) fn pair(live: Outcome, shadow: Outcome) -> usize {
    live as usize * Outcome::ALL.len() + shadow as usize
}

/// The turns of a plugin.
pub(super) type StepCells = Cells<{ TURNS.len() + 1 }>;

/// What is counted of the requests of a configuration. What keeps its name at a reload keeps its numbers.
#[derive(Default)]
pub(super) struct Numbers {
    pub(super) hosts: Vec<Arc<HostCells>>,
    pub(super) steps: Vec<Arc<StepCells>>,
    /// Requests beyond the limit of each plugin.
    beyond_limits: Vec<Arc<Cells<1>>>,
    lookups: Arc<Cells<{ LOOKUPS + LookupKind::ALL.len() }>>,
}

impl Numbers {
    /// For a configuration with these labels, after another one.
    pub(super) fn new(labels: &Labels, earlier: Option<(&Labels, &Numbers)>) -> Numbers {
        let hosts = earlier.map(|(labels, numbers)| (&labels.hosts[..], &numbers.hosts[..]));
        let steps = earlier.map(|(labels, numbers)| (&labels.plugins[..], &numbers.steps[..]));
        let limits = earlier.map(|(labels, numbers)| (&labels.plugins[..], &numbers.beyond_limits[..]));
        Numbers {
            hosts: carried(&labels.hosts, hosts),
            steps: carried(&labels.plugins, steps),
            beyond_limits: carried(&labels.plugins, limits),
            lookups: earlier.map(|(_, numbers)| numbers.lookups.clone()).unwrap_or_default(),
        }
    }

    /// The host with this place in the settings has answered a request. The decision is an example if
    /// somebody can look it up.
    pub(super) fn answered(&self, host: usize, outcome: Outcome, took: Duration, id: Option<DecisionId>) {
        if let Some(host) = self.hosts.get(host) {
            host.outcomes.add(outcome as usize, 1);
            host.seconds.observe(u64::try_from(took.as_micros()).unwrap_or(u64::MAX), id);
        }
    }

    /// Counts what a decision tells about plugins and servers. Its answer has been sent, so nobody waits.
    pub(super) fn count(&self, decision: &Decision) {
        for step in &decision.walk.steps {
            if let Some(cells) = self.steps.get(usize::from(step.number)) {
                cells.add(step.outcome as usize, 1);
                cells.add(TURN_MICROS, u64::from(step.took));
            }
        }
        for Lookup { kind, origin, waited, .. } in decision.walk.lookups.iter() {
            self.lookups.add(place(kind, origin), 1);
            self.lookups.add(LOOKUPS + kind as usize, u64::from(waited));
        }
    }

    /// A request was beyond the limit of the plugin with this number.
    pub(super) fn beyond_limit(&self, number: u16) {
        if let Some(cells) = self.beyond_limits.get(usize::from(number)) {
            cells.add(0, 1);
        }
    }

    /// How many were so far.
    pub(super) fn limit_hits(&self, number: usize) -> u64 {
        self.beyond_limits.get(number).map_or(0, |cells| cells.get(0))
    }

    /// Lookups so far of a kind, by where their answers came from.
    pub(super) fn lookups(&self, kind: LookupKind, origin: Origin) -> u64 {
        self.lookups.get(place(kind, origin))
    }

    /// Microseconds that requests waited for servers of a kind.
    pub(super) fn lookup_micros(&self, kind: LookupKind) -> u64 {
        self.lookups.get(LOOKUPS + kind as usize)
    }
}

fn place(kind: LookupKind, origin: Origin) -> usize {
    kind as usize * ORIGINS.len() + origin as usize
}

/// A place for each label; equal labels have the same one, which is the earlier one if there is one.
fn carried<L: Ord, C: Default>(labels: &[L], earlier: Option<(&[L], &[Arc<C>])>) -> Vec<Arc<C>> {
    let (old_labels, old) = earlier.unwrap_or_default();
    let mut known: BTreeMap<&L, Arc<C>> = old_labels.iter().zip(old.iter().cloned()).collect();
    labels.iter().map(|label| known.entry(label).or_default().clone()).collect()
}

/// Why connections end.
pub(super) const ENDS: [Word; 5] = ["quiet", "cut", "broken", "evicted", "failed"];
/// What reloads come to.
pub(super) const RELOADS: [Word; 2] = ["reloaded", "refused"];

/// What is counted of the process as a whole.
#[derive(Default)]
pub(super) struct ProcessNumbers {
    /// Connections of Postfix that were accepted.
    pub(super) accepted: Cells<1>,
    /// Those that ended, by [`ENDS`].
    pub(super) ended: Cells<{ ENDS.len() }>,
    /// Reloads, by [`RELOADS`].
    pub(super) reloads: Cells<{ RELOADS.len() }>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Settings;

    #[test]
    fn the_words_are_those_of_the_records() {
        assert_eq!(TURNS, StepOutcome::ALL.map(StepOutcome::name).map(|name| word(name)));
        assert_eq!(ORIGINS, Origin::ALL.map(Origin::name).map(|name| word(name)));
    }

    fn word(name: &str) -> Word {
        let words = TURNS.into_iter().chain(ORIGINS);
        words.into_iter().find(|word| *word == name.replace(' ', "_")).unwrap_or_default()
    }

    fn labels(plugins: &str) -> Labels {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("c");
        let text = format!("port = 1\n<VirtualHost 1>\nname = in\n{plugins}\n</VirtualHost>\n");
        std::fs::write(&path, text).unwrap();
        let (settings, _) = Settings::load(&path, None).unwrap_or_else(|messages| panic!("{messages}"));
        Labels::of(&settings)
    }

    fn plugin(name: &str) -> String {
        format!("<Plugin {name}>\nmodule = Action\naction = dunno\n</Plugin>\n")
    }

    #[test]
    fn what_keeps_its_name_keeps_its_numbers() {
        let before = labels(&(plugin("a") + &plugin("b")));
        let numbers = Numbers::new(&before, None);
        numbers.steps[0].add(1, 3);
        numbers.steps[1].add(1, 5);
        numbers.answered(0, Outcome::Pass, Duration::from_millis(2), None);
        let after = labels(&(plugin("c") + &plugin("b")));
        let numbers = Numbers::new(&after, Some((&before, &numbers)));
        assert_eq!((numbers.steps[0].get(1), numbers.steps[1].get(1)), (0, 5));
        assert_eq!(numbers.hosts[0].outcomes.get(Outcome::Pass as usize), 1);
        assert_eq!(numbers.hosts[0].seconds.observed().count(), 1);
    }
}
