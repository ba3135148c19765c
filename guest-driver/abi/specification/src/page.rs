// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The text as one page of HTML that needs nothing beside itself.

use std::fmt::Write as _;

use anyhow::Result;
use pulldown_cmark::{
    html, CodeBlockKind, CowStr, Event, HeadingLevel, Options, Parser, Tag, TagEnd,
};

use crate::coverage::{untested, Coverage};
use crate::diagram;

const STYLE: &str = include_str!("page.css");

/// The page.
///
/// # Errors
///
/// A diagram makes no sense.
pub fn render(text: &str, coverage: &Coverage) -> Result<String> {
    let events = Parser::new_ext(text, Options::ENABLE_TABLES).collect::<Vec<_>>();
    let (events, headings) = rework(events, coverage, &untested(text))?;
    let mut body = String::new();
    html::push_html(&mut body, events.into_iter());
    let mut contents = String::new();
    for heading in &headings {
        let class = if heading.level == HeadingLevel::H2 {
            ""
        } else {
            " class=\"deep\""
        };
        writeln!(
            contents,
            "<li{class}><a href=\"#{}\">{}</a></li>",
            heading.id, heading.text
        )?;
    }
    let title = text
        .lines()
        .next()
        .unwrap_or_default()
        .trim_start_matches("# ");
    Ok(format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" content=\"width=device-width\">\n\
         <title>{title}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<nav>\n<ul>\n{contents}</ul>\n</nav>\n<main>\n{body}</main>\n</body>\n</html>\n"
    ))
}

/// A heading below the title.
struct Heading {
    level: HeadingLevel,
    id: String,
    text: String,
}

/// Gives headings and statements names to be linked by, draws diagrams, and adds the tests of each statement.
fn rework<'t>(
    events: Vec<Event<'t>>,
    coverage: &Coverage,
    untested: &[(String, String)],
) -> Result<(Vec<Event<'t>>, Vec<Heading>)> {
    let (mut reworked, mut headings) = (Vec::new(), Vec::new());
    let mut events = events.into_iter().peekable();
    // The statement whose paragraph this is.
    let mut statement = None;
    while let Some(event) = events.next() {
        match event {
            Event::Start(Tag::Heading { level, .. }) if level != HeadingLevel::H1 => {
                let mut text = String::new();
                for event in events
                    .by_ref()
                    .take_while(|event| !matches!(event, Event::End(TagEnd::Heading(_))))
                {
                    if let Event::Text(part) | Event::Code(part) = event {
                        text += &part;
                    }
                }
                let id = slug(&text);
                let tag = if level == HeadingLevel::H2 {
                    "h2"
                } else {
                    "h3"
                };
                reworked.push(raw(format!("<{tag} id=\"{id}\">{text}</{tag}>\n")));
                headings.push(Heading { level, id, text });
            }
            Event::Start(Tag::CodeBlock(CodeBlockKind::Fenced(language)))
                if &*language == "mermaid" =>
            {
                let mut source = String::new();
                for event in events
                    .by_ref()
                    .take_while(|event| !matches!(event, Event::End(TagEnd::CodeBlock)))
                {
                    if let Event::Text(part) = event {
                        source += &part;
                    }
                }
                reworked.push(raw(format!(
                    "<figure>\n{}</figure>\n",
                    diagram::draw(&source)?
                )));
            }
            Event::Start(Tag::Paragraph)
                if matches!(events.peek(), Some(Event::Start(Tag::Strong))) =>
            {
                events.next();
                let name = match events.next() {
                    Some(Event::Text(name)) => name,
                    _ => CowStr::Borrowed(""),
                };
                events.next();
                let side = if name.contains(".drv.") {
                    "driver"
                } else {
                    "device"
                };
                reworked.push(raw(format!(
                    "<div class=\"statement {side}\" id=\"{name}\">\n<p><a class=\"name\" href=\"#{name}\">{name}</a>"
                )));
                statement = Some(name.to_string());
            }
            Event::End(TagEnd::Paragraph) => {
                reworked.push(Event::End(TagEnd::Paragraph));
                if let Some(name) = statement.take() {
                    reworked.push(raw(shown_by(&name, coverage, untested)));
                }
            }
            // Only the markers of tables.
            Event::Html(_) | Event::Start(Tag::HtmlBlock) | Event::End(TagEnd::HtmlBlock) => {}
            other => reworked.push(other),
        }
    }
    Ok((reworked, headings))
}

fn raw<'t>(html: String) -> Event<'t> {
    Event::Html(html.into())
}

fn shown_by(name: &str, coverage: &Coverage, untested: &[(String, String)]) -> String {
    let tests = coverage.tests.get(name).map_or(&[][..], Vec::as_slice);
    let items: String = tests
        .iter()
        .map(|test| format!("<li><code>{test}</code></li>"))
        .collect();
    let reason = untested.iter().find(|(other, _)| other == name);
    match (tests.len(), reason) {
        (0, Some((_, reason))) => format!("<p class=\"tests\">No test: {reason}</p>\n</div>\n"),
        (0, None) => "<p class=\"tests\">No test</p>\n</div>\n".into(),
        (1, _) => format!("<details class=\"tests\"><summary>1 test</summary><ul>{items}</ul></details>\n</div>\n"),
        (count, _) => {
            format!("<details class=\"tests\"><summary>{count} tests</summary><ul>{items}</ul></details>\n</div>\n")
        }
    }
}

/// The name of a heading in links, as in other renderings of Markdown.
fn slug(text: &str) -> String {
    let letters = text.to_lowercase();
    let kept = letters
        .chars()
        .filter(|letter| letter.is_alphanumeric() || " -_".contains(*letter));
    kept.map(|letter| if letter == ' ' { '-' } else { letter })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_have_names_and_tests_or_reasons() -> Result<()> {
        let text = "# T\n\n## A b\n\n**coax.dev.1** It MUST.\n\n**coax.drv.2** It MAY.\n";
        let mut coverage = Coverage::default();
        coverage
            .tests
            .insert("coax.dev.1".into(), vec!["a.rs: b".into()]);
        let page = render(text, &coverage)?;
        assert!(
            page.contains("<h2 id=\"a-b\">A b</h2>") && page.contains("href=\"#a-b\""),
            "{page}"
        );
        assert!(
            page.contains("id=\"coax.dev.1\"") && page.contains("a.rs: b"),
            "{page}"
        );
        assert!(
            page.contains("statement driver\" id=\"coax.drv.2\""),
            "{page}"
        );
        Ok(())
    }
}
