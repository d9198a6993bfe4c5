//! The whole chain against everything that a stranger can write: a hundred thousand requests from a seed,
//! with a name server that lies.
//!
//! Knows: the daemon, the fake server, what an action may look like. Must not know: how a plugin works.
//!
//! `HOSTILE_SEED` and `HOSTILE_REQUESTS` choose another run.

use crate::fake_dns::{FakeDns, Query, Reply, wire_name};
use crate::support::client::Answer;
use crate::support::daemon::{Daemon, Site};
use mtpolicyd::testing::geoip::{country, mmdb};
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::thread;

/// The time limit of a request, in seconds.
const REQUEST_TIMEOUT: u64 = 8;

/// Connections that ask at the same time.
const CLIENTS: u64 = 48;

/// How much more memory the second half of the requests may leave than the first, in MiB. Caches have bounds
/// of their own, which the first half has filled or not; a leak of 1 KiB a request would leave 50.
const GROWTH: u64 = 24;

/// Every plugin that needs no server of its own; what they look up is in files, in memory and in the DNS.
const CONFIGURATION: &str = r#"
port = "127.0.0.1:$PORT"
log_level = 0
request_timeout = $LIMIT
<Dns>
  servers = "$DNS"
  timeout = 1
  attempts = 1
</Dns>
<SessionCache>
  module = Memory
  max_sessions = 1000
</SessionCache>
<Connection mem>
  module = Memory
  max_entries = 5000
</Connection>
<Connection db>
  module = Sql
  dsn = "dbi:SQLite:dbname=$DIR/db.sqlite"
</Connection>
<VirtualHost $PORT>
  name = hostile
  <Plugin settings>
    module = SqlUserConfig
    field = recipient
  </Plugin>
  <Plugin geo>
    module = GeoIPLookup
    database = "$DIR/geo.mmdb"
  </Plugin>
  <Plugin geo-action>
    module = GeoIPAction
    result_from = geo
    country_codes = "XX, YY"
    mode = passive
    score = 1
  </Plugin>
  <Plugin spf>
    module = SPF
    fail_mode = passive
    softfail_mode = passive
    pass_mode = passive
    temperror_mode = passive
    permerror_mode = passive
    fail_score = 3
  </Plugin>
  <Plugin rbl>
    module = RBL
    domain = rbl.test
    mode = passive
    score = 2
  </Plugin>
  <Plugin rbl-action>
    module = RBLAction
    result_from = rbl
    re_match = "^127\.0\.0\.(3|[4-9])$"
    mode = reject
    reject_message = "listed %IP% %INFO%"
  </Plugin>
  <Plugin dbl>
    module = DBL
    domain = dbl.test
    sender_mode = passive
    sender_score = 2
    reject_message = "%CHECK% %HOSTNAME% %INFO%"
  </Plugin>
  <Plugin patterns>
    module = RegexList
    key = sender
    action = "reject pattern"
    regex = "^(a+)+b\.(?!x)[^@]*@spam"
    regex = "(?i)^v[i1]agra(?=.*(.)\1\1)"
    regex = "\bcasino\b"
  </Plugin>
  <Plugin map>
    module = PostfixMap
    db_file = "pcre:$DIR/map.pcre"
    field = helo_name
    match_action = "reject map"
  </Plugin>
  <Plugin list>
    module = SqlList
    sql_query = "SELECT client_ip FROM blocked WHERE client_ip = ?"
    field = client_address
    match_action = "reject blocked"
  </Plugin>
  <Plugin trap>
    module = Honeypot
    store = mem
    recipients = "trap@example.net"
    recipients_re = "^trap-\d+@"
    mode = passive
    score = 4
  </Plugin>
  <Plugin field>
    module = SetField
    key = seen
    value = yes
  </Plugin>
  <Plugin nested>
    module = Condition
    key = sender
    re_match = "nested"
    <Plugin inner-list>
      module = RBL
      domain = inner.test
      mode = passive
      score = 1
    </Plugin>
    <Plugin inner-clear>
      module = ClearFields
      fields = seen
    </Plugin>
  </Plugin>
  <Plugin rate>
    module = RateLimit
    key = "sender@domain"
    limit = "50/10s"
    action = "defer rate"
  </Plugin>
  <Plugin quota>
    module = Quota
    field = sasl_username
    metric = count
    threshold = 100000000
    action = "defer quota"
  </Plugin>
  <Plugin accounting>
    module = Accounting
    fields = "client_address,sender,recipient,sasl_username"
  </Plugin>
  <Plugin stress>
    module = Stress
    action = "defer stress"
  </Plugin>
  <Plugin grey>
    module = Greylist
    score = -1
    client_key = spf
    autowl_expire_days = 1
    <Ticket>
      module = Memory
      memory = mem
    </Ticket>
    <AWL>
      module = Sql
    </AWL>
  </Plugin>
  <Plugin verify>
    module = SMTPVerify
    helo_name = mx.example.net
    temp_fail_score = 0.5
    perm_fail_score = 1
    timeout = 1
  </Plugin>
  <Plugin threshold>
    module = ScoreAction
    threshold = 9
    action = "reject score %SCORE%%SCORE_DETAIL%"
  </Plugin>
  <Plugin header>
    module = AddScoreHeader
    spam_score = 5
  </Plugin>
</VirtualHost>
"#;

/// Numbers from a seed (SplitMix64).
struct Random(u64);

impl Random {
    fn of(value: impl Hash) -> Random {
        let mut hasher = DefaultHasher::new();
        value.hash(&mut hasher);
        Random(hasher.finish())
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound as u64).expect("below the bound")
    }

    fn one_of<'a, T: ?Sized>(&mut self, choices: &[&'a T]) -> &'a T {
        choices[self.below(choices.len())]
    }

    /// Any bytes that the protocol carries.
    fn bytes(&mut self, most: usize) -> Vec<u8> {
        let length = self.below(most + 1);
        (0..length)
            .map(|_| (self.next() as u8).max(1))
            .map(|byte| if byte == b'\n' { b' ' } else { byte })
            .collect()
    }
}

/// Pieces of addresses, names and records, each of which has been somebody's trouble.
const PIECES: &[&str] = &[
    "a",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "@",
    "@@",
    "%",
    "!",
    ".",
    "..",
    "\"",
    "\"a b\"",
    "\\",
    "[192.0.2.1]",
    "[IPv6:::1]",
    "example.org",
    "EXAMPLE.org.",
    "spam",
    "viagraxxx",
    "casino",
    "nested",
    "trap-7@",
    "xn--mnchen-3ya",
    "m\u{fc}nchen.example",
    "\u{202e}",
    "\u{1f4a9}",
    "%{s}",
    "%{l1r-}",
    "%SCORE%",
    "+ext",
    "=",
    "prvs=abc=",
    "srs0=",
    "' OR 1=1 --",
    "*)(uid=*",
    "../../etc/passwd",
    "\r",
    "\t",
    "\u{7f}",
    "127.0.0.1",
    "::ffff:127.0.0.1",
    "_",
    "-",
];

fn odd_text(random: &mut Random) -> Vec<u8> {
    match random.below(12) {
        0 => random.bytes(60),
        1 => random.one_of(PIECES).repeat(random.below(200)).into_bytes(),
        _ => (0..random.below(6)).flat_map(|_| random.one_of(PIECES).bytes()).collect(),
    }
}

fn address(random: &mut Random) -> Vec<u8> {
    match random.below(4) {
        0 => odd_text(random),
        1 => [odd_text(random), b"@".to_vec(), odd_text(random)].concat(),
        2 => format!("user{}@d{}.test", random.below(50), random.below(4000)).into_bytes(),
        _ => Vec::new(),
    }
}

fn client_address(random: &mut Random) -> Vec<u8> {
    match random.below(8) {
        0 => format!("2001:db8::{:x}", random.below(5000)).into_bytes(),
        1 => format!("::ffff:192.0.2.{}", random.below(256)).into_bytes(),
        // Never empty: Postfix has an address or says `unknown`.
        2 => [b"u".to_vec(), odd_text(random)].concat(),
        _ => format!("192.0.{}.{}", random.below(20), random.below(256)).into_bytes(),
    }
}

/// A request; a few in a row are of one message, as several recipients are.
fn request(number: u64, seed: u64) -> Vec<u8> {
    let random = &mut Random::of((seed, number));
    let instance = format!("{:x}.{:x}.0", seed, number / 3);
    let host = |random: &mut Random| match random.below(3) {
        0 => odd_text(random),
        _ => format!("h{}.test", random.below(3000)).into_bytes(),
    };
    let attributes: [(&str, Vec<u8>); 11] = [
        ("request", b"smtpd_access_policy".to_vec()),
        ("protocol_state", random.one_of(&["RCPT", "DATA", "END-OF-MESSAGE", "MAIL"]).as_bytes().to_vec()),
        ("instance", instance.into_bytes()),
        ("client_address", client_address(random)),
        ("client_name", host(random)),
        ("reverse_client_name", host(random)),
        ("helo_name", host(random)),
        ("sender", address(random)),
        ("recipient", address(random)),
        ("sasl_username", if random.below(5) == 0 { odd_text(random) } else { Vec::new() }),
        (
            "size",
            if random.below(9) == 0 {
                odd_text(random)
            } else {
                random.below(1 << 40).to_string().into_bytes()
            },
        ),
    ];
    let mut bytes = Vec::new();
    for (name, value) in attributes {
        bytes.extend(
            name.bytes().chain([b'=']).chain(value.into_iter().filter(|byte| *byte != b'\n')).chain([b'\n']),
        );
    }
    bytes.push(b'\n');
    bytes
}

/// A record that begins like one of SPF and goes on with whatever the random numbers say.
fn record(random: &mut Random) -> Vec<Vec<u8>> {
    let mut text = b"v=spf1".to_vec();
    for _ in 0..random.below(14) {
        text.push(b' ');
        let term = random.one_of(&[
            "include:d1.test",
            "include:%{d}",
            "a",
            "mx",
            "ptr",
            "exists:%{ir}.%{l1r+-}.x.test",
            "ip4:192.0.2.0/25",
            "ip6:2001:db8::/32",
            "redirect=d2.test",
            "exp=%{p}.test",
            "-all",
            "~all",
            "?all",
            "a:%{sr}%{hr}.test",
            "mx:d3.test//64",
            "x=y",
            "all:",
            "ip4:999.1.1.1",
            "%{",
        ]);
        text.extend_from_slice(term.as_bytes());
    }
    if random.below(20) == 0 {
        text.extend(random.bytes(3000));
    }
    text.chunks(1 + random.below(255)).map(<[u8]>::to_vec).collect()
}

fn lie(query: &Query, seed: u64) -> Reply {
    let random = &mut Random::of((seed, &query.name, query.record_type));
    let ttl = random.one_of(&[&0, &1, &60, &u32::MAX]).to_owned();
    let small = |random: &mut Random| Reply::Addresses(vec![[127, 0, 0, random.next() as u8].into()], ttl);
    // What is not an answer costs a second, so it is rare.
    match random.below(1000) {
        0 => return Reply::Silence,
        1 => return Reply::Garbage(random.bytes(600)),
        2 => return Reply::WrongId(Box::new(small(random))),
        3 => return Reply::WrongQuestion(Box::new(small(random))),
        _ => {}
    }
    match random.below(40) {
        0..4 => Reply::Code(random.below(16) as u8),
        4 => Reply::NoData(None),
        5 => Reply::Texts(vec![vec![Vec::new(); 300]; 3], ttl),
        6 => Reply::Truncated(Box::new(Reply::Texts(vec![vec![vec![b'x'; 255]; 200]], ttl))),
        7 => Reply::Addresses((0..=255).map(|n| [127, 0, 0, n].into()).collect(), ttl),
        8 => Reply::Both(Box::new(Reply::Garbage(random.bytes(40))), Box::new(small(random))),
        9 => Reply::Alias("elsewhere.test", [127, 0, 0, 4].into(), ttl),
        10 | 11 => Reply::Records(vec![(query.record_type, random.bytes(300))], ttl),
        12..20 => match query.record_type {
            15 => {
                let exchange =
                    [&[0, 10][..], &wire_name(random.one_of(&["mx.test", "localhost", "d4.test"]))].concat();
                Reply::Records(vec![(15, exchange); 1 + random.below(30)], ttl)
            }
            16 => Reply::Texts(vec![record(random)], ttl),
            12 => Reply::Records(vec![(12, wire_name("h1.test")); 1 + random.below(40)], ttl),
            _ => small(random),
        },
        20..24 => small(random),
        24..30 => Reply::Texts(vec![record(random)], ttl),
        _ => Reply::NoSuchName(Some(60)),
    }
}

/// Resident memory of a process in MiB.
fn resident(process: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).expect("the daemon runs");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("the kernel says it");
    line.split_ascii_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).expect("a number") / 1024
}

fn number_of(variable: &str, default: u64) -> u64 {
    std::env::var(variable).ok().map_or(default, |text| text.parse().expect("a number"))
}

/// Asks these requests over several connections; whatever is not right is told.
fn ask_all(daemon: &Daemon, numbers: std::ops::Range<u64>, seed: u64) -> Vec<String> {
    let ask = |client: u64| {
        let mut wrong = Vec::new();
        let mut connection = daemon.connect();
        let share = numbers.clone().filter(|number| number / 3 % CLIENTS == client);
        for number in share {
            let bytes = request(number, seed);
            connection.send_raw(&bytes).expect("the daemon reads");
            let answer = connection.answer();
            let too_long = matches!(&answer, Answer::Action(action) if action.len() > "PREPEND ".len() + 998);
            let empty = matches!(&answer, Answer::Action(action) if action.trim().is_empty());
            if too_long || empty || answer == Answer::Closed {
                let text = format!("request {number}: {answer:?}");
                wrong.push(format!("{text}\n{}", bytes.escape_ascii()));
                connection = daemon.connect();
            }
        }
        wrong
    };
    let ask = &ask;
    thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS).map(|client| scope.spawn(move || ask(client))).collect();
        clients.into_iter().flat_map(|client| client.join().expect("the client has no fault")).collect()
    })
}

#[test]
fn nothing_that_strangers_write_breaks_the_chain() {
    let seed = number_of("HOSTILE_SEED", 8);
    let requests = number_of("HOSTILE_REQUESTS", 100_000);
    let dns = FakeDns::start(move |query| lie(query, seed));
    let mut site = Site::new();
    site.replace("$DNS", dns.address());
    site.replace("$LIMIT", REQUEST_TIMEOUT);
    fs::write(
        site.path("geo.mmdb"),
        mmdb("GeoLite2-Country", true, &[("192.0.2.0/24", country("XX", "EU"))]),
    )
    .unwrap();
    fs::write(site.path("map.pcre"), "/^(?!mx)(\\w+\\.)+(?=x)y$/ OK\n/evil/ OK\n").unwrap();
    let database = rusqlite::Connection::open(site.path("db.sqlite")).unwrap();
    let tables = "CREATE TABLE user_config (address TEXT, config TEXT);\
                  CREATE TABLE blocked (client_ip TEXT);\
                  INSERT INTO user_config VALUES ('user1@d1.test', '{\"score\":\"x\"}');";
    database.execute_batch(tables).unwrap();
    drop(database);
    site.configure(CONFIGURATION);
    let daemon = site.start();
    let half = requests / 2;
    let mut wrong = ask_all(&daemon, 0..half, seed);
    let before = resident(daemon.id());
    wrong.extend(ask_all(&daemon, half..requests, seed));
    let after = resident(daemon.id());
    let log = daemon.log();
    assert!(
        wrong.is_empty(),
        "{} of {requests}, seed {seed}: {:#?}\n{log}",
        wrong.len(),
        &wrong[..wrong.len().min(5)]
    );
    assert!(!log.contains("panicked"), "{log}");
    assert!(after <= before + GROWTH, "memory grew from {before} to {after} MiB, seed {seed}");
}
