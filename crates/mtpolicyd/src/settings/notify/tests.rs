//! Tests of the `<Notify>` blocks.

use super::*;
use crate::events::{EventKind, Events};
use crate::options::Report;
use config_general::Limits;
use std::os::unix::fs::PermissionsExt;

/// The blocks of a text, and everything that is said of it.
fn read_text(text: &str) -> (Option<Vec<NotifySettings>>, String) {
    let document = config_general::parse(Path::new("c"), text.as_bytes(), &Limits::default()).unwrap();
    let report = Report::default();
    let mut root = Section::new(&document.root, &report);
    let settings = read(&mut root);
    let said: Vec<_> = report.into_diagnostics().into_iter().map(|it| it.message).collect();
    (settings, said.join("; "))
}

#[test]
fn each_way_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let secret = folder.path().join("secret");
    std::fs::write(&secret, "s3cret\n").unwrap();
    let text = format!(
        "<Notify ops>\nwebhook = http://127.0.0.1:1/x\nsecret_file = {}\nevents = \"backend-down, \
         limit-reached\"\n</Notify>\n<Notify boss>\nmail = a@example.org\nfrom = b@example.org\n\
         min_level = error\n</Notify>\n<Notify page>\ncommand = /bin/true\nargument = one\n\
         argument = \"two words\"\n</Notify>\n",
        secret.display()
    );
    let (settings, said) = read_text(&text);
    assert_eq!(said, "");
    let [ops, boss, page] = &settings.unwrap()[..] else { panic!("three") };
    assert!(matches!(&ops.way, Way::Webhook { secret: Some(Secret(it)), .. } if it == "s3cret"));
    assert!(matches!(&page.way, Way::Command { arguments, .. } if arguments == &["one", "two words"]));
    let events = Events::default();
    let wants =
        |who: &NotifySettings, kind| who.wants(&events.event(kind, EventState::Begins, "", String::new()));
    assert!(wants(ops, EventKind::LimitReached) && !wants(ops, EventKind::LimitNear));
    assert!(wants(boss, EventKind::BackendDown) && !wants(boss, EventKind::LimitReached));
    assert!(EventKind::ALL.into_iter().filter(|kind| *kind != EventKind::Test).all(|it| wants(page, it)));
}

#[test]
fn a_receiver_that_cannot_work_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("not-a-program");
    std::fs::write(&file, "x").unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
    let not_executable = format!("<Notify x>\ncommand = {}\n</Notify>", file.display());
    for (text, is_refused, said) in [
        ("<Notify>\nmail = a@b.test\n</Notify>", true, "no name"),
        ("<Notify x>\n</Notify>", true, "needs `webhook`, `mail` or `command`"),
        ("<Notify x>\nmail = a@b.test\ncommand = /bin/true\n</Notify>", true, "already"),
        ("<Notify x>\nmail = a@b.test\n</Notify>", false, "without `from`"),
        ("<Notify x>\nmail = \"a b@c.test\"\n</Notify>", true, "not an address"),
        ("<Notify x>\nmail = \"a@b.test>\"\n</Notify>", true, "not an address"),
        ("<Notify x>\ncommand = true\n</Notify>", true, "begins with a slash"),
        ("<Notify x>\ncommand = /no/such/program\n</Notify>", false, "can't be run now"),
        (&not_executable, false, "can't be run now"),
        ("<Notify x>\nwebhook = http://[::1]/\nsecret_file = /no/such/file\n</Notify>", true, "No such file"),
        ("<Notify x>\nwebhook = http://[::1]/\nsecret = \"\"\n</Notify>", true, "empty"),
        ("<Notify x>\ncommand = /bin/true\nsecret = s\n</Notify>", false, "has no effect without `webhook`"),
        (
            "<Notify x>\ncommand = /bin/true\nevents = limit-full\n</Notify>",
            true,
            "did you mean `limit-near`?",
        ),
        (
            "<Notify x>\ncommand = /bin/true\n</Notify>\n<Notify x>\ncommand = /bin/true\n</Notify>",
            true,
            "more than",
        ),
    ] {
        let (settings, found) = read_text(text);
        assert!(found.contains(said), "{text}: {found}");
        assert_eq!(settings.is_none(), is_refused, "{text}: {found}");
    }
}
