//! What the dialect makes of single inputs, as measured with the original.

use std::path::Path;

use config_general::{Block, Item, Limits, parse, repetitions};

/// An input, and [`outcome`] of it.
type Row = (&'static [u8], &'static str);

/// The rows of the measured table, in its order.
const MEASURED: &[Row] = &[
    (b"a = foo \\  \nb = 1\n", r#"a="foo \\"; b="1""#),
    (b"a = foo \\\\\nb = 1\n", r#"a="foo \\"; b="1""#),
    (b"a = x \\# y\n", r#"a="x # y""#),
    (b"a = 1\r\nb = x \\\r\n  y\r\n", r#"a="1"; b="x \\"; y"#),
    (b"a=<<E\nx\n", ""),
    (b"a = <<E\n  x\n   y\n  E\n", r#"a="x\n y""#),
    (b"<b \"x y\" z>\nq=1\n</b>\n", r#"b["x y" z]{q="1"}"#),
    (b"<b x>\nq=1\n</B>\n", r#"b[x]{q="1"}"#),
    (b"<b>\nq=1\n</b>\n", r#"b{q="1"}"#),
    (b"<b x>\n</b>\n<b>\nq=1\n</b>\n", "t:3:1: error: <b> without a name after one with a name"),
    (b"b = 1\n<b x>\n</b>\n", "t:2:1: error: the block <b x> has the name of an option `b`"),
    (b"a = \"x\\\"\n", r#"a="x\\""#),
    (b"a = \"x # y\"\n", r#"a="\"x""#),
    (b"a\n", "a"),
    (b"a =\n", r#"a="""#),
    (b"=b\n", r#"="b""#),
    (b" = b\n", r#"="b""#),
    (b"a b = c\n", r#"a="b = c""#),
    (b"a: b\n", r#"a:="b""#),
    (b"a \"b c\" d\n", r#"a="\"b c\" d""#),
    (b"\"a b\" = c\n", r#""a="b\" = c""#),
    (b"<<include>>\n", "t:1:1: error: this include line names no file"),
    (b"a = /* x */ y\n", r#"a="y""#),
    (b"a /* = b\n", r#"a="/* = b""#),
    (b"x */ a = 1\n", r#"a="1""#),
    (b"a = 'x\n", r#"a="'x""#),
    (b"<b/>\n", "b{}"),
    (b"<b x/>\n", "b[x]{}"),
    (b"<b \"x\"/>\n", "b[x]{}"),
    (b"<b x> q=1 </b>\n", "t:1:1: error: <b x> q=1 </b> opened in line 1 is never closed"),
    (b"</b>\n", "t:1:1: error: `</b>` closes nothing: no block is open here"),
    (b"a = $b\n", r#"a="$b""#),
    (b"a = \\\\$b\n", r#"a="\\$b""#),
    (b"a[0] = 1\n", r#"a[0]="1""#),
    (b"<a b>\nx=1\nx=2\n</a>\n", r#"a[b]{x="1"; x="2"} repeated"#),
    (b"A=1\na=2\n", r#"A="1"; a="2""#),
    (b"a = x\n\tb = y\n", r#"a="x"; b="y""#),
    (b"a = 1;\n", r#"a="1;""#),
    (b"<b  x  >\nq=1\n</b>\n", r#"b[x  ]{q="1"}"#),
    (b"<b>\n</b>\n", "b{}"),
    (b"a = one \\\n# comment \\\n two\n", r#"a="one"; two"#),
    (b"a = \"\\\n  x\"\n", r#"a="x""#),
    (b"a <<E\nq\nE\n", r#"a="q""#),
    (b"a  =  <<  E\nq\nE  \n", r#"a="q""#),
    (b"include foo\n", r#"include="foo""#),
    (b"a = b # c \\\n d\n", r#"a="b"; d"#),
];

/// What the table does not show, asked of the original in the same way; where it differs, see the crate page.
const ASKED: &[Row] = &[
    // Several comments in a line are one.
    (b"a = x /* c */ y /* d */ z", r#"a="xz""#),
    (b"/* a\nb */ c = 1", r#"c="1""#),
    // A comment over lines has to begin its line.
    (b"a = 1 /* x\nb = 2\n*/ c = 3", r#"a="1 /* x"; b="2"; c="3""#),
    (b"a = x */\nb = 1", r#"b="1""#),
    (b"# /* c\nb = 1\nc*/ = 2", r#"b="1"; ="2""#),
    (b"/*\na = 1\n# */\nb = 2", r#"b="2""#),
    (b"a = \"/* x */\"", r#"a="""#),
    (b"/*x\n /* y */ b=1\n*/c=1", r#"c="1""#),
    // Comments do not end a continued line.
    (b"a = x\\\n/* c\nd */ y", r#"a="xy""#),
    // An empty line does.
    (b"a = x \\\n\n  y\nb=1", r#"a="x"; y; b="1""#),
    // The end of the file loses it.
    (b"a = x \\", ""),
    // Three backslashes do not continue it.
    (b"a = x\\\\\\\nb = 1", r#"a="x\\\\"; b="1""#),
    (b"a = x \\# \\\n y", r#"a="x # y""#),
    (b"a = \\\\# x", r#"a="\\# x""#),
    (b"a = x \\ # c\nb=1", r#"a="x \\"; b="1""#),
    (b"\\\na = 1", r#"a="1""#),
    (b"<b \\\nx>\nc=1\n</b>", r#"b[x]{c="1"}"#),
    // Only the same blanks are taken away.
    (b"a = <<E\ny\n\tz\n E", r#"a="y\n\tz""#),
    (b"a = <<E\n  x\n y\n  E\n", r#"a="x\n y""#),
    // Nothing but the mark means anything.
    (b"a = <<E\n  x \\\n  y # c\n/* z */\n  E\nb = 1\n", r#"a="x \\\ny # c\n/* z */"; b="1""#),
    (b"a = <<E # c\nx\nE\n", r#"a="x""#),
    (b"a = <<E F\nx\nE F\n", r#"a="x""#),
    (b"a=<<E\nE x\nE\n", r#"a="E x""#),
    (b"a = <<E\nE\n", r#"a="""#),
    (b"a = <<E\n\\\"x\\$ \\\\\nE", r#"a="\"x$ \\""#),
    (b"a = <<E\n\"x\ny\"\nE", r#"a="x\ny""#),
    (b"a = b <<E\nb=1", r#"a="b <<E"; b="1""#),
    (b"a b c = <<E\nx\nE", r#"a b c="x""#),
    (b"a = \"<<E\"\nb = 1", r#"a="<<E"; b="1""#),
    (b"= <<E\nx\nE", r#"=="x""#),
    (b"a<<E\nx", "a<<E; x"),
    // A continued line goes on behind it.
    (b"a = \\\nb = <<E\nx\nE\nc=1", r#"b="x"; a="c=1""#),
    (b"<b>\na = <<E\n</b>\nE\n</b>", r#"b{a="</b>"}"#),
    (b"a = <<E\r\n  x\r\n  y\r\n  E\r\n", r#"a="x\r\ny""#),
    (b"<b>\n</ b>", "b{}"),
    (b"<b>\n<c>\n</b>\n</c>", "b{c{}}"),
    (b"< b x>\nc=1\n</b>", r#" b x{c="1"}"#),
    (b"<>", "<>"),
    (b"</>", "</>"),
    (b"<b x> y\n", r#"<b="x> y""#),
    (b"<\"b c\" \"x y\">\n</b>", "b c[x y]{}"),
    (b"<b \"\">\n</b>", r#"b[""]{}"#),
    (b"<b \"x\" >\n</b>", r#"b["x" ]{}"#),
    (b"<b \"x\"\"y\">\n</b>", r#"b["x""y"]{}"#),
    (b"<b  >\n</b>", "b[]{}"),
    // Names have no escapes.
    (b"<b x\\#y>\n</b>", r#"b[x\#y]{}"#),
    (b"<b <x>>\n</b>", "b[<x>]{}"),
    (b"<b//>", "b/{}"),
    (b"<b x>\n</b>\nb=1", "t:3:1: error: the option `b` has the name of a block <b>"),
    (b"b\n<b>\n</b>", "t:2:1: error: the block <b> has the name of an option `b`"),
    (b"<b>\n</b>\n<b x>\n</b>", "b{}; b[x]{}"),
    (b"a=\"", r#"a="""#),
    (b"a=\"\"\"\"", r#"a="\"\"""#),
    (b"a = \"b\" c", r#"a="\"b\" c""#),
    (b"a = \\\"b\"", r#"a="\"b\"""#),
    (b"a = x\\y\\\\z\\\"\\#\\$\\%", r##"a="x\\y\\z\"#$\\%""##),
    (b"a\\$b = 1", r#"a\$b="1""#),
    (b"a = 1\rb=1", r#"a="1\rb=1""#),
    (b"a\x0bb", r#"a="b""#),
    // A blank of Latin-1 is none.
    (b"a\xa0b", "a\u{a0}b"),
    (b"\xef\xbb\xbfa = 1", r#"a="1""#),
    // Here and in the next two the original is not followed.
    (b"a = <br/>", r#"a="<br/>""#),
    (b"<b/> # c", "b{}"),
    (b"<b x/>\r\n", "b[x]{}"),
];

/// The tree on one line: `key="value"`, a bare `key`, `kind[name]{...}`; or the first error and its place.
fn outcome(text: &[u8]) -> String {
    match parse(Path::new("t"), text, &Limits::default()) {
        Ok(document) if has_repetitions(&document.root) => format!("{} repeated", show(&document.root)),
        Ok(document) => show(&document.root),
        Err(failure) => {
            let error =
                failure.diagnostics.iter().find(|found| found.severity == config_general::Severity::Error);
            let shown = error.expect("a failure has an error").display(&failure.sources).to_string();
            shown.lines().next().unwrap_or_default().to_owned()
        }
    }
}

fn show(block: &Block) -> String {
    let items = block.items.iter().map(|item| match item {
        Item::Entry(entry) => match &entry.value {
            Some(value) => format!("{}={value:?}", entry.key),
            None => entry.key.clone(),
        },
        Item::Block(block) => match &block.name {
            Some(name) => format!("{}[{name}]{{{}}}", block.kind, show(block)),
            None => format!("{}{{{}}}", block.kind, show(block)),
        },
    });
    items.collect::<Vec<_>>().join("; ")
}

fn has_repetitions(block: &Block) -> bool {
    !repetitions(block).is_empty() || block.blocks().any(has_repetitions)
}

#[test]
fn rows_of_the_table() {
    for (text, expected) in MEASURED.iter().chain(ASKED) {
        assert_eq!(outcome(text), *expected, "{}", text.escape_ascii());
    }
}
