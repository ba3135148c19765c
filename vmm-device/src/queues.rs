// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What comes in through the control, copy and command queues.
#![forbid(unsafe_code)]

pub mod command;
pub mod control;
pub mod page_copy;
mod turn;
