// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The end of the process where a guarantee cannot be kept.
//!
//! A front end tells its guest that the device is gone when the connection ends, and the guest
//! then uses the device's memory for other things. The kernel closes the connection of a process
//! that dies when its last thread has left, so death keeps that promise whatever state the
//! device is in. Going on with a part of the device does not: nobody would ask an engine to let
//! go of pages if the thread that takes invalidations had ended.
#![forbid(unsafe_code)]

use std::cell::RefCell;
use std::fmt::Arguments;
use std::process;
use std::sync::Arc;

use crate::device::Device;
use crate::error_output;

/// Ends the process at once, with one line that says what happened.
pub fn end_process(what: Arguments<'_>) -> ! {
    error_output::write_line(format_args!("vhost-device-coax: fatal: {what}"));
    process::abort()
}

/// Has a panic of any thread end the process.
pub fn end_process_on_panic() {
    std::panic::set_hook(Box::new(|info| {
        let thread = std::thread::current();
        let name = thread.name().unwrap_or("without a name");
        let text = info.to_string().replace('\n', " ");
        end_process(format_args!("thread {name}: {text}"));
    }));
}

thread_local! {
    static SERVES: RefCell<Option<Serves>> = const { RefCell::new(None) };
}

/// A thread that serves a device has one of these until it ends.
struct Serves(Arc<Device>);

impl Drop for Serves {
    fn drop(&mut self) {
        if !self.0.shutting_down() {
            let thread = std::thread::current();
            let name = thread.name().unwrap_or("without a name");
            end_process(format_args!("thread {name} of the device has ended"));
        }
    }
}

/// Has the end of this thread end the process, unless the device is shutting down by then; tells whether that
/// is new.
pub fn bind_to_thread(device: &Arc<Device>) -> bool {
    SERVES.with_borrow_mut(|serves| {
        let is_new = serves.is_none();
        serves.get_or_insert_with(|| Serves(Arc::clone(device)));
        is_new
    })
}

/// What a test does that ends the process.
#[cfg(test)]
pub mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::process::Command;

    use super::*;
    use crate::deviations::Deviations;
    use crate::device::Config;

    /// Does something in a process of its own, which has to be aborted, and returns what that
    /// said. `name` is the whole name of the test that calls.
    pub fn said_at_the_end(name: &str, what: impl FnOnce()) -> String {
        const CHILD: &str = "COAX_TEST_CHILD";
        if std::env::var_os(CHILD).is_some() {
            what();
            process::exit(0);
        }
        let output = std::env::current_exe().and_then(|program| {
            Command::new(program)
                .args(["--exact", name, "--nocapture"])
                .env(CHILD, "1")
                .output()
        });
        let output = output.expect("the test starts itself");
        assert_eq!(output.status.signal(), Some(libc::SIGABRT), "{output:?}");
        String::from_utf8_lossy(&output.stderr).into_owned()
    }

    fn device() -> Arc<Device> {
        let config = Config {
            contexts: 1,
            engines: 1,
            page_requests: 1,
        };
        Arc::new(Device::new(config, Deviations::default()).expect("a device"))
    }

    /// A thread that serves the device and ends.
    fn serve_and_end(device: &Arc<Device>) {
        let device = Arc::clone(device);
        let thread = std::thread::spawn(move || bind_to_thread(&device));
        thread.join().expect("it does not panic");
    }

    #[test]
    fn panic_of_any_thread_ends_the_process_with_one_line() {
        let said = said_at_the_end(
            "fail_stop::tests::panic_of_any_thread_ends_the_process_with_one_line",
            || {
                end_process_on_panic();
                let named = std::thread::Builder::new().name("engine".into());
                let thread = named.spawn(|| panic!("no\nway")).expect("a thread");
                let _ = thread.join();
            },
        );
        let line = said.lines().next().unwrap_or_default();
        assert!(line.contains("fatal: thread engine: "), "{said}");
        assert!(line.contains("no way"), "{said}");
    }

    #[test]
    fn thread_of_the_device_that_ends_ends_the_process() {
        let said = said_at_the_end(
            "fail_stop::tests::thread_of_the_device_that_ends_ends_the_process",
            || serve_and_end(&device()),
        );
        assert!(said.contains("of the device has ended"), "{said}");
    }

    #[test]
    fn threads_may_end_when_the_device_shuts_down() {
        let device = device();
        device.shut_down();
        serve_and_end(&device);
    }
}
