//! What is given back aside, because the driver waits for every kernel of the context over it, and keeps others' launches waiting
//! meanwhile: page-locked memory of who is gone, slabs of the host store, and images.
//!
//! One thread gives it back at [calm](crate::worker::gpu::calm) moments, several things in one that is kept [quiet](crate::worker::gpu::quiet), and is there
//! as long as there is something. Nobody waits for it: the process ends without it.

use crate::driver::Device;
use crate::worker::gpu::Links;
use crate::worker::gpu::calm::wait_for_calm;
use crate::worker::gpu::quiet::{NO_CLIENT, Quiet, Silence, Windows};
use crate::worker::sync::lock;
use std::any::Any;
use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// How long such a moment is waited for: beside a training loop, whose kernels are short, there is none.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long others are kept from launching at most for more than one thing.
const TOGETHER: Duration = Duration::from_millis(5);

/// Between two looks whether it is quiet.
const NAP: Duration = Duration::from_millis(1);

/// What is to be dropped, and until when that may wait.
type Waiting = (Instant, Box<dyn Any + Send>);

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Waiting>,
    /// A thread has it.
    is_served: bool,
}

/// What waits for being given back.
pub(crate) struct Aside {
    /// Waits for a moment in which that can be done: until then at most for one in which nobody has worked for long.
    enter: Box<dyn Fn(Instant) -> Option<Silence> + Send + Sync>,
    queue: Mutex<Queue>,
}

impl fmt::Debug for Aside {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let waiting = lock(&self.queue).waiting.len();
        formatter.debug_struct("Aside").field("waiting", &waiting).finish_non_exhaustive()
    }
}

impl Aside {
    /// Of what is on a GPU.
    pub(crate) fn of(device: &Arc<Device>, links: &Arc<Links>, quiet: &Arc<Quiet>) -> Arc<Self> {
        let (device, links, quiet) = (device.clone(), links.clone(), quiet.clone());
        Self::new(move |deadline| {
            wait_for_calm(&links, deadline);
            // Without its context the driver gives nothing back, and the process is about to end.
            let _ = device.make_current();
            let mut windows = Windows::at_leisure();
            loop {
                match windows.look(&quiet, &links, NO_CLIENT) {
                    None => std::thread::sleep(NAP),
                    silence => return silence,
                }
            }
        })
    }

    /// `enter` waits for a calm moment, until then at most, and for quiet, and lets the thread call the driver.
    pub(crate) fn new(enter: impl Fn(Instant) -> Option<Silence> + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self { enter: Box::new(enter), queue: Mutex::default() })
    }

    /// Drops it at a calm moment, behind all that was brought before.
    pub(crate) fn give_back(self: &Arc<Self>, thing: impl Send + 'static) {
        let mut queue = lock(&self.queue);
        queue.waiting.push_back((Instant::now() + PATIENCE, Box::new(thing)));
        if std::mem::replace(&mut queue.is_served, true) {
            return;
        }
        drop(queue);
        let aside = self.clone();
        let serve = move || aside.serve();
        if std::thread::Builder::new().name("aside".to_owned()).spawn(serve).is_err() {
            // Without a thread it happens here, at once.
            let left = std::mem::take(&mut *lock(&self.queue));
            drop(left.waiting);
        }
    }

    fn serve(&self) {
        while let Some((deadline, thing)) = self.next() {
            let silence = (self.enter)(deadline);
            drop(thing);
            let began = Instant::now();
            while silence.is_some() && began.elapsed() < TOGETHER {
                let next = lock(&self.queue).waiting.pop_front();
                let Some((_, thing)) = next else { break };
                drop(thing);
            }
        }
    }

    fn next(&self) -> Option<Waiting> {
        let mut queue = lock(&self.queue);
        let next = queue.waiting.pop_front();
        queue.is_served = next.is_some();
        next
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::sync::mpsc::{Sender, channel};

    /// Tells which it is when it is dropped.
    struct Told(u32, Sender<u32>);

    impl Drop for Told {
        fn drop(&mut self) {
            let _ = self.1.send(self.0);
        }
    }

    #[test]
    fn things_wait_for_moments_and_nobody_for_the_things() {
        let (calm, is_calm) = channel();
        let (gone, has_gone) = channel();
        let is_calm = Mutex::new(is_calm);
        let aside = Aside::new(move |_| {
            lock(&is_calm).recv().expect("the test waits");
            None
        });
        for round in 0..2 {
            (0..3).for_each(|number| aside.give_back(Told(number, gone.clone())));
            // Nobody keeps these quiet, so each has its own.
            for number in 0..3 {
                assert!(has_gone.try_recv().is_err(), "no moment was calm in round {round}");
                calm.send(()).unwrap();
                assert_eq!(has_gone.recv(), Ok(number));
            }
        }
    }

    #[test]
    fn in_one_quiet_moment_several_things_go() {
        const THINGS: u32 = 500;
        let (quiet, links) = (Arc::<Quiet>::default(), Arc::<Links>::default());
        let ((gone, has_gone), moments) = (channel(), Arc::new(AtomicU32::new(0)));
        let entered = moments.clone();
        let aside = Aside::new(move |_| {
            // Until all are brought.
            while entered.load(Ordering::Relaxed) == 0 {
                std::thread::yield_now();
            }
            entered.fetch_add(1, Ordering::Relaxed);
            Windows::at_leisure().look(&quiet, &links, NO_CLIENT)
        });
        (0..THINGS).for_each(|number| aside.give_back(Told(number, gone.clone())));
        moments.store(1, Ordering::Relaxed);
        assert!((0..THINGS).all(|number| has_gone.recv() == Ok(number)));
        assert!(moments.load(Ordering::Relaxed) < THINGS / 2);
    }
}
