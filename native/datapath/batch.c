/* The packet memory of a thread; see batch.h. Pages that no packet ever reached cost nothing. */
#include "batch.h"
#include <errno.h>
#include <sys/mman.h>

#define HEADROOM 64u
/*
 * Room for the largest packet and five cache lines more: with a power of two between them the headers of all packets
 * of a batch would fall into the same few cache sets.
 */
#define STRIDE (HEADROOM + 65536u + 256u)

_Static_assert(HEADROOM >= VNET_HEADER_BYTES, "no room for the virtio header");

int batch_open(struct batch *batch)
{
	void *places = mmap(NULL, (size_t)BATCH_PACKETS * STRIDE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (places == MAP_FAILED)
		return errno;
	batch->places = places;
	return 0;
}

uint8_t *batch_packet(const struct batch *batch, size_t i)
{
	return batch->places + i * STRIDE + HEADROOM;
}
