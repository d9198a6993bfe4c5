//! The answers that count as listed, where a list gives several: `127.0.0.2-11, 127.0.1.0/24`.
//!
//! Knows: IPv4 addresses. Must not know: lists.

use std::fmt;
use std::net::Ipv4Addr;
use std::ops::RangeInclusive;
use std::str::FromStr;

/// A set of answers: addresses, ranges and networks, all in 127.0.0.0/8 since no others are listings.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ReturnCodes {
    ranges: Vec<RangeInclusive<Ipv4Addr>>,
}

/// Why a text is not a set of return codes; says what to write.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ReturnCodesError {
    /// Nothing stands there.
    #[error("no return code; write addresses, ranges or networks such as 127.0.0.2-11, 127.0.1.0/24")]
    Empty,
    /// A part that is neither address nor range nor network.
    #[error(
        "{0:?} is not a return code; write 127.0.0.2, 127.0.0.2-11, 127.0.0.2-127.0.0.11 or 127.0.1.0/24"
    )]
    Unreadable(String),
    /// A range that ends before it begins.
    #[error("the range {0} is empty: its end comes before its start")]
    Backwards(String),
    /// Host bits are set, so that it is not clear what was meant.
    #[error("{0} is not a network; its first address is {1}, so write {1}/{2}")]
    NoNetwork(String, Ipv4Addr, u8),
    /// Addresses that no list uses for listings.
    #[error("{0} lies outside 127.0.0.0/8, where no answer is a listing")]
    Outside(String),
}

impl ReturnCodes {
    /// The first and the last address of each part.
    pub fn parts(&self) -> impl Iterator<Item = (Ipv4Addr, Ipv4Addr)> + '_ {
        self.ranges.iter().map(|range| (*range.start(), *range.end()))
    }

    /// Whether an answer is one of them.
    pub fn contains(&self, address: Ipv4Addr) -> bool {
        self.ranges.iter().any(|range| range.contains(&address))
    }
}

impl FromStr for ReturnCodes {
    type Err = ReturnCodesError;

    /// Commas or blanks separate the parts.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parts = text.split(|c: char| c == ',' || c.is_whitespace()).filter(|part| !part.is_empty());
        let ranges = parts.map(read_part).collect::<Result<Vec<_>, _>>()?;
        if ranges.is_empty() { Err(ReturnCodesError::Empty) } else { Ok(Self { ranges }) }
    }
}

impl fmt::Display for ReturnCodes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, range) in self.ranges.iter().enumerate() {
            let (start, end) = (range.start(), range.end());
            let separator = if position > 0 { ", " } else { "" };
            write!(f, "{separator}{start}")?;
            if start.octets()[..3] != end.octets()[..3] {
                write!(f, "-{end}")?;
            } else if start != end {
                write!(f, "-{}", end.octets()[3])?;
            }
        }
        Ok(())
    }
}

fn read_part(part: &str) -> Result<RangeInclusive<Ipv4Addr>, ReturnCodesError> {
    let unreadable = || ReturnCodesError::Unreadable(part.to_owned());
    let address = |text: &str| text.parse::<Ipv4Addr>().map_err(|_| unreadable());
    let (start, end) = if let Some((start, end)) = part.split_once('-') {
        let start = address(start)?;
        let [a, b, c, _] = start.octets();
        match end.parse::<u8>() {
            Ok(last) => (start, Ipv4Addr::new(a, b, c, last)),
            Err(_) => (start, address(end)?),
        }
    } else if let Some((network, length)) = part.split_once('/') {
        let length = length.parse::<u8>().ok().filter(|&length| length <= 32).ok_or_else(unreadable)?;
        network_of(part, address(network)?, length)?
    } else {
        let single = address(part)?;
        (single, single)
    };
    if end < start {
        return Err(ReturnCodesError::Backwards(part.to_owned()));
    }
    if !start.is_loopback() || !end.is_loopback() {
        return Err(ReturnCodesError::Outside(part.to_owned()));
    }
    Ok(start..=end)
}

/// The first and the last address of a network.
fn network_of(part: &str, address: Ipv4Addr, length: u8) -> Result<(Ipv4Addr, Ipv4Addr), ReturnCodesError> {
    let hosts = u32::MAX.checked_shr(length.into()).unwrap_or(0);
    let first = Ipv4Addr::from_bits(address.to_bits() & !hosts);
    if first != address {
        return Err(ReturnCodesError::NoNetwork(part.to_owned(), first, length));
    }
    Ok((first, Ipv4Addr::from_bits(first.to_bits() | hosts)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contains(codes: &str, address: &str) -> bool {
        codes.parse::<ReturnCodes>().unwrap().contains(address.parse().unwrap())
    }

    #[test]
    fn addresses_ranges_and_networks() {
        let codes = "127.0.0.2-11, 127.0.1.0/24 127.0.2.5,127.0.3.0-127.0.4.9";
        for inside in
            ["127.0.0.2", "127.0.0.11", "127.0.1.0", "127.0.1.255", "127.0.2.5", "127.0.3.200", "127.0.4.9"]
        {
            assert!(contains(codes, inside), "{inside}");
        }
        for outside in ["127.0.0.1", "127.0.0.12", "127.0.2.0", "127.0.2.6", "127.0.4.10", "10.0.0.2"] {
            assert!(!contains(codes, outside), "{outside}");
        }
        assert!(contains("127.0.0.0/8", "127.255.255.255"));
        assert!(contains("127.0.0.2/32", "127.0.0.2"));
        assert!(!contains("127.0.0.2/32", "127.0.0.3"));
    }

    #[test]
    fn mistakes_say_what_to_write() {
        let error = |text: &str| text.parse::<ReturnCodes>().unwrap_err().to_string();
        assert!(error(" , ").starts_with("no return code; write"));
        for unreadable in
            ["x", "127.0.0", "127.0.0.2-", "-11", "127.0.0.2-300", "127.0.0.0/33", "127.0.0.0/", "1e2"]
        {
            assert!(
                error(unreadable).starts_with(&format!("{unreadable:?} is not a return code")),
                "{unreadable}"
            );
        }
        assert_eq!(error("127.0.0.11-2"), "the range 127.0.0.11-2 is empty: its end comes before its start");
        assert_eq!(
            error("127.0.1.5/24"),
            "127.0.1.5/24 is not a network; its first address is 127.0.1.0, so write 127.0.1.0/24"
        );
        for outside in ["126.0.0.2", "127.0.0.2-128.0.0.1", "0.0.0.0/0", "126.0.0.0/7"] {
            assert_eq!(
                error(outside),
                format!("{outside} lies outside 127.0.0.0/8, where no answer is a listing")
            );
        }
    }

    #[test]
    fn what_is_printed_reads_back() {
        for (text, printed) in [
            ("127.0.0.2", "127.0.0.2"),
            ("127.0.0.2 127.0.0.4-127.0.0.7", "127.0.0.2, 127.0.0.4-7"),
            ("127.0.1.0/24,127.0.2.0/23", "127.0.1.0-255, 127.0.2.0-127.0.3.255"),
        ] {
            let codes = text.parse::<ReturnCodes>().unwrap();
            assert_eq!(codes.to_string(), printed);
            assert_eq!(printed.parse::<ReturnCodes>().unwrap(), codes);
        }
    }
}
