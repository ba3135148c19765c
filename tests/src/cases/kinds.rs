// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Whatever way memory was come by, the device reaches it by the program's own pointer.

use std::fs::File;
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::sync::Mutex;

use anyhow::{ensure, Context as _, Result};
use coax::{Access, Context, Location};
use nix::sys::memfd::{memfd_create, MFdFlags};

use crate::case;
use crate::case::{CaseResult, Mode, Subject};
use crate::guest::device::{faulted, range_of, Device};
use crate::guest::memory::{Mapping, HUGE, PAGE, READ_ONLY, READ_WRITE};
use crate::guest::pattern::{self, same};

/// The cases of this file.
pub const SUBJECT: Subject = Subject {
    name: "kinds",
    cases: &[
        case!(stack, "local variables"),
        case!(initialised_data, "the program's .data"),
        case!(zeroed_data, "the program's .bss"),
        case!(
            program_text,
            "the program's constants, a read-only file mapping"
        ),
        case!(small_heap_blocks, "several malloc'ed blocks in one page"),
        case!(large_heap_block, "a malloc'ed block with pages of its own"),
        case!(shared_anonymous_memory, "MAP_SHARED | MAP_ANONYMOUS"),
        case!(
            memfd,
            "a memfd, with the file's other users seeing the writes"
        ),
        case!(
            shared_file_mapping,
            "MAP_SHARED of a file: used in place, nothing moves"
        ),
        case!(
            read_only_file_mapping_refuses_writes,
            "MAP_SHARED of a file without PROT_WRITE"
        ),
        case!(
            private_file_mapping_is_copied_on_write,
            "MAP_PRIVATE: the file stays as it is"
        ),
        case!(
            written_pages_of_a_private_file_mapping_move,
            "MAP_PRIVATE: those not written are the file's, and stay"
        )
        .modes(&Mode::MOVING),
        case!(huge_pages, "transparent huge pages"),
        case!(
            a_part_of_a_huge_page,
            "a device write to one page of a huge page"
        ),
    ],
};

const LEN: usize = 8 * PAGE;
const PATTERN: u64 = 0xa5a5_0f0f_3c3c_9669;

/// .data: not all zeros, and writable.
static INITIALISED: Mutex<[u8; 2 * PAGE]> = Mutex::new([0x5a; 2 * PAGE]);
/// .bss: all zeros.
static ZEROED: Mutex<[u8; 2 * PAGE]> = Mutex::new([0; 2 * PAGE]);
/// .rodata: pages of the program file.
static CONSTANT: [u8; 2 * PAGE] = [0xc3; 2 * PAGE];

/// Has the device read the bytes, overwrite them, and compares with the CPU's view.
fn reads_and_writes(bytes: &mut [u8]) -> Result<()> {
    let device = Device::open()?;
    let digest = Context::sha256(&device, bytes).context("Reading")?;
    ensure!(digest == pattern::sha256(bytes), "Wrong digest");
    Context::fill(&device, bytes, PATTERN).context("Writing")?;
    let expected: Vec<u8> = PATTERN
        .to_le_bytes()
        .into_iter()
        .cycle()
        .take(bytes.len())
        .collect();
    same("bytes", bytes, &expected)
}

fn stack() -> CaseResult {
    let mut bytes = [0x11u8; 3 * PAGE];
    reads_and_writes(&mut bytes)
}

fn initialised_data() -> CaseResult {
    let mut bytes = INITIALISED
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    reads_and_writes(&mut *bytes)
}

fn zeroed_data() -> CaseResult {
    let mut bytes = ZEROED
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    reads_and_writes(&mut *bytes)
}

fn program_text() -> CaseResult {
    let device = Device::open()?;
    let digest = Context::sha256(&device, &CONSTANT)?;
    ensure!(digest == pattern::sha256(&CONSTANT), "Wrong digest");
    Ok(())
}

fn small_heap_blocks() -> CaseResult {
    // Neighbours in the same pages must not be disturbed.
    let mut blocks: Vec<Vec<u8>> = (0..64u8).map(|number| vec![number; 200]).collect();
    for block in blocks.iter_mut().step_by(2) {
        reads_and_writes(block)?;
    }
    for (number, block) in (0..64u8).zip(&blocks).skip(1).step_by(2) {
        same("neighbour", block, &[number; 200])?;
    }
    Ok(())
}

fn large_heap_block() -> CaseResult {
    reads_and_writes(&mut pattern::bytes(21, (1 << 20) + 5))
}

fn shared_anonymous_memory() -> CaseResult {
    stays_in_place(&Mapping::shared(LEN)?)
}

fn memfd() -> CaseResult {
    let file = memfd_of(LEN)?;
    let memory = Mapping::file_shared(file.as_fd(), LEN, READ_WRITE)?;
    stays_in_place(&memory)?;
    let mut seen = vec![0; LEN];
    file.read_exact_at(&mut seen, 0)?;
    same("what the file's readers see", &seen, &memory.to_vec())
}

fn shared_file_mapping() -> CaseResult {
    let (file, _) = file_with_content()?;
    let memory = Mapping::file_shared(file.as_fd(), LEN, READ_WRITE)?;
    stays_in_place(&memory)?;
    let mut seen = vec![0; LEN];
    file.read_exact_at(&mut seen, 0)?;
    same("what the file's readers see", &seen, &memory.to_vec())
}

fn read_only_file_mapping_refuses_writes() -> CaseResult {
    let device = Device::open()?;
    let (file, content) = file_with_content()?;
    let memory = Mapping::file_shared(file.as_fd(), LEN, READ_ONLY)?;
    ensure!(
        device.digest(&memory)? == pattern::sha256(&content),
        "Wrong digest"
    );
    faulted(
        device.fill(&memory, 0..LEN, PATTERN),
        memory.address(),
        Access::Write,
    )?;
    same("file", &memory.to_vec(), &content)
}

fn private_file_mapping_is_copied_on_write() -> CaseResult {
    let device = Device::open()?;
    let (file, mut content) = file_with_content()?;
    let memory = Mapping::file_private(file.as_fd(), LEN)?;
    ensure!(
        device.digest(&memory)? == pattern::sha256(&content),
        "Wrong digest"
    );
    device.fill(&memory, PAGE..2 * PAGE, PATTERN)?;
    let mut seen = vec![0; LEN];
    file.read_exact_at(&mut seen, 0)?;
    same(
        "file after the device wrote to the mapping",
        &seen,
        &content,
    )?;
    content[PAGE..2 * PAGE].copy_from_slice(&PATTERN.to_le_bytes().repeat(PAGE / 8));
    same("mapping", &memory.to_vec(), &content)?;
    ensure!(
        device.digest(&memory)? == pattern::sha256(&content),
        "Wrong digest after the write"
    );
    Ok(())
}

fn written_pages_of_a_private_file_mapping_move() -> CaseResult {
    let device = Device::open()?;
    let (file, original) = file_with_content()?;
    let mut content = original.clone();
    let memory = Mapping::file_private(file.as_fd(), LEN)?;
    // Every page is mapped; those written are the program's own from then on.
    same("mapping", &memory.to_vec(), &content)?;
    let written = [1, 2, 5];
    for page in written {
        memory.store(page * PAGE + 8, PATTERN);
        content[page * PAGE + 8..][..8].copy_from_slice(&PATTERN.to_ne_bytes());
    }
    let migrated = device.prefetch(range_of(&memory))?;
    let expected = (written.len() as u64, memory.pages() - written.len() as u64);
    ensure!((migrated.moved, migrated.left) == expected, "{migrated:?}");
    let places = device.locate(range_of(&memory))?;
    for (page, place) in places.into_iter().enumerate() {
        let expected = match written.contains(&page) {
            true => Location::Device,
            false => Location::File,
        };
        ensure!(place == expected, "Page {page} is in {place:?}");
    }
    ensure!(
        device.digest(&memory)? == pattern::sha256(&content),
        "Wrong digest"
    );
    same("mapping", &memory.to_vec(), &content)?;
    let mut seen = vec![0; LEN];
    file.read_exact_at(&mut seen, 0)?;
    same("file", &seen, &original)
}

fn huge_pages() -> CaseResult {
    let device = Device::open()?;
    let memory = Mapping::huge(2 * HUGE)?;
    let content = pattern::bytes(22, 2 * HUGE);
    memory.write(0, &content);
    ensure!(
        device.digest(&memory)? == pattern::sha256(&content),
        "Wrong digest"
    );
    device.take(&memory)?;
    ensure!(
        device.digest(&memory)? == pattern::sha256(&content),
        "Wrong digest on the device"
    );
    same(
        "content after the CPU touched it",
        &memory.to_vec(),
        &content,
    )?;
    device.fill(&memory, 0..2 * HUGE, PATTERN)?;
    same(
        "what the device wrote",
        &memory.to_vec(),
        &PATTERN.to_le_bytes().repeat(HUGE / 4),
    )
}

fn a_part_of_a_huge_page() -> CaseResult {
    let device = Device::open()?;
    let memory = Mapping::huge(HUGE)?;
    let mut content = pattern::bytes(23, HUGE);
    memory.write(0, &content);
    let part = 100 * PAGE + 5..101 * PAGE + 700;
    device.fill(&memory, part.clone(), 0)?;
    content[part].fill(0);
    same("huge page", &memory.to_vec(), &content)
}

/// Has the device use the shared mapping, and demands that no page of it moved.
fn stays_in_place(memory: &Mapping) -> Result<()> {
    let device = Device::open()?;
    let content = pattern::bytes(24, memory.len());
    memory.write(0, &content);
    ensure!(
        device.digest(memory)? == pattern::sha256(&content),
        "Wrong digest"
    );
    device.fill(memory, 0..memory.len(), PATTERN)?;
    let pages = device.where_is(memory)?;
    ensure!(
        pages.file == memory.pages() && pages.device == 0,
        "{pages:?}"
    );
    same(
        "memory",
        &memory.to_vec(),
        &PATTERN.to_le_bytes().repeat(memory.len() / 8),
    )
}

/// A file of `LEN` bytes in the root file system, without a name.
fn file_with_content() -> Result<(File, Vec<u8>)> {
    let path = format!("/tmp/coax-test-{}", std::process::id());
    std::fs::create_dir_all("/tmp").context("/tmp")?;
    let mut file = File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .open(&path)
        .with_context(|| format!("Creating {path}"))?;
    std::fs::remove_file(&path).with_context(|| format!("Removing {path}"))?;
    let content = pattern::bytes(25, LEN);
    file.write_all(&content).context("Writing the file")?;
    Ok((file, content))
}

fn memfd_of(len: usize) -> Result<File> {
    let fd = memfd_create(c"coax-test", MFdFlags::MFD_CLOEXEC).context("memfd_create")?;
    let file = File::from(fd);
    file.set_len(len as u64).context("Size of the memfd")?;
    Ok(file)
}
