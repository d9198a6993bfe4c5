//! mtpolicyd: a policy daemon for Postfix that asks an ordered chain of plugins about every message.
//!
//! `ARCHITECTURE.md` is the map, `docs/life-of-a-request.md` follows one request through the modules below,
//! which stand in the order of their layers.

pub mod address;
pub mod facts;
pub mod log;
pub mod matching;
pub mod network;
pub mod value;

pub mod session;

pub mod fields;
pub mod options;

pub mod carry_over;
pub mod connections;
pub mod table_tasks;
pub mod tasks;

pub mod counters;
pub mod limits;

pub mod plugin;

pub mod awl;
pub mod dnsbl;
pub mod sender_policy;
pub mod sql_query;

pub mod chain;

pub mod plugins;

pub mod settings;

pub mod upkeep;

pub mod cli;
pub mod manual;
pub mod server;

pub mod testing;
