//! What is read out of a certificate (RFC 5280 section 4.1): the names it is
//! for and when it ends. Nothing here decides about trust; clients do that.

use std::time::Duration;

/// A certificate's names and its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// The `dNSName`s of its subject alternative names, in lower case; a
    /// wildcard as `*.example.com`.
    pub names: Vec<String>,
    /// Its `notAfter`, since the Unix epoch.
    pub ends: Duration,
}

const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
const OCTET_STRING: u8 = 0x04;
const OBJECT_IDENTIFIER: u8 = 0x06;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const SEQUENCE: u8 = 0x30;
/// `[0] version`, `[3] extensions` of `TBSCertificate`, `[2] dNSName` of
/// `GeneralName`.
const VERSION: u8 = 0xa0;
const EXTENSIONS: u8 = 0xa3;
const DNS_NAME: u8 = 0x82;

/// `id-ce-subjectAltName`, 2.5.29.17.
const SUBJECT_ALT_NAME: &[u8] = &[0x55, 0x1d, 0x11];

/// Reads a certificate in DER; `None` if it is not one.
pub fn read(der: &[u8]) -> Option<Facts> {
    let mut whole = Der(der);
    let mut certificate = Der(whole.expect(SEQUENCE)?);
    let mut body = Der(certificate.expect(SEQUENCE)?);
    body.skip(VERSION);
    body.expect(INTEGER)?; // serialNumber
    body.expect(SEQUENCE)?; // signature
    body.expect(SEQUENCE)?; // issuer
    let mut validity = Der(body.expect(SEQUENCE)?);
    validity.next()?; // notBefore
    let (kind, text) = validity.next()?;
    let ends = time(kind, text)?;
    let mut names = Vec::new();
    while let Some((tag, content)) = body.next() {
        if tag == EXTENSIONS {
            names = alternative_names(content)?;
        }
    }
    // What follows the body is there, or this is no certificate.
    certificate.expect(SEQUENCE)?;
    certificate.expect(BIT_STRING)?;
    Some(Facts { names, ends })
}

fn alternative_names(extensions: &[u8]) -> Option<Vec<String>> {
    let mut names = Vec::new();
    let mut list = Der(Der(extensions).expect(SEQUENCE)?);
    while let Some((SEQUENCE, extension)) = list.next() {
        let mut extension = Der(extension);
        if extension.expect(OBJECT_IDENTIFIER)? != SUBJECT_ALT_NAME {
            continue;
        }
        extension.skip(0x01); // critical
        let mut general = Der(Der(extension.expect(OCTET_STRING)?).expect(SEQUENCE)?);
        while let Some((tag, name)) = general.next() {
            if tag == DNS_NAME {
                names.push(std::str::from_utf8(name).ok()?.to_ascii_lowercase());
            }
        }
    }
    Some(names)
}

/// `UTCTime` (two digits of a year) or `GeneralizedTime` (four), both in `Z`
/// and with seconds (RFC 5280 section 4.1.2.5).
fn time(kind: u8, text: &[u8]) -> Option<Duration> {
    let text = std::str::from_utf8(text).ok()?;
    let full = match kind {
        UTC_TIME => {
            let year: u32 = text.get(..2)?.parse().ok()?;
            let century = if year < 50 { "20" } else { "19" };
            format!("{century}{text}")
        }
        GENERALIZED_TIME => text.to_owned(),
        _ => return None,
    };
    let digits = full.strip_suffix('Z')?;
    if digits.len() != 14 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let part = |from: usize, to: usize| digits.get(from..to)?.parse::<i16>().ok();
    let small = |from, to| part(from, to).and_then(|number| i8::try_from(number).ok());
    let time = jiff::civil::DateTime::new(
        part(0, 4)?,
        small(4, 6)?,
        small(6, 8)?,
        small(8, 10)?,
        small(10, 12)?,
        small(12, 14)?,
        0,
    )
    .ok()?
    .to_zoned(jiff::tz::TimeZone::UTC)
    .ok()?;
    // A certificate that ended before 1970 has ended, whenever that was.
    let seconds = u64::try_from(time.timestamp().as_second()).unwrap_or(0);
    Some(Duration::from_secs(seconds))
}

/// Elements in DER, one after another.
struct Der<'a>(&'a [u8]);

impl<'a> Der<'a> {
    /// The next element: its tag and content.
    fn next(&mut self) -> Option<(u8, &'a [u8])> {
        let (&tag, rest) = self.0.split_first()?;
        let (&first, mut rest) = rest.split_first()?;
        let length = match first {
            0..=0x7f => usize::from(first),
            0x81..=0x84 => {
                let (bytes, after) = rest.split_at_checked(usize::from(first & 0x7f))?;
                rest = after;
                bytes
                    .iter()
                    .fold(0, |sum, byte| (sum << 8) | usize::from(*byte))
            }
            _ => return None,
        };
        let (content, after) = rest.split_at_checked(length)?;
        self.0 = after;
        Some((tag, content))
    }

    /// The next element's content, if it has this tag.
    fn expect(&mut self, tag: u8) -> Option<&'a [u8]> {
        self.next()
            .filter(|(found, _)| *found == tag)
            .map(|(_, content)| content)
    }

    /// Passes over the next element if it has this tag.
    fn skip(&mut self, tag: u8) {
        if self.0.first() == Some(&tag) {
            self.next();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(names: &[&str], year: i32) -> Vec<u8> {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let mut parameters = rcgen::CertificateParams::new(names).unwrap();
        parameters.not_after = rcgen::date_time_ymd(year, 3, 4);
        let key = rcgen::KeyPair::generate().unwrap();
        parameters.self_signed(&key).unwrap().der().to_vec()
    }

    #[test]
    fn names_and_end_are_read() {
        let facts = read(&made(
            &["App.example.com", "*.example.org", "10.0.0.1"],
            2031,
        ))
        .unwrap();
        assert_eq!(facts.names, ["app.example.com", "*.example.org"]);
        assert_eq!(facts.ends.as_secs(), 1_930_348_800);
    }

    #[test]
    fn both_spellings_of_time_are_read() {
        // From 2050 on it is a GeneralizedTime.
        let facts = read(&made(&["a.example"], 2070)).unwrap();
        assert_eq!(facts.ends.as_secs(), 3_161_116_800);
        assert_eq!(time(UTC_TIME, b"700101000001Z").unwrap().as_secs(), 1);
        assert_eq!(time(UTC_TIME, b"7001010000Z"), None);
        assert_eq!(time(GENERALIZED_TIME, b"20301301000000Z"), None);
    }

    #[test]
    fn pieces_and_noise_are_no_certificate() {
        let whole = made(&["a.example"], 2031);
        for end in 0..whole.len() {
            assert_eq!(read(&whole[..end]), None, "{end}");
        }
        assert_eq!(read(b"\x30\x84\xff\xff\xff\xff"), None);
        assert_eq!(read(&[0x30; 64]), None);
    }
}
