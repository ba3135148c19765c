// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Decoding of the driver's messages on the control, copy and translation queues.
//!
//! Pure: no memory, no device. Commands are decoded in [`crate::command`].
#![forbid(unsafe_code)]

#[cfg(test)]
mod tests;

use coax_abi::wire::{
    self, ControlRequest, CopyEntry, CopyHeader, TranslationEntry, TranslationMessage,
    MAX_COPY_ENTRIES, MAX_RANGE_PAGES, MAX_TRANSLATION_ENTRIES, PAGE_SIZE, STATUS_BAD_ARGUMENT,
    STATUS_BAD_MESSAGE, STATUS_UNKNOWN_OPCODE,
};
use zerocopy::FromBytes;

use crate::access::Access;
use crate::mmu::atc::Translation;
use crate::mmu::ContextId;
use crate::resolve::ResponseCode;

/// A control message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Control {
    /// Device memory lies here.
    SetDeviceMemory {
        /// First guest physical address.
        gpa: u64,
        /// Bytes.
        len: u64,
    },
    /// Page requests that may be outstanding.
    SetPageRequestAllocation(u64),
    /// Open a context.
    ContextOpen {
        /// Its number.
        number: u32,
        /// PASID, if the IOMMU translates it.
        pasid: Option<u32>,
    },
    /// Close a context.
    ContextClose(ContextId),
    /// Tell of accesses to system memory.
    ContextNotify {
        /// Context meant.
        context: ContextId,
        /// Accesses to a window after which that is told; 0 for never.
        threshold: u32,
    },
    /// Abort everything.
    Reset,
    /// Read the counters.
    Stats,
}

impl Control {
    /// Decodes a control chain, or refuses it with a `STATUS_*`.
    pub fn decode(bytes: &[u8]) -> Result<Self, u32> {
        let Ok(message) = ControlRequest::read_from_bytes(bytes) else {
            return Err(STATUS_BAD_MESSAGE);
        };
        let context = ContextId {
            number: message.context.get(),
            generation: message.generation.get(),
        };
        let (number, generation) = (u64::from(context.number), u64::from(context.generation));
        let (arg0, arg1) = (message.arg0.get(), message.arg1.get());
        let (control, unused) = match message.opcode.get() {
            wire::CONTROL_SET_DEVICE_MEMORY => (
                Self::SetDeviceMemory {
                    gpa: arg0,
                    len: arg1,
                },
                number | generation,
            ),
            wire::CONTROL_SET_PAGE_REQUEST_ALLOCATION => (
                Self::SetPageRequestAllocation(arg0),
                number | generation | arg1,
            ),
            wire::CONTROL_CONTEXT_OPEN => {
                let (pasid, unused) = match arg0 {
                    0 => (None, arg1),
                    service if service == u64::from(wire::SERVICE_PCIE) => (Some(pasid(arg1)?), 0),
                    _ => return Err(STATUS_BAD_MESSAGE),
                };
                let number = context.number;
                (Self::ContextOpen { number, pasid }, generation | unused)
            }
            wire::CONTROL_CONTEXT_CLOSE => (Self::ContextClose(context), arg0 | arg1),
            wire::CONTROL_CONTEXT_NOTIFY => {
                let threshold = u32::try_from(arg0)
                    .ok()
                    .filter(|accesses| *accesses <= wire::MAX_ACCESS_THRESHOLD)
                    .ok_or(STATUS_BAD_ARGUMENT)?;
                (Self::ContextNotify { context, threshold }, arg1)
            }
            wire::CONTROL_RESET => (Self::Reset, number | generation | arg0 | arg1),
            wire::CONTROL_STATS => (Self::Stats, number | generation | arg0 | arg1),
            _ => return Err(STATUS_UNKNOWN_OPCODE),
        };
        if unused != 0 || message.reserved.get() != 0 {
            return Err(STATUS_BAD_MESSAGE);
        }
        Ok(control)
    }
}

/// A PASID (PCIe 6.0 §6.20): 20 bits, 0 not used here.
fn pasid(value: u64) -> Result<u32, u32> {
    match u32::try_from(value) {
        Ok(pasid) if (1..1 << 20).contains(&pasid) => Ok(pasid),
        _ => Err(STATUS_BAD_ARGUMENT),
    }
}

/// One range to copy or clear.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CopyRange {
    /// Source; `None` clears.
    pub src: Option<u64>,
    /// Destination.
    pub dst: u64,
    /// Bytes.
    pub len: u64,
}

/// Splits a copy chain into its entries, or refuses it with a `STATUS_*`.
///
/// The entries are checked one by one by [`copy_range`], so that those before a bad one count
/// as done.
pub fn copy_entries(bytes: &[u8]) -> Result<&[CopyEntry], u32> {
    let Ok((header, rest)) = CopyHeader::read_from_prefix(bytes) else {
        return Err(STATUS_BAD_MESSAGE);
    };
    let count = header.count.get();
    if header.reserved.get() != 0 || count == 0 || count > MAX_COPY_ENTRIES {
        return Err(STATUS_BAD_MESSAGE);
    }
    match <[CopyEntry]>::ref_from_bytes(rest) {
        Ok(entries) if entries.len() == count as usize => Ok(entries),
        _ => Err(STATUS_BAD_MESSAGE),
    }
}

/// Checks one entry of a copy chain, or refuses it with a `STATUS_*`.
pub fn copy_range(entry: &CopyEntry) -> Result<CopyRange, u32> {
    let flags = entry.flags.get();
    let npages = entry.npages.get();
    let (src, dst) = (entry.src_gpa.get(), entry.dst_gpa.get());
    let zero = flags & wire::COPY_ZERO != 0;
    if flags & !wire::COPY_ZERO != 0 {
        return Err(STATUS_BAD_MESSAGE);
    }
    if npages == 0 || npages > MAX_RANGE_PAGES {
        return Err(STATUS_BAD_ARGUMENT);
    }
    if dst % PAGE_SIZE != 0 || (!zero && src % PAGE_SIZE != 0) {
        return Err(STATUS_BAD_ARGUMENT);
    }
    let len = u64::from(npages) * PAGE_SIZE;
    if !zero && src.abs_diff(dst) < len {
        return Err(STATUS_BAD_ARGUMENT);
    }
    Ok(CopyRange {
        src: (!zero).then_some(src),
        dst,
        len,
    })
}

/// A message of the translation queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Translations {
    /// Answer to a request.
    Answer {
        /// Context of the request.
        context: ContextId,
        /// Tag of the request.
        tag: u32,
        /// How it ended if it became a page request; `None` if nothing had to be done for it.
        code: Option<ResponseCode>,
        /// Translations to use at once.
        entries: Vec<Translation>,
    },
    /// Translations that nothing has asked for yet.
    Ahead {
        /// Context meant.
        context: ContextId,
        /// Translations to use at once.
        entries: Vec<Translation>,
    },
    /// Drop a range.
    Invalidate {
        /// Context.
        context: ContextId,
        /// Number of the first page.
        vpn: u64,
        /// Pages.
        npages: u64,
    },
}

impl Translations {
    /// Decodes a translation chain, or refuses it with a `STATUS_*`.
    pub fn decode(bytes: &[u8]) -> Result<Self, u32> {
        let Ok((head, rest)) = TranslationMessage::read_from_prefix(bytes) else {
            return Err(STATUS_BAD_MESSAGE);
        };
        let context = ContextId {
            number: head.context.get(),
            generation: head.generation.get(),
        };
        let (tag, code) = (head.tag.get(), head.code.get());
        let (va, npages, count) = (head.va.get(), head.npages.get(), head.count.get());
        let entries = match <[TranslationEntry]>::ref_from_bytes(rest) {
            Ok(entries) if entries.len() == count as usize => entries,
            _ => return Err(STATUS_BAD_MESSAGE),
        };
        if count > MAX_TRANSLATION_ENTRIES {
            return Err(STATUS_BAD_MESSAGE);
        }
        let no_range = va == 0 && npages == 0;
        match head.kind.get() {
            wire::MSG_TRANSLATION_COMPLETION if code == 0 && no_range => Ok(Self::Answer {
                context,
                tag,
                code: None,
                entries: translations(entries)?,
            }),
            wire::MSG_PAGE_RESPONSE if no_range => Ok(Self::Answer {
                context,
                tag,
                code: Some(match code {
                    wire::RESPONSE_SUCCESS => ResponseCode::Success,
                    wire::RESPONSE_INVALID => ResponseCode::InvalidRequest,
                    wire::RESPONSE_FAILURE => ResponseCode::ResponseFailure,
                    _ => return Err(STATUS_BAD_MESSAGE),
                }),
                entries: translations(entries)?,
            }),
            wire::MSG_TRANSLATION_AHEAD if tag == 0 && code == 0 && no_range => Ok(Self::Ahead {
                context,
                entries: translations(entries)?,
            }),
            wire::MSG_INVALIDATE if tag == 0 && code == 0 && count == 0 => {
                if va % PAGE_SIZE != 0 {
                    return Err(STATUS_BAD_ARGUMENT);
                }
                Ok(Self::Invalidate {
                    context,
                    vpn: va / PAGE_SIZE,
                    npages,
                })
            }
            wire::MSG_TRANSLATION_COMPLETION
            | wire::MSG_PAGE_RESPONSE
            | wire::MSG_TRANSLATION_AHEAD
            | wire::MSG_INVALIDATE => Err(STATUS_BAD_MESSAGE),
            _ => Err(STATUS_UNKNOWN_OPCODE),
        }
    }
}

/// Checks the entries of a message.
fn translations(entries: &[TranslationEntry]) -> Result<Vec<Translation>, u32> {
    entries.iter().map(translation).collect()
}

fn translation(entry: &TranslationEntry) -> Result<Translation, u32> {
    let (va, gpa, npages) = (entry.va.get(), entry.gpa.get(), entry.npages.get());
    let access = Access::from_bits(u64::from(entry.access.get()));
    if access.wire() != entry.access.get() || access.is_empty() || !access.is_sound() {
        return Err(STATUS_BAD_MESSAGE);
    }
    if npages == 0 || npages > MAX_RANGE_PAGES || (va | gpa) % PAGE_SIZE != 0 {
        return Err(STATUS_BAD_ARGUMENT);
    }
    // The last byte of the run must have an address.
    let bytes = u64::from(npages) * PAGE_SIZE;
    if va.checked_add(bytes - 1).is_none() || gpa.checked_add(bytes - 1).is_none() {
        return Err(STATUS_BAD_ARGUMENT);
    }
    Ok(Translation {
        vpn: va / PAGE_SIZE,
        gpa,
        npages: u64::from(npages),
        access,
    })
}
