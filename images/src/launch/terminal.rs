// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The user's terminal while a job runs on it.

use std::io::{self, IsTerminal};
use std::sync::{Mutex, PoisonError};

use nix::sys::termios::{cfmakeraw, tcgetattr, tcsetattr, SetArg, Termios};
use rustix::termios::tcgetwinsize;

use crate::job::TerminalSize;

/// Ctrl-]: typed at the start of a key press, it ends the VM, as with telnet.
pub const ESCAPE: u8 = 0x1d;

/// How the terminal was before it became raw, while it is.
static COOKED: Mutex<Option<Termios>> = Mutex::new(None);

/// Whether a user sits at standard input and output.
pub fn is_interactive() -> bool {
    io::stdin().is_terminal() && io::stdout().is_terminal()
}

/// The terminal's size, or the 24 × 80 of a terminal that does not tell.
pub fn current_size() -> TerminalSize {
    let word = |name| std::env::var(name).ok().and_then(|text| text.parse().ok());
    size().unwrap_or(TerminalSize {
        rows: word("LINES").unwrap_or(24),
        columns: word("COLUMNS").unwrap_or(80),
    })
}

/// What the terminal at standard input tells of its size.
pub fn size() -> Option<TerminalSize> {
    let size = tcgetwinsize(io::stdin()).ok()?;
    let size = TerminalSize {
        rows: size.ws_row,
        columns: size.ws_col,
    };
    (size.rows > 0 && size.columns > 0).then_some(size)
}

/// Standard input hands over every key; dropping it brings the terminal back.
#[derive(Debug)]
pub struct RawMode(());

impl RawMode {
    /// Makes the terminal raw; `None` when standard input is none.
    ///
    /// # Errors
    ///
    /// Those of `tcsetattr(3)`.
    pub fn enter() -> io::Result<Option<Self>> {
        if !io::stdin().is_terminal() {
            return Ok(None);
        }
        let cooked = tcgetattr(io::stdin())?;
        let mut raw = cooked.clone();
        cfmakeraw(&mut raw);
        tcsetattr(io::stdin(), SetArg::TCSANOW, &raw)?;
        *COOKED.lock().unwrap_or_else(PoisonError::into_inner) = Some(cooked);
        Ok(Some(RawMode(())))
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        restore();
    }
}

/// Brings the terminal back to how it was before the guest took it.
pub fn restore() {
    if let Some(cooked) = COOKED.lock().unwrap_or_else(PoisonError::into_inner).take() {
        // There is nobody to tell when the terminal has gone away.
        let _ = tcsetattr(io::stdin(), SetArg::TCSANOW, &cooked);
    }
}
