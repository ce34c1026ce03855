//! The scales of charts: bounds, ticks, and how many points are drawn.

/// Returns the least and the greatest of the finite values, a little apart if they are equal.
pub fn bounds(values: impl Iterator<Item = f64>) -> Option<(f64, f64)> {
    let (low, high) =
        values.filter(|v| v.is_finite()).fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), v| (l.min(v), h.max(v)));
    if low > high {
        return None;
    }
    // Numbers so large or so close that their distance cannot be divided count as one.
    if (high - low).is_finite() && high - low > 1e-12 * low.abs().max(high.abs()) {
        return Some((low, high));
    }
    let (low, high) = (low.max(-1e300), high.min(1e300));
    let margin = if low == 0.0 && high == 0.0 { 1.0 } else { low.abs().max(high.abs()) * 0.05 };
    Some((low - margin, high + margin))
}

/// Returns two to seven round numbers within the bounds.
pub fn ticks((low, high): (f64, f64)) -> Vec<f64> {
    let raw = (high - low) / 5.0;
    let magnitude = 10.0_f64.powf(raw.log10().floor());
    let step = [1.0, 2.0, 2.5, 5.0, 10.0].iter().map(|m| m * magnitude).find(|s| *s >= raw).unwrap_or(raw);
    let first = (low / step).ceil();
    (0..7).map(|i| (first + f64::from(i)) * step).filter(|tick| *tick <= high + step * 1e-9).collect()
}

/// Returns at most twice as many points as buckets: the least and the greatest of each bucket, so that no spike is lost.
pub fn thinned(points: &[(f64, f64)], buckets: usize) -> Vec<(f64, f64)> {
    if points.len() <= 2 * buckets {
        return points.to_vec();
    }
    let size = points.len().div_ceil(buckets);
    points
        .chunks(size)
        .flat_map(|bucket| {
            let by = |a: &&(f64, f64), b: &&(f64, f64)| a.1.total_cmp(&b.1);
            let least = bucket.iter().min_by(by).copied().unwrap_or(bucket[0]);
            let most = bucket.iter().max_by(by).copied().unwrap_or(bucket[0]);
            if least.0 <= most.0 { [least, most] } else { [most, least] }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_inside() {
        assert_eq!(ticks((0.0, 10.0)), [0.0, 2.0, 4.0, 6.0, 8.0, 10.0]);
        for (low, high) in [(-0.013, 0.031), (1e-300, 3e-300), (1e300, 1.5e300), (0.999, 1.001)] {
            let got = ticks((low, high));
            assert!((2..=7).contains(&got.len()) && got.iter().all(|t| (low..=high * 1.0001).contains(t)), "{got:?}");
        }
    }

    #[test]
    fn thinning_keeps_the_spike_and_the_order() {
        let points: Vec<(f64, f64)> = (0..5000).map(|i| (f64::from(i), if i == 3210 { 99.0 } else { 0.0 })).collect();
        let got = thinned(&points, 200);
        assert!(got.len() <= 2 * 200 && got.contains(&(3210.0, 99.0)));
        assert!(got.windows(2).all(|w| w[0].0 <= w[1].0));
    }
}
