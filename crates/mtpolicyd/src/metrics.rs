//! The numbers of the daemon for monitoring: each is declared once, with its type, its unit, its labels and
//! what it means, and written from there in the formats of Prometheus, as JSON and into the manual.
//!
//! Knows: types, units, what a label may be. Must not know: HTTP, plugins, where a number comes from.
//!
//! A label is a [`Configured`] name or a word of this program. Nothing that a client sends is either, so no
//! client can make a time series.

mod cells;
mod declared;
mod text;

pub use cells::{BUCKETS, Cells, Histogram, Observed};
pub use declared::*;
pub use text::{open_metrics, plain};

use serde::Serialize;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

/// A name that the configuration gives. The settings make them, and the test `tidy` sees to it that nobody
/// else does.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Configured(Arc<str>);

impl Configured {
    /// The name that stands in the configuration.
    pub fn from_settings(name: &str) -> Configured {
        Configured(name.into())
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A word of this program, such as the name of an outcome.
pub type Word = &'static str;

/// What may be the value of a label.
pub trait Label: sealed::Sealed {
    /// Its text.
    fn text(self) -> Cow<'static, str>;
}

mod sealed {
    /// Keeps other types from becoming labels.
    pub trait Sealed {}
    impl Sealed for &super::Configured {}
    impl Sealed for super::Word {}
}

impl Label for &Configured {
    fn text(self) -> Cow<'static, str> {
        Cow::Owned(self.as_str().to_owned())
    }
}

impl Label for Word {
    fn text(self) -> Cow<'static, str> {
        Cow::Borrowed(self)
    }
}

/// What kind of number it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Type {
    /// It only grows, until the process ends.
    Counter,
    /// It goes up and down.
    Gauge,
    /// How often something was how large.
    Histogram,
    /// It is always 1; the labels say something.
    Info,
}

/// A declared number.
#[derive(Clone, Copy, Debug)]
pub struct Family {
    /// Its name, without the endings that the types add.
    pub name: &'static str,
    /// Its type.
    pub kind: Type,
    /// Its unit, with which the name ends; empty if it has none.
    pub unit: &'static str,
    /// The names of its labels.
    pub labels: &'static [&'static str],
    /// What it means.
    pub help: &'static str,
}

impl Family {
    /// The name of its samples: `_total` and `_info` belong to the type. Those of a histogram add more to it.
    pub fn sample_name(&self) -> String {
        match self.kind {
            Type::Counter => format!("{}_total", self.name),
            Type::Info => format!("{}_info", self.name),
            Type::Gauge | Type::Histogram => self.name.to_owned(),
        }
    }

    /// What it means, in one line.
    pub fn help_line(&self) -> String {
        self.help.split_whitespace().collect::<Vec<_>>().join(" ")
    }
}

/// The value of one time series.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// A whole number.
    Whole(u64),
    /// Any number.
    Real(f64),
    /// What a histogram has seen.
    Observed(Box<Observed>),
}

impl From<u64> for Value {
    fn from(number: u64) -> Value {
        Value::Whole(number)
    }
}

impl From<usize> for Value {
    fn from(number: usize) -> Value {
        Value::Whole(number as u64)
    }
}

impl From<f64> for Value {
    fn from(number: f64) -> Value {
        Value::Real(number)
    }
}

impl From<bool> for Value {
    fn from(is_so: bool) -> Value {
        Value::Whole(u64::from(is_so))
    }
}

/// One time series.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// The values of the labels, in the order of the declaration.
    pub labels: Vec<Cow<'static, str>>,
    /// The value.
    pub value: Value,
}

/// All numbers at one moment.
#[derive(Clone, Debug)]
pub struct Page {
    samples: Vec<Vec<Sample>>,
}

impl Default for Page {
    fn default() -> Page {
        Page { samples: vec![Vec::new(); FAMILIES.len()] }
    }
}

impl Page {
    /// Adds a time series. A second one with the same labels is left out: no reader takes that.
    fn add(&mut self, family: usize, labels: Vec<Cow<'static, str>>, value: Value) {
        let samples = &mut self.samples[family];
        if !samples.iter().any(|sample| sample.labels == labels) {
            samples.push(Sample { labels, value });
        }
    }

    /// The families that have samples, in the order of their declaration.
    pub fn families(&self) -> impl Iterator<Item = (&'static Family, &[Sample])> {
        let all = FAMILIES.iter().zip(&self.samples);
        all.map(|(family, samples)| (family, &samples[..])).filter(|(_, samples)| !samples.is_empty())
    }

    /// The same for programs that read JSON.
    pub fn view(&self) -> MetricsView {
        let family = |(family, samples): (&Family, &[Sample])| FamilyView {
            name: family.sample_name(),
            kind: format!("{:?}", family.kind).to_lowercase(),
            unit: family.unit.to_owned(),
            help: family.help_line(),
            series: samples.iter().map(|sample| SeriesView::of(family, sample)).collect(),
        };
        MetricsView { families: self.families().map(family).collect() }
    }
}

/// All numbers as JSON.
#[derive(Clone, Debug, Default, PartialEq, Serialize, serde::Deserialize)]
pub struct MetricsView {
    /// Each declared number that there is.
    pub families: Vec<FamilyView>,
}

/// A declared number as JSON.
#[derive(Clone, Debug, Default, PartialEq, Serialize, serde::Deserialize)]
pub struct FamilyView {
    /// The name of its samples.
    pub name: String,
    /// `counter`, `gauge`, `histogram` or `info`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Its unit.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub unit: String,
    /// What it means.
    pub help: String,
    /// Its time series.
    pub series: Vec<SeriesView>,
}

/// A time series as JSON.
#[derive(Clone, Debug, Default, PartialEq, Serialize, serde::Deserialize)]
pub struct SeriesView {
    /// The labels.
    pub labels: BTreeMap<String, String>,
    /// The value; of a histogram the number of all observations.
    pub value: f64,
    /// The sum of the observations of a histogram.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sum: Option<f64>,
    /// How many observations were at most so large, by the bound.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub buckets: Vec<(f64, u64)>,
}

impl SeriesView {
    #[allow(clippy::cast_precision_loss, reason = "JSON has no other numbers")]
    fn of(family: &Family, sample: &Sample) -> SeriesView {
        let names = family.labels.iter().map(|name| (*name).to_owned());
        let labels = names.zip(sample.labels.iter().map(|label| label.to_string())).collect();
        let (value, sum, buckets) = match &sample.value {
            Value::Whole(number) => (*number as f64, None, Vec::new()),
            Value::Real(number) => (*number, None, Vec::new()),
            Value::Observed(observed) => {
                let bounds = BUCKETS.iter().map(|bound| bound.0);
                let buckets = bounds.zip(observed.cumulative.iter().copied()).collect();
                (observed.count() as f64, Some(observed.sum), buckets)
            }
        };
        SeriesView { labels, value, sum, buckets }
    }
}

/// Declares the numbers: what each means, its type, the function that gives it a value with its labels, its
/// unit, and its name.
macro_rules! metrics {
    ($($(#[doc = $doc:literal])+ $kind:ident $name:ident($($label:ident: $Label:ty),*) $(in $unit:ident)?
        = $text:literal;)+) => {
        /// Every number, in the order of the pages.
        pub const FAMILIES: &[$crate::metrics::Family] = &[$($crate::metrics::Family {
            name: $text,
            kind: metrics!(@type $kind),
            unit: concat!($(stringify!($unit))?),
            labels: &[$(stringify!($label)),*],
            help: concat!($($doc, "\n"),+),
        }),+];

        #[allow(non_camel_case_types, reason = "they have the names of the functions")]
        enum Place { $($name),+ }

        $(metrics!(@function $kind $name($($label: $Label),*), $($doc)+);)+
    };
    (@type counter) => { $crate::metrics::Type::Counter };
    (@type gauge) => { $crate::metrics::Type::Gauge };
    (@type histogram) => { $crate::metrics::Type::Histogram };
    (@type info) => { $crate::metrics::Type::Info };
    (@function info $name:ident($($label:ident: $Label:ty),*), $($doc:literal)+) => {
        $(#[doc = $doc])+
        pub fn $name(page: &mut $crate::metrics::Page, $($label: $Label),*) {
            let labels = vec![$($crate::metrics::Label::text($label)),*];
            page.add(Place::$name as usize, labels, $crate::metrics::Value::Whole(1));
        }
    };
    (@function histogram $name:ident($($label:ident: $Label:ty),*), $($doc:literal)+) => {
        $(#[doc = $doc])+
        pub fn $name(
            page: &mut $crate::metrics::Page, $($label: $Label,)* value: $crate::metrics::Observed,
        ) {
            let labels = vec![$($crate::metrics::Label::text($label)),*];
            page.add(Place::$name as usize, labels, $crate::metrics::Value::Observed(Box::new(value)));
        }
    };
    (@function $kind:ident $name:ident($($label:ident: $Label:ty),*), $($doc:literal)+) => {
        $(#[doc = $doc])+
        pub fn $name(
            page: &mut $crate::metrics::Page, $($label: $Label,)* value: impl Into<$crate::metrics::Value>,
        ) {
            let labels = vec![$($crate::metrics::Label::text($label)),*];
            page.add(Place::$name as usize, labels, value.into());
        }
    };
}
pub(crate) use metrics;

#[cfg(test)]
mod tests;
