// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What Debian has for other releases than this machine's: packages, and whole root file systems.

pub mod apt;
pub mod root;
mod sources;

pub use sources::{reachable, Release};

/// Debian 12.
pub const BOOKWORM: Release = Release {
    number: "12",
    codename: "bookworm",
};
/// Debian 13.
pub const TRIXIE: Release = Release {
    number: "13",
    codename: "trixie",
};
