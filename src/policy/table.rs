//! The route table: which route a request meets, and whether everybody who may
//! read its target would meet the same one.
//!
//! A look-up costs a hash for each path segment, however many routes there are,
//! and looks at no more of the path than the longest route has bytes.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use http::Method;

use super::route::{AmbiguousPaths, HostPattern, Route};
use crate::base::refusal::Refusal;
use crate::wire::target::{Readings, Target};

/// All routes, indexed.
pub struct Table {
    routes: Vec<Route>,
    exact_hosts: HashMap<String, Paths>,
    /// Longest suffix first.
    suffix_hosts: Vec<(String, Paths)>,
    any_host: Paths,
    /// Whether any route's path has an upper-case letter, so that even a
    /// lower-case target may be another route to a server that ignores case.
    upper: bool,
}

/// The routes of one host pattern, by path.
#[derive(Default)]
struct Paths {
    /// The length of the longest path.
    longest: usize,
    plain: ByPath,
    folded: ByPath,
}

/// Paths are the operator's, so nobody can choose many that have one hash. A hash that
/// withstands that would cost more than the rest of a look-up.
type ByPath = HashMap<Box<[u8]>, Entry, BuildHasherDefault<PathHasher>>;

/// Takes in eight bytes at a time.
#[derive(Default)]
struct PathHasher(u64);

impl PathHasher {
    fn add(&mut self, word: u64) {
        // Odd, and without pattern: the digits of pi.
        const FACTOR: u64 = 0x2432_43f6_a888_5a31;
        self.0 = (self.0.rotate_left(5) ^ word).wrapping_mul(FACTOR);
    }
}

impl Hasher for PathHasher {
    fn write(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            self.add(u64::from_le_bytes(*word));
        }
        if !rest.is_empty() {
            let number = |sum, byte: &u8| sum << 8 | u64::from(*byte);
            self.add(rest.iter().fold(0, number));
        }
    }

    fn write_usize(&mut self, length: usize) {
        self.add(u64::try_from(length).unwrap_or(u64::MAX));
    }

    fn finish(&self) -> u64 {
        // What is known best is at the top, and the place is taken from the bottom.
        self.0.rotate_left(26)
    }
}

/// The routes of one path, in the order of the configuration.
#[derive(Clone, Default)]
struct Entry {
    exact: Vec<usize>,
    prefix: Vec<usize>,
}

/// How letters are compared.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Case {
    Sensitive,
    Folded,
}

impl Table {
    /// Indexes the routes. Their order does not matter.
    pub fn new(routes: Vec<Route>) -> Self {
        let mut exact_hosts: HashMap<String, Paths> = HashMap::new();
        let mut suffixes: HashMap<String, Paths> = HashMap::new();
        let mut any_host = Paths::default();
        for (index, route) in routes.iter().enumerate() {
            let paths = match &route.host {
                HostPattern::Any => &mut any_host,
                HostPattern::Exact(host) => exact_hosts.entry(host.clone()).or_default(),
                HostPattern::Suffix(suffix) => suffixes.entry(suffix.clone()).or_default(),
            };
            paths.add(index, route);
        }
        let mut suffix_hosts: Vec<_> = suffixes.into_iter().collect();
        suffix_hosts.sort_by_key(|(suffix, _)| std::cmp::Reverse(suffix.len()));
        Self {
            upper: routes
                .iter()
                .any(|r| r.path.bytes().any(|b| b.is_ascii_uppercase())),
            routes,
            exact_hosts,
            suffix_hosts,
            any_host,
        }
    }

    /// All routes.
    pub fn routes(&self) -> &[Route] {
        &self.routes
    }

    /// The route that the request meets, and its number.
    ///
    /// # Errors
    ///
    /// [`Refusal::NoRoute`] where there is none; [`Refusal::BadRequestTarget`]
    /// where a server may read the target as one of another route.
    pub fn resolve(&self, target: &Target, method: &Method) -> Result<(usize, &Route), Refusal> {
        let path = target.path().as_bytes();
        // Reading it costs something, and mostly no route names any.
        let host = match self.exact_hosts.is_empty() && self.suffix_hosts.is_empty() {
            true => "",
            false => target.host(),
        };
        let find = |path: &[u8], case| self.find(host, path, method, case);
        let index = find(path, Case::Sensitive).one().ok_or(Refusal::NoRoute)?;
        let route = self.routes.get(index).ok_or(Refusal::NoRoute)?;
        if route.ambiguous_paths == AmbiguousPaths::Allow {
            return Ok((index, route));
        }
        let same = |path: &[u8]| {
            find(path, Case::Sensitive).one() == Some(index)
                && (!self.folds(path) || find(path, Case::Folded).one() == Some(index))
        };
        let agreed = match target.readings() {
            Readings::One => !self.folds(path) || find(path, Case::Folded).one() == Some(index),
            Readings::Many(readings) => {
                route.ambiguous_paths != AmbiguousPaths::Reject
                    && readings.iter().all(|reading| same(reading.as_ref()))
            }
            Readings::TooMany => false,
        };
        if agreed {
            Ok((index, route))
        } else {
            Err(Refusal::BadRequestTarget)
        }
    }

    fn folds(&self, path: &[u8]) -> bool {
        self.upper || path.iter().any(u8::is_ascii_uppercase)
    }

    fn find(&self, host: &str, path: &[u8], method: &Method, case: Case) -> Found {
        let folded;
        let path = match case {
            Case::Sensitive => path,
            Case::Folded => {
                folded = path.to_ascii_lowercase();
                &folded
            }
        };
        let find = |paths: &Paths| paths.find(path, case, |route| self.takes(route, method));
        if let Some(paths) = self.exact_hosts.get(host) {
            let found = find(paths);
            if found != Found::None {
                return found;
            }
        }
        for (suffix, paths) in &self.suffix_hosts {
            if host.len() > suffix.len() && host.ends_with(suffix.as_str()) {
                let found = find(paths);
                if found != Found::None {
                    return found;
                }
            }
        }
        find(&self.any_host)
    }

    /// How well a route fits a method.
    fn takes(&self, route: usize, method: &Method) -> Fit {
        let Some(route) = self.routes.get(route) else {
            return Fit::No;
        };
        let names = |method: &Method| route.methods.contains(method);
        match () {
            () if names(method) => Fit::ByName,
            // As everywhere, GET includes HEAD.
            () if method == Method::HEAD && names(&Method::GET) => Fit::ByGet,
            () if route.methods.is_empty() => Fit::Any,
            () => Fit::No,
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Fit {
    No,
    Any,
    /// A HEAD request, which the route takes because it takes GET.
    ByGet,
    ByName,
}

/// What a look-up gave.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Found {
    None,
    One(usize),
    /// Routes that differ only in the case of letters.
    Several,
}

impl Found {
    fn one(self) -> Option<usize> {
        match self {
            Self::One(index) => Some(index),
            Self::None | Self::Several => None,
        }
    }
}

impl Paths {
    fn add(&mut self, index: usize, route: &Route) {
        let path = route.path.as_bytes();
        self.longest = self.longest.max(path.len());
        let folded = path.to_ascii_lowercase();
        for (map, path) in [
            (&mut self.plain, path),
            (&mut self.folded, folded.as_slice()),
        ] {
            let entry = map.entry(path.into()).or_default();
            if route.exact {
                entry.exact.push(index);
            } else {
                entry.prefix.push(index);
            }
        }
    }

    fn find(&self, path: &[u8], case: Case, fit: impl Fn(usize) -> Fit) -> Found {
        let map = match case {
            Case::Sensitive => &self.plain,
            Case::Folded => &self.folded,
        };
        // Anybody may send a path of 60 KB full of slashes: hashing each of its
        // prefixes whole would take a second.
        let whole = (path.len() <= self.longest)
            .then(|| map.get(path))
            .flatten();
        if let Some(entry) = whole {
            let found = best(&entry.exact, &fit);
            if found != Found::None {
                return found;
            }
        }
        prefixes(path, self.longest)
            .filter_map(|prefix| map.get(prefix))
            .map(|entry| best(&entry.prefix, &fit))
            .find(|found| *found != Found::None)
            .unwrap_or(Found::None)
    }
}

/// The best fitting of the routes of one path. Where two fit equally well, they
/// differ in the case of letters: equal routes are refused in the configuration.
fn best(routes: &[usize], fit: impl Fn(usize) -> Fit) -> Found {
    let mut best = (Fit::No, Found::None);
    for &route in routes {
        match fit(route) {
            Fit::No => {}
            this if this > best.0 => best = (this, Found::One(route)),
            this if this == best.0 => best.1 = Found::Several,
            _ => {}
        }
    }
    best.1
}

/// The path itself and each of its prefixes that end on a segment boundary, the
/// longest first: `/a/b`, `/a/`, `/a`, `/`. Those with more than `longest` bytes
/// are left out.
fn prefixes(path: &[u8], longest: usize) -> impl Iterator<Item = &[u8]> {
    let slashes = path
        .iter()
        .enumerate()
        // The prefix before the slash may have the full length.
        .take(longest.saturating_add(1))
        .rev()
        .filter(|(_, byte)| **byte == b'/')
        .flat_map(|(at, _)| [path.get(..=at), path.get(..at)])
        .flatten()
        .filter(|prefix| !prefix.is_empty());
    std::iter::once(path)
        .chain(slashes)
        .filter(move |prefix| prefix.len() <= longest)
}

#[cfg(test)]
mod tests;
