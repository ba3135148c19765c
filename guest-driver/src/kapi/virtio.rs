// SPDX-License-Identifier: GPL-2.0

//! Virtio devices and drivers.
//!
//! C header: [`include/linux/virtio.h`](srctree/include/linux/virtio.h)

use crate::{kapi::virtqueue::RawQueue, sys};
use core::{marker::PhantomData, ptr::NonNull};
use kernel::{
    bindings,
    device::Device,
    error::to_result,
    ffi::{c_char, c_int},
    new_mutex,
    prelude::*,
    str::CStr,
    sync::{Arc, ArcBorrow, Mutex},
    types::{ForeignOwnable, Opaque},
};
use zerocopy::{FromBytes, IntoBytes};

/// Physical memory that a device has: its shared memory region (VirtIO 1.3 §2.10), or what stands for one.
#[derive(Clone, Copy)]
pub(crate) struct ShmRegion {
    start: u64,
    len: u64,
}

impl ShmRegion {
    pub(super) fn at(start: u64, len: u64) -> Self {
        Self { start, len }
    }

    /// Physical address.
    pub(crate) fn start(self) -> u64 {
        self.start
    }

    /// Bytes.
    pub(crate) fn len(self) -> u64 {
        self.len
    }
}

/// VIRTIO_F_ACCESS_PLATFORM (VirtIO 1.3 §6): the device's addresses are the platform's, as an IOMMU
/// translates them.
pub(crate) const ACCESS_PLATFORM: u32 = 33;

/// VIRTIO_F_INDIRECT_DESC (VirtIO 1.3 §6): a message takes one descriptor of the ring.
const RING_INDIRECT: u32 = 28;

/// A device on the virtio bus.
#[repr(transparent)]
pub(crate) struct VirtioDevice(Opaque<sys::virtio_device>);

impl VirtioDevice {
    /// # Safety
    ///
    /// `raw` is a device of the virtio bus that stays for `'a`.
    unsafe fn from_raw<'a>(raw: *mut sys::virtio_device) -> &'a Self {
        // SAFETY: By the contract; the type is a transparent wrapper.
        unsafe { &*raw.cast() }
    }

    pub(super) fn raw(&self) -> *mut sys::virtio_device {
        self.0.get()
    }

    /// The transport's device, for messages that name the PCI function.
    pub(crate) fn parent(&self) -> &Device {
        // SAFETY: A virtio device has a parent that outlives it.
        unsafe { Device::from_raw(sys::coax_virtio_parent(self.raw())) }
    }

    /// The memory node that firmware puts the transport's device in, if it does: as an initiator (ACPI's System
    /// Resource Affinity Table), or with its bus.
    pub(crate) fn node(&self) -> Option<u32> {
        // SAFETY: A virtio device has a parent.
        let node = unsafe { sys::coax_virtio_node(self.raw()) };
        u32::try_from(node).ok()
    }

    /// Device type (VirtIO 1.3 §5): one of [`Driver::IDS`].
    pub(crate) fn device_type(&self) -> u32 {
        // SAFETY: `self` is a device.
        unsafe { sys::coax_virtio_type(self.raw()) }
    }

    /// Reads the configuration space, made of 32-bit fields, from its start; zeros where there is none.
    pub(crate) fn read_config<T: FromBytes + IntoBytes>(&self) -> T {
        let mut value = T::new_zeroed();
        let bytes = value.as_mut_bytes();
        // SAFETY: `bytes` is valid for writes of its length.
        unsafe {
            sys::coax_virtio_read_config(
                self.raw(),
                0,
                bytes.as_mut_ptr().cast(),
                bytes.len() as u32,
            )
        };
        value
    }

    /// The shared memory region `id`, if the device has one.
    pub(crate) fn shm_region(&self, id: u8) -> Option<ShmRegion> {
        let (mut start, mut len) = (0, 0);
        // SAFETY: `start` and `len` are valid for writes.
        unsafe { sys::coax_virtio_get_shm(self.raw(), id, &mut start, &mut len) }
            .then_some(ShmRegion::at(start, len))
    }

    /// Sets up one virtqueue for each name; all report to [`Driver::interrupt`].
    ///
    /// # Errors
    ///
    /// `ENOMEM`; whatever the transport says, `ENOENT` where the device has fewer queues.
    pub(crate) fn find_queues<T: Driver>(&self, names: &[&'static CStr]) -> Result<KVec<RawQueue>> {
        let mut raw_names: KVec<*const c_char> = KVec::with_capacity(names.len(), GFP_KERNEL)?;
        for name in names {
            raw_names.push(name.as_ptr().cast(), GFP_KERNEL)?;
        }
        let mut raw: KVec<*mut sys::virtqueue> = KVec::new();
        raw.resize(names.len(), core::ptr::null_mut(), GFP_KERNEL)?;
        let mut queues = KVec::with_capacity(names.len(), GFP_KERNEL)?;
        // SAFETY:
        // - Both arrays have `names.len()` elements; the names live for ever.
        // - The callback is for devices of a `Registration<T>`, which is who calls this.
        to_result(unsafe {
            sys::coax_virtio_find_vqs(
                self.raw(),
                names.len() as u32,
                raw.as_mut_ptr(),
                raw_names.as_ptr(),
                Some(Registration::<T>::queue_callback),
            )
        })?;
        let descriptors = match self.has_feature(RING_INDIRECT) {
            true => 1,
            // One for each part.
            false => 2,
        };
        for vq in raw {
            let vq = NonNull::new(vq).ok_or(ENOENT)?;
            queues.push(RawQueue { vq, descriptors }, GFP_KERNEL)?;
        }
        Ok(queues)
    }

    /// Whether the feature `bit` was agreed on, or in [`Driver::validate`] is going to be. Those of the
    /// device type are [`Driver::FEATURES`].
    pub(crate) fn has_feature(&self, bit: u32) -> bool {
        // SAFETY: `self` is a device.
        unsafe { sys::coax_virtio_has_feature(self.raw(), bit) }
    }

    /// Whether a device that was started does not work any more: it has set DEVICE_NEEDS_RESET (VirtIO 1.3
    /// §2.1), or was reset. With the PCI transport, where this is one register read, callable from interrupts.
    pub(crate) fn needs_reset(&self) -> bool {
        // SAFETY: `self` is a device.
        unsafe { sys::coax_virtio_needs_reset(self.raw()) }
    }
}

/// Resets a device from wherever the driver finds that it has to; as long as the driver has the device.
#[pin_data]
pub(crate) struct Resetter {
    // None when the driver has given the device back.
    #[pin]
    device: Mutex<Option<NonNull<sys::virtio_device>>>,
}

// SAFETY: The pointer is used under the lock, and only while the driver has the device.
unsafe impl Send for Resetter {}
// SAFETY: As above.
unsafe impl Sync for Resetter {}

impl Resetter {
    /// # Safety
    ///
    /// The device stays until [`Self::retire`] is called.
    unsafe fn new(device: *mut sys::virtio_device) -> Result<Arc<Self>> {
        let device = NonNull::new(device);
        Arc::pin_init(
            pin_init!(Self { device <- new_mutex!(device, "coax_resetter") }),
            GFP_KERNEL,
        )
    }

    /// Resets the device, if the driver still has it. When this returns the device uses none of the driver's
    /// memory and no callback of it is running or will. Sleeps.
    pub(crate) fn reset(&self) {
        let device = self.device.lock();
        if let Some(device) = *device {
            // A function that is not there uses nothing, and never says that it is reset.
            // SAFETY: The driver has the device.
            if !unsafe { sys::coax_virtio_is_gone(device.as_ptr()) } {
                // SAFETY: As above.
                unsafe { sys::virtio_reset_device(device.as_ptr()) };
            }
            // SAFETY: As above.
            unsafe { sys::coax_virtio_synchronize_cbs(device.as_ptr()) };
        }
    }

    /// [`VirtioDevice::needs_reset`]; false when the driver has given the device back. Sleeps.
    pub(crate) fn needs_reset(&self) -> bool {
        let device = self.device.lock();
        // SAFETY: The driver has the device.
        device.is_some_and(|device| unsafe { sys::coax_virtio_needs_reset(device.as_ptr()) })
    }

    /// The driver gives the device back.
    fn retire(&self) {
        *self.device.lock() = None;
    }
}

/// A driver for one virtio device type.
pub(crate) trait Driver: Send + Sync + Sized + 'static {
    /// Name of the driver on the bus.
    const NAME: &'static CStr;
    /// Device types.
    const IDS: &'static [u32];
    /// Feature bits of the device type that the driver knows.
    const FEATURES: &'static [u32];

    /// Refuses a device for what it would agree on with it.
    ///
    /// # Errors
    ///
    /// Any, with which the probe fails.
    fn validate(device: &VirtioDevice) -> Result;

    /// Finds the queues and builds the driver's object; nothing may be sent to the device yet.
    fn probe(device: &VirtioDevice, resetter: Arc<Resetter>) -> Result<Arc<Self>>;

    /// The device is live: queues work, interrupts come. If this fails, [`Self::stop`] follows.
    fn start(this: ArcBorrow<'_, Self>, device: &VirtioDevice) -> Result;

    /// The device is about to go; queues still work. May sleep.
    fn stop(&self);

    /// The device is reset: takes all messages out of the queues and closes them.
    fn drain(&self);

    /// The system is about to suspend or to hibernate, after which the device has been reset; an error keeps
    /// it from it. Programs do not run.
    ///
    /// # Errors
    ///
    /// Any.
    fn freeze(&self) -> Result;

    /// What the driver resets the device with.
    fn resetter(&self) -> &Resetter;

    /// A queue has answered messages. Interrupt context.
    fn interrupt(&self, queue: u16);

    /// The configuration or the device's status has changed. Interrupt context.
    fn config_changed(&self, device: &VirtioDevice);
}

/// A registered driver; devices are taken from it when it is dropped.
#[pin_data(PinnedDrop)]
pub(crate) struct Registration<T: Driver> {
    #[pin]
    driver: Opaque<sys::virtio_driver>,
    // Terminated by an all-zero entry.
    ids: KVec<sys::virtio_device_id>,
    _driver: PhantomData<T>,
}

// SAFETY: Registration and removal are serialised by the driver core.
unsafe impl<T: Driver> Send for Registration<T> {}
// SAFETY: Nothing can be done through a shared reference.
unsafe impl<T: Driver> Sync for Registration<T> {}

/// `VIRTIO_DEV_ANY_ID` of `include/linux/mod_devicetable.h`.
const ANY_VENDOR: u32 = 0xffff_ffff;

impl<T: Driver> Registration<T> {
    /// Registers the driver.
    ///
    /// # Errors
    ///
    /// `ENOMEM`; what the driver core says.
    pub(crate) fn new(module: &'static ThisModule) -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            ids: Self::table()?,
            driver <- Opaque::try_ffi_init(|slot: *mut sys::virtio_driver| {
                let driver = sys::virtio_driver {
                    driver: bindings::device_driver {
                        name: T::NAME.as_ptr().cast(),
                        ..pin_init::zeroed()
                    },
                    id_table: ids.as_ptr(),
                    feature_table: T::FEATURES.as_ptr(),
                    feature_table_size: T::FEATURES.len() as u32,
                    validate: Some(Self::validate),
                    probe: Some(Self::probe),
                    remove: Some(Self::remove),
                    freeze: Some(Self::freeze),
                    reset_prepare: Some(Self::reset_prepare),
                    reset_done: Some(Self::reset_done),
                    config_changed: Some(Self::config_changed),
                    ..pin_init::zeroed()
                };
                // SAFETY: `slot` is valid for a write and stays where it is.
                unsafe { slot.write(driver) };
                // SAFETY: The driver structure, its name and its table live until `drop`.
                to_result(unsafe { sys::__register_virtio_driver(slot, module.as_ptr()) })
            }),
            _driver: PhantomData,
        })
    }

    fn table() -> Result<KVec<sys::virtio_device_id>> {
        let mut ids = KVec::with_capacity(T::IDS.len() + 1, GFP_KERNEL)?;
        for &device in T::IDS {
            let vendor = ANY_VENDOR;
            ids.push(sys::virtio_device_id { device, vendor }, GFP_KERNEL)?;
        }
        let (device, vendor) = (0, 0);
        ids.push(sys::virtio_device_id { device, vendor }, GFP_KERNEL)?;
        Ok(ids)
    }

    /// The driver's object of a device that `probe` took.
    ///
    /// # Safety
    ///
    /// `vdev` belongs to this driver.
    unsafe fn object<'a>(vdev: *mut sys::virtio_device) -> Option<ArcBorrow<'a, T>> {
        // SAFETY: By the contract.
        let data = unsafe { sys::coax_virtio_get_drvdata(vdev) };
        // SAFETY: `probe` stored an `Arc<T>`, `remove` takes it after the last callback.
        (!data.is_null()).then(|| unsafe { <Arc<T> as ForeignOwnable>::borrow(data) })
    }

    unsafe extern "C" fn validate(vdev: *mut sys::virtio_device) -> c_int {
        // SAFETY: The bus calls with a device that stays during the call.
        match T::validate(unsafe { VirtioDevice::from_raw(vdev) }) {
            Ok(()) => 0,
            Err(error) => error.to_errno(),
        }
    }

    unsafe extern "C" fn probe(vdev: *mut sys::virtio_device) -> c_int {
        // SAFETY: The bus calls with a device that stays during the call.
        let device = unsafe { VirtioDevice::from_raw(vdev) };
        // SAFETY: It is retired below, or in `release`, which end the device's time with the driver.
        let resetter = match unsafe { Resetter::new(vdev) } {
            Ok(resetter) => resetter,
            Err(error) => return error.to_errno(),
        };
        let object = match T::probe(device, resetter.clone()) {
            Ok(object) => object,
            Err(error) => {
                resetter.retire();
                // SAFETY: The device is this driver's. Queues stay enabled until a reset, and no later
                // probe would find them.
                unsafe { sys::virtio_reset_device(vdev) };
                // SAFETY: The device is not live; queues that were found go with this.
                unsafe { sys::coax_virtio_del_vqs(vdev) };
                return error.to_errno();
            }
        };
        // SAFETY: `vdev` is this driver's from here to `remove`.
        unsafe { sys::coax_virtio_set_drvdata(vdev, object.clone().into_foreign()) };
        // SAFETY: Queues are set up and callbacks have their object.
        unsafe { sys::coax_virtio_device_ready(vdev) };
        if let Err(error) = T::start(object.as_arc_borrow(), device) {
            object.stop();
            // SAFETY: The device was taken above.
            unsafe { Self::release(vdev, &object) };
            return error.to_errno();
        }
        0
    }

    unsafe extern "C" fn remove(vdev: *mut sys::virtio_device) {
        // SAFETY: `probe` took the device.
        if let Some(object) = unsafe { Self::object(vdev) } {
            let object: Arc<T> = object.into();
            object.stop();
            // SAFETY: As above.
            unsafe { Self::release(vdev, &object) };
        }
    }

    unsafe extern "C" fn freeze(vdev: *mut sys::virtio_device) -> c_int {
        // SAFETY: The bus calls for devices of this driver only.
        match unsafe { Self::object(vdev) }.map(|object| object.freeze()) {
            Some(Err(error)) => error.to_errno(),
            _ => 0,
        }
    }

    /// The transport is about to reset the device: the driver leaves it.
    unsafe extern "C" fn reset_prepare(vdev: *mut sys::virtio_device) -> c_int {
        // SAFETY: The bus calls for devices of this driver only.
        unsafe { Self::remove(vdev) };
        0
    }

    /// The transport has reset the device: the driver takes it anew.
    unsafe extern "C" fn reset_done(vdev: *mut sys::virtio_device) -> c_int {
        // SAFETY: The bus calls with a device that `reset_prepare` left, features agreed on.
        unsafe { Self::probe(vdev) }
    }

    unsafe extern "C" fn config_changed(vdev: *mut sys::virtio_device) {
        // SAFETY: The bus calls for devices of this driver only.
        if let Some(object) = unsafe { Self::object(vdev) } {
            // SAFETY: As above.
            object.config_changed(unsafe { VirtioDevice::from_raw(vdev) });
        }
    }

    /// Teardown in order: reset (no interrupt after it), drain, queues, object.
    ///
    /// # Safety
    ///
    /// `vdev` was taken by `probe`, and this is called once.
    unsafe fn release(vdev: *mut sys::virtio_device, object: &T) {
        let resetter = object.resetter();
        resetter.reset();
        object.drain();
        resetter.retire();
        // SAFETY: The device is this driver's; the object closed its queues.
        unsafe { sys::coax_virtio_del_vqs(vdev) };
        // SAFETY: As above.
        let data = unsafe { sys::coax_virtio_get_drvdata(vdev) };
        // SAFETY: As above.
        unsafe { sys::coax_virtio_set_drvdata(vdev, core::ptr::null_mut()) };
        // SAFETY: `probe` stored the `Arc`, and no callback can borrow it any more.
        drop(unsafe { <Arc<T> as ForeignOwnable>::from_foreign(data) });
    }

    pub(super) unsafe extern "C" fn queue_callback(vq: *mut sys::virtqueue) {
        // SAFETY: The transport calls with a virtqueue of a device of this driver.
        let (vdev, index) = unsafe { ((*vq).vdev, (*vq).index) };
        // SAFETY: As above.
        if let Some(object) = unsafe { Self::object(vdev) } {
            object.interrupt(index as u16);
        }
    }
}

#[pinned_drop]
impl<T: Driver> PinnedDrop for Registration<T> {
    fn drop(self: Pin<&mut Self>) {
        // SAFETY: Registered by `new`.
        unsafe { sys::unregister_virtio_driver(self.driver.get()) }
    }
}
