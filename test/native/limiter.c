/* limiter.c against token buckets in floating point, and what its header promises. */
#include "limiter.h"
#include "test.h"
#include <stdlib.h>

#define SECOND UINT64_C(1000000000)

static unsigned int flood(struct limiter *l, uint32_t source, uint64_t from, uint64_t step, unsigned int times)
{
	unsigned int taken = 0;

	for (unsigned int i = 0; i < times; i++)
		taken += limiter_take(l, source, from + i * step) ? 1 : 0;
	return taken;
}

static void one_source(struct suite *s)
{
	struct limiter *l = calloc(1, sizeof *l);
	uint64_t now = 500 * SECOND;

	CHECK(s, flood(l, 7, now, 0, 1000) == LIMITER_PER_SOURCE);
	CHECK(s, flood(l, 7, now + SECOND / 20, 0, 10) == 0);
	CHECK(s, flood(l, 7, now + SECOND / 10, 0, 10) == 1);
	/* A packet each millisecond for ten seconds, from an empty bucket. */
	CHECK(s, flood(l, 7, now + SECOND / 10, SECOND / 1000, 10000) == 10 * LIMITER_PER_SOURCE - 1);
	/* After a long silence there are tokens for one second and no more. */
	CHECK(s, flood(l, 7, now + 9000 * SECOND, 0, 1000) == LIMITER_PER_SOURCE);
	free(l);
}

static void all_sources(struct suite *s)
{
	struct limiter *l = calloc(1, sizeof *l);
	unsigned int taken = 0;

	for (uint32_t source = 0; source < 4000; source++)
		taken += limiter_take(l, source, SECOND * 9) ? 1 : 0;
	CHECK(s, taken == LIMITER_TOTAL);
	/* A token that the total refused was not taken from the source. */
	CHECK(s, flood(l, 3999, SECOND * 10, 0, 100) == LIMITER_PER_SOURCE);
	free(l);
}

struct twin {
	double source[8];
	double total;
	uint64_t last;
};

static void refill(double *bucket, double amount, double most)
{
	*bucket = *bucket + amount > most ? most : *bucket + amount;
}

static bool twin_take(struct twin *t, uint32_t source, uint64_t now)
{
	double seconds = (double)(now - t->last) / (double)SECOND;

	t->last = now;
	refill(&t->total, seconds * LIMITER_TOTAL, LIMITER_TOTAL);
	for (int i = 0; i < 8; i++)
		refill(&t->source[i], seconds * LIMITER_PER_SOURCE, LIMITER_PER_SOURCE);
	if (t->source[source] < 0.999999 || t->total < 0.999999)
		return false;
	t->source[source] -= 1;
	t->total -= 1;
	return true;
}

static void equals_twin(struct suite *s)
{
	struct limiter *l = calloc(1, sizeof *l);
	struct twin t = { .total = LIMITER_TOTAL, .last = SECOND };
	uint64_t now = SECOND;

	for (int i = 0; i < 8; i++)
		t.source[i] = LIMITER_PER_SOURCE;
	for (int i = 0; i < 50000; i++) {
		uint32_t source = suite_below(s, 8);
		now += suite_below(s, i % 1000 < 20 ? 400 : 20) * UINT64_C(1000003);
		CHECK(s, limiter_take(l, source, now) == twin_take(&t, source, now));
	}
	free(l);
}

#define TAKERS 4u

struct taker {
	struct limiter *limiter;
	unsigned int taken;
};

static void *take_many(void *argument)
{
	struct taker *t = argument;

	for (uint32_t i = 0; i < 100000; i++)
		t->taken += limiter_take(t->limiter, i % 400, SECOND * 9 + i % 3) ? 1 : 0;
	return NULL;
}

/* fault N9: several threads together take what one may. */
static void all_threads(struct suite *s)
{
	struct limiter *l = calloc(1, sizeof *l);
	struct taker takers[TAKERS];
	pthread_t threads[TAKERS];
	unsigned int taken = 0;

	limiter_open(l);
	for (unsigned int i = 0; i < TAKERS; i++) {
		takers[i] = (struct taker){ .limiter = l };
		pthread_create(&threads[i], NULL, take_many, &takers[i]);
	}
	for (unsigned int i = 0; i < TAKERS; i++) {
		pthread_join(threads[i], NULL);
		taken += takers[i].taken;
	}
	CHECK(s, taken == LIMITER_TOTAL);
	free(l);
}

int main(void)
{
	struct suite s = { .name = "limiter", .random = 3 };

	one_source(&s);
	all_sources(&s);
	equals_twin(&s);
	all_threads(&s);
	return suite_end(&s);
}
