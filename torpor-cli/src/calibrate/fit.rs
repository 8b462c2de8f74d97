//! What measurements come to. Pure.

use torpor_gpuserver::policy::topology::Path;

/// Two GPUs that load at once share a link if they have less than this part of what they have alone.
const SHARED: f64 = 0.85;

/// Ratios that a profile keeps of a model's latencies.
const RATIOS: usize = 50;

/// The middle one; 0 of none.
pub fn median(numbers: &[f64]) -> f64 {
    quantile(&sorted(numbers), 0.5)
}

/// The mean; 1 of none.
pub fn mean(numbers: &[f64]) -> f64 {
    if numbers.is_empty() { 1.0 } else { numbers.iter().sum::<f64>() / numbers.len() as f64 }
}

/// Evenly spaced quantiles of latencies over their median: how much one request differs from another.
pub fn spread(latencies: &[f64]) -> Vec<f64> {
    let (ordered, middle) = (sorted(latencies), median(latencies));
    if middle <= 0.0 {
        return Vec::new();
    }
    let at = |place: usize| (place as f64 + 0.5) / RATIOS as f64;
    (0..RATIOS).map(|place| (1e4 * quantile(&ordered, at(place)) / middle).round() / 1e4).collect()
}

/// Of loads, as bytes and milliseconds: 10⁹ bytes a second, and the milliseconds that a load of nothing takes. By least squares; loads
/// of one size cannot tell both, so the second is taken for nothing then.
pub fn line(loads: &[(f64, f64)]) -> (f64, f64) {
    let count = loads.len().max(1) as f64;
    let mean = |of: fn(&(f64, f64)) -> f64| loads.iter().map(of).sum::<f64>() / count;
    let (bytes, ms) = (mean(|load| load.0), mean(|load| load.1));
    let spread: f64 = loads.iter().map(|load| (load.0 - bytes).powi(2)).sum();
    let together: f64 = loads.iter().map(|load| (load.0 - bytes) * (load.1 - ms)).sum();
    let ms_of_byte = if spread > 0.0 { together / spread } else { 0.0 };
    let fixed = ms - ms_of_byte * bytes;
    if ms_of_byte > 0.0 && fixed >= 0.0 {
        (1e-6 / ms_of_byte, fixed)
    } else {
        (bytes / 1e6 / ms.max(1e-3), 0.0)
    }
}

/// Paths from what each GPU has alone, and pairs have together while both load (10⁹ bytes a second). GPUs that share a link with the same one
/// share it with each other. Where the server has `copied` page-locked memory by itself, that says how fast the link is: loads of
/// one size cannot tell what each takes besides.
pub fn paths(alone: &[f64], copied: &[Option<f64>], together: &[(usize, usize, f64)]) -> Vec<Path> {
    let round = |gbps: f64| (1e3 * gbps).round() / 1e3;
    let times: Vec<f64> =
        alone.iter().zip(copied).map(|(alone, copied)| copied.map_or(1.0, |copied| copied / alone)).collect();
    let path = |(gbps, times): (&f64, &f64)| Path { host_gbps: Some(round(gbps * times)), ..Path::default() };
    let mut paths: Vec<Path> = alone.iter().zip(&times).map(path).collect();
    for &(one, other, gbps) in together {
        if gbps >= SHARED * (alone[one] + alone[other]) {
            continue;
        }
        let gbps = gbps * times[one];
        let link = paths[one].switch.or(paths[other].switch).unwrap_or(one as u32);
        for gpu in [one, other] {
            let least = paths[gpu].switch_gbps.map_or(gbps, |known| known.min(gbps));
            (paths[gpu].switch, paths[gpu].switch_gbps) = (Some(link), Some(round(least)));
        }
    }
    paths
}

fn sorted(numbers: &[f64]) -> Vec<f64> {
    let mut ordered = numbers.to_vec();
    ordered.sort_by(f64::total_cmp);
    ordered
}

fn quantile(ordered: &[f64], part: f64) -> f64 {
    let rank = (ordered.len() as f64 * part).ceil() as usize;
    ordered.get(rank.saturating_sub(1)).copied().unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loads_of_two_sizes_tell_the_rate_from_what_each_load_takes() {
        let (gbps, fixed) = line(&[(100e6, 12.0), (100e6, 12.0), (1100e6, 32.0)]);
        assert!((gbps - 50.0).abs() < 1e-6 && (fixed - 10.0).abs() < 1e-6, "{gbps} {fixed}");
        assert_eq!(line(&[(100e6, 2.0), (100e6, 2.0)]), (50.0, 0.0));
        // What is slower the less it is was disturbed; the rate is at least a number.
        assert!(line(&[(100e6, 9.0), (1000e6, 8.0)]).0 > 0.0);
    }

    #[test]
    fn gpus_share_a_link_if_they_are_slower_together() {
        let pairs = [(0, 1, 12.0), (0, 2, 19.5), (0, 3, 20.0), (1, 2, 20.0), (1, 3, 20.0), (2, 3, 12.5)];
        let found = paths(&[10.0; 4], &[None; 4], &pairs);
        let switches: Vec<_> = found.iter().map(|path| (path.switch, path.switch_gbps)).collect();
        assert_eq!(
            switches,
            [(Some(0), Some(12.0)), (Some(0), Some(12.0)), (Some(2), Some(12.5)), (Some(2), Some(12.5))]
        );
        assert!(paths(&[10.0], &[None], &[])[0].switch.is_none());
        let copied = paths(&[10.0; 2], &[Some(50.0); 2], &[(0, 1, 12.0)]);
        assert_eq!((copied[1].host_gbps, copied[1].switch_gbps), (Some(50.0), Some(60.0)));
    }

    #[test]
    fn the_spread_is_that_of_the_latencies_around_their_median() {
        let ratios = spread(&(1..=100).map(f64::from).collect::<Vec<_>>());
        assert_eq!((ratios.len(), ratios[0], ratios[49]), (50, 0.02, 1.98));
        assert!(ratios.is_sorted());
        assert_eq!(spread(&[7.0, 7.0, 7.0]), vec![1.0; 50]);
    }
}
