// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
/*
 * An ordinary program on libblas: it knows nothing of the library that stands in, and compares
 * what it gets with the CPU's BLAS, which it opens by path.
 *
 *   blas_check CPU-BLAS CASE…
 *
 * Each case prints "ok NAME" or "not ok NAME" with the first difference; the exit status is 1 if
 * one failed.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <float.h>
#include <math.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "coax.h"

static void *cpu_blas;
static _Atomic int failed;
static const char *self_path;

static void complain(const char *format, ...)
{
	va_list arguments;

	/* The first differences tell enough. */
	if (failed++ > 20)
		return;
	va_start(arguments, format);
	fputs("# ", stdout);
	vprintf(format, arguments);
	putchar('\n');
	va_end(arguments);
}

static void *cpu(const char *name)
{
	void *function = dlsym(cpu_blas, name);

	if (!function) {
		printf("Bail out! the CPU's BLAS has no %s\n", name);
		exit(2);
	}
	return function;
}

/* xorshift64; results must be the same in every run. */
static _Thread_local unsigned long long seed = 88172645463325252ull;

static double random_number(void)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return (double)(seed >> 11) / (double)(1ull << 52) - 1.0;
}

/* Wrong arguments end here, in both libraries. */
static _Thread_local int xerbla_count, xerbla_info;

void xerbla_(const char *name, const int *info, size_t length)
{
	(void)name;
	(void)length;
	xerbla_count++;
	xerbla_info = *info;
}

#define T double
#define P(name) d##name
#define EPSILON DBL_EPSILON
#include "blas_cases.h"
#undef T
#undef P
#undef EPSILON

#define T float
#define P(name) s##name
#define EPSILON FLT_EPSILON
#include "blas_cases.h"

static void level3(void)
{
	dlevel3();
	slevel3();
}

static void vectors(void)
{
	dvectors();
	svectors();
}

static void resident(void)
{
	dresident();
	sresident();
}

static void special(void)
{
	dspecial();
	sspecial();
}

static void bad_arguments(void)
{
	dbad_arguments();
	sbad_arguments();
}

static void large(void)
{
	dlarge(400);
	slarge(400);
}

/* Much memory and little to do. */
static void flat(void)
{
	dcheck_gemm('N', 'N', 3100, 2900, 4, 0, 1, 0, 0);
	dcheck_gemm('N', 'N', 3100, 2900, 4, 5, 1, (double)0.5, 0);
}

static void *thread(void *argument)
{
	seed += (unsigned long long)(size_t)argument * 7919;
	for (int round = 0; round < 2; round++) {
		dlarge(130 + 10 * (int)(size_t)argument);
		slarge(130 + 10 * (int)(size_t)argument);
	}
	return NULL;
}

static void threads(void)
{
	pthread_t all[6];

	for (size_t n = 0; n < 6; n++)
		pthread_create(&all[n], NULL, thread, (void *)n);
	for (size_t n = 0; n < 6; n++)
		pthread_join(all[n], NULL);
}

/* A child has a device of its own; the parent's goes on. */
static void forks(void)
{
	dlarge(160);
	for (int round = 0; round < 3; round++) {
		pid_t child = fork();
		int status;

		if (child == 0) {
			failed = 0;
			dlarge(160);
			_exit(failed != 0);
		}
		dlarge(160);
		if (waitpid(child, &status, 0) != child || status != 0)
			complain("the child ended with %#x", status);
	}
}

static _Atomic int stop;

/* Multiplies until it is told to stop, or the process ends. */
static void *busy(void *argument)
{
	int n = 900;
	double one = 1.0, zero = 0.0;
	double *memory = calloc(3 * (size_t)n * n, sizeof(double));
	double *a = memory, *b = memory + (size_t)n * n, *c = b + (size_t)n * n;

	(void)argument;
	while (!stop)
		dgemm_("N", "T", &n, &n, &n, &one, a, &n, b, &n, &zero, c, &n);
	free(memory);
	return NULL;
}

/* A child that ends, or becomes another program, while calls are under way. */
static void ends(const char *how)
{
	int status;
	pid_t child;

	dlarge(200);
	child = fork();
	if (child == 0) {
		pthread_t one, two;

		pthread_create(&one, NULL, busy, NULL);
		pthread_create(&two, NULL, busy, NULL);
		dlarge(160);
		if (!strcmp(how, "exec"))
			execl(self_path, self_path, "true", NULL);
		exit(0);
	}
	if (waitpid(child, &status, 0) != child || status != 0)
		complain("the child ended with %#x", status);
	dlarge(200);
}

static void exits(void)
{
	ends("exit");
}

static void execs(void)
{
	ends("exec");
}

/* Takes the device out of service again and again. */
static void *resetter(void *argument)
{
	int device = open("/dev/coax0", O_RDWR | O_CLOEXEC);

	(void)argument;
	while (device >= 0 && !stop) {
		if (ioctl(device, COAX_IOC_RESET) != 0)
			complain("the device cannot be reset: %m");
		usleep(20000);
	}
	if (device >= 0)
		close(device);
	return NULL;
}

static void resets(void)
{
	pthread_t other;

	stop = 0;
	pthread_create(&other, NULL, resetter, NULL);
	for (int round = 0; round < 8; round++) {
		dlarge(200);
		slarge(200);
	}
	stop = 1;
	pthread_join(other, NULL);
}

/* Goes on until the device is lost, and once more. */
static void loss(void)
{
	int device = 0;

	dlarge(160);
	puts("under way");
	fflush(stdout);
	while (device >= 0) {
		dlarge(160);
		device = open("/dev/coax0", O_RDWR | O_CLOEXEC);
		if (device >= 0)
			close(device);
	}
	dlarge(160);
}

/* As daemons do: all descriptors are closed, and the program's own files get their numbers. */
static void daemons(void)
{
	enum { FILES = 12 };
	int files[FILES];
	char text[16], name[] = "/tmp/blas-check-XXXXXX";

	dlarge(160);
	for (int n = 3; n < 256; n++)
		close(n);
	for (int n = 0; n < FILES; n++) {
		strcpy(name + sizeof name - 7, "XXXXXX");
		files[n] = mkstemp(name);
		if (files[n] < 0)
			complain("no file of the program's own: %m");
		unlink(name);
	}
	dlarge(160);
	for (int n = 0; n < FILES; n++) {
		int length = snprintf(text, sizeof text, "file %d", n);

		if (write(files[n], text, length) != length)
			complain("file %d of the program's own: %m", n);
	}
	dlarge(160);
	for (int n = 0; n < FILES; n++) {
		char found[16] = "";

		snprintf(text, sizeof text, "file %d", n);
		if (pread(files[n], found, sizeof found - 1, 0) < 0 || strcmp(found, text))
			complain("file %d has \"%s\"", n, found);
		close(files[n]);
	}
}

/* A matrix in a mapping that the CPU can read and a device has no business with. */
static void unreachable(void)
{
	const char *path = getenv("BLAS_CHECK_MAPPING");
	int n = 300, file = path ? open(path, O_RDWR) : -1;
	size_t bytes = (size_t)n * n * sizeof(double);
	struct stat stat;
	double *a;

	if (file < 0 || fstat(file, &stat) != 0) {
		complain("there is no mapping to use: %m");
		return;
	}
	bytes = (bytes + 4095) & ~4095ul;
	a = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, file, stat.st_size - (off_t)bytes);
	close(file);
	if (a == MAP_FAILED) {
		complain("the mapping cannot be made: %m");
		return;
	}
	for (int i = 0; i < n * n; i++)
		a[i] = random_number();
	dwith_a(a, n, 0.0);
	dwith_a(a, n, -1.5);
	munmap(a, bytes);
}

static const struct {
	const char *name;
	void (*run)(void);
} cases[] = {
	{ "vectors", vectors },	{ "resident", resident },
	{ "level3", level3 },	{ "special", special },	{ "bad_arguments", bad_arguments },
	{ "large", large },	{ "threads", threads },	{ "forks", forks },
	{ "exits", exits },	{ "execs", execs },	{ "resets", resets },
	{ "unreachable", unreachable }, { "flat", flat },
	{ "loss", loss },	{ "daemons", daemons },
};

int main(int argc, char **argv)
{
	int any = 0;

	self_path = "/proc/self/exe";
	if (argc == 2 && !strcmp(argv[1], "true"))
		return 0;
	if (argc < 3 || !(cpu_blas = dlopen(argv[1], RTLD_NOW | RTLD_LOCAL))) {
		fprintf(stderr, "usage: blas_check CPU-BLAS CASE... (%s)\n", dlerror());
		return 2;
	}
	for (int n = 2; n < argc; n++) {
		size_t known = 0;

		while (known < sizeof cases / sizeof *cases && strcmp(cases[known].name, argv[n]))
			known++;
		if (known == sizeof cases / sizeof *cases) {
			fprintf(stderr, "blas_check: there is no case %s\n", argv[n]);
			return 2;
		}
		failed = 0;
		cases[known].run();
		printf("%s %s\n", failed ? "not ok" : "ok", argv[n]);
		fflush(stdout);
		any |= failed != 0;
	}
	return any;
}
