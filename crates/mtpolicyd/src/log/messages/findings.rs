//! What plugins find about a message.
//!
//! Knows: texts. Must not know: when a plugin finds it.

log_messages::messages! {
    "What plugins find",
    "Each line begins with the request and the plugin: `HOST: instance=I, PLUGIN: TEXT`. The level is the \
     `log_level` of the plugin, 4 by default; the global `log_level` must be at least as high. There is \
     nothing to do about them: they explain an answer.";

    /// RBL: the client is on the list.
    finding on_list(client, list, codes) = "{client} is on {list} ({codes})";
    /// RBL and DBL: the list is quarantined and gives this answer about everybody, so it does not count.
    finding says_it_of_everybody(list, codes) = "{list} is quarantined: it says {codes} of everybody";
    /// DBL: a name of the request is on the list.
    finding name_on_list(attribute, name, codes) = "{attribute} {name} is on a list ({codes})";
    /// Condition: one of the criteria matched.
    finding criterion_matched(key, value) = "{key} matched: {value}";
    /// RegexList: a pattern matched.
    finding pattern_matched(key, pattern, value) = "{key} matched {pattern}: {value}";
    /// CtIpRep: `client_address` can't be looked up.
    finding not_an_address(client) = "{client} is not an address";
    /// CtIpRep: the verdict of the service.
    finding reputation(client, reputation, reference) = "{client} is {reputation} ({reference})";
    /// PostfixMap, SqlList: the request lacks the attribute that would be looked up.
    finding no_attribute(attribute) = "the request has no attribute `{attribute}`";
    /// SqlList: the query returned a row.
    finding sql_listed(attribute, value) = "{attribute} {value} is listed";
    /// SqlList: the query returned no row.
    finding sql_not_listed(attribute, value) = "{attribute} {value} is not listed";
    /// PostfixMap: the table has the value, with a result that counts as a match.
    finding map_matched(attribute, value) = "{attribute} {value} is a match";
    /// PostfixMap: the table does not have the value, or with a result that does not count as a match.
    finding map_not_matched(attribute, value) = "{attribute} {value} is not a match";
    /// PostfixMap: what the table has for a key.
    finding map_entry(key, value) = "{key} is {value}";
    /// GeoIPLookup: the country of the client.
    finding country(client, country) = "{client} is in {country}";
    /// GeoIPLookup: the database has no entry for the client.
    finding country_unknown(client) = "nothing is known of {client}";
    /// GeoIPAction: the country matches `country_codes`, `continents` and `asns`.
    finding country_matched(country) = "the client is in {country} and on the list";
    /// GeoIPAction: the plugin of `result_from` did not run, or its database does not have this kind of data.
    finding not_looked_up(plugin, what) = "{plugin} has looked up no {what}";
    /// Greylist: no check for this message.
    finding whitelisted() = "client or recipient is on a whitelist";
    /// Greylist: this sender has passed often enough from this client.
    finding auto_whitelisted(triplet) = "{triplet} is on the auto-whitelist";
    /// Greylist: the sender has waited long enough.
    finding ticket_valid(triplet) = "{triplet} has a valid ticket";
    /// Greylist: the sender has come back too early.
    finding ticket_early(triplet, seconds) = "{triplet} has to wait {seconds} seconds more";
    /// Greylist: the clock of a daemon was wrong when the ticket was made, so a new one replaces it.
    finding ticket_from_the_future(triplet) = "{triplet} has a ticket from the future, and gets another";
    /// Greylist: the first message of this sender.
    finding ticket_created(triplet) = "{triplet} gets a ticket";
    /// HttpLookup: the service has no opinion about the message (status 204).
    finding no_opinion() = "the service has no opinion";
    /// HttpLookup: what the service answered.
    finding opinion(action, score, settings) = "the service says {action}{score}, {settings} settings";
    /// SaAwlLookup: the history of this sender from this client.
    finding history(sender, client, count, score) =
        "{sender} from {client}: {count} messages, mean score {score}";
    /// SaAwlLookup: the sender has no history from this client.
    finding history_unknown(sender, client) = "{sender} from {client} is not known";
    /// SaAwlAction: the plugin of `result_from` did not run.
    finding history_not_looked_up(plugin) = "no plugin {plugin} has looked up anything";
    /// SaAwlAction: too little history for a judgement.
    finding history_short(count) = "{count} messages are fewer than min_count";
    /// SaAwlAction: the mean score is beyond the threshold.
    finding history_matched(score) = "the mean score {score} matches";
    /// SqlUserConfig, LdapUserConfig: the request does not say whose settings to load.
    finding no_user(attribute) = "the request has no `{attribute}`, so no settings";
    /// SqlUserConfig: the query returned no settings.
    finding no_settings(user) = "{user} has no settings";
    /// SqlUserConfig: a setting is an object or a list, which no option can have as its value.
    finding setting_nested(user, name) = "settings of {user}: `{name}` is nested; skipped";
    /// LdapUserConfig: the filter must find one entry.
    finding no_single_entry(filter, count) = "{filter} finds {count}, so no settings";
    /// LdapUserConfig: the entry whose attributes are used.
    finding entry(filter, dn) = "{filter} finds {dn}";
    /// LdapUserConfig: the attribute is too long for a setting.
    finding setting_too_long(name, bytes) = "{name} has more than {bytes} bytes";
    /// LdapUserConfig: the entry does not have the attribute.
    finding setting_empty(name) = "{name} is empty";
    /// Honeypot: the client has sent to a trap before.
    finding trapped(client) = "{client} is trapped";
    /// RateLimit: the message would exceed a limit.
    finding rate_exceeded(key, rate, count, what) = "{key} exceeds {rate}: {count} {what}";
    /// Fail2Ban: a client of this machine is never banned.
    finding own_address(client) = "{client} is this machine and is not banned";
    /// Fail2Ban: fail2ban has confirmed the ban.
    finding banned(client, jail) = "{client} is banned in jail {jail}";
    /// Fail2Ban: the ban was sent, without waiting for an answer.
    finding ban_sent(client, jail) = "fail2ban was told to ban {client} in jail {jail}";
    /// SMTPVerify: the address can't be asked about.
    finding no_domain(attribute, address) = "{attribute} `{address}` has no domain to ask about";
    /// SMTPVerify: the server of the address accepts it.
    finding address_accepted(address) = "{address} is accepted";
    /// SMTPVerify: the server of the address refuses it, with its reply in brackets.
    finding address_refused(address, kind, message, reply) = "{address}: {kind} failure: {message}{reply}";
    /// SMTPVerify: no server of the address may be asked, or can be reached.
    finding address_not_asked(address, why) = "{address}: temporary failure: {why}";
    /// SMTPVerify: the servers of the address have not given a verdict.
    finding address_unknown(address, why) = "{address} is not verified: {why}";
    /// SPF: no check for this client.
    finding spf_exempt() = "the client is local, on the whitelist, or has no address: it is not checked";
    /// SPF: the verdict about HELO (`helo`) or the sender (`mfrom`).
    finding spf_verdict(scope, verdict, text) = "SPF {scope}: {verdict}, {text}";
    /// SPF: the verdict has no consequence for this client.
    finding spf_forwarder() = "the client is on a whitelist by its name or as a forwarder";
}
