//! A name service that is a map, and can be slow.
//!
//! Knows: questions and answers. Must not know: records.

#![allow(dead_code, reason = "each test that includes this file uses a part of it")]

use spf::{Failure, Resolve};
use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};

/// The number of aliases followed.
const MAX_ALIASES: usize = 10;

/// Records by name, in lower case, and type.
#[derive(Default)]
pub struct Zone {
    records: HashMap<(String, String), Vec<Vec<u8>>>,
    timeouts: HashSet<(String, Option<String>)>,
    asked: Mutex<Vec<String>>,
    /// Those who wait, where answers take a while.
    waiting: Option<Mutex<Vec<Waker>>>,
    /// Round trips so far: times that nothing could go on without an answer.
    rounds: AtomicUsize,
}

impl Zone {
    /// A zone from lines `name TYPE value`.
    pub fn new(lines: &[&str]) -> Zone {
        let mut zone = Zone::default();
        for line in lines {
            let mut words = line.splitn(3, ' ');
            let (name, kind) = (words.next().expect("a name"), words.next().expect("a type"));
            match words.next() {
                Some(value) => zone.add(name, kind, value.into()),
                None => zone.add_timeout(name, Some(kind)),
            }
        }
        zone
    }

    /// The same, where each answer takes a while.
    pub fn slow(self) -> Zone {
        Zone { waiting: Some(Mutex::default()), ..self }
    }

    pub fn add(&mut self, name: &str, kind: &str, value: Vec<u8>) {
        self.records.entry((name.to_ascii_lowercase(), kind.to_owned())).or_default().push(value);
    }

    pub fn add_timeout(&mut self, name: &str, kind: Option<&str>) {
        self.timeouts.insert((name.to_ascii_lowercase(), kind.map(str::to_owned)));
    }

    /// What was asked, as `name TYPE`.
    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().expect("no holder panics").clone()
    }

    /// Round trips so far.
    pub fn rounds(&self) -> usize {
        self.rounds.load(Ordering::Relaxed)
    }

    /// The result of a future that waits for nothing but this zone.
    pub fn wait<T>(&self, future: impl Future<Output = T>) -> T {
        let mut future = std::pin::pin!(future);
        loop {
            if let Poll::Ready(result) = future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
                return result;
            }
            assert!(self.rounds.fetch_add(1, Ordering::Relaxed) < 1_000, "it ends");
            // Without a slow answer it gave way to others.
            let Some(waiting) = &self.waiting else { continue };
            std::mem::take(&mut *waiting.lock().expect("no holder panics")).into_iter().for_each(Waker::wake);
        }
    }

    fn times_out(&self, name: &str, kind: &str) -> bool {
        let any = self.timeouts.contains(&(name.to_owned(), None));
        any || self.timeouts.contains(&(name.to_owned(), Some(kind.to_owned())))
    }

    async fn find(&self, name: &str, kind: &str) -> Result<Vec<Vec<u8>>, Failure> {
        self.asked.lock().expect("no holder panics").push(format!("{name} {kind}"));
        if let Some(waiting) = &self.waiting {
            let sent = self.rounds();
            std::future::poll_fn(|cx| {
                if self.rounds() > sent {
                    return Poll::Ready(());
                }
                waiting.lock().expect("no holder panics").push(cx.waker().clone());
                Poll::Pending
            })
            .await;
        }
        let mut name = name.to_ascii_lowercase();
        for _ in 0..MAX_ALIASES {
            let records = |kind: &str| self.records.get(&(name.clone(), kind.to_owned()));
            match (records(kind), records("CNAME")) {
                (Some(records), _) => return Ok(records.clone()),
                (None, Some(alias)) => {
                    name = String::from_utf8(alias[0].clone()).expect("a name").to_ascii_lowercase()
                }
                (None, None) if self.times_out(&name, kind) => {
                    return Err(Failure("no answer in time".into()));
                }
                (None, None) => return Ok(Vec::new()),
            }
        }
        Ok(Vec::new())
    }
}

/// The parsed values of records.
fn parsed<T: std::str::FromStr>(records: Vec<Vec<u8>>) -> Vec<T> {
    let text = records.into_iter().map(|value| String::from_utf8(value).expect("text"));
    text.map(|text| text.parse().unwrap_or_else(|_| panic!("what is {text}?"))).collect()
}

impl Resolve for Zone {
    async fn texts(&self, name: &str) -> Result<Vec<Vec<u8>>, Failure> {
        self.find(name, "TXT").await
    }
    async fn ipv4_addresses(&self, name: &str) -> Result<Vec<Ipv4Addr>, Failure> {
        self.find(name, "A").await.map(parsed)
    }
    async fn ipv6_addresses(&self, name: &str) -> Result<Vec<Ipv6Addr>, Failure> {
        self.find(name, "AAAA").await.map(parsed)
    }
    async fn exchanges(&self, name: &str) -> Result<Vec<String>, Failure> {
        self.find(name, "MX").await.map(parsed)
    }
    async fn names(&self, ip: IpAddr) -> Result<Vec<String>, Failure> {
        let name = match ip {
            IpAddr::V4(ip) => {
                let [a, b, c, d] = ip.octets();
                format!("{d}.{c}.{b}.{a}.in-addr.arpa")
            }
            IpAddr::V6(ip) => {
                let digits = format!("{:032x}", ip.to_bits());
                let turned = digits.chars().rev().map(|digit| format!("{digit}."));
                format!("{}ip6.arpa", turned.collect::<String>())
            }
        };
        self.find(&name, "PTR").await.map(parsed)
    }
}
