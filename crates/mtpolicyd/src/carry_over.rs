//! What plugins have found out and do not lose at a reload: each leaves it here when it is made, with the
//! settings under which it holds.
//!
//! Knows: which of it is still wanted. Must not know: plugins, what it is.

use std::any::Any;
use std::cell::RefCell;
use std::sync::Arc;

/// What one plugin has found out, and its settings.
#[derive(Clone)]
pub struct CarriedOver {
    plugin: Box<str>,
    /// A pair: settings and findings.
    content: Arc<dyn Any + Send + Sync>,
}

/// The findings of a configuration while it is read.
#[derive(Default)]
pub struct CarryOver {
    earlier: Vec<CarriedOver>,
    now: RefCell<Vec<CarriedOver>>,
}

impl CarryOver {
    /// None yet, but those of earlier settings may be taken over.
    pub fn after(earlier: &[CarriedOver]) -> CarryOver {
        CarryOver { earlier: earlier.to_vec(), now: RefCell::default() }
    }

    /// What a plugin of that name has found out under the same settings, or else what is made for it. It is
    /// handed out as a clone, so it has to be one that shares its content.
    pub fn carry<S, F>(&self, plugin: &str, settings: S, make: impl FnOnce(&S) -> F) -> F
    where
        S: PartialEq + Send + Sync + 'static,
        F: Clone + Send + Sync + 'static,
    {
        let of_it = self.earlier.iter().filter(|carried| *carried.plugin == *plugin);
        let mut contents = of_it.filter_map(|carried| carried.content.downcast_ref::<(S, F)>());
        let same = contents.find(|(known, _)| *known == settings);
        let findings = same.map_or_else(|| make(&settings), |(_, findings)| findings.clone());
        let content = Arc::new((settings, findings.clone()));
        self.now.borrow_mut().push(CarriedOver { plugin: plugin.into(), content });
        findings
    }

    /// All that is wanted now; the rest is forgotten.
    pub fn into_list(self) -> Vec<CarriedOver> {
        self.now.into_inner()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_found_under_the_same_settings_is_taken_over() {
        let first = CarryOver::default();
        let found = first.carry("a", 7, |_| Arc::new("found"));
        first.carry("b", 7, |_| Arc::new("other"));
        let list = first.into_list();
        let second = CarryOver::after(&list);
        assert!(Arc::ptr_eq(&second.carry("a", 7, |_| Arc::new("new")), &found));
        for (plugin, settings) in [("a", 8), ("c", 7)] {
            assert_eq!(*second.carry(plugin, settings, |_| Arc::new("new")), "new");
        }
        assert_eq!(second.carry("a", 7, |_| "another type"), "another type");
        let third = CarryOver::after(&second.into_list());
        drop(list);
        assert_eq!(Arc::strong_count(&found), 2, "one settings ago");
        third.carry("b", 7, |_| Arc::new("new"));
        assert_eq!(third.into_list().len(), 1);
        assert_eq!(Arc::strong_count(&found), 1, "what nobody takes over is forgotten");
    }
}
