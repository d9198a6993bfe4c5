//! What stands behind the question mark of a request (RFC 3986, 3.4), and filters of decisions as such.
//!
//! Knows: percent signs, the names of filters. Must not know: who asks, what is found.

use super::call::Problem;
use crate::value::{Seconds, Value, nearest};
use decisions::{DecisionId, Filter, Outcome};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use std::str::FromStr;
use std::time::SystemTime;

/// Letters and digits, and what RFC 3986 lets stand beside them.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// What a filter can ask for.
const FILTERS: [&str; 18] = [
    "from",
    "to",
    "client",
    "client_name",
    "login",
    "helo",
    "queue",
    "instance",
    "plugin",
    "outcome",
    "host",
    "since",
    "until",
    "slower",
    "failed",
    "shadow_differs",
    "text",
    "about",
];

/// The names and values of a query, each to be taken once.
#[derive(Debug, Default)]
pub struct Query(Vec<(String, String)>);

/// Text without its percent signs; a plus is a plus, since addresses have some.
pub fn decode(text: &str) -> Result<String, Problem> {
    let decoded = percent_decode_str(text).decode_utf8();
    decoded.map(std::borrow::Cow::into_owned).map_err(|_| Problem::bad(format!("`{text}` is not UTF-8")))
}

/// Text as one segment of a path.
pub fn path_segment(text: &str) -> String {
    utf8_percent_encode(text, ESCAPED).to_string()
}

impl Query {
    /// Reads `name=value&name=value`.
    pub fn parse(text: &str) -> Result<Query, Problem> {
        let pairs = text.split('&').filter(|pair| !pair.is_empty());
        let pairs = pairs.map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            Ok((decode(name)?, decode(value)?))
        });
        pairs.collect::<Result<_, _>>().map(Query)
    }

    /// The value of a name, which is not asked for again.
    pub fn take(&mut self, name: &str) -> Option<String> {
        let at = self.0.iter().position(|(found, _)| found == name)?;
        Some(self.0.remove(at).1)
    }

    /// The same, as a value that can be read from text.
    pub fn take_parsed<T: FromStr>(&mut self, name: &str) -> Result<Option<T>, Problem>
    where
        T::Err: std::fmt::Display,
    {
        let parse = |text: String| {
            text.parse().map_err(|why| Problem::bad(format!("{name}: `{text}` can't be used: {why}")))
        };
        self.take(name).map(parse).transpose()
    }

    /// Whether a switch is on: `walk`, `walk=1`.
    pub fn take_switch(&mut self, name: &str) -> Result<bool, Problem> {
        match self.take(name).as_deref() {
            None | Some("0" | "false") => Ok(false),
            Some("" | "1" | "true") => Ok(true),
            Some(other) => Err(Problem::bad(format!("{name}: `{other}` is neither 0 nor 1"))),
        }
    }

    /// The filter that the rest of it is. A name that nobody knows is an error: it would find everything.
    pub fn into_filter(mut self) -> Result<Filter, Problem> {
        let now = SystemTime::now();
        let time = |name: &str, text: Option<String>| {
            text.map(|text| time_of(&text, now).map_err(|why| Problem::bad(format!("{name}: {why}"))))
                .transpose()
        };
        let mut outcome = Vec::new();
        while let Some(names) = self.take("outcome") {
            let read = names.split(',').map(str::parse::<Outcome>).collect::<Result<Vec<_>, _>>();
            outcome.extend(read.map_err(|why| Problem::bad(format!("outcome: {why}")))?);
        }
        let filter = Filter {
            from: self.take("from"),
            to: self.take("to"),
            client: self.take("client"),
            client_name: self.take("client_name"),
            login: self.take("login"),
            helo: self.take("helo"),
            queue: self.take("queue"),
            instance: self.take("instance"),
            plugin: self.take("plugin"),
            outcome,
            host: self.take("host"),
            since: time("since", self.take("since"))?,
            until: time("until", self.take("until"))?,
            slower: self.take_parsed("slower")?,
            failed: self.take_switch("failed")?,
            shadow_differs: self.take_switch("shadow_differs")?,
            text: self.take("text"),
            about: self.take("about"),
        };
        self.finish()?;
        filter.check().map_err(|why| Problem::bad(why.to_string()))?;
        Ok(filter)
    }

    /// Refuses what nobody has taken.
    pub fn finish(self) -> Result<(), Problem> {
        let Some((name, _)) = self.0.first() else { return Ok(()) };
        let hint = nearest(name, FILTERS).map(|name| format!("; did you mean `{name}`?"));
        let what = if FILTERS.contains(&name.as_str()) { "is given twice" } else { "is not known here" };
        Err(Problem::bad(format!("`{name}` {what}{}", hint.unwrap_or_default())))
    }
}

/// A moment: the identifier of a decision, a time as in RFC 3339, or how long ago: `2d`.
fn time_of(text: &str, now: SystemTime) -> Result<DecisionId, String> {
    if let Ok(id) = text.parse() {
        return Ok(id);
    }
    if let Some(time) = text.parse::<jiff::Timestamp>().ok().and_then(|time| time.try_into().ok()) {
        return Ok(DecisionId::first_at(time));
    }
    let ago = Seconds::parse(text).ok().and_then(|ago| now.checked_sub(ago.duration()));
    let why = || format!("`{text}` is neither a time such as 2026-11-30T09:00:00Z nor a span such as 2d");
    ago.map(DecisionId::first_at).ok_or_else(why)
}

/// A filter as people read it: `from=bob@example.org, outcome=reject`.
pub fn filter_text(filter: &Filter) -> String {
    percent_decode_str(&filter_query(filter)).decode_utf8_lossy().replace('&', ", ")
}

/// A filter as a query, which `Query::into_filter` reads.
pub fn filter_query(filter: &Filter) -> String {
    let mut pairs = Vec::new();
    let mut add = |name: &str, value: Option<&str>| {
        pairs.extend(value.map(|value| format!("{name}={}", path_segment(value))));
    };
    add("from", filter.from.as_deref());
    add("to", filter.to.as_deref());
    add("client", filter.client.as_deref());
    add("client_name", filter.client_name.as_deref());
    add("login", filter.login.as_deref());
    add("helo", filter.helo.as_deref());
    add("queue", filter.queue.as_deref());
    add("instance", filter.instance.as_deref());
    add("plugin", filter.plugin.as_deref());
    filter.outcome.iter().for_each(|outcome| add("outcome", Some(outcome.name())));
    add("host", filter.host.as_deref());
    add("since", filter.since.map(String::from).as_deref());
    add("until", filter.until.map(String::from).as_deref());
    add("slower", filter.slower.map(|micros| micros.to_string()).as_deref());
    add("failed", filter.failed.then_some("1"));
    add("shadow_differs", filter.shadow_differs.then_some("1"));
    add("text", filter.text.as_deref());
    add("about", filter.about.as_deref());
    pairs.join("&")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(text: &str) -> Result<Filter, String> {
        Query::parse(text).and_then(Query::into_filter).map_err(|problem| problem.text)
    }

    #[test]
    fn a_filter_is_the_same_after_its_query() {
        let id = DecisionId::from_number(1 << 40);
        let text = |text: &str| Some(text.to_owned());
        let whole = Filter {
            from: text("a+b=c&d@example.org"),
            to: text("@exämple.org"),
            client: text("192.0.2.0/24"),
            client_name: text("mail"),
            login: text("%41"),
            helo: text("h x"),
            queue: text("4X"),
            instance: text("1.2"),
            plugin: text("in/p"),
            outcome: vec![Outcome::Reject, Outcome::Defer],
            host: text("in"),
            since: Some(id),
            until: Some(id),
            slower: Some(5),
            failed: true,
            shadow_differs: true,
            text: text("?#"),
            about: text("a@b"),
        };
        for filter in [whole, Filter::default()] {
            let query = filter_query(&filter);
            assert_eq!(self::filter(&query).as_ref(), Ok(&filter), "{query}");
        }
    }

    #[test]
    fn what_people_write_is_understood_or_refused() {
        assert_eq!(filter("from=a+b@x.test").unwrap().from.as_deref(), Some("a+b@x.test"));
        assert_eq!(filter("outcome=reject,defer").unwrap().outcome.len(), 2);
        let since = filter("since=2026-11-30T09:00:00Z").unwrap().since.unwrap();
        assert_eq!(decisions::rfc3339(since.time()), "2026-11-30T09:00:00.00Z");
        assert!(filter("since=2d").unwrap().since < filter("since=1h").unwrap().since);
        for (query, why) in [
            ("form=a", "did you mean `from`?"),
            ("from=a&from=b", "is given twice"),
            ("outcome=refuse", "not an outcome"),
            ("client=x", "neither an IP address nor a network"),
            ("since=soon", "neither a time such as"),
            ("slower=a", "slower: `a` can't be used"),
            ("failed=maybe", "neither 0 nor 1"),
            ("from=%ff", "is not UTF-8"),
        ] {
            let said = filter(query).unwrap_err();
            assert!(said.contains(why), "{query}: {said}");
        }
    }
}
