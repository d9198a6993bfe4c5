//! A journal as a daemon and its administrator use it.
//!
//! Knows: all of it.

use super::*;
use crate::record::tests::decision;
use crate::{Flags, Ids, Lookup, LookupKind, Origin, Outcome, StepOutcome, StepTable, Walk};
use rusqlite::Connection;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use tempfile::TempDir;

/// The longest that anything here may take.
const LONG: Duration = Duration::from_secs(60);

pub(super) struct Bench {
    folder: TempDir,
    pub settings: Settings,
    ids: Ids,
    events: mpsc::Receiver<Event>,
    sender: mpsc::Sender<Event>,
    table: Arc<StepTable>,
}

impl Bench {
    pub fn new() -> Bench {
        let folder = tempfile::tempdir().unwrap();
        let settings = Settings::new(folder.path().join("journal.db"));
        let (sender, events) = mpsc::channel();
        let table = decision("", Outcome::Pass).table;
        Bench { folder, settings, ids: Ids::new(1), events, sender, table }
    }

    pub fn open(&self) -> Journal {
        let sender = self.sender.clone();
        Journal::open(self.settings.clone(), move |event| drop(sender.send(event))).unwrap()
    }

    /// A decision of now.
    pub fn decision(&self, from: &str, outcome: Outcome) -> Decision {
        self.decision_at(from, outcome, SystemTime::now())
    }

    fn decision_at(&self, from: &str, outcome: Outcome, at: SystemTime) -> Decision {
        let request = format!(
            "sender={from}\nrecipient=to@example.net\nclient_address=192.0.2.1\n\
             client_name=mx.example.org\n\n"
        );
        let mut decision = decision(&request, outcome);
        // One that is old does not come after one of now.
        let is_old = at.elapsed().unwrap_or_default() > LONG;
        decision.id = if is_old { Ids::new(2).next(at) } else { self.ids.next(at) };
        decision.table = Arc::clone(&self.table);
        let step = decision.walk.begin(0, 0);
        decision.walk.note(format_args!("a note about <{from}>"));
        decision.walk.add_points("score", 2.5);
        decision.walk.lookups.push(Lookup {
            kind: LookupKind::Store,
            server: "db",
            question: &format!("get {from}"),
            answer: "nothing",
            waited: 7,
            origin: Origin::Asked,
        });
        decision.walk.end(step, StepOutcome::Stopped);
        decision
    }

    pub fn send(&self, journal: &Journal, from: &str, outcome: Outcome) -> DecisionId {
        let decision = self.decision(from, outcome);
        let id = decision.id;
        journal.send(Arc::new(decision));
        id
    }

    fn event(&self) -> Event {
        self.events.recv_timeout(LONG).unwrap()
    }

    fn lock(&self) -> Connection {
        let other = Connection::open(&self.settings.file).unwrap();
        other.execute_batch("BEGIN IMMEDIATE").unwrap();
        other
    }
}

/// Waits until something is true.
pub(super) fn until(what: &str, is_true: impl Fn() -> bool) {
    let end = Instant::now() + LONG;
    while !is_true() {
        assert!(Instant::now() < end, "{what} did not happen");
        thread::sleep(Duration::from_millis(5));
    }
}

pub(super) fn all(journal: &Journal) -> Vec<Arc<Decision>> {
    find(journal, &Filter::default(), 100_000).decisions
}

pub(super) fn find(journal: &Journal, filter: &Filter, limit: usize) -> Found {
    journal.search(filter, limit, None, &Progress::default()).unwrap()
}

fn from(address: &str) -> Filter {
    Filter { from: Some(address.to_owned()), ..Filter::default() }
}

/// Everything that a decision says, but for the moment of its begin.
pub(super) fn parts(decision: &Decision) -> String {
    let walk = &decision.walk;
    let notes: Vec<_> = walk.notes().collect();
    let Decision { id, host, request, took, outcome, by, answer, failure, flags, score, session, .. } =
        decision;
    let parts = (id, host, request, took, outcome, by, answer, failure, flags, score.to_bits(), session);
    let shadow = &decision.shadow;
    let Walk { steps, lookups, points, is_cut, .. } = walk;
    format!("{parts:?} {steps:?} {notes:?} {lookups:?} {points:?} {is_cut} {shadow:?}")
}

#[test]
fn what_was_sent_is_found_at_once_and_later_and_after_a_restart() {
    let bench = Bench::new();
    let journal = bench.open();
    let sent = bench.decision("bob@example.org", Outcome::Reject);
    let id = sent.id;
    journal.send(Arc::new(sent.clone()));
    assert_eq!(parts(&find(&journal, &from("Bob@example.org"), 10).decisions[0]), parts(&sent));
    assert_eq!(journal.get(id).unwrap().map(|it| parts(&it)), Some(parts(&sent)));
    until("writing", || journal.status().waiting == 0);
    assert_eq!(parts(&find(&journal, &from("@EXAMPLE.org"), 10).decisions[0]), parts(&sent));
    let last = bench.send(&journal, "last@example.org", Outcome::Pass);
    assert!(journal.close(LONG));
    let file = JournalFile::open(&bench.settings.file).unwrap();
    let found = file.search(&Filter::default(), 10, None, &Progress::default()).unwrap();
    let ids: Vec<_> = found.decisions.iter().map(|decision| decision.id).collect();
    assert_eq!((ids, found.has_more, found.damaged), (vec![last, id], false, 0));
    assert_eq!(file.get(id).unwrap().unwrap().decider().unwrap().place(), "/etc/mtpolicyd/mtpolicyd.conf:12");
    assert_eq!(file.get(DecisionId::from_number(5)).unwrap(), None);
    let mode = fs::metadata(&bench.settings.file).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o640);
    let journal = bench.open();
    assert_eq!(all(&journal).len(), 2);
    until("reading", || journal.status().held == 2);
    assert!(bench.events.try_recv().is_err());
}

#[test]
fn many_are_found_page_by_page() {
    let bench = Bench::new();
    let journal = bench.open();
    let sent: Vec<_> = (0..3_000)
        .map(|n| {
            until("room", || journal.status().waiting < 2_000);
            let outcome = if n % 50 == 0 { Outcome::Defer } else { Outcome::Pass };
            bench.send(&journal, &format!("user{n}@example.org"), outcome)
        })
        .collect();
    let mut found: Vec<DecisionId> = Vec::new();
    loop {
        let page = journal.search(&Filter::default(), 700, found.last().copied(), &Progress::default());
        let page = page.unwrap();
        found.extend(page.decisions.iter().map(|decision| decision.id));
        if !page.has_more {
            break;
        }
        assert_eq!(page.decisions.len(), 700);
    }
    found.reverse();
    assert_eq!(found, sent);
    until("writing", || journal.status().waiting == 0);
    let one = find(&journal, &from("USER1234@example.org"), 10);
    assert_eq!((one.decisions.len(), one.decisions[0].id), (1, sent[1_234]));
    let deferred = Filter { outcome: vec![Outcome::Defer], ..Filter::default() };
    assert_eq!(find(&journal, &deferred, 1_000).decisions.len(), 60);
    let other = Filter { outcome: vec![Outcome::Discard], ..Filter::default() };
    assert!(find(&journal, &other, 10).decisions.is_empty());
    let text = Filter { text: Some("About <User77@".to_owned()), ..Filter::default() };
    let progress = Progress::default();
    assert_eq!(journal.search(&text, 10, None, &progress).unwrap().decisions.len(), 1);
    assert_eq!(progress.state(), (3_000, 3_000));
    progress.cancel();
    assert!(journal.search(&text, 10, None, &progress).unwrap().decisions.is_empty());
    let between = Filter { since: Some(sent[100]), until: Some(sent[200]), ..Filter::default() };
    assert_eq!(find(&journal, &between, 1_000).decisions.len(), 100);
    assert_eq!(journal.get(sent[2_000]).unwrap().unwrap().id, sent[2_000]);
}

#[test]
fn a_locked_file_delays_nobody_and_what_is_lost_is_counted() {
    let bench = Bench::new();
    let journal = bench.open();
    bench.send(&journal, "first@example.org", Outcome::Pass);
    until("writing", || journal.status().waiting == 0);
    let lock = bench.lock();
    let mut kept = 1;
    for _ in 0..6_000 {
        kept += u64::from(journal.send(Arc::new(bench.decision("x@example.org", Outcome::Pass))));
    }
    assert!(kept < 6_000, "the queue has a bound");
    assert_eq!(journal.status().lost, 6_001 - kept);
    until("noticing", || journal.status().failure.is_some());
    assert_eq!(all(&journal).len() as u64, kept, "also while nothing can be written");
    drop(lock);
    until("writing", || journal.status().waiting == 0);
    let found = find(&journal, &Filter::default(), 10_000);
    assert_eq!((found.decisions.len() as u64, found.covered.lost), (kept, 6_001 - kept));
    assert_eq!(journal.status().failure, None);
    assert!(journal.close(LONG));
    let file = JournalFile::open(&bench.settings.file).unwrap();
    let found = file.search(&Filter::default(), 1, None, &Progress::default()).unwrap();
    assert_eq!(found.covered.lost, 6_001 - kept, "the file knows it too");
}

#[test]
fn a_file_of_noise_is_put_aside() {
    let bench = Bench::new();
    let journal = bench.open();
    bench.send(&journal, "before@example.org", Outcome::Pass);
    bench.send(&journal, "before@example.org", Outcome::Reject);
    until("writing", || journal.status().waiting == 0);
    let noise: Vec<u8> = (0..100_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    fs::write(&bench.settings.file, &noise).unwrap();
    let Event::Replaced { renamed: Some(renamed), .. } = bench.event() else { panic!() };
    assert!(renamed.starts_with(&format!("{}.broken-20", bench.settings.file.display())), "{renamed}");
    assert!(fs::metadata(renamed).is_ok());
    bench.send(&journal, "after@example.org", Outcome::Pass);
    until("writing", || journal.status().waiting == 0 && journal.status().failure.is_none());
    let status = journal.status();
    assert_eq!(all(&journal).len() as u64 + status.lost, 3, "{status:?}");
    assert_eq!(find(&journal, &from("after@example.org"), 10).decisions.len(), 1);
    assert!(journal.close(LONG));
    assert!(JournalFile::open(&bench.settings.file).is_ok());
}

#[test]
fn noise_at_the_start_is_put_aside_too() {
    let bench = Bench::new();
    fs::write(&bench.settings.file, [0xff, 0, 0x80, 7]).unwrap();
    let journal = bench.open();
    assert!(matches!(bench.event(), Event::Replaced { held: 0, .. }));
    bench.send(&journal, "a@example.org", Outcome::Pass);
    until("writing", || journal.status().waiting == 0);
}

#[test]
fn a_removed_file_is_made_again() {
    let bench = Bench::new();
    let journal = bench.open();
    bench.send(&journal, "before@example.org", Outcome::Pass);
    until("writing", || journal.status().waiting == 0);
    fs::remove_file(&bench.settings.file).unwrap();
    assert!(matches!(bench.event(), Event::Replaced { renamed: None, .. }));
    bench.send(&journal, "after@example.org", Outcome::Pass);
    until("writing", || journal.status().waiting == 0);
    assert_eq!(find(&journal, &from("after@example.org"), 10).decisions.len(), 1);
}

#[test]
fn what_is_not_ours_stays_as_it_is() {
    let text = b"127.0.0.1 localhost\n";
    let ours = |file: &Path, version| {
        let journal = Connection::open(file).unwrap();
        journal
            .execute_batch(&format!("PRAGMA application_id=1297371210; PRAGMA user_version={version}"))
            .unwrap();
    };
    let foreign = |file: &Path| {
        let other = Connection::open(file).unwrap();
        other.execute_batch("CREATE TABLE greylist(a); INSERT INTO greylist VALUES(1)").unwrap();
    };
    type Make<'a> = &'a dyn Fn(&Path);
    let makes: [(Make<'_>, &str); 3] = [
        (&|file| fs::write(file, text).unwrap(), "this is not a journal of mtpolicyd"),
        (&foreign, "this is not a journal of mtpolicyd"),
        (&|file| ours(file, 2), "the journal has format 2, and this program knows formats up to 1"),
    ];
    for (make, said) in makes {
        let bench = Bench::new();
        let file = &bench.settings.file;
        make(file);
        let before = fs::read(file).unwrap();
        let journal = bench.open();
        bench.send(&journal, "a@example.org", Outcome::Pass);
        let Event::Unwritable { why, .. } = bench.event() else { panic!() };
        assert_eq!(why.to_string(), format!("{}: {said}", file.display()));
        assert!(journal.search(&Filter::default(), 1, None, &Progress::default()).is_err());
        assert_eq!(JournalFile::open(file).err(), Some(why));
        assert_eq!(fs::read(file).unwrap(), before);
        assert_eq!(fs::read_dir(bench.folder.path()).unwrap().count(), 1);
        // It goes on by itself.
        fs::remove_file(file).unwrap();
        assert!(matches!(bench.event(), Event::Writable { .. }));
        until("writing", || journal.status().waiting == 0);
        assert_eq!(all(&journal).len(), 1);
    }
    let bench = Bench::new();
    let nothing = JournalFile::open(&bench.settings.file).err();
    assert_eq!(nothing, Some(JournalError::Missing(bench.settings.file.display().to_string())));
}

#[test]
fn what_is_too_old_goes_and_what_was_acted_on_stays_longer() {
    let bench = Bench::new();
    let journal = bench.open();
    let days = |days: u64| SystemTime::now() - Duration::from_secs(days * 86_400);
    let old = days(10);
    for (outcome, at) in [(Outcome::Pass, old), (Outcome::Reject, old), (Outcome::Reject, days(40))] {
        journal.send(Arc::new(bench.decision_at("old@example.org", outcome, at)));
        until("writing", || journal.status().waiting == 0);
        // Another table begins another block.
        let mut next = bench.decision("new@example.org", outcome);
        let name = format!("{at:?}");
        next.table = Arc::new(StepTable { fingerprint: name, ..StepTable::clone(&next.table) });
        journal.send(Arc::new(next));
    }
    until("removal", || find(&journal, &from("old@example.org"), 10).decisions.len() == 1);
    let found = find(&journal, &Filter::default(), 10);
    assert_eq!(found.decisions.len(), 4);
    assert_eq!(found.decisions[3].outcome, Outcome::Reject);
}

#[test]
fn the_file_stays_small_and_what_passed_goes_first() {
    let mut bench = Bench::new();
    bench.settings.max_size = 1 << 20;
    let journal = bench.open();
    let mut number = 0_u64;
    let mut send = |outcome, many: usize| {
        for _ in 0..many {
            until("room", || journal.status().waiting < 2_000);
            number += 1;
            // Something that can't be compressed.
            let words: Vec<_> = (1..20_u64)
                .map(|n| format!("{:x}", (number * 20 + n).wrapping_mul(0x9e37_79b9_7f4a_7c15)))
                .collect();
            bench.send(&journal, &format!("{}@example.org", words.join(".")), outcome);
        }
    };
    send(Outcome::Reject, 300);
    send(Outcome::Pass, 3_000);
    until("writing", || journal.status().waiting == 0);
    until("room", || journal.status().used < 1 << 20);
    let found = find(&journal, &Filter::default(), 10_000);
    let rejected = found.decisions.iter().filter(|it| it.outcome == Outcome::Reject).count();
    assert_eq!(rejected, 300);
    let passed = found.decisions.len() - rejected;
    assert!((100..2_900).contains(&passed), "{passed}");
    let oldest = found.decisions.iter().filter(|it| it.outcome == Outcome::Pass).map(|it| it.id).min();
    assert!(found.covered.from.unwrap() <= oldest.unwrap(), "the oldest held is covered");
    assert!(found.covered.acted_from.unwrap() < found.covered.from.unwrap());
    until("shrinking", || fs::metadata(&bench.settings.file).unwrap().len() <= 1 << 20);
}

#[test]
fn other_settings_and_another_file_at_a_reload() {
    let mut bench = Bench::new();
    let journal = bench.open();
    bench.send(&journal, "one@example.org", Outcome::Pass);
    let first = bench.settings.file.clone();
    bench.settings.file = bench.folder.path().join("other.db");
    bench.settings.record = Record::Acted;
    journal.change(bench.settings.clone());
    bench.send(&journal, "two@example.org", Outcome::Pass);
    until("another file", || bench.settings.file.exists() && journal.status().waiting == 0);
    let third = bench.send(&journal, "three@example.org", Outcome::Reject);
    until("writing", || journal.status().waiting == 0 && journal.status().held == 1);
    let ids: Vec<_> = all(&journal).iter().map(|it| it.id).collect();
    assert_eq!(ids, [third]);
    let first = JournalFile::open(&first).unwrap();
    assert_eq!(
        first.search(&from("one@example.org"), 9, None, &Progress::default()).unwrap().decisions.len(),
        1
    );
    assert!(journal.close(LONG));
    assert!(!journal.send(Arc::new(bench.decision("late@example.org", Outcome::Reject))));
}

/// All bytes of all blocks, in lower case.
fn unpacked(file: &Path) -> String {
    let connection = Connection::open(file).unwrap();
    let mut statement = connection.prepare("SELECT data FROM block").unwrap();
    let blocks = statement.query_map([], |row| row.get::<_, Vec<u8>>(0)).unwrap();
    let blocks =
        blocks.map(|data| String::from_utf8_lossy(&block::unpack(&data.unwrap()).unwrap()).to_lowercase());
    blocks.collect()
}

#[test]
fn local_parts_are_not_written_and_who_knows_an_address_finds_it() {
    let mut bench = Bench::new();
    bench.settings.privacy = Privacy::Addresses;
    let journal = bench.open();
    bench.send(&journal, "alice@example.org", Outcome::Reject);
    bench.send(&journal, "bob@example.org", Outcome::Reject);
    until("writing", || journal.status().waiting == 0);
    let text = unpacked(&bench.settings.file);
    assert!(!text.contains("alice") && !text.contains("bob") && text.contains("@example.org"), "{text}");
    let found = find(&journal, &from("Alice@example.org"), 10);
    assert_eq!(found.decisions.len(), 1);
    assert!(found.decisions[0].flags.has(Flags::PSEUDONYMS));
    assert_eq!(find(&journal, &from("@example.org"), 10).decisions.len(), 2);
    assert_eq!(find(&journal, &from("carol@example.org"), 10).decisions.len(), 0);
    assert_eq!(journal.forget("alice@example.org", "root"), Ok(1));
    assert_eq!(find(&journal, &from("alice@example.org"), 10).decisions.len(), 0);
    assert_eq!(find(&journal, &from("bob@example.org"), 10).decisions.len(), 1);
}

#[test]
fn names_are_replaced_when_decisions_are_old_enough() {
    let mut bench = Bench::new();
    bench.settings.anonymise_after = Some(Duration::from_secs(86_400));
    let journal = bench.open();
    let old = SystemTime::now() - Duration::from_secs(2 * 86_400);
    journal.send(Arc::new(bench.decision_at("alice@example.org", Outcome::Pass, old)));
    let new = bench.decision("bob@example.org", Outcome::Reject);
    journal.send(Arc::new(new));
    assert!(journal.close(LONG));
    let journal = bench.open();
    until("replacing", || !unpacked(&bench.settings.file).contains("alice"));
    let text = unpacked(&bench.settings.file);
    assert!(text.contains("bob@example.org") && text.contains("192.0.2.0") && text.contains("192.0.2.1"));
    for filter in
        [from("alice@example.org"), Filter { client: Some("192.0.2.1".to_owned()), ..from("@example.org") }]
    {
        assert!(
            find(&journal, &filter, 10).decisions.iter().any(|it| it.flags.has(Flags::ANONYMOUS)),
            "{filter:?}"
        );
    }
}

#[test]
fn nothing_is_left_of_an_address_that_is_forgotten() {
    let bench = Bench::new();
    let journal = bench.open();
    for n in 0..600 {
        bench.send(&journal, &format!("user{n}@example.org"), Outcome::Pass);
    }
    let other = bench.send(&journal, "other.user7@example.org", Outcome::Pass);
    let mut about = bench.decision("x@example.org", Outcome::Reject);
    about.session = vec![("seen".into(), "USER7@example.org".into())];
    journal.send(Arc::new(about));
    journal.audit("carol", "searched for user7@example.org");
    assert_eq!(journal.forget("User7@Example.org", "dave"), Ok(2));
    let left = all(&journal);
    assert_eq!(left.len(), 600);
    assert!(left.iter().any(|decision| decision.id == other));
    assert!(!unpacked(&bench.settings.file).contains("<user7@example.org"));
    let audits = journal.audits(10).unwrap();
    let shown: Vec<_> = audits.iter().map(|audit| (&*audit.who, &*audit.what)).collect();
    assert_eq!(
        shown,
        [
            ("dave", "forget an address of example.org: 2 decisions removed"),
            ("carol", "(about an address that was forgotten)")
        ]
    );
    assert!(journal.close(LONG));
    let bytes = fs::read(&bench.settings.file).unwrap().to_ascii_lowercase();
    let is_there = bytes.windows(17).any(|window| window == b"user7@example.org");
    assert!(!is_there, "nor in free pages");
}
