// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The kernels that have a name: those of ours, and Debian's.

use clap::builder::PossibleValue;
use clap::ValueEnum;

use super::{debian, Kind};

/// A kernel that has a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Named {
    /// One that is built here.
    Own(Kind),
    /// Debian's own binary.
    Debian,
}

/// Every one, in the order of help texts.
const ALL: [Named; Kind::ALL.len() + 1] = {
    let mut all = [Named::Debian; Kind::ALL.len() + 1];
    let mut index = 0;
    while index < Kind::ALL.len() {
        all[index] = Named::Own(Kind::ALL[index]);
        index += 1;
    }
    all
};

impl Named {
    /// Name as options and reports write it.
    pub fn name(self) -> &'static str {
        match self {
            Named::Own(kind) => kind.name(),
            Named::Debian => debian::NAME,
        }
    }
}

impl Default for Named {
    fn default() -> Self {
        Named::Own(Kind::default())
    }
}

impl ValueEnum for Named {
    fn value_variants<'a>() -> &'a [Self] {
        &ALL
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        match self {
            Named::Own(kind) => kind.to_possible_value(),
            Named::Debian => Some(PossibleValue::new(debian::NAME).help(
                "Debian's own for cloud machines, ready in minutes; only what modules in Rust take is built",
            )),
        }
    }
}

impl std::fmt::Display for Named {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}
