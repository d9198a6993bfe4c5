//! The integration tests, in one binary: the programs as processes, the manual, the shape of the source.
//!
//! Each module says what it looks at; `support` starts the daemon and what it talks to.

mod check;
mod client;
mod connections;
mod counters;
mod dialogues;
mod dns;
mod example_cluster;
mod example_ldap;
mod examples;
mod fail2ban;
mod geoip;
mod glossary;
mod greylist;
mod hostile;
mod http;
mod keyvalue;
mod ldap;
mod lists;
mod manifests;
mod manual;
mod maps;
mod openspf;
mod pages;
mod places;
mod postfix;
mod privileges;
mod process;
mod rate_limit;
mod recipients;
mod redis;
mod redis_rights;
mod reload;
mod servers;
mod sessions;
mod smtp_verify;
mod smtp_verify_route;
mod smtp_verify_strangers;
mod spellings;
mod spf;
mod sql;
mod sql_rights;
mod sql_servers;
mod sql_values;
mod support;
mod tidy;
mod unit;
mod user_settings;

use support::fake_dns;
