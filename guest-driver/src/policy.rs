// SPDX-License-Identifier: GPL-2.0

//! When pages of a context move: its policy, and the advice for ranges of addresses that overrides it.
//!
//! Advice lies on mapped addresses only. It is given under the mmap lock for what is mapped then, and
//! goes in the notifier, with the mapping: before that returns nothing else can be mapped there, and so
//! no later advice be lost.
//!
//! The lock is a leaf, taken under the mmap lock and in the notifier. A look is short, and what it finds
//! holds as long as the mmap lock is held, but for other calls that give advice: a move under way may end
//! after such a call.

use crate::{
    range_map::{Entry, RangeMap},
    uapi,
};
use core::ops::Range;
use kernel::{new_spinlock, prelude::*, sync::SpinLock};

/// When pages move, and how many around one that the device touched.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rule {
    /// `POLICY_*`, but not of the context.
    pub(crate) policy: u32,
    /// A power of two.
    pub(crate) fault_around: u32,
}

/// What a program says of a range.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Advice {
    /// `POLICY_*`.
    pub(crate) policy: u32,
    /// A power of two, or 0 for that of the context.
    pub(crate) fault_around: u32,
}

impl Advice {
    /// That the range is to be treated as the context is.
    const NONE: Self = Advice {
        policy: uapi::POLICY_CONTEXT,
        fault_around: 0,
    };

    /// Whether it takes advice away.
    pub(crate) fn is_none(self) -> bool {
        self == Self::NONE
    }

    fn over(self, context: Rule) -> Rule {
        Rule {
            policy: match self.policy {
                uapi::POLICY_CONTEXT => context.policy,
                policy => policy,
            },
            fault_around: match self.fault_around {
                0 => context.fault_around,
                around => around,
            },
        }
    }
}

/// A rule, and the addresses around the one asked about for which the same advice, or none, makes it.
pub(crate) struct InForce {
    /// What holds.
    pub(crate) rule: Rule,
    /// Where.
    pub(crate) range: Range<u64>,
    /// Whether advice says so.
    pub(crate) advised: bool,
}

struct State {
    context: Rule,
    // None until there is advice: most contexts get none.
    advised: Option<RangeMap<KVVec<Entry<Advice>>>>,
}

/// The rules of one context.
#[pin_data]
pub(crate) struct Policies {
    #[pin]
    state: SpinLock<State>,
}

impl Policies {
    /// A rule for all addresses.
    pub(crate) fn new(context: Rule) -> impl PinInit<Self> {
        pin_init!(Self {
            state <- new_spinlock!(
                State {
                    context,
                    advised: None,
                },
                "coax_policies"
            ),
        })
    }

    /// The rule where there is no advice.
    pub(crate) fn context(&self) -> Rule {
        self.state.lock().context
    }

    /// Sets the rule where there is no advice; a `fault_around` of 0 leaves that as it is.
    pub(crate) fn set_context(&self, policy: u32, fault_around: u32) {
        let rule = &mut self.state.lock().context;
        rule.policy = policy;
        if fault_around != 0 {
            rule.fault_around = fault_around;
        }
    }

    /// Gives advice for `range`, instead of all that was given for parts of it.
    ///
    /// # Errors
    ///
    /// `ENOSPC`: more than [`uapi::MAX_ADVISED`] ranges. `ENOMEM`. All is as it was.
    pub(crate) fn advise(&self, range: Range<u64>, advice: Advice) -> Result {
        let value = (!advice.is_none()).then_some(advice);
        loop {
            if let Some(map) = &mut self.state.lock().advised {
                return map.set(range.start, range.end, value).map_err(|_| ENOSPC);
            }
            if value.is_none() {
                return Ok(());
            }
            let mut entries = KVVec::new();
            entries.resize(uapi::MAX_ADVISED, Entry::default(), GFP_KERNEL)?;
            let map = RangeMap::new(entries);
            let mut state = self.state.lock();
            let other = match &state.advised {
                // Another thread was faster; vfree() may sleep.
                Some(_) => Some(map),
                None => {
                    state.advised = Some(map);
                    None
                }
            };
            drop(state);
            drop(other);
        }
    }

    /// Takes back all advice for addresses that are unmapped. In a full table the advice in the middle of
    /// which they lie stays: to leave them out it would have to be split.
    pub(crate) fn forget(&self, start: u64, end: u64) {
        if let Some(map) = &mut self.state.lock().advised {
            let _ = map.set(start, end, None);
        }
    }

    /// What holds at an address.
    pub(crate) fn at(&self, address: u64) -> InForce {
        let state = self.state.lock();
        let (range, advice) = match &state.advised {
            Some(map) => map.at(address),
            None => (0..u64::MAX, None),
        };
        InForce {
            rule: advice.unwrap_or(Advice::NONE).over(state.context),
            range,
            advised: advice.is_some(),
        }
    }

    /// The parts of `range` with what holds in each, each found when it is asked for.
    pub(crate) fn parts(&self, range: Range<u64>) -> impl Iterator<Item = (Range<u64>, Rule)> + '_ {
        let mut at = range.start;
        core::iter::from_fn(move || {
            (at < range.end).then(|| {
                let found = self.at(at);
                let part = at..found.range.end.min(range.end);
                at = part.end;
                (part, found.rule)
            })
        })
    }

    /// Whether anything may move because the device touches it.
    pub(crate) fn any_on_fault(&self) -> bool {
        let on_fault = |policy| policy == uapi::POLICY_ON_FAULT;
        on_fault(self.context().policy) || self.advised().any(|(_, advice)| on_fault(advice.policy))
    }

    /// Ranges with advice.
    pub(crate) fn count(&self) -> usize {
        let state = self.state.lock();
        state.advised.as_ref().map_or(0, RangeMap::len)
    }

    /// The ranges with advice, each found when it is asked for.
    pub(crate) fn advised(&self) -> impl Iterator<Item = (Range<u64>, Advice)> + '_ {
        let mut at = 0;
        core::iter::from_fn(move || {
            let found = self.state.lock().advised.as_ref()?.next(at)?;
            at = found.end;
            Some((found.start..found.end, found.value))
        })
    }
}

/// Name of a policy where people read it.
pub(crate) fn name(policy: u32) -> &'static str {
    match policy {
        uapi::POLICY_ON_FAULT => "on_fault",
        uapi::POLICY_ON_REQUEST => "on_request",
        uapi::POLICY_NEVER => "never",
        _ => "context",
    }
}
