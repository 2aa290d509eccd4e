/* The peer blocks of layout.h, in which this process keeps what it learns about each peer. */
#ifndef TARTAN_PEER_BLOCKS_H
#define TARTAN_PEER_BLOCKS_H

#include "route-table.h"

/*
 * Fits the blocks to a table before the calling thread reports its generation: zeroes each block of another identity
 * than that of the peer, and gives it the new one. The first thread that adopts a table does it; for any other thread
 * the call returns at once. So when all threads have reported a generation, the blocks of it are fitted.
 */
void peer_blocks_fit(struct counters_file *counters, const struct route_table *table);

#endif
