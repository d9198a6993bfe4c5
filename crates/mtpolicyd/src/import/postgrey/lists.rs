//! The whitelists of postgrey, which greylisting here reads as they are.
//!
//! Knows: where they are. Must not know: what an entry means.

use super::Sources;
use super::command_line::CommandLine;
use crate::import::{ImportError, Imported, entry, read};
use crate::plugins::unreadable_lines;
use config_general::Item;
use std::path::{Path, PathBuf};

/// The two kinds: the option of postgrey, ours, and the names in its folder.
const KINDS: [(&str, &str); 2] =
    [("whitelist-clients", "whitelist_clients"), ("whitelist-recipients", "whitelist_recipients")];

/// An option for each list that is there. Lists with lines that can't be read are named only as copies
/// without them.
pub fn take_over(
    sources: &Sources,
    line: &CommandLine,
    imported: &mut Imported,
) -> Result<Vec<Item>, ImportError> {
    let mut options = Vec::new();
    for (given, option) in KINDS {
        let named: Vec<_> = line.all(given).map(PathBuf::from).collect();
        let is_named = !named.is_empty();
        let usual = ["", ".local"].map(|end| sources.lists.join(format!("{option}{end}")));
        for path in if is_named { named } else { usual.to_vec() } {
            if !path.exists() {
                if is_named {
                    imported.leave_out(path.display(), "there is no such file");
                }
                continue;
            }
            let text = read(&path)?;
            let skipped = unreadable_lines(option, &text);
            for (number, why) in &skipped {
                imported.leave_out(format!("{} line {number}", path.display()), why);
            }
            match &sources.copies {
                Some(folder) => {
                    let name = path.file_name().map_or_else(|| option.into(), |name| name.to_owned());
                    let copy = folder.join(name);
                    write(&copy, &without(&text, &skipped))?;
                    options.push(entry(option, copy.display()));
                }
                None if skipped.is_empty() => options.push(entry(option, path.display())),
                None => imported.leave_out(
                    path.display(),
                    "not in the configuration because of these lines; with --lists DIR a copy without \
                     them is",
                ),
            }
        }
    }
    if sources.copies.is_none() && !options.is_empty() {
        imported.note(format!(
            "the whitelists stay in {}; with --lists DIR they are copied, so that postgrey can be purged",
            sources.lists.display()
        ));
    }
    Ok(options)
}

fn without(text: &str, skipped: &[(usize, String)]) -> String {
    let lines = text.lines().enumerate().map(|(at, line)| {
        let is_skipped = skipped.iter().any(|(number, _)| *number == at + 1);
        if is_skipped { format!("# {line}\n") } else { format!("{line}\n") }
    });
    lines.collect()
}

/// Writes a new file. One that is there stays, unless it says the same.
pub fn write(path: &Path, text: &str) -> Result<(), ImportError> {
    let failed = |why: &dyn std::fmt::Display| ImportError(format!("can't write {}: {why}", path.display()));
    if std::fs::read(path).is_ok_and(|there| there == text.as_bytes()) {
        return Ok(());
    }
    let options = std::fs::OpenOptions::new().write(true).create_new(true).open(path);
    let mut file = options.map_err(|error| failed(&error))?;
    std::io::Write::write_all(&mut file, text.as_bytes()).map_err(|error| failed(&error))
}
