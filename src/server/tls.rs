//! TLS on the listeners: which certificate for which name, and what happens
//! when the files change.

pub mod certificate;
mod files;

use std::collections::HashMap;
use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{RootCertStore, ServerConfig};
use tokio_rustls::TlsAcceptor;

use super::settings::{TlsSettings, TlsVersion};
use crate::base::clock::Clock;
use crate::base::crypto;
use crate::base::metrics::{Metrics, TlsMetrics};
use files::{Contents, Digest, Stamps};

/// How often the files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// A certificate that ends within this time is worth a warning at start.
const SOON: Duration = Duration::from_secs(7 * 24 * 3600);

/// The TLS of all listeners, shared by all workers: sessions that one of them
/// began, another resumes.
pub struct Tls {
    settings: TlsSettings,
    current: ArcSwap<ServerConfig>,
    metrics: TlsMetrics,
    clock: Clock,
    watch: Mutex<Watch>,
}

/// What is known of the files.
struct Watch {
    stamps: Stamps,
    /// Of the contents in force.
    used: Digest,
    /// Of contents that could not be used, and what was wrong with them.
    faulty: Option<(Option<Digest>, bool)>,
}

impl Tls {
    /// Reads the files for the first time.
    ///
    /// # Errors
    ///
    /// What is wrong with which file, and how to mend it.
    pub fn open(settings: &TlsSettings, metrics: &Metrics, clock: Clock) -> Result<Self, String> {
        let stamps = Stamps::of(settings);
        let contents = Contents::read(settings)?;
        let loaded = load(settings, &contents, &clock, None)?;
        let metrics = metrics.tls(settings.certificates.len());
        let tls = Self {
            settings: settings.clone(),
            current: ArcSwap::from(loaded.config.clone()),
            metrics,
            clock,
            watch: Mutex::new(Watch {
                stamps,
                used: contents.digest(),
                faulty: None,
            }),
        };
        tls.announce(&loaded, "TLS certificate");
        Ok(tls)
    }

    /// What does the next handshake.
    pub fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(self.current.load_full())
    }

    /// Follows the files until it is dropped. Runs beside the workers; reading
    /// is done where it may block.
    pub async fn follow(self: Arc<Self>) {
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            let tls = self.clone();
            // Only a panic or the end of the runtime makes it fail.
            let _ = tokio::task::spawn_blocking(move || tls.look()).await;
        }
    }

    /// Looks at the files once, and uses what has changed, whole or not at all.
    fn look(&self) {
        let mut watch = self.watch.lock().unwrap_or_else(PoisonError::into_inner);
        let stamps = Stamps::of(&self.settings);
        if stamps == watch.stamps && stamps.settled() && watch.faulty.is_none() {
            return;
        }
        watch.stamps = stamps;
        let contents = match Contents::read(&self.settings) {
            Ok(contents) => contents,
            Err(problem) => return self.complain(&mut watch, None, &problem),
        };
        let digest = contents.digest();
        if digest == watch.used {
            watch.faulty = None;
            return;
        }
        let current = self.current.load_full();
        match load(&self.settings, &contents, &self.clock, Some(&current)) {
            Ok(loaded) => {
                self.current.store(loaded.config.clone());
                watch.used = digest;
                watch.faulty = None;
                self.announce(&loaded, "TLS certificate reloaded");
            }
            Err(problem) => self.complain(&mut watch, Some(digest), &problem),
        }
    }

    /// Says what is wrong, once, and only if it is still so at the second
    /// look: a certificate and its key are seldom replaced in one moment.
    fn complain(&self, watch: &mut Watch, digest: Option<Digest>, problem: &str) {
        match &mut watch.faulty {
            Some((seen, said)) if *seen == digest => {
                if !std::mem::replace(said, true) {
                    self.metrics.failed_reloads.inc();
                    tracing::error!(
                        "the TLS files have changed and cannot be used, so those from before stay in force: {problem}"
                    );
                }
            }
            faulty => *faulty = Some((digest, false)),
        }
    }

    fn announce(&self, loaded: &Loaded, what: &str) {
        let now = since_epoch(&self.clock);
        for (number, one) in loaded.certificates.iter().enumerate() {
            if let Some(gauge) = self.metrics.expiry.get(number) {
                gauge.set(i64::try_from(one.ends.as_secs()).unwrap_or(i64::MAX));
            }
            let names = one.names.join(", ");
            let ends = rfc3339(one.ends);
            if one.ends <= now {
                tracing::warn!(
                    "{what}: the one for {names} has expired, on {ends}; browsers refuse it"
                );
            } else if one.ends <= now + SOON {
                tracing::warn!("{what}: the one for {names} expires soon, on {ends}");
            } else {
                tracing::info!("{what} for {names}, until {ends}");
            }
        }
    }
}

/// Whether the files can be used, without using them.
///
/// # Errors
///
/// What is wrong with which file, and how to mend it.
pub fn check(settings: &TlsSettings) -> Result<(), String> {
    let contents = Contents::read(settings)?;
    load(settings, &contents, &Clock::system(), None).map(drop)
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls")
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

struct Loaded {
    config: Arc<ServerConfig>,
    certificates: Vec<certificate::Facts>,
}

/// Makes a configuration of the files' contents. Tickets given out before stay
/// good, unless clients must show certificates: those of another authority
/// must not resume.
fn load(
    settings: &TlsSettings,
    contents: &Contents,
    clock: &Clock,
    before: Option<&ServerConfig>,
) -> Result<Loaded, String> {
    let provider = crypto::provider();
    let versions: &[&rustls::SupportedProtocolVersion] = match settings.min_version {
        TlsVersion::Tls12 => &[&rustls::version::TLS13, &rustls::version::TLS12],
        TlsVersion::Tls13 => &[&rustls::version::TLS13],
    };
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(versions)
        .map_err(|error| format!("TLS cannot be set up: {error}"))?;
    let builder = match (&settings.client_ca, &contents.client_ca) {
        (Some(path), Some(pem)) => {
            let roots = Arc::new(authorities(path, pem)?);
            let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider.clone())
                .build()
                .map_err(|error| format!("server.tls.client_ca {}: {error}", path.display()))?;
            builder.with_client_cert_verifier(verifier)
        }
        _ => builder.with_no_client_auth(),
    };
    let mut names = Names::default();
    let mut certificates = Vec::new();
    for (files, (cert, key)) in settings.certificates.iter().zip(&contents.pairs) {
        let chain = chain(&files.cert, cert)?;
        let facts = chain
            .first()
            .and_then(|first| certificate::read(first))
            .ok_or_else(|| format!("the certificate {} cannot be read", files.cert.display()))?;
        let key = private_key(&files.key, key)?;
        let certified = CertifiedKey::from_der(chain, key, &provider)
            .map_err(|error| mismatch(&files.cert, &files.key, &error))?;
        names.add(&facts.names, Arc::new(certified));
        certificates.push(facts);
    }
    let mut config = builder.with_cert_resolver(Arc::new(names));
    config.time_provider = Arc::new(Time(clock.clone()));
    config.alpn_protocols = match settings.http2 {
        true => vec![b"h2".to_vec(), b"http/1.1".to_vec()],
        false => vec![b"http/1.1".to_vec()],
    };
    config.ticketer = match before {
        Some(before) if settings.client_ca.is_none() => before.ticketer.clone(),
        _ => rustls::crypto::aws_lc_rs::Ticketer::new()
            .map_err(|error| format!("TLS tickets cannot be made: {error}"))?,
    };
    // Early data can be replayed by anybody who saw it (RFC 8446 section 8).
    config.max_early_data_size = 0;
    Ok(Loaded {
        config: Arc::new(config),
        certificates,
    })
}

/// The wall clock, so that rustls and everything else agree on the time.
#[derive(Debug)]
struct Time(Clock);

impl rustls::time_provider::TimeProvider for Time {
    fn current_time(&self) -> Option<rustls::pki_types::UnixTime> {
        Some(rustls::pki_types::UnixTime::since_unix_epoch(since_epoch(
            &self.0,
        )))
    }
}

/// Which certificate is shown to whom.
#[derive(Debug, Default)]
struct Names {
    first: Option<Arc<CertifiedKey>>,
    exact: HashMap<String, Arc<CertifiedKey>>,
    /// By what stands behind `*.`.
    wildcards: HashMap<String, Arc<CertifiedKey>>,
}

impl Names {
    /// Adds a certificate. Of two for one name the first counts.
    fn add(&mut self, names: &[String], key: Arc<CertifiedKey>) {
        self.first.get_or_insert_with(|| key.clone());
        for name in names {
            match name.strip_prefix("*.") {
                Some(rest) => self.wildcards.entry(rest.to_owned()),
                None => self.exact.entry(name.clone()),
            }
            .or_insert_with(|| key.clone());
        }
    }

    /// The certificate for a name: an exact one, one whose wildcard stands for
    /// the first label (RFC 9525 section 6.3), or the first of all.
    fn find(&self, name: Option<&str>) -> Option<Arc<CertifiedKey>> {
        let found = name.and_then(|name| {
            let name = name.trim_end_matches('.').to_ascii_lowercase();
            let wildcard = || {
                let (_, rest) = name.split_once('.')?;
                self.wildcards.get(rest)
            };
            self.exact.get(&name).or_else(wildcard)
        });
        found.or(self.first.as_ref()).cloned()
    }
}

impl ResolvesServerCert for Names {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.find(hello.server_name())
    }
}

fn chain(path: &Path, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let path = path.display();
    let chain: Vec<_> = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .map_err(|error| format!("the certificate {path} is not PEM: {error}"))?;
    if chain.is_empty() {
        return Err(format!(
            "there is no certificate in {path}: it needs a PEM block `BEGIN CERTIFICATE`, the server's own first, then those of the authorities between"
        ));
    }
    Ok(chain)
}

fn private_key(path: &Path, pem: &[u8]) -> Result<PrivateKeyDer<'static>, String> {
    // The error of the library could repeat what stands in the file.
    PrivateKeyDer::from_pem_slice(pem).map_err(|_| {
        format!(
            "there is no private key in {}: it needs a PEM block `BEGIN PRIVATE KEY` without a passphrase",
            path.display()
        )
    })
}

fn authorities(path: &Path, pem: &[u8]) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for authority in chain(path, pem)? {
        roots
            .add(authority)
            .map_err(|error| format!("server.tls.client_ca {}: {error}", path.display()))?;
    }
    Ok(roots)
}

fn mismatch(cert: &Path, key: &Path, error: &rustls::Error) -> String {
    let (cert, key) = (cert.display(), key.display());
    match error {
        rustls::Error::InconsistentKeys(_) => format!(
            "the key {key} does not belong to the certificate {cert}; name the key that it was issued for"
        ),
        _ => format!("the certificate {cert} with the key {key} cannot be used: {error}"),
    }
}

fn since_epoch(clock: &Clock) -> Duration {
    Duration::from_millis(clock.now().0)
}

fn rfc3339(since_epoch: Duration) -> String {
    i64::try_from(since_epoch.as_secs())
        .ok()
        .and_then(|seconds| jiff::Timestamp::from_second(seconds).ok())
        .map_or_else(|| "an unknown date".to_owned(), |time| time.to_string())
}

#[cfg(test)]
mod tests;
