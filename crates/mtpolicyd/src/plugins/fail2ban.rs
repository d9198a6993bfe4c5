//! `Fail2Ban`: has fail2ban ban the client.

use crate::log::messages::findings;
use crate::options::options;
use crate::plugin::{Cx, Error, Plugin, Setup, Verdict};
use crate::value::{NonZeroSeconds, Seconds};
use backends::OptionError;
use backends::fail2ban::{self, Outcome, check_jail};
use std::sync::Arc;

options! {
    /// Has the client banned by fail2ban, whose firewall rules then block it.
    ///
    /// It belongs in the block of a plugin that decides which clients to ban, and bans once per message. The
    /// jail must exist in fail2ban. The daemon needs write access to the socket, which fail2ban creates at
    /// each start for root alone. `systemctl edit fail2ban` grants it; the first line waits for the socket,
    /// without which fail2ban would not start:
    ///
    /// ```ini
    /// [Service]
    /// ExecStartPost=/bin/sh -c 'until fail2ban-client ping >/dev/null 2>&1; do sleep 0.2; done'
    /// ExecStartPost=chgrp mtpolicyd /run/fail2ban/fail2ban.sock
    /// ExecStartPost=chmod g+rwx /run/fail2ban/fail2ban.sock
    /// ```
    ///
    /// Addresses of the machine itself (127.0.0.0/8, ::1) are never banned. The plugin fails if the jail
    /// does not exist or fail2ban is not running. If fail2ban runs but does not reply in time, bans are still
    /// sent, and requests do not wait for the reply.
    ///
    /// ```conf
    /// <Plugin ban-the-worst>
    ///   module = "ScoreAction"
    ///   threshold = 15
    ///   <Plugin ban-ip>
    ///     module = "Fail2Ban"
    ///     jail = "postfix"
    ///     on_error = "continue"
    ///   </Plugin>
    /// </Plugin>
    /// ```
    pub struct Fail2BanOptions {
        + enabled,
        /// The path of fail2ban's UNIX socket.
        socket: String = "/var/run/fail2ban/fail2ban.sock",
        /// The jail to ban clients in.
        jail: String = "postfix",
        /// How long a request waits for fail2ban.
        timeout: NonZeroSeconds = NonZeroSeconds(Seconds::of(1)),
    }
}

pub struct Fail2Ban {
    options: Fail2BanOptions,
    mark: String,
    server: Arc<fail2ban::Fail2Ban>,
}

impl Plugin for Fail2Ban {
    const NAME: &'static str = "Fail2Ban";
    type Options = Fail2BanOptions;

    fn new(options: Fail2BanOptions, setup: &mut Setup<'_, '_>) -> Option<Fail2Ban> {
        if let Err(why) = check_jail(&options.jail) {
            return setup.refuse(OptionError::new("jail", why));
        }
        let settings = (options.socket.clone(), options.timeout.0.duration());
        let server =
            setup.carried_over(settings, |(socket, limit)| Arc::new(fail2ban::Fail2Ban::new(socket, *limit)));
        let mark = format!("{}-fail2ban", setup.name);
        Some(Fail2Ban { options, mark, server })
    }

    async fn run(&self, cx: &mut Cx<'_>) -> Result<Verdict, Error> {
        if cx.session.result(&self.mark).is_some() {
            return Ok(Verdict::Next);
        }
        cx.attribute("client_address")?;
        // Postfix says `unknown` of a client that has none.
        let Some(ip) = cx.request.client_ip() else { return Ok(Verdict::Next) };
        if ip.is_loopback() || ip.is_unspecified() {
            cx.note(findings::own_address(ip));
            return Ok(Verdict::Next);
        }
        let jail = &self.options.jail;
        match self.server.ban(jail, ip, cx.call).await? {
            Outcome::Done => cx.note(findings::banned(ip, jail)),
            Outcome::Sent => cx.note(findings::ban_sent(ip, jail)),
        }
        cx.session.set_for_message(&self.mark, "1");
        Ok(Verdict::Next)
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::Bench;
    use std::io::{Read, Write};
    use std::os::unix::net::UnixListener;
    use std::sync::mpsc::{Receiver, channel};
    use std::time::Duration;
    use tempfile::TempDir;

    const DONE: &[u8] = b"\x80\x05K\x00K\x01\x86\x94.<F2B_END_COMMAND>";

    /// A server that replies this to every command; nothing means that it keeps silent. It hands out what it
    /// was sent.
    fn server(reply: &'static [u8]) -> (TempDir, Receiver<String>) {
        let folder = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(folder.path().join("sock")).unwrap();
        let (sender, commands) = channel();
        std::thread::spawn(move || {
            let mut silent = Vec::new();
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut command = Vec::new();
                while !command.ends_with(b"<F2B_END_COMMAND>") {
                    let mut bytes = [0; 100];
                    match stream.read(&mut bytes).unwrap() {
                        0 => break,
                        count => command.extend(&bytes[..count]),
                    }
                }
                if sender.send(String::from_utf8_lossy(&command).into_owned()).is_err() {
                    return;
                }
                stream.write_all(reply).unwrap();
                if reply.is_empty() {
                    silent.push(stream);
                }
            }
        });
        (folder, commands)
    }

    fn bench(folder: &TempDir, options: &str) -> Bench {
        let socket = folder.path().join("sock");
        let text =
            format!("<Plugin f>\n module = Fail2Ban\n socket = {}\n {options}\n</Plugin>", socket.display());
        Bench::new(&text).attribute("client_address", "192.0.2.10")
    }

    fn next(commands: &Receiver<String>) -> String {
        commands.recv_timeout(Duration::from_secs(20)).unwrap()
    }

    #[test]
    fn the_client_is_banned_once_a_mail() {
        let (folder, commands) = server(DONE);
        let mut bench = bench(&folder, "jail = mail");
        assert_eq!((bench.run(), bench.run()), (None, None));
        let command = next(&commands);
        assert!(command.contains("mail") && command.contains("192.0.2.10"), "{command}");
        bench.attribute_again("client_address", "::ffff:192.0.2.11");
        assert_eq!(bench.run_fresh(), None);
        let command = next(&commands);
        assert!(
            command.contains('\n') && command.contains("192.0.2.11") && !command.contains("ffff"),
            "{command}"
        );
        assert!(commands.try_recv().is_err());
    }

    #[test]
    fn what_is_no_address_of_another_machine_is_not_banned() {
        let (folder, commands) = server(DONE);
        let mut bench = bench(&folder, "");
        for client in ["unknown", "", "127.0.0.1", "::1", "::ffff:127.0.0.5", "0.0.0.0", "mail.example"] {
            bench.attribute_again("client_address", client);
            assert_eq!(bench.run_fresh(), None, "{client}");
        }
        assert!(commands.try_recv().is_err());
    }

    #[test]
    fn a_ban_that_failed_says_why_and_is_tried_again() {
        let error =
            b"\x80\x05K\x01\x8c\x01m\x94\x8c\x14UnknownJailException\x94\x93\x94\x8c\x07postfix\x94\x85\x94R\
                      \x94\x86\x94.<F2B_END_COMMAND>";
        let (folder, commands) = server(error);
        let mut bench = bench(&folder, "");
        for _ in 0..2 {
            let error = bench.try_run().unwrap_err();
            assert!(error.ends_with("UnknownJailException: postfix"), "{error}");
            next(&commands);
        }
    }

    #[test]
    fn a_reply_that_is_none_fails() {
        for reply in [&b"<F2B_END_COMMAND>"[..], b"nonsense<F2B_END_COMMAND>", b"\x80\x05K\x00"] {
            let (folder, _commands) = server(reply);
            assert!(bench(&folder, "").try_run().is_err(), "{reply:?}");
        }
    }

    #[test]
    fn a_server_that_keeps_silent_is_told_of_each() {
        let (folder, commands) = server(b"");
        let mut bench = bench(&folder, "");
        for _ in 0..20 {
            assert_eq!(bench.run_fresh(), None);
            next(&commands);
        }
    }

    #[test]
    fn without_a_server_it_fails_at_once_until_there_is_one() {
        let folder = tempfile::tempdir().unwrap();
        let mut bench = bench(&folder, "");
        for _ in 0..2 {
            let error = bench.try_run().unwrap_err();
            assert!(error.contains("No such file"), "{error}");
        }
        assert_eq!(bench.session.result("f-fail2ban"), None);
        let _listener = UnixListener::bind(folder.path().join("sock")).unwrap();
        let until = std::time::Instant::now() + Duration::from_secs(20);
        // Nobody replies there, which is not an error.
        while bench.try_run().is_err() {
            assert!(std::time::Instant::now() < until);
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    #[test]
    fn a_jail_has_a_name_that_can_be_sent() {
        for jail in ["\"\"", "\"p\u{f6}st\"", "\"a<F2B_END_COMMAND>\"", &"x".repeat(256)] {
            let mistakes =
                Bench::mistakes(&format!("<Plugin f>\n module = Fail2Ban\n jail = {jail}\n</Plugin>"));
            assert!(mistakes.len() == 1 && mistakes[0].contains("jail: "), "{mistakes:?}");
        }
    }
}
