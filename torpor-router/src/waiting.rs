//! What a request keeps while it waits: bytes of its own, instead of the buffer that it was read into.
//!
//! A connection reads into a buffer of 8 KiB, and head and body are slices of it: while one is left, a request of a hundred bytes keeps
//! all of it, and its connection has another one to see whether the client leaves.

use axum::body::Body;
use hyper::body::{Body as _, Bytes, Frame, SizeHint};
use hyper::header::HeaderValue;
use hyper::{HeaderMap, Request};
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};

/// Of a longer body, a copy would be no smaller than the buffer.
const SMALL: u64 = 4 << 10;

/// Waits for something, with which the request has its own bytes. One that need not wait is left as it is.
pub(crate) async fn with_own_bytes<T>(
    request: &mut Request<Body>,
    mut something: Pin<&mut impl Future<Output = T>>,
) -> T {
    let mut small = None;
    let outcome = poll_fn(|context| {
        let outcome = something.as_mut().poll(context);
        if outcome.is_pending() {
            let small = small.get_or_insert_with(|| {
                own(request.headers_mut());
                Small::of(request.body_mut())
            });
            small.iter_mut().for_each(|small| small.take(context));
        }
        outcome
    });
    let outcome = outcome.await;
    if let Some(small) = small.flatten() {
        *request.body_mut() = Body::new(small);
    }
    outcome
}

/// Copies the values of a head.
pub(crate) fn own(headers: &mut HeaderMap) {
    let mut copy = Vec::with_capacity(headers.values().map(HeaderValue::len).sum());
    headers.values().for_each(|value| copy.extend_from_slice(value.as_bytes()));
    let mut copy = Bytes::from(copy);
    for value in headers.values_mut() {
        // It was a value, and so is its copy.
        if let Ok(own) = HeaderValue::from_maybe_shared(copy.split_to(value.len())) {
            *value = own;
        }
    }
}

/// A small body: what has come of it is a copy, and the rest comes from the client.
#[derive(Debug)]
struct Small {
    copy: Vec<u8>,
    /// Why there is no more.
    broken: Option<axum::Error>,
    rest: Body,
}

impl Small {
    /// `None` if a body is not small, or does not say how long it is.
    fn of(body: &mut Body) -> Option<Self> {
        let length = body.size_hint().exact().filter(|length| (1..=SMALL).contains(length))?;
        let copy = Vec::with_capacity(usize::try_from(length).ok()?);
        Some(Self { copy, broken: None, rest: std::mem::take(body) })
    }

    /// Takes what has come.
    fn take(&mut self, context: &mut Context<'_>) {
        while self.broken.is_none()
            && !self.rest.is_end_stream()
            && let Poll::Ready(Some(frame)) = Pin::new(&mut self.rest).poll_frame(context)
        {
            match frame.map(Frame::into_data) {
                Ok(Ok(data)) => self.copy.extend_from_slice(&data),
                // Trailers, which only a body can have that does not say how long it is.
                Ok(Err(_)) => {}
                Err(error) => self.broken = Some(error),
            }
        }
    }
}

impl hyper::body::Body for Small {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if !self.copy.is_empty() {
            return Poll::Ready(Some(Ok(Frame::data(std::mem::take(&mut self.copy).into()))));
        }
        match self.broken.take() {
            Some(error) => Poll::Ready(Some(Err(error))),
            None => Pin::new(&mut self.rest).poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.copy.is_empty() && self.broken.is_none() && self.rest.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let rest = self.rest.size_hint();
        rest.exact().map_or(rest, |rest| SizeHint::with_exact(self.copy.len() as u64 + rest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::{BodyExt, StreamBody};
    use std::pin::pin;
    use tokio::sync::mpsc;
    use tokio_stream::wrappers::UnboundedReceiverStream;

    /// A request as it is read into a buffer, and the buffer.
    fn read(body_at: usize) -> (Request<Body>, Bytes) {
        let buffer = Bytes::from(b"a name; a body".to_vec());
        let mut request = Request::new(Body::from(buffer.slice(body_at..)));
        let value = HeaderValue::from_maybe_shared(buffer.slice(..6)).unwrap();
        request.headers_mut().insert("x-request-id", value);
        (request, buffer)
    }

    async fn whole(request: Request<Body>) -> (HeaderValue, Bytes) {
        let (head, body) = request.into_parts();
        (head.headers["x-request-id"].clone(), body.collect().await.unwrap().to_bytes())
    }

    #[tokio::test]
    async fn who_waits_keeps_no_buffer_and_loses_nothing() {
        let (mut request, buffer) = read(8);
        with_own_bytes(&mut request, pin!(tokio::task::yield_now())).await;
        assert!(buffer.is_unique());
        assert_eq!(request.body().size_hint().exact(), Some(6));
        assert_eq!(whole(request).await, (HeaderValue::from_static("a name"), Bytes::from("a body")));
    }

    #[tokio::test]
    async fn who_need_not_wait_is_left_as_it_is() {
        let (mut request, buffer) = read(8);
        with_own_bytes(&mut request, pin!(std::future::ready(()))).await;
        assert!(!buffer.is_unique());
        assert_eq!(whole(request).await.1, "a body");
    }

    #[tokio::test]
    async fn what_comes_of_a_body_while_it_waits_is_before_what_comes_later() {
        for breaks in [false, true] {
            let (client, frames) = mpsc::unbounded_channel();
            let say = |text: &'static str| client.send(Ok(Frame::data(Bytes::from(text)))).unwrap();
            let rest = Body::new(StreamBody::new(UnboundedReceiverStream::new(frames)));
            let mut small = Small { copy: Vec::new(), broken: None, rest };
            let take = |small: &mut Small| small.take(&mut Context::from_waker(std::task::Waker::noop()));
            take(&mut small);
            say("one ");
            take(&mut small);
            say("two ");
            if breaks {
                client.send(Err(std::io::Error::other("it has left"))).unwrap();
            }
            take(&mut small);
            assert_eq!(small.copy, b"one two ");
            say("three");
            drop(client);
            let whole = small.collect().await.ok().map(|whole| whole.to_bytes());
            assert_eq!(whole, (!breaks).then_some(Bytes::from("one two three")));
        }
    }
}
