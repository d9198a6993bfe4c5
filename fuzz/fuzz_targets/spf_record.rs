//! No record makes the evaluator panic, and no verdict depends on which lookups started early.
//!
//! The input is lines: the first is the sender's user; of the others the name service answers one, by the
//! name that is asked.

#![no_main]

use libfuzzer_sys::fuzz_target;
use spf::{Failure, MacroText, Outcome, Record, Request, Resolve, Settings, check};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::pin::pin;
use std::task::{Context, Poll, Waker};

/// Answers from the input: a name has one line of it.
struct Lines<'a>(Vec<&'a [u8]>);

impl Lines<'_> {
    fn line(&self, name: &str, salt: usize) -> &[u8] {
        let hash =
            name.bytes().fold(salt, |hash, byte| hash.wrapping_mul(31).wrapping_add(usize::from(byte)));
        self.0.get(hash % self.0.len().max(1)).copied().unwrap_or_default()
    }

    fn text(&self, name: &str, salt: usize) -> Result<String, Failure> {
        match self.line(name, salt) {
            b"!" => Err(Failure("down".into())),
            line => Ok(String::from_utf8_lossy(line).into_owned()),
        }
    }
}

impl Resolve for Lines<'_> {
    async fn texts(&self, name: &str) -> Result<Vec<Vec<u8>>, Failure> {
        self.text(name, 1)?;
        Ok(vec![self.line(name, 1).to_vec()])
    }
    async fn ipv4_addresses(&self, name: &str) -> Result<Vec<Ipv4Addr>, Failure> {
        Ok(self.text(name, 2)?.bytes().take(4).map(|byte| [192, 0, 2, byte].into()).collect())
    }
    async fn ipv6_addresses(&self, name: &str) -> Result<Vec<Ipv6Addr>, Failure> {
        Ok(self.text(name, 3)?.bytes().take(4).map(|byte| Ipv6Addr::from_bits(byte.into())).collect())
    }
    async fn exchanges(&self, name: &str) -> Result<Vec<String>, Failure> {
        Ok(self.text(name, 4)?.split(' ').map(str::to_owned).collect())
    }
    async fn names(&self, ip: IpAddr) -> Result<Vec<String>, Failure> {
        Ok(self.text(&ip.to_string(), 5)?.split(' ').map(str::to_owned).collect())
    }
}

/// The result of a future that never waits.
fn at_once<T>(future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(result) = future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            return result;
        }
    }
}

fuzz_target!(|data: &[u8]| {
    let mut lines = data.split(|byte| *byte == b'\n');
    let user = String::from_utf8_lossy(lines.next().unwrap_or_default()).into_owned();
    let lines = Lines(lines.collect());
    for line in &lines.0 {
        let _ = Record::parse(line);
        let _ = MacroText::explanation(&String::from_utf8_lossy(line));
    }
    for client in [IpAddr::from([192, 0, 2, 65]), IpAddr::from([0, 0, 0, 0, 0, 0, 0, 65])] {
        let request = Request::mail_from(client, &user, &format!("{user}@d.test"));
        let outcomes = [true, false].map(|look_ahead| judge(&lines, &request, look_ahead));
        assert_eq!(outcomes[0], outcomes[1]);
    }
});

fn judge(lines: &Lines<'_>, request: &Request, look_ahead: bool) -> (Outcome, Option<String>) {
    let settings = Settings { look_ahead, ..Settings::default() };
    at_once(async {
        let outcome = check(lines, request, &settings).await;
        let explanation = outcome.explanation(lines, request, &settings).await;
        assert!(!outcome.describe(request).is_empty() && !outcome.trace.is_empty());
        let printable =
            |text: &String| text.len() <= 400 && text.bytes().all(|byte| (b' '..=b'~').contains(&byte));
        assert!(explanation.as_ref().is_none_or(printable));
        (outcome, explanation)
    })
}
