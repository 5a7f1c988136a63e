use super::*;

fn check(key: &str, value: &str, expected: Result<(), &str>) {
    let labels = BTreeMap::from([(key.to_owned(), value.to_owned())]);
    let got = Labels::parse(&labels).map(|_| ()).map_err(|error| error.to_string());
    assert_eq!(got.as_ref().map(|_| ()).map_err(String::as_str), expected, "{key}={value}");
}

#[test]
fn reads_every_key_and_names_what_it_refuses() {
    check("com.example", "anything", Ok(()));
    check("bireme.http.route", "/a, /b/...", Ok(()));
    check(
        "bireme.http.route",
        "",
        Err("label bireme.http.route: names no route; leave the label out to serve every path"),
    );
    check(
        "bireme.http.route",
        "/a/:x,/a/:y",
        Err("label bireme.http.route: routes /a/:x and /a/:y cannot be told apart"),
    );
    check("bireme.http.rout", "/", Err("unknown label \"bireme.http.rout\": did you mean \"bireme.http.route\"?"));
    check("bireme.redis.subscribe", "redis://redis:6379/clicks", Ok(()));
    check(
        "bireme.redis.subscribe",
        "redis://redis",
        Err(
            "label bireme.redis.subscribe: must be redis://host:port/CHANNEL or redis://host:port?stream=NAME&group=GROUP",
        ),
    );
    check("bireme.timeout", "1m30s", Ok(()));
    check(
        "bireme.timeout",
        "soon",
        Err("label bireme.timeout: \"soon\" is not a duration such as 500ms, 30s or 1m30s"),
    );
    check("bireme.timeout", "0s", Err("label bireme.timeout: \"0s\" is not a duration such as 500ms, 30s or 1m30s"));
    check("bireme.instances", "0", Err("label bireme.instances: \"0\" is not a whole number from 1 to 1000000"));
    check("bireme.queue", "0", Ok(()));
    check("bireme.kv", "default,scores=redis://redis:6379", Ok(()));
    check(
        "bireme.kv",
        "scores=mysql://x",
        Err("label bireme.kv: store \"scores\" must be NAME or NAME=redis://host:port"),
    );
    check("bireme.health", "healthz", Err("label bireme.health: \"healthz\" is not a path such as /healthz"));
    check("bireme.class", "wasi", Err("label bireme.class: \"wasi\" is not one of wasm, linux, auto"));
    check("bireme.schedule", "30 4 * * 1-5 Europe/Berlin", Ok(()));
    check(
        "bireme.schedule",
        "daily",
        Err(
            "label bireme.schedule: \"daily\" is not five fields (minute, hour, day of the month, month, day of the week) and \
             a time zone, such as 30 4 * * 1-5 Europe/Berlin",
        ),
    );
    check("bireme.redis.subscribe", "redis://redis/?stream=orders&group=billing&attempts=3&dead=lost", Ok(()));
    for (value, reason) in [
        ("redis://redis?stream=orders", "a stream needs a name and a group: ?stream=NAME&group=GROUP"),
        ("redis://redis?stream=s&group=g&attempts=0", "attempts must be a number from 1"),
        ("redis://redis?stream=s&group=g&dead=s", "dead must be another stream"),
        ("redis://redis?stream=s&stream=t&group=g", "stream is named twice"),
        (
            "redis://redis?stream=s&group=g&from=0",
            "\"from=0\" must be stream=NAME, group=GROUP, attempts=NUMBER or dead=NAME",
        ),
    ] {
        check("bireme.redis.subscribe", value, Err(&format!("label bireme.redis.subscribe: {reason}")));
    }
}

#[test]
fn an_images_rights_are_requests() {
    let map = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    };
    let image = map(&[
        ("bireme.allow", "redis://redis"),
        ("bireme.allow-requested", "true"),
        ("bireme.kv", "default,scores=redis://redis"),
        ("bireme.redis.subscribe", "redis://redis/clicks"),
        ("bireme.timeout", "5s"),
    ]);
    let read = |own: &[(&str, &str)]| Labels::of_component(&image, &map(own)).unwrap();
    let none = read(&[]);
    assert_eq!((none.allow.clone(), none.subscribe.clone(), none.timeout), (None, None, Duration::from_secs(5)));
    assert_eq!(none.stores, BTreeMap::from([("default".to_owned(), StoreBackend::Embedded)]));
    assert_eq!(none.requested.keys().collect::<Vec<_>>(), RIGHTS.iter().collect::<Vec<_>>());
    let told = none.request_sentence().unwrap();
    assert!(told.contains("bireme.allow=redis://redis") && told.contains("--allow-requested"), "{told}");
    let all = read(&[("bireme.allow-requested", "true")]);
    assert!(all.allow.unwrap().permits("redis", "redis", 6379) && all.subscribe.is_some() && all.stores.len() == 2);
    assert!(all.requested.is_empty());
    let both = read(&[("bireme.allow-requested", "true"), ("bireme.allow", "http://api")]).allow.unwrap();
    assert!(both.permits("redis", "redis", 6379) && both.permits("http", "api", 80));
    let own = read(&[("bireme.allow", "http://api")]);
    let allow = own.allow.clone().unwrap();
    assert!(!allow.permits("redis", "redis", 6379) && allow.permits("http", "api", 80));
    assert!(!own.requested.contains_key("bireme.allow"));
    assert_eq!(read(&[("bireme.allow", "")]).allow, Some(AllowList::default()));
    assert!(read(&[("bireme.allow-requested", "false")]).allow.is_none());
    assert!(Labels::of_component(&image, &map(&[("bireme.allow-requested", "yes")])).is_err());
    let image = map(&[("bireme.instances", "100000"), ("bireme.queue", "7")]);
    let limits = |own: &[(&str, &str)]| {
        let labels = Labels::of_component(&image, &map(own)).unwrap();
        (labels.instances, labels.queue, labels.requested.contains_key("bireme.instances"))
    };
    assert_eq!(limits(&[]), (1000, 7, true), "it may take less, and ask for more");
    assert_eq!(limits(&[("bireme.allow-requested", "true")]), (100_000, 7, false));
    assert_eq!(limits(&[("bireme.instances", "2000")]), (2000, 7, false));
    let timeout = |asked: &str, own: &[(&str, &str)]| {
        let labels = Labels::of_component(&map(&[("bireme.timeout", asked)]), &map(own)).unwrap();
        (labels.timeout, labels.requested.contains_key("bireme.timeout"))
    };
    assert_eq!(timeout("10s", &[]), (Duration::from_secs(10), false));
    assert_eq!(timeout("1h", &[]), (Duration::from_secs(30), true), "it may wait shorter, and ask for longer");
    assert_eq!(timeout("1h", &[("bireme.timeout", "2h")]), (Duration::from_secs(7200), false));
    assert_eq!(timeout("1h", &[("bireme.allow-requested", "true")]), (Duration::from_secs(3600), false));
    assert!(Labels::of_component(&map(&[("bireme.allow", "a b")]), &map(&[])).is_err());
}

#[test]
fn durations_are_gos() {
    assert_eq!(duration("1m30s"), Ok(Duration::from_secs(90)));
    assert_eq!(duration("1.5h"), Ok(Duration::from_secs(5400)));
    assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
    assert!(duration("").is_err() && duration("5").is_err() && duration("s").is_err());
}
