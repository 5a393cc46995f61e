//! What is understood, and what is refused without a word of it.

use super::*;

fn shown(url: &str) -> String {
    match RedisUrl::parse(url) {
        Ok(understood) => understood.shown(),
        Err(fault) => panic!("{url}: {fault:?}"),
    }
}

#[test]
fn urls_are_understood() {
    for (url, expected) in [
        ("redis://localhost", "redis://localhost:6379/0"),
        ("redis://localhost:6380/2", "redis://localhost:6380/2"),
        ("redis://localhost/", "redis://localhost:6379/0"),
        ("redis://:word@[::1]:6379", "redis://[::1]:6379/0"),
        (
            "redis://user:word@redis.example/0?protocol=resp3",
            "redis://redis.example:6379/0",
        ),
        (
            "redis+unix:///run/redis.sock?db=1&user=a&pass=b",
            "redis+unix:///run/redis.sock",
        ),
        (
            "rediss://u:p@h?ca=ca.pem&cert=c.pem&key=k.pem&server_name=redis.internal",
            "rediss://h:6379/0",
        ),
        (
            "redis+sentinel://u:p@a,b:1/3?master=m&sentinel_password=x",
            "redis+sentinel://a:26379,b:1/3?master=m",
        ),
        (
            "rediss+sentinel://a?master=m",
            "rediss+sentinel://a:26379/0?master=m",
        ),
        (
            "redis+cluster://u:p@a:7000,[::1]:7001",
            "redis+cluster://a:7000,[::1]:7001",
        ),
        ("rediss+cluster://a/0?ca=x", "rediss+cluster://a:6379"),
    ] {
        assert_eq!(shown(url), expected, "{url}");
        let understood = RedisUrl::parse(url).unwrap();
        assert_eq!(format!("{understood:?}"), expected);
    }
}

#[test]
fn its_parts_are_taken_apart() {
    let url = RedisUrl::parse("redis://carl:p%252Fw%3Ax@h:1/3").unwrap();
    assert_eq!(url.login.user.as_deref(), Some("carl"));
    assert_eq!(url.login.password, Some(Secret::new("p%2Fw:x")));
    assert_eq!(url.database, 3);
    assert!(!url.resp3);

    let url = "redis+sentinel://n:np@a,b?master=m&sentinel_user=s&sentinel_password=s%20p";
    let url = RedisUrl::parse(url).unwrap();
    assert_eq!(url.login.password, Some(Secret::new("np")));
    let Servers::Sentinel { master, login, .. } = &url.servers else {
        panic!("{url:?}");
    };
    assert_eq!(master, "m");
    assert_eq!(login.user.as_deref(), Some("s"));
    assert_eq!(login.password, Some(Secret::new("s p")));

    let url = RedisUrl::parse("rediss://h?ca=a.pem&cert=/b.pem&key=c.pem").unwrap();
    let files = url.with_paths(|path| Path::new("/etc").join(path)).tls;
    let files = files.unwrap();
    assert_eq!(files.ca, Some("/etc/a.pem".into()));
    assert_eq!(files.identity, Some(("/b.pem".into(), "/etc/c.pem".into())));
}

#[test]
fn urls_that_are_wrong_are_refused_and_not_quoted() {
    for url in [
        "",
        "localhost:6379",
        "http://hunter2@localhost",
        "redis+nonsense://hunter2",
        "rediss://hunter2@localhost",
        "redis://hunter2@localhost",
        "redis://",
        "redis://:hunter2@",
        "redis://user:hunter2@",
        "redis://u:hunter2@[",
        "redis://u:hunter2@[hunter2]",
        "redis://u:hunter2@h:hunter2",
        "redis://u:hunter2@h:0",
        "redis://u:hunter2@h:65536",
        "redis://u:hunter2@h:+1",
        "redis://u:hunter2@[::1]x",
        "redis://localhost/hunter2",
        "redis://localhost/-1",
        "redis://localhost/+1",
        "redis://localhost/0/hunter2",
        "redis://user:1#hunter2@localhost",
        "redis://user:1?hunter2@localhost",
        "redis://user:1/hunter2@localhost",
        "redis://user:hunter2/x@localhost",
        "redis://user:hunter2@x@localhost",
        "redis://user:hunter2%@localhost",
        "redis://user:hunter2%fz@localhost",
        "redis://user:hunter2%ff@localhost",
        "redis://user:hunter2 x@localhost",
        "redis://user:hunter2@0.0.0.0",
        "redis://user:hunter2@[::]",
        "redis://user:hunter2@a,b",
        "redis://user:hunter2@a_b,",
        "redis://localhost?db=3",
        "redis://localhost?ca=hunter2",
        "redis://localhost?protocol=hunter2",
        "redis://localhost?protocol=2&protocol=3",
        "redis+unix://",
        "redis+unix:///",
        "redis+unix://hunter2/run/redis.sock",
        "redis+unix:///run/redis.sock?db=hunter2",
        "redis+unix:///run/redis.sock?password=hunter2",
        "redis+unix:///run/redis.sock?user=hunter2",
        "rediss://h?cert=hunter2",
        "rediss://h?key=hunter2",
        "rediss://h?server_name=hunter2%20hunter2",
        "rediss://h?ca=",
        "redis+sentinel://u:hunter2@a",
        "redis+sentinel://?master=hunter2",
        "redis+sentinel://a,,b?master=hunter2",
        "redis+sentinel://a?master=m&sentinel_user=hunter2",
        "redis+cluster://u:hunter2@a/1",
        "redis+cluster://u:hunter2@a?master=hunter2",
    ] {
        let Err(fault) = RedisUrl::parse(url) else {
            panic!("{url} was accepted");
        };
        assert!(fault.help.contains("write redis"), "{url}: {fault:?}");
        assert!(
            !format!("{fault:?}").contains("hunter2"),
            "{url}: {fault:?}"
        );
    }
}
