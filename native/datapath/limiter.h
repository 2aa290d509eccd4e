/*
 * The rate limit of ICMP errors: 10 a second to one source and 1000 a second in all, with bursts of one second's worth.
 * All threads take from one limiter.
 * The table is fixed: sources whose addresses have the same low bits share a bucket. A sender cannot make other sources
 * collide, as it could with a hash.
 */
#ifndef TARTAN_LIMITER_H
#define TARTAN_LIMITER_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#define LIMITER_SOURCES 4096u
#define LIMITER_PER_SOURCE 10u
#define LIMITER_TOTAL 1000u

/* Each word is the time in nanoseconds at which its bucket is full again. A new limiter is full. */
struct limiter {
	pthread_mutex_t lock;
	uint64_t total;
	uint64_t source[LIMITER_SOURCES];
};

void limiter_open(struct limiter *limiter);

/* Takes one token for the source, or none if one of the two buckets is empty. `now_ns` goes back by less than a poll takes. */
bool limiter_take(struct limiter *limiter, uint32_t source, uint64_t now_ns);

#endif
