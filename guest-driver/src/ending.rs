// SPDX-License-Identifier: GPL-2.0

//! Ending a context, in this order:
//!
//! 1. Requests of the context are not heard any more.
//! 2. The device closes it: its commands end, it has no translation cached and asks no more. What it asked and
//!    answered until then is taken out of the rings, and commands that were not answered end.
//! 3. Its mirror closes: nothing more is posted or invalidated for it.
//! 4. Its worker and the threads in which its requests wait end; a fault may take long (swap, a slow file
//!    system, one that the closing program itself serves).
//! 5. What its messages reached goes, the interval notifier with it, and its binding to the IOMMU: the device
//!    uses the PASID no more and waits for no page of it. At last its number is free again.
//!
//! Who closes the file does all that if the device answers soon and the worker is idle, so that the number is
//! free when `close(2)` returns. Otherwise an errand of the context's own goes on with it. Until it is done the
//! number is taken, so that there are never more of them than the device has contexts.
//!
//! An opening that was killed while the device had not answered is ended by the same errand.

use crate::{
    call::{Call, Pending},
    context_table::{ContextId, Entry},
    faults,
    kapi::{
        sva::Binding,
        work::{Errand, Job},
    },
    lifetime::Guard,
    link::{Link, Patience},
};
use kernel::{prelude::*, sync::Arc};

/// How long who closes a file waits for the device: far above what an answer takes.
const CLOSE_PATIENCE_MS: u32 = 1_000;

/// What ending a context needs, taken before it is opened.
pub(crate) struct Means {
    errand: Pin<KBox<Errand<Rest>>>,
    closing: Call,
}

impl Means {
    /// # Errors
    ///
    /// `ENOMEM`: no memory.
    pub(crate) fn new() -> Result<Self> {
        Ok(Means {
            errand: Errand::new(GFP_KERNEL_ACCOUNT)?,
            closing: Link::closing()?,
        })
    }
}

/// What is left to do.
pub(crate) struct Rest {
    link: Arc<Link>,
    stage: Stage,
    // The driver does not leave the device before.
    _guard: Guard,
}

enum Stage {
    /// The device is opening the context of this number, with this binding.
    Opening(u32, Pending, Call, Option<Binding>),
    /// The device is closing it, unless it has.
    Closing(ContextId, Option<Pending>, Entry),
}

impl Job for Rest {
    fn run(self) {
        let link = &self.link;
        match self.stage {
            Stage::Opening(number, pending, closing, binding) => {
                let opened = link.opened(number, &link.finish(pending));
                if let Ok(pending) = opened.and_then(|id| link.begin_close(closing, id)) {
                    link.finish_close(pending);
                }
                drop(binding);
                link.contexts.release(number);
            }
            Stage::Closing(id, pending, entry) => {
                if let Some(pending) = pending {
                    link.finish_close(pending);
                }
                finish(link, id, entry);
            }
        }
    }
}

/// Ends an opening that nobody waits for any more.
pub(crate) fn abandon(
    link: &Arc<Link>,
    number: u32,
    opening: Pending,
    means: Means,
    binding: Option<Binding>,
    guard: Guard,
) {
    let rest = Rest {
        link: link.clone(),
        stage: Stage::Opening(number, opening, means.closing, binding),
        _guard: guard,
    };
    means.errand.send(rest, &link.endings);
}

/// Ends a context whose file is being closed.
pub(crate) fn end(link: &Arc<Link>, id: ContextId, means: Means, guard: Guard) {
    let Some(entry) = link.contexts.begin_close(id) else {
        return;
    };
    // What cannot be sent is not needed: the device is silent.
    let pending = link
        .begin_close(means.closing, id)
        .ok()
        .and_then(|pending| {
            let patience = Patience::Millis(CLOSE_PATIENCE_MS);
            match link.finish_by(pending, patience) {
                Ok(answer) => {
                    link.closed(&answer);
                    None
                }
                Err(pending) => Some(pending),
            }
        });
    if pending.is_none() && !faults::is_busy(&entry.faults) {
        finish(link, id, entry);
        return;
    }
    let rest = Rest {
        link: link.clone(),
        stage: Stage::Closing(id, pending, entry),
        _guard: guard,
    };
    means.errand.send(rest, &link.endings);
}

/// Undoes an opening of which nobody but the device knows.
pub(crate) fn undo(link: &Link, id: ContextId, means: Option<Means>) {
    if let Some(means) = means {
        if let Ok(pending) = link.begin_close(means.closing, id) {
            link.finish_close(pending);
        }
    }
    link.contexts.release(id.number);
}

/// Ends all contexts that are open, with `ENODEV` for whoever waits, before the driver leaves the device.
pub(crate) fn end_all(link: &Link) {
    for (id, entry) in link.contexts.open() {
        if link.contexts.begin_close(id).is_none() {
            continue;
        }
        // The reset that follows closes them too.
        let pending = Link::closing().and_then(|closing| link.begin_close(closing, id));
        if let Ok(pending) = pending {
            link.finish_close(pending);
        }
        finish(link, id, entry);
    }
}

/// Ends a context that the device has closed.
fn finish(link: &Link, id: ContextId, entry: Entry) {
    link.take_closed(&entry.commands);
    entry.faults.data().mirror().close();
    faults::stop(&entry.faults);
    drop(entry);
    drop(link.contexts.withdraw(id));
    link.contexts.release(id.number);
}
