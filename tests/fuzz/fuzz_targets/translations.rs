// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The translation cache against a map of pages.
#![no_main]

use std::collections::HashMap;
use std::sync::Arc;

use coax_abi::wire::PAGE_SIZE;
use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use vhost_device_coax::access::Access;
use vhost_device_coax::mmu::atc::{Atc, Page, Translation};

/// Pages in which the runs begin: a few leaves, so that runs meet.
const PAGES: u64 = 2048;
/// Most pages of a run, as the wire has it.
const RUN: u64 = 512;

#[derive(Arbitrary, Debug)]
enum Step {
    Fill {
        vpn: u16,
        npages: u16,
        gpa: u32,
        rights: u8,
    },
    Invalidate {
        vpn: u16,
        npages: u16,
    },
    InvalidateToTheEnd {
        vpn: u16,
    },
    Clear,
    Look {
        vpn: u16,
    },
}

fuzz_target!(|steps: Vec<Step>| {
    let mut atc = Atc::new(Arc::default());
    let mut model: HashMap<u64, Page> = HashMap::new();
    for step in steps {
        match step {
            Step::Fill {
                vpn,
                npages,
                gpa,
                rights,
            } => {
                let access = Access::from_bits(u64::from(rights));
                if access.is_empty() {
                    continue;
                }
                let vpn = u64::from(vpn) % PAGES;
                let npages = 1 + u64::from(npages) % RUN;
                let gpa = u64::from(gpa) * PAGE_SIZE;
                atc.fill(Translation {
                    vpn,
                    gpa,
                    npages,
                    access,
                });
                for n in 0..npages {
                    model.insert(
                        vpn + n,
                        Page {
                            gpa: gpa + n * PAGE_SIZE,
                            access,
                        },
                    );
                }
            }
            Step::Invalidate { vpn, npages } => {
                let vpn = u64::from(vpn) % PAGES;
                let end = vpn + u64::from(npages);
                atc.invalidate(vpn, u64::from(npages));
                model.retain(|page, _| !(vpn..end).contains(page));
            }
            Step::InvalidateToTheEnd { vpn } => {
                let vpn = u64::from(vpn) % PAGES;
                atc.invalidate(vpn, u64::MAX);
                model.retain(|page, _| *page < vpn);
            }
            Step::Clear => {
                atc.clear();
                model.clear();
            }
            Step::Look { vpn } => {
                let vpn = u64::from(vpn) % (PAGES + RUN);
                let found = atc.leaf(vpn).and_then(|leaf| leaf.page(vpn));
                // So few leaves are never given up, so both know the same.
                assert_eq!(found, model.get(&vpn).copied(), "page {vpn}");
            }
        }
    }
});
