//! Caches of steps, and images in content stores of clients.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bireme_core::BoxFuture;
use bireme_image::events::{BuildEvent, OnBuildEvent, StepEvent};
use bireme_image::{
    BlobReader, BuildContext, BuildOutput, BuildRequest, BuildStyle, CacheImport, CacheKind, CacheMode, CachePolicy,
    Changes, ContentStore, Digest, ImageError, LocalSources, NamedContext, OnRunOutput, Packing, Platform, Reference,
    RunStep, RunSteps, Sharing,
};
use common::*;

/// Runs nothing, and says that a file was made which nobody else makes.
#[derive(Default)]
struct Maker(AtomicUsize);

impl RunSteps for Maker {
    fn run<'a>(&'a self, step: RunStep, _: OnRunOutput<'a>) -> BoxFuture<'a, Result<Changes, ImageError>> {
        self.0.fetch_add(1, Ordering::Relaxed);
        let made = format!("by {}", step.command.join(" "));
        Box::pin(async move {
            let made: Changes =
                Box::new(move |out: &mut dyn std::io::Write| out.write_all(&tar_of(&[("made", &made)])));
            Ok(made)
        })
    }
}

impl Maker {
    fn ran(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

/// A content store that is a folder.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Arc<Self> {
        Arc::new(Self(tempfile::tempdir_in("/var/tmp").unwrap()))
    }

    fn path(&self, digest: &Digest) -> PathBuf {
        self.0.path().join(digest.hex())
    }

    fn count(&self) -> usize {
        std::fs::read_dir(self.0.path()).unwrap().count()
    }
}

impl ContentStore for Folder {
    fn read<'a>(&'a self, digest: &'a Digest) -> BoxFuture<'a, Result<BlobReader, ImageError>> {
        Box::pin(async move {
            let file = tokio::fs::File::open(self.path(digest)).await;
            let file =
                file.map_err(|error| ImageError::Content { reason: format!("cannot open {digest}: {error}") })?;
            Ok(Box::new(file) as BlobReader)
        })
    }

    fn has<'a>(&'a self, digest: &'a Digest) -> BoxFuture<'a, Result<bool, ImageError>> {
        Box::pin(async move { Ok(self.path(digest).exists()) })
    }

    fn write<'a>(
        &'a self,
        digest: &'a Digest,
        size: u64,
        mut content: BlobReader,
    ) -> BoxFuture<'a, Result<(), ImageError>> {
        Box::pin(async move {
            let mut bytes = Vec::new();
            tokio::io::AsyncReadExt::read_to_end(&mut content, &mut bytes).await.unwrap();
            assert_eq!((bytes.len() as u64, &Digest::of(&bytes)), (size, digest));
            std::fs::write(self.path(digest), bytes).unwrap();
            Ok(())
        })
    }
}

/// Two stages: the first has a step whose layer is in no image.
const TWO_STAGES: &str = "FROM scratch AS tools\nCOPY f /f\nRUN [\"prepare\"]\nRUN [\"make\"]\nFROM scratch\nCOPY --from=tools /made /made\nRUN [\"check\"]\n";

async fn solve(
    place: &Place,
    dockerfile: &str,
    runner: Option<&Arc<Maker>>,
    change: impl FnOnce(&mut BuildRequest),
) -> Result<BuildOutput, ImageError> {
    solve_telling(place, dockerfile, runner, change, &|_| {}).await
}

async fn solve_telling(
    place: &Place,
    dockerfile: &str,
    runner: Option<&Arc<Maker>>,
    change: impl FnOnce(&mut BuildRequest),
    tell: OnBuildEvent<'_>,
) -> Result<BuildOutput, ImageError> {
    let context = tempfile::tempdir_in("/var/tmp").unwrap();
    std::fs::write(context.path().join("Dockerfile"), dockerfile).unwrap();
    std::fs::write(context.path().join("f"), "content").unwrap();
    let folder = || BuildContext::Folder(context.path().to_owned());
    let mut request = BuildRequest::new(folder());
    request.style = BuildStyle::Steps;
    request.runner = runner.map(|runner| Arc::clone(runner) as _);
    change(&mut request);
    let sources = LocalSources::open(&place.store, folder(), "Dockerfile", false, None).await.unwrap();
    place.store.solve(&request, &sources, tell).await
}

/// The steps that were begun, each with whether it was taken from a cache.
#[derive(Default)]
struct Told(parking_lot::Mutex<Vec<(Digest, String, Option<bool>)>>);

impl Told {
    fn hear(&self, event: BuildEvent) {
        let BuildEvent::Step { id, event } = event else { return };
        match event {
            StepEvent::Started { name, .. } => self.0.lock().push((id, name, None)),
            StepEvent::Ended { cached, .. } => {
                self.0.lock().iter_mut().filter(|step| step.0 == id).for_each(|step| step.2 = Some(cached));
            }
            _ => {}
        }
    }

    /// Whether those whose names have `word` in them were taken from a cache.
    fn cached(&self, word: &str) -> Vec<Option<bool>> {
        self.0.lock().iter().filter(|step| step.1.contains(word)).map(|step| step.2).collect()
    }
}

fn client(store: &Arc<Folder>, digest: &Digest) -> CacheImport {
    CacheImport::Client {
        name: "local".to_owned(),
        store: Arc::clone(store) as Arc<dyn ContentStore>,
        digest: digest.to_string(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_that_was_carried_out_before_is_told_as_cached_whatever_it_is() {
    let dockerfile = "FROM scratch\nWORKDIR /a/b\nCOPY f .\nWORKDIR /a/b\nWORKDIR ../c\nRUN [\"make\"]\n";
    let (here, maker) = (place().await, Arc::default());
    for expected in [false, true] {
        let told = Told::default();
        let output = solve_telling(&here, dockerfile, Some(&maker), |_| {}, &|event| told.hear(event)).await.unwrap();
        // The second of three finds its folder there.
        assert_eq!(told.cached("WORKDIR"), [Some(expected), Some(true), Some(expected)]);
        assert_eq!((told.cached("COPY"), told.cached("RUN")), (vec![Some(expected)], vec![Some(expected)]));
        let built = output.record(&[]).await.unwrap();
        assert_eq!(here.store.image(&built[0].id).unwrap().diff_ids.len(), 4);
    }
    assert_eq!(maker.ran(), 1);
    let told = Told::default();
    let anew = |request: &mut BuildRequest| request.no_cache = true;
    solve_telling(&here, dockerfile, Some(&maker), anew, &|event| told.hear(event)).await.unwrap();
    assert_eq!(told.cached("WORKDIR"), [Some(false), Some(true), Some(false)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_much_of_the_cache_goes_and_what_images_and_builds_have_stays() {
    let (here, maker) = (place().await, Arc::default());
    let build = async |what: &str| {
        let dockerfile = format!("FROM scratch\nCOPY f /{what}\nRUN [\"make\", \"{what}\"]\n");
        solve(&here, &dockerfile, Some(&maker), |_| {}).await.unwrap()
    };
    let kept = build("kept").await.record(&[]).await.unwrap();
    let held = build("held").await;
    drop(build("left").await);
    here.settles_to(6, 6).await;
    let policy = |most_bytes| CachePolicy { most_bytes, ..CachePolicy::for_disk(0) };
    assert_eq!(here.store.collect_build_cache(&policy(1 << 30)).await.unwrap(), 0, "there is room");
    assert!(here.store.collect_build_cache(&policy(0)).await.unwrap() > 0);
    here.settles_to(4, 4).await;
    assert_eq!(here.store.image(&kept[0].id).unwrap().diff_ids.len(), 2);
    assert_eq!(held.record(&[]).await.unwrap().len(), 1, "it can be kept to the end");
    assert_eq!(maker.ran(), 3);
    drop(build("left").await);
    assert_eq!(maker.ran(), 4, "what went is made again");
    drop(build("kept").await);
    assert_eq!(maker.ran(), 4, "what an image has is known");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_that_two_share_is_there_for_the_second_as_soon_as_it_is_made() {
    let here = place().await;
    let made = AtomicUsize::new(0);
    let fill = |_: PathBuf| -> BoxFuture<'static, Result<(), ImageError>> {
        made.fetch_add(1, Ordering::Relaxed);
        Box::pin(async {
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            Ok(())
        })
    };
    let take = || here.store.take_folder(CacheKind::Mount, "together", "", Sharing::Shared, &fill);
    // Neither lets go before both have it.
    let both = async { tokio::join!(take(), take(), take()) };
    let (one, two, three) = tokio::time::timeout(std::time::Duration::from_secs(20), both).await.expect("none waits");
    let paths = [one.unwrap().path().to_owned(), two.unwrap().path().to_owned(), three.unwrap().path().to_owned()];
    assert!(paths.iter().all(|path| *path == paths[0] && path.is_dir()), "{paths:?}");
    assert_eq!(made.load(Ordering::Relaxed), 1);
}

/// An image that says by which steps it was made spares others the commands.
#[tokio::test(flavor = "multi_thread")]
async fn steps_are_taken_from_an_image_that_carries_its_cache() {
    let dockerfile = "FROM scratch\nCOPY f /f\nRUN [\"make\"]\nRUN [\"check\"]\n";
    let names = ["127.0.0.1:1/me/app:1".to_owned()];
    let build = async |place: &Place, runner: Option<&Arc<Maker>>, from: &[String]| {
        let imports = from.iter().cloned().map(CacheImport::Registry).collect();
        let output = solve(place, dockerfile, runner, |request| {
            request.inline_cache = true;
            request.cache_imports = imports;
        });
        let built = output.await?.record(&[Reference::parse(&names[0]).unwrap()]).await.unwrap();
        Ok::<_, ImageError>(built[0].id.clone())
    };
    let (here, maker) = (place().await, Arc::default());
    let id = build(&here, Some(&maker), &[]).await.unwrap();
    assert_eq!(maker.ran(), 2);
    let saved = tempfile::NamedTempFile::new_in("/var/tmp").unwrap();
    let out = tokio::fs::File::create(saved.path()).await.unwrap();
    here.store.save(&names, out).await.unwrap();

    let there = place().await;
    let refused = build(&there, None, &[]).await.unwrap_err();
    assert!(refused.to_string().contains("nothing runs commands here"), "{refused}");
    there.store.load(tokio::fs::File::open(saved.path()).await.unwrap(), &quiet).await.unwrap();
    let again = build(&there, None, &names).await.unwrap();
    assert_eq!(there.store.image(&again).unwrap().diff_ids, here.store.image(&id).unwrap().diff_ids);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cache_in_a_registry_spares_others_the_steps_of_all_stages() {
    let registry = Registry::start(false).await;
    let name = Reference::parse(&format!("{}/me/cache:all", registry.host)).unwrap();
    let least = Reference::parse(&format!("{}/me/cache:least", registry.host)).unwrap();
    let (here, maker) = (place().await, Arc::default());
    let output = solve(&here, TWO_STAGES, Some(&maker), |_| {}).await.unwrap();
    assert_eq!(maker.ran(), 3);
    for (name, mode) in [(&name, CacheMode::Max), (&least, CacheMode::Min)] {
        let sent = output.push_cache(name.clone(), mode, Packing::default(), None, &quiet).await.unwrap();
        assert_eq!(sent.media_type, OCI_MANIFEST);
    }

    let there = place().await;
    let from = |name: &Reference| {
        let import = CacheImport::Registry(name.to_string());
        move |request: &mut BuildRequest| request.cache_imports = vec![import]
    };
    let same = solve(&there, TWO_STAGES, None, from(&name)).await.unwrap();
    let built = same.record(&[]).await.unwrap();
    let own = output.record(&[]).await.unwrap();
    assert_eq!(there.store.image(&built[0].id).unwrap().diff_ids, here.store.image(&own[0].id).unwrap().diff_ids);
    assert!(
        there.store.list().await.unwrap().iter().all(|image| image.references.is_empty()),
        "a cache is no image of ours"
    );

    // The last stage alone: what it is made from has to be made anew.
    let elsewhere = place().await;
    let maker = Arc::default();
    solve(&elsewhere, TWO_STAGES, Some(&maker), from(&least)).await.unwrap();
    assert_eq!(maker.ran(), 2);
    // None of that name is no failure.
    let (nowhere, maker) = (place().await, Arc::default());
    let none = Reference::parse(&format!("{}/me/cache:none", registry.host)).unwrap();
    solve(&nowhere, TWO_STAGES, Some(&maker), from(&none)).await.unwrap();
    assert_eq!(maker.ran(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_cache_of_a_client_costs_time_and_nothing_else() {
    let (here, maker, kept) = (place().await, Arc::default(), Folder::new());
    let output = solve(&here, TWO_STAGES, Some(&maker), |_| {}).await.unwrap();
    let written = output.write_cache(&*kept, CacheMode::Max, Packing::default()).await.unwrap();
    let blobs = kept.count();
    assert_eq!(output.write_cache(&*kept, CacheMode::Max, Packing::default()).await.unwrap(), written);
    assert_eq!(kept.count(), blobs);

    let from = |digest: &Digest| {
        let import = client(&kept, digest);
        move |request: &mut BuildRequest| request.cache_imports = vec![import]
    };
    let there = place().await;
    solve(&there, TWO_STAGES, None, from(&written.digest)).await.unwrap();

    // Its layers are others now, and one is gone.
    let manifest: serde_json::Value =
        serde_json::from_slice(&std::fs::read(kept.path(&written.digest)).unwrap()).unwrap();
    let layers: Vec<Digest> = manifest["layers"].as_array().unwrap().iter().map(digest_of).collect();
    for layer in &layers {
        let path = kept.path(layer);
        let mut bytes = std::fs::read(&path).unwrap();
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        std::fs::write(&path, bytes).unwrap();
    }
    std::fs::remove_file(kept.path(&layers[0])).unwrap();
    let (elsewhere, maker) = (place().await, Arc::default());
    solve(&elsewhere, TWO_STAGES, Some(&maker), from(&written.digest)).await.unwrap();
    assert_eq!(maker.ran(), 3);
    assert_eq!(elsewhere.count("ingest"), 0);
    // So is its manifest.
    std::fs::write(kept.path(&written.digest), "{}").unwrap();
    let (nowhere, maker) = (place().await, Arc::default());
    solve(&nowhere, TWO_STAGES, Some(&maker), from(&written.digest)).await.unwrap();
    assert_eq!(maker.ran(), 3);
}

fn digest_of(descriptor: &serde_json::Value) -> Digest {
    descriptor["digest"].as_str().unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_in_a_layout_of_the_client_is_built_upon() {
    let kept = Folder::new();
    let put = |bytes: &[u8]| std::fs::write(kept.path(&Digest::of(bytes)), bytes).unwrap();
    let config = serde_json::json!({ "Env": ["PATH=/own"], "Labels": { "a": "b" } });
    let base = image(&Platform::host().to_string(), &[tar_of(&[("made", "before")])], config);
    for blob in base.layers.iter().chain([&base.config, &base.manifest]) {
        put(&blob.bytes);
    }
    let all = index(std::slice::from_ref(&base));
    put(&all.bytes);
    let context = |digest: Digest| NamedContext::Content {
        name: "oci-layout://base".to_owned(),
        store: Arc::clone(&kept) as _,
        digest: digest.to_string(),
    };
    let dockerfile = "FROM base\nCOPY --from=base /made /copied\n";
    for digest in [base.manifest.digest(), all.digest()] {
        let place = place().await;
        let output = solve(&place, dockerfile, None, |request| {
            request.named.insert("base".to_owned(), context(digest));
        });
        let built = output.await.unwrap().record(&[]).await.unwrap();
        let made = place.store.image(&built[0].id).unwrap();
        assert_eq!((&made.config.env[..], made.diff_ids.len()), (&["PATH=/own".to_owned()][..], 2));
        let layers = place.store.layers(&built[0].id).await.unwrap();
        assert_eq!(read(&layers, "copied").as_deref(), Some("before"));
        assert_eq!(place.store.list().await.unwrap().len(), 1, "the base is none of the images here");
    }
    // One that lacks a layer, or has another platform, is refused.
    let place = place().await;
    let wasm = |request: &mut BuildRequest| {
        request.platforms = vec![Platform::wasm()];
        request.named.insert("base".to_owned(), context(base.manifest.digest()));
    };
    let refused = solve(&place, dockerfile, None, wasm).await.unwrap_err();
    assert!(refused.to_string().contains("no matching manifest for wasi/wasm"), "{refused}");
    std::fs::remove_file(kept.path(&base.layers[0].digest())).unwrap();
    let lacking =
        |request: &mut BuildRequest| drop(request.named.insert("base".to_owned(), context(base.manifest.digest())));
    let refused = solve(&place, dockerfile, None, lacking).await.unwrap_err();
    assert!(refused.to_string().starts_with("cannot open sha256:"), "{refused}");
    place.settles_to(0, 0).await;
}
