//! What was said, as a text and as a picture of it.

use std::{fmt::Write as _, fs, path::Path};

use anyhow::{Context as _, Result};

use super::tell::Style;

/// Units of a line, and of a character.
const LINE: usize = 18;
const CHARACTER: f64 = 7.8;
/// Around everything.
const MARGIN: usize = 16;

/// Writes `demo.txt` and `demo.svg`.
pub(super) fn write(folder: &Path, said: &[(Style, String)]) -> Result<()> {
    let text: String = said.iter().map(|(_, line)| format!("{line}\n")).collect();
    for (name, content) in [("demo.txt", text), ("demo.svg", svg(said))] {
        let path = folder.join(name);
        fs::write(&path, content).with_context(|| path.display().to_string())?;
    }
    Ok(())
}

/// Lines of characters of one width, in the colours of a dark terminal.
fn svg(said: &[(Style, String)]) -> String {
    let longest = said.iter().map(|(_, line)| line.chars().count()).max().unwrap_or(0);
    let width = (longest as f64 * CHARACTER).ceil() as usize + 2 * MARGIN;
    let height = said.len() * LINE + 2 * MARGIN;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {width} {height}\">\n\
         <rect width=\"100%\" height=\"100%\" rx=\"8\" fill=\"#1c2128\"/>\n\
         <g font-family=\"ui-monospace, Menlo, Consolas, 'DejaVu Sans Mono', monospace\" font-size=\"13\" xml:space=\"preserve\">\n"
    );
    for (number, (style, line)) in said.iter().enumerate().filter(|(_, (_, line))| !line.is_empty()) {
        let look = match style {
            Style::Plain => "fill=\"#adbac7\"",
            Style::Head => "fill=\"#ffffff\" font-weight=\"bold\"",
            Style::Good => "fill=\"#6bc46d\"",
            Style::Bad => "fill=\"#f47067\"",
        };
        let y = MARGIN + LINE * (number + 1) - 5;
        // Every font gives the same width: columns stay columns.
        let long = line.chars().count() as f64 * CHARACTER;
        let _ = writeln!(
            svg,
            "<text x=\"{MARGIN}\" y=\"{y}\" textLength=\"{long:.0}\" {look}>{}</text>",
            escaped(line)
        );
    }
    svg + "</g>\n</svg>\n"
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_has_its_place_and_its_colour() {
        let said = [
            (Style::Head, "a < b".to_owned()),
            (Style::Plain, String::new()),
            (Style::Bad, "killed".to_owned()),
        ];
        let svg = svg(&said);
        assert!(svg.contains("font-weight=\"bold\">a &lt; b</text>"), "{svg}");
        assert!(
            svg.contains("y=\"65\" textLength=\"47\" fill=\"#f47067\">killed<"),
            "{svg}"
        );
        assert_eq!(svg.matches("<text").count(), 2);
    }
}
