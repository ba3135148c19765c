// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
/*
 * An ordinary program on libblas, which knows nothing of devices: least squares by the normal equations.
 *
 *   normal_equations ROWS UNKNOWNS SIDES [FILE]
 *
 * Makes G = XᵀX of a matrix X of ROWS × UNKNOWNS (dsyrk), right-hand sides Y = G·B for a B that it knows
 * (dsymm), G's Cholesky factor (dtrsm, dsyrk), and solves G·Z = Y (dtrsm). Z is B but for rounding. Prints
 * the seconds of all that and the largest difference of Z and B, and writes Z to FILE.
 */
#define _POSIX_C_SOURCE 200809L
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

/* Columns that the program factors by itself. */
#define BLOCK 64

extern void dsyrk_(const char *, const char *, const int *, const int *, const double *, const double *,
		   const int *, const double *, double *, const int *, size_t, size_t);
extern void dsymm_(const char *, const char *, const int *, const int *, const double *, const double *,
		   const int *, const double *, const int *, const double *, double *, const int *, size_t,
		   size_t);
extern void dtrsm_(const char *, const char *, const char *, const char *, const int *, const int *,
		   const double *, const double *, const int *, double *, const int *, size_t, size_t,
		   size_t, size_t);

static const double one = 1, minus_one = -1, zero = 0;

static void die(int status, const char *what)
{
	fprintf(stderr, "normal_equations: %s\n", what);
	exit(status);
}

/* xorshift64: the same numbers in every run, from -1 to 1. */
static double *numbers(size_t count)
{
	static unsigned long long seed = 88172645463325252ull;
	double *all = malloc(count * sizeof *all);

	if (!all)
		die(1, "no memory");
	for (size_t i = 0; i < count; i++) {
		seed ^= seed << 13;
		seed ^= seed >> 7;
		seed ^= seed << 17;
		all[i] = (double)(seed >> 11) / (double)(1ull << 52) - 1;
	}
	return all;
}

/* The lower factor of a block on the diagonal, in its place. */
static void factor_block(double *g, int n, int ld)
{
	for (int j = 0; j < n; j++) {
		double *column = g + (size_t)j * ld, pivot = column[j];

		for (int k = 0; k < j; k++)
			pivot -= g[j + (size_t)k * ld] * g[j + (size_t)k * ld];
		if (!(pivot > 0))
			die(1, "the matrix is not positive definite");
		pivot = sqrt(pivot);
		column[j] = pivot;
		for (int k = 0; k < j; k++)
			for (int i = j + 1; i < n; i++)
				column[i] -= g[i + (size_t)k * ld] * g[j + (size_t)k * ld];
		for (int i = j + 1; i < n; i++)
			column[i] /= pivot;
	}
}

/* The lower Cholesky factor of G in its place. */
static void factor(double *g, int n)
{
	for (int start = 0; start < n; start += BLOCK) {
		int width = n - start < BLOCK ? n - start : BLOCK, rest = n - start - width;
		double *block = g + start + (size_t)start * n, *below = block + width;

		factor_block(block, width, n);
		if (rest == 0)
			return;
		dtrsm_("R", "L", "T", "N", &rest, &width, &one, block, &n, below, &n, 1, 1, 1, 1);
		dsyrk_("L", "N", &rest, &width, &minus_one, below, &n, &one, below + (size_t)width * n, &n, 1, 1);
	}
}

int main(int argc, char **argv)
{
	int rows = argc > 3 ? atoi(argv[1]) : 0, n = argc > 3 ? atoi(argv[2]) : 0;
	int sides = argc > 3 ? atoi(argv[3]) : 0;
	struct timespec begin, end;
	double *x, *b, *g, *z, worst = 0;
	FILE *file;

	if (rows < n || n < 1 || sides < 1)
		die(2, "usage: normal_equations ROWS UNKNOWNS SIDES [FILE], with ROWS >= UNKNOWNS");
	x = numbers((size_t)rows * n);
	b = numbers((size_t)n * sides);
	g = malloc((size_t)n * n * sizeof *g);
	z = malloc((size_t)n * sides * sizeof *z);
	if (!g || !z)
		die(1, "no memory");
	clock_gettime(CLOCK_MONOTONIC, &begin);
	dsyrk_("L", "T", &n, &rows, &one, x, &rows, &zero, g, &n, 1, 1);
	dsymm_("L", "L", &n, &sides, &one, g, &n, b, &n, &zero, z, &n, 1, 1);
	factor(g, n);
	dtrsm_("L", "L", "N", "N", &n, &sides, &one, g, &n, z, &n, 1, 1, 1, 1);
	dtrsm_("L", "L", "T", "N", &n, &sides, &one, g, &n, z, &n, 1, 1, 1, 1);
	for (size_t i = 0; i < (size_t)n * sides; i++)
		worst = fmax(worst, fabs(z[i] - b[i]));
	clock_gettime(CLOCK_MONOTONIC, &end);
	printf("{\"seconds\":%.6f,\"difference\":%.3e}\n",
	       (double)(end.tv_sec - begin.tv_sec) + (double)(end.tv_nsec - begin.tv_nsec) * 1e-9, worst);
	if (argc > 4) {
		file = fopen(argv[4], "wb");
		if (!file || fwrite(z, sizeof *z, (size_t)n * sides, file) != (size_t)n * sides || fclose(file))
			die(1, "the solution cannot be written");
	}
	if (fflush(stdout) || ferror(stdout))
		die(1, "standard output cannot be written");
	return 0;
}
