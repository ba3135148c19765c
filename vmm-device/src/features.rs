// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Features of the device type that the driver agreed to.
//!
//! What belongs to another is unknown to this driver, and so it is to the device: a command that asked for a right
//! which the driver does not know would wait for it for ever.
#![forbid(unsafe_code)]

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use coax_abi::wire::{
    CONTROL_CONTEXT_NOTIFY, F_ACCESS_NOTIFICATION, F_ATOMIC, F_TRANSLATION_AHEAD,
    MSG_TRANSLATION_AHEAD, OP_COMPARE_SWAP, OP_FETCH_ADD, STATUS_UNKNOWN_OPCODE,
};
use zerocopy::little_endian::U32;
use zerocopy::FromBytes;

/// Features that were agreed on; none at power-on.
#[derive(Debug, Default)]
pub struct Features(AtomicU64);

impl Features {
    /// The driver agrees to these bits, and to no others.
    pub fn agree(&self, bits: u64) {
        self.0.store(bits, Relaxed);
    }

    /// Refuses a command of a feature that was not agreed on.
    pub fn check_command<'b>(&self, bytes: &'b [u8]) -> Result<&'b [u8], u32> {
        self.check(bytes, &[OP_FETCH_ADD, OP_COMPARE_SWAP], F_ATOMIC)
    }

    /// Refuses a control request of a feature that was not agreed on.
    pub fn check_control<'b>(&self, bytes: &'b [u8]) -> Result<&'b [u8], u32> {
        self.check(bytes, &[CONTROL_CONTEXT_NOTIFY], F_ACCESS_NOTIFICATION)
    }

    /// Refuses a message of the translation queue of a feature that was not agreed on.
    pub fn check_translations<'b>(&self, bytes: &'b [u8]) -> Result<&'b [u8], u32> {
        self.check(bytes, &[MSG_TRANSLATION_AHEAD], F_TRANSLATION_AHEAD)
    }

    /// Messages begin with what they are.
    fn check<'b>(&self, bytes: &'b [u8], belong: &[u32], feature: u32) -> Result<&'b [u8], u32> {
        let agreed = self.0.load(Relaxed) & 1 << feature != 0;
        match U32::read_from_prefix(bytes) {
            Ok((kind, _)) if !agreed && belong.contains(&kind.get()) => Err(STATUS_UNKNOWN_OPCODE),
            _ => Ok(bytes),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_belongs_to_a_feature_is_known_while_that_is_agreed_on() {
        let features = Features::default();
        let (add, ahead) = (
            OP_FETCH_ADD.to_le_bytes(),
            MSG_TRANSLATION_AHEAD.to_le_bytes(),
        );
        assert_eq!(features.check_command(&add), Err(STATUS_UNKNOWN_OPCODE));
        assert_eq!(
            features.check_translations(&ahead),
            Err(STATUS_UNKNOWN_OPCODE)
        );
        assert_eq!(features.check_command(&[]), Ok(&[][..]));
        features.agree(1 << F_ATOMIC);
        assert_eq!(features.check_command(&add), Ok(&add[..]));
        assert_eq!(
            features.check_translations(&ahead),
            Err(STATUS_UNKNOWN_OPCODE)
        );
        features.agree(1 << F_TRANSLATION_AHEAD);
        assert_eq!(features.check_command(&add), Err(STATUS_UNKNOWN_OPCODE));
        assert_eq!(features.check_translations(&ahead), Ok(&ahead[..]));
        let notify = CONTROL_CONTEXT_NOTIFY.to_le_bytes();
        assert_eq!(features.check_control(&notify), Err(STATUS_UNKNOWN_OPCODE));
        features.agree(1 << F_ACCESS_NOTIFICATION);
        assert_eq!(features.check_control(&notify), Ok(&notify[..]));
    }
}
