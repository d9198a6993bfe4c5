//! What the journal costs: processor time and bytes for each decision, and the time of a search among many.
//!
//! `cargo bench -p decisions` measures 60,000 decisions; `JOURNAL_DECISIONS=2000000 cargo bench -p decisions`
//! as many as a week of a large site. The decisions are of the kind that a chain with ten lists makes.
//!
//! Knows: the journal as the daemon uses it.
#![allow(missing_docs, clippy::print_stdout, reason = "a program that prints figures")]

use decisions::journal::{Journal, Progress, Settings};
use decisions::{
    Decision, DecisionId, Filter, Flags, Lookup, LookupKind, Origin, Outcome, StepInfo, StepOutcome,
    StepTable, Walk,
};
use std::fs;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

const LISTS: u32 = 10;
/// Decisions in a hundredth of a second: identifiers are not made here, so that they span a week.
const BATCH: u32 = 2_000;
/// This client occurs three times, and so does the outcome `hold`.
const RARE: &str = "198.51.100.99";

/// Numbers that look random, and are the same each time.
fn mix(number: u32, salt: u32) -> u32 {
    let mixed = (u64::from(number) << 8 | u64::from(salt)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    u32::try_from((mixed ^ mixed >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 32).unwrap_or_default()
}

fn table() -> Arc<StepTable> {
    let names = ["condition", "spf", "greylist"].map(str::to_owned).into_iter();
    let lists = (0..LISTS).map(|n| format!("list-{n}"));
    let step = |(line, name): (u32, String)| {
        let path = format!("inbound/{name}");
        StepInfo { path, module: "RBL".to_owned(), line, ..StepInfo::default() }
    };
    let steps = (1..).zip(names.chain(lists)).map(step).collect();
    Arc::new(StepTable { fingerprint: "bench".to_owned(), file: "mtpolicyd.conf".to_owned(), steps })
}

/// A request as Postfix sends it, of about 667 bytes.
fn request(number: u32, client: &str) -> String {
    let (a, b, c) = (mix(number, 1), mix(number, 2), mix(number, 3));
    format!(
        "request=smtpd_access_policy\nprotocol_state=RCPT\nprotocol_name=ESMTP\nclient_address={client}\n\
         client_name=mail-{}.sender-{}.example.net\nclient_port={}\n\
         reverse_client_name=mail-{}.sender-{}.example.net\n\
         server_address=192.0.2.25\nserver_port=25\nhelo_name=mail-{}.sender-{}.example.net\n\
         sender=user.{b:x}@domain-{}.example.com\n\
         recipient=person-{}@example.org\nrecipient_count=0\nqueue_id=\n\
         instance={a:x}.{b:x}.{c:x}.0\nsize={}\netrn_domain=\nstress=\n\
         sasl_method=\nsasl_username=\nsasl_sender=\nccert_subject=\nccert_issuer=\nccert_fingerprint=\n\
         ccert_pubkey_fingerprint=\nencryption_protocol=TLSv1.3\nencryption_cipher=TLS_AES_256_GCM_SHA384\n\
         encryption_keysize=256\npolicy_context=\n\n",
        a % 90,
        a % 9_000,
        c % 60_000,
        a % 90,
        a % 9_000,
        a % 90,
        a % 9_000,
        b % 20_000,
        c % 5_000,
        a % 5_000_000,
    )
}

fn decision(number: u32, id: DecisionId, table: &Arc<StepTable>, rare: bool) -> Decision {
    let bytes = mix(number, 4).to_be_bytes();
    let client = format!("{}.{}.{}.{}", 11 + bytes[0] % 180, bytes[1], bytes[2], bytes[3]);
    let client = if rare { RARE.to_owned() } else { client };
    let reversed: Vec<_> = client.split('.').rev().collect();
    let reversed = reversed.join(".");
    let mut walk = Walk::with_room(13);
    for step in 0..13_u16 {
        let begun = walk.begin(step, 0);
        match step {
            0 => {}
            1 => walk.note(format_args!("the SPF result of {client} is pass")),
            2 => walk.note(format_args!("ticket of {client} is {} s old", mix(number, 5) % 10_000)),
            list => {
                walk.note(format_args!("{client} is not on list-{}.example.net", list - 3));
                walk.lookups.push(Lookup {
                    kind: LookupKind::Dns,
                    server: "",
                    question: &format!("{reversed}.list-{}.example.net A", list - 3),
                    answer: "no such name",
                    waited: mix(number, 20 + u32::from(list)) % 9_000,
                    origin: Origin::AskedAhead,
                });
            }
        }
        walk.end(begun, StepOutcome::Next);
    }
    // The clock of the bench is not that of a chain: steps take from 1 to 60 microseconds.
    let mut began = 0;
    for (place, step) in (0..).zip(&mut walk.steps) {
        (step.began, step.took) = (began, 1 + mix(number, 40 + place) % 60);
        began += step.took;
    }
    Decision {
        id,
        table: Arc::clone(table),
        host: "inbound".into(),
        request: request(number, &client).into_bytes().into(),
        took: mix(number, 6) % 20_000,
        outcome: if rare { Outcome::Hold } else { Outcome::Pass },
        by: None,
        answer: if rare { "hold".into() } else { "dunno".into() },
        failure: "".into(),
        flags: Flags::default(),
        score: 0.0,
        session: Vec::new(),
        walk,
        shadow: None,
    }
}

/// The processor time of this process so far.
fn processor_time() -> Duration {
    let of = |task: std::io::Result<fs::DirEntry>| {
        let text = fs::read_to_string(task.ok()?.path().join("schedstat")).ok()?;
        text.split(' ').next()?.parse::<u64>().ok()
    };
    let tasks = fs::read_dir("/proc/self/task").expect("a list of threads");
    Duration::from_nanos(tasks.filter_map(of).sum())
}

fn main() {
    let count: u32 =
        std::env::var("JOURNAL_DECISIONS").ok().and_then(|text| text.parse().ok()).unwrap_or(60_000);
    let folder = std::env::temp_dir().join(format!("journal-bench-{}", std::process::id()));
    fs::create_dir_all(&folder).expect("a folder for the file");
    let mut settings = Settings::new(folder.join("journal.db"));
    settings.max_size = 8 << 30;
    let journal = Journal::open(settings.clone(), |event| println!("{event:?}")).expect("a thread");
    let table = table();
    let start = SystemTime::now() - Duration::from_secs(6 * 86_400);
    let step = Duration::from_secs(6 * 86_400) / count.max(1);
    let (mut writing, mut done, mut bytes, mut sending) = (Duration::ZERO, 0, 0, Duration::ZERO);
    while done < count {
        let batch: Vec<_> = (done..count.min(done + BATCH))
            .map(|number| {
                let id = DecisionId::first_at(start + step * number);
                let id = DecisionId::from_number(id.number() | u64::from(number % 1_024));
                let is_rare = (1..=3).any(|nth| number == count / 4 * nth);
                Arc::new(decision(number, id, &table, is_rare))
            })
            .collect();
        bytes += batch.iter().map(|decision| decision.request.len()).sum::<usize>();
        done += u32::try_from(batch.len()).unwrap_or_default();
        let before = processor_time();
        let begun = Instant::now();
        for decision in batch {
            journal.send(decision);
        }
        sending += begun.elapsed();
        while journal.status().waiting > 0 {
            std::thread::sleep(Duration::from_millis(1));
        }
        writing += processor_time() - before;
    }
    let status = journal.status();
    println!("{count} decisions, requests of {} bytes, lost {}", bytes / count as usize, status.lost);
    println!("sending: {:.2} us a decision", sending.as_secs_f64() * 1e6 / f64::from(count));
    println!(
        "sending and writing: {:.2} us of processor a decision",
        writing.as_secs_f64() * 1e6 / f64::from(count)
    );
    println!("size: {} bytes a decision", status.used / u64::from(count));
    let text = |text: &str| Some(text.to_owned());
    for (what, filter) in [
        ("a client that occurs 3 times", Filter { client: text(RARE), ..Filter::default() }),
        ("an outcome that occurs 3 times", Filter { outcome: vec![Outcome::Hold], ..Filter::default() }),
        ("a client that does not occur", Filter { client: text("203.0.113.5"), ..Filter::default() }),
        ("a text that does not occur", Filter { text: text("nowhere to be found"), ..Filter::default() }),
        ("the last 100", Filter::default()),
    ] {
        let mut times: Vec<_> = (0..5)
            .map(|_| {
                let begun = Instant::now();
                let found = journal.search(&filter, 100, None, &Progress::default()).expect("a search");
                (begun.elapsed(), found.decisions.len())
            })
            .collect();
        times.sort();
        println!("search for {what}: {:.1} ms, {} found", times[2].0.as_secs_f64() * 1e3, times[2].1);
    }
    journal.close(Duration::from_secs(10));
    fs::remove_dir_all(&folder).expect("the folder is ours");
}
