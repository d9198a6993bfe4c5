//! Tickets and the auto-whitelist as an administrator sees and changes them.
//!
//! Knows: tickets, the auto-whitelist, what stands for a client. Must not know: who asks.

mod known;
#[cfg(test)]
#[path = "by_hand/tests.rs"]
mod on_the_bench;
mod tickets;

use super::awl::{Awl, domain_of, key, read_count};
use super::awl_table::Row;
use super::client::{ClientKey, Clients};
use super::ticket::{Standing, Tickets, read_ticket};
use super::triplet::Triplet;
use crate::network::{Network, address_of, plain_address};
use crate::plugin::Setup;
use crate::state::Kind;
use known::KnownClients;
use std::net::IpAddr;
use tickets::HeldTickets;

/// Lets the administrator see tickets and, if there is one, the auto-whitelist.
pub fn leave_states(
    setup: &Setup<'_, '_>,
    tickets: &Tickets,
    awl: Option<&Awl>,
    clients: Clients,
    without_tags: bool,
    threshold: u64,
) {
    let prefix = String::from_utf8_lossy(&tickets.key_prefix()).into_owned();
    let identity = format!("{}\0{prefix}", tickets.store().name());
    let held = HeldTickets { tickets: tickets.clone(), clients, without_tags };
    setup.state(Kind::Greylist, identity, held);
    if let Some(awl) = awl {
        let place = match awl {
            Awl::Table { table, .. } => format!("{}\0table\0{}", table.sql().name(), table.name()),
            Awl::Store { store, prefix, .. } => format!("{}\0store\0{prefix}", store.name()),
        };
        let known = KnownClients { awl: awl.clone(), clients, threshold };
        setup.state(Kind::Awl, format!("{place}\0{threshold}"), known);
    }
}

/// What stands for a client that an administrator names by its address or as a list shows it.
fn client_key(clients: Clients, written: &str) -> Vec<u8> {
    match (address_of(written.as_bytes()), clients.key) {
        (Some(ip), ClientKey::Net) => clients.of_address(ip),
        _ => plain_address(written.as_bytes()).into_owned(),
    }
}

/// Whether an administrator names a network that does not stand for one client of the plugin.
fn is_many(clients: Clients, written: &str) -> bool {
    let network = Network::parse(written).filter(|_| address_of(written.as_bytes()).is_none());
    network.is_some_and(|network| clients.of_address(network.first()) != written.as_bytes())
}

/// Whether what stands for a client is the one that is asked for: an address is also found in its network,
/// and a network finds all addresses in it.
fn is_client(wanted: &str, client: &[u8]) -> bool {
    if *plain_address(wanted.as_bytes()) == *client {
        return true;
    }
    let network = |text: &[u8]| std::str::from_utf8(text).ok().and_then(Network::parse);
    let (wanted, client) = (wanted.as_bytes(), client);
    let is_in = |ip: Option<IpAddr>, network: Option<Network>| {
        ip.zip(network).is_some_and(|(ip, network)| network.contains(ip))
    };
    is_in(address_of(wanted), network(client)) || is_in(address_of(client), network(wanted))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_is_found_by_its_address_and_its_network() {
        for (wanted, client, is_it) in [
            ("192.0.2.7", "192.0.2.7", true),
            ("::ffff:192.0.2.7", "192.0.2.7", true),
            ("192.0.2.7", "192.0.2.0/24", true),
            ("192.0.2.0/24", "192.0.2.7", true),
            ("192.0.2.0/24", "192.0.2.0/24", true),
            ("192.0.3.7", "192.0.2.0/24", false),
            ("google.com", "google.com", true),
            ("192.0.2.7", "google.com", false),
        ] {
            assert_eq!(is_client(wanted, client.as_bytes()), is_it, "{wanted} {client}");
        }
    }
}
