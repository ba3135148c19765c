// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Decoding of the driver's messages on the control, copy and translation queues.
//!
//! Pure: no memory, no device. Commands are decoded in [`crate::command`].
#![forbid(unsafe_code)]

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

#[cfg(test)]
mod tests {
    use super::*;
    use zerocopy::byteorder::little_endian::U64;
    use zerocopy::IntoBytes;

    const CONTEXT: ContextId = ContextId {
        number: 1,
        generation: 7,
    };

    fn control(opcode: u32, context: u32, arg0: u64, arg1: u64) -> Result<Control, u32> {
        of_generation(0, opcode, context, arg0, arg1)
    }

    #[test]
    fn context_is_translated_by_a_pasid_if_it_is_opened_with_one() {
        let open =
            |service: u32, pasid| control(wire::CONTROL_CONTEXT_OPEN, 3, service.into(), pasid);
        for pasid in [1, (1 << 20) - 1] {
            let opened = Ok(Control::ContextOpen {
                number: 3,
                pasid: Some(pasid as u32),
            });
            assert_eq!(open(wire::SERVICE_PCIE, pasid), opened);
        }
        for pasid in [0, 1 << 20, 1 << 32 | 1] {
            assert_eq!(open(wire::SERVICE_PCIE, pasid), Err(STATUS_BAD_ARGUMENT));
        }
        for service in [wire::SERVICE_VIRTQUEUE, 3, 4] {
            assert_eq!(open(service, 1), Err(STATUS_BAD_MESSAGE));
        }
    }

    fn of_generation(
        generation: u32,
        opcode: u32,
        context: u32,
        arg0: u64,
        arg1: u64,
    ) -> Result<Control, u32> {
        let message = ControlRequest {
            opcode: opcode.into(),
            context: context.into(),
            generation: generation.into(),
            reserved: 0.into(),
            arg0: arg0.into(),
            arg1: arg1.into(),
        };
        Control::decode(message.as_bytes())
    }

    #[test]
    fn control_messages_refuse_what_they_do_not_use() {
        assert_eq!(
            control(wire::CONTROL_CONTEXT_OPEN, 3, 0, 0),
            Ok(Control::ContextOpen {
                number: 3,
                pasid: None
            })
        );
        assert_eq!(
            control(wire::CONTROL_CONTEXT_OPEN, 3, 1, 0),
            Err(STATUS_BAD_MESSAGE)
        );
        assert_eq!(
            control(wire::CONTROL_STATS, 1, 0, 0),
            Err(STATUS_BAD_MESSAGE)
        );
        assert_eq!(control(99, 0, 0, 0), Err(STATUS_UNKNOWN_OPCODE));
        let refused = [
            of_generation(1, wire::CONTROL_CONTEXT_OPEN, 3, 0, 0),
            of_generation(1, wire::CONTROL_STATS, 0, 0, 0),
            Control::decode(&[0; 31]),
        ];
        assert_eq!(refused, [Err(STATUS_BAD_MESSAGE); 3]);
        assert_eq!(
            of_generation(7, wire::CONTROL_CONTEXT_CLOSE, 1, 0, 0),
            Ok(Control::ContextClose(CONTEXT))
        );
    }

    #[test]
    fn accesses_are_told_of_from_one_on_or_never() {
        let most = wire::MAX_ACCESS_THRESHOLD;
        let notify = |accesses, rest| {
            let message = ControlRequest {
                opcode: wire::CONTROL_CONTEXT_NOTIFY.into(),
                context: CONTEXT.number.into(),
                generation: CONTEXT.generation.into(),
                reserved: 0.into(),
                arg0: U64::new(accesses),
                arg1: U64::new(rest),
            };
            Control::decode(message.as_bytes())
        };
        for threshold in [0, 1, most] {
            let context = CONTEXT;
            let wanted = Ok(Control::ContextNotify { context, threshold });
            assert_eq!(notify(threshold.into(), 0), wanted);
        }
        for accesses in [u64::from(most) + 1, 1 << 32] {
            assert_eq!(notify(accesses, 0), Err(STATUS_BAD_ARGUMENT));
        }
        assert_eq!(notify(1, 1), Err(STATUS_BAD_MESSAGE));
    }

    fn entry(src: u64, dst: u64, npages: u32, flags: u32) -> CopyEntry {
        CopyEntry {
            src_gpa: src.into(),
            dst_gpa: dst.into(),
            npages: npages.into(),
            flags: flags.into(),
        }
    }

    #[test]
    fn copy_entries_refuse_bad_counts_pages_and_overlaps() {
        let good = entry(0x1000, 0x3000, 2, 0);
        assert_eq!(
            copy_range(&good),
            Ok(CopyRange {
                src: Some(0x1000),
                dst: 0x3000,
                len: 0x2000
            })
        );
        for bad in [
            entry(0x1000, 0x3000, 0, 0),
            entry(0x1000, 0x3000, MAX_RANGE_PAGES + 1, 0),
            entry(0x1001, 0x3000, 1, 0),
            entry(0x1000, 0x3001, 1, 0),
            entry(0x1000, 0x2000, 2, 0),
        ] {
            assert_eq!(copy_range(&bad), Err(STATUS_BAD_ARGUMENT));
        }
        assert_eq!(copy_range(&entry(0, 0x1000, 1, 2)), Err(STATUS_BAD_MESSAGE));
        assert!(copy_range(&entry(1, 0x1000, 1, wire::COPY_ZERO)).is_ok());
        assert!(copy_entries(&[0; 8]).is_err());
    }

    fn head(kind: u32, count: u32) -> TranslationMessage {
        TranslationMessage {
            kind: kind.into(),
            context: CONTEXT.number.into(),
            generation: CONTEXT.generation.into(),
            tag: 0.into(),
            code: 0.into(),
            count: count.into(),
            va: 0.into(),
            npages: 0.into(),
        }
    }

    fn run(va: u64, gpa: u64, npages: u32, access: u32) -> TranslationEntry {
        TranslationEntry {
            va: va.into(),
            gpa: gpa.into(),
            npages: npages.into(),
            access: access.into(),
        }
    }

    #[test]
    fn translation_entries_refuse_what_wraps_or_grants_nothing() {
        let decode = |entry: TranslationEntry| {
            let head = head(wire::MSG_TRANSLATION_COMPLETION, 1);
            Translations::decode(&[head.as_bytes(), entry.as_bytes()].concat())
        };
        assert!(decode(run(0x1000, 0x2000, 1, 1)).is_ok());
        // The last page of the address space is an address like others.
        assert!(decode(run(u64::MAX - 0xfff, 0, 1, 1)).is_ok());
        assert_eq!(
            decode(run(u64::MAX - 0xfff, 0, 2, 1)),
            Err(STATUS_BAD_ARGUMENT)
        );
        assert_eq!(decode(run(0x1000, 0, 1, 0)), Err(STATUS_BAD_MESSAGE));
        assert_eq!(decode(run(0x1000, 0, 1, 4)), Err(STATUS_BAD_MESSAGE));
        assert!(decode(run(0x1000, 0, 1, wire::ACCESS_ATOMIC | 3)).is_ok());
        for without in [0, wire::ACCESS_READ, wire::ACCESS_WRITE] {
            let entry = run(0x1000, 0, 1, wire::ACCESS_ATOMIC | without);
            assert_eq!(decode(entry), Err(STATUS_BAD_MESSAGE));
        }
        assert_eq!(decode(run(0x1001, 0, 1, 1)), Err(STATUS_BAD_ARGUMENT));
        assert_eq!(decode(run(0x1000, 0, 0, 1)), Err(STATUS_BAD_ARGUMENT));
    }

    #[test]
    fn translation_message_with_wrong_count_is_refused() {
        let entry = run(0x1000, 0x2000, 1, 1);
        let head = head(wire::MSG_TRANSLATION_COMPLETION, 2);
        assert_eq!(
            Translations::decode(&[head.as_bytes(), entry.as_bytes()].concat()),
            Err(STATUS_BAD_MESSAGE)
        );
        assert_eq!(Translations::decode(&[]), Err(STATUS_BAD_MESSAGE));
    }

    #[test]
    fn page_response_has_a_code_and_a_completion_none() {
        let mut head = head(wire::MSG_PAGE_RESPONSE, 1);
        let entry = run(0x1000, 0x2000, 1, 1);
        let decode = |head: &TranslationMessage| {
            Translations::decode(&[head.as_bytes(), entry.as_bytes()].concat())
        };
        head.code = wire::RESPONSE_INVALID.into();
        assert!(matches!(
            decode(&head),
            Ok(Translations::Answer {
                code: Some(ResponseCode::InvalidRequest),
                context: CONTEXT,
                ..
            })
        ));
        head.code = 2.into();
        assert_eq!(decode(&head), Err(STATUS_BAD_MESSAGE));
        head.kind = wire::MSG_TRANSLATION_COMPLETION.into();
        assert_eq!(decode(&head), Err(STATUS_BAD_MESSAGE));
        head.code = 0.into();
        assert!(matches!(
            decode(&head),
            Ok(Translations::Answer { code: None, .. })
        ));
    }

    #[test]
    fn translations_ahead_answer_no_tag() {
        let mut head = head(wire::MSG_TRANSLATION_AHEAD, 1);
        let entry = run(0x1000, 0x2000, 1, 1);
        let decode = |head: &TranslationMessage| {
            Translations::decode(&[head.as_bytes(), entry.as_bytes()].concat())
        };
        assert!(matches!(
            decode(&head),
            Ok(Translations::Ahead { entries, .. }) if entries.len() == 1
        ));
        head.tag = 1.into();
        assert_eq!(decode(&head), Err(STATUS_BAD_MESSAGE));
    }

    #[test]
    fn invalidation_takes_any_number_of_pages() {
        let message = TranslationMessage {
            npages: u64::MAX.into(),
            ..head(wire::MSG_INVALIDATE, 0)
        };
        assert_eq!(
            Translations::decode(message.as_bytes()),
            Ok(Translations::Invalidate {
                context: CONTEXT,
                vpn: 0,
                npages: u64::MAX
            })
        );
    }
}
