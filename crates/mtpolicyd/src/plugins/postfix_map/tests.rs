//! What a table's answer does. What the types find is compared with postmap in the integration tests.

use crate::testing::Bench;
use std::io::{Read, Write};
use std::net::TcpListener;
use tempfile::NamedTempFile;

fn table(text: &str) -> NamedTempFile {
    let mut file = NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

fn bench(map: &str, options: &str) -> Bench {
    Bench::new(&format!(
        "<Plugin m>\n module = PostfixMap\n db_file = \"{map}\"\n match_action = yes\n\
         not_match_action = no\n {options}\n</Plugin>"
    ))
}

#[test]
fn only_ok_and_numbers_are_a_match() {
    let file = table("10 OK\n10.1 123\n10.2 REJECT\n10.3 ok\n10.4 OK extra\n10.5 0\n");
    let mut bench = bench(&format!("texthash:{}", file.path().display()), "");
    for (address, answer) in [
        ("10.0.0.1", "yes"),
        ("10.1.0.1", "yes"),
        ("10.2.0.1", "no"),
        ("10.3.0.1", "no"),
        ("10.4.0.1", "no"),
        ("10.5.0.1", "yes"),
        ("11.0.0.1", "no"),
    ] {
        bench.attribute_again("client_address", address);
        assert_eq!(bench.run().as_deref(), Some(answer), "{address}");
    }
}

#[test]
fn an_attribute_is_looked_up_by_its_parts() {
    let file = table("b.example OK\nu+x@a.example OK\nv@ OK\n<> OK\nbob OK\n");
    let map = format!("texthash:{}", file.path().display());
    for (field, value, answer) in [
        ("sender", "someone@mail.b.example", "yes"),
        ("sender", "U+X@a.example", "yes"),
        ("sender", "B.example.!someone", "yes"),
        ("sender", "u+x%a.example", "yes"),
        ("sender", "u+x@a.example.", "yes"),
        ("sender", "u@a.example", "no"),
        ("sender", "v+w@c.example", "yes"),
        ("sender", "", "yes"),
        ("helo_name", "x.b.example", "yes"),
        ("sasl_username", "bob", "yes"),
        ("sasl_username", "bob@c.example", "no"),
    ] {
        let options = format!("field = {field}\n recipient_delimiter = +");
        let mut bench = bench(&map, &options).attribute(field, value);
        assert_eq!(bench.run().as_deref(), Some(answer), "{field} {value}");
    }
    let options = "field = sender\n parent_domain_matches_subdomains = 0";
    let mut bench = bench(&map, options).attribute("sender", "someone@mail.b.example");
    assert_eq!(bench.run().as_deref(), Some("no"));
}

#[test]
fn patterns_get_the_whole_value_as_it_is() {
    let file = table("/^Bob@/i 1\n/^(\\d+)@/ $1\n");
    let mut bench = bench(&format!("pcre:{}", file.path().display()), "field = sender");
    for (sender, answer) in [("Bob@a", "yes"), ("bob@a", "no"), ("77@a", "yes")] {
        bench.attribute_again("sender", sender);
        assert_eq!(bench.run().as_deref(), Some(answer), "{sender}");
    }
}

#[test]
fn quoted_users_and_final_dots_are_looked_up_as_by_postfix() {
    let file = table("\"c d\"@example.org OK\nbob@example.net OK\n");
    let mut bench = bench(&format!("texthash:{}", file.path().display()), "field = sender");
    for (sender, answer) in [
        ("c d@example.org", "yes"),
        ("C D@Example.org.", "yes"),
        ("bob@example.net.", "yes"),
        ("c@example.org", "no"),
    ] {
        bench.attribute_again("sender", sender);
        assert_eq!(bench.run().as_deref(), Some(answer), "{sender}");
    }
    let pattern = table("/^\"c d\"@example\\.org$/ OK\n");
    let mut bench = self::bench(&format!("pcre:{}", pattern.path().display()), "field = sender");
    assert_eq!(bench.attribute_again("sender", "c d@example.org.").run().as_deref(), Some("yes"));
}

#[test]
fn a_pattern_that_takes_too_much_leaves_the_message_undecided() {
    let file = table("/^(a+)(a+)\\1\\2!/ OK\n/./ OK\n");
    let mut bench = bench(&format!("pcre:{}", file.path().display()), "field = sender");
    let action = bench.attribute_again("sender", &("a".repeat(3_001) + "!")).run();
    assert!(action.as_ref().is_some_and(|action| action.starts_with("defer")), "{action:?}");
    let action = bench.attribute_again("sender", &("a".repeat(30) + "!")).run();
    assert_eq!(action.as_deref(), Some("yes"));
}

#[test]
fn a_table_that_can_not_be_read_is_reported_at_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    std::fs::write(path("new.lmdb"), "x").unwrap();
    std::fs::write(path("text.db"), "this is not a database".repeat(1_000)).unwrap();
    // One that was written just now may still be written.
    let before = std::time::SystemTime::now() - std::time::Duration::from_secs(60);
    std::fs::File::options().write(true).open(path("text.db")).unwrap().set_modified(before).unwrap();
    std::fs::write(path("text"), "192.0.2.1 OK\n".repeat(1_000)).unwrap();
    std::fs::File::options().write(true).open(path("text")).unwrap().set_modified(before).unwrap();
    std::fs::write(path("bad"), "/(?R)/ OK\n").unwrap();
    std::fs::write(path("good"), "/a/ OK\n").unwrap();
    let warned = |map: &str| {
        Bench::warnings(&format!(
            "<Plugin m>\n module = PostfixMap\n db_file = \"{map}\"\n match_action = yes\n</Plugin>"
        ))
    };
    for (map, wanted) in [
        (format!("hash:{}", path("none")), "no such file"),
        (path("none.db"), "no such file"),
        (format!("hash:{}", path("new")), "new.lmdb, which is `lmdb:`"),
        (path("new.db"), "new.lmdb, which is `lmdb:`"),
        (format!("hash:{}", path("text")), "this is not a"),
        (format!("pcre:{}", path("bad")), "line 1: recursion is not supported"),
        (format!("cidr:{}", folder.path().display()), "this is not a regular file"),
        (path("text"), "text.db, which postmap has made of it"),
        (format!("socketmap:unix:{}:x", path("nosock")), "nosock: no such socket; until it answers"),
        (format!("socketmap:unix:{}:x", path("good")), "good: this is not a socket"),
    ] {
        let said = warned(&map);
        assert!(said.len() == 1 && said[0].contains(wanted), "{map}: {said:?}");
        assert!(said[0].starts_with("3:12 db_file: "), "{said:?}");
    }
    for map in [format!("pcre:{}", path("good")), "socketmap:inet:127.0.0.1:1:x".to_owned()] {
        assert_eq!(warned(&map), Vec::<String>::new(), "{map}");
    }
}

#[test]
fn a_match_is_scored_once_and_a_missing_attribute_says_nothing() {
    let file = table("10 OK\n");
    let text = format!(
        "<Plugin m>\n module = PostfixMap\n db_file = \"texthash:{}\"\n score = 3\n</Plugin>",
        file.path().display()
    );
    let mut bench = Bench::new(&text).attribute("client_address", "10.0.0.1");
    assert_eq!((bench.run(), bench.run()), (None, None));
    assert_eq!(bench.session.text("score_detail"), Some("m=3"));
    assert_eq!(Bench::new(&text).run(), None);
}

#[test]
fn a_table_that_is_not_there_fails_the_plugin() {
    for (map, failure) in [
        ("/nowhere/map.db", "/nowhere/map.db: no such file"),
        ("hash:/nowhere/map", "/nowhere/map.db: no such file"),
        ("lmdb:/nowhere/map", "/nowhere/map.lmdb: no such file"),
        ("cdb:/nowhere/map.cdb", "/nowhere/map.cdb: no such file"),
        ("cidr:/nowhere/map", "/nowhere/map: no such file"),
        ("socketmap:unix:/nowhere/socket:map", "down: No such file or directory (os error 2)"),
    ] {
        let mut bench = bench(map, "").attribute("client_address", "10.0.0.1");
        let said = bench.try_run().unwrap_err();
        assert!(said.ends_with(failure), "{said}");
    }
}

#[test]
fn what_is_no_table_is_not_searched() {
    let file = table(&"no table\n".repeat(400));
    for map in [file.path().display().to_string(), format!("lmdb:{}.lmdb", file.path().display())] {
        let link = format!("{}.lmdb", file.path().display());
        let _ = std::os::unix::fs::symlink(file.path(), &link);
        let mut bench = bench(&map, "").attribute("client_address", "10.0.0.1");
        let said = bench.try_run().unwrap_err();
        assert!(said.contains("this is not a"), "{said}");
        let _ = std::fs::remove_file(link);
    }
}

#[test]
fn mistakes_are_found_at_the_start() {
    let mistakes = |map: &str, options: &str| {
        Bench::mistakes(&format!(
            "<Plugin m>\n module = PostfixMap\n db_file = \"{map}\"\n{options}\n</Plugin>"
        ))
    };
    let untyped = mistakes("/etc/postfix/map.db", " field = sender");
    assert_eq!(untyped, ["4:10 field: a file without a type is for client_address only"]);
    let unknown = mistakes("mysql:/etc/postfix/map", "");
    assert!(unknown[0].contains("`mysql` is not one of the types hash"), "{unknown:?}");
    let missing = Bench::mistakes("<Plugin m>\n module = PostfixMap\n</Plugin>");
    assert_eq!(missing, ["1:1 Plugin m needs the option `db_file`"]);
}

/// A socketmap server that answers each question by its key, and counts connections.
fn server(answer: fn(&str) -> String) -> (u16, std::sync::Arc<std::sync::atomic::AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let connections = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counter = connections.clone();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            counter.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            std::thread::spawn(move || {
                let mut buffer = [0; 1000];
                while let Ok(count @ 1..) = stream.read(&mut buffer) {
                    let question = String::from_utf8_lossy(&buffer[..count]).into_owned();
                    let key = question.split(' ').nth(1).unwrap().trim_end_matches(',').to_owned();
                    let text = answer(&key);
                    // In two pieces, as it may come.
                    let answer = format!("{}:{text},", text.len());
                    stream.write_all(&answer.as_bytes()[..3]).unwrap();
                    std::thread::sleep(std::time::Duration::from_millis(5));
                    let _ = stream.write_all(&answer.as_bytes()[3..]);
                    if key == "close" {
                        break;
                    }
                }
            });
        }
    });
    (port, connections)
}

#[test]
fn a_service_is_asked_over_one_connection() {
    let (port, connections) = server(|key| match key {
        "good" | "close" => "OK OK".to_owned(),
        "temp" => "TEMP no disk".to_owned(),
        "odd" => "MAYBE ".to_owned(),
        _ => "NOTFOUND ".to_owned(),
    });
    let mut bench = bench(&format!("socketmap:inet:127.0.0.1:{port}:map"), "field = sasl_username");
    for (user, answer) in
        [("good", Ok("yes")), ("bad", Ok("no")), ("temp", Err("TEMP no disk")), ("close", Ok("yes"))]
    {
        bench.attribute_again("sasl_username", user);
        let said = bench.try_run();
        match answer {
            Ok(answer) => assert_eq!(said.unwrap().as_deref(), Some(answer), "{user}"),
            Err(failure) => assert!(said.as_ref().is_err_and(|said| said.ends_with(failure)), "{said:?}"),
        }
    }
    assert_eq!(connections.load(std::sync::atomic::Ordering::Relaxed), 1);
    bench.attribute_again("sasl_username", "good");
    assert_eq!(bench.run().as_deref(), Some("yes"), "the server has closed the connection meanwhile");
    bench.attribute_again("sasl_username", "odd");
    let said = bench.try_run().unwrap_err();
    assert!(said.contains("not one of OK, NOTFOUND"), "{said}");
}

/// What fails next, until it is that.
fn fails_at_last(bench: &mut Bench, failure: &str) -> bool {
    (0..60).any(|_| bench.try_run().is_err_and(|said| said.ends_with(failure)))
}

#[test]
fn a_silent_service_is_found_dead() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let map = format!("socketmap:inet:{}:map", silent.local_addr().unwrap());
    let mut bench = bench(&map, "timeout = 1").attribute("client_address", "10.0.0.1");
    let said = bench.try_run().unwrap_err();
    assert!(said.ends_with("no answer in time"), "{said}");
    assert!(fails_at_last(&mut bench, "down: no answer in time"), "requests don't wait for it forever");
}

#[test]
fn a_service_that_hangs_up_is_dead_until_it_answers() {
    let pause = || std::thread::sleep(std::time::Duration::from_millis(10));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let map = format!("socketmap:inet:{}:map", listener.local_addr().unwrap());
    let questions = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let seen = questions.clone();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let mut buffer = [0; 100];
            let count = stream.read(&mut buffer).unwrap();
            let mut seen = seen.lock().unwrap();
            seen.push(String::from_utf8_lossy(&buffer[..count]).into_owned());
            if seen.len() > 3 {
                let _ = stream.write_all(b"5:OK OK,");
            }
        }
    });
    let mut bench = bench(&map, "").attribute("client_address", "10.0.0.1");
    let is_back = (0..6000).any(|_| {
        pause();
        bench.try_run().is_ok_and(|said| said.as_deref() == Some("yes"))
    });
    assert!(is_back);
    let probe = "13:map mtpolicyd,";
    let asked = ["12:map 10.0.0.1,", probe, probe, probe, "12:map 10.0.0.1,"];
    assert_eq!(*questions.lock().unwrap(), asked, "that it takes a connection does not make it alive");
}
