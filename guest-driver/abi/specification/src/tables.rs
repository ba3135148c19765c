// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The tables of the text, made of what `coax-abi` says.
//!
//! | marker | table |
//! |---|---|
//! | `<!-- table: queues -->` | what each queue carries |
//! | `<!-- table: constants A B -->` | the constants of these names, or whose names begin so |
//! | `<!-- table: bits A -->` | the same, of numbers of bits |
//! | `<!-- table: structure A -->` | the fields of a structure |
//!
//! A table ends with `<!-- end -->`.

use std::fmt::Write as _;

use anyhow::{bail, ensure, Context as _, Result};

use crate::wire::Wire;

const BEGIN: &str = "<!-- table: ";
const END: &str = "<!-- end -->";

/// The text with its tables as they ought to be.
///
/// # Errors
///
/// A marker makes no sense.
pub fn fill(text: &str) -> Result<String> {
    let wire = Wire::read()?;
    let mut filled = String::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        filled += line;
        filled += "\n";
        let Some(marker) = line.strip_prefix(BEGIN) else {
            ensure!(line != END, "A table ends that has not begun");
            continue;
        };
        let what = marker
            .strip_suffix(" -->")
            .context("A marker without an end")?;
        filled += &table(&wire, what).with_context(|| format!("Table {what:?}"))?;
        let end = lines.find(|line| *line == END);
        filled += end.with_context(|| format!("Table {what:?} has no end"))?;
        filled += "\n";
    }
    Ok(filled)
}

fn table(wire: &Wire, what: &str) -> Result<String> {
    let mut words = what.split_whitespace();
    let kind = words.next().context("No kind of table")?;
    let names: Vec<&str> = words.collect();
    match (kind, &names[..]) {
        ("queues", []) => queues(wire),
        ("constants", [_, ..]) => constants(wire, &names, "value"),
        ("bits", [_, ..]) => constants(wire, &names, "bit"),
        ("structure", [name]) => structure(wire, name),
        _ => bail!("Not known"),
    }
}

/// The table in what is written about the wire.
fn queues(wire: &Wire) -> Result<String> {
    let rows = wire.about.lines().filter(|line| line.starts_with('|'));
    let table: String = rows.map(|row| format!("{row}\n")).collect();
    ensure!(
        table.starts_with("| queue |"),
        "The wire has no table of queues"
    );
    Ok(table)
}

fn constants(wire: &Wire, names: &[&str], number: &str) -> Result<String> {
    let mut table = format!("| {number} | name | is |\n|---|---|---|\n");
    for name in names {
        let named =
            |constant: &str| constant == *name || name.ends_with('_') && constant.starts_with(name);
        let mut any = false;
        for constant in wire
            .constants
            .iter()
            .filter(|constant| named(&constant.name))
        {
            let about = cell(&constant.about);
            writeln!(
                table,
                "| {} | `{}` | {about} |",
                constant.shown, constant.name
            )?;
            any = true;
        }
        ensure!(any, "No constant {name}");
    }
    Ok(table)
}

fn structure(wire: &Wire, name: &str) -> Result<String> {
    let structure = wire.structure_named(name)?;
    let mut table = format!(
        "`{}`, {} bytes: {}\n\n| offset | field | type | is |\n|---|---|---|---|\n",
        structure.name,
        structure.bytes,
        sentence(&structure.about)
    );
    for field in &structure.fields {
        let about = cell(&field.about);
        writeln!(
            table,
            "| {} | `{}` | {} | {about} |",
            field.offset, field.name, field.shown
        )?;
    }
    Ok(table)
}

/// As the end of a sentence that has begun: without a table of its own, and with a small letter unless that is a name.
fn sentence(about: &str) -> String {
    let about = about.split('|').next().unwrap_or_default().trim();
    let mut letters = about.chars();
    match (letters.next(), letters.next()) {
        (Some(first), Some(second)) if second.is_lowercase() || second == ' ' => first
            .to_lowercase()
            .chain([second])
            .chain(letters)
            .collect(),
        _ => about.to_owned(),
    }
}

fn cell(about: &str) -> String {
    about.replace('|', "\\|")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markers_that_make_no_sense_are_told() {
        for text in [
            "<!-- table: constants NOTHING_ -->\n<!-- end -->\n",
            "<!-- table: structure Nothing -->\n<!-- end -->\n",
            "<!-- table: constants -->\n<!-- end -->\n",
            "<!-- table: queues -->\n",
            "<!-- end -->\n",
        ] {
            assert!(fill(text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_is_between_the_markers_is_replaced() -> Result<()> {
        let text = "a\n<!-- table: bits F_ATOMIC -->\nold\n<!-- end -->\nb\n";
        let filled = fill(text)?;
        assert!(
            filled.contains("| 0 | `F_ATOMIC` |") && !filled.contains("old"),
            "{filled}"
        );
        assert_eq!(fill(&filled)?, filled);
        Ok(())
    }
}
