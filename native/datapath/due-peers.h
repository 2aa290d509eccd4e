/* Peers by the time at which something is due for them, the earliest first: a binary heap. Each is in it once at most. */
#ifndef TARTAN_DUE_PEERS_H
#define TARTAN_DUE_PEERS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct due_peer {
	uint64_t at_ns;
	uint32_t peer; /* its number */
};

struct due_peers {
	struct due_peer *entry; /* room for each peer number */
	size_t count;
};

void due_peers_add(struct due_peers *due, uint32_t peer, uint64_t at_ns);

/* The first entry, NULL if there is none. */
static inline const struct due_peer *due_peers_first(const struct due_peers *due)
{
	return due->count == 0 ? NULL : &due->entry[0];
}

/* Gives the first entry another time, or removes it. */
void due_peers_delay_first(struct due_peers *due, uint64_t at_ns);
void due_peers_remove_first(struct due_peers *due);

#endif
