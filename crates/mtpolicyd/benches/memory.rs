//! What the stores of this process cost: a value and a session, while few are there and while many are; and
//! the longest wait while a store fills.

// The macros of criterion make public functions that have nothing to say.
#![allow(missing_docs, clippy::print_stdout)]

use backends::Call;
use backends::keyvalue::{Memory, MemorySettings};
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use mtpolicyd::session::cache::{MemoryOptions, SessionCache};
use mtpolicyd::value::Size;
use std::hint::black_box;
use std::time::Duration;
use tokio::runtime::{Builder, Runtime};

const SIZES: [u64; 5] = [10, 100, 1_000, 10_000, 100_000];
const LIFETIME: Duration = Duration::from_secs(3600);

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().expect("a runtime")
}

/// A ticket of greylisting.
fn key(n: u64) -> Vec<u8> {
    format!("user{n}@example.org,192.0.2.{},someone@example.net", n % 256).into_bytes()
}

fn filled(count: u64, runtime: &Runtime) -> (Memory, Duration) {
    let settings = MemorySettings { max_entries: 10 * count, max_bytes: 4 << 30 };
    let memory = Memory::new("memory", settings);
    let mut longest = Duration::ZERO;
    for n in 0..count {
        let begun = std::time::Instant::now();
        let _ = runtime.block_on(memory.set(&key(n), b"1764000000", LIFETIME, Call::within(Duration::ZERO)));
        longest = longest.max(begun.elapsed());
    }
    (memory, longest)
}

fn store(c: &mut Criterion) {
    let runtime = runtime();
    let mut group = c.benchmark_group("store in memory");
    for count in SIZES {
        let (memory, longest) = filled(count, &runtime);
        println!("longest write while {count} values came: {longest:?}");
        let mut n = 0;
        group.bench_function(BenchmarkId::new("set and get", count), |b| {
            b.iter(|| {
                n = (n + 7919) % count;
                runtime.block_on(async {
                    let soon = Call::within(Duration::ZERO);
                    let _ = memory.set(&key(n), b"1764000000", LIFETIME, soon).await;
                    black_box(memory.get(&key(n), soon).await)
                })
            });
        });
    }
    group.finish();
}

fn sessions(c: &mut Criterion) {
    let runtime = runtime();
    let mut group = c.benchmark_group("sessions in memory");
    for count in SIZES {
        let options =
            MemoryOptions { expire: LIFETIME, max_sessions: 2 * count, max_size: Size::mebibytes(4096) };
        let sessions = SessionCache::memory(options);
        let mut n = 0;
        let mut request = || {
            n = (n + 7919) % count;
            let instance = format!("1a2b.{n:x}.0");
            runtime.block_on(async {
                let soon = Call::within(LIFETIME);
                let mut lease = sessions.open(instance.as_bytes(), soon).await.expect("nobody has it");
                lease.session().set("rbl-spamhaus-result", "127.0.0.2 2.0.0.127.zen.example.org");
            });
        };
        for _ in 0..count {
            request();
        }
        group.bench_function(BenchmarkId::new("request", count), |b| b.iter(&mut request));
    }
    group.finish();
}

criterion_group!(benches, store, sessions);
criterion_main!(benches);
