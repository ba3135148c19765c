// SPDX-License-Identifier: GPL-2.0

//! Character devices whose open files keep the module loaded, with poll.
//!
//! `kernel::miscdevice` sets no `owner`, so that a module could be unloaded under an open file; and while a
//! misc device is being opened no other can be.
//!
//! C header: [`include/linux/cdev.h`](srctree/include/linux/cdev.h)

use crate::sys;
use core::{marker::PhantomData, ptr::NonNull};
use kernel::{
    bindings,
    error::{from_err_ptr, to_result},
    ffi::{c_int, c_long, c_uint, c_ulong, c_void},
    fs::File,
    mm::virt::VmaNew,
    prelude::*,
    seq_file::SeqFile,
    str::CStr,
    sync::{poll::PollTable, Arc},
    types::ForeignOwnable,
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

/// The class of the module's character devices, and their numbers; there is one while the module is loaded.
pub(crate) struct Class(());

impl Class {
    /// # Errors
    ///
    /// `ENOMEM`; what the driver core says.
    pub(crate) fn new() -> Result<Self> {
        // SAFETY: The module is being loaded, and so calls once.
        to_result(unsafe { sys::coax_chardev_init() }).map(|()| Class(()))
    }
}

impl Drop for Class {
    fn drop(&mut self) {
        // SAFETY: The counterpart of `new`; the owner drops it after all that registers devices.
        unsafe { sys::coax_chardev_exit() }
    }
}

/// A registered character device; no file can be opened after it is dropped. Files that are open
/// stay usable.
pub(crate) struct Registration<T: OpenFile> {
    raw: NonNull<sys::coax_chardev>,
    /// What files are opened on, as `raw` has it.
    device: *mut c_void,
    _file: PhantomData<fn() -> T>,
}

// SAFETY: The driver core serialises, and the device is `Send` and `Sync`.
unsafe impl<T: OpenFile> Send for Registration<T> {}
// SAFETY: Nothing can be done through a shared reference.
unsafe impl<T: OpenFile> Sync for Registration<T> {}

impl<T: OpenFile> Registration<T> {
    const FOPS: bindings::file_operations = bindings::file_operations {
        owner: &raw mut sys::__this_module,
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
    /// `ENOMEM`; what the driver core says, `EEXIST` where the name is taken.
    pub(crate) fn new(name: &CStr, mode: u16, device: Arc<T::Device>) -> Result<Self> {
        let device = device.into_foreign();
        // SAFETY: The operations live for ever; the name is copied. The device stays until it is taken back.
        let raw = unsafe { sys::coax_chardev_add(&Self::FOPS, name.as_ptr().cast(), mode, device) };
        let raw = from_err_ptr(raw).and_then(|raw| NonNull::new(raw).ok_or(ENOMEM));
        match raw {
            Ok(raw) => Ok(Registration {
                raw,
                device,
                _file: PhantomData,
            }),
            Err(error) => {
                // SAFETY: Made above; an opening that found it has its own reference.
                drop(unsafe { <Arc<T::Device> as ForeignOwnable>::from_foreign(device) });
                Err(error)
            }
        }
    }

    unsafe extern "C" fn open(inode: *mut bindings::inode, file: *mut bindings::file) -> c_int {
        // SAFETY: Only `new` registers these operations, so that `inode` is of a device of its.
        let device = unsafe { sys::coax_chardev_lock(inode) };
        // SAFETY: Until it is unlocked the registration's reference stays, if it is there.
        let device: Option<Arc<T::Device>> = (!device.is_null())
            .then(|| unsafe { <Arc<T::Device> as ForeignOwnable>::borrow(device) }.into());
        // SAFETY: Locked above.
        unsafe { sys::coax_chardev_unlock(inode) };
        match device.ok_or(ENODEV).and_then(|device| T::open(&device)) {
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

impl<T: OpenFile> Drop for Registration<T> {
    fn drop(&mut self) {
        // SAFETY: Registered by `new`; an opening that found the device has its own reference after this.
        unsafe { sys::coax_chardev_del(self.raw.as_ptr()) };
        // SAFETY: Made by `new`, and nobody borrows it any more.
        drop(unsafe { <Arc<T::Device> as ForeignOwnable>::from_foreign(self.device) });
    }
}
