// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Whether what is booted is what modules are built for.
//!
//! Each link of the kernel gets a version of its own, number and time, and a list of its symbols. An image that
//! a later make did not make again has another version; a `Module.symvers` of another build promises symbols that
//! the kernel does not export.

use std::collections::HashSet;
use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use anyhow::{bail, ensure, Context, Result};

use super::super::read;
use super::{IMAGE, MAP};

/// As much of an image as its setup code can be: 64 sectors.
const SETUP: u64 = 64 * 512;
/// Of the setup header (`Documentation/arch/x86/boot.rst`): its mark, and where the version's text is.
const MARK: (usize, &[u8]) = (0x202, b"HdrS");
const VERSION_POINTER: usize = 0x20e;
/// What that is relative to.
const VERSION_BASE: usize = 0x200;

/// Refuses an image of `folder` that is not of its last build, which is of this release.
///
/// # Errors
///
/// Names both versions, or the symbol that only one has.
pub fn check(folder: &Path, release: &str) -> Result<()> {
    let shown = folder.display();
    let path = folder.join(IMAGE);
    let image = version(&path)?;
    let header = read(&folder.join("include/generated/utsversion.h"))?;
    let built = header.split('"').nth(1).unwrap_or_default();
    let same = image
        .strip_prefix(release)
        .is_some_and(|rest| rest.starts_with(' ') && rest.ends_with(built));
    ensure!(
        same,
        "{shown} has the image of {image}, and was last built as {release} {built}: run make -C {shown} bzImage \
         modules, or add --build"
    );
    let (symbols, map) = (
        read(&folder.join("Module.symvers"))?,
        read(&folder.join(MAP))?,
    );
    if let Some(symbol) = not_exported(&symbols, &map) {
        bail!(
            "{shown} has a Module.symvers of another build: the kernel does not export {symbol}. Run make -C {shown} \
             bzImage modules, or add --build"
        );
    }
    Ok(())
}

/// What an image calls itself: `RELEASE (USER@HOST) #NUMBER TIME`.
fn version(image: &Path) -> Result<String> {
    let mut setup = Vec::new();
    File::open(image)
        .and_then(|file| file.take(SETUP).read_to_end(&mut setup))
        .with_context(|| format!("Cannot read {}", image.display()))?;
    let text = text_of(&setup);
    text.with_context(|| format!("{} is no image of a kernel", image.display()))
}

fn text_of(setup: &[u8]) -> Option<String> {
    let (at, mark) = MARK;
    if !setup.get(at..)?.starts_with(mark) {
        return None;
    }
    let pointer = setup.get(VERSION_POINTER..)?.first_chunk()?;
    let from = VERSION_BASE + usize::from(u16::from_le_bytes(*pointer));
    let text = setup.get(from..)?.split(|byte| *byte == 0).next()?;
    Some(String::from_utf8_lossy(text).into_owned())
}

/// A symbol of the kernel itself that `symvers` has and the kernel's map has not.
fn not_exported<'a>(symvers: &'a str, map: &str) -> Option<&'a str> {
    let lines = map
        .lines()
        .filter_map(|line| line.split_once(" __ksymtab_"));
    let exported: HashSet<&str> = lines.map(|(_, name)| name).collect();
    let mut promised = symvers.lines().filter_map(|line| {
        let mut columns = line.split('\t').skip(1);
        let (name, module) = (columns.next()?, columns.next()?);
        (module == "vmlinux").then_some(name)
    });
    promised.find(|name| !exported.contains(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An image as far as it is looked at.
    fn setup(text: &str) -> Vec<u8> {
        let mut setup = vec![0; 0x400];
        setup[0x202..0x206].copy_from_slice(b"HdrS");
        setup[VERSION_POINTER..VERSION_POINTER + 2].copy_from_slice(&0x200_u16.to_le_bytes());
        setup.extend(text.as_bytes());
        setup.push(0);
        setup
    }

    #[test]
    fn an_image_tells_its_version_and_other_files_have_none() {
        let text = "7.2.0 (me@here) #3 SMP Thu";
        assert_eq!(text_of(&setup(text)).as_deref(), Some(text));
        let mut other = setup(text);
        other[0x202] = 0;
        assert_eq!(text_of(&other), None);
        let mut far = setup(text);
        far[VERSION_POINTER + 1] = 0xff;
        assert_eq!(text_of(&far), None);
        assert_eq!(text_of(b""), None);
    }

    #[test]
    fn a_symbol_that_the_kernel_does_not_export_is_found() {
        let map = "ffffffff81000000 T _stext\nffffffff82000000 r __ksymtab_one\n";
        let line = |name, module| format!("0x00000000\t{name}\t{module}\tEXPORT_SYMBOL_GPL\t\n");
        let of_a_module = line("one", "vmlinux") + &line("three", "lib/test_x");
        assert_eq!(not_exported(&of_a_module, map), None);
        let stale = of_a_module + &line("two", "vmlinux");
        assert_eq!(not_exported(&stale, map), Some("two"));
    }
}
