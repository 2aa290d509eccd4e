/*
 * Peers to which the kernel refused to send a message with UDP_SEGMENT: the path goes through IPsec, or through an old
 * card without checksums. The table is small and has no search. A peer whose entry another peer has taken is tried
 * again with UDP_SEGMENT, and entered again.
 */
#ifndef TARTAN_GSO_DENIED_H
#define TARTAN_GSO_DENIED_H

#include "../shared/layout.h"
#include <stdbool.h>

#define GSO_DENIED_MAX 64u

/* 0 is an empty entry, because no peer has the address 0. */
struct gso_denied {
	uint32_t address[GSO_DENIED_MAX];
};

static inline bool gso_denied_has(const struct gso_denied *d, uint32_t address)
{
	return d->address[index_hash(address) % GSO_DENIED_MAX] == address;
}

static inline void gso_denied_add(struct gso_denied *d, uint32_t address)
{
	d->address[index_hash(address) % GSO_DENIED_MAX] = address;
}

#endif
