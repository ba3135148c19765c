// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Start, restart, disconnection and the end of the program.

use std::os::unix::net::{UnixListener, UnixStream};

use coax_abi::wire::*;
use vhost::vhost_user::VhostUserFrontend;
use vhost::VhostBackend;
use vhost_device_coax::server::{self, Error};

use crate::front_end::{linear, Guest, CONFIG, PAGES, VA};
use crate::vring::SIZE;

/// Brings a device into a state with a parked, an endless and an unread command.
fn busy() -> Guest {
    let mut guest = Guest::new();
    guest.open(0);
    guest.write(PAGES, &VA.to_le_bytes());
    guest.submit(0, 0, OP_LIST_SUM, &[VA, 0, 8, u64::MAX]);
    let request = guest.request();
    guest.serve(&request, &linear);
    guest.submit(1, 0, OP_FILL, &[VA + (1 << 21), 8, 7]);
    guest.request();
    guest
}

fn assert_fresh(guest: &mut Guest) {
    guest.offer_request_buffers(SIZE.into());
    guest.open(0);
    let reply = guest.run(0, OP_FILL, &[VA, 8, 7], &linear);
    assert_eq!(reply.status, STATUS_OK);
    assert_eq!(reply.page_requests, 0);
}

#[test]
fn driver_that_is_loaded_again_finds_a_device_at_power_on() {
    let mut guest = busy();
    for _ in 0..3 {
        guest.stop_queues();
        guest.start_queues();
        assert_fresh(&mut guest);
    }
}

#[test]
fn vhost_user_reset_brings_the_device_to_power_on() {
    let mut guest = busy();
    let front_end = guest.front_end.as_mut().unwrap();
    front_end.reset_device().unwrap();
    // The rings are to be stopped all the same.
    for queue in 0..guest.queues.len() {
        front_end.get_vring_base(queue).unwrap();
    }
    guest.start();
    assert_fresh(&mut guest);
}

#[test]
fn new_memory_table_is_used_at_once() {
    let mut guest = Guest::new();
    guest.open(0);
    guest.submit(0, 0, OP_FILL, &[VA, 8, 7]);
    let request = guest.request();
    guest.send_memory_table();
    guest.serve(&request, &linear);
    assert_eq!(guest.reply(0).status, STATUS_OK);
}

#[test]
fn disconnection_in_the_middle_of_commands_ends_the_server() {
    let guest = busy();
    let socket = guest.directory.path().join("socket");
    let _keep = guest.mem.clone();
    assert!(socket.exists());
    guest.disconnect().unwrap();
}

#[test]
fn server_removes_its_socket() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("socket");
    let listener = server::listen(&path).unwrap();
    let (stop, other) = UnixStream::pair().unwrap();
    let thread = std::thread::spawn(move || server::serve(CONFIG, listener, other));
    drop(UnixStream::connect(&path).unwrap());
    thread.join().unwrap().unwrap();
    assert!(!path.exists());
    drop(stop);
}

#[test]
fn stop_ends_the_server_before_and_after_the_connection() {
    busy().stop_server().unwrap();
    Guest::cold(CONFIG).stop_server().unwrap();

    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("socket");
    let listener = server::listen(&path).unwrap();
    let (mut stop, other) = UnixStream::pair().unwrap();
    std::io::Write::write_all(&mut stop, &[0]).unwrap();
    server::serve(CONFIG, listener, other).unwrap();
    assert!(!path.exists());
}

#[test]
fn only_a_stale_socket_is_replaced() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file");
    std::fs::write(&file, "data").unwrap();
    assert!(matches!(server::listen(&file), Err(Error::NotASocket(_))));
    assert_eq!(std::fs::read(&file).unwrap(), b"data");

    let used = directory.path().join("used");
    let owner = UnixListener::bind(&used).unwrap();
    assert!(matches!(server::listen(&used), Err(Error::InUse(_))));
    drop(owner);
    assert!(server::listen(&used).is_ok());

    let nowhere = directory.path().join("none").join("socket");
    assert!(matches!(
        server::listen(&nowhere),
        Err(Error::Listen { .. })
    ));
}
