// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Answers of the driver, and what becomes of the commands that wait for them.
//!
//! Translations are filled with the state unlocked, so a command may be aborted in between;
//! its requests are then found to be nobody's.
#![forbid(unsafe_code)]

use coax_abi::wire::PAGE_SIZE;

use super::windows::Want;
use super::{Group, Pri, State};
use crate::atc::Translation;
use crate::context::Fill;
use crate::engine::Miss;
use crate::job::Verdict;
use crate::message::ResponseCode;
use crate::sync::lock;
use crate::tags::Answered;

impl Pri {
    /// Takes the answer to a translation request; false if there is no such request.
    pub fn complete(&self, context: u32, tag: u32, entries: &[Translation]) -> bool {
        let mut state = lock(&self.state);
        let (id, want) = match state.translations.answer(tag, context) {
            Answered::Waiting(asked) => asked,
            Answered::Orphan => return true,
            Answered::Unknown => return false,
        };
        let Some(fill) = state.fill(id) else {
            return true;
        };
        drop(state);
        self.fill(&fill, entries);
        let stopped = fill.requests_stopped();

        let mut state = lock(&self.state);
        if let Some(parked) = state.parked.get_mut(&id) {
            parked.unanswered = parked.unanswered.saturating_sub(1);
            if !grants(entries, &want.miss) {
                parked.lack(want);
            }
            if parked.unanswered == 0 {
                self.all_complete(&mut state, id, stopped);
            }
        }
        self.pump(&mut state);
        true
    }

    /// Goes on with a command whose translation requests are all answered.
    fn all_complete(&self, state: &mut State, id: u64, stopped: bool) {
        let lacking = match state.parked.get(&id) {
            Some(parked) => parked.lacking.first().copied(),
            None => return,
        };
        match lacking {
            None => self.resume(state, id, Verdict::Retry),
            Some(_) if !stopped => state.groups_due.push_back(id),
            Some(Want { ahead: true, .. }) => self.resume(state, id, Verdict::Retry),
            Some(Want { miss, .. }) => self.resume(state, id, Verdict::Failure { va: miss.va }),
        }
    }

    /// Takes translations for a part of a group that is not answered yet; false if there is no
    /// such group.
    pub fn part(&self, context: u32, tag: u32, entries: &[Translation]) -> bool {
        let state = lock(&self.state);
        let fill = match state.groups.peek(tag, context) {
            Answered::Waiting(group) => state.fill(group.parked),
            Answered::Orphan => return true,
            Answered::Unknown => return false,
        };
        drop(state);
        if let Some(fill) = fill {
            self.fill(&fill, entries);
        }
        true
    }

    /// Takes the answer to a page request group; false if there is no such group.
    pub fn respond(
        &self,
        context: u32,
        tag: u32,
        code: ResponseCode,
        entries: &[Translation],
    ) -> bool {
        match code {
            ResponseCode::Success => self.stats.responses_success.bump(),
            ResponseCode::InvalidRequest => self.stats.responses_invalid.bump(),
            ResponseCode::ResponseFailure => self.stats.responses_failure.bump(),
        }
        let mut state = lock(&self.state);
        let group = match state.groups.answer(tag, context) {
            Answered::Waiting(group) => group,
            Answered::Orphan => return true,
            Answered::Unknown => return false,
        };
        state.outstanding -= group.wants.len() as u32;
        let fill = state.fill(group.parked);
        drop(state);
        if let Some(fill) = fill {
            match code {
                ResponseCode::Success => self.fill(&fill, entries),
                ResponseCode::InvalidRequest => {}
                ResponseCode::ResponseFailure => fill.stop_requests(),
            }
        }

        let mut state = lock(&self.state);
        self.conclude(&mut state, group, code);
        self.pump(&mut state);
        true
    }

    fn conclude(&self, state: &mut State, group: Group, code: ResponseCode) {
        let id = group.parked;
        let Some(parked) = state.parked.get_mut(&id) else {
            return;
        };
        let Some(&first) = group.wants.first() else {
            return;
        };
        let verdict = match code {
            ResponseCode::Success => Verdict::Retry,
            ResponseCode::InvalidRequest if group.wants.len() > 1 => {
                parked.singly = true;
                parked.lacking.splice(..0, group.wants);
                Verdict::Retry
            }
            ResponseCode::InvalidRequest if first.ahead => {
                // The command cannot get further than to the address refused.
                parked.lacking.retain(|want| !first.precedes(want));
                Verdict::Retry
            }
            ResponseCode::InvalidRequest => Verdict::Fault {
                va: first.miss.va,
                access: first.miss.access,
            },
            ResponseCode::ResponseFailure => Verdict::Failure { va: first.miss.va },
        };
        if verdict == Verdict::Retry && !parked.lacking.is_empty() {
            state.groups_due.push_back(id);
        } else {
            self.resume(state, id, verdict);
        }
    }

    fn fill(&self, fill: &Fill, entries: &[Translation]) {
        self.stats.atc_evictions.add(fill.fill(entries));
    }
}

/// Whether the entries grant what a miss needs for its first page.
fn grants(entries: &[Translation], miss: &Miss) -> bool {
    let vpn = miss.va / PAGE_SIZE;
    entries.iter().any(|entry| {
        vpn.checked_sub(entry.vpn)
            .is_some_and(|offset| offset < entry.npages)
            && entry.access.contains(miss.access)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::Access;

    fn miss(va: u64) -> Miss {
        Miss {
            va,
            bytes: 1,
            access: Access::READ,
            around: false,
        }
    }

    #[test]
    fn grant_needs_the_first_page_and_the_right() {
        let entry = Translation {
            vpn: 4,
            gpa: 0,
            npages: 2,
            access: Access::READ,
        };
        assert!(grants(&[entry], &miss(0x5fff)));
        assert!(!grants(&[entry], &miss(0x6000)));
        assert!(!grants(&[entry], &miss(0x3fff)));
        let write = Miss {
            access: Access::WRITE,
            ..miss(0x4000)
        };
        assert!(!grants(&[entry], &write));
    }
}
