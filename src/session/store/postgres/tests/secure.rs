//! TLS, as the URL asks for it.

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};

use super::*;

/// An authority, and what it signs.
struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).unwrap().pem();
        Self {
            pem,
            issuer: Issuer::new(params, key),
        }
    }

    /// A certificate for a name, and its key.
    fn sign(&self, name: &str, common: &str) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params
            .distinguished_name
            .push(rcgen::DnType::CommonName, common);
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        (certificate.pem(), key.serialize_pem())
    }
}

#[tokio::test]
async fn certificates_are_checked_as_the_mode_says() {
    let (right, wrong) = (Authority::new(), Authority::new());
    let (certificate, key) = right.sign("db.example", "db.example");
    let server = PostgresServer::on_loopback(
        &["-c", "ssl=on", "-c", "ssl_ca_file=ca.pem"],
        &[
            ("server.crt", &certificate),
            ("server.key", &key),
            ("ca.pem", &right.pem),
        ],
        "hostssl all carl 127.0.0.1/32 cert\nhostnossl all all 127.0.0.1/32 reject",
    );
    server.sql(
        "create role ann login password 'pw'; create role carl login; \
         grant all on schema public to ann, carl",
    );
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, content: &str| {
        std::fs::write(folder.path().join(name), content).unwrap();
        folder.path().join(name).display().to_string()
    };
    let (good, bad) = (file("good.pem", &right.pem), file("bad.pem", &wrong.pem));
    let carl = right.sign("carl.example", "carl");
    let (cert, key) = (file("carl.pem", &carl.0), file("carl.key", &carl.1));

    let place = format!("127.0.0.1:{}/postgres", server.port());
    for (who, query, wanted) in [
        // The server's certificate is for db.example, and this is 127.0.0.1.
        ("ann:pw", String::new(), None),
        ("ann:pw", "?sslmode=require".into(), None),
        (
            "ann:pw",
            "?sslmode=require&channel_binding=require".into(),
            None,
        ),
        (
            "ann:pw",
            format!("?sslmode=verify-ca&sslrootcert={good}"),
            None,
        ),
        (
            "ann:pw",
            format!("?sslmode=require&sslrootcert={good}"),
            None,
        ),
        ("ann:pw", "?sslmode=disable".into(), Some("pg_hba.conf")),
        (
            "ann:pw",
            format!("?sslmode=require&sslrootcert={bad}"),
            Some("certificate"),
        ),
        (
            "ann:pw",
            format!("?sslmode=verify-ca&sslrootcert={bad}"),
            Some("certificate"),
        ),
        (
            "ann:pw",
            format!("?sslmode=verify-full&sslrootcert={good}"),
            Some("certificate"),
        ),
        (
            "ann:no",
            "?sslmode=require".into(),
            Some("password authentication failed"),
        ),
        ("carl", "?sslmode=require".into(), Some("certificate")),
        (
            "carl",
            format!("?sslmode=require&sslcert={cert}&sslkey={key}"),
            None,
        ),
    ] {
        let url = format!("postgres://{who}@{place}{query}");
        let answer = store(&url, TIMEOUT).ping().await;
        match wanted {
            None => assert_eq!(answer, Ok(()), "{url}"),
            Some(said) => {
                let error = answer.unwrap_err().to_string();
                assert!(error.contains(said), "{url}: {error}");
                assert!(!error.contains(":pw") && !error.contains(":no@"), "{error}");
            }
        }
    }

    // The right name.
    let certificate = right.sign("127.0.0.1", "x");
    let server = PostgresServer::on_loopback(
        &["-c", "ssl=on"],
        &[
            ("server.crt", &certificate.0),
            ("server.key", &certificate.1),
        ],
        "",
    );
    server.sql("create role ann login password 'pw'; grant all on schema public to ann");
    let place = format!("127.0.0.1:{}/postgres", server.port());
    let url = format!("postgres://ann:pw@{place}?sslmode=verify-full&sslrootcert={good}");
    let full = store(&url, TIMEOUT);
    assert_eq!(full.create(record("sess:a")).await, Ok(true));
    let used = "select version from pg_stat_ssl join pg_stat_activity using (pid) \
                where application_name = 'cloakroom'";
    assert_eq!(server.sql(used), "TLSv1.3");
}
