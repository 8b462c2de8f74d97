//! Quiet: one at a time has all other sessions launch nothing, until no kernel of theirs runs.
//!
//! Over some calls the driver waits for every kernel of the context, and holds everybody else's calls back meanwhile: where it finds a kernel for the
//! first time, above all (docs/design/memory.md, "What waits for kernels"). A kernel that waits for one that is launched later, as each half of a
//! collective does, then never ends, and the GPU stands still for good. So who needs such a call waits for the quiet by itself, in *windows*:
//! others launch nothing in one, and go on where their kernels have not ended by its end. Each window of somebody is longer than the last, as some
//! kernels are long. Behind each that disturbs others they go on for as long, whoever wants the next one: many may come at once.

use crate::worker::gpu::Links;
use crate::worker::sync::lock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// The first window: longer than most requests' kernels need to end.
const FIRST_WINDOW: Duration = Duration::from_millis(10);
/// The longest one: as long as somebody who launches without a pause may be ahead of the GPU.
const LONGEST_WINDOW: Duration = Duration::from_secs(8);

/// How long others go on between two windows: as long as the last one was, in these bounds. Who waits for a further launch gets it then. They look
/// for the end of a window now and then alone.
const REST: [Duration; 2] = [Duration::from_micros(200), Duration::from_secs(1)];
/// As many times as long as a window that was too short they go on where nobody waits for the quiet.
const LEISURE: u32 = 20;

/// Who keeps it that is no client.
pub(crate) const NO_CLIENT: u64 = u64::MAX - 1;

/// The quiet of one GPU.
#[derive(Debug, Default)]
pub(crate) struct Quiet {
    /// One more than the client that keeps it; 0 for none.
    keeper: AtomicU64,
    /// How many windows there have been.
    windows: AtomicU64,
    /// Somebody has a command and waits with it.
    disturbs: AtomicBool,
    /// Until when nobody begins the next one.
    rest: Mutex<Option<Instant>>,
}

/// A window, until this is dropped.
#[derive(Debug)]
pub(crate) struct Silence {
    quiet: Arc<Quiet>,
    client: u64,
    window: u64,
    began: Instant,
}

/// Somebody's wait for quiet.
#[derive(Debug)]
pub(crate) struct Windows {
    length: Duration,
    at_leisure: bool,
    now: Option<(Silence, Instant)>,
    next: Instant,
}

impl Quiet {
    /// The number of the window that another client keeps, if there is one.
    #[inline]
    pub(crate) fn kept_by_other(&self, client: u64) -> Option<u64> {
        let keeper = self.keeper.load(Ordering::Acquire);
        (keeper != 0 && keeper != client + 1).then(|| self.windows.load(Ordering::Acquire))
    }

    /// Somebody that is kept quiet has a command.
    pub(crate) fn note_disturbed(&self) {
        self.disturbs.store(true, Ordering::Relaxed);
    }

    fn begin(self: &Arc<Self>, client: u64) -> Option<Silence> {
        let began = Instant::now();
        if lock(&self.rest).is_some_and(|rest| began < rest) {
            return None;
        }
        self.keeper.compare_exchange(0, client + 1, Ordering::AcqRel, Ordering::Relaxed).ok()?;
        // Who reads the number before this looks again: what is said of an earlier window does not count.
        let window = self.windows.fetch_add(1, Ordering::AcqRel) + 1;
        Some(Silence { quiet: self.clone(), client, window, began })
    }
}

impl Silence {
    /// Whether nothing of others runs. One that took a command just before the window may launch that still; it launches no further one.
    fn is_kept(&self, links: &Links) -> bool {
        let links = lock(links);
        let mut others = links.values().filter(|link| link.client != self.client && link.may_run());
        others.all(|link| link.hushed.load(Ordering::Acquire) == self.window)
    }

    /// Those hear of it that sleep beside their kernels.
    fn tell(&self, links: &Links) {
        for link in lock(links).values().filter(|link| link.client != self.client && link.may_run()) {
            self.quiet.note_disturbed();
            link.wake();
        }
    }
}

impl Drop for Silence {
    fn drop(&mut self) {
        if self.quiet.disturbs.swap(false, Ordering::Relaxed) {
            let (now, [least, most]) = (Instant::now(), REST);
            *lock(&self.quiet.rest) = Some(now + (now - self.began).clamp(least, most));
        }
        self.quiet.keeper.store(0, Ordering::Release);
    }
}

impl Windows {
    /// None has been yet.
    pub(crate) fn new() -> Self {
        Self { length: FIRST_WINDOW, at_leisure: false, now: None, next: Instant::now() }
    }

    /// As [`Self::new`], for what nobody waits for.
    pub(crate) fn at_leisure() -> Self {
        Self { at_leisure: true, ..Self::new() }
    }

    /// Looks whether it is quiet now, and begins a window or ends one if it is time. What it returns keeps the quiet.
    pub(crate) fn look(&mut self, quiet: &Arc<Quiet>, links: &Links, client: u64) -> Option<Silence> {
        let now = Instant::now();
        let (silence, ends) = match self.now.take() {
            Some(window) => window,
            None if now < self.next => return None,
            // Somebody else may have one.
            None => {
                let silence = quiet.begin(client)?;
                silence.tell(links);
                (silence, now + self.length)
            }
        };
        if silence.is_kept(links) {
            return Some(silence);
        }
        if now < ends {
            self.now = Some((silence, ends));
        } else {
            if self.at_leisure {
                self.next = now + LEISURE * self.length;
            }
            self.length = (2 * self.length).min(LONGEST_WINDOW);
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::worker::mailbox::Link;
    use torpor_proto::layout::AddressRange;

    fn served(clients: [u64; 2]) -> (Links, [Arc<Link>; 2]) {
        let links = Links::default();
        let made =
            clients.map(|client| Arc::new(Link::new(client, "f", AddressRange { address: 0, bytes: 0 })));
        lock(&links).extend(made.iter().map(|link| (link.client, link.clone())));
        (links, made)
    }

    fn run(link: &Link) {
        link.turn.begin();
        link.work.begin();
    }

    /// Looks until a window ends or it is quiet.
    fn until_over(windows: &mut Windows, quiet: &Arc<Quiet>, links: &Links) -> Option<Silence> {
        loop {
            match windows.look(quiet, links, 1) {
                None if windows.now.is_some() => std::thread::yield_now(),
                over => return over,
            }
        }
    }

    #[test]
    fn who_is_alone_has_it_at_once_and_everybody_else_hears_of_it() {
        let (quiet, (links, [own, _other])) = (Arc::default(), served([1, 2]));
        run(&own);
        let silence = Windows::new().look(&quiet, &links, 1).expect("nobody else runs");
        assert_eq!((quiet.kept_by_other(1), quiet.kept_by_other(2)), (None, Some(1)));
        assert!(Windows::new().look(&quiet, &links, 2).is_none(), "one at a time");
        drop(silence);
        assert_eq!(quiet.kept_by_other(2), None);
    }

    #[test]
    fn who_has_a_command_gets_as_long_as_the_window_was() {
        let (quiet, (links, _served)) = (Arc::<Quiet>::default(), served([1, 2]));
        drop(Windows::new().look(&quiet, &links, 1));
        assert_eq!(*lock(&quiet.rest), None, "nobody waited");
        let silence = Windows::new().look(&quiet, &links, 1).expect("there is no rest");
        quiet.note_disturbed();
        std::thread::sleep(FIRST_WINDOW);
        let ended = Instant::now();
        drop(silence);
        assert!(lock(&quiet.rest).is_some_and(|rest| rest >= ended + FIRST_WINDOW));
        *lock(&quiet.rest) = Some(ended + 1000 * FIRST_WINDOW);
        assert!(Windows::new().look(&quiet, &links, 1).is_none(), "its own next one waits, too");
        *lock(&quiet.rest) = Some(ended);
        assert!(Windows::new().look(&quiet, &links, 1).is_some());
    }

    #[test]
    fn who_runs_is_waited_for_until_it_has_said_of_this_window_that_it_runs_no_more() {
        let (quiet, (links, [_own, other])) = (Arc::<Quiet>::default(), served([1, 2]));
        run(&other);
        let mut windows = Windows::new();
        assert!(windows.look(&quiet, &links, 1).is_none());
        other.hushed.store(quiet.kept_by_other(2).expect("a window") - 1, Ordering::Release);
        assert!(windows.look(&quiet, &links, 1).is_none(), "of an earlier one");
        other.hushed.store(quiet.kept_by_other(2).expect("a window"), Ordering::Release);
        assert!(windows.look(&quiet, &links, 1).is_some());
    }

    #[test]
    fn others_go_on_after_a_window_and_the_next_one_is_longer() {
        let (quiet, (links, [_own, other])) = (Arc::<Quiet>::default(), served([1, 2]));
        run(&other);
        let mut windows = Windows::new();
        let began = Instant::now();
        assert!(until_over(&mut windows, &quiet, &links).is_none());
        assert_eq!(quiet.kept_by_other(2), None);
        assert!(lock(&quiet.rest).is_some_and(|rest| rest >= began + 2 * FIRST_WINDOW));
        assert_eq!(windows.length, 2 * FIRST_WINDOW);
        other.work.end();
        while windows.look(&quiet, &links, 1).is_none() {
            std::thread::yield_now();
        }
    }
}
