// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The text is what the code is: tables, and a test for each statement.

use std::collections::BTreeSet;

use anyhow::Result;
use coax_specification::coverage::{untested, workspace, Coverage};
use coax_specification::{page, statements, tables, TEXT};

#[test]
fn tables_are_those_of_the_wire() -> Result<()> {
    let filled = tables::fill(TEXT)?;
    let differing = filled
        .lines()
        .zip(TEXT.lines())
        .find(|(new, old)| new != old);
    assert_eq!(
        differing, None,
        "run `cargo run -p coax-specification -- tables`"
    );
    assert_eq!(
        filled, TEXT,
        "run `cargo run -p coax-specification -- tables`"
    );
    Ok(())
}

#[test]
fn every_statement_has_a_test_or_a_reason_for_none() -> Result<()> {
    let coverage = Coverage::read(&workspace())?;
    assert!(
        coverage.misplaced.is_empty(),
        "Not in tests: {:#?}",
        coverage.misplaced
    );
    let untested = untested(TEXT);
    let without: BTreeSet<&str> = untested.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(without.len(), untested.len(), "A statement is listed twice");
    assert!(untested.iter().all(|(_, reason)| !reason.is_empty()));
    let names: BTreeSet<&str> = statements().map(|statement| statement.name).collect();
    let unknown: Vec<_> = without.difference(&names).collect();
    assert!(unknown.is_empty(), "No statements: {unknown:?}");
    let missing: Vec<_> = names
        .iter()
        .filter(|name| !without.contains(*name) && !coverage.tests.contains_key(**name))
        .collect();
    assert!(
        missing.is_empty(),
        "Neither a test nor a reason for none: {missing:?}"
    );
    let both: Vec<_> = without
        .iter()
        .filter(|name| coverage.tests.contains_key(**name))
        .collect();
    assert!(
        both.is_empty(),
        "Listed as without a test, and have one: {both:?}"
    );
    Ok(())
}

#[test]
fn page_needs_nothing_beside_itself_and_has_every_statement() -> Result<()> {
    let page = page::render(TEXT, &Coverage::read(&workspace())?)?;
    for statement in statements() {
        assert!(
            page.contains(&format!("id=\"{}\"", statement.name)),
            "{}",
            statement.name
        );
    }
    for outside in ["<link", "<script", "<img", "src=", "@import", "url("] {
        assert!(!page.contains(outside), "{outside}");
    }
    let targets: Vec<&str> = page
        .split("href=\"#")
        .skip(1)
        .filter_map(|rest| rest.split('"').next())
        .collect();
    assert!(targets.len() > 20);
    for target in targets {
        assert!(
            page.contains(&format!("id=\"{target}\"")),
            "{target} is nowhere"
        );
    }
    assert_eq!(page.matches("<svg").count(), 2);
    Ok(())
}
