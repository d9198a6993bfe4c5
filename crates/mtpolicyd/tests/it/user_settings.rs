//! Every option that a user may override is overridden, by a setting from a database and by one from a
//! directory.
//!
//! Knows: the `uc_` options and what each does to an answer. Must not know: how a plugin does it.

use crate::support::daemon::{Daemon, Site};
use crate::support::fake_dns::{FakeDns, Reply};
use crate::support::fake_http::{FakeHttp, Say};
use crate::support::servers::slapd::{self, SUFFIX, TOP};
use mtpolicyd::plugins::KINDS;
use mtpolicyd::testing::geoip::{country, mmdb};
use std::collections::BTreeSet;
use std::fmt::Write;
use std::fs;
use std::thread::sleep;
use std::time::Duration;

/// What one option does.
struct Case {
    module: &'static str,
    option: &'static str,
    /// The other options of the block.
    others: &'static str,
    /// The user's value.
    value: &'static str,
    /// How the second answer to somebody without settings begins.
    without: &'static str,
    /// How the second answer to the user begins.
    with: &'static str,
}

/// The setting that all cases look in. A person in the directory has an attribute of this name.
const SETTING: &str = "description";

/// The header of a message that no plugin said anything about, and of those with a score from plugin `p`.
const QUIET: &str = "PREPEND X-MtScore: NO score=0";
const SCORE_3: &str = "PREPEND X-MtScore: NO score=3 [c=3]";
const SPAM_3: &str = "PREPEND X-MtScore: YES score=3 [c=3]";
const SCORE_1: &str = "PREPEND X-MtScore: NO score=1 [p=1]";
const SCORE_4: &str = "PREPEND X-MtScore: NO score=4 [p=4]";

const PERMFAIL: &str = "url = \"http://$HTTP/permfail\"";
const TEMPFAIL: &str = "url = \"http://$HTTP/tempfail\"";
const LOOKUP: &str = "url = \"http://$HTTP/lookup\"";
const ANY_SENDER: &str = "key = sender\nre_match = .";
const EXPRESSION: &str = "key = sender\nregex = .";
const LISTED: &str = "result_from = bl\nre_match = .";
const ONE_AN_HOUR: &str = "key = sasl_username\nlimit = 1/1h";
const GERMAN: &str = "result_from = geo\ncountry_codes = DE";
const GERMAN_PASSIVE: &str = "result_from = geo\ncountry_codes = DE\nmode = passive";
const GREYLIST: &str = "use_autowl = 0\n<Ticket>\nmodule = Memory\n</Ticket>";
const GREYLIST_WITHOUT_WAITING: &str = "use_autowl = 0\nmin_retry_wait = 0\n<Ticket>\nmodule = Memory\n\
                                        prefix = other\n</Ticket>";
const TWO_MAILS: &str = "field = sasl_username\nmetric = count\nthreshold = 2";
const FEW_MAILS: &str = "field = sasl_username\nmetric = count\nthreshold = 150";
const NO_MAIL_SERVER: &str = "host = 127.0.0.1\nport = 1\ntemp_fail_action = hold";
const MAP: &str = "db_file = \"cidr:$DIR/map\"\nmatch_action = hold";
const AWL: &str = "<Plugin awl>\nmodule = SaAwlLookup\ndb = db\n\
                   sql_query = \"SELECT 20, 160 WHERE ? = ? OR 1\"\n</Plugin>";
const RBL: &str = "domain = bl.test";
const DBL: &str = "domain = dbl.test\nhelo_name_mode = passive\nreverse_client_name_mode = passive";
const DBL_PASSIVE: &str = "domain = dbl.test\nsender_mode = passive\nreverse_client_name_mode = passive\n\
                           sender_score = 0\nhelo_name_score = 0\nreverse_client_name_score = 0";

/// All cases, as module, option, other options, value, answer without it, answer with it.
#[rustfmt::skip]
const CASES: &[[&str; 6]] = &[
    ["Accounting", "enabled", "fields = sasl_username", "off", "hold", QUIET],
    ["AddScoreHeader", "spam_score", "", "2", SCORE_3, SPAM_3],
    ["Condition", "score", ANY_SENDER, "4", QUIET, SCORE_4],
    ["Condition", "action", ANY_SENDER, "hold", QUIET, "hold"],
    ["CtIpRep", "enabled", PERMFAIL, "off", "reject 550 delivery", QUIET],
    ["CtIpRep", "permfail_mode", PERMFAIL, "defer", "reject 550 delivery", "defer 450 delivery"],
    ["CtIpRep", "tempfail_mode", TEMPFAIL, "passive", "defer 450 delivery", QUIET],
    ["DBL", "enabled", DBL, "off", "reject sender rejected", QUIET],
    ["DBL", "sender_mode", DBL, "passive", "reject sender rejected", "PREPEND X-MtScore: YES score=8.5"],
    ["DBL", "helo_name_mode", DBL_PASSIVE, "reject", QUIET, "reject helo_name rejected"],
    ["DBL", "reverse_client_name_mode", DBL_PASSIVE, "reject", QUIET, "reject reverse_client_name rejected"],
    ["Fail2Ban", "enabled", "socket = /nosuch/sock\non_error = defer", "off", "defer", QUIET],
    ["GeoIPAction", "enabled", GERMAN, "off", "reject delivery from DE", QUIET],
    ["GeoIPAction", "country_codes", GERMAN, "AT, CH", "reject delivery from DE", QUIET],
    ["GeoIPAction", "mode", GERMAN, "passive", "reject delivery from DE", QUIET],
    ["GeoIPAction", "score", GERMAN_PASSIVE, "4", QUIET, SCORE_4],
    ["Greylist", "enabled", GREYLIST, "off", "defer greylisting is active", QUIET],
    ["Greylist", "score", GREYLIST_WITHOUT_WAITING, "4", QUIET, SCORE_4],
    ["Honeypot", "enabled", "recipients = b@rcpt.example\nstore = memory", "off", "reject trapped", QUIET],
    ["Honeypot", "score", "recipients = b@rcpt.example\nstore = memory\nmode = passive", "4", QUIET, SCORE_4],
    ["PostfixMap", "enabled", MAP, "off", "hold", QUIET],
    ["PostfixMap", "score", "db_file = \"cidr:$DIR/map\"", "4", QUIET, SCORE_4],
    ["HttpLookup", "enabled", LOOKUP, "off", "hold", QUIET],
    ["HttpLookup", "mode", LOOKUP, "passive", "hold", QUIET],
    ["Quota", "enabled", TWO_MAILS, "off", "defer smtp", QUIET],
    ["Quota", "field", TWO_MAILS, "nothere", "defer smtp", QUIET],
    ["Quota", "metric", FEW_MAILS, "size", QUIET, "defer smtp"],
    ["Quota", "threshold", FEW_MAILS, "2", QUIET, "defer smtp"],
    ["Quota", "action", TWO_MAILS, "hold", "defer smtp", "hold"],
    ["RBL", "enabled", RBL, "off", "reject delivery from", QUIET],
    ["RBL", "mode", RBL, "passive", "reject delivery from", QUIET],
    ["RBL", "score", "domain = bl.test\nmode = passive\nscore = 1", "4", SCORE_1, SCORE_4],
    ["RBLAction", "enabled", LISTED, "off", "reject delivery from", QUIET],
    ["RBLAction", "mode", LISTED, "passive", "reject delivery from", QUIET],
    ["RBLAction", "score", "result_from = bl\nre_match = .\nmode = passive", "4", QUIET, SCORE_4],
    ["RateLimit", "enabled", ONE_AN_HOUR, "off", "defer 4.7.1", QUIET],
    ["RateLimit", "limit", "key = sasl_username\nlimit = none", "1/1h", QUIET, "defer 4.7.1"],
    ["RateLimit", "mode", ONE_AN_HOUR, "passive", "defer 4.7.1", QUIET],
    ["RateLimit", "score", "key = sasl_username\nlimit = 1/1h\nmode = passive", "4", QUIET, SCORE_4],
    ["RateLimit", "action", ONE_AN_HOUR, "hold", "defer 4.7.1", "hold"],
    ["RegexList", "enabled", "key = sender\nregex = .\naction = hold", "off", "hold", QUIET],
    ["RegexList", "score", EXPRESSION, "4", QUIET, SCORE_4],
    ["RegexList", "action", EXPRESSION, "hold", QUIET, "hold"],
    ["SPF", "enabled", "", "off", "reject SPF validation failed", QUIET],
    ["SPF", "pass_mode", "", "accept", QUIET, "dunno"],
    ["SPF", "softfail_mode", "", "reject", QUIET, "reject SPF validation failed"],
    ["SPF", "fail_mode", "", "passive", "reject SPF validation failed", QUIET],
    ["SMTPVerify", "enabled", NO_MAIL_SERVER, "off", "hold", QUIET],
    ["SaAwlAction", "enabled", "result_from = awl", "off", "reject sender address", QUIET],
    ["SaAwlAction", "mode", "result_from = awl", "passive", "reject sender address", QUIET],
    ["ScoreAction", "threshold", "threshold = 5\naction = hold", "2", SCORE_3, "hold"],
    ["SqlList", "enabled", "sql_query = \"SELECT ?\"\nmatch_action = hold", "off", "hold", QUIET],
    ["SqlList", "score", "sql_query = \"SELECT ?\"", "4", QUIET, SCORE_4],
    ["Stress", "action", "", "hold", QUIET, "hold"],
];

fn cases() -> impl Iterator<Item = Case> {
    let case = |&[module, option, others, value, without, with]: &[&'static str; 6]| Case {
        module,
        option,
        others,
        value,
        without,
        with,
    };
    CASES.iter().map(case)
}

impl Case {
    /// The name of its virtual host, and of its user.
    fn name(&self) -> String {
        format!("{}.{}", self.module, self.option)
    }

    /// Its virtual host, in which `settings` loads those of the user.
    fn host(&self, settings: &str) -> String {
        let before = match self.module {
            "AddScoreHeader" | "ScoreAction" => {
                "<Plugin c>\nmodule = Condition\nkey = sender\nre_match = .\nscore = 3\n</Plugin>"
            }
            "SaAwlAction" => AWL,
            "RBLAction" => "<Plugin bl>\nmodule = RBL\ndomain = bl.test\nmode = passive\n</Plugin>",
            "GeoIPAction" => "<Plugin geo>\nmodule = GeoIPLookup\ndatabase = \"$DIR/geo.mmdb\"\n</Plugin>",
            "Quota" => "<Plugin a>\nmodule = Accounting\nfields = sasl_username\n$TABLES\n</Plugin>",
            _ => "",
        };
        let (tables, after) = match self.module {
            "Accounting" => {
                let quota = "field = sasl_username\nmetric = count\nthreshold = 2\naction = hold";
                ("$TABLES", format!("<Plugin q>\nmodule = Quota\n{quota}\n$TABLES\n</Plugin>"))
            }
            "Quota" => ("$TABLES", String::new()),
            _ => ("", String::new()),
        };
        let Case { module, option, others, .. } = self;
        format!(
            "<VirtualHost $PORT>\nname = \"{}\"\n<Plugin settings>\n{settings}\n</Plugin>\n{before}\n\
             <Plugin p>\nmodule = {module}\n{others}\n{tables}\nuc_{option} = {SETTING}\n</Plugin>\n{after}\n\
             <Plugin header>\nmodule = AddScoreHeader\n</Plugin>\n</VirtualHost>\n",
            self.name()
        )
        // Each case has tables of its own.
        .replace("$TABLES", &format!("table_prefix = \"{}-\"", self.name()))
    }

    /// Whose mail it is. By SPF each case has a domain of its own.
    fn sender(&self) -> String {
        match self.module {
            "SPF" => format!("a@{}.example", self.option),
            _ => "a@sender.example".to_owned(),
        }
    }

    /// The answer to the second message of a user.
    fn second_answer(&self, daemon: &Daemon, user: &str) -> String {
        let mut client = daemon.connect();
        let mut answer = |number: u8| {
            let answer = client.ask(&format!(
                "policy_context={name}\ninstance={name}.{user}.{number}\nsasl_username={user}\n\
                 sender={sender}\nrecipient=b@rcpt.example\nclient_address=192.0.2.4\n\
                 client_name=mail.example\nreverse_client_name=mail.example\nhelo_name=helo.example\n\
                 size=100\nrecipient_count=1\nprotocol_state=RCPT\nstress=yes",
                name = self.name(),
                sender = self.sender(),
            ));
            answer.action().to_owned()
        };
        answer(1);
        if self.others == GREYLIST_WITHOUT_WAITING {
            // Tickets count in whole seconds.
            sleep(Duration::from_millis(1100));
        }
        answer(2)
    }
}

/// Every address is on every list, and the domains for SPF have records.
fn lists() -> FakeDns {
    FakeDns::start(|query| match &*query.name {
        "pass_mode.example" => Reply::text("v=spf1 +all"),
        "softfail_mode.example" => Reply::text("v=spf1 ~all"),
        "fail_mode.example" | "enabled.example" => Reply::text("v=spf1 -all"),
        name if name.ends_with("dbl.test") => Reply::address([127, 0, 1, 2]),
        _ => Reply::address([127, 0, 0, 2]),
    })
}

/// A service for CtIpRep, which says what its path says, and for HttpLookup.
fn services() -> FakeHttp {
    FakeHttp::start(|asked| match asked.path.trim_start_matches('/') {
        "lookup" => Say::json("{\"action\": \"hold\"}"),
        action => Say::Json(format!("x-ctch-dm-action:{action}\r\n")),
    })
}

/// Asks a daemon whose hosts begin with this plugin.
fn every_case_holds(mut site: Site, connection: &str, settings: &str) {
    let lists = lists();
    let germany = mmdb("GeoLite2-Country", true, &[("192.0.2.0/24", country("DE", "EU"))]);
    std::fs::write(site.path("geo.mmdb"), germany).expect("the folder is writable");
    fs::write(site.path("map"), "192.0.2.0/24 OK\n").expect("the folder is ours");
    site.replace("$DNS", lists.address());
    let services = services();
    site.replace("$HTTP", services.address());
    let mut configuration = format!(
        "port = \"127.0.0.1:$PORT\"\nvhost_by_policy_context = 1\n<Dns>\nservers = \"$DNS\"\n</Dns>\n\
         <Connection db>\nmodule = Sql\ndsn = \"dbi:SQLite:dbname=$DIR/db\"\n</Connection>\n{connection}\n"
    );
    for case in cases() {
        configuration.push_str(&case.host(settings));
    }
    site.configure(&configuration);
    let daemon = site.start();
    let mut wrong = String::new();
    for case in cases() {
        for (user, expected) in [("somebody-else", case.without), (&*case.name(), case.with)] {
            let answer = case.second_answer(&daemon, user);
            if !answer.starts_with(expected) {
                let _ = writeln!(wrong, "{}, {user}: `{answer}` instead of `{expected}`", case.name());
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong}\n{}", daemon.log());
}

#[test]
fn no_option_is_forgotten() {
    let named = KINDS.iter().flat_map(|kind| {
        // `enabled` is obeyed in one place for all plugins, so not each has to show it.
        let options = (kind.options)().into_iter();
        let options = options.filter(|option| option.user_config && option.name != "enabled");
        options.map(|option| format!("{}.{}", kind.name, option.name))
    });
    let tested = cases().filter(|case| case.option != "enabled").map(|case| case.name());
    assert_eq!(tested.collect::<BTreeSet<_>>(), named.collect::<BTreeSet<_>>());
}

#[test]
fn settings_from_a_database_change_every_option() {
    let site = Site::new();
    let database = rusqlite::Connection::open(site.path("db")).unwrap();
    database.execute("CREATE TABLE user_config (address TEXT, config TEXT)", []).unwrap();
    for case in cases() {
        let config = format!("{{\"{SETTING}\":\"{}\"}}", case.value);
        database.execute("INSERT INTO user_config VALUES (?1, ?2)", [case.name(), config]).unwrap();
    }
    every_case_holds(site, "", "module = SqlUserConfig\nfield = sasl_username");
}

#[test]
fn settings_from_a_directory_change_every_option() {
    let mut ldif = TOP.to_owned();
    for case in cases() {
        let (name, value) = (case.name(), case.value);
        let _ = write!(
            ldif,
            "\ndn: uid={name},{SUFFIX}\nobjectClass: inetOrgPerson\nuid: {name}\ncn: {name}\nsn: {name}\n\
             {SETTING}: {value}\n"
        );
    }
    let server = slapd::start(&ldif, None, "");
    let connection = format!(
        "<Connection ldap>\nmodule = Ldap\nhost = 127.0.0.1\nport = {}\nstarttls = 0\n</Connection>",
        server.port
    );
    let settings = format!(
        "module = LdapUserConfig\nbasedn = \"{SUFFIX}\"\nfilter = \"(uid=%s)\"\nconfig_fields = {SETTING}"
    );
    every_case_holds(Site::new(), &connection, &settings);
}
