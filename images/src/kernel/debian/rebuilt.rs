// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The part of a kernel of Debian's that is built again, for the metadata of its Rust crates, and whether it is
//! the same as in the kernel.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::{bail, ensure, Context, Result};

use super::packages::Stock;
use super::workshop::Workshop;
use crate::cache;
use crate::kernel::read;
use crate::progress::Progress;
use crate::tool;

/// What is done here.
pub const TITLE: &str = "Rebuilding the kernel's Rust metadata";
/// Lines that make prints for it, for the estimate.
const EXPECTED_LINES: u64 = 213;
/// Options that tell of programs at hand, and not of the kernel.
const ABOUT_TOOLS: &[&str] = &["CONFIG_OPENSSL_", "CONFIG_PAHOLE_"];

/// Builds what modules in Rust take.
///
/// # Errors
///
/// It does not build, or comes out different from what the kernel has; names the option or the symbol.
pub fn prepare(stock: &Stock, workshop: &Workshop, variables: &[String], log: &Path) -> Result<()> {
    let shown = [cache::root()?];
    let make = |targets: &[&str]| {
        let mut make = workshop.program(&shown, "make");
        make.arg("-C").arg(&stock.source);
        make.arg(format!("O={}", stock.build_dir.display()));
        make.arg(format!("-j{}", tool::jobs()));
        make.args(variables).args(targets);
        make
    };
    let mut progress = Progress::start(TITLE);
    let mut lines = 0;
    let mut watch = |line: &str| {
        lines += u64::from(line.starts_with("  "));
        progress.update(lines, EXPECTED_LINES);
    };
    tool::run_logged(&mut make(&["olddefconfig"]), TITLE, log, &mut watch)?;
    let targets = ["prepare", "modules_prepare"];
    tool::run_logged(&mut make(&targets), TITLE, log, &mut watch)?;
    progress.finish();
    let settled = read(&stock.build_dir.join("include/config/auto.conf"))?;
    refuse_other_options(&stock.auto_conf, &settled)?;
    refuse_other_symbols(&stock.symbols, &exported(&stock.build_dir.join("rust"))?)
}

/// Refuses a configuration that came out another.
fn refuse_other_options(stock: &str, settled: &str) -> Result<()> {
    let set = |text: &str| -> BTreeSet<String> {
        let about_tools = |line: &str| ABOUT_TOOLS.iter().any(|name| line.starts_with(name));
        let lines = text
            .lines()
            .filter(|line| line.starts_with("CONFIG_") && !about_tools(line));
        lines.map(str::to_owned).collect()
    };
    let (stock, settled) = (set(stock), set(settled));
    if let Some(line) = stock.symmetric_difference(&settled).next() {
        let whose = if stock.contains(line) {
            "Debian's kernel"
        } else {
            "the part built again"
        };
        bail!("Only {whose} has {line}: what was built again does not fit the kernel");
    }
    Ok(())
}

/// The Rust symbols that the rebuilt crates export, a file for each crate.
fn exported(folder: &Path) -> Result<BTreeSet<String>> {
    let mut symbols = BTreeSet::new();
    let entries =
        fs::read_dir(folder).with_context(|| format!("Cannot read {}", folder.display()))?;
    for entry in entries {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with("exports_") && name.ends_with("_generated.h") {
            let text = read(&path)?;
            let lines = text.lines().filter_map(|line| {
                line.strip_prefix("EXPORT_SYMBOL_RUST_GPL(")?
                    .strip_suffix(");")
            });
            symbols.extend(lines.map(str::to_owned));
        }
    }
    ensure!(!symbols.is_empty(), "{} exports nothing", folder.display());
    Ok(symbols)
}

/// Refuses crates that came out others: a module would not find their functions in the kernel.
fn refuse_other_symbols(stock: &str, rebuilt: &BTreeSet<String>) -> Result<()> {
    let stock: BTreeSet<&str> = stock
        .lines()
        .filter_map(|line| line.split('\t').nth(1))
        .collect();
    if let Some(symbol) = rebuilt
        .iter()
        .find(|symbol| !stock.contains(symbol.as_str()))
    {
        bail!("Debian's kernel does not export {symbol}: what was built again does not fit it");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_about_tools_may_differ_and_no_others() {
        let stock = "CONFIG_A=y\nCONFIG_OPENSSL_SUPPORTS_X=y\n";
        refuse_other_options(stock, "# A comment.\nCONFIG_A=y\nCONFIG_PAHOLE_VERSION=1\n")
            .expect("the same");
        let error = refuse_other_options(stock, "CONFIG_A=y\nCONFIG_B=m\n").expect_err("another");
        assert!(error
            .to_string()
            .contains("the part built again has CONFIG_B=m"));
        let error = refuse_other_options(stock, "CONFIG_A=m\n").expect_err("another");
        assert!(error.to_string().contains("CONFIG_A="));
    }

    #[test]
    fn a_symbol_that_the_kernel_does_not_export_is_named() {
        let stock =
            "0x1\t_RNvA\tvmlinux\tEXPORT_SYMBOL_GPL\t\n0x2\t_RNvB\tvmlinux\tEXPORT_SYMBOL_GPL\t\n";
        let rebuilt = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        refuse_other_symbols(stock, &rebuilt(&["_RNvA"])).expect("it is there");
        let error =
            refuse_other_symbols(stock, &rebuilt(&["_RNvA", "_RNvC"])).expect_err("it is not");
        assert!(error.to_string().contains("_RNvC"));
    }

    #[test]
    fn exports_of_all_crates_are_read() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        for (name, symbol) in [
            ("exports_core_generated.h", "_RA"),
            ("exports_kernel_generated.h", "_RB"),
        ] {
            let text = format!("EXPORT_SYMBOL_RUST_GPL({symbol});\n");
            fs::write(folder.path().join(name), text).expect("writable");
        }
        let symbols = exported(folder.path()).expect("readable");
        assert_eq!(symbols.into_iter().collect::<Vec<_>>(), ["_RA", "_RB"]);
    }
}
