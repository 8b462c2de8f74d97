//! The ring in every interleaving of its two sides: run with
//! `RUSTFLAGS="--cfg loom" cargo test -p torpor-proto --release --lib ring::model`.

use super::*;
use loom::sync::Arc;
use loom::thread;
use std::time::Duration;

fn ring(words: usize) -> Arc<(Control, Vec<AtomicU64>)> {
    Arc::new((Control::default(), (0..words).map(|_| AtomicU64::new(0)).collect()))
}

fn take(shared: &(Control, Vec<AtomicU64>), consumer: &mut Consumer, record: &mut Record) -> u64 {
    while !consumer.pop(&shared.0, &shared.1, record).unwrap() {
        consumer.wait(&shared.0, &Bell::default(), Duration::MAX);
    }
    record.parts(1).unwrap().0[0]
}

#[test]
fn every_record_arrives_whole_and_no_wake_up_is_lost() {
    loom::model(|| {
        let shared = ring(8);
        let theirs = shared.clone();
        let producer = thread::spawn(move || {
            let mut producer = Producer::new();
            for value in [1, 2] {
                assert!(producer.push(&theirs.0, &theirs.1, 9, NO_SLOT, &[value], &[]));
            }
        });
        let (mut consumer, mut record) = (Consumer::default(), Record::default());
        assert_eq!(take(&shared, &mut consumer, &mut record), 1);
        assert_eq!(take(&shared, &mut consumer, &mut record), 2);
        producer.join().unwrap();
    });
}

#[test]
fn a_producer_that_waits_for_room_gets_it() {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(3);
    model.check(|| {
        let shared = ring(4);
        let theirs = shared.clone();
        let producer = thread::spawn(move || {
            let mut producer = Producer::new();
            for value in [1, 2] {
                while !producer.push(&theirs.0, &theirs.1, 9, NO_SLOT, &[value], &[]) {
                    producer.wait_for_room(&theirs.0, Duration::MAX);
                }
            }
        });
        let (mut consumer, mut record) = (Consumer::default(), Record::default());
        assert_eq!(take(&shared, &mut consumer, &mut record), 1);
        assert_eq!(take(&shared, &mut consumer, &mut record), 2);
        producer.join().unwrap();
    });
}

#[test]
fn who_rings_is_heard_whenever_the_consumer_lies_down() {
    loom::model(|| {
        let shared = Arc::new((Control::default(), Bell::default(), AtomicU32::new(0)));
        let theirs = shared.clone();
        let ringer = thread::spawn(move || {
            theirs.2.store(1, Ordering::Relaxed);
            theirs.1.ring(&theirs.0);
        });
        let consumer = Consumer::default();
        while shared.2.load(Ordering::Relaxed) == 0 {
            consumer.wait(&shared.0, &shared.1, Duration::MAX);
        }
        ringer.join().unwrap();
    });
}
