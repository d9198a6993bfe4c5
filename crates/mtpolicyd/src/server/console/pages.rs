//! The pages.
//!
//! Knows: which there are. Must not know: who may see them.

pub mod decision;
pub mod decisions;
pub mod export;
pub mod find;
pub mod live;
pub mod overview;
