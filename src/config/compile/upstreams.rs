//! The applications: `[upstreams]`.

use std::path::PathBuf;

use crate::config::problem::Problem;
use crate::config::settings::{At, Defect, Section, Settings};
use crate::config::value::secret::plain_reason;
use crate::upstream::settings::{
    Balance, HealthCheck, MOST_ADDRESSES, Place, Scheme, TlsClient, UpstreamAddress,
    UpstreamSettings,
};
use crate::upstream::tls;

/// More is no certificate and no key.
const LARGEST_PEM: u64 = 4 << 20;

/// Compiles `[upstreams]`. One without a usable URL gets no address, beside
/// the error, so that routes that name it are checked all the same.
pub fn compile(
    settings: &Settings,
    problems: &mut Vec<Problem>,
) -> Result<Vec<UpstreamSettings>, Defect> {
    settings
        .names("upstreams")
        .iter()
        .map(|name| {
            let path = format!("upstreams.{}", name.value);
            let section = settings.section(&path, "upstreams.*");
            let addresses = addresses(&section, name, problems)?;
            Ok(UpstreamSettings {
                name: name.value.clone(),
                balance: match section.get::<String>("balance")?.as_str() {
                    "least_requests" => Balance::LeastRequests,
                    "round_robin" => Balance::RoundRobin,
                    other => return Err(Defect(format!("balance {other}"))),
                },
                host: section.get("host")?,
                connect_timeout: section.get("connect_timeout")?,
                response_timeout: section.get("response_timeout")?,
                retries: section.get("retries")?,
                pool_idle: section.get("pool_idle")?,
                pool_idle_timeout: section.get("pool_idle_timeout")?,
                health: health(settings, &path)?,
                tls: tls(settings, &path, &addresses, problems)?,
                addresses: addresses.into_iter().map(|at| at.value).collect(),
            })
        })
        .collect()
}

fn addresses(
    section: &Section<'_>,
    name: &At<String>,
    problems: &mut Vec<Problem>,
) -> Result<Vec<At<UpstreamAddress>>, Defect> {
    let urls: Option<Vec<At<UpstreamAddress>>> = section.optional("urls")?;
    let example = "write urls = [\"http://127.0.0.1:3000\"] with the address of your application";
    match urls.as_deref() {
        Some([]) if !section.is_faulty("urls") => problems.push(
            Problem::error(
                &section.place("urls"),
                format!("upstream `{}` has no URL", name.value),
            )
            .help(example),
        ),
        None if !section.is_set("urls") => problems.push(
            Problem::error(
                &name.place,
                format!("upstream `{}` has no `urls`", name.value),
            )
            .help(example),
        ),
        _ => {}
    }
    let urls = urls.unwrap_or_default();
    for (index, at) in urls.iter().enumerate() {
        if urls.iter().take(index).any(|other| other == at) {
            problems.push(
                Problem::error(&at.place, format!("{} is there twice", at.value))
                    .help("remove one of the two"),
            );
        }
    }
    if let Some(at) = urls.get(MOST_ADDRESSES) {
        problems.push(
            Problem::error(
                &at.place,
                format!("an upstream has at most {MOST_ADDRESSES} URLs"),
            )
            .help("put a load balancer between, or a name that resolves to several addresses"),
        );
    }
    Ok(urls)
}

fn health(settings: &Settings, path: &str) -> Result<Option<HealthCheck>, Defect> {
    let path = format!("{path}.health");
    if !settings.has_section(&path) {
        return Ok(None);
    }
    let section = settings.section(&path, "upstreams.*.health");
    Ok(Some(HealthCheck {
        path: section.get("path")?,
        interval: section.get("interval")?,
    }))
}

/// Reads the files, so that what is wrong with them is known at start and not
/// at the first request.
fn tls(
    settings: &Settings,
    path: &str,
    addresses: &[At<UpstreamAddress>],
    problems: &mut Vec<Problem>,
) -> Result<Option<TlsClient>, Defect> {
    let secure = addresses.iter().find(|at| at.value.scheme == Scheme::Https);
    let path = format!("{path}.tls");
    let section = settings.section(&path, "upstreams.*.tls");
    let Some(secure) = secure else {
        if settings.has_section(&path) && !addresses.is_empty() {
            problems.push(
                Problem::warning(&section.place, format!("[{path}] has no effect"))
                    .why("none of the URLs of this upstream is https")
                    .help("write https:// in `urls`, or remove the section"),
            );
        }
        return Ok(None);
    };
    let before = problems.len();
    let server_name = match section.optional::<String>("server_name")? {
        None => {
            check_names(addresses, problems);
            None
        }
        Some(text) => {
            let name = tls::server_name(&text);
            if name.is_none() {
                problems.push(
                    Problem::error(&section.place("server_name"), "this is no name that a certificate can hold")
                        .help("write a host name or an IP address, such as server_name = \"app.internal\""),
                );
            }
            name
        }
    };
    let roots = match read_pem(&section, "ca", tls::roots, problems)? {
        Found::Usable(roots) => Some(roots),
        Found::Faulty => None,
        Found::Absent => match tls::system_roots() {
            Ok(roots) => Some(roots),
            Err(reason) => {
                problems.push(
                    Problem::error(
                        &secure.place,
                        format!("nobody is trusted to vouch for this upstream: {reason}"),
                    )
                    .help(format!(
                        "name the authority's certificate: ca = \"…\" in [{path}]"
                    )),
                );
                None
            }
        },
    };
    let client = settings.section(&format!("{path}.client"), "upstreams.*.tls.client");
    let chain = read_pem(&client, "cert", tls::chain, problems)?;
    let key = read_pem(&client, "key", tls::key, problems)?;
    let identity = match (chain, key) {
        (Found::Usable(chain), Found::Usable(key)) => Some((chain, key)),
        (Found::Usable(_), Found::Absent) => {
            missing(&client, "cert", "key", problems);
            None
        }
        (Found::Absent, Found::Usable(_)) => {
            missing(&client, "key", "cert", problems);
            None
        }
        _ => None,
    };
    let Some(roots) = roots.filter(|_| problems.len() == before) else {
        return Ok(None);
    };
    match TlsClient::new(roots, identity, server_name) {
        Ok(tls) => Ok(Some(tls)),
        Err(error) => {
            problems.push(
                Problem::error(
                    &client.place("key"),
                    format!("this certificate and key cannot be used: {error}"),
                )
                .help("check that the key belongs to the certificate"),
            );
            Ok(None)
        }
    }
}

/// Without `server_name` the host of each URL has to be one.
fn check_names(addresses: &[At<UpstreamAddress>], problems: &mut Vec<Problem>) {
    for at in addresses {
        if let (Scheme::Https, Place::Tcp { host, .. }) = (at.value.scheme, &at.value.place)
            && tls::server_name(host).is_none()
        {
            problems.push(
                Problem::error(
                    &at.place,
                    format!("{host} is no name that a certificate can hold"),
                )
                .help("set `server_name` in the section `tls` of this upstream"),
            );
        }
    }
}

fn missing(section: &Section<'_>, given: &str, absent: &str, problems: &mut Vec<Problem>) {
    problems.push(
        Problem::error(
            &section.place(given),
            format!("`{given}` without `{absent}` is of no use"),
        )
        .help(format!("add {absent} = \"…\"")),
    );
}

enum Found<T> {
    Usable(T),
    Faulty,
    Absent,
}

fn read_pem<T>(
    section: &Section<'_>,
    name: &str,
    parse: impl FnOnce(&[u8]) -> Result<T, String>,
    problems: &mut Vec<Problem>,
) -> Result<Found<T>, Defect> {
    let path = match section.optional::<Option<PathBuf>>(name)? {
        Some(Some(path)) => path,
        Some(None) | None if section.is_faulty(name) => return Ok(Found::Faulty),
        Some(None) | None => return Ok(Found::Absent),
    };
    let found = match read(&path) {
        Ok(bytes) => parse(&bytes).map_err(|reason| format!("{} {reason}", path.display())),
        Err(error) => Err(format!(
            "{} cannot be read: {}",
            path.display(),
            plain_reason(&error)
        )),
    };
    Ok(match found {
        Ok(value) => Found::Usable(value),
        Err(what) => {
            problems.push(Problem::error(&section.place(name), what).help(
                "name a PEM file that Cloakroom's user may read; relative paths are counted from the folder of this file",
            ));
            Found::Faulty
        }
    })
}

fn read(path: &std::path::Path) -> std::io::Result<Vec<u8>> {
    use std::io::Read;
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path)?;
    file.take(LARGEST_PEM).read_to_end(&mut bytes)?;
    Ok(bytes)
}
