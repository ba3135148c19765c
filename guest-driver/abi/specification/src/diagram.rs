// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Sequence diagrams of the text, drawn as SVG.
//!
//! The text has them in the part of Mermaid's language that this knows: `title`, `participant A as Name`, `A->>B: text`
//! and `Note over A: text`.

use std::fmt::Write as _;

use anyhow::{bail, ensure, Context as _, Result};

/// Between two participants' lines.
const COLUMN: usize = 320;
/// Beside the first and the last.
const MARGIN: usize = 120;
/// Height of a line of text.
const LINE: usize = 18;
/// Letters of a line between two participants, and in a note.
const LETTERS: usize = 42;
const NOTE_LETTERS: usize = 30;
const NOTE_WIDTH: usize = 220;
/// Where the participants' boxes end.
const TOP: usize = 84;

/// What happens, from top to bottom.
enum Step {
    Message {
        from: usize,
        to: usize,
        text: String,
    },
    Note {
        at: usize,
        text: String,
    },
}

/// A diagram as it is drawn.
///
/// # Errors
///
/// The source is no diagram of the kind that this knows.
pub fn draw(source: &str) -> Result<String> {
    let mut lines = source
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty());
    ensure!(
        lines.next() == Some("sequenceDiagram"),
        "No sequence diagram"
    );
    let (mut title, mut participants, mut steps) = ("", Vec::new(), Vec::new());
    for line in lines {
        if let Some(text) = line.strip_prefix("title ") {
            title = text;
        } else if let Some(participant) = line.strip_prefix("participant ") {
            let named = participant.split_once(" as ");
            participants.push(named.with_context(|| format!("{line:?}: no name"))?);
        } else {
            steps.push(step(line, &participants).with_context(|| format!("{line:?}"))?);
        }
    }
    ensure!(!participants.is_empty(), "No participants");
    render(title, &participants, &steps)
}

fn step(line: &str, participants: &[(&str, &str)]) -> Result<Step> {
    let (what, text) = line.split_once(": ").context("No text")?;
    let place = |id: &str| {
        let found = participants.iter().position(|(other, _)| *other == id);
        found.with_context(|| format!("No participant {id:?}"))
    };
    let text = text.to_owned();
    if let Some(id) = what.strip_prefix("Note over ") {
        return Ok(Step::Note {
            at: place(id)?,
            text,
        });
    }
    let Some((from, to)) = what.split_once("->>") else {
        bail!("Neither a note nor a message");
    };
    let (from, to) = (place(from)?, place(to)?);
    ensure!(from != to, "A message to oneself");
    Ok(Step::Message { from, to, text })
}

fn render(title: &str, participants: &[(&str, &str)], steps: &[Step]) -> Result<String> {
    let x = |at: usize| MARGIN + at * COLUMN;
    let (mut body, mut y) = (String::new(), TOP + LINE);
    for step in steps {
        match step {
            Step::Message { from, to, text } => {
                let lines = wrap(text, LETTERS * from.abs_diff(*to));
                let middle = (x(*from) + x(*to)) / 2;
                y += write_lines(&mut body, &lines, middle, y)?;
                let (start, end) = if from < to {
                    (x(*from), x(*to) - 8)
                } else {
                    (x(*from), x(*to) + 8)
                };
                let tip = if from < to { end - 8 } else { end + 8 };
                writeln!(
                    body,
                    "<path class=\"arrow\" d=\"M{start} {y}H{end}M{tip} {}L{end} {y}L{tip} {}\"/>",
                    y - 5,
                    y + 5
                )?;
                y += LINE + 6;
            }
            Step::Note { at, text } => {
                let lines = wrap(text, NOTE_LETTERS);
                let (left, height) = (x(*at) - NOTE_WIDTH / 2, lines.len() * LINE + 10);
                writeln!(
                    body,
                    "<rect class=\"note\" x=\"{left}\" y=\"{}\" width=\"{NOTE_WIDTH}\" height=\"{height}\" rx=\"4\"/>",
                    y - 8
                )?;
                write_lines(&mut body, &lines, x(*at), y + 9)?;
                y += height + LINE;
            }
        }
    }
    let (width, height) = (x(participants.len() - 1) + MARGIN, y + LINE);
    let title = escape(title);
    let mut svg =
        format!("<svg viewBox=\"0 0 {width} {height}\" role=\"img\" aria-label=\"{title}\">\n");
    writeln!(
        svg,
        "<text class=\"title\" x=\"{}\" y=\"24\">{title}</text>",
        width / 2
    )?;
    for (at, (_, name)) in participants.iter().enumerate() {
        let (x, name) = (x(at), escape(name));
        writeln!(svg, "<path class=\"life\" d=\"M{x} {TOP}V{height}\"/>")?;
        writeln!(
            svg,
            "<rect class=\"who\" x=\"{}\" y=\"44\" width=\"140\" height=\"40\" rx=\"6\"/>",
            x - 70
        )?;
        writeln!(svg, "<text class=\"name\" x=\"{x}\" y=\"69\">{name}</text>")?;
    }
    svg += &body;
    svg += "</svg>\n";
    Ok(svg)
}

/// Writes lines of text around `x`; returns how far down that leads.
fn write_lines(body: &mut String, lines: &[String], x: usize, y: usize) -> Result<usize> {
    for (n, line) in lines.iter().enumerate() {
        writeln!(
            body,
            "<text x=\"{x}\" y=\"{}\">{}</text>",
            y + n * LINE,
            escape(line)
        )?;
    }
    Ok(lines.len() * LINE - LINE + 8)
}

/// Breaks a text into lines of so many letters.
fn wrap(text: &str, letters: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= letters => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_diagram_is_told() {
        let head = "sequenceDiagram\nparticipant A as One\nparticipant B as Two\n";
        for source in ["flowchart", "sequenceDiagram"] {
            assert!(draw(source).is_err(), "{source}");
        }
        for line in [
            "A->>C: to nobody",
            "A->>A: to oneself",
            "A: what",
            "Note over C: nobody",
            "A->>B",
        ] {
            assert!(draw(&format!("{head}{line}")).is_err(), "{line}");
        }
    }

    #[test]
    fn messages_and_notes_are_drawn_in_order() -> Result<()> {
        let svg = draw("sequenceDiagram\ntitle T\nparticipant A as One\nparticipant B as Two\nA->>B: a < b\nNote over B: later")?;
        let (message, note) = (svg.find("a &lt; b"), svg.find("later"));
        assert!(message.is_some() && message < note, "{svg}");
        assert_eq!(svg.matches("class=\"arrow\"").count(), 1);
        Ok(())
    }

    #[test]
    fn lines_are_no_longer_than_there_is_room() {
        assert_eq!(wrap("one two three", 7), ["one two", "three"]);
        assert!(wrap("", 7).is_empty());
    }
}
