//! The `<Console>` block: where the pages for browsers are, and who may see what.
//!
//! Knows: the names and defaults of its options. Must not know: sockets, pages.

use super::Level;
use crate::address::ListenAddress;
use crate::network::Network;
use crate::options::{Options, Section, codes, options};
use crate::value::Value;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

/// Where the console is unless the block says otherwise.
const DEFAULT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9124);

/// The file of the tokens where none is named.
const DEFAULT_TOKENS: &str = "/var/lib/mtpolicyd/console-tokens";

/// The bytes that the name of a UNIX socket may have (`sun_path` of unix(7), with a zero byte at its end).
const MAX_PATH: usize = 107;

/// Stands for everybody in a list of users.
const EVERYBODY: &str = "*";

/// An address and a port, or the path of a UNIX socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsoleAddress(pub ListenAddress);

impl fmt::Display for ConsoleAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Value for ConsoleAddress {
    const FORM: &'static str = "address and port, or path of a UNIX socket";
    fn parse(text: &str) -> Result<Self, String> {
        if text.starts_with('/') {
            return match text.len() {
                0..=MAX_PATH => Ok(ConsoleAddress(ListenAddress::Unix(PathBuf::from(text)))),
                _ => Err(format!("the path of a UNIX socket has at most {MAX_PATH} bytes")),
            };
        }
        let address = text.parse::<SocketAddr>().ok().filter(|address| address.port() != 0);
        let address = address.map(|address| ConsoleAddress(ListenAddress::Tcp(address)));
        address.ok_or_else(|| {
            format!("`{text}` is neither an address with a port, such as {DEFAULT}, nor the path of a socket")
        })
    }
}

/// Some names, with commas or blanks between them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names(pub Vec<String>);

impl fmt::Display for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join(", "))
    }
}

impl Value for Names {
    const FORM: &'static str = "names with commas between them";
    fn parse(text: &str) -> Result<Self, String> {
        let names = text.split([',', ' ', '\t']).filter(|name| !name.is_empty());
        Ok(Names(names.map(str::to_owned).collect()))
    }
}

impl Names {
    fn have(&self, name: &str) -> bool {
        self.0.iter().any(|known| known == name || known == EVERYBODY)
    }
}

/// Some networks, with commas or blanks between them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Networks(pub Vec<Network>);

impl fmt::Display for Networks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let networks: Vec<_> = self.0.iter().map(ToString::to_string).collect();
        f.write_str(&networks.join(", "))
    }
}

impl Value for Networks {
    const FORM: &'static str = "addresses or networks with commas between them";
    fn parse(text: &str) -> Result<Self, String> {
        let read =
            |text: &str| Network::parse(text).ok_or(format!("`{text}` is not an address or a network"));
        Names::parse(text)?.0.iter().map(|text| read(text)).collect::<Result<_, _>>().map(Networks)
    }
}

/// The address of the console as browsers know it: `https://mx.example.org/mtpolicyd/`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicUrl {
    /// `https://mx.example.org`: what a browser sends as `Origin`.
    pub origin: String,
    /// `mx.example.org`, with the port if it is not the usual one: what a browser sends as `Host`.
    pub host: String,
    /// `/mtpolicyd/`.
    path: String,
}

impl fmt::Display for PublicUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.origin, self.path)
    }
}

impl PublicUrl {
    /// Whether browsers reach it by TLS.
    pub fn is_https(&self) -> bool {
        self.origin.starts_with("https:")
    }
}

impl Value for PublicUrl {
    const FORM: &'static str = "URL that begins with `http://` or `https://`";
    fn parse(text: &str) -> Result<Self, String> {
        let why = || format!("`{text}` is not a URL such as https://mx.example.org/mtpolicyd/");
        let uri: hyper::Uri = text.parse().map_err(|_| why())?;
        let scheme = uri.scheme_str().filter(|scheme| matches!(*scheme, "http" | "https")).ok_or_else(why)?;
        let authority = uri.authority().filter(|it| !it.as_str().contains('@')).ok_or_else(why)?;
        if uri.query().is_some() {
            return Err(why());
        }
        let usual = if scheme == "https" { ":443" } else { ":80" };
        let host = authority.as_str().to_ascii_lowercase();
        let host = host.strip_suffix(usual).unwrap_or(&host).to_owned();
        let path = format!("{}/", uri.path().trim_end_matches('/'));
        Ok(PublicUrl { origin: format!("{scheme}://{host}"), host, path })
    }
}

options! {
    /// Options of the `<Console>` block: pages for browsers that show what was decided and why. Without the
    /// block there is no console.
    ///
    /// Nobody has a password. `mtpolicyd console open` prints a link that signs in once, and `mtpolicyd
    /// console token add` makes a token for somebody who has no account on this machine; or a web server in
    /// front of the console signs people in (`user_header`). The guide shows each
    /// (`docs/guide/console.md`).
    ///
    /// ```conf
    /// <Console>
    ///   listen = "127.0.0.1:9124"
    /// </Console>
    /// ```
    pub struct ConsoleOptions {
        /// The address and the port, or the path of a UNIX socket for a web server on this machine. An
        /// address that is not a loopback one needs `tls_cert` and `tls_key`. If it can't be opened, the log
        /// says so and requests of Postfix are answered all the same.
        listen: ConsoleAddress = ConsoleAddress(ListenAddress::Tcp(DEFAULT)),
        /// The group that may connect to the UNIX socket, such as that of the web server. Without it, the
        /// group that the daemon runs as.
        group: Option<String>,
        /// The path of the file with the certificate and those of the authorities above it, in PEM. With it
        /// the console speaks HTTPS only. A file that is replaced is read again within a minute; until then,
        /// and if it can't be used, the previous one stays in use.
        tls_cert: Option<String>,
        /// The path of the file with the key of the certificate, in PEM. The user of the daemon has to be
        /// able to read it.
        tls_key: Option<String>,
        /// The URL under which browsers reach the console, if a web server stands in front of it:
        /// `mtpolicyd console open` prints it, and forms are accepted only from pages of this origin.
        url: Option<PublicUrl>,
        /// More names under which browsers may reach the console, with the port if it is not the usual one.
        /// The address of `listen`, `localhost` with its port and the host of `url` are always allowed; a
        /// request with another `Host` is refused, which keeps web sites from reaching the console by a name
        /// of their own. Over a UNIX socket every name is allowed.
        hosts: Names = Names::default(),
        /// The addresses of web servers that pass requests on. What they say about the client
        /// (`X-Forwarded-For`, `X-Forwarded-Proto`) is used; from anybody else it is an error.
        /// What comes over a UNIX socket is from such a web server.
        trusted_proxy: Networks = Networks::default(),
        /// The header in which such a web server names the user that it has signed in. It has to remove the
        /// header from what clients send.
        user_header: Option<String>,
        /// Users of `user_header` who may see everything, or `*` for all of them.
        read_users: Names = Names::default(),
        /// Users of `user_header` who may also change what plugins remember.
        change_users: Names = Names::default(),
        /// Users of `user_header` who may do everything.
        admin_users: Names = Names::default(),
        /// The path of the file in which the hashes of the tokens are kept. The daemon writes it, so its
        /// folder has to be one that the user of the daemon can write to.
        tokens: String = DEFAULT_TOKENS.to_owned(),
    }
    rules {
        Requires(tls_cert, tls_key),
        Requires(tls_key, tls_cert),
        OnlyWith(read_users, user_header),
        OnlyWith(change_users, user_header),
        OnlyWith(admin_users, user_header),
    }
}

impl ConsoleOptions {
    /// Where it listens.
    pub fn address(&self) -> &ListenAddress {
        &self.listen.0
    }

    /// The files of the certificate and of its key.
    pub fn tls_files(&self) -> Option<(PathBuf, PathBuf)> {
        Some((self.tls_cert.as_deref()?.into(), self.tls_key.as_deref()?.into()))
    }

    /// What a user that a web server has signed in may do.
    pub fn level_of(&self, user: &str) -> Option<Level> {
        let lists = [
            (&self.admin_users, Level::Admin),
            (&self.change_users, Level::Change),
            (&self.read_users, Level::Read),
        ];
        lists.into_iter().find_map(|(names, level)| names.have(user).then_some(level))
    }

    /// Where a browser finds it.
    pub fn shown_url(&self) -> Option<String> {
        match (&self.url, self.address()) {
            (Some(url), _) => Some(url.to_string()),
            (None, ListenAddress::Tcp(address)) => {
                let scheme = if self.tls_cert.is_some() { "https" } else { "http" };
                Some(format!("{scheme}://{address}/"))
            }
            (None, ListenAddress::Unix(_)) => None,
        }
    }
}

/// What the block says, or `None` after the mistakes were reported.
pub(super) fn read(mut section: Section<'_>) -> Option<Option<ConsoleOptions>> {
    let options = ConsoleOptions::read(&mut section);
    let is_exposed = options.as_ref().is_some_and(|options| {
        let is_open = |address: &ListenAddress| match address {
            ListenAddress::Tcp(address) => !address.ip().to_canonical().is_loopback(),
            ListenAddress::Unix(_) => false,
        };
        is_open(options.address()) && options.tls_files().is_none()
    });
    if is_exposed {
        let help = "add `tls_cert` and `tls_key`, or listen at 127.0.0.1 behind a web server with TLS";
        let message = "listen: the console needs TLS at an address that is not a loopback one";
        let span = section.span_of("listen");
        section.report().say(&codes::UNUSABLE_VALUE, span, message, Some(help.to_owned()));
    }
    let header = options.as_ref().and_then(|options| options.user_header.clone());
    let is_bad = header.is_some_and(|name| hyper::header::HeaderName::from_bytes(name.as_bytes()).is_err());
    if is_bad {
        section.report().error(section.span_of("user_header"), "user_header: not the name of a header", None);
    }
    section.finish();
    options.filter(|_| !is_exposed && !is_bad).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::Report;
    use config_general::Limits;
    use std::path::Path;

    fn read_text(inside: &str) -> Result<ConsoleOptions, String> {
        let text = format!("<Console>\n{inside}\n</Console>\n");
        let document = config_general::parse(Path::new("c"), text.as_bytes(), &Limits::default()).unwrap();
        let report = Report::default();
        let read = read(Section::new(document.root.blocks().next().unwrap(), &report));
        let said: Vec<_> = report.into_diagnostics().into_iter().map(|it| it.message).collect();
        if said.is_empty() { Ok(read.unwrap().unwrap()) } else { Err(said.join("; ")) }
    }

    #[test]
    fn an_address_of_the_network_needs_tls() {
        for address in ["0.0.0.0:9124", "192.0.2.1:80", "[::]:9124", "[2001:db8::1]:9124"] {
            let listen = format!("listen = \"{address}\"");
            let said = read_text(&listen).err().unwrap();
            assert!(said.contains("needs TLS"), "{address}: {said}");
            assert!(read_text(&format!("{listen}\ntls_cert = /c\ntls_key = /k")).is_ok());
        }
        for address in ["127.0.0.1:9124", "127.9.9.9:1", "[::1]:9124", "[::ffff:127.0.0.1]:5", "/run/c.sock"]
        {
            assert!(read_text(&format!("listen = \"{address}\"")).is_ok(), "{address}");
        }
        assert!(read_text("tls_cert = /c").err().unwrap().contains("needs `tls_key`"));
        assert!(read_text("listen = localhost").err().unwrap().contains("neither an address"));
    }

    #[test]
    fn the_lists_give_users_their_level() {
        let lists = "user_header = Remote-User\nread_users = \"*\"\nchange_users = \"bob, carol\"\n\
                     admin_users = root";
        let options = read_text(lists).unwrap();
        assert_eq!(options.level_of("root"), Some(Level::Admin));
        assert_eq!(options.level_of("carol"), Some(Level::Change));
        assert_eq!(options.level_of("anybody"), Some(Level::Read));
        assert_eq!(read_text("user_header = X-User").unwrap().level_of("root"), None);
        assert!(read_text("user_header = \"a b\"").err().unwrap().contains("not the name of a header"));
    }

    #[test]
    fn a_url_is_an_origin_and_a_path() {
        let url = PublicUrl::parse("https://MX.example.org:443/mtpolicyd").unwrap();
        assert_eq!(
            (url.host.as_str(), url.to_string().as_str()),
            ("mx.example.org", "https://mx.example.org/mtpolicyd/")
        );
        assert_eq!(PublicUrl::parse("http://[::1]:81").unwrap().to_string(), "http://[::1]:81/");
        for bad in ["mx.example.org", "ftp://a/", "https://u@a/", "https://a/?b"] {
            assert!(PublicUrl::parse(bad).is_err(), "{bad}");
        }
    }
}
