// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 OR BSD-3-Clause
//! Device ABI: configuration space and the messages of each virtqueue.
//!
//! What these mean, and what device and driver must do, is in `SPECIFICATION.md` beside this crate, whose
//! tables are made of what is written here.
//!
//! | queue | index | chain: readable → writable |
//! |---|---|---|
//! | control | 0 | [`ControlRequest`] → [`ControlReply`] (+ [`DeviceStats`] for [`CONTROL_STATS`]) |
//! | copy, for migrations | 1 | [`CopyHeader`], `count` × [`CopyEntry`] → [`CopyReply`] |
//! | translation | 2 | [`TranslationMessage`], `count` × [`TranslationEntry`] → nothing, or [`InvalidateReply`] for [`MSG_INVALIDATE`] |
//! | request | 3 | nothing → [`DeviceRequest`] |
//! | command, one an engine | 4 … 4 + `command_queues` − 1 | [`Command`] → [`CommandReply`] |

use zerocopy::little_endian::{U32, U64};
use zerocopy_derive::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Virtio device type: the last one that `virtio_pci_modern` takes (PCI device ID 0x1040 + 63).
pub const VIRTIO_ID_COAX: u32 = 63;
/// The type it has where the front end takes none without a name: one that has a name, "parameter server", and
/// no driver in Linux.
pub const VIRTIO_ID_BORROWED: u32 = 38;
/// `magic` of [`Config`]: "COAX" read as a little-endian integer.
pub const MAGIC: u32 = u32::from_le_bytes(*b"COAX");
/// `abi_version` of [`Config`].
pub const ABI_VERSION: u32 = 3;
/// Feature bit (VirtIO 1.3 §2.2): [`OP_FETCH_ADD`], [`OP_COMPARE_SWAP`] and [`ACCESS_ATOMIC`].
pub const F_ATOMIC: u32 = 0;
/// Feature bit: [`MSG_TRANSLATION_AHEAD`].
pub const F_TRANSLATION_AHEAD: u32 = 1;
/// Feature bit: [`CONTROL_CONTEXT_NOTIFY`] and [`NOTIFY_ACCESS`].
pub const F_ACCESS_NOTIFICATION: u32 = 2;
/// Identifier of the shared-memory region (VirtIO 1.3 §2.10) that is the device memory.
pub const SHM_DEVICE_MEMORY: u8 = 0;
/// Vendor and device number of the PCI function that has the device memory, in the same slot as the device,
/// where the device announces no such region: QEMU's `ivshmem-plain`.
pub const MEMORY_FUNCTION: (u16, u16) = (0x1af4, 0x1110);
/// The BAR of [`MEMORY_FUNCTION`] that is the device memory.
pub const MEMORY_FUNCTION_BAR: u8 = 2;

/// Queue indices.
pub const QUEUE_CONTROL: u16 = 0;
/// Page copies of the driver's migrations.
pub const QUEUE_COPY: u16 = 1;
/// Driver to device, in order: answers to requests, and invalidations.
pub const QUEUE_TRANSLATION: u16 = 2;
/// Device to driver: requests.
pub const QUEUE_REQUEST: u16 = 3;
/// First of the command queues.
pub const QUEUE_COMMAND: u16 = 4;
/// Queues of a device with the given number of command queues.
pub const fn queue_count(command_queues: u16) -> u16 {
    QUEUE_COMMAND + command_queues
}
/// Descriptors in each queue.
pub const QUEUE_SIZE: u16 = 256;

/// Most command queues that a device may announce.
pub const MAX_COMMAND_QUEUES: u16 = 16;
/// Page size of all page counts on the wire.
pub const PAGE_SIZE: u64 = 4096;
/// Most contexts that a device may announce: bounds the driver's and the device's tables.
pub const MAX_CONTEXTS: u32 = 4096;
/// Most pages named by one request or one entry: 2 MiB, one page-table page's worth.
pub const MAX_RANGE_PAGES: u32 = 512;
/// Most [`CopyEntry`] in one chain: one 2 MiB window in single pages.
pub const MAX_COPY_ENTRIES: u32 = 512;
/// Most [`TranslationEntry`] in one message: one 2 MiB window in single pages.
pub const MAX_TRANSLATION_ENTRIES: u32 = 512;
/// Most requests that may be outstanding (PCIe 6.0 §10.5, Outstanding Page Request Capacity); the
/// request queue must hold one buffer for each.
pub const MAX_PAGE_REQUESTS: u32 = 128;
/// Most accesses that [`CONTROL_CONTEXT_NOTIFY`] may ask for.
pub const MAX_ACCESS_THRESHOLD: u32 = 1 << 20;

/// `services` of [`Config`]: translations are asked of the driver through the virtqueues.
pub const SERVICE_VIRTQUEUE: u32 = 1 << 0;
/// `services` of [`Config`]: translations come from the IOMMU by PCIe ATS and PRI.
pub const SERVICE_PCIE: u32 = 1 << 1;

/// Virtio configuration space.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Config {
    /// [`MAGIC`].
    pub magic: U32,
    /// [`ABI_VERSION`].
    pub abi_version: U32,
    /// Contexts the device can hold, at most [`MAX_CONTEXTS`]: they are numbered from 0 on.
    pub max_contexts: U32,
    /// Command queues, each with an engine of its own, at most [`MAX_COMMAND_QUEUES`].
    pub command_queues: U32,
    /// Page requests the device can have outstanding, at most [`MAX_PAGE_REQUESTS`].
    pub page_request_capacity: U32,
    /// `SERVICE_*` bits offered.
    pub services: U32,
}

// --- Status codes ------------------------------------------------------------------------

/// Done.
pub const STATUS_OK: u32 = 0;
/// The message is malformed: wrong length, reserved bits set, count over its limit.
pub const STATUS_BAD_MESSAGE: u32 = 1;
/// The opcode is not known to the device.
pub const STATUS_UNKNOWN_OPCODE: u32 = 2;
/// No such context, one of another generation, or it is already open.
pub const STATUS_BAD_CONTEXT: u32 = 3;
/// An argument is out of range: sizes overflow, ranges overlap, a stride is too small.
pub const STATUS_BAD_ARGUMENT: u32 = 4;
/// The address in `fault_va` cannot be accessed as needed: Invalid Request was answered.
pub const STATUS_FAULT: u32 = 5;
/// The driver answered Response Failure for the address in `fault_va`.
pub const STATUS_RESPONSE_FAILURE: u32 = 6;
/// The context was closed or the device reset before the command was done.
pub const STATUS_ABORTED: u32 = 7;
/// A guest physical address is outside the memory the device knows.
pub const STATUS_BAD_GPA: u32 = 8;
/// A device table is full: try again when commands have completed.
pub const STATUS_BUSY: u32 = 9;
/// The structure in memory is not what the command needs: a list that does not end, a tree
/// deeper than the limit given.
pub const STATUS_BAD_DATA: u32 = 10;

// --- Control queue -----------------------------------------------------------------------

/// Tell the device where its memory lies: `arg0` = gpa, `arg1` = bytes. A driver begins with this.
pub const CONTROL_SET_DEVICE_MEMORY: u32 = 1;
/// Set the outstanding page request allocation: `arg0` = requests, 1 … capacity.
pub const CONTROL_SET_PAGE_REQUEST_ALLOCATION: u32 = 2;
/// Open `context`; `generation` is 0, and the reply's `value` is the generation of this opening.
/// `arg0` is 0, or [`SERVICE_PCIE`] if the IOMMU is to translate it by the PASID `arg1`: 1 … 2^20 - 1.
pub const CONTROL_CONTEXT_OPEN: u32 = 3;
/// Close `context` of `generation`.
pub const CONTROL_CONTEXT_CLOSE: u32 = 4;
/// Abort every command and drop every cached translation.
pub const CONTROL_RESET: u32 = 5;
/// Read the counters: the reply is followed by [`DeviceStats`].
pub const CONTROL_STATS: u32 = 6;
/// Have the device tell ([`NOTIFY_ACCESS`]) where commands of `context` of `generation` use pages of system memory:
/// `arg0` = accesses to an aligned 2 MiB after which it is told first, 1 … [`MAX_ACCESS_THRESHOLD`]; 0, as after
/// the opening: never.
pub const CONTROL_CONTEXT_NOTIFY: u32 = 7;

/// Readable part of a control chain.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct ControlRequest {
    /// `CONTROL_*`.
    pub opcode: U32,
    /// Context number, 0 where none is meant.
    pub context: U32,
    /// Its generation, 0 where no open context is meant.
    pub generation: U32,
    /// Zero.
    pub reserved: U32,
    /// First argument.
    pub arg0: U64,
    /// Second argument.
    pub arg1: U64,
}

/// Writable part of a control chain.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct ControlReply {
    /// `STATUS_*`.
    pub status: U32,
    /// What the request asks for, else 0.
    pub value: U32,
}

/// Counters of the device since it was started; they never go back.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct DeviceStats {
    /// Commands taken from the command queues.
    pub commands: U64,
    /// Commands answered with another status than [`STATUS_OK`].
    pub commands_failed: U64,
    /// Times a command was parked because a translation was missing.
    pub commands_parked: U64,
    /// Requests sent.
    pub translation_requests: U64,
    /// Requests that the pages as they stood did not answer, so that they became page requests.
    pub page_requests: U64,
    /// Page responses by code.
    pub responses_success: U64,
    /// Page responses: Invalid Request.
    pub responses_invalid: U64,
    /// Page responses: Response Failure.
    pub responses_failure: U64,
    /// Invalidate requests answered.
    pub invalidations: U64,
    /// ATC look-ups that found a translation.
    pub atc_hits: U64,
    /// ATC look-ups that found none.
    pub atc_misses: U64,
    /// ATC entries given up to stay within the cache's size.
    pub atc_evictions: U64,
    /// Bytes that commands read or wrote in system memory.
    pub system_bytes: U64,
    /// Bytes that commands read or wrote in device memory.
    pub device_bytes: U64,
    /// Bytes copied or cleared for migrations.
    pub copied_bytes: U64,
    /// Malformed chains, unknown opcodes, bad addresses: what the guest did wrong.
    pub guest_errors: U64,
    /// Nanoseconds from page request to the command's resumption, median of the last 1024.
    pub fault_median_ns: U64,
    /// Page requests put off because the allocation was used up.
    pub requests_deferred: U64,
    /// Nanoseconds that engines were at work on commands, the sum over all engines; waiting for
    /// translations is no work.
    pub engine_ns: U64,
}

// --- Copy queue --------------------------------------------------------------------------

/// Fill the destination with zeros, ignoring `src_gpa`.
pub const COPY_ZERO: u32 = 1 << 0;

/// Head of a copy chain.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct CopyHeader {
    /// Entries that follow, 1 … [`MAX_COPY_ENTRIES`].
    pub count: U32,
    /// Zero.
    pub reserved: U32,
}

/// One range to copy or clear.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct CopyEntry {
    /// Source.
    pub src_gpa: U64,
    /// Destination.
    pub dst_gpa: U64,
    /// Pages, 1 … [`MAX_RANGE_PAGES`].
    pub npages: U32,
    /// `COPY_*`.
    pub flags: U32,
}

/// Writable part of a copy chain.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct CopyReply {
    /// `STATUS_*`.
    pub status: U32,
    /// Entries done, in order; the first one not done is the one `status` speaks of.
    pub done: U32,
}

// --- Request queue -----------------------------------------------------------------------

/// Translate, and where the page or the right is missing make it so: an ATS Translation Request (PCIe 6.0
/// §10.2.2) and the PRI Page Request (§10.4.1) that would follow it, in one round trip. Answered once, by
/// [`MSG_TRANSLATION_COMPLETION`] or [`MSG_PAGE_RESPONSE`].
pub const REQUEST_PAGE: u32 = 2;
/// Answered by nothing: commands have used the pages of system memory in the 2 MiB from `va` on so often as the
/// driver wants to know. `npages` and `around` are [`MAX_RANGE_PAGES`], all else but the context is 0.
pub const NOTIFY_ACCESS: u32 = 3;

/// Read access is wanted or granted.
pub const ACCESS_READ: u32 = 1 << 0;
/// Write access is wanted or granted.
pub const ACCESS_WRITE: u32 = 1 << 1;
/// Atomic operations are wanted or granted, together with both other rights.
pub const ACCESS_ATOMIC: u32 = 1 << 3;

/// What the device asks of the driver, or tells it.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct DeviceRequest {
    /// `REQUEST_*`, `NOTIFY_*`.
    pub kind: U32,
    /// Context the address belongs to.
    pub context: U32,
    /// Generation of the context.
    pub generation: U32,
    /// Chosen by the device, to be given back as it is.
    pub tag: U32,
    /// First byte wanted, page-aligned.
    pub va: U64,
    /// Pages wanted, 1 … [`MAX_RANGE_PAGES`]; those after the first are a hint.
    pub npages: U32,
    /// Pages from `va` on of which a translation is welcome if it can be had as things stand, `npages` …
    /// [`MAX_RANGE_PAGES`].
    pub around: U32,
    /// `ACCESS_*`.
    pub flags: U32,
    /// Zero.
    pub reserved: U32,
}

// --- Translation queue -------------------------------------------------------------------

/// Answer to [`REQUEST_PAGE`]: nothing had to be done, the entries are what may be used as things stand.
pub const MSG_TRANSLATION_COMPLETION: u32 = 1;
/// Answer to [`REQUEST_PAGE`]: something had to be done for it, and `code` says with what success; entries,
/// if any, are translations to use at once.
pub const MSG_PAGE_RESPONSE: u32 = 2;
/// Drop what is cached of `va` … `va + npages`, wait for accesses in progress, then answer.
pub const MSG_INVALIDATE: u32 = 3;
/// Translations that nothing has asked for yet, of pages that the driver has moved for a command to
/// come. ATS has no such message; it saves a round trip.
pub const MSG_TRANSLATION_AHEAD: u32 = 5;

/// Response code Success (PCIe 6.0 §10.4.2.1).
pub const RESPONSE_SUCCESS: u32 = 0x0;
/// Response code Invalid Request: no such page, or no such right.
pub const RESPONSE_INVALID: u32 = 0x1;
/// Response code Response Failure: the driver could not handle it.
pub const RESPONSE_FAILURE: u32 = 0xf;

/// Head of a message on the translation queue.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct TranslationMessage {
    /// `MSG_*`.
    pub kind: U32,
    /// Context meant.
    pub context: U32,
    /// Generation of the context.
    pub generation: U32,
    /// Tag of the request answered, else 0.
    pub tag: U32,
    /// `RESPONSE_*` of a page response, else 0.
    pub code: U32,
    /// Entries that follow, at most [`MAX_TRANSLATION_ENTRIES`].
    pub count: U32,
    /// First byte to invalidate, page-aligned; 0 otherwise.
    pub va: U64,
    /// Pages to invalidate, any number; 0 otherwise.
    pub npages: U64,
}

/// `npages` pages from `va` on lie at `gpa` on.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct TranslationEntry {
    /// Virtual address, page-aligned.
    pub va: U64,
    /// Guest physical address, page-aligned.
    pub gpa: U64,
    /// Pages, 1 … [`MAX_RANGE_PAGES`].
    pub npages: U32,
    /// `ACCESS_*` granted.
    pub access: U32,
}

/// Writable part of an invalidation: the Invalidate Completion (PCIe 6.0 §10.3.2).
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct InvalidateReply {
    /// `STATUS_*`.
    pub status: U32,
    /// Zero.
    pub reserved: U32,
}

// --- Command queues ----------------------------------------------------------------------

/// Do nothing, successfully: the round trip itself.
pub const OP_NOP: u32 = 0;
/// Copy: `arg` = dst va, src va, bytes. Overlapping ranges are refused. Result = u64 times it was
/// parked because a translation of the source was missing, u64 the same of the destination.
pub const OP_COPY: u32 = 1;
/// Fill: `arg` = dst va, bytes, 64-bit pattern (stored little-endian, repeated from dst on).
pub const OP_FILL: u32 = 2;
/// SHA-256: `arg` = src va, bytes; `result[..32]` is the digest.
pub const OP_SHA256: u32 = 3;
/// Byte histogram: `arg` = src va, bytes, dst va of 256 × u64, which is overwritten.
pub const OP_HISTOGRAM: u32 = 4;
/// Sum over a linked list: `arg` = head va (0: empty), offset of the next pointer, offset of
/// the u64 value, most nodes to visit; result = u64 wrapping sum, u64 nodes.
pub const OP_LIST_SUM: u32 = 5;
/// Search in a binary search tree of u64 keys: `arg` = root va (0: empty), key, offset of the
/// key, offset of the left pointer, offset of the right pointer, deepest level to visit;
/// result = u64 va of the node or 0, u64 levels visited.
pub const OP_TREE_SEARCH: u32 = 6;
/// C = alpha·op(A)·op(B) + beta·C in f32: `arg` = m, n, k, a va, lda, b va, ldb, c va, ldc,
/// alpha, beta (bit patterns in the low bytes), `GEMM_*` flags. Column-major and in elements
/// of the BLAS contract unless [`GEMM_ROW_MAJOR`] is set.
pub const OP_SGEMM: u32 = 7;
/// As [`OP_SGEMM`] in f64.
pub const OP_DGEMM: u32 = 8;
/// Atomic FetchAdd (PCIe 6.0 §6.15): `arg` = va, bytes of a word (4 or 8), addend, words, distance
/// in bytes from one word to the next (0: the same word again and again). Each word is
/// little-endian and naturally aligned. Result = u64 the first word before, u64 words done.
pub const OP_FETCH_ADD: u32 = 9;
/// Atomic compare and swap (PCIe 6.0 §6.15): `arg` = va, bytes of the word (4 or 8), value
/// expected, new value; the word is little-endian and naturally aligned. Result = u64 the word
/// before; it was swapped if that is the value expected.
pub const OP_COMPARE_SWAP: u32 = 10;
/// Copy of rows, which moves a block of a matrix: `arg` = dst va, src va, bytes of a row, rows, bytes
/// from row to row of the destination, the same of the source. Rows of a range may not overlap, nor
/// may the two ranges from first to last row. Result as [`OP_COPY`].
pub const OP_COPY_ROWS: u32 = 11;

/// op(A) = Aᵀ.
pub const GEMM_TRANS_A: u64 = 1 << 0;
/// op(B) = Bᵀ.
pub const GEMM_TRANS_B: u64 = 1 << 1;
/// Matrices are row-major.
pub const GEMM_ROW_MAJOR: u64 = 1 << 2;

/// Arguments of a command.
pub const COMMAND_ARGS: usize = 12;
/// Bytes of result that come back in the reply.
pub const RESULT_BYTES: usize = 32;

/// Readable part of a command chain. Arguments that an opcode does not use are zero.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Command {
    /// `OP_*`.
    pub opcode: U32,
    /// Context whose addresses the arguments are.
    pub context: U32,
    /// Generation of the context.
    pub generation: U32,
    /// Zero.
    pub reserved: U32,
    /// Arguments as the opcode defines them.
    pub arg: [U64; COMMAND_ARGS],
}

/// Writable part of a command chain.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct CommandReply {
    /// `STATUS_*`.
    pub status: U32,
    /// `ACCESS_*` that was refused, with [`STATUS_FAULT`].
    pub fault_access: U32,
    /// Address refused, with [`STATUS_FAULT`] and [`STATUS_RESPONSE_FAILURE`].
    pub fault_va: U64,
    /// Bytes of the destination, or of the source where there is none, that are done.
    pub bytes_done: U64,
    /// Requests of this command that became page requests.
    pub page_requests: U64,
    /// Result as the opcode defines it.
    pub result: [u8; RESULT_BYTES],
}

const _: () = {
    assert!(size_of::<Config>() == 24);
    assert!(size_of::<ControlRequest>() == 32);
    assert!(size_of::<ControlReply>() == 8);
    assert!(size_of::<DeviceStats>() == 19 * 8);
    assert!(size_of::<CopyHeader>() == 8);
    assert!(size_of::<CopyEntry>() == 24);
    assert!(size_of::<CopyReply>() == 8);
    assert!(size_of::<DeviceRequest>() == 40);
    assert!(size_of::<TranslationMessage>() == 40);
    assert!(size_of::<TranslationEntry>() == 24);
    assert!(size_of::<InvalidateReply>() == 8);
    assert!(size_of::<Command>() == 112);
    assert!(size_of::<CommandReply>() == 64);
    assert!(MAX_PAGE_REQUESTS < QUEUE_SIZE as u32);
};
