/*
 * Adds to a counter in the thread's own block. The thread is the only writer, so a load and a store are enough and no
 * locked instruction is needed for a packet. Readers in tartand see whole 64-bit values.
 */
#ifndef TARTAN_COUNT_H
#define TARTAN_COUNT_H

#include "../shared/layout.h"
#include <stdbool.h>

/* What is counted of a packet in addition to the one counter in which it ends. */
struct notes {
	bool trimmed;
	bool options;
	bool unexpected_port;
};

static inline void count_add(struct thread_block *block, enum counter name, uint64_t amount)
{
	_Atomic uint64_t *word = &block->counters[name];

	atomic_store_explicit(word, atomic_load_explicit(word, memory_order_relaxed) + amount, memory_order_relaxed);
}

#endif
