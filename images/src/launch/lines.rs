// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Lines out of a stream that comes piece by piece, and the last of them, in bounded memory.

/// Longest line; what is longer comes as several.
const LINE_BYTES: usize = 16 << 10;

/// Takes a stream apart at its line ends.
#[derive(Debug, Default)]
pub struct Lines {
    /// The line that has not ended.
    rest: Vec<u8>,
}

impl Lines {
    /// Adds what has come and returns the lines that are complete, without their ends; what is no
    /// text in them is replaced.
    pub fn add(&mut self, piece: &[u8]) -> Vec<String> {
        let mut lines = Vec::new();
        for part in piece.split_inclusive(|byte| *byte == b'\n') {
            self.rest.extend_from_slice(part);
            if part.ends_with(b"\n") || self.rest.len() >= LINE_BYTES {
                lines.extend(self.end());
            }
        }
        lines
    }

    /// The last line, if the stream ended inside of one.
    pub fn end(&mut self) -> Option<String> {
        let line = std::mem::take(&mut self.rest);
        (!line.is_empty()).then(|| String::from_utf8_lossy(&line).trim_end().to_owned())
    }
}

/// Bytes of lines that are kept at least; twice as many are at most.
const KEPT_BYTES: usize = 1 << 20;

/// The last lines of a text that may go on for ever.
#[derive(Clone, Debug, Default)]
pub struct LastLines(String);

impl LastLines {
    /// Adds a line.
    pub fn push(&mut self, line: &str) {
        self.0.push_str(line);
        self.0.push('\n');
        if self.0.len() > 2 * KEPT_BYTES {
            let early = self.0.len() - KEPT_BYTES;
            let end = self.0.bytes().skip(early).position(|byte| byte == b'\n');
            self.0.drain(..end.map_or(0, |end| early + end + 1));
        }
    }

    /// What is kept.
    pub fn text(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_out_of_pieces_and_the_last_one_at_the_end() {
        let mut lines = Lines::default();
        assert_eq!(lines.add(b"a"), Vec::<String>::new());
        assert_eq!(lines.add(b"b\r\n\nc\xff\nd"), ["ab", "", "c\u{fffd}"]);
        assert_eq!(lines.end(), Some("d".into()));
        assert_eq!(lines.end(), None);
    }

    #[test]
    fn a_line_without_end_does_not_fill_the_memory() {
        let mut lines = Lines::default();
        let all: Vec<String> = (0..64).flat_map(|_| lines.add(&[b'x'; 4096])).collect();
        assert!(lines.rest.len() < LINE_BYTES);
        let length: usize = all.iter().map(String::len).sum();
        assert_eq!(length + lines.rest.len(), 64 * 4096);
    }

    #[test]
    fn only_the_last_lines_of_many_are_kept() {
        let mut kept = LastLines::default();
        for number in 0..1_000_000 {
            kept.push(&format!("line {number}"));
        }
        assert!((KEPT_BYTES..=2 * KEPT_BYTES).contains(&kept.text().len()));
        assert!(kept.text().starts_with("line "));
        assert!(kept.text().ends_with("\nline 999999\n"));
    }
}
