// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Answers of the driver, and what becomes of the commands that wait for them.
//!
//! Translations are filled with the state unlocked, so a command may be aborted in between;
//! its requests are then found to be nobody's.
//!
//! The driver's next message may take away again what an answer has brought, before the engine
//! has woken up. A command that has lost its pages so takes its next step here, on the thread
//! of the translation queue and thus before that message: who contends with CPUs for a page
//! gets something done each time that it is granted.
#![forbid(unsafe_code)]

use coax_abi::wire::PAGE_SIZE;

use super::windows::Want;
use super::{Group, Parked, Pri, State};
use crate::atc::Translation;
use crate::context::Fill;
use crate::engine::{Miss, Step};
use crate::job::{Job, Verdict};
use crate::message::ResponseCode;
use crate::sync::lock;
use crate::tags::Answered;

impl Pri {
    /// Takes the answer to a translation request; false if there is no such request. `step`
    /// takes a step of a job.
    pub fn complete(
        &self,
        context: u32,
        tag: u32,
        entries: &[Translation],
        step: impl FnOnce(&mut Job) -> Step,
    ) -> bool {
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
        let mut contender = None;
        if let Some(parked) = state.parked.get_mut(&id) {
            parked.unanswered = parked.unanswered.saturating_sub(1);
            if !grants(entries, &want.miss) {
                parked.lack(want);
            }
            if parked.unanswered == 0 {
                contender = self.all_complete(&mut state, id, stopped);
            }
        }
        self.pump(&mut state);
        drop(state);
        self.step_at_once(contender, step);
        true
    }

    /// Goes on with a command whose translation requests are all answered.
    fn all_complete(&self, state: &mut State, id: u64, stopped: bool) -> Option<Parked> {
        match state.parked.get(&id)?.lacking.first().copied() {
            None => return self.retry(state, id),
            Some(_) if !stopped => state.groups_due.push_back(id),
            Some(Want { ahead: true, .. }) => return self.retry(state, id),
            Some(Want { miss, .. }) => self.resume(state, id, Verdict::Failure { va: miss.va }),
        }
        None
    }

    /// Has a command take its step again. One that has lost its pages before is returned, and
    /// is to take the step at once.
    fn retry(&self, state: &mut State, id: u64) -> Option<Parked> {
        let parked = state.parked.remove(&id)?;
        if parked.job.fruitless > 0 {
            return Some(parked);
        }
        self.hand_back(parked.job, Verdict::Retry, parked.asked_at);
        None
    }

    fn step_at_once(&self, contender: Option<Parked>, step: impl FnOnce(&mut Job) -> Step) {
        if let Some(mut parked) = contender {
            let step = step(&mut parked.job);
            self.hand_back(parked.job, Verdict::Stepped(step), parked.asked_at);
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

    /// Takes the answer to a page request group; false if there is no such group. `step` takes
    /// a step of a job.
    pub fn respond(
        &self,
        context: u32,
        tag: u32,
        code: ResponseCode,
        entries: &[Translation],
        step: impl FnOnce(&mut Job) -> Step,
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
        let contender = self.conclude(&mut state, group, code);
        self.pump(&mut state);
        drop(state);
        self.step_at_once(contender, step);
        true
    }

    fn conclude(&self, state: &mut State, group: Group, code: ResponseCode) -> Option<Parked> {
        let id = group.parked;
        let parked = state.parked.get_mut(&id)?;
        let first = *group.wants.first()?;
        match code {
            ResponseCode::Success => {}
            ResponseCode::InvalidRequest if group.wants.len() > 1 => {
                parked.singly = true;
                parked.lacking.splice(..0, group.wants);
            }
            // The command cannot get further than to the address refused.
            ResponseCode::InvalidRequest if first.ahead => {
                parked.lacking.retain(|want| !first.precedes(want));
            }
            ResponseCode::InvalidRequest => {
                let verdict = Verdict::Fault {
                    va: first.miss.va,
                    access: first.miss.access,
                };
                self.resume(state, id, verdict);
                return None;
            }
            ResponseCode::ResponseFailure => {
                self.resume(state, id, Verdict::Failure { va: first.miss.va });
                return None;
            }
        }
        if parked.lacking.is_empty() {
            return self.retry(state, id);
        }
        state.groups_due.push_back(id);
        None
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
