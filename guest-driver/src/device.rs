// SPDX-License-Identifier: GPL-2.0

//! One accelerator: from the virtio device to its character device, and back.
//!
//! `lifetime` has the order of teardown. Files that are still open keep the object alive until they are closed;
//! the struct pages of the device memory go before, so that the device can be taken into service again.

mod config;

use crate::{
    charges,
    context::Context,
    ending,
    hmm::Dmirror,
    kapi::{
        chardev,
        dmem::{Limit, Reclaim},
        pci::MemoryFunction,
        sva::Binding,
        virtio::{Driver, Resetter, ShmRegion, VirtioDevice, ACCESS_PLATFORM},
        work::{Work, Worker},
    },
    lifetime::{Guard, Lifetime},
    link::{Features, Link},
    memory::{About, DeviceMemory},
    modes, new_worker, parameters, show, uapi, wire,
};
use core::ops::Deref;
use kernel::{
    c_str, debugfs, new_mutex,
    prelude::*,
    str::{CStr, CString},
    sync::{
        aref::ARef,
        atomic::{Atomic, Full, Relaxed},
        Arc, ArcBorrow, Mutex,
    },
};

/// Permission bits of `/dev/coaxN`: whoever may open it shares only their own memory.
const FOR_ALL: u16 = 0o666;
/// Permission bits of `/dev/hmm_dmirrorN`, which can take the memory of all back.
const FOR_ROOT: u16 = 0o600;

/// Steps after which it is told that the driver waits for callers to leave.
const TELL_AFTER: u32 = 10;

/// Names of the command queues, for `/proc/interrupts`.
const COMMAND_QUEUE_NAMES: [&CStr; config::MAX_COMMAND_QUEUES as usize] = [c"command"; 16];

/// Identifiers of commands go up by this from one context to the next, so that a late answer to a
/// command of an earlier context with the same number matches none.
const COMMAND_IDS_PER_CONTEXT: u64 = 1 << 40;

/// Numbers of the devices in service, one bit each; at most 64 have a `/dev/coaxN`.
static NUMBERS: Atomic<u64> = Atomic::new(0);

/// A device number, given back when dropped.
struct Number(u32);

impl Number {
    /// The lowest free number.
    fn take() -> Result<Self> {
        loop {
            let taken = NUMBERS.load(Relaxed);
            let free = taken.trailing_ones();
            if free == u64::BITS {
                return Err(ENOSPC);
            }
            if NUMBERS.cmpxchg(taken, taken | 1 << free, Full).is_ok() {
                return Ok(Number(free));
            }
        }
    }
}

impl Drop for Number {
    fn drop(&mut self) {
        let mut taken = NUMBERS.load(Relaxed);
        while let Err(now) = NUMBERS.cmpxchg(taken, taken & !(1 << self.0), Full) {
            taken = now;
        }
    }
}

/// A file that shows something of the queues and of who uses them.
type DebugFile = Pin<KBox<debugfs::File<Arc<Link>>>>;

/// What exists only while the device is in service. Fields are dropped in order: the number is
/// free when its names are.
#[derive(Default)]
struct Service {
    chardev: Option<chardev::Registration<Context>>,
    dmirror: Option<chardev::Registration<Dmirror>>,
    debugfs: Option<(debugfs::Dir, [DebugFile; 2])>,
    number: Option<Number>,
}

/// Shared by calls in progress.
type Memories = Arc<dyn DeviceMemory>;

/// An accelerator.
#[pin_data]
pub(crate) struct Device {
    /// Its queues.
    pub(crate) link: Arc<Link>,
    // Gone when the device is out of service and the last call that uses it has returned.
    #[pin]
    memory: Mutex<Option<Memories>>,
    /// What users are told of the memory mode.
    pub(crate) about: About,
    /// Contexts it can hold.
    pub(crate) max_contexts: u32,
    page_requests: u32,
    region: ShmRegion,
    // What the IOMMU knows, if the device can have it translate.
    translated: Option<ARef<kernel::device::Device>>,
    // Whether it was told that the driver translates although the IOMMU could be asked.
    fell_back: Atomic<bool>,
    // What has the memory, where that is not the device itself: as long as the memory is used.
    #[pin]
    memory_function: Mutex<Option<MemoryFunction>>,
    next_command_base: Atomic<u64>,
    #[pin]
    service: Mutex<Service>,
    #[pin]
    resetting: Mutex<()>,
    #[pin]
    fence: Worker<Fence>,
}

/// Fences the device when its interrupts say that it needs a reset or does what it must not, in process context.
struct Fence(Arc<Link>);

impl Work for Fence {
    fn run(&self) {
        self.0.look_after();
    }
}

/// The device memory, of a driver that stays meanwhile.
pub(crate) struct InUse {
    // Dropped first.
    memory: Memories,
    _guard: Guard,
}

impl Deref for InUse {
    type Target = dyn DeviceMemory;

    fn deref(&self) -> &Self::Target {
        &*self.memory
    }
}

impl Device {
    /// The device memory; to be held no longer than a call or a request takes.
    ///
    /// # Errors
    ///
    /// `ENODEV`: the device is out of service.
    pub(crate) fn memory(&self) -> Result<InUse> {
        let guard = Lifetime::enter(&self.link.lifetime)?;
        let memory = self.memory.lock().clone().ok_or(ENODEV)?;
        Ok(InUse {
            memory,
            _guard: guard,
        })
    }

    /// `POLICY_*` of a new context.
    pub(crate) fn first_policy(&self) -> u32 {
        // The policies are numbered from the most eager one on.
        self.most_eager_policy().max(self.about.first_policy)
    }

    /// The most eager `POLICY_*` that a context may have.
    pub(crate) fn most_eager_policy(&self) -> u32 {
        parameters::policy()
    }

    /// Binds the caller's memory, if the IOMMU translates for the device.
    pub(crate) fn bind_caller(&self) -> Option<Binding> {
        let bound = Binding::of_caller(self.translated.as_ref()?);
        bound
            .inspect_err(|&error| self.falls_back("its IOMMU cannot share page tables", error))
            .ok()
    }

    /// Tells, once, why the driver translates although the device can have the IOMMU do it.
    pub(crate) fn falls_back(&self, why: &str, error: Error) {
        if !self.fell_back.xchg(true, Full) {
            pr_info!(
                "coax{}: the driver translates: {} ({})\n",
                self.link.lifetime.number(),
                why,
                error.to_errno()
            );
        }
    }

    /// First command identifier for a new context.
    pub(crate) fn next_command_base(&self) -> u64 {
        self.next_command_base
            .fetch_add(COMMAND_IDS_PER_CONTEXT, Relaxed)
    }

    /// Takes the device out of service and back: commands end, all pages come back.
    ///
    /// # Errors
    ///
    /// `EBUSY`: something holds on to pages. `EIO`: the device is silent. `EINTR`: the caller was killed.
    /// `ENOMEM`.
    pub(crate) fn reset(&self) -> Result {
        let reset = || {
            self.link
                .control(wire::CONTROL_RESET, 0, 0, &mut [])
                .map(|_| ())
        };
        match self.bring_back(reset)? {
            0 => Ok(()),
            _ => Err(EBUSY),
        }
    }

    /// Brings all pages back while commands go on; returns how many are held by something.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn empty(&self) -> Result<u64> {
        self.bring_back(|| Ok(()))
    }

    fn bring_back(&self, first: impl FnOnce() -> Result) -> Result<u64> {
        let _one_at_a_time = self.resetting.lock();
        let memory = self.memory()?;
        memory.set_accepting(false);
        let held = first().and_then(|()| memory.empty());
        memory.set_accepting(true);
        held
    }

    /// Ends what programs have the device do, until nobody is inside any more.
    fn wait_until_left(&self) {
        let lifetime = &self.link.lifetime;
        let mut steps = 0;
        // Calls wait for commands, which end with their contexts; a context may still be opening.
        loop {
            ending::end_all(&self.link);
            if lifetime.wait_until_left() {
                break;
            }
            steps += 1;
            if steps == TELL_AFTER {
                pr_warn!(
                    "coax{}: {} calls or faults are in the device; waiting for them to leave\n",
                    lifetime.number(),
                    lifetime.inside()
                );
            }
        }
        ending::end_all(&self.link);
        self.link.endings.flush();
    }

    fn into_service(this: &Arc<Self>) -> Result {
        let mut service = this.service.lock();
        let number = service.number.as_ref().ok_or(ENODEV)?.0;
        let name = CString::try_from_fmt(fmt!("coax{}", number))?;
        let dir = debugfs::Dir::new(c"coax").subdir(&name);
        let stats = KBox::pin_init(
            dir.read_callback_file(c"stats", this.link.clone(), &show::stats),
            GFP_KERNEL,
        )?;
        let contexts = KBox::pin_init(
            dir.read_callback_file(c"contexts", this.link.clone(), &show::contexts),
            GFP_KERNEL,
        )?;
        service.debugfs = Some((dir, [stats, contexts]));
        // What is the system's memory counts as that. Before anybody can open the device, who would not be charged.
        if this.memory()?.moves_by_calls() {
            let region = CString::try_from_fmt(fmt!("coax/coax{}", number))?;
            let bytes = this.region.len();
            this.link.charges.open(bytes, &region, this.clone())?;
        }
        let chardev = chardev::Registration::new(&name, FOR_ALL, this.clone());
        service.chardev = Some(chardev?);
        if parameters::hmm() {
            let name = CString::try_from_fmt(fmt!("hmm_dmirror{}", number))?;
            let dmirror = chardev::Registration::new(&name, FOR_ROOT, this.clone());
            service.dmirror = Some(dmirror?);
        }
        Ok(())
    }
}

impl Reclaim for Device {
    fn reclaim(&self, limit: &Limit, bytes: u64) -> bool {
        let Ok(memory) = self.memory() else {
            return false;
        };
        let is_meant = |place| self.link.charges.is_under(place, limit);
        let pages = bytes.div_ceil(wire::PAGE_SIZE) as usize;
        let spare = charges::trim(&self.link, &is_meant);
        let moved = memory.shrink(&is_meant, pages.saturating_sub(spare));
        spare + moved > 0
    }
}

impl Driver for Device {
    const NAME: &'static CStr = c_str!("coax");
    const IDS: &'static [u32] = &[wire::VIRTIO_ID_COAX, wire::VIRTIO_ID_BORROWED];
    const FEATURES: &'static [u32] = &[
        wire::F_ATOMIC,
        wire::F_TRANSLATION_AHEAD,
        wire::F_ACCESS_NOTIFICATION,
    ];

    fn validate(vdev: &VirtioDevice) -> Result {
        if vdev.has_feature(ACCESS_PLATFORM) {
            dev_err!(
                vdev.parent(),
                "coax: the device wants addresses that an IOMMU translates (iommu_platform=on), and messages name physical ones; leave it off\n"
            );
            return Err(EINVAL);
        }
        Ok(())
    }

    fn probe(vdev: &VirtioDevice, resetter: Arc<Resetter>) -> Result<Arc<Self>> {
        let dev = vdev.parent();
        // First, since a device of another kind is known by having none.
        let (region, memory_function) = config::memory(vdev)?;
        let config = config::read(vdev)?;
        let number = Number::take()?;
        config::check_policy(dev)?;
        let mut names = KVec::new();
        for name in [c"control", c"copy", c"translation", c"request"] {
            names.push(name, GFP_KERNEL)?;
        }
        for name in &COMMAND_QUEUE_NAMES[..config.command_queues.get() as usize] {
            names.push(name, GFP_KERNEL)?;
        }
        let queues = vdev.find_queues::<Self>(&names)?;
        let max_contexts = config.max_contexts.get();
        let features = Features {
            atomic: vdev.has_feature(wire::F_ATOMIC),
            translation_ahead: vdev.has_feature(wire::F_TRANSLATION_AHEAD),
            access_notification: vdev.has_feature(wire::F_ACCESS_NOTIFICATION),
        };
        let link = Link::new(queues, resetter, number.0, features, max_contexts)?;
        let mode = config::mode(number.0);
        let memory = modes::memory(mode, vdev, region, link.clone())?;
        let about = memory.about();
        // Private pages have no address that an IOMMU could give: a page request would bring them back.
        let translated = (config.services.get() & wire::SERVICE_PCIE != 0
            && mode != uapi::MODE_PRIVATE)
            .then(|| dev.into());
        let fence = Fence(link.clone());
        Arc::pin_init(
            try_pin_init!(Self {
                link,
                memory <- new_mutex!(Some(memory), "coax_device_memory"),
                about,
                max_contexts,
                page_requests: config.page_request_capacity.get(),
                region,
                translated,
                fell_back: Atomic::new(false),
                memory_function <- new_mutex!(memory_function, "coax_memory_function"),
                next_command_base: Atomic::new(1),
                service <- new_mutex!(
                    Service {
                        number: Some(number),
                        ..Service::default()
                    },
                    "coax_service"
                ),
                resetting <- new_mutex!((), "coax_resetting"),
                fence <- new_worker!(Ok(fence), "coax_fence"),
            }? Error),
            GFP_KERNEL,
        )
    }

    fn start(this: ArcBorrow<'_, Self>, vdev: &VirtioDevice) -> Result {
        let this: Arc<Self> = this.into();
        if vdev.needs_reset() {
            dev_err!(
                vdev.parent(),
                "coax: the device is not working: it needs a reset\n"
            );
            return Err(ENODEV);
        }
        this.link.post_request_buffers(wire::QUEUE_SIZE.into())?;
        let (base, bytes) = (this.region.start(), this.region.len());
        this.link
            .control(wire::CONTROL_SET_DEVICE_MEMORY, base, bytes, &mut [])?;
        this.link.control(
            wire::CONTROL_SET_PAGE_REQUEST_ALLOCATION,
            this.page_requests.into(),
            0,
            &mut [],
        )?;
        this.memory()?.enter_service(vdev.parent())?;
        Self::into_service(&this)?;
        dev_info!(
            vdev.parent(),
            "coax: {} MiB of {} device memory at {:#x}, {} command queues, {} contexts\n",
            bytes >> 20,
            this.about.name,
            base,
            this.link.command_queues(),
            this.max_contexts,
        );
        Ok(())
    }

    fn stop(&self) {
        let lifetime = &self.link.lifetime;
        lifetime.leave();
        *self.service.lock() = Service::default();
        let memory = self.memory.lock().take();
        if let Some(memory) = &memory {
            memory.set_accepting(false);
        }
        self.wait_until_left();
        self.link.charges.close();
        if let Some(memory) = memory {
            memory.leave_service();
        }
        drop(self.memory_function.lock().take());
    }

    fn drain(&self) {
        self.link.drain();
    }

    fn freeze(&self) -> Result {
        pr_err!(
            "coax{}: the system cannot suspend or hibernate while the driver has the device, whose memory and contexts would not survive it; unbind it first\n",
            self.link.lifetime.number()
        );
        Err(EBUSY)
    }

    fn resetter(&self) -> &Resetter {
        self.link.resetter()
    }

    fn interrupt(&self, queue: u16) {
        self.link.take(queue);
        if self.link.lifetime.offence().is_some() {
            self.fence.queue_anywhere();
        }
    }

    fn config_changed(&self, device: &VirtioDevice) {
        if device.needs_reset() {
            self.fence.queue_anywhere();
        }
    }
}
