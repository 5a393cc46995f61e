//! Sessions as text and as JSON. What clients have chosen themselves must not
//! move the cursor of whoever looks at it.

use serde_json::{Value, json};

use crate::admin::control::Entry;

/// The widest that a column of a table is made, in characters.
const WIDEST: usize = 44;

/// One line for each, under a heading.
pub(super) fn table(entries: &[Entry]) -> String {
    let heading = [
        "HANDLE",
        "USER",
        "SIGNED IN",
        "LAST USED",
        "ADDRESS",
        "CLIENT",
    ];
    let mut rows = vec![heading.map(str::to_owned)];
    rows.extend(entries.iter().map(|entry| {
        [
            entry.handle.clone(),
            plain(&entry.user),
            moment(entry.created),
            moment(entry.seen),
            plain(&entry.address),
            plain(&entry.user_agent),
        ]
        .map(|cell| cut(&cell))
    }));
    let mut widths = [0; 6];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    let mut text = String::new();
    for row in &rows {
        let cells: Vec<String> = row
            .iter()
            .zip(widths)
            .map(|(cell, width)| format!("{cell:width$}"))
            .collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    text
}

/// One session, one line for each thing.
pub(super) fn details(entry: &Entry) -> String {
    [
        ("handle", entry.handle.clone()),
        ("user", plain(&entry.user)),
        ("signed in", moment(entry.created)),
        ("last used", moment(entry.seen)),
        ("ends", moment(entry.ends)),
        ("ends unused", moment(entry.idle_ends)),
        ("address", plain(&entry.address)),
        ("client", plain(&entry.user_agent)),
    ]
    .map(|(name, value)| format!("{name:<12} {value}\n"))
    .concat()
}

/// The same for programs.
pub(super) fn json(entry: &Entry) -> Value {
    json!({
        "handle": entry.handle,
        "user": entry.user,
        "created": moment(entry.created),
        "last_seen": moment(entry.seen),
        "ends": moment(entry.ends),
        "idle_ends": moment(entry.idle_ends),
        "address": entry.address,
        "user_agent": entry.user_agent,
    })
}

/// JSON as one line, without the control characters that JSON would allow.
pub(super) fn line(value: &Value) -> String {
    let mut text = String::new();
    for c in value.to_string().chars() {
        // They can only stand in strings.
        if matches!(c, '\u{7f}'..='\u{9f}') {
            text.push_str(&format!("\\u{:04x}", u32::from(c)));
        } else {
            text.push(c);
        }
    }
    text.push('\n');
    text
}

/// A text without control characters, and without those that turn the
/// direction of writing.
pub(super) fn plain(text: &str) -> String {
    let odd = |c: char| {
        c.is_control()
            || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    text.chars()
        .map(|c| if odd(c) { '\u{fffd}' } else { c })
        .collect()
}

fn cut(text: &str) -> String {
    if text.chars().count() <= WIDEST {
        return text.to_owned();
    }
    text.chars().take(WIDEST - 1).chain(['…']).collect()
}

/// RFC 3339, to the second; empty for what no calendar has.
fn moment(milliseconds: u64) -> String {
    let seconds = i64::try_from(milliseconds / 1000).unwrap_or(i64::MAX);
    jiff::Timestamp::from_second(seconds).map_or_else(|_| String::new(), |t| t.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(user: &str, user_agent: &str) -> Entry {
        Entry {
            handle: "AbCdEfGhIjKl".into(),
            user: user.into(),
            created: 1_800_000_000_000,
            seen: 1_800_000_060_999,
            ends: 1_800_600_000_000,
            idle_ends: 1_800_086_400_000,
            address: "::1".into(),
            user_agent: user_agent.into(),
        }
    }

    #[test]
    fn columns_stand_below_each_other() {
        let text = table(&[
            entry("u1", "curl/8"),
            entry("a-longer-one", &"x".repeat(100)),
        ]);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 3);
        let at = lines[0].find("CLIENT").unwrap();
        assert_eq!(&lines[1][at..], "curl/8");
        assert_eq!(lines[2][at..].chars().count(), WIDEST);
        assert!(lines[1].contains("2027-01-15T08:01:00Z"), "{}", lines[1]);
        assert_eq!(table(&[]).lines().count(), 1);
    }

    #[test]
    fn nothing_moves_the_cursor() {
        let odd = entry("\u{1b}[2J\nu\u{202e}1", "\r\u{7}\u{9b}31m");
        let table = table(std::slice::from_ref(&odd));
        let machine = line(&json(&odd));
        for text in [&table, &details(&odd), &machine] {
            assert!(
                !text.contains(['\u{1b}', '\r', '\u{7}', '\u{9b}']),
                "{text:?}"
            );
        }
        assert_eq!(table.lines().count(), 2);
        assert!(!table.contains('\u{202e}'));
        let read: Value = serde_json::from_str(&machine).unwrap();
        assert_eq!(read["user_agent"], odd.user_agent);
        assert_eq!(details(&odd).lines().count(), 8);
    }
}
