//! What is given back aside, because the driver waits for every kernel of the context over it, and keeps others' launches waiting
//! meanwhile: page-locked memory of who is gone, slabs of the host store, and images.
//!
//! One thread gives it back, each thing at a [calm](crate::worker::gpu::calm) moment, and is there as long as there is something. Nobody
//! waits for it: the process ends without it.

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
            drop(silence);
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
    use std::sync::mpsc::{Sender, channel};

    /// Tells which it is when it is dropped.
    struct Told(u32, Sender<u32>);

    impl Drop for Told {
        fn drop(&mut self) {
            let _ = self.1.send(self.0);
        }
    }

    #[test]
    fn each_thing_waits_for_a_moment_of_its_own_and_nobody_for_the_things() {
        let (calm, is_calm) = channel();
        let (gone, has_gone) = channel();
        let is_calm = Mutex::new(is_calm);
        let aside = Aside::new(move |_| {
            lock(&is_calm).recv().expect("the test waits");
            None
        });
        for round in 0..2 {
            (0..3).for_each(|number| aside.give_back(Told(number, gone.clone())));
            for number in 0..3 {
                assert!(has_gone.try_recv().is_err(), "no moment was calm in round {round}");
                calm.send(()).unwrap();
                assert_eq!(has_gone.recv(), Ok(number));
            }
        }
    }
}
