// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#![forbid(unsafe_code)]

use super::*;
use crate::access::Miss;

const PASID: Pasid = Pasid {
    number: 7,
    opening: 3,
};
const CONTEXT: ContextId = ContextId {
    number: 1,
    generation: 2,
};

fn request(tag: u32, va: u64, bytes: u64, access: Access, around: bool) -> Request {
    Request {
        tag,
        context: CONTEXT,
        miss: Miss {
            va,
            bytes,
            access,
            around,
        },
    }
}

fn requests(allocation: u64) -> Requests {
    let mut requests = Requests::default();
    requests.set_allocation(allocation);
    requests
}

fn begin(requests: &mut Requests, request: &Request) -> Message {
    requests.begin(request, PASID).expect("a free slot")
}

fn page(va: u64, access: Access) -> Translation {
    Translation {
        vpn: va / PAGE_SIZE,
        gpa: 0x8000,
        npages: 1,
        access,
    }
}

/// First page and number of pages.
fn range(message: &Message) -> (u64, u64) {
    let (addr, last) = (message.addr.get(), message.last.get());
    (addr, (last - addr + 1) / PAGE_SIZE)
}

fn complete(requests: &mut Requests, message: &Message, found: &[Translation]) -> Vec<Effect> {
    let mut effects = Vec::new();
    assert!(requests.completed(message.tag.get(), PASID, found.to_vec(), &mut effects));
    effects
}

fn respond(requests: &mut Requests, message: &Message, code: ResponseCode) -> Vec<Effect> {
    let mut effects = Vec::new();
    assert!(requests.responded(message.tag.get(), PASID, code, &mut effects));
    effects
}

fn sent(effects: &[Effect]) -> Message {
    match effects {
        [Effect::Send(message)] => *message,
        other => panic!("one message expected, not {other:?}"),
    }
}

fn answered(effects: &[Effect]) -> (u32, Option<ResponseCode>, usize) {
    match effects {
        [Effect::Answer {
            tag, code, entries, ..
        }] => (*tag, *code, entries.len()),
        other => panic!("one answer expected, not {other:?}"),
    }
}

#[test]
fn page_that_is_there_needs_no_page_request() {
    let mut requests = requests(512);
    let asked = begin(&mut requests, &request(9, 0x5008, 8, Access::READ, false));
    assert_eq!((asked.kind.get(), range(&asked)), (TRANSLATE, (0x5000, 1)));
    let effects = complete(&mut requests, &asked, &[page(0x5000, Access::READ)]);
    assert_eq!(answered(&effects), (9, None, 1));
}

#[test]
fn missing_page_is_requested_and_then_translated() {
    let mut requests = requests(512);
    let write = request(9, 0x5000, 3 * PAGE_SIZE, Access::WRITE, false);
    let asked = begin(&mut requests, &write);
    // Reading alone is not what was asked for.
    let group = sent(&complete(
        &mut requests,
        &asked,
        &[page(0x5000, Access::READ)],
    ));
    assert_eq!(
        (group.kind.get(), range(&group)),
        (PAGE_REQUEST, (0x5000, 3))
    );
    assert_eq!(group.access.get(), 3);
    let again = sent(&respond(&mut requests, &group, ResponseCode::Success));
    assert_eq!(again.kind.get(), TRANSLATE);
    assert_ne!(again.tag, asked.tag);
    let effects = complete(&mut requests, &again, &[page(0x5000, Access::ATOMIC)]);
    assert_eq!(answered(&effects), (9, Some(ResponseCode::Success), 1));
    assert_eq!(requests.credits, 512);
}

#[test]
fn refusals_are_passed_on() {
    for code in [ResponseCode::InvalidRequest, ResponseCode::ResponseFailure] {
        let mut requests = requests(512);
        let asked = begin(&mut requests, &request(9, 0x5000, 1, Access::READ, false));
        let group = sent(&complete(&mut requests, &asked, &[]));
        let effects = respond(&mut requests, &group, code);
        assert_eq!(answered(&effects), (9, Some(code), 0));
        let mut effects = Vec::new();
        assert!(!requests.responded(group.tag.get(), PASID, code, &mut effects));
    }
}

#[test]
fn bad_page_in_a_group_does_not_refuse_those_before_it() {
    let mut requests = requests(512);
    let write = request(9, 0x5000, 3 * PAGE_SIZE, Access::WRITE, false);
    let asked = begin(&mut requests, &write);
    let group = sent(&complete(&mut requests, &asked, &[]));
    assert_eq!(range(&group).1, 3);
    let again = sent(&respond(
        &mut requests,
        &group,
        ResponseCode::InvalidRequest,
    ));
    // The first page is as bad as the others, or it is there now.
    let alone = sent(&complete(&mut requests, &again, &[]));
    assert_eq!(
        (alone.kind.get(), range(&alone)),
        (PAGE_REQUEST, (0x5000, 1))
    );
    let again = sent(&respond(&mut requests, &alone, ResponseCode::Success));
    let effects = complete(&mut requests, &again, &[page(0x5000, Access::ATOMIC)]);
    assert_eq!(answered(&effects), (9, Some(ResponseCode::Success), 1));

    let asked = begin(&mut requests, &write);
    let group = sent(&complete(&mut requests, &asked, &[]));
    let again = sent(&respond(
        &mut requests,
        &group,
        ResponseCode::InvalidRequest,
    ));
    let alone = sent(&complete(&mut requests, &again, &[]));
    let effects = respond(&mut requests, &alone, ResponseCode::InvalidRequest);
    assert_eq!(answered(&effects).1, Some(ResponseCode::InvalidRequest));
    assert_eq!(requests.credits, 512);
}

#[test]
fn page_that_is_taken_away_again_and_again_is_left_to_the_command() {
    let mut requests = requests(512);
    let mut asked = begin(&mut requests, &request(9, 0x5000, 1, Access::READ, false));
    for _ in 0..MAX_ROUNDS {
        let group = sent(&complete(&mut requests, &asked, &[]));
        asked = sent(&respond(&mut requests, &group, ResponseCode::Success));
    }
    let effects = complete(&mut requests, &asked, &[]);
    assert_eq!(answered(&effects), (9, Some(ResponseCode::Success), 0));
}

#[test]
fn pages_outstanding_never_exceed_the_allocation() {
    let mut requests = requests(40);
    let long = |tag| request(tag, u64::from(tag) << 21, 1 << 21, Access::WRITE, false);
    let groups: Vec<_> = (0..3)
        .map(|tag| {
            let asked = begin(&mut requests, &long(tag));
            complete(&mut requests, &asked, &[])
        })
        .collect();
    assert_eq!(range(&sent(&groups[0])).1, MAX_GROUP);
    assert_eq!(range(&sent(&groups[1])).1, 40 - MAX_GROUP);
    assert!(groups[2].is_empty());
    let mut effects = Vec::new();
    let first = sent(&groups[0]);
    assert!(requests.responded(first.tag.get(), PASID, ResponseCode::Success, &mut effects));
    match &effects[..] {
        [Effect::Send(again), Effect::Send(third)] => {
            assert_eq!(again.kind.get(), TRANSLATE);
            assert_eq!(
                (third.kind.get(), range(third).1),
                (PAGE_REQUEST, MAX_GROUP)
            );
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn neighbours_are_only_read_and_end_at_the_border_and_at_the_interrupt_range() {
    let mut requests = requests(512);
    let mut pages = |va, bytes, access, around| {
        range(&begin(
            &mut requests,
            &request(0, va, bytes, access, around),
        ))
        .1
    };
    assert_eq!(pages(0x1000, 1, Access::READ, true), AROUND);
    assert_eq!(pages(0x1000, 1, Access::WRITE, true), 1);
    assert_eq!(pages((2 << 20) - PAGE_SIZE, 99999, Access::READ, true), 1);
    assert_eq!(pages(0xfedf_f000, 1 << 20, Access::WRITE, true), 1);
    assert_eq!(pages(0xfef0_0000, 1, Access::READ, true), AROUND);
}

#[test]
fn addresses_that_no_iommu_translates_are_refused() {
    for va in [0xfee0_0000, 0xfeef_ffff, 1 << 47, u64::MAX >> 1, !0 << 48] {
        assert!(is_refused(va), "{va:#x}");
    }
    for va in [
        0,
        0xfedf_ffff,
        0xfef0_0000,
        (1 << 47) - 1,
        !0 << 47,
        u64::MAX,
    ] {
        assert!(!is_refused(va), "{va:#x}");
    }
}

#[test]
fn what_belongs_to_another_opening_changes_nothing() {
    let mut requests = requests(512);
    let asked = begin(&mut requests, &request(9, 0x5000, 1, Access::READ, false));
    let other = Pasid {
        opening: 4,
        ..PASID
    };
    let mut effects = Vec::new();
    let tag = asked.tag.get();
    assert!(!requests.completed(tag, other, Vec::new(), &mut effects));
    assert!(!requests.completed(tag ^ 1 << 9, PASID, Vec::new(), &mut effects));
    assert!(!requests.responded(tag % 512, PASID, ResponseCode::Success, &mut effects));
    assert!(effects.is_empty());
}

#[test]
fn requests_of_what_is_gone_end_and_give_their_credits_back() {
    let mut requests = requests(1);
    for tag in 0..3 {
        let asked = begin(&mut requests, &request(tag, 0x5000, 1, Access::READ, false));
        if tag < 2 {
            complete(&mut requests, &asked, &[]);
        }
    }
    let mut effects = Vec::new();
    requests.end(|pasid| pasid == PASID, &mut effects);
    assert_eq!(effects.len(), 3);
    assert_eq!(requests.credits, 1);
    assert!(requests.starved.is_empty());
    assert_eq!(
        (0..SLOTS)
            .filter(|&n| requests.slots[n].work.is_some())
            .count(),
        0
    );
}
