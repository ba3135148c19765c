// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A vhost-user front end with guest memory, and the driver's half of the device ABI.
//!
//! The device runs in a thread of this process through the same `server` as in the program.

use std::collections::HashMap;
use std::fs::File;
use std::io::Write as _;
use std::net::Shutdown;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use coax_abi::wire::{self, *};
use vhost::vhost_user::message::{VhostUserConfigFlags, VhostUserProtocolFeatures};
use vhost::vhost_user::{Frontend, VhostUserFrontend};
use vhost::{VhostBackend, VhostUserMemoryRegionInfo, VringConfigData};
use vhost_device_coax::device::Config;
use vhost_device_coax::server;
use vhost_device_coax::socket::Socket;
use vm_memory::{
    Bytes, FileOffset, GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion,
};
use zerocopy::{FromBytes, FromZeros, IntoBytes};

use crate::vring::{Vring, QUEUE_BYTES, SIZE};

/// Longest wait for anything that the device has to do; generous, for loaded machines.
pub const LIMIT: Duration = Duration::from_secs(20);

/// Engines of the test device.
pub const ENGINES: u16 = 2;
const QUEUES: usize = 6;
/// All rights.
const ATOMIC: u32 = ACCESS_READ | ACCESS_WRITE | ACCESS_ATOMIC;
/// Where pages for the tests begin, behind rings and buffers.
pub const PAGES: u64 = 32 << 20;
const RAM: usize = 96 << 20;
/// Where device memory lies.
pub const DEVICE_MEMORY: u64 = 4 << 30;
const DEVICE_MEMORY_BYTES: usize = 16 << 20;

/// Sizes of the test device.
pub const CONFIG: Config = Config {
    contexts: 64,
    engines: ENGINES,
    page_requests: 16,
};

/// A guest.
pub struct Guest {
    pub mem: GuestMemoryMmap,
    files: Vec<File>,
    pub front_end: Option<Frontend>,
    /// The front end's connection.
    pub connection: UnixStream,
    pub queues: Vec<Vring>,
    server: Option<JoinHandle<Result<(), server::Error>>>,
    stop: UnixStream,
    pub directory: tempfile::TempDir,
    /// Generation of the last opening of each context.
    generations: HashMap<u32, u32>,
    /// Request buffers that are not in the request queue.
    withheld: usize,
}

impl Guest {
    /// A guest whose driver has set up the queues and filled the request queue.
    pub fn new() -> Self {
        Self::with(CONFIG)
    }

    pub fn with(config: Config) -> Self {
        let mut guest = Self::cold(config);
        guest.start();
        guest.offer_request_buffers(usize::from(SIZE));
        guest
    }

    /// A guest whose device is connected but not set up.
    pub fn cold(config: Config) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let listener = Socket::listen(&path).unwrap();
        let (stop, other) = UnixStream::pair().unwrap();
        let server = std::thread::spawn(move || server::serve(config, listener, None, other));
        let ranges = [(0, RAM), (DEVICE_MEMORY, DEVICE_MEMORY_BYTES)];
        let files: Vec<File> = ranges
            .iter()
            .map(|&(_, len)| {
                let file = tempfile::tempfile_in("/dev/shm").unwrap();
                file.set_len(len as u64).unwrap();
                file
            })
            .collect();
        let mem = GuestMemoryMmap::from_ranges_with_files(ranges.iter().zip(&files).map(
            |(&(start, len), file)| {
                let file = FileOffset::new(file.try_clone().unwrap(), 0);
                (GuestAddress(start), len, Some(file))
            },
        ))
        .unwrap();
        let connection = UnixStream::connect(&path).unwrap();
        let front_end = Frontend::from_stream(connection.try_clone().unwrap(), QUEUES as u64);
        front_end.set_owner().unwrap();
        Self {
            mem,
            files,
            front_end: Some(front_end),
            connection,
            queues: Vec::new(),
            server: Some(server),
            stop,
            directory,
            generations: HashMap::new(),
            withheld: 0,
        }
    }

    fn front_end(&mut self) -> &mut Frontend {
        self.front_end.as_mut().unwrap()
    }

    /// Negotiates and starts all queues, as QEMU does when the driver is ready.
    pub fn start(&mut self) {
        self.negotiate();
        self.start_queues();
    }

    pub fn negotiate(&mut self) {
        self.negotiate_with(1 << F_ATOMIC | 1 << F_TRANSLATION_AHEAD | 1 << F_ACCESS_NOTIFICATION);
    }

    /// The same, with these of the device's own features.
    pub fn negotiate_with(&mut self, features: u64) {
        let offered = self.front_end().get_features().unwrap();
        let wanted = 1 << 32 | 1 << 29 | 1 << 28 | 1 << 30 | features;
        assert_eq!(offered & wanted, wanted);
        let protocol = self.front_end().get_protocol_features().unwrap();
        assert!(protocol.contains(VhostUserProtocolFeatures::CONFIG));
        self.front_end().set_protocol_features(protocol).unwrap();
        self.front_end().set_features(wanted).unwrap();
        assert_eq!(self.front_end().get_queue_num().unwrap(), QUEUES as u64);
        self.send_memory_table();
    }

    pub fn send_memory_table(&mut self) {
        self.send_memory_table_without(0..0);
    }

    /// Sends a memory table in which a range of guest memory, of whole pages, is missing, and waits
    /// until it is in use.
    pub fn send_memory_table_without(&mut self, hole: Range<u64>) {
        let mut regions = Vec::new();
        for (region, file) in self.mem.iter().zip(&self.files) {
            let (start, end) = (region.start_addr().0, region.start_addr().0 + region.len());
            let hole = hole.start.clamp(start, end)..hole.end.clamp(start, end);
            for (from, to) in [(start, hole.start), (hole.end, end)] {
                if from < to {
                    regions.push(VhostUserMemoryRegionInfo {
                        guest_phys_addr: from,
                        memory_size: to - from,
                        userspace_addr: user_address(from),
                        mmap_offset: from - start,
                        mmap_handle: file.as_raw_fd(),
                    });
                }
            }
        }
        self.front_end().set_mem_table(&regions).unwrap();
        self.front_end().get_features().unwrap();
    }

    /// Takes the memory of a queue away, or gives it back.
    pub fn hide_queue(&mut self, queue: u16, hidden: bool) {
        let base = self.queues[usize::from(queue)].desc_table();
        let bytes = if hidden { QUEUE_BYTES } else { 0 };
        self.send_memory_table_without(base..base + bytes);
    }

    /// Makes new queues and starts them.
    pub fn start_queues(&mut self) {
        self.queues = (0..QUEUES as u64)
            .map(|n| Vring::new(self.mem.clone(), n * QUEUE_BYTES))
            .collect();
        self.withheld = SIZE.into();
        self.resume_queues(&[0; QUEUES]);
    }

    /// Starts the queues where they were stopped.
    pub fn resume_queues(&mut self, bases: &[u16; QUEUES]) {
        for (n, &base) in bases.iter().enumerate() {
            self.resume_queue(n, base);
        }
        // None of these messages is answered. When a later one is, they have had their effect: until
        // then an engine finds its queue stopped, and a reset passes over what lies in it.
        self.front_end().get_features().unwrap();
    }

    /// Starts one queue where it was stopped.
    pub fn resume_queue(&mut self, n: usize, base: u16) {
        let front_end = self.front_end.as_mut().unwrap();
        let queue = &self.queues[n];
        front_end.set_vring_num(n, SIZE).unwrap();
        front_end.set_vring_base(n, base).unwrap();
        let config = VringConfigData {
            queue_max_size: SIZE,
            queue_size: SIZE,
            flags: 0,
            desc_table_addr: user_address(queue.desc_table()),
            used_ring_addr: user_address(queue.used()),
            avail_ring_addr: user_address(queue.avail()),
            log_addr: None,
        };
        front_end.set_vring_addr(n, &config).unwrap();
        front_end.set_vring_call(n, &queue.call).unwrap();
        front_end.set_vring_kick(n, &queue.kick).unwrap();
        front_end.set_vring_enable(n, true).unwrap();
    }

    /// Enables or disables one queue, to the end of what that means.
    pub fn enable_queue(&mut self, n: usize, enabled: bool) {
        self.front_end().set_vring_enable(n, enabled).unwrap();
        self.front_end().get_features().unwrap();
    }

    /// Stops one queue; tells where it stopped.
    pub fn stop_queue(&mut self, n: usize) -> u16 {
        self.front_end().get_vring_base(n).unwrap() as u16
    }

    /// Makes one queue anew, in the same place, and starts it from its beginning.
    pub fn renew_queue(&mut self, n: usize) {
        self.queues[n] = Vring::new(self.mem.clone(), n as u64 * QUEUE_BYTES);
        self.resume_queue(n, 0);
        self.front_end().get_features().unwrap();
    }

    /// Stops all queues, as QEMU does when the VM is paused; tells where they stopped.
    pub fn stop_queues(&mut self) -> [u16; QUEUES] {
        let front_end = self.front_end.as_mut().unwrap();
        std::array::from_fn(|n| front_end.get_vring_base(n).unwrap() as u16)
    }

    /// Resets the device, as QEMU does when the driver resets it.
    pub fn reset(&mut self) {
        self.front_end().reset_device().unwrap();
        self.stop_queues();
    }

    pub fn config_space(&mut self) -> wire::Config {
        let size = size_of::<wire::Config>();
        let (_, bytes) = self
            .front_end()
            .get_config(
                0,
                size as u32,
                VhostUserConfigFlags::WRITABLE,
                &vec![0; size],
            )
            .unwrap();
        wire::Config::read_from_bytes(&bytes).unwrap()
    }

    /// Puts more buffers into the request queue.
    pub fn offer_request_buffers(&mut self, count: usize) {
        assert!(count <= self.withheld);
        self.withheld -= count;
        for _ in 0..count {
            self.queues[usize::from(QUEUE_REQUEST)].add(&[], size_of::<DeviceRequest>() as u32);
        }
    }

    /// Waits until `queue` has a used chain.
    pub fn expect(&mut self, queue: u16) -> (u16, Vec<u8>) {
        let deadline = Instant::now() + LIMIT;
        let queue = &mut self.queues[usize::from(queue)];
        loop {
            if let Some(used) = queue.poll() {
                return used;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(queue.wait(left), "no used chain within {LIMIT:?}");
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

    /// Writes bytes to guest memory.
    pub fn write(&self, gpa: u64, bytes: &[u8]) {
        self.mem.write_slice(bytes, GuestAddress(gpa)).unwrap();
    }

    /// Reads bytes of guest memory.
    pub fn read(&self, gpa: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.mem.read_slice(&mut bytes, GuestAddress(gpa)).unwrap();
        bytes
    }

    /// Disconnects and returns how the server ended.
    pub fn disconnect(mut self) -> Result<(), server::Error> {
        self.connection.shutdown(Shutdown::Both).unwrap();
        self.wait_for_server()
    }

    /// Asks the server to stop, as a signal does.
    pub fn ask_to_stop(&mut self) {
        self.stop.write_all(&[0]).unwrap();
    }

    /// Waits for the server to end and returns how it did.
    pub fn wait_for_server(&mut self) -> Result<(), server::Error> {
        self.server.take().unwrap().join().unwrap()
    }

    /// Asks the server to stop and returns how it ended.
    pub fn stop_server(mut self) -> Result<(), server::Error> {
        self.ask_to_stop();
        self.wait_for_server()
    }
}

/// Address of guest memory in the front end's process, which the protocol uses for rings.
fn user_address(gpa: u64) -> u64 {
    gpa + (1 << 40)
}

/// Virtual addresses of tests lie far from all guest physical ones.
pub const VA: u64 = 0x7f00_0000_0000;

/// The page at the same distance from [`PAGES`] as the address from [`VA`], all rights.
pub fn linear(va: u64) -> Option<(u64, u32)> {
    let offset = va.checked_sub(VA)?;
    (offset < (32 << 20)).then_some((PAGES + offset, ACCESS_READ | ACCESS_WRITE))
}
