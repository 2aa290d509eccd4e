/* See turns.h. */
#include "turns.h"
#include <poll.h>
#include <stddef.h>
#include <time.h>

/* A turn that runs on another processor takes microseconds: so many looks. */
#define SPINS 40
/* Else the thread of the sparse flows wants a processor, perhaps this one. The kernel adds 50 us to a pause. */
#define PAUSE_NS 30000
#define WAIT_MS 100
#define PAUSES_MAX (WAIT_MS * 1000000 / (PAUSE_NS + 50000))

void turns_open(struct turns *t, int queue, uint32_t most)
{
	*t = (struct turns){ .queue = queue, .most = most };
}

void turns_begin(struct turns *t)
{
	atomic_fetch_add(&t->count, 1);
}

void turns_end(struct turns *t, bool emptied)
{
	uint32_t count = atomic_load_explicit(&t->count, memory_order_relaxed);

	if (emptied)
		atomic_store_explicit(&t->emptied, count, memory_order_release);
	atomic_store_explicit(&t->count, count + 1, memory_order_release);
}

void turns_stop(struct turns *t)
{
	atomic_store(&t->is_over, true);
}

/* Whoever has emptied the queue has begun a turn before; the caller reads the count after this call. */
static bool is_readable(int fd)
{
	struct pollfd one = { .fd = fd, .events = POLLIN };

	return poll(&one, 1, 0) > 0 && (one.revents & POLLIN) != 0;
}

/* The counts overflow. */
static bool has_reached(const _Atomic uint32_t *count, uint32_t wanted)
{
	return (int32_t)(atomic_load_explicit(count, memory_order_acquire) - wanted) >= 0;
}

void turns_wait(const struct turns *t)
{
	static const struct timespec pause = { .tv_nsec = PAUSE_NS };

	if (t == NULL)
		return;
	const uint32_t begun = atomic_load(&t->count);
	/* The first turn that begins after this. If it finds nothing more, all that waits now is passed on. */
	const uint32_t next = begun % 2 == 0 ? begun + 1 : begun + 2;
	uint32_t taken = begun;
	bool is_taken = false;
	for (int i = 0; i < SPINS + PAUSES_MAX && !atomic_load_explicit(&t->is_over, memory_order_relaxed); i++) {
		if (!is_taken && !is_readable(t->queue)) {
			is_taken = true;
			taken = atomic_load(&t->count);
		}
		/* All is read, and the turn that may hold the last of it has ended. */
		if (is_taken && (taken % 2 == 0 || has_reached(&t->count, taken + 1)))
			return;
		if (has_reached(&t->emptied, next) || has_reached(&t->count, next + 2 * t->most))
			return;
		if (i >= SPINS)
			ppoll(NULL, 0, &pause, NULL);
	}
}
