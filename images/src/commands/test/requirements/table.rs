// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The requirements, and the VM cases that show each.
//!
//! R1 to R6 are those of McKenney's "Coherent on-device memory: access and migration" (linux-mm,
//! April 2015); H1 to H10 are what `Documentation/mm/hmm.rst` promises and asks for.

/// A requirement.
#[derive(Clone, Copy, Debug)]
pub struct Requirement {
    /// As it is called.
    pub id: &'static str,
    /// What it demands.
    pub demands: &'static str,
    /// Cases of the suite `vm`, by subject and name; a subject with a dot behind it stands for all it has.
    pub cases: &'static [&'static str],
    /// What the kernel refuses, and what works instead.
    pub limit: Option<&'static str>,
}

const fn of(
    id: &'static str,
    demands: &'static str,
    cases: &'static [&'static str],
) -> Requirement {
    Requirement {
        id,
        demands,
        cases,
        limit: None,
    }
}

impl Requirement {
    const fn but(mut self, limit: &'static str) -> Self {
        self.limit = Some(limit);
        self
    }
}

const FILES_STAY: &str = "private and coherent mode: the kernel moves no pages of files and of shared memory \
     into ZONE_DEVICE (mm/migrate_device.c), so the device uses them where they are; in numa mode they move";

/// All of them.
pub const ALL: &[Requirement] = &[
    of(
        "R1a",
        "all data can be migrated off the device at any time",
        &[
            "migration.evict_brings_everything_back",
            "reset.device_pages_go_to_system_memory",
            "reset.commands_of_all_contexts_end_cancelled",
            "lifecycle.unloading_brings_pages_back",
            "lifecycle.unbinding_brings_pages_back",
            "lifecycle.removing_the_pci_function_brings_pages_back",
            "numa_removal.a_reset_empties_the_node",
        ],
    ),
    of(
        "R1b",
        "ordinary allocation avoids device memory",
        &[
            "accounting.ordinary_memory_stays_off_the_device",
            "numa.ordinary_memory_stays_off_the_node",
            "numa.the_node_is_for_movable_pages_only",
            "numa.memory_falls_back_to_the_node_unless_bound",
        ],
    )
    .but("numa mode: when system memory is full, memory of no policy falls back to the node; binding or a cpuset prevents it"),
    of(
        "R2",
        "device memory is allocated explicitly or implicitly, and implicit use can be avoided",
        &[
            "migration.a_device_fault_moves_the_page",
            "migration.prefetch_moves_and_reports",
            "migration.policy_on_request_moves_on_request_alone",
            "advise.each_range_follows_its_advice",
            "advise.a_request_leaves_what_never_moves",
            "access.write_to_untouched_memory_is_seen",
            "numa.mbind_places_and_moves",
            "numa.set_mempolicy_places",
            "numa.a_cpuset_keeps_off_the_node",
        ],
    ),
    of(
        "R3",
        "device memory is treated like normal memory: every page has a struct page",
        &[
            "migration.residency_agrees_with_pagemap",
            "kernel_access.write_from_device_pages",
            "kernel_access.read_into_device_pages",
            "kernel_access.sockets_take_and_give_device_pages",
            "kernel_access.another_process_reads_device_pages",
            "fork.device_pages_outlive_the_parent",
        ],
    ),
    of(
        "R4",
        "the system's normal tuning controls locality and migration",
        &[
            "reclaim.page_out_of_device_pages_loses_nothing",
            "reclaim.collapse_to_a_huge_page_is_not_noticed",
            "large.without_huge_pages_small_ones_move_on_request",
            "numa.move_pages_moves_there_and_back",
            "numa.mbind_places_and_moves",
            "numa.migrate_pages_moves_a_process",
            "numa.balancing_brings_pages_to_the_cpu",
            "numa_removal.blocks_go_offline_and_online",
        ],
    )
    .but("private and coherent mode: ZONE_DEVICE pages are in no node's lists, so madvise applies and NUMA policies do not; numa mode has both"),
    of(
        "R5",
        "it can be configured to migrate nothing",
        &[
            "no_migration.with_policy_never_nothing_moves",
            "no_migration.with_policy_on_request_no_fault_moves",
            "migration.policy_never_moves_nothing",
            "advise.a_request_leaves_what_never_moves",
            "numa.a_device_fault_moves_nothing",
            "numa.the_driver_leaves_moving_to_the_system",
        ],
    ),
    of(
        "R6a",
        "the same address is the same memory on CPU and device, by switching a library",
        &[
            "coherence.",
            "commands.list_sum_visits_every_node",
            "commands.tree_search_finds_what_is_there",
            "blas.an_unchanged_program_gets_the_cpus_results",
            "blas.the_library_is_found_by_preload_and_by_path",
        ],
    ),
    of(
        "R6b",
        "the device reaches any memory however it was allocated",
        &[
            "kinds.stack",
            "kinds.initialised_data",
            "kinds.zeroed_data",
            "kinds.program_text",
            "kinds.small_heap_blocks",
            "kinds.large_heap_block",
            "kinds.shared_anonymous_memory",
            "kinds.memfd",
            "kinds.shared_file_mapping",
            "kinds.private_file_mapping_is_copied_on_write",
            "migration.file_and_shared_pages_stay",
            "numa_files.",
        ],
    )
    .but(FILES_STAY),
    of(
        "R6c",
        "memory that the device never uses is not interfered with",
        &[
            "access.unaligned_ranges_leave_their_neighbours_alone",
            "migration.fault_around_of_one_moves_one_page",
            "migration.residency_touches_nothing",
            "capacity.more_than_device_memory_is_written",
            "blas.matrices_larger_than_device_memory_are_used_in_place",
        ],
    ),
    of(
        "H1",
        "any valid pointer of the CPU is valid on the device",
        &["kinds.", "access.read_only_memory_is_read"],
    ),
    of(
        "H2",
        "the device's view follows every change of the mappings before the change is done",
        &["mapping_changes.", "storm.mappings_come_and_go_under_commands"],
    ),
    of(
        "H3",
        "pages are faulted in as the device asks, and only looked at where it does not",
        &[
            "access.read_of_untouched_memory_gives_zeros",
            "access.write_to_read_only_memory_is_refused",
            "access.unmapped_memory_is_refused",
            "migration.residency_touches_nothing",
        ],
    ),
    of(
        "H4",
        "a CPU that touches a private page brings it back; a coherent one it uses in place",
        &[
            "migration.a_cpu_access_brings_the_page_back",
            "migration.a_cpu_access_leaves_the_page",
            "migration.cpu_writes_to_device_pages_are_kept",
        ],
    ),
    of(
        "H5",
        "migration in three steps: holes become device pages, races are lost without harm",
        &[
            "access.write_to_untouched_memory_is_seen",
            "storm.nobody_loses_a_write_while_pages_move",
            "large_ranges.both_directions_at_once_keep_every_byte",
            "mapping_changes.migration_under_a_walk_is_not_noticed",
        ],
    ),
    of(
        "H6",
        "a device takes its own pages alone",
        &[
            "two_devices.a_peers_memory_is_used_in_place",
            "two_devices.a_request_leaves_the_peers_pages",
            "two_devices.fork_keeps_two_devices_apart",
        ],
    ),
    of(
        "H7",
        "exclusive access for the device's atomic operations",
        &[
            "atomics.nothing_is_lost_in_system_memory",
            "atomics.nothing_is_lost_in_device_memory",
            "atomics.fork_keeps_the_words_of_parent_and_child_apart",
            "atomics.protection_reaches_a_page_that_the_device_has",
        ],
    ),
    of(
        "H8",
        "device pages count as resident and are charged to the cgroup; coming back does not fail at its limit",
        &[
            "accounting.device_pages_count_as_resident",
            "accounting.a_cgroup_is_charged_for_device_pages",
        ],
    ),
    of(
        "H9",
        "device pages are not pinned for long, and are freed when the process ends",
        &[
            "large.moved_huge_pages_can_be_pinned_for_long",
            "kernel_access.pinned_pages_are_used_in_place",
            "exit.a_process_killed_with_device_pages_leaves_nothing",
            "exit.exit_without_close_leaves_nothing",
        ],
    )
    .but("numa mode: pages of the node are ordinary movable memory; a long-term pin moves them off the node first"),
    of(
        "H10",
        "what moves when is the driver's policy",
        &[
            "migration.policy_never_moves_nothing",
            "migration.policy_on_request_moves_on_request_alone",
            "migration.a_device_fault_moves_the_page",
            "migration.fault_around_of_one_moves_one_page",
            "advise.",
            "advise_limits.two_threads_advise_while_the_device_faults",
        ],
    ),
];
