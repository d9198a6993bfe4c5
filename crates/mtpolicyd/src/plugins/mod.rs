//! Every plugin: one file, one line here.

use crate::plugin::Kind;

macro_rules! plugins {
    ($($module:ident::$Plugin:ident,)*) => {
        $(mod $module;)*
        /// Every plugin there is, in the order of the manual.
        pub const KINDS: &[Kind] = &[$(Kind::of::<$module::$Plugin>(),)*];
    };
}

plugins! {
    accounting::Accounting,
    action::Action,
    add_score_header::AddScoreHeader,
    clear_fields::ClearFields,
    condition::Condition,
    ct_ip_rep::CtIpRep,
    dbl::Dbl,
    eval::Eval,
    fail2ban::Fail2Ban,
    geo_ip_action::GeoIpAction,
    geo_ip_lookup::GeoIpLookup,
    greylist::Greylist,
    honeypot::Honeypot,
    http_lookup::HttpLookup,
    ldap_user_config::LdapUserConfig,
    postfix_map::PostfixMap,
    proxy::Proxy,
    quota::Quota,
    rate_limit::RateLimit,
    rbl::Rbl,
    rbl_action::RblAction,
    regex_list::RegexList,
    sa_awl_action::SaAwlAction,
    sa_awl_lookup::SaAwlLookup,
    score_action::ScoreAction,
    set_field::SetField,
    smtp_verify::SmtpVerify,
    spf::Spf,
    sql_list::SqlList,
    sql_user_config::SqlUserConfig,
    stress::Stress,
}
