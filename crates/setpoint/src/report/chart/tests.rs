use super::*;

const WORDS: Words<'static> = Words { title: "Loss", x: "optimizer step", y: "nats", good: "Good: falls." };

fn line(points: &[(f64, f64)]) -> Line<'_> {
    Line { subject: 0, name: "run", look: Look::Solid, points }
}

#[test]
fn odd_values_draw_no_nonsense() {
    let cases: [&[(f64, f64)]; 5] = [
        &[(1.0, 2.0), (2.0, 2.0)],
        &[(1.0, f64::NAN), (2.0, 1.0), (3.0, f64::INFINITY), (4.0, 2.0)],
        &[(1.0, -1.7e308), (2.0, 1.7e308)],
        &[(1.0, 1.0), (2.0, 1.0 + f64::EPSILON)],
        &[(7.0, 0.0)],
    ];
    for points in cases {
        let chart = lines(&WORDS, &[line(points)]).unwrap();
        let text = serde_json::to_string(&chart).unwrap();
        assert!(!text.contains("NaN") && !text.contains("inf"), "{points:?}: {text}");
        assert_eq!((chart.lines.len(), chart.dots.len()), if points.len() > 1 { (1, 0) } else { (0, 1) });
    }
    assert_eq!(lines(&WORDS, &[line(&[(1.0, f64::NAN)])]), None);
}

#[test]
fn a_line_over_another_number_has_a_dot_at_each_point() {
    let points = [(0.5, 1.0), (1.25, 3.0), (f64::NAN, 2.0)];
    let chart = against(&WORDS, &[line(&points), line(&points[..1])]).unwrap();
    assert_eq!((chart.lines.len(), chart.dots.len()), (1, 3));
    assert_eq!(chart.dots[1].tip, "run: 3 at 1.25");
    // From the corner at the lower left to that at the upper right.
    let corners = format!("{LEFT:.1},{:.1} {:.1},{TOP:.1}", HEIGHT - BOTTOM, WIDTH - RIGHT);
    assert_eq!(chart.lines[0].points, corners);
    assert!(chart.x_axis.ticks.iter().any(|tick| tick.text == "0.6" || tick.text == "0.5"), "{:?}", chart.x_axis);
    assert_eq!(against(&WORDS, &[line(&points[2..])]), None);
}

#[test]
fn bars_are_shares_of_their_own_series() {
    let values = |subject, values: &[f64]| Values { subject, look: Look::Solid, values: values.to_vec() };
    let chart = histogram(&WORDS, &[values(0, &[1.0, 1.0, 2.0, 5.0, f64::NAN]), values(1, &[5.0])], None).unwrap();
    let tips: Vec<&str> = chart.bars.iter().map(|bar| bar.tip.as_str()).collect();
    assert!(tips[0].ends_with(": 50.0\u{a0}%") && tips[3].ends_with("to 5: 100.0\u{a0}%"), "{tips:?}");
    assert_eq!(histogram(&WORDS, &[], None), None);
}

#[test]
fn groups_have_their_names_and_numbers() {
    let group = |name, shares: [f64; 2]| Group { name, bars: vec![(Look::Grey, shares[0]), (Look::Solid, shares[1])] };
    let chart = grouped(&WORDS, 1, &[group("best", [0.25, 1.0]), group("other", [0.75, 0.0])], "in words".into());
    let texts = |of: &[Label]| of.iter().map(|label| label.text.clone()).collect::<Vec<_>>();
    assert_eq!(texts(&chart.labels), ["25.0\u{a0}%", "100.0\u{a0}%", "75.0\u{a0}%", "0.0\u{a0}%"]);
    let ticks: Vec<&str> = chart.x_axis.ticks.iter().map(|tick| tick.text.as_str()).collect();
    assert_eq!((ticks.as_slice(), chart.alt.as_str(), chart.bars.len()), (&["best", "other"][..], "in words", 4));
    // A bar of 100 % is four times as high as one of 25 %, and its number is inside the picture.
    let height = |i: usize| chart.bars[i].height.parse::<f64>().unwrap();
    assert!((height(1) - 4.0 * height(0)).abs() < 0.3, "{} and {}", height(1), height(0));
    assert!(chart.labels[1].y.parse::<f64>().unwrap() > 11.0, "{:?}", chart.labels[1]);
    assert_eq!(height(3), 0.0);
}

#[test]
fn a_legend_names_what_there_is_to_tell_apart() {
    let points = [(1.0, 1.0), (2.0, 0.5)];
    let names = |lines: &[Line<'_>]| legend(lines).into_iter().map(|key| key.name).collect::<Vec<_>>();
    let solid = line(&points);
    assert!(names(std::slice::from_ref(&solid)).is_empty());
    let dashed = Line { look: Look::Dashed, ..solid.clone() };
    assert_eq!(names(&[solid.clone(), dashed]), ["training", "evaluation"]);
    assert_eq!(names(&[solid.clone(), Line { subject: 1, name: "other", ..solid }]), ["run", "other"]);
}
