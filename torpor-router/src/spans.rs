//! The spans of a request, for OpenTelemetry: one for the request, and in it one for each phase that its time went to.
//!
//! ```text
//! POST NAME   ├──────────────────────────────────────────────┤
//!   queue     ├───────┤          until a process and the gate took it
//!   bind              ├──┤       its process's wait for a turn on a GPU
//!   swap                 ├───┤   others leaving, and memory coming
//!   execute                  ├──────────┤       until its answer began
//!   answer                              ├───────┤   until that was sent
//! ```
//!
//! When bind and swap began nobody says, but how long they took is told by the node server; so they are drawn one behind the
//! other, and `execute` is what is left. Without its word, `execute` is all of that.

use crate::body::Accounted;
use crate::phases::Phases;
use crate::proxy::REQUEST_ID;
use hyper::HeaderMap;
use hyper::header::HeaderValue;
use opentelemetry::propagation::TextMapPropagator;
use opentelemetry::trace::{SpanKind, Status, TraceContextExt, Tracer, TracerProvider};
use opentelemetry::{Context, KeyValue};
use opentelemetry_http::{HeaderExtractor, HeaderInjector};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

/// Makes spans.
#[derive(Debug)]
pub struct Spans {
    tracer: SdkTracer,
    propagator: TraceContextPropagator,
}

/// The span of a request that is under way.
#[derive(Debug)]
pub struct RequestSpan {
    spans: Arc<Spans>,
    context: Context,
    began: SystemTime,
}

impl Spans {
    /// Whose spans go to a provider.
    #[must_use]
    pub fn new(provider: &SdkTracerProvider) -> Self {
        Self { tracer: provider.tracer("torpor-router"), propagator: TraceContextPropagator::new() }
    }

    /// A request of a function has come. It is part of its client's trace if its headers name one, and they name this span
    /// then, for the function.
    #[must_use]
    pub fn begin(
        self: &Arc<Self>,
        function: &str,
        method: &str,
        path: &str,
        headers: &mut HeaderMap,
    ) -> RequestSpan {
        let began = SystemTime::now();
        let parent = self.propagator.extract_with_context(&Context::new(), &HeaderExtractor(headers));
        let mut attributes = vec![
            KeyValue::new("http.request.method", method.to_owned()),
            KeyValue::new("url.path", path.split('?').next().unwrap_or_default().to_owned()),
            KeyValue::new("torpor.function", function.to_owned()),
        ];
        if let Some(id) = headers.get(REQUEST_ID).and_then(|id| id.to_str().ok()) {
            attributes.push(KeyValue::new("torpor.request_id", id.to_owned()));
        }
        let builder = self
            .tracer
            .span_builder(format!("{method} {function}"))
            .with_kind(SpanKind::Server)
            .with_start_time(began)
            .with_attributes(attributes);
        let context = parent.with_span(self.tracer.build_with_context(builder, &parent));
        self.propagator.inject_context(&context, &mut HeaderInjector(headers));
        RequestSpan { spans: self.clone(), context, began }
    }
}

/// The trace that a request is part of, as its headers name it.
pub(crate) fn parent_of(headers: &HeaderMap) -> Option<HeaderValue> {
    headers.get("traceparent").cloned()
}

impl RequestSpan {
    /// The request has ended.
    pub fn end(self, request: &Accounted) {
        let Accounted { arrived, passed, answered, phases, code, .. } = request;
        let at = |instant: Instant| self.began + instant.saturating_duration_since(*arrived);
        let now = Instant::now();
        self.phase("queue", at(*arrived), at(passed.unwrap_or(now)), Vec::new());
        if let Some(passed) = *passed {
            let answered = answered.unwrap_or(now);
            let [bind, swap] = before_execution(phases, answered.saturating_duration_since(passed));
            let mut begin = passed;
            for (name, length) in [("bind", bind), ("swap", swap)] {
                if let Some(length) = length {
                    self.phase(name, at(begin), at(begin + length), Vec::new());
                    begin += length;
                }
            }
            let used =
                phases.on_gpu().map(|(_, _, gpu)| KeyValue::new("torpor.gpu_ms", gpu.as_secs_f64() * 1e3));
            let where_to = phases.gpu().map(|gpu| KeyValue::new("torpor.gpu", i64::from(gpu)));
            self.phase("execute", at(begin), at(answered), used.into_iter().chain(where_to).collect());
        }
        if let Some(answered) = *answered {
            self.phase("answer", at(answered), at(now), Vec::new());
        }
        let span = self.context.span();
        span.set_attribute(KeyValue::new("http.response.status_code", i64::from(*code)));
        if let Some(start) = phases.start() {
            span.set_attribute(KeyValue::new("torpor.start", start.word()));
        }
        if *code >= 400 {
            span.set_attribute(KeyValue::new("error.type", code.to_string()));
        }
        if *code >= 500 {
            // What it was is in the answer; of a client's mistake the server makes no error.
            span.set_status(Status::error(""));
        }
        span.end_with_timestamp(at(now));
    }

    fn phase(&self, name: &'static str, begin: SystemTime, end: SystemTime, attributes: Vec<KeyValue>) {
        let tracer = &self.spans.tracer;
        let builder = tracer.span_builder(name).with_start_time(begin).with_attributes(attributes);
        let mut span = tracer.build_with_context(builder, &self.context);
        opentelemetry::trace::Span::end_with_timestamp(&mut span, end);
    }
}

/// How long bind and swap are drawn, if they are known: not longer than the function had the request, whatever is told.
fn before_execution(phases: &Phases, most: Duration) -> [Option<Duration>; 2] {
    let Some((bind, swap, _)) = phases.on_gpu() else { return [None; 2] };
    let bind = bind.min(most);
    [Some(bind), Some(swap.min(most - bind))]
}

#[cfg(test)]
mod tests {
    use super::*;
    use torpor_proto::control::admin::RequestCost;

    #[test]
    fn phases_never_outlast_the_function() {
        let ms = Duration::from_millis;
        let cost =
            RequestCost { known: true, waited_us: 30_000, swapping_us: 20_000, ..RequestCost::default() };
        let phases = Phases { cost: Some(cost), ..Phases::default() };
        assert_eq!(before_execution(&phases, ms(100)), [Some(ms(30)), Some(ms(20))]);
        assert_eq!(before_execution(&phases, ms(40)), [Some(ms(30)), Some(ms(10))]);
        assert_eq!(before_execution(&phases, ms(5)), [Some(ms(5)), Some(ms(0))]);
        assert_eq!(before_execution(&Phases::default(), ms(5)), [None, None]);
    }
}
