/*
 * Peers to which the kernel refused to send a message with UDP_SEGMENT: the path goes through IPsec, or through an old
 * card without checksums. They are tried again after GSO_DENIED_NS, because paths change. The table is small and has no
 * search: a peer whose entry another peer has taken is tried again at once, and entered again.
 */
#ifndef TARTAN_GSO_DENIED_H
#define TARTAN_GSO_DENIED_H

#include "../shared/layout.h"
#include <stdbool.h>

#define GSO_DENIED_MAX 64u
#define GSO_DENIED_NS UINT64_C(60000000000)

/* 0 is an empty entry, because no peer has the address 0. */
struct gso_denied {
	struct gso_denied_entry {
		uint32_t address;
		uint64_t until_ns;
	} entry[GSO_DENIED_MAX];
};

static inline bool gso_denied_has(const struct gso_denied *d, uint32_t address, uint64_t now_ns)
{
	const struct gso_denied_entry *e = &d->entry[index_hash(address) % GSO_DENIED_MAX];

	return e->address == address && now_ns < e->until_ns;
}

static inline void gso_denied_add(struct gso_denied *d, uint32_t address, uint64_t now_ns)
{
	d->entry[index_hash(address) % GSO_DENIED_MAX] =
		(struct gso_denied_entry){ .address = address, .until_ns = now_ns + GSO_DENIED_NS };
}

#endif
