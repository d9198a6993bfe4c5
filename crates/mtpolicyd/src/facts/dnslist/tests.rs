//! What is asked of a list, and what its answers mean.

use super::*;
use backends::dns::Zone;

fn addresses(list: &[[u8; 4]]) -> Answer {
    Answer::Addresses(list.iter().map(|&octets| octets.into()).collect())
}

fn list(kind: ListKind) -> DnsList {
    DnsList::new("bl.test", kind, None, false)
}

fn judge(list: &DnsList, answer: &Answer) -> Listing {
    list.judge(answer, &Health::default())
}

fn listed(a: u8, b: u8, c: u8, d: u8) -> Listing {
    Listing::Listed(vec![Ipv4Addr::new(a, b, c, d)])
}

#[test]
fn clients_are_asked_in_reverse() {
    let v4 = list(ListKind::Address);
    let name = |list: &DnsList, address: &str| {
        list.question_for_address(address.parse().unwrap()).map(|question| question.name.to_string())
    };
    assert_eq!(name(&v4, "192.0.2.10").unwrap(), "10.2.0.192.bl.test");
    assert_eq!(name(&v4, "2001:db8::1"), None);
    assert_eq!(name(&v4, "::ffff:192.0.2.10"), None, "as in the original");
    let both = DnsList::new("BL.test.", ListKind::Address, None, true);
    assert_eq!(name(&both, "::ffff:192.0.2.10").unwrap(), "10.2.0.192.bl.test");
    assert_eq!(
        name(&both, "2001:db8:1:2:3:4:567:89ab").unwrap(),
        "b.a.9.8.7.6.5.0.4.0.0.0.3.0.0.0.2.0.0.0.1.0.0.0.8.b.d.0.1.0.0.2.bl.test"
    );
}

#[test]
fn domains_are_asked_as_they_stand() {
    let list = list(ListKind::Domain);
    let name = |domain: &[u8]| list.question_for_domain(domain).map(|question| question.name.to_string());
    assert_eq!(name(b"b@BAD.example").unwrap(), "b@bad.example.bl.test");
    assert_eq!(name(b"bad.example.").unwrap(), "bad.example.bl.test");
    assert_eq!(name(b""), None);
    assert_eq!(name(b"."), None);
    assert_eq!(name(b"\xff.example"), None);
    assert_eq!(name(&[b'a'; 100_000]), None);
}

#[test]
fn zones_that_are_no_names() {
    let askable = |zone| DnsList::new(zone, ListKind::Address, None, false).is_askable();
    assert!(askable("zen.example.") && askable("a_b.example"));
    for zone in ["", ".", "a..b", "zen spamhaus.org", &"a.".repeat(200), &"a".repeat(64)] {
        assert!(!askable(zone), "{zone}");
    }
}

#[test]
fn listings_lie_in_127_and_are_no_error_codes() {
    let (clients, domains) = (list(ListKind::Address), list(ListKind::Domain));
    for list in [&clients, &domains] {
        assert_eq!(judge(list, &addresses(&[[127, 0, 0, 2]])), listed(127, 0, 0, 2));
        assert_eq!(judge(list, &addresses(&[[127, 255, 254, 255]])), listed(127, 255, 254, 255));
        for no_listing in
            [[127, 0, 0, 1], [127, 255, 255, 252], [127, 255, 255, 0], [192, 0, 2, 1], [0, 0, 0, 0]]
        {
            assert_eq!(judge(list, &addresses(&[no_listing])), Listing::NoAnswer, "{no_listing:?}");
        }
        assert_eq!(judge(list, &Answer::Nothing), Listing::NotListed);
        assert_eq!(judge(list, &addresses(&[])), Listing::NotListed);
        assert_eq!(judge(list, &Answer::Failed(Failure::TimedOut)), Listing::NoAnswer);
    }
    assert_eq!(judge(&clients, &addresses(&[[127, 0, 1, 255]])), listed(127, 0, 1, 255));
    assert_eq!(judge(&domains, &addresses(&[[127, 0, 1, 255]])), Listing::NoAnswer);
}

#[test]
fn all_usable_addresses_count() {
    let list = list(ListKind::Address);
    let all = |all: &[[u8; 4]]| Listing::Listed(all.iter().map(|octets| (*octets).into()).collect());
    let both = [[127, 0, 0, 10], [127, 0, 0, 2], [127, 0, 0, 10]];
    assert_eq!(judge(&list, &addresses(&both)), all(&both[..2]));
    assert_eq!(judge(&list, &addresses(&[[127, 0, 0, 1], [127, 0, 0, 2]])), listed(127, 0, 0, 2));
    let many: Vec<_> = (1..=200).map(|n| [127, 0, 2, n]).collect();
    assert_eq!(judge(&list, &addresses(&many)), all(&many[..MAX_LISTINGS]));
}

#[test]
fn what_an_allow_list_says_to_who_asks_too_often_allows_nobody() {
    let listing = |zone: &str, codes: Option<&str>, allows: bool, address: [u8; 4]| {
        let codes = codes.map(|codes| codes.parse().unwrap());
        judge(&DnsList::new(zone, ListKind::Address, codes, false).allowing(allows), &addresses(&[address]))
    };
    for refusal in [[127, 0, 0, 255], [127, 0, 10, 0], [127, 0, 10, 3], [127, 0, 10, 255]] {
        let Listing::Listed(addresses) = listed(refusal[0], refusal[1], refusal[2], refusal[3]) else {
            unreachable!()
        };
        // The known list, whatever is made of it and whatever the codes say.
        for zone in ["list.dnswl.org", "DNSWL.org."] {
            for allows in [true, false] {
                for codes in [None, Some("127.0.0.2-127.0.20.3")] {
                    assert_eq!(listing(zone, codes, allows, refusal), Listing::NoAnswer, "{zone}");
                }
            }
        }
        // Another one that lets clients in, unless the file names the code.
        assert_eq!(listing("wl.test", None, true, refusal), Listing::NoAnswer);
        let all = Some("127.0.0.0/8");
        for (codes, allows) in [(None, false), (all, false), (all, true)] {
            assert_eq!(listing("wl.test", codes, allows, refusal), Listing::Listed(addresses.clone()));
        }
    }
    assert_eq!(listing("list.dnswl.org", None, true, [127, 0, 5, 2]), listed(127, 0, 5, 2));
    assert_eq!(listing("notdnswl.org", None, false, [127, 0, 10, 3]), listed(127, 0, 10, 3));
}

#[test]
fn a_trial_asks_what_nobody_has_asked() {
    for kind in [ListKind::Address, ListKind::Domain] {
        let list = list(kind);
        let (first, second) = (list.trial(), list.trial());
        assert_ne!(first, second);
        assert!(first.name.ends_with(if kind == ListKind::Domain {
            ".invalid.bl.test"
        } else {
            ".127.bl.test"
        }));
        assert_eq!(first.list.as_deref(), Some("bl.test"));
    }
}

#[tokio::test]
async fn a_list_that_has_not_answered_is_tried_at_once() {
    let (dns, health) = (Arc::new(Dns::Fake(Zone::default())), Arc::new(Health::default()));
    let list = list(ListKind::Address);
    assert!(!list.is_silent(&dns, &health));
    list.timed_out(&dns, &health);
    assert!(list.is_silent(&dns, &health), "nobody waits for it");
    // The name of the trial is not there, which is an answer: it was that one question alone.
    while health.is_known_silent("bl.test") {
        tokio::task::yield_now().await;
    }
    let Dns::Fake(zone) = &*dns else { unreachable!() };
    assert_eq!(zone.asked().len(), 1);
}

#[test]
fn return_codes_narrow_a_list() {
    let codes = "127.0.0.2-11, 127.0.1.0/24".parse().unwrap();
    let list = DnsList::new("bl.test", ListKind::Address, Some(codes), false);
    assert_eq!(judge(&list, &addresses(&[[127, 0, 0, 11]])), listed(127, 0, 0, 11));
    assert_eq!(judge(&list, &addresses(&[[127, 0, 0, 12]])), Listing::NotListed);
    assert_eq!(judge(&list, &addresses(&[[127, 0, 0, 12], [127, 0, 1, 9]])), listed(127, 0, 1, 9));
    assert_eq!(judge(&list, &addresses(&[[127, 255, 255, 254]])), Listing::NoAnswer);
}
