//! mtpolicyd: a policy daemon for Postfix that asks an ordered chain of plugins about every message.
//!
//! `ARCHITECTURE.md` is the map, `docs/life-of-a-request.md` follows one request through the modules below,
//! which stand in the order of their layers.

pub mod address;
pub mod events;
pub mod facts;
pub mod journal;
pub mod log;
pub mod matching;
pub mod metrics;
pub mod network;
pub mod recorder;
pub mod value;

pub mod session;

pub mod fields;
pub mod options;
pub mod scoring;

pub mod carry_over;
pub mod connections;
pub mod intake;
pub mod state;
pub mod table_tasks;
pub mod tasks;

pub mod counters;
pub mod limits;

pub mod plugin;

pub mod awl;
pub mod dnsbl;
pub mod mode;
pub mod sender_policy;
pub mod sql_query;

pub mod chain;

pub mod plugins;

pub mod settings;

pub mod hygiene;
pub mod upkeep;

pub mod cli;
pub mod import;
pub mod manual;
pub mod server;

pub mod doctor;

pub mod testing;
