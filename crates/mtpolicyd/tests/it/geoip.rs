//! Databases of countries: those of Debian beside its own program, and files that are replaced.
//!
//! Knows: the daemon, the files, `geoiplookup`. Must not know: how a file is read.

use crate::support::daemon::{Daemon, Site, run};
use crate::support::eventually;
use crate::support::servers::program as program_of;
use mtpolicyd::facts::geoip::Database;
use mtpolicyd::testing::geoip::{country, mmdb};
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::process::Command;

/// Where Debian's package `geoip-database` has its files.
const FOLDER: &str = "/usr/share/GeoIP";

/// Numbers that are the same in each run, by xorshift.
fn numbers() -> impl Iterator<Item = u64> {
    std::iter::successors(Some(88_172_645_463_325_252_u64), |last| {
        let mut next = last ^ (last << 13);
        next ^= next >> 7;
        Some(next ^ (next << 17))
    })
}

/// What the program of the package `geoip-bin` says of an address; `None` where it finds nothing.
fn oracle(program: &Path, file: &Path, ip: IpAddr) -> Option<String> {
    let output = run(Command::new(program).arg("-f").arg(file).arg(ip.to_string()), b"");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let country = said.split_once(": ").unwrap_or_else(|| panic!("{} says `{said}`", program.display())).1;
    (!country.starts_with("IP Address not found")).then(|| country[..2].to_owned())
}

fn agrees(program: &str, file: &str, addresses: impl Iterator<Item = IpAddr>) {
    let program = program_of(program, "geoip-bin");
    let file = Path::new(FOLDER).join(file);
    let database = Database::read(&file).expect("install the Debian package geoip-database");
    let mut known = 0;
    for ip in addresses {
        let found = database.lookup(ip).expect("the file is whole").country.map(|code| code.to_string());
        assert_eq!(found, oracle(&program, &file, ip), "{ip}");
        known += usize::from(found.is_some());
    }
    assert!(known > 20, "only {known} addresses have a country");
}

#[test]
fn legacy_files_say_what_the_library_of_maxmind_says() {
    let ipv4 = numbers().take(150).map(|number| Ipv4Addr::from_bits((number >> 32) as u32).into());
    agrees("geoiplookup", "GeoIP.dat", ipv4);
    // Addresses near the beginning of what registries have given out.
    let blocks = [0x2001_0200, 0x2400_4000, 0x2600_0000, 0x2800_0000, 0x2a00_1000, 0x2c0f_f000];
    let ipv6 = numbers().take(150).zip(blocks.iter().cycle()).map(|(number, block)| {
        let first = (*block as u128) << 96;
        Ipv6Addr::from_bits(first + (u128::from(number >> 44) << 76)).into()
    });
    agrees("geoiplookup6", "GeoIPv6.dat", ipv6);
}

const HOST: &str = "\
port = \"127.0.0.1:$PORT\"
<VirtualHost $PORT>
  name = host
  <Plugin geoip>
    module = GeoIPLookup
    database = \"$DIR/country.mmdb\"
    on_error = dunno
  </Plugin>
  <Plugin action>
    module = GeoIPAction
    result_from = geoip
    country_codes = \"!AQ\"
  </Plugin>
</VirtualHost>
";

fn ask(daemon: &Daemon) -> String {
    let answer = daemon.ask("protocol_state=RCPT\nclient_address=192.0.2.1").action();
    answer.trim_start_matches("reject delivery from ").trim_end_matches(" (192.0.2.1) rejected").to_owned()
}

#[test]
fn a_database_may_come_late_and_be_replaced() {
    let site = Site::with(HOST);
    let path = site.path("country.mmdb");
    let new = site.path("new");
    let replace = |bytes: &[u8]| fs::write(&new, bytes).and_then(|()| fs::rename(&new, &path)).unwrap();
    let file = |code| mmdb("GeoLite2-Country", true, &[("192.0.2.0/24", country(code, "EU"))]);
    let daemon = site.start();
    let becomes = |expected: &str| eventually(expected, || (ask(&daemon) == expected).then_some(()));
    assert_eq!(ask(&daemon), "dunno");
    daemon.logged("country.mmdb: no such file");
    replace(&file("DE"));
    becomes("DE");
    replace(&file("AT"));
    becomes("AT");
    // Half of a file: the one before stays in use.
    replace(&file("CH")[..100]);
    let noticed = || daemon.log().contains("the previous file stays in use").then_some(());
    eventually("the daemon says so", || {
        assert_eq!(ask(&daemon), "AT");
        noticed()
    });
    fs::remove_file(&path).unwrap();
    replace(&file("FR"));
    becomes("FR");
}
