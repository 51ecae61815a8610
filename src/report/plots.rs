//! Drawings of a run, as SVG that stands in a page.

use anyhow::anyhow;
use plotters::coord::Shift;
use plotters::element::DashedPathElement;
use plotters::prelude::*;

/// Colours of Okabe and Ito, which no eye takes for each other.
const COLORS: [RGBColor; 7] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(86, 180, 233),
    RGBColor(230, 159, 0),
    RGBColor(90, 90, 90),
];

const GRID: RGBColor = RGBColor(228, 228, 228);

const LABEL: (&str, u32) = ("sans-serif", 13);

/// More ranks than this are not drawn as nodes of a tree.
pub(super) const NODES_MAX: usize = 1024;

/// Ranks whose number stands in the drawing.
const NUMBERED_MAX: usize = 40;

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Drawn = Result<(), Box<dyn std::error::Error>>;

/// A curve, or points.
#[derive(Clone, Debug)]
pub(super) struct Series {
    pub(super) name: String,
    pub(super) points: Vec<(f64, f64)>,
}

/// What stands at the axes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Axes<'a> {
    pub(super) x: &'a str,
    pub(super) y: &'a str,
    pub(super) y_label: fn(f64) -> String,
}

/// How series are drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    Lines,
    Points,
}

fn svg(size: (u32, u32), draw: impl FnOnce(&Area<'_>) -> Drawn) -> anyhow::Result<String> {
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, size).into_drawing_area();
        let drawn = area.fill(&WHITE).map_err(Into::into).and_then(|()| draw(&area));
        drawn.map_err(|error| anyhow!("cannot draw: {error}"))?;
        area.present().map_err(|error| anyhow!("cannot draw: {error}"))?;
    }
    Ok(svg)
}

/// Series over a common axis from 0 on.
pub(super) fn curves(series: &[Series], axes: Axes<'_>, form: Form) -> anyhow::Result<String> {
    svg((860, 320), |area| {
        let all = || series.iter().flat_map(|it| &it.points);
        let most = |of: fn(&(f64, f64)) -> f64| all().map(of).fold(0.0, f64::max);
        let x_max =
            if form == Form::Points { most(|it| it.0) + 1.0 } else { most(|it| it.0).max(0.1) };
        let x_min = if form == Form::Points { -1.0 } else { 0.0 };
        let y_max = (most(|it| it.1) * 1.1).max(f64::MIN_POSITIVE);
        let y_max = if y_max < 1e-9 { 1.0 } else { y_max };
        let mut chart = ChartBuilder::on(area)
            .margin(12)
            .x_label_area_size(40)
            .y_label_area_size(84)
            .build_cartesian_2d(x_min..x_max, 0.0..y_max)?;
        let whole = |x: &f64| {
            if form == Form::Points && (x.fract() != 0.0 || *x < 0.0) {
                String::new()
            } else {
                trimmed(*x)
            }
        };
        chart
            .configure_mesh()
            .bold_line_style(GRID)
            .light_line_style(TRANSPARENT)
            .axis_style(RGBColor(120, 120, 120))
            .x_desc(axes.x)
            .y_desc(axes.y)
            .label_style(LABEL)
            .y_labels(6)
            .x_label_formatter(&whole)
            .y_label_formatter(&|y| (axes.y_label)(*y))
            .draw()?;
        for (index, it) in series.iter().enumerate() {
            let color = COLORS[index % COLORS.len()];
            let points = it.points.iter().copied();
            let drawn = match form {
                Form::Lines => chart.draw_series(LineSeries::new(points, color.stroke_width(2)))?,
                Form::Points => {
                    chart.draw_series(points.map(|at| Circle::new(at, 3, color.filled())))?
                }
            };
            drawn.label(&*it.name).legend(move |(x, y)| {
                Rectangle::new([(x, y - 4), (x + 12, y + 4)], color.filled())
            });
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::UpperRight)
            .background_style(WHITE.mix(0.8))
            .border_style(GRID)
            .label_font(LABEL)
            .draw()?;
        Ok(())
    })
}

/// `12`, `0.5`.
fn trimmed(value: f64) -> String {
    let text = format!("{value:.2}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// Calls by how long they took: `buckets` are (end in nanoseconds, calls), in order.
pub(super) fn histogram(buckets: &[(u64, u64)], index: usize) -> anyhow::Result<String> {
    // Buckets of a rank are fine: here one for each half of a power of ten.
    let place = |end_ns: u64| ((end_ns.max(1) as f64).log10() * 4.0).floor() as i64;
    let low = buckets.first().map_or(8, |it| place(it.0)) - 1;
    let high = buckets.last().map_or(36, |it| place(it.0)) + 2;
    let mut bars = vec![0_u64; usize::try_from(high - low).unwrap_or(1)];
    for (end_ns, calls) in buckets {
        if let Some(bar) =
            usize::try_from(place(*end_ns) - low).ok().and_then(|at| bars.get_mut(at))
        {
            *bar += calls;
        }
    }
    svg((420, 220), |area| {
        let most = bars.iter().copied().max().unwrap_or(1).max(1) as f64;
        let x = |at: i64| at as f64 / 4.0;
        let mut chart = ChartBuilder::on(area)
            .margin(8)
            .x_label_area_size(24)
            .y_label_area_size(56)
            .build_cartesian_2d(x(low)..x(high), 0.0..most * 1.08)?;
        let whole = |at: &f64| match at.fract() {
            0.0 => power(*at as i64),
            _ => String::new(),
        };
        chart
            .configure_mesh()
            .disable_x_mesh()
            .bold_line_style(GRID)
            .light_line_style(TRANSPARENT)
            .axis_style(RGBColor(120, 120, 120))
            .label_style(LABEL)
            .y_labels(4)
            .x_label_formatter(&whole)
            .y_label_formatter(&|y| super::figure::count(*y as u64))
            .draw()?;
        let color = COLORS[index % COLORS.len()];
        let bars = (low..).zip(&bars).filter(|(_, calls)| **calls > 0);
        chart.draw_series(bars.map(|(at, calls)| {
            Rectangle::new([(x(at), 0.0), (x(at + 1), *calls as f64)], color.filled())
        }))?;
        Ok(())
    })
}

/// A power of ten of nanoseconds as a time.
fn power(power: i64) -> String {
    let units = ["ns", "us", "ms", "s"];
    let unit = usize::try_from(power / 3).unwrap_or(0).min(units.len() - 1);
    let value = 10_f64.powi(i32::try_from(power).unwrap_or(0) - 3 * unit as i32);
    format!("{} {}", trimmed(value), units[unit])
}

/// A rank of a tree.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) rank: u32,
    pub(super) level: usize,
    pub(super) parent: Option<u32>,
    /// The parent that it has found when the first was lost.
    pub(super) other_parent: Option<u32>,
    /// From 0 to 1.
    pub(super) load: f64,
    pub(super) is_dead: bool,
}

/// From white over orange to dark red.
fn heat(load: f64) -> RGBColor {
    let stops = [(255.0, 250.0, 235.0), (253.0, 174.0, 97.0), (165.0, 0.0, 38.0)];
    let at = load.clamp(0.0, 1.0) * 2.0;
    let (from, to) = if at <= 1.0 { (stops[0], stops[1]) } else { (stops[1], stops[2]) };
    let part = if at <= 1.0 { at } else { at - 1.0 };
    let mixed = |from: f64, to: f64| (from + (to - from) * part).round() as u8;
    RGBColor(mixed(from.0, to.0), mixed(from.1, to.1), mixed(from.2, to.2))
}

/// A tree, level below level, each rank coloured by its load; dead ones are crossed out, and dashed
/// lines lead to the parents that were found instead of lost ones.
pub(super) fn tree(nodes: &[Node]) -> anyhow::Result<String> {
    let depth = nodes.iter().map(|node| node.level).max().unwrap_or(0);
    let height = 100 + 90 * u32::try_from(depth).unwrap_or(0);
    let places = places(nodes, 860.0, 90.0);
    let place_of =
        |rank: u32| nodes.iter().position(|node| node.rank == rank).map(|index| places[index]);
    svg((860, height.min(900)), |area| {
        let widest =
            (0..=depth).map(|level| nodes.iter().filter(|it| it.level == level).count()).max();
        let radius = (860 / (3 * widest.unwrap_or(1).max(1))).clamp(2, 17) as i32;
        let edge = RGBColor(170, 170, 170);
        for (node, &place) in nodes.iter().zip(&places) {
            if let Some(parent) = node.parent.and_then(place_of) {
                area.draw(&PathElement::new([place, parent], edge.stroke_width(1)))?;
            }
            if let Some(parent) = node.other_parent.and_then(place_of) {
                let way = DashedPathElement::new([place, parent], 5, 4, COLORS[0].stroke_width(2));
                area.draw(&way)?;
            }
        }
        for (node, &(x, y)) in nodes.iter().zip(&places) {
            area.draw(&Circle::new((x, y), radius, heat(node.load).filled()))?;
            let border = if node.is_dead { BLACK.stroke_width(2) } else { edge.stroke_width(1) };
            area.draw(&Circle::new((x, y), radius, border))?;
            if node.is_dead {
                for sign in [1, -1] {
                    let ends = [(x - radius, y - sign * radius), (x + radius, y + sign * radius)];
                    area.draw(&PathElement::new(ends, BLACK.stroke_width(2)))?;
                }
            }
            if nodes.len() <= NUMBERED_MAX {
                let style = LABEL.into_font().color(&BLACK);
                area.draw(&Text::new(node.rank.to_string(), (x + radius + 3, y - 6), style))?;
            }
        }
        Ok(())
    })
}

/// Where the nodes stand: each level spread over the width.
fn places(nodes: &[Node], width: f64, row: f64) -> Vec<(i32, i32)> {
    let mut index_of_level: Vec<usize> = Vec::new();
    let mut indices = Vec::new();
    for node in nodes {
        if index_of_level.len() <= node.level {
            index_of_level.resize(node.level + 1, 0);
        }
        indices.push(index_of_level[node.level]);
        index_of_level[node.level] += 1;
    }
    let place = |(node, index): (&Node, usize)| {
        let x = width * (index as f64 + 0.5) / index_of_level[node.level] as f64;
        (x as i32, (row * node.level as f64 + 50.0) as i32)
    };
    nodes.iter().zip(indices).map(place).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drawings_are_svg_and_name_what_they_show() {
        let series = [Series { name: "level <1>".into(), points: vec![(0.0, 0.0), (1.0, 5.0)] }];
        let axes = Axes { x: "seconds", y: "calls", y_label: |y| format!("{y}") };
        let svg = curves(&series, axes, Form::Lines).expect("it can be drawn");
        assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"), "{svg}");
        assert!(svg.contains("level &lt;1&gt;") && svg.contains("<polyline"), "{svg}");
        assert!(
            histogram(&[(1000, 3), (2_000_000, 1)], 0).expect("it can be drawn").contains("<rect")
        );
        let empty = curves(&[], axes, Form::Points).expect("nothing is a drawing too");
        assert!(empty.contains("</svg>") && histogram(&[], 0).is_ok() && tree(&[]).is_ok());
    }

    #[test]
    fn times_stand_at_the_axis() {
        let told: Vec<String> = [2, 3, 4, 6, 9, 10].map(power).into();
        assert_eq!(told, ["100 ns", "1 us", "10 us", "1 ms", "1 s", "10 s"]);
    }

    #[test]
    fn heat_goes_from_light_to_dark() {
        assert_eq!((heat(0.0), heat(1.0)), (RGBColor(255, 250, 235), RGBColor(165, 0, 38)));
    }
}
