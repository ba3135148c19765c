/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* The calls in one precision: T is the type, P(name) the name with its letter. */

typedef void P(gemm_t)(const char *, const char *, const int *, const int *, const int *, const T *,
		       const T *, const int *, const T *, const int *, const T *, T *, const int *,
		       size_t, size_t);
typedef void P(syrk_t)(const char *, const char *, const int *, const int *, const T *, const T *,
		       const int *, const T *, T *, const int *, size_t, size_t);
typedef void P(symm_t)(const char *, const char *, const int *, const int *, const T *, const T *,
		       const int *, const T *, const int *, const T *, T *, const int *, size_t, size_t);
typedef void P(trsm_t)(const char *, const char *, const char *, const char *, const int *,
		       const int *, const T *, const T *, const int *, T *, const int *, size_t, size_t,
		       size_t, size_t);
typedef void P(gemv_t)(const char *, const int *, const int *, const T *, const T *, const int *,
		       const T *, const int *, const T *, T *, const int *, size_t);

typedef T P(dot_t)(const int *, const T *, const int *, const T *, const int *);

extern P(gemm_t) P(gemm_);
extern P(syrk_t) P(syrk_);
extern P(symm_t) P(symm_);
extern P(trsm_t) P(trsm_);
extern P(gemv_t) P(gemv_);
extern P(dot_t) P(dot_);

#define STRING2(a) #a
#define STRING(a) STRING2(a)

/* A BLAS, and three matrices of its own. */
struct P(side) {
	P(gemm_t) *gemm;
	P(syrk_t) *syrk;
	P(symm_t) *symm;
	P(trsm_t) *trsm;
	P(gemv_t) *gemv;
	P(dot_t) *dot;
	T *matrix[3];
	double times[MAX_ROUNDS], calls[MAX_ROUNDS];
};

static void *P(symbol)(void *library, const char *name)
{
	void *function = dlsym(library, name);

	if (!function)
		die(1, name);
	return function;
}

/* Numbers of about 1, and a diagonal that is far from singular. */
static void P(write)(T *matrix, size_t ld, size_t cols)
{
	for (size_t j = 0; j < cols; j++)
		for (size_t i = 0; i < ld; i++)
			matrix[i + j * ld] = (T)(((i * 7 + j * 13) % 64) / 64.0 - 0.5) +
					     (i == j ? (T)cols : 0);
}

static T P(look)(const T *matrix, size_t count)
{
	T sum = 0;

	for (size_t i = 0; i < count; i += 4096 / sizeof(T))
		sum += matrix[i];
	return sum + matrix[count - 1];
}

/* Columns of the three matrices; a single row is kept as a column. */
static void P(columns)(const char *call, const struct shape *shape, size_t cols[3])
{
	int m = shape->m, n = shape->n, k = shape->k;

	cols[0] = cols[1] = cols[2] = 1;
	if (!strcmp(call + 1, "gemm")) {
		cols[0] = m == 1 ? 1 : k;
		cols[1] = cols[2] = n;
	} else if (!strcmp(call + 1, "syrk")) {
		cols[0] = k;
		cols[2] = m;
	} else if (!strcmp(call + 1, "symm") || !strcmp(call + 1, "trsm")) {
		cols[0] = m;
		cols[1] = cols[2] = n;
	} else if (!strcmp(call + 1, "gemv")) {
		cols[0] = n;
	}
}

static void P(call)(const struct P(side) *side, const char *call, const struct shape *shape)
{
	const T one = 1, zero = 0, half = (T)0.5;
	T *a = side->matrix[0], *b = side->matrix[1], *c = side->matrix[2];
	int m = shape->m, n = shape->n, k = shape->k, ld = shape->ld, step = 1;

	if (!strcmp(call + 1, "gemm"))
		side->gemm(m == 1 ? "T" : "N", "N", &m, &n, &k, &one, a, &ld, b, &ld, &zero, c, &ld, 1, 1);
	else if (!strcmp(call + 1, "syrk"))
		side->syrk("L", "N", &m, &k, &one, a, &ld, &half, c, &ld, 1, 1);
	else if (!strcmp(call + 1, "symm"))
		side->symm("L", "L", &m, &n, &one, a, &ld, b, &ld, &half, c, &ld, 1, 1);
	else if (!strcmp(call + 1, "trsm"))
		side->trsm("L", "L", "N", "N", &m, &n, &one, a, &ld, c, &ld, 1, 1, 1, 1);
	else if (!strcmp(call + 1, "gemv"))
		side->gemv("N", &m, &n, &one, a, &ld, b, &step, &half, c, &step, 1);
	else if (!strcmp(call + 1, "dot"))
		*c = side->dot(&m, a, &step, b, &step);
	else
		die(2, call);
}

/* Calls after which the library has measured. */
static void P(settle)(void)
{
	struct P(side) side = { .gemm = P(gemm_) };
	struct shape shape = { SETTLE_SIZE, SETTLE_SIZE, SETTLE_SIZE, SETTLE_SIZE, 0 };

	for (int n = 0; n < 3; n++) {
		side.matrix[n] = calloc((size_t)SETTLE_SIZE * SETTLE_SIZE, sizeof(T));
		P(write)(side.matrix[n], SETTLE_SIZE, SETTLE_SIZE);
	}
	for (int n = 0; n < SETTLE_CALLS; n++)
		P(call)(&side, STRING(P(gemm)), &shape);
	for (int n = 0; n < 3; n++)
		free(side.matrix[n]);
}

static void P(time)(void *other, const char *call, struct shape shape, int rounds)
{
	struct P(side) sides[2] = {
		{ P(gemm_), P(syrk_), P(symm_), P(trsm_), P(gemv_), P(dot_), { 0 }, { 0 }, { 0 } },
		{ P(symbol)(other, STRING(P(gemm_))), P(symbol)(other, STRING(P(syrk_))),
		  P(symbol)(other, STRING(P(symm_))), P(symbol)(other, STRING(P(trsm_))),
		  P(symbol)(other, STRING(P(gemv_))),
		  P(symbol)(other, STRING(P(dot_))), { 0 }, { 0 }, { 0 } },
	};
	int least = shape.m > shape.k ? shape.m : shape.k;
	size_t cols[3];
	unsigned long long offloaded = 0;
	double quotients[MAX_ROUNDS], difference = 0, largest = 0;
	T seen = 0;

	if (shape.ld < least)
		shape.ld = least;
	P(columns)(call, &shape, cols);
	for (int n = 0; n < 6; n++)
		if (!(sides[n / 3].matrix[n % 3] = malloc(shape.ld * cols[n % 3] * sizeof(T))))
			die(1, "no memory");
	for (int round = 0; round < rounds; round++)
		for (int which = 0; which < 2; which++) {
			/* Who is first changes. */
			struct P(side) *side = &sides[which ^ (round & 1)];
			unsigned long long before;
			double begin;

			for (int n = 0; n < 3; n++) {
				P(write)(side->matrix[n], shape.ld, cols[n]);
				if (shape.there)
					bring(side->matrix[n], shape.ld * cols[n] * sizeof(T));
			}
			before = commands();
			begin = now();
			P(call)(side, call, &shape);
			side->calls[round] = now() - begin;
			for (int n = shape.there ? 2 : 0; n < 3; n++)
				seen += P(look)(side->matrix[n], shape.ld * cols[n]);
			side->times[round] = now() - begin;
			offloaded += commands() != before;
		}
	for (int n = 0; n < rounds; n++)
		quotients[n] = sides[0].times[n] / sides[1].times[n];
	for (size_t i = 0; i < shape.ld * cols[2]; i++) {
		double ours = sides[0].matrix[2][i], theirs = sides[1].matrix[2][i];

		difference = fmax(difference, fabs(ours - theirs));
		largest = fmax(largest, fabs(theirs));
	}
	for (int n = 0; n < 6; n++)
		free(sides[n / 3].matrix[n % 3]);
	printf("{\"call\":\"%s\",\"m\":%d,\"n\":%d,\"k\":%d,\"ld\":%d,\"there\":%s,\"rounds\":%d,"
	       "\"offloaded\":%llu,\"coax_seconds\":%.9f,\"call_seconds\":%.9f,\"cpu_seconds\":%.9f,"
	       "\"quotient\":%.4f,\"difference\":%.3e,\"seen\":%d}\n",
	       call, shape.m, shape.n, shape.k, shape.ld, shape.there ? "true" : "false", rounds, offloaded,
	       median(sides[0].times, rounds), median(sides[0].calls, rounds),
	       median(sides[1].times, rounds), median(quotients, rounds),
	       largest > 0 ? difference / largest : 0, seen == seen);
	fflush(stdout);
}

#undef STRING
#undef STRING2
