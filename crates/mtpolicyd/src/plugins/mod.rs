//! Every plugin: one file, and two lines here.

use crate::plugin::Kind;

mod accounting;
mod action;
mod add_score_header;
mod clear_fields;
mod condition;
mod ct_ip_rep;
mod dbl;
mod eval;
mod fail2ban;
mod geo_ip_action;
mod geo_ip_lookup;
mod greylist;
mod honeypot;
mod http_lookup;
mod ldap_user_config;
mod postfix_map;
mod proxy;
mod quota;
mod rate_limit;
mod rbl;
mod rbl_action;
mod regex_list;
mod sa_awl_action;
mod sa_awl_lookup;
mod score_action;
mod set_field;
mod smtp_verify;
mod spf;
mod sql_list;
mod sql_user_config;
mod stress;

pub use greylist::unreadable_lines;

/// Every plugin there is, in the order of the manual.
pub const KINDS: &[Kind] = &[
    Kind::of::<accounting::Accounting>(),
    Kind::of::<action::Action>(),
    Kind::of::<add_score_header::AddScoreHeader>(),
    Kind::of::<clear_fields::ClearFields>(),
    Kind::of::<condition::Condition>(),
    Kind::of::<ct_ip_rep::CtIpRep>(),
    Kind::of::<dbl::Dbl>(),
    Kind::of::<eval::Eval>(),
    Kind::of::<fail2ban::Fail2Ban>(),
    Kind::of::<geo_ip_action::GeoIpAction>(),
    Kind::of::<geo_ip_lookup::GeoIpLookup>(),
    Kind::of::<greylist::Greylist>(),
    Kind::of::<honeypot::Honeypot>(),
    Kind::of::<http_lookup::HttpLookup>(),
    Kind::of::<ldap_user_config::LdapUserConfig>(),
    Kind::of::<postfix_map::PostfixMap>(),
    Kind::of::<proxy::Proxy>(),
    Kind::of::<quota::Quota>(),
    Kind::of::<rate_limit::RateLimit>(),
    Kind::of::<rbl::Rbl>(),
    Kind::of::<rbl_action::RblAction>(),
    Kind::of::<regex_list::RegexList>(),
    Kind::of::<sa_awl_action::SaAwlAction>(),
    Kind::of::<sa_awl_lookup::SaAwlLookup>(),
    Kind::of::<score_action::ScoreAction>(),
    Kind::of::<set_field::SetField>(),
    Kind::of::<smtp_verify::SmtpVerify>(),
    Kind::of::<spf::Spf>(),
    Kind::of::<sql_list::SqlList>(),
    Kind::of::<sql_user_config::SqlUserConfig>(),
    Kind::of::<stress::Stress>(),
];

#[cfg(test)]
mod tests {
    use crate::testing::Bench;

    #[test]
    fn a_plugin_whose_client_this_build_lacks_is_refused_at_its_line() {
        for (is_built, feature, options) in [
            (cfg!(feature = "http"), "http", "module = CtIpRep"),
            (cfg!(feature = "http"), "http", "module = HttpLookup\nurl = \"http://127.0.0.1/\""),
            (cfg!(feature = "smtp"), "smtp", "module = SMTPVerify\nperm_fail_score = 1"),
        ] {
            let text = format!("<Plugin p>\n{options}\n</Plugin>");
            if is_built {
                let _ = Bench::new(&text);
            } else {
                let refused = format!("this daemon was built without {feature} (feature `{feature}`)");
                assert_eq!(Bench::mistakes(&text), [format!("2:10 module: {refused}")]);
            }
        }
    }
}
