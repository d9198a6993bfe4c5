//! What others have configured, without passwords and keys: Postfix, systemd.
//!
//! Knows: how their settings are written. Must not know: where they come from.

use backends::dns::without_key;

/// What a value is replaced with.
pub const HIDDEN: &str = "(not shown)";

/// Parts of the names of parameters whose values may be secrets.
const SECRET_NAMES: [&str; 6] = ["password", "passwd", "secret", "token", "credential", "apikey"];

/// Kinds of lookup tables that stand in the parameter itself, with what they hold.
const OWN_TABLES: [&str; 3] = ["static:", "inline:", "password="];

/// The lines of postconf(1) without passwords, and without the keys in the zones of DNS lists.
pub fn postfix(text: &str) -> String {
    let mut shown = String::new();
    let mut is_hidden = false;
    for line in text.lines() {
        if line.starts_with(char::is_whitespace) {
            // It goes on with a parameter.
            if !is_hidden {
                shown += &parameter(line);
                shown.push('\n');
            }
            continue;
        }
        // What has a blank before it is a service of master.cf with its options.
        let own = line.split_once('=').filter(|(name, _)| !name.trim().contains(char::is_whitespace));
        is_hidden = own.is_some_and(|(name, value)| is_secret(name.trim(), value));
        match own {
            Some((name, _)) if is_hidden => shown += &format!("{name}= {HIDDEN}"),
            _ => shown += &parameter(line),
        }
        shown.push('\n');
    }
    shown
}

/// Other lines that repeat something of it.
pub fn lines(text: &str) -> String {
    text.lines().map(|line| parameter(line) + "\n").collect()
}

fn is_secret(name: &str, value: &str) -> bool {
    let (name, value) = (name.to_ascii_lowercase(), value.to_ascii_lowercase());
    let is_reference = name.ends_with("_file") || name.ends_with("_maps") || name.ends_with("_cache");
    let is_named =
        !is_reference && (name.ends_with("_key") || SECRET_NAMES.iter().any(|secret| name.contains(secret)));
    is_named || has_secret(&value)
}

fn has_secret(value: &str) -> bool {
    let has_login = value.split_once("://").is_some_and(|(_, rest)| rest.contains('@'));
    has_login || OWN_TABLES.iter().any(|table| value.contains(table))
}

/// A line with each name as it may be shown; one of a service that has a secret is not shown from there on.
fn parameter(line: &str) -> String {
    let is_name = |c: char| c.is_alphanumeric() || matches!(c, '.' | '-' | '_');
    let mut shown = String::new();
    let mut rest = line;
    while let Some(start) = rest.find(is_name) {
        let end = rest[start..].find(|c| !is_name(c)).map_or(rest.len(), |length| start + length);
        shown.push_str(&rest[..start]);
        let word = &rest[start..end];
        // A path is not the name of a zone.
        let is_path = shown.ends_with('/') || rest[end..].starts_with('/');
        shown += &if is_path || !word.contains('.') { word.to_owned() } else { without_key(word) };
        rest = &rest[end..];
    }
    shown.push_str(rest);
    without_options(&shown)
}

/// The line of a service up to the first of its options that has a secret.
fn without_options(line: &str) -> String {
    let mut options = line.split(" -o ");
    let mut shown = options.next().unwrap_or_default().to_owned();
    if has_secret(&shown.to_ascii_lowercase()) {
        return HIDDEN.to_owned();
    }
    for option in options {
        let own = option.trim_start_matches(['{', ' ']).split_once('=');
        if own.is_some_and(|(name, value)| is_secret(name.trim(), value)) {
            return shown + " -o " + HIDDEN;
        }
        shown = shown + " -o " + option;
    }
    shown
}

/// A unit of systemd without the values of the variables that it sets.
pub fn unit(text: &str) -> String {
    let mut goes_on = false;
    let lines = text.lines().map(|line| {
        let is_environment = goes_on || line.trim_start().starts_with("Environment=");
        goes_on = is_environment && line.trim_end().ends_with('\\');
        if is_environment { format!("Environment={HIDDEN}\n") } else { format!("{line}\n") }
    });
    lines.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn postfix_is_shown_without_passwords_and_keys() {
        for (line, shown) in [
            ("smtpd_tls_key_file = /etc/ssl/k.pem", "smtpd_tls_key_file = /etc/ssl/k.pem"),
            (
                "smtp_sasl_password_maps = hash:/etc/postfix/sasl",
                "smtp_sasl_password_maps = hash:/etc/postfix/sasl",
            ),
            ("smtp_sasl_password_maps = static:me:hunter2", "smtp_sasl_password_maps = (not shown)"),
            ("my_password = hunter2", "my_password = (not shown)"),
            ("dqs_key = hunter2", "dqs_key = (not shown)"),
            ("x = inline:{ a=hunter2 }", "x = (not shown)"),
            ("x = http://me:hunter2@h/", "x = (not shown)"),
            (
                "x = reject_rbl_client hunter2.zen.dq.spamhaus.net=127.0.0.[2..11], permit",
                "x = reject_rbl_client ***.zen.dq.spamhaus.net=127.0.0.[2..11], permit",
            ),
            (
                "postscreen_dnsbl_sites = hunter2.zen.dq.spamhaus.net*3",
                "postscreen_dnsbl_sites = ***.zen.dq.spamhaus.net*3",
            ),
            ("smtp inet n - y - - smtpd -o a=b", "smtp inet n - y - - smtpd -o a=b"),
            ("smtp inet n - y - - smtpd -o p=static:hunter2", "smtp inet n - y - - smtpd -o (not shown)"),
            (
                "smtp inet n - y - - smtpd -o a=b -o my_token=hunter2",
                "smtp inet n - y - - smtpd -o a=b -o (not shown)",
            ),
            (
                "smtp inet n - y - - smtpd -o { my_token = hunter2 }",
                "smtp inet n - y - - smtpd -o (not shown)",
            ),
            ("relay = [mx.example.org]:25", "relay = [mx.example.org]:25"),
        ] {
            assert_eq!(postfix(line).trim_end(), shown);
        }
        let lines = "my_secret = a\n hunter2\nx = y\n z";
        assert_eq!(postfix(lines), "my_secret = (not shown)\nx = y\n z\n");
    }

    #[test]
    fn a_unit_is_shown_without_its_variables() {
        let text = "[Service]\nUser=x\nEnvironment=A=hunter2 \\\n B=hunter2\nEnvironmentFile=/etc/x\n";
        let shown = unit(text);
        assert!(
            !shown.contains("hunter2") && shown.contains("User=x") && shown.contains("/etc/x"),
            "{shown}"
        );
    }
}
