// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Which tests show which statements.
//!
//! A test is a function with `#[test]` that is not ignored, or a case of the VM tests (`tests/src/cases`). What else
//! says that it covers something is told as misplaced.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use syn::punctuated::Punctuated;
use syn::visit::{self, Visit};
use syn::{Attribute, ItemFn, LitStr, Macro, Token};

/// Where tests are.
const FOLDERS: &[&str] = &["guest-driver", "vmm-device", "tests", "images", "program"];
/// Where the cases of the VM tests are.
const CASES: &str = "tests/src/cases";
/// Heading above the table of statements that no test shows.
const UNTESTED: &str = "## Statements without a test";

/// The root of the workspace.
pub fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../..")
}

/// Tests by statement, and what is wrong.
#[derive(Debug, Default)]
pub struct Coverage {
    /// Files and functions, as `tests/loopback/copies.rs: entries_before_a_bad_one_are_done`.
    pub tests: BTreeMap<String, Vec<String>>,
    /// Functions that cover something and are no tests.
    pub misplaced: Vec<String>,
}

impl Coverage {
    /// Looks into all tests below the root of the workspace.
    ///
    /// # Errors
    ///
    /// A file cannot be read.
    pub fn read(root: &Path) -> Result<Self> {
        let mut coverage = Self::default();
        for folder in FOLDERS {
            coverage.read_folder(root, &root.join(folder))?;
        }
        Ok(coverage)
    }

    fn read_folder(&mut self, root: &Path, folder: &Path) -> Result<()> {
        let entries = fs::read_dir(folder).with_context(|| format!("Cannot read {folder:?}"))?;
        let mut paths = entries
            .map(|entry| Ok(entry?.path()))
            .collect::<Result<Vec<_>>>()?;
        paths.sort();
        for path in paths {
            let hidden = path
                .file_name()
                .is_some_and(|name| name == "target" || name == ".git");
            if path.is_dir() && !path.is_symlink() && !hidden {
                self.read_folder(root, &path)?;
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let source =
                    fs::read_to_string(&path).with_context(|| format!("Cannot read {path:?}"))?;
                let name = path.strip_prefix(root).unwrap_or(&path).to_string_lossy();
                self.read_file(&name, &source)?;
            }
        }
        Ok(())
    }

    /// Looks into one file, whose path is that from the root of the workspace.
    ///
    /// # Errors
    ///
    /// It is no Rust.
    pub fn read_file(&mut self, name: &str, source: &str) -> Result<()> {
        if !source.contains("covers!(") {
            return Ok(());
        }
        let file =
            syn::parse_file(source).with_context(|| format!("Cannot read {name} as Rust"))?;
        let mut finder = Finder {
            coverage: self,
            file: name,
            function: None,
        };
        finder.visit_file(&file);
        Ok(())
    }
}

/// Looks for markers.
struct Finder<'c> {
    coverage: &'c mut Coverage,
    file: &'c str,
    /// The function that is being looked at, and whether it is a test.
    function: Option<(String, bool)>,
}

impl<'ast> Visit<'ast> for Finder<'_> {
    fn visit_item_fn(&mut self, function: &'ast ItemFn) {
        let has = |name: &str| {
            function
                .attrs
                .iter()
                .any(|attribute: &Attribute| attribute.path().is_ident(name))
        };
        let case = self.file.starts_with(CASES);
        let test = case || has("test") && !has("ignore");
        let outer = self
            .function
            .replace((function.sig.ident.to_string(), test));
        visit::visit_item_fn(self, function);
        self.function = outer;
    }

    fn visit_macro(&mut self, found: &'ast Macro) {
        let last = found.path.segments.last();
        if last.is_none_or(|segment| segment.ident != "covers") {
            return visit::visit_macro(self, found);
        }
        let names = found.parse_body_with(Punctuated::<LitStr, Token![,]>::parse_terminated);
        let (name, test) = self.function.clone().unwrap_or_default();
        let place = format!("{}: {name}", self.file);
        match names {
            Ok(names) if test => {
                for statement in names {
                    let tests = self.coverage.tests.entry(statement.value()).or_default();
                    tests.push(place.clone());
                }
            }
            _ => self.coverage.misplaced.push(place),
        }
    }
}

/// The statements that the text says have no test, with the reasons.
pub fn untested(text: &str) -> Vec<(String, String)> {
    let table = text.split_once(UNTESTED).map_or("", |(_, rest)| rest);
    let rows = table.lines().skip_while(|line| !line.starts_with("|---"));
    rows.skip(1)
        .take_while(|line| line.starts_with('|'))
        .filter_map(|line| {
            let mut cells = line.trim_matches('|').split('|').map(str::trim);
            Some((cells.next()?.to_owned(), cells.next()?.to_owned()))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markers_count_in_tests_and_are_misplaced_elsewhere() -> Result<()> {
        let source = r#"
            #[test]
            fn shows() { covers!("coax.dev.1", "coax.dev.2"); }
            #[test]
            #[ignore = "long"]
            fn long() { covers!("coax.dev.3"); }
            fn helper() { coax_specification::covers!("coax.dev.3"); }
            // covers!("coax.dev.4")
        "#;
        let mut coverage = Coverage::default();
        coverage.read_file("a.rs", source)?;
        coverage.read_file(
            "tests/src/cases/b.rs",
            "fn case() { covers!(\"coax.drv.1\"); }",
        )?;
        let names: Vec<_> = coverage.tests.keys().cloned().collect();
        assert_eq!(names, ["coax.dev.1", "coax.dev.2", "coax.drv.1"]);
        assert_eq!(coverage.tests["coax.dev.1"], ["a.rs: shows"]);
        assert_eq!(coverage.misplaced, ["a.rs: long", "a.rs: helper"]);
        Ok(())
    }

    #[test]
    fn statements_without_a_test_are_read_with_their_reasons() {
        let text = "## Statements without a test\n\nx\n\n| statement | why |\n|---|---|\n| coax.dev.9 | so |\n\n| no | no |\n";
        assert_eq!(untested(text), [("coax.dev.9".into(), "so".into())]);
    }
}
