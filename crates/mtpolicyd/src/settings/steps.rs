//! The table of the plugins of a file: names, places and options.
//!
//! Knows: blocks, places. Must not know: what an option means.

use config_general::{Block, Entry, Item, Sources, Span};
use decisions::{OptionInfo, StepInfo};

/// The plugins with these opening tags, in that order; the tree is without secrets.
pub(super) fn table(root: &Block, tags: &[Span], sources: &Sources) -> Vec<StepInfo> {
    let mut found = Vec::new();
    for host in root.blocks().filter(|block| block.kind == "VirtualHost") {
        let name = value(host, "name").unwrap_or_default();
        let around = StepInfo { host: name.to_owned(), path: name.to_owned(), ..StepInfo::default() };
        collect(host, &around, 0, sources, &mut found);
    }
    let take = |tag: &Span| {
        let place = found.iter().position(|(span, _)| span == tag);
        place.map_or_else(StepInfo::default, |place| found[place].1.clone())
    };
    tags.iter().map(take).collect()
}

fn collect(
    block: &Block,
    around: &StepInfo,
    depth: u8,
    sources: &Sources,
    found: &mut Vec<(Span, StepInfo)>,
) {
    for inner in block.blocks().filter(|inner| inner.kind == "Plugin") {
        let name = inner.name.clone().unwrap_or_default();
        let (file, line) = place(inner.span, sources);
        let step = StepInfo {
            host: around.host.clone(),
            path: format!("{}/{name}", around.path),
            name,
            module: value(inner, "module").unwrap_or_default().to_owned(),
            depth,
            file,
            line,
            options: options(inner, sources),
        };
        found.push((inner.span, step.clone()));
        collect(inner, &step, depth.saturating_add(1), sources, found);
    }
}

fn value<'a>(block: &'a Block, key: &str) -> Option<&'a str> {
    block.entries().filter(|entry| entry.key == key).last().and_then(|entry| entry.value.as_deref())
}

fn options(block: &Block, sources: &Sources) -> Vec<OptionInfo> {
    let option = |entry: &Entry| {
        let (file, line) = place(entry.key_span, sources);
        OptionInfo { name: entry.key.clone(), value: entry.value.clone().unwrap_or_default(), file, line }
    };
    let entries = block.items.iter().filter_map(|item| match item {
        Item::Entry(entry) if entry.key != "module" => Some(option(entry)),
        _ => None,
    });
    entries.collect()
}

fn place(span: Span, sources: &Sources) -> (String, u32) {
    (sources.get(span.source).path.display().to_string(), sources.position(span).line)
}

#[cfg(test)]
mod tests {
    use crate::settings::Settings;

    #[test]
    fn every_plugin_has_its_line_and_no_secret() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mtpolicyd.conf");
        let text = "<VirtualHost 12345>\nname = in\n<Plugin a>\nmodule = Condition\nkey = sender\n\
                    re_match = x\n<Plugin b>\nmodule = Action\naction = \"reject it\"\n</Plugin>\n</Plugin>\n\
                    <Plugin c>\nmodule = HttpLookup\nurl = \"http://127.0.0.1/\"\ntoken = hunter2\n\
                    </Plugin>\n</VirtualHost>\n\
                    <VirtualHost 12346>\nname = out\n<Plugin a>\nmodule = Action\naction = dunno\n\
                    </Plugin>\n</VirtualHost>\n";
        std::fs::write(&path, format!("port = 12345,12346\n{text}")).unwrap();
        let (settings, _) = Settings::load(&path, None).unwrap_or_else(|messages| panic!("{messages}"));
        let steps = &settings.steps.steps;
        let shown: Vec<_> =
            steps.iter().map(|step| (&*step.path, &*step.module, step.line, step.depth)).collect();
        let expected = [
            ("in/a", "Condition", 4, 0),
            ("in/a/b", "Action", 8, 1),
            ("in/c", "HttpLookup", 13, 0),
            ("out/a", "Action", 21, 0),
        ];
        assert_eq!(shown, expected);
        let option = &steps[1].options[0];
        assert_eq!((&*option.name, &*option.value, option.line), ("action", "reject it", 10));
        assert!(!format!("{steps:?}").contains("hunter2"), "{steps:?}");
        assert_eq!(steps[2].place(), format!("{}:13", path.display()));
        assert_eq!(settings.steps.fingerprint, settings.fingerprint);
    }
}
