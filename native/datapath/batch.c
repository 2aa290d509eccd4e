/* Layout of the packet memory; see batch.h. */
#include "batch.h"
#include <errno.h>
#include <sys/mman.h>

/*
 * The longest datagram and five cache lines more: with a power of two between them the headers of all packets of a
 * batch would fall into the same few cache sets.
 */
#define STRIDE (65536u + 320u)
#define RECEIVING ((size_t)BATCH_PLACES * STRIDE)
/* As much as stays in a second-level cache: three of the longest reads and the packets cut from four. */
#define READING_BYTES ((size_t)3 * STRIDE)
#define CUTTING_BYTES ((size_t)4 * STRIDE + 8192)

int batch_open(struct batch *batch)
{
	void *memory = mmap(NULL, RECEIVING + READING_BYTES + CUTTING_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (memory == MAP_FAILED)
		return errno;
	batch->memory = memory;
	return 0;
}

uint8_t *batch_place(const struct batch *batch, size_t i)
{
	return batch->memory + i * STRIDE;
}

struct arena batch_reading(const struct batch *batch)
{
	return (struct arena){ .bytes = batch->memory + RECEIVING, .room = READING_BYTES };
}

struct arena batch_cutting(const struct batch *batch)
{
	return (struct arena){ .bytes = batch->memory + RECEIVING + READING_BYTES, .room = CUTTING_BYTES };
}
