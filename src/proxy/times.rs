//! Times as the access log writes them, at little cost: each request has three.

use std::cell::Cell;
use std::io::Write as _;
use std::time::{Duration, SystemTime};

/// Length of `2026-01-02T03:04:05`.
const SECONDS: usize = 19;

/// The same with `.678Z`.
const WHOLE: usize = SECONDS + 5;

/// A moment as RFC 3339 has it, in UTC with milliseconds.
#[derive(Clone, Copy, Debug)]
pub struct Moment([u8; WHOLE]);

/// A time span in milliseconds, to the microsecond: finer is noise.
#[derive(Clone, Copy, Debug)]
pub struct Milliseconds(Duration);

thread_local! {
    /// The last second that was written, and how. Most moments are of the same one.
    static LAST: Cell<(u64, [u8; SECONDS])> = const { Cell::new((u64::MAX, [b'-'; SECONDS])) };
}

impl Moment {
    /// Of this moment; one before 1970 is 1970.
    pub fn of(time: SystemTime) -> Self {
        let since = time
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        let mut text = [b'Z'; WHOLE];
        if let Some((seconds, [dot, millis @ .., _])) = text.split_first_chunk_mut() {
            *seconds = second(since.as_secs());
            *dot = b'.';
            millis.copy_from_slice(&three(since.subsec_millis()));
        }
        Self(text)
    }

    /// The text, in ASCII.
    pub fn text(&self) -> &[u8] {
        &self.0
    }
}

impl Milliseconds {
    /// As long as this.
    pub fn of(time: Duration) -> Self {
        Self(time)
    }

    /// As a number.
    pub fn value(self) -> f64 {
        self.0.as_micros() as f64 / 1000.0
    }

    /// Writes it with three places behind the point.
    pub fn write(self, out: &mut Vec<u8>) {
        let seconds = self.0.as_secs().saturating_mul(1000);
        let micros = self.0.subsec_micros();
        decimal(out, seconds.saturating_add(u64::from(micros / 1000)));
        let [a, b, c] = three(micros % 1000);
        out.extend_from_slice(&[b'.', a, b, c]);
    }
}

/// Writes a number; by its `Display` that would cost three times as much.
pub fn decimal(out: &mut Vec<u8>, mut number: u64) {
    let mut digits = [b'0'; 20];
    let mut unused = digits.len();
    for digit in digits.iter_mut().rev() {
        *digit += u8::try_from(number % 10).unwrap_or_default();
        unused -= 1;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(digits.get(unused..).unwrap_or_default());
}

/// The last three digits.
fn three(number: u32) -> [u8; 3] {
    let digit = |number: u32| b'0' + (number % 10) as u8;
    // Units that are known when this is compiled need no division.
    [digit(number / 100), digit(number / 10), digit(number)]
}

/// A second since 1970, up to the year 9999.
fn second(number: u64) -> [u8; SECONDS] {
    let (last, text) = LAST.get();
    if last == number {
        return text;
    }
    let mut text = [b'-'; SECONDS];
    let time = i64::try_from(number).ok();
    let time = time.and_then(|number| jiff::Timestamp::from_second(number).ok());
    if let Some(time) = time {
        // The `Z` finds no room.
        let _ = write!(text.as_mut_slice(), "{time}");
    }
    LAST.set((number, text));
    text
}

#[cfg(test)]
impl serde::Serialize for Moment {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(std::str::from_utf8(self.text()).unwrap())
    }
}

#[cfg(test)]
impl serde::Serialize for Milliseconds {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(self.value())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_rfc_3339() {
        let at = |ms| Moment::of(SystemTime::UNIX_EPOCH + Duration::from_millis(ms));
        for _ in 0..2 {
            assert_eq!(at(0).text(), b"1970-01-01T00:00:00.000Z");
            assert_eq!(at(1_767_323_045_678).text(), b"2026-01-02T03:04:05.678Z");
            assert_eq!(at(1_767_323_045_009).text(), b"2026-01-02T03:04:05.009Z");
        }
    }

    #[test]
    fn numbers_are_written_whole() {
        for number in [0, 9, 10, 200, 1_000_000, u64::MAX] {
            let mut written = Vec::new();
            decimal(&mut written, number);
            assert_eq!(written, number.to_string().as_bytes());
        }
    }

    #[test]
    fn spans_have_three_places() {
        for (micros, expected) in [(0, "0.000"), (12_345, "12.345"), (1_000_001, "1000.001")] {
            let mut written = Vec::new();
            Milliseconds::of(Duration::from_micros(micros)).write(&mut written);
            assert_eq!(written, expected.as_bytes());
        }
    }
}
