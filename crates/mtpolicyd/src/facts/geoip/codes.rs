//! The codes of countries (ISO 3166-1, and those that MaxMind added) and of continents.
//!
//! Knows: the lists. Must not know: where a code comes from.

use crate::value::nearest;
use std::fmt::Display;
use std::str::FromStr;

/// A code of two letters or digits, in capital letters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Code([u8; 2]);

impl Code {
    /// The code.
    pub fn as_str(&self) -> &str {
        // It is ASCII by construction.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl Code {
    /// Whether it stands for no country: ISO 3166 leaves these codes to their users, and databases have them
    /// for networks of which nothing is known.
    pub fn is_unknown(self) -> bool {
        matches!(&self.0, b"XX" | b"ZZ")
    }
}

impl Display for Code {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Code {
    type Err = ();
    fn from_str(text: &str) -> Result<Code, ()> {
        match text.as_bytes() {
            &[first @ (b'a'..=b'z' | b'A'..=b'Z'), second] if second.is_ascii_alphanumeric() => {
                Ok(Code([first.to_ascii_uppercase(), second.to_ascii_uppercase()]))
            }
            _ => Err(()),
        }
    }
}

/// The countries by their numbers in legacy files, each with its continent as GeoNames has it. `AP` and `EU`
/// are regions, `A1`, `A2` and `O1` anonymous proxies, satellites and others.
const BY_NUMBER: &str = "\
    ---- APAS EUEU ADEU AEAS AFAS AGNA AINA ALEU AMAS CWNA AOAF AQAN ARSA ASOC ATEU \
    AUOC AWNA AZAS BAEU BBNA BDAS BEEU BFAF BGEU BHAS BIAF BJAF BMNA BNAS BOSA BRSA \
    BSNA BTAS BVAN BWAF BYEU BZNA CANA CCAS CDAF CFAF CGAF CHEU CIAF CKOC CLSA CMAF \
    CNAS COSA CRNA CUNA CVAF CXOC CYEU CZEU DEEU DJAF DKEU DMNA DONA DZAF ECSA EEEU \
    EGAF EHAF ERAF ESEU ETAF FIEU FJOC FKSA FMOC FOEU FREU SXNA GAAF GBEU GDNA GEAS \
    GFSA GHAF GIEU GLNA GMAF GNAF GPNA GQAF GREU GSAN GTNA GUOC GWAF GYSA HKAS HMAN \
    HNNA HREU HTNA HUEU IDAS IEEU ILAS INAS IOAS IQAS IRAS ISEU ITEU JMNA JOAS JPAS \
    KEAF KGAS KHAS KIOC KMAF KNNA KPAS KRAS KWAS KYNA KZAS LAAS LBAS LCNA LIEU LKAS \
    LRAF LSAF LTEU LUEU LVEU LYAF MAAF MCEU MDEU MGAF MHOC MKEU MLAF MMAS MNAS MOAS \
    MPOC MQNA MRAF MSNA MTEU MUAF MVAS MWAF MXNA MYAS MZAF NAAF NCOC NEAF NFOC NGAF \
    NINA NLEU NOEU NPAS NROC NUOC NZOC OMAS PANA PESA PFOC PGOC PHAS PKAS PLEU PMNA \
    PNOC PRNA PSAS PTEU PWOC PYSA QAAS REAF ROEU RUEU RWAF SAAS SBOC SCAF SDAF SEEU \
    SGAS SHAF SIEU SJEU SKEU SLAF SMEU SNAF SOAF SRSA STAF SVNA SYAS SZAF TCNA TDAF \
    TFAN TGAF THAS TJAS TKOC TMAS TNAF TOOC TLOC TRAS TTNA TVOC TWAS TZAF UAEU UGAF \
    UMOC USNA UYSA UZAS VAEU VCNA VESA VGNA VINA VNAS VUOC WFOC WSOC YEAS YTAF RSEU \
    ZAAF ZMAF MEEU ZWAF A1-- A2-- O1-- AXEU GGEU IMEU JEEU BLNA MFNA BQNA SSAF O1--";

/// The number of bytes of a country in the list.
const ENTRY_BYTES: usize = 5;

/// Codes that are not in legacy files: Kosovo, and two that newer ones gave to others.
const OTHERS: &[&str] = &["XK", "AN", "FX"];

/// What people write instead of a code.
const SLIPS: &[(&str, &str)] =
    &[("UK", "GB"), ("EN", "GB"), ("GER", "DE"), ("EL", "GR"), ("SU", "RU"), ("YU", "RS"), ("UAE", "AE")];

/// The continents.
const CONTINENTS: &[&str] = &["AF", "AN", "AS", "EU", "NA", "OC", "SA"];

/// A country by its number in a legacy file, with its continent; `None` for the numbers that mean nothing.
pub(super) fn by_number(number: usize) -> Option<(Code, Option<Code>)> {
    let entry = BY_NUMBER.get(number.checked_mul(ENTRY_BYTES)?..)?.get(..ENTRY_BYTES - 1)?;
    let (country, continent) = entry.split_at_checked(2)?;
    Some((country.parse().ok()?, continent.parse().ok()))
}

fn countries() -> impl Iterator<Item = &'static str> {
    let listed = BY_NUMBER.split(' ').filter_map(|entry| entry.get(..2)).filter(|code| *code != "--");
    listed.chain(OTHERS.iter().copied())
}

/// Whether a code is that of a country, or one that databases have in place of one.
pub fn is_country(code: Code) -> bool {
    countries().any(|known| known == code.as_str())
}

/// The codes of the continents.
pub fn continents() -> &'static [&'static str] {
    CONTINENTS
}

/// The code of a country that somebody may have meant.
pub fn suggestion(typed: &str) -> Option<&'static str> {
    let slip = SLIPS.iter().find(|(slip, _)| slip.eq_ignore_ascii_case(typed)).map(|(_, code)| *code);
    slip.or_else(|| nearest(typed, countries()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn countries_have_numbers() {
        let country = |number| by_number(number).map(|(code, _)| code.to_string());
        for (number, code) in [(1, "AP"), (3, "AD"), (56, "DE"), (225, "US"), (247, "AX"), (254, "SS")] {
            assert_eq!(country(number).as_deref(), Some(code));
        }
        assert_eq!((country(0), country(256), country(usize::MAX)), (None, None, None));
        assert_eq!(BY_NUMBER.split(' ').count(), 256);
        assert!(BY_NUMBER.split(' ').all(|entry| entry.len() == ENTRY_BYTES - 1));
    }

    #[test]
    fn countries_have_continents() {
        for entry in BY_NUMBER.split(' ') {
            let (country, continent) = entry.split_at(2);
            let none = ["--", "A1", "A2", "O1"].contains(&country);
            assert_eq!(none, continent == "--", "{entry}");
            assert!(none || CONTINENTS.contains(&continent), "{entry}");
        }
        assert_eq!(by_number(57).unwrap().1.unwrap().as_str(), "AF");
    }

    #[test]
    fn codes_are_known_or_like_one_that_is() {
        for known in ["de", "XK", "A1", "EU"] {
            assert!(is_country(known.parse().unwrap()), "{known}");
        }
        assert!(!is_country("UK".parse().unwrap()) && "".parse::<Code>().is_err());
        assert!("12".parse::<Code>().is_err() && "D\u{e9}".parse::<Code>().is_err());
        let suggested = ["uk", "GER", "DEU", "USA", "QQ"].map(suggestion);
        assert_eq!(suggested, [Some("GB"), Some("DE"), Some("DE"), Some("US"), None]);
    }
}
