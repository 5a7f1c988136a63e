//! Contexts of builds: how they come, and what of them is copied.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use bireme_image::{BuildContext, BuildRequest};
use common::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_context_may_end_behind_its_last_file() {
    // As Docker's command line sends it when the Dockerfile is not from the context.
    let place = place().await;
    let whole = tar_of(&[("f", "content"), (".dockerfile.1", "FROM scratch\nCOPY f /\n")]);
    let end = whole.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    for length in [whole.len(), end.next_multiple_of(512), end + 1, end] {
        let context = BuildContext::Archive(Box::new(std::io::Cursor::new(whole[..length].to_vec())));
        let mut request = BuildRequest::new(context);
        request.dockerfile = ".dockerfile.1".to_owned();
        place.store.build(request, &|_| {}).await.unwrap();
    }
    let error = build_of(&place, whole[..end - 1].to_vec()).await.unwrap_err();
    assert!(error.to_string().contains("(the build context) cannot be read"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn names_in_a_context_mean_what_they_come_to() {
    let place = place().await;
    let member = |name: &str, content: &str| {
        let mut block = tar_of(&[("name", content)]);
        block.truncate(1024);
        block[..name.len()].copy_from_slice(name.as_bytes());
        let mut header = tar::Header::from_byte_slice(&block[..512]).clone();
        header.set_cksum();
        block[..512].copy_from_slice(header.as_bytes());
        block
    };
    let context = |name: &str| [member("Dockerfile", "FROM scratch\nCOPY foo /\n"), member(name, "there")].concat();
    for name in ["dir/../foo", "./foo", "/foo", "a/b/../../foo", "/../foo"] {
        let image = build_of(&place, context(name)).await.unwrap();
        assert_eq!(read(&place.store.layers(&image.id).await.unwrap(), "foo").unwrap(), "there", "{name}");
    }
    for name in ["../foo", "dir/../../foo"] {
        let error = build_of(&place, context(name)).await.unwrap_err().to_string();
        assert!(error.contains(&format!("refused the path \"{name}\"")), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_excluded_is_not_copied() {
    let place = place().await;
    let dockerfile = "FROM scratch AS all\nCOPY src /src/\n\
        FROM scratch\n\
        COPY --exclude=*.md src /one/\n\
        COPY --exclude=**/*.md --exclude=deep/c.txt src /two/\n\
        COPY --exclude=*.md src/* /three/\n\
        COPY --from=all --exclude=deep src /four/\n\
        ADD --exclude=* --exclude=!a.txt src /five/\n";
    let files = [
        ("Dockerfile", dockerfile),
        ("src/a.txt", "a"),
        ("src/b.md", "b"),
        ("src/deep/c.txt", "c"),
        ("src/deep/d.md", "d"),
    ];
    let (image, _) = build(&place, &files, no_change).await.unwrap();
    let layers = place.store.layers(&image.id).await.unwrap();
    for (folder, kept, gone) in [
        ("one", &["a.txt", "deep/c.txt", "deep/d.md"][..], &["b.md"][..]),
        ("two", &["a.txt"], &["b.md", "deep/c.txt", "deep/d.md"]),
        ("three", &["a.txt", "c.txt"], &["b.md", "d.md"]),
        ("four", &["a.txt", "b.md"], &["deep"]),
        ("five", &["a.txt"], &["b.md", "deep"]),
    ] {
        for (names, there) in [(kept, true), (gone, false)] {
            for name in names {
                let found = layers.iter().any(|layer| exists(&layer.join(folder).join(name)));
                assert_eq!(found, there, "{folder}/{name}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_context_may_stand_at_an_address() {
    let place = place().await;
    let server = Fake::start(|path, _| match path {
        "/context.tar.gz" => {
            ("200 OK", String::new(), gzip(&tar_of(&[("Dockerfile", "FROM scratch\nCOPY f /\n"), ("f", "far")])))
        }
        "/context.tar" => {
            ("200 OK", String::new(), tar_of(&[("Dockerfile", "FROM scratch\nLABEL a=b\n"), ("f", "far")]))
        }
        "/Dockerfile" => ("200 OK", "content-type: text/plain\r\n".to_owned(), b"FROM scratch\nENV A=b\n".to_vec()),
        "/large" => ("200 OK", String::new(), vec![b'#'; 2 << 20]),
        _ => ("404 Not Found", String::new(), Vec::new()),
    })
    .await;
    let build = async |address: &str| {
        let request = BuildRequest::new(BuildContext::Address(address.to_owned()));
        place.store.build(request, &|_| {}).await
    };
    let at = |path: &str| format!("http://{}/{path}", server.host);
    let id = build(&at("context.tar.gz")).await.unwrap();
    assert_eq!(read(&place.store.layers(&id).await.unwrap(), "f").unwrap(), "far");
    build(&at("context.tar")).await.unwrap();
    let id = build(&at("Dockerfile")).await.unwrap();
    assert_eq!(place.store.image(&id).unwrap().config.env, [DEFAULT_PATH, "A=b"]);
    for (address, words) in [
        (at("gone"), "cannot fetch http://"),
        (at("large"), "is larger than 1048576 bytes"),
        ("https://example.invalid/a.git#main".to_owned(), "cannot fetch https://example.invalid/a.git: "),
        ("nowhere".to_owned(), "the remote context nowhere could not be recognized as URL"),
    ] {
        let error = build(&address).await.unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    }
    assert_eq!(place.count("ingest"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_context_cannot_lead_out_of_itself() {
    let place = place().await;
    let context = tempfile::tempdir_in("/var/tmp").unwrap();
    std::fs::write(context.path().join("Dockerfile"), "FROM scratch\nCOPY out /x\n").unwrap();
    std::os::unix::fs::symlink("/etc/passwd", context.path().join("out")).unwrap();
    let request = BuildRequest::new(BuildContext::Folder(context.path().to_owned()));
    let error = place.store.build(request, &|_| {}).await.unwrap_err();
    assert!(error.to_string().contains("file not found"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn archives_of_every_packing_are_added() {
    let place = place().await;
    let context = tempfile::tempdir_in("/var/tmp").unwrap();
    let tar = tar_of(&[("d/f", "inside")]);
    let mut dockerfile = "FROM scratch\n".to_owned();
    for (program, ending) in [("xz", "xz"), ("bzip2", "bz2"), ("gzip", "gz"), ("zstd", "zst")] {
        let path = context.path().join(format!("a.tar.{ending}"));
        std::fs::write(context.path().join("a.tar"), &tar).unwrap();
        let out = std::fs::File::create(&path).unwrap();
        let from = std::fs::File::open(context.path().join("a.tar")).unwrap();
        let packed = std::process::Command::new(program).arg("-c").stdin(from).stdout(out).status();
        // A machine without one of the programs tries the others.
        if packed.is_ok_and(|status| status.success()) {
            dockerfile.push_str(&format!("ADD a.tar.{ending} /{ending}/\n"));
        }
    }
    assert!(dockerfile.contains("xz") && dockerfile.contains("bz2"), "{dockerfile}");
    std::fs::write(context.path().join("Dockerfile"), &dockerfile).unwrap();
    // What only begins like an archive is a file.
    std::fs::write(context.path().join("BZh.txt"), "BZh91 is no archive").unwrap();
    std::fs::write(context.path().join("Dockerfile"), format!("{dockerfile}ADD BZh.txt /\n")).unwrap();
    let request = BuildRequest::new(BuildContext::Folder(context.path().to_owned()));
    let id = place.store.build(request, &|_| {}).await.unwrap();
    let layers = place.store.layers(&id).await.unwrap();
    for ending in ["xz", "bz2", "gz", "zst"].iter().filter(|ending| dockerfile.contains(&format!("/{ending}/"))) {
        assert_eq!(read(&layers, &format!("{ending}/d/f")).as_deref(), Some("inside"), "{ending}");
    }
    assert_eq!(read(&layers, "BZh.txt").as_deref(), Some("BZh91 is no archive"));
    // A context and an image archive may come so too.
    let whole = tar_of(&[("Dockerfile", "FROM scratch\nCOPY Dockerfile /\n")]);
    std::fs::write(context.path().join("context.tar"), whole).unwrap();
    let packed =
        std::process::Command::new("xz").arg("-c").arg(context.path().join("context.tar")).output().unwrap().stdout;
    build_of(&place, packed).await.unwrap();
}
