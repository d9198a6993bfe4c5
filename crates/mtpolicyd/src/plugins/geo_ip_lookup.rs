//! `GeoIPLookup`: where does the client come from?

use crate::facts::geoip::{Code, Contents, DatabaseFile, Found, open};
use crate::log::messages::findings;
use crate::options::options;
use crate::plugin::{Cx, Error, Plugin, Setup, Verdict};
use backends::Call;
use std::net::IpAddr;
use std::sync::Arc;

options! {
    /// Looks up the country, continent and network operator of the client for GeoIPAction.
    ///
    /// It reads the files of MaxMind, old (`GeoIP.dat`) and new (`.mmdb`: GeoLite2, GeoIP2), and of other
    /// providers in the new format, such as DB-IP. Debian has the old ones in the package `geoip-database`.
    /// A file is opened at the first request; the plugin fails if it is missing or corrupt. A replaced file
    /// is read again within a second; if the new one is corrupt, the previous one stays in use.
    ///
    /// The result is kept for the message in the session fields `geoip-NAME-result` (`DE`),
    /// `geoip-NAME-continent` (`EU`) and, where there is a database for it, `geoip-NAME-asn` (`15169`), with
    /// the name of the plugin. They are empty if the database has no entry, or one that stands for an unknown
    /// country (`XX`, `ZZ`) or network operator (number 0).
    ///
    /// ```conf
    /// <Plugin geoip>
    ///   module = "GeoIPLookup"
    ///   database = "/var/lib/GeoIP/GeoLite2-Country.mmdb"
    ///   asn_database = "/var/lib/GeoIP/GeoLite2-ASN.mmdb"
    /// </Plugin>
    /// ```
    pub struct GeoIpLookupOptions {
        /// The database of countries. The old `GeoIP.dat` has IPv4 addresses only; `GeoIPv6.dat` and new
        /// files have both.
        database: String = "/usr/share/GeoIP/GeoIP.dat",
        /// Another file for clients with IPv6 addresses, such as `/usr/share/GeoIP/GeoIPv6.dat`. Without it,
        /// `database` is used for them too; an old one for IPv4 finds nothing.
        database6: Option<String>,
        /// The database of autonomous systems: `GeoLite2-ASN.mmdb` or the old `GeoIPASNum.dat`. Without it,
        /// `database` is used if it has them.
        asn_database: Option<String>,
        /// Another file for autonomous systems of clients with IPv6 addresses.
        asn_database6: Option<String>,
    }
}

pub struct GeoIpLookup {
    countries: Files,
    /// `None` where the database of countries is asked.
    asns: Option<Files>,
    country: String,
    continent: String,
    asn: String,
}

/// The file that is asked of an address.
struct Files {
    all: Arc<DatabaseFile>,
    ipv6: Option<Arc<DatabaseFile>>,
}

impl Plugin for GeoIpLookup {
    const NAME: &'static str = "GeoIPLookup";
    type Options = GeoIpLookupOptions;

    fn new(options: GeoIpLookupOptions, setup: &mut Setup<'_, '_>) -> Option<GeoIpLookup> {
        let files = |all: &str, ipv6: Option<&str>| Files { all: open(all), ipv6: ipv6.map(open) };
        let (asns, asns6) = (options.asn_database.as_deref(), options.asn_database6.as_deref());
        let field = |what: &str| format!("geoip-{}-{what}", setup.name);
        Some(GeoIpLookup {
            countries: files(&options.database, options.database6.as_deref()),
            asns: asns.or(asns6).map(|any| files(asns.unwrap_or(any), asns6)),
            country: field("result"),
            continent: field("continent"),
            asn: field("asn"),
        })
    }

    async fn run(&self, cx: &mut Cx<'_>) -> Result<Verdict, Error> {
        cx.attribute("client_address")?;
        let (client, call) = (cx.request.client_ip(), cx.call);
        // One file that fails does not keep the other from being asked.
        let countries = match cx.session.result(&self.country) {
            Some(_) => Ok(()),
            None => self.find_country(client, call, cx).await,
        };
        if let Some(asns) = &self.asns
            && cx.session.result(&self.asn).is_none()
        {
            let found = asns.ask(client, call, |contents| contents.asns, "numbers of networks").await?;
            self.keep_asn(found.0, cx);
        }
        countries.map(|()| Verdict::Next)
    }
}

impl GeoIpLookup {
    async fn find_country(&self, ip: Option<IpAddr>, call: Call<'_>, cx: &mut Cx<'_>) -> Result<(), Error> {
        let asked = self.countries.ask(ip, call, |contents| contents.countries, "countries");
        let (found, contents) = asked.await?;
        let Found { country, continent, .. } = found;
        let client = cx.shown("client_address");
        match country {
            Some(country) => cx.note(findings::country(client, country)),
            None => cx.note(findings::country_unknown(client)),
        }
        let text = |code: Option<Code>| code.map(|code| code.to_string()).unwrap_or_default();
        cx.session.set(&self.country, &text(country));
        cx.session.set(&self.continent, &text(continent));
        if self.asns.is_none() && contents.asns {
            self.keep_asn(found, cx);
        }
        Ok(())
    }

    fn keep_asn(&self, found: Found, cx: &mut Cx<'_>) {
        cx.session.set(&self.asn, &found.asn.map(|asn| asn.to_string()).unwrap_or_default());
    }
}

impl Files {
    /// What is known of a client, and what the file could say. A file without what is wanted is a mistake.
    async fn ask(
        &self,
        ip: Option<IpAddr>,
        call: Call<'_>,
        has: fn(Contents) -> bool,
        wanted: &str,
    ) -> Result<(Found, Contents), Error> {
        let ipv6 = self.ipv6.as_ref().filter(|_| ip.is_some_and(|ip| ip.is_ipv6()));
        let file = ipv6.unwrap_or(&self.all);
        let failed = |cause: String| Error::service("GeoIP", cause);
        let database = file.get(call.deadline()).await.map_err(|error| failed(error.to_string()))?;
        let contents = database.contents();
        let failed = |cause: &str| failed(format!("{}: {cause}", file.path().display()));
        if !has(contents) {
            return Err(failed(&format!("there are no {wanted} in it")));
        }
        // A client without an address is nowhere.
        let found = ip.map_or(Ok(Found::default()), |ip| database.lookup(ip));
        found.map(|found| (found, contents)).map_err(|cause| failed(&cause))
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::Bench;
    use crate::testing::geoip::{asn, country, edition, legacy_countries, legacy_records, mmdb};
    use std::fs;
    use tempfile::TempDir;

    fn folder() -> TempDir {
        let folder = tempfile::tempdir().unwrap();
        let countries = [("192.0.2.0/24", 56)];
        let networks: [(&str, &[u8]); 1] = [("192.0.2.0/24", b"AS64500 Example")];
        let germany = [("2001:db8::/32", country("US", "NA")), ("192.0.2.0/24", country("AT", "EU"))];
        for (name, file) in [
            ("v4.dat", legacy_countries(edition::COUNTRY, &countries)),
            ("v6.dat", legacy_countries(edition::COUNTRY_V6, &[("2001:db8::/32", 225)])),
            ("asn.dat", legacy_records(edition::ASN, &networks)),
            ("asn6.dat", legacy_records(edition::ASN_V6, &[("2001:db8::/32", b"AS64501 Example")])),
            ("country.mmdb", mmdb("GeoLite2-Country", true, &germany)),
            ("asn.mmdb", mmdb("GeoLite2-ASN", true, &[("2001:db8::/32", asn(64_502))])),
            ("corrupt.dat", b"not a database".to_vec()),
        ] {
            fs::write(folder.path().join(name), file).unwrap();
        }
        folder
    }

    fn bench(folder: &TempDir, options: &str) -> Bench {
        let options = options.replace('$', folder.path().to_str().unwrap());
        Bench::new(&format!("<Plugin g>\n module = GeoIPLookup\n {options}\n</Plugin>"))
    }

    /// Country, continent and network of an address, each `None` where it was not looked up.
    fn ask(bench: &mut Bench, ip: &str) -> [Option<String>; 3] {
        bench.attribute_again("client_address", ip);
        assert_eq!(bench.run_fresh(), None);
        ["result", "continent", "asn"]
            .map(|what| bench.session.result(&format!("geoip-g-{what}")).map(str::to_owned))
    }

    fn fields(country: &str, continent: &str, asn: Option<&str>) -> [Option<String>; 3] {
        [Some(country), Some(continent), asn].map(|field| field.map(str::to_owned))
    }

    #[test]
    fn an_old_file_knows_one_version_of_addresses() {
        let folder = folder();
        let mut alone = bench(&folder, "database = $/v4.dat");
        for (ip, expected) in [
            ("192.0.2.1", fields("DE", "EU", None)),
            ("::ffff:192.0.2.1", fields("DE", "EU", None)),
            ("192.0.3.1", fields("", "", None)),
            ("2001:db8::1", fields("", "", None)),
            ("unknown", fields("", "", None)),
            ("", fields("", "", None)),
        ] {
            assert_eq!(ask(&mut alone, ip), expected, "{ip}");
        }
    }

    #[test]
    fn several_files_go_together() {
        let folder = folder();
        let files = "database = $/v4.dat\n database6 = $/v6.dat\n asn_database = $/asn.dat";
        let mut bench = bench(&folder, &format!("{files}\n asn_database6 = $/asn6.dat"));
        assert_eq!(ask(&mut bench, "192.0.2.1"), fields("DE", "EU", Some("64500")));
        assert_eq!(ask(&mut bench, "2001:db8::1"), fields("US", "NA", Some("64501")));
        assert_eq!(ask(&mut bench, "192.0.3.1"), fields("", "", Some("")));
    }

    #[test]
    fn new_files_know_both() {
        let folder = folder();
        let mut bench = bench(&folder, "database = $/country.mmdb\n asn_database = $/asn.mmdb");
        assert_eq!(ask(&mut bench, "192.0.2.1"), fields("AT", "EU", Some("")));
        assert_eq!(ask(&mut bench, "2001:db8::1"), fields("US", "NA", Some("64502")));
    }

    #[test]
    fn a_mail_is_looked_up_once() {
        let folder = folder();
        let mut bench = bench(&folder, "database = $/v4.dat").attribute("client_address", "192.0.2.1");
        bench.session.set("geoip-g-result", "FR");
        assert_eq!(bench.run(), None);
        assert_eq!(bench.session.result("geoip-g-result"), Some("FR"));
    }

    #[test]
    fn a_file_that_cannot_be_used_fails_the_plugin() {
        let folder = folder();
        for (options, cause) in [
            ("database = $/nosuch.dat", "nosuch.dat: no such file"),
            ("database = $/corrupt.dat", "corrupt.dat: this is not a GeoIP database"),
            ("database = $/asn.mmdb", "asn.mmdb: there are no countries in it"),
            (
                "database = $/v4.dat\n asn_database = $/v6.dat",
                "v6.dat: there are no numbers of networks in it",
            ),
        ] {
            let mut bench = bench(&folder, options).attribute("client_address", "192.0.2.1");
            let error = bench.try_run().unwrap_err();
            assert!(error.contains(cause), "{error}");
        }
        let error = bench(&folder, "").try_run().unwrap_err();
        assert!(error.contains("no attribute `client_address`"), "{error}");
    }

    #[test]
    fn a_file_that_fails_leaves_the_other_alone() {
        let folder = folder();
        let files = "database = $/nosuch.dat\n asn_database = $/asn.dat\n on_error = continue";
        assert_eq!(ask(&mut bench(&folder, files), "192.0.2.1"), [None, None, Some("64500".to_owned())]);
        let files = "database = $/v4.dat\n asn_database = $/nosuch.dat\n on_error = continue";
        assert_eq!(ask(&mut bench(&folder, files), "192.0.2.1"), fields("DE", "EU", None));
    }
}
