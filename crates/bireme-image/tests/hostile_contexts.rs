//! Build contexts that try what contexts must not: links out, devices, texts that are no texts, patterns without end.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::Duration;

use bireme_core::ErrorKind;
use bireme_image::{BuildContext, BuildRequest, Image, ImageError};
use common::*;

/// Builds from an archive, and in time: what waits for ever is found out.
async fn build_in_time(place: &Place, archive: Vec<u8>) -> Result<Image, ImageError> {
    let limit = Duration::from_secs(60);
    tokio::time::timeout(limit, build_of(place, archive)).await.expect("it ends within a minute")
}

/// A context with this Dockerfile and these members.
fn context(dockerfile: &str, members: Vec<Member>) -> Vec<u8> {
    let first = file("Dockerfile", dockerfile);
    tar_with(&[first].into_iter().chain(members).collect::<Vec<_>>())
}

#[track_caller]
fn is_refused(answer: Result<Image, ImageError>, words: &str) {
    let error = answer.expect_err(words);
    assert!(error.to_string().contains(words), "{error}");
    let known = matches!(error.kind(), ErrorKind::Invalid | ErrorKind::NotFound | ErrorKind::Unsupported);
    // Which has Docker's status.
    assert!(known || matches!(error, ImageError::NoDockerfile { .. }), "{:?}: {error}", error.kind());
}

/// A file outside that nothing may read or change.
struct Outside {
    folder: tempfile::TempDir,
}

const SECRET: &str = "a secret of the machine";

impl Outside {
    fn new() -> Self {
        let folder = tempfile::tempdir_in("/var/tmp").unwrap();
        std::fs::write(folder.path().join("victim"), SECRET).unwrap();
        Self { folder }
    }

    fn ways(&self) -> [String; 3] {
        let absolute = self.folder.path().to_str().unwrap().to_owned();
        [absolute.clone(), format!("{}{}", "../".repeat(40), &absolute[1..]), format!("/proc/self/root{absolute}")]
    }

    #[track_caller]
    fn is_untouched(&self) {
        assert_eq!(std::fs::read_to_string(self.folder.path().join("victim")).unwrap(), SECRET);
        assert_eq!(self.folder.path().join("victim").metadata().unwrap().nlink(), 1);
        assert_eq!(std::fs::read_dir(self.folder.path()).unwrap().count(), 1);
    }
}

/// Whether the secret is anywhere in what a store keeps.
fn is_secret_in(folder: &Path) -> bool {
    std::fs::read_dir(folder).unwrap().any(|entry| {
        let path = entry.unwrap().path();
        let about = path.symlink_metadata().unwrap();
        match about.file_type() {
            kind if kind.is_dir() => is_secret_in(&path),
            kind if kind.is_file() => {
                let bytes = std::fs::read(&path).unwrap();
                bytes.windows(SECRET.len()).any(|part| part == SECRET.as_bytes())
            }
            _ => false,
        }
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn links_of_a_context_lead_nowhere_but_into_it() {
    let (place, outside) = (place().await, Outside::new());
    for way in outside.ways() {
        let links = || vec![symlink("l", &way), symlink("v", format!("{way}/victim")), file("inside", "x")];
        for copy in ["COPY v /x", "COPY l/victim /x", "COPY l/* /x/", "ADD v /x", "ADD l/victim /x", "COPY l /x"] {
            // Whatever it says to it.
            if build_in_time(&place, context(&format!("FROM scratch\n{copy}\n"), links())).await.is_ok() {
                assert!(!is_secret_in(place.folder.path()), "{copy} {way}");
            }
        }
        // All of it: links stay links.
        let image = build_in_time(&place, context("FROM scratch\nCOPY . /all/\n", links())).await.unwrap();
        let layers = place.store.layers(&image.id).await.unwrap();
        assert_eq!(std::fs::read_link(layers[0].join("all/l")).unwrap(), Path::new(&way));
        for member in [file("l/x", "evil"), hard_link("h", "l/victim"), hard_link("h", format!("{way}/victim"))] {
            let answer =
                build_in_time(&place, context("FROM scratch\nCOPY . /\n", [links(), vec![member]].concat())).await;
            assert_eq!(answer.unwrap_err().kind(), ErrorKind::Invalid);
        }
        outside.is_untouched();
    }
    assert!(!is_secret_in(place.folder.path()));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_copied_goes_through_no_link_of_an_image_to_the_outside() {
    let (place, outside) = (place().await, Outside::new());
    for (at, way) in outside.ways().into_iter().enumerate() {
        let base = format!("base:{at}");
        let layer = tar_with(&[symlink("l", &way), folder("d"), symlink("d/v", format!("{way}/victim"))]);
        load(&place, oci_archive_of(&image_with(&[layer]), Some(&base))).await.unwrap();
        let inner = tar_with(&[symlink("m", &way), file("plain", "x")]);
        let escaping = tar_with(&[symlink("m", &way), file("m/victim", "evil")]);
        for (steps, good) in [
            ("COPY f /l/victim", true),
            ("COPY f /d/v", true),
            ("COPY f /l/deep/x", true),
            ("ADD in.tar /l/", true),
            ("ADD out.tar /", false),
            ("WORKDIR /l/made\nCOPY f x", true),
            ("COPY . /d/", true),
            ("COPY --from=0 /l/victim /x", false),
            ("COPY --from=0 /d/v /x", false),
        ] {
            let members = vec![file("f", "of the context"), file("in.tar", &inner), file("out.tar", &escaping)];
            // A stage of its own that can be named.
            let dockerfile = format!("FROM {base}\nFROM {base}\n{steps}\n");
            let answer = build_in_time(&place, context(&dockerfile, members)).await;
            if let Err(error) = &answer {
                assert!(matches!(error.kind(), ErrorKind::Invalid | ErrorKind::NotFound), "{steps}: {error}");
            }
            assert!(answer.is_ok() || !good, "{steps} {way}: {answer:?}");
            outside.is_untouched();
        }
    }
    assert!(!is_secret_in(place.folder.path()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_context_has_no_devices_and_its_pipes_are_not_waited_for() {
    let place = place().await;
    for (kind, numbers) in [(b'3', (1, 8)), (b'3', (0, 0)), (b'4', (8, 0))] {
        let answer = build_in_time(&place, context("FROM scratch\nCOPY . /\n", vec![device(kind, "x", numbers)])).await;
        is_refused(answer, "a build context may not contain devices");
    }
    let pipe = || file("pipe", "").of(b'6');
    for copy in ["COPY pipe /x", "COPY . /", "ADD pipe /x", "ADD . /"] {
        let answer = build_in_time(&place, context(&format!("FROM scratch\n{copy}\n"), vec![pipe()])).await;
        if let Err(error) = answer {
            assert_eq!(error.kind(), ErrorKind::Invalid, "{copy}: {error}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rights_in_a_context_are_not_the_machines() {
    let place = place().await;
    let owned = Member { owner: (1234, 4321), ..file("f", "x").mode(0o6755) };
    let capable = owned.record("SCHILY.xattr.security.capability", b"\x01\0\0\x02\0\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0");
    let image = build_in_time(&place, context("FROM scratch\nCOPY f /f\n", vec![capable])).await.unwrap();
    let layers = place.store.layers(&image.id).await.unwrap();
    let about = layers[0].join("f").metadata().unwrap();
    assert_eq!((about.uid(), about.gid(), about.mode() & 0o7777), (0, 0, 0o6755));
    let mut value = [0; 64];
    assert!(rustix::fs::getxattr(layers[0].join("f"), "security.capability", &mut value[..]).is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dockerfile_is_a_file_of_the_context() {
    let (place, outside) = (place().await, Outside::new());
    let good = "FROM scratch\nLABEL a=b\n";
    // A link within the context is as good as the file.
    let linked = tar_with(&[file("real", good), symlink("Dockerfile", "real")]);
    build_in_time(&place, linked).await.unwrap();
    let absolute = tar_with(&[file("real", good), symlink("Dockerfile", "/real")]);
    build_in_time(&place, absolute).await.unwrap();
    // As with BuildKit, a byte that is no text becomes the character for one.
    let no_text = tar_with(&[file("Dockerfile", b"FROM scratch\nLABEL a=\xff\n")]);
    assert_eq!(build_in_time(&place, no_text).await.unwrap().config.labels["a"], "\u{fffd}");
    for (members, words) in [
        (vec![folder("Dockerfile")], "Dockerfile"),
        (vec![file("Dockerfile", "").of(b'6')], "Dockerfile"),
        (vec![device(b'3', "Dockerfile", (1, 5))], "a build context may not contain devices"),
        (vec![symlink("Dockerfile", "/dev/zero")], "Dockerfile"),
        (vec![symlink("Dockerfile", "/etc/passwd")], "Dockerfile"),
        (vec![symlink("Dockerfile", "Dockerfile")], "Dockerfile"),
        (vec![file("Dockerfile", "#".repeat(64 << 20))], "Dockerfile is larger than 1048576 bytes"),
        (vec![file("Dockerfile", b"\0\0\0\0")], ""),
        (vec![file("Dockerfile", "")], "Dockerfile"),
        (vec![file("Dockerfile", "\n".repeat(1 << 20))], "Dockerfile"),
        (vec![file("other", "")], "Dockerfile"),
        (vec![], "Dockerfile"),
    ] {
        is_refused(build_in_time(&place, tar_with(&members)).await, words);
    }
    // Of one byte of data and a terabyte of holes.
    let sparse = file("Dockerfile", "0\n").record("GNU.sparse.major", "1").record("GNU.sparse.minor", "0");
    let sparse =
        sparse.record("GNU.sparse.name", "Dockerfile").record("GNU.sparse.realsize", (1_u64 << 40).to_string());
    is_refused(build_in_time(&place, tar_with(&[sparse])).await, "");
    // By a name that leads out, absolutely or not.
    for way in outside.ways() {
        for name in [format!("{way}/victim"), "l/victim".to_owned(), "../victim".to_owned()] {
            let archive = tar_with(&[file("Dockerfile", good), symlink("l", &way)]);
            let mut request = BuildRequest::new(BuildContext::Archive(Box::new(std::io::Cursor::new(archive))));
            request.dockerfile = name.clone();
            let error = place.store.build(request, &|_| {}).await.expect_err(&name);
            assert!(!error.to_string().contains(SECRET), "{error}");
        }
    }
    outside.is_untouched();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_of_what_is_hidden_is_a_file_of_the_context() {
    let (place, outside) = (place().await, Outside::new());
    let dockerfile = "FROM scratch\nCOPY . /\n";
    let victim = format!("{}/victim", outside.ways()[0]);
    for list in [
        folder(".dockerignore"),
        file(".dockerignore", "").of(b'6'),
        symlink(".dockerignore", "/dev/zero"),
        symlink(".dockerignore", victim),
        file(".dockerignore", b"\xff\xfe"),
        file(".dockerignore", "x\n".repeat(20_000)),
        file(".dockerignore", "#".repeat(2 << 20)),
        file(".dockerignore", "[".repeat(5000)),
        file(".dockerignore", "!\n!!\n!!x\n/\n..\n../..\n./\n**\n"),
    ] {
        // Taken or refused, in time.
        if let Err(error) = build_in_time(&place, context(dockerfile, vec![list])).await {
            assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
        }
    }
    outside.is_untouched();
}

/// Whoever matches by trying each way for each star tries for ever.
#[tokio::test(flavor = "multi_thread")]
async fn patterns_take_no_longer_than_they_are_long() {
    let place = place().await;
    let long = "a".repeat(250);
    let deep = vec!["a"; 200].join("/");
    let stars = format!("{}b", "a*".repeat(100));
    let folders = format!("{}b", "**/a/".repeat(100));
    let mixed = format!("{}[b]", "**/*a*/".repeat(60));
    let any = format!("{}b", "*".repeat(200));
    let lists = [&stars, &folders, &mixed, &any].map(|pattern| format!("{pattern}\n").repeat(10));
    let members =
        || vec![file(&long, "x"), file(format!("{deep}/f"), "y"), file(format!("{}/f", "ab".repeat(100)), "z")];
    for list in lists {
        let hidden = [members(), vec![file(".dockerignore", list)]].concat();
        let image = build_in_time(&place, context("FROM scratch\nCOPY . /\n", hidden)).await.unwrap();
        let layers = place.store.layers(&image.id).await.unwrap();
        assert!(layers[0].join(&long).exists());
    }
    for pattern in [stars.replace('b', "c"), any.replace('b', "c")] {
        let dockerfile = format!("FROM scratch\nCOPY {pattern} /x/\n");
        assert!(build_in_time(&place, context(&dockerfile, members())).await.is_err());
        let dockerfile = format!("FROM scratch\nCOPY --exclude={pattern} . /x/\n");
        build_in_time(&place, context(&dockerfile, members())).await.unwrap();
    }
}

/// A file of such a name in a layer would be the deletion of another.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_deleted_by_copying_a_file_of_a_name() {
    let place = place().await;
    load(&place, oci_archive_of(&image_with(&[tar_with(&[file("kept", "here")])]), Some("base:1"))).await.unwrap();
    for name in [".wh.kept", ".wh..wh..opq", "d/.wh.x", ".wh.d/y"] {
        let answer = build_in_time(&place, context("FROM base:1\nCOPY . /\n", vec![file(name, "content")])).await;
        is_refused(answer, "a name that begins with .wh. would delete another file in a layer");
        // What is left out is not copied.
        let without = "FROM base:1\nCOPY --exclude=**/.wh.* . /\n";
        build_in_time(&place, context(without, vec![file(name, "content")])).await.unwrap();
    }
}
