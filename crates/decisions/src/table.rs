//! The plugins of one configuration: what each is called, and where in the file it stands.
//!
//! Knows: names, files, lines. Must not know: plugins, what an option means.

use serde::{Deserialize, Serialize};

/// The plugins of a configuration in the order of the file, those inside another behind it. A decision names
/// its steps by their places here.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepTable {
    /// The same for all configurations that say the same; secrets do not count.
    pub fingerprint: String,
    /// The configuration file.
    pub file: String,
    /// The plugins.
    pub steps: Vec<StepInfo>,
}

/// One plugin of a configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepInfo {
    /// The name of the virtual host.
    pub host: String,
    /// The name in its tag.
    pub name: String,
    /// The virtual host and the plugins around it: `inbound/greylist/late`.
    pub path: String,
    /// Its module.
    pub module: String,
    /// How deep inside other plugins it stands: 0 for the outermost chain.
    pub depth: u8,
    /// The file that it stands in.
    pub file: String,
    /// The line of its opening tag, from 1.
    pub line: u32,
    /// Its options as they are written, without secrets.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub options: Vec<OptionInfo>,
}

/// One option of a plugin.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OptionInfo {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: String,
    /// The file that it stands in.
    pub file: String,
    /// Its line, from 1.
    pub line: u32,
}

impl StepTable {
    /// The plugin with this number.
    pub fn get(&self, number: u16) -> Option<&StepInfo> {
        self.steps.get(usize::from(number))
    }
}

impl StepInfo {
    /// The place in the file, as `FILE:LINE`.
    pub fn place(&self) -> String {
        format!("{}:{}", self.file, self.line)
    }
}
