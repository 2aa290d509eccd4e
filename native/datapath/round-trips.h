/*
 * The round trips to one peer: how many were of about which length, so that p50 and p99 can be told. Old ones fade: at
 * ROUND_TRIPS_MAX all counts are halved. Pure.
 */
#ifndef TARTAN_ROUND_TRIPS_H
#define TARTAN_ROUND_TRIPS_H

#include <stdint.h>

/* Eight steps to a doubling, from 8 us to a second: a length is known to 9 %. */
#define ROUND_TRIP_STEPS 144u
#define ROUND_TRIPS_MAX 240u
/* p99 of fewer would be the longest of them. */
#define ROUND_TRIPS_P99_MIN 100u

struct round_trips {
	uint16_t total;
	uint8_t count[ROUND_TRIP_STEPS];
};

void round_trips_add(struct round_trips *trips, uint64_t us);

/* The length in microseconds that `percent` of the round trips do not exceed, at least 1; 0 if there are none. */
uint32_t round_trips_percentile(const struct round_trips *trips, uint32_t percent);

#endif
