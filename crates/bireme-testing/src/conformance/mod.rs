//! Conformance: request scripts that say what Docker's Engine API answers, run against whichever engine listens on a
//! socket. A script that Docker's own engine fails is a wrong script.

mod exchange;
mod place;
mod script;
mod shape;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use exchange::Exchange;
use script::{Action, Check, Operator, Request, Step};
pub use script::{Case, Script};
use serde_json::Value;

/// The version that both engines speak; requests name another where it matters.
const VERSION: &str = "1.45";

/// How long what comes about `eventually` may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// Scripts under way at once: most of their time they wait for the engine.
const AT_ONCE: usize = 4;

/// Which engine, and what its answers are compared with.
pub struct Run<'a> {
    /// Where the engine listens.
    pub socket: &'a Path,
    /// The folder in which the reference engine's answers are kept, a JSON file each.
    pub shapes: &'a Path,
    /// This is the reference engine: its answers are kept, not compared.
    pub reference: bool,
}

/// What became of one case.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The name of the case's script.
    pub script: String,
    /// The case itself.
    pub case: Case,
    /// Why it does not pass, with the lines that failed; none when it passes.
    pub failure: Option<String>,
    /// Differences that the script knows of, with their reasons.
    pub differs: Vec<String>,
}

impl Outcome {
    /// What a run that stands on this engine alone has to mend: a failure nobody knows of, or one that is none any more.
    pub fn complaint(&self) -> Option<String> {
        let name = format!("{}.api:{}: {} | {}", self.script, self.case.line, self.case.subject, self.case.says);
        match (&self.failure, &self.case.known) {
            (Some(failure), None) => Some(format!("{name}\n    {failure}")),
            (None, Some(_)) => Some(format!("{name}\n    passes now: take its line `known:` out")),
            _ => None,
        }
    }
}

/// The folder of the scripts.
pub fn folder() -> PathBuf {
    crate::workspace().join("tests/api")
}

/// Every script, in the order of their names.
///
/// # Errors
/// A sentence with the line that cannot be understood.
pub fn scripts() -> Result<Vec<Script>, String> {
    let folder = folder();
    let entries = std::fs::read_dir(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "api"));
    paths.sort();
    paths.iter().map(|path| Script::read(path)).collect()
}

/// Runs every case of `scripts`, some scripts side by side; the outcomes are in the order of the cases.
pub fn run(run: &Run<'_>, scripts: &[Script]) -> Vec<Outcome> {
    let next = AtomicUsize::new(0);
    let done = Mutex::new(BTreeMap::new());
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    let Some(script) = scripts.get(at) else { return };
                    let outcomes: Vec<Outcome> = script.cases.iter().map(|case| run_case(run, script, case)).collect();
                    done.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).insert(at, outcomes);
                }
            });
        }
    });
    done.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner()).into_values().flatten().collect()
}

/// Runs one case of `script`, and removes what it made.
pub fn run_case(run: &Run<'_>, script: &Script, case: &Case) -> Outcome {
    let own = format!("x{}{}x", case.line, script.name.replace('-', ""));
    let mut attempt = Attempt {
        run,
        variables: BTreeMap::from([("u".to_owned(), own.clone().into_bytes())]),
        own,
        begun: BTreeMap::new(),
        differs: Vec::new(),
    };
    let failure = case.steps.iter().find_map(|step| attempt.step(step).err());
    attempt.begun.clear();
    attempt.clear_away();
    Outcome { script: script.name.clone(), case: case.clone(), failure, differs: attempt.differs }
}

struct Attempt<'a> {
    run: &'a Run<'a>,
    /// What everything that the case makes is called, or begins with.
    own: String,
    variables: BTreeMap<String, Vec<u8>>,
    begun: BTreeMap<String, Exchange>,
    differs: Vec<String>,
}

/// An answer, or what a command printed.
#[derive(Default)]
struct Answer {
    code: i64,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    streams: Option<(Vec<u8>, Vec<u8>)>,
}

impl Attempt<'_> {
    fn step(&mut self, step: &Step) -> Result<(), String> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let result = self.once(step);
            match result {
                Err(_) if step.eventually && Instant::now() < deadline => {
                    std::thread::sleep(Duration::from_millis(20));
                }
                result => return result.map_err(|error| format!("line {}: {error}", step.line)),
            }
        }
    }

    fn once(&mut self, step: &Step) -> Result<(), String> {
        let answer = match &step.action {
            Action::Request(request) => {
                let mut exchange = self.begin(request)?;
                self.finish(&mut exchange, request.lines)?
            }
            Action::Begin(name, request) => {
                let exchange = self.begin(request)?;
                self.begun.insert(name.clone(), exchange);
                return Ok(());
            }
            Action::Join(name) => {
                let mut exchange = self.begun.remove(name).ok_or_else(|| format!("{name} was not begun"))?;
                self.finish(&mut exchange, None)?
            }
            Action::Shell(command) => self.shell(&self.text(command))?,
        };
        if let Some(expected) = step.expect.filter(|expected| *expected != answer.code) {
            return Err(format!("{} in place of {expected}: {}", answer.code, answer.brief()));
        }
        self.check(step, &answer)
    }

    /// Puts the values of variables in; what is no variable stays as it is.
    fn text(&self, text: &str) -> String {
        let mut out = String::new();
        let mut rest = text;
        while let Some(at) = rest.find('$') {
            out.push_str(&rest[..at]);
            rest = &rest[at + 1..];
            let end =
                rest.find(|c: char| !(c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')).unwrap_or(rest.len());
            let name = &rest[..end];
            if name == "now" {
                let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                out.push_str(&format!("{}.{:09}", now.as_secs(), now.subsec_nanos()));
            } else if let Some(value) = self.variables.get(name) {
                out.push_str(&String::from_utf8_lossy(value));
            } else {
                out.push('$');
                out.push_str(name);
            }
            rest = &rest[end..];
        }
        out.push_str(rest);
        out
    }

    fn begin(&self, request: &Request) -> Result<Exchange, String> {
        let path = self.text(&request.path);
        let unversioned = path.strip_prefix('!');
        let path = encode(&unversioned.map_or_else(|| format!("/v{VERSION}{path}"), str::to_owned));
        let body = match request.body.strip_prefix('@') {
            Some(rest) => match rest.strip_prefix("tar ") {
                Some(files) => archive(&self.text(files))?,
                None => self.variables.get(rest).cloned().ok_or_else(|| format!("nothing is called {rest}"))?,
            },
            None => self.text(&request.body).into_bytes(),
        };
        let headers: Vec<String> = request.headers.iter().map(|header| self.text(header)).collect();
        let input = request.input.as_ref().map(|input| self.text(input).into_bytes());
        Exchange::begin(self.run.socket, &request.method, &path, &headers, &body, input.as_deref())
            .map_err(|error| format!("{} {path}: {error}", request.method))
    }

    fn finish(&self, exchange: &mut Exchange, lines: Option<usize>) -> Result<Answer, String> {
        let body = exchange.body(lines).map_err(|error| format!("the body of the answer: {error}"))?;
        let headers = exchange.headers.clone();
        Ok(Answer { code: i64::from(exchange.status), headers, body, streams: None })
    }

    fn shell(&self, command: &str) -> Result<Answer, String> {
        let config = self.run.socket.parent().unwrap_or(Path::new("/")).join("docker-config");
        let output = Command::new("timeout")
            .args(["60", "sh", "-c", command])
            .env("DOCKER_HOST", format!("unix://{}", self.run.socket.display()))
            .env("DOCKER_CONFIG", config)
            .env("DOCKER_API_VERSION", VERSION)
            .env("DOCKER_BUILDKIT", "0")
            .env("DOCKER_CLI_HINTS", "false")
            .stdin(Stdio::null())
            .output()
            .map_err(|error| format!("`{command}` cannot be run: {error}"))?;
        let code = output.status.code().map_or(-1, i64::from);
        Ok(Answer { code, streams: Some((output.stdout, output.stderr)), ..Answer::default() })
    }

    fn check(&mut self, step: &Step, answer: &Answer) -> Result<(), String> {
        let mut failed = Vec::new();
        for (line, check) in &step.checks {
            match check {
                Check::Holds { place, operator, value } => {
                    let place = self.text(place);
                    let wanted = self.value(value);
                    let found = answer.at(&place)?;
                    if !holds(found.as_deref(), *operator, &wanted) {
                        let found = found.map_or_else(|| "nothing".to_owned(), |found| found.to_string());
                        let wanted = format!("{operator:?} {wanted}");
                        failed.push(format!("line {line}: {place} is {found}, expected {wanted}"));
                    }
                }
                Check::Let { name, place } => {
                    let bytes = match place.as_str() {
                        "bytes" => answer.body.clone(),
                        place => match answer.at(&self.text(place))?.map(Cow::into_owned) {
                            Some(Value::String(text)) => text.into_bytes(),
                            Some(other) => other.to_string().into_bytes(),
                            None => return Err(format!("line {line}: nothing at {place}: {}", answer.brief())),
                        },
                    };
                    self.variables.insert(name.clone(), bytes);
                }
                Check::Shape { name } => failed.extend(self.shape(name, step, answer)?),
                Check::Varies { .. } | Check::Differs { .. } => {}
            }
        }
        match failed.is_empty() {
            true => Ok(()),
            false => Err(failed.join("; ")),
        }
    }

    fn value(&self, value: &Value) -> Value {
        match value {
            Value::String(text) => Value::String(self.text(text)),
            Value::Array(list) => list.iter().map(|value| self.value(value)).collect(),
            Value::Object(map) => {
                Value::Object(map.iter().map(|(key, value)| (self.text(key), self.value(value))).collect())
            }
            other => other.clone(),
        }
    }

    /// Keeps the reference's answer, or compares with it.
    fn shape(&mut self, name: &str, step: &Step, answer: &Answer) -> Result<Option<String>, String> {
        let value = answer.at(".")?.map(Cow::into_owned).unwrap_or_default();
        let value = shape::settle(&value, &self.own);
        let places = |pick: &dyn Fn(&Check) -> Option<String>| -> Vec<String> {
            step.checks.iter().filter_map(|(_, check)| pick(check)).collect()
        };
        let varies = places(&|check| match check {
            Check::Varies { place } => Some(place.clone()),
            _ => None,
        });
        let path = self.run.shapes.join(format!("{name}.json"));
        if self.run.reference {
            let kept = format!("{:#}\n", shape::blank(&value, &varies));
            std::fs::write(&path, kept).map_err(|error| format!("{}: {error}", path.display()))?;
            return Ok(None);
        }
        let text = std::fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        let theirs = serde_json::from_str(&text).map_err(|error| format!("{}: {error}", path.display()))?;
        let mut found = shape::differences(&theirs, &value, &varies);
        let mut stale = Vec::new();
        for (_, check) in &step.checks {
            let Check::Differs { place, why } = check else { continue };
            let before = found.len();
            found.retain(|at, _| !(at == place || place::like(place, at)));
            match found.len() < before {
                true => self.differs.push(format!("{place}: {why}")),
                false => stale.push(format!("{place} differs no more: take its line `differs` out")),
            }
        }
        let told = found.into_iter().map(|(at, what)| format!("{at} {what}")).chain(stale);
        let told: Vec<String> = told.collect();
        Ok((!told.is_empty()).then(|| told.join("; ")))
    }

    /// Removes everything that is called after the case.
    fn clear_away(&self) {
        let ask = |method: &str, path: &str| {
            let request = Request { method: method.to_owned(), path: path.to_owned(), ..Request::default() };
            let mut exchange = self.begin(&request).ok()?;
            let body = exchange.body(None).ok()?;
            serde_json::from_slice::<Value>(&body).ok()
        };
        let each = |list: Option<Value>, key: &str| -> Vec<String> {
            let list = list.and_then(|list| list.as_array().cloned()).unwrap_or_default();
            list.iter().filter_map(|one| one[key].as_str().map(str::to_owned)).collect()
        };
        for id in each(ask("GET", r#"/containers/json?all=1&filters={"name":["$u"]}"#), "Id") {
            ask("DELETE", &format!("/containers/{id}?force=1&v=1"));
        }
        for id in each(ask("GET", r#"/networks?filters={"name":["$u"]}"#), "Id") {
            ask("DELETE", &format!("/networks/{id}"));
        }
        let volumes = ask("GET", r#"/volumes?filters={"name":["$u"]}"#).map(|list| list["Volumes"].clone());
        for name in each(volumes, "Name") {
            ask("DELETE", &format!("/volumes/{name}?force=1"));
        }
        let images = ask("GET", r#"/images/json?filters={"reference":["$u*"]}"#);
        for image in images.iter().filter_map(Value::as_array).flatten() {
            for name in image["RepoTags"].as_array().into_iter().flatten().filter_map(Value::as_str) {
                ask("DELETE", &format!("/images/{name}?force=1"));
            }
        }
    }
}

fn holds(found: Option<&Value>, operator: Operator, wanted: &Value) -> bool {
    let Some(found) = found else { return matches!(operator, Operator::Absent | Operator::Lacks) };
    let plain = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let has = || match found {
        Value::Array(list) => list.contains(wanted),
        Value::Object(map) => map.contains_key(&plain(wanted)),
        other => plain(other).contains(&plain(wanted)),
    };
    match operator {
        Operator::Is => found == wanted || (wanted.is_string() && !found.is_string() && plain(found) == plain(wanted)),
        Operator::IsNot => found != wanted,
        Operator::Like => place::like(&plain(wanted), &plain(found)),
        Operator::Has => has(),
        Operator::Lacks => !has(),
        Operator::Type => place::type_of(found) == plain(wanted),
        Operator::Length => {
            let length = match found {
                Value::Array(list) => list.len(),
                Value::Object(map) => map.len(),
                other => plain(other).len(),
            };
            wanted.as_u64() == Some(length as u64)
        }
        Operator::AtLeast => found.as_f64() >= wanted.as_f64(),
        Operator::Absent => false,
    }
}

impl Answer {
    fn at(&self, place: &str) -> Result<Option<Cow<'_, Value>>, String> {
        let text = |bytes: &[u8]| Some(Cow::Owned(Value::String(String::from_utf8_lossy(bytes).into_owned())));
        if let Some(name) = place.strip_prefix("header ") {
            let found = self.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
            return Ok(found.map(|(_, value)| Cow::Owned(Value::String(value.clone()))));
        }
        let (word, rest) = place.split_at(place.find(['.', '[']).unwrap_or(place.len()));
        let value = match word {
            "" => serde_json::from_slice(&self.body).map_err(|error| format!("{error} in {}", self.brief()))?,
            "lines" => self.lines()?,
            "body" => return Ok(text(&self.body)),
            "stdout" | "stderr" => {
                let (out, err) = self.streams.clone().unwrap_or_else(|| exchange::demultiplex(&self.body));
                return Ok(text(if word == "stdout" { &out } else { &err }));
            }
            "tar" => self.files()?,
            "stat" => {
                let header = self.headers.iter().find(|(name, _)| name == "x-docker-container-path-stat");
                let header = header.map(|(_, value)| value.as_str()).unwrap_or_default();
                let bytes = base64::engine::general_purpose::STANDARD.decode(header).unwrap_or_default();
                serde_json::from_slice(&bytes).unwrap_or_default()
            }
            other => return Err(format!("{other} is no place in an answer")),
        };
        Ok(place::look(&value, rest)?.map(|found| Cow::Owned(found.into_owned())))
    }

    /// One value a line, or one after the other.
    fn lines(&self) -> Result<Value, String> {
        let mut all = Vec::new();
        for value in serde_json::Deserializer::from_slice(&self.body).into_iter::<Value>() {
            match value {
                Ok(value) => all.push(value),
                // A stream that was left in the middle of a line.
                Err(error) if error.is_eof() => break,
                Err(error) => return Err(format!("{error} in {}", self.brief())),
            }
        }
        Ok(Value::Array(all))
    }

    /// Names and contents of an archive.
    fn files(&self) -> Result<Value, String> {
        let mut archive = tar::Archive::new(&*self.body);
        let mut files = serde_json::Map::new();
        for entry in archive.entries().map_err(|error| error.to_string())? {
            use std::io::Read as _;
            let mut entry = entry.map_err(|error| format!("the archive: {error}"))?;
            let name = entry.path().map_err(|error| error.to_string())?.display().to_string();
            let mut contents = Vec::new();
            entry.read_to_end(&mut contents).map_err(|error| error.to_string())?;
            let link = entry.link_name().ok().flatten().map(|link| link.display().to_string());
            let contents = link.unwrap_or_else(|| String::from_utf8_lossy(&contents).into_owned());
            files.insert(name, Value::String(contents));
        }
        Ok(Value::Object(files))
    }

    fn brief(&self) -> String {
        let text = match &self.streams {
            Some((out, err)) => format!("{}{}", String::from_utf8_lossy(out), String::from_utf8_lossy(err)),
            None => String::from_utf8_lossy(&self.body).into_owned(),
        };
        let text = text.trim();
        match text.char_indices().nth(400) {
            Some((at, _)) => format!("{}…", &text[..at]),
            None => text.to_owned(),
        }
    }
}

/// Makes what people write in a URL fit for one: filters are JSON.
fn encode(path: &str) -> String {
    let mut out = String::new();
    for byte in path.bytes() {
        match byte {
            b' ' | b'"' | b'{' | b'}' | b'<' | b'>' | b'^' | b'`' | b'|' | b'\\' | b'[' | b']' => {
                out.push_str(&format!("%{byte:02X}"));
            }
            _ => out.push(char::from(byte)),
        }
    }
    out
}

/// An archive of `name="contents"`, `folder/` and `link->target`.
fn archive(spec: &str) -> Result<Vec<u8>, String> {
    let mut builder = tar::Builder::new(Vec::new());
    let mut rest = spec.trim();
    while !rest.is_empty() {
        let mut header = tar::Header::new_gnu();
        header.set_mtime(1_000_000_000);
        header.set_mode(0o644);
        let end = rest.find(['=', ' ']).unwrap_or(rest.len());
        let name = &rest[..end];
        let result = if rest[end..].starts_with('=') {
            let mut values = serde_json::Deserializer::from_str(&rest[end + 1..]).into_iter::<String>();
            let contents = values.next().and_then(Result::ok).ok_or("an archive's contents are a JSON string")?;
            let used = values.byte_offset();
            rest = rest[end + 1 + used..].trim_start();
            header.set_size(contents.len() as u64);
            builder.append_data(&mut header, name, contents.as_bytes())
        } else {
            rest = rest[end..].trim_start();
            header.set_size(0);
            if let Some((link, target)) = name.split_once("->") {
                header.set_entry_type(tar::EntryType::Symlink);
                builder.append_link(&mut header, link, target)
            } else {
                header.set_entry_type(tar::EntryType::Directory);
                header.set_mode(0o755);
                builder.append_data(&mut header, name, std::io::empty())
            }
        };
        result.map_err(|error| format!("{name} cannot be put into an archive: {error}"))?;
    }
    builder.into_inner().map_err(|error| error.to_string())
}
