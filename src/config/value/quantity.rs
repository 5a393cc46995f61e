//! Spans of time and sizes. Both need a unit: "30" has caused enough outages.

use std::time::Duration;

use super::{Fault, quoted};
use crate::base::rate::Rate;

/// Longer spans are mistakes, and would overflow sums of moments.
const LONGEST: Duration = Duration::from_secs(100 * 365 * 86_400);

/// Reads `"30s"`: a whole number and `ms`, `s`, `m`, `h` or `d`. `least` is in
/// milliseconds.
///
/// # Errors
///
/// It is of another form, or out of range.
pub fn duration(text: &str, least: u64) -> Result<Duration, Fault> {
    let (number, unit) = split(text).ok_or_else(|| not_a_duration(text))?;
    let factor: u64 = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        "" => {
            return Err(Fault::new(
                format!("{} has no unit", quoted(text)),
                format!("say which unit is meant: \"{number}s\", \"{number}m\" or \"{number}ms\""),
            ));
        }
        _ => return Err(not_a_duration(text)),
    };
    let span = number
        .checked_mul(factor)
        .map(Duration::from_millis)
        .filter(|span| *span <= LONGEST)
        .ok_or_else(|| {
            Fault::new(
                format!("{} is too long", quoted(text)),
                "the most is 36500d (100 years)",
            )
        })?;
    if span < Duration::from_millis(least) {
        return Err(Fault::new(
            format!("{} is too short", quoted(text)),
            format!("write at least \"{}\"", show(Duration::from_millis(least))),
        ));
    }
    Ok(span)
}

/// Reads `"100/s"`: a whole number per `s`, `m` or `h`; or `"none"`.
///
/// # Errors
///
/// It is of another form, or zero.
pub fn rate(text: &str) -> Result<Option<Rate>, Fault> {
    if text == "none" {
        return Ok(None);
    }
    let rate = text.split_once('/').and_then(|(number, unit)| {
        let seconds = match unit {
            "s" => 1,
            "m" => 60,
            "h" => 3600,
            _ => return None,
        };
        let digits = number.bytes().all(|byte| byte.is_ascii_digit());
        Some(Rate {
            requests: number.parse().ok().filter(|n| digits && *n > 0)?,
            period: Duration::from_secs(seconds),
        })
    });
    rate.map(Some).ok_or_else(|| {
        Fault::new(
            format!("{} is not a rate", quoted(text)),
            "write a number per second, minute or hour, such as \"100/s\", \"1000/m\" or \"5000/h\", or \"none\"",
        )
    })
}

fn not_a_duration(text: &str) -> Fault {
    Fault::new(
        format!("{} is not a duration", quoted(text)),
        "write a whole number and a unit: ms, s, m, h or d, such as \"30s\" or \"7d\"",
    )
}

/// Reads `"64KiB"`: a whole number and `B`, `KB`, `MB`, `GB`, `KiB`, `MiB` or
/// `GiB`, whatever their case; or `"none"`, where that is allowed.
///
/// # Errors
///
/// It is of another form, zero, or too large.
pub fn size(text: &str, none: bool) -> Result<Option<u64>, Fault> {
    if none && text == "none" {
        return Ok(None);
    }
    let (number, unit) = split(text).ok_or_else(|| not_a_size(text, none))?;
    let factor: u64 = match unit.to_ascii_lowercase().as_str() {
        "b" => 1,
        "kb" => 1000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        "kib" => 1 << 10,
        "mib" => 1 << 20,
        "gib" => 1 << 30,
        "" => {
            return Err(Fault::new(
                format!("{} has no unit", quoted(text)),
                format!(
                    "say which unit is meant: \"{number}B\", \"{number}KiB\" or \"{number}MiB\""
                ),
            ));
        }
        _ => return Err(not_a_size(text, none)),
    };
    let bytes = number
        .checked_mul(factor)
        .filter(|bytes| *bytes <= 1 << 50)
        .ok_or_else(|| {
            Fault::new(
                format!("{} is too large", quoted(text)),
                "the most is 1048576GiB",
            )
        })?;
    if bytes == 0 {
        let help = match none {
            true => "write \"none\" for no limit, or at least \"1B\"",
            false => "write at least \"1B\"",
        };
        return Err(Fault::new("a limit of zero lets nothing pass", help));
    }
    Ok(Some(bytes))
}

fn not_a_size(text: &str, none: bool) -> Fault {
    let or_none = if none { ", or \"none\"" } else { "" };
    Fault::new(
        format!("{} is not a size", quoted(text)),
        format!(
            "write a whole number and a unit: B, KB, MB, GB, KiB, MiB or GiB, such as \"64KiB\"{or_none}"
        ),
    )
}

fn split(text: &str) -> Option<(u64, &str)> {
    let end = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    Some((number.parse().ok()?, unit.trim_start()))
}

/// A span as the configuration writes it, in the largest unit that is whole.
pub fn show(span: Duration) -> String {
    let millis = span.as_millis();
    for (factor, unit) in [
        (86_400_000, "d"),
        (3_600_000, "h"),
        (60_000, "m"),
        (1000, "s"),
    ] {
        if millis >= factor && millis.is_multiple_of(factor) {
            return format!("{}{unit}", millis / factor);
        }
    }
    match millis {
        0 => "0s".into(),
        _ => format!("{millis}ms"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_a_unit() {
        for (text, millis) in [
            ("0s", 0),
            ("500ms", 500),
            ("30s", 30_000),
            ("15m", 900_000),
            ("24h", 86_400_000),
            ("7d", 604_800_000),
        ] {
            assert_eq!(duration(text, 0).unwrap(), Duration::from_millis(millis));
        }
        for text in [
            "",
            "30",
            "s",
            "-1s",
            "1.5h",
            "1h30m",
            "1y",
            "99999999999999999999s",
            "40000d",
            "１s",
        ] {
            assert!(duration(text, 0).is_err(), "{text}");
        }
        assert!(duration("0s", 1).is_err());
        assert_eq!(show(Duration::from_secs(86_400)), "1d");
        assert_eq!(show(Duration::from_secs(90)), "90s");
        assert_eq!(show(Duration::ZERO), "0s");
    }

    #[test]
    fn sizes_have_a_unit() {
        for (text, bytes) in [
            ("64KiB", 65_536),
            ("1MB", 1_000_000),
            ("1b", 1),
            ("2 GiB", 2 << 30),
        ] {
            assert_eq!(size(text, false).unwrap(), Some(bytes));
        }
        assert_eq!(size("none", true).unwrap(), None);
        for text in ["none", "64", "64k", "0B", "KiB", "99999999999GiB"] {
            assert!(size(text, false).is_err(), "{text}");
        }
    }

    #[test]
    fn rates() {
        let read = |text| {
            rate(text)
                .ok()
                .flatten()
                .map(|r| (r.requests, r.period.as_secs()))
        };
        assert_eq!(read("100/s"), Some((100, 1)));
        assert_eq!(read("1/m"), Some((1, 60)));
        assert_eq!(read("5000/h"), Some((5000, 3600)));
        assert_eq!(rate("none").unwrap(), None);
        for text in [
            "",
            "100",
            "0/s",
            "/s",
            "-1/s",
            "+1/s",
            "1/d",
            "1/ s",
            "99999999999/s",
        ] {
            assert!(rate(text).is_err(), "{text}");
        }
    }
}
