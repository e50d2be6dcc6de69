//! The chart of a report: a bar per row, as long as the ratio says, on a logarithmic scale around one.

use std::fmt::Write as _;

use crate::sample::{ROWS, Samples};

const LABELS: f64 = 300.0;
const WIDTH: f64 = 900.0;
const BAR: f64 = 20.0;
const TOP: f64 = 60.0;
/// The furthest ratios that the scale shows, either way.
const REACH: f64 = 64.0;
const BETTER: &str = "#2b7a4b";
const WORSE: &str = "#b5482f";

/// An SVG document.
pub(crate) fn draw(samples: &Samples, names: &[String; 2]) -> String {
    let rows: Vec<_> = ROWS.iter().filter_map(|row| Some((row, samples.factor(row)?))).collect();
    let height = TOP + BAR * rows.len() as f64 + 20.0;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" \
         font-size=\"12\">\n<rect width=\"{WIDTH}\" height=\"{height}\" fill=\"white\"/>\n\
         <text x=\"10\" y=\"22\" font-size=\"15\">How many times better {} is than {}</text>\n",
        escape(&names[0]),
        escape(&names[1])
    );
    for tick in [0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0] {
        let (x, shade) = (position(tick), if tick == 1.0 { "#444" } else { "#ddd" });
        let _ = writeln!(
            svg,
            "<line x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{:.1}\" y2=\"{:.1}\" stroke=\"{shade}\"/>\
             <text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\" fill=\"#444\">{tick}x</text>",
            TOP - 8.0,
            height - 15.0,
            TOP - 14.0
        );
    }
    for (number, (row, factor)) in rows.into_iter().enumerate() {
        let y = TOP + BAR * number as f64;
        let (from, to) = (position(factor.min(1.0)), position(factor.max(1.0)));
        let color = if factor < 1.0 { WORSE } else { BETTER };
        let _ = writeln!(
            svg,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>\
             <rect x=\"{from:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{:.1}\" fill=\"{color}\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\">{factor:.2}</text>",
            LABELS - 8.0,
            y + 14.0,
            escape(row.label),
            y + 3.0,
            (to - from).max(1.0),
            BAR - 6.0,
            to + 4.0,
            y + 14.0
        );
    }
    svg.push_str("</svg>\n");
    svg
}

/// Where a ratio is on the scale, which begins at a quarter.
fn position(factor: f64) -> f64 {
    let share = (factor.clamp(0.25, REACH).log2() + 2.0) / (REACH.log2() + 2.0);
    LABELS + share * (WIDTH - LABELS - 50.0)
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::Which;

    #[test]
    fn a_bar_for_each_ratio() {
        let mut samples = Samples::default();
        for (id, kevel) in [("run_pod", 50.0), ("start", 200.0)] {
            samples.put(id, Which::Kevel, kevel);
            samples.put(id, Which::Baseline, 100.0);
        }
        let svg = draw(&samples, &["a<b".to_owned(), "c".to_owned()]);
        assert_eq!((svg.matches(BETTER).count(), svg.matches(WORSE).count()), (1, 1));
        assert!(svg.contains("a&lt;b") && svg.ends_with("</svg>\n"));
        assert!(position(0.01) >= LABELS && position(1e6) < WIDTH && position(2.0) > position(1.0));
    }
}
