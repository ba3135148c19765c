// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
/*
 * Times calls of the BLAS that this program was linked with and of another one, in turn.
 *
 *   blas_sweep OTHER-BLAS ROUNDS CALL:M:N:K[:LD | :there]...
 *
 * CALL is dgemm, dsyrk, dsymm, dtrsm, dgemv or ddot, or the same with s. M and N are the destination's
 * size, K the depth of a product; LD is the leading dimension of all matrices, which lie as parts of
 * larger ones if it is larger than they are. Each round writes all matrices anew, untimed, and then
 * times the call and a look of the CPU at every page of every matrix: what the call has left
 * elsewhere has to come back. Each of the two libraries has matrices of its own. With "there"
 * all are brought to the device before each call, untimed, as if a call before had left them there, and
 * the CPU looks at the destination alone.
 *
 * A line of JSON a call: seconds of both and of the linked library's call alone (medians), the median of
 * the quotients of the rounds, in how many of them the device was at work, and the largest difference of
 * results, relative to the largest result.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>

#include "coax.h"

#define MAX_ROUNDS 99
/* Operations that a process must have asked for before the library measures, and more. */
#define SETTLE_SIZE 256
#define SETTLE_CALLS 5

struct shape {
	int m, n, k, ld, there;
};

static int device = -1;

static void die(int status, const char *what)
{
	fprintf(stderr, "blas_sweep: %s\n", what);
	exit(status);
}

static double now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return (double)time.tv_sec + (double)time.tv_nsec * 1e-9;
}

/* Commands that the device has taken since it was started. */
static unsigned long long commands(void)
{
	struct coax_ioc_stats stats = { 0 };

	if (device < 0 || ioctl(device, COAX_IOC_STATS, &stats) != 0)
		return 0;
	return stats.device[0];
}

/* Brings memory to the device; what does not move the device uses where it is. */
static void bring(const void *from, size_t bytes)
{
	size_t page = 4096, start = (size_t)from & ~(page - 1);
	struct coax_ioc_migrate migrate = {
		.addr = start,
		.len = (((size_t)from + bytes + page - 1) & ~(page - 1)) - start,
		.direction = COAX_MIGRATE_TO_DEVICE,
	};

	if (device >= 0)
		ioctl(device, COAX_IOC_MIGRATE, &migrate);
}

static int ascending(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static double median(double *times, int count)
{
	qsort(times, count, sizeof *times, ascending);
	return times[count / 2];
}

#define T double
#define P(name) d##name
#include "sweep_calls.h"
#undef T
#undef P

#define T float
#define P(name) s##name
#include "sweep_calls.h"

int main(int argc, char **argv)
{
	void *other;
	int rounds;

	if (argc < 4 || !(other = dlopen(argv[1], RTLD_NOW | RTLD_LOCAL))) {
		fprintf(stderr, "usage: blas_sweep OTHER-BLAS ROUNDS CALL:M:N:K[:LD | :there]... (%s)\n", dlerror());
		return 2;
	}
	rounds = atoi(argv[2]);
	if (rounds < 1 || rounds > MAX_ROUNDS)
		die(2, "ROUNDS is not from 1 to 99");
	device = open("/dev/coax0", O_RDWR | O_CLOEXEC);
	dsettle();
	ssettle();
	for (int n = 3; n < argc; n++) {
		struct shape shape = { 0 };
		char call[8];

		if (sscanf(argv[n], "%7[a-z]:%d:%d:%d:%d", call, &shape.m, &shape.n, &shape.k, &shape.ld) < 4)
			die(2, argv[n]);
		shape.there = strstr(argv[n], ":there") != NULL;
		if (call[0] == 'd')
			dtime(other, call, shape, rounds);
		else
			stime(other, call, shape, rounds);
	}
	if (fflush(stdout) || ferror(stdout))
		die(1, "standard output cannot be written");
	return 0;
}
