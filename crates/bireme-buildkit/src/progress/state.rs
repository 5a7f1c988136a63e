//! What is kept of a build's progress, and what one reader has not seen of it. Pure.

use std::collections::HashMap;
use std::time::SystemTime;

use bollard_buildkit_proto::google::protobuf::Timestamp;
use bollard_buildkit_proto::moby::buildkit::v1::{StatusResponse, Vertex, VertexLog, VertexStatus, VertexWarning};

use super::{LogStream, Warning};

/// How much is kept of one build.
const MAX_VERTICES: usize = 10_000;
const MAX_TASKS: usize = 50_000;
const MAX_WARNINGS: usize = 1_000;
/// Bytes of output, as BuildKit has it for one step, and for all.
pub(super) const MAX_LOG: usize = 2 << 20;
pub(super) const MAX_LOGS: usize = 32 << 20;
/// How much goes into one message: clients take 4 MiB at least.
const MAX_MESSAGE_LOGS: usize = 512 << 10;
const MAX_MESSAGE_ITEMS: usize = 1_000;

#[derive(Debug, Default)]
pub(super) struct State {
    /// Grows with each change; what changed last carries the highest.
    version: u64,
    vertices: Vec<Kept<Vertex>>,
    tasks: Vec<Kept<VertexStatus>>,
    by_name: HashMap<(usize, String), usize>,
    logs: Vec<VertexLog>,
    log_bytes: usize,
    log_by_vertex: HashMap<usize, usize>,
    warnings: Vec<VertexWarning>,
    ended: bool,
}

#[derive(Debug)]
struct Kept<T> {
    changed: u64,
    value: T,
}

/// How far a reader is.
#[derive(Debug, Default)]
pub(super) struct Seen {
    version: u64,
    logs: usize,
    warnings: usize,
}

impl State {
    pub(super) fn vertices(&self) -> usize {
        self.vertices.len()
    }

    fn next(&mut self) -> u64 {
        self.version += 1;
        self.version
    }

    pub(super) fn add_vertex(&mut self, digest: String, name: &str, inputs: Vec<String>) -> Option<usize> {
        if self.ended || self.vertices.len() >= MAX_VERTICES {
            return None;
        }
        let name = name.chars().take(4096).collect();
        let changed = self.next();
        self.vertices.push(Kept { changed, value: Vertex { digest, name, inputs, ..Vertex::default() } });
        Some(self.vertices.len() - 1)
    }

    /// The vertex, if it may still change.
    fn at_work(&mut self, index: usize) -> Option<&mut Vertex> {
        let changed = self.version + 1;
        let kept = self.vertices.get_mut(index)?;
        if self.ended || kept.value.completed.is_some() {
            return None;
        }
        self.version = changed;
        kept.changed = changed;
        Some(&mut kept.value)
    }

    pub(super) fn start(&mut self, index: usize, now: SystemTime) {
        if let Some(vertex) = self.at_work(index) {
            vertex.started.get_or_insert_with(|| timestamp(now));
        }
    }

    pub(super) fn complete(&mut self, index: usize, cached: bool, error: String, now: SystemTime) {
        if let Some(vertex) = self.at_work(index) {
            vertex.started.get_or_insert_with(|| timestamp(now));
            vertex.completed = Some(timestamp(now));
            vertex.cached = cached;
            vertex.error = error;
        }
    }

    pub(super) fn add_task(&mut self, index: usize, name: &str, now: SystemTime) -> Option<usize> {
        if self.ended || self.tasks.len() >= MAX_TASKS {
            return None;
        }
        let name: String = name.chars().take(1024).collect();
        // Clients know a task by its name within its vertex.
        if let Some(id) = self.by_name.get(&(index, name.clone())) {
            return Some(*id);
        }
        let vertex = self.vertices.get(index)?.value.digest.clone();
        let changed = self.next();
        let value = VertexStatus {
            id: name.clone(),
            vertex,
            name: name.clone(),
            timestamp: Some(timestamp(now)),
            started: Some(timestamp(now)),
            ..VertexStatus::default()
        };
        self.tasks.push(Kept { changed, value });
        self.by_name.insert((index, name), self.tasks.len() - 1);
        Some(self.tasks.len() - 1)
    }

    fn change_task(&mut self, id: usize, now: SystemTime, change: impl FnOnce(&mut VertexStatus)) {
        let changed = self.version + 1;
        if let Some(kept) = self.tasks.get_mut(id)
            && !self.ended
        {
            self.version = changed;
            kept.changed = changed;
            kept.value.timestamp = Some(timestamp(now));
            change(&mut kept.value);
        }
    }

    pub(super) fn set_task(&mut self, id: usize, current: u64, total: u64, now: SystemTime) {
        let signed = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        self.change_task(id, now, |task| (task.current, task.total) = (signed(current), signed(total)));
    }

    pub(super) fn end_task(&mut self, id: usize, now: SystemTime) {
        self.change_task(id, now, |task| task.completed = Some(timestamp(now)));
    }

    pub(super) fn log(&mut self, index: usize, stream: LogStream, bytes: &[u8], now: SystemTime) {
        let Some(vertex) = self.vertices.get(index).map(|kept| kept.value.digest.clone()) else { return };
        let of_vertex = self.log_by_vertex.entry(index).or_default();
        if self.ended || *of_vertex > MAX_LOG || bytes.is_empty() {
            return;
        }
        let room = (MAX_LOG - *of_vertex).min(MAX_LOGS.saturating_sub(self.log_bytes));
        let (kept, dropped) = bytes.split_at(bytes.len().min(room));
        let mut message = kept.to_vec();
        *of_vertex += kept.len();
        self.log_bytes += kept.len();
        if !dropped.is_empty() {
            // Beyond the limit, so that nothing more is kept of this vertex.
            *of_vertex = MAX_LOG + 1;
            message.extend_from_slice(b"\n[output clipped, log limit reached]\n");
        }
        let stream = match stream {
            LogStream::Stdout => 1,
            LogStream::Stderr => 2,
        };
        for part in message.chunks(MAX_MESSAGE_LOGS) {
            self.logs.push(VertexLog {
                vertex: vertex.clone(),
                timestamp: Some(timestamp(now)),
                stream,
                msg: part.to_vec(),
            });
        }
    }

    pub(super) fn warn(&mut self, vertex: Option<String>, warning: Warning) {
        let (info, ranges) = match &warning.place {
            Some((file, lines)) => (Some(file.into()), lines.iter().map(Into::into).collect()),
            None => (None, Vec::new()),
        };
        self.warn_raw(VertexWarning {
            vertex: vertex.or_else(|| Some(self.vertices.first()?.value.digest.clone())).unwrap_or_default(),
            level: i64::from(warning.level),
            short: warning.short.into_bytes(),
            detail: warning.detail.into_iter().map(String::into_bytes).collect(),
            url: warning.url,
            info,
            ranges,
        });
    }

    pub(super) fn warn_raw(&mut self, warning: VertexWarning) {
        if !self.ended && self.warnings.len() < MAX_WARNINGS {
            self.warnings.push(warning);
        }
    }

    pub(super) fn end(&mut self, now: SystemTime) {
        for index in 0..self.vertices.len() {
            let vertex = &self.vertices[index].value;
            if vertex.started.is_some() && vertex.completed.is_none() {
                self.complete(index, false, "context canceled".to_owned(), now);
            }
        }
        self.ended = true;
    }

    pub(super) fn ended(&self) -> bool {
        self.ended
    }

    /// What a reader has not seen, in a message of bounded size, and whether it has seen all there will be.
    pub(super) fn since(&self, seen: &mut Seen) -> (Option<StatusResponse>, bool) {
        let mut news = StatusResponse::default();
        // The oldest changes first, so that what does not fit comes next time.
        let mut changed: Vec<(u64, Change<'_>)> = Vec::new();
        let of_vertices = self.vertices.iter().map(|kept| (kept.changed, Change::Vertex(&kept.value)));
        let of_tasks = self.tasks.iter().map(|kept| (kept.changed, Change::Task(&kept.value)));
        changed.extend(of_vertices.chain(of_tasks).filter(|(version, _)| *version > seen.version));
        changed.sort_unstable_by_key(|(version, _)| *version);
        let all = changed.len() <= MAX_MESSAGE_ITEMS;
        for (version, change) in changed.into_iter().take(MAX_MESSAGE_ITEMS) {
            seen.version = version;
            match change {
                Change::Vertex(vertex) => news.vertexes.push(vertex.clone()),
                Change::Task(task) => news.statuses.push(task.clone()),
            }
        }
        // Of vertices that the reader knows, which is why all changes come first.
        if all {
            let mut bytes = 0;
            while let Some(log) = self.logs.get(seen.logs) {
                bytes += log.msg.len();
                if bytes > MAX_MESSAGE_LOGS || news.logs.len() >= MAX_MESSAGE_ITEMS {
                    break;
                }
                news.logs.push(log.clone());
                seen.logs += 1;
            }
            let warnings = self.warnings.iter().skip(seen.warnings).take(MAX_MESSAGE_ITEMS.min(50));
            news.warnings.extend(warnings.cloned());
            seen.warnings += news.warnings.len();
        }
        let nothing =
            news.vertexes.is_empty() && news.statuses.is_empty() && news.logs.is_empty() && news.warnings.is_empty();
        (if nothing { None } else { Some(news) }, nothing && self.ended)
    }
}

enum Change<'a> {
    Vertex(&'a Vertex),
    Task(&'a VertexStatus),
}

pub(crate) fn timestamp(time: SystemTime) -> Timestamp {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Timestamp {
        seconds: i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(since.subsec_nanos()).unwrap_or(0),
    }
}
