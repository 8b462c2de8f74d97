//! Spreading: which busy clients leave a GPU that has many of them for one that has fewer.
//!
//! A client's *load* is the part of the time in which it has had work: 1 for one that never pauses. Where the loads of a GPU
//! come to more than 1, its clients share it; a move saves a part of the time that each client's work takes, and costs the client
//! the way of its memory to the host and to the other GPU. Who has been busy for a while is expected to be so for as long again.

use std::time::Duration;

/// Bytes that come to a GPU or leave it within a second.
const BYTES_PER_SECOND: f64 = 50e9;

/// What a move takes beside the way of the memory: streams, kernels and page-locked memory are made anew.
const MOVE_SECONDS: f64 = 0.02;

/// A part of the time that is too little to move anybody for, and less than what measured loads are wrong by.
const LEAST_PART: f64 = 0.2;

/// A GPU.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Gpu {
    /// It serves.
    pub usable: bool,
    /// The loads of all clients that are there, or on the way to it.
    pub load: f64,
    /// Device memory that a client could have there without driving out somebody who is busy or pinned.
    pub room_bytes: u64,
}

/// A client that may move.
#[derive(Clone, Debug, PartialEq)]
pub struct Busy {
    /// Its number.
    pub client: u64,
    /// Where it is.
    pub gpu: usize,
    /// How much of the time it has work.
    pub load: f64,
    /// How long it has been so.
    pub lasting: Duration,
    /// Its device memory.
    pub bytes: u64,
    /// The GPUs that it may be on.
    pub places: Vec<usize>,
}

/// Who moves, and to which GPU; the one who gains most first.
///
/// ```
/// use std::time::Duration;
/// use torpor_gpuserver::policy::spreading::{Busy, Gpu, spread};
///
/// let gpu = |load| Gpu { usable: true, load, room_bytes: 80 << 30 };
/// let busy = |client, bytes| {
///     Busy { client, gpu: 0, load: 1.0, lasting: Duration::from_millis(300), bytes, places: vec![0, 1] }
/// };
/// // Of two that share a GPU, the one whose memory is little goes.
/// assert_eq!(spread(&[gpu(2.0), gpu(0.0)], &[busy(1, 20 << 30), busy(2, 1 << 30)]), [(2, 1)]);
/// // It is not worth the while of one that has much, and not busy for long.
/// assert_eq!(spread(&[gpu(2.0), gpu(0.0)], &[busy(1, 20 << 30)]), []);
/// ```
#[must_use]
pub fn spread(gpus: &[Gpu], clients: &[Busy]) -> Vec<(u64, usize)> {
    let (mut gpus, mut left, mut moves) = (gpus.to_vec(), Vec::from_iter(clients), Vec::new());
    loop {
        let choices = left.iter().enumerate().flat_map(|(at, client)| {
            let gpus = &gpus;
            client.places.iter().filter_map(move |&to| Some((gain(gpus, client, to)?, at, to)))
        });
        // Of equal ones the first.
        let best = choices.reduce(|best, choice| if choice.0 > best.0 { choice } else { best });
        let Some((_, at, to)) = best else { return moves };
        let client = left.swap_remove(at);
        gpus[client.gpu].load -= client.load;
        gpus[to].load += client.load;
        gpus[to].room_bytes -= client.bytes;
        moves.push((client.client, to));
    }
}

/// The seconds that a client gains by a move, if it gains any.
fn gain(gpus: &[Gpu], client: &Busy, to: usize) -> Option<f64> {
    let (here, there) = (gpus.get(client.gpu)?, gpus.get(to)?);
    if to == client.gpu || !there.usable || there.room_bytes < client.bytes {
        return None;
    }
    let part = 1.0 - (there.load + client.load).max(1.0) / here.load.max(1.0);
    let cost = MOVE_SECONDS + 2.0 * client.bytes as f64 / BYTES_PER_SECOND;
    let gain = client.lasting.as_secs_f64() * client.load * part - cost;
    (part >= LEAST_PART && gain > 0.0).then_some(gain)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const GIB: u64 = 1 << 30;

    fn gpu(load: f64) -> Gpu {
        Gpu { usable: true, load, room_bytes: 80 * GIB }
    }

    fn busy(client: u64, gpu: usize, lasting_ms: u64, bytes: u64) -> Busy {
        let lasting = Duration::from_millis(lasting_ms);
        Busy { client, gpu, load: 0.95, lasting, bytes, places: vec![0, 1, 2] }
    }

    #[test]
    fn six_that_never_pause_are_three_and_three() {
        let clients: Vec<_> = (0..6).map(|client| busy(client, 0, 200, GIB / 4)).collect();
        let moves = spread(&[gpu(6.0 * 0.95), gpu(0.0)], &clients);
        assert_eq!(moves.len(), 3);
        assert!(moves.iter().all(|&(_, to)| to == 1));
        let gpus = [gpu(3.0 * 0.95), gpu(3.0 * 0.95)];
        assert_eq!(spread(&gpus, &clients[..3]), [], "and stay so");
    }

    #[test]
    fn a_warm_large_model_does_not_move_to_save_a_little_and_does_when_it_is_busy_for_long() {
        let gpus = [gpu(2.0), gpu(0.0)];
        assert_eq!(spread(&gpus, &[busy(1, 0, 200, 20 * GIB)]), []);
        assert_eq!(spread(&gpus, &[busy(1, 0, 5000, 20 * GIB)]), [(1, 1)]);
    }

    #[test]
    fn nobody_moves_without_need_or_where_there_is_no_place() {
        let client = busy(1, 0, 5000, GIB);
        let two = [gpu(1.9), gpu(0.0)];
        assert_eq!(
            spread(&[gpu(0.95), gpu(0.0)], std::slice::from_ref(&client)),
            [],
            "it has the GPU for itself"
        );
        assert_eq!(
            spread(&[gpu(1.9), gpu(0.95)], std::slice::from_ref(&client)),
            [],
            "it is as well off here"
        );
        assert_eq!(spread(&[two[0], Gpu { usable: false, ..two[1] }], std::slice::from_ref(&client)), []);
        assert_eq!(
            spread(&[two[0], Gpu { room_bytes: GIB - 1, ..two[1] }], std::slice::from_ref(&client)),
            []
        );
        assert_eq!(spread(&two, &[Busy { places: vec![0], ..client }]), []);
    }

    proptest! {
        #[test]
        fn no_gpu_gets_more_than_the_fullest_had_nor_more_memory_than_there_is(
            gpus in prop::collection::vec((any::<bool>(), 0..40_u64), 1..5),
            clients in prop::collection::vec((0..5_usize, 0.0..1.0_f64, 0..3000_u64, 0..30_u64), 0..30),
        ) {
            let count = gpus.len();
            let clients: Vec<Busy> = clients
                .iter()
                .zip(0..)
                .map(|(&(at, load, lasting, gib), client)| Busy {
                    load,
                    places: (0..count).collect(),
                    ..busy(client, at % count, lasting, gib * GIB)
                })
                .collect();
            let load = |at| clients.iter().filter(|client| client.gpu == at).map(|client| client.load).sum();
            let gpus: Vec<Gpu> = gpus
                .iter()
                .enumerate()
                .map(|(at, &(usable, room))| Gpu { usable, load: load(at), room_bytes: room * GIB })
                .collect();
            let moves = spread(&gpus, &clients);
            let (mut loads, mut room): (Vec<f64>, Vec<u64>) =
                gpus.iter().map(|gpu| (gpu.load, gpu.room_bytes)).unzip();
            for &(number, to) in &moves {
                let client = &clients[number as usize];
                prop_assert!(gpus[to].usable && to != client.gpu && client.bytes <= room[to]);
                loads[client.gpu] -= client.load;
                loads[to] += client.load;
                room[to] -= client.bytes;
            }
            let fullest = |loads: &[f64]| loads.iter().copied().fold(1.0, f64::max);
            let before: Vec<f64> = gpus.iter().map(|gpu| gpu.load).collect();
            prop_assert!(fullest(&loads) <= fullest(&before) + 1e-9);
            let moved: std::collections::HashSet<_> = moves.iter().map(|&(client, _)| client).collect();
            prop_assert_eq!(moved.len(), moves.len(), "nobody moves twice");
        }
    }
}
