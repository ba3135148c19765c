// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The structures of `include/coax.h` that are the library's own, under their C names.
#![forbid(unsafe_code)]
#![allow(non_camel_case_types, reason = "they are the names of the C header")]

use coax_abi::wire::{COMMAND_ARGS, RESULT_BYTES};

/// A command.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct coax_command {
    /// `COAX_OP_*`.
    pub opcode: u32,
    /// Must be zero.
    pub reserved: u32,
    /// Arguments of the opcode.
    pub arg: [u64; COMMAND_ARGS],
}

/// How a command ended.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct coax_completion {
    /// `COAX_STATUS_*`.
    pub status: u32,
    /// `COAX_ACCESS_*` refused.
    pub fault_access: u32,
    /// Address refused.
    pub fault_va: u64,
    /// Bytes done.
    pub bytes_done: u64,
    /// Page requests waited for.
    pub page_requests: u64,
    /// Result of the opcode.
    pub result: [u8; RESULT_BYTES],
}

/// Layout of a list's nodes.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct coax_list_layout {
    /// Offset of the next pointer.
    pub next: u64,
    /// Offset of the value.
    pub value: u64,
    /// Most nodes to visit.
    pub max_nodes: u64,
}

/// What a list walk found.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct coax_list_result {
    /// Wrapping sum.
    pub sum: u64,
    /// Nodes visited.
    pub nodes: u64,
}

/// Layout of a tree's nodes.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct coax_tree_layout {
    /// Offset of the key.
    pub key: u64,
    /// Offset of the pointer to smaller keys.
    pub left: u64,
    /// Offset of the pointer to greater keys.
    pub right: u64,
    /// Deepest level to visit.
    pub max_depth: u64,
}

/// What a tree search found.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct coax_tree_result {
    /// Address of the node or 0.
    pub node: u64,
    /// Levels visited.
    pub levels: u64,
}

/// Shape of a matrix product.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct coax_gemm {
    /// Rows of C.
    pub m: u64,
    /// Columns of C.
    pub n: u64,
    /// Columns of op(A).
    pub k: u64,
    /// Leading dimension of A.
    pub lda: u64,
    /// Leading dimension of B.
    pub ldb: u64,
    /// Leading dimension of C.
    pub ldc: u64,
    /// `COAX_GEMM_*`.
    pub flags: u64,
}

/// What moving pages came to.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct coax_migrated {
    /// Pages moved.
    pub moved: u64,
    /// Pages that were there before.
    pub already: u64,
    /// Pages that stayed.
    pub left: u64,
}
