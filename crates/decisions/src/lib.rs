//! What a policy daemon decided about a request, and why.
//!
//! A [`Decision`] is made for every request that was answered. Its [`Walk`] says which step of the chain did
//! what; the [`StepTable`] of the configuration says where in the file each step stands. [`DecisionView`] is
//! the same for readers, with names in place of numbers.
//!
//! Knows: what a decision consists of. Must not know: plugins, sockets, who asks.

mod about;
mod filter;
mod id;
pub mod journal;
mod record;
mod shadow;
mod table;
mod view;
mod walk;

pub use filter::{Filter, FilterError};
pub use id::{DecisionId, IdError, Ids, MAX_NODE};
pub use lookups::{Lookup, LookupKind, Lookups, Origin};
pub use record::{Decision, Flags, MAX_SESSION_BYTES, Outcome};
pub use shadow::{Shadow, ShadowStep};
pub use table::{OptionInfo, StepInfo, StepTable};
pub use view::{DecisionView, LookupView, PointsView, RowView, StepView, UNREACHED, rfc3339};
pub use walk::{Begun, MAX_NOTE_BYTES, MAX_STEPS, Points, Step, StepOutcome, Walk};
