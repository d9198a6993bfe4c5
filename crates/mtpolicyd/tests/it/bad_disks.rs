//! Bad days of a journal: a full disk, one without rights, a file that somebody holds. Requests are answered
//! as before, one line a minute says why, what got lost is counted, and it goes on once the cause is gone.
//!
//! Knows: the configuration file, file systems, locks of SQLite. Must not know: how a journal is written.

use crate::support::client::Client;
use crate::support::daemon::{Daemon, Site, read_lossy};
use crate::support::{eventually, is_root_or_leaves_out, leaves_out};
use decisions::Filter;
use decisions::journal::{Coverage, JournalFile, Progress};
use std::collections::BTreeSet;
use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

/// More than wait for a journal that can't be written.
const MANY: usize = 6_000;

fn configuration(more: &str) -> String {
    format!(
        "{more}port = \"127.0.0.1:$PORT\"\n<Journal>\n  file = \"$DIR/disk/journal.db\"\n</Journal>\n\
         <VirtualHost $PORT>\n  name = \"incoming\"\n  <Plugin rejected>\n    module = \"RegexList\"\n    \
         key = \"request:sender\"\n    regex = \"^bad\"\n    action = \"reject no\"\n  </Plugin>\n\
         </VirtualHost>\n"
    )
}

/// A disk of a megabyte, for as long as this lives.
struct Disk(PathBuf);

impl Disk {
    fn new(path: &Path) -> Option<Disk> {
        fs::create_dir(path).expect("the folder of the test is there");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=1m", "tmpfs"]).arg(path).stderr(Stdio::null());
        if mount.status().is_ok_and(|status| status.success()) {
            return Some(Disk(path.to_owned()));
        }
        leaves_out("nothing can be mounted here", "a full disk");
        None
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // A process that has just ended may still be on it.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// Requests, each with a name of its own, and their answers.
struct Load {
    client: Client,
    sent: usize,
}

impl Load {
    fn on(daemon: &Daemon) -> Load {
        Load { client: daemon.connect(), sent: 0 }
    }

    /// Asks so often; each answer is right.
    fn ask(&mut self, times: usize) {
        /// Requests that are sent before the first answer is read.
        const AHEAD: usize = 50;
        for first in (0..times).step_by(AHEAD) {
            let numbers = first..times.min(first + AHEAD);
            for n in numbers.clone() {
                let sender = if n % 2 == 0 { "bad" } else { "good" };
                let number = self.sent + n;
                self.client.send(&format!(
                    "sender={sender}{number}@example.org\nrecipient=r@example.net\ninstance=i.{number}"
                ));
            }
            for n in numbers {
                let answer = self.client.answer().action();
                assert_eq!(answer, if n % 2 == 0 { "reject no" } else { "dunno" });
            }
        }
        self.sent += times;
    }
}

/// How many decisions a file has, none of them twice, and what it says about them.
fn found(file: &Path) -> (usize, Coverage) {
    let search = |file: JournalFile| file.search(&Filter::default(), 100_000, None, &Progress::default());
    let found = JournalFile::open(file).and_then(search).expect("a journal");
    let ids: BTreeSet<_> = found.decisions.iter().map(|decision| decision.id).collect();
    assert_eq!((ids.len(), found.damaged), (found.decisions.len(), 0));
    (ids.len(), found.covered)
}

fn lines(daemon: &Daemon, words: &str) -> usize {
    daemon.log().lines().filter(|line| line.contains("journal: ") && line.contains(words)).count()
}

/// What is lost is what was sent and is not found; the lines about it have not come more often than they may.
fn reckon(mut daemon: Daemon, load: Load, begun: Instant, why: &str) {
    let sent = load.sent;
    drop(load);
    daemon.logged("is written again; ");
    assert!(daemon.terminate().success());
    let (found, covered) = found(&daemon.site.path("disk/journal.db"));
    assert_eq!(sent as u64, found as u64 + covered.lost, "{covered:?}");
    let minutes = usize::try_from(begun.elapsed().as_secs() / 60).expect("it fits");
    let said = lines(&daemon, why);
    assert!((1..=minutes + 1).contains(&said), "{said} lines:\n{}", daemon.log());
}

#[test]
fn a_full_disk_costs_decisions_and_nothing_else() {
    if !is_root_or_leaves_out("a full disk") {
        return;
    }
    let site = Site::with(&configuration(""));
    let Some(disk) = Disk::new(&site.path("disk")) else { return };
    let ballast = disk.0.join("ballast");
    fs::write(&ballast, vec![7; 600 << 10]).unwrap();
    let (daemon, begun) = (site.start(), Instant::now());
    let mut load = Load::on(&daemon);
    while lines(&daemon, "full") == 0 {
        load.ask(500);
    }
    // More than can wait.
    load.ask(MANY);
    fs::remove_file(&ballast).unwrap();
    reckon(daemon, load, begun, "full");
    drop(disk);
}

#[test]
fn without_rights_decisions_wait_and_are_written_once_there_are_some() {
    if !is_root_or_leaves_out("files without rights") {
        return;
    }
    let site = Site::with(&configuration("user = nobody\ngroup = nogroup\n"));
    let (folder, file) = (site.path("disk"), site.path("disk/journal.db"));
    fs::set_permissions(site.path(""), Permissions::from_mode(0o755)).unwrap();
    fs::create_dir(&folder).unwrap();
    let named = |name: &str| nix::unistd::User::from_name(name).ok().flatten().expect("every Debian has it");
    let (user, group) = (named("nobody").uid.as_raw(), named("nobody").gid.as_raw());
    // Another user's folder at first, then files that may not be read, or only that.
    let mut daemon = site.start();
    let mut load = Load::on(&daemon);
    load.ask(10);
    daemon.logged("Permission denied");
    chown(&folder, Some(user), Some(group)).unwrap();
    daemon.logged("is written again; 0 decisions were lost");
    drop(load);
    assert!(daemon.terminate().success());
    let mut sent = 10;
    assert_eq!(found(&file).0, sent);
    for mode in [0, 0o440] {
        fs::set_permissions(&file, Permissions::from_mode(mode)).unwrap();
        let site = daemon.into_site();
        daemon = site.start();
        let mut load = Load::on(&daemon);
        load.ask(10);
        sent += 10;
        daemon.logged("0 decisions were lost");
        assert_eq!(lines(&daemon, "0 decisions were lost"), 1, "{}", daemon.log());
        fs::set_permissions(&file, Permissions::from_mode(0o640)).unwrap();
        daemon.logged("is written again; 0 decisions were lost");
        drop(load);
        assert!(daemon.terminate().success());
        assert_eq!(found(&file).0, sent, "mode {mode:o}");
    }
}

#[test]
fn a_file_that_somebody_holds_keeps_nobody_waiting() {
    let site = Site::with(&configuration(""));
    fs::create_dir(site.path("disk")).unwrap();
    let (daemon, begun) = (site.start(), Instant::now());
    let file = daemon.site.path("disk/journal.db");
    let mut load = Load::on(&daemon);
    load.ask(10);
    eventually("they are written", || {
        let open = JournalFile::open(&file).and_then(|it| it.coverage());
        open.is_ok().then(|| found(&file)).filter(|(found, _)| *found == 10)
    });
    let other = rusqlite::Connection::open(&file).unwrap();
    other.execute_batch("BEGIN EXCLUSIVE").unwrap();
    load.ask(MANY);
    daemon.logged("is busy");
    load.ask(100);
    other.execute_batch("ROLLBACK").unwrap();
    drop(other);
    let memory = memory(&daemon);
    assert!(memory < 200 << 20, "{memory} bytes: what waits has a bound");
    reckon(daemon, load, begun, "is busy");
}

/// The largest memory that the process had, in bytes.
fn memory(daemon: &Daemon) -> u64 {
    let status = read_lossy(Path::new(&format!("/proc/{}/status", daemon.id())));
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("Linux says it");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") << 10
}

#[test]
fn noise_in_the_file_costs_what_was_in_it() {
    let site = Site::with(&configuration(""));
    fs::create_dir(site.path("disk")).unwrap();
    let mut daemon = site.start();
    let (folder, file) = (daemon.site.path("disk"), daemon.site.path("disk/journal.db"));
    let mut load = Load::on(&daemon);
    load.ask(600);
    eventually("they are written", || {
        let open = JournalFile::open(&file).and_then(|it| it.coverage());
        open.is_ok().then(|| found(&file)).filter(|(found, _)| *found == 600)
    });
    let noise: Vec<u8> = (0..50_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 11) as u8).collect();
    fs::write(&file, noise).unwrap();
    eventually("it is put aside", || {
        load.ask(10);
        let files = fs::read_dir(&folder).unwrap().flatten();
        files.map(|file| file.file_name()).find(|name| name.to_string_lossy().contains(".broken-20"))
    });
    load.ask(10);
    let sent = load.sent;
    drop(load);
    assert!(daemon.terminate().success());
    let (found, covered) = found(&file);
    assert_eq!(sent as u64, found as u64 + covered.lost, "{covered:?}");
    // Blocks that were not full yet are in the new file, whole.
    assert!(covered.lost > 0 && lines(&daemon, "; it is now ") == 1, "{covered:?}");
}
