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

use super::{Parked, Pri, State};
use crate::atc::Translation;
use crate::context::ContextId;
use crate::engine::Step;
use crate::job::{Job, Verdict};
use crate::message::ResponseCode;
use crate::sync::lock;
use crate::tags::Answered;

impl Pri {
    /// Takes the answer to a request; false if there is no such request. `step` takes a step of
    /// a job.
    pub fn answer(
        &self,
        context: ContextId,
        tag: u32,
        code: Option<ResponseCode>,
        entries: &[Translation],
        step: impl FnOnce(&mut Job) -> Step,
    ) -> bool {
        let mut state = lock(&self.state);
        let answered = state.tags.answer(tag, context);
        if answered == Answered::Unknown {
            return false;
        }
        self.count(code);
        let Answered::Waiting((id, want)) = answered else {
            self.pump(&mut state);
            return true;
        };
        let fill = state.fill(id);
        drop(state);
        if let Some(fill) = fill {
            match code {
                None | Some(ResponseCode::Success) => {
                    self.stats.atc_evictions.add(fill.fill(entries));
                }
                Some(ResponseCode::InvalidRequest) => {}
                Some(ResponseCode::ResponseFailure) => fill.stop_requests(),
            }
        }

        let mut state = lock(&self.state);
        let mut contender = None;
        if let Some(parked) = state.parked.get_mut(&id) {
            parked.unanswered -= 1;
            if code.is_some() {
                parked.faulted = true;
                parked.job.page_requests += 1;
            }
            let va = want.miss.va;
            match code {
                Some(ResponseCode::ResponseFailure) => {
                    self.resume(&mut state, id, Verdict::Failure { va });
                }
                Some(ResponseCode::InvalidRequest) if !want.ahead => {
                    let access = want.miss.access;
                    self.resume(&mut state, id, Verdict::Fault { va, access });
                }
                _ if parked.unanswered == 0 => contender = self.retry(&mut state, id),
                _ => {}
            }
        }
        self.pump(&mut state);
        drop(state);
        if let Some(mut parked) = contender {
            let step = step(&mut parked.job);
            let asked_at = parked.fault_began();
            self.hand_back(parked.job, Verdict::Stepped(step), asked_at);
        }
        true
    }

    fn count(&self, code: Option<ResponseCode>) {
        let Some(code) = code else {
            return;
        };
        self.stats.page_requests.bump();
        match code {
            ResponseCode::Success => self.stats.responses_success.bump(),
            ResponseCode::InvalidRequest => self.stats.responses_invalid.bump(),
            ResponseCode::ResponseFailure => self.stats.responses_failure.bump(),
        }
    }

    /// Has a command take its step again. One that has lost its pages before is returned, and
    /// is to take the step at once.
    fn retry(&self, state: &mut State, id: u64) -> Option<Parked> {
        if state.parked.get(&id)?.job.fruitless > 0 {
            return state.parked.remove(&id);
        }
        self.resume(state, id, Verdict::Retry);
        None
    }
}
