//! Searches in a real directory: who may look, over which connection, and what happens when it is
//! unreachable.
//!
//! Knows: `backends::ldap`. Must not know: plugins.

use crate::support::servers::Server;
use crate::support::servers::certificates::Certificates;
use crate::support::servers::slapd::{self, BINDDN, PASSWORD, SUFFIX, TOP};
use crate::support::{PATIENCE, eventually_async};
use backends::ldap::{Deref, Entry, Ldap, LdapSettings, escape};
use backends::{BackendError, Call, Failure, Secret};
use std::time::Duration;
use tokio::time::{Instant, sleep};

fn entries() -> String {
    let person = |cn: &str, more: &str| {
        format!("\ndn: cn={cn},{SUFFIX}\nobjectClass: inetOrgPerson\ncn: {cn}\nsn: {cn}\n{more}")
    };
    let alice = person("alice", "mail: alice@example.test\ntitle: off\nemployeeType: a\nemployeeType: b\n");
    // Two colons are for Base64 (RFC 2849).
    let odd = person("odd", "employeeNumber:: KijDvA==\ntitle: odd\njpegPhoto:: /9j/\n");
    format!("{TOP}{alice}{odd}{}", person("bob", "mail: bob@example.test\n"))
}

fn settings(server: &Server) -> LdapSettings {
    LdapSettings {
        host: "127.0.0.1".to_owned(),
        port: Some(server.port),
        keepalive: true,
        timeout: Duration::from_secs(10),
        binddn: None,
        password: Secret::default(),
        starttls: false,
        tls_ca: None,
        deref: Deref::Find,
    }
}

fn soon() -> Call<'static> {
    Call::within(Duration::from_secs(20))
}

async fn find(ldap: &Ldap, filter: &str) -> Result<Vec<Entry>, BackendError> {
    let attributes = ["title", "employeetype", "jpegPhoto"].map(str::to_owned);
    ldap.search(SUFFIX, filter, &attributes, 2, soon()).await
}

#[track_caller]
fn refusal(result: Result<impl std::fmt::Debug, BackendError>) -> String {
    match result.expect_err("it is refused").failure {
        Failure::Refused(why) => why,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn an_entry_is_found_with_its_attributes() {
    let server = slapd::start(&entries(), None, "");
    let ldap = Ldap::new("ldap", settings(&server)).unwrap();
    let found = find(&ldap, "(mail=alice@example.test)").await.unwrap();
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0].dn, format!("cn=alice,{SUFFIX}"));
    assert_eq!((found[0].value("Title"), found[0].value("EMPLOYEETYPE")), (Some("off"), Some("a")));
    assert_eq!(found[0].value("mail"), None);
    assert_eq!(find(&ldap, "(mail=nobody@example.test)").await.unwrap(), []);
    // There are three; two were asked for.
    assert_eq!(find(&ldap, "(objectClass=inetOrgPerson)").await.unwrap().len(), 2);
    let odd = find(&ldap, &format!("(employeeNumber={})", escape("*(\u{fc}".as_bytes()))).await.unwrap();
    assert_eq!(odd.len(), 1, "{odd:?}");
    assert_eq!(odd[0].value("jpegPhoto"), Some("\u{fffd}\u{fffd}\u{fffd}"));
    assert_eq!(find(&ldap, &format!("(mail={})", escape(b"*"))).await.unwrap(), []);
}

#[tokio::test]
async fn an_answer_that_is_no_is_told_and_the_connection_stays() {
    let server = slapd::start(&entries(), None, "");
    let ldap = Ldap::new("ldap", settings(&server)).unwrap();
    let nowhere = ldap.search("dc=elsewhere", "(cn=a)", &[], 1, soon()).await;
    assert!(refusal(nowhere).starts_with("search below `dc=elsewhere` for (cn=a): "), "it says where");
    assert!(refusal(find(&ldap, "(cn=a").await).contains("this is not a filter"));
    assert_eq!(find(&ldap, "(cn=alice)").await.unwrap().len(), 1);
}

#[tokio::test]
async fn who_may_look_is_decided_by_the_bind() {
    let closed = format!("access to * by dn.exact=\"{BINDDN}\" read by * auth\nrequire authc\n");
    let server = slapd::start(&entries(), None, &closed);
    let nobody = Ldap::new("ldap", settings(&server)).unwrap();
    refusal(find(&nobody, "(cn=alice)").await);
    let bound = |password: &str| {
        let password = Secret(password.to_owned());
        let binddn = Some(BINDDN.to_owned());
        Ldap::new("ldap", LdapSettings { binddn, password, ..settings(&server) }).unwrap()
    };
    assert_eq!(find(&bound(PASSWORD), "(cn=alice)").await.unwrap().len(), 1);
    let why = bound("wrong-password").ping(soon()).await.unwrap_err().to_string();
    assert!(
        why.contains(&format!("down: bind as {BINDDN}: ")) && why.contains("invalidCredentials"),
        "{why}"
    );
    assert!(!why.contains("wrong-password"), "{why}");
}

#[tokio::test]
async fn starttls_comes_first_and_wants_a_certificate_that_is_trusted() {
    let certificates = Certificates::new();
    // The server refuses everything without encryption.
    let server = slapd::start(&entries(), Some(&certificates), "security tls=128\n");
    let with = |host: &str, authority: &Certificates| {
        let tls_ca = Some(authority.authority().display().to_string());
        let host = host.to_owned();
        Ldap::new("ldap", LdapSettings { host, starttls: true, tls_ca, ..settings(&server) }).unwrap()
    };
    let mut hosts = vec!["127.0.0.1", "localhost"];
    if slapd::has_ipv6() {
        hosts.push("::1");
    }
    let stranger = Certificates::new();
    for host in hosts {
        assert_eq!(find(&with(host, &certificates), "(cn=alice)").await.unwrap().len(), 1, "{host}");
        let error = find(&with(host, &stranger), "(cn=alice)").await.unwrap_err();
        let Failure::Down(why) = &error.failure else { panic!("{error}") };
        assert!(why.contains("certificate"), "{error}");
    }
    let plain = Ldap::new("ldap", settings(&server)).unwrap();
    assert!(refusal(find(&plain, "(cn=alice)").await).contains("confidentialityRequired"));
}

#[tokio::test]
async fn ldaps_is_encrypted_from_the_beginning() {
    let certificates = Certificates::new();
    let (server, port) = slapd::start_encrypted(&entries(), &certificates);
    for (authority, finds) in [(&certificates, true), (&Certificates::new(), false)] {
        let tls_ca = Some(authority.authority().display().to_string());
        let host = "ldaps://127.0.0.1".to_owned();
        // What `starttls` says makes no difference.
        let starttls = finds;
        let ldap = LdapSettings { host, port: Some(port), starttls, tls_ca, ..settings(&server) };
        let found = find(&Ldap::new("ldap", ldap).unwrap(), "(cn=alice)").await;
        assert_eq!(found.is_ok_and(|found| found.len() == 1), finds);
    }
}

#[tokio::test]
async fn a_server_is_named_in_several_ways() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("ldapi");
    let server = slapd::start_on_socket(&socket, &entries());
    let (port, socket) = (server.port, socket.display().to_string());
    let mut hosts = vec![
        format!("127.0.0.1:{port}"),
        format!("ldap://127.0.0.1:{port}"),
        format!("ldap://localhost:{port}/"),
        format!("ldapi://{}", socket.replace('/', "%2F")),
        format!("ldapi://{socket}"),
        // The first one does not listen.
        format!("127.0.0.1:{}, 127.0.0.1:{port}", crate::support::free_port()),
    ];
    if slapd::has_ipv6() {
        hosts.push(format!("[::1]:{port}"));
    }
    for host in hosts {
        // The port that is written beside the host counts.
        let ldap = LdapSettings { host: host.clone(), port: Some(1), ..settings(&server) };
        let found = find(&Ldap::new("ldap", ldap).unwrap(), "(cn=alice)").await;
        assert_eq!(found.map(|found| found.len()).ok(), Some(1), "{host}");
    }
    // What the system knows of who connects is enough on a socket: there is no encryption to wait for.
    let host = format!("ldapi://{socket}");
    let ldap = LdapSettings { host, starttls: true, ..settings(&server) };
    assert_eq!(find(&Ldap::new("ldap", ldap).unwrap(), "(cn=alice)").await.unwrap().len(), 1);
}

#[tokio::test]
async fn an_alias_is_followed_where_that_is_wanted() {
    let alias = |name: &str, of: &str| {
        format!(
            "\ndn: ou={name},{SUFFIX}\nobjectClass: alias\nobjectClass: extensibleObject\nou: {name}\n\
             aliasedObjectName: {of}\n"
        )
    };
    let ldif = format!(
        "{TOP}\ndn: ou=users,{SUFFIX}\nobjectClass: organizationalUnit\nou: users\n\
         \ndn: cn=max,ou=users,{SUFFIX}\nobjectClass: inetOrgPerson\ncn: max\nsn: max\n{}",
        alias("staff", &format!("ou=users,{SUFFIX}")),
    );
    let server = slapd::start(&ldif, None, "");
    let base = format!("ou=staff,{SUFFIX}");
    for (deref, finds) in [(Deref::Never, 0), (Deref::Search, 0), (Deref::Find, 1), (Deref::Always, 1)] {
        let ldap = Ldap::new("ldap", LdapSettings { deref, ..settings(&server) }).unwrap();
        let found = ldap.search(&base, "(cn=max)", &[], 2, soon()).await.unwrap();
        assert_eq!(found.len(), finds, "{deref:?}");
    }
}

#[tokio::test]
async fn a_certificate_of_another_server_is_refused() {
    let certificates = Certificates::new();
    // It is this machine too, but the certificate is not for it.
    let host = "127.0.0.2".to_owned();
    let other = slapd::start_on(&host, &entries(), Some(&certificates), "");
    let tls_ca = Some(certificates.authority().display().to_string());
    let wrong = LdapSettings { host, starttls: true, tls_ca, ..settings(&other) };
    let error = Ldap::new("ldap", wrong).unwrap().ping(soon()).await.unwrap_err();
    assert!(error.to_string().contains("not valid for name"), "{error}");
}

#[tokio::test]
async fn without_starttls_at_the_server_nothing_is_said() {
    let server = slapd::start(&entries(), None, "");
    let tls_ca = Some(Certificates::new().authority().display().to_string());
    let without_file = Ldap::new("ldap", LdapSettings { starttls: true, tls_ca, ..settings(&server) });
    assert_eq!(without_file.err().unwrap().option, "tls_ca");
    let certificates = Certificates::new();
    let tls_ca = Some(certificates.authority().display().to_string());
    let ldap = Ldap::new("ldap", LdapSettings { starttls: true, tls_ca, ..settings(&server) }).unwrap();
    let why = ldap.ping(soon()).await.unwrap_err().to_string();
    assert!(why.contains("down: encryption: "), "{why}");
}

#[tokio::test]
async fn a_directory_that_was_started_again_is_found_without_an_error() {
    let mut server = slapd::start(&entries(), None, "");
    let ldap = Ldap::new("ldap", settings(&server)).unwrap();
    assert_eq!(find(&ldap, "(cn=alice)").await.unwrap().len(), 1);
    server.restart();
    assert_eq!(find(&ldap, "(cn=alice)").await.unwrap().len(), 1);
    server.stop();
    let error = find(&ldap, "(cn=alice)").await.unwrap_err();
    assert!(matches!(error.failure, Failure::Down(_)), "{error}");
    server.start();
    is_back(&ldap).await;
}

#[tokio::test]
async fn a_frozen_directory_costs_one_request_its_time() {
    let server = slapd::start(&entries(), None, "");
    let timeout = Duration::from_millis(200);
    let ldap = Ldap::new("ldap", LdapSettings { timeout, ..settings(&server) }).unwrap();
    ldap.ping(soon()).await.unwrap();
    server.freeze();
    assert_eq!(find(&ldap, "(cn=alice)").await.unwrap_err().failure, Failure::TimedOut);
    // The trial that follows finds it dead; from then on nobody waits.
    eventually_async("it is known to be down", async || {
        (find(&ldap, "(cn=alice)").await.unwrap_err().failure != Failure::TimedOut).then_some(())
    })
    .await;
    let error = find(&ldap, "(cn=alice)").await.unwrap_err();
    assert!(matches!(error.failure, Failure::Down(_)), "{error}");
    server.thaw();
    is_back(&ldap).await;
    // An answer that came late went to nobody.
    assert_eq!(find(&ldap, "(cn=bob)").await.unwrap()[0].dn, format!("cn=bob,{SUFFIX}"));
}

#[tokio::test]
async fn many_searches_share_a_few_connections() {
    let server = slapd::start(&entries(), None, "");
    let ldap = std::sync::Arc::new(Ldap::new("ldap", settings(&server)).unwrap());
    let mut searches = tokio::task::JoinSet::new();
    for number in 0..100 {
        let ldap = ldap.clone();
        let name = if number % 2 == 0 { "alice" } else { "bob" };
        searches.spawn(async move {
            let found = find(&ldap, &format!("(cn={name})")).await.unwrap();
            assert_eq!(found[0].dn, format!("cn={name},{SUFFIX}"));
        });
    }
    while let Some(search) = searches.join_next().await {
        search.unwrap();
    }
}

async fn is_back(ldap: &Ldap) {
    let until = Instant::now() + PATIENCE;
    loop {
        match find(ldap, "(cn=alice)").await {
            Ok(found) => return assert_eq!(found.len(), 1),
            Err(error) => assert!(Instant::now() < until, "{error}"),
        }
        sleep(Duration::from_millis(20)).await;
    }
}
