//! The body of an answer, sent in one piece where it is short and soon whole, and otherwise while the instance writes it.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use futures::future::{Either, select};
use http::header::CONTENT_LENGTH;
use http::{Response, StatusCode};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::{Body as _, Frame};
use parking_lot::Mutex;
use wasmtime_wasi_http::WasiBody;

use super::answer::{End, Ended, Instance, failed, failure};
use crate::account::Account;
use crate::turns::AT_ONCE;
use crate::workload::Outcome;

/// Most bytes of a body that are gathered before the answer goes out.
const GATHERED: usize = 64 << 10;
/// What a part of a body counts at least among those bytes: parts may be empty, and there may be very many.
const PART: usize = 64;

/// An instance that has answered: still at work, or ended.
pub(super) struct Progress {
    pub instance: Option<Instance>,
    pub ended: Option<Ended>,
}

impl Progress {
    /// Whether the instance was ended before it was done.
    fn broke_off(&self) -> bool {
        self.ended.as_ref().is_some_and(|ended| ended.end != End::Done)
    }

    /// Counts an instance as failed whose answer cannot be sent, and answers how it ended.
    fn fail(self) -> End {
        let count = |mut ended: Ended| {
            if ended.invocation.outcome == Outcome::Succeeded {
                ended.invocation.outcome = Outcome::Failed;
            }
            ended.end
        };
        if let Some(instance) = self.instance {
            tokio::spawn(async move { count(instance.await) });
        }
        self.ended.map_or(End::Failed, count)
    }
}

/// Goes on with an instance that has answered for as long as it neither waits nor has sent much: most are done by then,
/// and their answer goes out in one piece, with its length. The others finish in a task of their own while the client
/// reads.
pub(super) async fn begin_body(
    account: &Arc<Account>,
    what: &str,
    head: bool,
    response: Response<WasiBody>,
    mut progress: Progress,
) -> Response<WasiBody> {
    let component = &account.component;
    let (mut parts, mut body) = response.into_parts();
    let refuse = |why: &str| component.log.note(&format!("bireme: {what} failed: {why}"));
    if parts.status.is_informational() {
        // A proxy in front would take 101 for the beginning of a tunnel.
        refuse(&format!("it answered with status {}, which ends no request", parts.status.as_u16()));
        progress.fail();
        return failed(component);
    }
    let (mut frames, mut size, mut held) = (VecDeque::new(), 0, 0);
    let since = Instant::now();
    let mut gather = |cx: &mut Context<'_>| {
        loop {
            if let Some(instance) = &mut progress.instance
                && let Poll::Ready(ended) = instance.as_mut().poll(cx)
            {
                progress = Progress { instance: None, ended: Some(ended) };
            }
            match Pin::new(&mut body).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => {
                    let length = frame.data_ref().map_or(0, Bytes::len);
                    (size, held) = (size + length, held + length.max(PART));
                    frames.push_back(frame);
                    // What an instance leaves behind that broke off is little, and tells whether its body is whole.
                    if held > GATHERED && !progress.broke_off() {
                        return Poll::Ready(Gathered::Part);
                    }
                }
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Gathered::Broken(Some(error))),
                Poll::Ready(None) => return Poll::Ready(Gathered::Whole),
                Poll::Pending if progress.broke_off() => return Poll::Ready(Gathered::Broken(None)),
                // It neither waits nor computes for long.
                Poll::Pending if account.turns.is_woken() && since.elapsed() < AT_ONCE => return Poll::Pending,
                Poll::Pending => return Poll::Ready(Gathered::Part),
            }
        }
    };
    let gathered = poll_fn(|cx| account.at_once(cx, &mut gather)).await;
    let plain = frames.iter().all(Frame::is_data);
    let length = parts.headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
    let empty = [StatusCode::NO_CONTENT, StatusCode::RESET_CONTENT, StatusCode::NOT_MODIFIED];
    if head || empty.contains(&parts.status) {
        // Such an answer has no body, and what length it tells is that of another. Whether the instance writes one all the
        // same, and how that ends, is nothing to the client.
        if head && plain && size > 0 && length.is_none() && matches!(gathered, Gathered::Whole) {
            let _ = parts.headers.try_insert(CONTENT_LENGTH, size.into());
        }
        tokio::spawn(discard(body, progress));
        return Response::from_parts(parts, Empty::new().map_err(|never| match never {}).boxed_unsync());
    }
    let body = match gathered {
        Gathered::Whole if plain => {
            if let Some(length) = length.filter(|length| *length != size) {
                refuse(&format!("its content-length says {length} bytes, and its body has {size}"));
                progress.fail();
                return failed(component);
            }
            let mut data = frames.into_iter().filter_map(|frame| frame.into_data().ok());
            let bytes = match (data.next(), data.next()) {
                (first, None) => first.unwrap_or_default(),
                (first, second) => {
                    let mut all = BytesMut::with_capacity(size);
                    first.into_iter().chain(second).chain(data).for_each(|part| all.extend_from_slice(&part));
                    all.freeze()
                }
            };
            crate::body::full(bytes)
        }
        // Nothing has gone out yet, so the client can be told.
        Gathered::Broken(error) => {
            if let Some(error) = error {
                refuse(&format!("its body broke off: {error}"));
            }
            return failure(component, progress.fail());
        }
        Gathered::Whole | Gathered::Part => {
            let stream = Arc::new(Mutex::new(Stream { gathered: frames, body, rest: Rest::Coming, reader: None }));
            if let Some(instance) = progress.instance.take() {
                let stream = Arc::downgrade(&stream);
                tokio::spawn(async move {
                    let ended = instance.await;
                    // Gone when the client is.
                    if let Some(stream) = stream.upgrade().filter(|_| ended.end != End::Done) {
                        stream.lock().break_off();
                    }
                });
            }
            return Response::from_parts(parts, Streamed(stream).boxed_unsync());
        }
    };
    if let Some(instance) = progress.instance {
        tokio::spawn(instance);
    }
    Response::from_parts(parts, body)
}

/// How far a body came before its instance waited.
enum Gathered {
    Whole,
    Part,
    /// It will never be whole.
    Broken(Option<wasmtime_wasi_http::Error>),
}

/// Lets an instance write a body that nobody wants.
async fn discard(mut body: WasiBody, progress: Progress) {
    let unread = pin!(async { while let Some(Ok(_)) = body.frame().await {} });
    if let Some(instance) = progress.instance
        && let Either::Left((_, instance)) = select(unread, instance).await
    {
        instance.await;
    }
}

/// A body that is sent while its instance writes it.
struct Stream {
    gathered: VecDeque<Frame<Bytes>>,
    body: WasiBody,
    rest: Rest,
    reader: Option<Waker>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Rest {
    Coming,
    /// Nothing more comes, and the body is whole.
    Over,
    /// Nothing more comes, and the client must see that something is missing.
    Missing,
}

impl Stream {
    /// To be called when the instance has broken off, and before its state is dropped: that would end any body as if it
    /// were whole.
    fn break_off(&mut self) {
        let mut cx = Context::from_waker(Waker::noop());
        while self.rest == Rest::Coming {
            match Pin::new(&mut self.body).poll_frame(&mut cx) {
                Poll::Ready(Some(Ok(frame))) => self.gathered.push_back(frame),
                Poll::Ready(None) => self.rest = Rest::Over,
                Poll::Ready(Some(Err(_))) | Poll::Pending => self.rest = Rest::Missing,
            }
        }
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
    }
}

/// What the client reads of a [`Stream`]. It goes away with the client, and the instance is told.
struct Streamed(Arc<Mutex<Stream>>);

impl hyper::body::Body for Streamed {
    type Data = Bytes;
    type Error = wasmtime_wasi_http::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let mut stream = self.0.lock();
        if let Some(frame) = stream.gathered.pop_front() {
            return Poll::Ready(Some(Ok(frame)));
        }
        match stream.rest {
            Rest::Coming => {}
            Rest::Over => return Poll::Ready(None),
            Rest::Missing => {
                stream.rest = Rest::Over;
                return Poll::Ready(Some(Err(wasmtime_wasi_http::Error::HttpResponseIncomplete)));
            }
        }
        let polled = Pin::new(&mut stream.body).poll_frame(cx);
        match &polled {
            Poll::Pending => stream.reader = Some(cx.waker().clone()),
            Poll::Ready(None) => stream.rest = Rest::Over,
            Poll::Ready(Some(_)) => {}
        }
        polled
    }
}
