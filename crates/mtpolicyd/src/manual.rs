//! The manual, written out from the declarations of the options. Nothing here is known twice.
//!
//! Knows: what the options say of themselves. Must not know: what they do.

mod check_page;
mod control_page;
mod log_page;
mod metrics_page;
mod program;
mod roff;

pub use check_page::{check_page, explain_code};
pub use control_page::control;
pub use log_page::log_page;
pub use metrics_page::metrics_page;
pub use program::{COMMANDS, DAEMONS, page as program};

use crate::chain::StepOptions;
use crate::connections;
use crate::options::{OptionSpec, Options, Presence};
use crate::plugins::KINDS;
use crate::settings::{
    self, ConsoleOptions, ControlOptions, DnsOptions, Globals, HostOptions, JournalOptions, MetricsOptions,
    NotifyOptions,
};
use std::fmt::Write;

/// One page of the manual.
pub struct Page {
    /// Its name: `mtpolicyd.conf`, or that of a module.
    pub name: &'static str,
    /// One line for the head of a man page.
    pub summary: String,
    about: &'static str,
    sections: Vec<Section>,
}

struct Section {
    heading: &'static str,
    options: Vec<OptionSpec>,
}

/// How a page is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// For a browser.
    Markdown,
    /// For man(1).
    Man,
}

/// What the summary of a module's page begins with.
const MODULE: &str = "module of mtpolicyd: ";

/// The page of the configuration file.
const CONFIGURATION_PAGE: &str = "mtpolicyd.conf";

/// What that page begins with.
const CONFIGURATION: &str = "\
 The configuration file of mtpolicyd, by default /etc/mtpolicyd/mtpolicyd.conf.

 It is written in the dialect of Perl's Config::General: `key = value` lines, blocks in angle brackets,
 comments from `#` to the end of the line. A `#` inside quotes starts a comment too; write `\\#`. A value
 in double quotes keeps its spaces; single quotes have no meaning. A backslash at the end of a line continues
 it. `<<include FILE>>` includes another file. Plugins run in the order in which they are written.

 A relative path is looked for beside the file that names it. If there is no such file, it is relative to the
 folder in which the program was started, as in mtpolicyd 2; since `check` and the service may be started
 in different folders, this is a warning.

 `mtpolicyd check` reads the file and reports every mistake with its line. `docs/concepts.md` explains the
 terms: request, instance, session, chain, score and others.

 ```conf
 port = \"127.0.0.1:12345\"
 <VirtualHost 12345>
   name = \"incoming\"
   <Plugin spamhaus>
     module = \"RBL\"
     domain = \"zen.spamhaus.org\"
   </Plugin>
 </VirtualHost>
 ```
";

/// The page of the terms that the others use, which is written by hand.
const CONCEPTS: &str = include_str!("../../../docs/concepts.md");

/// What the page of each module ends its introduction with.
const WORDS: &str = "
Session, score, `uc_` and other words are explained in [concepts.md](../concepts.md); the options that every
plugin has, such as `on_error`, are in [mtpolicyd.conf.md](../mtpolicyd.conf.md).
";

/// Every page: the configuration file, then the modules.
pub fn pages() -> Vec<Page> {
    let mut sections = vec![Section { heading: "Options", options: Globals::specs() }];
    let blocks = [
        ("Options of a VirtualHost block", HostOptions::specs()),
        ("Options of every Plugin block", StepOptions::specs()),
        ("Options of the Dns block", DnsOptions::specs()),
        ("Options of the Control block", ControlOptions::specs()),
        ("Options of the Journal block", JournalOptions::specs()),
        ("Options of the Metrics block", MetricsOptions::specs()),
        ("Options of a Notify block", NotifyOptions::specs()),
        ("Options of the Console block", ConsoleOptions::specs()),
    ];
    let blocks = blocks.into_iter().chain(settings::session_option_specs());
    sections.extend(blocks.map(|(heading, options)| Section { heading, options }));
    let modules = connections::option_specs().into_iter();
    sections.extend(modules.map(|module| Section { heading: module.heading, options: module.options }));
    let summary = "configuration file of the policy daemon mtpolicyd".to_owned();
    let mut pages = vec![Page { name: CONFIGURATION_PAGE, summary, about: CONFIGURATION, sections }];
    pages.extend(KINDS.iter().map(|kind| {
        let mut sections = vec![Section { heading: "Options", options: (kind.options)() }];
        sections.extend((kind.blocks)().into_iter().map(|(heading, options)| Section { heading, options }));
        let first = undent(kind.about).split_inclusive('.').next().unwrap_or_default().replace('\n', " ");
        let summary = format!("{MODULE}{}", first.trim().trim_end_matches('.'));
        Page { name: kind.name, summary, about: kind.about, sections }
    }));
    pages
}

/// The page about the terms that the others use. It is written as it is shown, so it is not one of `pages`.
pub fn concepts() -> Page {
    let about = CONCEPTS.strip_prefix("# Concepts\n\n").unwrap_or(CONCEPTS);
    let summary = "the terms that the manual of mtpolicyd uses".to_owned();
    Page { name: "Concepts", summary, about, sections: Vec::new() }
}

/// The list of the modules, in Markdown.
pub fn index() -> String {
    let mut text =
        "# The modules\n\nEach is one kind of plugin: `module = \"NAME\"` in a `<Plugin>` block. The \
                    words that their pages use are explained in [concepts.md](../concepts.md).\n\n\
                    | module | what it does |\n|---|---|\n"
            .to_owned();
    for page in pages().iter().filter(|page| page.is_module()) {
        let name = page.name;
        let _ = writeln!(text, "| [{name}]({name}.md) | {} |", page.line().replace('|', "\\|"));
    }
    text
}

impl Page {
    /// Whether it is the page of a module.
    pub fn is_module(&self) -> bool {
        self.summary.starts_with(MODULE)
    }

    /// Pages that its reader may want: the file, or the modules that go into it.
    fn see_also(&self) -> impl Iterator<Item = &'static str> {
        let modules = KINDS.iter().map(|kind| kind.name).filter(|_| !self.is_module());
        Some(CONFIGURATION_PAGE).filter(|_| self.is_module()).into_iter().chain(modules)
    }

    /// What the page is about, in one line.
    pub fn line(&self) -> &str {
        self.summary.strip_prefix(MODULE).unwrap_or(&self.summary)
    }

    /// The text of the page.
    pub fn render(&self, format: Format) -> String {
        match format {
            Format::Markdown => self.markdown(),
            Format::Man => roff::page(self),
        }
    }

    /// The examples of the page; each of them is loaded by a test.
    pub fn examples(&self) -> Vec<String> {
        let about = undent(self.about);
        let blocks = about.split("```conf\n").skip(1);
        blocks.filter_map(|rest| rest.split_once("```").map(|(code, _)| code.to_owned())).collect()
    }

    fn markdown(&self) -> String {
        let mut page = format!("# {}\n\n{}", self.name, undent(self.about));
        if self.is_module() {
            page += WORDS;
        } else if !self.sections.is_empty() {
            page = page.replace("`docs/concepts.md`", "[concepts.md](concepts.md)");
        }
        for section in &self.sections {
            let _ = write!(page, "\n## {}\n", section.heading);
            for option in &section.options {
                let doc = undent(option.doc);
                let _ = write!(page, "\n### {}\n\n*{}*\n\n{doc}", title(option), form(option));
            }
        }
        page
    }
}

/// The heading of an option.
fn title(option: &OptionSpec) -> String {
    if option.user_config { format!("(uc_){}", option.name) } else { option.name.clone() }
}

/// What its value looks like, and what holds without it.
fn form(option: &OptionSpec) -> String {
    let presence = match &option.presence {
        Presence::Required => "required".to_owned(),
        Presence::Optional => "optional".to_owned(),
        Presence::Default(value) => format!("default: `{value}`"),
    };
    // A rule may say more than that it can be left out.
    let presence = Some(presence).filter(|_| !option.rules.iter().any(|rule| rule.ends_with("is required")));
    let parts = [option.form.to_owned()].into_iter().chain(presence).chain(option.rules.iter().cloned());
    parts.collect::<Vec<_>>().join("; ")
}

/// A doc comment without the blank that follows its slashes.
fn undent(doc: &str) -> String {
    doc.lines().map(|line| format!("{}\n", line.strip_prefix(' ').unwrap_or(line))).collect()
}
