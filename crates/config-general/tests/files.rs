//! Files, includes, limits, and the words of diagnostics.

use std::fs;
use std::path::Path;

use config_general::{Document, Failure, Limits, Repetition, load, parse, repetitions};

fn read(text: &str) -> Result<Document, Failure> {
    parse(Path::new("t"), text.as_bytes(), &Limits::default())
}

fn errors(text: &str) -> String {
    read(text).expect_err("it is wrong").to_string()
}

fn warnings(text: &str) -> String {
    let document = read(text).unwrap_or_else(|failure| panic!("{failure}"));
    document.diagnostics.iter().map(|found| found.display(&document.sources).to_string() + "\n").collect()
}

/// Writes files into a folder of their own and loads the first.
fn folder(files: &[(&str, &str)]) -> (tempfile::TempDir, Result<Document, Failure>) {
    let folder = tempfile::tempdir().expect("a folder");
    for (name, text) in files {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().expect("it has a name")).expect("a folder");
        fs::write(path, text).expect("a file");
    }
    let loaded = load(&folder.path().join(files[0].0), &Limits::default());
    (folder, loaded)
}

fn keys(document: &Document) -> String {
    document.root.entries().map(|entry| entry.key.as_str()).collect::<Vec<_>>().join(" ")
}

#[test]
fn included_lines_stand_where_the_include_stood() {
    let (_folder, loaded) = folder(&[
        ("main.conf", "a = 1\n<<include x.inc>>\n<b>\n<<INCLUDE sub/y.inc >> # c\n</b>\nz = 1\n"),
        ("x.inc", "x = 1"),
        ("sub/y.inc", "\u{feff}y = 1\n<<include x2.inc>>\n"),
        ("x2.inc", "y2 = 1\n"),
    ]);
    let document = loaded.unwrap_or_else(|failure| panic!("{failure}"));
    assert_eq!(keys(&document), "a x z");
    let inner = document.root.blocks().next().unwrap();
    let last = inner.entries().last().unwrap();
    assert_eq!(last.key, "y2");
    assert_eq!(document.sources.len(), 4);
    assert!(document.sources.get(last.key_span.source).path.ends_with("x2.inc"));
}

#[test]
fn a_file_is_read_once() {
    let (_folder, loaded) = folder(&[
        ("main.conf", "<<include ./x.inc>>\n<<include sub/../x.inc>>\na = 1\n"),
        ("x.inc", "x = 1\n"),
        ("sub/y.inc", ""),
    ]);
    let document = loaded.unwrap_or_else(|failure| panic!("{failure}"));
    assert_eq!(keys(&document), "x a");
    let messages: Vec<_> = document.diagnostics.iter().map(|found| found.message.as_str()).collect();
    assert_eq!(messages.len(), 1, "{messages:?}");
    assert!(messages.iter().all(|message| message.contains("was read before")));
}

#[test]
fn a_loop_is_a_mistake() {
    let (_folder, loaded) =
        folder(&[("main.conf", "<<include x.inc>>\na = 1\n"), ("x.inc", "x = 1\n<<include ./main.conf>>\n")]);
    let failure = loaded.expect_err("a loop").to_string();
    assert!(failure.contains("x.inc:2:1: error: `./main.conf` includes itself"), "{failure}");
}

#[test]
fn what_cannot_be_included() {
    let (_folder, loaded) = folder(&[
        (
            "main.conf",
            "<<include none.inc>>\n<<include sub>>\n<<include \"x.inc\">>\n<<include>>\ninclude x.inc\n",
        ),
        ("sub/x.inc", ""),
        ("x.inc", ""),
    ]);
    let failure = loaded.expect_err("four mistakes").to_string();
    for part in [
        "main.conf:1:1: error: the included file `/",
        "/none.inc` does not exist",
        "main.conf:2:1: error: `",
        "is a directory",
        "main.conf:3:1: error: the included file `\"x.inc\"` does not exist",
        "help: write the name without quotes",
        "main.conf:4:1: error: this include line names no file",
    ] {
        assert!(failure.contains(part), "{part}\n{failure}");
    }
    assert!(!failure.contains(":5:"), "{failure}");
}

#[test]
fn main_files_that_are_none() {
    let folder = tempfile::tempdir().unwrap();
    let binary = folder.path().join("binary");
    fs::write(&binary, b"a = 1\nb\0c").unwrap();
    for (path, part) in [
        (folder.path().join("nofile.conf"), "nofile.conf` can't be read"),
        (folder.path().to_owned(), "is a directory"),
        (binary, "NUL byte in line 2"),
    ] {
        let failure = load(&path, &Limits::default()).expect_err("it is not a configuration").to_string();
        assert!(failure.contains(part), "{failure}");
    }
}

#[test]
fn include_chains_are_bounded() {
    let chain: Vec<_> = (0..40).map(|i| (format!("{i}"), format!("<<include {}>>\n", i + 1))).collect();
    let files: Vec<_> = chain.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
    let (_folder, loaded) = folder(&files);
    let failure = loaded.expect_err("too deep").to_string();
    assert!(failure.contains("16:1:1: error: `17` is one include too many"), "{failure}");
}

#[test]
fn every_limit_is_an_error_of_its_own() {
    let nested = "<Plugin p>\n".repeat(10_000) + &"</Plugin>\n".repeat(10_000);
    assert_eq!(
        errors(&nested),
        "t:65:1: error: <Plugin p> is nested too deep: 64 levels are allowed\n  \
         help: close the blocks that should not contain it"
    );
    assert!(errors(&"x".repeat(Limits::BYTES + 1)).contains("too large: all files together may have 16 MiB"));
    assert!(errors(&"a\n".repeat(Limits::ITEMS + 1)).starts_with("t:500001:1: error: too many settings"));
    let stray = errors(&"</b>\n".repeat(1_000));
    assert_eq!(stray.matches("closes nothing").count(), Limits::DIAGNOSTICS);
    assert!(stray.ends_with("error: and 900 more errors"), "{stray}");
}

#[test]
fn a_hundred_thousand_options() {
    let lines: String = (0..100_000).map(|i| format!("opt{i}=\"{}\"\n", "x".repeat(80))).collect();
    assert_eq!(read(&lines).unwrap().root.items.len(), 100_000);
}

/// Inputs that would take minutes if every line looked at the whole file.
#[test]
fn hostile_lines_stay_cheap() {
    let long = "x".repeat(100_000);
    for line in [
        "<b>\n</c>\n",
        "a = \\\n",
        "*/\n",
        "/*\n",
        "a = <<E\n",
        "a = \"x # \"\n",
        "<b x/>\n",
        "<<include x>>\n",
    ] {
        let _ = read(&(line.repeat(50_000) + &long));
    }
    for part in ["#", "\\#", "/*", "*/", "<", "=", "\"", "\\", "<<"] {
        let _ = read(&part.repeat(200_000));
    }
}

#[test]
fn all_mistakes_come_out_of_one_run() {
    let failure = errors("</x>\n<Plugin a>\nPlugin = 1\n<<include nope>>\n<Plugin b>\n</Plugin>\n");
    let here = std::env::current_dir().unwrap().display().to_string();
    let failure = failure.replace(&format!("{here}/"), "");
    let places: Vec<_> = failure.lines().filter(|line| line.starts_with("t:")).collect();
    assert_eq!(
        places,
        [
            "t:1:1: error: `</x>` closes nothing: no block is open here",
            "t:2:1: error: <Plugin a> opened in line 2 is never closed",
            "t:4:1: error: the included file `nope` does not exist",
            "t:5:1: error: the block <Plugin b> has the name of an option `Plugin`",
        ]
    );
}

#[test]
fn surprises_are_warned_of() {
    for (text, part) in [
        ("a = \"two # cut\"\n", "t:1:10: warning: this `#` cuts the value of `a`: quotes do not protect it"),
        ("a = b#c\n", "t:1:6: warning: this `#` cuts the value of `a`: it needs no blank"),
        ("a = 'x'\n", "t:1:5: warning: single quotes mean nothing"),
        ("a = \"x\n", "t:1:5: warning: the value of `a` begins with a quote"),
        ("a = \"\n", "t:1:5: warning: the value of `a` is a single quote mark"),
        (
            "b = 1\nx = <<EOT\ny\n",
            "t:2:1: warning: the here-document that begins here never ends: `EOT` is missing",
        ),
        ("<b>\n</c>\n", "t:2:1: warning: `</c>` closes <b> of line 1"),
        ("a = x \\ \n", "t:1:7: warning: this backslash does not continue the line"),
        ("a = x \\\r\nb\r\n", "t:1:7: warning: this backslash does not continue the line"),
        ("a = x \\", "t:1:1: warning: the file ends in a continued line"),
        ("a = */5 * *\n", "t:1:1: warning: `*/` ends no comment here"),
        ("b\n /* x\n", "t:2:2: warning: the comment that begins here never ends"),
        ("<b x> y\n", "t:1:1: warning: `<b` begins like a tag"),
        ("< b>\n</b>\n", "t:1:2: warning: the blank after `<` counts"),
        (
            "<b>\n</b>\n<b x>\n</b>\n",
            "t:3:1: warning: <b x> counts as a part of the <b> without a name above",
        ),
        (
            "a = \\\nb = <<E\nx\nE\nc\n",
            "t:2:1: warning: this here-document is not part of the continued line",
        ),
    ] {
        let found = warnings(text);
        assert!(found.starts_with(part), "{text:?}\n{found}");
        assert_eq!(found.matches("\n  help: ").count(), 1, "{text:?}\n{found}");
    }
}

#[test]
fn what_works_as_expected_is_not_warned_of() {
    let text = "a = 1 # c\nb = \"x\" # \"c\"\nc = \"x\"# c\n<D x>#c\n</d>\n<\"E\" x>\n</E x>\n<F/>\r\n# 'x'\n\
                g = x \\\n  y\n\
                h = \"x \\\n y\"\ni = it's\nj = say \"hi\"\n/* x */ k = <<E\n# \"\nE\nl = x \\# y\n";
    assert_eq!(warnings(text), "");
}

#[test]
fn places_survive_comments_and_continuations() {
    let document = read("ä = 1\n  key /* c */ = one \\\n    two # c\n<B \"a b\" >\n</B>\n").unwrap();
    let at = |span: config_general::Span| {
        let text = &document.sources.get(span.source).text;
        (document.sources.position(span).line, &text[span.start as usize..span.end as usize])
    };
    let entry = document.root.entries().nth(1).unwrap();
    assert_eq!(at(entry.key_span), (2, "key"));
    assert_eq!(at(entry.value_span), (2, "one \\\n    two"));
    let block = document.root.blocks().next().unwrap();
    assert_eq!(at(block.span), (4, "<B \"a b\" >"));
    assert_eq!((at(block.kind_span).1, at(block.name_span).1), ("B", "\"a b\" "));
}

#[test]
fn repetitions_are_kept_and_found() {
    let document = read("a = 1\n<b x>\n</b>\na = 2\n<b x>\n</b>\n<b y>\n</b>\n<c/>\n<c/>\n").unwrap();
    assert_eq!(document.root.items.len(), 7);
    let found: Vec<_> = repetitions(&document.root)
        .into_iter()
        .map(|found| match found {
            Repetition::Entry { first, again } => (first.key_span.start, again.key_span.start),
            Repetition::Block { first, again } => (first.span.start, again.span.start),
        })
        .collect();
    assert_eq!(found, [(0, 17), (6, 23), (45, 50)]);
}
