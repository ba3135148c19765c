// SPDX-License-Identifier: GPL-2.0

//! A CPU touches a private page.
//!
//! Takes no lock of the driver but that of the pages and the queues', both leaves: a lock shared
//! with the device's faults would livelock with them (`Documentation/gpu/rfc/gpusvm.rst`).

use super::{homeward::depart_range, Cause, PAGE_SIZE, WINDOW_PAGES};
use crate::{
    kapi::{
        migrate::{Fault, PageArrays},
        page::LockedFolio,
        pagemap::FaultError,
    },
    memory::DeviceMemory,
};
use core::ops::Range;
use kernel::prelude::*;

/// Pages brought back around a CPU's fault on a small page: 64 KiB, enough that a pass over memory is
/// not one fault a page, little enough that a stray access does not take from the device what it uses.
const CPU_FAULT_AROUND: usize = 16;

/// Brings the page touched and its neighbours back: the folio it belongs to where that is mapped as
/// one, and the page alone where the same page is mapped more than once around it, so that it cannot
/// move with them.
pub(crate) fn on_cpu_fault(memory: &dyn DeviceMemory, fault: &Fault<'_>) -> Result<(), FaultError> {
    let vma = fault.vma();
    let page = fault.address() & !(PAGE_SIZE - 1);
    let pages = if fault.is_large() {
        WINDOW_PAGES
    } else {
        CPU_FAULT_AROUND
    };
    let block = pages * PAGE_SIZE;
    let start = page & !(block - 1);
    let around = start.max(vma.start())..(start + block).min(vma.end());
    if !bring_back(memory, fault, around, fault.is_large())? {
        // If it does not move now, something holds it for a moment, and the CPU faults again.
        bring_back(memory, fault, page..page + PAGE_SIZE, false)?;
    }
    Ok(())
}

/// Brings `window` back; returns whether the page touched moved.
fn bring_back(
    memory: &dyn DeviceMemory,
    fault: &Fault<'_>,
    window: Range<usize>,
    large: bool,
) -> Result<bool, FaultError> {
    let vma = fault.vma();
    let start = window.start;
    let at_fault = (fault.address() - start) / PAGE_SIZE;
    let mut fault_page_missing = false;
    let mut window = depart_range(
        memory,
        vma,
        window,
        (Some(fault), large),
        Cause::CpuFault,
        PageArrays::default(),
        |i, order| {
            let folio = LockedFolio::alloc(vma, start + i * PAGE_SIZE, order);
            fault_page_missing |= folio.is_none() && i == at_fault && order == 0;
            folio
        },
    )
    .map_err(|error| match error {
        error if error == ENOMEM => FaultError::NoMemory,
        _ => FaultError::Lost,
    })?;
    window.put_in_place();
    if fault_page_missing {
        return Err(FaultError::NoMemory);
    }
    Ok(window.migration.moved(at_fault))
}
