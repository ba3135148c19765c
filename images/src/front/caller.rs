// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a command line of QEMU's says about the machine, as far as the device depends on it.

use std::ffi::OsString;

use serde_json::{Map, Value};

/// Options that take no value (QEMU's `qemu-options.hx`); all others take the next word.
const FLAGS: &[&str] = &[
    "help",
    "h",
    "version",
    "mem-prealloc",
    "snapshot",
    "usb",
    "nographic",
    "full-screen",
    "win2k-hack",
    "no-fd-bootchk",
    "preconfig",
    "S",
    "s",
    "enable-kvm",
    "xen-attach",
    "xen-domid-restrict",
    "no-reboot",
    "no-shutdown",
    "daemonize",
    "only-migratable",
    "nodefaults",
    "semihosting",
    "no-user-config",
    "enable-sync-profile",
    "perfmap",
    "jitdump",
];
/// The implied name of the first property of an option, where that needs no name.
const IMPLIED: &[(&str, &str)] = &[
    ("machine", "type"),
    ("accel", "accel"),
    ("object", "qom-type"),
    ("smp", "cpus"),
    ("m", "size"),
    ("numa", "type"),
    ("device", "driver"),
];

/// An option with its value, taken apart if it is one of those in [`IMPLIED`].
#[derive(Clone, Debug, PartialEq, Eq)]
struct Opt {
    name: String,
    value: String,
    properties: Vec<(String, String)>,
}

impl Opt {
    /// The last value of a property: later ones override.
    fn get(&self, name: &str) -> Option<&str> {
        let mut properties = self.properties.iter().rev();
        let found = properties.find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    }
}

/// A command line of QEMU's.
#[derive(Clone, Debug, Default)]
pub struct Caller {
    options: Vec<Opt>,
}

/// An object that is memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Memory {
    /// Its identifier.
    pub id: String,
    /// What kind of object it is.
    pub kind: String,
    /// Whether other processes can have it.
    pub shared: bool,
}

impl Caller {
    /// Reads what comes after the program's name.
    pub fn read(args: &[OsString]) -> Self {
        let mut options = Vec::new();
        let mut words = args.iter().map(|word| word.to_string_lossy());
        while let Some(word) = words.next() {
            // Anything else is a disk image.
            let Some(name) = word.strip_prefix('-') else {
                continue;
            };
            let name = match name.strip_prefix('-').unwrap_or(name) {
                "M" => "machine",
                name => name,
            };
            let value = match FLAGS.contains(&name) {
                true => None,
                false => words.next(),
            };
            let value = value.unwrap_or_default().into_owned();
            let implied = IMPLIED.iter().find(|(known, _)| *known == name);
            options.push(Opt {
                name: name.to_owned(),
                properties: implied.map_or(Vec::new(), |(_, first)| properties(&value, first)),
                value,
            });
        }
        Caller { options }
    }

    fn named<'a>(&'a self, name: &'a str) -> impl DoubleEndedIterator<Item = &'a Opt> + 'a {
        self.options
            .iter()
            .filter(move |option| option.name == name)
    }

    /// The last value of a property of all options of this name together.
    fn last(&self, name: &str, property: &str) -> Option<&str> {
        let mut options = self.options.iter().rev();
        options.find_map(|option| option.get(property).filter(|_| option.name == name))
    }

    /// Whether a guest is to run at all: QEMU is also asked what it is and what it has.
    pub fn has_guest(&self) -> bool {
        let asks = |option: &Opt| match option.name.as_str() {
            "h" | "help" | "version" => true,
            "append" | "name" => false,
            _ => option
                .value
                .split(',')
                .any(|word| matches!(word, "help" | "?")),
        };
        self.machine() != Some("none") && !self.options.iter().any(asks)
    }

    /// Whether it has the device already.
    pub fn has_device(&self) -> bool {
        let mut devices = self.named("device");
        devices.any(|option| {
            let driver = option.get("driver").unwrap_or_default();
            driver.starts_with("vhost-user-coax") || driver.starts_with("vhost-user-test-device")
        })
    }

    /// The machine, if it is named.
    pub fn machine(&self) -> Option<&str> {
        self.last("machine", "type")
    }

    /// The memory that the machine is given.
    pub fn machine_memory(&self) -> Option<&str> {
        self.last("machine", "memory-backend")
    }

    /// Memory given to nodes.
    pub fn node_memory(&self) -> Vec<&str> {
        let nodes = self.named("numa");
        nodes.filter_map(|option| option.get("memdev")).collect()
    }

    /// Whether there are memory nodes.
    pub fn has_nodes(&self) -> bool {
        self.named("numa").next().is_some()
    }

    /// The memory of this identifier.
    pub fn memory(&self, id: &str) -> Option<Memory> {
        let mut objects = self.named("object");
        let object = objects.find(|object| object.get("id") == Some(id))?;
        Some(Memory {
            id: id.to_owned(),
            kind: object.get("qom-type").unwrap_or_default().to_owned(),
            shared: matches!(object.get("share"), Some("on" | "yes" | "true" | "y")),
        })
    }

    /// Whether system memory comes from files by the old option.
    pub fn has_memory_path(&self) -> bool {
        self.named("mem-path").next().is_some()
    }

    /// System memory as QEMU is told it, in its own notation.
    pub fn memory_size(&self) -> Option<&str> {
        self.last("m", "size")
    }

    /// Virtual CPUs.
    pub fn cpus(&self) -> Result<u32, String> {
        let Some(cpus) = self.last("smp", "cpus") else {
            let count = |name| self.last("smp", name).map_or(Ok(1), str::parse::<u32>);
            let product = ["sockets", "dies", "cores", "threads"].map(count);
            return product.into_iter().try_fold(1, |product: u32, count| {
                let count = count.map_err(|error| format!("-smp: {error}"))?;
                Ok(product.saturating_mul(count))
            });
        };
        cpus.parse()
            .map_err(|error| format!("-smp {cpus}: {error}"))
    }

    /// Virtual CPUs that there may be.
    ///
    /// # Errors
    ///
    /// Those of [`Caller::cpus`].
    pub fn possible_cpus(&self) -> Result<u32, String> {
        match self.last("smp", "maxcpus") {
            Some(most) => most
                .parse()
                .map_err(|error| format!("-smp maxcpus={most}: {error}")),
            None => self.cpus(),
        }
    }

    /// Whether nothing but KVM is to run the guest.
    pub fn takes_only_kvm(&self) -> bool {
        let named = self.named("accel").filter_map(|option| option.get("accel"));
        let of_machine = self
            .last("machine", "accel")
            .into_iter()
            .flat_map(|list| list.split(':'));
        let mut accels: Vec<&str> = named.chain(of_machine).collect();
        if self.named("enable-kvm").next().is_some() {
            accels.push("kvm");
        }
        !accels.is_empty() && accels.iter().all(|accel| *accel == "kvm")
    }

    /// The guest kernel's command line, if QEMU is told one.
    pub fn append(&self) -> &str {
        let mut last = self.named("append").rev();
        last.next().map_or("", |option| option.value.as_str())
    }
}

/// The properties in a value: JSON, or `name=value` with commas between; a comma in a value is written twice.
fn properties(value: &str, implied: &str) -> Vec<(String, String)> {
    if value.starts_with('{') {
        let object: Map<String, Value> = serde_json::from_str(value).unwrap_or_default();
        let text = |value: &Value| {
            value
                .as_str()
                .map_or_else(|| value.to_string(), str::to_owned)
        };
        let pairs = object
            .iter()
            .map(|(name, value)| (name.clone(), text(value)));
        return pairs.collect();
    }
    // No word has this character.
    let marked = value.replace(",,", "\0");
    let pair = |(number, word): (usize, &str)| {
        let word = word.replace('\0', ",");
        match word.split_once('=') {
            Some((name, value)) => (name.to_owned(), value.to_owned()),
            None if number == 0 => (implied.to_owned(), word),
            None => (word, "on".to_owned()),
        }
    };
    marked.split(',').enumerate().map(pair).collect()
}

/// The words of a command line, in tests.
#[cfg(test)]
pub fn words(line: &str) -> Vec<OsString> {
    line.split_whitespace().map(OsString::from).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller(line: &str) -> Caller {
        Caller::read(&words(line))
    }

    #[test]
    fn questions_are_told_from_guests() {
        for line in [
            "--version",
            "-L help",
            "-cpu help",
            "-device virtio-net,help",
            "-S -machine none,accel=kvm:tcg -qmp stdio",
            "-M help",
        ] {
            assert!(!caller(line).has_guest(), "{line}");
        }
        for line in ["", "-M q35 disk.img", "-append help -M q35", "-S -M q35"] {
            assert!(caller(line).has_guest(), "{line}");
        }
    }

    #[test]
    fn a_value_that_looks_like_an_option_is_none() {
        let caller = caller("-append -M -M q35");
        assert_eq!(caller.machine(), Some("q35"));
        assert_eq!(caller.append(), "-M");
    }

    #[test]
    fn later_values_override_earlier_ones() {
        let caller =
            caller("-M q35,memory-backend=a -machine memory-backend=b -smp 2,maxcpus=4 -m 1G");
        assert_eq!(caller.machine(), Some("q35"));
        assert_eq!(caller.machine_memory(), Some("b"));
        assert_eq!(caller.cpus(), Ok(2));
        assert_eq!(caller.memory_size(), Some("1G"));
    }

    #[test]
    fn memory_is_read_in_both_notations() {
        let json = r#"{"qom-type":"memory-backend-memfd","id":"pc.ram","share":true,"size":1024}"#;
        let mut args = words("-object memory-backend-ram,id=a,,b,size=1G -object");
        args.push(json.into());
        let caller = Caller::read(&args);
        let memory = |id| caller.memory(id).map(|it| (it.kind, it.shared));
        assert_eq!(
            memory("pc.ram"),
            Some(("memory-backend-memfd".into(), true))
        );
        assert_eq!(memory("a,b"), Some(("memory-backend-ram".into(), false)));
        assert_eq!(memory("c"), None);
    }

    #[test]
    fn virtual_cpus_are_counted_as_qemu_counts() {
        for (line, cpus) in [
            ("", 1),
            ("-smp 3", 3),
            ("-smp sockets=2,cores=2,threads=1", 4),
        ] {
            assert_eq!(caller(line).cpus(), Ok(cpus), "{line}");
        }
        assert!(caller("-smp many").cpus().is_err());
    }

    #[test]
    fn kvm_alone_is_told_from_kvm_first() {
        for (line, only) in [
            ("-enable-kvm", true),
            ("-accel kvm,dirty-ring-size=4096", true),
            ("-machine q35,accel=kvm", true),
            ("-accel kvm -accel tcg", false),
            ("-M q35,accel=kvm:tcg", false),
            ("", false),
        ] {
            assert_eq!(caller(line).takes_only_kvm(), only, "{line}");
        }
    }
}
