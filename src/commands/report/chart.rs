//! Charts as inline SVG: lines over steps, and histograms.

use std::fmt::Write as _;

/// Colours that stay apart for most eyes (Okabe and Ito), used in turn.
pub const COLOURS: [&str; 7] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#888888"];

const WIDTH: f64 = 340.0;
const HEIGHT: f64 = 190.0;
const LEFT: f64 = 52.0;
const BOTTOM: f64 = 22.0;
const TOP: f64 = 8.0;
const RIGHT: f64 = 8.0;
/// Buckets of a line: each shows its least and greatest value, so that no spike is lost.
const BUCKETS: usize = 200;
/// Bars of a histogram.
const BARS: usize = 24;

/// A line: its colour's number and its points.
pub type Line<'a> = (usize, &'a [(f64, f64)]);

/// The colour of the `i`-th run.
pub fn colour(i: usize) -> &'static str {
    COLOURS[i % COLOURS.len()]
}

/// Lines over a common x-axis.
pub fn lines(title: &str, lines: &[Line<'_>]) -> String {
    let finite = || lines.iter().flat_map(|(_, points)| points.iter()).filter(|p| p.1.is_finite());
    let Some((x, y)) = bounds(finite().map(|p| p.0)).zip(bounds(finite().map(|p| p.1))) else {
        return String::new();
    };
    // Steps are whole numbers.
    let frame = Frame { x, y, whole_x: true };
    let mut body = frame.axes();
    for (run, points) in lines {
        let points: Vec<(f64, f64)> = points.iter().copied().filter(|p| p.1.is_finite()).collect();
        let path: Vec<String> =
            thinned(&points).iter().map(|(x, y)| format!("{:.1},{:.1}", frame.at_x(*x), frame.at_y(*y))).collect();
        let colour = colour(*run);
        if let [point] = path.as_slice()
            && let Some((x, y)) = point.split_once(',')
        {
            let _ = write!(body, "<circle cx=\"{x}\" cy=\"{y}\" r=\"2.5\" fill=\"{colour}\"/>");
        }
        let _ = write!(
            body,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.5\"/>",
            path.join(" ")
        );
    }
    figure(title, &body)
}

/// Histograms over each other, each as a share of its own values.
pub fn histogram(title: &str, series: &[(usize, Vec<f64>)]) -> String {
    let all = series.iter().flat_map(|(_, values)| values.iter().copied());
    bounds(all).map_or_else(String::new, |bounds| histogram_within(title, series, bounds))
}

/// Histograms whose axis runs from a number to another; no value may lie outside.
pub fn histogram_within(title: &str, series: &[(usize, Vec<f64>)], (low, high): (f64, f64)) -> String {
    let share = |values: &[f64]| -> Vec<f64> {
        let mut bars = vec![0.0; BARS];
        for value in values.iter().filter(|v| v.is_finite()) {
            let place = (value - low) / (high - low) * BARS as f64;
            bars[(place as usize).min(BARS - 1)] += 1.0 / values.len() as f64;
        }
        bars
    };
    let shares: Vec<(usize, Vec<f64>)> = series.iter().map(|(run, values)| (*run, share(values))).collect();
    let top = shares.iter().flat_map(|(_, bars)| bars.iter().copied()).fold(0.0, f64::max);
    let frame = Frame { x: (low, high), y: (0.0, if top > 0.0 { top } else { 1.0 }), whole_x: false };
    let mut body = frame.axes();
    let width = (high - low) / BARS as f64;
    for (run, bars) in &shares {
        for (i, share) in bars.iter().enumerate().filter(|(_, s)| **s > 0.0) {
            let from = low + i as f64 * width;
            let (left, right) = (frame.at_x(from), frame.at_x(from + width));
            let y = frame.at_y(*share);
            let _ = write!(
                body,
                "<rect x=\"{left:.1}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"{:.1}\" fill=\"{}\" fill-opacity=\"0.45\"><title>{} to {}: {:.1} %</title></rect>",
                right - left,
                HEIGHT - BOTTOM - y,
                colour(*run),
                number(from),
                number(from + width),
                100.0 * share
            );
        }
    }
    figure(title, &body)
}

struct Frame {
    x: (f64, f64),
    y: (f64, f64),
    whole_x: bool,
}

impl Frame {
    fn at_x(&self, x: f64) -> f64 {
        LEFT + (x - self.x.0) / (self.x.1 - self.x.0) * (WIDTH - LEFT - RIGHT)
    }

    fn at_y(&self, y: f64) -> f64 {
        HEIGHT - BOTTOM - (y - self.y.0) / (self.y.1 - self.y.0) * (HEIGHT - BOTTOM - TOP)
    }

    fn axes(&self) -> String {
        let mut svg = String::new();
        for y in ticks(self.y) {
            let at = self.at_y(y);
            let _ = write!(
                svg,
                "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{:.1}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/><text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                WIDTH - RIGHT,
                LEFT - 5.0,
                at + 3.5,
                number(y)
            );
        }
        for x in ticks(self.x).into_iter().filter(|x| !self.whole_x || x.fract() == 0.0) {
            let _ = write!(
                svg,
                "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
                self.at_x(x),
                HEIGHT - 6.0,
                number(x)
            );
        }
        svg
    }
}

fn figure(title: &str, body: &str) -> String {
    let title = super::page::escape(title);
    format!(
        "<figure><figcaption>{title}</figcaption><svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{title}\">{body}</svg></figure>"
    )
}

/// Least and greatest of the finite values, a little apart where they are one.
pub fn bounds(values: impl Iterator<Item = f64>) -> Option<(f64, f64)> {
    let (low, high) =
        values.filter(|v| v.is_finite()).fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), v| (l.min(v), h.max(v)));
    match (low <= high, low == high) {
        (false, _) => None,
        (_, true) => {
            let margin = if low == 0.0 { 1.0 } else { low.abs() * 0.05 };
            Some((low - margin, high + margin))
        }
        _ => Some((low, high)),
    }
}

/// Two to six round numbers inside of the bounds.
fn ticks((low, high): (f64, f64)) -> Vec<f64> {
    let raw = (high - low) / 5.0;
    let magnitude = 10.0_f64.powf(raw.log10().floor());
    let step = [1.0, 2.0, 2.5, 5.0, 10.0].iter().map(|m| m * magnitude).find(|s| *s >= raw).unwrap_or(raw);
    let first = (low / step).ceil() as i64;
    let last = (high / step).floor() as i64;
    (first..=last).map(|i| i as f64 * step).collect()
}

/// At most 2·[`BUCKETS`] points.
fn thinned(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    if points.len() <= 2 * BUCKETS {
        return points.to_vec();
    }
    let size = points.len().div_ceil(BUCKETS);
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

/// Short, for axes and tables.
pub fn number(value: f64) -> String {
    let size = value.abs();
    if value == 0.0 {
        "0".to_owned()
    } else if value.fract() == 0.0 && size < 1e6 {
        format!("{value:.0}")
    } else if (1e-3..1e6).contains(&size) {
        let digits = 3 - size.log10().floor() as i32;
        format!("{value:.*}", digits.clamp(0, 6) as usize).trim_end_matches('0').trim_end_matches('.').to_owned()
    } else {
        format!("{value:.2e}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_inside() {
        assert_eq!(ticks((0.0, 10.0)), [0.0, 2.0, 4.0, 6.0, 8.0, 10.0]);
        let got = ticks((-0.013, 0.031));
        assert!(got.len() >= 3 && got.iter().all(|t| (-0.013..=0.031).contains(t)), "{got:?}");
    }

    #[test]
    fn thinning_keeps_the_spike_and_the_order() {
        let points: Vec<(f64, f64)> = (0..5000).map(|i| (f64::from(i), if i == 3210 { 99.0 } else { 0.0 })).collect();
        let got = thinned(&points);
        assert!(got.len() <= 2 * BUCKETS && got.contains(&(3210.0, 99.0)));
        assert!(got.windows(2).all(|w| w[0].0 <= w[1].0));
    }

    #[test]
    fn a_constant_and_an_empty_line_draw_no_nonsense() {
        let flat = lines("loss", &[(0, &[(1.0, 2.0), (2.0, 2.0)])]);
        assert!(flat.contains("<polyline") && !flat.contains("NaN") && !flat.contains("inf"), "{flat}");
        assert_eq!(lines("loss", &[(0, &[(1.0, f64::NAN)])]), "");
        let bars = histogram("reward", &[(0, vec![1.0, 1.0, 2.0, 5.0])]);
        assert!(bars.contains("50.0 %") && !bars.contains("NaN"), "{bars}");
    }

    #[test]
    fn numbers_are_short() {
        let shown = [0.0, 12.0, 0.12345, 1234.5678, 2.5e-7].map(number);
        assert_eq!(shown, ["0", "12", "0.1235", "1235", "2.50e-7"]);
    }
}
