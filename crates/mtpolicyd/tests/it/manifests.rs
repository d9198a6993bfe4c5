//! The crates of the workspace and what they use.
//!
//! Knows: manifests and `docs/dependencies.md`. Must not know: what any code does.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Which crates of the workspace each crate may use: their order is this list's.
const ARROWS: &[(&str, &[&str])] = &[
    ("config-general", &[]),
    ("dns-stub", &[]),
    ("log-messages", &[]),
    ("lookups", &[]),
    ("perl-regex", &[]),
    ("postfix-maps", &[]),
    ("postfix-policy", &[]),
    ("safe-files", &[]),
    ("spf", &[]),
    ("decisions", &["lookups"]),
    ("backends", &["dns-stub", "log-messages", "lookups", "postfix-policy", "safe-files"]),
    (
        "mtpolicyd",
        &[
            "backends",
            "config-general",
            "decisions",
            "log-messages",
            "lookups",
            "perl-regex",
            "postfix-maps",
            "postfix-policy",
            "safe-files",
            "spf",
        ],
    ),
];

/// Dependencies of tests and benchmarks; the page names them below its table.
const FOR_TESTS: &[&str] = &["criterion", "proptest", "tempfile"];

#[test]
fn crates_use_those_that_they_may() {
    let crates: Vec<_> = names_in("crates").into_iter().filter(|name| is_crate(name)).collect();
    let mut named: Vec<_> = ARROWS.iter().map(|(name, _)| *name).collect();
    named.sort_unstable();
    assert_eq!(crates, named, "ARROWS names others");
    for (name, may_use) in ARROWS {
        let manifest = read(&format!("crates/{name}/Cargo.toml"));
        let mut used: Vec<_> =
            keys(&manifest).filter(|key| crates.iter().any(|known| known == key)).collect();
        used.sort_unstable();
        // Tests may want more of a crate.
        used.dedup();
        assert_eq!(used, *may_use, "crates/{name}/Cargo.toml");
        assert!(root().join(format!("crates/{name}/README.md")).exists(), "crates/{name} has no README.md");
    }
}

fn is_crate(name: &str) -> bool {
    root().join(format!("crates/{name}/Cargo.toml")).exists()
}

#[test]
fn every_dependency_has_its_reason() {
    let manifest = read("Cargo.toml");
    let (_, dependencies) = manifest.split_once("[workspace.dependencies]\n").unwrap();
    let (dependencies, _) = dependencies.split_once("\n\n").unwrap();
    let foreign = dependencies.lines().filter(|line| !line.contains("path ="));
    let declared: BTreeSet<_> = foreign.filter_map(|line| line.split(' ').next()).collect();
    let page = read("docs/dependencies.md");
    let mut explained: Vec<_> = page.lines().flat_map(crates_of_row).collect();
    for name in FOR_TESTS {
        assert!(page.contains(name), "docs/dependencies.md does not name {name}");
        explained.push(name);
    }
    let once: BTreeSet<_> = explained.iter().copied().collect();
    assert_eq!(once, declared, "docs/dependencies.md on the left, Cargo.toml on the right");
    assert_eq!(once.len(), explained.len(), "docs/dependencies.md names something twice");
    let manifests: Vec<_> =
        ARROWS.iter().map(|(name, _)| read(&format!("crates/{name}/Cargo.toml"))).collect();
    let used: BTreeSet<_> = manifests.iter().flat_map(|manifest| keys(manifest)).collect();
    let idle: Vec<_> = declared.difference(&used).collect();
    assert!(idle.is_empty(), "no crate uses {idle:?}");
}

/// The crates in the first cell of a row; what stands in brackets are their features.
fn crates_of_row(line: &str) -> Vec<&str> {
    let Some(cell) = line.strip_prefix("| ").and_then(|rest| rest.split(" |").next()) else {
        return Vec::new();
    };
    if cell == "crate" {
        return Vec::new();
    }
    let outside = cell.split('(').enumerate().map(|(number, part)| match number {
        0 => part,
        _ => part.split_once(')').map_or("", |(_, after)| after),
    });
    outside.flat_map(|part| part.split(',')).map(str::trim).filter(|name| !name.is_empty()).collect()
}

#[test]
fn features_in_brackets_are_no_crates() {
    assert_eq!(crates_of_row("| a (`x`, ...), b-c, d | why | who | - |"), ["a", "b-c", "d"]);
    assert!(crates_of_row("text").is_empty() && crates_of_row("| crate | what for |").is_empty());
}

/// What stands before the first dot or blank of each line.
fn keys(manifest: &str) -> impl Iterator<Item = &str> {
    let mut is_of_dependencies = false;
    manifest.lines().filter_map(move |line| {
        if line.starts_with('[') {
            is_of_dependencies = line.trim_end_matches(']').ends_with("dependencies");
        }
        line.split(['.', ' ']).next().filter(|_| is_of_dependencies)
    })
}

#[test]
fn the_clients_that_a_build_can_lack_are_those_of_the_manual() {
    let clients = list_of(&read("crates/backends/Cargo.toml"), "default");
    let (daemon, page) = (read("crates/mtpolicyd/Cargo.toml"), read("docs/install.md"));
    assert_eq!(list_of(&daemon, "default"), clients);
    assert_eq!(list_of(&daemon, "required-features"), clients, "the tests that ask real servers");
    for client in &clients {
        assert!(daemon.contains(&format!("\n{client} = [\"backends/{client}\"]\n")), "{client}");
        assert!(page.contains(&format!("`{client}`")), "docs/install.md does not name {client}");
    }
    assert_eq!(clients.len(), 8);
}

/// Crates that others may use.
const FOR_OTHERS: &[&str] =
    &["config-general", "dns-stub", "perl-regex", "postfix-maps", "postfix-policy", "spf"];

/// Some of the categories that crates.io has.
const CATEGORIES: &[&str] = &[
    "asynchronous",
    "config",
    "database",
    "email",
    "network-programming",
    "parser-implementations",
    "text-processing",
];

#[test]
fn what_others_may_use_is_a_whole_package() {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    for name in FOR_OTHERS {
        let output = Command::new(&cargo)
            .args(["package", "--list", "--allow-dirty", "--offline", "--package", name])
            .current_dir(root())
            .output()
            .expect("cargo is there");
        let errors = String::from_utf8_lossy(&output.stderr);
        let warnings = errors.lines().filter(|line| line.starts_with("warning"));
        // Where the repository is published is for the maintainers to say.
        let others =
            warnings.filter(|line| !line.ends_with("no documentation, homepage or repository")).count();
        assert!(output.status.success() && others == 0, "{name}: {errors}");
        let list = String::from_utf8_lossy(&output.stdout).into_owned();
        let files: Vec<_> = list.lines().collect();
        for file in ["src/lib.rs", "README.md", "LICENSE-MIT", "LICENSE-APACHE"] {
            assert!(files.contains(&file), "{name} lacks {file}: {files:?}");
        }
        let data: Vec<_> = files.iter().filter(|file| file.starts_with("tests/")).collect();
        assert!(data.is_empty(), "{name} has {data:?}");
        let manifest = read(&format!("crates/{name}/Cargo.toml"));
        assert!(
            manifest.contains("\ndescription = \"") && list_of(&manifest, "keywords").len() > 2,
            "{name}"
        );
        let categories = list_of(&manifest, "categories");
        let unknown: Vec<_> =
            categories.iter().filter(|category| !CATEGORIES.contains(&category.as_str())).collect();
        assert!(!categories.is_empty() && unknown.is_empty(), "{name}: {unknown:?}");
        let page = read(&format!("crates/{name}/README.md"));
        assert!(page.contains("```rust") && page.contains("## Licence"), "crates/{name}/README.md");
    }
}

/// The texts of a list in a manifest.
fn list_of(manifest: &str, key: &str) -> Vec<String> {
    let line = manifest.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(" = ["));
    let texts = line.into_iter().flat_map(|list| list.split('"').skip(1).step_by(2));
    texts.map(str::to_owned).collect()
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn names_in(folder: &str) -> Vec<String> {
    let entries = fs::read_dir(root().join(folder)).expect("a folder");
    let mut names: Vec<_> =
        entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}
