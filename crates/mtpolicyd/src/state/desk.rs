//! Where an administrator asks about what plugins remember: which of them are meant, page by page, and each
//! change in the log with what undoes it.
//!
//! Knows: the plugins that remember something. Must not know: how they do, HTTP, commands.

use super::{
    Changed, Entry, Handle, Kind, ListReport, ListState, ListTest, Listing, Lists, Order, Remembered, Select,
    StateError, UsedList,
};
use crate::facts::World;
use crate::facts::dnslist::Tested;
use crate::journal::JournalSlot;
use crate::log::messages::plugins;
use backends::Call;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::task::JoinSet;

/// The most entries on one page.
const MAX_PAGE: usize = 500;

/// How long one question to a store may take when a page is almost out of time.
const MARGIN: Duration = Duration::from_secs(2);

/// The most entries that one order may change.
const MAX_CHANGES: usize = 10_000;

/// The plugins of a configuration, and the world that they are in.
pub struct Desk<'a> {
    /// What the plugins remember.
    pub remembered: &'a Remembered,
    /// What is around them.
    pub world: &'a World,
    /// Where changes are noted beside the log.
    pub journal: &'a JournalSlot,
}

impl Desk<'_> {
    /// A page of the entries that match. There may be few or none though more follow.
    ///
    /// # Errors
    ///
    /// If no such plugin is there, the question makes no sense, or a store fails.
    pub async fn list(
        &self,
        kind: Kind,
        select: &Select,
        cursor: Option<&str>,
        limit: usize,
        call: Call<'_>,
    ) -> Result<Listing, StateError> {
        let handles = self.handles(kind, select)?;
        let (mut at, mut inner) = read_cursor(cursor)?;
        let limit = limit.clamp(1, MAX_PAGE);
        let mut page = Listing::default();
        let mut has_begun = false;
        while let Some(handle) = handles.get(at) {
            // A question that the deadline cuts off would be an error.
            let is_late = tokio::time::Instant::now() + MARGIN >= call.deadline();
            if page.entries.len() >= limit || has_begun && is_late {
                break;
            }
            has_begun = true;
            let found = self.part(handle, select, inner.as_deref(), limit - page.entries.len(), call).await?;
            page.entries.extend(found.entries);
            page.notes.extend(found.notes);
            inner = found.next;
            at += usize::from(inner.is_none());
        }
        if at < handles.len() {
            page.next = Some(format!("{at}~{}", inner.unwrap_or_default()));
        }
        Ok(page)
    }

    /// Some of what one plugin remembers.
    async fn part(
        &self,
        handle: &Handle,
        select: &Select,
        cursor: Option<&str>,
        limit: usize,
        call: Call<'_>,
    ) -> Result<Listing, StateError> {
        let named = |mut entry: Entry| {
            entry.plugin = handle.plugins.join(", ");
            entry
        };
        if handle.state.is_complete(select)? {
            let entry = handle.state.look(select, self.world, call).await?;
            return Ok(Listing { entries: entry.into_iter().map(named).collect(), ..Listing::default() });
        }
        if let Some(why) = handle.state.cannot_list() {
            let note = format!("plugin {}: {why}; show and reset work by key", handle.plugins.join(", "));
            return Ok(Listing { notes: vec![note], ..Listing::default() });
        }
        let page = handle.state.list(select, cursor, limit, self.world, call).await?;
        Ok(Listing { entries: page.entries.into_iter().map(named).collect(), ..page })
    }

    /// Makes a change, and says in the log that `who` has made it. What the plugins of the same kind do not
    /// have is left out; so an empty list means that nothing was there.
    ///
    /// # Errors
    ///
    /// If no such plugin is there, several entries match and the order is not for all, or a store fails; what
    /// was changed before is changed then.
    pub async fn change(
        &self,
        kind: Kind,
        order: &Order,
        who: &str,
        call: Call<'_>,
    ) -> Result<Vec<Changed>, StateError> {
        let (mut targets, mut searched) = (Vec::new(), 0);
        for handle in self.handles(kind, &order.select)? {
            if handle.state.is_complete(&order.select)? {
                targets.push((handle, order.select.clone()));
                continue;
            }
            let found = self.all(handle, &order.select, order.all, call).await?;
            searched += found.len();
            targets.extend(found.into_iter().map(|entry| (handle, entry.select())));
        }
        if searched > 1 && !order.all {
            return Err(StateError::NotAll { entries: searched, has_more: false });
        }
        let mut changes = Vec::new();
        for (handle, select) in targets {
            let change = handle.state.change(&select, &order.change, self.world, call).await?;
            let Some(mut changed) = change else { continue };
            let plugin = &handle.plugins[0];
            plugin.clone_into(&mut changed.plugin);
            let undo = changed.undo.as_mut().map(|undo| {
                undo.select.plugin = Some(plugin.clone());
                undo.command(kind)
            });
            let undo = undo.as_deref().unwrap_or("none");
            plugins::changed_by_hand(plugin, &changed.key, &changed.done, who, undo);
            self.journal.audit(who, &format!("{plugin}: {}: {}; undo: {undo}", changed.key, changed.done));
            changes.push(changed);
        }
        Ok(changes)
    }

    /// All entries of one plugin that match. If they are not all meant, several are an error.
    async fn all(
        &self,
        handle: &Handle,
        select: &Select,
        all: bool,
        call: Call<'_>,
    ) -> Result<Vec<Entry>, StateError> {
        if let Some(why) = handle.state.cannot_list() {
            let text = format!("plugin {}: {why}; name the whole key", handle.plugins.join(", "));
            return Err(StateError::CantList(text));
        }
        let (mut found, mut cursor) = (Vec::new(), None::<String>);
        loop {
            let page = handle.state.list(select, cursor.as_deref(), MAX_PAGE, self.world, call).await?;
            found.extend(page.entries);
            cursor = page.next;
            if found.len() > 1 && !all {
                return Err(StateError::NotAll { entries: found.len(), has_more: cursor.is_some() });
            }
            if found.len() > MAX_CHANGES {
                let text = format!("more than {MAX_CHANGES} entries match; say more precisely which");
                return Err(StateError::Request(text));
            }
            if cursor.is_none() {
                return Ok(found);
            }
            if tokio::time::Instant::now() >= call.deadline() {
                return Err(StateError::Request("the search took too long; name the whole key".to_owned()));
            }
        }
    }

    /// The plugins that are meant.
    fn handles(&self, kind: Kind, select: &Select) -> Result<Vec<&Handle>, StateError> {
        let of_kind = || self.remembered.handles.iter().filter(|handle| handle.kind == kind);
        let Some(name) = &select.plugin else {
            let handles: Vec<_> = of_kind().collect();
            let none = || StateError::Request(format!("the configuration has no plugin that keeps {kind}"));
            return if handles.is_empty() { Err(none()) } else { Ok(handles) };
        };
        let meant: Vec<_> = of_kind().filter(|handle| handle.plugins.contains(name)).collect();
        if meant.is_empty() {
            let names: Vec<_> = of_kind().flat_map(|handle| handle.plugins.iter().cloned()).collect();
            let have = if names.is_empty() { "there is none".to_owned() } else { names.join(", ") };
            let text = format!("no plugin `{name}` keeps {kind}; those that do: {have}");
            return Err(StateError::Request(text));
        }
        Ok(meant)
    }

    /// How the DNS lists fare; with `test` they are asked about the test points now, all at once.
    ///
    /// # Errors
    ///
    /// If there is no such list.
    pub async fn lists(&self, name: Option<&str>, test: bool, call: Call<'_>) -> Result<Lists, StateError> {
        let is_meant = |used: &&UsedList| {
            name.is_none_or(|name| used.list.label() == name || used.plugins.iter().any(|p| p == name))
        };
        let meant: Vec<_> = self.remembered.lists.iter().filter(is_meant).collect();
        if let (true, Some(name)) = (meant.is_empty(), name) {
            let have: Vec<_> = self.remembered.lists.iter().map(|used| used.list.label()).collect();
            let text = format!("no DNS list `{name}` is asked; there are: {}", have.join(", "));
            return Err(StateError::Request(text));
        }
        let mut tests = vec![Vec::new(); meant.len()];
        if test {
            let limit = call.deadline().saturating_duration_since(Instant::now().into());
            let mut asked = JoinSet::new();
            for (n, used) in meant.iter().enumerate() {
                let (list, dns) = (used.list.clone(), self.world.dns.clone());
                asked.spawn(async move { (n, list.test(&dns, limit).await) });
            }
            for (n, tested) in asked.join_all().await {
                let UsedList { list, is_tested, .. } = meant[n];
                // What is not to be tested is shown, and nothing follows from it.
                if *is_tested {
                    list.note_round(&tested, &self.world.lists);
                }
                tests[n] = tested;
            }
        }
        let lists = meant.iter().zip(tests).map(|(used, tests)| self.report(used, &tests)).collect();
        Ok(Lists { lists })
    }

    fn report(&self, used: &UsedList, tests: &[Tested]) -> ListReport {
        let zone = used.list.zone();
        let (failures, silent) = self.world.lists.report(zone, Instant::now());
        let condition = self.world.lists.condition(zone);
        let state = match () {
            () if !tests.is_empty() => used.list.round(tests).state,
            () if !used.is_tested && !condition.state.is_bad() => ListState::NotTestable,
            () => condition.state,
        };
        let seconds = |time: SystemTime| {
            let since = time.duration_since(UNIX_EPOCH).ok();
            since.and_then(|since| i64::try_from(since.as_secs()).ok())
        };
        ListReport {
            zone: used.list.label(),
            plugins: used.plugins.clone(),
            state,
            quarantined: condition.is_quarantined,
            since: condition.since.and_then(seconds),
            tested: condition.tested.and_then(seconds),
            silent_for: silent.map(|silent| silent.as_secs()),
            failures,
            tests: tests.iter().map(shown).collect(),
        }
    }
}

/// A test point and what came of it.
fn shown(test: &Tested) -> ListTest {
    ListTest {
        asked: test.label.clone(),
        expected: test.is_listed,
        answer: test.answer.to_string(),
        right: test.is_right(),
        took: u64::try_from(test.took.as_millis()).unwrap_or(u64::MAX),
    }
}

/// The plugin and its own cursor.
fn read_cursor(cursor: Option<&str>) -> Result<(usize, Option<String>), StateError> {
    let Some(text) = cursor else { return Ok((0, None)) };
    let parts = text.split_once('~').and_then(|(at, inner)| Some((at.parse().ok()?, inner)));
    let (at, inner) =
        parts.ok_or_else(|| StateError::Request("this is not where a page begins".to_owned()))?;
    Ok((at, Some(inner.to_owned()).filter(|inner| !inner.is_empty())))
}
