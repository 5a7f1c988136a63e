//! A flame graph as an SVG picture: each box is a function, as wide as the share of samples in which it was on the stack, above
//! the function that called it.

use std::collections::BTreeMap;
use std::fmt::Write as _;

const WIDTH: f64 = 1200.0;
const MARGIN: f64 = 10.0;
const ROW: f64 = 18.0;
const TITLE: f64 = 44.0;
/// Of a letter, in the monospace font of the names.
const LETTER: f64 = 7.2;
/// Boxes that are narrower are left out.
const NARROWEST: f64 = 0.3;

/// A function, called by those above it.
#[derive(Default)]
struct Frame<'a> {
    samples: u64,
    calls: BTreeMap<&'a str, Frame<'a>>,
}

impl<'a> Frame<'a> {
    fn of(stacks: &'a [(String, u64)]) -> Self {
        let mut root = Self::default();
        for (stack, count) in stacks {
            root.samples += count;
            let mut frame = &mut root;
            for name in stack.split(';') {
                frame = frame.calls.entry(name).or_default();
                frame.samples += count;
            }
        }
        root
    }

    fn depth(&self) -> usize {
        1 + self.calls.values().map(Self::depth).max().unwrap_or(0)
    }
}

/// The picture. `stacks`: names of functions, the outermost first, with `;` between them, and how often they were seen.
pub(crate) fn graph(title: &str, stacks: &[(String, u64)]) -> String {
    let root = Frame::of(stacks);
    let height = TITLE + ROW * root.depth() as f64 + MARGIN;
    let mut svg = format!(
        r##"<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}">
<style>text {{ font: 12px monospace; fill: #1a1a1a }} .title {{ font: bold 15px sans-serif }} rect {{ stroke: #fff; stroke-width: .5 }} rect:hover {{ stroke: #1a1a1a; stroke-width: 1.5 }}</style>
<rect width="100%" height="100%" fill="#fdfdfb"/>
<text class="title" x="{MARGIN}" y="26">{}</text>
"##,
        escaped(title)
    );
    let picture = Picture { total: root.samples.max(1), bottom: height - MARGIN - ROW };
    picture.draw(&mut svg, "all", &root, (MARGIN, 0));
    svg.push_str("</svg>\n");
    svg
}

struct Picture {
    total: u64,
    bottom: f64,
}

impl Picture {
    fn draw(&self, svg: &mut String, name: &str, frame: &Frame<'_>, (x, depth): (f64, usize)) {
        let width = frame.samples as f64 / self.total as f64 * (WIDTH - 2.0 * MARGIN);
        if width < NARROWEST {
            return;
        }
        let y = self.bottom - ROW * depth as f64;
        let share = frame.samples as f64 * 100.0 / self.total as f64;
        let (shown, colour) = (fitting(name, width), colour(name));
        let name = escaped(name);
        let _ = write!(
            svg,
            "<g><title>{name} ({} samples, {share:.1} %)</title><rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" \
             height=\"{ROW}\" fill=\"{colour}\"/>",
            frame.samples
        );
        if !shown.is_empty() {
            let _ = write!(svg, "<text x=\"{:.1}\" y=\"{:.1}\">{}</text>", x + 3.0, y + 13.0, escaped(&shown));
        }
        svg.push_str("</g>\n");
        let mut at = x;
        for (name, called) in &frame.calls {
            self.draw(svg, name, called, (at, depth + 1));
            at += called.samples as f64 / self.total as f64 * (WIDTH - 2.0 * MARGIN);
        }
    }
}

/// As much of a name as a box of `width` has room for.
fn fitting(name: &str, width: f64) -> String {
    let room = ((width - 6.0) / LETTER).max(0.0) as usize;
    match name.chars().count() {
        length if length <= room => name.to_owned(),
        _ if room < 3 => String::new(),
        _ => name.chars().take(room - 1).chain(['…']).collect(),
    }
}

/// Warm, and the same for the same name.
fn colour(name: &str) -> String {
    let hash = name.bytes().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    format!("hsl({}, {}%, {}%)", 14 + hash % 36, 70 + (hash >> 8) % 20, 66 + (hash >> 16) % 10)
}

fn escaped(text: &str) -> String {
    text.chars()
        .filter(|c| !c.is_control())
        .map(|c| match c {
            '&' => "&amp;".to_owned(),
            '<' => "&lt;".to_owned(),
            '>' => "&gt;".to_owned(),
            '"' => "&quot;".to_owned(),
            c => c.to_string(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boxes_are_as_wide_as_their_share() {
        let stacks = [("main;parse<T>;read".to_owned(), 3), ("main;write \"x\" & more".to_owned(), 1)];
        let svg = graph("a component", &stacks);
        for part in [
            "<title>all (4 samples, 100.0 %)</title><rect x=\"10.0\"",
            "<title>parse&lt;T&gt; (3 samples, 75.0 %)</title><rect x=\"10.0\" y=\"62.0\" width=\"885.0\"",
            "<title>write &quot;x&quot; &amp; more (1 samples, 25.0 %)</title><rect x=\"895.0\"",
            ">read</text>",
        ] {
            assert!(svg.contains(part), "{part} is not in {svg}");
        }
        assert_eq!(svg.matches("<g>").count(), svg.matches("</g>").count());
        assert!(!graph("nothing", &[]).contains("<g>"), "a box of no width");
    }

    #[test]
    fn names_are_cut_to_their_boxes() {
        assert_eq!((fitting("main", 100.0).as_str(), fitting("a_long_name", 50.0).as_str()), ("main", "a_lon…"));
        assert_eq!(fitting("main", 10.0), "");
    }
}
