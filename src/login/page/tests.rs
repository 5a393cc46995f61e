use super::*;

const XSS: &str = "\"'><script>alert(1)</script>&{{ 7*7 }}{% raw %}";

fn pages() -> Pages {
    Pages::new("Sign in", &[]).unwrap()
}

fn login<'a>() -> LoginPage<'a> {
    LoginPage {
        rd: "/a?b=c&d",
        username: "",
        error: None,
        round: 2,
        action: "/auth/login",
    }
}

fn all(pages: &Pages) -> Vec<String> {
    let findings = [(XSS.to_owned(), XSS.to_owned())];
    vec![
        pages.login(&login()).unwrap(),
        pages
            .login(&LoginPage {
                rd: XSS,
                username: XSS,
                error: Some(XSS),
                action: XSS,
                ..login()
            })
            .unwrap(),
        pages
            .message(&MessagePage {
                heading: XSS,
                text: XSS,
                reason: XSS,
                request_id: XSS,
                link: Some((XSS, XSS)),
            })
            .unwrap(),
        pages
            .mismatch(&MismatchPage {
                findings: &findings,
                reason: "cookie_not_kept",
                request_id: XSS,
                link: Some((XSS, XSS)),
            })
            .unwrap(),
        pages
            .devices(&DevicesPage {
                user: XSS,
                devices: &[device(false), device(true)],
                prefix: XSS,
            })
            .unwrap(),
    ]
}

fn device(current: bool) -> DeviceEntry {
    let both = || (XSS.to_owned(), XSS.to_owned());
    DeviceEntry {
        handle: XSS.into(),
        name: XSS.into(),
        user_agent: XSS.into(),
        address: XSS.into(),
        created: both(),
        seen: both(),
        current,
    }
}

/// The text between two marks, the marks excluded.
fn between<'t>(text: &'t str, from: &str, to: &str) -> &'t str {
    let start = text.find(from).unwrap() + from.len();
    &text[start..start + text[start..].find(to).unwrap()]
}

#[test]
fn every_value_is_escaped() {
    let pages = Pages::new(XSS, &[]).unwrap();
    for page in all(&pages) {
        assert!(!page.contains("<script"), "{page}");
        assert!(!page.contains("\"'>"), "{page}");
        assert!(
            !page.contains("{{ 49 }}") && !page.contains("&49"),
            "{page}"
        );
    }
}

#[test]
fn the_policy_allows_the_very_style_of_every_page_and_nothing_else() {
    let pages = pages();
    let csp = pages.csp().to_str().unwrap();
    for page in all(&pages) {
        let style = between(&page, "<style>", "</style>");
        assert!(
            !style.contains('\r'),
            "a browser would change it before hashing"
        );
        let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, style.as_bytes());
        assert!(csp.contains(&format!("style-src 'sha256-{}';", STANDARD.encode(hash))));
        assert!(
            !page.contains(" style="),
            "attributes are not allowed by the hash"
        );
        for loaded in [
            "src=", "url(", "@import", "<script", "<iframe", "<object", " onload", "<base",
        ] {
            assert!(!page.contains(loaded), "{loaded}");
        }
    }
    assert!(csp.starts_with("default-src 'none'; "), "{csp}");
    assert!(
        csp.ends_with("; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"),
        "{csp}"
    );
    assert!(!csp.contains("unsafe"), "{csp}");
}

#[test]
fn hosts_to_return_to_are_form_targets() {
    let hosts = [
        "a.example.com",
        "b.example.com:8443",
        "[::1]:80",
        "x; script-src *",
        "",
    ];
    let pages = Pages::new("t", &hosts.map(str::to_owned)).unwrap();
    let csp = pages.csp().to_str().unwrap();
    assert_eq!(
        between(csp, "form-action ", ";"),
        "'self' https://a.example.com http://a.example.com https://b.example.com:8443 http://b.example.com:8443"
    );
    assert!(!csp.contains("script-src"));
}

#[test]
fn the_form_posts_what_the_endpoint_reads() {
    let page = pages().login(&login()).unwrap();
    assert!(
        page.contains("<form method=\"post\" action=\"&#x2f;auth&#x2f;login\">"),
        "{page}"
    );
    for field in [
        "type=\"hidden\" name=\"rd\" value=\"&#x2f;a?b=c&amp;d\"",
        "type=\"hidden\" name=\"round\" value=\"2\"",
        "name=\"username\" type=\"text\"",
        "name=\"password\" type=\"password\"",
    ] {
        assert!(page.contains(field), "{field}\n{page}");
    }
    assert!(page.starts_with("<!doctype html>\n<html lang=\"en\">"));
    assert!(page.contains("<title>Sign in</title>"));
    assert!(page.contains("name=\"viewport\" content=\"width=device-width, initial-scale=1\""));
    assert!(page.contains("<label for=\"username\">") && page.contains("<label for=\"password\">"));
    assert!(page.contains("autocomplete=\"username\""));
    assert!(page.contains("autocomplete=\"current-password\""));
    assert!(!page.contains("role=\"alert\"") && !page.contains("aria-describedby"));
}

#[test]
fn the_cursor_stands_where_typing_begins() {
    let input =
        |page: &str, id: &str| between(page, &format!("<input id=\"{id}\""), ">").to_owned();
    let fresh = pages().login(&login()).unwrap();
    assert!(input(&fresh, "username").contains("autofocus"));
    assert!(!input(&fresh, "password").contains("autofocus"));
    let again = pages()
        .login(&LoginPage {
            username: "alice",
            error: Some("No."),
            ..login()
        })
        .unwrap();
    assert!(input(&again, "username").contains("value=\"alice\""));
    assert!(!input(&again, "username").contains("autofocus"));
    assert!(input(&again, "password").contains("autofocus"));
    assert!(!input(&again, "password").contains("value="));
}

#[test]
fn an_error_is_announced() {
    let page = pages()
        .login(&LoginPage {
            error: Some("Wrong."),
            ..login()
        })
        .unwrap();
    assert!(page.contains("<p class=\"alert\" role=\"alert\" id=\"error\">Wrong.</p>"));
    assert_eq!(page.matches("aria-describedby=\"error\"").count(), 2);
    assert!(page.contains("<title>Error: Sign in</title>"));
}

#[test]
fn a_message_has_its_reason_and_perhaps_a_link() {
    let page = MessagePage {
        heading: "Forbidden",
        text: "You may not see this.",
        reason: "missing_role",
        request_id: "abc-1",
        link: Some(("Sign in as another", "/auth/login")),
    };
    let html = pages().message(&page).unwrap();
    for part in [
        "<h1>Forbidden</h1>",
        "<p>You may not see this.</p>",
        "<code>missing_role</code>",
        "<code>abc-1</code>",
        "href=\"&#x2f;auth&#x2f;login\">Sign in as another</a>",
    ] {
        assert!(html.contains(part), "{part}\n{html}");
    }
    let html = pages()
        .message(&MessagePage {
            request_id: "",
            link: None,
            ..page
        })
        .unwrap();
    assert!(!html.contains("<a ") && !html.contains("Request:"));
}

#[test]
fn the_mismatch_page_names_all_suspects_and_the_findings() {
    let findings = [(
        "Scheme".to_owned(),
        "this request came over http".to_owned(),
    )];
    let page = MismatchPage {
        findings: &findings,
        reason: "cookie_not_kept",
        request_id: "r1",
        link: None,
    };
    let html = pages().mismatch(&page).unwrap();
    for part in [
        "<dt>Scheme</dt><dd>this request came over http</dd>",
        "<dt>Domain</dt>",
        "<dt>SameSite</dt>",
        "<dt>Secure</dt>",
        "<dt>Clock</dt>",
        "<code>r1</code>",
        "trust.proxies",
        "server.public_url",
    ] {
        assert!(html.contains(part), "{part}");
    }
    let html = pages()
        .mismatch(&MismatchPage {
            findings: &[],
            reason: "cookie_not_kept",
            ..page
        })
        .unwrap();
    assert!(!html.contains("What was seen"));
}

/// Relative luminance (WCAG 2.2) of `#rrggbb`.
fn luminance(colour: &str) -> f64 {
    let part = |at: usize| {
        let value = f64::from(u8::from_str_radix(&colour[at..at + 2], 16).unwrap()) / 255.0;
        if value <= 0.04045 {
            value / 12.92
        } else {
            ((value + 0.055) / 1.055).powf(2.4)
        }
    };
    0.2126 * part(1) + 0.7152 * part(3) + 0.0722 * part(5)
}

#[test]
fn contrast_is_enough_in_light_and_dark() {
    let (light, dark) = STYLE
        .split_once("@media (prefers-color-scheme: dark)")
        .unwrap();
    for theme in [light, dark] {
        let colour = |name: &str| luminance(between(theme, &format!("--{name}: "), ";"));
        let contrast = |a: &str, b: &str| {
            let (a, b) = (colour(a), colour(b));
            (a.max(b) + 0.05) / (a.min(b) + 0.05)
        };
        for (text, ground, least) in [
            ("ink", "card", 7.0),
            ("soft", "card", 4.5),
            ("on-accent", "accent", 4.5),
            ("on-accent", "accent-strong", 4.5),
            ("bad", "bad-tint", 4.5),
            ("accent", "tint", 3.0),
            ("accent", "card", 3.0),
            ("line", "card", 3.0),
        ] {
            let found = contrast(text, ground);
            assert!(
                found >= least,
                "{text} on {ground}: {found:.2}, {least} needed"
            );
        }
    }
}
