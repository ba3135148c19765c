// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Which guest kernel of ours: its version, and what it is built for, in one word of a command line.

use serde::{Deserialize, Serialize};

use super::config::{self, on_top_of};
use super::Variant;

/// A version of Linux, of which the newest release that is pinned is built.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Version {
    /// Linux 7.2
    #[default]
    #[serde(rename = "7.2")]
    V7_2,
    /// Linux 7.3
    #[serde(rename = "7.3")]
    V7_3,
}

/// A guest kernel of ours. On a command line the default version goes without saying: `debug` is 7.2's,
/// `7.3-debug` that of 7.3, whose base is `7.3`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Kind {
    /// What it is built from.
    pub version: Version,
    /// What it is built for.
    pub variant: Variant,
}

impl Version {
    /// Its name in `artifacts.toml`.
    pub(super) fn name(self) -> &'static str {
        match self {
            Version::V7_2 => "7.2",
            Version::V7_3 => "7.3",
        }
    }

    /// The options that only this version has.
    pub(super) fn fragment(self) -> &'static str {
        match self {
            Version::V7_2 => "",
            Version::V7_3 => include_str!("../../kernel/7.3.config"),
        }
    }
}

impl Kind {
    /// Every kernel, in the order of help texts.
    pub const ALL: [Kind; 6] = [
        Kind::new(Version::V7_2, Variant::Base),
        Kind::new(Version::V7_2, Variant::Debug),
        Kind::new(Version::V7_2, Variant::Kasan),
        Kind::new(Version::V7_3, Variant::Base),
        Kind::new(Version::V7_3, Variant::Debug),
        Kind::new(Version::V7_3, Variant::Kasan),
    ];

    const fn new(version: Version, variant: Variant) -> Self {
        Kind { version, variant }
    }

    /// Name as options and reports write it.
    pub fn name(self) -> &'static str {
        match (self.version, self.variant) {
            (Version::V7_2, variant) => variant.name(),
            (Version::V7_3, Variant::Base) => "7.3",
            (Version::V7_3, Variant::Debug) => "7.3-debug",
            (Version::V7_3, Variant::Kasan) => "7.3-kasan",
        }
    }

    /// Its options, each of which has to survive the kernel's own rules.
    pub(super) fn fragment(self) -> String {
        let version = on_top_of(config::BASE, self.version.fragment());
        on_top_of(&version, self.variant.fragment())
    }
}

impl clap::ValueEnum for Kind {
    fn value_variants<'a>() -> &'a [Self] {
        &Kind::ALL
    }

    fn to_possible_value(&self) -> Option<clap::builder::PossibleValue> {
        let value = clap::builder::PossibleValue::new(self.name());
        Some(match (self.version, self.variant) {
            (Version::V7_2, Variant::Base) => {
                value.alias("7.2").help("Linux 7.2, the one that is fast")
            }
            (Version::V7_2, Variant::Debug) => value
                .alias("7.2-debug")
                .help("Checks locks, RCU, page tables, lists and slab objects, and finds leaks"),
            (Version::V7_2, Variant::Kasan) => value
                .alias("7.2-kasan")
                .help("Checks every access to memory; clang builds it"),
            (Version::V7_3, Variant::Base) => value.help("Linux 7.3"),
            (Version::V7_3, Variant::Debug) => value.help("Linux 7.3 with the checks of debug"),
            (Version::V7_3, Variant::Kasan) => value.help("Linux 7.3 with the checks of kasan"),
        })
    }
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum;

    use super::super::config::Config;
    use super::*;

    #[test]
    fn a_word_is_a_version_and_a_variant() {
        for kind in Kind::ALL {
            assert_eq!(Kind::from_str(kind.name(), false), Ok(kind));
        }
        let word = |word| Kind::from_str(word, false).map(|kind| (kind.version, kind.variant));
        assert_eq!(word("7.2"), Ok((Version::V7_2, Variant::Base)));
        assert_eq!(word("7.2-debug"), Ok((Version::V7_2, Variant::Debug)));
        assert_eq!(word("7.3-kasan"), Ok((Version::V7_3, Variant::Kasan)));
        for wrong in ["7.1", "7.3-base", "debug-7.3", ""] {
            assert!(word(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn every_kind_has_another_configuration() {
        let configs = Kind::ALL.map(Kind::fragment);
        assert_eq!(configs[0], config::BASE);
        for (kind, config) in Kind::ALL.into_iter().zip(&configs) {
            let (time_factor, kernel_args, sign) = match kind.variant {
                Variant::Base => (1, None, "\nCONFIG_MODULES=y\n"),
                Variant::Debug => (5, Some("page_poison=1"), "\nCONFIG_PROVE_LOCKING=y\n"),
                Variant::Kasan => (4, None, "\nCONFIG_KASAN=y\n"),
            };
            let is_7_3 = kind.version == Version::V7_3;
            let parsed = Config::parse(config);
            assert!(config.contains(sign), "{kind}");
            assert_eq!(parsed.is_on("CGROUP_DMEM"), is_7_3, "{kind}");
            assert_eq!(parsed.time_factor(), time_factor, "{kind}");
            assert_eq!(parsed.kernel_args(), kernel_args, "{kind}");
            let release = config.matches("\nCONFIG_LOCALVERSION=").count();
            assert_eq!(release, 1, "{kind}");
        }
    }
}
