use super::*;
use crate::base::clock::Timestamp;
use std::fs;

struct Folder {
    folder: tempfile::TempDir,
    metrics: Metrics,
}

impl Folder {
    fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
            metrics: Metrics::new(),
        }
    }

    /// Writes `NAME.pem` and `NAME.key` for these names.
    fn issue(&self, name: &str, names: &[&str], year: i32) {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let mut parameters = rcgen::CertificateParams::new(names).unwrap();
        parameters.not_after = rcgen::date_time_ymd(year, 1, 1);
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = parameters.self_signed(&key).unwrap();
        self.write(&format!("{name}.pem"), &certificate.pem());
        self.write(&format!("{name}.key"), &key.serialize_pem());
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.folder.path().join(name), text).unwrap();
    }

    fn settings(&self, names: &[&str]) -> TlsSettings {
        let file = |name: String| self.folder.path().join(name);
        TlsSettings {
            certificates: names
                .iter()
                .map(|name| crate::server::settings::CertificateFiles {
                    cert: file(format!("{name}.pem")),
                    key: file(format!("{name}.key")),
                })
                .collect(),
            min_version: TlsVersion::Tls12,
            http2: true,
            client_ca: None,
            redirect_http: None,
            public_port: None,
            hsts: Duration::ZERO,
        }
    }

    fn open(&self, settings: &TlsSettings) -> Result<Tls, String> {
        let clock = Clock::fixed(Timestamp(1_800_000_000_000));
        Tls::open(settings, &self.metrics, clock)
    }
}

fn current(tls: &Tls) -> *const ServerConfig {
    Arc::as_ptr(&tls.current.load_full())
}

#[test]
fn names_pick_a_certificate() {
    let provider = crypto::provider();
    let key = |name: &str| {
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = rcgen::CertificateParams::new(vec![name.to_owned()])
            .unwrap()
            .self_signed(&key)
            .unwrap();
        let private = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let chain = vec![certificate.der().clone()];
        Arc::new(CertifiedKey::from_der(chain, private, &provider).unwrap())
    };
    let (first, wild, exact) = (key("a.example"), key("b.example"), key("c.example"));
    let mut names = Names::default();
    names.add(&["a.example".to_owned()], first.clone());
    names.add(&["*.b.example".to_owned()], wild.clone());
    names.add(
        &["x.b.example".to_owned(), "a.example".to_owned()],
        exact.clone(),
    );
    for (name, wanted) in [
        (None, &first),
        (Some("nobody.example"), &first),
        (Some("A.Example"), &first),
        (Some("y.b.example"), &wild),
        (Some("x.b.example."), &exact),
        (Some("z.y.b.example"), &first),
        (Some("b.example"), &first),
    ] {
        assert!(Arc::ptr_eq(&names.find(name).unwrap(), wanted), "{name:?}");
    }
}

#[test]
fn what_keeps_it_from_starting_is_explained() {
    let folder = Folder::new();
    folder.issue("a", &["a.example"], 2040);
    folder.issue("b", &["b.example"], 2040);
    let settings = folder.settings(&["a"]);
    let fails = |settings: &TlsSettings, wanted: &str| {
        let error = folder.open(settings).unwrap_err();
        assert!(error.contains(wanted), "{error}");
    };
    let mut other = settings.clone();
    other.certificates[0].key = folder.folder.path().join("b.key");
    fails(&other, "does not belong to the certificate");
    fails(&folder.settings(&["missing"]), "cannot be read");
    folder.write("c.pem", "");
    folder.write("c.key", "");
    fails(&folder.settings(&["c"]), "is empty");
    folder.write("c.pem", "not PEM at all");
    folder.write("c.key", "not PEM at all");
    fails(&folder.settings(&["c"]), "no certificate in");
    let mut other = settings.clone();
    other.certificates[0].key = folder.folder.path().join("c.key");
    fails(&other, "no private key in");
    let mut other = settings.clone();
    other.client_ca = Some(folder.folder.path().join("c.pem"));
    fails(&other, "no certificate in");
}

#[test]
fn an_expired_certificate_is_served() {
    let folder = Folder::new();
    folder.issue("a", &["a.example"], 2020);
    assert!(folder.open(&folder.settings(&["a"])).is_ok());
    let text = folder.metrics.encode();
    let line = "cloakroom_certificate_expiry_timestamp_seconds{certificate=\"0\"} 1577836800";
    assert!(text.contains(line), "{text}");
}

#[test]
fn a_change_is_taken_whole_or_not_at_all() {
    let folder = Folder::new();
    folder.issue("a", &["a.example"], 2040);
    let tls = folder.open(&folder.settings(&["a"])).unwrap();
    let first = current(&tls);
    tls.look();
    assert_eq!(current(&tls), first, "nothing has changed");

    // The key comes later than the certificate.
    let key = fs::read_to_string(folder.folder.path().join("a.key")).unwrap();
    folder.issue("a", &["a.example"], 2041);
    let new_key = fs::read_to_string(folder.folder.path().join("a.key")).unwrap();
    folder.write("a.key", &key);
    tls.look();
    assert_eq!(current(&tls), first, "a certificate without its key");
    assert_eq!(tls.metrics.failed_reloads.get(), 0, "it may be on its way");
    for _ in 0..3 {
        tls.look();
    }
    assert_eq!(tls.metrics.failed_reloads.get(), 1);

    folder.write("a.key", &new_key);
    tls.look();
    assert_ne!(current(&tls), first);
    assert_eq!(tls.metrics.expiry[0].get(), 2_240_611_200);
    assert_eq!(tls.metrics.failed_reloads.get(), 1);

    let second = current(&tls);
    fs::remove_file(folder.folder.path().join("a.pem")).unwrap();
    tls.look();
    tls.look();
    assert_eq!(current(&tls), second, "a file that is gone");
    assert_eq!(tls.metrics.failed_reloads.get(), 2);
}

#[test]
fn a_swapped_link_is_a_change() {
    let folder = Folder::new();
    let at = |name: &str| folder.folder.path().join(name);
    for (version, year) in [("..one", 2040), ("..two", 2041)] {
        fs::create_dir(at(version)).unwrap();
        folder.issue(&format!("{version}/a"), &["a.example"], year);
    }
    let link = |to: &str| {
        std::os::unix::fs::symlink(to, at("..new")).unwrap();
        fs::rename(at("..new"), at("..data")).unwrap();
    };
    link("..one");
    for name in ["a.pem", "a.key"] {
        std::os::unix::fs::symlink(format!("..data/{name}"), at(name)).unwrap();
    }
    let tls = folder.open(&folder.settings(&["a"])).unwrap();
    let first = current(&tls);
    link("..two");
    tls.look();
    assert_ne!(current(&tls), first);
}
