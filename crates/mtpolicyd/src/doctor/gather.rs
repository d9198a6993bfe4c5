//! Finds out what the doctor looks at: asks postconf(1) and systemctl(1), reads files.
//!
//! Knows: where things are on a machine. Must not know: what is wrong with them.

use super::{Facts, Live, Machine, Postfix};
use crate::address::ListenAddress;
use crate::options::codes;
use crate::server::{self, control::StatusView};
use crate::settings::{Access, Settings, Severity};
use crate::upkeep::CRONTAB;
use nix::sys::statvfs::statvfs;
use nix::unistd::User;
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

/// Parameters that are needed where main.cf does not say them.
const NEEDED: [&str; 3] = ["mail_version", "queue_directory", "mail_owner"];

/// Where to look.
pub struct Sources<'a> {
    /// The configuration of the daemon.
    pub config: &'a Path,
    /// What `postconf -n` has printed on another machine.
    pub postconf: Option<&'a Path>,
    /// What `postconf -M` has printed there.
    pub mastercf: Option<&'a Path>,
    /// What the daemon says of itself, or why it can't be asked.
    pub daemon: Result<(StatusView, Live), String>,
}

/// What was found out, and what of it could be looked at.
pub struct Gathered {
    /// What was found out.
    pub facts: Facts,
    /// What was looked at.
    pub seen: Vec<String>,
    /// What could not be looked at, and why.
    pub unseen: Vec<String>,
}

/// Finds out what there is.
///
/// # Errors
/// A file that was named can't be read, or there is nothing at all to look at.
pub fn gather(sources: Sources<'_>) -> Result<Gathered, String> {
    let mut gathered = Gathered { facts: Facts::default(), seen: Vec::new(), unseen: Vec::new() };
    gathered.postfix(&sources)?;
    gathered.settings(sources.config);
    let is_here = sources.postconf.is_none() && sources.mastercf.is_none();
    match sources.daemon {
        Ok((status, live)) if is_here => {
            gathered.seen.push(format!("daemon {} answers", status.version));
            let tested = live.lists.iter().filter(|list| !list.tests.is_empty()).count();
            if tested > 0 {
                let s = if tested == 1 { "" } else { "s" };
                gathered.seen.push(format!("{tested} DNS list{s} tested"));
            }
            (gathered.facts.status, gathered.facts.live) = (Some(status), live);
        }
        Err(why) if is_here => gathered.unseen.push(format!("the running daemon: {why}")),
        _ => gathered.unseen.push("the running daemon and its machine: another Postfix was named".to_owned()),
    }
    if gathered.facts.postfix.is_none() && gathered.facts.settings.is_none() {
        return Err(format!("there is nothing to look at: {}", gathered.unseen.join("; ")));
    }
    if is_here {
        gathered.facts.machine = machine(&gathered.facts, sources.config);
        if let Err(why) = gathered.look_as_daemon(sources.config) {
            gathered.unseen.push(format!("files and tables of the daemon: {why}"));
        }
    }
    Ok(gathered)
}

impl Gathered {
    fn postfix(&mut self, sources: &Sources<'_>) -> Result<(), String> {
        let read = |path: &Path| {
            fs::read_to_string(path).map_err(|error| format!("can't read {}: {error}", path.display()))
        };
        if sources.postconf.is_some() || sources.mastercf.is_some() {
            let main = sources.postconf.map(read).transpose()?.unwrap_or_default();
            let master = sources.mastercf.map(read).transpose()?.unwrap_or_default();
            self.seen.push("postfix: the files that were named".to_owned());
            self.facts.postfix = Some(Postfix::parse(&main, &master));
            return Ok(());
        }
        let answers = (postconf(&["-n"]), postconf(&["-M"]));
        match answers {
            (Ok(mut main), Ok(master)) => {
                for name in NEEDED {
                    let value = postconf(&["-h", name]).unwrap_or_default();
                    main.push_str(&format!("\n{name} = {}", value.trim()));
                }
                let postfix = Postfix::parse(&main, &master);
                let version = postfix.value(None, "mail_version").unwrap_or_default();
                self.seen.push(format!("postfix {version}, main.cf and master.cf read"));
                self.facts.postfix = Some(postfix);
            }
            (Err(why), _) | (_, Err(why)) => self.unseen.push(format!("postfix: {why}")),
        }
        Ok(())
    }

    fn settings(&mut self, path: &Path) {
        let (settings, messages) = match Settings::load(path, None) {
            Ok((settings, messages)) => (Some(settings), messages),
            Err(messages) => (None, messages),
        };
        self.facts.codes = messages.findings().map(|finding| finding.code).collect();
        let secrets = messages.findings().filter(|finding| finding.code == codes::READABLE_SECRET.id);
        self.facts.secrets = secrets.filter_map(|finding| finding.file.map(PathBuf::from)).collect();
        if settings.is_some() {
            self.seen.push(format!("{}: {} plugins", path.display(), messages.plugins()));
        } else {
            let mistakes = messages.lines().filter(|(severity, _)| *severity == Severity::Error).count();
            let shown = path.display();
            self.unseen.push(format!("{shown}: {mistakes} mistakes; `mtpolicyd check {shown}` says which"));
        }
        self.facts.settings = settings;
    }
}

impl Gathered {
    /// Looks at files, servers and tables with the rights of the daemon, as `check` does.
    fn look_as_daemon(&mut self, path: &Path) -> Result<(), String> {
        let Ok((settings, messages)) = Settings::load(path, None) else { return Ok(()) };
        let no_access = server::access(path, &settings, &messages, None);
        let look = server::look(settings, None);
        self.facts.machine.no_access = no_access.map_err(|error| error.to_string())?;
        let look = look.map_err(|error| error.to_string())?;
        self.facts.machine.denied = look.denied;
        // A running daemon has said it.
        if self.facts.status.is_none() {
            self.facts.machine.unanswered = look.unanswered;
        }
        Ok(())
    }
}

/// What postconf(1) prints.
fn postconf(arguments: &[&str]) -> Result<String, String> {
    printed("postconf", arguments)
}

fn printed(program: &str, arguments: &[&str]) -> Result<String, String> {
    let output = Command::new(program).args(arguments).output();
    let output = output.map_err(|error| format!("{program} can't be run: {error}"))?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        Err(format!("{program} {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim()))
    }
}

fn machine(facts: &Facts, config: &Path) -> Machine {
    let resolv = fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    let servers = resolv.lines().filter_map(|line| line.trim().strip_prefix("nameserver"));
    let has_systemd = Path::new("/run/systemd/system").is_dir();
    let process = facts.status.as_ref().map(|status| status.process);
    let limits = process.and_then(|process| fs::read_to_string(format!("/proc/{process}/limits")).ok());
    Machine {
        resolvers: servers.filter_map(|server| server.trim().parse().ok()).collect(),
        unit: has_systemd.then(|| printed("systemctl", &["cat", "mtpolicyd.service"]).ok()).flatten(),
        cron: fs::read_to_string(CRONTAB).ok(),
        open_files: limits.as_deref().and_then(open_files),
        free: free(facts),
        closed_sockets: closed_sockets(facts),
        readable: existing(secrets(facts), OTHERS_READ),
        open_data: existing(data(facts), OTHERS_READ),
        writable: existing(vec![config.to_owned()], OTHERS_WRITE),
        exposure: has_systemd.then(exposure).flatten(),
        is_clock_set: has_systemd.then(is_clock_set).flatten(),
        from_the_future: from_the_future(facts, config),
        last_mail: last_mail(facts),
        ..Machine::default()
    }
}

/// The rights of everybody else.
const OTHERS_READ: u32 = 0o004;
const OTHERS_WRITE: u32 = 0o002;

/// The files that are there and on which everybody else has a right.
fn existing(paths: Vec<PathBuf>, right: u32) -> Vec<PathBuf> {
    let has =
        |path: &PathBuf| path.metadata().is_ok_and(|found| found.is_file() && found.mode() & right != 0);
    paths.into_iter().filter(has).collect()
}

/// Files with keys, and those of the configuration that have secrets.
fn secrets(facts: &Facts) -> Vec<PathBuf> {
    let keys = facts.settings.iter().flat_map(|settings| &settings.key_files);
    each_once(keys.chain(&facts.secrets))
}

/// The journal, the log, databases: what holds addresses of people.
fn data(facts: &Facts) -> Vec<PathBuf> {
    let paths = facts.settings.iter().flat_map(|settings| &settings.paths);
    each_once(paths.filter(|named| named.access == Access::Make).map(|named| &named.path))
}

fn each_once<'a>(paths: impl Iterator<Item = &'a PathBuf>) -> Vec<PathBuf> {
    let all: BTreeSet<_> = paths.cloned().collect();
    all.into_iter().collect()
}

/// What `systemd-analyze security` says at its end: `Overall exposure level for NAME: 1.4 OK`.
fn exposure() -> Option<f64> {
    let said = printed("systemd-analyze", &["security", "--no-pager", "mtpolicyd.service"]).ok()?;
    read_exposure(&said)
}

fn read_exposure(said: &str) -> Option<f64> {
    let line = said.lines().find(|line| line.contains("Overall exposure level"))?;
    line.rsplit_once(": ")?.1.split_whitespace().next()?.parse().ok()
}

fn is_clock_set() -> Option<bool> {
    let said = printed("timedatectl", &["show", "--property=NTPSynchronized", "--value"]).ok()?;
    match said.trim() {
        "yes" => Some(true),
        "no" => Some(false),
        _ => None,
    }
}

/// Files of the daemon that were written later than it is now, by more than clocks of file servers differ.
fn from_the_future(facts: &Facts, config: &Path) -> Vec<PathBuf> {
    const TOLERANCE: Duration = Duration::from_secs(60);
    let made = facts.settings.iter().flat_map(|settings| &settings.paths).map(|named| &named.path);
    let latest = SystemTime::now() + TOLERANCE;
    let is_later = |path: &&PathBuf| {
        path.metadata().and_then(|found| found.modified()).is_ok_and(|written| written > latest)
    };
    let config = config.to_owned();
    each_once(std::iter::once(&config).chain(made).filter(is_later))
}

/// When Postfix last put a message into the folder through which each one comes.
fn last_mail(facts: &Facts) -> Option<SystemTime> {
    facts.postfix.as_ref()?;
    facts.queue_folder().join("incoming").metadata().ok()?.modified().ok()
}

/// The limit in a text of proc(5).
fn open_files(limits: &str) -> Option<u64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// The folders that the daemon writes to, and what is free there in MiB.
fn free(facts: &Facts) -> Vec<(PathBuf, u64)> {
    let paths = facts.settings.iter().flat_map(|settings| &settings.paths);
    let written = paths.filter(|named| named.access == Access::Make);
    let mut folders: Vec<_> = written.filter_map(|named| named.path.parent().map(Path::to_owned)).collect();
    folders.sort();
    folders.dedup();
    let free = |folder: PathBuf| {
        let found = statvfs(&folder).ok()?;
        let bytes = found.blocks_available().saturating_mul(found.fragment_size());
        Some((folder, bytes >> 20))
    };
    folders.into_iter().filter_map(free).collect()
}

/// The sockets of the daemon that the user of Postfix can't connect to. One that is not there is not one of
/// them: the daemon does not run.
fn closed_sockets(facts: &Facts) -> Vec<(PathBuf, String)> {
    let owner = facts.postfix.as_ref().and_then(|postfix| postfix.value(None, "mail_owner"));
    let Some(user) = owner.and_then(|owner| User::from_name(&owner).ok().flatten()) else {
        return Vec::new();
    };
    let settings = facts.settings.iter();
    let paths = settings.flat_map(|settings| &settings.addresses).filter_map(|address| match address {
        ListenAddress::Unix(path) => Some(path),
        ListenAddress::Tcp(_) => None,
    });
    let why_not = |path: &PathBuf| {
        let folders = path.ancestors().skip(1).filter(|folder| !folder.as_os_str().is_empty());
        let closed = folders.filter(|folder| !may(folder, &user, 0o1)).last();
        let why = match closed {
            Some(folder) => format!("the user {} may not enter {}", user.name, folder.display()),
            None if !may(path, &user, 0o2) => format!("the user {} may not write to it", user.name),
            None => return None,
        };
        path.exists().then(|| (path.clone(), why))
    };
    paths.filter_map(why_not).collect()
}

/// Whether a user has a right (of the three bits) by the mode of a file; a file that is not there counts as
/// one where he has.
fn may(path: &Path, user: &User, right: u32) -> bool {
    let Ok(found) = path.metadata() else { return true };
    let shift = match (found.uid() == user.uid.as_raw(), found.gid() == user.gid.as_raw()) {
        (true, _) => 6,
        (false, true) => 3,
        (false, false) => 0,
    };
    user.uid.is_root() || found.mode() >> shift & right != 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn the_limit_of_open_files_is_read() {
        let limits =
            "Limit  Soft Limit  Hard Limit  Units\nMax open files            1024       4096  files\n";
        assert_eq!(open_files(limits), Some(1024));
        assert_eq!(open_files("Max open files   unlimited  unlimited  files"), None);
    }

    #[test]
    fn the_exposure_of_a_service_is_read() {
        let said = "  NAME  DESCRIPTION  EXPOSURE\n\n\
                    \u{2192} Overall exposure level for mtpolicyd.service: 9.2 UNSAFE :-(\n";
        assert_eq!(read_exposure(said), Some(9.2));
        assert_eq!(read_exposure("Unit mtpolicyd.service could not be found."), None);
    }

    #[test]
    fn a_mode_says_who_may() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        fs::write(&path, "").unwrap();
        let own = path.metadata().unwrap().uid();
        let mut user = User::from_uid(own.into()).unwrap().expect("the user of the test");
        // Somebody else, who is in no group of the file.
        user.uid = (own + 4_321).into();
        user.gid = (path.metadata().unwrap().gid() + 4_321).into();
        for (mode, is_allowed) in [(0o600, false), (0o660, false), (0o662, true)] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(may(&path, &user, 0o2), is_allowed, "{mode:o}");
        }
        assert!(may(Path::new("/none/such"), &user, 0o2));
    }
}
