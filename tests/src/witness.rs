// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A folder of the host in which cases write, and which the host then finds as it was.

/// A file that is written to, with what is in it.
pub const TEXT: (&str, &str) = ("text", "as the host wrote it\n");
/// A file that is removed.
pub const GONE: &str = "gone";
/// A file that is renamed, in a folder of its own.
pub const MOVED: &str = "sub/moved";
/// A file whose permissions are changed.
pub const GUARDED: &str = "guarded";
