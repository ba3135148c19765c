// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Translation services: implementations of [`TranslationService`].
//!
//! [`TranslationService`]: crate::resolve::service::TranslationService
#![forbid(unsafe_code)]

pub mod virtqueue;
