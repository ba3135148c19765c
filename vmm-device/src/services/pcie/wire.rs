// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Messages on the socket to QEMU's `translation-chardev`, as `vhost-user-coax-translation.h` of the
//! patch series has them. Ranges are given by their first and their last byte.
#![forbid(unsafe_code)]

use std::io::{self, Read, Write};

use coax_abi::wire::{ACCESS_READ, ACCESS_WRITE, PAGE_SIZE};
use zerocopy::byteorder::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::access::Access;
use crate::mmu::atc::{Translation, LEAF_PAGES};

/// "CXTR" as a little-endian integer.
pub const MAGIC: u64 = 0x5254_5843;
/// Version of the messages.
pub const VERSION: u64 = 1;
/// Most entries of a completion.
const MAX_ENTRIES: u32 = 512;
/// Most pages of a group.
pub const MAX_GROUP: u64 = 32;

/// Both: `addr` is the magic number, `last` the version.
pub const HELLO: u32 = 1;
/// To QEMU: begin to use `pasid`, which `opening` names until CLOSE.
pub const OPEN: u32 = 2;
/// To QEMU: use `pasid` no more; answered when no page request is left.
pub const CLOSE: u32 = 3;
/// To QEMU: translation request (PCIe 6.0 §10.2.2) for `access`.
pub const TRANSLATE: u32 = 4;
/// To QEMU: page request group (PCIe 6.0 §10.4.1) of index `tag`, for `access`.
pub const PAGE_REQUEST: u32 = 5;
/// To QEMU: invalidation `tag` has completed (PCIe 6.0 §10.3.2).
pub const INVALIDATED: u32 = 6;
/// From QEMU: answers OPEN by `code`; `last` is the outstanding page request allocation.
pub const OPENED: u32 = 7;
/// From QEMU: answers CLOSE.
pub const CLOSED: u32 = 8;
/// From QEMU: answers TRANSLATE, with `count` entries.
pub const COMPLETION: u32 = 9;
/// From QEMU: answers PAGE_REQUEST, by the code of the PRG Response.
pub const PAGE_RESPONSE: u32 = 10;
/// From QEMU: forget the range, then answer INVALIDATED with the same `tag`.
pub const INVALIDATE: u32 = 11;

/// What every message begins with.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    FromBytes,
    IntoBytes,
    Immutable,
    KnownLayout,
    Unaligned,
)]
#[repr(C)]
pub struct Message {
    /// One of the constants above.
    pub kind: U32,
    /// Names what the message is about, by its kind.
    pub tag: U32,
    /// Process address space identifier.
    pub pasid: U32,
    /// Tells uses of a PASID apart.
    pub opening: U32,
    /// First byte.
    pub addr: U64,
    /// Last byte.
    pub last: U64,
    /// `ACCESS_READ`, `ACCESS_WRITE`.
    pub access: U32,
    /// `RESPONSE_*`.
    pub code: U32,
    /// Entries that follow.
    pub count: U32,
    /// 0.
    pub reserved: U32,
}

/// A translation.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    FromBytes,
    IntoBytes,
    Immutable,
    KnownLayout,
    Unaligned,
)]
#[repr(C)]
pub struct Entry {
    /// First byte.
    pub addr: U64,
    /// Its guest physical address.
    pub gpa: U64,
    /// Pages.
    pub npages: U32,
    /// `ACCESS_READ`, `ACCESS_WRITE`.
    pub access: U32,
}

impl Message {
    /// What either side says first.
    pub fn hello() -> Self {
        Self {
            kind: HELLO.into(),
            addr: MAGIC.into(),
            last: VERSION.into(),
            ..Self::default()
        }
    }

    /// Sends it, without entries.
    pub fn send(&self, mut to: impl Write) -> io::Result<()> {
        to.write_all(self.as_bytes())
    }
}

/// Receives a message and its translations. One that makes no sense is an error of the kind
/// `InvalidData`.
pub fn receive(mut from: impl Read) -> io::Result<(Message, Vec<Translation>)> {
    let mut message = Message::default();
    from.read_exact(message.as_mut_bytes())?;
    let count = message.count.get();
    let completes = message.kind.get() == COMPLETION;
    if message.reserved.get() != 0 || count > MAX_ENTRIES || (count > 0 && !completes) {
        return Err(nonsense("a message that makes no sense"));
    }
    let mut translations = Vec::with_capacity(count as usize);
    for _ in 0..count {
        let mut entry = Entry::default();
        from.read_exact(entry.as_mut_bytes())?;
        let translation =
            translation(&entry).ok_or_else(|| nonsense("a translation of nothing"))?;
        translations.push(translation);
    }
    Ok((message, translations))
}

/// An error that says what came.
pub fn nonsense(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}

/// A translation, if it is one. Atomic operations need the right to write, no other (PCIe 6.0 §10.2.3).
fn translation(entry: &Entry) -> Option<Translation> {
    let (va, gpa, npages) = (entry.addr.get(), entry.gpa.get(), entry.npages.get());
    let access = match entry.access.get() {
        ACCESS_READ => Access::READ,
        bits if bits == ACCESS_READ | ACCESS_WRITE => Access::ATOMIC,
        _ => return None,
    };
    let last = u64::from(npages).checked_mul(PAGE_SIZE)?.checked_sub(1)?;
    va.checked_add(last)?;
    gpa.checked_add(last)?;
    let sound = (va | gpa) % PAGE_SIZE == 0 && u64::from(npages) <= 2 * LEAF_PAGES;
    sound.then_some(Translation {
        vpn: va / PAGE_SIZE,
        gpa,
        npages: npages.into(),
        access,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(addr: u64, gpa: u64, npages: u32, access: u32) -> Entry {
        Entry {
            addr: addr.into(),
            gpa: gpa.into(),
            npages: npages.into(),
            access: access.into(),
        }
    }

    fn received(kind: u32, entries: &[Entry]) -> io::Result<Vec<Translation>> {
        let message = Message {
            kind: kind.into(),
            count: (entries.len() as u32).into(),
            ..Message::default()
        };
        let bytes = [message.as_bytes(), entries.as_bytes()].concat();
        receive(bytes.as_slice()).map(|(_, translations)| translations)
    }

    #[test]
    fn completions_carry_runs_of_pages_and_writing_includes_atomics() {
        let runs = received(
            COMPLETION,
            &[entry(0x1000, 0x8000, 2, 1), entry(0x3000, 0, 1, 3)],
        );
        let runs = runs.expect("a completion");
        assert_eq!((runs[0].vpn, runs[0].gpa, runs[0].npages), (1, 0x8000, 2));
        assert_eq!(runs[0].access, Access::READ);
        assert_eq!(runs[1].access, Access::ATOMIC);
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for bad in [
            entry(0x1001, 0, 1, 1),
            entry(0x1000, 1, 1, 1),
            entry(0x1000, 0, 0, 1),
            entry(0x1000, 0, 2 * 512 + 1, 1),
            entry(0x1000, 0, 1, 0),
            entry(0x1000, 0, 1, 2),
            entry(0x1000, 0, 1, 4),
            entry(u64::MAX - 0xfff, 0, 2, 1),
            entry(0, u64::MAX - 0xfff, 2, 1),
        ] {
            assert!(received(COMPLETION, &[bad]).is_err(), "{bad:?}");
        }
        assert!(received(PAGE_RESPONSE, &[entry(0, 0, 1, 1)]).is_err());
        assert!(receive([0xff; 48].as_slice()).is_err());
        assert!(receive([0; 47].as_slice()).is_err());
    }
}
