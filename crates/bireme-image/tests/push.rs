//! Pushing to a real registry, and pulling back from it; images of file trees.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::sync::Mutex;

use bireme_core::{ErrorKind, WorkloadKind};
use bireme_image::{Commit, ImageError, Platform, Pushed, Reference, RegistryAuth};
use common::*;

fn reference(host: &str, rest: &str) -> Reference {
    Reference::parse(&format!("{host}/{rest}")).unwrap()
}

async fn push(
    place: &Place,
    name: &Reference,
    all_tags: bool,
    auth: Option<RegistryAuth>,
    lines: &Lines,
) -> Result<Vec<Pushed>, ImageError> {
    let pushed = Mutex::new(Vec::new());
    let done = |one: &Pushed| pushed.lock().unwrap().push(one.clone());
    place.store.push(name, all_tags, auth, &lines.taker(), &done).await?;
    Ok(pushed.into_inner().unwrap())
}

/// An image of files, as `docker import` makes it.
async fn import(place: &Place, files: &[(&str, &str)], name: &Reference) {
    let mut commit = Commit::import(std::io::Cursor::new(tar_of(files)), vec!["CMD [\"/x\"]".to_owned()]);
    commit.name = Some(name.clone());
    place.store.commit(commit).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_made_here_is_packed_and_can_be_pulled_elsewhere() {
    let registry = Registry::start(false).await;
    let (here, there) = (place().await, place().await);
    let name = reference(&registry.host, "made/here:1");
    import(&here, &[("etc/motd", "hello")], &name).await;
    let lines = Lines::default();
    let pushed = push(&here, &name, false, None, &lines).await.unwrap();
    assert_eq!(pushed.len(), 1);
    assert_eq!(pushed[0].tag, "1");
    for status in ["The push refers to repository [", "Preparing", "Packing", "Pushing", "Pushed"] {
        assert!(lines.has(status), "{status}");
    }
    let own = here.store.resolve(&name.familiar(), None).await.unwrap();
    assert_eq!(own.repo_digests, [format!("{}@{}", name.familiar_name(), pushed[0].digest)]);

    let pulled = there.store.pull(&name, None, None, &quiet).await.unwrap();
    assert_eq!(pulled.id, own.id, "packing a layer does not make another image");
    assert_eq!(pulled.digest, pushed[0].digest);
    let layers = there.store.layers(&pulled.id).await.unwrap();
    assert_eq!(read(&layers, "etc/motd").as_deref(), Some("hello"));

    let again = Lines::default();
    assert_eq!(push(&here, &name, false, None, &again).await.unwrap(), pushed);
    assert!(again.has("Layer already exists") && !again.has("Packing"), "what is there is not packed again");
    // What came packed goes back as it came.
    let back = reference(&registry.host, "made/there:1");
    there.store.tag(&name.familiar(), &back).await.unwrap();
    assert_eq!(push(&there, &back, false, None, &Lines::default()).await.unwrap()[0].digest, pushed[0].digest);
    assert_eq!(here.count("ingest"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_tag_carries_both_kinds() {
    let registry = Registry::start(false).await;
    let (here, there) = (place().await, place().await);
    let name = reference(&registry.host, "both:1");
    let linux = image(&Platform::host().to_string(), &[tar_of(&[("bin/app", "elf")])], serde_json::json!({}));
    let config = serde_json::json!({ "Entrypoint": ["/app.wasm"] });
    let wasm = image("wasi/wasm", &[tar_of(&[("app.wasm", std::str::from_utf8(WASM).unwrap())])], config);
    let both = [linux.clone(), wasm.clone()];
    let top = index(&both);
    let parts = |image: &TestImage| [&image.layers[..], &[image.config.clone(), image.manifest.clone()]].concat();
    let blobs = both.iter().flat_map(parts).collect::<Vec<_>>();
    let archive = oci_archive(&[(&top, Some(name.familiar().as_str()))], &blobs.iter().collect::<Vec<_>>());
    here.store.load(std::io::Cursor::new(archive), &quiet).await.unwrap();

    let pushed = push(&here, &name, false, None, &Lines::default()).await.unwrap();
    let kinds = [(None, WorkloadKind::Container, &linux), (Some(Platform::wasm()), WorkloadKind::Component, &wasm)];
    for (platform, kind, image) in kinds {
        let pulled = there.store.pull(&name, platform.as_ref(), None, &quiet).await.unwrap();
        assert_eq!((&pulled.id.0, &pulled.digest), (&image.config.digest(), &pushed[0].digest));
        assert_eq!(there.store.image(&pulled.id).unwrap().kind(), kind);
    }
    let found = there.store.look_up(&name, None).await.unwrap();
    assert_eq!(found.platforms.len(), 2, "{found:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn all_tags_go_or_the_one_that_is_named() {
    let registry = Registry::start(false).await;
    let here = place().await;
    let one = reference(&registry.host, "tags:one");
    import(&here, &[("a", "1")], &one).await;
    here.store.tag(&one.familiar(), &one.with_tag("two")).await.unwrap();
    here.store.tag(&one.familiar(), &reference(&registry.host, "tags/other:three")).await.unwrap();
    let pushed = push(&here, &one.with_tag("two"), false, None, &Lines::default()).await.unwrap();
    assert_eq!(pushed.iter().map(|one| one.tag.as_str()).collect::<Vec<_>>(), ["two"]);
    let pushed = push(&here, &one, true, None, &Lines::default()).await.unwrap();
    assert_eq!(pushed.iter().map(|one| one.tag.as_str()).collect::<Vec<_>>(), ["one", "two"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_say_what_is_missing() {
    let registry = Registry::start(true).await;
    let here = place().await;
    let name = reference(&registry.host, "closed:1");
    let error = push(&here, &name, false, None, &Lines::default()).await.unwrap_err();
    let repository = name.familiar_name();
    assert_eq!(error.to_string(), format!("An image does not exist locally with the tag: {repository}"));
    import(&here, &[("a", "1")], &name).await;
    let error = push(&here, &name.with_tag("2"), false, None, &Lines::default()).await.unwrap_err();
    assert_eq!(error.to_string(), format!("tag does not exist: {repository}:2"));
    let error = push(&here, &name, false, None, &Lines::default()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
    let auth = Some(RegistryAuth::Basic(USER.0.to_owned(), USER.1.to_owned()));
    assert_eq!(push(&here, &name, false, auth, &Lines::default()).await.unwrap().len(), 1);
    assert!(here.store.resolve(&name.familiar(), None).await.is_ok(), "a refused push takes nothing away");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_import_is_checked_like_any_layer() {
    let here = place().await;
    let bad = Commit::import(std::io::Cursor::new(vec![7_u8; 4096]), Vec::new());
    let error = here.store.commit(bad).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
    let run = Commit::import(std::io::Cursor::new(tar_of(&[("a", "1")])), vec!["RUN make".to_owned()]);
    let error = here.store.commit(run).await.unwrap_err();
    assert_eq!(error.to_string(), "dockerfile parse error on line 1: RUN is not a valid change command");
    assert!(here.store.list().await.unwrap().is_empty());
    for folder in ["blobs/sha256", "layers/sha256", "ingest"] {
        let mut left = here.count(folder);
        for _ in 0..100 {
            if left == 0 {
                break;
            }
            // What was given up is deleted beside.
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            left = here.count(folder);
        }
        assert_eq!(left, 0, "{folder}");
    }
}
