//! What a question came to: records, or why there are none.
//!
//! Knows: types of records, response codes. Must not know: servers, messages, what a record means.

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use nix::errno::Errno;

use crate::name::NameRef;

/// A type of records, by its number on the wire.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct RecordType(pub u16);

impl RecordType {
    /// IPv4 addresses.
    pub const A: Self = Self(1);
    /// Name servers of a zone.
    pub const NS: Self = Self(2);
    /// Another name of the same thing.
    pub const CNAME: Self = Self(5);
    /// The beginning of a zone.
    pub const SOA: Self = Self(6);
    /// The names of an address.
    pub const PTR: Self = Self(12);
    /// Mail exchangers.
    pub const MX: Self = Self(15);
    /// Text.
    pub const TXT: Self = Self(16);
    /// IPv6 addresses.
    pub const AAAA: Self = Self(28);
    /// Hosts of a service.
    pub const SRV: Self = Self(33);
    /// Another name for everything below a name.
    pub const DNAME: Self = Self(39);
    /// The options of EDNS.
    pub(crate) const OPT: Self = Self(41);
    /// Certificates of a TLS server (RFC 6698).
    pub const TLSA: Self = Self(52);
    /// An OpenPGP key (RFC 7929).
    pub const OPENPGPKEY: Self = Self(61);

    /// The number of bytes before the only name of such a record; `None` if there is no name to expand.
    pub(crate) fn bytes_before_name(self) -> Option<usize> {
        match self {
            Self::NS | Self::CNAME | Self::PTR | Self::DNAME => Some(0),
            Self::MX => Some(2),
            Self::SRV => Some(6),
            _ => None,
        }
    }
}

/// What a server says about a question as a whole (RFC 1035 section 4.1.1, RFC 6891 section 6.1.3).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Rcode(pub u16);

impl Rcode {
    /// The name exists, the records maybe not.
    pub const NOERROR: Self = Self(0);
    /// The server can't read the question.
    pub const FORMERR: Self = Self(1);
    /// The server can't find out.
    pub const SERVFAIL: Self = Self(2);
    /// The name does not exist.
    pub const NXDOMAIN: Self = Self(3);
    /// The server can't do that.
    pub const NOTIMP: Self = Self(4);
    /// The server won't do that.
    pub const REFUSED: Self = Self(5);
    /// The server knows another version of EDNS.
    pub const BADVERS: Self = Self(16);

    /// The code in words, for a log line.
    pub fn description(self) -> &'static str {
        match self.0 {
            0 => "No Error",
            1 => "Form Error",
            2 => "Server Failure",
            3 => "Non-Existent Domain",
            4 => "Not Implemented",
            5 => "Query Refused",
            6 => "Name should not exist",
            7 => "RR Set should not exist",
            8 => "RR Set does not exist",
            9 => "Not authorized",
            10 => "Name not in zone",
            16 => "Bad option versions",
            23 => "Bad server cookie",
            _ => "Unknown response code",
        }
    }
}

impl fmt::Display for Rcode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.description(), self.0)
    }
}

/// Why a question has no answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Error {
    /// There is no server to ask.
    NoServers,
    /// No server answered in time.
    TimedOut,
    /// Every server that answered said that it can't or won't: SERVFAIL, REFUSED and the like.
    Refused(Rcode),
    /// What a server sent can't be read as an answer.
    Malformed(&'static str),
    /// No server can be reached.
    Unreachable(io::ErrorKind),
    /// No socket could be opened: the error number, of too many open files for instance.
    NoSocket(i32),
    /// Too many questions are in flight.
    Overloaded,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoServers => f.write_str("no name server is configured"),
            Self::TimedOut => f.write_str("no name server answered in time"),
            Self::Refused(code) => write!(f, "the name server answered {code}"),
            Self::Malformed(why) => write!(f, "the name server's answer can't be read: {why}"),
            Self::Unreachable(kind) => write!(f, "no name server can be reached: {kind}"),
            Self::NoSocket(code) => {
                write!(f, "no socket can be opened: {}", io::Error::from_raw_os_error(*code))
            }
            Self::Overloaded => f.write_str("too many questions are in flight"),
        }
    }
}

impl std::error::Error for Error {}

impl From<io::Error> for Error {
    /// What has failed on the way to a server.
    fn from(error: io::Error) -> Self {
        let is_own = |code: &i32| {
            let own = [Errno::EMFILE, Errno::ENFILE, Errno::ENOBUFS, Errno::ENOMEM];
            own.contains(&Errno::from_raw(*code))
        };
        match error.raw_os_error().filter(is_own) {
            Some(code) => Self::NoSocket(code),
            None => Self::Unreachable(error.kind()),
        }
    }
}

/// The records that answer a question, maybe none. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Answer {
    /// [`Rcode::NOERROR`] or [`Rcode::NXDOMAIN`].
    pub rcode: Rcode,
    /// Whether the server says that DNSSEC proves the answer (the flag AD). Only as good as the way to it.
    pub is_authentic: bool,
    /// How long the answer may still be used, within the bounds of the configuration.
    pub ttl: Duration,
    /// The type that was asked for.
    pub(crate) record_type: RecordType,
    /// The records one after the other, each behind its length in two bytes; names are expanded.
    pub(crate) records: Option<Arc<[u8]>>,
}

impl Answer {
    /// The records at the end of the name's chain of aliases, in the server's order.
    pub fn records(&self) -> Records<'_> {
        Records { record_type: self.record_type, rest: self.records.as_deref().unwrap_or_default() }
    }

    /// Whether there are no such records.
    pub fn is_empty(&self) -> bool {
        self.records.is_none()
    }

    /// The bytes that the records take, beside the answer itself.
    pub(crate) fn bytes_held(&self) -> usize {
        // Two counters stand before what an `Arc` holds.
        self.records.as_deref().map_or(0, |records| records.len() + 2 * size_of::<usize>())
    }
}

/// The data of one record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Data<'a> {
    /// An IPv4 address.
    A(Ipv4Addr),
    /// An IPv6 address.
    Aaaa(Ipv6Addr),
    /// A mail exchanger.
    Mx {
        /// Lower ones are tried first.
        preference: u16,
        /// The host.
        exchange: NameRef<'a>,
    },
    /// The name that a CNAME, PTR, NS or DNAME record gives.
    Name(NameRef<'a>),
    /// The character strings of a TXT record, at least one.
    Text(Strings<'a>),
    /// What a certificate has to match.
    Tlsa {
        /// Which certificate it is about.
        usage: u8,
        /// What of it is compared.
        selector: u8,
        /// How it is compared.
        matching: u8,
        /// With what.
        data: &'a [u8],
    },
    /// The bytes of a record of any other type. Names in it may be compressed.
    Other(&'a [u8]),
}

/// The records of an answer.
#[derive(Clone, Debug)]
pub struct Records<'a> {
    record_type: RecordType,
    rest: &'a [u8],
}

impl<'a> Iterator for Records<'a> {
    type Item = Data<'a>;

    fn next(&mut self) -> Option<Data<'a>> {
        let (length, rest) = self.rest.split_first_chunk::<2>()?;
        let (record, rest) = rest.split_at_checked(u16::from_be_bytes(*length).into())?;
        self.rest = rest;
        Some(data(self.record_type, record))
    }
}

/// The data of a record that the reader of messages has let in.
fn data(record_type: RecordType, record: &[u8]) -> Data<'_> {
    match (record_type, record) {
        (RecordType::A, &[a, b, c, d]) => Data::A([a, b, c, d].into()),
        (RecordType::AAAA, record) => match <[u8; 16]>::try_from(record) {
            Ok(octets) => Data::Aaaa(octets.into()),
            Err(_) => Data::Other(record),
        },
        (RecordType::MX, &[high, low, ref exchange @ ..]) => {
            Data::Mx { preference: u16::from_be_bytes([high, low]), exchange: NameRef(exchange) }
        }
        (RecordType::CNAME | RecordType::PTR | RecordType::NS | RecordType::DNAME, name) => {
            Data::Name(NameRef(name))
        }
        (RecordType::TXT, strings) => Data::Text(Strings(strings)),
        (RecordType::TLSA, &[usage, selector, matching, ref data @ ..]) => {
            Data::Tlsa { usage, selector, matching, data }
        }
        _ => Data::Other(record),
    }
}

/// The character strings of a TXT record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Strings<'a>(&'a [u8]);

impl<'a> Iterator for Strings<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let (&length, rest) = self.0.split_first()?;
        let (string, rest) = rest.split_at_checked(length.into())?;
        self.0 = rest;
        Some(string)
    }
}
