//! `GeoIPAction`: acts on where the client comes from.

mod choice;

use self::choice::{Asn, Choice, Choosable, Continent, Country};
use crate::fields::Template;
use crate::log::messages::findings;
use crate::mode::Mode;
use crate::options::{OptionalUserConfig, UserConfig, options};
use crate::plugin::{Cx, Error, Plugin, Setup, Verdict};
use crate::scoring::{Mark, Scoring};
use crate::value::Flag;

options! {
    /// Acts on the country, continent or network operator that an earlier GeoIPLookup plugin has found.
    ///
    /// At least one of `country_codes`, `continents` and `asns` is needed; where there are several, all have
    /// to match. A list that begins with `!` means everything but what it names. A client of which the
    /// database knows nothing (a private address, a new network) matches no list, also not one with `!`,
    /// unless `match_unknown` says so. If the lookup was not made or has failed, nothing happens, whatever
    /// `match_unknown` says.
    ///
    /// The score counts once per message.
    ///
    /// ```conf
    /// <Plugin geoip>
    ///   module = "GeoIPLookup"
    ///   database = "/usr/share/GeoIP/GeoIP.dat"
    ///   database6 = "/usr/share/GeoIP/GeoIPv6.dat"
    /// </Plugin>
    /// <Plugin geoip-near>
    ///   module = "GeoIPAction"
    ///   result_from = "geoip"
    ///   country_codes = "DE, AT, CH"
    ///   mode = "passive"
    ///   score = -1
    /// </Plugin>
    /// <Plugin geoip-far>
    ///   module = "GeoIPAction"
    ///   result_from = "geoip"
    ///   continents = "!EU, NA"
    ///   mode = "passive"
    ///   score = 2
    /// </Plugin>
    /// ```
    pub struct GeoIpActionOptions {
        /// The name of the GeoIPLookup plugin whose result to use; it must come before this one.
        result_from: String,
        + enabled,
        /// The countries that match, as two-letter codes (ISO 3166-1): `DE, AT`, or `!DE, AT` for all others.
        /// Some databases also use `EU` and `AP` for regions; old ones use `A1` for anonymous proxies, `A2`
        /// for satellite providers and `O1` for others.
        country_codes: OptionalUserConfig<Choice<Country>>,
        /// The continents that match. Not every database has continents.
        continents: Option<Choice<Continent>>,
        /// The numbers of the autonomous systems that match.
        asns: Option<Choice<Asn>>,
        /// Whether a client that is not in the database matches (`1`) or not (`0`).
        match_unknown: Flag = Flag(false),
        /// What to do if the client matches: `reject` the message; `accept` it, which ends the chain with
        /// `dunno` (`dunno` means the same); or only add the score (`passive`).
        mode: UserConfig<Mode> = Mode::Reject,
        /// The text of the rejection. `%CC%` is the code of the country, `%CONTINENT%` that of the continent
        /// and `%ASN%` the network operator (`AS15169`), each replaced by `unknown` if the database does not
        /// know it; `%IP%` is the address of the client. Only the first occurrence of each placeholder is
        /// replaced.
        reject_message: Template = "delivery from %CC% (%IP%) rejected",
        /// Added to the score if the client matches.
        score: Scoring = Mark("geoip-{}-score"),
    }
    rules {
        AnyOf(country_codes, continents, asns),
    }
}

pub struct GeoIpAction {
    options: GeoIpActionOptions,
    country: String,
    continent: String,
    asn: String,
}

/// What the lookup has found, each `None` where it knows nothing.
struct Location {
    country: Option<Country>,
    continent: Option<Continent>,
    asn: Option<Asn>,
}

impl Plugin for GeoIpAction {
    const NAME: &'static str = "GeoIPAction";
    type Options = GeoIpActionOptions;

    fn new(options: GeoIpActionOptions, setup: &mut Setup<'_, '_>) -> Option<GeoIpAction> {
        for oddity in options.country_codes.configured().map(Choice::oddities).unwrap_or_default() {
            setup.section.warn("country_codes", oddity);
        }
        setup.uses_result("GeoIPLookup", &options.result_from);
        let field = |what: &str| format!("geoip-{}-{what}", options.result_from);
        Some(GeoIpAction {
            country: field("result"),
            continent: field("continent"),
            asn: field("asn"),
            options,
        })
    }

    async fn run(&self, cx: &mut Cx<'_>) -> Result<Verdict, Error> {
        let Some(location) = self.location(cx) else { return Ok(Verdict::Next) };
        let country = shown(location.country);
        cx.note(findings::country_matched(&country));
        self.options.score.add_once(cx.session);
        Ok(self.options.mode.get(cx.session).verdict(|| {
            let (continent, asn) = (shown(location.continent), shown(location.asn));
            let ip = cx.shown("client_address");
            let values = [("%IP%", &*ip), ("%CC%", &country), ("%CONTINENT%", &continent), ("%ASN%", &asn)];
            self.options.reject_message.fill(&values)
        }))
    }
}

impl GeoIpAction {
    /// Where the client is, if that matches all lists.
    fn location(&self, cx: &mut Cx<'_>) -> Option<Location> {
        let session = &*cx.session;
        let country = session.result(&self.country).map(|code| code.parse().ok().map(Country));
        let continent = session.result(&self.continent).map(|code| code.parse().ok().map(Continent));
        let asn = session.result(&self.asn).map(|number| number.parse().ok().map(Asn));
        let codes = self.options.country_codes.get(session);
        let all = self.is_chosen(codes.as_ref(), country, "country", cx)
            && self.is_chosen(self.options.continents.as_ref(), continent, "continent", cx)
            && self.is_chosen(self.options.asns.as_ref(), asn, "network", cx);
        let something = codes.is_some() || self.options.continents.is_some() || self.options.asns.is_some();
        let location =
            Location { country: country.flatten(), continent: continent.flatten(), asn: asn.flatten() };
        (all && something).then_some(location)
    }

    /// Whether a list is not there or matches; `None` where it was not looked up.
    fn is_chosen<T: Choosable>(
        &self,
        choice: Option<&Choice<T>>,
        found: Option<Option<T>>,
        what: &str,
        cx: &mut Cx<'_>,
    ) -> bool {
        let Some(choice) = choice else { return true };
        let Some(found) = found else {
            cx.note(findings::not_looked_up(&self.options.result_from, what));
            return false;
        };
        choice.matches(found, self.options.match_unknown.0)
    }
}

fn shown(found: Option<impl Choosable>) -> String {
    found.map_or_else(|| "unknown".to_owned(), |found| found.to_string())
}

#[cfg(test)]
mod tests {
    use crate::testing::Bench;

    fn text(options: &str) -> String {
        format!("<Plugin a>\n module = GeoIPAction\n result_from = g\n {options}\n</Plugin>")
    }

    /// The answer to a client of which the lookup has found country, continent and network.
    fn answer(options: &str, found: [&str; 3]) -> Option<String> {
        let mut bench = bench(options, found);
        bench.run()
    }

    fn bench(options: &str, found: [&str; 3]) -> Bench {
        let mut bench = Bench::new(&text(options)).attribute("client_address", "192.0.2.4");
        for (what, found) in ["result", "continent", "asn"].iter().zip(found) {
            bench.session.set(&format!("geoip-g-{what}"), found);
        }
        bench
    }

    const BERLIN: [&str; 3] = ["DE", "EU", "64500"];
    const NOWHERE: [&str; 3] = ["", "", ""];

    #[test]
    fn a_country_on_the_list_is_rejected() {
        let rejection = Some("reject delivery from DE (192.0.2.4) rejected".to_owned());
        assert_eq!(answer("country_codes = \"US, de\"", BERLIN), rejection);
        assert_eq!(answer("country_codes = US", BERLIN), None);
        assert_eq!(answer("country_codes = \"!US\"", BERLIN), rejection);
        assert_eq!(answer("country_codes = \"!DE,AT\"", BERLIN), None);
    }

    #[test]
    fn continents_and_networks_match_too_and_all_lists_have_to() {
        let message = "reject_message = \"%CONTINENT% %ASN% %CC% %CC%\"";
        let rejection = Some("reject EU AS64500 DE %CC%".to_owned());
        for (options, matches) in [
            ("continents = \"NA, EU\"", true),
            ("continents = \"!EU\"", false),
            ("asns = AS64500", true),
            ("asns = \"!64500\"", false),
            ("country_codes = \"!US\"\n asns = 64500", true),
            ("country_codes = US\n asns = 64500", false),
            ("country_codes = DE\n continents = EU\n asns = 1", false),
        ] {
            let expected = rejection.clone().filter(|_| matches);
            assert_eq!(answer(&format!("{options}\n {message}"), BERLIN), expected, "{options}");
        }
    }

    #[test]
    fn what_is_not_known_matches_only_where_it_says_so() {
        for list in ["country_codes = DE", "country_codes = \"!DE\"", "continents = \"!EU\"", "asns = \"!1\""]
        {
            assert_eq!(answer(list, NOWHERE), None, "{list}");
            let rejection = "reject delivery from unknown (192.0.2.4) rejected";
            assert_eq!(answer(&format!("{list}\n match_unknown = 1"), NOWHERE).as_deref(), Some(rejection));
        }
    }

    #[test]
    fn what_was_not_looked_up_never_matches() {
        for list in ["country_codes = \"!DE\"", "continents = \"!EU\"", "asns = \"!1\""] {
            let mut bench = Bench::new(&text(&format!("{list}\n match_unknown = 1")));
            assert_eq!(bench.run(), None, "{list}");
        }
    }

    #[test]
    fn a_mode_decides_and_the_score_counts_once() {
        for (mode, expected) in [("accept", Some("dunno")), ("dunno", Some("dunno")), ("passive", None)] {
            let options = format!("country_codes = DE\n score = 3\n mode = {mode}");
            let mut bench = bench(&options, BERLIN);
            assert_eq!((bench.run().as_deref(), bench.run().as_deref()), (expected, expected));
            assert_eq!(bench.session.text("score_detail"), Some("a=3"));
        }
    }

    #[test]
    fn a_user_has_countries_of_his_own() {
        let mut bench = bench("uc_country_codes = mine\n uc_mode = mode", BERLIN);
        assert_eq!(bench.run(), None);
        bench.session.set_user("mine", "!AT");
        assert!(bench.run().is_some());
        bench.session.set_user("mode", "passive");
        assert_eq!(bench.run(), None);
    }

    #[test]
    fn mistakes_are_found_at_the_start() {
        let warnings = Bench::warnings(&text("country_codes = \"DE,UK\""));
        let warning = "country_codes: `UK` is not the code of a country; did you mean `GB`?";
        assert!(warnings.len() == 1 && warnings[0].ends_with(warning), "{warnings:?}");
        for (options, mistake) in [
            ("", "needs `country_codes`, `continents` or `asns`"),
            ("country_codes = \"!DE,UK\"", "did you mean `GB`?"),
            ("continents = Europe", "did you mean `EU`?"),
            ("asns = Google", "`Google` is not the number of an autonomous system"),
        ] {
            let mistakes = Bench::mistakes(&text(options));
            assert!(mistakes.len() == 1 && mistakes[0].contains(mistake), "{mistakes:?}");
        }
    }
}
