use super::*;
use proptest::prelude::*;

fn check(list: &str, scheme: &str, host: &str, port: u16, expected: bool) {
    let list: AllowList = list.parse().unwrap();
    assert_eq!(list.permits(scheme, host, port), expected, "{list:?} {scheme}://{host}:{port}");
}

#[test]
fn permits_only_what_is_named() {
    check("", "http", "a", 80, false);
    check("redis://redis:6379", "redis", "redis", 6379, true);
    check("redis://redis", "redis", "REDIS", 6379, true);
    check("redis://redis", "redis", "redis", 6380, false);
    check("redis://redis", "http", "redis", 6379, false);
    check("postgresql://db", "postgres", "db", 5432, true);
    check("postgres://db", "postgres", "db", 5433, false);
    check("mqtt://broker", "mqtts", "broker", 1883, false);
    check("redis://redis", "tcp", "redis", 6379, false);
    check("https://db:5432", "tcp", "db", 5432, false);
    check("https://db:5432", "http", "db", 5432, false);
    check("http://db", "redis", "db", 80, false);
    check("tcp://db:5432", "tcp", "db", 5432, true);
    check("tcp://db:80", "http", "db", 80, false);
    check("tcp://db:6379", "redis", "db", 6379, false);
    check("tcp://db", "udp", "db", 53, false);
    check("udp://db", "tcp", "db", 53, false);
    check("udp://db", "udp", "db", 53, true);
    check("db:5432", "tcp", "db", 5432, true);
    check("*://db:5432", "udp", "db", 5432, true);
    check("redis://redis", "udp", "redis", 6379, false);
    check("*.example.com", "https", "a.b.example.com", 443, true);
    check("*.example.com", "https", "example.com", 443, false);
    check("*.example.com", "https", "evilexample.com", 443, false);
    check("10.1.0.0/16", "tcp", "10.1.2.3", 5, true);
    check("10.1.0.0/16", "tcp", "10.2.2.3", 5, false);
    check("10.1.0.0/16", "tcp", "::ffff:10.1.2.3", 5, true);
    check("tcp://10.1.0.0/16:5432", "tcp", "10.1.2.3", 5432, true);
    check("tcp://10.1.0.0/16:5432", "tcp", "10.1.2.3", 5433, false);
    check("http://10.1.0.0/16", "http", "10.1.2.3", 8080, false);
    check("http://10.1.0.0/16:*", "http", "10.1.2.3", 8080, true);
    check("udp://fd00::/8:53", "udp", "fd00::1", 53, true);
    check("udp://[fd00::]/8:53", "udp", "fd00::1", 54, false);
    check("http://*:8080", "http", "x", 8080, true);
    check("*://*:*", "http", "1.2.3.4", 9, true);
    check("http://[::1]:80", "http", "[::1]", 80, true);
    check("0.0.0.0/0", "tcp", "9.9.9.9", 1, true);
    check("api", "http", "api", 1234, true);
}

#[test]
fn an_entry_for_one_way_to_connect_lets_no_name_lead_another_way_inside() {
    let list = |text: &str| text.parse::<AllowList>().unwrap();
    let metadata: IpAddr = "169.254.169.254".parse().unwrap();
    let allow = list("https://*,http://*.evil.example");
    assert!(!allow.covers("http", "a.evil.example", metadata, 80));
    assert!(!allow.permits_address("http", metadata, 80, [("a.evil.example", false)].into_iter()));
    let allow = list("tcp://10.0.0.5:5432,http://*.evil.example,tcp://*.evil.example:22");
    let inside: IpAddr = "10.0.0.5".parse().unwrap();
    assert!(!allow.covers("http", "a.evil.example", inside, 80));
    assert!(!allow.permits_address("tcp", inside, 22, [("a.evil.example", false)].into_iter()));
    assert!(allow.permits_address("tcp", inside, 5432, std::iter::empty()));
    assert!(allow.covers("tcp", "a.evil.example", inside, 5432));
    // A network of the workload's own may lead anywhere.
    assert!(list("tcp://db.shop_default:5432").permits_address(
        "tcp",
        inside,
        5432,
        [("db.shop_default", true)].into_iter()
    ));
}

#[test]
fn a_public_name_does_not_lead_into_private_networks() {
    let covers = |list: &str, name: &str, address: &str| {
        list.parse::<AllowList>().unwrap().covers_answer(name, address.parse().unwrap())
    };
    for private in [
        "127.0.0.1",
        "127.8.9.1",
        "10.0.0.1",
        "172.16.0.1",
        "172.31.255.255",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "0.0.0.0",
        "224.0.0.1",
        "255.255.255.255",
        "198.18.0.1",
        "::1",
        "::",
        "fe80::1",
        "fd00::1",
        "fec0::1",
        "ff02::1",
        "::ffff:10.0.0.1",
        "::ffff:127.0.0.1",
        "64:ff9b::a00:1",
        "64:ff9b:1::1",
        "2002:7f00:1::",
        "::7f00:1",
    ] {
        assert!(!covers("http://*.evil.example", "a.evil.example", private), "{private}");
        assert!(!covers("http://*.evil.example", "a.evil.example.", private), "{private}");
        assert!(covers("http://*", "a.evil.example", private), "{private} with every host permitted");
    }
    for public in ["9.9.9.9", "172.32.0.1", "100.128.0.1", "2606:4700::1", "64:ff9b::909:909"] {
        assert!(covers("http://*.evil.example", "a.evil.example", public), "{public}");
    }
    assert!(covers("http://a.corp.example,http://10.0.0.0/8", "a.corp.example", "10.1.2.3"));
    assert!(!covers("http://a.corp.example,http://10.0.0.0/8", "a.corp.example", "192.168.1.1"));
    for name in ["db", "db.local", "db.internal", "nas.home.arpa", "DB.INTERNAL."] {
        assert!(covers("", name, "10.1.2.3"), "{name}");
        assert!(!covers("", name, "169.254.169.254") && !covers("", name, "127.0.0.1"), "{name}");
    }
    assert!(covers("", "localhost", "127.0.0.1") && covers("", "app.localhost", "::1"));
    assert!(!covers("", "evillocalhost.example", "127.0.0.1") && !covers("", "a.notlocal", "10.0.0.1"));
}

#[test]
fn a_scheme_that_no_connection_has_is_refused_and_still_read() {
    for text in ["rediss://db", "wss://x", "ftp://x:*"] {
        let error = text.parse::<Allow>().unwrap_err().to_string();
        assert!(error.contains("use http, https, redis, postgres, mysql, mqtt, mqtts, tcp"), "{error}");
        let old: AllowList = serde_json::from_value(serde_json::json!([text])).unwrap();
        assert!(!old.permits("tcp", "db", 5432), "{text}");
    }
}

#[test]
fn malformed_permissions_say_why() {
    for bad in [
        "://x",
        "http://",
        "http://a:0",
        "http://a:x",
        "http://a/b",
        "10.0.0.0/40",
        "10.0.0.0/8:0",
        "10.0.0.0/8:",
        "a b",
        "ht tp://x",
        "[::1",
    ] {
        assert!(bad.parse::<Allow>().is_err(), "{bad}");
    }
}

proptest! {
    #[test]
    fn prints_what_it_reads(text in r"((http|redis|tcp|\*)://)?(\*|\*\.[a-z]{1,5}|[a-z]{1,8}|10\.0\.0\.[0-9]|10\.0\.0\.0/(8|32)|fd00::/(8|128))(:[1-9][0-9]{0,3}|:\*)?") {
        let allow: Allow = text.parse().unwrap();
        prop_assert_eq!(allow.to_string().parse::<Allow>().unwrap(), allow);
    }
}
