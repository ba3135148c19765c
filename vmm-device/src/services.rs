// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Translation services: implementations of [`TranslationService`], and whose context is whose.
#![forbid(unsafe_code)]

pub mod pcie;
pub mod virtqueue;

use crate::resolve::service::TranslationService;
use crate::resolve::Request;
use pcie::Pcie;
use virtqueue::Requests;

/// The services of a device.
#[derive(Debug)]
pub struct Services {
    /// The driver, of all contexts but those of the others.
    pub virtqueue: Requests,
    /// The guest's IOMMU.
    pub pcie: Pcie,
}

impl TranslationService for Services {
    fn request(&self, request: &Request) -> bool {
        if self.pcie.has(request.context) {
            self.pcie.request(request)
        } else {
            self.virtqueue.request(request)
        }
    }

    fn flush(&self) {
        self.virtqueue.flush();
    }

    fn life(&self) -> u64 {
        self.virtqueue.life()
    }
}
