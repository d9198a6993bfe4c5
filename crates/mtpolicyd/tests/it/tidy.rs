//! The shape of the source: sizes, layers, what each file says of itself, links and names in the documents.
//!
//! Knows: the rules of `CONTRIBUTING.md` and `ARCHITECTURE.md`. Must not know: what any code does.
//!
//! Each rule takes a file and returns what is wrong with it; `every_rule_can_fail` shows that each one does.

use std::fs;
use std::path::{Path, PathBuf};

/// Modules of the daemon, lowest layer first: each uses those of its own layer and of lower ones.
const LAYERS: &[&[&str]] = &[
    &["address", "events", "facts", "journal", "log", "matching", "metrics", "network", "recorder", "value"],
    &["session"],
    &["options", "fields", "scoring"],
    &["connections", "carry_over", "intake", "state", "table_tasks", "tasks"],
    &["counters", "limits"],
    &["plugin"],
    &["awl", "dnsbl", "mode", "sender_policy", "sql_query"],
    &["chain"],
    &["plugins"],
    &["settings"],
    &["hygiene", "upkeep"],
    &["import", "manual", "server"],
    &["doctor"],
    &["cli"],
];

/// A file beyond this has more than one matter.
const MAX_FILE_LINES: usize = 500;

/// A function has to be seen at once.
const MAX_FUNCTION_LINES: usize = 70;

/// Two files beside one another fit on a screen.
const MAX_COLUMNS: usize = 110;

/// One file of the repository.
struct File {
    /// From the root of the repository.
    path: String,
    text: String,
}

/// What is wrong, each as `path:line: rule`.
type Complaints = Vec<String>;

type Rule = fn(&File) -> Complaints;

/// The rules for every file of Rust.
const RULES: &[Rule] = &[
    file_is_short,
    functions_are_short,
    lines_are_short,
    file_says_what_it_is,
    uses_lower_layers_only,
    settings_make_the_labels,
    plugins_stand_alone,
    nothing_is_unwrapped,
    todo_has_an_issue,
    lines_of_the_log_are_declared,
    no_test_measures_time,
];

#[test]
fn the_source_is_in_shape() {
    let files = sources();
    assert!(files.len() > 50, "the source is not there");
    let complaints = files.iter().flat_map(|file| RULES.iter().flat_map(move |rule| rule(file)));
    let complaints: Vec<_> = complaints.collect();
    assert!(complaints.is_empty(), "\n{}", complaints.join("\n"));
}

#[test]
fn every_module_has_a_layer() {
    let library = read("crates/mtpolicyd/src/lib.rs");
    let modules = library.lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';'));
    // The bench of the tests stands beside the layers.
    let modules: Vec<_> = modules.filter(|module| *module != "testing").collect();
    for module in &modules {
        assert!(layer_of(module).is_some(), "LAYERS does not name `{module}`");
    }
    assert_eq!(modules.len(), LAYERS.iter().map(|layer| layer.len()).sum::<usize>(), "LAYERS names others");
    let depths: Vec<_> = modules.iter().filter_map(|module| layer_of(module)).collect();
    let layers_of_rows = depths.windows(2).all(|pair| pair[0] <= pair[1] || pair[0] == LAYERS.len() - 1);
    assert!(layers_of_rows, "lib.rs lists the modules in the order of their layers: {modules:?}");
}

#[test]
fn every_plugin_is_registered() {
    let registry = read("crates/mtpolicyd/src/plugins/mod.rs");
    let folder = root().join("crates/mtpolicyd/src/plugins");
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let names = files.map(|path| path.file_stem().unwrap().to_string_lossy().into_owned());
    let missing: Vec<_> = names.filter(|name| name != "mod" && !is_registered(&registry, name)).collect();
    assert!(missing.is_empty(), "plugins/mod.rs does not list {missing:?}");
}

#[test]
fn the_plugin_in_contributing_is_the_one_that_is_tested() {
    let page = read("CONTRIBUTING.md");
    let quoted = page.split("```rust\n").nth(1).and_then(|rest| rest.split("```\n\n## ").next());
    let example = read("crates/mtpolicyd/src/testing/example.rs");
    assert_eq!(quoted, Some(&*example), "CONTRIBUTING.md quotes testing/example.rs");
}

fn is_registered(registry: &str, name: &str) -> bool {
    registry.lines().any(|line| line.trim().starts_with(&format!("Kind::of::<{name}::")))
}

#[test]
fn links_in_the_documents_lead_somewhere() {
    let mut complaints = Vec::new();
    for file in documents() {
        let folder = root().join(&file.path).parent().unwrap().to_owned();
        complaints.extend(dead_links(&file, &|target| folder.join(target).exists()));
    }
    assert!(complaints.is_empty(), "\n{}", complaints.join("\n"));
}

#[test]
fn names_in_life_of_a_request_exist() {
    let path = "docs/life-of-a-request.md";
    if !root().join(path).exists() {
        return;
    }
    let file = File { path: path.to_owned(), text: read(path) };
    let code: String =
        sources().into_iter().filter(|file| file.path.contains("/src/")).map(|file| file.text).collect();
    let complaints = unknown_names(&file, &code);
    assert!(complaints.is_empty(), "\n{}", complaints.join("\n"));
}

#[test]
fn every_rule_can_fail() {
    let file = |path: &str, text: &str| File { path: path.to_owned(), text: text.to_owned() };
    let in_daemon = |text: &str| file("crates/mtpolicyd/src/chain.rs", text);
    let long_function = format!("fn f() {{\n{}}}\n", "    x();\n".repeat(MAX_FUNCTION_LINES));
    let measured = concat!("fn f() { assert!(start.elap", "sed() < LIMIT); }\n");
    let bad: [(Rule, File); 16] = [
        (no_test_measures_time, in_daemon(measured)),
        (file_is_short, in_daemon(&"x\n".repeat(MAX_FILE_LINES + 1))),
        (functions_are_short, in_daemon(&long_function)),
        (
            functions_are_short,
            in_daemon(&long_function.replace("fn f() {", "pub(super) async fn f(\n) -> X {")),
        ),
        (lines_are_short, in_daemon(&"ü".repeat(MAX_COLUMNS + 1))),
        (file_says_what_it_is, in_daemon("use x;\n")),
        (file_says_what_it_is, in_daemon("//! A chain.\n//!\n//! Knows: links.\n")),
        (uses_lower_layers_only, in_daemon("use crate::plugins::KINDS;\n")),
        (uses_lower_layers_only, in_daemon("fn f() { crate::server::serve(); }\n")),
        (uses_lower_layers_only, in_daemon("use crate::{value::Flag, cli::run};\n")),
        (settings_make_the_labels, in_daemon("fn f() { Configured::from_settings(x); }\n")),
        (plugins_stand_alone, file("crates/mtpolicyd/src/plugins/rbl.rs", "use super::dbl::Dbl;\n")),
        (nothing_is_unwrapped, in_daemon("fn f() { x().unwrap(); }\n")),
        (todo_has_an_issue, in_daemon(concat!("// TO", "DO: later\n"))),
        (lines_of_the_log_are_declared, in_daemon("fn f() { tracing::warn!(\"x\"); }\n")),
        (lines_of_the_log_are_declared, in_daemon("use tracing::{info, warn};\n")),
    ];
    for (number, (rule, file)) in bad.iter().enumerate() {
        assert_eq!(rule(file).len(), 1, "the bad file {number} is not noticed, or too much");
    }
    let good = in_daemon(
        "//! A chain.\n//!\n//! Knows: links. Must not know: any.\n\nuse crate::plugin::Plugin;\n\n\
         #[cfg(test)]\nmod tests {\n    use crate::server::X;\n    fn g() {\n        x().unwrap();}\n}\n",
    );
    for rule in RULES {
        assert_eq!(rule(&good), Complaints::new());
    }
    assert!(!is_registered("mod rbl;\n    Kind::of::<dbl::Dbl>(),\n", "rbl"));
    let document = file("docs/a.md", "[a](b.md) [c](https://d.example) [e](f.md#g)\n\n```\n[h](i)\n```\n");
    assert_eq!(dead_links(&document, &|target| target == "f.md"), ["docs/a.md:1: there is no b.md"]);
    let names = file("docs/a.md", "`Chain::run`, `Chain::walk`, `Link`, `serve`, `port = 1`\n");
    let code = "impl Chain {\n    pub async fn run() {}\n}\nfn serve() {}\n";
    assert_eq!(
        unknown_names(&names, code),
        ["docs/a.md:1: no `walk` of `Chain::walk`", "docs/a.md:1: no `Link` of `Link`"]
    );
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Every file of Rust: the crates' own, their tests and benchmarks, the fuzz targets.
fn sources() -> Vec<File> {
    let mut files = Vec::new();
    for krate in names_in("crates") {
        for folder in ["src", "tests", "benches"] {
            collect(&format!("crates/{krate}/{folder}"), "rs", &mut files);
        }
    }
    collect("fuzz/fuzz_targets", "rs", &mut files);
    files
}

/// Everything that is written for people.
fn documents() -> Vec<File> {
    let mut files = Vec::new();
    collect("docs", "md", &mut files);
    collect("examples", "md", &mut files);
    for name in names_in("").into_iter().filter(|name| name.ends_with(".md")) {
        files.push(File { text: read(&name), path: name });
    }
    files
}

fn collect(folder: &str, extension: &str, files: &mut Vec<File>) {
    for name in names_in(folder) {
        let path = format!("{folder}/{name}");
        if root().join(&path).is_dir() {
            collect(&path, extension, files);
        } else if Path::new(&path).extension().is_some_and(|found| found == extension) {
            files.push(File { text: read(&path), path });
        }
    }
}

/// What is in a folder, sorted; nothing if there is no such folder.
fn names_in(folder: &str) -> Vec<String> {
    let entries = fs::read_dir(root().join(folder)).into_iter().flatten().flatten();
    let mut names: Vec<_> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

impl File {
    /// Whether it is compiled into tests only.
    fn is_test(&self) -> bool {
        const ENDS: [&str; 4] = ["/testing.rs", "/tests.rs", "_tests.rs", "/simulation.rs"];
        !self.path.contains("/src/") || ENDS.iter().any(|end| self.path.ends_with(end))
    }

    /// Its lines from 1, up to the tests at its end.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let lines = self.text.lines().enumerate().map(|(index, line)| (index + 1, line));
        lines.take_while(|(_, line)| line.trim() != "#[cfg(test)]" || self.is_test())
    }

    /// The module of the daemon that it is part of.
    fn module(&self) -> Option<&str> {
        let inside = self.path.strip_prefix("crates/mtpolicyd/src/")?;
        inside.split(['/', '.']).next()
    }

    fn complain(&self, line: usize, what: &str) -> String {
        format!("{}:{line}: {what}", self.path)
    }
}

fn layer_of(module: &str) -> Option<usize> {
    LAYERS.iter().position(|layer| layer.contains(&module))
}

fn file_is_short(file: &File) -> Complaints {
    let lines = file.text.lines().count();
    let long = lines > MAX_FILE_LINES;
    long.then(|| file.complain(lines, &format!("the file is longer than {MAX_FILE_LINES} lines")))
        .into_iter()
        .collect()
}

/// Relies on rustfmt: a function ends at the first closing brace that is indented like its `fn`.
fn functions_are_short(file: &File) -> Complaints {
    let lines: Vec<_> = file.text.lines().collect();
    let begins = lines.iter().enumerate().filter(|(_, line)| is_function(line));
    let lengths = begins.map(|(begin, line)| {
        let indent = &line[..line.len() - line.trim_start().len()];
        let end = lines[begin..].iter().position(|line| *line == format!("{indent}}}"));
        let one_line = line.ends_with('}') || line.ends_with(';');
        (begin + 1, if one_line { 1 } else { end.map_or(1, |end| end + 1) })
    });
    let long = lengths.filter(|(_, length)| *length > MAX_FUNCTION_LINES);
    long.map(|(line, length)| file.complain(line, &format!("the function has {length} lines"))).collect()
}

fn is_function(line: &str) -> bool {
    let words = line.trim_start().split_once("fn ").map(|(before, _)| before);
    words.is_some_and(|before| {
        before.split_whitespace().all(|word| {
            matches!(word, "pub" | "async" | "const" | "extern")
                || (word.starts_with("pub(") && word.ends_with(')'))
        })
    })
}

fn lines_are_short(file: &File) -> Complaints {
    let lines = file.text.lines().enumerate();
    let long = lines.filter(|(_, line)| line.chars().count() > MAX_COLUMNS);
    long.map(|(index, _)| file.complain(index + 1, &format!("more than {MAX_COLUMNS} columns"))).collect()
}

/// Every file opens with what it is; in the daemon also with what it may know. A plugin's folder says that
/// for it.
fn file_says_what_it_is(file: &File) -> Complaints {
    let opening: String = file.text.lines().take_while(|line| line.starts_with("//!")).collect();
    let free = ["plugins", "lib", "main", "testing", "bin"];
    let is_daemon = file.module().is_some_and(|module| !free.contains(&module)) && !file.is_test();
    let complete = !opening.is_empty()
        && (!is_daemon || (opening.contains("Knows: ") && opening.contains("Must not know: ")));
    (!complete)
        .then(|| file.complain(1, "opens with `//!`, `Knows:` and `Must not know:`"))
        .into_iter()
        .collect()
}

fn uses_lower_layers_only(file: &File) -> Complaints {
    if file.is_test() {
        return Complaints::new();
    }
    let Some(own) = file.module().and_then(layer_of) else { return Complaints::new() };
    let code = file.code().filter(|(_, line)| !line.trim_start().starts_with("//"));
    let used =
        code.flat_map(|(number, line)| modules_named(line).into_iter().map(move |module| (number, module)));
    let upwards = used.filter(|(_, module)| layer_of(module).is_some_and(|layer| layer > own));
    upwards.map(|(line, module)| file.complain(line, &format!("`{module}` is a higher layer"))).collect()
}

/// The labels of numbers are names of the configuration: what a client sends must not become one.
fn settings_make_the_labels(file: &File) -> Complaints {
    if file.is_test() || matches!(file.module(), None | Some("metrics" | "settings")) {
        return Complaints::new();
    }
    let made = file.code().filter(|(_, line)| line.contains("Configured::from"));
    made.map(|(line, _)| file.complain(line, "only the settings make labels of numbers")).collect()
}

/// The modules behind each `crate::`, a list in braces included.
fn modules_named(line: &str) -> Vec<&str> {
    let is_name = |c: char| c.is_alphanumeric() || c == '_';
    let first = |text: &'_ str| text.find(|c| !is_name(c)).unwrap_or(text.len());
    let uses = line.split("crate::").skip(1);
    uses.flat_map(|rest| match rest.strip_prefix('{') {
        Some(list) => list.split(',').map(|item| &item.trim()[..first(item.trim())]).collect(),
        None => vec![&rest[..first(rest)]],
    })
    .collect()
}

/// What several plugins need is a module below them.
fn plugins_stand_alone(file: &File) -> Complaints {
    if file.module() != Some("plugins") || file.path.ends_with("/mod.rs") {
        return Complaints::new();
    }
    let code = file.code();
    // A plugin of several files has them in a folder of its name.
    let part_of_one = file.path.split("/plugins/").nth(1).is_some_and(|rest| rest.contains('/'));
    let others = code.filter(|(_, line)| {
        (line.starts_with("use super::") && !part_of_one)
            || line.contains("crate::plugins::")
            || line.contains("use super::super")
    });
    others.map(|(line, _)| file.complain(line, "a plugin uses no other")).collect()
}

fn nothing_is_unwrapped(file: &File) -> Complaints {
    if file.is_test() {
        return Complaints::new();
    }
    let code = file.code().filter(|(_, line)| !line.trim_start().starts_with("//"));
    let unwraps = code.filter(|(_, line)| line.contains(".unwrap()"));
    unwraps.map(|(line, _)| file.complain(line, "say what should be there, or return the error")).collect()
}

/// A test that measures time fails on a busy machine. A clock that is paused is none that measures.
fn no_test_measures_time(file: &File) -> Complaints {
    if file.path.contains("/benches/") || file.text.contains("start_paused") {
        return Complaints::new();
    }
    let lines = file.text.lines().enumerate();
    let measured = lines.filter(|(_, line)| line.contains("assert") && line.contains(".elapsed()"));
    let complain = |(index, _)| file.complain(index + 1, "wait for an event, or count; benches measure");
    measured.map(complain).collect()
}

/// A line is logged by the function of its declaration with `messages!`, so that `docs/log.md` has it.
fn lines_of_the_log_are_declared(file: &File) -> Complaints {
    let is_log = file.module() == Some("log") || file.path.starts_with("crates/log-messages/");
    if file.is_test() || is_log {
        return Complaints::new();
    }
    let code = file.code().filter(|(_, line)| !line.trim_start().starts_with("//"));
    let logged = code.filter(|(_, line)| line.contains("tracing::"));
    logged.map(|(line, _)| file.complain(line, "declare the message with `messages!`")).collect()
}

fn todo_has_an_issue(file: &File) -> Complaints {
    const MARK: &str = concat!("TO", "DO");
    let lines = file.text.lines().enumerate();
    let open = lines.filter(|(_, line)| {
        let after = line.split_once(MARK).map(|(_, after)| after);
        after.is_some_and(|after| !after.trim_start_matches(['(', ' ']).starts_with('#'))
    });
    open.map(|(index, _)| file.complain(index + 1, "what is to be done has an issue: `(#12)`")).collect()
}

/// Links to files that do not exist; those of the web are not asked for.
fn dead_links(file: &File, exists: &dyn Fn(&str) -> bool) -> Complaints {
    let mut in_code = false;
    let mut complaints = Complaints::new();
    for (index, line) in file.text.lines().enumerate() {
        in_code ^= line.trim_start().starts_with("```");
        if in_code {
            continue;
        }
        for target in line.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let path = target.split('#').next().unwrap_or_default();
            let elsewhere = path.is_empty() || path.contains("://") || path.starts_with("mailto:");
            if !elsewhere && !exists(path) {
                complaints.push(file.complain(index + 1, &format!("there is no {path}")));
            }
        }
    }
    complaints
}

/// Names in backquotes, `Type::function` or alone, that the code does not declare.
fn unknown_names(file: &File, code: &str) -> Complaints {
    let is_name = |text: &str| !text.is_empty() && text.chars().all(|c| c.is_alphanumeric() || c == '_');
    let mut complaints = Complaints::new();
    for (index, line) in file.text.lines().enumerate() {
        for cited in line.split('`').skip(1).step_by(2) {
            let path = cited.trim_end_matches("()");
            let parts: Vec<_> = path.split("::").collect();
            let is_symbol = parts.iter().all(|part| is_name(part)) && is_code(&parts);
            let unknown = parts.iter().filter(|_| is_symbol).find(|part| !is_declared(part, code));
            complaints
                .extend(unknown.map(|part| file.complain(index + 1, &format!("no `{part}` of `{path}`"))));
        }
    }
    complaints
}

/// A path, or a type by its capital. Other single words are options, attributes and values.
fn is_code(parts: &[&str]) -> bool {
    let is_type = |part: &str| part.starts_with(char::is_uppercase) && part.contains(char::is_lowercase);
    parts.len() > 1 || is_type(parts[0])
}

fn is_declared(name: &str, code: &str) -> bool {
    const KEYWORDS: [&str; 10] =
        ["fn ", "struct ", "enum ", "trait ", "mod ", "type ", "const ", "static ", "impl ", "macro_rules! "];
    let ends = |rest: &str| !rest.starts_with(|c: char| c.is_alphanumeric() || c == '_');
    let declared = |keyword: &str| {
        let wanted = format!("{keyword}{name}");
        code.match_indices(&wanted).any(|(at, _)| ends(&code[at + wanted.len()..]))
    };
    // A variant or a module of the registry has no keyword.
    let variant = || {
        code.lines().any(|line| {
            line.trim().strip_prefix(name).is_some_and(|rest| rest.starts_with([',', '(', ' ', ':']))
        })
    };
    KEYWORDS.into_iter().any(declared) || variant()
}
