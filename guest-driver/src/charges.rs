// SPDX-License-Identifier: GPL-2.0

//! Device memory that is charged to cgroups, and their limits.
//!
//! What is charged is counted by `users`, each of whose places is one group's; here is who charges it, as long as
//! the place has contexts, and what the kernel gave for it. A group whose limit is reached finds no room: the
//! device uses its pages where they are.
//!
//! Locks: `region` and `charging` are leaves that sleep, under which nothing is allocated or called; they are taken
//! with the mmap lock held for reading and a move's pages locked. None is held while something is charged, which
//! waits for the group's thread: that takes the kernel's locks for groups, and no others. `charged` is a leaf, taken
//! under that of the users with interrupts disabled, also in `folio_free`.
//!
//! Teardown: a [`Share`] goes with its mirror, as the mirror's notifier and worker do, whose ends sleep too: where a
//! file is closed, in the errand of `ending`, or where the device is taken out of service, with no lock of the
//! driver's. The last one of a place ends the group's thread, or a move that still has the thread charge does. The
//! region goes when nobody is inside the device any more, so that nobody charges, and the kernel's calls to give
//! back have returned; what is charged until then is given back by the pages that leave.

use crate::{
    kapi::{
        dmem::{Charged, Charger, Group, Limit, Reclaim, Region},
        irqlock::IrqSpinLock,
    },
    link::Link,
    new_irqlock,
    users::{Identity, MOST_USERS, UNIT},
    wire,
};
use kernel::{
    new_mutex,
    prelude::*,
    str::CStr,
    sync::{Arc, Mutex},
    task::Kuid,
};

const UNIT_BYTES: u64 = UNIT as u64 * wire::PAGE_SIZE;

/// Who has a place among the users.
#[derive(Clone, Copy, PartialEq)]
pub(crate) struct Account {
    user: Kuid,
    /// Whose limits hold; none for the root.
    group: Option<Group>,
}

impl Identity for Account {
    fn is_same_user(&self, other: &Self) -> bool {
        self.user == other.user
    }

    fn is_charged(&self) -> bool {
        self.group.is_some()
    }
}

/// Who charges what is one place's, for its contexts.
struct Charging {
    charger: Arc<Charger>,
    contexts: usize,
}

/// What of one device's memory is charged.
#[pin_data]
pub(crate) struct Charges {
    /// While the device is in service.
    #[pin]
    region: Mutex<Option<Arc<Region>>>,
    #[pin]
    charging: Mutex<KVec<Option<Charging>>>,
    #[pin]
    charged: IrqSpinLock<KVec<Charged>>,
}

impl Charges {
    /// None of anybody's.
    ///
    /// # Errors
    ///
    /// `ENOMEM`: no memory.
    pub(crate) fn new() -> Result<impl PinInit<Self>> {
        let mut charging = KVec::with_capacity(MOST_USERS, GFP_KERNEL)?;
        let mut charged = KVec::with_capacity(MOST_USERS, GFP_KERNEL)?;
        for _ in 0..MOST_USERS {
            charging.push(None, GFP_KERNEL)?;
            charged.push(Charged::NOTHING, GFP_KERNEL)?;
        }
        Ok(pin_init!(Self {
            region <- new_mutex!(None, "coax_dmem_region"),
            charging <- new_mutex!(charging, "coax_charging"),
            charged <- new_irqlock!(charged, "coax_charged"),
        }))
    }

    /// Limits hold from now on for `bytes` of memory, under the name `name`; `reclaim` gives back.
    ///
    /// # Errors
    ///
    /// `ENOMEM`: no memory.
    pub(crate) fn open(&self, bytes: u64, name: &CStr, reclaim: Arc<dyn Reclaim>) -> Result {
        let region = Region::new(bytes, name, reclaim)?;
        *self.region.lock() = match region {
            Some(region) => Some(Arc::new(region, GFP_KERNEL)?),
            None => None,
        };
        Ok(())
    }

    /// Whether limits hold.
    fn is_open(&self) -> bool {
        self.region.lock().is_some()
    }

    /// Nothing is charged any more; what is stays so until it is given back. Nobody may be reclaiming.
    pub(crate) fn close(&self) {
        let region = self.region.lock().take();
        drop(region);
    }

    /// Counts a context of the calling task in at its place.
    ///
    /// # Errors
    ///
    /// Those of [`Charger::new`].
    fn enter(&self, place: u16) -> Result {
        let of_others = || {
            let mut charging = self.charging.lock();
            let there = charging[place as usize].as_mut()?;
            there.contexts += 1;
            Some(())
        };
        if of_others().is_some() {
            return Ok(());
        }
        let charger = Arc::new(Charger::new()?, GFP_KERNEL)?;
        let mut charging = self.charging.lock();
        match &mut charging[place as usize] {
            Some(there) => there.contexts += 1,
            none => {
                *none = Some(Charging {
                    charger,
                    contexts: 1,
                })
            }
        }
        Ok(())
    }

    /// Counts a context out.
    fn leave(&self, place: u16) {
        let mut charging = self.charging.lock();
        let slot = &mut charging[place as usize];
        let last = slot.take_if(|there| {
            there.contexts -= 1;
            there.contexts == 0
        });
        drop(charging);
        // Ends a thread.
        drop(last);
    }

    /// Charges up to so many units more; returns how many.
    fn charge(&self, place: u16, units: usize) -> usize {
        let charger = {
            let charging = self.charging.lock();
            charging[place as usize]
                .as_ref()
                .map(|there| there.charger.clone())
        };
        let region = self.region.lock().clone();
        let (Some(charger), Some(region)) = (charger, region) else {
            return 0;
        };
        let more = charger.charge(&region, UNIT_BYTES, units as u32);
        let mut charged = self.charged.lock();
        let there = &mut charged[place as usize];
        let before = there.units();
        there.add(more);
        (there.units() - before) as usize
    }

    /// Gives units back; in any context.
    pub(crate) fn give_back(&self, place: u16, units: usize) {
        if units > 0 {
            self.charged.lock()[place as usize].give_back(units as u32);
        }
    }

    /// Whether what is charged at a place counts for `limit`.
    pub(crate) fn is_under(&self, place: u16, limit: &Limit) -> bool {
        self.charged.lock()[place as usize].is_under(limit)
    }
}

/// A context's part in the device memory of its user.
pub(crate) struct Share {
    place: u16,
    charged: bool,
    link: Arc<Link>,
}

impl Share {
    /// For a context that the caller, `user`, opens.
    ///
    /// # Errors
    ///
    /// `EMFILE`: what the caller's group has is to be charged, and too many groups have memory of the device. Those
    /// of [`Charger::new`].
    pub(crate) fn of_caller(user: Kuid, link: Arc<Link>) -> Result<Self> {
        let group = match link.charges.is_open() {
            true => Group::current(),
            false => None,
        };
        let account = Account { user, group };
        let charged = account.is_charged();
        let place = link.users.lock().enter(account).ok_or(EMFILE)?;
        if charged {
            if let Err(error) = link.charges.enter(place) {
                link.users.lock().leave(place);
                return Err(error);
            }
        }
        Ok(Share {
            place,
            charged,
            link,
        })
    }

    /// The place among the users.
    pub(crate) fn place(&self) -> u16 {
        self.place
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        if self.charged {
            self.link.charges.leave(self.place);
        }
        self.link.users.lock().leave(self.place);
    }
}

/// Reserves `pages` for a move of the user at `place`, charging what has to be; returns how many of them may be
/// taken. May sleep.
pub(crate) fn reserve(link: &Link, place: u16, pages: usize) -> usize {
    let missing = link.users.lock().reserve(place, pages);
    if missing == 0 {
        return pages;
    }
    let wanted = missing.div_ceil(UNIT);
    let units = link.charges.charge(place, wanted);
    let mut users = link.users.lock();
    users.charged(place, units, wanted);
    pages - users.reserve(place, missing)
}

/// Gives back what is charged beyond the pages there are, of those places of which `is_meant` says so; returns for
/// how many pages.
pub(crate) fn trim(link: &Link, is_meant: &dyn Fn(u16) -> bool) -> usize {
    let mut trimmed = 0;
    for place in (0..MOST_USERS as u16).filter(|place| is_meant(*place)) {
        let mut users = link.users.lock();
        let units = users.trim(place);
        link.charges.give_back(place, units);
        trimmed += units * UNIT;
    }
    trimmed
}

/// Ends the reservation of pages that were not taken.
pub(crate) fn release(link: &Link, place: u16, pages: usize) {
    let mut users = link.users.lock();
    let units = users.release(place, pages);
    link.charges.give_back(place, units);
}
