//! Time over nodes as a drawing, beside what has been published.

use anyhow::anyhow;
use plotters::prelude::*;

use super::Report;

/// `import torch` by 12 processes a node on Aurora, from the C++ Copper's documentation: nodes, and
/// seconds from Lustre.
const PUBLISHED_LUSTRE: [(u32, f64); 8] = [
    (64, 105.0),
    (128, 110.0),
    (256, 110.0),
    (512, 115.0),
    (1024, 240.0),
    (2048, 420.0),
    (4096, 480.0),
    (8192, 1020.0),
];

/// The same through the C++ Copper: the ends of what was published.
const PUBLISHED_COPPER: [(u32, f64); 2] = [(64, 50.0), (8192, 60.0)];

const SIZE: (u32, u32) = (860, 540);

/// Blue and orange of Okabe and Ito, which no eye takes for each other.
const COPPER: RGBColor = RGBColor(0, 114, 178);
const DIRECT: RGBColor = RGBColor(213, 94, 0);

const LABEL: (&str, u32) = ("sans-serif", 14);

/// One curve.
struct Curve {
    name: &'static str,
    color: RGBColor,
    published: bool,
    points: Vec<(f64, f64)>,
}

/// An SVG with both curves of the runs and both that were published.
///
/// # Errors
/// If it cannot be drawn.
pub(crate) fn plot(reports: &[Report]) -> anyhow::Result<String> {
    let mut svg = String::new();
    draw(&mut svg, &curves(reports)).map_err(|error| anyhow!("cannot draw: {error}"))?;
    Ok(svg)
}

fn curves(reports: &[Report]) -> Vec<Curve> {
    let simulated = |seconds: fn(&Report) -> f64| {
        let mut points: Vec<_> =
            reports.iter().map(|it| (f64::from(it.nodes), seconds(it))).collect();
        points.sort_by(|one, other| one.0.total_cmp(&other.0));
        points
    };
    let published = |points: &[(u32, f64)]| {
        points.iter().map(|&(nodes, seconds)| (f64::from(nodes), seconds)).collect()
    };
    vec![
        Curve {
            name: "without Copper, published",
            color: DIRECT,
            published: true,
            points: published(&PUBLISHED_LUSTRE),
        },
        Curve {
            name: "without Copper, modelled",
            color: DIRECT,
            published: false,
            points: simulated(|it| it.direct_seconds),
        },
        Curve {
            name: "C++ Copper, published",
            color: COPPER,
            published: true,
            points: published(&PUBLISHED_COPPER),
        },
        Curve {
            name: "Copper, simulated",
            color: COPPER,
            published: false,
            points: simulated(|it| it.seconds),
        },
    ]
}

fn draw(svg: &mut String, curves: &[Curve]) -> Result<(), Box<dyn std::error::Error>> {
    let area = SVGBackend::with_string(svg, SIZE).into_drawing_area();
    area.fill(&WHITE)?;
    let all = || curves.iter().flat_map(|curve| &curve.points);
    let most = |of: fn(&(f64, f64)) -> f64| all().map(of).fold(1.0, f64::max);
    let (nodes, seconds) = (most(|it| it.0) * 1.5, most(|it| it.1) * 1.5);
    let mut chart = ChartBuilder::on(&area)
        .caption("Time of an import over nodes", ("sans-serif", 20))
        .margin(16)
        .x_label_area_size(44)
        .y_label_area_size(60)
        .build_cartesian_2d((1.0..nodes).log_scale(), (1.0..seconds).log_scale())?;
    let grid = RGBColor(225, 225, 225);
    chart
        .configure_mesh()
        .bold_line_style(grid)
        .light_line_style(TRANSPARENT)
        .x_desc("nodes")
        .y_desc("seconds")
        .label_style(LABEL)
        .x_label_formatter(&|nodes| format!("{nodes:.0}"))
        .y_label_formatter(&|seconds| format!("{seconds:.0}"))
        .draw()?;
    for curve in curves {
        let (points, color) = (curve.points.iter().copied(), curve.color);
        let style = color.stroke_width(2);
        if curve.published {
            chart
                .draw_series(DashedLineSeries::new(points.clone(), 6, 5, style))?
                .label(curve.name)
                .legend(move |(x, y)| Circle::new((x + 10, y), 4, color));
            chart.draw_series(points.map(|point| Circle::new(point, 4, color)))?;
        } else {
            chart
                .draw_series(LineSeries::new(points.clone(), style))?
                .label(curve.name)
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 20, y)], style));
            chart.draw_series(points.map(|point| Circle::new(point, 3, color.filled())))?;
        }
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .background_style(WHITE)
        .border_style(grid)
        .label_font(LABEL)
        .draw()?;
    area.present()?;
    Ok(())
}
