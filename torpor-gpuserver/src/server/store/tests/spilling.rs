//! Chunks in files, and what goes wrong with these.

use super::worker::Worker;
use super::*;

#[tokio::test]
async fn the_longest_idle_function_is_spilled_and_comes_back() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(2, Some((directory.path(), 100)));
    let mut worker = Worker::new(&store);
    worker.make(1, &[1, 2, 3]).await.unwrap();
    worker.make(2, &[4, 5, 6]).await.unwrap();
    // What nobody has identified is kept as well.
    let unknown = worker.reserve(1, 1).await.unwrap();
    memory(&store, unknown[0].slot).copy_in(&bytes(9));
    worker.make(3, &[7, 8, 1]).await.unwrap();
    assert_eq!(worker.revoked, [2], "the first used the store later");
    assert_eq!(store.usage().index.spilled, 2);
    assert_sound(&store).await;
    // The third holds the 1 that the first has too.
    worker.make(3, &[10, 11, 12, 13]).await.unwrap();
    assert_eq!(worker.revoked, [2, 1]);
    assert_eq!(contents(&store, &worker.lease(2).await.unwrap()), [4, 5, 6]);
    assert_eq!(contents(&store, &worker.lease(1).await.unwrap()), [1, 2, 3, 9]);
    assert_eq!(contents(&store, &worker.lease(3).await.unwrap()), [1, 7, 8, 10, 11, 12, 13]);
    let spilled = store.usage().index.spilled;
    files_left(directory.path(), spilled).await;
    (1..4).for_each(|client| store.forget(ClientId(client)));
    files_left(directory.path(), 0).await;
    assert_eq!((store.usage().index.used_slots, store.usage().index.spilled), (0, 0));
}

#[tokio::test]
async fn full_files_refuse_reservations_but_not_exchanges() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(1, Some((directory.path(), 4)));
    let mut worker = Worker::new(&store);
    worker.make(1, &[1, 2, 3, 4]).await.unwrap();
    worker.make(2, &[5, 6, 7, 8]).await.unwrap();
    let refusal = worker.reserve(3, 1).await.unwrap_err();
    let expected = "function cleo needs 2 MiB of host memory, but 8 MiB of the host pool of 8 MiB and 8 MiB of the spill limit of 8 MiB are in use";
    assert!(refusal.contains(expected), "{refusal}");
    for _ in 0..2 {
        assert_eq!(contents(&store, &worker.lease(1).await.unwrap()), [1, 2, 3, 4]);
        assert_eq!(contents(&store, &worker.lease(2).await.unwrap()), [5, 6, 7, 8]);
    }
    files_left(directory.path(), 4).await;
}

#[tokio::test]
async fn a_damaged_file_fails_the_functions_that_refer_to_it_alone() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(1, Some((directory.path(), 100)));
    let mut worker = Worker::new(&store);
    let damaged = worker.make(1, &[1, 2]).await.unwrap()[0].chunk;
    worker.make(2, &[3, 4]).await.unwrap();
    worker.make(3, &[5, 6, 7, 8]).await.unwrap();
    let path = directory.path().join(format!("{damaged:016x}.torpor-chunk"));
    std::fs::write(&path, bytes(9)).unwrap();
    let report = store.verify().await;
    assert_eq!(report.damaged.len(), 1);
    for named in ["function ada", path.to_str().unwrap(), "damaged"] {
        assert!(report.damaged[0].contains(named), "{report:?}");
    }
    let refusal = worker.lease(1).await.unwrap_err();
    assert!(refusal.contains("function ada") && refusal.contains(path.to_str().unwrap()), "{refusal}");
    std::fs::remove_file(&path).unwrap();
    let refusal = worker.lease(1).await.unwrap_err();
    assert!(refusal.contains("No such file"), "{refusal}");
    assert_eq!(contents(&store, &worker.lease(2).await.unwrap()), [3, 4]);
    // Somebody brings the content again.
    let again = worker.make(2, &[1]).await.unwrap();
    assert_eq!(again[0].chunk, damaged);
    assert_eq!(contents(&store, &worker.lease(1).await.unwrap()), [1, 2]);
    assert_sound(&store).await;
}

#[tokio::test]
async fn a_chunk_that_changed_in_memory_is_found_and_never_spilled() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(1, Some((directory.path(), 100)));
    let mut worker = Worker::new(&store);
    let places = worker.make(1, &[1, 2]).await.unwrap();
    memory(&store, places[0].slot).copy_in(&bytes(9));
    let damaged = store.verify().await.damaged;
    assert_eq!(damaged.len(), 1);
    assert!(damaged[0].contains("function ada") && damaged[0].contains("slot 0 has changed"), "{damaged:?}");
    let refusal = worker.reserve(2, 4).await.unwrap_err();
    assert!(refusal.contains("not idle"), "{refusal}");
    worker.reserve(2, 3).await.unwrap();
    assert_eq!(store.usage().index.spilled, 1);
}

#[tokio::test]
async fn a_file_that_cannot_be_written_is_named_and_nothing_is_lost() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(1, Some((directory.path(), 100)));
    let mut worker = Worker::new(&store);
    let places = worker.make(1, &[1, 2, 3]).await.unwrap();
    let in_the_way = directory.path().join(format!("{:016x}.torpor-chunk", places[1].chunk));
    std::fs::create_dir(&in_the_way).unwrap();
    let refusal = worker.reserve(2, 4).await.unwrap_err();
    assert!(refusal.contains(in_the_way.to_str().unwrap()), "{refusal}");
    std::fs::remove_dir(&in_the_way).unwrap();
    assert_eq!(contents(&store, &worker.lease(1).await.unwrap()), [1, 2, 3]);
    assert_sound(&store).await;
}
