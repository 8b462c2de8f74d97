//! What a batch is on the wire: how the bodies of its requests become one, and the answer becomes theirs.
//!
//! Of `/invoke`, a batch is the JSON list of the bodies, and its answer the list of the answers in the same order (as a method
//! under Ray Serve's `@serve.batch` has it). Of KServe v2's `infer`, it is one request whose tensors have those of all behind each
//! other along their first dimension (as Triton and KServe's batcher have it).

use crate::batch::kserve::{self, InferRequest, Signature};
use hyper::header::CONTENT_TYPE;
use hyper::{HeaderMap, Method};
use serde_json::value::RawValue;
use std::fmt::Write;

/// Why an answer cannot be shared out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NoBatch(pub String);

/// Which contract a request is batched by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A list of bodies.
    List,
    /// KServe's tensors.
    Infer,
}

/// What one request brings to a batch.
#[derive(Clone, Debug)]
pub struct Item {
    content: Content,
    /// How much of the batch it fills: rows of its tensors.
    pub rows: usize,
}

#[derive(Clone, Debug)]
enum Content {
    Value(Box<RawValue>),
    Infer(InferRequest),
}

impl Kind {
    /// That of a request at `path` of its process; `None` if its like are not batched.
    #[must_use]
    pub fn of(method: &Method, path: &str, headers: &HeaderMap) -> Option<Self> {
        let kind = headers.get(CONTENT_TYPE).map_or(Some("application/json"), |kind| kind.to_str().ok())?;
        let essence = kind.split(';').next().unwrap_or_default().trim();
        if method != Method::POST || !essence.eq_ignore_ascii_case("application/json") {
            return None;
        }
        let path = path.split('?').next().unwrap_or_default();
        match path {
            "/invoke" => Some(Self::List),
            _ if path.starts_with("/v2/models/") && path.ends_with("/infer") => Some(Self::Infer),
            _ => None,
        }
    }

    /// Reads a body: what it brings, and what those must have in common that it is batched with. `None` if it can only be alone.
    ///
    /// # Errors
    /// It is no JSON.
    pub fn read(self, body: &[u8]) -> Result<Option<(Item, Signature)>, serde_json::Error> {
        match self {
            Self::List => {
                let value = serde_json::from_slice::<Box<RawValue>>(body)?;
                Ok(Some((Item { content: Content::Value(value), rows: 1 }, Signature::default())))
            }
            Self::Infer => {
                // What is no inference request is the function's to refuse.
                let _: &RawValue = serde_json::from_slice(body)?;
                let Ok(request) = serde_json::from_slice::<InferRequest>(body) else { return Ok(None) };
                let Some((rows, signature)) = request.rows().zip(request.signature()) else {
                    return Ok(None);
                };
                Ok(Some((Item { content: Content::Infer(request), rows }, signature)))
            }
        }
    }
}

/// One body of those of all items, which have one signature.
#[must_use]
pub fn merge(items: &[Item]) -> String {
    let mut values = Vec::new();
    let mut requests = Vec::new();
    for item in items {
        match &item.content {
            Content::Value(value) => values.push(value.get()),
            Content::Infer(request) => requests.push(request),
        }
    }
    if requests.is_empty() {
        let mut list = String::from("[");
        for (at, value) in values.iter().enumerate() {
            // A String takes all that is written.
            let _ = write!(list, "{}{value}", if at == 0 { "" } else { "," });
        }
        return list + "]";
    }
    kserve::merge(&requests)
}

/// The answer to [`merge`]'s body as one for each item.
///
/// # Errors
/// [`NoBatch`] if it is not one for each.
pub fn split(items: &[Item], answer: &[u8]) -> Result<Vec<String>, NoBatch> {
    let requests: Vec<_> = items
        .iter()
        .filter_map(|item| match &item.content {
            Content::Infer(request) => Some((request, item.rows)),
            Content::Value(_) => None,
        })
        .collect();
    if !requests.is_empty() {
        return kserve::split(&requests, answer);
    }
    let list: Vec<Box<RawValue>> = serde_json::from_slice(answer)
        .map_err(|_| NoBatch(format!("a batch of {} must be answered with a JSON list", items.len())))?;
    if list.len() != items.len() {
        return Err(NoBatch(format!(
            "a batch of {} was answered with a list of {}",
            items.len(),
            list.len()
        )));
    }
    Ok(list.iter().map(|value| value.get().to_owned()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::header::HeaderValue;

    fn item(kind: Kind, body: &str) -> Item {
        kind.read(body.as_bytes()).unwrap().unwrap().0
    }

    #[test]
    fn a_batch_of_invocations_is_their_list_as_they_were_written() {
        let items = [r#"{"a": 1.50, "b":[]}"#, "null", r#""x""#].map(|body| item(Kind::List, body));
        assert_eq!(merge(&items), r#"[{"a": 1.50, "b":[]},null,"x"]"#);
        let answers = split(&items, br#"[ {"y":1e400}, 2,"three" ]"#).unwrap();
        assert_eq!(answers, [r#"{"y":1e400}"#, "2", r#""three""#]);
    }

    #[test]
    fn an_answer_that_is_not_one_for_each_is_nobody_s() {
        let items = ["1", "2"].map(|body| item(Kind::List, body));
        for (answer, words) in
            [("[1]", "a list of 1"), ("{}", "must be answered with a JSON list"), ("", "JSON list")]
        {
            let error = split(&items, answer.as_bytes()).unwrap_err().to_string();
            assert!(error.contains("a batch of 2") && error.contains(words), "{error}");
        }
        assert!(Kind::List.read(b"{]").is_err() && Kind::Infer.read(b"").is_err());
    }

    #[test]
    fn json_that_is_posted_to_invoke_or_infer_is_batched() {
        let of = |method: Method, path: &str, kind: Option<&'static str>| {
            let headers = kind.map(|kind| (CONTENT_TYPE, HeaderValue::from_static(kind)));
            Kind::of(&method, path, &headers.into_iter().collect())
        };
        assert_eq!(of(Method::POST, "/invoke?top=5", None), Some(Kind::List));
        assert_eq!(of(Method::POST, "/invoke", Some("application/json; charset=utf-8")), Some(Kind::List));
        assert_eq!(of(Method::POST, "/v2/models/m/infer", None), Some(Kind::Infer));
        assert_eq!(of(Method::POST, "/invoke", Some("image/png")), None);
        assert_eq!(of(Method::GET, "/invoke", None), None);
        assert_eq!(of(Method::POST, "/invoke/other", None), None);
        assert_eq!(of(Method::POST, "/v1/chat/completions", None), None);
    }
}
