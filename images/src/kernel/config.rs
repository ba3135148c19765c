// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Kernel configurations: fragments, what a kernel has, and what it lacks.

use std::collections::BTreeMap;
use std::fmt;

/// The options that every kernel of ours has, with the reason for each.
pub(super) const BASE: &str = include_str!("../../kernel/base.config");
/// What a tree of the user's needs besides the base's needed lines.
const TREE: &str = include_str!("../../kernel/tree.config");
/// Options with another name from some version on, which means the same: a line with the old one speaks of both.
const RENAMED: &[(&str, &str)] = &[
    // In 7.2 the old one selects the new one, which has no prompt (`fs/proc/Kconfig`, 7.3).
    ("CONFIG_PROC_SYSCTL", "CONFIG_SYSCTL"),
];
/// First words of a reason, which say what a tree of the user's is asked for.
const NEEDED: &str = "Needed:";
const OURS: &str = "Ours:";

/// What a kernel was made of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config(BTreeMap<String, String>);

impl Config {
    /// Reads a `.config`, an `auto.conf` or a fragment.
    pub fn parse(text: &str) -> Self {
        let set = |line: &str| {
            let (option, value) = line.trim().split_once('=')?;
            let option = option.strip_prefix("CONFIG_")?;
            Some((option.to_owned(), value.trim_matches('"').to_owned()))
        };
        Config(text.lines().filter_map(set).collect())
    }

    /// The value of an option, without `CONFIG_` and quotes.
    pub fn get(&self, option: &str) -> Option<&str> {
        self.0.get(option).map(String::as_str)
    }

    /// Whether the option is on, built in.
    pub fn is_on(&self, option: &str) -> bool {
        self.get(option) == Some("y")
    }

    /// How many times as long as those of a kernel without checks VMs on this one may take.
    pub fn time_factor(&self) -> u32 {
        let any = |options: &[&str]| options.iter().any(|option| self.is_on(option));
        if any(&["PROVE_LOCKING", "DEBUG_OBJECTS", "SLUB_DEBUG_ON"]) {
            5
        } else if any(&["KASAN", "KCSAN", "KMSAN"]) {
            4
        } else {
            1
        }
    }

    /// Words on the kernel's command line that switch on what it was built for.
    pub fn kernel_args(&self) -> Option<&'static str> {
        // Compiled in, page poisoning is still off.
        self.is_on("PAGE_POISONING").then_some("page_poison=1")
    }

    /// Whether a line of a fragment holds here: a module does not do for what has to be built in.
    fn has(&self, option: &str, value: &str) -> bool {
        let actual = self.get(option.trim_start_matches("CONFIG_"));
        let has = match value {
            "n" => actual != Some("y"),
            "m" => matches!(actual, Some("y" | "m")),
            value => actual == Some(value),
        };
        has || new_name(option).is_some_and(|option| self.has(option, value))
    }
}

/// An option that a kernel lacks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lack {
    /// The line that sets it.
    pub line: &'static str,
    /// What it is for.
    reason: String,
    /// Whether no VM starts without it; else it is for some tests and programs.
    pub needed: bool,
}

impl Lack {
    fn option(&self) -> &str {
        option_of(self.line).unwrap_or_default()
    }
}

impl fmt::Display for Lack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let off = if value_of(self.line) == "n" {
            " off"
        } else {
            ""
        };
        let reason = self.reason.trim_end_matches('.');
        write!(f, "{}{off} — {reason}", self.option())
    }
}

/// What `config` lacks of all that is asked of a tree of the user's, in the order of the fragments.
pub fn lacks(config: &Config) -> Vec<Lack> {
    let asked = [TREE, BASE].into_iter().flat_map(asked);
    asked
        .filter(|want| !config.has(want.option(), value_of(want.line)))
        .collect()
}

/// What a fragment asks of a tree of the user's.
fn asked(fragment: &'static str) -> Vec<Lack> {
    let mut asked = Vec::new();
    let mut words: Vec<&str> = Vec::new();
    let mut is_used = false;
    for line in fragment.lines() {
        if option_of(line).is_none() {
            // Titles and blank lines end a reason, and so does the first line of another.
            if std::mem::take(&mut is_used) || line.is_empty() || line.starts_with("# ---") {
                words.clear();
            }
            if !line.starts_with("# ---") {
                words.extend(line.split_whitespace().filter(|word| *word != "#"));
            }
            continue;
        }
        is_used = true;
        let first = words.first().copied();
        let needed = first == Some(NEEDED);
        // What switches something off, or sets a number, matters only where a tree is told so.
        let matters = matches!(value_of(line), "y" | "m") && first != Some(OURS);
        if needed || matters {
            let reason = words.get(usize::from(needed)..).unwrap_or_default();
            asked.push(Lack {
                line,
                reason: reason.join(" "),
                needed,
            });
        }
    }
    asked
}

/// What an option is called in later versions, if that is something else.
fn new_name(option: &str) -> Option<&'static str> {
    let mut names = RENAMED.iter();
    let (_, new) = names.find(|(old, _)| *old == option)?;
    Some(new)
}

/// A line of a fragment with the name that its option has in later versions, if that is another.
pub(super) fn in_later_versions(line: &str) -> Option<String> {
    let option = option_of(line)?;
    Some(line.replacen(option, new_name(option)?, 1))
}

/// The value that a line sets.
fn value_of(line: &str) -> &str {
    line.split_once('=').map_or("n", |(_, value)| value.trim())
}

/// The lines of `fragment` behind those of `base` whose options it does not set otherwise.
pub(super) fn on_top_of(base: &str, fragment: &str) -> String {
    let set: Vec<&str> = fragment.lines().filter_map(option_of).collect();
    let overridden = |line: &&str| option_of(line).is_some_and(|option| set.contains(&option));
    base.lines()
        .filter(|line| !overridden(line))
        .chain(fragment.lines())
        .fold(String::new(), |text, line| text + line + "\n")
}

/// The option lines of a fragment: no kernel is built anew for the words beside them.
pub(super) fn options(fragment: &str) -> String {
    let lines = fragment.lines().filter(|line| option_of(line).is_some());
    lines.fold(String::new(), |text, line| text + line.trim() + "\n")
}

/// The option that a line sets.
fn option_of(line: &str) -> Option<&str> {
    let line = line.trim();
    match line.strip_prefix("# ") {
        Some(rest) => rest.strip_suffix(" is not set"),
        None => line.split_once('=').map(|(option, _)| option),
    }
    .filter(|option| option.starts_with("CONFIG_"))
}

/// The option lines of `fragment` that `config` does not have.
pub(super) fn lost_lines<'a>(fragment: &'a str, config: &str) -> Vec<&'a str> {
    let kept: Vec<&str> = config.lines().collect();
    fragment
        .lines()
        .map(str::trim)
        .filter(|line| line.starts_with("CONFIG_") || line.starts_with("# CONFIG_"))
        .filter(|line| !kept.contains(line) && !is_absent(line, &kept))
        .filter(|line| in_later_versions(line).is_none_or(|line| !kept.contains(&line.as_str())))
        .collect()
}

/// `=n`, and a comment that an option is not set, also hold when the option is not mentioned.
fn is_absent(line: &str, kept: &[&str]) -> bool {
    let option = line.strip_suffix("=n").or_else(|| {
        line.strip_prefix("# ")
            .and_then(|rest| rest.strip_suffix(" is not set"))
    });
    option.is_some_and(|option| {
        !kept.iter().any(|other| {
            other
                .strip_prefix(option)
                .is_some_and(|r| r.starts_with('='))
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fragment_line_that_was_not_kept_is_found() {
        let fragment = "# Reason.\nCONFIG_A=y\nCONFIG_B=m\nCONFIG_C=\"x\"\n";
        let config = "CONFIG_A=y\nCONFIG_B=y\nCONFIG_C=\"x\"\n";
        assert_eq!(lost_lines(fragment, config), ["CONFIG_B=m"]);
    }

    #[test]
    fn an_option_has_either_of_its_names() {
        let fragment = "CONFIG_PROC_SYSCTL=y\n";
        for config in [fragment, "CONFIG_SYSCTL=y\n"] {
            assert!(lost_lines(fragment, config).is_empty());
            assert!(Config::parse(config).has("CONFIG_PROC_SYSCTL", "y"));
        }
        for config in ["CONFIG_SYSCTL=n\n", "# CONFIG_SYSCTL is not set\n", ""] {
            assert_eq!(lost_lines(fragment, config), ["CONFIG_PROC_SYSCTL=y"]);
            assert!(!Config::parse(config).has("CONFIG_PROC_SYSCTL", "y"));
        }
        let line = in_later_versions("CONFIG_PROC_SYSCTL=y");
        assert_eq!(line.as_deref(), Some("CONFIG_SYSCTL=y"));
        assert_eq!(in_later_versions("CONFIG_SYSCTL=y"), None);
    }

    #[test]
    fn a_fragment_replaces_the_bases_lines_for_its_options() {
        let base = "# Reason.\nCONFIG_A=60\n# CONFIG_B is not set\nCONFIG_AB=y\n";
        let fragment = "# More.\nCONFIG_A=240\nCONFIG_B=y\n";
        assert_eq!(
            on_top_of(base, fragment),
            "# Reason.\nCONFIG_AB=y\n# More.\nCONFIG_A=240\nCONFIG_B=y\n"
        );
        assert_eq!(on_top_of(base, ""), base);
    }

    #[test]
    fn words_beside_options_are_no_other_kernel() {
        let told = "# Reason.\nCONFIG_A=y\n\n# CONFIG_B is not set\n";
        assert_eq!(options(told), "CONFIG_A=y\n# CONFIG_B is not set\n");
        assert_eq!(
            options("# Why.\nCONFIG_A=y\n# CONFIG_B is not set"),
            options(told)
        );
    }

    #[test]
    fn an_option_that_is_off_may_be_absent_but_not_on() {
        let fragment = "CONFIG_A=n\n# CONFIG_B is not set\n";
        assert!(lost_lines(fragment, "").is_empty());
        assert_eq!(lost_lines(fragment, "CONFIG_A=y\nCONFIG_B=m\n").len(), 2);
    }

    #[test]
    fn a_reason_belongs_to_the_lines_up_to_the_next() {
        let fragment =
            "# Title.\n#\n# More of it.\n\n# --- Part ---\n# Needed: One\n# reason.\nCONFIG_A=y\n\
                        CONFIG_B=m\n# Another.\nCONFIG_C=y\n# CONFIG_D is not set\n# Ours: Taste.\n\
                        CONFIG_E=y\nCONFIG_F=60\n# Needed: Else harm.\n# CONFIG_G is not set\n";
        let told = asked(fragment).into_iter();
        let told = told.map(|want| (want.to_string(), want.needed));
        let expected = [
            ("CONFIG_A — One reason", true),
            ("CONFIG_B — One reason", true),
            ("CONFIG_C — Another", false),
            ("CONFIG_G off — Else harm", true),
        ];
        let expected = expected.map(|(text, needed)| (text.to_owned(), needed));
        assert_eq!(told.collect::<Vec<_>>(), expected);
    }

    #[test]
    fn the_base_lacks_nothing_and_an_empty_configuration_the_device() {
        assert_eq!(lacks(&Config::parse(BASE)), []);
        let lacks = lacks(&Config::default());
        let find = |option: &str| lacks.iter().find(|lack| lack.option() == option);
        assert!(find("CONFIG_VIRTIO_PCI").is_some_and(|lack| lack.needed));
        assert!(find("CONFIG_VIRTIO_FS").is_some_and(|lack| !lack.needed));
        for option in [
            "CONFIG_LOCALVERSION",
            "CONFIG_NR_CPUS",
            "CONFIG_MODULE_SIG_FORCE",
        ] {
            assert_eq!(find(option), None);
        }
        for lack in &lacks {
            let text = lack.to_string();
            let (option, reason) = text.split_once(" — ").expect("two halves");
            assert!(
                option.starts_with("CONFIG_") && !reason.is_empty() && !reason.contains("CONFIG_"),
                "{text}"
            );
        }
    }

    #[test]
    fn what_the_drivers_own_check_asks_for_is_needed() {
        let script = include_str!("../../../guest-driver/check-kernel.sh");
        let options = script
            .lines()
            .find_map(|line| line.strip_prefix("for option in ")?.strip_suffix("; do"));
        let lacks = lacks(&Config::default());
        for option in options.expect("a loop").split(' ') {
            let is_it =
                |lack: &&Lack| lack.needed && lack.option().ends_with(&format!("_{option}"));
            // VIRTIO has no prompt: what needs it selects it.
            assert!(
                option == "VIRTIO" || lacks.iter().any(|lack| is_it(&lack)),
                "{option}"
            );
        }
    }

    #[test]
    fn a_module_does_not_do_for_what_has_to_be_built_in() {
        let config = Config::parse("CONFIG_A=m\nCONFIG_B=y\n# CONFIG_C is not set\n");
        assert!(!config.has("CONFIG_A", "y") && config.has("CONFIG_A", "m"));
        assert!(config.has("CONFIG_B", "m") && !config.has("CONFIG_B", "n"));
        assert!(config.has("CONFIG_A", "n") && config.has("CONFIG_C", "n"));
        assert!(!config.has("CONFIG_C", "y"));
    }

    #[test]
    fn values_are_read_with_quotes_and_without() {
        let quoted = Config::parse("CONFIG_CC_VERSION_TEXT=\"gcc (x) 12\"\n");
        let plain = Config::parse("CONFIG_CC_VERSION_TEXT=gcc (x) 12\n");
        assert_eq!(quoted, plain);
        assert_eq!(plain.get("CC_VERSION_TEXT"), Some("gcc (x) 12"));
    }
}
