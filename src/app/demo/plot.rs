//! A run as a picture: machines per stage over time, stacked, as a hand-made SVG.

use super::fleet::Fleet;
use std::fmt::Write as _;
use std::time::Duration;

/// Bands from the bottom up: where a machine is, and its colour. What is quarantined stands apart,
/// whatever its stage.
const BANDS: [(&str, &str); 8] = [
    ("in-service", "#2b8a3e"),
    ("join", "#74b816"),
    ("burn-in", "#f08c00"),
    ("provision", "#1971c2"),
    ("firmware", "#7048e8"),
    ("discover", "#868e96"),
    ("other", "#ced4da"),
    ("quarantined", "#c92a2a"),
];

const WIDTH: f64 = 960.0;
const HEIGHT: f64 = 420.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 150.0;
const TOP: f64 = 44.0;
const BOTTOM: f64 = 44.0;
/// Points drawn at most; more can't be told apart.
const POINTS: usize = 600;

/// How many machines were where, over the time of a run.
#[derive(Clone, Debug)]
pub struct Course {
    machines: u32,
    seen: Vec<(f64, [u32; BANDS.len()])>,
}

impl Course {
    pub fn new(machines: u32) -> Self {
        Self { machines, seen: Vec::new() }
    }

    /// The fleet as it is `elapsed` after the first order.
    pub fn note(&mut self, elapsed: Duration, fleet: &Fleet) {
        let mut counts = [0; BANDS.len()];
        for row in &fleet.rows {
            let name = if row.condition == "quarantined" { "quarantined" } else { &*row.stage };
            let other = BANDS.len() - 2;
            counts[BANDS.iter().position(|(b, _)| *b == name).unwrap_or(other)] += 1;
        }
        self.seen.push((elapsed.as_secs_f64(), counts));
    }

    /// The picture, complete.
    pub fn svg(&self) -> String {
        let end = self.seen.last().map_or(1.0, |(t, _)| t.max(1.0));
        let x = |t: f64| LEFT + t / end * (WIDTH - LEFT - RIGHT);
        let all = f64::from(self.machines.max(1));
        let y = |n: f64| HEIGHT - BOTTOM - n / all * (HEIGHT - TOP - BOTTOM);
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
             font-family=\"sans-serif\" font-size=\"12\">\n\
             <rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"#ffffff\"/>\n\
             <text x=\"{LEFT}\" y=\"24\" font-size=\"15\">{} machines, from the first order \
             to rest</text>\n",
            self.machines
        );
        let step = self.seen.len().div_ceil(POINTS).max(1);
        let last = self.seen.len().saturating_sub(1);
        let kept = || self.seen.iter().enumerate().filter(|(i, _)| i % step == 0 || *i == last);
        for (band, (name, colour)) in BANDS.iter().enumerate() {
            if self.seen.iter().all(|(_, c)| c[band] == 0) {
                continue;
            }
            let below = |c: &[u32], upto: usize| f64::from(c[..upto].iter().sum::<u32>());
            let mut points = String::new();
            for (_, (t, c)) in kept() {
                let _ = write!(points, "{:.1},{:.1} ", x(*t), y(below(c, band + 1)));
            }
            for (_, (t, c)) in kept().collect::<Vec<_>>().into_iter().rev() {
                let _ = write!(points, "{:.1},{:.1} ", x(*t), y(below(c, band)));
            }
            let points = points.trim_end();
            let _ = writeln!(svg, "<polygon points=\"{points}\" fill=\"{colour}\"/>");
            let at = TOP + 18.0 * f64::from(u32::try_from(BANDS.len() - 1 - band).unwrap_or(0));
            let _ = writeln!(
                svg,
                "<rect x=\"{:.0}\" y=\"{at:.0}\" width=\"12\" height=\"12\" fill=\"{colour}\"/>\
                 <text x=\"{:.0}\" y=\"{:.0}\">{name}</text>",
                WIDTH - RIGHT + 16.0,
                WIDTH - RIGHT + 34.0,
                at + 10.0,
            );
        }
        let line = "stroke=\"#495057\" stroke-width=\"1\"";
        let (foot, edge) = (HEIGHT - BOTTOM, WIDTH - RIGHT);
        let _ = writeln!(svg, "<path d=\"M{LEFT},{TOP} V{foot} H{edge}\" fill=\"none\" {line}/>");
        for part in 0..=4 {
            let share = f64::from(part) / 4.0;
            let (t, n) = (end * share, all * share);
            let _ = writeln!(
                svg,
                "<text x=\"{:.1}\" y=\"{:.0}\" text-anchor=\"middle\">{t:.0} s</text>\
                 <text x=\"{:.0}\" y=\"{:.1}\" text-anchor=\"end\">{n:.0}</text>",
                x(t),
                foot + 20.0,
                LEFT - 8.0,
                y(n) + 4.0,
            );
        }
        svg + "</svg>\n"
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::demo::fleet::Row;

    #[test]
    fn every_machine_is_in_one_band() {
        let row = |stage: &str, condition: &str| Row {
            name: "n".into(),
            stage: stage.into(),
            condition: condition.into(),
            control: "enrolled".into(),
            fault: None,
        };
        let mut course = Course::new(4);
        let rows = vec![
            row("firmware", "ok"),
            row("firmware", "quarantined"),
            row("in-service", "ok"),
            row("repair", "ok"),
        ];
        course.note(Duration::from_secs(1), &Fleet { rows });
        assert_eq!(course.seen[0].1, [1, 0, 0, 0, 1, 0, 1, 1]);
        course.note(Duration::from_secs(9), &Fleet { rows: vec![row("in-service", "ok")] });
        let svg = course.svg();
        assert_eq!(svg.matches("<polygon").count(), 4, "one band for each that was ever used");
        assert!(svg.starts_with("<svg") && svg.ends_with("</svg>\n"));
        assert!(!svg.contains("NaN") && !svg.contains("inf"));
        assert!(Course::new(0).svg().ends_with("</svg>\n"), "an empty run is no reason to panic");
    }
}
