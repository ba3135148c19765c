// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The kernels that have a name: those of ours, and Debian's.

use clap::builder::PossibleValue;
use clap::ValueEnum;

use super::{debian, Variant};

/// A kernel that has a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Named {
    /// One that is built here.
    Own(Variant),
    /// Debian's own binary.
    Debian,
}

impl Named {
    /// Name as options and reports write it.
    pub fn name(self) -> &'static str {
        match self {
            Named::Own(variant) => variant.name(),
            Named::Debian => debian::NAME,
        }
    }
}

impl Default for Named {
    fn default() -> Self {
        Named::Own(Variant::default())
    }
}

impl ValueEnum for Named {
    fn value_variants<'a>() -> &'a [Self] {
        &[
            Named::Own(Variant::Base),
            Named::Own(Variant::Debug),
            Named::Own(Variant::Kasan),
            Named::Debian,
        ]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        match self {
            Named::Own(variant) => variant.to_possible_value(),
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
