//! Who knocks: by which name the console was called, through which web server, from which page. What does not
//! fit is refused before anything else is looked at.
//!
//! Knows: headers of requests. Must not know: pages, sessions.

use crate::address::ListenAddress;
use crate::log::escape;
use crate::network::Network;
use crate::server::control::Problem;
use crate::settings::ConsoleOptions;
use hyper::HeaderMap;
use hyper::header::{FORWARDED, HOST, HeaderName, ORIGIN};
use std::net::{IpAddr, SocketAddr};
use tokio::net::TcpStream;

/// What web servers in front of others call what they know of the client.
const PASSED_ON: &str = "x-forwarded-";

/// The header of a user that is usual, which nobody else may send even if it is not configured.
const USUAL_USER_HEADER: &str = "remote-user";

/// The longest name of a user, in bytes.
const MAX_USER: usize = 256;

/// Addresses of IPv6 that count as one client.
const CLIENT_PREFIX: u8 = 64;

/// Where a connection comes in.
#[derive(Default)]
pub struct Entrance {
    /// The other end; `None` with a UNIX socket.
    peer: Option<IpAddr>,
    /// This end.
    local: Option<SocketAddr>,
    is_tls: bool,
}

impl Entrance {
    /// That of a connection over TCP.
    pub fn of(stream: &TcpStream, is_tls: bool) -> Entrance {
        let peer = stream.peer_addr().ok().map(|peer| peer.ip().to_canonical());
        // Where that is not known, the client has gone already; it must not count as a UNIX socket.
        let peer = peer.or(Some(IpAddr::from([0; 4])));
        Entrance { peer, local: stream.local_addr().ok(), is_tls }
    }
}

/// A request whose head fits.
#[derive(Debug)]
pub struct Visitor {
    /// The client, for messages and to count its failures.
    pub client: String,
    /// Whether the browser speaks HTTPS, as far as that is known.
    pub is_https: bool,
    /// The user that a web server has signed in.
    pub user: Option<String>,
    /// The origins whose forms are accepted.
    origins: Vec<String>,
}

impl Visitor {
    /// Looks at the head of a request.
    pub fn of(
        headers: &HeaderMap,
        entrance: &Entrance,
        options: &ConsoleOptions,
    ) -> Result<Visitor, Problem> {
        let is_proxy = entrance
            .peer
            .is_none_or(|peer| options.trusted_proxy.0.iter().any(|network| network.contains(peer)));
        if !is_proxy {
            refuse_passed_on(headers, options)?;
        }
        let host = one(headers, &HOST)?.map(str::to_ascii_lowercase);
        if entrance.peer.is_some() && !host.as_deref().is_some_and(|host| is_ours(host, entrance, options)) {
            let name = escape(host.unwrap_or_default().as_bytes()).into_owned();
            let text = format!(
                "the console is not known as `{name}`: use its address, or add the name to `hosts` in \
                 <Console>"
            );
            return Err(Problem::forbidden(text));
        }
        let scheme = one(headers, &HeaderName::from_static("x-forwarded-proto"))?;
        let is_https = match (is_proxy, scheme, &options.url) {
            (true, Some(scheme), _) => scheme.eq_ignore_ascii_case("https"),
            (true, None, Some(url)) => url.is_https(),
            _ => entrance.is_tls,
        };
        let mut origins: Vec<_> = options.url.iter().map(|url| url.origin.clone()).collect();
        if let Some(host) = &host {
            origins.push(format!("{}://{host}", if is_https { "https" } else { "http" }));
            // A web server in front of it may not say what browsers speak.
            if is_proxy && scheme.is_none() && options.url.is_none() {
                origins.push(format!("https://{host}"));
            }
        }
        let user = options.user_header.as_deref().filter(|_| is_proxy);
        let user = user.map(|name| user_of(headers, name)).transpose()?.flatten();
        Ok(Visitor { client: client(headers, entrance, is_proxy), is_https, user, origins })
    }

    /// Refuses what was sent from a page of another site.
    pub fn check_origin(&self, headers: &HeaderMap) -> Result<(), Problem> {
        let origin = one(headers, &ORIGIN)?.map(str::to_ascii_lowercase);
        let site = one(headers, &HeaderName::from_static("sec-fetch-site"))?;
        let is_same = site.is_none_or(|site| site == "same-origin");
        if is_same && origin.is_some_and(|origin| self.origins.contains(&origin)) {
            return Ok(());
        }
        Err(Problem::forbidden("this was not sent by a page of the console; open the page and try again"))
    }
}

/// The value of a header that may be there once.
fn one<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a str>, Problem> {
    let mut values = headers.get_all(name).iter();
    let value = values.next().map(|value| value.to_str());
    match (value, values.next()) {
        (None, _) => Ok(None),
        (Some(Ok(value)), None) => Ok(Some(value.trim())),
        _ => Err(Problem::bad(format!("the header {name} is there twice, or is not ASCII"))),
    }
}

/// Headers that only a web server in front of the console may send.
fn refuse_passed_on(headers: &HeaderMap, options: &ConsoleOptions) -> Result<(), Problem> {
    let user_header = options.user_header.as_deref().unwrap_or(USUAL_USER_HEADER);
    let is_passed_on = |name: &&HeaderName| {
        name.as_str().starts_with(PASSED_ON)
            || *name == FORWARDED
            || name.as_str() == USUAL_USER_HEADER
            || name.as_str().eq_ignore_ascii_case(user_header)
    };
    let Some(name) = headers.keys().find(is_passed_on) else { return Ok(()) };
    let text = format!(
        "the header {name} is for web servers in front of the console; if this came through one, add its \
         address to `trusted_proxy` in <Console>"
    );
    Err(Problem::bad(text))
}

/// Whether the console may be called by this name.
fn is_ours(host: &str, entrance: &Entrance, options: &ConsoleOptions) -> bool {
    let with_port = |name: &str, port: u16| {
        let is_usual = port == if entrance.is_tls { 443 } else { 80 };
        host == format!("{name}:{port}") || (is_usual && host == name)
    };
    let is_at = |address: &SocketAddr| match address.ip() {
        IpAddr::V4(ip) => with_port(&ip.to_string(), address.port()),
        IpAddr::V6(ip) => with_port(&format!("[{ip}]"), address.port()),
    };
    let listens = match options.address() {
        ListenAddress::Tcp(address) => Some(*address),
        ListenAddress::Unix(_) => None,
    };
    let is_named = options.hosts.0.iter().any(|name| {
        let name = name.to_ascii_lowercase();
        host == name || listens.is_some_and(|address| with_port(&name, address.port()))
    });
    is_named
        || options.url.as_ref().is_some_and(|url| url.host == host)
        || entrance.local.is_some_and(|local| {
            is_at(&SocketAddr::new(local.ip().to_canonical(), local.port())) || is_at(&local)
        })
        || listens.is_some_and(|address| is_at(&address) || with_port("localhost", address.port()))
}

/// The user that a web server names.
fn user_of(headers: &HeaderMap, name: &str) -> Result<Option<String>, Problem> {
    let bad = || Problem::bad(format!("the header {name} does not name one user"));
    let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| bad())?;
    let user = one(headers, &name)?.filter(|user| !user.is_empty());
    match user {
        Some(user) if user.len() > MAX_USER => Err(bad()),
        user => Ok(user.map(str::to_owned)),
    }
}

/// The address of the client: the last one that a web server has added, which it knows itself.
fn client(headers: &HeaderMap, entrance: &Entrance, is_proxy: bool) -> String {
    let added = headers.get_all("x-forwarded-for").iter().next_back().and_then(|value| value.to_str().ok());
    let added = added.and_then(|list| list.rsplit(',').next()?.trim().parse::<IpAddr>().ok());
    let address = added.filter(|_| is_proxy).or(entrance.peer);
    match address.map(|address| address.to_canonical()) {
        None => "the UNIX socket".to_owned(),
        Some(ip @ IpAddr::V4(_)) => ip.to_string(),
        Some(ip @ IpAddr::V6(_)) => Network::around(ip, CLIENT_PREFIX).to_string(),
    }
}
