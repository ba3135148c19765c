/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/*
 * Compiles coax.h, compares it with the Rust side and calls every symbol once without a device.
 *
 * expected.h is written by c_abi.rs: one COAX_CHECK(expression, value) for each size, offset and
 * number that Rust knows.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "coax.h"

#define COAX_CHECK(expression, value) \
	_Static_assert((expression) == (value), #expression " differs from the Rust side")
#include "expected.h"

static int failures;

#define EXPECT(call, value)                                                      \
	do {                                                                     \
		long got = (call);                                               \
		if (got != (value)) {                                            \
			fprintf(stderr, "%s gave %ld, not %ld\n", #call, got,    \
				(long)(value));                                  \
			failures++;                                              \
		}                                                                \
	} while (0)

int main(void)
{
	struct coax *coax = NULL;
	struct coax_ioc_info info;
	struct coax_ioc_stats stats;
	struct coax_command command = { .opcode = COAX_OP_NOP };
	struct coax_completion completion;
	struct coax_list_layout list = { .max_nodes = 1 };
	struct coax_list_result sum;
	struct coax_tree_layout tree = { .max_depth = 1 };
	struct coax_tree_result hit;
	struct coax_gemm gemm = { 1, 1, 1, 1, 1, 1, 0 };
	struct coax_migrated migrated;
	struct coax_ioc_policy_at policy;
	uint8_t bytes[32], other[32], where;
	uint64_t word64 = 0, before64;
	uint32_t word32 = 0, before32;
	uint64_t counts[256], pages[4], id;
	float single = 0;
	double twice = 0;

	EXPECT(coax_open("/nonexistent/coax", &coax), -ENOENT);
	EXPECT(coax_open("/dev/null", &coax), -ENOTTY);
	EXPECT(coax_open("/dev/null", NULL), -EINVAL);
	EXPECT(coax == NULL, 1);
	EXPECT(strcmp(coax_reason(COAX_STATUS_FAULT), "address not accessible"), 0);
	EXPECT(strcmp(coax_reason(COAX_STATUS_OK), "done"), 0);

	/* Without a context every call says so, and none touches its other arguments. */
	EXPECT(coax_fd(coax), -EINVAL);
	EXPECT(coax_info(coax, &info), -EINVAL);
	EXPECT(coax_stats(coax, &stats), -EINVAL);
	EXPECT(coax_reset(coax), -EINVAL);
	EXPECT(coax_submit(coax, &command, &id), -EINVAL);
	EXPECT(coax_submit(coax, &command, NULL), -EINVAL);
	EXPECT(coax_wait(coax, 1, 0, &completion), -EINVAL);
	EXPECT(coax_run(coax, &command, &completion), -EINVAL);
	EXPECT(coax_run(coax, NULL, &completion), -EINVAL);
	EXPECT(coax_copy(coax, bytes, other, sizeof(bytes), &completion), -EINVAL);
	EXPECT(coax_fill(coax, bytes, sizeof(bytes), 0, &completion), -EINVAL);
	EXPECT(coax_sha256(coax, other, sizeof(other), bytes, &completion), -EINVAL);
	EXPECT(coax_histogram(coax, other, sizeof(other), counts, NULL), -EINVAL);
	EXPECT(coax_list_sum(coax, NULL, &list, &sum, &completion), -EINVAL);
	EXPECT(coax_list_sum(coax, NULL, NULL, &sum, &completion), -EINVAL);
	EXPECT(coax_tree_search(coax, NULL, 1, &tree, &hit, &completion), -EINVAL);
	EXPECT(coax_tree_search(coax, NULL, 1, NULL, &hit, &completion), -EINVAL);
	EXPECT(coax_sgemm(coax, &gemm, 1, &single, &single, 0, &single, NULL), -EINVAL);
	EXPECT(coax_dgemm(coax, &gemm, 1, &twice, &twice, 0, &twice, NULL), -EINVAL);
	EXPECT(coax_dgemm(coax, NULL, 1, &twice, &twice, 0, &twice, NULL), -EINVAL);
	EXPECT(coax_fetch_add64(coax, &word64, 1, &before64, &completion), -EINVAL);
	EXPECT(coax_fetch_add32(coax, &word32, 1, &before32, NULL), -EINVAL);
	EXPECT(coax_compare_swap64(coax, &word64, 0, 1, &before64, &completion), -EINVAL);
	EXPECT(coax_compare_swap32(coax, &word32, 0, 1, NULL, NULL), -EINVAL);
	EXPECT(coax_prefetch(coax, bytes, sizeof(bytes), &migrated), -EINVAL);
	EXPECT(coax_evict(coax, bytes, sizeof(bytes), NULL), -EINVAL);
	EXPECT(coax_residency(coax, bytes, 1, &where, pages), -EINVAL);
	EXPECT(coax_set_policy(coax, COAX_POLICY_NEVER, 0), -EINVAL);
	EXPECT(coax_advise(coax, bytes, sizeof(bytes), COAX_POLICY_NEVER, 0), -EINVAL);
	EXPECT(coax_policy_at(coax, bytes, &policy), -EINVAL);
	coax_close(coax);
	return failures != 0;
}
