//! What is said to Commtouch's ctipd in the body of an HTTP request, and what it says back.
//!
//! Knows: the lines of that protocol. Must not know: connections, plugins.

use crate::value::{Value, words};
use std::net::IpAddr;

words! {
    /// What ctipd thinks of an address, in the words of the protocol.
    pub enum Reputation {
        /// Take mail from it.
        Accept = "accept",
        /// Refuse it for now.
        TempFail = "tempfail",
        /// Refuse it.
        PermFail = "permfail",
    }
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// What ctipd thinks of the address.
    pub reputation: Reputation,
    /// What to name when asking Commtouch about it; empty where the answer has none.
    pub reference: String,
}

/// The longest text of the answer that a message shows.
const MAX_SHOWN_CHARS: usize = 60;

/// The question about an address.
pub fn question(ip: IpAddr, key: Option<&str>) -> String {
    let key = key.map(|key| format!("x-ctch-key: {key}\r\n")).unwrap_or_default();
    format!("x-ctch-request-type: classifyip\r\nx-ctch-pver: 1.0\r\n{key}\r\nx-ctch-ip: {ip}\r\n")
}

/// Reads an answer, or says what is wrong with it. Of each name the first line counts.
pub fn read(body: &[u8]) -> Result<Reply, String> {
    let value = |name: &str| {
        let lines = body.split_inclusive(|byte| *byte == b'\n');
        let mut values = lines.filter_map(|line| {
            // The last one may have no line feed.
            let line = line.strip_suffix(b"\n").unwrap_or(line).strip_suffix(b"\r")?;
            line.strip_prefix(name.as_bytes())
        });
        values.next().map(String::from_utf8_lossy)
    };
    let action = value("x-ctch-dm-action:").ok_or("the answer has no action")?;
    let reputation = Reputation::parse(&action).map_err(|_| {
        let shown: String = action.chars().take(MAX_SHOWN_CHARS).collect();
        format!("the answer has the unknown action `{shown}`")
    })?;
    let reference = value("x-ctch-refid:").unwrap_or_default().into_owned();
    Ok(Reply { reputation, reference })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_question_names_the_address() {
        let ip = "2001:db8::1".parse().unwrap();
        let open = "x-ctch-request-type: classifyip\r\nx-ctch-pver: 1.0\r\n\r\nx-ctch-ip: 2001:db8::1\r\n";
        assert_eq!(question(ip, None), open);
        assert!(question(ip, Some("k")).contains("x-ctch-pver: 1.0\r\nx-ctch-key: k\r\n\r\nx-ctch-ip: "));
    }

    #[test]
    fn the_first_line_of_a_name_counts() {
        let reply =
            read(b"x\r\nx-ctch-dm-action:permfail\r\nx-ctch-refid:a b\r\nx-ctch-refid:c\r\n").unwrap();
        assert_eq!(reply, Reply { reputation: Reputation::PermFail, reference: "a b".to_owned() });
        let reply = read(b"x-ctch-dm-action:accept\r\nx-ctch-dm-action:permfail\r\n").unwrap();
        assert_eq!(reply, Reply { reputation: Reputation::Accept, reference: String::new() });
        assert_eq!(read(b"x-ctch-dm-action:permfail\r").unwrap().reputation, Reputation::PermFail);
        let odd = read(b"x-ctch-refid:\xff\r\nx-ctch-dm-action:tempfail\r\n").unwrap();
        assert_eq!((odd.reputation, odd.reference.as_str()), (Reputation::TempFail, "\u{fffd}"));
    }

    #[test]
    fn what_is_no_answer_is_refused() {
        let long = format!("x-ctch-dm-action:{}\r\n", "\u{fc}".repeat(1000));
        for body in [
            &b""[..],
            b"nothing useful\r\n",
            b"x-ctch-dm-action:accept",
            b"x-ctch-dm-action:accept\n",
            b"x-ctch-dm-action:Accept\r\n",
            b"x-ctch-dm-action:\r\n",
            b" x-ctch-dm-action:accept\r\n",
            long.as_bytes(),
        ] {
            let error = read(body).unwrap_err();
            assert!(error.chars().count() < 120, "{error}");
        }
    }
}
