//! What servers may take a path for, and which route they would think it meets:
//! by plain search, without any index.

use std::collections::HashSet;

use cloakroom::policy::Route;
use cloakroom::policy::route::HostPattern;
use http::Method;

/// More readings than any path that is let through has.
const MOST: usize = 4096;

/// Every reading of a path: escapes decoded never, once or twice, slashes
/// merged, dot segments resolved, parameters dropped, backslashes turned, in every
/// order. Whether a server ignores case shows where it looks a reading up.
/// `None`: more than anybody should let through.
pub fn all(path: &[u8]) -> Option<Vec<Vec<u8>>> {
    let mut seen = HashSet::from([(path.to_vec(), 0)]);
    let mut open = vec![(path.to_vec(), 0)];
    while let Some((path, decoded)) = open.pop() {
        let mut next = vec![
            (merge(&path), decoded),
            (resolve(&path), decoded),
            (without_parameters(&path), decoded),
            (turn(&path), decoded),
        ];
        if decoded < 2 {
            next.push((decode(&path), decoded + 1));
        }
        for state in next {
            if seen.insert(state.clone()) {
                if seen.len() > MOST {
                    return None;
                }
                open.push(state);
            }
        }
    }
    let paths: HashSet<Vec<u8>> = seen.into_iter().map(|(path, _)| path).collect();
    Some(paths.into_iter().collect())
}

/// The routes that a server would think a path meets: one, unless none fits or
/// some fit equally well.
pub fn meets(
    routes: &[Route],
    host: &str,
    path: &[u8],
    method: &Method,
    ignores_case: bool,
) -> Vec<usize> {
    let spell = |path: &[u8]| match ignores_case {
        true => path.to_ascii_lowercase(),
        false => path.to_vec(),
    };
    let path = spell(path);
    let fits: Vec<_> = routes
        .iter()
        .enumerate()
        .filter_map(|(number, route)| {
            let on_host = match &route.host {
                HostPattern::Any => 0,
                HostPattern::Suffix(suffix) if host.len() > suffix.len() => {
                    host.ends_with(suffix.as_str()).then_some(suffix.len())?
                }
                HostPattern::Suffix(_) => return None,
                HostPattern::Exact(exact) => (exact == host).then_some(usize::MAX)?,
            };
            let prefix = spell(route.path.as_bytes());
            let covers = match path.strip_prefix(prefix.as_slice()) {
                None => false,
                Some([]) => true,
                Some(rest) => !route.exact && (prefix.ends_with(b"/") || rest[0] == b'/'),
            };
            if !covers {
                return None;
            }
            // GET includes HEAD; whoever names HEAD means it more.
            let named = |method: &Method| route.methods.contains(method);
            let by_method = match () {
                () if named(method) => 2,
                () if method == Method::HEAD && named(&Method::GET) => 1,
                () if route.methods.is_empty() => 0,
                () => return None,
            };
            Some(((on_host, route.exact, prefix.len(), by_method), number))
        })
        .collect();
    let best = fits.iter().map(|(rank, _)| *rank).max();
    fits.iter()
        .filter(|(rank, _)| Some(*rank) == best)
        .map(|(_, number)| *number)
        .collect()
}

fn decode(path: &[u8]) -> Vec<u8> {
    percent_encoding::percent_decode(path).collect()
}

fn merge(path: &[u8]) -> Vec<u8> {
    let mut path = path.to_vec();
    while let Some(at) = path.windows(2).position(|pair| pair == b"//") {
        path.remove(at);
    }
    path
}

fn turn(path: &[u8]) -> Vec<u8> {
    path.iter()
        .map(|byte| if *byte == b'\\' { b'/' } else { *byte })
        .collect()
}

fn without_parameters(path: &[u8]) -> Vec<u8> {
    path.split(|byte| *byte == b'/')
        .map(|segment| segment.split(|byte| *byte == b';').next().unwrap_or(b""))
        .collect::<Vec<_>>()
        .join(&b'/')
}

/// RFC 3986 section 5.2.4, letter by letter.
fn resolve(path: &[u8]) -> Vec<u8> {
    let mut input = path.to_vec();
    let mut output: Vec<u8> = Vec::new();
    while !input.is_empty() {
        if input.starts_with(b"../") {
            input.drain(..3);
        } else if input.starts_with(b"./") || input.starts_with(b"/./") {
            input.drain(..2);
        } else if input == b"/." {
            input = b"/".to_vec();
        } else if input.starts_with(b"/../") || input == b"/.." {
            input.drain(..3);
            if input.is_empty() {
                input.push(b'/');
            }
            let cut = output.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
            output.truncate(cut);
        } else if input == b"." || input == b".." {
            input.clear();
        } else {
            let end = input.iter().skip(1).position(|byte| *byte == b'/');
            let end = end.map_or(input.len(), |at| at + 1);
            output.extend(input.drain(..end));
        }
    }
    output
}
