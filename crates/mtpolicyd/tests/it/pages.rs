//! The commands of the README and of the examples' pages do what the pages say, typed as they are.
//!
//! Knows: the pages. Must not know: the daemon's code.

use crate::support::machine::Machine;

/// A file that an administrator has edited.
const EDITED: &str = "# ours\n";

/// As of Postfix.
const QUESTION: &str = "\
policyd-client <<'END'
protocol_state=RCPT
client_address=192.0.2.1
reverse_client_name=unknown
helo_name=there
sender=
recipient=bob@example.net
instance=1

END";

/// What a person answers whom dpkg-reconfigure asks, and the start of the directory.
const DIRECTORY: &str = "\
debconf-set-selections <<'END'
slapd slapd/no_configuration boolean false
slapd slapd/domain string example.org
slapd shared/organization string example
slapd slapd/password1 password of the admin
slapd slapd/password2 password of the admin
slapd slapd/purge_database boolean true
slapd slapd/move_old_database boolean true
END
install -d -o openldap /run/slapd
install -d /run/sendsigs.omit.d
DEBIAN_FRONTEND=noninteractive /usr/sbin/dpkg-reconfigure slapd
/etc/init.d/slapd start
wait_for 389";

/// What the packages of a cluster have running when they are installed, and Postfix without questions.
const SERVERS: &str = "\
install -d -o redis -g redis /run/redis
install -d -m 2775 -o postgres -g postgres /run/postgresql
setpriv --reuid redis --regid redis --init-groups redis-server /etc/redis/redis.conf
version=$(ls /usr/lib/postgresql | tail -n 1)
[ -e /etc/postgresql/$version/main ] || pg_createcluster $version main
pg_ctlcluster $version main start
wait_for 6379
wait_for 5432
[ -e /etc/postfix/main.cf ] || cp /usr/share/postfix/main.cf.debian /etc/postfix/main.cf
[ -e /etc/postfix/master.cf ] || cp /usr/share/postfix/master.cf.dist /etc/postfix/master.cf";

#[test]
fn the_readme_installs_it_and_overwrites_nothing() {
    let Some(mut machine) = Machine::new("the commands of the README") else { return };
    machine.install();
    machine.types("stat -c '%a %U:%G' /etc/mtpolicyd/mtpolicyd.conf /var/lib/mtpolicyd");
    machine.types(QUESTION);
    machine.types("ls /usr/local/share/man/man*");
    machine.types(&format!(
        "printf '{EDITED}' >>/etc/mtpolicyd/mtpolicyd.conf; chmod 600 /etc/mtpolicyd/*.conf"
    ));
    machine.types("chown mtpolicyd /etc/mtpolicyd/mtpolicyd.conf");
    machine.types("systemctl stop mtpolicyd; printf '# ours\\n' >>/etc/systemd/system/mtpolicyd.service");
    machine.install();
    machine.types("tail -n 1 /etc/mtpolicyd/mtpolicyd.conf; stat -c '%a' /etc/mtpolicyd/mtpolicyd.conf");
    machine.types("tail -n 1 /etc/systemd/system/mtpolicyd.service; # unit");
    machine.types("systemctl reload mtpolicyd; echo reloaded");
    machine.types(
        "printf '<Plugin x>\\n' >>/etc/mtpolicyd/mtpolicyd.conf; systemctl reload mtpolicyd || echo refused",
    );
    let said = machine.run();
    assert_eq!(said.after("stat -c '%a %U:%G'"), "640 root:mtpolicyd\n750 mtpolicyd:mtpolicyd");
    assert_eq!(said.after("policyd-client <<"), "PREPEND X-MtScore: NO score=0", "{}", said.text());
    assert!(said.after("ls /usr").contains("mtpolicyd.8"), "{}", said.text());
    assert_eq!(said.after("tail -n 1 /etc/mtpolicyd/"), "# ours\n600");
    assert_eq!(said.after("# unit"), "# ours");
    assert!(said.after("echo reloaded").ends_with("reloaded"));
    let refused = said.after("|| echo refused");
    assert!(refused.contains("not reloaded: 1 mistake") && refused.ends_with("refused"), "{refused}");
}

#[test]
fn the_page_of_quotas() {
    let Some(mut machine) = Machine::new("the page of the example of quotas") else { return };
    machine.install();
    // The last block but one is what an answer says, another one is for master.cf.
    machine.follows("examples/quota-per-user/README.md", |block| {
        !block.starts_with("reject") && !block.starts_with("submission")
    });
    let ask = |recipients: u32, instance: &str| {
        format!(
            "policyd-client <<'END'\nprotocol_state=END-OF-MESSAGE\ninstance={instance}\n\
             sasl_username=trainee@example.org\nrecipient_count={recipients}\nsize=1000\n\nEND"
        )
    };
    machine.types(&ask(45, "below the limit"));
    machine.types(&ask(1, "above the limit"));
    let said = machine.run();
    assert!(said.after("check --strict").contains("the configuration can be used"), "{}", said.text());
    assert_eq!(said.after("instance=first"), "dunno", "{}", said.text());
    assert!(said.after("SELECT * FROM acct").contains("trainee@example.org|"), "{}", said.text());
    assert_eq!(said.after("above the"), "reject you have sent to as many recipients as you may today");
    assert_eq!(said.after("below the"), "dunno");
}

#[test]
fn the_page_of_a_service_of_your_own() {
    let Some(mut machine) = Machine::new("the page of the example of HttpLookup") else { return };
    machine.install();
    // Another daemon is asked here.
    machine.types("systemctl stop mtpolicyd");
    machine.follows("examples/http-lookup/README.md", |block| !block.starts_with("check_policy_service"));
    machine.instead_of("8081 &\n", "8081 &\nwait_for 8081\n");
    machine.instead_of("-f -c mtpolicyd.conf", "-f -c mtpolicyd.conf >/run/log &\nwait_for 12345");
    let said = machine.run();
    assert!(said.after("check --strict").contains("the configuration can be used"), "{}", said.text());
    assert!(
        said.after("curl -d").contains("reject this recipient takes no mail from you"),
        "{}",
        said.text()
    );
    assert_eq!(
        said.after("policyd-client <<"),
        "reject this recipient takes no mail from you",
        "{}",
        said.text()
    );
}

#[test]
fn the_page_of_a_directory() {
    let Some(mut machine) = Machine::new("the page of the example of a directory") else { return };
    machine.install();
    machine.types(DIRECTORY);
    machine.follows("examples/ldap/README.md", |block| !block.starts_with("check_policy_service"));
    machine.instead_of(" -W ", " -w 'of the admin' ");
    let said = machine.run();
    assert!(said.after("check --strict").contains("the configuration can be used"), "{}", said.text());
    assert_eq!(said.after("policyd-client <<"), "defer greylisting is active", "{}", said.text());
}

#[test]
fn the_page_of_a_cluster() {
    let Some(mut machine) = Machine::new("the page of the example of a cluster") else { return };
    machine.install();
    machine.types("systemctl stop mtpolicyd");
    machine.types(SERVERS);
    machine.follows("examples/cluster/README.md", |_| true);
    // The daemons need a moment before anybody asks them, or kills one.
    machine.instead_of("done", "done\nfor n in 1 2 3; do wait_for 12346 127.0.0.$n; done");
    machine
        .types("postconf -h smtpd_recipient_restrictions; grep policy.internal /var/spool/postfix/etc/hosts");
    machine.types(
        "for n in 2 3; do policyd-client -h 127.0.0.$n:12346 <<'END'\nprotocol_state=END-OF-MESSAGE\n\
         instance=1\nclient_address=192.0.2.1\nrecipient_count=1\nsize=10\n\nEND\ndone",
    );
    let said = machine.run();
    assert!(said.after("check --strict").contains("the configuration can be used"), "{}", said.text());
    let postfix = said.after("postconf -h");
    assert!(
        postfix.contains("policy.internal:12345") && postfix.contains("127.0.0.3 policy.internal"),
        "{postfix}"
    );
    // The daemons write into the same terminal.
    let answers = said.after("policyd-client -h").lines().filter(|line| *line == "dunno").count();
    assert_eq!(answers, 2, "{}", said.text());
}
