//! What the table of answers and of questions in flight costs, while it holds few and while it holds many.

// The macros of criterion make public functions that have nothing to say.
#![allow(missing_docs)]

use std::hint::black_box;
use std::net::{SocketAddr, UdpSocket};
use std::thread;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use dns_stub::{Class, Config, Lookup, Name, Question, RecordType, Resolver};
use tokio::runtime::{Builder, Runtime};

const SIZES: [usize; 5] = [10, 100, 1_000, 10_000, 100_000];

/// How many questions are asked at once while the cache is filled.
const BATCH: usize = 100;

/// A server that has 127.0.0.2 for every name. It lives as long as the process.
fn server() -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a free port");
    let address = socket.local_addr().expect("an address");
    thread::spawn(move || {
        let mut message = [0; 512];
        while let Ok((_, from)) = socket.recv_from(&mut message) {
            let end = message[12..].iter().position(|byte| *byte == 0).map_or(12, |end| end + 17);
            message[2] |= 0x80;
            (message[7], message[11]) = (1, 0);
            let record = [0xc0, 12, 0, 1, 0, 1, 0, 1, 0, 0, 0, 4, 127, 0, 0, 2];
            message[end..end + record.len()].copy_from_slice(&record);
            let _ = socket.send_to(&message[..end + record.len()], from);
        }
    });
    address
}

fn resolver(server: SocketAddr) -> Resolver {
    Resolver::new(Config {
        servers: vec![server],
        timeout: Some(Duration::from_secs(3_600)),
        cache_bytes: 1 << 30,
        max_configured: 1 << 20,
        ..Config::default()
    })
}

/// A question as DNS lists are asked.
fn question(n: usize) -> Question {
    let name = format!("{}.{}.{}.10.zen.example.org", n % 251, n / 251 % 251, n / 251 / 251);
    Question::new(Name::parse(&name).expect("a name"), RecordType::A)
}

fn start(resolver: &Resolver, n: usize) -> Lookup {
    resolver.start(&question(n), Class::Configured).expect("there is room")
}

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().expect("a runtime")
}

/// Answers that are remembered.
fn remembered(c: &mut Criterion) {
    let (runtime, server) = (runtime(), server());
    for size in SIZES {
        let resolver = resolver(server);
        runtime.block_on(async {
            for first in (0..size).step_by(BATCH) {
                let lookups = (first..size.min(first + BATCH)).map(|n| start(&resolver, n));
                for lookup in lookups.collect::<Vec<_>>() {
                    lookup.await.expect("an answer");
                }
            }
        });
        assert_eq!(resolver.usage().answers, size);
        let mut n = 0;
        c.bench_with_input(BenchmarkId::new("a remembered answer of", size), &size, |b, &size| {
            b.iter(|| {
                n = (n + 7) % size;
                black_box(resolver.known(&question(n))).is_some()
            });
        });
        c.bench_with_input(BenchmarkId::new("a name that is not among", size), &size, |b, &size| {
            b.iter(|| {
                n = (n + 7) % size;
                black_box(resolver.known(&question(size + n))).is_some()
            });
        });
    }
}

/// Questions whose answers are waited for. They are not sent here, which is the network's cost.
fn in_flight(c: &mut Criterion) {
    let runtime = runtime();
    let _inside = runtime.enter();
    for size in SIZES {
        let resolver = resolver(([127, 0, 0, 1], 9).into());
        let lookups: Vec<_> = (0..size).map(|n| start(&resolver, n)).collect();
        let mut n = 0;
        c.bench_with_input(BenchmarkId::new("an equal question among", size), &size, |b, &size| {
            b.iter(|| {
                n = (n + 7) % size;
                black_box(start(&resolver, n))
            });
        });
        drop(lookups);
    }
}

fn short() -> Criterion {
    Criterion::default().warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1))
}

criterion_group! { name = benches; config = short(); targets = remembered, in_flight }
criterion_main!(benches);
