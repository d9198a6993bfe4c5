//! `Fail2Ban`: has fail2ban ban the client.

use crate::options::{UserConfig, options};
use crate::plugin::{Cx, Error, Notes, Plugin, Setup, Verdict};
use crate::value::{Seconds, Span, Switch};
use crate::world::fail2ban::{self, Outcome, check_jail};
use std::net::IpAddr;

options! {
    /// Has the client banned by fail2ban, whose firewall rules then keep it away.
    ///
    /// It stands inside a plugin that finds out who deserves it, and bans once a mail. The daemon needs write
    /// access to the socket of fail2ban; `chgrp mtpolicyd` and `chmod g+rw` do it, in a file
    /// `ExecStartPost` of fail2ban's unit, since the socket is made anew at each start. The jail has to exist
    /// there; it needs no filter or log of its own.
    ///
    /// Addresses of the machine itself (127.0.0.0/8, ::1) are never banned. A jail that does not exist, or a
    /// fail2ban that is not running, fails the plugin; while it runs but does not reply in time, bans are left
    /// to it, and mail goes on without waiting.
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
        /// Whether clients are banned.
        enabled: UserConfig<Switch> = Switch::On,
        /// The path of fail2ban's UNIX socket.
        socket: String = "/var/run/fail2ban/fail2ban.sock",
        /// The jail in which they are banned.
        jail: String = "postfix",
        /// How long a mail waits for fail2ban.
        timeout: Span = Span(Seconds(1)),
    }
}

/// See the options.
pub struct Fail2Ban {
    options: Fail2BanOptions,
    notes: Notes,
    mark: String,
    server: fail2ban::Fail2Ban,
}

impl Plugin for Fail2Ban {
    const NAME: &'static str = "Fail2Ban";
    type Options = Fail2BanOptions;

    fn new(options: Fail2BanOptions, setup: &mut Setup<'_, '_>) -> Option<Fail2Ban> {
        if let Err(why) = check_jail(&options.jail) {
            let span = setup.section.span_of("jail");
            setup.section.report().error(span, format!("jail: {why}"), None);
            return None;
        }
        let server = fail2ban::Fail2Ban::new(&options.socket, options.timeout.0.duration());
        let mark = format!("{}-fail2ban", setup.name);
        Some(Fail2Ban { options, notes: setup.notes(), mark, server })
    }

    async fn run(&self, cx: &mut Cx<'_>) -> Result<Verdict, Error> {
        let client = cx.attribute("client_address")?;
        let ip = std::str::from_utf8(client).ok().and_then(|client| client.parse::<IpAddr>().ok());
        if self.options.enabled.get(cx.session) == Switch::Off || cx.session.result(&self.mark).is_some() {
            return Ok(Verdict::Next);
        }
        // Postfix says `unknown` of a client that has none.
        let Some(ip) = ip.map(|ip| ip.to_canonical()) else { return Ok(Verdict::Next) };
        if ip.is_loopback() || ip.is_unspecified() {
            self.notes.note(format_args!("{ip} is this machine and is not banned"));
            return Ok(Verdict::Next);
        }
        let jail = &self.options.jail;
        match self.server.ban(jail, ip, cx.deadline.backends).await? {
            Outcome::Done => self.notes.note(format_args!("{ip} is banned in jail {jail}")),
            Outcome::Sent => self.notes.note(format_args!("fail2ban was told to ban {ip} in jail {jail}")),
        }
        cx.session.first_time(&self.mark);
        Ok(Verdict::Next)
    }
}
