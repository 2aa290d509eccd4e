/*
 * Peers to which the kernel would not send datagrams in bulk: a path through IPsec or an old card without checksums.
 * A small table without search: a peer that is pushed out by another one is refused, and found, again.
 */
#ifndef TARTAN_REFUSALS_H
#define TARTAN_REFUSALS_H

#include "layout.h"
#include <stdbool.h>

#define REFUSALS_MAX 64u

/* All zero is empty: no peer has the address 0. */
struct refusals {
	uint32_t hop[REFUSALS_MAX];
};

static inline bool refusals_have(const struct refusals *r, uint32_t hop)
{
	return r->hop[index_hash(hop) % REFUSALS_MAX] == hop;
}

static inline void refusals_add(struct refusals *r, uint32_t hop)
{
	r->hop[index_hash(hop) % REFUSALS_MAX] = hop;
}

#endif
