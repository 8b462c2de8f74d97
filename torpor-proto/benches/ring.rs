//! What the channel itself costs, without shim, worker and GPU: a channel in real shared memory, a thread at each end.
//!
//! - `ring/push`: appending a typical launch to a ring with room, while the consumer takes what is there. The goal for a
//!   whole posted call, which this is a part of, is 500 ns.
//! - `ring/stream`: the same until the last record is taken, so the slower end counts.
//! - `ring/round_trip`: an awaited command, from the push to its answer, both threads awake. The goal for a whole
//!   awaited call is 10 µs. On a machine whose CPUs are all busy this measures the scheduler.

use criterion::{Criterion, criterion_group, criterion_main};
use std::hint::black_box;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use torpor_proto::channel::{Channel, MappedChannel, RING_WORDS};
use torpor_proto::completion::Waited;
use torpor_proto::ring::{Bell, Consumer, HEADER_WORDS, NO_SLOT, Producer, Record, wake_consumer};

/// A launch: its fixed part, and its parameters and attributes.
const BODY: [u64; 12] = [7; 12];
const TAIL: [u8; 128] = [9; 128];

/// Records in a row. They fit the ring, so a push never waits.
const BURST: usize = 2000;

const _: () = assert!(BURST * (HEADER_WORDS + BODY.len() + TAIL.len() / 8) <= RING_WORDS);

const OPCODE: u16 = 3;
const SLOT: u16 = 0;

/// How often the consumer looks in vain before it sleeps. A sleep ends with a record, so the number only has to be large.
const SPINS: u32 = 1 << 16;
const SLEEP: Duration = Duration::from_millis(100);

/// Takes records, and answers those that want it, until told to end.
fn consume(channel: &Channel, ends: &AtomicBool) {
    let (mut consumer, mut record) = (Consumer::resume(channel.ring()), Record::default());
    let bell = Bell::default();
    let mut spins = 0;
    while !ends.load(Ordering::Relaxed) {
        let popped = consumer.pop(channel.ring(), &channel.words, &mut record);
        if popped.expect("the producer is honest") {
            spins = 0;
            let (body, tail) = black_box(&record).parts(BODY.len()).expect("the record is whole");
            black_box((body, tail));
            if record.header().slot != NO_SLOT {
                channel.slots[usize::from(record.header().slot)].complete(Ok(()), &[1, 2], &[]);
            }
        } else if spins < SPINS {
            spins += 1;
            std::hint::spin_loop();
        } else {
            consumer.wait(channel.ring(), &bell, SLEEP);
        }
    }
}

/// The client's end.
struct Client<'a> {
    channel: &'a Channel,
    producer: Producer,
}

impl Client<'_> {
    #[inline]
    fn push(&mut self, slot: u16) {
        let (control, words) = (self.channel.ring(), &self.channel.words);
        let pushed = self.producer.push(control, words, OPCODE, slot, black_box(&BODY), black_box(&TAIL));
        assert!(pushed, "a burst fits the ring");
    }

    fn wait_until_drained(&self) {
        while !self.channel.ring().is_drained() {
            std::hint::spin_loop();
        }
    }

    /// Time for `count` records, in bursts that begin with an empty ring.
    fn time_bursts(&mut self, count: u64, until_taken: bool) -> Duration {
        let (mut left, mut total) = (count, Duration::ZERO);
        while left > 0 {
            let burst = left.min(BURST as u64);
            let began = Instant::now();
            (0..burst).for_each(|_| self.push(NO_SLOT));
            if until_taken {
                self.wait_until_drained();
            }
            total += began.elapsed();
            self.wait_until_drained();
            left -= burst;
        }
        total
    }

    fn round_trip(&mut self, answer: &mut Vec<u64>) {
        let slot = &self.channel.slots[usize::from(SLOT)];
        slot.prepare();
        self.push(SLOT);
        let mut spins = 0;
        while !slot.is_done() {
            spins += 1;
            std::hint::spin_loop();
            if spins == SPINS {
                while slot.sleep(SLEEP) == Waited::TimedOut {}
            }
        }
        let (status, bytes) = slot.take(answer);
        assert_eq!((status, bytes), (Ok(()), 16));
    }
}

fn ring(criterion: &mut Criterion) {
    let (theirs, file) = MappedChannel::create().expect("shared memory");
    let ours = MappedChannel::open(&file).expect("the channel just made");
    let ends = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| consume(&theirs, &ends));
        let mut client = Client { channel: &ours, producer: Producer::new() };
        let mut group = criterion.benchmark_group("ring");
        group.bench_function("push", |bencher| {
            bencher.iter_custom(|count| client.time_bursts(count, false));
        });
        group.bench_function("stream", |bencher| {
            bencher.iter_custom(|count| client.time_bursts(count, true));
        });
        let mut answer = Vec::new();
        group.bench_function("round_trip", |bencher| bencher.iter(|| client.round_trip(&mut answer)));
        group.finish();
        ends.store(true, Ordering::Relaxed);
        wake_consumer(ours.ring());
    });
}

criterion_group!(benches, ring);
criterion_main!(benches);
