//! The settings of a YAML file, each taken once.
//!
//! Knows: YAML as Python's reader has it. Must not know: what a setting means.

use crate::import::{ImportError, Imported};
use std::path::Path;
use yaml_rust2::{Yaml, YamlLoader};

/// What was not looked at yet, in the order of the file.
pub struct Settings(Vec<(String, Yaml)>);

impl Settings {
    /// Reads a file: one document, a map.
    pub fn parse(path: &Path, text: &str) -> Result<Settings, ImportError> {
        let failed = |why: &dyn std::fmt::Display| ImportError(format!("{}: {why}", path.display()));
        let documents = YamlLoader::load_from_str(text).map_err(|error| failed(&error))?;
        let map = documents.into_iter().next().and_then(Yaml::into_hash);
        let map = map.ok_or_else(|| failed(&"this is not a file of `name: value` lines"))?;
        Ok(Settings(map.into_iter().filter_map(|(key, value)| Some((scalar(&key)?, value))).collect()))
    }

    /// A setting; a bad value if there is none.
    pub fn take(&mut self, key: &str) -> Yaml {
        let at = self.0.iter().position(|(known, _)| known == key);
        at.map_or(Yaml::BadValue, |at| self.0.remove(at).1)
    }

    /// A setting that is a text or a number.
    pub fn text(&mut self, key: &str) -> Option<String> {
        scalar(&self.take(key))
    }

    /// A switch: YAML of Python knows more words for it.
    pub fn is_on(&mut self, key: &str, default: bool) -> bool {
        let text = self.text(key).map(|text| text.to_ascii_lowercase());
        text.map_or(default, |text| matches!(text.as_str(), "true" | "yes" | "on" | "1"))
    }

    /// An access mode. `0666` is octal to Python, and a number to others.
    pub fn take_mode(&mut self, key: &str) -> Option<String> {
        let text = self.text(key)?;
        let digits = text.trim_start_matches("0o").trim_start_matches('0');
        let mode = match u32::from_str_radix(digits, 8) {
            Ok(mode) if mode <= 0o777 => mode,
            _ => digits.parse().ok().filter(|mode| *mode <= 0o777)?,
        };
        Some(format!("{mode:04o}"))
    }

    /// The value of `port`, and what its virtual host is called.
    pub fn listens_on(&mut self, imported: &mut Imported) -> (String, String) {
        const PATH: &str = "/var/spool/postfix/ratelimit/policy";
        match self.take("SOCKET") {
            Yaml::Array(pair) => {
                let words: Vec<_> = pair.iter().filter_map(scalar).collect();
                if let [host, port] = &words[..] {
                    let host = if host.contains(':') { format!("[{host}]") } else { host.clone() };
                    return (format!("{host}:{port}"), port.clone());
                }
                imported.leave_out("SOCKET", format!("not an address and a port; {PATH} is used"));
                (format!("{PATH}|unix"), PATH.to_owned())
            }
            other => {
                let path = scalar(&other).unwrap_or_else(|| PATH.to_owned());
                (format!("{path}|unix"), path)
            }
        }
    }

    /// The names of what was not taken.
    pub fn rest(self) -> impl Iterator<Item = String> {
        self.0.into_iter().map(|(key, _)| key)
    }
}

/// A value that is not a list or a map, as text.
pub fn scalar(value: &Yaml) -> Option<String> {
    match value {
        Yaml::String(text) | Yaml::Real(text) => Some(text.clone()),
        Yaml::Integer(number) => Some(number.to_string()),
        Yaml::Boolean(is) => Some(is.to_string()),
        Yaml::Array(_) | Yaml::Hash(_) | Yaml::Alias(_) | Yaml::Null | Yaml::BadValue => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_read_as_python_reads_them() {
        let text = "a: True\nb: yes\nc: off\nmode: 0666\nmode2: 438\nSOCKET: ['::1', 8552]\nnumber: 7\n";
        let mut settings = Settings::parse(Path::new("x"), text).unwrap();
        assert!(settings.is_on("a", false) && settings.is_on("b", false) && !settings.is_on("c", true));
        assert!(settings.is_on("absent", true));
        assert_eq!(settings.take_mode("mode").as_deref(), Some("0666"));
        assert_eq!(settings.take_mode("mode2").as_deref(), Some("0666"));
        assert_eq!(
            settings.listens_on(&mut Imported::default()),
            ("[::1]:8552".to_owned(), "8552".to_owned())
        );
        assert_eq!(settings.rest().collect::<Vec<_>>(), ["number"]);
        assert!(Settings::parse(Path::new("x"), "- a\n- b\n").is_err());
        assert!(Settings::parse(Path::new("x"), "a: [1, 2\n").is_err());
    }
}
