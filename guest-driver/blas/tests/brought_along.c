// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
/*
 * A program that brings its BLAS along, as numpy does from PyPI: under other names, with integers of 64
 * bits, and opened for itself alone. In three parts, each compiled from this file:
 *
 *   -DPART_BLAS       the library: products by definition, which count their calls
 *   -DPART_EXTENSION  a module that was linked with it
 *   neither           the program, which opens the module: brought_along MODULE
 *
 * It prints how many products that library has made.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#if defined(PART_BLAS)

int brought_along_calls;

static void multiply(char transa, char transb, int64_t m, int64_t n, int64_t k, double alpha, const double *a, int64_t lda,
		     const double *b, int64_t ldb, double beta, double *c, int64_t ldc)
{
	brought_along_calls++;
	for (int64_t j = 0; j < n; j++) {
		for (int64_t i = 0; i < m; i++) {
			double sum = 0;

			for (int64_t p = 0; p < k; p++)
				sum += (transa == 'T' ? a[p + i * lda] : a[i + p * lda]) *
				       (transb == 'T' ? b[j + p * ldb] : b[p + j * ldb]);
			c[i + j * ldc] = alpha * sum + (beta == 0 ? 0 : beta * c[i + j * ldc]);
		}
	}
}

/* Names of products with integers of a type, and of what is not called here and has to be there. */
#define FAMILY(INT, FORTRAN, C)                                                                                \
	void FORTRAN(dgemm)(const char *transa, const char *transb, const INT *m, const INT *n, const INT *k,  \
			    const double *alpha, const double *a, const INT *lda, const double *b,             \
			    const INT *ldb, const double *beta, double *c, const INT *ldc)                     \
	{                                                                                                      \
		multiply(*transa, *transb, *m, *n, *k, *alpha, a, *lda, b, *ldb, *beta, c, *ldc);               \
	}                                                                                                      \
	void C(dgemm)(int layout, int transa, int transb, INT m, INT n, INT k, double alpha, const double *a,  \
		      INT lda, const double *b, INT ldb, double beta, double *c, INT ldc)                      \
	{                                                                                                      \
		char ta = transa == 112 ? 'T' : 'N', tb = transb == 112 ? 'T' : 'N';                           \
                                                                                                               \
		if (layout == 101)                                                                             \
			multiply(tb, ta, n, m, k, alpha, b, ldb, a, lda, beta, c, ldc);                        \
		else                                                                                           \
			multiply(ta, tb, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);                        \
	}                                                                                                      \
	void FORTRAN(dsyrk)(void) { abort(); }                                                                 \
	void FORTRAN(dsymm)(void) { abort(); }                                                                 \
	void FORTRAN(dtrsm)(void) { abort(); }

#define ILP64_FORTRAN(name) name##_64_
#define ILP64_C(name) cblas_##name##64_
#define SCIPY_FORTRAN(name) scipy_##name##_
#define SCIPY_C(name) scipy_cblas_##name
#define SCIPY_ILP64_FORTRAN(name) scipy_##name##_64_
#define SCIPY_ILP64_C(name) scipy_cblas_##name##64_

FAMILY(int64_t, ILP64_FORTRAN, ILP64_C)
FAMILY(int, SCIPY_FORTRAN, SCIPY_C)
FAMILY(int64_t, SCIPY_ILP64_FORTRAN, SCIPY_ILP64_C)

#elif defined(PART_EXTENSION)

extern int brought_along_calls;
#define DECLARE(INT, FORTRAN, C)                                                                                 \
	void FORTRAN(const char *, const char *, const INT *, const INT *, const INT *, const double *,          \
		     const double *, const INT *, const double *, const INT *, const double *, double *,         \
		     const INT *);                                                                               \
	void C(int, int, int, INT, INT, INT, double, const double *, INT, const double *, INT, double, double *, \
	       INT);

DECLARE(int64_t, dgemm_64_, cblas_dgemm64_)
DECLARE(int, scipy_dgemm_, scipy_cblas_dgemm)
DECLARE(int64_t, scipy_dgemm_64_, scipy_cblas_dgemm64_)

/* A is 2x3 by rows and B its transpose; A times B is symmetric, so that it is the same by columns. */
static const double A[] = { 1, 2, 3, 4, 5, 6 };
static const double PRODUCT[] = { 14, 32, 32, 77 };

static void expect(const double *got, const double *wanted, int count, const char *what)
{
	for (int i = 0; i < count; i++) {
		if (got[i] != wanted[i]) {
			printf("%s: element %d is %g, not %g\n", what, i, got[i], wanted[i]);
			exit(1);
		}
	}
}

#define CHECK(INT, FORTRAN, C)                                                                           \
	do {                                                                                             \
		const INT two = 2, three = 3;                                                            \
		const double one = 1, zero = 0;                                                          \
		double c[4];                                                                             \
                                                                                                         \
		FORTRAN("T", "N", &two, &two, &three, &one, A, &three, A, &three, &zero, c, &two);       \
		expect(c, PRODUCT, 4, #FORTRAN);                                                         \
		C(101, 111, 112, 2, 2, 3, 1, A, 3, A, 3, 0, c, 2);                                       \
		expect(c, PRODUCT, 4, #C);                                                               \
	} while (0)

int extension_run(void)
{
	/* Of a matrix of one column the next one may be anywhere: as 32 bits this is 1, less than its rows. */
	const int64_t far = ((int64_t)1 << 32) + 1;
	double column[3];

	CHECK(int64_t, dgemm_64_, cblas_dgemm64_);
	CHECK(int, scipy_dgemm_, scipy_cblas_dgemm);
	CHECK(int64_t, scipy_dgemm_64_, scipy_cblas_dgemm64_);
	scipy_cblas_dgemm64_(102, 111, 111, 3, 1, 1, 1, A, far, A, far, 0, column, far);
	expect(column, A, 3, "leading dimension of 33 bits");
	return brought_along_calls;
}

#else

#include <dlfcn.h>

int main(int argc, char **argv)
{
	void *module = argc == 2 ? dlopen(argv[1], RTLD_NOW | RTLD_LOCAL) : NULL;
	int (*run)(void) = module ? (int (*)(void))dlsym(module, "extension_run") : NULL;

	if (!run) {
		fprintf(stderr, "brought_along MODULE: %s\n", dlerror());
		return 2;
	}
	printf("%d\n", run());
	return 0;
}

#endif
