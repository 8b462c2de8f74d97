//! How much device memory all functions together may use on one GPU.

/// Kept free at most: the driver's context, loaded code, and the local memory of kernels need it.
const LARGEST_RESERVE_BYTES: u64 = 1 << 30;

/// Kept free at most for the context of another worker: 520 MiB on an H100.
const LARGEST_SPARE_BYTES: u64 = 576 << 20;

/// Of the memory that functions and a spare worker leave, this part is for limits that programs set; the driver and code need the rest.
const CONTEXT_PART: u64 = 4;

/// The limit of a GPU that has `total_bytes` of memory: the `configured` one, if that is not 0, else its memory less a
/// reserve of 1 GiB or 5 %, whichever is smaller, and 576 MiB or 2.5 % more if a spare worker stands ready there, too. Never more
/// than the GPU has.
#[must_use]
pub fn gpu_limit_bytes(configured: u64, total_bytes: u64, spare: bool) -> u64 {
    match configured {
        0 => total_bytes - LARGEST_RESERVE_BYTES.min(total_bytes / 20) - spare_bytes(total_bytes, spare),
        limit => limit.min(total_bytes),
    }
}

/// What limits of the context that programs set may take of a GPU whose functions may have `limit_bytes` of its `total_bytes`.
#[must_use]
pub fn context_limit_bytes(limit_bytes: u64, total_bytes: u64, spare: bool) -> u64 {
    let left_bytes = total_bytes.saturating_sub(limit_bytes).saturating_sub(spare_bytes(total_bytes, spare));
    left_bytes / CONTEXT_PART
}

/// What the context of an enclosure takes of the memory that functions may use.
#[must_use]
pub fn enclosure_bytes(limit_bytes: u64) -> u64 {
    spare_bytes(limit_bytes, true)
}

fn spare_bytes(total_bytes: u64, spare: bool) -> u64 {
    if spare { LARGEST_SPARE_BYTES.min(total_bytes / 40) } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reserve_is_small_on_small_gpus_and_bounded_on_large_ones() {
        assert_eq!(gpu_limit_bytes(0, 141 << 30, false), 140 << 30);
        assert_eq!(gpu_limit_bytes(0, 141 << 30, true), (140 << 30) - (576 << 20));
        assert_eq!([false, true].map(|spare| gpu_limit_bytes(0, 1000, spare)), [950, 925]);
        assert_eq!([false, true].map(|spare| gpu_limit_bytes(700, 1000, spare)), [700, 700]);
        assert_eq!(gpu_limit_bytes(7000, 1000, true), 1000);
        assert_eq!(gpu_limit_bytes(0, 0, true), 0);
    }

    #[test]
    fn limits_that_programs_set_get_nothing_of_the_spare_s_memory() {
        for spare in [false, true] {
            let limit_bytes = gpu_limit_bytes(0, 141 << 30, spare);
            assert_eq!(context_limit_bytes(limit_bytes, 141 << 30, spare), 256 << 20);
        }
        assert_eq!(context_limit_bytes(1000, 1000, true), 0);
    }
}
