//! Sealed session records: what was sealed opens, and nothing else ever does.
//!
//! The first byte chooses: `o` opens the rest as it is; `s` splices the rest into
//! a genuine record; anything else seals. After `s` come three bytes: where
//! (two, big endian), and how many bytes are taken out there.

use std::sync::LazyLock;

use bytes::Bytes;
use cloakroom::base::secret::Secret;
use cloakroom::session::data::{Data, Field};
use cloakroom::session::layout::sealed::Sealer;
use cloakroom::session::record::Head;
use cloakroom::session::token::Token;
use serde_json::Value;

use crate::{contains, text_line};

const KEY: &str = "sess:k";

static SEALER: LazyLock<Sealer> = LazyLock::new(|| {
    Sealer::new(&[
        Secret::new("the first secret of two, thirty-two bytes"),
        Secret::new("the second one, for records of yesterday"),
    ])
});
static GENUINE: LazyLock<Bytes> = LazyLock::new(|| {
    let data = Data::parse(r#"{"userId":"u1","roles":["admin"]}"#.to_owned()).expect("an object");
    SEALER
        .seal(KEY, &token(b'a'), &head("u1", "curl"), &data)
        .expect("sealed")
});

pub fn run(input: &[u8]) {
    let Some((choice, rest)) = input.split_first() else {
        return;
    };
    match choice {
        b'o' => never_opens(Bytes::copy_from_slice(rest)),
        b's' => spliced(rest),
        _ => sealed(rest),
    }
}

fn never_opens(stored: Bytes) {
    assert!(SEALER.open(KEY, &token(b'a'), stored).is_err(), "forged");
}

fn spliced(rest: &[u8]) {
    let Some((&[high, low, gone], new)) = rest.split_first_chunk::<3>() else {
        return;
    };
    let genuine = &**GENUINE;
    let from = usize::from(u16::from_be_bytes([high, low])) % (genuine.len() + 1);
    let to = (from + usize::from(gone)).min(genuine.len());
    let changed = [&genuine[..from], new, &genuine[to..]].concat();
    if changed == genuine {
        assert!(SEALER.open(KEY, &token(b'a'), changed.into()).is_ok());
    } else {
        never_opens(changed.into());
    }
}

/// `user`, `agent`, a path, and the data, a line each.
fn sealed(rest: &[u8]) {
    let Ok(text) = std::str::from_utf8(rest) else {
        return;
    };
    let (user, rest) = text_line(text);
    let (agent, rest) = text_line(rest);
    let (path, data) = text_line(rest);
    let Ok(data) = Data::parse(data.to_owned()) else {
        assert!(!matches!(serde_json::from_str(data), Ok(Value::Object(_))));
        return;
    };
    found(&data, path);
    let head = head(user, agent);
    let token = token(b'a');
    let Ok(stored) = SEALER.seal(KEY, &token, &head, &data) else {
        assert!(user.len() + agent.len() > 10_000, "not sealed");
        return;
    };
    let clear = [user, agent].concat();
    assert!(clear.contains(token.expose()) || !contains(&stored, token.expose().as_bytes()));
    let opened = SEALER
        .open(KEY, &token, stored.clone())
        .expect("does not open");
    assert_eq!((&opened.head, &opened.data), (&head, &data));
    assert_eq!(opened.stored, stored);
    assert!(SEALER.open("sess:j", &token, stored.clone()).is_err());
    assert!(
        SEALER
            .open(KEY, &self::token(b'b'), stored.clone())
            .is_err()
    );
    // One bit, somewhere else in each record.
    let place = user.len() * 31 + data.text().len() * 7 + path.len();
    let mut changed = stored.to_vec();
    changed[place % stored.len()] ^= 1 << (place % 8);
    assert!(SEALER.open(KEY, &token, changed.into()).is_err());
}

/// Fields are found where a tree of the whole text has them.
fn found(data: &Data, path: &str) {
    let Ok(tree) = serde_json::from_str::<Value>(data.text()) else {
        // Text that only parts of can be read, lone surrogates say.
        let _ = data.at(path);
        return;
    };
    let depth = path.split('.').count();
    let value = path
        .split('.')
        .try_fold(&tree, |value, step| value.get(step));
    let expected = match value {
        _ if depth > 16 => return,
        Some(Value::String(text)) => Some(Field::One(text.clone())),
        Some(Value::Bool(yes)) => Some(Field::One(yes.to_string())),
        Some(Value::Number(_) | Value::Array(_)) => return,
        _ => None,
    };
    assert_eq!(data.at(path), expected, "at {path:?}");
}

fn head(user: &str, agent: &str) -> Head {
    Head {
        user: user.to_owned(),
        epoch: 5,
        created: 1_000,
        absolute_end: 601_000,
        address: "::1".to_owned(),
        user_agent: agent.to_owned(),
    }
}

fn token(letter: u8) -> Token {
    Token::verified(&char::from(letter).to_string().repeat(32)).expect("the form of a token")
}
