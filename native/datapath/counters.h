/*
 * Adding to the counters of a thread's own block. The thread is the only writer, so a load and a store are enough: no
 * locked instruction per packet; readers in tartand see whole 64-bit values.
 */
#ifndef TARTAN_COUNTERS_H
#define TARTAN_COUNTERS_H

#include "layout.h"

static inline void counters_add(struct thread_block *block, enum counter name, uint64_t amount)
{
	_Atomic uint64_t *word = &block->counters[name];

	atomic_store_explicit(word, atomic_load_explicit(word, memory_order_relaxed) + amount, memory_order_relaxed);
}

#endif
