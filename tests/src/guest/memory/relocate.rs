// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Mappings moved in the address space.

use std::sync::Mutex;

use anyhow::{Context, Result};

use super::{Mapping, NO_ACCESS};

impl Mapping {
    /// Moves the whole mapping to another address.
    pub fn relocate(self) -> Result<Self> {
        let target = Self::map(
            0,
            self.len,
            NO_ACCESS,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
            None,
        )?;
        self.move_to(target)
    }

    /// Moves the whole mapping to another address, `offset` after a huge-page boundary.
    pub fn relocate_to_offset(self, offset: usize) -> Result<Self> {
        let target = Self::placed(self.len, offset, NO_ACCESS)?;
        self.move_to(target)
    }

    /// Moves the pages to a huge-page boundary elsewhere and returns them; the mapping itself
    /// stays where it is, with nothing in it (`MREMAP_DONTUNMAP`).
    pub fn move_content(&self) -> Result<Self> {
        let target = Self::placed(self.len, 0, NO_ACCESS)?;
        self.remap(&target, libc::MREMAP_DONTUNMAP)?;
        // INVARIANT: the range is that of `target`, now with this mapping's pages.
        Ok(target)
    }

    fn move_to(self, target: Self) -> Result<Self> {
        self.remap(&target, 0)?;
        // INVARIANT: `mremap` put this mapping at the address of `target`, which is given up, and
        // its old range is free.
        let moved = Mapping {
            address: target.address,
            len: target.len,
            holes: Mutex::default(),
        };
        std::mem::forget(self);
        std::mem::forget(target);
        Ok(moved)
    }

    /// Has the kernel move this mapping over `target`, which is as long.
    fn remap(&self, target: &Self, flags: i32) -> Result<()> {
        let old = self.pointer(0, self.len);
        let new = target.pointer(0, self.len);
        let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED | flags;
        // SAFETY:
        // - The old range belongs to `self`, the new one, which is replaced, to `target`.
        // - There are no references into either; callers see to it that each range has one owner.
        let got = unsafe { libc::mremap(old.cast(), self.len, self.len, flags, new) };
        if got == libc::MAP_FAILED {
            return Err(std::io::Error::last_os_error()).context("mremap");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::{HUGE, PAGE};
    use super::*;

    #[test]
    fn a_relocated_mapping_keeps_its_content() -> Result<()> {
        let mapping = Mapping::anonymous(2 * PAGE)?;
        mapping.write(PAGE, b"content");
        let before = mapping.address();
        let mapping = mapping.relocate()?;
        assert_ne!(mapping.address(), before);
        assert_eq!(&mapping.to_vec()[PAGE..PAGE + 7], b"content");
        let mapping = mapping.relocate_to_offset(3 * PAGE)?;
        assert_eq!(mapping.address() as usize % HUGE, 3 * PAGE);
        assert_eq!(&mapping.to_vec()[PAGE..PAGE + 7], b"content");
        Ok(())
    }

    #[test]
    fn moved_content_leaves_zeros() -> Result<()> {
        let old = Mapping::anonymous(PAGE)?;
        old.write(0, b"content");
        let new = old.move_content()?;
        assert_eq!(&new.to_vec()[..7], b"content");
        assert_eq!(old.load(0), 0);
        Ok(())
    }
}
