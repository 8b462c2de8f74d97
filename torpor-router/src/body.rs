//! The body of an answer on its way to the client: while it is, the request keeps its place at the process.

use crate::error::Refusal;
use crate::function::Lease;
use crate::gate::Gate;
use crate::order::Ended;
use crate::phases::Phases;
use crate::registry::Served;
use crate::spans::RequestSpan;
use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;
use tokio::time::{Sleep, sleep_until};

/// Counts a request, however it ends.
#[derive(Debug)]
pub struct Accounted {
    /// Its function, and when it is late.
    pub served: Served,
    /// Who learns from its end.
    pub gate: Arc<Gate>,
    /// When it came.
    pub arrived: Instant,
    /// When it passed the gate.
    pub passed: Option<Instant>,
    /// When its answer began.
    pub answered: Option<Instant>,
    /// Where its time went until then.
    pub phases: Phases,
    /// Its span, where spans are sent.
    pub span: Option<RequestSpan>,
    /// How it is answered; an answer that breaks off stays 499, as nginx counts a client that left.
    pub code: u16,
}

impl Accounted {
    /// A request that has come now, and whose client may leave before it is answered.
    #[must_use]
    pub fn begin(served: Served, gate: Arc<Gate>, span: Option<RequestSpan>) -> Self {
        let phases = Phases::default();
        let (arrived, passed, answered) = (Instant::now(), None, None);
        Self { served, gate, arrived, passed, answered, phases, span, code: 499 }
    }

    /// Its answer begins.
    pub(crate) fn begins_answer(&mut self, phases: Phases) {
        (self.answered, self.phases) = (Some(Instant::now()), phases);
    }

    /// Notes it as refused if it is.
    ///
    /// # Errors
    /// The refusal.
    pub(crate) fn answered<T>(&mut self, outcome: Result<T, Refusal>) -> Result<T, Refusal> {
        outcome.inspect_err(|refusal| self.code = refusal.status().as_u16())
    }
}

impl Drop for Accounted {
    fn drop(&mut self) {
        let duration = self.arrived.elapsed();
        if let Some(span) = self.span.take() {
            span.end(self);
        }
        let Served { function, objective, percentile } = &self.served;
        function.metrics.answered(self.code);
        function.metrics.duration.observe(duration.as_secs_f64());
        let good = self.code < 400;
        let met = good && objective.is_none_or(|objective| duration <= objective);
        function.recent.note(duration, good, met);
        if !met {
            function.metrics.missed.inc();
        }
        self.gate.ended(&Ended {
            function: function.name.clone(),
            took: self.passed.map(|passed| passed.elapsed()),
            met,
            percentile: *percentile,
        });
    }
}

/// A function's answer, passed on frame by frame.
#[derive(Debug)]
pub struct LeasedBody {
    inner: Incoming,
    deadline: Pin<Box<Sleep>>,
    /// Given back before the client has read the last frame: the process is done with it.
    lease: Option<Lease>,
    accounted: Box<Accounted>,
    code: u16,
}

impl LeasedBody {
    /// The body of an answer with a status.
    #[must_use]
    pub fn new(
        inner: Incoming,
        code: u16,
        deadline: Instant,
        lease: Lease,
        accounted: Box<Accounted>,
    ) -> Self {
        let mut body = Self {
            inner,
            deadline: Box::pin(sleep_until(deadline.into())),
            lease: Some(lease),
            accounted,
            code,
        };
        if body.inner.is_end_stream() {
            body.done();
        }
        body
    }

    fn done(&mut self) {
        self.lease = None;
        self.accounted.code = self.code;
    }
}

impl Body for LeasedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        match Pin::new(&mut self.inner).poll_frame(context) {
            Poll::Ready(None) => {
                self.done();
                Poll::Ready(None)
            }
            Poll::Ready(Some(frame)) => {
                if self.inner.is_end_stream() {
                    self.done();
                }
                Poll::Ready(Some(frame.map_err(axum::Error::new)))
            }
            Poll::Pending => self.deadline.as_mut().poll(context).map(|()| {
                self.accounted.code = 504;
                Some(Err(axum::Error::new(Refusal::AnsweredTooLate)))
            }),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
