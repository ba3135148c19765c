// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A vhost-user front end with guest memory. The driver's half of the device ABI is in [`driver`].
//!
//! The device runs in a thread of this process through the same `server` as in the program.

mod driver;

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
use zerocopy::FromBytes;

use crate::vring::{Vring, QUEUE_BYTES, SIZE};

/// Longest wait for anything that the device has to do; generous, for loaded machines.
pub const LIMIT: Duration = Duration::from_secs(20);

/// Engines of the test device.
pub const ENGINES: u16 = 2;
const QUEUES: usize = 6;
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
