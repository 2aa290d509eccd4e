/* The clock of everything that the data process times: CLOCK_BOOTTIME, which goes on while the host sleeps. */
#ifndef TARTAN_CLOCK_H
#define TARTAN_CLOCK_H

#include <stdint.h>
#include <time.h>

#define MILLISECOND_NS UINT64_C(1000000)
#define SECOND_NS UINT64_C(1000000000)

static inline uint64_t clock_now_ns(void)
{
	struct timespec now = { 0 };

	clock_gettime(CLOCK_BOOTTIME, &now);
	return (uint64_t)now.tv_sec * SECOND_NS + (uint64_t)now.tv_nsec;
}

/* 0 if `then` is later: two threads may read the clock in the other order than they use it. */
static inline uint64_t clock_since_ns(uint64_t now, uint64_t then)
{
	return now > then ? now - then : 0;
}

#endif
