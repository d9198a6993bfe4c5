//! The example of three daemons that share Redis and PostgreSQL: one of them is killed in the middle.
//!
//! Knows: the files of the example. Must not know: the daemon's code.

use crate::examples::{example, is_right};
use crate::support::client::{Answer, Client};
use crate::support::daemon::{Daemon, Site};
use crate::support::postfix::{Postfix, postfix_or_leaves_out};
use crate::support::servers::{Server, postgres, redis};
use crate::support::{eventually, free_port};
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

/// Clients that ask at the same time.
const CLIENTS: usize = 6;

/// Messages that each of them asks about.
const MAILS: usize = 100;

/// More than the one second that a client has to wait: daemons look at whole seconds.
const WAITED: Duration = Duration::from_millis(2_100);

/// What all three run on, and how to ask them.
struct Cluster {
    recipients: u16,
    end_of_data: u16,
    nodes: [Option<Daemon>; 3],
    database: Server,
    _redis: Server,
}

fn address(node: usize) -> Ipv4Addr {
    Ipv4Addr::new(127, 0, 0, u8::try_from(node).expect("there are three") + 1)
}

impl Cluster {
    /// The daemons of the example, at its addresses, on ports of this test's own; a client has to wait for
    /// one second only.
    fn start() -> Cluster {
        let redis = redis::start_with(&["--requirepass", "secret of redis"]);
        let database = postgres::start();
        let (recipients, end_of_data) = (free_port(), free_port());
        let ports = [("12345", recipients.to_string()), ("12346", end_of_data.to_string())];
        let ports = ports.each_ref().map(|(from, to)| (*from, to.as_str()));
        let common = example(
            "cluster/common.conf",
            &[
                &ports[..],
                &[
                    ("127.0.0.1:6379", &format!("127.0.0.1:{}", redis.port)),
                    ("port=5432", &format!("port={}", database.port)),
                    ("secret of postgres", postgres::NAME),
                    ("min_retry_wait = 300", "min_retry_wait = 1"),
                ],
            ]
            .concat(),
        );
        let nodes = [0, 1, 2].map(|node| {
            let site = Site::new();
            fs::write(site.path("common.conf"), &common).expect("the folder is writable");
            site.configure(&example(&format!("cluster/node{}.conf", node + 1), &ports));
            is_right(&site.config());
            let daemon = site.spawn(&[]);
            eventually("the daemon listens", || {
                Client::tcp(SocketAddr::from((address(node), end_of_data))).ok()
            });
            Some(daemon)
        });
        Cluster { recipients, end_of_data, nodes, database, _redis: redis }
    }

    fn connect(&self, node: usize, port: u16) -> Option<Client> {
        Client::tcp(SocketAddr::from((address(node), port))).ok()
    }

    /// What a node says about a recipient.
    fn ask(&self, node: usize, sender: &str) -> String {
        let question = format!(
            "protocol_state=RCPT\ninstance={sender}.{node}.{:?}\nclient_address=192.0.2.1\nsender={sender}\n\
             recipient=bob@example.org",
            std::time::Instant::now()
        );
        self.connect(node, self.recipients).expect("it listens").ask(&question).action()
    }

    /// How many messages of a client the database has counted.
    fn counted(&self, client: &str) -> usize {
        let sql =
            format!("SELECT coalesce(sum(count), 0)::bigint FROM acct_client_address WHERE key = '{client}'");
        let settings = format!(
            "host=127.0.0.1 port={} user={} password={} dbname={}",
            self.database.port,
            postgres::NAME,
            postgres::NAME,
            postgres::NAME
        );
        let asking = async {
            let (client, connection) = tokio_postgres::connect(&settings, tokio_postgres::NoTls).await?;
            tokio::spawn(connection);
            client.query_one(&sql, &[]).await.map(|row| row.get::<_, i64>(0))
        };
        let runtime = tokio::runtime::Runtime::new().expect("threads can be started");
        let counted = runtime.block_on(asking).expect("the database answers");
        usize::try_from(counted).expect("it counts upwards")
    }
}

/// Asks about messages as Postfix does: when a connection breaks, the next daemon gets the same question.
/// Says how many questions had to be repeated.
fn count_mails(cluster: &Cluster, number: usize, asked: &AtomicUsize) -> usize {
    let mut repeated = 0;
    let mut node = number % 3;
    let mut client = cluster.connect(node, cluster.end_of_data);
    for mail in 0..MAILS {
        let question = format!(
            "request=smtpd_access_policy\nprotocol_state=END-OF-MESSAGE\ninstance=load.{number}.{mail}\n\
             client_address=192.0.2.{number}\nrecipient_count=1\nsize=1000\n\n"
        );
        loop {
            let answer = client.as_mut().map(|client| match client.send_raw(question.as_bytes()) {
                Ok(()) => client.answer(),
                Err(_) => Answer::Closed,
            });
            match answer {
                Some(Answer::Action(action)) => break assert_eq!(action, "dunno"),
                broken => repeated += usize::from(broken.is_some()),
            }
            node = (node + 1) % 3;
            client = cluster.connect(node, cluster.end_of_data);
        }
        asked.fetch_add(1, Ordering::SeqCst);
    }
    repeated
}

#[test]
fn counters_and_tickets_outlive_a_daemon() {
    let mut cluster = Cluster::start();
    // A ticket that one daemon gives is known to the others.
    assert_eq!(cluster.ask(0, "alice@example.net"), "defer greylisting is active");
    // Within one second, which a busy machine may not make at once.
    let mut strangers = 0;
    eventually("a second daemon is asked early enough", || {
        strangers += 1;
        let stranger = format!("stranger{strangers}@example.net");
        assert_eq!(cluster.ask(0, &stranger), "defer greylisting is active");
        let again = cluster.ask(1, &stranger);
        assert!(again == "defer greylisting is active (1s left)" || again == "dunno", "{again}");
        (again != "dunno").then_some(())
    });
    assert_eq!(cluster.ask(1, "carol@example.net"), "defer greylisting is active");
    let asked = AtomicUsize::new(0);
    let victim = cluster.nodes[1].take();
    let repeated: Vec<usize> = thread::scope(|scope| {
        let cluster = &cluster;
        let asked = &asked;
        let clients: Vec<_> =
            (0..CLIENTS).map(|number| scope.spawn(move || count_mails(cluster, number, asked))).collect();
        eventually("a third of the messages", || {
            (asked.load(Ordering::SeqCst) > CLIENTS * MAILS / 3).then_some(())
        });
        // It is killed, not told to end.
        drop(victim);
        clients.into_iter().map(|client| client.join().expect("no client fails")).collect()
    });
    assert!(repeated.iter().sum::<usize>() > 0, "nobody was at the one that died");
    for (number, repeated) in repeated.into_iter().enumerate() {
        let counted = cluster.counted(&format!("192.0.2.{number}"));
        // The message that the dead one had in its hands may have been counted without an answer.
        assert!(
            (MAILS..=MAILS + repeated.min(1)).contains(&counted),
            "{number}: {counted}, {repeated} repeated"
        );
    }
    thread::sleep(WAITED);
    // The tickets of the dead one are those of all.
    for sender in ["alice@example.net", "carol@example.net"] {
        assert_eq!(cluster.ask(2, sender), "dunno");
        assert_eq!(cluster.ask(0, sender), "defer greylisting is active");
    }
}

#[test]
fn postfix_asks_the_next_daemon_when_one_dies() {
    if !postfix_or_leaves_out("three daemons behind one Postfix, of which one dies") {
        return;
    }
    let mut cluster = Cluster::start();
    let (recipients, end_of_data) = (cluster.recipients.to_string(), cluster.end_of_data.to_string());
    let main = example("cluster/main.cf", &[("12345", &recipients), ("12346", &end_of_data)]);
    let (_, restrictions) = main.split_once("smtpd_recipient_restrictions =").expect("it has some");
    let postfix = Postfix::start(restrictions);
    fs::create_dir(postfix.queue().join("etc")).expect("the folder is ours");
    fs::write(postfix.queue().join("etc/hosts"), example("cluster/hosts", &[])).expect("it is ours");
    fs::write(postfix.queue().join("etc/host.conf"), "multi on\n").expect("it is ours");
    let mut client = postfix.connect().unwrap();
    client.claim_address("192.0.2.7").unwrap();
    let mut delivered = 0;
    for round in 0..3 {
        let refusal = client.send("somebody", "too early").expect_err("strangers have to wait");
        assert!(refusal.is_temporary() && refusal.text.contains("greylisting is active"), "{}", refusal.text);
        // The one that has given the ticket dies; the third one is left in the end.
        if round < 2 {
            let asked = |daemon: &Daemon| daemon.log().contains("plugin=greylist");
            // The answer is out before the line of the log.
            let busy = eventually("one has been asked", || {
                cluster.nodes.iter().position(|node| node.as_ref().is_some_and(asked))
            });
            drop(cluster.nodes[busy].take());
        }
        thread::sleep(WAITED);
        client
            .send("somebody", &format!("round {round}"))
            .unwrap_or_else(|refusal| panic!("{}", refusal.text));
        postfix.delivered(&format!("round {round}"));
        delivered += 1;
    }
    // From the third time on there is no test.
    client.send("somebody", "known by now").unwrap_or_else(|refusal| panic!("{}", refusal.text));
    postfix.delivered("known by now");
    assert_eq!(cluster.counted("192.0.2.7"), delivered + 1);
}
