// SPDX-License-Identifier: GPL-2.0

//! Character devices whose open files keep the module loaded, with poll.
//!
//! `kernel::miscdevice` sets no `owner`, so that a module could be unloaded under an open file.
//!
//! C header: [`include/linux/miscdevice.h`](srctree/include/linux/miscdevice.h)

use core::marker::PhantomData;
use kernel::{
    bindings, container_of,
    error::to_result,
    ffi::{c_int, c_long, c_uint, c_ulong, c_void},
    fs::File,
    mm::virt::VmaNew,
    prelude::*,
    seq_file::SeqFile,
    str::CString,
    sync::{poll::PollTable, Arc},
    types::{ForeignOwnable, Opaque},
};

/// What opening the device gives.
pub(crate) trait OpenFile: Send + Sync + Sized + 'static {
    /// The device opened.
    type Device: Send + Sync + 'static;

    /// A file is opened by the calling task.
    fn open(device: &Arc<Self::Device>) -> Result<Arc<Self>>;

    /// An ioctl; compatible structures are expected of 32-bit callers.
    fn ioctl(&self, cmd: u32, arg: usize) -> Result<isize>;

    /// Registers with `table` and returns the events that have happened, `POLL*`.
    fn poll(&self, file: &File, table: &PollTable<'_>) -> u32;

    /// Maps the file.
    fn mmap(&self, _vma: &VmaNew) -> Result {
        Err(ENODEV)
    }

    /// Tells about the file in `/proc/PID/fdinfo`.
    fn show(&self, _to: &SeqFile) {}

    /// The last reference of the file is gone.
    fn release(&self);
}

/// A registered character device; no file can be opened after it is dropped. Files that are open
/// stay usable.
#[pin_data(PinnedDrop)]
pub(crate) struct Registration<T: OpenFile> {
    #[pin]
    misc: Opaque<bindings::miscdevice>,
    name: CString,
    device: Arc<T::Device>,
    _file: PhantomData<T>,
}

// SAFETY: Registration is serialised by the misc core.
unsafe impl<T: OpenFile> Send for Registration<T> {}
// SAFETY: Nothing can be done through a shared reference.
unsafe impl<T: OpenFile> Sync for Registration<T> {}

impl<T: OpenFile> Registration<T> {
    const FOPS: bindings::file_operations = bindings::file_operations {
        owner: crate::THIS_MODULE.as_ptr(),
        open: Some(Self::open),
        release: Some(Self::release),
        unlocked_ioctl: Some(Self::ioctl),
        compat_ioctl: bindings::compat_ptr_ioctl,
        poll: Some(Self::poll),
        mmap: Some(Self::mmap),
        show_fdinfo: Some(Self::show_fdinfo),
        llseek: Some(bindings::noop_llseek),
        ..pin_init::zeroed()
    };

    /// Makes `/dev/<name>` with these permission bits.
    ///
    /// # Errors
    ///
    /// `ENOMEM`; what the misc core says, `EEXIST` where the name is taken.
    pub(crate) fn new(
        name: CString,
        mode: u16,
        device: Arc<T::Device>,
    ) -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            name,
            device,
            misc <- Opaque::try_ffi_init(|slot: *mut bindings::miscdevice| {
                let misc = bindings::miscdevice {
                    minor: bindings::MISC_DYNAMIC_MINOR as c_int,
                    name: crate::kapi::chardev::c_name(name),
                    fops: &Self::FOPS,
                    mode,
                    ..pin_init::zeroed()
                };
                // SAFETY: `slot` is valid for a write and stays where it is.
                unsafe { slot.write(misc) };
                // SAFETY: The structure and its name live until `drop`, the operations for ever.
                to_result(unsafe { bindings::misc_register(slot) })
            }),
            _file: PhantomData,
        })
    }

    unsafe extern "C" fn open(_inode: *mut bindings::inode, file: *mut bindings::file) -> c_int {
        // SAFETY: The misc core stores the `miscdevice` here before it calls, and holds the lock
        // that deregistration takes.
        let misc = unsafe { (*file).private_data };
        let misc: *mut Opaque<bindings::miscdevice> = misc.cast();
        // SAFETY: Only `new` registers these operations, for the `misc` of a `Self`.
        let this = unsafe { &*container_of!(misc, Self, misc) };
        match T::open(&this.device) {
            Ok(object) => {
                // SAFETY: `file` is being opened by this call alone.
                unsafe { (*file).private_data = object.into_foreign() };
                0
            }
            Err(error) => error.to_errno(),
        }
    }

    unsafe extern "C" fn release(_inode: *mut bindings::inode, file: *mut bindings::file) -> c_int {
        // SAFETY: `open` stored the `Arc`; the kernel calls once, last of all.
        let object = unsafe { <Arc<T> as ForeignOwnable>::from_foreign((*file).private_data) };
        object.release();
        0
    }

    unsafe extern "C" fn ioctl(file: *mut bindings::file, cmd: c_uint, arg: c_ulong) -> c_long {
        // SAFETY: `open` stored the `Arc`; `release` cannot come during the call.
        let object = unsafe { <Arc<T> as ForeignOwnable>::borrow(Self::data(file)) };
        match object.ioctl(cmd, arg) {
            Ok(value) => value as c_long,
            Err(error) => error.to_errno() as c_long,
        }
    }

    unsafe extern "C" fn poll(
        file: *mut bindings::file,
        table: *mut bindings::poll_table_struct,
    ) -> bindings::__poll_t {
        // SAFETY: As in `ioctl`.
        let object = unsafe { <Arc<T> as ForeignOwnable>::borrow(Self::data(file)) };
        // SAFETY: `file` and `table` are valid during the call; `file` is not being closed.
        let (file, table) = unsafe { (File::from_raw_file(file), PollTable::from_raw(table)) };
        object.poll(file, &table)
    }

    unsafe extern "C" fn mmap(
        file: *mut bindings::file,
        vma: *mut bindings::vm_area_struct,
    ) -> c_int {
        // SAFETY: As in `ioctl`.
        let object = unsafe { <Arc<T> as ForeignOwnable>::borrow(Self::data(file)) };
        // SAFETY: The kernel calls while it sets up `vma`.
        let vma = unsafe { VmaNew::from_raw(vma) };
        match object.mmap(vma) {
            Ok(()) => 0,
            Err(error) => error.to_errno(),
        }
    }

    unsafe extern "C" fn show_fdinfo(to: *mut bindings::seq_file, file: *mut bindings::file) {
        // SAFETY: As in `ioctl`.
        let object = unsafe { <Arc<T> as ForeignOwnable>::borrow(Self::data(file)) };
        // SAFETY: The kernel calls with a file that only this call writes to.
        object.show(unsafe { SeqFile::from_raw(to) });
    }

    /// # Safety
    ///
    /// `file` was opened by `Self::open`.
    unsafe fn data(file: *mut bindings::file) -> *mut c_void {
        // SAFETY: By the contract.
        unsafe { (*file).private_data }
    }
}

/// The C form of a name that its owner keeps.
fn c_name(name: &CString) -> *const kernel::ffi::c_char {
    name.as_ptr().cast()
}

#[pinned_drop]
impl<T: OpenFile> PinnedDrop for Registration<T> {
    fn drop(self: Pin<&mut Self>) {
        // SAFETY: Registered by `new`.
        unsafe { bindings::misc_deregister(self.misc.get()) }
    }
}
