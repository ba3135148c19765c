// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Reads KTAP line by line, as it comes.

use super::{result_line, BAIL_OUT, MACHINE, PARTITION, SUBTEST, VERSION_LINE};
use crate::{Outcome, TestResult};

/// A document, or one nested in it.
#[derive(Debug, Default)]
struct Level {
    /// Blanks before its lines.
    indent: usize,
    /// What it is called, if it said so.
    name: Option<String>,
    planned: Option<usize>,
    /// Results of its own, documents nested in it included.
    results: usize,
    /// The first test in it.
    first: usize,
    diagnostics: Vec<String>,
}

/// Reads a document line by line; lines that are not KTAP are diagnostics of the next result.
#[derive(Debug)]
pub struct Parser {
    /// The document, and those nested in it that have begun and not ended.
    levels: Vec<Level>,
    results: Vec<TestResult>,
    bailed: Option<String>,
    partition: Option<String>,
    machines: Vec<String>,
    problems: Vec<String>,
}

impl Default for Parser {
    fn default() -> Self {
        Parser {
            levels: vec![Level::default()],
            results: Vec::new(),
            bailed: None,
            partition: None,
            machines: Vec::new(),
            problems: Vec::new(),
        }
    }
}

impl Parser {
    /// Takes the next line.
    pub fn line(&mut self, line: &str) {
        let line = line.trim_end();
        let text = line.trim_start();
        let indent = line.len() - text.len();
        let plan = text.strip_prefix("1..").and_then(|n| n.parse().ok());
        if let Some(reason) = text.strip_prefix(BAIL_OUT) {
            self.bailed = Some(reason.trim().to_owned());
        } else if text == VERSION_LINE {
            self.begin(indent);
        } else if let (Some(plan), true) = (plan, indent <= self.top().indent) {
            self.end_deeper_than(indent);
            self.top().planned = Some(plan);
        } else if let (Some(found), true) = (result_line(text), indent <= self.top().indent) {
            self.result(indent, found);
        } else if let (Some(name), true) = (text.strip_prefix(SUBTEST), indent > 0) {
            self.top().name = Some(name.to_owned());
        } else if let (Some(part), 0) = (text.strip_prefix(PARTITION), indent) {
            self.partition = Some(part.to_owned());
        } else if let (Some(machine), 0) = (text.strip_prefix(MACHINE), indent) {
            self.machines.push(machine.to_owned());
        } else if !text.is_empty() {
            let text = text.strip_prefix("# ").unwrap_or(text).to_owned();
            self.top().diagnostics.push(text);
        }
    }

    /// Results read so far, without those that sum up what is nested.
    pub fn results(&self) -> &[TestResult] {
        &self.results
    }

    /// Whether the document has begun.
    pub fn has_plan(&self) -> bool {
        self.levels[0].planned.is_some()
    }

    /// Whether every planned test has its result.
    pub fn is_complete(&self) -> bool {
        let [document] = &self.levels[..] else {
            return false;
        };
        let planned = document.planned == Some(document.results);
        self.bailed.is_none() && planned && self.problems.is_empty()
    }

    /// Why the document ended early, if it says so.
    pub fn bail_out(&self) -> Option<&str> {
        self.bailed.as_deref()
    }

    /// The part of a run that the document says it has.
    pub fn partition(&self) -> Option<&str> {
        self.partition.as_deref()
    }

    /// What the document says that it ran on, a line for each kind of VM.
    pub fn machines(&self) -> &[String] {
        &self.machines
    }

    /// What is wrong with the document.
    pub fn problems(&self) -> &[String] {
        &self.problems
    }

    /// The results, and the diagnostics after the last of them.
    pub fn finish(mut self) -> (Vec<TestResult>, Vec<String>) {
        let last_words = std::mem::take(&mut self.top().diagnostics);
        (self.results, last_words)
    }

    /// The innermost document; the outermost one never ends.
    fn top(&mut self) -> &mut Level {
        let last = self.levels.len() - 1;
        &mut self.levels[last]
    }

    fn begin(&mut self, indent: usize) {
        let first = self.results.len();
        if indent > self.top().indent {
            self.levels.push(Level {
                indent,
                first,
                ..Level::default()
            });
        } else if self.top().planned.is_some() {
            self.problems.push("it begins twice".to_owned());
        } else {
            // What was said before has nothing to do with it.
            self.top().diagnostics.clear();
        }
    }

    fn result(&mut self, indent: usize, (name, outcome, seconds): (String, Outcome, Option<f64>)) {
        let ended = self.end_deeper_than(indent);
        self.top().results += 1;
        let diagnostics = std::mem::take(&mut self.top().diagnostics);
        match ended {
            None => {
                let names = self.levels.iter().skip(1);
                let path = names.map(|level| level.name.clone().unwrap_or_default());
                self.results.push(TestResult {
                    path: path.collect(),
                    name,
                    outcome,
                    seconds,
                    diagnostics,
                });
            }
            Some(level) => self.sum(&level, &name, &outcome),
        }
    }

    /// Takes the result that sums up a nested document.
    fn sum(&mut self, level: &Level, name: &str, outcome: &Outcome) {
        let depth = self.levels.len() - 1;
        let tests = &mut self.results[level.first..];
        // One without a name has that of its sum.
        let unnamed = tests.iter_mut().filter(|_| level.name.is_none());
        unnamed.for_each(|test| name.clone_into(&mut test.path[depth]));
        let failed = tests.iter().any(|test| test.outcome == Outcome::Failed);
        if level.name.as_deref().is_some_and(|known| known != name) {
            self.problems.push(format!("{name} sums up another"));
        }
        if (*outcome == Outcome::Failed) != failed {
            self.problems
                .push(format!("{name} is not the sum of its tests"));
        }
    }

    /// Ends documents that are nested deeper, and returns the outermost of them.
    fn end_deeper_than(&mut self, indent: usize) -> Option<Level> {
        let mut ended = None;
        while self.levels.len() > 1 && self.top().indent > indent {
            if let Some(level) = self.levels.pop() {
                if level.planned != Some(level.results) {
                    let name = level.name.as_deref().unwrap_or("a nested document");
                    let results = level.results;
                    self.problems.push(match level.planned {
                        Some(planned) => format!("{name} has {results} results of {planned}"),
                        None => format!("{name} has no plan"),
                    });
                }
                ended = Some(level);
            }
        }
        ended
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Parser {
        let mut parser = Parser::default();
        text.lines().for_each(|line| parser.line(line));
        parser
    }

    #[test]
    fn a_document_that_stops_is_not_complete() {
        let parser = parse("KTAP version 1\n1..2\nok 1 a\n# last words");
        assert!(!parser.is_complete());
        assert_eq!(parser.finish().1, ["last words"]);
    }

    #[test]
    fn bail_out_makes_a_full_document_incomplete() {
        let parser = parse("1..1\nok 1 a\nBail out! kernel hangs");
        assert!(!parser.is_complete());
        assert_eq!(parser.bail_out(), Some("kernel hangs"));
    }

    #[test]
    fn lines_of_others_are_diagnostics_of_the_next_result() {
        let parser =
            parse("before\nKTAP version 1\n1..1\nokay then\nnot okay\n  ok 1 y\nnot ok 1 - a");
        assert_eq!(parser.results()[0].name, "a");
        assert_eq!(parser.results()[0].outcome, Outcome::Failed);
        let said = &parser.results()[0].diagnostics;
        assert_eq!(*said, ["okay then", "not okay", "ok 1 y"]);
    }

    const NESTED: &str = "\
KTAP version 1
1..2
    KTAP version 1
    # Subtest: vm
    1..1
        KTAP version 1
        1..2
        # said
        ok 1 a
        not ok 2 b
    not ok 1 private
not ok 1 vm
ok 2 c";

    #[test]
    fn nested_documents_have_paths_with_or_without_a_name() {
        let parser = parse(NESTED);
        assert!(parser.is_complete(), "{:?}", parser.problems());
        let names: Vec<String> = parser.results().iter().map(TestResult::full_name).collect();
        assert_eq!(names, ["vm/private/a", "vm/private/b", "c"]);
        assert_eq!(parser.results()[0].diagnostics, ["said"]);
    }

    #[test]
    fn a_nested_document_that_is_cut_or_wrongly_summed_up_is_a_problem() {
        for (from, to) in [
            ("        not ok 2 b\n", ""),
            ("    not ok 1 private", "    ok 1 private"),
            ("not ok 1 vm", "not ok 1 hmm"),
            ("    1..1\n", ""),
            ("ok 2 c", ""),
        ] {
            let parser = parse(&NESTED.replace(from, to));
            assert!(!parser.is_complete(), "{from:?} became {to:?}");
        }
        // What comes is known before its document ends.
        let parser = parse(&NESTED[..NESTED.len() - "not ok 1 vm\nok 2 c".len()]);
        assert_eq!(parser.results().len(), 2);
        assert!(!parser.is_complete());
    }
}
