//! The `<Metrics>` block: where monitoring reads the numbers of the daemon.
//!
//! Knows: the names and defaults of its options. Must not know: sockets, any number.

use crate::options::{Options, Section, options};
use crate::value::Value;
use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};

/// Where the numbers are read unless the block says otherwise.
const DEFAULT: MetricsAddress =
    MetricsAddress(SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9125));

/// The address of a TCP port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MetricsAddress(pub SocketAddr);

impl fmt::Display for MetricsAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Value for MetricsAddress {
    const FORM: &'static str = "address and port";
    fn parse(text: &str) -> Result<Self, String> {
        let is_good = |address: &SocketAddr| address.port() != 0;
        let address = text.parse().ok().filter(is_good).map(MetricsAddress);
        address.ok_or_else(|| format!("`{text}` is not an address with a port, such as {DEFAULT}"))
    }
}

options! {
    /// Options of the `<Metrics>` block: a port at which monitoring reads the numbers of the daemon over
    /// HTTP. Without the block there is no such port; `mtpolicyd metrics` prints the numbers in any case.
    ///
    /// `/metrics` has them in the formats of Prometheus, `/healthz` says that the daemon runs, and `/readyz`
    /// whether it can do its work: its status is 503 if a server does not answer and a virtual host has
    /// `on_error = close`. Nothing else can be asked there, and nothing changed. The numbers hold names from
    /// the configuration, and nothing that clients have sent. `docs/metrics.md` explains each.
    pub struct MetricsOptions {
        /// The address and the port. Whoever can connect may read the numbers, so an address of the network
        /// belongs behind a firewall. If the port can't be opened, the log says so and requests are answered
        /// all the same.
        listen: MetricsAddress = DEFAULT,
    }
}

/// What the block says, or `None` after the mistakes were reported.
pub(super) fn read(mut section: Section<'_>) -> Option<Option<SocketAddr>> {
    let options = MetricsOptions::read(&mut section);
    if let Some(MetricsAddress(address)) = options.as_ref().map(|options| options.listen)
        && !address.ip().to_canonical().is_loopback()
    {
        let message = format!("listen: whoever can reach {address} may read the metrics");
        section.report().notice(section.span_of("listen"), message, None);
    }
    section.finish();
    options.map(|options| Some(options.listen.0))
}
