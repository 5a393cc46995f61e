//! The texts of a copy, joined, and mostly in one piece of memory with its numbers: a
//! hundred thousand copies are kept, and each piece of its own would cost room beside it,
//! and a look into memory that is in no cache of the processor.

use std::ops::Deref;

use arrayvec::ArrayString;

/// So long a text is kept beside the numbers of its copy: nearly all are shorter.
const SHORT: usize = 132;

/// A joined text. It has the store's key in it, so that it is not for any log.
#[derive(Clone)]
pub enum Joined {
    /// One that stands where its copy does.
    Short(ArrayString<SHORT>),
    /// One in memory of its own.
    Long(Box<str>),
}

/// Where the parts of a joined text end; the last part goes to the end of it.
#[derive(Clone, Copy, Debug)]
pub struct Ends([u32; 5]);

/// Texts of a copy.
#[derive(Clone, Copy)]
pub struct Texts<'a> {
    /// What logs call the session.
    pub handle: &'a str,
    /// The store's key.
    pub key: &'a str,
    /// The user id in the fields.
    pub user: &'a str,
    /// The user id in the head.
    pub owner: &'a str,
    /// Values of identity headers, as the copy has them.
    pub identity: &'a str,
    /// The fields.
    pub fields: &'a str,
}

/// Which part of a joined text.
#[derive(Clone, Copy, Debug)]
pub enum Part {
    /// What logs call the session.
    Handle,
    /// The store's key.
    Key,
    /// The user id in the fields.
    User,
    /// `OTHER` and the user id in the head; nothing, if it is the one in the fields.
    Owner,
    /// Values of identity headers, as the copy has them.
    Identity,
    /// The fields.
    Fields,
}

/// What stands before a user id in the head that is not the one in the fields.
const OTHER: char = ':';

impl Texts<'_> {
    /// All in one.
    pub fn join(self) -> (Joined, Ends) {
        let parts = [
            self.handle,
            self.user,
            self.owner,
            self.identity,
            self.key,
            self.fields,
        ];
        // Of a piece that was made smaller, the rest would be of little use to anybody.
        let needed = parts.iter().map(|part| part.len()).sum::<usize>();
        let needed = match self.owner == self.user {
            true => needed - self.owner.len(),
            false => needed + OTHER.len_utf8(),
        };
        let mut text = String::with_capacity(needed);
        let mut end = |part: &str| {
            text.push_str(part);
            // Only fields are long, and they come last.
            u32::try_from(text.len()).unwrap_or(u32::MAX)
        };
        let (handle, user) = (end(self.handle), end(self.user));
        let owner = match self.owner == self.user {
            true => end(""),
            false => {
                end(OTHER.encode_utf8(&mut [0; 4]));
                end(self.owner)
            }
        };
        let ends = Ends([handle, user, owner, end(self.identity), end(self.key)]);
        text.push_str(self.fields);
        (Joined::from(text), ends)
    }
}

impl From<String> for Joined {
    fn from(text: String) -> Self {
        match ArrayString::from(&text) {
            Ok(text) => Self::Short(text),
            Err(_) => Self::Long(text.into_boxed_str()),
        }
    }
}

impl Deref for Joined {
    type Target = str;

    fn deref(&self) -> &str {
        match self {
            Self::Short(text) => text,
            Self::Long(text) => text,
        }
    }
}

impl Ends {
    /// Whether the fields name no user.
    pub fn has_no_user(self) -> bool {
        let [handle, user, ..] = self.0;
        handle == user
    }

    /// A part of the text that was joined with these ends.
    #[inline]
    pub fn part(self, text: &str, part: Part) -> &str {
        let [handle, user, owner, identity, key] = self.0;
        let (from, to) = match part {
            Part::Handle => (0, handle),
            Part::User => (handle, user),
            Part::Owner => (user, owner),
            Part::Identity => (owner, identity),
            Part::Key => (identity, key),
            Part::Fields => return text.get(at(key)..).unwrap_or_default(),
        };
        text.get(at(from)..at(to)).unwrap_or_default()
    }

    /// The user id in the head.
    pub fn owner(self, text: &str) -> &str {
        let other = self.part(text, Part::Owner).strip_prefix(OTHER);
        other.unwrap_or_else(|| self.part(text, Part::User))
    }
}

fn at(end: u32) -> usize {
    usize::try_from(end).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts() -> Texts<'static> {
        Texts {
            handle: "handle",
            key: "sess:ü",
            user: "u1",
            owner: "u1",
            identity: "",
            fields: "{}",
        }
    }

    #[test]
    fn what_is_joined_is_found() {
        let (text, ends) = texts().join();
        assert_eq!(text.len(), 6 + 7 + 2 + 2);
        assert!(!ends.has_no_user());
        let (_, ends_without) = Texts {
            user: "",
            ..texts()
        }
        .join();
        assert!(ends_without.has_no_user());
        for (part, expected) in [
            (Part::Handle, "handle"),
            (Part::Key, "sess:ü"),
            (Part::User, "u1"),
            (Part::Identity, ""),
            (Part::Fields, "{}"),
        ] {
            assert_eq!(ends.part(&text, part), expected);
        }
    }

    #[test]
    fn a_long_text_is_as_good() {
        let others = texts().join().0.len() - texts().fields.len();
        let most = SHORT - others;
        for length in [0, most - 1, most, most + 1, 10 * SHORT] {
            let fields = "ü".repeat(length / 2) + &"x".repeat(length % 2);
            let fields = fields.as_str();
            let (text, ends) = Texts { fields, ..texts() }.join();
            assert_eq!(ends.part(&text, Part::Fields), fields, "{length}");
            assert_eq!(ends.part(&text, Part::Key), "sess:ü", "{length}");
            let fits = matches!(text, Joined::Short(_));
            assert_eq!(fits, text.len() <= SHORT, "{length}");
        }
    }

    #[test]
    fn an_owner_is_the_user_or_somebody_else_or_nobody() {
        for owner in ["u1", "u2", "", ":"] {
            let (text, ends) = Texts { owner, ..texts() }.join();
            assert_eq!(ends.owner(&text), owner);
            assert_eq!(ends.part(&text, Part::User), "u1");
        }
    }
}
