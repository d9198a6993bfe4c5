//! Asks a name server as a busy policy daemon does, and prints what a lookup costs.
//!
//! `load SERVER:PORT [CONNECTIONS [LOOKUPS [SECONDS]]]`: this many tasks at once, each of which starts this
//! many lookups of names that nobody has asked for, and awaits them one after the other.

use std::io::{IoSlice, IoSliceMut};
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use dns_stub::message::{QueryOptions, write_query};
use dns_stub::{Class, Config, Name, Question, RecordType, Resolver};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::socket::{ControlMessage, MsgFlags, MultiHeaders, recvmmsg, sendmmsg};

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// The processor time of this process.
fn processor_time() -> Result<Duration, Failure> {
    let usage = getrusage(UsageWho::RUSAGE_SELF)?;
    let seconds = [usage.user_time(), usage.system_time()].map(|time| {
        Duration::from_secs(time.tv_sec().unsigned_abs())
            + Duration::from_micros(time.tv_usec().unsigned_abs())
    });
    Ok(seconds[0] + seconds[1])
}

/// What a lookup costs the system: the processor time of sending and receiving, in microseconds. Each round
/// sends `lookups` messages through every socket and then receives the answers.
fn floor(server: SocketAddr, sockets: u64, lookups: u64, seconds: u64) -> Result<f64, Failure> {
    let open = |_| {
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        socket.connect(server)?;
        socket.set_read_timeout(Some(Duration::from_secs(1)))?;
        Ok::<_, Failure>(socket)
    };
    let sockets: Vec<_> = (0..sockets).map(open).collect::<Result<_, _>>()?;
    let count = usize::try_from(lookups)?;
    let mut headers = MultiHeaders::<()>::preallocate(count, None);
    let mut buffers = vec![[0; 512]; count];
    let (start, before, mut answers, mut round) = (Instant::now(), processor_time()?, 0, 0_u64);
    while start.elapsed() < Duration::from_secs(seconds) {
        for socket in &sockets {
            let mut messages = vec![Vec::new(); count];
            for (list, message) in messages.iter_mut().enumerate() {
                let name = Name::parse(&format!("{round}.1.113.0.203.floor{list}.bench.test"))?;
                let id = u16::try_from(list)?;
                write_query(message, id, &name, RecordType::A, QueryOptions::default(), [].into_iter());
            }
            let slices: Vec<_> = messages.iter().map(|message| [IoSlice::new(message)]).collect();
            let nothing: [ControlMessage<'_>; 0] = [];
            let to = vec![None::<()>; count];
            let sent = sendmmsg(socket.as_raw_fd(), &mut headers, &slices, to, nothing, MsgFlags::empty())?;
            assert_eq!(sent.count(), count, "the system takes all");
        }
        for socket in &sockets {
            let mut slices: Vec<_> = buffers.iter_mut().map(|buffer| [IoSliceMut::new(buffer)]).collect();
            let flags = MsgFlags::empty();
            let received = recvmmsg(socket.as_raw_fd(), &mut headers, slices.iter_mut(), flags, None);
            // What is lost is lost.
            answers += received.map_or(0, Iterator::count);
        }
        round += 1;
    }
    let spent = processor_time()?.saturating_sub(before).as_secs_f64();
    Ok(spent * 1e6 / answers.max(1) as f64)
}

#[tokio::main]
#[allow(clippy::print_stdout)]
async fn main() -> Result<(), Failure> {
    let mut arguments = std::env::args().skip(1);
    let server: SocketAddr =
        arguments.next().ok_or("load SERVER:PORT [CONNECTIONS [LOOKUPS [SECONDS]]]")?.parse()?;
    let mut number = |default: u64| arguments.next().map_or(Ok(default), |text| text.parse());
    let (connections, lookups, seconds) = (number(25)?, number(13)?, number(5)?);
    let config = Config { servers: vec![server], timeout: Some(Duration::from_secs(2)), ..Config::default() };
    let resolver = Resolver::new(config);
    let (requests, failures, waited) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    let counts = Arc::new((requests, failures, waited));
    let (start, before) = (Instant::now(), processor_time()?);
    let end = start + Duration::from_secs(seconds);
    let tasks: Vec<_> = (0..connections)
        .map(|connection| {
            let (resolver, counts) = (resolver.clone(), Arc::clone(&counts));
            tokio::spawn(async move {
                let mut round = 0_u64;
                while Instant::now() < end {
                    let asked = Instant::now();
                    let question = |list| {
                        let name = format!("{round}.{connection}.113.0.203.list{list}.bench.test");
                        Ok::<_, Failure>(Question::new(Name::parse(&name)?, RecordType::A))
                    };
                    let started: Result<Vec<_>, Failure> = (0..lookups)
                        .map(|list| Ok(resolver.start(&question(list)?, Class::Configured)?))
                        .collect();
                    for lookup in started? {
                        counts.1.fetch_add(lookup.await.is_err().into(), Ordering::Relaxed);
                    }
                    counts.0.fetch_add(1, Ordering::Relaxed);
                    let micros = u64::try_from(asked.elapsed().as_micros()).unwrap_or(u64::MAX);
                    counts.2.fetch_add(micros, Ordering::Relaxed);
                    round += 1;
                }
                Ok::<_, Failure>(())
            })
        })
        .collect();
    for task in tasks {
        task.await??;
    }
    let (requests, failures, waited) = (
        counts.0.load(Ordering::Relaxed),
        counts.1.load(Ordering::Relaxed),
        counts.2.load(Ordering::Relaxed),
    );
    let all = requests * lookups;
    let spent = processor_time()?.saturating_sub(before).as_secs_f64();
    let each = spent * 1e6 / all.max(1) as f64;
    let floor = floor(server, connections, lookups, seconds)?;
    println!(
        "{:.0} requests a second, {:.1} ms each, {each:.2} us of CPU a lookup, {:.2} times the floor's \
         {floor:.2} us; {failures} of {all} failed; {:?}",
        requests as f64 / start.elapsed().as_secs_f64(),
        waited as f64 / requests.max(1) as f64 / 1_000.0,
        each / floor,
        resolver.usage(),
    );
    Ok(())
}
