//! Questions whose answer DNSSEC has to prove: by a name server that validates and can be believed.
//!
//! Knows: the DNS, the flags AD and DO. Must not know: what is proved, what for.

use futures_util::StreamExt;
use hickory_resolver::config::{NameServerConfig, ResolverOpts};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsHandle, NetError};
use hickory_resolver::proto::op::{DnsRequest, DnsRequestOptions, Edns, Message, Query};
use hickory_resolver::{NameServerPool, PoolContext, TlsConfig};
use std::sync::Arc;
use tokio::time::timeout;

use super::known::{read_answer, read_error};
use super::resolver::{Resolver, wire_name};
use super::{Answer, Dns, Failure, Question};

/// What UDP carries without being cut up on its way (the DNS flag day of 2020); more comes over TCP.
const MAX_UDP_PAYLOAD: u16 = 1_232;

/// An answer, and whether it is proved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authentic {
    /// The answer.
    pub answer: Answer,
    /// Whether a name server that is believed says that DNSSEC proves it. Of "no such records" nothing is
    /// known.
    pub is_proved: bool,
}

/// The name servers, asked with AD and DO.
pub(super) struct Upstream {
    pool: NameServerPool<TokioRuntimeProvider>,
    is_believed: bool,
}

impl Upstream {
    pub fn new(
        servers: &[NameServerConfig],
        options: ResolverOpts,
        trust_ad: Option<bool>,
    ) -> Result<Upstream, NetError> {
        // Anybody on the way to a server elsewhere could set the flag.
        let is_local = || !servers.is_empty() && servers.iter().all(|server| server.ip.is_loopback());
        let is_believed = trust_ad.unwrap_or_else(is_local);
        let context = PoolContext::new(options, TlsConfig::new()?);
        let provider = TokioRuntimeProvider::default();
        let pool = NameServerPool::from_config(servers.to_vec(), Arc::new(context), provider);
        Ok(Upstream { pool, is_believed })
    }
}

impl Dns {
    /// Whether an answer can be proved at all.
    pub fn can_prove(&self) -> bool {
        match self {
            Dns::Resolver(resolver) => resolver.authentic.is_believed,
            Dns::Fake(_) => true,
        }
    }

    /// The answer to a question, and whether it is proved. It is not remembered here: who asks so keeps what
    /// it makes of the answer.
    pub async fn lookup_authentic(&self, question: &Question) -> Authentic {
        match self {
            Dns::Resolver(resolver) => resolver.lookup_authentic(question).await,
            Dns::Fake(zone) => Authentic { answer: zone.answer(question), is_proved: zone.proves(question) },
        }
    }
}

impl Resolver {
    async fn lookup_authentic(&self, question: &Question) -> Authentic {
        match timeout(self.patience, self.ask_authentic(question)).await {
            Ok(authentic) => authentic,
            Err(_) => Authentic { answer: Answer::Failed(Failure::TimedOut), is_proved: false },
        }
    }

    async fn ask_authentic(&self, question: &Question) -> Authentic {
        let unproved = |answer| Authentic { answer, is_proved: false };
        let Some(name) = wire_name(&question.name) else { return unproved(Answer::Nothing) };
        let record_type = question.record_type;
        let mut message = Message::query();
        message.add_query(Query::query(name.clone(), record_type.on_the_wire()));
        message.metadata.recursion_desired = true;
        // The flag in a question says that it is understood in the answer (RFC 6840 section 5.7).
        message.metadata.authentic_data = true;
        let mut edns = Edns::new();
        edns.set_max_payload(MAX_UDP_PAYLOAD).set_dnssec_ok(true);
        message.set_edns(edns);
        let request = DnsRequest::new(message, DnsRequestOptions::default());
        // The semaphore is never closed.
        let _permit = self.names_in_flight.acquire().await;
        match self.authentic.pool.send(request).next().await.unwrap_or(Err(NetError::NoConnections)) {
            Ok(response) => {
                let is_proved = self.authentic.is_believed && response.metadata.authentic_data;
                Authentic { answer: read_answer(&name, record_type, &response.answers).answer, is_proved }
            }
            Err(error) => unproved(read_error(&error).answer),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_servers_of_this_machine_are_believed_unasked() {
        let believed = |servers: &[&str], trust_ad| {
            let servers: Vec<_> =
                servers.iter().map(|ip| NameServerConfig::udp_and_tcp(ip.parse().unwrap())).collect();
            Upstream::new(&servers, ResolverOpts::default(), trust_ad).unwrap().is_believed
        };
        assert!(believed(&["127.0.0.53"], None) && believed(&["127.0.0.1", "::1"], None));
        assert!(!believed(&["127.0.0.1", "192.0.2.1"], None) && !believed(&["192.0.2.1"], None));
        assert!(believed(&["192.0.2.1"], Some(true)) && !believed(&["::1"], Some(false)));
    }
}
