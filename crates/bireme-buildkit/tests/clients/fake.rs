//! A builder of a language of its own: each line of its Dockerfile asks the client for something, or tells it something.

use std::collections::BTreeMap;
use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use bireme_buildkit::{
    Build, BuildError, Builder, Content, Entry, EntryKind, Exports, Failure, FilesRequest, Frontend, Lines, LogStream,
    Output, Outputs, Platform, Prune, Receive, SNAPSHOTTER_LABEL, Solved, Source, SourceFile, Usage, UsageQuery,
    Vertex, Warning, Worker,
};
use bireme_core::BoxFuture;
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::mpsc;

/// What it builds: files.
pub(crate) type Files = BTreeMap<String, Vec<u8>>;

#[derive(Default)]
pub(crate) struct Fake {
    /// Images by their names.
    pub(crate) images: Mutex<BTreeMap<String, Files>>,
    /// What the last frontend was asked with.
    pub(crate) options: Mutex<BTreeMap<String, String>>,
    /// Whether a build that waited was given up.
    pub(crate) cancelled: AtomicBool,
    /// Whether it calls itself able to build for several platforms.
    pub(crate) snapshotter: AtomicBool,
    /// How long the last context took.
    pub(crate) copied: Mutex<Option<Duration>>,
}

/// Keeps files in memory.
#[derive(Default)]
struct Memory {
    names: BTreeMap<u32, String>,
    files: Files,
}

impl Receive for Memory {
    type Done = Files;

    fn entry(&mut self, index: u32, entry: &Entry) -> Result<Content, Failure> {
        if let EntryKind::File { .. } = entry.kind {
            self.names.insert(index, entry.path.clone());
            self.files.insert(entry.path.clone(), Vec::new());
        }
        Ok(Content::Want)
    }

    fn data(&mut self, index: u32, bytes: &[u8]) -> Result<(), Failure> {
        self.files.entry(self.names[&index].clone()).or_default().extend_from_slice(bytes);
        Ok(())
    }

    fn end(&mut self, _: u32) -> Result<(), Failure> {
        Ok(())
    }

    fn finish(self) -> Result<Files, Failure> {
        Ok(self.files)
    }
}

/// Files that go out.
struct Tree(Files);

impl Source for Tree {
    fn walk(&self, each: &mut dyn FnMut(Entry) -> Result<(), Failure>) -> Result<(), Failure> {
        for (path, content) in &self.0 {
            let kind = EntryKind::File { size: content.len() as u64 };
            let xattrs = BTreeMap::new();
            each(Entry { path: path.clone(), kind, mode: 0o640, uid: 0, gid: 0, modified: 1_000_000_000, xattrs })?;
        }
        Ok(())
    }

    fn open(&self, path: &str) -> Result<Box<dyn Read + Send>, Failure> {
        Ok(Box::new(std::io::Cursor::new(self.0[path].clone())))
    }
}

impl Fake {
    async fn read(build: &Build, frontend: &Frontend, name: &str, follow: &[&str]) -> Result<Files, BuildError> {
        let session = match frontend.session_of(name) {
            Some(id) => build.other_session(id).await?,
            None => build.session().await?,
        };
        let follow = follow.iter().map(|path| (*path).to_owned()).collect();
        let request = FilesRequest { name: name.to_owned(), follow, ..FilesRequest::default() };
        Ok(session.files(request, Memory::default()).await?)
    }

    async fn line(
        &self,
        build: &Build,
        frontend: &Frontend,
        line: &str,
        vertex: &Vertex,
        files: &mut Files,
    ) -> Result<(), BuildError> {
        let words: Vec<&str> = line.split_whitespace().collect();
        let say = |text: String| vertex.log(LogStream::Stdout, format!("{text}\n").as_bytes());
        match words.as_slice() {
            ["FROM", name] => {
                if let Some(input) = frontend.options.get(&format!("context:{name}")) {
                    match input.strip_prefix("input:") {
                        Some(input) => files.extend(of(&frontend.inputs[input])),
                        None => files.extend(
                            Self::read(build, frontend, input.strip_prefix("local:").unwrap_or(input), &[]).await?,
                        ),
                    }
                }
            }
            ["COPY"] => match frontend.options.get("context") {
                Some(url) => {
                    let id = url.strip_prefix("http://buildkit-session/").expect("an upload");
                    let mut archive = Vec::new();
                    build.session().await?.upload(id).await?.read_to_end(&mut archive).await.unwrap();
                    files.insert("archive.tar".to_owned(), archive);
                }
                None => {
                    let since = Instant::now();
                    let context = Self::read(build, frontend, "context", &[]);
                    files.extend(vertex.during("transferring context:", context).await?);
                    *self.copied.lock() = Some(since.elapsed());
                }
            },
            ["SECRET", id] => {
                let secret = build.session().await?.secret(id).await?;
                say(format!("secret {:?}", secret.map(|secret| String::from_utf8(secret).unwrap())));
            }
            ["SSH", id] => {
                let session = build.session().await?;
                session.check_ssh(id).await?;
                let mut agent = session.ssh(id).await?;
                // SSH_AGENTC_REQUEST_IDENTITIES, answered with SSH_AGENT_IDENTITIES_ANSWER (12).
                agent.write_all(&[0, 0, 0, 1, 11]).await.unwrap();
                let mut answer = [0; 5];
                agent.read_exact(&mut answer).await.unwrap();
                say(format!("agent answered {}", answer[4]));
            }
            ["LOGIN", host] => {
                let found = build.session().await?.credentials(host).await?;
                say(format!("credentials {:?}", found.map(|found| (found.username, found.secret))));
            }
            ["WRITE", path, text @ ..] => {
                files.insert((*path).to_owned(), text.join(" ").into_bytes());
            }
            ["SAY", text @ ..] => say(text.join(" ")),
            ["WAIT"] => {
                say("waiting".to_owned());
                build.cancelled().cancelled().await;
                self.cancelled.store(true, Ordering::SeqCst);
                return Err(BuildError::cancelled());
            }
            ["FAIL", code] => {
                let code: u32 = code.parse().unwrap();
                say("oops".to_owned());
                let message = format!("process \"/bin/sh -c false\" did not complete successfully: exit code: {code}");
                return Err(BuildError::failed(message).exit_code(code));
            }
            _ => {}
        }
        Ok(())
    }

    async fn build(&self, build: Arc<Build>, frontend: Frontend) -> Result<Solved, BuildError> {
        self.options.lock().clone_from(&frontend.options);
        let load = build.progress().vertex("[internal] load build definition from Dockerfile", &[]);
        load.start();
        let filename = frontend.options.get("filename").map_or("Dockerfile", String::as_str).to_owned();
        let source = match frontend.options.get("context") {
            // It is in the archive, which this builder does not unpack.
            Some(_) => Files::from([(filename.clone(), b"COPY\n".to_vec())]),
            None => Self::read(&build, &frontend, "dockerfile", &[&filename]).await?,
        };
        load.complete();
        let data = source.get(&filename).ok_or_else(|| BuildError::failed(format!("no {filename}")))?.clone();
        let text = String::from_utf8(data.clone()).unwrap();
        let source = SourceFile { filename, language: "Dockerfile".to_owned(), data };
        let mut solved = Solved::default();
        if let Some(request) = frontend.options.get("requestid") {
            if request != "frontend.lint" {
                return Err(BuildError::unsupported_subrequest(request));
            }
            let lint = br#"{"warnings":[{"ruleName":"JustAFake","description":"It is one","level":0,"detail":"fake lint","location":{"sourceIndex":0,"ranges":[{"start":{"line":1},"end":{"line":1}}]}}],"sources":[{"filename":"Dockerfile","language":"Dockerfile","data":"RlJPTSB4Cg=="}]}"#;
            for (key, value) in [("result.json", &lint[..]), ("result.txt", b"fake lint"), ("result.statuscode", b"1")]
            {
                solved.metadata.insert(key.to_owned(), value.to_vec());
            }
            return Ok(solved);
        }
        let lines: Vec<&str> = text.lines().collect();
        let mut files = Files::new();
        let mut last: Option<Vertex> = None;
        for (index, line) in lines.iter().enumerate() {
            let name = format!("[{}/{}] {line}", index + 1, lines.len());
            let vertex = build.progress().vertex(&name, last.as_slice().iter().collect::<Vec<_>>().as_slice());
            let place = [Lines { start: index as u32 + 1, end: index as u32 + 1 }];
            if let Some(text) = line.strip_prefix("WARN ") {
                let short = text.to_owned();
                let place = Some((source.clone(), place.to_vec()));
                build.progress().warn(Some(&vertex), Warning { level: 1, short, place, ..Warning::default() });
            }
            if *line == "CACHED" {
                vertex.cached();
                continue;
            }
            vertex.start();
            if let Err(error) = self.line(&build, &frontend, line, &vertex, &mut files).await {
                vertex.fail(error.message());
                return Err(error.of_vertex(vertex.digest()).at(&source, &place));
            }
            vertex.complete();
            last = Some(vertex);
        }
        let platforms = frontend.options.get("platform").map(String::as_str).unwrap_or_default();
        let config = br#"{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}"#;
        if platforms.contains(',') {
            let all = platforms.split(',').map(|name| (name.to_owned(), Arc::new(files.clone()) as Output));
            solved.outputs = Outputs::Platforms(all.collect());
        } else {
            solved.outputs = Outputs::One(Arc::new(files));
            solved.metadata.insert("containerimage.config".to_owned(), config.to_vec());
        }
        Ok(solved)
    }
}

fn of(output: &Output) -> Files {
    output.downcast_ref::<Files>().expect("an output of ours").clone()
}

/// All of several, below their platforms, as BuildKit does it.
fn all(solved: Option<Solved>) -> Files {
    match solved.unwrap_or_default().outputs {
        Outputs::None => Files::new(),
        Outputs::One(output) => of(&output),
        Outputs::Platforms(all) => all
            .iter()
            .flat_map(|(name, output)| {
                let name = name.replace('/', "_");
                of(output).into_iter().map(move |(path, content)| (format!("{name}-{path}"), content))
            })
            .collect(),
    }
}

impl Builder for Fake {
    fn version(&self) -> String {
        "v0.1.0-fake".to_owned()
    }

    fn workers(&self) -> BoxFuture<'_, Result<Vec<Worker>, BuildError>> {
        let platform = |os: &str, architecture: &str| Platform {
            os: os.to_owned(),
            architecture: architecture.to_owned(),
            variant: String::new(),
        };
        let mut labels = BTreeMap::new();
        if self.snapshotter.load(Ordering::SeqCst) {
            labels.insert(SNAPSHOTTER_LABEL.to_owned(), "overlayfs".to_owned());
        }
        let platforms = vec![platform("linux", "amd64"), platform("wasi", "wasm")];
        let worker = Worker { id: "fake".to_owned(), labels, platforms, gc_policies: Vec::new() };
        Box::pin(async move { Ok(vec![worker]) })
    }

    fn solve(&self, build: Arc<Build>, frontend: Frontend) -> BoxFuture<'_, Result<Solved, BuildError>> {
        Box::pin(self.build(build, frontend))
    }

    fn export(
        &self,
        build: Arc<Build>,
        solved: Option<Solved>,
        exports: Exports,
    ) -> BoxFuture<'_, Result<BTreeMap<String, String>, BuildError>> {
        Box::pin(async move {
            let digest = format!("sha256:{}", "ab".repeat(32));
            let mut response = BTreeMap::new();
            let files = all(solved);
            let vertex = build.progress().vertex("exporting", &[]);
            vertex.start();
            for exporter in exports.exporters {
                match exporter.kind.as_str() {
                    "moby" | "image" => {
                        let name = exporter.options.get("name").cloned().unwrap_or_default();
                        self.images.lock().insert(name.clone(), files.clone());
                        response.insert("image.name".to_owned(), name);
                        response.insert("containerimage.digest".to_owned(), digest.clone());
                        response.insert("containerimage.config.digest".to_owned(), digest.clone());
                    }
                    "local" => build.session().await?.send_folder(&exporter.id, Arc::new(Tree(files.clone()))).await?,
                    // Not an archive, but the client passes on what it is given.
                    "tar" | "oci" | "docker" => {
                        let metadata = BTreeMap::from([("containerimage.digest".to_owned(), digest.clone())]);
                        let mut file = build.session().await?.send_tar(&exporter.id, &metadata).await?;
                        for content in files.values() {
                            file.write_all(content).await.map_err(|error| BuildError::failed(error.to_string()))?;
                        }
                        file.shutdown().await.map_err(|error| BuildError::failed(error.to_string()))?;
                    }
                    other => return Err(BuildError::failed(format!("no exporter {other}"))),
                }
            }
            vertex.complete();
            Ok(response)
        })
    }

    fn disk_usage(&self, _: UsageQuery) -> BoxFuture<'_, Result<Vec<Usage>, BuildError>> {
        Box::pin(async { Ok(vec![usage()]) })
    }

    fn prune(&self, prune: Prune, gone: mpsc::Sender<Usage>) -> BoxFuture<'_, Result<(), BuildError>> {
        Box::pin(async move {
            assert_eq!(prune.keep_duration, Duration::ZERO);
            let _ = gone.send(usage()).await;
            Ok(())
        })
    }
}

fn usage() -> Usage {
    Usage {
        id: "fakerecordfakerecordfakere".to_owned(),
        parents: Vec::new(),
        mutable: true,
        in_use: false,
        shared: false,
        size: 1_500_000,
        created: SystemTime::now(),
        last_used: None,
        usage_count: 1,
        description: "local source for context".to_owned(),
        kind: "source.local".to_owned(),
    }
}
