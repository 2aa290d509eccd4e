/* See round-trips.h. */
#include "round-trips.h"

#define LINEAR 8u /* lengths below are steps of their own */
#define PER_DOUBLING 8u
#define DOUBLING_BITS 3u

static uint32_t step_of(uint64_t us)
{
	if (us < LINEAR)
		return (uint32_t)us;
	const uint32_t top = 63 - (uint32_t)__builtin_clzll(us);
	const uint32_t step = (top - DOUBLING_BITS) * PER_DOUBLING + (uint32_t)(us >> (top - DOUBLING_BITS));
	return step < ROUND_TRIP_STEPS ? step : ROUND_TRIP_STEPS - 1;
}

/* The middle of the lengths of a step. */
static uint32_t length_of(uint32_t step)
{
	if (step < LINEAR)
		return step == 0 ? 1 : step;
	const uint32_t shift = step / PER_DOUBLING - 1;
	return ((step % PER_DOUBLING + PER_DOUBLING) << shift) + (1u << shift) / 2;
}

void round_trips_add(struct round_trips *t, uint64_t us)
{
	if (t->total >= ROUND_TRIPS_MAX) {
		t->total = 0;
		for (uint32_t i = 0; i < ROUND_TRIP_STEPS; i++) {
			t->count[i] /= 2;
			t->total = (uint16_t)(t->total + t->count[i]);
		}
	}
	t->count[step_of(us)]++;
	t->total++;
}

uint32_t round_trips_percentile(const struct round_trips *t, uint32_t percent)
{
	const uint32_t wanted = (t->total * percent + 99) / 100;
	uint32_t seen = 0;

	for (uint32_t i = 0; i < ROUND_TRIP_STEPS && t->total > 0; i++) {
		seen += t->count[i];
		if (seen >= wanted)
			return length_of(i);
	}
	return 0;
}
