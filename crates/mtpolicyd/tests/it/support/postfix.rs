//! A real Postfix with a configuration, a queue and mailboxes of its own, and a client that gives it mail.
//!
//! Knows: the files of Postfix, SMTP. Must not know: the daemon's code, what a test wants to see.

use super::{PATIENCE, eventually, free_port, is_root_or_leaves_out, leaves_out};
use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use tempfile::TempDir;

/// Where mail may be sent to: every address of this domain has its mail put into one mailbox.
pub const DOMAIN: &str = "rcpt.test";

/// The user of the mailbox: Postfix delivers to nobody with a smaller number than 100.
const NOBODY: u32 = 65_534;

/// What the tests need of Postfix's services, each once. `smtpd` comes with the port.
const SERVICES: &str = "\
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
error unix - - n - - error
retry unix - - n - - error
virtual unix - n n - - virtual
proxymap unix - - n - - proxymap
anvil unix - - n - 1 anvil
tlsmgr unix - - n 1000? 1 tlsmgr
postlog unix-dgram n - n - 1 postlogd
";

/// Everything but the folders. No name is looked up, no client slowed down, and clients of this machine may
/// claim another address (XCLIENT).
const SETTINGS: &str = "\
compatibility_level = 3.6
command_directory = /usr/sbin
daemon_directory = /usr/lib/postfix/sbin
mail_owner = postfix
setgid_group = postdrop
myhostname = mx.rcpt.test
mydestination =
mynetworks = 127.0.0.1/32
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
alias_maps =
virtual_mailbox_domains = rcpt.test
virtual_mailbox_maps = static:inbox/
smtpd_peername_lookup = no
smtpd_authorized_xclient_hosts = 127.0.0.1
smtpd_relay_restrictions = reject_unauth_destination
smtpd_client_connection_count_limit = 0
smtpd_error_sleep_time = 0
in_flow_delay = 0
default_process_limit = 30
smtpd_restriction_classes = closed_to_strangers
closed_to_strangers = reject
";

/// Whether this machine can run a Postfix of the tests' own; if not, `what` is said to be left out, on
/// standard error.
pub fn postfix_or_leaves_out(what: &str) -> bool {
    if !is_root_or_leaves_out(what) {
        return false;
    }
    let found = Command::new("postconf").args(["-d", "mail_version"]).output().is_ok();
    if !found {
        leaves_out("the Debian package postfix is not installed", what);
    }
    found
}

/// A running Postfix; it is stopped when this is dropped.
pub struct Postfix {
    folder: TempDir,
    port: u16,
}

impl Postfix {
    /// Starts it with these `smtpd_recipient_restrictions`.
    ///
    /// As on Debian, smtpd is confined to the queue's folder: a relative UNIX socket lies below
    /// [`Postfix::queue`].
    pub fn start(restrictions: &str) -> Postfix {
        Postfix::start_with(restrictions, "")
    }

    /// The same, with more lines of `main.cf`, which go before those here.
    pub fn start_with(restrictions: &str, more: &str) -> Postfix {
        let folder = tempfile::tempdir().expect("there is room for a folder");
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).expect("the folder is ours");
        let postfix = Postfix { folder, port: free_port() };
        for name in ["config", "queue", "data", "mail"] {
            fs::create_dir(postfix.path(name)).expect("the folder is writable");
        }
        chown("postfix", &postfix.path("data"));
        chown(&NOBODY.to_string(), &postfix.path("mail"));
        let names: Vec<_> =
            more.lines().filter_map(|line| line.split_once('=').map(|(name, _)| name)).collect();
        let settings = postfix.settings(restrictions);
        let kept = settings.lines().filter(|line| !names.iter().any(|name| line.starts_with(name)));
        let settings: String = kept.chain(more.lines()).flat_map(|line| [line, "\n"]).collect();
        fs::write(postfix.path("config/main.cf"), settings).expect("it is writable");
        let chrooted = format!("127.0.0.1:{} inet n - y - - smtpd\n", postfix.port);
        fs::write(postfix.path("config/master.cf"), chrooted + SERVICES).expect("it is writable");
        let output = postfix.run("start");
        assert!(output.status.success(), "postfix does not start: {output:?}\n{}", postfix.log());
        eventually("postfix listens", || postfix.connect().ok());
        postfix
    }

    fn settings(&self, restrictions: &str) -> String {
        let folder = self.folder.path().display();
        format!(
            "{SETTINGS}queue_directory = {folder}/queue\ndata_directory = {folder}/data\n\
             maillog_file = {folder}/maillog\nmaillog_file_prefixes = {folder}\n\
             virtual_mailbox_base = {folder}/mail\nvirtual_uid_maps = static:{NOBODY}\n\
             virtual_gid_maps = static:{NOBODY}\nsmtpd_recipient_restrictions = {restrictions}\n"
        )
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Where smtpd listens.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The queue's folder.
    pub fn queue(&self) -> PathBuf {
        self.path("queue")
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.path("maillog")).unwrap_or_default()).into_owned()
    }

    /// The messages that have been delivered, in no order.
    pub fn mailbox(&self) -> Vec<String> {
        let Ok(files) = fs::read_dir(self.path("mail/inbox/new")) else { return Vec::new() };
        let read = |file: io::Result<fs::DirEntry>| fs::read(file.expect("it is readable").path());
        files.map(|file| String::from_utf8_lossy(&read(file).expect("it is readable")).into_owned()).collect()
    }

    /// The one message of this subject, once it has been delivered.
    pub fn delivered(&self, subject: &str) -> String {
        let line = format!("\nSubject: {subject}\n");
        eventually(&format!("`{subject}` is delivered"), || {
            self.mailbox().into_iter().find(|mail| mail.contains(&line))
        })
    }

    /// A client that has said EHLO.
    pub fn connect(&self) -> io::Result<Smtp> {
        Smtp::connect(self.port)
    }

    /// `start` or `stop`. Postfix's processes keep what they inherit, so they get no pipe that somebody reads
    /// to its end: the output is a file.
    fn run(&self, command: &str) -> Output {
        let said = self.path("said");
        let file = fs::File::create(&said).expect("the folder is writable");
        let mut postfix = Command::new("postfix");
        postfix.arg("-c").arg(self.path("config")).arg(command).stdin(Stdio::null());
        postfix.stdout(file.try_clone().expect("a descriptor is free")).stderr(file);
        let status = postfix.status().expect("postfix is installed");
        Output { status, stdout: fs::read(&said).unwrap_or_default(), stderr: Vec::new() }
    }
}

impl Drop for Postfix {
    fn drop(&mut self) {
        let output = self.run("stop");
        // A panic on top of another would end all tests, with this Postfix and others still running.
        assert!(output.status.success() || std::thread::panicking(), "postfix does not stop: {output:?}");
    }
}

fn chown(owner: &str, path: &Path) {
    let status = Command::new("chown").arg(owner).arg(path).status().expect("there is a chown");
    assert!(status.success(), "there is no user {owner}");
}

/// A reply of the server that is none of success.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The reply's code, such as 554.
    pub code: u16,
    /// All its lines, with the code.
    pub text: String,
}

impl Refusal {
    /// Whether the client is to try again: a code of 4xx, or a connection that broke.
    pub fn is_temporary(&self) -> bool {
        self.code < 500
    }
}

impl From<io::Error> for Refusal {
    /// The code that RFC 5321 has for a server which goes away.
    fn from(error: io::Error) -> Refusal {
        Refusal { code: 421, text: error.to_string() }
    }
}

/// An SMTP connection (RFC 5321).
pub struct Smtp {
    reader: BufReader<TcpStream>,
}

impl Smtp {
    fn connect(port: u16) -> io::Result<Smtp> {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let mut client = Smtp { reader: BufReader::new(stream) };
        let ready = client.reply().and_then(|_| client.command("EHLO client.test"));
        ready.map_err(|refusal| io::Error::other(refusal.text))?;
        Ok(client)
    }

    /// Claims to come from another address, and greets again.
    pub fn claim_address(&mut self, address: &str) -> Result<(), Refusal> {
        self.command(&format!("XCLIENT ADDR={address}"))?;
        self.command("EHLO client.test").map(drop)
    }

    /// Sends a message to a user of [`DOMAIN`]; after a refusal the next one may follow on the same
    /// connection.
    pub fn send(&mut self, user: &str, subject: &str) -> Result<(), Refusal> {
        self.send_from("sender@example.test", &[user], subject)
    }

    /// Sends a message of this sender to users of [`DOMAIN`].
    pub fn send_from(&mut self, sender: &str, users: &[&str], subject: &str) -> Result<(), Refusal> {
        self.command(&format!("MAIL FROM:<{sender}>"))?;
        let mut recipients = users.iter().map(|user| format!("RCPT TO:<{user}@{DOMAIN}>"));
        let accepted = recipients.try_for_each(|recipient| self.command(&recipient).map(drop));
        let accepted = accepted.and_then(|()| self.command("DATA"));
        if let Err(refusal) = accepted {
            // Whether the connection still works shows with the next message.
            let _ = self.command("RSET");
            return Err(refusal);
        }
        self.command(&format!("Subject: {subject}\r\n\r\nHello.\r\n.")).map(drop)
    }

    /// Names a recipient, whatever the form of its address, and ends the transaction.
    pub fn ask(&mut self, address: &str) -> Result<(), Refusal> {
        self.command("MAIL FROM:<sender@example.test>")?;
        let answer = self.command(&format!("RCPT TO:<{address}>")).map(drop);
        self.command("RSET")?;
        answer
    }

    fn command(&mut self, line: &str) -> Result<String, Refusal> {
        self.reader.get_mut().write_all(format!("{line}\r\n").as_bytes())?;
        self.reply()
    }

    fn reply(&mut self) -> Result<String, Refusal> {
        let mut text = String::new();
        loop {
            let start = text.len();
            if self.reader.read_line(&mut text)? == 0 {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
            // The last line of a reply has a blank behind its code.
            let line = &text[start..];
            if line.chars().nth(3) != Some('-') {
                let code = line.get(..3).and_then(|code| code.parse().ok()).unwrap_or(421);
                return if code < 400 { Ok(text) } else { Err(Refusal { code, text }) };
            }
        }
    }
}
