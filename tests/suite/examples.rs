//! Every configuration that is shipped can be loaded.

use std::fs;
use std::path::{Path, PathBuf};

use crate::harness::cli;
use crate::harness::users;

/// The variables that the examples take their secrets from.
const ENVIRONMENT: &[(&str, &str)] = &[
    ("REDIS_URL", "redis://127.0.0.1:6379/0"),
    (
        "CLOAKROOM_SECRET",
        "a secret that only the tests know, 4f1d8c",
    ),
    (
        "CLOAKROOM_SECRET_PREVIOUS",
        "the secret that was used before it, 77ab0e",
    ),
    ("REDIS_PASSWORD", "a password"),
];

#[test]
fn the_examples_can_be_loaded() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    for folder in ["config", "deploy"] {
        collect(&root.join(folder), &mut files);
    }
    let examples = files
        .iter()
        .filter(|path| path.extension().is_some_and(|e| e == "toml"));
    let examples: Vec<_> = examples
        .filter(|path| path.file_name().is_some_and(|n| n != "users.toml"))
        .collect();
    assert!(
        examples.len() > 1,
        "no examples found below {}",
        root.display()
    );
    for path in examples {
        check(
            &path.display().to_string(),
            &fs::read_to_string(path).unwrap(),
        );
    }
}

#[test]
fn the_configuration_in_the_kubernetes_manifest_can_be_loaded() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/kubernetes/sidecar.yaml");
    let manifest = fs::read_to_string(path).unwrap();
    let text = block(&manifest, "cloakroom.toml: |").expect("a ConfigMap with cloakroom.toml");
    assert!(text.contains("[[routes]]"), "{text}");
    check("cloakroom.toml in sidecar.yaml", &text);
}

/// Folders of an installation that do not exist where the tests run. What the
/// examples expect in them is put beside the configuration instead.
const ELSEWHERE: &[&str] = &[
    "/etc/cloakroom-users/",
    "/etc/cloakroom/",
    "/run/credentials/cloakroom.service/",
    "/run/secrets/",
    "/var/lib/cloakroom/",
    "/data/",
];

/// Runs `cloakroom check` over a configuration.
fn check(name: &str, text: &str) {
    let folder = tempfile::tempdir().unwrap();
    let put = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
    let text = ELSEWHERE.iter().fold(text.to_owned(), |text, elsewhere| {
        text.replace(elsewhere, "./")
    });
    put("cloakroom.toml", &text);
    put("users.toml", users::file());
    put("secret", "a secret that only the tests know, 4f1d8c\n");
    let mut command = cli::command(folder.path());
    command
        .envs(ENVIRONMENT.iter().copied())
        .args(["check", "-c", "cloakroom.toml"]);
    let ran = cli::run(&mut command, "");
    assert_eq!(ran.code, Some(0), "{name}: {}", ran.text());
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    // Both folders have to be there: an example that moved would go unchecked.
    for entry in fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display())) {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => collect(&path, files),
            false => files.push(path),
        }
    }
    files.sort();
}

/// The lines below a YAML key with a literal block, without their indentation.
fn block(yaml: &str, key: &str) -> Option<String> {
    let mut lines = yaml.lines().skip_while(|line| line.trim() != key);
    let indent = |line: &str| line.len() - line.trim_start().len();
    let outer = indent(lines.next()?);
    let inside = |line: &&str| line.trim().is_empty() || indent(line) > outer;
    let lines: Vec<_> = lines.take_while(inside).collect();
    let width = lines
        .iter()
        .find(|line| !line.trim().is_empty())
        .map(|line| indent(line))?;
    Some(
        lines
            .iter()
            .map(|line| format!("{}\n", line.get(width..).unwrap_or("")))
            .collect(),
    )
}

#[test]
fn a_block_is_cut_out_of_yaml() {
    let yaml = "a:\n  f: |\n    x = 1\n\n    [t]\n      y = 2\n  g: 3\n";
    assert_eq!(
        block(yaml, "f: |").as_deref(),
        Some("x = 1\n\n[t]\n  y = 2\n")
    );
    assert_eq!(block(yaml, "h: |"), None);
}
