// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a device does wrong when a command touches an address that stands for it.

/// A deviation from the specification.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Deviation {
    /// A request for no pages.
    NoPages,
    /// A request for more pages than a window has.
    TooManyPages,
    /// A request for more pages than are welcome.
    MoreThanAround,
    /// A request for an address within a page.
    InPage,
    /// A request of an unknown kind.
    UnknownKind,
    /// A request of a context that is not open.
    NotOpen,
    /// A request of the context's last opening but one.
    OldGeneration,
    /// Less than a request.
    ShortRequest,
    /// The next opening of a context is answered with no generation.
    NoGeneration,
    /// The next opening of a context is answered with nothing.
    NoAnswerToOpen,
    /// The next closing of a context is answered with nothing.
    NoAnswerToClose,
    /// The next closing of a context is refused.
    RefusedClose,
    /// The next copy is answered with nothing.
    NoAnswerToCopy,
    /// The next invalidation is answered with nothing.
    NoAnswerToInvalidate,
    /// The next invalidation is refused.
    RefusedInvalidate,
}

/// Where the first deviation's addresses begin; nothing else is mapped there.
const BASE: u64 = 0x2000_0000_0000;
/// From one deviation's addresses to the next one's.
const STEP: u64 = 2 << 20;

impl Deviation {
    /// All of them.
    pub const ALL: [Deviation; 15] = [
        Deviation::NoPages,
        Deviation::TooManyPages,
        Deviation::MoreThanAround,
        Deviation::InPage,
        Deviation::UnknownKind,
        Deviation::NotOpen,
        Deviation::OldGeneration,
        Deviation::ShortRequest,
        Deviation::NoGeneration,
        Deviation::NoAnswerToOpen,
        Deviation::NoAnswerToClose,
        Deviation::RefusedClose,
        Deviation::NoAnswerToCopy,
        Deviation::NoAnswerToInvalidate,
        Deviation::RefusedInvalidate,
    ];

    /// The address that stands for it.
    pub fn address(self) -> u64 {
        let index = Self::ALL.iter().position(|&other| other == self);
        BASE + index.unwrap_or_default() as u64 * STEP
    }

    /// What stands at this address.
    pub fn at(address: u64) -> Option<Self> {
        let offset = address.checked_sub(BASE)?;
        Self::ALL.get((offset / STEP) as usize).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_deviation_has_addresses_of_its_own() {
        for deviation in Deviation::ALL {
            assert_eq!(Deviation::at(deviation.address()), Some(deviation));
            assert_eq!(Deviation::at(deviation.address() + 0x1000), Some(deviation));
        }
        assert_eq!(Deviation::at(BASE - 1), None);
        assert_eq!(Deviation::at(BASE + STEP * 15), None);
    }
}
