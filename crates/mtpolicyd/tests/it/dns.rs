//! The name service against a server on the wire that tells the truth, lies, or says nothing.
//!
//! Knows: the resolver's face, the fake server. Must not know: dns-stub.

use backends::Call;
use std::net::Ipv6Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use backends::dns::{
    Ahead, Answer, Association, Dns, DnsSettings, Exchange, Failure, Question, RecordType, Text,
};
use tokio::time::sleep;

use crate::fake_dns::{FakeDns, Query, Reply, wire_name};
use crate::support::{PATIENCE, eventually_async};

/// Long enough for a loaded machine, short enough for a test: one try.
const TRY: Duration = Duration::from_millis(400);

fn ask_at(server: &FakeDns) -> Arc<Dns> {
    ask_patiently(server, TRY)
}

/// The same, with time enough for a server that is slow: nothing is sent again.
fn ask_patiently(server: &FakeDns, timeout: Duration) -> Arc<Dns> {
    let settings = DnsSettings {
        servers: vec![server.address()],
        timeout: Some(timeout),
        attempts: Some(2),
        ..DnsSettings::default()
    };
    Arc::new(Dns::new(&settings))
}

fn about(name: &str) -> Question {
    Question::new(name, RecordType::A)
}

fn soon() -> Call<'static> {
    Call::within(Duration::from_secs(10))
}

fn address(octets: [u8; 4]) -> Answer {
    Answer::Addresses(Arc::from([octets.into()]))
}

/// What one question to a server that always says the same comes to.
async fn answer_to(reply: Reply) -> Answer {
    let server = FakeDns::start(move |_| reply.clone());
    ask_at(&server).lookup(&about("a.test")).await
}

#[tokio::test]
async fn addresses_come_in_the_servers_order() {
    let reply = Reply::Addresses(vec![[127, 0, 0, 10].into(), [127, 0, 0, 2].into()], 60);
    let expected = Answer::Addresses(Arc::from([[127, 0, 0, 10].into(), [127, 0, 0, 2].into()]));
    assert_eq!(answer_to(reply).await, expected);
}

#[tokio::test]
async fn an_alias_leads_to_its_address() {
    let reply = Reply::Alias("pool.test", [127, 0, 0, 3].into(), 60);
    assert_eq!(answer_to(reply).await, address([127, 0, 0, 3]));
}

#[tokio::test]
async fn texts_come_byte_by_byte() {
    let strings = |list: &[&[u8]]| list.iter().map(|string| string.to_vec()).collect::<Vec<_>>();
    let texts = vec![strings(&[b"part one", b"\xff\0"]), strings(&[b"two"])];
    let server = FakeDns::start(move |_| Reply::Texts(texts.clone(), 60));
    let answer = ask_at(&server).lookup(&Question::new("a.test", RecordType::Txt)).await;
    let strings = |strings: &[&[u8]]| strings.iter().map(|&string| Box::from(string)).collect::<Text>();
    assert_eq!(answer, Answer::Texts(Arc::from([strings(&[b"part one", b"\xff\0"]), strings(&[b"two"])])));
}

#[tokio::test]
async fn every_type_of_record_is_read() {
    let exchange =
        |preference: u16, host: &str| (15, [&preference.to_be_bytes()[..], &wire_name(host)].concat());
    let null_exchange = (15, vec![0, 0, 0]);
    let records = vec![
        (28, Ipv6Addr::LOCALHOST.octets().to_vec()),
        exchange(20, "Backup.test"),
        exchange(10, "mx.test"),
        null_exchange,
        (12, wire_name("host.test")),
    ];
    let server = FakeDns::start(move |_| Reply::Records(records.clone(), 60));
    let dns = ask_at(&server);
    let ask = async |record_type| dns.lookup(&Question::new("a.test", record_type)).await;
    let exchange = |preference, host: &str| Exchange { preference, host: host.into() };
    let exchanges = [exchange(20, "Backup.test"), exchange(10, "mx.test"), exchange(0, "")];
    assert_eq!(ask(RecordType::Mx).await, Answer::Exchanges(Arc::from(exchanges)));
    assert_eq!(ask(RecordType::Aaaa).await, Answer::Ipv6Addresses(Arc::from([Ipv6Addr::LOCALHOST])));
    assert_eq!(ask(RecordType::Ptr).await, Answer::Names(Arc::from(["host.test".into()])));
    assert_eq!(ask(RecordType::A).await, Answer::Nothing);
}

#[tokio::test]
async fn names_and_records_may_not_exist() {
    for reply in
        [Reply::NoSuchName(Some(60)), Reply::NoSuchName(None), Reply::NoData(Some(60)), Reply::NoData(None)]
    {
        assert_eq!(answer_to(reply).await, Answer::Nothing);
    }
    assert_eq!(answer_to(Reply::text("only text")).await, Answer::Nothing);
}

#[tokio::test]
async fn answers_are_remembered_by_their_ttl() {
    for reply in
        [|ttl| Reply::Addresses(vec![[127, 0, 0, 2].into()], ttl), |ttl| Reply::NoSuchName(Some(ttl))]
    {
        let server = FakeDns::start(move |query| reply(if query.name == "long.test" { 600 } else { 1 }));
        let dns = ask_patiently(&server, PATIENCE);
        let first = dns.lookup(&about("long.test")).await;
        assert_eq!(dns.lookup(&about("Long.test.")).await, first);
        assert_eq!(server.count("long.test"), 1);
        eventually_async("the answer expires", async || {
            assert_eq!(dns.lookup(&about("a.test")).await, first);
            (server.count("a.test") > 1).then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn ttl_0_is_not_remembered() {
    for reply in [Reply::Addresses(vec![[127, 0, 0, 2].into()], 0), Reply::NoSuchName(None)] {
        let server = FakeDns::start(move |_| reply.clone());
        let dns = ask_at(&server);
        dns.lookup(&about("a.test")).await;
        dns.lookup(&about("a.test")).await;
        assert_eq!(server.count("a.test"), 2);
    }
}

#[tokio::test]
async fn the_cache_is_bounded() {
    let server = FakeDns::start(|_| Reply::address([127, 0, 0, 2]));
    let settings = DnsSettings { servers: vec![server.address()], cache_size: 5, ..DnsSettings::default() };
    let dns = Dns::new(&settings);
    for round in 0..2 {
        for name in 0..50 {
            dns.lookup(&about(&format!("{name}.test"))).await;
        }
        assert!(server.queries().len() > 40 * (round + 1), "{} queries", server.queries().len());
    }
}

#[tokio::test]
async fn failures_are_remembered_for_a_while() {
    for (code, cause) in [(2, "Server Failure"), (5, "Query Refused")] {
        let server = FakeDns::start(move |_| Reply::Code(code));
        let dns = ask_at(&server);
        let failed = Answer::Failed(Failure::Server(cause));
        assert_eq!(dns.lookup(&about("a.test")).await, failed);
        let queries = server.count("a.test");
        assert!(queries <= 2, "{queries} queries, but only two tries are allowed");
        assert_eq!(dns.lookup(&about("a.test")).await, failed);
        assert_eq!(server.count("a.test"), queries);
    }
}

#[tokio::test]
async fn silence_ends_with_the_last_try() {
    let server = FakeDns::start(|_| Reply::Silence);
    let dns = ask_at(&server);
    assert_eq!(dns.lookup(&about("a.test")).await, Answer::Failed(Failure::TimedOut));
    let asked = server.count("a.test");
    // And the next one need not wait.
    assert_eq!(dns.lookup(&about("a.test")).await, Answer::Failed(Failure::TimedOut));
    assert_eq!(server.count("a.test"), asked);
}

#[tokio::test]
async fn a_closed_port_is_a_failure() {
    let server = FakeDns::start(|_| Reply::Silence);
    let dns = ask_at(&server);
    drop(server);
    sleep(Duration::from_millis(50)).await;
    assert!(matches!(dns.lookup(&about("a.test")).await, Answer::Failed(_)));
}

#[tokio::test]
async fn a_second_server_answers_for_a_silent_one() {
    let (silent, alive) =
        (FakeDns::start(|_| Reply::Silence), FakeDns::start(|_| Reply::address([127, 0, 0, 2])));
    let settings = DnsSettings {
        servers: vec![silent.address(), alive.address()],
        timeout: Some(TRY),
        attempts: Some(2),
        ..DnsSettings::default()
    };
    let dns = Dns::new(&settings);
    for name in ["a.test", "b.test", "c.test"] {
        assert_eq!(dns.lookup(&about(name)).await, address([127, 0, 0, 2]));
    }
}

#[tokio::test]
async fn a_server_that_refuses_leaves_the_question_to_the_next_one() {
    for code in [1, 2, 4, 5] {
        let (refusing, alive) =
            (FakeDns::start(move |_| Reply::Code(code)), FakeDns::start(|_| Reply::address([127, 0, 0, 2])));
        let servers = vec![refusing.address(), alive.address()];
        let dns = Dns::new(&DnsSettings { servers, ..DnsSettings::default() });
        for name in ["a.test", "b.test", "c.test"] {
            assert_eq!(dns.lookup(&about(name)).await, address([127, 0, 0, 2]), "code {code}");
            assert!(refusing.count(name) > 0, "the servers are asked in their order");
        }
    }
}

#[tokio::test]
async fn a_cut_answer_is_fetched_over_tcp() {
    let server = FakeDns::start(|_| Reply::Truncated(Box::new(Reply::address([127, 0, 0, 2]))));
    assert_eq!(ask_at(&server).lookup(&about("a.test")).await, address([127, 0, 0, 2]));
    assert_eq!(server.queries().iter().map(|query| query.tcp).collect::<Vec<_>>(), [false, true]);
}

#[tokio::test]
async fn an_answer_to_another_question_is_none() {
    let lie = || Box::new(Reply::address([127, 0, 0, 2]));
    let truth = || Box::new(Reply::Late(Duration::from_millis(100), Box::new(Reply::NoSuchName(Some(60)))));
    for forged in [Reply::WrongId(lie()), Reply::WrongQuestion(lie())] {
        assert_eq!(answer_to(Reply::Both(Box::new(forged.clone()), truth())).await, Answer::Nothing);
        assert_eq!(answer_to(forged).await, Answer::Failed(Failure::TimedOut));
    }
}

#[tokio::test]
async fn garbage_is_a_failure_in_one_line() {
    for bytes in [vec![], vec![0x81], vec![0xff; 300], vec![0; 10]] {
        let answer = answer_to(Reply::Garbage(bytes.clone())).await;
        let Answer::Failed(failure) = answer else { panic!("{answer:?} to {bytes:?}") };
        assert!(!failure.to_string().contains(char::is_control), "{failure}");
    }
}

#[tokio::test]
async fn equal_questions_in_flight_share_one_query() {
    let server =
        FakeDns::start(|_| Reply::Late(TRY / 4, Box::new(Reply::Addresses(vec![[127, 0, 0, 2].into()], 0))));
    let dns = ask_patiently(&server, 20 * TRY);
    let askers = (0..20).map(|_| {
        let dns = Arc::clone(&dns);
        tokio::spawn(async move { dns.lookup(&about("a.test")).await })
    });
    for asker in askers.collect::<Vec<_>>() {
        assert_eq!(asker.await.unwrap(), address([127, 0, 0, 2]));
    }
    assert_eq!(server.count("a.test"), 1);
}

#[tokio::test]
async fn a_query_outlives_who_asked_it() {
    let server = FakeDns::start(|_| Reply::Late(TRY / 4, Box::new(Reply::address([127, 0, 0, 2]))));
    let dns = ask_patiently(&server, 20 * TRY);
    let mut ahead = Ahead::default();
    let too_soon = Call::within(TRY / 20);
    assert_eq!(ahead.answer(&dns, &about("a.test"), too_soon).await, Answer::Failed(Failure::TimedOut));
    drop(ahead);
    assert_eq!(dns.lookup(&about("a.test")).await, address([127, 0, 0, 2]));
    assert_eq!(server.count("a.test"), 1);
}

#[tokio::test]
async fn lookups_ahead_run_at_once() {
    let names = (0..10).map(|list| about(&format!("1.2.0.192.l{list}.test"))).collect::<Vec<_>>();
    let silent = FakeDns::start(|_| Reply::Silence);
    let (dns, mut ahead) = (ask_patiently(&silent, PATIENCE), Ahead::default());
    names.iter().for_each(|question| ahead.start(&dns, question.clone(), soon()));
    // None of them waits for the answer to another.
    eventually_async("all are asked", async || (silent.queries().len() == names.len()).then_some(())).await;
    // None is asked twice.
    let server = FakeDns::start(|_| Reply::NoSuchName(Some(60)));
    let (dns, mut ahead) = (ask_patiently(&server, PATIENCE), Ahead::default());
    names.iter().chain(&names).for_each(|question| ahead.start(&dns, question.clone(), soon()));
    for question in &names {
        assert_eq!(ahead.answer(&dns, question, soon()).await, Answer::Nothing);
    }
    assert_eq!(server.queries().len(), names.len());
}

#[tokio::test]
async fn a_request_asks_once_even_with_ttl_0() {
    let asked = AtomicU32::new(0);
    let server = FakeDns::start(move |_| {
        let last = u8::try_from(2 + asked.fetch_add(1, Ordering::SeqCst)).unwrap();
        Reply::Addresses(vec![[127, 0, 0, last].into()], 0)
    });
    let dns = ask_at(&server);
    let mut ahead = Ahead::default();
    ahead.start(&dns, about("ahead.test"), soon());
    for name in ["ahead.test", "late.test"] {
        let first = ahead.answer(&dns, &about(name), soon()).await;
        assert_eq!(ahead.answer(&dns, &about(name), soon()).await, first);
        assert_eq!(server.count(name), 1);
    }
}

#[tokio::test]
async fn a_started_lookup_may_miss_one_deadline_and_meet_the_next() {
    let server = FakeDns::start(|_| Reply::Late(TRY / 4, Box::new(Reply::address([127, 0, 0, 2]))));
    let dns = ask_patiently(&server, 20 * TRY);
    let mut ahead = Ahead::default();
    ahead.start(&dns, about("a.test"), soon());
    let too_soon = Call::within(TRY / 20);
    assert_eq!(ahead.answer(&dns, &about("a.test"), too_soon).await, Answer::Failed(Failure::TimedOut));
    assert_eq!(ahead.answer(&dns, &about("a.test"), soon()).await, address([127, 0, 0, 2]));
    // What nobody would wait for is not asked.
    ahead.start(&dns, about("b.test"), Call::within(Duration::ZERO));
    assert_eq!(server.count("b.test"), 0);
}

#[tokio::test]
async fn names_may_hold_anything() {
    let server = FakeDns::start(|_| Reply::address([127, 0, 0, 2]));
    let dns = ask_at(&server);
    let asked_as = async |name: &str| {
        let answer = dns.lookup(&about(name)).await;
        let last = server.queries().pop().map(|Query { name, .. }| name);
        (answer == address([127, 0, 0, 2])).then(|| last.unwrap())
    };
    for name in [
        "b@bad.example.dbl.test",
        "_a.b-.test",
        "a\\b.test",
        "a\\.test",
        "*.test",
        "\"'(;).test",
        "localhost.dbl.test",
        "one",
        "a b.test",
    ] {
        assert_eq!(asked_as(name).await.as_deref(), Some(name));
    }
    assert_eq!(asked_as("bücher.example.test").await.as_deref(), Some("xn--bcher-kva.example.test"));
    let label = "a".repeat(63);
    assert_eq!(asked_as(&format!("{label}.test")).await, Some(format!("{label}.test")));

    let before = server.queries().len();
    let (long_label, long_name) =
        (format!("{label}a.test"), format!("{}test", format!("{label}.").repeat(4)));
    let (huge, huge_in_unicode) = ("a.".repeat(100_000), "\u{fc}".repeat(100_000));
    for name in [
        "",
        ".",
        "..",
        "a..test",
        ".test",
        "a\tb.test",
        "a\0b.test",
        "a\nb.test",
        "a\u{85}b.test",
        "bü b.test",
        &long_label,
        &long_name,
        &huge,
        &huge_in_unicode,
    ] {
        assert_eq!(dns.lookup(&about(name)).await, Answer::Nothing, "{name:.80}");
        let mut ahead = Ahead::default();
        ahead.start(&dns, about(name), soon());
        assert_eq!(ahead.answer(&dns, &about(name), soon()).await, Answer::Nothing, "{name:.80}");
    }
    assert_eq!(server.queries().len(), before, "none of these can be asked");
}

#[tokio::test]
async fn the_hosts_file_has_no_say() {
    let server = FakeDns::start(|_| Reply::NoSuchName(Some(60)));
    let dns = ask_at(&server);
    for name in ["ip6-allnodes", "ip6-allrouters", "ip6-loopback"] {
        assert_eq!(dns.lookup(&about(name)).await, Answer::Nothing);
        assert_eq!(server.count(name), 1);
    }
}

#[tokio::test]
async fn an_answer_is_proved_if_a_server_that_is_believed_says_so() {
    let tlsa = (52, [&[3, 1, 1][..], &[7; 32]].concat());
    let key = (61, b"a key".to_vec());
    let server = FakeDns::start(move |query| {
        let records = Reply::Records(vec![tlsa.clone(), key.clone(), (1, vec![127, 0, 0, 2])], 60);
        match &*query.name {
            "proved.test" if query.wants_proof => Reply::Proved(Box::new(records)),
            "cut.test" => Reply::Truncated(Box::new(Reply::Proved(Box::new(records)))),
            "broken.test" => Reply::Code(2),
            "nothere.test" => Reply::Proved(Box::new(Reply::NoSuchName(Some(60)))),
            _ => records,
        }
    });
    let association = Association { usage: 3, selector: 1, matching: 1, data: Box::from([7; 32]) };
    let associations = Answer::Associations(Arc::from([association]));
    let keys = Answer::Keys(Arc::from([Box::from(*b"a key")]));
    let failed = Answer::Failed(Failure::Server("Server Failure"));
    let believing = ask_at(&server);
    let settings =
        DnsSettings { servers: vec![server.address()], trust_ad: Some(false), ..DnsSettings::default() };
    let doubting = Dns::new(&settings);
    assert_eq!((believing.can_prove(), doubting.can_prove()), (true, false));
    for (name, record_type, answer, is_proved) in [
        ("proved.test", RecordType::Tlsa, associations.clone(), true),
        ("proved.test", RecordType::OpenPgpKey, keys, true),
        ("proved.test", RecordType::A, address([127, 0, 0, 2]), true),
        ("cut.test", RecordType::Tlsa, associations.clone(), true),
        ("plain.test", RecordType::Tlsa, associations, false),
        ("broken.test", RecordType::Tlsa, failed, false),
        ("nothere.test", RecordType::Tlsa, Answer::Nothing, false),
        ("no..name", RecordType::Tlsa, Answer::Nothing, false),
    ] {
        let question = Question::new(name, record_type);
        let found = believing.lookup_authentic(&question).await;
        assert_eq!((&found.answer, found.is_proved), (&answer, is_proved), "{name} {record_type}");
        let doubted = doubting.lookup_authentic(&question).await;
        assert_eq!((doubted.answer, doubted.is_proved), (answer, false), "{name} {record_type}");
    }
}
