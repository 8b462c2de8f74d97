//! Batches: requests of one function that are adjacent in time and alike become one for its process.
//!
//! A batch is opened by a request that finds none that it fits into. It is filled while it waits: for its window, and then for its
//! place at a process. When it has that, nobody joins any more. [`kind`] says what a batch is on the wire.

pub mod kind;
mod kserve;
mod pass;

use crate::batch::kind::{Item, Kind};
use crate::batch::kserve::Signature;
use crate::error::Refusal;
use crate::phases::Phases;
use crate::queue::Priority;
use crate::terms::Terms;
use hyper::StatusCode;
use hyper::body::Bytes;
use hyper::header::HeaderValue;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{Notify, oneshot};

/// What a function declares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Batching {
    /// Rows of a batch at most; at least one.
    pub size: usize,
    /// How long its first request waits for others.
    pub window: Duration,
}

/// What requests of one batch have in common.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Key {
    kind: Kind,
    /// With its query.
    path: String,
    priority: Priority,
    signature: Signature,
}

/// A request in a batch.
#[derive(Debug)]
struct Member {
    item: Item,
    terms: Terms,
    /// When its answer should be there.
    due: Instant,
    id: HeaderValue,
    /// The trace that it is part of.
    trace: Option<HeaderValue>,
    answer: oneshot::Sender<Result<Part, Refusal>>,
}

/// What a request gets of its batch's answer.
#[derive(Clone, Debug)]
struct Part {
    status: StatusCode,
    content_type: Option<HeaderValue>,
    body: Bytes,
    /// Requests in the batch.
    requests: usize,
    /// When the batch had its place.
    passed: Instant,
    phases: Phases,
}

/// A batch that is filled.
#[derive(Debug)]
struct Batch {
    key: Key,
    /// `None` once nobody may join.
    members: Mutex<Option<Vec<Member>>>,
    full: Notify,
}

/// The batch of a function that requests may join.
#[derive(Debug, Default)]
pub struct Batches(Mutex<Option<Arc<Batch>>>);

impl Batches {
    /// Puts a request into the open batch, or into a new one, which is returned.
    fn join(&self, key: Key, member: Member, size: usize) -> Option<Arc<Batch>> {
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let member = match &*open {
            Some(batch) if batch.key == key => batch.join(member, size)?,
            _ => member,
        };
        let batch = Arc::new(Batch { key, members: Mutex::new(Some(Vec::new())), full: Notify::new() });
        // A new one has room.
        let _ = batch.join(member, usize::MAX);
        if batch.rows() >= size {
            batch.full.notify_one();
        }
        *open = Some(batch.clone());
        Some(batch)
    }
}

impl Batch {
    fn members(&self) -> MutexGuard<'_, Option<Vec<Member>>> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn rows(&self) -> usize {
        self.members().iter().flatten().map(|member| member.item.rows).sum()
    }

    /// Gives the request back if it does not fit.
    fn join(&self, member: Member, size: usize) -> Option<Member> {
        let mut members = self.members();
        let Some(joined) = members.as_mut() else { return Some(member) };
        let rows: usize = joined.iter().map(|member| member.item.rows).sum();
        if rows.saturating_add(member.item.rows) > size {
            // What comes later would overtake it.
            self.full.notify_one();
            return Some(member);
        }
        if rows + member.item.rows == size {
            self.full.notify_one();
        }
        joined.push(member);
        None
    }

    /// The terms of all that still wait, and when the first answer should be there; `None` if nobody waits.
    fn terms(&self, now: Instant) -> Option<(Terms, Instant)> {
        let mut members = self.members();
        let joined = members.as_mut()?;
        joined.retain(|member| !member.answer.is_closed() && member.terms.deadline > now);
        let deadline = joined.iter().map(|member| member.terms.deadline).max()?;
        let due = joined.iter().map(|member| member.due).min()?;
        Some((Terms { deadline, priority: self.key.priority }, due))
    }

    /// Nobody joins any more.
    fn close(&self) -> Vec<Member> {
        let mut members = self.members().take().unwrap_or_default();
        members.retain(|member| !member.answer.is_closed());
        members
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(path: &str) -> Key {
        Key {
            kind: Kind::List,
            path: path.to_owned(),
            priority: Priority::Normal,
            signature: Signature::default(),
        }
    }

    fn member(patience_ms: u64) -> (Member, oneshot::Receiver<Result<Part, Refusal>>) {
        let (answer, told) = oneshot::channel();
        let (item, _) = Kind::List.read(b"1").unwrap().unwrap();
        let deadline = Instant::now() + Duration::from_millis(patience_ms);
        let terms = Terms { deadline, priority: Priority::Normal };
        (Member { item, terms, due: deadline, id: HeaderValue::from_static("id"), trace: None, answer }, told)
    }

    #[test]
    fn requests_join_until_it_is_full_or_closed_or_another_kind_comes() {
        let batches = Batches::default();
        let (mut waiting, mut opened) = (Vec::new(), Vec::new());
        let mut come = |path: &str| {
            let (member, told) = member(60_000);
            waiting.push(told);
            opened.extend(batches.join(key(path), member, 3));
            opened.len()
        };
        assert_eq!([come("/a"), come("/a"), come("/a"), come("/a")], [1, 1, 1, 2]);
        assert_eq!([come("/b"), come("/a"), come("/a")], [3, 4, 4], "adjacent ones alone");
        let sizes: Vec<_> = opened.iter().map(|batch| batch.close().len()).collect();
        assert_eq!(sizes, [3, 1, 1, 2]);
        let (late, _told) = member(60_000);
        assert!(batches.join(key("/a"), late, 3).is_some(), "the last one is closed");
    }

    #[test]
    fn who_has_left_is_not_waited_for_and_the_most_patient_decides() {
        let batches = Batches::default();
        let ((hasty, _hasty), (patient, _patient), (left, gone)) =
            (member(50_000), member(90_000), member(99_000));
        let (due, deadline) = (hasty.due, patient.terms.deadline);
        let batch = batches.join(key("/a"), hasty, 9).unwrap();
        assert!(batches.join(key("/a"), patient, 9).is_none() && batches.join(key("/a"), left, 9).is_none());
        drop(gone);
        let (terms, first) = batch.terms(Instant::now()).unwrap();
        assert_eq!((terms.deadline, first), (deadline, due));
        assert!(batch.terms(Instant::now() + Duration::from_secs(95)).is_none());
    }
}
