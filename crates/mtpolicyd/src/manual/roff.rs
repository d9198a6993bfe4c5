//! A page for man(1), in the man macros of groff.
//!
//! Knows: the little Markdown that the declarations use. Must not know: which pages there are.

use super::{Page, form, title, undent};

/// The section of the manual for file formats.
const SECTION: u8 = 5;

pub(super) fn page(page: &Page) -> String {
    let name = man_name(page.name);
    let mut text = format!(".TH {} {SECTION} \"\" mtpolicyd\n", quoted(&name.to_uppercase()));
    text += &format!(".SH NAME\n{} \\- {}\n", inline(&name), inline(&page.summary));
    text += ".SH DESCRIPTION\n";
    text += &paragraphs(&undent(page.about));
    for section in &page.sections {
        text += &format!(".SH {}\n", quoted(&section.heading.to_uppercase()));
        for option in &section.options {
            text += &format!(".TP\n.B {}\n", quoted(&title(option)));
            text += &format!("{}\n.br\n", inline(&form(option)));
            text += &paragraphs(&undent(option.doc)).replace(".PP\n", ".IP\n");
        }
    }
    let others = page.see_also().map(|other| format!(".BR {} ({SECTION}),\n", man_name(other)));
    text + ".SH SEE ALSO\n" + &others.collect::<String>() + ".BR mtpolicyd (8)\n"
}

/// The name under which man(1) finds the page.
pub(super) fn man_name(page: &str) -> String {
    if page.starts_with("mtpolicyd") { page.to_owned() } else { format!("mtpolicyd-{page}") }
}

/// Paragraphs and examples; the first paragraph needs no macro.
fn paragraphs(markdown: &str) -> String {
    let mut text = String::new();
    let (mut in_example, mut after_blank, mut after_heading) = (false, false, false);
    for line in markdown.lines() {
        if line.starts_with("```") {
            in_example = !in_example;
            text += if in_example { ".PP\n.nf\n.RS 2\n" } else { ".RE\n.fi\n" };
            after_blank = false;
        } else if in_example {
            text += &format!("{}\n", literal(line));
        } else if let Some(heading) = line.strip_prefix("## ") {
            text += &format!(".SH {}\n", quoted(&heading.to_uppercase().replace('`', "")));
            after_heading = true;
        } else if line.is_empty() {
            after_blank = !text.is_empty() && !after_heading;
        } else {
            after_heading = false;
            if std::mem::take(&mut after_blank) {
                text += ".PP\n";
            }
            text += &format!("{}\n", inline(line));
        }
    }
    text
}

/// Text in which backquotes set code in bold.
pub(super) fn inline(text: &str) -> String {
    let parts = text.split('`').enumerate();
    let marked = parts.map(|(n, part)| {
        let part = escape(part);
        if n % 2 == 1 { format!("\\fB{part}\\fR") } else { part }
    });
    guard(marked.collect())
}

/// Text as it stands.
fn literal(text: &str) -> String {
    guard(escape(text))
}

fn escape(text: &str) -> String {
    text.replace('\\', "\\e").replace('-', "\\-")
}

/// A dot or an apostrophe at the beginning of a line would make it a macro.
fn guard(line: String) -> String {
    if line.starts_with(['.', '\'']) { format!("\\&{line}") } else { line }
}

pub(super) fn quoted(text: &str) -> String {
    format!("\"{}\"", escape(text).replace('"', "\\(dq"))
}
