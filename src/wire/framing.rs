//! Message framing that only one reading fits (RFC 9112 section 6).

use std::borrow::Cow;

use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderValue, Version};

use crate::base::refusal::Refusal;

/// Refuses a request whose end two servers could see in two places:
/// `Transfer-Encoding` that is not exactly one `chunked` line, that stands
/// beside `Content-Length`, or that is not HTTP/1.1; `Content-Length` that is
/// no decimal number, or several that differ.
///
/// # Errors
/// [`Refusal::BadFraming`]; the connection must then be closed.
pub fn check_request_framing(headers: &HeaderMap, version: Version) -> Result<(), Refusal> {
    match unambiguous(headers, version) {
        true => Ok(()),
        false => Err(Refusal::BadFraming),
    }
}

/// The same for an upstream's response.
///
/// # Errors
/// [`Refusal::UpstreamProtocolError`]; the upstream connection must then be
/// closed.
pub fn check_response_framing(headers: &HeaderMap, version: Version) -> Result<(), Refusal> {
    match unambiguous(headers, version) {
        true => Ok(()),
        false => Err(Refusal::UpstreamProtocolError),
    }
}

/// Writes `Content-Length` as [`plain_length`] has it.
pub fn write_length_anew(headers: &mut HeaderMap) {
    if let Some(Cow::Owned(length)) = plain_length(headers) {
        headers.insert(CONTENT_LENGTH, length);
    }
}

/// The one plain number that the checked lines of `Content-Length` mean. Servers exist
/// that read `010` as octal, and then see another end of the message than we do.
pub fn plain_length(headers: &HeaderMap) -> Option<Cow<'_, HeaderValue>> {
    let mut lines = headers.get_all(CONTENT_LENGTH).iter();
    let first = lines.next()?;
    if is_plain(first) && lines.next().is_none() {
        return Some(Cow::Borrowed(first));
    }
    match decimal(first) {
        Some(length) => Some(Cow::Owned(HeaderValue::from(length))),
        None => Some(Cow::Borrowed(first)),
    }
}

fn is_plain(length: &HeaderValue) -> bool {
    length.len() == 1 || !length.as_bytes().starts_with(b"0")
}

fn unambiguous(headers: &HeaderMap, version: Version) -> bool {
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    if let Some(coding) = codings.next() {
        return version == Version::HTTP_11
            && codings.next().is_none()
            && coding
                .as_bytes()
                .trim_ascii()
                .eq_ignore_ascii_case(b"chunked")
            && !headers.contains_key(CONTENT_LENGTH);
    }
    let mut lengths = headers.get_all(CONTENT_LENGTH).iter();
    let Some(first) = lengths.next() else {
        return true;
    };
    let Some(length) = decimal(first) else {
        return false;
    };
    lengths.all(|other| decimal(other) == Some(length))
}

/// 1*DIGIT that fits; no sign, no list, no blank.
fn decimal(value: &HeaderValue) -> Option<u64> {
    let digits = value.as_bytes();
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0_u64, |sum, byte| {
        let digit = char::from(*byte).to_digit(10)?;
        sum.checked_mul(10)?.checked_add(u64::from(digit))
    })
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Fields, line by line.
    pub fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, HeaderValue::from_static(value));
        }
        headers
    }

    /// S-14: one line, one reading.
    #[test]
    fn s14_a_length_is_written_anew() {
        for (lines, expected) in [
            (&["5"][..], "5"),
            (&["0"], "0"),
            (&["010"], "10"),
            (&["000"], "0"),
            (&["7", "7"], "7"),
            (&["007", "7"], "7"),
        ] {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append(CONTENT_LENGTH, HeaderValue::from_static(line));
            }
            write_length_anew(&mut headers);
            let written: Vec<_> = headers.get_all(CONTENT_LENGTH).iter().collect();
            assert_eq!(written, [expected], "{lines:?}");
        }
        let mut none = HeaderMap::new();
        write_length_anew(&mut none);
        assert!(none.is_empty());
    }

    /// CVE-2026-2835, CVE-2021-38512; S-12, S-13: hyper takes several of these.
    #[test]
    fn s13_transfer_encoding_is_one_chunked_or_refused() {
        let te = |value| headers(&[("transfer-encoding", value)]);
        for good in ["chunked", "Chunked"] {
            assert_eq!(check_request_framing(&te(good), Version::HTTP_11), Ok(()));
        }
        for bad in [
            "x, chunked",
            "chunked, chunked",
            ", chunked",
            "xchunked",
            "gzip",
            "",
            "identity",
            "chunked;a=b",
        ] {
            assert_eq!(
                check_request_framing(&te(bad), Version::HTTP_11),
                Err(Refusal::BadFraming),
                "{bad}"
            );
        }
        for version in [Version::HTTP_09, Version::HTTP_10, Version::HTTP_2] {
            assert_eq!(
                check_request_framing(&te("chunked"), version),
                Err(Refusal::BadFraming)
            );
        }
        let twice = headers(&[
            ("transfer-encoding", "chunked"),
            ("transfer-encoding", "chunked"),
        ]);
        assert_eq!(
            check_request_framing(&twice, Version::HTTP_11),
            Err(Refusal::BadFraming)
        );
    }

    #[test]
    fn s12_both_framings_are_refused() {
        let both = headers(&[("transfer-encoding", "chunked"), ("content-length", "5")]);
        assert_eq!(
            check_request_framing(&both, Version::HTTP_11),
            Err(Refusal::BadFraming)
        );
    }

    /// CVE-2023-40225 and others: empty, signed, prefixed, listed. S-14.
    #[test]
    fn s14_content_length_is_one_number() {
        let check = |lines: &[_]| check_request_framing(&headers(lines), Version::HTTP_11);
        assert_eq!(check(&[]), Ok(()));
        assert_eq!(check(&[("content-length", "0")]), Ok(()));
        assert_eq!(
            check(&[("content-length", "5"), ("content-length", "5")]),
            Ok(())
        );
        for bad in [
            "",
            "+5",
            "-1",
            "0x5",
            "5, 5",
            "5 5",
            "1_0",
            "18446744073709551616",
        ] {
            let lines = [("content-length", bad)];
            assert_eq!(check(&lines), Err(Refusal::BadFraming), "{bad}");
        }
        let differing = [("content-length", "5"), ("content-length", "6")];
        assert_eq!(check(&differing), Err(Refusal::BadFraming));
    }

    #[test]
    fn s15_a_responses_framing_is_the_upstreams_fault() {
        let refused = headers(&[("transfer-encoding", "chunked, chunked")]);
        assert_eq!(
            check_response_framing(&refused, Version::HTTP_11),
            Err(Refusal::UpstreamProtocolError)
        );
        let both = headers(&[("content-length", "7"), ("transfer-encoding", "chunked")]);
        assert!(check_response_framing(&both, Version::HTTP_11).is_err());
        let fine = headers(&[("content-length", "7")]);
        assert_eq!(check_response_framing(&fine, Version::HTTP_10), Ok(()));
    }
}
