/*
 * A token bucket is one word: the time at which it is full again. Taking a token moves that time by 1/rate. A bucket is
 * empty when the time is a second away.
 */
#include "limiter.h"
#include "clock.h"

static bool has_token(uint64_t full_at, uint64_t now, uint64_t cost)
{
	return full_at <= now || full_at - now <= SECOND_NS - cost;
}

static void take(uint64_t *full_at, uint64_t now, uint64_t cost)
{
	*full_at = (*full_at > now ? *full_at : now) + cost;
}

void limiter_open(struct limiter *l)
{
	*l = (struct limiter){ .lock = PTHREAD_MUTEX_INITIALIZER };
}

bool limiter_take(struct limiter *l, uint32_t source, uint64_t now)
{
	const uint64_t source_cost = SECOND_NS / LIMITER_PER_SOURCE;
	const uint64_t total_cost = SECOND_NS / LIMITER_TOTAL;
	uint64_t *of_source = &l->source[source % LIMITER_SOURCES];

	pthread_mutex_lock(&l->lock);
	bool may_take = has_token(*of_source, now, source_cost) && has_token(l->total, now, total_cost);
	if (may_take) {
		take(of_source, now, source_cost);
		take(&l->total, now, total_cost);
	}
	pthread_mutex_unlock(&l->lock);
	return may_take;
}
