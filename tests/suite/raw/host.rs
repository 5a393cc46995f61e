//! `Host` (RFC 9112 section 3.2, RFC 9110 section 7.2): S-1 and S-2.

use super::{Case, refused, rejected, run, served};

const VALUES: &[(&str, &str)] = &[
    ("empty", ""),
    ("blanks", "   "),
    ("a path", "x/y"),
    ("a slash", "x/"),
    ("a query", "x?y"),
    ("a fragment", "x#y"),
    ("a user", "u@x"),
    ("a user and a password", "u:p@x"),
    ("an empty user", "@x"),
    ("a blank inside", "x y"),
    ("a tab inside", "x\ty"),
    ("a list", "x, y"),
    ("a list without a blank", "x,y"),
    ("a scheme", "http://x"),
    ("a backslash", "x\\y"),
    ("a quote", "\"x\""),
    ("an apostrophe", "x'y"),
    ("a semicolon", "x;y"),
    ("an angle", "<x>"),
    ("an escape", "x%2ey"),
    ("an escaped NUL", "x%00y"),
    ("a port that is too large", "x:99999"),
    ("a port of 65536", "x:65536"),
    ("a negative port", "x:-1"),
    ("a signed port", "x:+80"),
    ("a hexadecimal port", "x:0x50"),
    ("a port with a letter", "x:8o"),
    ("a long port", "x:000080"),
    ("two ports", "x:80:80"),
    ("only a port", ":80"),
    ("a blank before the port", "x :80"),
    ("a blank after the colon", "x: 80"),
    ("an open bracket", "[::1"),
    ("a closed bracket", "::1]"),
    ("an address without brackets", "::1"),
    ("a bad address", "[::g]"),
    ("an empty address", "[]"),
    ("a zone", "[fe80::1%25eth0]"),
    ("an IPv4 address in brackets", "[127.0.0.1]"),
    ("text behind the address", "[::1]x"),
    ("an address of the future", "[v1.x]"),
    ("dots", "x..y"),
    ("a leading dot", ".x"),
    ("only a dot", "."),
    ("two dots at the end", "x.."),
    ("a letter that is no ASCII", "\u{e4}.test"),
    ("an asterisk", "*"),
    ("an exclamation mark", "x!"),
    ("a NUL", "x\0y"),
    ("a vertical tab", "x\u{b}"),
];

fn with(host: &str) -> String {
    format!("GET / HTTP/1.1\r\n{host}\r\n")
}

fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (name, value) in VALUES {
        cases.push(refused(400, *name, with(&format!("Host: {value}\r\n"))));
    }
    for (name, lines) in [
        ("none", ""),
        ("twice", "Host: x\r\nHost: y\r\n"),
        ("the same twice", "Host: x\r\nHost: x\r\n"),
        ("the same in another case", "Host: x\r\nhost: x\r\n"),
        ("apart", "Host: x\r\nX-A: b\r\nhOsT: x\r\n"),
        ("the second empty", "Host: x\r\nHost:\r\n"),
        ("the first empty", "Host:\r\nHost: x\r\n"),
        ("a blank before the colon", "Host : x\r\n"),
        ("a tab before the colon", "Host\t: x\r\n"),
        ("folded", "Host:\r\n x\r\n"),
        ("a leading blank", " Host: x\r\n"),
        ("twice, one with a leading blank", "Host: x\r\n Host: y\r\n"),
        ("another name alone", "Hos\u{74}s: x\r\n"),
        ("an underscore", "_Host: x\r\n"),
        ("a forwarded host alone", "X-Forwarded-Host: x\r\n"),
    ] {
        cases.push(refused(400, name, with(lines)));
    }
    let absolute = |hosts: &str| format!("GET http://x/ HTTP/1.1\r\n{hosts}\r\n");
    for (name, hosts) in [
        ("none", ""),
        ("two", "Host: x\r\nHost: x\r\n"),
        ("invalid", "Host: x/y\r\n"),
        ("empty", "Host:\r\n"),
    ] {
        let name = format!("absolute form, {name}");
        cases.push(rejected(name, absolute(hosts)));
    }
    cases.push(rejected(
        "a host of 100 kB",
        with(&format!("Host: {}\r\n", "x".repeat(100_000))),
    ));
    for value in [
        "X.Test",
        "x.",
        "x:",
        "x:80",
        "x:0080",
        "[::1]",
        "[::1]:8080",
        "127.0.0.1",
        "a_b.test",
        "xn--bcher-kva.test",
        "a-b",
        "\t x \t",
        "x~y",
    ] {
        let head = with(&format!("Host: {value}\r\n"));
        cases.push(served(format!("{value:?}"), head, &[("/", "")]));
    }
    cases.push(served("HOST", with("HOST: x\r\n"), &[("/", "")]));
    cases
}

#[test]
fn hosts() {
    run(&cases(), 75);
}
