//! Doing what plugins want done without a request: at the start, and from time to time.
//!
//! Knows: tasks, the calendar. Must not know: plugins, connections.

use crate::facts::World;
use crate::log::messages::tasks as messages;
use crate::tasks::{Period, Task, When};
use crate::value::Value;
use jiff::civil::Weekday;
use jiff::{ToSpan, ZonedDateTime};
use std::path::Path;

/// The crontab that the package of the original installs; where it is, cron does the tasks.
pub const CRONTAB: &str = "/etc/cron.d/mtpolicyd";

/// Every period, the shortest first.
pub const PERIODS: [Period; 4] = [Period::Hourly, Period::Daily, Period::Weekly, Period::Monthly];

/// The periods that a crontab line names, and the words in it that are none.
pub fn parse_periods(text: &str) -> (Vec<Period>, Vec<&str>) {
    let (mut periods, mut unknown) = (Vec::new(), Vec::new());
    for word in text.split(',').map(str::trim) {
        match Period::parse(word) {
            Ok(period) => periods.push(period),
            Err(_) => unknown.push(word),
        }
    }
    (periods, unknown)
}

/// The periods that have begun between two times, of which the later one is past a full hour at least, as the
/// crontab of the original has them: a day begins at midnight, a week on Sunday, a month on its first day. A
/// midnight that the clock has left out, for summer time or since it was set, counts as well.
pub fn begun_between(before: &ZonedDateTime, now: &ZonedDateTime) -> Vec<Period> {
    let (first, last) = (before.date(), now.date());
    let is_sunday = |days: i32| {
        first.checked_add(days.days()).is_ok_and(|day| day <= last && day.weekday() == Weekday::Sunday)
    };
    let begun = |period: &Period| match period {
        Period::Hourly => true,
        Period::Daily => first < last,
        Period::Weekly => (1..=7).any(is_sunday),
        Period::Monthly => (first.year(), first.month()) < (last.year(), last.month()),
    };
    PERIODS.into_iter().filter(begun).collect()
}

/// Whether the crontab of the package does the tasks: with this program, not with the original, which may
/// have left it behind and can't do them.
pub fn has_crontab() -> bool {
    let us = std::env::current_exe().and_then(|path| path.canonicalize());
    us.is_ok_and(|us| std::fs::read_to_string(CRONTAB).is_ok_and(|text| runs(&text, &us)))
}

/// Whether a crontab runs a program, by whatever path.
fn runs(crontab: &str, program: &Path) -> bool {
    let lines = crontab.lines().filter(|line| !line.trim_start().starts_with('#'));
    let mut words = lines.flat_map(str::split_whitespace).filter(|word| word.starts_with('/'));
    words.any(|word| Path::new(word).canonicalize().is_ok_and(|path| path == program))
}

/// Does the tasks of a kind, one after the other. Returns how many failed. What they did is for the log.
pub async fn run(tasks: &[Task], when: When, world: &World) -> usize {
    let mut failed = 0;
    for task in tasks.iter().filter(|task| task.when == when) {
        let plugin = &task.plugin;
        match task.run(world.clone()).await {
            Ok(done) if done.is_empty() => {}
            Ok(done) => messages::done(plugin, done),
            Err(error) => {
                failed += 1;
                messages::failed(plugin, error);
            }
        }
    }
    failed
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::civil::date;
    use jiff::tz::TimeZone;

    #[test]
    fn tasks_are_due_when_the_crontab_has_them() {
        let at = |month, day, hour| {
            date(2026, month, day).at(hour, 0, 37, 0).to_zoned_datetime(TimeZone::UTC).unwrap()
        };
        let hour_before = |now: ZonedDateTime| begun_between(&(&now - 1.hour()), &now);
        use Period::{Daily, Hourly, Monthly, Weekly};
        assert_eq!(hour_before(at(11, 25, 5)), [Hourly]);
        assert_eq!(hour_before(at(11, 25, 0)), [Hourly, Daily]);
        assert_eq!(hour_before(at(11, 29, 0)), [Hourly, Daily, Weekly]);
        assert_eq!(hour_before(at(11, 1, 0)), [Hourly, Daily, Weekly, Monthly], "a first that is a Sunday");
        assert_eq!(hour_before(at(12, 1, 0)), [Hourly, Daily, Monthly]);
        let all = [Hourly, Daily, Weekly, Monthly];
        assert_eq!(begun_between(&at(11, 25, 5), &at(12, 2, 4)), all, "the machine slept");
        assert_eq!(begun_between(&at(11, 23, 5), &at(11, 28, 4)), [Hourly, Daily], "no Sunday in it");
    }

    #[test]
    fn a_crontab_counts_if_it_runs_this_program() {
        let folder = tempfile::tempdir().unwrap();
        let (us, other) = (folder.path().join("us"), folder.path().join("other"));
        for file in [&us, &other] {
            std::fs::write(file, "").unwrap();
        }
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(&us, &link).unwrap();
        let us = us.canonicalize().unwrap();
        let line = |path: &Path| format!("0 1-23 * * * mtpolicyd {} --cron hourly\n", path.display());
        assert!(runs(&line(&link), &us) && runs(&line(&us), &us));
        assert!(!runs(&line(&other), &us) && !runs(&format!("# {}", line(&us)), &us));
    }

    #[test]
    fn a_crontab_line_names_periods() {
        let (periods, unknown) = parse_periods("hourly, daily,yearly");
        assert_eq!((periods, unknown), (vec![Period::Hourly, Period::Daily], vec!["yearly"]));
    }
}
