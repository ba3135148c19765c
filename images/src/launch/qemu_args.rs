// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The command lines of QEMU and of the back end.

use std::ffi::{OsStr, OsString};
use std::path::Path;

use super::config::{Tree, VmConfig};
use super::device::Place;
use crate::accel::Accel;
use crate::images::Images;
use crate::job::{Mode, PORT_NAME, TREE_TAG};
use crate::machine::Translation;
use crate::pcie;
use crate::qemu::Form;

/// What the kernel is always told.
///
/// - `panic=-1 oops=panic`: a broken kernel resets, and `-no-reboot` makes that QEMU's end.
/// - `loglevel=6`: complaints reach the console, the hundreds of lines about a healthy boot,
///   each character of which is an exit to QEMU, do not.
const KERNEL_ARGS: &str = "console=ttyS0 panic=-1 oops=panic loglevel=6";
/// What it is told under TCG, whose time stamp counters run alike on all virtual CPUs: a busy host
/// makes the kernel's check of them, and of the timer interrupt, slow and wrong, and without the
/// counter every look at the clock is an exit to QEMU.
const TCG_KERNEL_ARGS: &str = "tsc=reliable no_timer_check";
/// What it is told under TCG beside a tree of the host. QEMU keeps the code that it has translated from
/// a page until a virtual CPU writes to that page, and does not see virtiofsd fill it with another
/// program. So a virtual CPU clears every page before it becomes page cache.
const TCG_TREE_KERNEL_ARGS: &str = "init_on_alloc=1";

/// What it is told under TCG where the BIOS may be newer than ours. QEMU keeps the last 12 GiB below 1 TiB free,
/// for the HyperTransport of AMD's processors, as which a virtual CPU of TCG counts. SeaBIOS from 1.16.3 on puts
/// the windows of PCI bridges at the end of the address space, which is 1 TiB, and Linux gives out no address
/// that is kept free: nothing could be plugged in.
const TCG_OTHER_BIOS_KERNEL_ARGS: &str = "pci=no_e820";

/// What it is told when device memory is a memory node: the driver adds that memory, and the kernel
/// is to online it for what can be moved away again.
const NUMA_KERNEL_ARGS: &str = "memhp_default_state=online_movable";
/// What it is told when there is one virtual CPU: it leaves `lock` out of its own operations
/// otherwise, those on programs' memory included, which the device uses as well.
const ONE_CPU_KERNEL_ARGS: &str = "noreplace-smp";
/// What it is told when the IOMMU translates for the devices: some kernels leave it alone otherwise.
const IOMMU_KERNEL_ARGS: &str = "intel_iommu=on,sm_on";
/// What it is told after all else: the time before each line tells its lines from those of programs.
const LAST_KERNEL_ARGS: &str = "printk.time=1";
/// Leaves plugging to the ports. Linux holds its lock of hot-plugged devices while ACPI tells it of one, and takes
/// it to give a node's memory back.
const NO_ACPI_HOTPLUG: &str = "ICH9-LPC.acpi-pci-hotplug-with-bridge-support=off";
/// Bus numbers between the host bridges of devices with a node of their own: each takes two, its own
/// and that behind the port.
const BUSES_PER_BRIDGE: usize = 8;

/// Paths in a VM's folder.
pub struct Sockets<'a> {
    /// vhost-user, one for each device.
    pub devices: Vec<&'a Path>,
    /// vhost-user, of the root file system.
    pub tree: Option<&'a Path>,
    /// Frames.
    pub job: &'a Path,
    /// QEMU's monitor.
    pub monitor: &'a Path,
    /// The whole initramfs, job included.
    pub initramfs: &'a Path,
}

/// QEMU's arguments.
pub fn qemu(images: &Images, config: &VmConfig, form: Form, paths: &Sockets) -> Vec<OsString> {
    let accel = images.accel.accel;
    let mut args = Words::default();
    args.add(&[
        "-nodefaults",
        "-no-user-config",
        "-display",
        "none",
        "-no-reboot",
    ]);
    // The thread that starts a VM waits for it, so this holds QEMU to this program's life.
    args.add(&["-run-with", "exit-with-parent=on"]);
    match config.mode {
        Mode::Private | Mode::Coherent => args.add(&["-machine", "q35,memory-backend=mem"]),
        Mode::Numa => {
            args.add(&["-machine", "q35"]);
            let last = possible_cpus(config, accel) - 1;
            let node = format!("node,nodeid=0,cpus=0-{last},memdev=mem");
            args.add(&["-numa", &node]);
        }
    }
    match accel {
        Accel::Kvm => args.add(&["-accel", "kvm"]),
        Accel::Tcg => args.add(&["-accel", "tcg,thread=multi"]),
    }
    match (config.translation, accel) {
        (Translation::Pcie, _) => {
            args.add(&["-cpu", &pcie::cpu(accel), "-device", &pcie::iommu()]);
        }
        (Translation::Virtqueue, Accel::Kvm) => args.add(&["-cpu", "host"]),
        // Five-level page tables lengthen every walk and bring nothing here.
        (Translation::Virtqueue, Accel::Tcg) => args.add(&["-cpu", "max,la57=off"]),
    }
    let possible = possible_cpus(config, accel);
    args.add(&["-smp", &format!("{},maxcpus={possible}", config.cpus)]);
    args.add(&["-m", &config.memory.to_string()]);
    // The back end maps the guest's memory, so it must be shared.
    let memory = format!(
        "memory-backend-memfd,id=mem,size={},share=on",
        config.memory
    );
    args.add(&["-object", &memory]);
    for folder in &images.firmware {
        args.pair("-L", folder);
    }

    args.pair("-kernel", &images.kernel);
    args.pair("-initrd", paths.initramfs);
    let append: Vec<&str> = std::iter::once(KERNEL_ARGS)
        .chain((accel == Accel::Tcg).then_some(TCG_KERNEL_ARGS))
        .chain((accel == Accel::Tcg && paths.tree.is_some()).then_some(TCG_TREE_KERNEL_ARGS))
        .chain(
            (accel == Accel::Tcg && images.firmware.is_empty())
                .then_some(TCG_OTHER_BIOS_KERNEL_ARGS),
        )
        .chain((config.mode == Mode::Numa).then_some(NUMA_KERNEL_ARGS))
        .chain((config.translation == Translation::Pcie).then_some(IOMMU_KERNEL_ARGS))
        .chain((config.cpus == 1).then_some(ONE_CPU_KERNEL_ARGS))
        .chain(images.kernel_args.as_deref())
        .chain(config.kernel_args.iter().map(String::as_str))
        .chain(std::iter::once(LAST_KERNEL_ARGS))
        .collect();
    args.add(&["-append", &append.join(" ")]);

    args.add(&[
        "-chardev",
        "stdio,id=console,signal=off",
        "-serial",
        "chardev:console",
    ]);
    args.add(&["-device", "virtio-serial-pci,max_ports=2"]);
    args.add(&["-chardev", &socket_chardev("job", paths.job)]);
    args.add(&[
        "-device",
        &format!("virtserialport,chardev=job,name={PORT_NAME}"),
    ]);

    let monitor = socket_chardev("monitor", paths.monitor) + ",server=on,wait=off";
    args.add(&["-chardev", &monitor]);
    args.add(&["-object", "monitor-qmp,id=qmp,chardev=monitor"]);

    if let Some(socket) = paths.tree {
        args.add(&["-chardev", &socket_chardev("tree", socket)]);
        let device = format!("vhost-user-fs-pci,chardev=tree,tag={TREE_TAG},queue-size=1024");
        args.add(&["-device", &device]);
    }
    for (number, socket) in paths.devices.iter().enumerate() {
        let place = Place::first(number);
        let connection = place.connection(socket);
        args.accelerator(config, form, place, &connection, Ports::InTurn);
    }
    args.0
}

/// The memory node of a device: system memory has the first.
fn node_of(place: Place) -> usize {
    place.number + 1
}

/// Virtual CPUs that there may be. TCG translates atomic operations to such as are only for a machine
/// with more than one possible CPU, and the device works on the same memory from another process.
fn possible_cpus(config: &VmConfig, accel: Accel) -> u32 {
    match accel {
        Accel::Kvm => config.cpus,
        Accel::Tcg => config.cpus.max(2),
    }
}

/// Where the ports of the devices are.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Ports {
    /// QEMU gives them the next free places.
    InTurn,
    /// Where nobody who counts devices from the start comes to.
    OutOfTheWay,
}

/// The slot of ports that are out of the way; those behind it are the chipset's.
const FAR_SLOT: &str = "0x1e";
/// What such ports are numbered from, as chassis and as slots.
const FAR_CHASSIS: usize = 240;

impl Ports {
    /// The properties of a port of its own by this number.
    fn properties(self, number: usize, own_bridge: bool) -> String {
        match self {
            Ports::InTurn => format!("chassis={}", number + 1),
            Ports::OutOfTheWay => {
                let chassis = FAR_CHASSIS + number;
                let place = match own_bridge {
                    true => String::new(),
                    false => format!("bus=pcie.0,addr={FAR_SLOT}.{number},multifunction=on,"),
                };
                format!("{place}chassis={chassis},slot={chassis}")
            }
        }
    }
}

/// A command line under construction.
#[derive(Default)]
pub(super) struct Words(pub(super) Vec<OsString>);

impl Words {
    fn add(&mut self, words: &[&str]) {
        self.0.extend(words.iter().map(OsString::from));
    }

    /// A device. The guest finds the ports, and so the devices behind them, in this order.
    pub(super) fn accelerator(
        &mut self,
        config: &VmConfig,
        form: Form,
        place: Place,
        connection: &str,
        ports: Ports,
    ) {
        self.add(&["-object", &place.memory(config)]);
        self.add(&["-chardev", connection]);
        // A PCI Express function needs a port to have ATS and its relatives.
        let mut port = format!("pcie-root-port,id={}", place.port_id());
        let own_bridge = config.mode == Mode::Numa && form == Form::OneFunction;
        if config.mode == Mode::Numa {
            self.node(place);
        }
        if own_bridge {
            self.host_bridge(place);
            port.push_str(&format!(",bus=host{}", place.number));
        } else if config.mode == Mode::Numa {
            self.add(&["-global", NO_ACPI_HOTPLUG]);
        }
        port.push_str(&format!(",{}", ports.properties(place.number, own_bridge)));
        self.add(&["-device", &port]);
        let mut functions = place.functions(config, form);
        if config.translation == Translation::Pcie {
            let id = place.translation_id();
            // The back end makes the socket when it starts.
            let chardev = socket_chardev(&id, place.translation_socket().as_ref());
            self.add(&["-chardev", &format!("{chardev},reconnect-ms=100")]);
            functions[0].push_str(&format!(",translation-chardev={id}"));
        }
        for function in functions {
            self.add(&["-device", &function]);
        }
    }

    /// The memory node of a device, as firmware describes that of a GH200: empty, and known by the device
    /// in it (a generic initiator).
    fn node(&mut self, place: Place) {
        let node = node_of(place);
        self.add(&["-numa", &format!("node,nodeid={node}")]);
        let initiator = format!(
            "acpi-generic-initiator,id=gi{},pci-dev={},node={node}",
            place.number,
            place.id()
        );
        self.add(&["-object", &initiator]);
    }

    /// A host bridge for a device alone, which is in its node. Not for a device without MSI-X for all
    /// queues: on q35 an INTx line from behind such a bridge is another one than firmware tells.
    fn host_bridge(&mut self, place: Place) {
        let (number, node) = (place.number, node_of(place));
        let bus = node * BUSES_PER_BRIDGE;
        let bridge = format!("pxb-pcie,id=host{number},bus=pcie.0,bus_nr={bus},numa_node={node}");
        self.add(&["-device", &bridge]);
    }

    fn pair(&mut self, option: &str, path: &Path) {
        self.0.extend([option.into(), path.into()]);
    }
}

/// A back end's arguments; its listening socket is its standard input. It runs in the VM's folder.
pub fn device(config: &VmConfig, place: Place) -> Vec<OsString> {
    let mut args = Words::default();
    args.add(&["--fd", "0", "-v"]);
    args.add(&["--contexts", &config.contexts.to_string()]);
    args.add(&["--engines", &config.engines.to_string()]);
    args.add(&["--page-requests", &config.page_requests.to_string()]);
    if config.translation == Translation::Pcie {
        args.add(&["--pcie-socket", &place.translation_socket()]);
    }
    args.0
}

/// Arguments of virtiofsd, which locks itself into the tree by `sandbox`; its listening socket is its standard input.
///
/// - The guest gets the whole tree, mount points in it too: an overlay shows nothing of those that
///   it is told of.
/// - Who changes the tree meanwhile has to be prepared that the guest does not see it: it may keep
///   what it once read, without which a program's every look would be a trip to the host.
pub fn tree(tree: &Tree, sandbox: &str) -> Vec<OsString> {
    let mut args = Words::default();
    args.add(&["--fd", "0", "--readonly", "--no-announce-submounts"]);
    args.add(&["--sandbox", sandbox]);
    args.add(&["--cache", "always", "--log-level", "warn"]);
    args.pair("--shared-dir", &tree.folder);
    args.0
}

/// A socket to which QEMU connects. A comma in a value is written twice.
pub fn socket_chardev(id: &str, path: &Path) -> String {
    let path = path.to_string_lossy().replace(',', ",,");
    format!("socket,id={id},path={path}")
}

/// A command line that a shell takes as it is.
pub fn shell_line(program: &Path, args: &[OsString]) -> String {
    std::iter::once(program.as_os_str())
        .chain(args.iter().map(OsString::as_os_str))
        .map(shell_word)
        .collect::<Vec<_>>()
        .join(" ")
}

fn shell_word(word: &OsStr) -> String {
    let word = word.to_string_lossy();
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_=,./:+%@".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.into_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The options of one device whose back end listens at `socket`.
    fn device_line(config: &VmConfig, form: Form, place: Place, socket: &str) -> String {
        let mut words = Words::default();
        let connection = place.connection(socket.as_ref());
        words.accelerator(config, form, place, &connection, Ports::InTurn);
        shell_line(Path::new("qemu"), &words.0)
    }

    #[test]
    fn shell_line_quotes_what_a_shell_would_take_apart() {
        let args = ["-append".into(), "a=1 b='2'".into(), "".into()];
        assert_eq!(
            shell_line(Path::new("/bin/qemu"), &args),
            r"/bin/qemu -append 'a=1 b='\''2'\''' ''"
        );
    }

    fn line(config: &VmConfig, accel: Accel) -> String {
        let mut images = Images::for_tests();
        images.accel.accel = accel;
        let path = Path::new("/run/x");
        let sockets = Sockets {
            devices: vec![path],
            tree: None,
            job: path,
            monitor: path,
            initramfs: path,
        };
        shell_line(
            Path::new("qemu"),
            &qemu(&images, config, images.form, &sockets),
        )
    }

    #[test]
    fn iommu_is_there_before_the_devices_that_it_translates_for() {
        let config = VmConfig {
            mode: Mode::Coherent,
            translation: Translation::Pcie,
            ..VmConfig::default()
        };
        let tcg = line(&config, Accel::Tcg);
        let iommu = tcg.find(&pcie::iommu()).expect("an IOMMU");
        let device = tcg.find("translation-chardev=pcie0").expect("a device");
        assert!(iommu < device, "{tcg}");
        assert!(tcg.contains("path=device-0-pcie.sock"), "{tcg}");
        let args = device_words(&config);
        assert!(args.contains("--pcie-socket device-0-pcie.sock"), "{args}");
        // It walks page tables of four levels alone.
        for (accel, cpu) in [(Accel::Tcg, "max"), (Accel::Kvm, "host")] {
            let line = line(&config, accel);
            assert!(line.contains(&format!("-cpu {cpu},la57=off ")), "{line}");
        }
        let config = VmConfig {
            translation: Translation::Virtqueue,
            ..config
        };
        let tcg = line(&config, Accel::Tcg);
        assert!(!tcg.contains("iommu") && !tcg.contains("pcie0"), "{tcg}");
        assert!(!device_words(&config).contains("pcie"));
    }

    fn device_words(config: &VmConfig) -> String {
        shell_line(Path::new("device"), &super::device(config, Place::first(0)))
    }

    #[test]
    fn one_cpu_is_not_the_only_possible_one_where_tcg_would_leave_atomics_out() {
        let config = VmConfig {
            cpus: 1,
            mode: Mode::Numa,
            ..VmConfig::default()
        };
        let tcg = line(&config, Accel::Tcg);
        for text in [
            "-smp 1,maxcpus=2 ",
            "cpus=0-1,",
            " noreplace-smp",
            "thread=multi",
        ] {
            assert!(tcg.contains(text), "no {text} in {tcg}");
        }
        let kvm = line(&config, Accel::Kvm);
        assert!(kvm.contains("-smp 1,maxcpus=1 "), "{kvm}");
    }

    #[test]
    fn every_device_has_memory_port_and_socket_of_its_own() {
        let mut words = Words::default();
        for number in 0..2 {
            let socket = format!("/run/{number}");
            let place = Place::first(number);
            let config = VmConfig::default();
            let connection = place.connection(socket.as_ref());
            words.accelerator(
                &config,
                Form::OneFunction,
                place,
                &connection,
                Ports::InTurn,
            );
        }
        let line = shell_line(Path::new("qemu"), &words.0);
        for text in [
            "id=devmem1,size=512M",
            "id=coax1,path=/run/1",
            "id=coax-rp1,chassis=2",
            "chardev=coax1,memdev=devmem1,bus=coax-rp1,",
            "chardev=coax0,memdev=devmem0,bus=coax-rp0,",
        ] {
            assert!(line.contains(text), "no {text} in {line}");
        }
    }

    #[test]
    fn a_tree_is_served_for_reading_alone() {
        let served = Tree {
            folder: "/srv/a b".into(),
            daemon: "/bin/virtiofsd".into(),
        };
        let args = tree(&served, "chroot");
        let line = shell_line(Path::new("virtiofsd"), &args);
        assert!(line.contains(" --readonly "), "{line}");
        assert!(line.contains(" --sandbox chroot "), "{line}");
        assert!(line.ends_with("--shared-dir '/srv/a b'"), "{line}");
    }

    #[test]
    fn a_node_is_that_of_the_bridge_and_of_the_device_behind_it() {
        let config = VmConfig {
            mode: Mode::Numa,
            ..VmConfig::default()
        };
        let line = device_line(&config, Form::OneFunction, Place::first(1), "/run/1");
        for text in [
            "-numa node,nodeid=2 ",
            "pxb-pcie,id=host1,bus=pcie.0,bus_nr=16,numa_node=2 ",
            "pcie-root-port,id=coax-rp1,bus=host1,chassis=2 ",
            "acpi-generic-initiator,id=gi1,pci-dev=accelerator1,node=2 ",
            "vhost-user-coax-pci,id=accelerator1,",
        ] {
            assert!(line.contains(text), "no {text} in {line}");
        }
    }

    #[test]
    fn each_device_has_a_socket_of_its_own_for_the_iommu_in_its_node_too() {
        let config = VmConfig {
            mode: Mode::Numa,
            translation: Translation::Pcie,
            devices: 2,
            ..VmConfig::default()
        };
        for number in 0..2 {
            let place = Place::first(number);
            let line = device_line(&config, Form::OneFunction, place, "/run/device");
            for text in [
                format!("id=pcie{number},path=device-{number}-pcie.sock,reconnect-ms=100 "),
                format!(",bus=coax-rp{number},command-queues=2,translation-chardev=pcie{number}"),
                format!("pxb-pcie,id=host{number},"),
            ] {
                assert!(line.contains(&text), "no {text} in {line}");
            }
            let back_end = shell_line(Path::new("device"), &device(&config, place));
            let socket = format!("--pcie-socket device-{number}-pcie.sock");
            assert!(back_end.contains(&socket), "{back_end}");
        }
    }

    #[test]
    fn a_device_that_interrupts_by_intx_is_on_the_first_host_bridge() {
        let config = VmConfig {
            mode: Mode::Numa,
            ..VmConfig::default()
        };
        let line = device_line(&config, Form::TwoFunctions, Place::first(0), "/run/0");
        assert!(!line.contains("pxb-pcie"), "{line}");
        for text in [
            "-numa node,nodeid=1 ",
            "pci-dev=accelerator0,node=1 ",
            "hotplug-with-bridge-support=off ",
        ] {
            assert!(line.contains(text), "no {text} in {line}");
        }
    }

    #[test]
    fn commas_in_a_socket_path_do_not_end_it() {
        assert_eq!(
            socket_chardev("job", Path::new("/a,b")),
            "socket,id=job,path=/a,,b"
        );
    }
}
