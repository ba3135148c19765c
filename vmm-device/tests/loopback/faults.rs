// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Missing translations: what is asked, what each answer does.

use coax_abi::wire::*;
use coax_specification::covers;

use crate::commands::result_pair;
use crate::front_end::{linear, Guest, PAGES, VA};

const RW: u32 = ACCESS_READ | ACCESS_WRITE;

#[test]
fn resident_pages_are_translated_at_once() {
    covers!("coax.dev.27");
    let mut guest = Guest::new();
    guest.open(5);
    guest.write(PAGES, b"abc");
    guest.submit(0, 5, OP_SHA256, &[VA + 8, 5000]);
    let request = guest.request();
    assert_eq!(request.context, 5);
    assert_eq!(request.va, VA);
    // 5008 bytes from the page's start on.
    assert_eq!((request.npages.get(), request.around.get()), (2, 2));
    assert_eq!(request.flags, ACCESS_READ);
    guest.complete(&request, &[(VA, PAGES, 2, ACCESS_READ)]);
    let reply = guest.reply(0);
    assert_eq!(reply.status, STATUS_OK);
    assert_eq!(reply.page_requests, 0);
}

#[test]
fn translated_pages_are_not_asked_for_again() {
    covers!("coax.dev.36");
    let mut guest = Guest::new();
    guest.open(0);
    let reply = guest.run(0, OP_SHA256, &[VA, 4096], &linear);
    assert_eq!(reply.status, STATUS_OK);
    guest.submit(0, 0, OP_SHA256, &[VA + 1, 4000]);
    assert_eq!(guest.reply(0).status, STATUS_OK);
    assert!(guest.poll_request().is_none());
    let stats = guest.stats();
    assert_eq!(stats.translation_requests, 1);
    assert_eq!(stats.commands_parked, 1);
}

#[test]
fn page_that_had_to_be_made_counts_as_a_page_request() {
    covers!("coax.dev.60");
    let mut guest = Guest::new();
    guest.open(0);
    guest.submit(0, 0, OP_FILL, &[VA + 0x10, 0x3000, 7]);
    let request = guest.request();
    assert_eq!(request.flags, ACCESS_WRITE);
    assert_eq!((request.va.get(), request.npages.get()), (VA, 4));
    guest.respond(&request, RESPONSE_SUCCESS, &[(VA, PAGES, 4, RW)]);
    let reply = guest.reply(0);
    assert_eq!(reply.status, STATUS_OK);
    assert_eq!(reply.page_requests, 1);
    let stats = guest.stats();
    assert_eq!(stats.translation_requests, 1);
    assert_eq!(stats.page_requests, 1);
    assert_eq!(stats.responses_success, 1);
    assert_ne!(stats.fault_median_ns, 0);
}

#[test]
fn waiting_for_a_translation_is_no_work_of_an_engine() {
    let mut guest = Guest::new();
    guest.open(0);
    guest.submit(0, 0, OP_FILL, &[VA, 0x1000, 7]);
    let request = guest.request();
    // The first look at a page is work; it has been counted when the command is parked.
    let parked = guest.stats().engine_ns.get();
    assert_ne!(parked, 0);
    for _ in 0..10 {
        assert_eq!(guest.stats().engine_ns, parked);
    }
    guest.complete(&request, &[(VA, PAGES, 1, RW)]);
    assert_eq!(guest.reply(0).status, STATUS_OK);
    assert!(guest.stats().engine_ns.get() > parked);
}

#[test]
fn answers_without_the_first_page_make_the_device_ask_again() {
    covers!("coax.dev.37");
    let mut guest = Guest::new();
    guest.open(0);
    guest.submit(0, 0, OP_FILL, &[VA, 8, 7]);
    let request = guest.request();
    guest.complete(&request, &[]);
    let request = guest.request();
    guest.complete(&request, &[(VA, PAGES, 1, ACCESS_READ)]);
    let request = guest.request();
    guest.respond(&request, RESPONSE_SUCCESS, &[]);
    let request = guest.request();
    guest.complete(&request, &[(VA, PAGES, 1, RW)]);
    assert_eq!(guest.reply(0).status, STATUS_OK);
}

#[test]
fn success_that_never_leads_to_a_translation_ends_in_failure() {
    covers!("coax.dev.37");
    let mut guest = Guest::new();
    guest.open(0);
    guest.submit(0, 0, OP_FILL, &[VA + 3, 8, 7]);
    let reply = loop {
        if let Some(reply) = guest.poll_reply() {
            break reply;
        }
        match guest.poll_request() {
            Some(request) => guest.respond(&request, RESPONSE_SUCCESS, &[]),
            None => std::thread::yield_now(),
        }
    };
    assert_eq!(reply.status, STATUS_RESPONSE_FAILURE);
    assert_eq!(reply.fault_va, VA + 3);
    assert_eq!(reply.bytes_done, 0);
}

#[test]
fn refused_right_is_told_with_the_fault() {
    covers!("coax.dev.38");
    let mut guest = Guest::new();
    guest.open(0);
    guest.submit(0, 0, OP_FILL, &[VA, 8, 7]);
    let request = guest.request();
    guest.respond(&request, RESPONSE_INVALID, &[]);
    let reply = guest.reply(0);
    assert_eq!(reply.status, STATUS_FAULT);
    assert_eq!(reply.fault_va, VA);
    assert_eq!(reply.fault_access, ACCESS_WRITE);
    assert_eq!(guest.stats().responses_invalid, 1);
}

#[test]
fn invalid_request_reports_the_byte_and_keeps_what_was_done() {
    covers!("coax.dev.38", "coax.dev.59");
    let mut guest = Guest::new();
    guest.open(0);
    // Three pages are there, the fourth is not.
    let end = VA + 3 * PAGE_SIZE;
    let reply = guest.run(0, OP_FILL, &[VA + 100, 0x10_0000, u64::MAX], &|va| {
        linear(va).filter(|_| va < end)
    });
    assert_eq!(reply.status, STATUS_FAULT);
    assert_eq!(reply.fault_va, end);
    assert_eq!(reply.fault_access, ACCESS_WRITE);
    assert_eq!(reply.bytes_done, 3 * PAGE_SIZE - 100);
    let bytes = guest.read(PAGES, 4 * 4096);
    assert!(bytes[..100].iter().all(|&b| b == 0));
    assert!(bytes[100..3 * 4096].iter().all(|&b| b == 0xff));
    assert!(bytes[3 * 4096..].iter().all(|&b| b == 0));
}

#[test]
fn kernel_and_non_canonical_addresses_are_asked_for_as_any_other() {
    covers!("coax.dev.28");
    let mut guest = Guest::new();
    guest.open(0);
    for va in [
        0xffff_8880_0000_0123,
        0x0080_0000_0000_0123,
        0x123,
        u64::MAX - 1,
    ] {
        let reply = guest.run(0, OP_FILL, &[va, 1, 0], &linear);
        assert_eq!(reply.status, STATUS_FAULT);
        assert_eq!(reply.fault_va, va);
    }
}

#[test]
fn response_failure_stops_the_requests_of_the_context_until_reset() {
    covers!("coax.dev.40");
    let mut guest = Guest::new();
    guest.open(0);
    guest.open(1);
    let fill = |guest: &mut Guest, context| {
        guest.submit(0, context, OP_FILL, &[VA + 9, 8, 7]);
    };
    fill(&mut guest, 0);
    let request = guest.request();
    guest.respond(&request, RESPONSE_FAILURE, &[]);
    let reply = guest.reply(0);
    assert_eq!(reply.status, STATUS_RESPONSE_FAILURE);
    assert_eq!(reply.fault_va, VA + 9);
    assert_eq!(guest.stats().responses_failure, 1);
    // No request any more in this context, …
    fill(&mut guest, 0);
    assert_eq!(guest.reply(0).status, STATUS_RESPONSE_FAILURE);
    assert!(guest.poll_request().is_none());
    // … as before in another one, …
    fill(&mut guest, 1);
    let request = guest.request();
    guest.respond(&request, RESPONSE_INVALID, &[]);
    assert_eq!(guest.reply(0).status, STATUS_FAULT);
    // … and again after a reset.
    assert_eq!(guest.control(CONTROL_RESET, 0, 0, 0), STATUS_OK);
    fill(&mut guest, 0);
    let request = guest.request();
    guest.respond(&request, RESPONSE_INVALID, &[]);
    assert_eq!(guest.reply(0).status, STATUS_FAULT);
}

#[test]
fn response_failure_stops_the_context_though_its_command_has_ended() {
    covers!("coax.dev.40");
    let mut guest = Guest::new();
    guest.open(0);
    guest.submit(0, 0, OP_COPY, &[VA + 0x20_0000, VA, 100]);
    let [source, target] = [guest.request(), guest.request()];
    guest.respond(&target, RESPONSE_INVALID, &[]);
    assert_eq!(guest.reply(0).status, STATUS_FAULT);
    guest.respond(&source, RESPONSE_FAILURE, &[]);
    assert_eq!(guest.stats().responses_failure, 1);
    guest.submit(0, 0, OP_FILL, &[VA, 8, 7]);
    assert_eq!(guest.reply(0).status, STATUS_RESPONSE_FAILURE);
    assert!(guest.poll_request().is_none());
}

#[test]
fn response_failure_for_what_was_asked_before_a_reset_stops_nothing() {
    covers!("coax.dev.40");
    let mut guest = Guest::new();
    guest.open(0);
    guest.submit(0, 0, OP_FILL, &[VA, 8, 7]);
    let before = guest.request();
    assert_eq!(guest.control(CONTROL_RESET, 0, 0, 0), STATUS_OK);
    assert_eq!(guest.reply(0).status, STATUS_ABORTED);
    guest.respond(&before, RESPONSE_FAILURE, &[]);
    assert_eq!(guest.stats().responses_failure, 1);
    guest.submit(0, 0, OP_FILL, &[VA, 8, 7]);
    let request = guest.request();
    guest.serve(&request, &linear);
    assert_eq!(guest.serve_until_reply(&linear).status, STATUS_OK);
}

#[test]
fn copy_that_misses_twice_goes_on_when_both_are_answered() {
    covers!("coax.dev.29", "coax.dev.41");
    let mut guest = Guest::new();
    guest.open(0);
    let (dst, src) = (VA + 0x20_0000, VA);
    guest.submit(0, 0, OP_COPY, &[dst, src, 100]);
    let [first, second] = [guest.request(), guest.request()];
    assert_ne!(first.tag, second.tag);
    assert_eq!(first.flags, ACCESS_READ);
    assert_eq!(second.flags, ACCESS_WRITE);
    assert_eq!((first.va.get(), second.va.get()), (src, dst));
    guest.respond(&second, RESPONSE_SUCCESS, &[(dst, PAGES + 0x1000, 1, RW)]);
    assert!(guest.poll_reply().is_none());
    guest.complete(&first, &[(src, PAGES, 1, RW)]);
    let reply = guest.reply(0);
    assert_eq!(reply.status, STATUS_OK);
    assert_eq!(reply.page_requests, 1);
    assert_eq!(guest.stats().commands_parked, 1);
}

#[test]
fn copy_tells_how_often_it_was_parked_for_source_and_destination() {
    let mut guest = Guest::new();
    guest.open(0);
    let (dst, src) = (VA + 0x20_0000, VA);
    guest.submit(0, 0, OP_COPY, &[dst, src, 0x3000]);
    let [first, second] = [guest.request(), guest.request()];
    guest.complete(&first, &[(src, PAGES, 1, RW)]);
    guest.complete(&second, &[(dst, PAGES + 0x20_0000, 3, RW)]);
    let request = guest.request();
    assert_eq!(request.va, src + 0x1000);
    guest.complete(&request, &[(src + 0x1000, PAGES + 0x1000, 2, RW)]);
    let reply = guest.reply(0);
    assert_eq!(reply.status, STATUS_OK);
    assert_eq!(result_pair(&reply), (2, 1));
}

#[test]
fn refused_destination_is_told_from_the_source() {
    covers!("coax.dev.38");
    let mut guest = Guest::new();
    guest.open(0);
    let (dst, src) = (VA + 0x20_0000, VA);
    // The source is there, the destination is not.
    let reply = guest.run(0, OP_COPY, &[dst + 5, src, 100], &|va| {
        linear(va).filter(|_| va < dst)
    });
    assert_eq!(reply.status, STATUS_FAULT);
    assert_eq!(reply.fault_va, dst + 5);
    assert_eq!(reply.fault_access, ACCESS_WRITE);

    // The first refusal ends the command, whatever the other answer is.
    guest.submit(0, 0, OP_COPY, &[dst + 5, src + 0x1000, 100]);
    let [source, target] = [guest.request(), guest.request()];
    guest.respond(&target, RESPONSE_INVALID, &[]);
    let reply = guest.reply(0);
    assert_eq!(reply.status, STATUS_FAULT);
    assert_eq!(reply.fault_va, dst + 5);
    guest.respond(&source, RESPONSE_INVALID, &[]);
    assert_eq!(guest.stats().guest_errors, 0);
}

#[test]
fn translation_to_no_memory_ends_the_command() {
    covers!("coax.dev.43");
    let mut guest = Guest::new();
    guest.open(0);
    let reply = guest.run(0, OP_FILL, &[VA + 1, 8, 7], &|_| Some((1 << 45, RW)));
    assert_eq!(reply.status, STATUS_BAD_GPA);
    assert_eq!(reply.fault_va, VA + 1);
}

#[test]
fn translation_to_the_last_page_of_all_addresses_is_no_memory() {
    covers!("coax.dev.43");
    let mut guest = Guest::new();
    guest.open(0);
    let top = |va: u64| Some((0xffff_ffff_ffff_f000_u64.wrapping_add(va - VA), RW));
    let reply = guest.run(0, OP_FILL, &[VA, 2 * PAGE_SIZE, 7], &top);
    assert_eq!(reply.status, STATUS_BAD_GPA);
    assert_eq!(reply.fault_va, VA);
}

#[test]
fn parked_command_does_not_hold_up_others_of_its_engine() {
    covers!("coax.dev.61");
    let mut guest = Guest::new();
    guest.open(0);
    let parked = guest.submit(0, 0, OP_FILL, &[VA, 8, 7]);
    let request = guest.request();
    let other = guest.submit(0, 0, OP_NOP, &[]);
    assert_eq!(guest.reply_with_head(0).0, other);
    guest.complete(&request, &[(VA, PAGES, 1, RW)]);
    assert_eq!(guest.reply_with_head(0).0, parked);
}

#[test]
fn endless_command_does_not_hold_up_others_of_its_engine() {
    covers!("coax.dev.61");
    let mut guest = Guest::new();
    guest.open(0);
    guest.open(1);
    // A list of one node that is its own successor.
    guest.write(PAGES, &VA.to_le_bytes());
    guest.submit(0, 0, OP_LIST_SUM, &[VA, 0, 8, u64::MAX]);
    let request = guest.request();
    guest.complete(&request, &[(VA, PAGES, 1, RW)]);
    let other = guest.submit(0, 1, OP_NOP, &[]);
    assert_eq!(guest.reply_with_head(0).0, other);
    assert_eq!(guest.control(CONTROL_CONTEXT_CLOSE, 0, 0, 0), STATUS_OK);
    assert_eq!(guest.reply(0).status, STATUS_ABORTED);
}
