/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* The cases in one precision: T is the type, P(name) the name with its letter. */

typedef void P(gemm_t)(const char *, const char *, const int *, const int *, const int *, const T *,
		       const T *, const int *, const T *, const int *, const T *, T *, const int *);
typedef void P(syrk_t)(const char *, const char *, const int *, const int *, const T *, const T *,
		       const int *, const T *, T *, const int *);
typedef void P(symm_t)(const char *, const char *, const int *, const int *, const T *, const T *,
		       const int *, const T *, const int *, const T *, T *, const int *);
typedef void P(trsm_t)(const char *, const char *, const char *, const char *, const int *,
		       const int *, const T *, const T *, const int *, T *, const int *);

typedef void P(gemv_t)(const char *, const int *, const int *, const T *, const T *, const int *,
		       const T *, const int *, const T *, T *, const int *);
typedef T P(dot_t)(const int *, const T *, const int *, const T *, const int *);

extern P(gemm_t) P(gemm_);
extern P(syrk_t) P(syrk_);
extern P(symm_t) P(symm_);
extern P(trsm_t) P(trsm_);
extern P(gemv_t) P(gemv_);
extern P(dot_t) P(dot_);

#define PASTE2(a, b) a##b
#define PASTE(a, b) PASTE2(a, b)
#define STRING2(a) #a
#define STRING(a) STRING2(a)
#define CBLAS(name) PASTE(cblas_, P(name))

extern void CBLAS(gemm)(int, int, int, int, int, int, T, const T *, int, const T *, int, T, T *, int);
extern void CBLAS(syrk)(int, int, int, int, int, T, const T *, int, T, T *, int);
extern void CBLAS(symm)(int, int, int, int, int, T, const T *, int, const T *, int, T, T *, int);
extern void CBLAS(trsm)(int, int, int, int, int, int, int, T, const T *, int, T *, int);
extern void CBLAS(gemv)(int, int, int, int, T, const T *, int, const T *, int, T, T *, int);
extern T CBLAS(dot)(int, const T *, int, const T *, int);
extern T PASTE(P(asum), _)(const int *, const T *, const int *);

/* Two copies of a destination with room between its columns, and beyond it. */
struct P(pair) {
	T *ours, *cpus;
	size_t count;
};

static struct P(pair) P(pair)(size_t count)
{
	struct P(pair) pair = { malloc(count * sizeof(T)), malloc(count * sizeof(T)), count };

	for (size_t i = 0; i < count; i++)
		pair.ours[i] = pair.cpus[i] = (T)random_number();
	return pair;
}

static T *P(numbers)(size_t count)
{
	T *numbers = malloc(count * sizeof(T));

	for (size_t i = 0; i < count; i++)
		numbers[i] = (T)random_number();
	return numbers;
}

/* Compares all elements, those between the columns included, and frees both. */
static void P(same)(struct P(pair) pair, double steps, const char *what)
{
	double tolerance = 8 * EPSILON * (steps + 10);

	for (size_t i = 0; i < pair.count; i++) {
		double ours = pair.ours[i], cpus = pair.cpus[i];

		if (isnan(ours) && isnan(cpus))
			continue;
		if (ours == cpus || fabs(ours - cpus) <= tolerance * fmax(1.0, fabs(cpus)))
			continue;
		complain("%s: element %zu of %zu is %g, not %g", what, i, pair.count, ours, cpus);
		break;
	}
	free(pair.ours);
	free(pair.cpus);
}

/* A triangle that is far from singular; nothing outside of it may be read. */
static T *P(triangle)(int order, int ld, char uplo, char diag)
{
	T *a = P(numbers)((size_t)ld * order + 1);

	for (int j = 0; j < order; j++)
		for (int i = 0; i < order; i++) {
			T *element = &a[i + (size_t)j * ld];

			if (i == j)
				*element = diag == 'U' ? (T)NAN : 2 + *element / 2;
			else if ((uplo == 'L') == (i > j))
				*element /= (T)order;
			else
				*element = (T)NAN;
		}
	return a;
}

static const T P(factors)[][2] = { { 1, 0 }, { -1, 1 }, { (T)0.5, -2 }, { 0, 3 } };
#define FACTORS (sizeof P(factors) / sizeof *P(factors))

static void P(check_gemm)(char ta, char tb, int m, int n, int k, int gap, T alpha, T beta, int c_interface)
{
	int lda = (ta == 'N' ? m : k) + gap + 1, ldb = (tb == 'N' ? k : n) + gap + 1, ldc = m + gap + 1;
	size_t a_cols = ta == 'N' ? k : m, b_cols = tb == 'N' ? n : k;
	T *a = P(numbers)(lda * a_cols + 1), *b = P(numbers)(ldb * b_cols + 1);
	struct P(pair) c = P(pair)((size_t)ldc * n + 1);
	char what[100];

	/* Old C does not count, whatever is in it. */
	if (beta == 0)
		for (size_t i = 0; i < c.count; i++)
			c.ours[i] = c.cpus[i] = (T)NAN;
	((P(gemm_t) *)cpu(STRING(P(gemm_))))(&ta, &tb, &m, &n, &k, &alpha, a, &lda, b, &ldb, &beta,
					     c.cpus, &ldc);
	if (c_interface)
		/* The same memory, row by row: the transposed product. */
		CBLAS(gemm)(101, tb == 'N' ? 111 : 112, ta == 'N' ? 111 : 112, n, m, k, alpha, b, ldb, a,
			    lda, beta, c.ours, ldc);
	else
		P(gemm_)(&ta, &tb, &m, &n, &k, &alpha, a, &lda, b, &ldb, &beta, c.ours, &ldc);
	snprintf(what, sizeof what, STRING(P(gemm)) " %c%c %d %d %d + %d, %g %g, C %d", ta, tb, m, n, k, gap,
		 (double)alpha, (double)beta, c_interface);
	P(same)(c, k, what);
	free(a);
	free(b);
}

static void P(check_syrk)(char uplo, char trans, int n, int k, int gap, T alpha, T beta, int c_interface)
{
	int lda = (trans == 'N' ? n : k) + gap + 1, ldc = n + gap + 1;
	T *a = P(numbers)((size_t)lda * (trans == 'N' ? k : n) + 1);
	struct P(pair) c = P(pair)((size_t)ldc * n + 1);
	char what[100];

	((P(syrk_t) *)cpu(STRING(P(syrk_))))(&uplo, &trans, &n, &k, &alpha, a, &lda, &beta, c.cpus, &ldc);
	if (c_interface)
		CBLAS(syrk)(101, uplo == 'U' ? 122 : 121, trans == 'N' ? 112 : 111, n, k, alpha, a, lda,
			    beta, c.ours, ldc);
	else
		P(syrk_)(&uplo, &trans, &n, &k, &alpha, a, &lda, &beta, c.ours, &ldc);
	snprintf(what, sizeof what, STRING(P(syrk)) " %c%c %d %d + %d, %g %g, C %d", uplo, trans, n, k, gap,
		 (double)alpha, (double)beta, c_interface);
	P(same)(c, k, what);
	free(a);
}

static void P(check_symm)(char side, char uplo, int m, int n, int gap, T alpha, T beta, int c_interface)
{
	int order = side == 'L' ? m : n, lda = order + gap + 1, ldb = m + gap + 2, ldc = m + gap + 1;
	T *a = P(triangle)(order, lda, uplo, 'N'), *b = P(numbers)((size_t)ldb * n + 1);
	struct P(pair) c = P(pair)((size_t)ldc * n + 1);
	char what[100];

	((P(symm_t) *)cpu(STRING(P(symm_))))(&side, &uplo, &m, &n, &alpha, a, &lda, b, &ldb, &beta, c.cpus,
					     &ldc);
	if (c_interface)
		CBLAS(symm)(101, side == 'L' ? 142 : 141, uplo == 'U' ? 122 : 121, n, m, alpha, a, lda, b,
			    ldb, beta, c.ours, ldc);
	else
		P(symm_)(&side, &uplo, &m, &n, &alpha, a, &lda, b, &ldb, &beta, c.ours, &ldc);
	snprintf(what, sizeof what, STRING(P(symm)) " %c%c %d %d + %d, %g %g, C %d", side, uplo, m, n, gap,
		 (double)alpha, (double)beta, c_interface);
	P(same)(c, order, what);
	free(a);
	free(b);
}

static void P(check_trsm)(char side, char uplo, char trans, char diag, int m, int n, int gap, T alpha,
			  int c_interface)
{
	int order = side == 'L' ? m : n, lda = order + gap + 1, ldb = m + gap + 1;
	T *a = P(triangle)(order, lda, uplo, diag);
	struct P(pair) b = P(pair)((size_t)ldb * n + 1);
	char what[100];

	((P(trsm_t) *)cpu(STRING(P(trsm_))))(&side, &uplo, &trans, &diag, &m, &n, &alpha, a, &lda, b.cpus,
					     &ldb);
	if (c_interface)
		CBLAS(trsm)(101, side == 'L' ? 142 : 141, uplo == 'U' ? 122 : 121, trans == 'N' ? 111 : 112,
			    diag == 'N' ? 131 : 132, n, m, alpha, a, lda, b.ours, ldb);
	else
		P(trsm_)(&side, &uplo, &trans, &diag, &m, &n, &alpha, a, &lda, b.ours, &ldb);
	snprintf(what, sizeof what, STRING(P(trsm)) " %c%c%c%c %d %d + %d, %g, C %d", side, uplo, trans, diag,
		 m, n, gap, (double)alpha, c_interface);
	P(same)(b, 4.0 * order, what);
	free(a);
}

/* Every letter, factors that matter, sizes around the blocks, columns apart and together. */
static void P(level3)(void)
{
	static const int sizes[][3] = { { 70, 65, 67 }, { 1, 130, 40 }, { 130, 1, 40 },
					{ 5, 0, 5 },	{ 5, 5, 0 },	{ 270, 40, 35 } };
	static const char two[][3] = { "NT", "UL", "LR" };

	for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++)
		for (size_t f = 0; f < FACTORS; f++)
			for (int form = 0; form < 16; form++) {
				T alpha = P(factors)[f][0], beta = P(factors)[f][1];
				int m = sizes[s][0], n = sizes[s][1], k = sizes[s][2];
				char trans = two[0][form & 1], other = two[0][form >> 1 & 1];
				char uplo = two[1][form >> 1 & 1], side = two[2][form >> 2 & 1];
				char diag = form >> 3 & 1 ? 'U' : 'N';
				int gap = form & 1 ? 7 : 0, c = form >> 2 & 1, last = form >> 3 & 1;

				if (!last)
					P(check_gemm)(trans, other, m, n, k, gap, alpha, beta, c);
				if (!last)
					P(check_syrk)(uplo, trans, n, k, gap, alpha, beta, c);
				if (!last)
					P(check_symm)(side, uplo, m, n, gap, alpha, beta, form & 1);
				P(check_trsm)(side, uplo, trans, diag, m, n, gap, alpha, form & 1);
			}
}

static void P(check_gemv)(char trans, int m, int n, int gap, T alpha, int incx, T beta, int incy,
			  int c_interface)
{
	int lda = m + gap + 1, from = trans == 'N' ? n : m, to = trans == 'N' ? m : n;
	T *a = P(numbers)((size_t)lda * n + 1), *x = P(numbers)((size_t)from * abs(incx) + 1);
	struct P(pair) y = P(pair)((size_t)to * abs(incy) + 1);
	char what[100];

	((P(gemv_t) *)cpu(STRING(P(gemv_))))(&trans, &m, &n, &alpha, a, &lda, x, &incx, &beta, y.cpus, &incy);
	if (c_interface)
		/* The same memory, row by row. */
		CBLAS(gemv)(101, trans == 'N' ? 112 : 111, n, m, alpha, a, lda, x, incx, beta, y.ours, incy);
	else
		P(gemv_)(&trans, &m, &n, &alpha, a, &lda, x, &incx, &beta, y.ours, &incy);
	snprintf(what, sizeof what, STRING(P(gemv)) " %c %d %d + %d, %g %g, steps %d %d, C %d", trans, m, n,
		 gap, (double)alpha, (double)beta, incx, incy, c_interface);
	P(same)(y, from, what);
	free(a);
	free(x);
}

static void P(check_dot)(int n, int incx, int incy, int c_interface)
{
	T *x = P(numbers)((size_t)n * abs(incx) + 1), *y = P(numbers)((size_t)n * abs(incy) + 1);
	T theirs = ((P(dot_t) *)cpu(STRING(P(dot_))))(&n, x, &incx, y, &incy);
	T ours = c_interface ? CBLAS(dot)(n, x, incx, y, incy) : P(dot_)(&n, x, &incx, y, &incy);

	if (fabs((double)(ours - theirs)) > 8 * EPSILON * (n + 10.0))
		complain(STRING(P(dot)) " %d, steps %d %d, C %d: %g, not %g", n, incx, incy, c_interface,
			 (double)ours, (double)theirs);
	free(x);
	free(y);
}

/* Levels 1 and 2: small and large, steps of all kinds, columns apart and together. */
static void P(vectors)(void)
{
	static const int sizes[][2] = { { 270, 300 }, { 40, 35 }, { 1, 40000 }, { 40000, 1 }, { 0, 5 } };
	static const int steps[][2] = { { 1, 1 }, { 3, 1 }, { 1, 2 }, { 2, 3 }, { -1, 1 }, { 1, -2 } };

	for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++)
		for (size_t f = 0; f < FACTORS; f++)
			for (size_t i = 0; i < sizeof steps / sizeof *steps; i++) {
				T alpha = P(factors)[f][0], beta = P(factors)[f][1];
				int m = sizes[s][0], n = sizes[s][1], c = (f + i) & 1, gap = i & 1 ? 7 : 0;
				int incx = steps[i][0], incy = steps[i][1];

				P(check_gemv)('N', m, n, gap, alpha, incx, beta, incy, c);
				P(check_gemv)('T', m, n, gap, alpha, incx, beta, incy, !c);
				P(check_dot)(m * n / 2, incx, incy, c);
			}
}

/* A matrix that a product has left with the device, and vectors by which it is multiplied then. */
static void P(resident)(void)
{
	int n = 1536, few = 64, one = 1;
	size_t count = (size_t)n * n;
	T alpha = 1, zero = 0, *a = P(numbers)(count), *b = P(numbers)((size_t)n * few);
	T *c = P(numbers)((size_t)n * few);

	for (int call = 0; call < 3; call++) {
		P(gemm_)("N", "N", &n, &few, &n, &alpha, a, &n, b, &n, &zero, c, &n);
		for (int vector = 0; vector < few; vector += 16) {
			struct P(pair) y = P(pair)(n);
			const T *x = b + (size_t)vector * n;

			P(gemv_)("N", &n, &n, &alpha, a, &n, x, &one, &zero, y.ours, &one);
			memcpy(y.cpus, c + (size_t)vector * n, n * sizeof(T));
			P(same)(y, n, "a column of the product");
		}
	}
	free(a);
	free(b);
	free(c);
}

/* What is no number stays none; odd memory ends as the CPU's BLAS has it. */
static void P(special)(void)
{
	int n = 90, ld = 90, one = 1;
	size_t count = (size_t)n * n;
	T alpha = 1, beta = -1, zero = 0;
	P(gemm_t) *gemm = cpu(STRING(P(gemm_)));
	T *a = P(numbers)(count), *b = P(numbers)(count);
	struct P(pair) c = P(pair)(count);

	a[5 * n + 3] = (T)NAN;
	b[7 * n + 8] = (T)INFINITY;
	b[9 * n + 8] = -(T)INFINITY;
	c.ours[11] = c.cpus[11] = (T)NAN;
	c.ours[12 * n] = c.cpus[12 * n] = (T)INFINITY;
	gemm("N", "N", &n, &n, &n, &alpha, a, &ld, b, &ld, &beta, c.cpus, &ld);
	P(gemm_)("N", "N", &n, &n, &n, &alpha, a, &ld, b, &ld, &beta, c.ours, &ld);
	P(same)(c, n, "no numbers");

	/* C lies over a part of A. */
	c = P(pair)(2 * count);
	gemm("N", "T", &n, &n, &n, &alpha, c.cpus, &ld, b, &ld, &zero, c.cpus + count / 2, &ld);
	P(gemm_)("N", "T", &n, &n, &n, &alpha, c.ours, &ld, b, &ld, &zero, c.ours + count / 2, &ld);
	P(same)(c, n, "overlap");

	/* A block of the matrix that the factors are blocks of, as in an elimination. */
	c = P(pair)(4 * count);
	ld = 2 * n;
	gemm("N", "N", &n, &n, &n, &beta, c.cpus + n, &ld, c.cpus + (size_t)ld * n, &ld, &alpha,
	     c.cpus + (size_t)ld * n + n, &ld);
	P(gemm_)("N", "N", &n, &n, &n, &beta, c.ours + n, &ld, c.ours + (size_t)ld * n, &ld, &alpha,
		 c.ours + (size_t)ld * n + n, &ld);
	P(same)(c, n, "blocks of one matrix");
	ld = n;

	/* No element is aligned. */
	c = P(pair)(count);
	{
		char *room = malloc(count * sizeof(T) + 1);
		T *odd = (T *)(void *)(room + 1);

		memcpy(odd, c.ours, count * sizeof(T));
		gemm("T", "N", &n, &n, &n, &alpha, a, &ld, b, &ld, &beta, c.cpus, &ld);
		P(gemm_)("T", "N", &n, &n, &n, &alpha, a, &ld, b, &ld, &beta, odd, &ld);
		memcpy(c.ours, odd, count * sizeof(T));
		free(room);
	}
	P(same)(c, n, "misaligned");
	free(a);
	free(b);

	/* A function that the library in between does not have. */
	a = P(numbers)(100);
	n = 100;
	{
		T got = PASTE(P(asum), _)(&n, a, &one), sum = 0;

		for (int i = 0; i < n; i++)
			sum += a[i] < 0 ? -a[i] : a[i];
		if (fabs((double)(got - sum)) > 1e-4)
			complain("asum: %g, not %g", (double)got, (double)sum);
	}
	free(a);
}

/* The CPU's BLAS is called as it would have been: the same complaint, and C as it was. */
static void P(refused)(int cpus_info, const struct P(pair) * c, const T *before, const char *what)
{
	if (xerbla_count != 1 || xerbla_info != cpus_info)
		complain("%s: %d complaints, the last of argument %d, not %d", what, xerbla_count,
			 xerbla_info, cpus_info);
	if (memcmp(c->ours, before, c->count * sizeof(T)) != 0)
		complain("%s: C was written", what);
}

static void P(bad_arguments)(void)
{
	static const struct {
		char ta, tb;
		int m, n, k, lda, ldb, ldc;
	} wrong[] = {
		{ 'X', 'N', 9, 9, 9, 9, 9, 9 },	 { 'N', 'X', 9, 9, 9, 9, 9, 9 },
		{ 'N', 'N', -1, 9, 9, 9, 9, 9 }, { 'N', 'N', 9, -1, 9, 9, 9, 9 },
		{ 'N', 'N', 9, 9, -1, 9, 9, 9 }, { 'N', 'N', 9, 9, 9, 8, 9, 9 },
		{ 'T', 'T', 9, 9, 9, 9, 8, 9 },	 { 'N', 'N', 9, 9, 9, 9, 9, 8 },
		{ 'N', 'N', 0, 0, 0, 1, 1, 0 },
	};
	T one = 1, *a = P(numbers)(100), *before = P(numbers)(100);
	struct P(pair) c = P(pair)(100);
	int nine = 9, eight = 8, minus = -1, zero = 0, info;

	memcpy(before, c.ours, 100 * sizeof(T));
	for (size_t w = 0; w < sizeof wrong / sizeof *wrong; w++) {
		((P(gemm_t) *)cpu(STRING(P(gemm_))))(&wrong[w].ta, &wrong[w].tb, &wrong[w].m, &wrong[w].n,
						     &wrong[w].k, &one, a, &wrong[w].lda, a, &wrong[w].ldb,
						     &one, c.cpus, &wrong[w].ldc);
		info = xerbla_info;
		xerbla_count = 0;
		P(gemm_)(&wrong[w].ta, &wrong[w].tb, &wrong[w].m, &wrong[w].n, &wrong[w].k, &one, a,
			 &wrong[w].lda, a, &wrong[w].ldb, &one, c.ours, &wrong[w].ldc);
		P(refused)(info, &c, before, "gemm");
	}
#define REFUSED(routine, ...) \
	do { \
		T *C = c.cpus; \
		((P(routine##_t) *)cpu(STRING(P(routine##_))))(__VA_ARGS__); \
		info = xerbla_info; \
		xerbla_count = 0; \
		C = c.ours; \
		P(routine##_)(__VA_ARGS__); \
		P(refused)(info, &c, before, #routine); \
	} while (0)
	REFUSED(syrk, "X", "N", &nine, &nine, &one, a, &nine, &one, C, &nine);
	REFUSED(syrk, "U", "X", &nine, &nine, &one, a, &nine, &one, C, &nine);
	REFUSED(syrk, "U", "T", &nine, &minus, &one, a, &nine, &one, C, &nine);
	REFUSED(syrk, "L", "N", &nine, &nine, &one, a, &eight, &one, C, &nine);
	REFUSED(syrk, "L", "N", &nine, &nine, &one, a, &nine, &one, C, &eight);
	REFUSED(symm, "X", "U", &nine, &nine, &one, a, &nine, a, &nine, &one, C, &nine);
	REFUSED(symm, "L", "X", &nine, &nine, &one, a, &nine, a, &nine, &one, C, &nine);
	REFUSED(symm, "R", "U", &nine, &minus, &one, a, &nine, a, &nine, &one, C, &nine);
	REFUSED(symm, "R", "U", &eight, &nine, &one, a, &eight, a, &nine, &one, C, &nine);
	REFUSED(symm, "L", "U", &nine, &nine, &one, a, &nine, a, &eight, &one, C, &nine);
	REFUSED(trsm, "X", "U", "N", "N", &nine, &nine, &one, a, &nine, C, &nine);
	REFUSED(trsm, "L", "X", "N", "N", &nine, &nine, &one, a, &nine, C, &nine);
	REFUSED(trsm, "L", "U", "X", "N", &nine, &nine, &one, a, &nine, C, &nine);
	REFUSED(trsm, "L", "U", "N", "X", &nine, &nine, &one, a, &nine, C, &nine);
	REFUSED(trsm, "L", "U", "N", "N", &minus, &nine, &one, a, &nine, C, &nine);
	REFUSED(trsm, "R", "U", "N", "N", &nine, &nine, &one, a, &eight, C, &nine);
	REFUSED(trsm, "R", "U", "N", "N", &nine, &nine, &one, a, &nine, C, &eight);
	REFUSED(gemv, "X", &nine, &nine, &one, a, &nine, a, &nine, &one, C, &nine);
	REFUSED(gemv, "N", &minus, &nine, &one, a, &nine, a, &nine, &one, C, &nine);
	REFUSED(gemv, "N", &nine, &nine, &one, a, &eight, a, &nine, &one, C, &nine);
	REFUSED(gemv, "N", &nine, &nine, &one, a, &nine, a, &zero, &one, C, &nine);
	REFUSED(gemv, "N", &nine, &nine, &one, a, &nine, a, &nine, &one, C, &zero);
#undef REFUSED
	free(a);
	free(before);
	free(c.ours);
	free(c.cpus);
}

/* One call of each kind that is large enough to be cut up. */
static void P(large)(int n)
{
	P(check_gemm)('N', 'T', n, n - 3, n / 2, 0, 1, 0, 0);
	P(check_gemm)('T', 'N', n, n - 3, n / 2, 5, 1, (T)0.5, 1);
	P(check_syrk)('L', 'N', n, n / 2, 3, -1, 1, 0);
	P(check_symm)('L', 'U', n, n / 2, 0, 1, 0, 1);
	P(check_trsm)('L', 'L', 'N', 'U', n, n / 2, 3, 1, 0);
	P(check_trsm)('R', 'U', 'N', 'N', n / 2, n, 0, 1, 1);
}

/* A product with a factor that lies in memory of the caller's. */
static void __attribute__((unused)) P(with_a)(const T *a, int n, T beta)
{
	size_t count = (size_t)n * n;
	struct P(pair) c = P(pair)(count);
	T one = 1, *b = P(numbers)(count);

	((P(gemm_t) *)cpu(STRING(P(gemm_))))("N", "N", &n, &n, &n, &one, a, &n, b, &n, &beta, c.cpus, &n);
	P(gemm_)("N", "N", &n, &n, &n, &one, a, &n, b, &n, &beta, c.ours, &n);
	P(same)(c, n, "a factor that is out of reach");
	free(b);
}

#undef PASTE2
#undef PASTE
#undef STRING2
#undef STRING
#undef CBLAS
#undef FACTORS
