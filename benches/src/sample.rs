//! Samples of one figure, and the table they end up in.

/// What was measured of one contender, in the order of the rounds.
#[derive(Default)]
pub(crate) struct Samples(Vec<f64>);

impl Samples {
    pub(crate) fn add(&mut self, value: f64) {
        self.0.push(value);
    }

    fn sorted(&self) -> Vec<f64> {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        sorted
    }

    /// The middle one; of an even number, the mean of the middle two.
    pub(crate) fn median(&self) -> f64 {
        let sorted = self.sorted();
        let middle = sorted.len() / 2;
        match sorted.len() {
            0 => f64::NAN,
            odd if odd % 2 == 1 => sorted[middle],
            _ => f64::midpoint(sorted[middle - 1], sorted[middle]),
        }
    }

    /// `median (least–most)`.
    pub(crate) fn told(&self) -> String {
        let sorted = self.sorted();
        let (least, most) = (sorted.first().copied().unwrap_or(f64::NAN), sorted.last().copied().unwrap_or(f64::NAN));
        format!("**{}** ({}–{})", figure(self.median()), figure(least), figure(most))
    }
}

/// Three digits, which is what such figures are good for.
pub(crate) fn figure(value: f64) -> String {
    match value {
        value if value >= 10_000.0 => format!("{},{:03}", (value / 1000.0) as u64, (value as u64) % 1000),
        value if value >= 100.0 => format!("{value:.0}"),
        value if value >= 10.0 => format!("{value:.1}"),
        value => format!("{value:.2}"),
    }
}

/// A table in Markdown, first column to the left.
pub(crate) fn print_table(title: &str, columns: &[&str], rows: &[Vec<String>]) {
    println!("### {title}\n");
    println!("| {} |", columns.join(" | "));
    println!("|{}", "---|".repeat(columns.len()));
    for row in rows {
        println!("| {} |", row.join(" | "));
    }
    println!();
}

/// A chart of lines, as Mermaid draws it.
///
/// Source: <https://mermaid.js.org/syntax/xyChart.html>
pub(crate) fn print_plot(title: &str, places: &[String], unit: &str, lines: &[(&str, Vec<f64>)]) {
    let most =
        lines.iter().flat_map(|(_, values)| values).copied().filter(|value| value.is_finite()).fold(0.0, f64::max);
    println!("```mermaid\nxychart-beta\n    title \"{title}\"");
    println!("    x-axis [{}]", places.join(", "));
    println!("    y-axis \"{unit}\" 0 --> {:.0}", (most * 1.1).ceil());
    for (_, values) in lines {
        let values: Vec<String> = values.iter().map(|value| format!("{value:.1}")).collect();
        println!("    line [{}]", values.join(", "));
    }
    let names: Vec<&str> = lines.iter().map(|(name, _)| *name).collect();
    println!("```\n\nLines, in this order: {}.\n", names.join("; "));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_and_figures() {
        let of = |values: &[f64]| Samples(values.to_vec());
        assert_eq!(of(&[3.0, 1.0, 2.0]).told(), "**2.00** (1.00–3.00)");
        assert_eq!(of(&[4.0, 1.0]).median(), 2.5);
        assert!(Samples::default().median().is_nan());
        assert_eq!([9.996, 41.52, 290.4, 42_759.2].map(figure), ["10.00", "41.5", "290", "42,759"]);
    }
}
