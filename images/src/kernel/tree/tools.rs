// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The compilers that built a tree, as its build wrote them down.
//!
//! Beside each file that make builds it leaves the command, `.NAME.cmd`. So the same words can be used
//! again: with others, make would build the whole tree anew.

use std::fs;
use std::path::Path;

use anyhow::{bail, ensure, Context, Result};

use super::super::config::Config;
use crate::host_packages::{self, Group};
use crate::rust_for_kernel::{self, Toolchain};
use crate::tool;

/// A tool of the kernel's make.
struct Tool {
    /// The variable that names it.
    variable: &'static str,
    /// The command of a file that it built.
    command: &'static str,
    /// The option with its version, if modules have to be built by the very same.
    version: Option<&'static str>,
}

/// All that there are records of.
const TOOLS: &[Tool] = &[
    Tool {
        variable: "CC",
        command: "init/.main.o.cmd",
        version: Some("CC_VERSION_TEXT"),
    },
    Tool {
        variable: "RUSTC",
        command: "rust/.core.o.cmd",
        version: Some("RUSTC_VERSION_TEXT"),
    },
    Tool {
        variable: "BINDGEN",
        command: "rust/bindings/.bindings_generated.rs.cmd",
        version: None,
    },
    Tool {
        variable: "HOSTCC",
        command: "scripts/basic/.fixdep.cmd",
        version: None,
    },
    Tool {
        variable: "HOSTRUSTC",
        command: "scripts/.generate_rust_target.cmd",
        version: None,
    },
];

/// The variable that rustup goes by, before anything else.
const TOOLCHAIN: &str = "RUSTUP_TOOLCHAIN";

/// Variables for the make of a tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tools {
    /// Names and values.
    variables: Vec<(&'static str, String)>,
}

impl Tools {
    /// What built the tree `folder` with this configuration.
    ///
    /// # Errors
    ///
    /// The build has not written it down.
    pub fn of(folder: &Path, config: &Config) -> Result<Self> {
        let mut variables = Vec::new();
        for tool in TOOLS {
            let path = folder.join(tool.command);
            let text = fs::read_to_string(&path).unwrap_or_default();
            let words = words_of(&text, tool.variable == "BINDGEN").with_context(|| {
                format!(
                    "{} was built by nobody knows what: there is no {}. Build it anew",
                    folder.display(),
                    path.display()
                )
            })?;
            variables.push((tool.variable, words));
        }
        Ok(Self::with_the_rest(folder, variables, config))
    }

    /// What built the tree `folder` or, where it never was built, the tools of this machine; their packages
    /// are installed if `install` says so.
    ///
    /// # Errors
    ///
    /// This machine has no tools for the kernel's Rust.
    pub fn of_any(folder: &Path, config: &Config, install: bool) -> Result<Self> {
        if let Ok(tools) = Self::of(folder, config) {
            return Ok(tools);
        }
        host_packages::ensure(&[Group::Kernel], install)?;
        let variables = Toolchain::find_or_build()?.variables();
        let variables = variables.into_iter();
        let variables = variables.map(|(name, path)| (name, path.display().to_string()));
        Ok(Self::with_the_rest(folder, variables.collect(), config))
    }

    /// What no command tells: clang's fellows, where bindgen finds its library, and what rustup takes in
    /// `folder`, where the kernel's build runs; a module's build runs elsewhere.
    fn with_the_rest(
        folder: &Path,
        mut variables: Vec<(&'static str, String)>,
        config: &Config,
    ) -> Self {
        let has =
            |variables: &[(&str, String)], name| variables.iter().any(|(other, _)| *other == name);
        if config.is_on("CC_IS_CLANG") && config.is_on("LD_IS_LLD") {
            let cc = variables.iter().find(|(name, _)| *name == "CC");
            let llvm = llvm_of(cc.map_or("clang", |(_, cc)| cc));
            variables.push(("LLVM", llvm));
        }
        if !has(&variables, "LIBCLANG_PATH") {
            if let Some(library) = rust_for_kernel::find_libclang(Path::new("/usr/lib")) {
                variables.push(("LIBCLANG_PATH", library.display().to_string()));
            }
        }
        if let Some(toolchain) = toolchain_in(folder) {
            variables.push((TOOLCHAIN, toolchain));
        }
        Tools { variables }
    }

    /// Refuses compilers that are not those any more that built the tree.
    ///
    /// # Errors
    ///
    /// Names the one that built it and the one that is here.
    pub fn check(&self, folder: &Path, config: &Config) -> Result<()> {
        let shown = folder.display();
        for tool in TOOLS {
            let value = self
                .variables
                .iter()
                .find(|(name, _)| *name == tool.variable);
            let (Some((_, words)), Some(option)) = (value, tool.version) else {
                continue;
            };
            let built_by = config.get(option).unwrap_or("an unknown version");
            let Ok(here) = self.version_of(words) else {
                bail!(
                    "{shown} was built by {words} ({built_by}), which is not here any more: install it, or build \
                     {shown} anew by another"
                );
            };
            ensure!(
                here == built_by,
                "{shown} was built by {words} when that was {built_by}, and now it is {here}; modules need the \
                 same: install that, or build {shown} anew"
            );
        }
        Ok(())
    }

    /// First line of what a compiler, perhaps behind a launcher, says of its version.
    fn version_of(&self, words: &str) -> Result<String> {
        let mut words = words.split_whitespace();
        let mut command = tool::builder(words.next().context("It has no name")?);
        command.args(words).arg("--version");
        let toolchain = self.variables.iter().filter(|(name, _)| *name == TOOLCHAIN);
        command.envs(toolchain.map(|(name, value)| (name, value)));
        let text = tool::output_of(&mut command)?;
        let line = text.lines().next().unwrap_or_default();
        Ok(line.trim_end().to_owned())
    }

    /// The variables as make takes them on its command line.
    pub fn make_variables(&self) -> Vec<String> {
        let variables = self.variables.iter();
        variables
            .map(|(name, value)| format!("{name}={value}"))
            .collect()
    }

    /// Runs make in the tree.
    ///
    /// # Errors
    ///
    /// It fails; the text names the log and shows its end.
    pub fn make(
        &self,
        folder: &Path,
        targets: &[&str],
        title: &str,
        log: &Path,
        watch: impl FnMut(&str),
    ) -> Result<()> {
        let mut make = tool::builder("make");
        make.arg("-C").arg(folder);
        make.arg(format!("-j{}", tool::jobs()));
        make.args(self.make_variables()).args(targets);
        tool::run_logged(&mut make, title, log, watch)
    }
}

/// The program of a command that make wrote down, with the words before its options, as in `ccache gcc`;
/// only the program if what follows need be no option.
fn words_of(command: &str, only_program: bool) -> Option<String> {
    let (_, command) = command.lines().next()?.split_once(":=")?;
    let is_setting = |word: &&str| {
        word.split_once('=')
            .is_some_and(|(name, _)| name.chars().all(|c| c.is_ascii_uppercase() || c == '_'))
    };
    let words = command.split_whitespace().skip_while(is_setting);
    let words = words.take_while(|word| !word.starts_with('-'));
    let most = if only_program { 1 } else { usize::MAX };
    let words: Vec<&str> = words.take(most).collect();
    (!words.is_empty()).then(|| words.join(" "))
}

/// What `LLVM=` has to be for this clang: a folder, a suffix, or nothing special.
fn llvm_of(cc: &str) -> String {
    let clang = cc.split_whitespace().last().unwrap_or(cc);
    match clang.rsplit_once("clang") {
        Some(("", "")) | None => "1".into(),
        Some(("", suffix)) => suffix.into(),
        Some((folder, _)) => folder.into(),
    }
}

/// The toolchain that rustup, if it is here, takes in a folder.
fn toolchain_in(folder: &Path) -> Option<String> {
    let mut rustup = tool::builder("rustup");
    rustup.args(["show", "active-toolchain"]);
    // Cargo, which has started this program, was told one for the checkout.
    rustup.env_remove(TOOLCHAIN).current_dir(folder);
    let told = tool::output_of(&mut rustup).ok()?;
    told.split_whitespace().next().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_read_with_their_launchers_and_without_settings() {
        let words = |command: &str| words_of(&format!("savedcmd_x := {command}"), false);
        assert_eq!(words("gcc -Wp,-MMD,x -c x.c").as_deref(), Some("gcc"));
        assert_eq!(
            words("ccache gcc-14 -c x.c").as_deref(),
            Some("ccache gcc-14")
        );
        assert_eq!(
            words(" OBJTREE=/x RUST_MODFILE=a /usr/bin/rustc --edition=2021").as_deref(),
            Some("/usr/bin/rustc")
        );
        let bindgen = "savedcmd_x := /b/bindgen rust/bindings_helper.h --blocklist-type x";
        assert_eq!(words_of(bindgen, true).as_deref(), Some("/b/bindgen"));
        assert_eq!(words_of("", false), None);
    }

    #[test]
    fn clang_brings_its_fellows() {
        for (cc, llvm) in [
            ("clang", "1"),
            ("clang-19", "-19"),
            ("ccache clang-19", "-19"),
            ("/usr/lib/llvm-19/bin/clang", "/usr/lib/llvm-19/bin/"),
        ] {
            assert_eq!(llvm_of(cc), llvm, "{cc}");
        }
        let config = Config::parse("CONFIG_CC_IS_CLANG=y\nCONFIG_LD_IS_LLD=y\n");
        let tools = Tools::with_the_rest(Path::new("/"), vec![("CC", "clang-19".into())], &config);
        assert!(tools.make_variables().contains(&"LLVM=-19".to_owned()));
    }
}
