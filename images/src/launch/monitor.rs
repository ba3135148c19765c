// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! QEMU's monitor (QMP): what is done to a VM's hardware while the VM runs.

use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use serde_json::{json, Value};

/// Longest wait for QEMU's answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(20);

/// A connection to the monitor, ready for commands.
pub struct Monitor {
    answers: BufReader<UnixStream>,
}

impl Monitor {
    /// The monitor behind a connection.
    ///
    /// # Errors
    ///
    /// QEMU does not answer.
    pub fn new(stream: UnixStream) -> io::Result<Self> {
        stream.set_read_timeout(Some(ANSWER_LIMIT))?;
        let mut monitor = Monitor {
            answers: BufReader::new(stream),
        };
        monitor.execute("qmp_capabilities", json!({}))?;
        Ok(monitor)
    }

    /// Has QEMU do a command of people's monitor, whose lines are like the command line's options.
    ///
    /// # Errors
    ///
    /// What QEMU says against it.
    pub fn run(&mut self, line: &str) -> io::Result<()> {
        let answer = self.execute("human-monitor-command", json!({ "command-line": line }))?;
        match answer.as_str() {
            Some(text) if !text.trim().is_empty() => {
                Err(io::Error::other(format!("{line}: {}", text.trim())))
            }
            _ => Ok(()),
        }
    }

    fn execute(&mut self, command: &str, arguments: Value) -> io::Result<Value> {
        let request = json!({ "execute": command, "arguments": arguments });
        self.answers
            .get_mut()
            .write_all(request.to_string().as_bytes())?;
        loop {
            let mut line = String::new();
            if self.answers.read_line(&mut line)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let mut answer: Value = serde_json::from_str(&line)?;
            if let Some(error) = answer.get("error") {
                return Err(io::Error::other(format!("{command}: {error}")));
            }
            // The greeting and events come in between.
            if let Some(value) = answer.get_mut("return") {
                return Ok(value.take());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    /// What a monitor makes of a line, if QEMU answers it so.
    fn answered(answer: &'static str) -> io::Result<()> {
        let (ours, mut stream) = UnixStream::pair()?;
        let qemu = thread::spawn(move || -> io::Result<()> {
            writeln!(stream, r#"{{"QMP":{{}}}}"#)?;
            writeln!(stream, r#"{{"return":{{}}}}"#)?;
            writeln!(stream, r#"{{"event":"RESUME"}}"#)?;
            writeln!(stream, "{answer}")?;
            io::copy(&mut stream, &mut io::sink()).map(drop)
        });
        let result = Monitor::new(ours)?.run("device_del a");
        qemu.join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        result
    }

    #[test]
    fn empty_answers_are_good_and_others_are_told() {
        assert!(answered(r#"{"return":""}"#).is_ok());
        let told = |answer| answered(answer).map_err(|error| error.to_string());
        let text = told(r#"{"return":"Error: no such device\r\n"}"#);
        assert_eq!(text, Err("device_del a: Error: no such device".into()));
        assert!(told(r#"{"error":{"desc":"busy"}}"#).is_err_and(|text| text.contains("busy")));
    }
}
