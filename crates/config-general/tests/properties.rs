//! For any input: no panic, a bounded answer; and what is printed reads back as the same tree.

use std::path::Path;

use config_general::{Block, Entry, Item, Limits, Severity, parse, to_text};
use proptest::prelude::*;

/// A tree without places, to be compared.
fn strip(block: &Block) -> Block {
    let items = block.items.iter().map(|item| match item {
        Item::Block(block) => Item::Block(strip(block)),
        Item::Entry(Entry { key, value, .. }) => entry(key.clone(), value.clone()),
    });
    Block { kind: block.kind.clone(), name: block.name.clone(), items: items.collect(), ..Block::default() }
}

fn entry(key: String, value: Option<String>) -> Item {
    Item::Entry(Entry { key, value, key_span: Default::default(), value_span: Default::default() })
}

/// Keys begin small and kinds big, so that none is both.
fn trees() -> impl Strategy<Value = Block> {
    let value = prop_oneof![
        "[ -~]{0,12}",
        r#"[\\"'#$/*<>= \n\r\tEND]{0,12}"#,
        any::<String>().prop_map(|text| text.replace('\0', "")),
    ];
    let entry =
        ("[a-z_][a-zA-Z0-9_.:$\\\\\"'>-]{0,8}", proptest::option::of(value)).prop_map(|(k, v)| entry(k, v));
    let entries = proptest::collection::vec(entry, 0..4);
    let leaf = entries.prop_map(|items| Block { items, ..Block::default() });
    leaf.prop_recursive(4, 24, 4, |inner| {
        let name = "[a-zäöü0-9.:/<>'$-][ a-z/>]{0,8}| [a-z ]{1,4}|";
        let block = ("[A-Z][a-z]{1,6}( [a-z]{1,3})?", name, inner.clone());
        let block = block.prop_map(|(kind, name, inner)| {
            Item::Block(Block { kind, name: Some(name), items: inner.items, ..Block::default() })
        });
        (inner, proptest::collection::vec(block, 0..3)).prop_map(|(mut outer, blocks)| {
            outer.items.extend(blocks);
            outer
        })
    })
}

/// Lines made of what means something, so that random text gets somewhere.
fn fragments() -> impl Strategy<Value = String> {
    const WORDS: &[&str] = &[
        "a",
        "key",
        " ",
        "  ",
        "=",
        " = ",
        "\"",
        "'",
        "#",
        "\\#",
        "\\",
        "\\\\",
        "\\\n",
        "\n",
        "\n",
        "\n",
        "\r\n",
        "<b>\n",
        "</b>\n",
        "\n<b x>\n",
        "<c/>\n",
        "/>",
        "/*",
        "*/",
        "<<E\n",
        "\nE\n",
        "<",
        ">",
        "</",
        "$",
        "\u{e4}",
        "<<include ",
        ">>\n",
        "\u{feff}",
        "\t",
    ];
    proptest::collection::vec(proptest::sample::select(WORDS), 0..40).prop_map(|words| words.concat())
}

fn check_answer(text: &[u8]) {
    let limits = Limits { diagnostics: 10, ..Limits::default() };
    let (sources, diagnostics) = match parse(Path::new("t"), text, &limits) {
        Ok(document) => {
            assert!(document.diagnostics.iter().all(|found| found.severity == Severity::Warning));
            (document.sources, document.diagnostics)
        }
        Err(failure) => {
            assert!(failure.diagnostics.iter().any(|found| found.severity == Severity::Error));
            (failure.sources, failure.diagnostics)
        }
    };
    assert!(diagnostics.len() <= 2 * limits.diagnostics + 2);
    for found in &diagnostics {
        let Some(span) = found.span else { continue };
        let text = &sources.get(span.source).text;
        assert!(text.get(span.start as usize..span.end as usize).is_some(), "{found:?} in {text:?}");
        assert!(!found.display(&sources).to_string().is_empty());
    }
}

/// Every span lies in the text, between characters; a key's is the key itself where it is in one piece.
fn check_spans(block: &Block, text: &str) {
    let at = |span: config_general::Span| &text[span.start as usize..span.end as usize];
    for entry in block.entries() {
        let key = at(entry.key_span);
        assert!(key == entry.key || key.contains('\n') || key.contains("/*"), "{key:?} {:?}", entry.key);
        assert_eq!(entry.value.is_none(), at(entry.value_span).is_empty() && entry.value.is_none());
    }
    for block in block.blocks() {
        assert!(at(block.span).starts_with('<') && at(block.span).ends_with('>'));
        let (_, _) = (at(block.kind_span), at(block.name_span));
        check_spans(block, text);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_printed_reads_back(tree in trees()) {
        let text = to_text(&tree);
        let document = parse(Path::new("t"), text.as_bytes(), &Limits::default());
        let document = document.unwrap_or_else(|failure| panic!("{failure}\n{text}"));
        prop_assert_eq!(strip(&document.root), strip(&tree), "{}", text);
    }

    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        check_answer(&bytes);
    }

    #[test]
    fn no_text_panics(text in fragments()) {
        check_answer(text.as_bytes());
        if let Ok(document) = parse(Path::new("t"), text.as_bytes(), &Limits::default()) {
            check_spans(&document.root, &document.sources.get(Default::default()).text);
        }
    }
}
