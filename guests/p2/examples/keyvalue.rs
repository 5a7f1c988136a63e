//! Uses `wasi:keyvalue` in both drafts and `wasi:config` in both versions, as the path says:
//! `/DRAFT/tour?STORE` calls every function and answers one line for each, `/DRAFT/get?STORE/KEY` and
//! `/DRAFT/set?STORE/KEY/VALUE` one, `/VERSION/config?NAME` reads a setting.

use wasip2::http::types::{Fields, IncomingRequest, OutgoingBody, OutgoingResponse, ResponseOutparam};

mod two {
    wit_bindgen::generate!({ path: "../../wit", world: "bireme:host/imports", generate_all });
}

mod one {
    wit_bindgen::generate!({ path: "../../wit", world: "bireme:host/imports-draft", generate_all });
}

wasip2::http::proxy::export!(Keyvalue);

struct Keyvalue;

impl wasip2::exports::http::incoming_handler::Guest for Keyvalue {
    fn handle(request: IncomingRequest, out: ResponseOutparam) {
        let target = request.path_with_query().unwrap_or_default();
        let (path, query) = target.split_once('?').unwrap_or((&target, ""));
        let text = match path {
            "/draft/tour" => draft::tour(query),
            "/draft/get" => draft::get(query),
            "/draft/set" => draft::set(query),
            "/draft2/tour" => draft2::tour(query),
            "/draft2/get" => draft2::get(query),
            "/draft2/set" => draft2::set(query),
            "/draft/hoard" => draft::hoard(query),
            "/draft2/hoard" => draft2::hoard(query),
            "/draft2/race" => draft2::race(query),
            "/rc/config" => {
                use one::wasi::config0_2_0_rc_1::store;
                config(store::get(query), store::get_all())
            }
            "/draft/config" => {
                use two::wasi::config0_2_0_draft_2024_09_27::store;
                config(store::get(query), store::get_all())
            }
            other => format!("no {other} here"),
        };
        let response = OutgoingResponse::new(Fields::new());
        let body = response.body().unwrap();
        ResponseOutparam::set(out, Ok(response));
        let stream = body.write().unwrap();
        for chunk in text.as_bytes().chunks(4096) {
            stream.blocking_write_and_flush(chunk).unwrap();
        }
        drop(stream);
        OutgoingBody::finish(body, None).unwrap();
    }
}

fn config<E: std::fmt::Debug>(one: Result<Option<String>, E>, all: Result<Vec<(String, String)>, E>) -> String {
    format!("{one:?} of {all:?}")
}

/// A value as the lines show it.
fn shown<E: std::fmt::Debug>(value: Result<Option<Vec<u8>>, E>) -> String {
    match value {
        Ok(Some(bytes)) => format!("{:?}", String::from_utf8_lossy(&bytes)),
        Ok(None) => "none".to_owned(),
        Err(error) => format!("{error:?}"),
    }
}

/// What is the same in both drafts.
macro_rules! common {
    ($module:ident, $package:ident) => {
        use super::$module::wasi::$package::{atomics, batch, store};

        pub fn get(query: &str) -> String {
            let (name, key) = query.split_once('/').unwrap_or((query, ""));
            match store::open(name) {
                Ok(bucket) => super::shown(bucket.get(key)),
                Err(error) => format!("open: {error:?}"),
            }
        }

        pub fn set(query: &str) -> String {
            let words: Vec<&str> = query.splitn(3, '/').collect();
            match store::open(words[0]) {
                Ok(bucket) => format!("{:?}", bucket.set(words[1], words[2].as_bytes())),
                Err(error) => format!("open: {error:?}"),
            }
        }

        /// Opens the store until that is refused, then works with what it has.
        pub fn hoard(name: &str) -> String {
            let mut buckets = Vec::new();
            let error = loop {
                match store::open(name) {
                    Ok(bucket) => buckets.push(bucket),
                    Err(error) => break error,
                }
            };
            let kept = buckets[0].set("k", b"v").is_ok() && buckets[0].list_keys(None).is_ok();
            format!("{} {kept} {error:?} {}", buckets.len(), full(&buckets[0]))
        }

        fn steps(bucket: &store::Bucket) -> Vec<String> {
            let mut lines = Vec::new();
            let mut say = |what: &str, text: String| lines.push(format!("{what}: {text}"));
            say("empty", format!("{:?}", bucket.list_keys(None).map(|page| (page.keys, page.cursor.is_none()))));
            say("set", format!("{:?}", bucket.set("a", b"1")));
            say("get", super::shown(bucket.get("a")));
            say("absent", super::shown(bucket.get("b")));
            say("exists", format!("{:?} {:?}", bucket.exists("a").ok(), bucket.exists("b").ok()));
            say("overwrite", format!("{:?} {}", bucket.set("a", b"40"), super::shown(bucket.get("a"))));
            say("increment", format!("{:?}", atomics::increment(bucket, "a", 2)));
            say("from nothing", format!("{:?} {}", atomics::increment(bucket, "n", 7), super::shown(bucket.get("n"))));
            let raw = [0, 255, 10, 0];
            say("bytes", format!("{:?} {:?}", bucket.set("raw\n\u{e4}", &raw), bucket.get("raw\n\u{e4}").ok().flatten()));
            say("nothing", format!("{:?} {:?}", bucket.set("void", b""), bucket.get("void").ok().flatten()));
            say("no number", format!("{}", atomics::increment(bucket, "void", 1).is_err()));
            let pairs = [("x".to_owned(), b"ex".to_vec()), ("y".to_owned(), b"why".to_vec())];
            say("set many", format!("{:?} {:?}", batch::set_many(bucket, &pairs), batch::set_many(bucket, &[])));
            let keys: Vec<String> = ["y", "none", "x"].map(str::to_owned).into();
            say("get many", format!("{:?} {:?}", batch::get_many(bucket, &keys).ok(), batch::get_many(bucket, &[]).ok()));
            let mut all = bucket.list_keys(None).map(|page| page.keys).unwrap_or_default();
            all.sort();
            say("keys", format!("{all:?}"));
            let gone = batch::delete_many(bucket, &keys);
            say("delete many", format!("{gone:?} {:?} {:?}", batch::delete_many(bucket, &[]), bucket.exists("y").ok()));
            say("delete", format!("{:?} {:?}", bucket.delete("a"), bucket.exists("a").ok()));
            say("again", format!("{:?}", bucket.delete("a")));
            lines
        }
    };
}

mod draft {
    common!(one, keyvalue0_2_0_draft);

    fn full(bucket: &store::Bucket) -> String {
        format!("{:?}", atomics::increment(bucket, "n", 1).is_ok())
    }

    pub fn tour(name: &str) -> String {
        let bucket = match store::open(name) {
            Ok(bucket) => bucket,
            Err(error) => return format!("open: {error:?}"),
        };
        let mut lines = steps(&bucket);
        lines.push(format!("cursor: {}", bucket.list_keys(Some(7)).is_err()));
        lines.push(format!("too far: {}", atomics::increment(&bucket, "n", u64::MAX).is_err()));
        lines.join("\n")
    }
}

mod draft2 {
    common!(two, keyvalue0_2_0_draft2);

    use atomics::{Cas, CasError};

    fn full(bucket: &store::Bucket) -> String {
        format!("{:?}", Cas::new(bucket, "k").is_err())
    }

    pub fn tour(name: &str) -> String {
        let bucket = match store::open(name) {
            Ok(bucket) => bucket,
            Err(error) => return format!("open: {error:?}"),
        };
        let mut lines = steps(&bucket);
        lines.push(format!("cursor: {}", bucket.list_keys(Some("7")).is_err()));
        lines.push(format!("below zero: {:?}", atomics::increment(&bucket, "below", -3)));
        lines.push(format!("too far: {}", atomics::increment(&bucket, "n", i64::MAX).is_err()));
        let fresh = Cas::new(&bucket, "swapped").unwrap();
        lines.push(format!("cas of nothing: {}", super::shown(fresh.current())));
        let late = Cas::new(&bucket, "swapped").unwrap();
        lines.push(format!("swap: {:?}", atomics::swap(fresh, b"first").is_ok()));
        match atomics::swap(late, b"second") {
            Err(CasError::CasFailed(again)) => {
                lines.push(format!("too late: {}", super::shown(again.current())));
                lines.push(format!("once more: {}", atomics::swap(again, b"third").is_ok()));
            }
            other => lines.push(format!("too late: {other:?}")),
        }
        lines.push(format!("swapped: {}", super::shown(bucket.get("swapped"))));
        let gone = Cas::new(&bucket, "swapped").unwrap();
        bucket.delete("swapped").unwrap();
        lines.push(format!("deleted meanwhile: {}", matches!(atomics::swap(gone, b"x"), Err(CasError::CasFailed(_)))));
        lines.join("\n")
    }

    /// Adds 100 by compare-and-swap and 100 by increment, beside whoever else does.
    pub fn race(name: &str) -> String {
        let bucket = store::open(name).unwrap();
        for _ in 0..100 {
            atomics::increment(&bucket, "counted", 1).unwrap();
            let mut cas = Cas::new(&bucket, "swapped").unwrap();
            loop {
                let seen = cas.current().unwrap().map_or(0, |bytes| String::from_utf8(bytes).unwrap().parse().unwrap());
                match atomics::swap(cas, (seen + 1u64).to_string().as_bytes()) {
                    Ok(()) => break,
                    Err(CasError::CasFailed(again)) => cas = again,
                    Err(CasError::StoreError(error)) => panic!("{error:?}"),
                }
            }
        }
        "done".to_owned()
    }
}
