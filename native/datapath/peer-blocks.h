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

/* The block of a peer of the table; NULL if there is no such peer, or its block is still that of another one. */
struct peer_block *peer_blocks_of(struct counters_file *counters, const struct route_table *table, uint32_t number);

/*
 * The learnt path MTU of a peer of the table: bytes of the longest inner packet, IPV4_BYTES_MAX where none is known. The
 * block keeps it as that of the outer packet. It is believed for PATH_MTU_SECONDS. Then a packet is sent whole again: if
 * the path has not become wider the kernel refuses it, which costs one system call and no packet. So a value is gone
 * soon after the kernel's own.
 */
#define PATH_MTU_SECONDS 5u
size_t peer_blocks_path_mtu(const struct counters_file *counters, const struct route_table *table, uint32_t number,
			    uint64_t now_ns);
void peer_blocks_learn_path_mtu(struct counters_file *counters, const struct route_table *table, uint32_t number,
				size_t bytes, uint64_t now_ns);

/* Bytes by which packets that go to the peer by the kernel engine must be shorter than ours; 0 where none do. */
size_t peer_blocks_extra(const struct route_table *table, uint32_t number);

#endif
