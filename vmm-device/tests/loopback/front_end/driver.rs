// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The driver's half of the device ABI.

use std::time::Instant;

use coax_abi::wire::*;
use zerocopy::{FromBytes, FromZeros, IntoBytes};

use super::{Guest, LIMIT};

/// All rights.
const ATOMIC: u32 = ACCESS_READ | ACCESS_WRITE | ACCESS_ATOMIC;

impl Guest {
    /// Puts more buffers into the request queue.
    pub fn offer_request_buffers(&mut self, count: usize) {
        assert!(count <= self.withheld);
        self.withheld -= count;
        for _ in 0..count {
            self.queues[usize::from(QUEUE_REQUEST)].add(&[], size_of::<DeviceRequest>() as u32);
        }
    }

    /// The next request of the device. Its buffer is given back.
    pub fn request(&mut self) -> DeviceRequest {
        let request = self.request_keeping_buffer();
        self.offer_request_buffers(1);
        request
    }

    /// The next request of the device. Its buffer is withheld.
    pub fn request_keeping_buffer(&mut self) -> DeviceRequest {
        let (_, bytes) = self.expect(QUEUE_REQUEST);
        self.withheld += 1;
        self.check_request(&bytes)
    }

    /// A request that is there already.
    pub fn poll_request(&mut self) -> Option<DeviceRequest> {
        let (_, bytes) = self.queues[usize::from(QUEUE_REQUEST)].poll()?;
        self.withheld += 1;
        self.offer_request_buffers(1);
        Some(self.check_request(&bytes))
    }

    /// What holds for every request.
    fn check_request(&self, bytes: &[u8]) -> DeviceRequest {
        let request = DeviceRequest::read_from_bytes(bytes).unwrap();
        assert_eq!(request.kind, REQUEST_PAGE);
        let (npages, around) = (request.npages.get(), request.around.get());
        assert!(1 <= npages && npages <= around && around <= MAX_RANGE_PAGES);
        assert_eq!(request.va.get() % PAGE_SIZE, 0);
        let in_window = request.va.get() / PAGE_SIZE % u64::from(MAX_RANGE_PAGES);
        assert!(in_window + u64::from(around) <= u64::from(MAX_RANGE_PAGES));
        let rights = [ACCESS_READ, ACCESS_WRITE, ATOMIC];
        assert!(rights.contains(&request.flags.get()));
        assert_eq!(request.reserved, 0);
        assert_eq!(request.generation, self.generation(request.context.get()));
        request
    }

    /// Generation of the last opening of a context, 0 if it was never opened.
    pub fn generation(&self, context: u32) -> u32 {
        self.generations.get(&context).copied().unwrap_or(0)
    }

    pub fn control(&mut self, opcode: u32, context: u32, arg0: u64, arg1: u64) -> u32 {
        let (status, _) = self.control_with(opcode, context, arg0, arg1, 8);
        status
    }

    pub fn control_with(
        &mut self,
        opcode: u32,
        context: u32,
        arg0: u64,
        arg1: u64,
        room: usize,
    ) -> (u32, Vec<u8>) {
        self.start_control(opcode, context, arg0, arg1, room);
        let (_, bytes) = self.expect(QUEUE_CONTROL);
        let (reply, rest) = ControlReply::read_from_prefix(&bytes).unwrap();
        if opcode == CONTROL_CONTEXT_OPEN && reply.status == STATUS_OK {
            let generation = reply.value.get();
            // Generations grow, as this device gives them out.
            assert!(self.generations.values().all(|&other| other < generation));
            self.generations.insert(context, generation);
        } else {
            assert_eq!(reply.value, 0);
        }
        (reply.status.get(), rest.to_vec())
    }

    /// Sends a control message without waiting for the answer.
    pub fn start_control(
        &mut self,
        opcode: u32,
        context: u32,
        arg0: u64,
        arg1: u64,
        room: usize,
    ) -> u16 {
        let generation = match opcode {
            CONTROL_CONTEXT_CLOSE | CONTROL_CONTEXT_NOTIFY => self.generation(context),
            _ => 0,
        };
        let message = ControlRequest {
            opcode: opcode.into(),
            context: context.into(),
            generation: generation.into(),
            reserved: 0.into(),
            arg0: arg0.into(),
            arg1: arg1.into(),
        };
        self.queues[usize::from(QUEUE_CONTROL)].add(message.as_bytes(), room as u32)
    }

    pub fn open(&mut self, context: u32) {
        assert_eq!(self.control(CONTROL_CONTEXT_OPEN, context, 0, 0), STATUS_OK);
    }

    pub fn stats(&mut self) -> DeviceStats {
        let room = size_of::<ControlReply>() + size_of::<DeviceStats>();
        let (status, rest) = self.control_with(CONTROL_STATS, 0, 0, 0, room);
        assert_eq!(status, STATUS_OK);
        DeviceStats::read_from_bytes(&rest).unwrap()
    }

    /// Sends a command to an engine without waiting for the answer.
    pub fn submit(&mut self, engine: u16, context: u32, opcode: u32, args: &[u64]) -> u16 {
        let mut arg = [0u64; COMMAND_ARGS];
        arg[..args.len()].copy_from_slice(args);
        let message = Command {
            opcode: opcode.into(),
            context: context.into(),
            generation: self.generation(context).into(),
            reserved: 0.into(),
            arg: arg.map(Into::into),
        };
        self.queues[usize::from(QUEUE_COMMAND + engine)]
            .add(message.as_bytes(), size_of::<CommandReply>() as u32)
    }

    /// The next command that an engine has answered.
    pub fn reply(&mut self, engine: u16) -> CommandReply {
        self.reply_with_head(engine).1
    }

    pub fn reply_with_head(&mut self, engine: u16) -> (u16, CommandReply) {
        let (head, bytes) = self.expect(QUEUE_COMMAND + engine);
        (head, CommandReply::read_from_bytes(&bytes).unwrap())
    }

    /// A command of the first engine that is answered already.
    pub fn poll_reply(&mut self) -> Option<CommandReply> {
        let (_, bytes) = self.queues[usize::from(QUEUE_COMMAND)].poll()?;
        Some(CommandReply::read_from_bytes(&bytes).unwrap())
    }

    /// Answers a request for which nothing had to be done, with runs of (va, gpa, pages, access).
    pub fn complete(&mut self, request: &DeviceRequest, runs: &[(u64, u64, u32, u32)]) {
        self.translations(MSG_TRANSLATION_COMPLETION, request, 0, runs);
    }

    /// Answers a request that became a page request.
    pub fn respond(&mut self, request: &DeviceRequest, code: u32, runs: &[(u64, u64, u32, u32)]) {
        self.translations(MSG_PAGE_RESPONSE, request, code, runs);
    }

    /// Gives translations that no request asked for.
    pub fn ahead(&mut self, context: u32, generation: u32, runs: &[(u64, u64, u32, u32)]) {
        let nothing: DeviceRequest = DeviceRequest::new_zeroed();
        let context = DeviceRequest {
            context: context.into(),
            generation: generation.into(),
            ..nothing
        };
        self.translations(MSG_TRANSLATION_AHEAD, &context, 0, runs);
    }

    fn translations(
        &mut self,
        kind: u32,
        request: &DeviceRequest,
        code: u32,
        runs: &[(u64, u64, u32, u32)],
    ) {
        let head = TranslationMessage {
            kind: kind.into(),
            context: request.context,
            generation: request.generation,
            tag: request.tag,
            code: code.into(),
            count: (runs.len() as u32).into(),
            va: 0.into(),
            npages: 0.into(),
        };
        let mut message = head.as_bytes().to_vec();
        for &(va, gpa, npages, access) in runs {
            let entry = TranslationEntry {
                va: va.into(),
                gpa: gpa.into(),
                npages: npages.into(),
                access: access.into(),
            };
            message.extend_from_slice(entry.as_bytes());
        }
        self.queues[usize::from(QUEUE_TRANSLATION)].add(&message, 0);
        let (_, written) = self.expect(QUEUE_TRANSLATION);
        assert!(written.is_empty());
    }

    /// Invalidates pages and waits for the answer.
    pub fn invalidate(&mut self, context: u32, va: u64, npages: u64) -> u32 {
        self.invalidate_in(context, self.generation(context), va, npages)
    }

    pub fn invalidate_in(&mut self, context: u32, generation: u32, va: u64, npages: u64) -> u32 {
        let message = TranslationMessage {
            kind: MSG_INVALIDATE.into(),
            context: context.into(),
            generation: generation.into(),
            tag: 0.into(),
            code: 0.into(),
            count: 0.into(),
            va: va.into(),
            npages: npages.into(),
        };
        self.queues[usize::from(QUEUE_TRANSLATION)].add(message.as_bytes(), 8);
        let (_, bytes) = self.expect(QUEUE_TRANSLATION);
        InvalidateReply::read_from_bytes(&bytes)
            .unwrap()
            .status
            .get()
    }

    /// Runs a command on the first engine; the driver answers each request by `translate`,
    /// which gives the page behind an address and the rights to it.
    pub fn run(
        &mut self,
        context: u32,
        opcode: u32,
        args: &[u64],
        translate: &dyn Fn(u64) -> Option<(u64, u32)>,
    ) -> CommandReply {
        self.submit(0, context, opcode, args);
        self.serve_until_reply(translate)
    }

    /// Answers requests by `translate` until the first engine answers a command.
    pub fn serve_until_reply(
        &mut self,
        translate: &dyn Fn(u64) -> Option<(u64, u32)>,
    ) -> CommandReply {
        let deadline = Instant::now() + LIMIT;
        loop {
            if let Some(reply) = self.poll_reply() {
                return reply;
            }
            match self.poll_request() {
                Some(request) => self.serve(&request, translate),
                None => std::thread::yield_now(),
            }
            assert!(Instant::now() < deadline, "no reply within {LIMIT:?}");
        }
    }

    /// Answers one request, page by page.
    pub fn serve(
        &mut self,
        request: &DeviceRequest,
        translate: &dyn Fn(u64) -> Option<(u64, u32)>,
    ) {
        let va = request.va.get();
        let wanted = request.flags.get();
        if translate(va).is_none_or(|(_, access)| access & wanted != wanted) {
            return self.respond(request, RESPONSE_INVALID, &[]);
        }
        let runs: Vec<_> = (0..u64::from(request.around.get()))
            .map(|n| va + n * PAGE_SIZE)
            .filter_map(|va| translate(va).map(|(gpa, access)| (va, gpa, 1, access)))
            .collect();
        self.complete(request, &runs);
    }
}
