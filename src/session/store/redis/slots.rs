//! Which node of a cluster has which key.

use redis::Value;

use super::url::Address;

const SLOTS: usize = 16_384;

/// The master of each slot, as a node of the cluster told it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct SlotMap {
    masters: Vec<Address>,
    replicas: Vec<Address>,
    /// For each slot, the place of its master in `masters`.
    owners: Vec<Option<u16>>,
}

impl SlotMap {
    /// Reads the answer to `CLUSTER SLOTS`, which `asked` gave. `None` if it is not
    /// such an answer.
    pub(super) fn read(reply: Value, asked: &Address) -> Option<Self> {
        let mut map = Self {
            masters: Vec::new(),
            replicas: Vec::new(),
            owners: vec![None; SLOTS],
        };
        for range in items(reply)? {
            let mut parts = items(range)?.into_iter();
            let (first, last) = (number(parts.next()?)?, number(parts.next()?)?);
            let master = node(parts.next()?, asked)?;
            let owner = map.place_of(master)?;
            map.owners
                .get_mut(first..last.checked_add(1)?)?
                .fill(Some(owner));
            for replica in parts {
                map.replicas.push(node(replica, asked)?);
            }
        }
        Some(map)
    }

    /// The masters, each once.
    pub(super) fn masters(&self) -> &[Address] {
        &self.masters
    }

    /// What the masters are called, in order of their names.
    pub(super) fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = self.masters.iter().map(ToString::to_string).collect();
        names.sort_unstable();
        names
    }

    /// Every node that was named: masters first.
    pub(super) fn nodes(&self) -> impl Iterator<Item = &Address> {
        self.masters.iter().chain(&self.replicas)
    }

    /// The place of a key's master among [`Self::masters`].
    pub(super) fn owner(&self, key: &str) -> Option<usize> {
        let owner = self.owners.get(usize::from(slot(key)))?;
        owner.map(usize::from)
    }

    /// The address of a key's master.
    pub(super) fn master(&self, key: &str) -> Option<&Address> {
        self.masters.get(self.owner(key)?)
    }

    /// A node said that the slot of this key is there now.
    pub(super) fn moved(&mut self, key: &str, to: Address) {
        let place = self.place_of(to);
        if let Some(owner) = self.owners.get_mut(usize::from(slot(key))) {
            *owner = place;
        }
    }

    fn place_of(&mut self, master: Address) -> Option<u16> {
        let known = self.masters.iter().position(|other| *other == master);
        let place = known.unwrap_or_else(|| {
            self.masters.push(master);
            self.masters.len() - 1
        });
        u16::try_from(place).ok()
    }
}

/// The address in a `MOVED` or `ASK` of the node `asked`: `host:port`, without a host
/// if it does not know what it is called.
pub(super) fn redirected(text: &str, asked: &Address) -> Option<Address> {
    let (host, port) = text.rsplit_once(':')?;
    named(host, port.parse().ok()?, asked)
}

fn node(value: Value, asked: &Address) -> Option<Address> {
    let mut parts = items(value)?.into_iter();
    let host = match parts.next()? {
        Value::BulkString(bytes) => String::from_utf8(bytes).ok()?,
        Value::SimpleString(text) => text,
        Value::Nil => String::new(),
        _ => return None,
    };
    let port = u16::try_from(number(parts.next()?)?).ok()?;
    named(&host, port, asked)
}

/// A node that does not know its name is where it was asked.
fn named(host: &str, port: u16, asked: &Address) -> Option<Address> {
    let host = match (host, asked) {
        ("" | "?", Address::Tcp(host, _)) => host,
        ("" | "?", Address::Unix(_)) => return None,
        (host, _) => host,
    };
    Some(Address::Tcp(host.to_owned(), port))
}

fn items(value: Value) -> Option<Vec<Value>> {
    match value {
        Value::Array(items) => Some(items),
        _ => None,
    }
}

fn number(value: Value) -> Option<usize> {
    match value {
        Value::Int(number) => usize::try_from(number).ok(),
        _ => None,
    }
}

/// The slot of a key: CRC-16/XMODEM of the part that counts (Redis Cluster
/// specification, "Key distribution model" and "Hash tags").
pub(super) fn slot(key: &str) -> u16 {
    crc16(tag(key).unwrap_or(key).as_bytes()) % 16_384
}

/// What stands between the first `{` and the next `}`, if that is something.
fn tag(key: &str) -> Option<&str> {
    let (_, after) = key.split_once('{')?;
    let (tag, _) = after.split_once('}')?;
    (!tag.is_empty()).then_some(tag)
}

fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |mut crc: u16, byte| {
        crc ^= u16::from(*byte) << 8;
        for _ in 0..8 {
            let carry = crc & 0x8000 != 0;
            crc <<= 1;
            if carry {
                crc ^= 0x1021;
            }
        }
        crc
    })
}

/// The name of a key of `kind` (such as `tombstone`) that belongs to the record
/// `key` and lies in the same slot, so that one script may touch both:
/// `cloakroom:KIND:{KEY}`, or `cloakroom:KIND:{TAG}:KEY` where the key has a hash
/// tag of its own.
///
/// A key with a `}` that is not part of a tag cannot be had in the same slot.
pub fn side_key(kind: &str, key: &str) -> String {
    match tag(key) {
        Some(tag) => format!("cloakroom:{kind}:{{{tag}}}:{key}"),
        None => format!("cloakroom:{kind}:{{{key}}}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_those_of_redis() {
        // As `CLUSTER KEYSLOT` says.
        for (key, expected) in [
            ("123456789", 0x31C3),
            ("", 0),
            ("foo", 12182),
            ("{user1000}.following", slot("user1000")),
            ("foo{}{bar}", 8363),
            ("foo{{bar}}zap", slot("{bar")),
            ("foo{bar}{zap}", slot("bar")),
        ] {
            assert_eq!(slot(key), expected, "{key:?}");
        }
    }

    #[test]
    fn side_keys_lie_beside_their_records() {
        for key in ["sess:abc", "app{x}:abc", "a{}b", ""] {
            let side = side_key("tombstone", key);
            assert!(side.starts_with("cloakroom:tombstone:"));
            if !key.is_empty() && key != "a{}b" {
                assert_eq!(slot(&side), slot(key), "{side}");
            }
        }
        assert_ne!(side_key("a", "b{c}d"), side_key("a", "b{c}e"));
    }

    fn bulk(text: &str) -> Value {
        Value::BulkString(text.as_bytes().to_vec())
    }

    fn range(first: i64, last: i64, nodes: &[(&str, i64)]) -> Value {
        let nodes = nodes.iter().map(|(host, port)| {
            Value::Array(vec![
                bulk(host),
                Value::Int(*port),
                bulk("id"),
                Value::Array(vec![]),
            ])
        });
        let mut parts = vec![Value::Int(first), Value::Int(last)];
        parts.extend(nodes);
        Value::Array(parts)
    }

    #[test]
    fn maps_are_read() {
        let asked = Address::Tcp("seed".into(), 1);
        let at = |host: &str, port| Address::Tcp(host.into(), port);
        let reply = Value::Array(vec![
            range(0, 8191, &[("a", 7000), ("c", 7002)]),
            range(8192, 16382, &[("", 7001)]),
        ]);
        let mut map = SlotMap::read(reply, &asked).unwrap();
        assert_eq!(map.masters(), [at("a", 7000), at("seed", 7001)]);
        let nodes: Vec<_> = map.nodes().cloned().collect();
        assert_eq!(nodes.last(), Some(&at("c", 7002)));
        assert_eq!(map.master(""), Some(&at("a", 7000)));
        assert_eq!(map.master("foo"), Some(&at("seed", 7001)));
        map.moved("foo", at("d", 1));
        assert_eq!(map.master("foo"), Some(&at("d", 1)));
        map.moved("foo", at("a", 7000));
        assert_eq!(map.owner("foo"), Some(0));
        assert_eq!(redirected("::1:7000", &asked), Some(at("::1", 7000)));
        assert_eq!(redirected(":7000", &asked), Some(at("seed", 7000)));
    }

    #[test]
    fn odd_maps_are_refused() {
        let asked = Address::Tcp("seed".into(), 1);
        for reply in [
            Value::Nil,
            Value::Okay,
            Value::Array(vec![Value::Nil]),
            Value::Array(vec![range(6, 4, &[("a", 1)])]),
            Value::Array(vec![range(0, 16_384, &[("a", 1)])]),
            Value::Array(vec![range(-1, 4, &[("a", 1)])]),
            Value::Array(vec![range(0, 4, &[])]),
            Value::Array(vec![range(0, 4, &[("a", 70_000)])]),
        ] {
            assert!(SlotMap::read(reply.clone(), &asked).is_none(), "{reply:?}");
        }
    }
}
