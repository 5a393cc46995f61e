//! All users files together, and which hash a name is verified against.
//!
//! Every name, known or not, gets exactly one hash. The first file that has a
//! name decides about it; the files after it are not asked, whatever the
//! verdict. A name that no file has gets a decoy, whose cost is drawn from the
//! costs that the users' hashes have, in their proportion. The draw depends on
//! the name and the files alone, so a name costs the same at every try, after
//! a restart and on every replica; so the time tells neither whether a name
//! exists nor, where old and new kinds of hashes are mixed, which kind the
//! existing ones have.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use aws_lc_rs::hmac;

use super::hash::{Cost, Hash};
use crate::base::identity::Identity;
use crate::login::users_file::{Users, UsersFile};

/// The users files in their order, followed through changes.
#[derive(Debug)]
pub struct Directory {
    files: Vec<UsersFile>,
    current: Arc<Snapshot>,
}

/// The users at a moment.
#[derive(Debug)]
pub struct Snapshot {
    files: Vec<Arc<Users>>,
    decoys: Decoys,
}

/// What a name is verified against.
#[derive(Debug)]
pub struct Candidate<'s> {
    /// The hash, real or not.
    pub hash: &'s Hash,
    /// Who it is if the password is right; `None` for a name that no file has,
    /// which no password makes right.
    pub identity: Option<&'s Identity>,
}

impl Directory {
    /// Opens all files.
    ///
    /// # Errors
    ///
    /// All problems of all files, one a line, each with its file.
    pub fn open(paths: &[impl AsRef<Path>]) -> Result<Self, String> {
        let mut files = Vec::new();
        let mut problems = Vec::new();
        for path in paths {
            let path = path.as_ref();
            match UsersFile::open(path) {
                Ok(file) => files.push(file),
                Err(found) => problems.extend(
                    found
                        .iter()
                        .map(|problem| format!("users file {}: {problem}", path.display())),
                ),
            }
        }
        if !problems.is_empty() {
            return Err(problems.join("\n"));
        }
        let current = Arc::new(Snapshot::of(&files));
        Ok(Self { files, current })
    }

    /// The users now: reads files again that have changed.
    pub fn current(&mut self) -> Arc<Snapshot> {
        let mut changed = false;
        for file in &mut self.files {
            changed |= file.refresh();
        }
        if changed {
            self.current = Arc::new(Snapshot::of(&self.files));
        }
        self.current.clone()
    }
}

impl Snapshot {
    fn of(files: &[UsersFile]) -> Self {
        warn_of_shadowed(files);
        let files: Vec<_> = files.iter().map(|file| file.users().clone()).collect();
        let decoys = Decoys::of(&files);
        Self { files, decoys }
    }

    /// The one hash that the name is to be verified against.
    pub fn candidate(&self, name: &str) -> Candidate<'_> {
        // Drawn for known names too, so that both take the same steps.
        let decoy = self.decoys.draw(name);
        let mut found = None;
        for users in &self.files {
            let user = users.find(name);
            found = found.or(user);
        }
        match found {
            Some(user) => Candidate {
                hash: &user.hash,
                identity: Some(&user.identity),
            },
            None => Candidate {
                hash: decoy,
                identity: None,
            },
        }
    }
}

/// The costs in use with their shares, and the key by which names are spread
/// over them.
#[derive(Debug)]
struct Decoys {
    /// Each cost's decoy with the end of its share of `0..=u64::MAX`.
    shares: Vec<(u64, Hash)>,
    last: Hash,
    key: hmac::Key,
}

impl Decoys {
    fn of(files: &[Arc<Users>]) -> Self {
        let mut counts: BTreeMap<Cost, u64> = BTreeMap::new();
        let mut smallest: Option<[u8; 32]> = None;
        for user in files.iter().flat_map(|users| users.iter()) {
            let count = counts.entry(user.hash.cost()).or_default();
            *count = count.saturating_add(1);
            let print = user.hash.fingerprint();
            smallest = Some(smallest.map_or(print, |least| least.min(print)));
        }
        // A key from the hashes is secret, the same wherever the files are, and
        // stays through most edits: only the one user counts whose hash has
        // the smallest fingerprint.
        let key = hmac::Key::new(hmac::HMAC_SHA256, &smallest.unwrap_or_default());
        let total = counts.values().fold(0_u64, |sum, n| sum.saturating_add(*n));
        let mut before = 0_u64;
        let shares: Vec<_> = counts
            .iter()
            .map(|(cost, count)| {
                before = before.saturating_add(*count);
                let end = u128::from(u64::MAX)
                    .saturating_mul(u128::from(before))
                    .checked_div(u128::from(total))
                    .and_then(|end| u64::try_from(end).ok())
                    .unwrap_or(u64::MAX);
                (end, Hash::decoy(*cost))
            })
            .collect();
        let last = counts.keys().next_back().copied().unwrap_or(Cost::NEW);
        Self {
            shares,
            last: Hash::decoy(last),
            key,
        }
    }

    fn draw(&self, name: &str) -> &Hash {
        let tag = hmac::sign(&self.key, name.as_bytes());
        let number = tag
            .as_ref()
            .iter()
            .take(8)
            .fold(0_u64, |number, byte| (number << 8) | u64::from(*byte));
        self.shares
            .iter()
            .find(|(end, _)| number < *end)
            .map_or(&self.last, |(_, hash)| hash)
    }
}

/// A name in two files works only as the first has it, which may surprise.
fn warn_of_shadowed(files: &[UsersFile]) {
    for (index, file) in files.iter().enumerate() {
        for earlier in files.iter().take(index) {
            for user in file.users().iter() {
                if earlier.users().find(&user.name).is_some() {
                    tracing::warn!(
                        user = %user.name,
                        used = %earlier.path().display(),
                        ignored = %file.path().display(),
                        "user stands in two users files; the first one counts"
                    );
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::path::PathBuf;

    const BCRYPT: &str = "$2y$04$UuTkLRZZ6QofpDOlMz32MuuxEHA43WOemOYHPz6.SjsVsyO1tDU96";
    const ARGON: &str =
        "$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4";

    fn file(dir: &Path, name: &str, users: &[(&str, &str, &str)]) -> PathBuf {
        let path = dir.join(name);
        let text: String = users
            .iter()
            .map(|(name, id, hash)| {
                format!("[[user]]\nname = \"{name}\"\nid = \"{id}\"\npassword = \"{hash}\"\n")
            })
            .collect();
        fs::write(&path, text).unwrap();
        path
    }

    #[test]
    fn the_first_file_that_has_a_name_decides() {
        let dir = tempfile::tempdir().unwrap();
        let paths = [
            file(dir.path(), "1", &[("a", "first", BCRYPT)]),
            file(
                dir.path(),
                "2",
                &[("a", "second", ARGON), ("b", "b", ARGON)],
            ),
        ];
        let snapshot = Directory::open(&paths).unwrap().current();
        let a = snapshot.candidate("a");
        assert_eq!(a.identity.unwrap().user, "first");
        assert_eq!(a.hash.cost(), Cost::Bcrypt(4));
        assert_eq!(snapshot.candidate("b").identity.unwrap().user, "b");
        assert!(snapshot.candidate("c").identity.is_none());
    }

    #[test]
    fn decoys_have_the_costs_of_the_users_in_their_proportion() {
        let dir = tempfile::tempdir().unwrap();
        let users = [
            ("a", "a", BCRYPT),
            ("b", "b", ARGON),
            ("c", "c", ARGON),
            ("d", "d", ARGON),
        ];
        let paths = [file(dir.path(), "1", &users)];
        let snapshot = Directory::open(&paths).unwrap().current();
        let again = Directory::open(&paths).unwrap().current();
        let mut bcrypt = 0;
        for number in 0..2000 {
            let name = format!("nobody-{number}");
            let cost = snapshot.candidate(&name).hash.cost();
            assert_eq!(cost, again.candidate(&name).hash.cost(), "stable");
            bcrypt += u32::from(cost == Cost::Bcrypt(4));
        }
        assert!(
            (400..600).contains(&bcrypt),
            "{bcrypt} of 2000, about 500 expected"
        );
    }

    #[test]
    fn with_no_users_a_decoy_costs_as_new_hashes_do() {
        let none: [PathBuf; 0] = [];
        let snapshot = Directory::open(&none).unwrap().current();
        let candidate = snapshot.candidate("a");
        assert!(candidate.identity.is_none());
        assert_eq!(candidate.hash.cost(), Cost::NEW);
    }

    #[test]
    fn all_problems_of_all_files_are_told() {
        let dir = tempfile::tempdir().unwrap();
        let bad = file(dir.path(), "bad", &[("a", "", BCRYPT)]);
        let worse = dir.path().join("worse");
        std::fs::write(&worse, "[[user\n").unwrap();
        let error = Directory::open(&[worse, bad]).unwrap_err();
        assert_eq!(error.lines().count(), 2, "{error}");
        assert!(error.contains("worse: line 1"), "{error}");
        assert!(error.contains("bad: line 3, column 6"), "{error}");
    }

    #[test]
    fn a_file_may_come_later() {
        let dir = tempfile::tempdir().unwrap();
        let mut directory = Directory::open(&[dir.path().join("users")]).unwrap();
        assert!(directory.current().candidate("a").identity.is_none());
        file(dir.path(), "users", &[("a", "1", BCRYPT)]);
        assert!(directory.current().candidate("a").identity.is_some());
    }

    #[test]
    fn a_changed_file_changes_the_users() {
        let dir = tempfile::tempdir().unwrap();
        let paths = [file(dir.path(), "1", &[("a", "a", BCRYPT)])];
        let mut directory = Directory::open(&paths).unwrap();
        let before = directory.current();
        file(dir.path(), "1", &[("b", "b", BCRYPT)]);
        let after = directory.current();
        assert!(before.candidate("a").identity.is_some());
        assert!(after.candidate("a").identity.is_none());
        assert!(after.candidate("b").identity.is_some());
    }
}
