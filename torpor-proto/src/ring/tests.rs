//! The ring against what goes in and against nonsense.

use super::*;
use proptest::prelude::*;

fn ring(words: usize) -> (Control, Vec<AtomicU64>) {
    (Control::default(), (0..words).map(|_| AtomicU64::new(0)).collect())
}

proptest! {
    #[test]
    fn records_come_out_as_they_went_in(
        records in prop::collection::vec(
            (0..100u16, prop::collection::vec(any::<u64>(), 0..8), prop::collection::vec(any::<u8>(), 0..50)),
            0..40,
        )
    ) {
        let (control, words) = ring(64);
        let (mut producer, mut consumer) = (Producer::new(), Consumer::default());
        let mut record = Record::default();
        for (opcode, body, tail) in &records {
            while !producer.push(&control, &words, *opcode, NO_SLOT, body, tail) {
                prop_assert!(consumer.pop(&control, &words, &mut record).unwrap());
            }
            while consumer.pop(&control, &words, &mut record).unwrap() {}
            prop_assert_eq!(record.header().opcode, *opcode);
            prop_assert_eq!(record.parts(body.len()).unwrap(), (&body[..], &tail[..]));
        }
    }

    #[test]
    fn nonsense_is_refused_and_never_read_out_of_bounds(
        tail in any::<u64>(), contents in prop::collection::vec(any::<u64>(), 64), body in 0..6000usize
    ) {
        let (control, words) = ring(64);
        control.tail.0.store(tail, Ordering::Release);
        for (word, value) in words.iter().zip(contents) {
            word.store(value, Ordering::Relaxed);
        }
        let mut record = Record::default();
        let mut consumer = Consumer::default();
        while let Ok(true) = consumer.pop(&control, &words, &mut record) {
            let _ = record.parts(body);
        }
    }

    #[test]
    fn a_record_encoded_alone_is_the_record_of_the_ring(
        body in prop::collection::vec(any::<u64>(), 0..8), tail in prop::collection::vec(any::<u8>(), 0..50)
    ) {
        let mut alone = Vec::new();
        encode_record(&mut alone, 7, 3, &body, &tail);
        let (control, words) = ring(64);
        prop_assert!(Producer::new().push(&control, &words, 7, 3, &body, &tail));
        let mut record = Record::default();
        prop_assert!(Consumer::default().pop(&control, &words, &mut record).unwrap());
        prop_assert_eq!(&record.words, &alone);
        prop_assert_eq!(&Record::from_words(&alone).unwrap().words, &alone);
    }
}

#[test]
fn a_full_ring_refuses_and_keeps_what_it_has() {
    let (control, words) = ring(8);
    let mut producer = Producer::new();
    assert!(producer.push(&control, &words, 1, NO_SLOT, &[11, 12, 13, 14], &[]));
    assert!(!producer.push(&control, &words, 2, NO_SLOT, &[21], &[]));
    let (mut consumer, mut record) = (Consumer::default(), Record::default());
    assert!(consumer.pop(&control, &words, &mut record).unwrap());
    assert_eq!(record.parts(4).unwrap().0, [11, 12, 13, 14]);
    assert!(producer.push(&control, &words, 2, NO_SLOT, &[21], &[]));
    assert!(consumer.pop(&control, &words, &mut record).unwrap());
    assert_eq!(record.parts(1).unwrap().0, [21]);
}
