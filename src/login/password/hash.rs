//! Password hashes: read once, bounded, verified in constant time.
//!
//! Two kinds are understood: argon2id as a PHC string (RFC 9106) and bcrypt
//! (`$2a$`, `$2b$`, `$2y$`), which htpasswd files hold. What a hash costs is
//! read from itself, so it is bounded here: a hash that asks for gigabytes of
//! memory, or for minutes, is refused when the file is read, not when somebody
//! signs in.

use std::fmt;

use argon2::{Algorithm, Argon2, Params, PasswordHash as Phc, PasswordHasher, Version};

use crate::base::secret::{Secret, same};

/// The longest password in bytes. Longer ones are never right.
pub const MAX_PASSWORD: usize = 4096;

/// How to make a hash that is understood; ends error messages.
pub const ADVICE: &str =
    "set a new password with `cloakroom user set-password`, or `htpasswd -B` for an htpasswd file";

/// What a verification costs: two hashes of equal cost take the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Cost {
    /// argon2id.
    Argon2id {
        /// Memory in KiB.
        memory: u32,
        /// Passes over it.
        passes: u32,
        /// Lanes; computed one after the other.
        lanes: u32,
    },
    /// bcrypt, with two to the power of this many rounds.
    Bcrypt(u32),
}

impl Cost {
    /// What new hashes are made with (OWASP's first choice for argon2id).
    pub const NEW: Self = Self::Argon2id {
        memory: 19_456,
        passes: 2,
        lanes: 1,
    };
}

/// The most memory that a hash may ask for, in KiB: 256 MiB.
const MAX_MEMORY: u32 = 256 * 1024;
/// The most memory times passes, in KiB: 1 GiB, about a second or two.
const MAX_WORK: u64 = 1024 * 1024;
/// The most lanes.
const MAX_LANES: u32 = 16;
/// The highest bcrypt cost: about five seconds.
const MAX_BCRYPT: u32 = 16;
/// The lowest bcrypt cost that the algorithm knows.
const MIN_BCRYPT: u32 = 4;
/// Bytes of salt in a new hash.
const SALT: usize = 16;

/// A stored hash, parsed and within bounds. It cannot be printed.
#[derive(Clone)]
pub struct Hash(Kind);

#[derive(Clone)]
enum Kind {
    Argon2id {
        version: Version,
        params: Params,
        salt: Vec<u8>,
        output: Vec<u8>,
    },
    Bcrypt {
        cost: u32,
        text: String,
    },
}

impl Hash {
    /// Reads a hash.
    ///
    /// # Errors
    ///
    /// What is wrong with it and how to mend it; never the hash itself.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.starts_with("$argon2id$") {
            return parse_argon2id(text).map(Self);
        }
        if ["$2a$", "$2b$", "$2y$"].iter().any(|p| text.starts_with(p)) {
            return parse_bcrypt(text).map(Self);
        }
        Err(format!("{}; {ADVICE}", describe(text)))
    }

    /// Makes the hash of a new password: argon2id with [`Cost::NEW`] and a salt
    /// from the operating system, as a PHC string.
    ///
    /// # Errors
    ///
    /// When the operating system gives no random bytes, or there is no memory.
    pub fn create(password: &Secret) -> Result<String, String> {
        let mut salt = [0_u8; SALT];
        aws_lc_rs::rand::fill(&mut salt)
            .map_err(|_| "the operating system gives no random bytes".to_owned())?;
        let Cost::Argon2id {
            memory,
            passes,
            lanes,
        } = Cost::NEW
        else {
            return Err("new hashes are argon2id".to_owned());
        };
        let params = Params::new(memory, passes, lanes, None).map_err(|e| e.to_string())?;
        Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
            .hash_password_with_salt(password.expose(), &salt)
            .map(|hash| hash.to_string())
            .map_err(|e| e.to_string())
    }

    /// A hash that costs as much as others of this cost and that no password
    /// has. Verifying against it makes an unknown name take as long as a known
    /// one; its verdict must not be used.
    pub fn decoy(cost: Cost) -> Self {
        Self(match cost {
            Cost::Argon2id {
                memory,
                passes,
                lanes,
            } => Kind::Argon2id {
                version: Version::V0x13,
                params: Params::new(memory, passes, lanes, Some(32)).unwrap_or(Params::DEFAULT),
                salt: vec![0; SALT],
                output: vec![0; 32],
            },
            // Dots are zero bits in bcrypt's base 64: 22 of salt, 31 of hash.
            Cost::Bcrypt(cost) => Kind::Bcrypt {
                cost,
                text: format!("$2b${cost:02}${}", ".".repeat(53)),
            },
        })
    }

    /// What verifying costs.
    pub fn cost(&self) -> Cost {
        match &self.0 {
            Kind::Argon2id { params, .. } => Cost::Argon2id {
                memory: params.m_cost(),
                passes: params.t_cost(),
                lanes: params.p_cost(),
            },
            Kind::Bcrypt { cost, .. } => Cost::Bcrypt(*cost),
        }
    }

    /// A digest of the hash, which is as secret as the hash is.
    pub fn fingerprint(&self) -> [u8; 32] {
        let mut digest = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256);
        match &self.0 {
            Kind::Argon2id { salt, output, .. } => {
                digest.update(salt);
                digest.update(output);
            }
            Kind::Bcrypt { text, .. } => digest.update(text.as_bytes()),
        }
        let mut print = [0; 32];
        for (to, from) in print.iter_mut().zip(digest.finish().as_ref()) {
            *to = *from;
        }
        print
    }

    /// Whether this is the password's hash. The password is taken byte for
    /// byte; bcrypt itself reads no more than its first 72 bytes. One that is
    /// longer than [`MAX_PASSWORD`] is wrong, at the cost of any other.
    ///
    /// # Errors
    ///
    /// When there is not enough memory: neither yes nor no.
    pub fn verify(&self, password: &Secret) -> Result<bool, String> {
        let bytes = password.expose();
        let fits = bytes.len() <= MAX_PASSWORD;
        let bytes = bytes.get(..MAX_PASSWORD).unwrap_or(bytes);
        let right = match &self.0 {
            Kind::Argon2id {
                version,
                params,
                salt,
                output,
            } => {
                let mut computed = vec![0_u8; output.len()];
                Argon2::new(Algorithm::Argon2id, *version, params.clone())
                    .hash_password_into(bytes, salt, &mut computed)
                    .map_err(|e| e.to_string())?;
                same(&computed, output)
            }
            Kind::Bcrypt { text, .. } => bcrypt::verify(bytes, text).map_err(|e| e.to_string())?,
        };
        Ok(right && fits)
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Hash({:?})", self.cost())
    }
}

fn parse_argon2id(text: &str) -> Result<Kind, String> {
    let broken = |_| format!("the argon2id hash is damaged (not a PHC string); {ADVICE}");
    let phc = Phc::new(text).map_err(broken)?;
    let (Some(salt), Some(output)) = (&phc.salt, &phc.hash) else {
        return Err(format!(
            "the argon2id hash is cut off: salt or hash is missing; {ADVICE}"
        ));
    };
    let version = match phc.version {
        // A PHC string without `v=` is of version 1.0 (RFC 9106's predecessor).
        None => Version::V0x10,
        Some(number) => Version::try_from(number)
            .map_err(|_| format!("the argon2id hash has an unknown version {number}; {ADVICE}"))?,
    };
    let params = Params::try_from(&phc)
        .map_err(|_| format!("the argon2id hash has parameters that are not valid; {ADVICE}"))?;
    if !params.keyid().is_empty() || !params.data().is_empty() {
        return Err(format!(
            "the argon2id hash needs a key that Cloakroom does not have; {ADVICE}"
        ));
    }
    let work = u64::from(params.m_cost()).saturating_mul(u64::from(params.t_cost()));
    if params.m_cost() > MAX_MEMORY || params.p_cost() > MAX_LANES || work > MAX_WORK {
        return Err(format!(
            "the argon2id hash asks for too much (m={} KiB, t={}, p={}; at most m={MAX_MEMORY}, p={MAX_LANES} and m×t={MAX_WORK}); {ADVICE}",
            params.m_cost(),
            params.t_cost(),
            params.p_cost(),
        ));
    }
    Ok(Kind::Argon2id {
        version,
        params,
        salt: salt.as_ref().to_vec(),
        output: output.as_bytes().to_vec(),
    })
}

fn parse_bcrypt(text: &str) -> Result<Kind, String> {
    let parts: bcrypt::HashParts = text.parse().map_err(|_| {
        format!("the bcrypt hash is damaged (60 characters are expected); {ADVICE}")
    })?;
    let cost = parts.get_cost();
    if !(MIN_BCRYPT..=MAX_BCRYPT).contains(&cost) {
        return Err(format!(
            "the bcrypt hash has cost {cost}; {MIN_BCRYPT} to {MAX_BCRYPT} is possible; {ADVICE}"
        ));
    }
    Ok(Kind::Bcrypt {
        cost,
        text: text.to_owned(),
    })
}

/// Names the kind of a hash that is not understood, without quoting it.
fn describe(text: &str) -> String {
    let kind = if text.is_empty() {
        return "the password hash is empty".to_owned();
    } else if text.starts_with("$apr1$") {
        "Apache's MD5 hash ($apr1$)"
    } else if text.starts_with("{SHA}") {
        "an unsalted SHA-1 hash ({SHA})"
    } else if text.starts_with("{SSHA}") {
        "a salted SHA-1 hash ({SSHA})"
    } else if text.starts_with("$1$") {
        "an MD5 crypt hash ($1$)"
    } else if text.starts_with("$5$") || text.starts_with("$6$") {
        "a SHA crypt hash ($5$, $6$)"
    } else if text.starts_with("$2x$") {
        "a hash of a broken bcrypt ($2x$)"
    } else if text.starts_with("$argon2") {
        "an Argon2 hash of another variant; only argon2id is understood"
    } else if text.starts_with("$y$") || text.starts_with("$7$") || text.starts_with("$scrypt$") {
        "a scrypt or yescrypt hash"
    } else if text.starts_with("$pbkdf2") {
        "a PBKDF2 hash"
    } else if text.starts_with('$') || text.starts_with('{') {
        "a hash of a kind that is not understood"
    } else {
        "a crypt(3) hash or a password in clear text"
    };
    format!("this is {kind}; argon2id and bcrypt are understood")
}

#[cfg(test)]
mod tests {
    use super::*;

    const BCRYPT: &str = "$2a$04$UuTkLRZZ6QofpDOlMz32MuuxEHA43WOemOYHPz6.SjsVsyO1tDU96";

    fn secret(text: &str) -> Secret {
        Secret::new(text)
    }

    #[test]
    fn a_new_hash_verifies_and_has_the_cost_of_new_hashes() {
        let text = Hash::create(&secret("correct horse")).unwrap();
        assert!(
            text.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"),
            "{text}"
        );
        let hash = Hash::parse(&text).unwrap();
        assert_eq!(hash.cost(), Cost::NEW);
        assert!(hash.verify(&secret("correct horse")).unwrap());
        assert!(!hash.verify(&secret("correct horse ")).unwrap());
        assert_ne!(text, Hash::create(&secret("correct horse")).unwrap());
    }

    #[test]
    fn the_reference_implementations_hashes_verify() {
        // From the test file of the reference implementation of Argon2.
        let v19 =
            "$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4";
        assert!(
            Hash::parse(v19)
                .unwrap()
                .verify(&secret("password"))
                .unwrap()
        );
        for prefix in ["$2a$", "$2b$", "$2y$"] {
            let text = BCRYPT.replacen("$2a$", prefix, 1);
            let hash = Hash::parse(&text).unwrap();
            assert_eq!(hash.cost(), Cost::Bcrypt(4));
            assert!(hash.verify(&secret("password")).unwrap());
            assert!(!hash.verify(&secret("Password")).unwrap());
        }
    }

    #[test]
    fn passwords_are_bytes() {
        let password = Secret::new(vec![0xff, 0x00, b'a', b'\n']);
        let hash = Hash::parse(&Hash::create(&password).unwrap()).unwrap();
        assert!(hash.verify(&password).unwrap());
        assert!(!hash.verify(&Secret::new(vec![0xff, 0x00, b'a'])).unwrap());
        assert!(!hash.verify(&Secret::new(vec![0xff])).unwrap());
    }

    #[test]
    fn an_overlong_password_is_wrong_even_where_its_beginning_is_right() {
        let longest = Secret::new(vec![b'a'; MAX_PASSWORD]);
        let hash = Hash::parse(&Hash::create(&longest).unwrap()).unwrap();
        assert!(hash.verify(&longest).unwrap());
        assert!(
            !hash
                .verify(&Secret::new(vec![b'a'; MAX_PASSWORD + 1]))
                .unwrap()
        );
    }

    #[test]
    fn greedy_hashes_are_refused() {
        let tail = "$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4";
        for params in [
            "m=4294967295,t=1,p=1",
            "m=262145,t=1,p=1",
            "m=262144,t=5,p=1",
            "m=4096,t=4294967295,p=1",
            "m=4096,t=1,p=17",
        ] {
            let text = format!("$argon2id$v=19${params}{tail}");
            assert!(
                Hash::parse(&text).unwrap_err().contains("too much"),
                "{params}"
            );
        }
        let text = format!("$argon2id$v=19$m=262144,t=4,p=16{tail}");
        assert!(Hash::parse(&text).is_ok());
        assert!(Hash::parse(&BCRYPT.replacen("$04$", "$17$", 1)).is_err());
        assert!(Hash::parse(&BCRYPT.replacen("$04$", "$31$", 1)).is_err());
        assert!(Hash::parse(&BCRYPT.replacen("$04$", "$03$", 1)).is_err());
    }

    #[test]
    fn what_is_not_understood_is_named_and_not_quoted() {
        for (text, name) in [
            ("", "empty"),
            ("$apr1$sEcReTsA$sEcReThAsH", "$apr1$"),
            ("{SHA}sEcReT=", "{SHA}"),
            ("$6$sEcReT$sEcReT", "SHA crypt"),
            ("$1$sEcReT", "MD5 crypt"),
            ("$2x$04$sEcReT", "$2x$"),
            ("$2y$04$sEcReT", "damaged"),
            (
                "$argon2i$v=19$m=256,t=2,p=1$sEcReTsEcReT$sEcReTsEcReT",
                "only argon2id",
            ),
            ("$argon2id$sEcReT", "argon2id"),
            ("$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ", "cut off"),
            (
                "$argon2id$v=18$m=256,t=2,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4",
                "version",
            ),
            ("sEcReT", "clear text"),
        ] {
            let error = Hash::parse(text).unwrap_err();
            assert!(error.contains(name), "{text}: {error}");
            assert!(error.contains("htpasswd -B"), "{text}: {error}");
            assert!(!error.contains("sEcReT"), "{text}: {error}");
        }
    }

    #[test]
    fn a_decoy_costs_the_same_and_matches_nothing() {
        let cheap = Cost::Argon2id {
            memory: 64,
            passes: 1,
            lanes: 1,
        };
        for cost in [cheap, Cost::NEW, Cost::Bcrypt(4)] {
            let decoy = Hash::decoy(cost);
            assert_eq!(decoy.cost(), cost);
            for password in ["", "password", "."] {
                assert!(!decoy.verify(&secret(password)).unwrap());
            }
        }
    }

    #[test]
    fn debug_shows_the_cost_alone() {
        let shown = format!("{:?}", Hash::parse(BCRYPT).unwrap());
        assert_eq!(shown, "Hash(Bcrypt(4))");
    }
}
