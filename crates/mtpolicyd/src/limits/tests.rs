//! Counts on the stores that need no server: every one of them decides as `State` does, and exactly.

use super::*;
use crate::value::Value;
use backends::Call;
use backends::Secret;
use backends::keyvalue::MemorySettings;
use backends::sql::{Durability, Sql, SqlSettings};
use proptest::prelude::*;
use std::time::Duration;
use tokio::task::JoinSet;

/// 2025-11-24T16:00:00Z, in milliseconds.
const BEGINNING: i64 = 1_764_000_000_000;

fn soon() -> Call<'static> {
    Call::within(Duration::from_secs(20))
}

fn memory() -> Counts {
    Counts::Memory(Arc::new(Memory::new("memory", MemorySettings { max_entries: 1000, max_bytes: 1 << 20 })))
}

fn sqlite(folder: &tempfile::TempDir) -> Counts {
    let settings = SqlSettings {
        dsn: format!("dbi:SQLite:dbname={}", folder.path().join("db").display()),
        user: String::new(),
        password: Secret::default(),
        timeout: Duration::from_secs(20),
        max_connections: 1,
        durability: Durability::Process,
        tls_ca: None,
        identity: None,
    };
    Counts::Sql(Table::new(Arc::new(Sql::new("db", settings).unwrap())))
}

async fn exactly_so_many_pass(counts: Counts, algorithm: Algorithm, limit: &str, passing: usize) {
    let rules = Rates::parse(limit).unwrap().rules(algorithm);
    let (counts, rules) = (Arc::new(counts), Arc::new(rules));
    let mut tasks = JoinSet::new();
    for _ in 0..100 {
        let (counts, rules) = (counts.clone(), rules.clone());
        tasks.spawn(async move {
            let demand = Demand { rules: &rules, amount: 1, passes_anyway: false };
            counts.take("r:bob", demand, "", BEGINNING, soon()).await.unwrap()
        });
    }
    let taken = tasks.join_all().await;
    assert_eq!(taken.iter().filter(|taken| taken.passed).count(), passing, "{limit}");
    let said: Vec<_> = taken.iter().flat_map(|taken| &taken.notices).filter(|(rule, _)| *rule == 0).collect();
    assert_eq!(said.iter().filter(|(_, fill)| *fill == Fill::Full).count(), 1, "{limit} {said:?}");
    assert!(said.iter().filter(|(_, fill)| *fill == Fill::Nearly).count() <= 1, "{limit} {said:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_hundred_at_once_do_not_exceed_it() {
    let folder = tempfile::tempdir().unwrap();
    for algorithm in [Algorithm::Window, Algorithm::Bucket] {
        exactly_so_many_pass(memory(), algorithm, "37/1h, 1000/1d", 37).await;
        exactly_so_many_pass(memory(), algorithm, "70/1h", 70).await;
    }
    exactly_so_many_pass(sqlite(&folder), Algorithm::Window, "37/1h, 1000/1d", 37).await;
    exactly_so_many_pass(sqlite(&folder), Algorithm::Bucket, "70/1h", 70).await;
}

#[tokio::test]
async fn a_database_decides_as_memory_does() {
    let folder = tempfile::tempdir().unwrap();
    let (database, mut state) = (sqlite(&folder), State::default());
    let Counts::Sql(table) = &database else { unreachable!() };
    assert_eq!(table.expire(BEGINNING, soon()).await.unwrap(), 0, "there is no table yet");
    let limits = ["5/1m, 12/10m", "100/1m", "7/1m burst 3, 30/10m", "0/1m burst 2"];
    let rules: Vec<_> = limits
        .iter()
        .flat_map(|limit| {
            [Algorithm::Window, Algorithm::Bucket].map(|a| Rates::parse(limit).unwrap().rules(a))
        })
        .collect();
    let mut now = BEGINNING;
    for n in 0..600_i64 {
        // Any sequence will do, with a clock that jumps now and then.
        let random = (n * 7919 + 13) % 1000;
        now += if random < 20 { -200_000 } else { random * random % 9000 };
        let rules = &rules[usize::try_from(random).unwrap() % rules.len()];
        let demand =
            Demand { rules, amount: (random % 4).unsigned_abs() + 1, passes_anyway: random % 7 == 0 };
        let taken = database.take("r:bob", demand, "", now, soon()).await.unwrap();
        assert_eq!(taken, state.take(demand, now), "request {n} at {now}");
    }
    assert_eq!(table.expire(now, soon()).await.unwrap(), 0, "each request removes its own");
    assert!(table.expire(now + 3_600_000, soon()).await.unwrap() > 0);
}

/// Requests: the milliseconds since the previous one, and how much it counts.
fn requests() -> impl Strategy<Value = Vec<(i64, u64)>> {
    let gap = prop_oneof![Just(0), 1..50_i64, 50..5_000_i64, 5_000..100_000_i64];
    prop::collection::vec((gap, 1..6_u64), 1..300)
}

/// A request that is refused would pass as soon as it is said to, and no sooner.
fn retry_after_is_right(state: &State, demand: Demand<'_>, taken: &Taken, now: i64) {
    let longest = taken.usage.iter().map(|usage| usage.retry_after).max().unwrap_or_default();
    let later = now + i64::try_from(longest.as_millis()).unwrap();
    assert!(!state.clone().take(demand, later - 1).passed, "one could pass sooner");
    let fits = demand.rules.iter().all(|rule| rule.cost(demand.amount) <= rule.capacity);
    assert_eq!(state.clone().take(demand, later).passed, fits);
}

proptest! {
    #[test]
    fn in_no_window_passes_more_nor_less_than_could(
        limit in 1..150_u64,
        seconds in 1..200_u64,
        requests in requests(),
    ) {
        let rates = Rates::parse(&format!("{limit}/{seconds}s")).unwrap();
        let (rules, mut state) = (rates.rules(Algorithm::Window), State::default());
        let (period, grain) = (rules[0].life, rules[0].grain);
        let (mut now, mut passed) = (BEGINNING, Vec::new());
        for (gap, amount) in requests {
            now += gap;
            let demand = Demand { rules: &rules, amount, passes_anyway: false };
            let taken = state.take(demand, now);
            let within = |time: i64| -> u64 {
                let recent = passed.iter().filter(|(at, _)| now - at < time);
                recent.map(|(_, amount)| amount).sum()
            };
            if taken.passed {
                prop_assert!(within(period) + amount <= limit);
            } else {
                // What no longer counts was released at most a part of the window later.
                prop_assert!(within(period + grain) + amount > limit);
                retry_after_is_right(&state, demand, &taken, now);
            }
            if taken.passed {
                passed.push((now, amount));
            }
            prop_assert_eq!(State::decode(state.encode().as_bytes()), state.clone());
        }
    }

    #[test]
    fn a_bucket_is_what_its_numbers_say(
        limit in 1..150_u64,
        seconds in 1..200_u64,
        burst in 1..30_u64,
        requests in requests(),
    ) {
        let rates = Rates::parse(&format!("{limit}/{seconds}s burst {burst}")).unwrap();
        let (rules, mut state) = (rates.rules(Algorithm::Bucket), State::default());
        let period = i128::from(seconds) * 1000;
        let (mut now, mut level) = (BEGINNING, 0_i128);
        for (gap, amount) in requests {
            now += gap;
            level = (level - i128::from(gap) * i128::from(limit)).max(0);
            let demand = Demand { rules: &rules, amount, passes_anyway: false };
            let taken = state.take(demand, now);
            let full = level + i128::from(amount) * period;
            prop_assert_eq!(taken.passed, full <= i128::from(burst) * period);
            if taken.passed {
                level = full;
            } else {
                retry_after_is_right(&state, demand, &taken, now);
            }
        }
    }

    #[test]
    fn a_request_counts_on_all_limits_or_on_none(requests in requests()) {
        let rates = Rates::parse("7/10s, 12/100s, 20/1000s").unwrap();
        let (rules, mut state, mut now) = (rates.rules(Algorithm::Window), State::default(), BEGINNING);
        for (gap, amount) in requests {
            now += gap;
            let mut alone = state.clone();
            let one_by_one = rules.iter().map(|rule| {
                let demand = Demand { rules: std::slice::from_ref(rule), amount, passes_anyway: false };
                alone.take(demand, now).passed
            });
            let one_by_one: Vec<_> = one_by_one.collect();
            let before = state.take(Demand { rules: &rules, amount: 0, passes_anyway: false }, now);
            let taken = state.take(Demand { rules: &rules, amount, passes_anyway: false }, now);
            prop_assert_eq!(taken.passed, one_by_one.iter().all(|passed| *passed));
            for (before, after) in before.usage.iter().zip(&taken.usage) {
                prop_assert_eq!(after.count - before.count, if taken.passed { amount } else { 0 });
            }
        }
    }

    #[test]
    fn no_text_is_too_strange(
        text in ".{0,60}",
        limit in "[0-9]{0,20}[kMG]?/[0-9]{0,4}[smhdw]? ?(burst 9)?",
    ) {
        for text in [text, limit] {
            let rates = Rates::parse(&text).unwrap_or_default();
            prop_assert_eq!(Rates::parse(&rates.to_string()), Ok(rates.clone()));
            for algorithm in [Algorithm::Window, Algorithm::Bucket] {
                let rules = rates.rules(algorithm);
                let demand = Demand { rules: &rules, amount: u64::MAX, passes_anyway: false };
                State::default().take(demand, BEGINNING);
            }
        }
    }

    #[test]
    fn no_state_is_too_strange(
        entries in prop::collection::vec((any::<i64>(), any::<i64>(), any::<i64>(), 0..3_usize), 0..9),
        noise in "[wb0-9=:, -]{0,60}",
        now in any::<i64>(),
    ) {
        let rules = Rates::parse("5/1m, 70/1h burst 9").unwrap().rules(Algorithm::Bucket);
        let names = [&rules[0].name, &rules[1].name, "w99999999999999999999"];
        let texts = entries.iter().map(|(slot, seen, units, n)| {
            let name = names[*n];
            format!("{name}={slot}:{seen}:{units}")
        });
        let text = texts.chain([noise]).collect::<Vec<_>>().join(" ");
        let mut state = State::decode(text.as_bytes());
        for amount in [u64::MAX, 1] {
            state.take(Demand { rules: &rules, amount, passes_anyway: false }, now.max(0));
        }
        state.life();
    }
}

#[tokio::test]
async fn what_passes_anyway_counts_on_every_limit() {
    let folder = tempfile::tempdir().unwrap();
    for algorithm in [Algorithm::Window, Algorithm::Bucket] {
        let rules: Vec<_> =
            Rates::parse("2/1m, 9/1h").unwrap().rules(algorithm).into_iter().map(Rule::unbounded).collect();
        let demand = Demand { rules: &rules, amount: 1, passes_anyway: true };
        for (n, counts) in [memory(), sqlite(&folder)].into_iter().enumerate() {
            let key = format!("r:{algorithm}{n}");
            let (mut passed, mut said) = (Vec::new(), Vec::new());
            for at in 0..300 {
                let taken = counts.take(&key, demand, "", BEGINNING + at * 10, soon()).await.unwrap();
                said.extend(taken.notices.iter().copied());
                passed.push(taken.passed);
                let used: Vec<_> = taken.usage.iter().map(|usage| usage.count).collect();
                assert!(used.iter().all(|count| count.abs_diff(at.unsigned_abs() + 1) <= 1), "{used:?}");
            }
            assert_eq!(passed.iter().filter(|passed| **passed).count(), 2);
            assert!(said.contains(&(1, Fill::Nearly)), "{said:?}");
            let full = |rule| said.iter().filter(|notice| **notice == (rule, Fill::Full)).count();
            assert_eq!((full(0), full(1)), (1, 1), "{said:?}");
        }
    }
}

#[test]
fn any_number_that_passes_anyway_has_few_entries() {
    let rules: Vec<_> =
        Rates::parse("5/1h").unwrap().rules(Algorithm::Window).into_iter().map(Rule::unbounded).collect();
    let demand = Demand { rules: &rules, amount: 1, passes_anyway: true };
    let mut state = State::default();
    for n in 0..20_000 {
        state.take(demand, BEGINNING + n * 1_000);
    }
    assert!(state.encode().len() < 4_000, "{}", state.encode().len());
}
