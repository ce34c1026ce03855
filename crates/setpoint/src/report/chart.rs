//! Charts as geometry: lines over steps, and histograms. A template draws them as SVG.
//!
//! No crate draws them as well (November 2026): the colours of plotters and charts-rs are fixed when they draw, so a page cannot follow
//! a dark theme; charming needs JavaScript; poloto has had no release since 2023.

use serde::Serialize;

use super::number::{number, percent};
pub use super::scale::bounds;
use super::scale::{thinned, ticks};

const WIDTH: f64 = 380.0;
const HEIGHT: f64 = 230.0;
const LEFT: f64 = 66.0;
const BOTTOM: f64 = 40.0;
const TOP: f64 = 10.0;
const RIGHT: f64 = 12.0;
/// The most points of all lines in a chart, so that a chart of many runs stays small.
const POINTS: usize = 4000;
/// The most buckets of a line: each keeps its least and its greatest value, so that no spike is lost.
const BUCKETS: usize = 200;
/// Bars of a histogram.
const BARS: usize = 24;

/// A chart: what it shows, and where.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Chart {
    /// Its title.
    pub title: String,
    /// A description for people who do not see it: the title, or more.
    alt: String,
    /// The look of a good curve, in one sentence.
    pub good: String,
    /// The names of its lines, if there are several.
    pub legend: Vec<Key>,
    width: f64,
    height: f64,
    /// The box that the axes enclose.
    area: Area,
    x_axis: Axis,
    y_axis: Axis,
    lines: Vec<Drawn>,
    dots: Vec<Dot>,
    bars: Vec<Bar>,
    /// Numbers at the bars.
    labels: Vec<Label>,
}

/// An entry of a legend.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Key {
    /// The number of the run or result, which decides the colour; `None` for an entry that explains a way of drawing.
    pub subject: Option<usize>,
    /// The way in which it is drawn.
    pub look: Look,
    /// Its name.
    pub name: String,
}

/// The ways in which data are drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Look {
    /// A whole line, or filled bars.
    Solid,
    /// A dashed line with dots: evaluations.
    Dashed,
    /// Bars without filling: rejected responses.
    Outline,
    /// Grey bars: responses that are neither chosen nor rejected.
    Grey,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
struct Area {
    left: f64,
    right: f64,
    top: f64,
    bottom: f64,
    center_x: f64,
    center_y: f64,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
struct Axis {
    title: String,
    ticks: Vec<Tick>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
struct Tick {
    at: String,
    text: String,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
struct Drawn {
    subject: usize,
    look: Look,
    points: String,
    tip: String,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
struct Dot {
    subject: usize,
    x: String,
    y: String,
    tip: String,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
struct Bar {
    subject: usize,
    look: Look,
    x: String,
    y: String,
    width: String,
    height: String,
    tip: String,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
struct Label {
    x: String,
    y: String,
    text: String,
}

/// A line: of which run, drawn how, and its points in the order of the steps.
#[derive(Debug, Clone)]
pub struct Line<'a> {
    /// The number of the run.
    pub subject: usize,
    /// The name of the run.
    pub name: &'a str,
    /// [`Look::Solid`] for training, [`Look::Dashed`] for evaluations.
    pub look: Look,
    /// `(step, value)`; values that are not finite are left out.
    pub points: &'a [(f64, f64)],
}

/// The words of a chart.
#[derive(Debug, Clone)]
pub struct Words<'a> {
    /// The title.
    pub title: &'a str,
    /// The title of the x-axis, with the unit.
    pub x: &'a str,
    /// The title of the y-axis, with the unit.
    pub y: &'a str,
    /// The look of a good curve, in one sentence.
    pub good: &'a str,
}

/// Draws lines over steps. `None` if no line has a finite value.
pub fn lines(words: &Words<'_>, lines: &[Line<'_>]) -> Option<Chart> {
    let kept: Vec<Vec<(f64, f64)>> = lines
        .iter()
        .map(|line| line.points.iter().copied().filter(|(x, y)| x.is_finite() && y.is_finite()).collect())
        .collect();
    let all = || kept.iter().flatten();
    // Steps are whole numbers.
    let frame = Frame { x: bounds(all().map(|p| p.0))?, y: bounds(all().map(|p| p.1))?, whole_x: true };
    let mut chart = frame.chart(words);
    let buckets = (POINTS / (2 * lines.len().max(1))).clamp(10, BUCKETS);
    for (line, points) in lines.iter().zip(&kept) {
        let what = if line.look == Look::Dashed { "evaluation" } else { "training" };
        let dot = |point: &(f64, f64)| Dot {
            subject: line.subject,
            x: place(frame.at_x(point.0)),
            y: place(frame.at_y(point.1)),
            tip: format!("{}, {what}, step {}: {}", line.name, number(point.0), number(point.1)),
        };
        let thin = thinned(points, buckets);
        if thin.len() == 1 || (line.look == Look::Dashed && thin.len() <= 50) {
            chart.dots.extend(thin.iter().map(dot));
        }
        if let ([(_, first), ..], [.., (_, last)]) = (points.as_slice(), points.as_slice())
            && points.len() > 1
        {
            let path: Vec<String> = thin
                .iter()
                .map(|point| format!("{},{}", place(frame.at_x(point.0)), place(frame.at_y(point.1))))
                .collect();
            chart.lines.push(Drawn {
                subject: line.subject,
                look: line.look,
                points: path.join(" "),
                tip: format!("{}, {what}: {} at first, {} at last", line.name, number(*first), number(*last)),
            });
        }
    }
    chart.legend = legend(lines);
    Some(chart)
}

/// Draws lines over a number that is no step, with a dot at each point, in the order of the points. `None` if no point is finite.
pub fn against(words: &Words<'_>, lines: &[Line<'_>]) -> Option<Chart> {
    let finite = |line: &Line<'_>| -> Vec<(f64, f64)> {
        line.points.iter().copied().filter(|(x, y)| x.is_finite() && y.is_finite()).collect()
    };
    let kept: Vec<Vec<(f64, f64)>> = lines.iter().map(finite).collect();
    let all = || kept.iter().flatten();
    let frame = Frame { x: bounds(all().map(|p| p.0))?, y: bounds(all().map(|p| p.1))?, whole_x: false };
    let mut chart = frame.chart(words);
    for (Line { subject, name, look, .. }, points) in lines.iter().zip(&kept) {
        let at = |(x, y): &(f64, f64)| (place(frame.at_x(*x)), place(frame.at_y(*y)));
        for point in points {
            let (x, y) = at(point);
            let tip = format!("{name}: {} at {}", number(point.1), number(point.0));
            chart.dots.push(Dot { subject: *subject, x, y, tip });
        }
        if points.len() > 1 {
            let path: Vec<String> = points.iter().map(at).map(|(x, y)| format!("{x},{y}")).collect();
            let tip = (*name).to_owned();
            chart.lines.push(Drawn { subject: *subject, look: *look, points: path.join(" "), tip });
        }
    }
    Some(chart)
}

/// Returns the names of the runs if there are a few, and training and evaluation if there are both.
fn legend(lines: &[Line<'_>]) -> Vec<Key> {
    /// More names are in the legend of the section alone.
    const NAMES: usize = 6;
    let mut keys: Vec<Key> = Vec::new();
    for line in lines {
        if !keys.iter().any(|key| key.subject == Some(line.subject)) {
            keys.push(Key { subject: Some(line.subject), look: Look::Solid, name: line.name.to_owned() });
        }
    }
    if !(2..=NAMES).contains(&keys.len()) {
        keys.clear();
    }
    if lines.iter().any(|line| line.look == Look::Dashed) {
        for (look, name) in [(Look::Solid, "training"), (Look::Dashed, "evaluation")] {
            if lines.iter().any(|line| line.look == look) {
                keys.push(Key { subject: None, look, name: name.to_owned() });
            }
        }
    }
    keys
}

/// Values of a histogram: of which run or result, drawn how.
#[derive(Debug, Clone, PartialEq)]
pub struct Values {
    /// The number of the run or result.
    pub subject: usize,
    /// The way in which the bars are drawn.
    pub look: Look,
    /// The values; those that are not finite are left out.
    pub values: Vec<f64>,
}

/// Draws histograms over each other, each as shares of its own values. `within`: the ends of the x-axis, outside of which no value may
/// be, and the greatest share. `None` if there is no finite value.
pub fn histogram(words: &Words<'_>, series: &[Values], within: Option<((f64, f64), f64)>) -> Option<Chart> {
    let (x, top) = match within {
        Some(within) => within,
        None => {
            let x = bounds(series.iter().flat_map(|series| series.values.iter().copied()))?;
            (x, highest(series, x))
        }
    };
    let frame = Frame { x, y: (0.0, 100.0 * if top > 0.0 { top } else { 1.0 }), whole_x: false };
    let mut chart = frame.chart(words);
    let width = (x.1 - x.0) / BARS as f64;
    for series in series {
        for (i, share) in shares(&series.values, x).into_iter().enumerate().filter(|(_, share)| *share > 0.0) {
            let from = x.0 + i as f64 * width;
            let (left, right, y) = (frame.at_x(from), frame.at_x(from + width), frame.at_y(100.0 * share));
            chart.bars.push(Bar {
                subject: series.subject,
                look: series.look,
                x: place(left),
                y: place(y),
                width: place(right - left),
                height: place(chart.area.bottom - y),
                tip: format!("{} to {}: {}", number(from), number(from + width), percent(share)),
            });
        }
    }
    Some(chart)
}

/// A group of bars side by side, each with its share and the way in which it is drawn.
#[derive(Debug, Clone, PartialEq)]
pub struct Group<'a> {
    /// The name under it.
    pub name: &'a str,
    /// The bars, from left to right.
    pub bars: Vec<(Look, f64)>,
}

/// Draws groups of bars of shares, each with its number. `alt` says the same in words.
pub fn grouped(words: &Words<'_>, subject: usize, groups: &[Group<'_>], alt: String) -> Chart {
    /// The height of the axis, percent: room for the number of a bar of 100 %.
    const HIGHEST: f64 = 110.0;
    let frame = Frame { x: (0.0, groups.len().max(1) as f64), y: (0.0, HIGHEST), whole_x: true };
    let mut chart = frame.chart(words);
    chart.alt = alt;
    chart.x_axis.ticks.clear();
    for (i, group) in groups.iter().enumerate() {
        let (middle, width) = (i as f64 + 0.5, 0.8 / group.bars.len().max(1) as f64);
        chart.x_axis.ticks.push(Tick { at: place(frame.at_x(middle)), text: group.name.to_owned() });
        for (j, (look, share)) in group.bars.iter().enumerate() {
            let from = middle - 0.4 + j as f64 * width;
            let (left, right, y) = (frame.at_x(from), frame.at_x(from + width), frame.at_y(100.0 * share));
            chart.labels.push(Label { x: place((left + right) / 2.0), y: place(y - 4.0), text: percent(*share) });
            chart.bars.push(Bar {
                subject,
                look: *look,
                x: place(left),
                y: place(y),
                width: place(right - left),
                height: place(chart.area.bottom - y),
                tip: format!("{}: {}", group.name, percent(*share)),
            });
        }
    }
    chart
}

/// Returns the greatest share of a bar.
pub fn highest(series: &[Values], x: (f64, f64)) -> f64 {
    series.iter().flat_map(|series| shares(&series.values, x)).fold(0.0, f64::max)
}

/// Returns the share of the values in each bar.
fn shares(values: &[f64], (low, high): (f64, f64)) -> Vec<f64> {
    let mut bars = vec![0.0; BARS];
    let finite = values.iter().filter(|value| value.is_finite());
    let n = finite.clone().count();
    for value in finite {
        let place = (value - low) / (high - low) * BARS as f64;
        bars[(place as usize).min(BARS - 1)] += 1.0 / n as f64;
    }
    bars
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

    /// Returns a chart with axes and no data.
    fn chart(&self, words: &Words<'_>) -> Chart {
        let x_ticks =
            ticks(self.x).into_iter().filter(|x| !self.whole_x || x.fract() == 0.0).map(|x| (self.at_x(x), x));
        let y_ticks = ticks(self.y).into_iter().map(|y| (self.at_y(y), y));
        let tick = |(at, value): (f64, f64)| Tick { at: place(at), text: number(value) };
        Chart {
            title: words.title.to_owned(),
            alt: words.title.to_owned(),
            good: words.good.to_owned(),
            legend: Vec::new(),
            width: WIDTH,
            height: HEIGHT,
            area: Area {
                left: LEFT,
                right: WIDTH - RIGHT,
                top: TOP,
                bottom: HEIGHT - BOTTOM,
                center_x: (LEFT + WIDTH - RIGHT) / 2.0,
                center_y: (TOP + HEIGHT - BOTTOM) / 2.0,
            },
            x_axis: Axis { title: clipped(words.x, 48), ticks: x_ticks.map(tick).collect() },
            y_axis: Axis { title: clipped(words.y, 32), ticks: y_ticks.map(tick).collect() },
            lines: Vec::new(),
            dots: Vec::new(),
            bars: Vec::new(),
            labels: Vec::new(),
        }
    }
}

/// Returns a title without its end if it is longer than its axis.
fn clipped(title: &str, longest: usize) -> String {
    match title.char_indices().nth(longest) {
        Some((end, _)) => format!("{}…", &title[..end]),
        None => title.to_owned(),
    }
}

/// Writes a coordinate in tenths.
fn place(at: f64) -> String {
    format!("{at:.1}")
}

#[cfg(test)]
mod tests;
