// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
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
    let open = |service: u32, pasid| control(wire::CONTROL_CONTEXT_OPEN, 3, service.into(), pasid);
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
