//! Lists of restrictions as they should be, and the commands that write them.
//!
//! Knows: lists, postconf(1). Must not know: which finding a command is for.

use super::timing::{repaired, wanted};
use super::{Facts, Item, PolicyServer, Question, Service, endpoint_of};
use crate::doctor::restrictions::{parse, render};

/// Restrictions that let through whom the daemon need not judge.
pub(super) const KNOWN_USERS: [&str; 2] = ["permit_mynetworks", "permit_sasl_authenticated"];

/// What keeps strangers from relaying.
const GUARD: &str = "reject_unauth_destination";

impl Facts {
    /// The command that writes a list in which a question is as it should be: its server, the options, and
    /// its place. Findings about one list have the same command, so that they can all be
    /// applied.
    pub(super) fn repair(&self, question: &Question<'_>) -> String {
        self.repair_with(question, None)
    }

    fn repair_with(&self, question: &Question<'_>, behind: Option<&str>) -> String {
        let items = self.items_as_written(question.service, question.list);
        let is_it = |item: &Item| item.policy_server().as_ref() == Some(&question.server);
        let Some(at) = items.iter().position(is_it) else {
            let name = question.list;
            return format!("# the list {name} takes it from another parameter or class; change it there");
        };
        let mut items = items;
        // A word such as `warn_if_reject` belongs to it.
        let from = at - usize::from(at > 0 && items[at - 1].name == "warn_if_reject");
        let mut own: Vec<_> = items.drain(from..=at).collect();
        own.pop();
        own.push(self.repaired_server(question).item());
        own.splice(0..0, behind.map(Item::named));
        let place = self.place_for(question, &mut items, from);
        items.splice(place..place, own);
        self.write(question.service, question.list, &items)
    }

    /// The command that adds a question to a list which has none.
    pub(super) fn add(&self, service: &Service, list: &'static str) -> Option<String> {
        let queue = self.queue_folder();
        let address = self.settings.as_ref()?.addresses.first()?;
        let server = wanted(PolicyServer::at(&endpoint_of(address, &queue)), self);
        Some(self.ask(service, list, &server))
    }

    /// The command that has a list ask a server as well; at the end of a message about users too, since what
    /// is counted there is counted for them.
    pub(super) fn ask(&self, service: &Service, list: &'static str, server: &PolicyServer) -> String {
        let mut items = self.items_as_written(service, list);
        if items.is_empty() && list == "smtpd_recipient_restrictions" {
            items = [KNOWN_USERS[0], KNOWN_USERS[1], GUARD].map(Item::named).into();
        }
        items.retain(|item| item.policy_server().as_ref() != Some(server));
        let is_behind = |item: &Item| {
            item.is_last() || list == "smtpd_end_of_data_restrictions" && item.name == KNOWN_USERS[1]
        };
        let last = items.iter().position(is_behind).unwrap_or(items.len());
        items.insert(last, server.item());
        self.write(service, list, &items)
    }

    /// The command that takes a question out of its list.
    pub(super) fn remove(&self, question: &Question<'_>) -> String {
        let mut items = self.items_as_written(question.service, question.list);
        items.retain(|item| item.policy_server().as_ref() != Some(&question.server));
        self.write(question.service, question.list, &items)
    }

    /// The same with another restriction before the question.
    pub(super) fn repair_behind(&self, question: &Question<'_>, name: &str) -> String {
        self.repair_with(question, Some(name))
    }

    fn items_as_written(&self, service: &Service, list: &str) -> Vec<Item> {
        let postfix = self.postfix.as_ref();
        postfix.and_then(|postfix| postfix.raw(Some(service), list)).map(parse).unwrap_or_default()
    }

    /// The server that a question should ask.
    fn repaired_server(&self, question: &Question<'_>) -> PolicyServer {
        let mut server = question.server.clone();
        if let Some(settings) = self.settings.as_ref().filter(|_| self.address_of(question).is_none())
            && let Some(address) = settings.addresses.first()
        {
            server.endpoint = endpoint_of(address, &self.queue_folder());
        }
        repaired(server, self)
    }

    /// Where in the list without it a question should stand.
    fn place_for(&self, question: &Question<'_>, items: &mut Vec<Item>, at: usize) -> usize {
        let at = items.iter().position(Item::is_last).map_or(at, |last| last.min(at));
        if !super::wiring::may_relay(self, question) {
            return at;
        }
        match items.iter().position(Item::guards_relay) {
            Some(guard) => at.max(guard + 1),
            None => {
                items.insert(at, Item::named(GUARD));
                at + 1
            }
        }
    }

    /// The command that writes a list, in master.cf if the service has one of its own.
    fn write(&self, service: &Service, list: &str, items: &[Item]) -> String {
        let value = render(items);
        if service.overrides(list) {
            format!("postconf -P '{}/{}/{list}={value}'", service.name, service.kind)
        } else {
            format!("postconf -e '{list} = {value}'")
        }
    }
}
