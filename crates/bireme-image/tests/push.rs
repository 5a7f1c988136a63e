//! Pushing to a real registry, and pulling back from it; images of file trees.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::sync::Mutex;

use bireme_core::{ErrorKind, WorkloadKind};
use bireme_image::{Commit, ImageError, Platform, PushRequest, Pushed, Reference, RegistryAuth};
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
    let request = PushRequest { all_tags, auth, ..PushRequest::new(name.clone()) };
    place.store.push(&request, &lines.taker(), &done).await?;
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

#[tokio::test(flavor = "multi_thread")]
async fn a_layer_that_another_repository_has_is_mounted_from_there() {
    let registry = Registry::start(false).await;
    let here = place().await;
    let first = reference(&registry.host, "team/first:1");
    import(&here, &[("etc/motd", "hello")], &first).await;
    push(&here, &first, false, None, &Lines::default()).await.unwrap();
    let second = reference(&registry.host, "other/second:1");
    here.store.tag(&first.familiar(), &second).await.unwrap();
    let lines = Lines::default();
    let pushed = push(&here, &second, false, None, &lines).await.unwrap();
    assert!(lines.has("Mounted from team/first") && !lines.has("Pushing"), "{lines:?}");
    let there = place().await;
    assert_eq!(there.store.pull(&second, None, None, &quiet).await.unwrap().digest, pushed[0].digest);
    // What was pulled from one repository is mounted too, and what cannot be is sent.
    let third = reference(&registry.host, "third:1");
    there.store.tag(&second.familiar(), &third).await.unwrap();
    let lines = Lines::default();
    push(&there, &third, false, None, &lines).await.unwrap();
    assert!(lines.has("Mounted from other/second"), "{lines:?}");
    std::fs::remove_file(registry.stored(&there.store.manifest(&third, None).await.unwrap().digest)).unwrap();
    let elsewhere = Registry::start(false).await;
    let fourth = reference(&elsewhere.host, "fourth:1");
    there.store.tag(&third.familiar(), &fourth).await.unwrap();
    let lines = Lines::default();
    push(&there, &fourth, false, None, &lines).await.unwrap();
    assert!(!lines.has("Mounted") && lines.has("Pushed"), "{lines:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_takes_only_pieces_is_given_pieces_and_one_that_breaks_off_is_asked_what_it_has() {
    let registry = Registry::start(false).await;
    // Not compressible, and more than one piece.
    let mut state = 7_u64;
    let content: Vec<u8> = (0..20 << 20)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            b'!' + ((state >> 33) % 90) as u8
        })
        .collect();
    let content = String::from_utf8(content).unwrap();
    for mischief in [Mischief::Narrow { most: 17 << 20 }, Mischief::BreakPushes { times: 2 }] {
        let narrow = Proxy::start(&registry, mischief).await;
        let here = place().await;
        let name = reference(&narrow.host, &format!("pieces/{}:1", narrow.host.replace([':', '.'], "-")));
        import(&here, &[("big", &content)], &name).await;
        let lines = Lines::default();
        let pushed = push(&here, &name, false, None, &lines).await.unwrap();
        let there = place().await;
        let from = Reference::parse(&format!("{}/{}:1", registry.host, name.repository())).unwrap();
        assert_eq!(there.store.pull(&from, None, None, &quiet).await.unwrap().digest, pushed[0].digest, "{mischief:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_tag_came_with_goes_back_with_it() {
    let registry = Registry::start(false).await;
    let here = place().await;
    let linux = image(&Platform::host().to_string(), &[tar_of(&[("bin/app", "elf")])], serde_json::json!({}));
    let wasm =
        image("wasi/wasm", &[tar_of(&[("app.wasm", std::str::from_utf8(WASM).unwrap())])], serde_json::json!({}));
    for one in [&linux, &wasm] {
        for blob in one.layers.iter().chain([&one.config]) {
            registry.push_blob("both", blob).await;
        }
        registry.push_manifest("both", one.manifest.digest().as_str(), &one.manifest).await;
    }
    let mut top: serde_json::Value = serde_json::from_slice(&index(&[linux, wasm]).bytes).unwrap();
    top["annotations"] = serde_json::json!({ "org.example.said": "of all" });
    top["manifests"][1]["annotations"] = serde_json::json!({ "org.example.said": "of one" });
    let top = Blob::new(OCI_INDEX, serde_json::to_vec_pretty(&top).unwrap());
    registry.push_manifest("both", "1", &top).await;
    let name = reference(&registry.host, "both:1");
    for platform in [None, Some(Platform::wasm())] {
        here.store.pull(&name, platform.as_ref(), None, &quiet).await.unwrap();
    }
    let back = reference(&registry.host, "back:2");
    here.store.tag(&name.familiar(), &back).await.unwrap();
    let pushed = push(&here, &back, false, None, &Lines::default()).await.unwrap();
    assert_eq!(pushed[0].digest, top.digest());
    assert_eq!(registry.manifest("back", "2").await, top.bytes, "byte by byte");
    // One platform alone stands for the tag, as it is.
    let request = PushRequest { platform: Some(Platform::wasm()), ..PushRequest::new(back.with_tag("wasm")) };
    here.store.tag(&name.familiar(), &back.with_tag("wasm")).await.unwrap();
    here.store.push(&request, &quiet, &|_| ()).await.unwrap();
    let alone: serde_json::Value = serde_json::from_slice(&registry.manifest("back", "wasm").await).unwrap();
    assert!(alone["config"].is_object(), "{alone}");
    let request = PushRequest { platform: Some("linux/s390x".parse().unwrap()), ..request };
    let error = here.store.push(&request, &quiet, &|_| ()).await.unwrap_err();
    assert!(matches!(error, ImageError::NoPlatform { .. }), "{error}");
}
